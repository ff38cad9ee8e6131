"""The definition of a Caffe network as :class:`wio.network.Network`, its layers named as the bundle names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wio.adapters._caffe_file import read_net
from wio.adapters._caffe_graph import Node, input_shapes, test_phase
from wio.adapters._caffe_layers import pairs
from wio.adapters._caffe_prototxt import read_prototxt
from wio.adapters._caffe_schema import one
from wio.network import NetLayer, Network, unused_name

_OPERATORS = {
    "Convolution": "Conv",
    "Deconvolution": "ConvTranspose",
    "InnerProduct": "Gemm",
    "BatchNorm": "BatchNormalization",
    "ReLU": "Relu",
    "PReLU": "PRelu",
    "LRN": "LRN",
    "Dropout": "Dropout",
    "Concat": "Concat",
    "Eltwise": "Add",
    "Flatten": "Flatten",
    **dict.fromkeys(("Softmax", "SoftmaxWithLoss"), "Softmax"),
    **dict.fromkeys(("ELU", "Sigmoid", "TanH", "BNLL", "Swish", "AbsVal", "Exp", "Log", "Power"), "Activation"),
    **dict.fromkeys(("Split", "Scale", "Bias"), "Identity"),
    "Reshape": "Reshape",
}
# caffe.proto, batch_norm_param.eps.
_EPSILON = 1e-5


def caffe_network(path: Path, prototxt: Path | None) -> Network:
    """The network that a prototxt defines, or else the weights' file itself, in the phase TEST."""
    if prototxt is not None:
        definition = read_prototxt(prototxt)
        messages = definition.get("layer", []) + definition.get("layers", [])
        nodes = [Node(one(each, "name", ""), one(each, "type", ""), each) for each in messages]
    else:
        net = read_net(path)
        definition = net.message
        nodes = [Node(layer.name, layer.type, layer.message) for layer in net.layers]
    return _network(test_phase(nodes), list(input_shapes(definition)))


def _network(nodes: list[Node], inputs: list[str]) -> Network:
    by_name = {node.name: node for node in nodes}
    follow = pairs(nodes)
    shifted = {norm for follower, norm in follow.items() if _shifts(by_name[follower])}
    # A layer that works in place gives its top the name of its bottom: the last to write a blob is meant.
    made: dict[str, str] = {}
    layers = [NetLayer(blob, "Input") for blob in inputs]
    made.update((blob, blob) for blob in inputs)
    taken = set(inputs)
    for node in nodes:
        name = unused_name(node.name, taken)
        bottoms = tuple(made[blob] for blob in node.bottoms if blob in made)
        op = "Input" if not node.bottoms else _operator(node)
        followed = bottoms if op in ("Concat", "Add", "Unknown") else bottoms[:1]
        attributes = _attributes(node, op, shifted)
        unsaid = _unsaid(node, node.name in follow)
        layers.append(NetLayer(name, op, {**attributes, "unsaid": unsaid} if unsaid else attributes, followed))
        made.update(dict.fromkeys(node.tops, name))
    return Network(tuple(layers))


def _attributes(node: Node, op: str, shifted: set[str]) -> dict[str, Any]:
    if op in ("Conv", "ConvTranspose"):
        return {"bias": bool(one(node.parameter("convolution_param"), "bias_term", True))}
    if op == "Gemm":
        return {"bias": bool(one(node.parameter("inner_product_param"), "bias_term", True))}
    if op == "BatchNormalization":
        epsilon = one(node.parameter("batch_norm_param"), "eps", _EPSILON)
        return {"epsilon": epsilon, "center": node.name in shifted}
    return {"function": node.type} if op == "Activation" else {}


# The values with which a field changes nothing (caffe.proto). What else it says, attributes do not.
_PLAIN: dict[str, Any] = {"stride": 1, "pad": 0, "dilation": 1, "group": 1, "axis": 1, "end_axis": -1}
_PLAIN |= {"concat_dim": 1, "operation": "SUM", "negative_slope": 0.0, "channel_shared": False, "transpose": False}
_TELLING = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "Concat": "concat_param",
    "Eltwise": "eltwise_param",
    "Flatten": "flatten_param",
    "ReLU": "relu_param",
    "Softmax": "softmax_param",
    "Pooling": "pooling_param",
    "LRN": "lrn_param",
}
_IN_THE_WEIGHTS = frozenset({"num_output", "bias_term", "kernel_size", "kernel_h", "kernel_w"})


def _unsaid(node: Node, follows: bool) -> str | None:
    """What a layer does that its operator and attributes do not say: for a person to settle."""
    if node.type in ("Scale", "Bias"):
        return None if follows else f"a {node.type} that follows no BatchNorm"
    if node.type == "Reshape":
        return "a Reshape"
    parameter = node.parameter(_TELLING[node.type]) if node.type in _TELLING else {}
    if node.type == "Pooling" and one(parameter, "global_pooling", False):
        return None
    # Of a kernel the weights tell the size, of a pool nothing does.
    told = {k: v for k, v in parameter.items() if node.type in ("Pooling", "LRN") or k not in _IN_THE_WEIGHTS}
    other = [f"{k} {', '.join(map(str, v))}" for k, v in told.items() if any(_PLAIN.get(k) != each for each in v)]
    if node.type in ("Pooling", "LRN"):
        return f"{node.type} of {'; '.join(other) or 'what caffe.proto says'}, sizes rounded up"
    return f"{node.type} of {'; '.join(other)}" if other else None


def _shifts(node: Node) -> bool:
    """Whether a layer that follows a BatchNorm brings its beta."""
    return node.type == "Bias" or bool(one(node.parameter("scale_param"), "bias_term", False))


def _operator(node: Node) -> str:
    if node.type == "Pooling":
        parameter = node.parameter("pooling_param")
        if one(parameter, "global_pooling", False):
            return "GlobalPool"
        return "AveragePool" if one(parameter, "pool", "MAX") == "AVE" else "MaxPool"
    return _OPERATORS.get(node.type, "Unknown")
