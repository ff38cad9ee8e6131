"""The model_config of a Keras file, read as data: what each layer is, and which arrays it declares in which layout.

Nothing is deserialised: the JSON is walked, an unknown class is an unknown class. Keras's own loaders match arrays
to layers by order, so this does too, and checks the order against the arrays' names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from wio.adapters._keras_conventions import CHANNELS_LAST, KerasConvention, version_family
from wio.adapters._keras_layers import (
    Weight,
    data_format,
    flow_of,
    is_cudnn,
    layout_of,
    net_layer,
    recurrent_facts,
    weights_of,
)
from wio.errors import FormatError
from wio.network import TIME, FeatureMap, NetLayer

MAX_DEPTH = 32
CONTAINERS = ("Sequential", "Model", "Functional", "Container")
_STATISTICS = ("batch_norm.mean", "batch_norm.variance", "batch_norm.std")
_KERAS = ("keras", "keras_core", "tf_keras", "tensorflow")


class DeclaredWeight(Struct, frozen=True):
    """What the config says of one array: its role and layout, and the layer inside the group that has it.

    ``trainable`` says whether it is trained: neither a statistic nor in a layer that is frozen.
    """

    role: str
    layout: str | None
    module: str
    leaves: tuple[str, ...]
    trainable: bool
    data_format: str | None

    def spelled_like(self, weight_name: str) -> bool:
        """Whether a name ends as this array's may: ``kernel:0``, ``kernel_1``, ``conv1_W``."""
        last = weight_name.rpartition("/")[2].removesuffix(":0")
        return any(re.search(rf"(?:^|_){re.escape(leaf)}(?:_\d+)?$", last) for leaf in self.leaves)


class DeclaredLayer(Struct, frozen=True):
    """A top-level layer: its name, class, and arrays in Keras's order; None where the class is not known.

    ``recurrent`` has what it says of itself, or of layers inside it, if they are recurrent.
    """

    name: str
    class_name: str
    epsilon: float | None
    weights: tuple[DeclaredWeight, ...] | None
    recurrent: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cudnn: bool = False


class KerasModel:
    """A model_config. ``told_format`` is the data format that the user stated for layers that do not say theirs.

    ``names`` are the layers that the file lists: the configuration of Keras 1 does not name a Sequential inside
    another. Raises FormatError if the JSON is no model.
    """

    def __init__(
        self, config: Any, version: str | None, backend: str, told_format: str | None, names: Sequence[str] = ()
    ) -> None:
        if not isinstance(config, dict) or config.get("class_name") not in CONTAINERS:
            raise FormatError("its model_config is not that of a Sequential or functional model")
        self._version, self._backend = version, backend
        self._family = version_family(version)
        try:
            told = list(_formats(config, 0))
        except (TypeError, AttributeError) as error:
            raise FormatError(f"its model_config is malformed: {error!r}") from None
        # Flatten takes its default from elsewhere than the layers do (2.1.6), so it speaks only where no layer does.
        self.formats = sorted({each for name, each in told if name != "Flatten"} or {each for _, each in told})
        # Layers of either format in one model: none of them speaks for the others.
        self.mixed = len(self.formats) > 1
        self.data_format = told_format or (None if self.mixed or not self.formats else self.formats[0])
        self._told = told_format
        self._names = names
        try:
            layers, _ = self._container(config, [], 0)
            self.frozen = self._saved_as_they_come(config)
            self.layers = [layer if layer.name in self.frozen else _trained_first(layer) for layer in layers]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
            raise FormatError(f"its model_config is malformed: {error!r}") from None

    def _saved_as_they_come(self, config: Mapping[str, Any]) -> frozenset[str]:
        """The layers of which Keras 3 lists no weight before others: those that are frozen as a whole.

        keras 3.15 layer.py, ``non_trainable_weights``. Before 3 only the flags of the layers inside count (keras 1.2.2
        topology.py and 2.2.4 network.py, ``Container.weights``; tf.keras sets them with the container's own).
        """
        inner = config["config"]
        if isinstance(inner, list) or not (self._version or "").startswith("3"):
            return frozenset()
        return frozenset(
            name_of(layer, k, ()) for k, layer in enumerate(inner["layers"]) if _is_frozen(layer["config"])
        )

    def _convention(self, config: Mapping[str, Any]) -> KerasConvention:
        return KerasConvention(self._family, self._backend, data_format(config) or self.data_format or CHANNELS_LAST)

    def _container(
        self, config: Mapping[str, Any], incoming: Sequence[FeatureMap | None], depth: int
    ) -> tuple[list[DeclaredLayer], FeatureMap | None]:
        """The layers of a container, and what it gives out, for what flows into it."""
        if depth > MAX_DEPTH:
            raise FormatError(f"its model_config nests models deeper than {MAX_DEPTH}")
        inner = config["config"]
        layers = inner if isinstance(inner, list) else inner["layers"]
        functional = not isinstance(inner, list) and config["class_name"] != "Sequential"
        found: list[DeclaredLayer] = []
        outputs: dict[tuple[str, int], FeatureMap | None] = {}
        flowing = incoming[0] if incoming else None
        entrances = [name for name, *_ in references(inner.get("input_layers"))] if functional else []
        for position, document in enumerate(layers):
            name = name_of(document, position, self._names if depth == 0 and len(self._names) == len(layers) else ())
            nodes = nodes_of(document) if functional else [[]]
            start = first_node(document, name, len(nodes), inner) if functional else 0
            if functional and name in entrances and incoming:
                place = min(entrances.index(name), len(incoming) - 1)
                outputs[name, 0] = incoming[place]
                found.append(DeclaredLayer(name, str(document["class_name"]), None, ()))
                continue
            for k, node in enumerate(nodes or [[]]):
                inputs = [outputs.get(reference) for reference in node] if functional else [flowing]
                declared, flowing = self._layer(document, name, inputs, depth)
                outputs[name, start + k] = flowing
                if k == 0:
                    found.append(declared)
        if functional:
            ends = [outputs.get((name, k)) for name, k in references(inner.get("output_layers"))]
            flowing = ends[0] if ends else None
        return found, flowing

    def _layer(
        self, document: Mapping[str, Any], name: str, inputs: list[FeatureMap | None], depth: int
    ) -> tuple[DeclaredLayer, FeatureMap | None]:
        class_name, config = class_of(document), document["config"]
        shape = None
        if isinstance(config, dict):
            shape = config.get("batch_input_shape") or config.get("batch_shape")
        if shape and all(each is None for each in inputs):
            inputs = [self._input(tuple(shape[1:]))]
        if class_name in CONTAINERS:
            sub, out = self._container(document, inputs, depth + 1)
            facts = _under(name, *(layer.recurrent for layer in sub))
            return DeclaredLayer(
                name, class_name, None, _nested(sub, name), facts, any(layer.cudnn for layer in sub)
            ), out
        if class_name == "InputLayer":
            return DeclaredLayer(name, class_name, None, ()), inputs[0] if inputs else None
        if class_name in ("TimeDistributed", "Bidirectional"):
            return self._wrapper(class_name, name, config, inputs, depth)
        network = net_layer(name, class_name, config)
        incoming = _as_told(inputs[0] if inputs else None, network, self.data_format)
        weights = weights_of(class_name, config, self._version, self._backend)
        declared = None
        if weights is not None:
            convention = self._convention(config)
            declared = tuple(
                DeclaredWeight(
                    w.role,
                    layout_of(w, class_name, config, convention, incoming, self._version),
                    name,
                    w.leaves,
                    w.trainable and not _is_frozen(config),
                    data_format(config),
                )
                for w in weights
            )
        if class_name == "Permute" and self.mixed:
            return DeclaredLayer(name, class_name, None, ()), _permuted(incoming, config["dims"])
        flow = flow_of(class_name, config, network, [incoming, *inputs[1:]])
        facts = recurrent_facts(class_name, config)
        told = {name: facts} if facts else {}
        return DeclaredLayer(name, class_name, config.get("epsilon"), declared, told, is_cudnn(class_name)), flow

    def _input(self, sizes: tuple[Any, ...]) -> FeatureMap:
        """What enters a model: its axes are known only where a data format was told or is the same in every layer."""
        axes: tuple[str, ...] | None = None
        if len(sizes) == 1:
            axes = ("C",)
        return FeatureMap(axes, sizes)

    def _wrapper(
        self, class_name: str, name: str, config: Mapping[str, Any], inputs: list[FeatureMap | None], depth: int
    ) -> tuple[DeclaredLayer, FeatureMap | None]:
        inner = config["layer"]
        inner_name = inner["config"]["name"]
        if class_name == "TimeDistributed":
            steps = [_without_time(each) for each in inputs]
            declared, out = self._layer(inner, inner_name, steps, depth + 1)
            timed = (
                None
                if out is None
                else FeatureMap((TIME, *out.axes) if out.axes else None, (None, *out.sizes), out.flat)
            )
            inside = replace(
                declared, weights=_inside(declared.weights, name), recurrent=_under(name, declared.recurrent)
            )
            return replace(inside, name=name), timed
        # Keras 3 writes the inner layer's name with its direction already.
        inner_name = inner_name.removeprefix("forward_")
        forward, out = self._layer(inner, f"forward_{inner_name}", inputs, depth + 1)
        backward, _ = self._layer(inner, f"backward_{inner_name}", inputs, depth + 1)
        both = None
        if forward.weights is not None and backward.weights is not None:
            both = (*(_inside(forward.weights, name) or ()), *(_inside(backward.weights, name) or ()))
        facts = {
            name: {"directions": [f"{name}/{forward.name}", f"{name}/{backward.name}"]},
            **_under(name, forward.recurrent, backward.recurrent),
        }
        flow = _both_ways(out, config.get("merge_mode"))
        return DeclaredLayer(name, class_name, None, both, facts, forward.cudnn), flow


def _as_told(incoming: FeatureMap | None, layer: NetLayer, told: str | None) -> FeatureMap | None:
    """The incoming map, its axes named by the layer's data format, or by the file's where the layer has none.

    A layer reads what it is given in its own format, whatever the layer before it meant by the axes.
    """
    if incoming is None or incoming.flat:
        return incoming
    rank = len(incoming.sizes)
    letters = layer.attributes.get("letters") or {2: "W", 3: "HW", 4: "DHW"}.get(rank, "")
    # A rank is looked at only to spell the letters of a data format that was declared, never to find one.
    own = layer.attributes.get("data_format") if layer.op != "Flatten" else None
    declared = own or told
    if declared is None or len(letters) + 1 != rank:
        return incoming
    axes = ("C", *letters) if declared != CHANNELS_LAST and letters != "W" else (*letters, "C")
    if incoming.axes is not None and (own is None or sorted(incoming.axes) != sorted(axes)):
        return incoming
    return FeatureMap(axes, incoming.sizes)


def _permuted(incoming: FeatureMap | None, dims: Sequence[int]) -> FeatureMap | None:
    """What Permute gives out. Followed only where a model mixes data formats: elsewhere another format has another."""
    if incoming is None or incoming.flat or sorted(dims) != list(range(1, len(incoming.sizes) + 1)):
        return None
    axes = tuple(incoming.axes[dim - 1] for dim in dims) if incoming.axes else None
    return FeatureMap(axes, tuple(incoming.sizes[dim - 1] for dim in dims))


def _both_ways(out: FeatureMap | None, mode: Any) -> FeatureMap | None:
    """What Bidirectional gives out, for what each direction does; without a mode it gives both, unmerged."""
    if out is None or mode is None:
        return None
    units = out.sizes[-1]
    if mode == "concat":
        units = None if units is None else units * 2
    return FeatureMap(out.axes, (*out.sizes[:-1], units))


def _without_time(fmap: FeatureMap | None) -> FeatureMap | None:
    if fmap is None or not fmap.sizes:
        return None
    return FeatureMap(fmap.axes[1:] if fmap.axes else None, fmap.sizes[1:], fmap.flat)


def _under(group: str, *facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What layers inside a group say of themselves, by their names in the file."""
    return {f"{group}/{layer}": _directions_under(group, told) for each in facts for layer, told in each.items()}


def _directions_under(group: str, told: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**told, "directions": [f"{group}/{each}" for each in told["directions"]]} if "directions" in told else told


def _inside(weights: tuple[DeclaredWeight, ...] | None, group: str) -> tuple[DeclaredWeight, ...] | None:
    return None if weights is None else tuple(replace(w, module=f"{group}/{w.module}") for w in weights)


def _nested(layers: Sequence[DeclaredLayer], group: str) -> tuple[DeclaredWeight, ...] | None:
    """The arrays of a nested model, layer by layer."""
    if any(layer.weights is None for layer in layers):
        return None
    return tuple(w for layer in layers for w in _inside(layer.weights, group) or ())


def _trained_first(layer: DeclaredLayer) -> DeclaredLayer:
    """A layer with its arrays in the order in which a file lists them: all that are trained, then all that are not.

    keras 3.15 legacy_h5_format.py, ``_legacy_weights``; keras 2.2.4 network.py and 1.2.2 topology.py, ``weights``.
    """
    if layer.weights is None:
        return layer
    return replace(layer, weights=tuple(sorted(layer.weights, key=lambda weight: not weight.trainable)))


def frozen_inside(weights: Collection[DeclaredWeight]) -> bool:
    """Whether the order of a layer's arrays hangs on what is frozen: it holds several, and some could be trained."""
    several = len({weight.module for weight in weights}) > 1
    return several and any(not w.trainable and w.role not in _STATISTICS for w in weights)


def _is_frozen(config: Any) -> bool:
    return isinstance(config, Mapping) and config.get("trainable") is False


def class_of(document: Mapping[str, Any]) -> str:
    """The class of a layer; one that is not Keras's own is called by its module or package too, and so is no known one.

    Keras 3 writes where a class comes from, ``module`` and ``registered_name`` (keras 3.15 serialization_lib.py,
    ``serialize_keras_object``; null for one of a script); what came before writes only its name, ``package>Name``.
    """
    name, registered = str(document.get("class_name")), document.get("registered_name")
    if "module" not in document:
        return name
    module = str(document["module"])
    if module.split(".")[0] in _KERAS and registered in (None, name):
        return name
    return str(registered) if ">" in str(registered) else f"{module}>{name}"


def name_of(document: Mapping[str, Any], position: int, names: Sequence[str]) -> str:
    """A layer's name; where the configuration has none, that of its place in the file, or else a mark of its place."""
    config = document["config"]
    name = document.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return str(name or (names[position] if names else f"unnamed_{position}"))


def first_node(document: Mapping[str, Any], name: str, calls: int, inner: Mapping[str, Any]) -> int:
    """The number by which others refer to the first call of a layer.

    A nested model was called once before, when it was made, so its calls count from 1 (keras 2.2.4 network.py,
    ``kept_nodes``); in Keras 3 that is not so for a Sequential. The references tell: every call that is kept is
    referred to, so the highest number among n calls is n - 1 or n.
    """
    if document["class_name"] not in CONTAINERS:
        return 0
    nodes = [node for layer in inner["layers"] for node in nodes_of(layer)]
    taken = [reference for node in [*nodes, references(inner.get("output_layers"))] for reference in node]
    return int(max((place for taker, place in taken if taker == name), default=0) == calls)


def references(value: Any) -> list[tuple[str, int]]:
    """``[[name, node, tensor], ...]``, or the flat ``[name, node, tensor]`` of Keras 3 for a single one."""
    if not value:
        return []
    if isinstance(value[0], str):
        value = [value]
    return [(str(each[0]), int(each[1])) for each in value]


def nodes_of(document: Mapping[str, Any]) -> list[list[tuple[str, int]]]:
    """For each time a layer is called, what it is called on. Keras 3 writes calls as arguments."""
    nodes = []
    for node in document.get("inbound_nodes", []):
        if isinstance(node, dict):
            nodes.append([reference for argument in node.get("args", []) for reference in _histories(argument, 0)])
        else:
            nodes.append(references(node))
    return nodes


def _histories(argument: Any, depth: int) -> list[tuple[str, int]]:
    if depth > MAX_DEPTH:
        return []
    if isinstance(argument, dict) and argument.get("class_name") == "__keras_tensor__":
        name, node, _ = argument["config"]["keras_history"]
        return [(str(name), int(node))]
    if isinstance(argument, list):
        return [reference for each in argument for reference in _histories(each, depth + 1)]
    return []


def _formats(document: Any, depth: int) -> list[tuple[str, str]]:
    """Class and data format of every layer that declares one, layers of one dimension left out."""
    if depth > MAX_DEPTH or not isinstance(document, dict):
        return []
    class_name, config = class_of(document), document.get("config")
    if class_name in CONTAINERS:
        layers = config if isinstance(config, list) else config.get("layers", []) if isinstance(config, dict) else []
        return [each for layer in layers for each in _formats(layer, depth + 1)]
    if not isinstance(config, dict):
        return []
    if class_name in ("TimeDistributed", "Bidirectional"):
        return _formats(config.get("layer"), depth + 1)
    told = data_format(config)
    return [] if told is None or class_name.endswith("1D") else [(class_name, told)]


__all__ = ["DeclaredLayer", "DeclaredWeight", "KerasModel", "Weight"]
