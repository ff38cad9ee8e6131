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

from wio.adapters._keras_calls import (
    CONTAINERS,
    MAX_DEPTH,
    MOST_LAYERS,
    Reference,
    calls_in_order,
    class_of,
    name_of,
    references,
)
from wio.adapters._keras_conventions import CHANNELS_LAST, KerasConvention, version_family
from wio.adapters._keras_layers import (
    FLAT_UNKNOWN,
    Weight,
    are_directions,
    as_backward,
    data_format,
    flow_of,
    is_cudnn,
    layout_of,
    net_layer,
    recurrent_facts,
    states_of,
    weights_of,
)
from wio.errors import FormatError
from wio.network import TIME, FeatureMap, NetLayer

Maps = Sequence[FeatureMap | None]
_STATISTICS = ("batch_norm.mean", "batch_norm.variance", "batch_norm.std")


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
        self._left = MOST_LAYERS
        # By document and name, what the calls of a layer up to now agree on.
        self._agreed: dict[tuple[int, str], tuple[DeclaredWeight, ...] | None] = {}
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

    def _container(self, config: Mapping[str, Any], incoming: Maps, depth: int) -> tuple[list[DeclaredLayer], Maps]:
        """The layers of a container, and what each of its outputs gives, for what flows into it."""
        if depth > MAX_DEPTH:
            raise FormatError(f"its model_config nests models deeper than {MAX_DEPTH}")
        inner = config["config"]
        layers = inner if isinstance(inner, list) else inner["layers"]
        given = self._names if depth == 0 and len(self._names) == len(layers) else ()
        names = [name_of(document, position, given) for position, document in enumerate(layers)]
        if isinstance(inner, list) or config["class_name"] == "Sequential":
            found, flowing = [], incoming
            for document, name in zip(layers, names, strict=True):
                declared, flowing = self._layer(document, name, flowing, depth)
                found.append(declared)
            return found, flowing
        entrances = [name for name, *_ in references(inner.get("input_layers"))]
        by_place: dict[int, DeclaredLayer] = {}
        outputs: dict[tuple[str, int], Maps] = {}

        def taken(reference: Reference) -> FeatureMap | None:
            maps = outputs.get(reference[:2], ())
            return maps[reference[2]] if 0 <= reference[2] < len(maps) else None

        for place, number, node in calls_in_order(layers, names, inner):
            document, name = layers[place], names[place]
            if name in entrances and incoming:
                known = len(incoming) == len(entrances)
                outputs[name, number] = [incoming[entrances.index(name)] if known else None]
                by_place[place] = DeclaredLayer(name, class_of(document), None, ())
                continue
            by_place[place], outputs[name, number] = self._layer(document, name, [*map(taken, node)], depth)
        ends = [taken(reference) for reference in references(inner.get("output_layers"))]
        return [by_place[place] for place in sorted(by_place)], ends

    def _layer(self, document: Mapping[str, Any], name: str, inputs: Maps, depth: int) -> tuple[DeclaredLayer, Maps]:
        self._left -= 1
        if self._left < 0:
            raise FormatError(f"its model_config calls more than {MOST_LAYERS} layers")
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
            return DeclaredLayer(name, class_name, None, ()), inputs[:1]
        if class_name in ("TimeDistributed", "Bidirectional"):
            return self._wrapper(class_name, name, config, inputs, depth)
        network = net_layer(name, class_name, config)
        incoming = _as_told(inputs[0] if inputs else None, network, self.data_format)
        declared = self._weights(class_name, name, config, incoming)
        # The first of several calls must not speak for the others: what they do not agree on nobody knows.
        if declared != self._agreed.setdefault((id(document), name), declared):
            declared = self._weights(class_name, name, config, FLAT_UNKNOWN)
            self._agreed[id(document), name] = declared
        if class_name == "Permute" and self.mixed:
            return DeclaredLayer(name, class_name, None, ()), [_permuted(incoming, config["dims"])]
        flow = flow_of(class_name, config, network, [incoming, *inputs[1:]])
        facts = recurrent_facts(class_name, config)
        told = {name: facts} if facts else {}
        layer = DeclaredLayer(name, class_name, config.get("epsilon"), declared, told, is_cudnn(class_name))
        return layer, [flow, *states_of(class_name, config)]

    def _weights(
        self, class_name: str, name: str, config: Mapping[str, Any], incoming: FeatureMap | None
    ) -> tuple[DeclaredWeight, ...] | None:
        """The arrays of a plain layer for what flows into it; None for a class whose arrays are not known."""
        weights = weights_of(class_name, config, self._version, self._backend)
        if weights is None:
            return None
        convention = self._convention(config)
        return tuple(
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

    def _input(self, sizes: tuple[Any, ...]) -> FeatureMap:
        """What enters a model: its axes are known only where a data format was told or is the same in every layer."""
        axes: tuple[str, ...] | None = None
        if len(sizes) == 1:
            axes = ("C",)
        return FeatureMap(axes, sizes)

    def _wrapper(
        self, class_name: str, name: str, config: Mapping[str, Any], inputs: Maps, depth: int
    ) -> tuple[DeclaredLayer, Maps]:
        inner = config["layer"]
        inner_name = inner["config"]["name"]
        if class_name == "TimeDistributed":
            steps = [_without_time(each) for each in inputs]
            declared, outs = self._layer(inner, inner_name, steps, depth + 1)
            out = outs[0] if len(outs) == 1 else None
            timed = (
                None
                if out is None
                else FeatureMap((TIME, *out.axes) if out.axes else None, (None, *out.sizes), out.flat)
            )
            inside = replace(
                declared, weights=_inside(declared.weights, name), recurrent=_under(name, declared.recurrent)
            )
            return replace(inside, name=name), [timed]
        forward_name = f"forward_{inner_name.removeprefix('forward_')}"
        other = config.get("backward_layer")
        backward_name = f"backward_{inner_name.removeprefix('forward_')}"
        if other is not None:
            # Keras 3 writes both as they are called, tf.keras a backward layer as it was before it was renamed.
            named = str(other["config"]["name"])
            backward_name = named if inner_name == forward_name else f"backward_{named}"
        forward, outs = self._layer(inner, forward_name, inputs[:1], depth + 1)
        backward, others = self._layer(other or inner, backward_name, inputs[:1], depth + 1)
        both = None
        if forward.weights is not None and backward.weights is not None:
            both = (*(_inside(forward.weights, name) or ()), *(_inside(backward.weights, name) or ()))
        pair: dict[str, Mapping[str, Any]] = {}
        against = dict(backward.recurrent)
        if other is None or are_directions(inner, other):
            pair[name] = {"directions": [f"{name}/{forward.name}", f"{name}/{backward.name}"]}
            if other is not None and (told := as_backward(against.pop(backward.name, {}))):
                against[backward.name] = told
        facts = {**pair, **_under(name, forward.recurrent, against)}
        flow = _both_ways(outs, others, config.get("merge_mode"))
        return DeclaredLayer(name, class_name, None, both, facts, forward.cudnn or backward.cudnn), flow


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


def _both_ways(forward: Maps, backward: Maps, mode: Any) -> Maps:
    """What Bidirectional gives out, for what each direction does, and then the states of either.

    Without a mode it gives both, unmerged.
    """
    if mode is None:
        return [forward[0], backward[0], *forward[1:], *backward[1:]]
    ahead, back = forward[0], backward[0]
    if ahead is None or back is None or ahead.axes != back.axes:
        return [None, *forward[1:], *backward[1:]]
    units: int | None = ahead.sizes[-1]
    if mode == "concat":
        units = None if units is None or back.sizes[-1] is None else units + back.sizes[-1]
    return [FeatureMap(ahead.axes, (*ahead.sizes[:-1], units)), *forward[1:], *backward[1:]]


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
