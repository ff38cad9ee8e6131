"""Layers of a :class:`layer_cases.Case`, computed by real frameworks from weights as those frameworks keep them.

Each function takes a case and gives what the framework computes, channels last. Maps are turned the way the framework
keeps its own, and flattened by its own operator: that is what the order of rows speaks of.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_judge
from caffe_files import OpenCV, blob, layer, packet, put
from keras3_judge import keras
from keras_judge import THEANO_2
from layer_cases import Array, Case
from layer_reference import EPSILON
from onnx import helper

Out = Array


def to_first(x: Array, at: int = 1) -> Array:
    """A map with channels last as one with channels at ``at``; of what has no space nothing moves."""
    return np.ascontiguousarray(np.moveaxis(x, -1, at))


def to_last(y: Any, at: int = 1) -> Array:
    return np.moveaxis(np.asarray(y), at, -1)


# --- PyTorch: torch.nn.functional


def torch(case: Case, folder: Path) -> Out:
    import torch as t

    F = t.nn.functional  # noqa: N806 - as everyone calls it
    w = {part: t.from_numpy(array) for part, array in case.weights.items()}
    n = len(case.space)
    if case.kind == "embedding":
        return F.embedding(t.from_numpy(case.x), w["table"]).numpy()
    if case.kind in ("lstm", "gru", "rnn"):
        return _torch_recurrent(case)
    x = t.from_numpy(to_first(case.x))
    if case.kind == "conv":
        y = getattr(F, f"conv{n}d")(x, w["kernel"], w["bias"], groups=case.groups)
    elif case.kind == "conv_transpose":
        y = getattr(F, f"conv_transpose{n}d")(x, w["kernel"], w["bias"], stride=2, groups=case.groups)
    elif case.kind == "depthwise":
        y = getattr(F, f"conv{n}d")(x, w["kernel"], w["bias"], groups=x.shape[1])
    elif case.kind == "separable":
        between = getattr(F, f"conv{n}d")(x, w["depthwise_kernel"], groups=x.shape[1])
        y = getattr(F, f"conv{n}d")(between, w["pointwise_kernel"], w["bias"])
    elif case.kind == "dense":
        y = F.linear(t.flatten(x, 1) if case.flat else x, w["kernel"], w["bias"])
    elif case.kind == "batch_norm":
        norm = (w["mean"], w["variance"], w["gamma"], w["beta"])
        y = F.batch_norm(t.flatten(x, 1) if case.flat else x, *norm, eps=EPSILON)
    elif case.kind == "layer_norm":
        last = t.flatten(x, 1) if case.flat else t.from_numpy(case.x)
        return F.layer_norm(last, w["gamma"].shape, w["gamma"], w["beta"], EPSILON).numpy()
    elif case.kind == "instance_norm":
        if case.flat:
            x = t.flatten(t.from_numpy(to_first(case.x, 2)), 2).transpose(1, 2)
        y = F.instance_norm(x, weight=w["gamma"], bias=w["beta"], eps=EPSILON)
    elif case.kind == "prelu":
        y = F.prelu(x, w["alpha"])
    else:
        raise NotImplementedError(case.kind)
    return to_last(y.numpy())


def _torch_recurrent(case: Case) -> Out:
    import torch as t

    w = {part: t.from_numpy(array) for part, array in case.weights.items()}
    x = t.flatten(t.from_numpy(to_first(case.x, 2)), 2) if case.flat else t.from_numpy(case.x)
    kinds = {"lstm": t.nn.LSTM, "gru": t.nn.GRU, "rnn": t.nn.RNN}
    module = kinds[case.kind](x.shape[-1], w["recurrent_kernel"].shape[-1], batch_first=True)
    names = {
        "weight_ih": "kernel",
        "weight_hh": "recurrent_kernel",
        "bias_ih": "input_bias",
        "bias_hh": "recurrent_bias",
    }
    module.load_state_dict({f"{name}_l0": w[part] for name, part in names.items()})
    with t.no_grad():
        return module(x)[0][:, -1].numpy()


# --- ONNX, run by onnxruntime


def onnx(case: Case, folder: Path) -> Out:
    w, n, x = dict(case.weights), len(case.space), to_first(case.x)
    made: list[Any] = []

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        made.append(helper.make_node(op, inputs, [f"t{len(made)}"], **attributes))
        return f"t{len(made) - 1}"

    at = 1
    if case.kind == "conv":
        y = add("Conv", "x", "kernel", "bias", group=case.groups)
    elif case.kind == "conv_transpose":
        y = add("ConvTranspose", "x", "kernel", "bias", group=case.groups, strides=[2] * n)
    elif case.kind == "depthwise":
        y = add("Conv", "x", "kernel", "bias", group=x.shape[1])
    elif case.kind == "separable":
        y = add("Conv", add("Conv", "x", "depthwise_kernel", group=x.shape[1]), "pointwise_kernel", "bias")
    elif case.kind == "dense":
        row = add("Flatten", "x") if case.flat else "x"
        y = add("Gemm", row, "kernel", "bias", transB=int(case.layouts["kernel"].axes[0] == "O"))
    elif case.kind == "embedding":
        x, at, y = case.x, -1, add("Gather", "table", "x")
    elif case.kind == "batch_norm":
        row = add("Flatten", "x") if case.flat else "x"
        y = add("BatchNormalization", row, "gamma", "beta", "mean", "variance", epsilon=EPSILON)
    elif case.kind == "layer_norm":
        x, at = (x, -1) if case.flat else (case.x, -1)
        row = add("Flatten", "x") if case.flat else "x"
        y = add("LayerNormalization", row, "gamma", "beta", axis=-1, epsilon=EPSILON)
    elif case.kind == "instance_norm":
        row = "x"
        if case.flat:
            x, w["steps"] = to_first(case.x, 2), np.array([0, 0, -1])
            row = add("Transpose", add("Reshape", "x", "steps"), perm=[0, 2, 1])
        y = add("InstanceNormalization", row, "gamma", "beta", epsilon=EPSILON)
    elif case.kind == "prelu":
        y = add("PRelu", "x", "alpha")
    elif case.kind in ("lstm", "gru", "rnn"):
        x, at, row = (to_first(case.x, 2) if case.flat else case.x).swapaxes(0, 1), -1, "x"
        w["rows"], w["states"] = np.array([0, 0, -1]), np.array([0, -1])
        if case.flat:
            row = add("Reshape", "x", "rows")
        told: dict[str, Any] = {"linear_before_reset": 1} if case.kind == "gru" else {}
        if "F" in case.layouts["kernel"].letters:
            told["direction"] = "bidirectional"
        hidden = case.weights["recurrent_kernel"].shape[-1]
        weights = ["kernel", "recurrent_kernel", "bias", *(["", "", "", "peephole"] if "peephole" in w else [])]
        add(case.kind.upper(), row, *weights, hidden_size=hidden, **told)
        made[-1].output.append("last")
        y = add("Reshape", add("Transpose", "last", perm=[1, 0, 2]), "states")
    else:
        raise NotImplementedError(case.kind)
    kind = "INT64" if case.kind == "embedding" else "FLOAT"
    model = onnx_judge.model(made, w, {"x": list(x.shape)}, (y,))
    model.graph.input[0].type.tensor_type.elem_type = getattr(onnx_judge.TensorProto, kind)
    [out] = onnx_judge.run(onnx_judge.saved(model, folder), {"x": np.ascontiguousarray(x)})
    return to_last(out, at)


# --- Keras 3 on TensorFlow, whose layers are TensorFlow's operators


def keras3(case: Case, folder: Path) -> Out:
    """Channels last, as Keras 3 itself would have it."""
    return keras_layers(case, case.x, keras().layers.Flatten(data_format="channels_last"))


def keras_layers(case: Case, x: Array, flatten: Any) -> Out:
    """The layer on a map ``x`` as the model keeps it, after ``flatten`` where it flattens."""
    if case.kind == "maxout":
        return maxout(case, x, flatten)
    k = keras()
    w = case.weights
    timed = case.kind in ("lstm", "gru", "rnn", "instance_norm")
    wrapped = k.layers.TimeDistributed(flatten) if timed else flatten
    layers = [*([wrapped] if case.flat else []), _keras_layer(k.layers, case)]
    model = k.Sequential([k.Input(x.shape[1:], dtype=x.dtype.name), *layers])
    names = {"table": "embeddings", "mean": "moving_mean", "variance": "moving_variance"}
    by_name = {names.get(part, part): array for part, array in w.items()}
    for variable in layers[-1].weights:
        variable.assign(by_name[variable.name])
    return np.asarray(model(x, training=False))


def _keras_layer(layers: Any, case: Case) -> Any:
    n, w, kind = len(case.space), case.weights, case.kind
    if kind in ("lstm", "gru", "rnn"):
        units = w["recurrent_kernel"].shape[0]
        return {
            "lstm": lambda: layers.LSTM(units),
            "gru": lambda: layers.GRU(units, reset_after=w["bias"].ndim == 2),
            "rnn": lambda: layers.SimpleRNN(units),
        }[kind]()
    if kind == "prelu":
        axes = case.layouts["alpha"].axes
        return layers.PReLU(shared_axes=[place + 1 for place, axis in enumerate(axes) if axis == "1"])
    if kind in ("conv", "conv_transpose", "depthwise", "separable", "conv_lstm"):
        size = w[{"separable": "depthwise_kernel"}.get(kind, "kernel")].shape[:n]
        outputs = w["bias"].shape[0]
        return {
            "conv": lambda: getattr(layers, f"Conv{n}D")(outputs, size, groups=case.groups),
            "conv_transpose": lambda: getattr(layers, f"Conv{n}DTranspose")(outputs, size, strides=2),
            "depthwise": lambda: getattr(layers, f"DepthwiseConv{n}D")(size, depth_multiplier=w["kernel"].shape[-1]),
            "separable": lambda: getattr(layers, f"SeparableConv{n}D")(
                outputs, size, depth_multiplier=w["depthwise_kernel"].shape[-1]
            ),
            "conv_lstm": lambda: layers.ConvLSTM2D(outputs // 4, size, padding="same"),
        }[kind]()
    return {
        "dense": lambda: layers.Dense(w["bias"].shape[0]),
        "embedding": lambda: layers.Embedding(*w["table"].shape),
        "batch_norm": lambda: layers.BatchNormalization(epsilon=EPSILON),
        "layer_norm": lambda: layers.LayerNormalization(epsilon=EPSILON),
        "instance_norm": lambda: layers.GroupNormalization(-1, epsilon=EPSILON),
    }[kind]()


# --- Caffe, run by OpenCV's importer


def caffe(case: Case, folder: Path) -> Out:
    """What has one axis of space runs with a height of 1, which no byte of a blob shows."""
    w, x = dict(case.weights), to_first(case.x)
    at = w.get("kernel", np.zeros(())).shape
    if case.space == "W":
        w["kernel"], x = w["kernel"].reshape(*at[:2], 1, at[2]), x[:, :, None]
    if case.kind in ("conv", "conv_transpose", "depthwise"):
        groups = x.shape[1] if case.kind == "depthwise" else case.groups
        sizes = " ".join(f"kernel_size: {length}" for length in w["kernel"].shape[2:])
        strides = "stride: 1 stride: 2" if case.space == "W" else "stride: 2"
        told = f"num_output: {len(w['bias'])} {sizes} group: {groups} "
        op, told = ("Deconvolution", told + strides) if case.kind == "conv_transpose" else ("Convolution", told)
        layers = [(op, f"convolution_param {{ {told} }}", ("kernel", "bias"))]
    elif case.kind == "dense":
        layers = [("InnerProduct", f"inner_product_param {{ num_output: {len(w['bias'])} }}", ("kernel", "bias"))]
    elif case.kind == "batch_norm":
        w["factor"] = np.ones(1, np.float32)
        layers = [
            (
                "BatchNorm",
                f"batch_norm_param {{ use_global_stats: true eps: {EPSILON} }}",
                ("mean", "variance", "factor"),
            ),
            ("Scale", "scale_param { bias_term: true }", ("gamma", "beta")),
        ]
    elif case.kind == "prelu":
        layers = [("PReLU", "", ("alpha",))]
    else:
        raise NotImplementedError(case.kind)
    text, binary = "", packet(1, "net")
    for place, (op, parameter, parts) in enumerate(layers):
        names = f"l{place}", f"l{place + 1}"
        text += f'layer {{ name: "{names[1]}" type: "{op}" bottom: "{names[0]}" top: "{names[1]}" {parameter} }}\n'
        binary += layer(names[1], op, names[:1], names[1:], [blob(w[part]) for part in parts])
    dims = " ".join(f"dim: {extent}" for extent in x.shape)
    judge = OpenCV(folder, f'input: "l0" input_shape {{ {dims} }}\n{text}', put(folder, binary))
    [y] = judge.run(np.ascontiguousarray(x), f"l{len(layers)}")
    return to_last(y[:, :, 0] if case.space == "W" else y)


# --- Keras 1 and 2, by what they recorded and by Keras 3


def keras_hdf5(family: str, data_format: str) -> Callable[[Case, Path], Out]:
    """A judge of what follows from the order of a map alone: Keras 3 on a map as that Keras keeps it.

    Flatten is plain in Keras 1.2 and 2.0 (their ``core.py``: ``K.batch_flatten``, a reshape) and minds the data format
    from 2.2 on, as that of Keras 3 does. 1-D maps have their channels last under either format.
    """
    k = keras().layers
    first = data_format == "channels_first"

    def judge(case: Case, folder: Path) -> Out:
        timed = case.kind in ("lstm", "gru", "rnn", "instance_norm")
        turned = first and case.x.ndim - timed >= 4 and (case.kind == "prelu" or case.flat != "")
        x = to_first(case.x, 1 + timed) if turned else case.x
        flatten = k.Flatten(data_format=data_format) if family == "2.2" else k.Reshape((-1,))
        y = keras_layers(case, x, flatten)
        return to_last(y) if case.kind == "prelu" and turned else y

    return judge


def maxout(case: Case, x: Array, flatten: Any) -> Out:
    """MaxoutDense, which Keras 3 lacks: the largest output of as many dense layers."""
    k = keras().layers
    rows = flatten(x) if case.flat else x
    pairs = zip(case.weights["kernel"], case.weights["bias"], strict=True)
    pieces = [Case("dense", {"kernel": kernel, "bias": bias}, {}, x, x) for kernel, bias in pairs]
    return np.asarray(k.Maximum()([keras_layers(piece, np.asarray(rows), None) for piece in pieces]))


def keras_on_theano(case: Case, folder: Path) -> Out:
    """A transposed convolution over three axes by Keras 2.2.4 on Theano, which no recorded file has."""
    size = case.weights["kernel"].shape[:3]
    told = {"name": "it", "filters": len(case.weights["bias"]), "kernel_size": size, "strides": [2] * 3}
    told |= {"data_format": "channels_last", "batch_input_shape": [None, *case.x.shape[1:]]}
    config = {"name": "net", "layers": [{"class_name": "Conv3DTranspose", "config": told}]}
    np.savez(folder / "inputs.npz", x=case.x, **case.weights)
    jobs = {
        "models": {"m": {"config": {"class_name": "Sequential", "config": config}, "data_format": "channels_last"}},
        "inputs": str(folder / "inputs.npz"),
        "loads": [{"id": "y", "mode": "arrays", "model": "m", "weights": ["kernel", "bias"], "input": "x"}],
    }
    (folder / "jobs.json").write_text(json.dumps(jobs))
    out, report = folder / "outputs.npz", folder / "report.json"
    THEANO_2.run(["--jobs", str(folder / "jobs.json"), "--out", str(out), "--report", str(report)], folder)
    errors = json.loads(report.read_text())["errors"]
    assert not errors, errors
    y: Array = np.load(out)["y"]
    return y
