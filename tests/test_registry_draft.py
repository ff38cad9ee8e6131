"""``wio registry new``: a draft that loads, names every weight, and reads the file that it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_wio
from onnx import helper, numpy_helper

import wio
from wio.architectures.registry_file import load_architecture


def onnx_model(path: Path, height: int | str) -> Path:
    """A branch, a pooling that rounds up, a Flatten of C H W, and two heads."""
    rng = np.random.default_rng(7)
    shapes = {"c1.w": (4, 3, 3, 2), "c1.b": (4,), "c2.w": (5, 4, 1, 1), "fc.w": (36, 6), "fc.b": (6,)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "c1.w", "c1.b"], ["a"], "c1", kernel_shape=[3, 2], strides=[2, 1]),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "c2.w"], ["b"], "c2", kernel_shape=[1, 1]),
        helper.make_node("Concat", ["r", "b"], ["c"], "both", axis=1),
        helper.make_node("MaxPool", ["c"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["y"], "fc"),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, height, 9])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 6])
    model = helper.make_model(helper.make_graph(nodes, "net", [x], [y], weights))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def test_from_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx_model(tmp_path / "My_Net.onnx", 6)
    done = run_wio("registry", "new", model, "-o", tmp_path / "my_net.toml")
    assert "8 layers; 1 places say TODO" in done.stderr and "sound" not in done.stderr
    architecture = load_architecture(tmp_path / "my_net.toml")
    assert architecture.id == "my-net"
    layouts = {p.name: str(p.layout) for p in architecture.parameters}
    # 6 x 9, through 3 x 2 by 2, 1 and 2 x 2 rounded up: 1 x 4; 4 + 5 channels. In the file the rows run C H W.
    assert layouts["fc/kernel"] == "(CHW)O C=9 H=1 W=4"
    assert "c2/bias" not in layouts
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    run_wio("export", model, "--arch", "my-net", "-o", tmp_path / "net.wio")
    assert wio.open(tmp_path / "net.wio")["c1/kernel"].origin == "c1.w"


def test_what_a_graph_leaves_open_is_to_do(tmp_path: Path) -> None:
    text = run_wio("registry", "new", onnx_model(tmp_path / "net.onnx", "height")).stdout
    assert "# TODO: its axes and sizes" in text and '["c2", "Conv", "relu", { bias = false' in text


def test_from_keras(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = data / "keras_layers" / "k224_tf_last" / "ConvFlattenDense.full.h5"
    run_wio("registry", "new", model, "-o", tmp_path / "small.toml", "--id", "small")
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    run_wio("export", model, "--arch", "small", "-o", tmp_path / "net.wio")
    plain = wio.open(model)
    ours = wio.open(tmp_path / "net.wio")
    assert {t.origin for t in ours.values()} == {t.origin or t.name for t in plain.values()}
    assert all(t.layout == plain[name].layout for name, t in zip(plain, ours.values(), strict=True))


def test_weights_without_a_graph_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.zeros(3, np.float32))
    assert "holds weights and no graph" in run_wio("registry", "new", tmp_path / "w.npz", code=2).stderr
