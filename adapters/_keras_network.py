"""The model_config of a Keras file as a network: every layer with what it takes, for rules over the graph.

Layers are named as the tensors of a bundle name them, those of nested models and wrappers by their path. An activation
that a layer applies itself is a layer of its own behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from wio.adapters._keras_calls import (
    CONTAINERS,
    MAX_DEPTH,
    MOST_LAYERS,
    class_of,
    first_node,
    name_of,
    nodes_of,
    references,
)
from wio.adapters._keras_operators import function_of, operator_of
from wio.architectures.parameters import PARTS
from wio.errors import FormatError
from wio.network import NetLayer, Network, axis_of, unused_name

_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError)
_ACTIVATING = frozenset({"Conv", "ConvTranspose", "DepthwiseConv", "LocallyConnected", "Gemm"})
# They take several maps; with one, as keras.ops write it, the other is a constant.
_MERGING = frozenset({"Add", "Mul", "Max", "Average"})


def keras_network(config: Any, names: Sequence[str] = ()) -> Network:
    """The network of a model_config. ``names`` are the layers that the file lists, for those the config leaves unnamed.

    Raises FormatError if the JSON is no model.
    """
    builder = _Builder(names)
    try:
        outputs = builder.container(config, "", [], 0)
        return _with_letters(builder.network(outputs))
    except _MALFORMED as error:
        raise FormatError(f"its model_config is malformed: {error!r}") from None


def _with_letters(network: Network) -> Network:
    """The network with the letter of each axis that a layer works along, where what flows into it is known."""
    maps = network.feature_maps()

    def told(layer: NetLayer) -> NetLayer:
        if layer.op not in ("BatchNormalization", "Softmax") or "axis" not in layer.attributes:
            return layer
        letter = axis_of(layer, maps[layer.inputs[0]] if layer.inputs else None)
        if letter is None:
            return layer
        attributes = {**layer.attributes, "axis": letter}
        if layer.op == "BatchNormalization" and letter != "C":
            attributes["unsaid"] = f"it normalises over {letter}"
        return replace(layer, attributes=attributes)

    return Network(tuple(map(told, network.layers)))


class _Builder:
    def __init__(self, names: Sequence[str]) -> None:
        self.layers: list[NetLayer] = []
        self._taken: set[str] = set()
        self._names = names
        self._left = MOST_LAYERS
        self._entrances: list[str] = []

    def network(self, outputs: list[str]) -> Network:
        """The layers, inputs first in the model's order. Where outputs are not simply what nothing takes, in the order
        of the layers, an Identity for each stands at the end."""
        places = {name: k for k, name in enumerate(self._entrances)}
        layers = sorted(
            self.layers, key=lambda layer: places.get(layer.name, len(places)) if layer.op == "Input" else len(places)
        )
        consumed = {name for layer in layers for name in layer.inputs}
        if outputs != [layer.name for layer in layers if layer.name not in consumed]:
            layers += [
                NetLayer(unused_name(f"{name}/output", self._taken), "Identity", {}, (name,)) for name in outputs
            ]
        return Network(tuple(layers))

    def container(self, document: Mapping[str, Any], prefix: str, incoming: list[str], depth: int) -> list[str]:
        """The layers of a container, given what flows into it; gives the names of its outputs."""
        if depth > MAX_DEPTH:
            raise FormatError(f"its model_config nests models deeper than {MAX_DEPTH}")
        inner = document["config"]
        layers = inner if isinstance(inner, list) else inner["layers"]
        names = self._names if depth == 0 and len(self._names) == len(layers) else ()
        if isinstance(inner, list) or document["class_name"] == "Sequential":
            for position, layer in enumerate(layers):
                incoming = self._layer(layer, prefix + name_of(layer, position, names), incoming, depth)
            return incoming
        entrances = [name for name, *_ in references(inner.get("input_layers"))]
        if not depth:
            self._entrances = entrances
        outputs: dict[tuple[str, int], list[str]] = {}
        for position, layer in enumerate(layers):
            name = name_of(layer, position, names)
            if name in entrances and incoming:
                outputs[name, 0] = [incoming[min(entrances.index(name), len(incoming) - 1)]]
                continue
            calls = nodes_of(layer)
            start = first_node(layer, name, len(calls), inner)
            for k, call in enumerate(calls or [[]]):
                taken = [each for reference in call for each in outputs.get(reference[:2], [])]
                outputs[name, start + k] = self._layer(layer, prefix + name, taken, depth)
        ends = references(inner.get("output_layers"))
        return [each for reference in ends for each in outputs.get(reference[:2], [])]

    def _layer(self, document: Mapping[str, Any], name: str, inputs: list[str], depth: int) -> list[str]:
        self._left -= 1
        if self._left < 0:
            raise FormatError(f"its model_config calls more than {MOST_LAYERS} layers")
        class_name, config = class_of(document), document["config"]
        if class_name in CONTAINERS:
            found = self.container(document, f"{name}/", inputs, depth + 1)
            # Which of several outputs a layer takes is not followed: all of them meet in one layer.
            return found if len(found) < 2 else [self._add(name, "Unknown", {"unsaid": "several outputs"}, found)]
        if class_name == "InputLayer":
            return inputs or [self._add(name, "Input", _input(config), [])]
        if class_name == "TimeDistributed":
            inner = config["layer"]
            if depth > MAX_DEPTH:
                raise FormatError(f"its model_config nests layers deeper than {MAX_DEPTH}")
            return self._layer(inner, f"{name}/{inner['config']['name']}", inputs, depth + 1)
        op, attributes = operator_of(name, class_name, config)
        if op in _MERGING and len(inputs) < 2:
            op, attributes = "Unknown", {"unsaid": f"{class_name} of a map and a constant"}
        made = self._add(name, op, attributes, inputs)
        if op not in _ACTIVATING or config.get("activation") in (None, "linear"):
            return [made]
        return [self._add(f"{made}/activation", *function_of(config["activation"]), [made])]

    def _add(self, name: str, op: str, attributes: Mapping[str, Any], inputs: Sequence[str]) -> str:
        own = unused_name(name, self._taken)
        if own != name and op in PARTS:
            attributes = {**attributes, "unsaid": f"the weights of {name}, which is called again"}
        self.layers.append(NetLayer(own, op, attributes, tuple(inputs)))
        return own


def _input(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of an input as far as its config has them; in which order their axes lie it does not say."""
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if not isinstance(shape, list | tuple) or len(shape) < 2:
        return {}
    sizes = [size if isinstance(size, int) else None for size in shape[1:]]
    return {"sizes": sizes, "axes": "C"} if len(sizes) == 1 else {"sizes": sizes}
