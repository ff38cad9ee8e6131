"""Reads Keras HDF5: layers and arrays in the file's order, roles from its model_config, everything else as metadata."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from wio.adapters import _keras_early as early
from wio.adapters._hdf5 import H5File
from wio.adapters._keras_calls import MAX_DEPTH
from wio.adapters._keras_config import DeclaredLayer, DeclaredWeight, KerasModel, frozen_inside
from wio.adapters._keras_conventions import KerasConvention, version_family
from wio.adapters._keras_file import (
    BACKENDS,
    WEIGHTS,
    left_by_wio,
    receipt_left,
    root_of,
    short,
    text_attribute,
    version_of,
)
from wio.adapters._keras_graph import batch_norms
from wio.adapters._keras_mixed import flattens_of
from wio.adapters._keras_writer import DECLARATIONS
from wio.adapters._mapped_files import MappedFile
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError, LayoutError, WioError
from wio.layout import Layout
from wio.recurrent import KEY as RECURRENT

OPTIMIZER = "optimizer_weights"
# Weights that a model of Keras 3 has beside its layers; layer_names does not list the group (legacy_h5_format.py).
TOP_LEVEL = "top_level_model_weights"
_LARGEST_CONFIG = 64 << 20


def config_of(bundle: Bundle) -> tuple[Any, list[str]] | None:
    """The model_config of the file that a bundle was read from, parsed, and its layers' names; None for weights alone.

    Raises FormatError where a .wio file remembers something else than Keras writes.
    """
    try:
        [text] = bundle.metadata["keras"]["attributes"]["/"]["model_config"]["value"]
        names = [layer["name"] for layer in bundle.metadata["layers"]]
    except KeyError:
        return None
    except (TypeError, ValueError):
        raise FormatError("what is kept of the file's model_config is not what Keras writes") from None
    return _json_of(text), names


def _json_of(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise FormatError("its model_config is no JSON") from None


class Reading:
    """One pass over one file: tensors in the file's order, and everything else as metadata."""

    def __init__(self, file: H5File, backend: str, told_format: str | None, config: Path | None = None) -> None:
        self._file, self._backend = file, backend
        self._root = root_of(file)
        self._numbered = early.numbered_names(file)
        self._version = version_of(file) if self._numbered is None else early.VERSION
        self._told = told_format
        self._beside_it = None if config is None else config.name
        self._batch_norms: dict[str, str] = {}
        self._model = self._parse_config(config)
        self._declared = {layer.name: layer for layer in self._model.layers} if self._model else {}
        self._kept = self._kept_declarations()
        # What the model_config seems to declare of a tensor and its shape refutes, by the tensor's name.
        self._contradicted: dict[str, str] = {}
        told = self._model.data_format if self._model and not self._model.mixed else None
        family = version_family(self._version)
        # Where the data format is the only one, and a Flatten may have another.
        self._flattening = KerasConvention(family, backend, told) if told and family == "2.2" else None

    def bundle(self) -> Bundle:
        names = self._layer_names()
        if names is None:
            raise FormatError(f"{self._file.name}: no layer_names and no nb_layers: not a weights file of Keras 1 or 2")
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

    def _layer_names(self) -> list[str] | None:
        return self._file.strings(self._root, "layer_names") if self._numbered is None else list(self._numbered)

    def _stored_names(self, layer: str, group: str) -> list[str]:
        if self._numbered is not None:
            return self._numbered[layer]
        return self._file.strings(group, "weight_names") or []

    def _layer_record(self, name: str, found: list[tuple[Tensor, str]]) -> dict[str, Any]:
        record: dict[str, Any] = {"name": name, "tensors": [tensor.name for tensor, _ in found]}
        record["stored_as"] = [stored for _, stored in found]
        declared = self._declared.get(name)
        if declared is not None:
            record["kind"] = declared.class_name
            if declared.epsilon is not None:
                record["epsilon"] = declared.epsilon
            if frozen_inside(declared.weights or ()):
                record["frozen"] = True
        if self._flattening is not None and (own := flattens_of((t for t, _ in found), self._flattening)):
            record["flattens"] = own
        return record

    def _layer(self, layer: str) -> list[tuple[Tensor, str]]:
        group = f"{self._root.rstrip('/')}/{layer}"
        weight_names = self._stored_names(layer, group)
        matched = _matched(self._declared.get(layer), weight_names, named=self._numbered is None)
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
                if matched is None:
                    raise LayoutError(f"{self._file.name}: {name}: wio left what its shape refutes: {refuted}")
                if self._beside_it is not None:
                    raise LayoutError(
                        f"{self._file.name}: {name}: {self._beside_it} declares what its shape refutes: {refuted}",
                        remedy="name the JSON of this very model with option config",
                    )
                # Something in the config is not known here, so that it was misunderstood.
                self._contradicted[name] = f"{role} {layout}: {refuted}"
                role = layout = None
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

    def _parse_config(self, beside: Path | None) -> KerasModel | None:
        text = text_attribute(self._file, "/", "model_config")
        if beside is not None and text is not None:
            raise FormatError(f"{self._file.name}: has a model_config of its own", remedy="leave out option config")
        where = self._file.name if beside is None else beside.name
        if beside is not None:
            text = _small_text(beside)
        if text is None:
            return None
        try:
            config = _json_of(text)
            if beside is not None and isinstance(config, dict):
                config = self._beside(config)
            model = KerasModel(config, self._version, self._backend, self._told, self._layer_names() or [])
        except WioError as error:
            raise FormatError(f"{where}: {error.message}", remedy=error.remedy) from None
        self._batch_norms = batch_norms(config, model.data_format)
        return model

    def _beside(self, config: dict[str, Any]) -> dict[str, Any]:
        """The ``to_json()`` of the model, which knows the version where weights of Keras 1 alone do not.

        It has ``keras_version`` since 1.0, ``backend`` since 2.0 (keras 1.0.5 and 2.2.4 topology.py, _updated_config).
        """
        if self._numbered is not None:
            return early.in_later_words(config, len(self._numbered))
        named = config.get("backend")
        if named in BACKENDS and named != self._backend:
            raise FormatError(f"it is of a model on {named}", remedy=f"read the weights as keras-{short(named)}")
        version = config.get("keras_version")
        if self._version is None and isinstance(version, str):
            self._version = version
        return config

    def _kept_declarations(self) -> dict[str, tuple[str | None, str | None, str]]:
        """Roles and layouts that wio left in a weights file it wrote; the file itself has no place for them."""
        document = left_by_wio(self._file)
        if document is None or document.get("backend") != self._backend:
            return {}
        try:
            return {
                path: (each.get("role"), each.get("layout"), str(each.get("layer", path.rpartition("/")[0])))
                for path, each in document["tensors"].items()
            }
        except AttributeError:
            raise FormatError(f"{self._file.name}: {DECLARATIONS[0]!r} is not what wio writes there") from None

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
                if not name.startswith(("layer_names", "weight_names", early.LAYERS))
            }
            for group in groups
        }
        mixed = self._model is not None and self._model.mixed
        data_format = None if mixed else self._model.data_format if self._model else self._told
        family = version_family(self._version)
        recurrent = {name: facts for each in self._declared.values() for name, facts in each.recurrent.items()}
        if not recurrent and self._kept:
            recurrent = (left_by_wio(self._file) or {}).get(RECURRENT) or {}
        return {
            "adapter": f"keras-{short(self._backend)}",
            "data_format": data_format,
            "flatten_order": KerasConvention(family, self._backend, data_format).flatten_order if data_format else None,
            "layers": layers,
            **({"batch_norms": self._batch_norms} if self._batch_norms else {}),
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
                **({"receipt": receipt} if (receipt := receipt_left(self._file)) is not None else {}),
                **({"data_formats": self._own_formats()} if mixed else {}),
                **({"contradicted": self._contradicted} if self._contradicted else {}),
                "cudnn": [each.name for each in self._declared.values() if each.cudnn],
            },
        }

    def _own_formats(self) -> dict[str, str]:
        """The data format of each layer that has one, for a model that mixes them."""
        weights = [weight for layer in self._declared.values() for weight in layer.weights or ()]
        return {weight.module: weight.data_format for weight in weights if weight.data_format is not None}


def _matched(
    declared: DeclaredLayer | None, weight_names: Sequence[str], named: bool
) -> tuple[DeclaredWeight, ...] | None:
    """What the config declares of each array; None if number, order and names do not tell.

    Order decides where the names agree with it. Where they name other layers, as after freezing a part of a nested
    model whose config is older, they decide, if they tell every layer apart.
    """
    if declared is None or declared.weights is None or len(declared.weights) != len(weight_names):
        return None
    weights = declared.weights
    if not named:
        return weights
    endings = _endings(weights)
    named_layers = [_named_layers(endings, name) for name in weight_names]
    agree = all(
        weight.spelled_like(name) and (not layers or weight.module in layers)
        for weight, name, layers in zip(weights, weight_names, named_layers, strict=True)
    )
    return weights if agree else _by_layer(weights, weight_names, named_layers)


def _by_layer(
    weights: Sequence[DeclaredWeight], weight_names: Sequence[str], named_layers: Sequence[Collection[str]]
) -> tuple[DeclaredWeight, ...] | None:
    """Each array in the layer that its name alone names; freezing never changes the order within a layer."""
    left: dict[str, list[DeclaredWeight]] = {}
    for weight in reversed(weights):
        left.setdefault(weight.module, []).append(weight)
    found = []
    for name, layers in zip(weight_names, named_layers, strict=True):
        candidates = left[next(iter(layers))] if len(layers) == 1 else []
        if not candidates or not candidates[-1].spelled_like(name):
            return None
        found.append(candidates.pop())
    return tuple(found)


def _endings(weights: Sequence[DeclaredWeight]) -> dict[str, set[str]]:
    """The layers by what their arrays' names may have of them: the ends of their paths; ``p_W`` in Keras 1."""
    endings: dict[str, set[str]] = {}
    for weight in weights:
        parts = weight.module.split("/")
        spelled = [f"{parts[-1]}_{leaf}" for leaf in weight.leaves]
        for ending in (*spelled, *("/".join(parts[k:]) for k in range(len(parts)))):
            endings.setdefault(ending, set()).add(weight.module)
    return endings


def _named_layers(endings: Mapping[str, Collection[str]], weight_name: str) -> Collection[str]:
    """The layers that a stored name names most closely; none for a name that Keras made otherwise.

    ``inner/p/kernel`` and ``p/kernel:0`` name the layer ``outer/inner/p``; behind it may stand a cell
    (``bi/forward_lstm/lstm_cell/kernel``).
    """
    *path, last = weight_name.removesuffix(":0").split("/")
    path = path[-MAX_DEPTH:]
    if not path:
        return endings.get(last, ())
    ends = ("/".join(path[start:end]) for end in range(len(path), 0, -1) for start in range(end))
    return next((endings[end] for end in ends if end in endings), ())


def _small_text(path: Path) -> str:
    file = MappedFile(path)
    if file.size > _LARGEST_CONFIG:
        raise FormatError(f"{path.name}: larger than a model's JSON can be")
    try:
        return bytes(file.view).decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{path.name}: is no text") from None
