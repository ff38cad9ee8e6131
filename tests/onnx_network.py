"""A small network in ONNX with every kind of layer that wio moves, and the same network in plain NumPy.

The NumPy side takes neutral layouts (HWIO, I(GU) G=ifco, rows in H W C order) and knows nothing of ONNX: where the
two agree, the layouts that the adapter declares are true.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    a = x.transpose(0, 2, 3, 1).astype(np.float64)
    a = np.maximum(_conv(np.pad(a, ((0, 0), (1, 1), (0, 1), (0, 0))), w["conv.weight"]) + w["conv.bias"], 0)
    kernel = w["grouped.weight"]
    a = np.concatenate([_conv(a[..., 2 * g : 2 * g + 2], kernel[..., 3 * g : 3 * g + 3]) for g in range(2)], -1)
    kernel = w["deep.weight"]
    a = np.concatenate([_conv(a[..., g : g + 1], kernel[..., 2 * g : 2 * g + 2]) for g in range(6)], -1)
    a = _transposed(a, w["up.weight"]) + w["up.bias"]
    a = (a - w["bn.running_mean"]) / np.sqrt(w["bn.running_var"] + 1e-3) * w["bn.weight"] + w["bn.bias"]
    a = np.where(a > 0, a, a * w["prelu.slope"].reshape(-1))[:, :4]
    a = np.tanh(a.reshape(len(a), -1) @ w["dense.weight"] + w["dense.bias"])
    a = a @ w["mul.kernel"] + w["mul.bias"]
    a = _gru(_lstm(a.reshape(2, 2, 4), w, 3), w, 5)
    a = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
    return a * w["ln.scale"] + w["ln.bias"]


def _conv(a: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    rows, columns = kernel.shape[:2]
    height, width = a.shape[1] - rows + 1, a.shape[2] - columns + 1
    return sum(
        a[:, r : r + height, c : c + width] @ kernel[r, c].astype(np.float64)
        for r in range(rows)
        for c in range(columns)
    )


def _transposed(a: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """H W O I: each input pixel adds its channels, times the kernel, to the pixels from its own place on."""
    rows, columns, channels = kernel.shape[:3]
    out = np.zeros((a.shape[0], a.shape[1] + rows - 1, a.shape[2] + columns - 1, channels))
    for r in range(rows):
        for c in range(columns):
            out[:, r : r + a.shape[1], c : c + a.shape[2]] += a @ kernel[r, c].T.astype(np.float64)
    return out


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def _lstm(steps: np.ndarray, w: Mapping[str, np.ndarray], units: int) -> np.ndarray:
    """Time first. Kernels I(GU), bias B(GU), gates i f c o."""
    h = c = np.zeros((steps.shape[1], units))
    out = []
    for x in steps:
        i, f, new, o = np.split(x @ w["lstm.W"] + h @ w["lstm.R"] + w["lstm.B"].sum(0), 4, -1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(new)
        h = _sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out)


def _gru(steps: np.ndarray, w: Mapping[str, np.ndarray], units: int) -> np.ndarray:
    """Gates z r h, the reset gate after the product (linear_before_reset)."""
    h = np.zeros((steps.shape[1], units))
    out = []
    for x in steps:
        xz, xr, xh = np.split(x @ w["gru.W"] + w["gru.B"][0], 3, -1)
        hz, hr, hh = np.split(h @ w["gru.R"] + w["gru.B"][1], 3, -1)
        z, r = _sigmoid(xz + hz), _sigmoid(xr + hr)
        h = z * h + (1 - z) * np.tanh(xh + r * hh)
        out.append(h)
    return np.stack(out)
