"""Keras HDF5 files (``.h5``, ``.hdf5``) of Keras 1 and 2 on TensorFlow and on Theano: two conventions, one reader.

The file's ``backend`` attribute decides which convention holds; where it has none, ``--from`` does, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from wio.adapter import Adapter, Convention, Option, Target
from wio.adapters._hdf5 import H5File
from wio.adapters._hdf5_signature import MAGIC
from wio.adapters._keras_conventions import CHANNELS_LAST, DATA_FORMATS, VERSIONS, KerasConvention, agreed
from wio.bundle import Bundle
from wio.errors import FormatError
from wio.network import Network


class _KerasHDF5(Adapter):
    backend: ClassVar[str]
    writes = True
    suffix = ".h5"
    options = (
        Option("keras", "the Keras that will load the file", VERSIONS, "2.2", writing=True),
        Option(
            "data_format",
            "writing: that of the model that will load the file (default: the source's, else channels_last); "
            "reading: that of layers which do not say theirs",
            DATA_FORMATS,
            reading=True,
            writing=True,
        ),
        Option(
            "config",
            "the JSON file of the model's to_json(), for weights without a model_config",
            reading=True,
        ),
        Option(
            "layers",
            "the layers in the model's order, NAME,NAME,...: for loading by order where the source has lost it",
            writing=True,
        ),
    )

    def sniff(self, path: Path) -> int:
        try:
            if not path.is_file():
                return 0
            with path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    return 0
        except (OSError, ValueError):
            return 0
        from wio.adapters._keras_file import BACKENDS, sniffed_backend

        is_keras, backend = sniffed_backend(path)
        return 20 if is_keras and (backend not in BACKENDS or backend == self.backend) else 0

    def evidence(self, path: Path) -> str | None:
        from wio.adapters._keras_file import evidence_of

        return evidence_of(path)

    def convention(self, **options: str) -> Convention:
        return self._convention(options).table()

    def _convention(self, options: Mapping[str, str]) -> KerasConvention:
        return KerasConvention(options.get("keras", "2.2"), self.backend, options.get("data_format", CHANNELS_LAST))

    def convention_of(self, bundle: Bundle) -> Convention:
        family = bundle.metadata.get("keras", {}).get("family", "2.2")
        told = bundle.metadata.get("data_format")
        formats = [told] if told else DATA_FORMATS
        return agreed([KerasConvention(family, self.backend, each).table() for each in formats])

    def read(self, path: Path, **options: str) -> Bundle:
        from wio.adapters._keras_file import BACKENDS, backend_of, short
        from wio.adapters._keras_reading import Reading

        options = self.checked(options, writing=False)
        file = H5File(path)
        named = backend_of(file)
        if named in BACKENDS and named != self.backend:
            raise FormatError(
                f"{path.name}: the file says that its backend is {named}", remedy=f"read it as keras-{short(named)}"
            )
        config = Path(options["config"]) if "config" in options else None
        return Reading(file, self.backend, options.get("data_format"), config).bundle()

    def receipt(self, path: Path) -> dict[str, Any] | None:
        from wio.adapters._keras_file import receipt_left

        return receipt_left(H5File(path))

    def network(self, bundle: Bundle, path: Path | None = None, **options: str) -> Network | None:  # noqa: ARG002
        """The network of the model_config; a weights file has none."""
        from wio.adapters._keras_network import keras_network
        from wio.adapters._keras_reading import config_of

        found = config_of(bundle)
        return None if found is None else keras_network(*found)

    def target(self, bundle: Bundle, **options: str) -> Target:
        from wio.adapters._keras_target import keras_target

        return keras_target(bundle, self.backend, self.checked(options, writing=True))

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        from wio.adapters._keras_writer import write_keras

        self.checked(options, writing=True)
        write_keras(path, bundle)


class KerasTF(_KerasHDF5):
    name = "keras-tf"
    description = "Keras 1 and 2 HDF5 on TensorFlow: kernels as cross-correlation"
    backend = "tensorflow"


class KerasTheano(_KerasHDF5):
    name = "keras-theano"
    description = "Keras 1 and 2 HDF5 on Theano: kernels as convolution, space runs backwards"
    backend = "theano"
