"""Five small networks in every framework that saves them: what the matrix of formats (tests/matrix.py) is made of.

``maps`` (convolution, batch norm, transposed convolution, a flattened map into a dense layer), ``depthwise`` (and a
dense layer after it), and an embedding before ``lstm``, ``gru_before`` or ``gru_after``, which is where a GRU resets.
Layers have the same names everywhere. Those of Keras are in tests/judges/layer_networks.py; all take channels last.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import caffe_files as cf
import layer_networks
import numpy as np
import torch
from keras3_judge import keras
from layer_networks import BATCH, TOKENS, WORDS
from onnx import TensorProto, helper
from onnx_judge import model as onnx_model
from onnx_judge import run, saved
from recurrent_judges import numbers
from tf_judge import tensorflow

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
NETWORKS = tuple(layer_networks.MATRIX)
IMAGE = (7, 6, 3)
EPSILON = 1e-3  # that of Keras


def given(network: str) -> Array:
    generator = np.random.default_rng(17)
    if network in ("maps", "depthwise"):
        return generator.uniform(-1, 1, (BATCH, *IMAGE)).astype(np.float32)
    return generator.integers(0, WORDS, (BATCH, TOKENS)).astype(np.int32)


def made_up(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Weights no two of which are alike; variances are positive."""
    arrays = {name: numbers(*shape, seed=seed + place) for place, (name, shape) in enumerate(shapes.items())}
    return {name: np.abs(array) if name.endswith("running_var") else array for name, array in arrays.items()}


# --- Keras 3 on TensorFlow, whose variables are TensorFlow's


def keras_model(network: str) -> Any:
    """With weights of its own, the same ones each time."""
    model = layer_networks.MATRIX[network](layer_networks.Layers(keras(), "channels_last"))
    layer_networks.give_weights(keras(), model, np.random.RandomState(5))
    return model


@cache
def _emptied(network: str) -> Any:
    return keras_model(network)


def empty_model(network: str) -> Any:
    """A model all of whose weights are NaN: one that a load leaves alone shows in what it computes."""
    model = _emptied(network)
    model.set_weights([np.full(weight.shape, np.nan, np.float32) for weight in model.get_weights()])
    return model


def keras_output(model: Any, x: Array) -> Array:
    return np.asarray(model(x, training=False))


def variables(model: Any) -> dict[str, Any]:
    """The variables under the names of Keras 2 on TensorFlow."""
    found = {f"{layer.name}/{each.name}": each.value for layer in model.layers for each in layer.weights}
    return {"deep/depthwise_kernel" if name == "deep/kernel" else name: value for name, value in found.items()}


def save_checkpoint(model: Any, prefix: Path) -> None:
    tensorflow().compat.v1.train.Saver(variables(model)).save(None, str(prefix), write_state=False)


def restore_checkpoint(model: Any, prefix: Path) -> None:
    """By TensorFlow's Saver, which fails where a variable is missing; there may be no others either."""
    held = {name for name, _ in tensorflow().train.list_variables(str(prefix))}
    assert held == set(variables(model))
    tensorflow().compat.v1.train.Saver(variables(model)).restore(None, str(prefix))


def assign(model: Any, arrays: Arrays) -> None:
    assert set(arrays) == set(variables(model))
    for name, variable in variables(model).items():
        variable.assign(arrays[name])


# --- PyTorch


class TorchNetwork(torch.nn.Module):
    def __init__(self, network: str, seed: int = 9) -> None:
        super().__init__()
        if network == "maps":
            self.conv = torch.nn.Conv2d(3, 4, (3, 2))
            self.norm = torch.nn.BatchNorm2d(4, eps=EPSILON)
            self.up = torch.nn.ConvTranspose2d(4, 4, (3, 2))
            self.dense = torch.nn.Linear(7 * 6 * 4, 5)
        elif network == "depthwise":
            self.deep = torch.nn.Conv2d(3, 6, (3, 2), groups=3)
            self.dense = torch.nn.Linear(5 * 5 * 6, 5)
        else:
            self.embed = torch.nn.Embedding(WORDS, 4)
            kind = network.partition("_")[0]
            setattr(self, kind, {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](4, 3, batch_first=True))
            self.dense = torch.nn.Linear(3, 4)
        state = self.state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items() if value.ndim}
        self.load_state_dict({**state, **{k: torch.from_numpy(v) for k, v in made_up(shapes, seed).items()}})
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            recurrent = self.lstm if hasattr(self, "lstm") else self.gru
            return self.dense(recurrent(self.embed(x))[0][:, -1])
        x = x.permute(0, 3, 1, 2)
        x = self.up(torch.relu(self.norm(self.conv(x)))) if hasattr(self, "conv") else torch.relu(self.deep(x))
        return self.dense(torch.flatten(x, 1))


def torch_output(module: TorchNetwork, x: Array) -> Array:
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


# --- ONNX, and Caffe, which has the same arrays for what it can run

_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "maps": {
        "conv.weight": (4, 3, 3, 2),
        "conv.bias": (4,),
        **{f"norm.{leaf}": (4,) for leaf in ("weight", "bias", "running_mean", "running_var")},
        "up.weight": (4, 4, 3, 2),
        "up.bias": (4,),
        "dense.weight": (5, 4 * 7 * 6),
        "dense.bias": (5,),
    },
    "depthwise": {"deep.weight": (6, 1, 3, 2), "deep.bias": (6,), "dense.weight": (5, 6 * 5 * 5), "dense.bias": (5,)},
    **{
        network: {
            "embed.weight": (WORDS, 4),
            f"{layer}.W": (1, gates * 3, 4),
            f"{layer}.R": (1, gates * 3, 3),
            f"{layer}.B": (1, 2 * gates * 3),
            "dense.weight": (4, 3),
            "dense.bias": (4,),
        }
        for network, layer, gates in (("lstm", "lstm", 4), ("gru_before", "gru", 3), ("gru_after", "gru", 3))
    },
}


def onnx_network(network: str, folder: Path, name: str, seed: int = 9) -> Path:
    node = helper.make_node
    fixed = {}
    if network == "maps":
        norm = [f"norm.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
        nodes = [
            node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], "conv"),
            node("BatchNormalization", ["a", *norm], ["b"], "norm", epsilon=EPSILON),
            node("Relu", ["b"], ["c"]),
            node("ConvTranspose", ["c", "up.weight", "up.bias"], ["d"], "up"),
            node("Flatten", ["d"], ["e"]),
        ]
    elif network == "depthwise":
        nodes = [
            node("Conv", ["x", "deep.weight", "deep.bias"], ["a"], "deep", group=3),
            node("Relu", ["a"], ["b"]),
            node("Flatten", ["b"], ["e"]),
        ]
    else:
        layer = network.partition("_")[0]
        told = {"linear_before_reset": int(network == "gru_after")} if layer == "gru" else {}
        weights = [f"{layer}.{leaf}" for leaf in "WRB"]
        nodes = [
            node("Gather", ["embed.weight", "x"], ["a"], "embed"),
            node("Transpose", ["a"], ["b"], perm=[1, 0, 2]),
            node(layer.upper(), ["b", *weights], ["", "c"], layer, hidden_size=3, **told),
            node("Squeeze", ["c", "first"], ["e"]),
        ]
        fixed = {"first": np.array([0], np.int64)}
    nodes.append(node("Gemm", ["e", "dense.weight", "dense.bias"], ["y"], "dense", transB=1))
    height, width, channels = IMAGE
    shape = [BATCH, channels, height, width] if network in ("maps", "depthwise") else [BATCH, TOKENS]
    made = onnx_model(nodes, {**made_up(_SHAPES[network], seed), **fixed}, {"x": list(shape)})
    if len(shape) == 2:
        made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    return saved(made, folder, name)


def onnx_output(path: Path, x: Array) -> Array:
    [y] = run(path, {"x": first(x)})
    return y


def first(x: Array) -> Array:
    """A map with channels first; words as they are."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim == 4 else x


# Of each layer its name, type, blobs, what the definition says and what the file says.
_Caffe = list[tuple[str, str, tuple[str, ...], str, tuple[int, bytes] | None]]
_SIZES = "kernel_h: 3 kernel_w: 2"
_CAFFE: dict[str, _Caffe] = {
    "maps": [
        (
            "conv",
            "Convolution",
            ("conv.weight", "conv.bias"),
            f"convolution_param {{ num_output: 4 {_SIZES} }}",
            cf.conv(4, (3, 2)),
        ),
        (
            "norm",
            "BatchNorm",
            ("norm.running_mean", "norm.running_var", "factor"),
            f"batch_norm_param {{ use_global_stats: true eps: {EPSILON} }}",
            (cf.BATCH_NORM, cf.number(1, 1) + cf.single(3, EPSILON)),
        ),
        (
            "norm_scale",
            "Scale",
            ("norm.weight", "norm.bias"),
            "scale_param { bias_term: true }",
            (cf.SCALE, cf.number(4, 1)),
        ),
        ("relu", "ReLU", (), "", None),
        (
            "up",
            "Deconvolution",
            ("up.weight", "up.bias"),
            f"convolution_param {{ num_output: 4 {_SIZES} }}",
            cf.conv(4, (3, 2)),
        ),
    ],
    "depthwise": [
        (
            "deep",
            "Convolution",
            ("deep.weight", "deep.bias"),
            f"convolution_param {{ num_output: 6 {_SIZES} group: 3 }}",
            cf.conv(6, (3, 2), 3),
        ),
        ("relu", "ReLU", (), "", None),
    ],
}
_DENSE = ("dense", "InnerProduct", ("dense.weight", "dense.bias"), "inner_product_param { num_output: 5 }", cf.inner(5))
_DIMS = (BATCH, IMAGE[2], *IMAGE[:2])


def caffe_network(network: str, path: Path) -> Path:
    weights = {**made_up(_SHAPES[network], 1), "factor": np.ones(1, np.float32)}
    content, below = cf.packet(1, network) + cf.given(_DIMS), "data"
    for name, kind, blobs, _, parameter in (*_CAFFE[network], _DENSE):
        content += cf.layer(name, kind, [below], [name], [cf.blob(weights[blob]) for blob in blobs], parameter)
        below = name
    return cf.put(path.parent, content, path.name)


def caffe_output(path: Path, network: str, x: Array) -> Array:
    """By OpenCV."""
    text, below = f'input: "data" input_shape {{ {" ".join(f"dim: {dim}" for dim in _DIMS)} }}\n', "data"
    for name, kind, _, parameter, _ in (*_CAFFE[network], _DENSE):
        text += f'layer {{ name: "{name}" type: "{kind}" bottom: "{below}" top: "{name}" {parameter} }}\n'
        below = name
    [y] = cf.OpenCV(path.parent, text, path).run(first(x), below)
    return y
