"""The model_config of a Keras file as a network: every layer with what it takes, for rules over the graph.

Layers are named as the tensors of a bundle name them, those of nested models and wrappers by their path. An activation
that a layer applies itself is a layer of its own behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wio.adapters._keras_config import CONTAINERS, MAX_DEPTH, class_of, first_node, name_of, nodes_of, references
from wio.adapters._keras_layers import net_layer
from wio.errors import FormatError
from wio.network import NetLayer, Network, unused_name

_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError)
# A model that nests itself by calls doubles with every level.
_MOST_LAYERS = 100_000
_OPERATORS = {
    "BatchNormalization": "BatchNormalization",
    "ReLU": "Relu",
    "PReLU": "PRelu",
    "Softmax": "Softmax",
    "Reshape": "Reshape",
    **dict.fromkeys(("LeakyReLU", "ELU", "ThresholdedReLU", "SReLU", "ParametricSoftplus"), "Activation"),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "Embedding"), "Unknown"),
}
_ACTIVATING = frozenset({"Conv", "ConvTranspose", "DepthwiseConv", "LocallyConnected", "Gemm"})
_FUNCTIONS = {"relu": "Relu", "softmax": "Softmax"}


def keras_network(config: Any, names: Sequence[str] = ()) -> Network:
    """The network of a model_config. ``names`` are the layers that the file lists, for those the config leaves unnamed.

    Raises FormatError if the JSON is no model.
    """
    builder = _Builder(names)
    try:
        builder.container(config, "", [], 0)
    except _MALFORMED as error:
        raise FormatError(f"its model_config is malformed: {error!r}") from None
    return Network(tuple(builder.layers))


class _Builder:
    def __init__(self, names: Sequence[str]) -> None:
        self.layers: list[NetLayer] = []
        self._taken: set[str] = set()
        self._names = names
        self._left = _MOST_LAYERS

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
        entrances = [name for name, _ in references(inner.get("input_layers"))]
        outputs: dict[tuple[str, int], list[str]] = {}
        for position, layer in enumerate(layers):
            name = name_of(layer, position, names)
            if name in entrances and incoming:
                outputs[name, 0] = [incoming[min(entrances.index(name), len(incoming) - 1)]]
                continue
            calls = nodes_of(layer)
            start = first_node(layer, name, len(calls), inner)
            for k, call in enumerate(calls or [[]]):
                taken = [each for reference in call for each in outputs.get(reference, [])]
                outputs[name, start + k] = self._layer(layer, prefix + name, taken, depth)
        ends = references(inner.get("output_layers"))
        return [each for reference in ends for each in outputs.get(reference, [])]

    def _layer(self, document: Mapping[str, Any], name: str, inputs: list[str], depth: int) -> list[str]:
        self._left -= 1
        if self._left < 0:
            raise FormatError(f"its model_config calls more than {_MOST_LAYERS} layers")
        class_name, config = class_of(document), document["config"]
        if class_name in CONTAINERS:
            found = self.container(document, f"{name}/", inputs, depth + 1)
            # Which of several outputs a layer takes is not followed: all of them meet in one layer.
            return found if len(found) < 2 else [self._add(name, "Unknown", {}, found)]
        if class_name == "InputLayer":
            return inputs or [self._add(name, "Input", {}, [])]
        if class_name == "TimeDistributed":
            inner = config["layer"]
            if depth > MAX_DEPTH:
                raise FormatError(f"its model_config nests layers deeper than {MAX_DEPTH}")
            return self._layer(inner, f"{name}/{inner['config']['name']}", inputs, depth + 1)
        op, attributes = _operator(name, class_name, config)
        made = self._add(name, op, attributes, inputs)
        function = config.get("activation")
        if op not in _ACTIVATING or function in (None, "linear"):
            return [made]
        return [self._add(f"{made}/activation", _FUNCTIONS.get(str(function), "Activation"), {}, [made])]

    def _add(self, name: str, op: str, attributes: Mapping[str, Any], inputs: Sequence[str]) -> str:
        own = unused_name(name, self._taken)
        self.layers.append(NetLayer(own, op, attributes, tuple(inputs)))
        return own


def _operator(name: str, class_name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A layer's operator, and what rules ask about it beside the attributes that its shapes follow from."""
    if class_name == "Activation":
        function = str(config.get("activation"))
        return ("Identity" if function == "linear" else _FUNCTIONS.get(function, "Activation")), {}
    if class_name == "BatchNormalization":
        return "BatchNormalization", {key: config[key] for key in ("epsilon", "scale", "center") if key in config}
    layer = net_layer(name, class_name, config)
    op = _OPERATORS.get(class_name, "Dropout" if layer.op == "Activation" else layer.op)
    return op, {**layer.attributes, "bias": bool(config.get("use_bias", config.get("bias", True)))}
