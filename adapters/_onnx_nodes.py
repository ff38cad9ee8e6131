"""The graph of a network in ONNX's operators: N C H W maps, every pad explicit, every shape written down.

Opset 26 is the newest that onnxruntime 1.31 runs, IR version 13 the one that onnx 1.21 wrote it with. ``auto_pad`` is
never used: what SAME means at a stride differs between readers, numbers do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wio.execution import Execution, Run, Window, sizes

GRAPH = "onnx_graph"
OPSET, IR_VERSION = 26, 13
BATCH = "N"
# A layer's weights by role.
Names = Mapping[str, str]
Nodes = list[dict[str, Any]]


def graph(execution: Execution, weights: Mapping[str, Names], dtype: str, every_output: bool) -> dict[str, Any]:
    """Nodes, and the name, shape and dtype of inputs, outputs and everything between, as JSON.

    ``weights`` has the initializer of each role by layer. A layer's output is called as the layer. With
    ``every_output`` all of them are outputs of the graph; a layer that is left out (Dropout) has none.
    """
    nodes: Nodes = []
    values: dict[str, list[Any]] = {}
    inputs: list[str] = []
    for run in execution.runs:
        layer = run.layer
        made = OPERATORS[layer.op](run, weights.get(layer.name, {}))
        for node in made:
            values[node["name"]] = [node.pop("shape"), node.pop("dtype", dtype)]
        if not made:
            values[layer.name] = [_shape(run), dtype]
            inputs.append(layer.name)
        nodes += made
    layers = [run.layer.name for run in execution.runs if run.layer.name not in inputs]
    outputs = layers if every_output else list(execution.outputs)
    between = [name for name in values if name not in inputs and name not in outputs]
    named = {"inputs": inputs, "outputs": outputs, "values": between}
    return {"nodes": nodes, **{key: [[name, *values[name]] for name in names] for key, names in named.items()}}


def _shape(run: Run) -> list[int | str]:
    return [BATCH, *sizes(run.outgoing, first=True)]


def _node(
    run: Run, op: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None, **helper: Any
) -> dict[str, Any]:
    """A node of one output, called as the node. ``helper`` has ``name``, ``shape`` and ``dtype`` of one that helps."""
    given = list(inputs)
    while given and not given[-1]:
        given.pop()
    made = {"op": op, "name": run.layer.name, "inputs": given, "attributes": dict(attributes or {})}
    return {**made, "shape": _shape(run), **helper}


def _walk(windows: Sequence[Window]) -> dict[str, Any]:
    return {
        "kernel_shape": [w.kernel for w in windows],
        "strides": [w.stride for w in windows],
        "dilations": [w.dilation for w in windows],
        "pads": [w.begin for w in windows] + [w.end + w.beyond for w in windows],
    }


def _conv(run: Run, weights: Names) -> Nodes:
    kind = "depthwise" if run.layer.op == "DepthwiseConv" else "conv"
    # A depthwise convolution is to ONNX one with as many groups as channels.
    group = run.incoming[0].size("C") if kind == "depthwise" else run.layer.attributes.get("group", 1)
    inputs = [run.inputs[0], weights[f"{kind}.kernel"], weights.get(f"{kind}.bias", "")]
    return [_node(run, "Conv", inputs, {**_walk(run.windows), "group": group})]


def _conv_transpose(run: Run, weights: Names) -> Nodes:
    inputs = [run.inputs[0], weights["conv_transpose.kernel"], weights.get("conv_transpose.bias", "")]
    attributes = {
        **_walk(run.windows),
        "pads": [w.begin for w in run.windows] + [w.end for w in run.windows],
        "output_padding": [w.extra for w in run.windows],
        "group": run.layer.attributes.get("group", 1),
    }
    return [_node(run, "ConvTranspose", inputs, attributes)]


def _max_pool(run: Run, _: Names) -> Nodes:
    return [_node(run, "MaxPool", run.inputs, _walk(run.windows))]


def _average_pool(run: Run, _: Names) -> Nodes:
    """ONNX's average leaves padding out of the count, or counts all of it.

    Where sizes are rounded up, Caffe and PyTorch count the padding and not what lies beyond it: readers differ over
    that, so the padding that counts becomes a Pad of zeros, and what lies beyond it a pad that does not.
    """
    layer, source = run.layer, run.inputs[0]
    counted = bool(layer.attributes.get("count_include_pad"))
    walk = _walk(run.windows)
    beyond = [w.beyond for w in run.windows]
    if not counted or not any(beyond):
        return [_node(run, "AveragePool", [source], {**walk, "count_include_pad": int(counted)})]
    begins, ends = [w.begin for w in run.windows], [w.end for w in run.windows]
    nodes = []
    if any(begins) or any(ends):
        pads, padded = f"{layer.name}/pads", f"{layer.name}/padded"
        around = [0, 0, *begins, 0, 0, *ends]
        grown = [w.before + w.begin + w.end for w in run.windows]
        shape = [*_shape(run)[:2], *grown]
        nodes.append(_node(run, "Constant", [], {"value_ints": around}, name=pads, shape=[len(around)], dtype="int64"))
        nodes.append(_node(run, "Pad", [source, pads], name=padded, shape=shape))
        source = padded
    walk = {**walk, "pads": [0] * len(beyond) + beyond, "count_include_pad": 0}
    return [*nodes, _node(run, "AveragePool", [source], walk)]


def _batch_norm(run: Run, weights: Names) -> Nodes:
    parts = ("gamma", "beta", "mean", "variance")
    inputs = [run.inputs[0], *(weights[f"batch_norm.{part}"] for part in parts)]
    attributes = {"epsilon": float(run.layer.attributes.get("epsilon", 1e-5))}
    return [_node(run, "BatchNormalization", inputs, attributes)]


def _gemm(run: Run, weights: Names) -> Nodes:
    inputs = [run.inputs[0], weights["dense.kernel"], weights.get("dense.bias", "")]
    return [_node(run, "Gemm", inputs)]


def _prelu(run: Run, weights: Names) -> Nodes:
    return [_node(run, "PRelu", [run.inputs[0], weights["prelu.alpha"]])]


def _lrn(run: Run, _: Names) -> Nodes:
    told = run.layer.attributes
    attributes = {key: float(told.get(key, usual)) for key, usual in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))}
    return [_node(run, "LRN", run.inputs, {"size": int(told["size"]), **attributes})]


def _along(run: Run, _: Names) -> Nodes:
    """Concat and Softmax: the axis counted in a map of ONNX's, the batch first."""
    space = [axis for axis in run.incoming[0].axes or () if axis != "C"]
    axis = 1 if run.incoming[0].flat else 1 + ["C", *space].index(run.axis())
    return [_node(run, run.layer.op, run.inputs, {"axis": axis})]


def _flatten(run: Run, _: Names) -> Nodes:
    return [_node(run, "Flatten", run.inputs, {"axis": 1})]


def _of_several(run: Run, _: Names) -> Nodes:
    """Mul takes two, so a product of more is made step by step."""
    op = {"Add": "Sum", "Average": "Mean", "Max": "Max"}.get(run.layer.op)
    if op is not None:
        return [_node(run, op, run.inputs)]
    nodes, so_far = [], run.inputs[0]
    for k, other in enumerate(run.inputs[1:], 2):
        output = run.layer.name if k == len(run.inputs) else f"{run.layer.name}/{k}"
        nodes.append(_node(run, "Mul", [so_far, other], name=output))
        so_far = output
    return nodes


def _global_pool(run: Run, _: Names) -> Nodes:
    """ONNX keeps the axes that it pools, with one place each."""
    if run.layer.attributes.get("keepdims", True):
        return [_node(run, run.layer.op, run.inputs)]
    pooled, ones = f"{run.layer.name}/pooled", [1 for _ in run.incoming[0].sizes[1:]]
    return [
        _node(run, run.layer.op, run.inputs, name=pooled, shape=[*_shape(run), *ones]),
        _node(run, "Flatten", [pooled], {"axis": 1}),
    ]


def _plain(run: Run, _: Names) -> Nodes:
    alpha = run.layer.attributes.get("alpha")
    return [_node(run, run.layer.op, run.inputs, {} if alpha is None else {"alpha": float(alpha)})]


OPERATORS: dict[str, Callable[[Run, Names], Nodes]] = {
    "Input": lambda run, weights: [],  # noqa: ARG005
    "Conv": _conv,
    "DepthwiseConv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "BatchNormalization": _batch_norm,
    "LRN": _lrn,
    "Gemm": _gemm,
    "Flatten": _flatten,
    "Concat": _along,
    "Softmax": _along,
    "PRelu": _prelu,
    **dict.fromkeys(("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh"), _plain),
    **dict.fromkeys(("Add", "Mul", "Max", "Average"), _of_several),
}
