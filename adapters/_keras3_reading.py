"""Reads the files of Keras 3: names and layers by what the file records, roles and layouts by its config."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wio.adapters._hdf5_signature import MAGIC
from wio.adapters._keras3_archive import CONFIG, METADATA, WEIGHTS, WEIGHTS_NPZ, Archive, looks_like_keras
from wio.adapters._keras3_archive import MAGIC as ZIP_MAGIC
from wio.adapters._keras3_config import CONTAINERS, LAYERS, LAYERS_2_13, Config, Place
from wio.adapters._keras3_shards import looks_sharded, read_shards
from wio.adapters._keras3_target import (
    FACTS,
)
from wio.adapters._keras3_tree import VARS, Tree, Variable, WeightsFile
from wio.adapters._keras_calls import class_of
from wio.adapters._keras_config import frozen_inside
from wio.adapters._keras_conventions import CHANNELS_LAST, KerasConvention
from wio.adapters._keras_mixed import flattens_of
from wio.bundle import FROM_NAME, Bundle, Tensor
from wio.errors import FormatError
from wio.layout import Layout
from wio.recurrent import KEY

# What compile() leaves on a model (keras 3.15 trainers/trainer.py; tf-keras 2.13 calls the metrics "metrics").
_METRICS = ("metrics", "_metrics", "_compile_metrics", "_loss_tracker", "_compile_loss")
_LARGEST_MEMBER = 64 << 20


def score(path: Path) -> int:
    """20 for a ``.keras``, a ``.weights.h5`` or a sharded ``.weights.json`` of Keras 3, 0 for anything else.

    1 for an HDF5 file that is not sound: no adapter can read it, and this one says why.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except (OSError, ValueError):
        return 0
    if head == MAGIC:
        try:
            return 20 if _looks_like_weights(WeightsFile(path)) else 0
        except FormatError:
            return 1
    return 20 if (looks_like_keras if head.startswith(ZIP_MAGIC) else looks_sharded)(path) else 0


def read_keras3(path: Path) -> Bundle:
    """The bundle of any of the three. FormatError for what Keras never writes."""
    head = _head(path)
    if head.startswith(ZIP_MAGIC):
        return _read_archive(path)
    tree = WeightsFile(path).tree() if head == MAGIC else read_shards(path)
    return _Reading(path.name, tree, None).bundle("weights")


def config_of(bundle: Bundle) -> Any:
    """The config.json of the archive that a bundle was read from, parsed; None where there is none of known layers.

    Raises FormatError where a .wio file remembers something else than Keras writes.
    """
    try:
        members = bundle.metadata.get(FACTS, {}).get("members", ())
        text = next((each.get("text") for each in members if each["name"] == CONFIG), None)
        document = None if text is None else json.loads(text)
        return document if document is not None and class_of(document) in CONTAINERS else None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"what is kept of the file's config.json is not what Keras writes: {error!r}") from None


def _head(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise FormatError(f"{path.name}: is no regular file")
        with path.open("rb") as file:
            return file.read(len(MAGIC))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path.name}: cannot be read: {getattr(error, 'strerror', error)}") from None


def _looks_like_weights(file: WeightsFile) -> bool:
    """Whether an HDF5 file has groups ``vars`` as Keras 3 has them, and no list of layers as Keras 1 and 2 do."""
    members = file.members("/")
    if any(name.startswith("layer_names") for name in file.attribute_names("/")) or "model_weights" in members:
        return False
    if any(name in members for name in (LAYERS, LAYERS_2_13, VARS)):
        return all(name not in members or file.has(name) for name in (LAYERS, LAYERS_2_13, VARS))
    # A subclassed model of before 3.6 without variables of its own: its layers are groups named by attribute.
    return any(file.has(f"{name}/{VARS}") for name in members[:1000])


def _read_archive(path: Path) -> Bundle:
    archive = Archive(path)
    if WEIGHTS not in archive.names:
        if WEIGHTS_NPZ in archive.names:
            raise FormatError(
                f"{path.name}: its weights are {WEIGHTS_NPZ}, which wio does not read",
                remedy="load it in Keras and save it again: model.save writes model.weights.h5",
            )
        raise FormatError(f"{path.name}: no {WEIGHTS}: not a model of Keras 3")
    if CONFIG not in archive.names:
        raise FormatError(f"{path.name}: no {CONFIG}: not a model of Keras 3")
    members = [_member(archive, name) for name in archive.names]
    version = _version(archive.read(METADATA)) if METADATA in archive.names else None
    config = Config(path.name, archive.read(CONFIG), version)
    tree = WeightsFile(path, archive.view(WEIGHTS)).tree()
    archive.close()
    return _Reading(path.name, tree, config).bundle("keras", members, version)


def _member(archive: Archive, name: str) -> dict[str, str]:
    """A member as JSON-able values; weights and what is too large to carry along only by name."""
    if name in (WEIGHTS, WEIGHTS_NPZ) or archive.size(name) > _LARGEST_MEMBER:
        return {"name": name}
    contents = archive.read(name)
    try:
        return {"name": name, "text": contents.decode("utf-8")}
    except UnicodeDecodeError:
        return {"name": name, "base64": base64.b64encode(contents).decode("ascii")}


def _version(text: bytes) -> str | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    version = document.get("keras_version") if isinstance(document, dict) else None
    return version if isinstance(version, str) else None


class _Reading:
    """One tree, with or without the config that says what is in it."""

    def __init__(self, file: str, tree: Tree, config: Config | None) -> None:
        self._file, self._tree, self._config = file, tree, config
        self._places = config.places(tree) if config else {}
        # What the config seems to declare of a tensor and its shape refutes, by the tensor's name.
        self._contradicted: dict[str, str] = {}

    def bundle(self, kind: str, members: list[dict[str, str]] | None = None, version: str | None = None) -> Bundle:
        ordered = list(self._ordered())
        names = self._names(ordered)
        tensors = [self._tensor(variable, names[variable.path]) for variable in ordered]
        data_format = self._config.data_format if self._config else None
        facts: dict[str, Any] = {"kind": kind, **({"version": version} if version else {})}
        if members:
            facts["members"] = members
        facts["groups"] = {path: dict(attributes) for path, attributes in self._tree.groups.items()}
        if self._contradicted:
            facts["contradicted"] = self._contradicted
        facts["variables"] = {v.path: self._record(v, t) for v, t in zip(ordered, tensors, strict=True)}
        metadata: dict[str, Any] = {"adapter": FACTS, "data_format": data_format, "flatten_order": "HWC"}
        if self._config is not None and (layers := self._layers(tensors)):
            metadata["layers"] = layers
        if self._config is not None and (pairs := self._config.batch_norms):
            metadata["batch_norms"] = pairs
        if recurrent := self._recurrent():
            metadata[KEY] = recurrent
        return Bundle(tensors, {**metadata, FACTS: facts})

    def _recurrent(self) -> dict[str, dict[str, Any]]:
        """What the config says of each recurrent layer, and which two are the directions of one."""
        facts: dict[str, dict[str, Any]] = {}
        both: dict[str, dict[str, str]] = {}
        for place in self._places.values():
            if place.recurrent:
                facts[place.layer] = dict(place.recurrent)
            if place.both is not None:
                both.setdefault(place.both[0], {})[place.both[1]] = place.layer
        for layer, named in both.items():
            if len(named) == 2:
                facts[layer] = {"directions": [named["forward"], named["backward"]]}
        return facts

    def _ordered(self) -> Iterator[Variable]:
        """Variables in the order of the model's layers, and what the config does not place after them."""
        by_group: dict[str, list[Variable]] = {}
        for variable in self._tree.variables:
            by_group.setdefault(variable.group, []).append(variable)
        for path in self._places:
            yield from by_group.pop(path, [])
        for rest in by_group.values():
            yield from rest

    def _names(self, variables: list[Variable]) -> dict[str, str]:
        """Tensor names by path; where two would be the same, or one another's path, the path itself is the name."""
        wanted = {variable.path: self._name(variable) for variable in variables}
        taken = Counter(wanted.values())
        return {
            path: name if taken[name] == 1 and (name == path or name not in wanted) else path
            for path, name in wanted.items()
        }

    def _name(self, variable: Variable) -> str:
        place = self._places.get(variable.group)
        if place is not None and variable.path == f"{place.path}/{VARS}/{variable.index}":
            return place.name_of(variable.index)
        chain = self._chain(variable)
        if chain is None or _beside(variable.path) is not None:
            return variable.path
        return f"{chain}/{variable.index}"

    def _chain(self, variable: Variable) -> str | None:
        group = variable.group
        inside = variable.path == f"{group}/{VARS}/{variable.index}"
        return self._tree.chain(group) if group and inside else None

    def _tensor(self, variable: Variable, name: str) -> Tensor:
        place = self._places.get(variable.group)
        role, layout = _beside(variable.path), None
        layer = FROM_NAME if role is None else variable.path.split("/")[0]
        if place is not None:
            layer = place.layer
            if place.weights is not None:
                role, layout = self._declared(variable, place, name)
        return Tensor(
            name,
            variable.dtype,
            variable.shape,
            variable.load,
            role,
            layout,
            variable.path if variable.path != name else None,
            layer,
            raw=variable.raw,
        )

    def _declared(self, variable: Variable, place: Place, name: str) -> tuple[str | None, Layout | None]:
        """Nothing where the shape refutes what was understood of the config: something in it is not known here."""
        weight = (place.weights or ())[int(variable.index)]
        layout = None if weight.layout is None else Layout.parse(weight.layout)
        if layout is not None and (refuted := layout.check(variable.shape)):
            self._contradicted[name] = f"{weight.role} {layout}: {refuted}"
            return None, None
        return weight.role, layout

    def _record(self, variable: Variable, tensor: Tensor) -> dict[str, Any]:
        record: dict[str, Any] = {
            "name": tensor.name,
            "layer": tensor.layer,
            "dtype": tensor.dtype.name,
            "shape": list(tensor.shape),
            "role": tensor.role,
            "layout": None if tensor.layout is None else str(tensor.layout),
            "saved": self._chain(variable),
            "attributes": dict(variable.attributes),
        }
        return {key: value for key, value in record.items() if value is not None and value != {}}

    def _layers(self, tensors: list[Tensor]) -> list[dict[str, Any]]:
        """The model's layers in order, each with its tensors: what formats that load by order need.

        Where a layer holds others, what is trained comes before what is not, unless it is frozen as a whole (keras 3.15
        ``legacy_h5_format.py``).
        """
        held: dict[str, list[tuple[Tensor, bool]]] = {}
        for tensor in tensors:
            path = tensor.origin or tensor.name
            group, _, index = path.rpartition(f"/{VARS}/")
            if tensor.role not in ("optimizer", "other") and (place := self._places.get(group)) is not None:
                trained = place.weights is None or place.weights[int(index)].trainable
                held.setdefault(tensor.layer.split("/")[0], []).append((tensor, trained))
        data_format = self._config.data_format if self._config else None
        convention = KerasConvention("2.2", "tensorflow", data_format or CHANNELS_LAST)
        epsilons = {place.layer: place.epsilon for place in self._places.values()}
        layers = []
        for layer in self._config.top_layers() if self._config else []:
            listed = held.get(layer.name, [])
            if self._config is not None and layer.name not in self._config.frozen:
                listed.sort(key=lambda each: not each[1])
            names = [tensor.name for tensor, _ in listed]
            record: dict[str, Any] = {"name": layer.name, "tensors": names, "kind": layer.class_name}
            if epsilons.get(layer.name) is not None:
                record["epsilon"] = epsilons[layer.name]
            if frozen_inside(layer.weights or ()):
                record["frozen"] = True
            if flattens := flattens_of((tensor for tensor, _ in listed), convention):
                record["flattens"] = flattens
            layers.append(record)
        return layers


def _beside(path: str) -> str | None:
    """The role of what is no weight, by the attribute of the model, or of a layer, that Keras keeps it under."""
    parts = path.split("/")
    if parts[0] == "optimizer":
        return "optimizer"
    return "other" if parts[0] in _METRICS or "seed_generator" in parts[:-1] else None
