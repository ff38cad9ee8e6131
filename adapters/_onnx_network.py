"""The main graph of an ONNX model as a network: its nodes with what they take, named as the bundle names layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from wio.adapters._onnx_bundle import epsilons_of, layer_names
from wio.adapters._onnx_graph import Findings, findings_of
from wio.adapters._onnx_maps import integer, integers, number, string
from wio.adapters._onnx_messages import Model, Node, Value
from wio.adapters._onnx_weights import Weight
from wio.execution import WALKING
from wio.network import NetLayer, Network, axis_of, unused_name

_SAME = (
    *("Conv", "ConvTranspose", "BatchNormalization", "LRN", "Dropout", "Identity", "Flatten", "Concat", "Gemm"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Pad", "Resize", "Reshape"),
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "Tanh", "Softmax", "Add", "Mul", "Max"),
)
_OPERATORS = {
    **{op: op for op in _SAME},
    **{"MatMul": "Gemm", "Sum": "Add", "Mean": "Average"},
    **dict.fromkeys(("Transpose", "Squeeze", "Unsqueeze", "Cast"), "Reshape"),
    **dict.fromkeys(("Selu", "Celu", "Gelu", "Mish", "ThresholdedRelu", "HardSigmoid", "HardSwish"), "Activation"),
    **dict.fromkeys(("Softplus", "Softsign", "Clip"), "Activation"),
}
_MERGING = frozenset({"Add", "Mul", "Max", "Average"})
# Attributes that operators have here and in ONNX, with ONNX's defaults.
_NUMBERS = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "LRN": {"alpha": 0.0001, "beta": 0.75, "bias": 1.0},
}
# What no operator here says unless it is as given.
_USUAL = {
    "Gemm": {"transA": 0},
    "Flatten": {"axis": 1},
    "BatchNormalization": {"training_mode": 0, "spatial": 1},
}
# Up to here Softmax makes one axis of those from ``axis`` on.
_LAST_COERCING = 12


def onnx_network(model: Model, weights: Sequence[Weight]) -> Network | None:
    """The network of the main graph. What only computes on weights and constants is no layer; bodies are not walked."""
    graph = model.graph
    if graph is None:
        return None
    opset = max((version for domain, version in model.opsets if domain in ("", "ai.onnx")), default=0)
    found = findings_of(model, weights)
    names = layer_names(weights, found)
    epsilons = epsilons_of(found, names)
    biased = {each.group for each in found.declared.values() if each.role.endswith(".bias")}
    shifts = {weight.tensor.name for weight in weights if _declared_bias(found, weight)}
    held = {weight.tensor.name for weight in weights if weight.initializer}
    given = [value.name for value in graph.inputs if value.name not in held]
    drawn = {node.inputs[0] for node in graph.nodes if node.op in _DRAWN and node.inputs}
    layers = [_input(value, value.name in drawn) for value in graph.inputs if value.name in given]
    made = {name: name for name in given}
    taken = set(given)
    for place, node in enumerate(graph.nodes):
        group = f"#{place}"
        inputs = [made[name] for name in node.inputs if name in made]
        if not inputs or not node.outputs:
            continue
        layer = names.get(group) or node.name or node.outputs[0]
        name = unused_name(layer, taken)
        op = _operator(node, group in names, inputs, shifts.isdisjoint(node.inputs))
        attributes: dict[str, Any] = {"bias": group in biased, **_stated(node, op, opset)}
        unsaid = _unsaid(node, op)
        if unsaid is not None:
            attributes["unsaid"] = unsaid
        if layer in epsilons:
            attributes["epsilon"] = epsilons[layer]
        followed = inputs if op in _MERGING or op in ("Concat", "Unknown") else inputs[:1]
        layers.append(NetLayer(name, op, attributes, tuple(followed)))
        made.update(dict.fromkeys(node.outputs, name))
    return _with_letters(Network(tuple(layers)), opset)


def _with_letters(network: Network, opset: int) -> Network:
    """The network with the letter of the axis of each Softmax, where what flows into it is known."""
    maps = network.feature_maps()

    def told(layer: NetLayer) -> NetLayer:
        incoming = maps[layer.inputs[0]] if layer.inputs else None
        if layer.op != "Softmax":
            return layer
        vector = incoming is not None and (incoming.flat or len(incoming.sizes) == 1)
        if opset <= _LAST_COERCING and not vector and layer.attributes.get("axis") != -1:
            return replace(layer, attributes={**layer.attributes, "unsaid": f"a Softmax of opset {opset}"})
        letter = axis_of(layer, incoming)
        return layer if letter is None else replace(layer, attributes={**layer.attributes, "axis": letter})

    return Network(tuple(map(told, network.layers)))


# Operators whose first input is N, C and two axes of space where it has four axes.
_DRAWN = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})
_LISTS = ("kernel_shape", "strides", "pads", "dilations")


def _input(value: Value, drawn: bool) -> NetLayer:
    shape = value.shape or ()
    if not drawn or len(shape) != 4:
        return NetLayer(value.name, "Input")
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape[1:]]
    return NetLayer(value.name, "Input", {"axes": "CHW", "sizes": sizes})


def _declared_bias(found: Findings, weight: Weight) -> bool:
    declared = found.declared.get(weight.place)
    return declared is not None and declared.role.endswith(".bias")


def _stated(node: Node, op: str, opset: int) -> dict[str, Any]:
    """What a node says of how it moves over space, and of what it computes."""
    stated: dict[str, Any] = {}
    if op in WALKING:
        stated |= {name: found for name in _LISTS if (found := integers(node, name))}
        stated |= {name: 1 for name in ("ceil_mode", "count_include_pad") if integer(node, name, 0)}
        auto_pad = string(node, "auto_pad", "NOTSET")
        stated |= {} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    if op in ("Conv", "ConvTranspose") and (group := integer(node, "group", 1)) != 1:
        stated["group"] = group
    if op == "ConvTranspose":
        stated |= _behind(node, stated)
    if op in ("Concat", "Softmax"):
        stated["axis"] = integer(node, "axis", 1 if opset <= _LAST_COERCING else -1)
    if op == "Activation":
        stated["function"] = node.op
    if op == "LRN":
        stated["size"] = integer(node, "size", 0)
    stated |= {name: number(node, name, usual) for name, usual in _NUMBERS.get(op, {}).items()}
    return {name: value for name, value in stated.items() if value is not None}


def _behind(node: Node, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The places behind the last window: none to ONNX, unless it says so; where SAME pads, what the stride leaves."""
    told = integers(node, "output_padding") or [0 for _ in stated.get("strides", ())]
    same = stated.get("auto_pad", "").startswith("SAME")
    return {"output_padding": told} if any(told) or (told and not same) else {}


def _unsaid(node: Node, op: str) -> str | None:
    """What a node does and its operator and attributes do not say, for a person."""
    if op in ("Unknown", "Reshape", "Pad", "Resize"):
        return f"{node.domain}.{node.op}" if node.domain else node.op
    other = [name for name, usual in _USUAL.get(op, {}).items() if integer(node, name, usual) != usual]
    if op == "Gemm":
        other += [name for name in ("alpha", "beta") if number(node, name, 1.0) != 1.0]
    if op == "ConvTranspose" and "output_shape" in node.attributes:
        other.append("output_shape")
    return f"{node.op} with {', '.join(other)}" if other else None


def _operator(node: Node, weighted: bool, flowing: Sequence[str], constant: bool) -> str:
    """``constant``: none of what the node takes is known for the bias of a layer."""
    op = "Unknown" if node.domain else _OPERATORS.get(node.op, "Unknown")
    if op == "Gemm" and not weighted:
        # A product of two maps, as in attention.
        return "Unknown"
    if op in _MERGING and (len(flowing) < 2 or len(flowing) < len(node.inputs)):
        # With one map and a constant, it adds the bias of the layer before it, or does what no operator says.
        return "Identity" if op == "Add" and len(flowing) == 1 and not constant else "Unknown"
    return op
