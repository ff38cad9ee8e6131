"""Reads Keras HDF5: layers and arrays in the file's order, roles from its model_config, everything else as metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wio.adapters._hdf5 import H5File
from wio.adapters._keras_config import DeclaredLayer, KerasModel
from wio.adapters._keras_conventions import KerasConvention, version_family
from wio.adapters._keras_writer import DECLARATIONS
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError, LayoutError, WioError
from wio.layout import Layout
from wio.recurrent import KEY as RECURRENT

WEIGHTS = "model_weights"
OPTIMIZER = "optimizer_weights"
# Weights that a model of Keras 3 has beside its layers; layer_names does not list the group (legacy_h5_format.py).
TOP_LEVEL = "top_level_model_weights"
BACKENDS = ("tensorflow", "theano")


def evidence_of(path: Path) -> str | None:
    """What a file that names no backend, or an unknown one, offers as evidence."""
    file = H5File(path)
    backend = backend_of(file)
    if backend is not None:
        return f"the file names backend {backend!r}, whose kernels wio does not know to be flipped or not"
    names = _weight_names(file)
    if not names:
        return None
    suffixed = sum(name.endswith(":0") for name in names)
    what = "TensorFlow writes that suffix, Theano does not" if suffixed else "Theano writes none, TensorFlow writes it"
    return (
        f"the file does not name its backend, and Theano's kernels run backwards; evidence: {suffixed} of "
        f"{len(names)} weight names end in ':0' ({what}, but a file can be converted and keep its names)"
    )


def short(backend: str) -> str:
    return "tf" if backend == "tensorflow" else backend


def sniffed_backend(path: Path) -> tuple[bool, str | None]:
    """Whether an HDF5 file is of Keras 1 or 2, and the backend that it names."""
    try:
        file = H5File(path)
        if file.strings(_root(file), "layer_names") is None:
            return False, None
        return True, backend_of(file)
    except (OSError, FormatError):
        return False, None


def _root(file: H5File) -> str:
    """The group that lists the layers: ``model_weights`` in a full model, the file itself in a weights file."""
    attributes = file.group("/").attrs
    listed = any(name.startswith("layer_names") for name in attributes)
    return "/" if listed or not file.has(WEIGHTS) else WEIGHTS


def _text_attribute(file: H5File, group: str, name: str) -> str | None:
    value = file.group(group).attrs.get(name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def backend_of(file: H5File) -> str | None:
    """The ``backend`` attribute: of the file, or of its weights group (keras >= 2.0.0 writes both).

    Keras 1 has none; in a file that wio wrote for it, what wio left there says it.
    """
    named = _text_attribute(file, "/", "backend") or _text_attribute(file, _root(file), "backend")
    return named or (_left_by_wio(file) or {}).get("backend")


def _left_by_wio(file: H5File) -> dict[str, Any] | None:
    """What wio keeps of backend, roles and layouts in a weights file it wrote; None if there is nothing."""
    if not file.has(DECLARATIONS):
        return None
    try:
        document = json.loads(bytes(file.dataset(DECLARATIONS).load()))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("wio") != 1 or not isinstance(document.get("tensors"), dict):
        raise FormatError(f"{file.name}: the dataset {DECLARATIONS!r} is not what wio writes there")
    return document


def _weight_names(file: H5File) -> list[str]:
    root = _root(file)
    layers = file.strings(root, "layer_names") or []
    return [name for layer in layers for name in file.strings(f"{root}/{layer}", "weight_names") or []]


class Reading:
    """One pass over one file: tensors in the file's order, and everything else as metadata."""

    def __init__(self, file: H5File, backend: str, told_format: str | None) -> None:
        self._file, self._backend = file, backend
        self._root = _root(file)
        self._version = _text_attribute(file, self._root, "keras_version") or _text_attribute(
            file, "/", "keras_version"
        )
        self._told = told_format
        self._model = self._parse_config()
        self._declared = {layer.name: layer for layer in self._model.layers} if self._model else {}
        self._kept = self._kept_declarations()

    def bundle(self) -> Bundle:
        names = self._file.strings(self._root, "layer_names")
        if names is None:
            raise FormatError(
                f"{self._file.name}: no layer_names: not a weights file of Keras 1 or 2",
                remedy="files of Keras before 1.0 (nb_layers, param_N) name no layers and are not read yet",
            )
        repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        if repeated:
            raise FormatError(f"{self._file.name}: layers are named twice: {sorted(repeated)[:5]}")
        layers: list[dict[str, Any]] = []
        tensors: list[Tensor] = []
        for name in names:
            found = self._layer(name)
            tensors += [tensor for tensor, _ in found]
            layers.append(self._layer_record(name, found))
        if TOP_LEVEL not in names and self._file.has(f"{self._root}/{TOP_LEVEL}"):
            found = self._layer(TOP_LEVEL)
            tensors += [tensor for tensor, _ in found]
            layers.append({**self._layer_record(TOP_LEVEL, found), "unlisted": True})
        tensors += self._optimizer()
        return Bundle(tensors, self._metadata(layers))

    def _layer_record(self, name: str, found: list[tuple[Tensor, str]]) -> dict[str, Any]:
        record: dict[str, Any] = {"name": name, "tensors": [tensor.name for tensor, _ in found]}
        record["stored_as"] = [stored for _, stored in found]
        declared = self._declared.get(name)
        if declared is not None:
            record["kind"] = declared.class_name
            if declared.epsilon is not None:
                record["epsilon"] = declared.epsilon
        return record

    def _layer(self, layer: str) -> list[tuple[Tensor, str]]:
        group = f"{self._root.rstrip('/')}/{layer}"
        weight_names = self._file.strings(group, "weight_names") or []
        declared = self._declared.get(layer)
        matched = _matched(declared, weight_names)
        found = []
        for k, weight_name in enumerate(weight_names):
            short = weight_name.removesuffix(":0")
            short = short.removeprefix(f"{layer}/")
            name, origin = f"{layer}/{short}", f"{layer}/{weight_name}"
            dataset = self._file.dataset(f"{group}/{weight_name}")
            role = layout = None
            module = layer
            if matched is not None:
                weight = matched[k]
                role, module = weight.role, weight.module
                layout = None if weight.layout is None else Layout.parse(weight.layout)
            elif origin in self._kept:
                role, text, module = self._kept[origin]
                layout = None if text is None else Layout.parse(text)
            if layout is not None and (refuted := layout.check(dataset.shape)):
                raise LayoutError(
                    f"{self._file.name}: {name}: its model_config declares what its shape refutes: {refuted}"
                )
            tensor = Tensor(
                name,
                dataset.dtype,
                dataset.shape,
                dataset.load,
                role,
                layout,
                origin if origin != name else None,
                module,
            )
            found.append((tensor, weight_name))
        return found

    def _optimizer(self) -> list[Tensor]:
        if not self._file.has(OPTIMIZER):
            return []
        found = []
        for weight_name in self._file.strings(OPTIMIZER, "weight_names") or []:
            dataset = self._file.dataset(f"{OPTIMIZER}/{weight_name}")
            name = f"{OPTIMIZER}/{weight_name.removesuffix(':0')}"
            origin = f"{OPTIMIZER}/{weight_name}"
            found.append(
                Tensor(
                    name,
                    dataset.dtype,
                    dataset.shape,
                    dataset.load,
                    "optimizer",
                    None,
                    origin if origin != name else None,
                    OPTIMIZER,
                )
            )
        return found

    def _parse_config(self) -> KerasModel | None:
        text = _text_attribute(self._file, "/", "model_config")
        if text is None:
            return None
        try:
            config = json.loads(text)
        except (ValueError, RecursionError):
            raise FormatError(f"{self._file.name}: its model_config is no JSON") from None
        try:
            names = self._file.strings(self._root, "layer_names") or []
            return KerasModel(config, self._version, self._backend, self._told, names)
        except WioError as error:
            raise FormatError(f"{self._file.name}: {error.message}") from None

    def _kept_declarations(self) -> dict[str, tuple[str | None, str | None, str]]:
        """Roles and layouts that wio left in a weights file it wrote; the file itself has no place for them."""
        document = _left_by_wio(self._file)
        if document is None or document.get("backend") != self._backend:
            return {}
        try:
            return {
                path: (each.get("role"), each.get("layout"), str(each.get("layer", path.rpartition("/")[0])))
                for path, each in document["tensors"].items()
            }
        except AttributeError:
            raise FormatError(f"{self._file.name}: the dataset {DECLARATIONS!r} is not what wio writes there") from None

    def _names_type(self, layers: list[dict[str, Any]]) -> str:
        """How the lists of names are stored: ``fixed`` by h5py 2, of variable length by h5py 3."""
        lists = [(self._root, "layer_names"), *((f"{self._root}/{layer['name']}", "weight_names") for layer in layers)]
        types = {text for group, name in lists if (text := self._file.text_type(group, name)) is not None}
        [text, *others] = types or {"fixed"}
        return text if text.endswith("-variable") and not others else "fixed"

    def _metadata(self, layers: list[dict[str, Any]]) -> dict[str, Any]:
        groups = (
            ["/"] + ([WEIGHTS] if self._root == WEIGHTS else []) + ([OPTIMIZER] if self._file.has(OPTIMIZER) else [])
        )
        attributes = {
            group: {
                name: value
                for name, value in self._file.attributes(group).items()
                if not name.startswith(("layer_names", "weight_names"))
            }
            for group in groups
        }
        data_format = self._model.data_format if self._model else self._told
        family = version_family(self._version)
        recurrent = {name: facts for each in self._declared.values() for name, facts in each.recurrent.items()}
        if not recurrent and self._kept:
            recurrent = (_left_by_wio(self._file) or {}).get(RECURRENT) or {}
        return {
            "adapter": f"keras-{short(self._backend)}",
            "data_format": data_format,
            "flatten_order": KerasConvention(family, self._backend, data_format).flatten_order if data_format else None,
            "layers": layers,
            **({RECURRENT: recurrent} if recurrent else {}),
            "keras": {
                "backend": self._backend,
                "version": self._version,
                "family": family,
                "full_model": self._root == WEIGHTS,
                "attributes": attributes,
                "names": self._names_type(layers),
                "reshapes": [
                    each.name for each in self._declared.values() if each.class_name in ("Reshape", "Permute")
                ],
                "optimizer": [name for name in attributes if name == OPTIMIZER],
                "cudnn": [each.name for each in self._declared.values() if each.cudnn],
            },
        }


def _matched(declared: DeclaredLayer | None, weight_names: Iterable[str]) -> tuple[Any, ...] | None:
    """What the config declares of each array, if order, number and names all agree; None if anything does not."""
    names = list(weight_names)
    if declared is None or declared.weights is None or len(declared.weights) != len(names):
        return None
    agree = all(weight.spelled_like(name) for weight, name in zip(declared.weights, names, strict=True))
    return declared.weights if agree else None
