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
    shifted = {norm for follower, norm in pairs(nodes).items() if _shifts(by_name[follower])}
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
        layers.append(NetLayer(name, op, _attributes(node, op, shifted), followed))
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
    return {}


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
