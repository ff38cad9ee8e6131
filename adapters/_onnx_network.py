"""The main graph of an ONNX model as a network: its nodes with what they take, named as the bundle names layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wio.adapters._onnx_bundle import epsilons_of, layer_names
from wio.adapters._onnx_graph import findings_of
from wio.adapters._onnx_maps import integer, integers, string
from wio.adapters._onnx_messages import Model, Node, Value
from wio.adapters._onnx_weights import Weight
from wio.network import NetLayer, Network, unused_name

_SAME = frozenset({"Conv", "ConvTranspose", "BatchNormalization", "Relu", "PRelu", "Softmax", "LRN", "Dropout"})
_OPERATORS = {
    **{op: op for op in _SAME},
    **{op: op for op in ("MaxPool", "AveragePool", "Concat", "Pad", "Identity", "Flatten", "Reshape", "Resize")},
    **dict.fromkeys(("Gemm", "MatMul"), "Gemm"),
    **dict.fromkeys(("Add", "Sum"), "Add"),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), "GlobalPool"),
    **dict.fromkeys(("Transpose", "Squeeze", "Unsqueeze", "Cast"), "Reshape"),
    **dict.fromkeys(("LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "ThresholdedRelu"), "Activation"),
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Clip"), "Activation"),
}


def onnx_network(model: Model, weights: Sequence[Weight]) -> Network | None:
    """The network of the main graph. What only computes on weights and constants is no layer; bodies are not walked."""
    graph = model.graph
    if graph is None:
        return None
    found = findings_of(model, weights)
    names = layer_names(weights, found)
    epsilons = epsilons_of(found, names)
    biased = {each.group for each in found.declared.values() if each.role.endswith(".bias")}
    held = {weight.tensor.name for weight in weights if weight.initializer}
    given = [value.name for value in graph.inputs if value.name not in held]
    drawn = {node.inputs[0] for node in graph.nodes if node.op in _DRAWN and node.inputs}
    layers = [_input(value, value.name in drawn) for value in graph.inputs if value.name in given]
    made = {name: name for name in given}
    taken = set(given)
    for number, node in enumerate(graph.nodes):
        group = f"#{number}"
        inputs = [made[name] for name in node.inputs if name in made]
        if not inputs or not node.outputs:
            continue
        layer = names.get(group) or node.name or node.outputs[0]
        name = unused_name(layer, taken)
        op = _operator(node, group in names, len(inputs))
        attributes: dict[str, Any] = {"bias": group in biased, **_stated(node)}
        if layer in epsilons:
            attributes["epsilon"] = epsilons[layer]
        followed = inputs if op in ("Add", "Concat", "Unknown") else inputs[:1]
        layers.append(NetLayer(name, op, attributes, tuple(followed)))
        made.update(dict.fromkeys(node.outputs, name))
    return Network(tuple(layers))


# Operators whose first input is N, C and two axes of space where it has four axes.
_DRAWN = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})
_LISTS = ("kernel_shape", "strides", "pads", "dilations")


def _input(value: Value, drawn: bool) -> NetLayer:
    shape = value.shape or ()
    if not drawn or len(shape) != 4:
        return NetLayer(value.name, "Input")
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape[1:]]
    return NetLayer(value.name, "Input", {"axes": "CHW", "sizes": sizes})


def _stated(node: Node) -> dict[str, Any]:
    """What a node says of how it moves over space."""
    stated: dict[str, Any] = {name: found for name in _LISTS if (found := integers(node, name))}
    if node.op == "Concat":
        stated["axis"] = integer(node, "axis", -1)
    if integer(node, "ceil_mode", 0):
        stated["ceil_mode"] = 1
    auto_pad = string(node, "auto_pad", "NOTSET")
    return stated if auto_pad == "NOTSET" else {**stated, "auto_pad": auto_pad}


def _operator(node: Node, weighted: bool, flowing: int) -> str:
    op = "Unknown" if node.domain else _OPERATORS.get(node.op, "Unknown")
    if op == "Gemm" and not weighted:
        # A product of two maps, as in attention.
        return "Unknown"
    # With one map and a constant, it adds a bias.
    return "Identity" if op == "Add" and flowing == 1 else op
