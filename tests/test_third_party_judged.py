"""What a third party's adapter reads computes the same elsewhere: OpenCV runs the Darknet files, the others judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import darknet_files as files
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import run_wio
from darknet_files import darknet, wheel  # noqa: F401
from keras3_judge import keras, load, randomize, save
from onnx import TensorProto, helper, numpy_helper

pytestmark = [
    pytest.mark.xdist_group("darknet"),
    pytest.mark.usefixtures("darknet"),
    # TensorFlow's variables speak NumPy 1 to NumPy 2; that is between the two of them.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
X = np.random.default_rng(9).standard_normal((1, 3, 9, 7)).astype(np.float32)
EPSILON = 1e-6


def opencv(weights: Path) -> np.ndarray[Any, Any]:
    net = cv2.dnn.readNetFromDarknet(str(weights.with_suffix(".cfg")), str(weights))
    net.setInput(X)
    found: np.ndarray[Any, Any] = net.forward()
    return found


def close(ours: Any, theirs: Any) -> bool:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape == (1, 5)
    return bool(np.abs(ours - theirs).max() < 1e-5)


class Net(torch.nn.Module):
    """NETWORK of darknet_files, its layers named as the adapter names them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutional_0 = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.batch_norm_0 = torch.nn.BatchNorm2d(4, eps=EPSILON)
        self.convolutional_2 = torch.nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.convolutional_3 = torch.nn.Conv2d(6, 6, 1)
        self.connected_6 = torch.nn.Linear(200, 5)
        self.connected_7 = torch.nn.Linear(5, 5)

    def forward(self, x: Any) -> Any:
        def leaky(x: Any) -> Any:
            return torch.nn.functional.leaky_relu(x, 0.1)

        x = leaky(self.batch_norm_0(self.convolutional_0(x)))
        pooled = torch.nn.functional.max_pool2d(torch.nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 2)
        before = self.convolutional_2(pooled)
        x = leaky(self.convolutional_3(before)) + before
        x = torch.cat([x, pooled], 1)
        return self.connected_7(leaky(self.connected_6(torch.flatten(x, 1))))


def torch_runs(path: Path) -> Any:
    net = Net().eval()
    net.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        return net(torch.from_numpy(X)).numpy()


def template(path: Path) -> Path:
    """The same network as an ONNX model whose weights are all wrong."""
    shapes = {
        "convolutional_0.weight": (4, 3, 3, 3),
        **{f"batch_norm_0.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")},
        "convolutional_2.weight": (6, 2, 3, 3),
        "convolutional_2.bias": (6,),
        "convolutional_3.weight": (6, 6, 1, 1),
        "convolutional_3.bias": (6,),
        "connected_6.weight": (200, 5),
        "connected_6.bias": (5,),
        "connected_7.weight": (5, 5),
        "connected_7.bias": (5,),
    }
    norm = [f"batch_norm_0.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "convolutional_0.weight"], ["a"], **conv),
        helper.make_node("BatchNormalization", ["a", *norm], ["b"], epsilon=EPSILON),
        helper.make_node("LeakyRelu", ["b"], ["c"], alpha=0.1),
        helper.make_node("MaxPool", ["c"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node(
            "Conv", ["pooled", "convolutional_2.weight", "convolutional_2.bias"], ["before"], group=2, **conv
        ),
        helper.make_node("Conv", ["before", "convolutional_3.weight", "convolutional_3.bias"], ["d"]),
        helper.make_node("LeakyRelu", ["d"], ["e"], alpha=0.1),
        helper.make_node("Add", ["e", "before"], ["f"]),
        helper.make_node("Concat", ["f", "pooled"], ["g"], axis=1),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "connected_6.weight", "connected_6.bias"], ["i"]),
        helper.make_node("LeakyRelu", ["i"], ["j"], alpha=0.1),
        helper.make_node("Gemm", ["j", "connected_7.weight", "connected_7.bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 9, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(np.full(shape, 0.5, np.float32), name) for name, shape in shapes.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def keras_net(seed: int) -> Any:
    """The same network, channels last, so that the rows of its dense kernel run otherwise."""
    layers = keras().layers
    x = at = layers.Input((9, 7, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="convolutional_0")(x)
    x = layers.LeakyReLU(negative_slope=0.1)(layers.BatchNormalization(epsilon=EPSILON, name="batch_norm_0")(x))
    pooled = layers.MaxPooling2D(2, padding="same")(x)
    before = layers.Conv2D(6, 3, padding="same", groups=2, name="convolutional_2")(pooled)
    x = layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(6, 1, name="convolutional_3")(before))
    x = layers.Concatenate()([layers.Add()([x, before]), pooled])
    x = layers.LeakyReLU(negative_slope=0.1)(layers.Dense(5, name="connected_6")(layers.Flatten()(x)))
    return randomize(keras().Model(at, layers.Dense(5, name="connected_7")(x)), seed)


def keras_runs(model: Any) -> Any:
    return np.asarray(model(np.ascontiguousarray(X.transpose(0, 2, 3, 1)), training=False))


def test_torch_computes_the_same(tmp_path: Path) -> None:
    source = files.network(tmp_path)
    run_wio("convert", source, "--into", "torch", "-o", tmp_path / "net.pt")
    assert close(torch_runs(tmp_path / "net.pt"), opencv(source))


def test_old_files_compute_the_same(tmp_path: Path) -> None:
    """OpenCV refuses them; what they hold is what the new file holds."""
    old = files.network(tmp_path / "old", transposed=True)
    with pytest.raises(cv2.error):
        opencv(old)
    run_wio("convert", old, "--into", "torch", "-o", tmp_path / "net.pt")
    assert close(torch_runs(tmp_path / "net.pt"), opencv(files.network(tmp_path / "new")))


def test_onnxruntime_computes_the_same(tmp_path: Path) -> None:
    source = files.network(tmp_path)
    option = f"template={template(tmp_path / 'template.onnx')}"
    run_wio("convert", source, "--into", "onnx", "-o", tmp_path / "net.onnx", "--option", option)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": X})
    assert close(found, opencv(source))


def test_keras_computes_the_same_and_goes_back(tmp_path: Path) -> None:
    source = files.network(tmp_path)
    option = f"template={save(keras_net(1), tmp_path / 'template.keras')}"
    run_wio("convert", source, "--into", "keras3", "-o", tmp_path / "net.keras", "--option", option)
    assert close(keras_runs(load(tmp_path / "net.keras")), opencv(source))

    other = keras_net(2)
    back = tmp_path / "back" / "net.weights"
    back.parent.mkdir()
    option = f"cfg={tmp_path / 'net.cfg'}"
    run_wio("convert", save(other, tmp_path / "other.keras"), "--into", "darknet", "-o", back, "--option", option)
    theirs = keras_runs(other)
    assert np.allclose(opencv(back), theirs, rtol=1e-5, atol=1e-5)
    assert not np.allclose(opencv(source), theirs, rtol=1e-2)


@pytest.mark.parametrize("mistake", ["rows", "transposed", "norm", "groups"])
def test_the_judge_would_see_a_mistake(mistake: str, tmp_path: Path) -> None:
    """The same weights with one thing wrong that no shape would show."""
    source = files.network(tmp_path)
    run_wio("convert", source, "--into", "torch", "-o", tmp_path / "net.pt")
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    if mistake == "rows":
        kernel = state["connected_6.weight"]
        state["connected_6.weight"] = kernel.reshape(5, 5, 4, 10).permute(0, 3, 1, 2).reshape(5, 200)
    elif mistake == "transposed":
        state["connected_7.weight"] = state["connected_7.weight"].T
    elif mistake == "norm":
        state["batch_norm_0.weight"], state["batch_norm_0.bias"] = (
            state["batch_norm_0.bias"],
            state["batch_norm_0.weight"],
        )
    else:
        state["convolutional_2.weight"] = state["convolutional_2.weight"].roll(3, 0)
    torch.save(state, tmp_path / "wrong.pt")
    assert np.abs(torch_runs(tmp_path / "wrong.pt") - opencv(source)).max() > 1e-2
