"""A small network in ONNX with every kind of layer that wio moves, and the same network in plain NumPy.

The NumPy side takes neutral layouts (HWIO, I(GU) G=ifco, rows in H W C order) and knows nothing of ONNX: where the
two agree, the layouts that the adapter declares are true.
"""

from __future__ import annotations

from collections.abc import Mapping

import layer_reference as layers
import numpy as np
import onnx
from onnx import helper
from onnx_judge import model, values

INPUT = (2, 3, 6, 5)


def weights(seed: int) -> dict[str, np.ndarray]:
    shapes = {
        "conv.weight": (4, 3, 3, 2),
        "conv.bias": (4,),
        "grouped.weight": (6, 2, 2, 2),
        "deep.weight": (12, 1, 2, 1),
        "up.weight": (12, 5, 2, 3),
        "up.bias": (5,),
        "bn.weight": (5,),
        "bn.bias": (5,),
        "bn.running_mean": (5,),
        "prelu.slope": (5, 1, 1),
        "dense.weight": (7, 5 * 4 * 6),
        "dense.bias": (7,),
        "mul.kernel": (7, 8),
        "mul.bias": (8,),
        "lstm.W": (1, 12, 4),
        "lstm.R": (1, 12, 3),
        "lstm.B": (1, 24),
        "gru.W": (1, 15, 3),
        "gru.R": (1, 15, 5),
        "gru.B": (1, 30),
        "ln.scale": (5,),
        "ln.bias": (5,),
    }
    found = {name: values(*shape, seed=seed) for name, shape in shapes.items()}
    return {**found, "bn.running_var": np.abs(values(5, seed=seed + 9)) + np.float32(0.5)}


def network(seed: int) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "conv.weight", "conv.bias"], ["c1"], "conv", strides=[1, 1], pads=[1, 0, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "grouped.weight"], ["c2"], "grouped", group=2, kernel_shape=[2, 2]),
        node("Conv", ["c2", "deep.weight"], ["c3"], "deep", group=6),
        node("ConvTranspose", ["c3", "up.weight", "up.bias"], ["c4"], "up"),
        node(
            "BatchNormalization",
            ["c4", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"],
            ["c5"],
            "bn",
            epsilon=1e-3,
        ),
        node("PRelu", ["c5", "prelu.slope"], ["c6"], "prelu"),
        node("Slice", ["c6", "zero", "four", "two"], ["c7"], "cut"),
        node("MaxPool", ["c7"], ["c8"], kernel_shape=[1, 1]),
        node("Flatten", ["c8"], ["f"]),
        node("Gemm", ["f", "dense.weight", "dense.bias"], ["d1"], "dense", transB=1),
        node("Tanh", ["d1"], ["d2"]),
        node("MatMul", ["d2", "mul.kernel"], ["d3"], "mul"),
        node("Add", ["d3", "mul.bias"], ["d4"], "mul_bias"),
        node("Reshape", ["d4", "steps"], ["s0"]),
        node("LSTM", ["s0", "lstm.W", "lstm.R", "lstm.B"], ["s1"], "lstm", hidden_size=3),
        node("Squeeze", ["s1", "one"], ["s2"]),
        node("GRU", ["s2", "gru.W", "gru.R", "gru.B"], ["s3"], "gru", hidden_size=5, linear_before_reset=1),
        node("Squeeze", ["s3", "one"], ["s4"]),
        node("LayerNormalization", ["s4", "ln.scale", "ln.bias"], ["y"], "ln"),
    ]
    fixed = {
        "zero": np.array([0], np.int64),
        "four": np.array([4], np.int64),
        "two": np.array([2], np.int64),
        "one": np.array([1], np.int64),
        "steps": np.array([2, 2, 4], np.int64),
    }
    made = model(nodes, {**weights(seed), **fixed}, {"x": list(INPUT)})
    # What flows out of Slice is not known to the adapter; the shape that a model states for it is.
    made.graph.value_info.append(helper.make_tensor_value_info("c8", onnx.TensorProto.FLOAT, [2, 5, 4, 6]))
    return made


def reference(x: np.ndarray, w: Mapping[str, np.ndarray]) -> np.ndarray:
    """The output of the network for x in N C H W, from weights in neutral layouts, channels last throughout."""

    def of(layer: str, **leaves: str) -> dict[str, np.ndarray]:
        return {part: w[f"{layer}.{leaf}"] for part, leaf in leaves.items()}

    recurrent = {"kernel": "W", "recurrent_kernel": "R", "bias": "B"}
    a = np.pad(x.transpose(0, 2, 3, 1).astype(np.float64), ((0, 0), (1, 1), (0, 1), (0, 0)))
    a = np.maximum(layers.conv(of("conv", kernel="weight", bias="bias"), a), 0)
    a = layers.grouped(w["grouped.weight"], a, 2)
    a = layers.grouped(w["deep.weight"], a, 6)
    a = layers.conv_transpose(of("up", kernel="weight", bias="bias"), a)
    a = layers.batch_norm(of("bn", gamma="weight", beta="bias", mean="running_mean", variance="running_var"), a)
    a = layers.prelu({"alpha": w["prelu.slope"].reshape(-1)}, a)[:, :4]
    a = np.tanh(layers.dense(of("dense", kernel="weight", bias="bias"), a))
    a = layers.dense(of("mul", kernel="kernel", bias="bias"), a)
    # The recurrent operators have time first.
    a = layers.lstm_states(of("lstm", **recurrent), a.reshape(2, 2, 4).swapaxes(0, 1))
    a = layers.gru_states(of("gru", **recurrent), a).swapaxes(0, 1)
    return (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5) * w["ln.scale"] + w["ln.bias"]
