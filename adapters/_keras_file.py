"""What an HDF5 file of Keras 1 or 2 says of itself: its version, its backend, and what wio left in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wio.adapters import _keras_early as early
from wio.adapters._hdf5 import H5File
from wio.adapters._keras_writer import DECLARATIONS
from wio.errors import FormatError

WEIGHTS = "model_weights"
BACKENDS = ("tensorflow", "theano")
# Backends of Keras 3, which keeps on all of them what it keeps on TensorFlow (keras 3.15 legacy_h5_format.py).
_OF_KERAS_3 = ("jax", "torch", "numpy", "openvino")


def evidence_of(path: Path) -> str | None:
    """What a file that names no backend, or an unknown one, offers as evidence."""
    file = H5File(path)
    backend = backend_of(file)
    if backend is not None:
        return f"the file names backend {backend!r}: {_WHY_UNKNOWN.get(backend, _UNKNOWN)}"
    if early.numbered_names(file) is not None:
        return (
            "the file is of Keras before 1.0, which names neither its backend nor its arrays; Theano's kernels run "
            "backwards"
        )
    names = _weight_names(file)
    if not names:
        return None
    suffixed = sum(name.endswith(":0") for name in names)
    what = "TensorFlow writes that suffix, Theano does not" if suffixed else "Theano writes none, TensorFlow writes it"
    return (
        f"the file does not name its backend, and Theano's kernels run backwards; evidence: {suffixed} of "
        f"{len(names)} weight names end in ':0' ({what}, but a file can be converted and keep its names)"
    )


_UNKNOWN = "wio does not know whether its kernels run backwards"
_WHY_UNKNOWN = {
    "cntk": "the loaders of Keras 2.0.9 to 2.3.1 take its kernels for those of TensorFlow, those before flip them "
    "(keras 2.2.4 saving.py, _need_convert_kernel); no CNTK has been at hand to see which is right"
}


def short(backend: str) -> str:
    return "tf" if backend == "tensorflow" else backend


def sniffed_backend(path: Path) -> tuple[bool, str | None]:
    """Whether an HDF5 file is of Keras 1 or 2, and the backend that it names."""
    try:
        file = H5File(path)
        if file.strings(root_of(file), "layer_names") is None and early.numbered_names(file) is None:
            return False, None
        return True, backend_of(file)
    except (OSError, FormatError):
        return False, None


def root_of(file: H5File) -> str:
    """The group that lists the layers: ``model_weights`` in a full model, the file itself in a weights file."""
    listed = any(name.startswith("layer_names") for name in file.attribute_names("/"))
    return "/" if listed or not file.has(WEIGHTS) else WEIGHTS


def text_attribute(file: H5File, group: str, name: str) -> str | None:
    value = file.value(group, name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def backend_of(file: H5File) -> str | None:
    """The ``backend`` attribute: of the file, or of its weights group (keras >= 2.0.0 writes both).

    Keras 1 has none; in a file that wio wrote for it, what wio left there says it. Any of Keras 3 counts as TensorFlow.
    """
    named = text_attribute(file, "/", "backend") or text_attribute(file, root_of(file), "backend")
    if named in _OF_KERAS_3 and (version_of(file) or "").startswith("3."):
        return "tensorflow"
    return named or (left_by_wio(file) or {}).get("backend")


def version_of(file: H5File) -> str | None:
    return text_attribute(file, root_of(file), "keras_version") or text_attribute(file, "/", "keras_version")


def left_by_wio(file: H5File) -> dict[str, Any] | None:
    """What wio keeps of backend, roles and layouts in a weights file it wrote; None if there is nothing."""
    place = next((name for name in DECLARATIONS if file.has(name) and not file.is_group(name)), None)
    if place is None:
        return None
    try:
        document = json.loads(bytes(file.dataset(place).load()))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("wio") != 1 or not isinstance(document.get("tensors"), dict):
        raise FormatError(f"{file.name}: the dataset {place!r} is not what wio writes there")
    return document


def receipt_left(file: H5File) -> dict[str, Any] | None:
    """The receipt that wio left in a weights file it wrote, or None."""
    receipt = (left_by_wio(file) or {}).get("receipt")
    if receipt is not None and not isinstance(receipt, dict):
        raise FormatError(f"{file.name}: the receipt is no JSON object")
    return receipt


def _weight_names(file: H5File) -> list[str]:
    root = root_of(file)
    layers = file.strings(root, "layer_names") or []
    return [name for layer in layers for name in file.strings(f"{root}/{layer}", "weight_names") or []]
