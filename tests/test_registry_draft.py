"""``wio registry new``: a draft that loads, names every weight, and reads the file that it was made from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe_files
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run_wio
from keras3_judge import keras, randomize, save
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


# --- what a draft says is what the source computes, or it is not sound


def drafted(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *sizes: list[int]) -> str:
    """The text of the draft of a file, its inputs' sizes filled in as a person would; it is where wio looks for it."""
    path = folder / f"{source.stem}.toml"
    run_wio("registry", "new", source, "-o", path)
    given = iter(sizes)

    def filled(row: re.Match[str]) -> str:
        return f'{row[1]}, {{ axes = "HWC", sizes = {next(given)} }}],'

    path.write_text(re.sub(r'(\["[^"]+", "Input", \[\])\],', filled, path.read_text()))
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(folder))
    return path.read_text()


def run(path: Path, *inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def node_model(path: Path, nodes: list[Any], shapes: dict[str, tuple[int, ...]], opset: int = 17) -> Path:
    """A model of x, 1 4 8 7, giving y."""
    rng = np.random.default_rng(7)
    weights = [numpy_helper.from_array(rng.standard_normal(each).astype(np.float32), n) for n, each in shapes.items()]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 8, 7])
    y = helper.make_tensor_value_info(
        "y", onnx.TensorProto.FLOAT, list("nc" if nodes[-1].op_type == "Flatten" else "nchw")
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(helper.make_graph(nodes, "net", [x], [y], weights), opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def conv(output: str, **attributes: Any) -> Any:
    return helper.make_node("Conv", ["x", "c.w", "c.b"], [output], "c", kernel_shape=[3, 2], **attributes)


def transposed(**attributes: Any) -> list[Any]:
    given = {"kernel_shape": [3, 2], "strides": [2, 3], **attributes}
    return [helper.make_node("ConvTranspose", ["x", "c.w", "c.b"], ["y"], "c", **given)]


def after(op: str, *more: str, **attributes: Any) -> list[Any]:
    return [conv("c"), helper.make_node(op, ["c", *more], ["y"], "n", **attributes)]


CONV = {"c.w": (6, 4, 3, 2), "c.b": (6,)}
UP = {"c.w": (4, 5, 3, 2), "c.b": (5,)}
SAID: dict[str, tuple[list[Any], dict[str, tuple[int, ...]]]] = {
    "softmax": (after("Softmax", axis=2), CONV),
    "count-include-pad": (after("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), CONV),
    "group": ([conv("y", group=2)], {"c.w": (6, 2, 3, 2), "c.b": (6,)}),
    "output-padding": (transposed(output_padding=[1, 2], pads=[1, 0, 0, 1]), UP),
    "stride-beyond-kernel": (transposed(pads=[1, 0, 0, 1]), UP),
    "valid-up": (transposed(auto_pad="VALID"), UP),
    "groups-up": (transposed(group=2), {"c.w": (4, 5, 3, 2), "c.b": (10,)}),
    "leaky": (after("LeakyRelu", alpha=0.3), CONV),
    "elu": (after("Elu", alpha=2.0), CONV),
    "lrn": (after("LRN", size=3, alpha=0.5, beta=0.6, bias=2.0), CONV),
    "peak": (after("GlobalMaxPool"), CONV),
    "product": ([conv("c"), helper.make_node("Mul", ["c", "c"], ["y"], "n")], CONV),
}


@pytest.mark.parametrize("name", SAID)
def test_onnx_computes_the_same_by_its_draft(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = node_model(tmp_path / f"{name.replace('-', '_')}.onnx", *SAID[name])
    assert "TODO: what" not in drafted(model, tmp_path, monkeypatch)
    run_wio("convert", model, "--arch", name, "--into", "onnx", "-o", tmp_path / "out.onnx")
    x = np.random.default_rng(3).uniform(-1, 1, (1, 4, 8, 7)).astype(np.float32)
    [expected], [found] = run(model, x), run(tmp_path / "out.onnx", x)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert "nothing found" in run_wio("check", model, "--arch", name).stdout


UNSAID: dict[str, tuple[list[Any], dict[str, tuple[int, ...]], int, str]] = {
    "old-softmax": (after("Softmax"), CONV, 11, "a Softmax of opset 11"),
    "constant": (after("Add", "k"), {**CONV, "k": (1, 6, 1, 1)}, 17, "Add"),
    "difference": ([conv("c"), helper.make_node("Sub", ["c", "c"], ["y"], "n")], CONV, 17, "Sub"),
    "flatten": (after("Flatten", axis=2), CONV, 17, "Flatten with axis"),
    "resize": (after("Resize", "", "k", mode="linear"), {**CONV, "k": (4,)}, 17, "Resize"),
}


@pytest.mark.parametrize("name", UNSAID)
def test_what_no_operator_says_is_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, shapes, opset, told = UNSAID[name]
    model = node_model(tmp_path / f"{name.replace('-', '_')}.onnx", nodes, shapes, opset)
    text = drafted(model, tmp_path, monkeypatch)
    assert text.count("TODO: what") == 1 and f'unsaid = "{told}"' in text
    assert told in run_wio("registry", "check", model.with_suffix(".toml"), code=2).stderr


def sequential(*layers: Any) -> Any:
    k = keras()
    return k.Sequential([k.Input((8, 7, 3)), k.layers.Conv2D(4, 3, name="c"), *layers])


def two_inputs(k: Any) -> Any:
    """Inputs in another order than they were made in, and an output that goes on into the network."""
    late, early = k.Input((8, 7, 3), name="late"), k.Input((8, 7, 3), name="early")
    a, b = k.Conv2D(4, 3, name="a")(early), k.Conv2D(4, 3, name="b")(late)
    end = k.Dense(2, name="d")(k.Flatten(name="f")(k.Maximum(name="m")([a, b])))
    return keras().Model([early, late], [end, b])


KERAS: dict[str, Callable[[Any], Any]] = {
    "leaky": lambda k: sequential(k.ReLU(negative_slope=0.2), k.Conv2D(3, 2, activation=k.LeakyReLU(0.4))),
    "activations": lambda k: sequential(
        k.LeakyReLU(), k.Conv2D(3, 2, activation="tanh"), k.ELU(0.5), k.Conv2D(3, 1, activation="leaky_relu")
    ),
    "softmax": lambda k: sequential(k.Softmax(axis=1), k.Softmax(axis=-1), k.Flatten(), k.Dense(3, "softmax")),
    "norm": lambda k: sequential(k.BatchNormalization(axis=-1), k.BatchNormalization(axis=3, epsilon=0.1)),
    "pools": lambda k: sequential(k.AveragePooling2D(3, 2, "same"), k.GlobalAveragePooling2D(), k.Dense(3, "elu")),
    "peaks": lambda k: sequential(k.GlobalMaxPooling2D(keepdims=True), k.Conv2D(2, 1), k.Flatten()),
    "groups": lambda k: sequential(k.Conv2D(6, 2, groups=2), k.Conv2DTranspose(3, 2, strides=3, output_padding=2)),
    "inputs": two_inputs,
}


@pytest.mark.parametrize("name", KERAS)
def test_keras_computes_the_same_by_its_draft(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomize(KERAS[name](keras().layers))
    path = save(model, tmp_path / f"{name}.keras")
    assert "TODO: what" not in drafted(path, tmp_path, monkeypatch, *([8, 7, 3] for _ in model.inputs))
    run_wio("convert", path, "--arch", name, "--into", "onnx", "-o", tmp_path / "out.onnx")
    rng = np.random.default_rng(3)
    given = [rng.uniform(-1, 1, (2, 8, 7, 3)).astype(np.float32) for _ in model.inputs]
    expected = model(given if len(given) > 1 else given[0], training=False)
    found = run(tmp_path / "out.onnx", *(np.moveaxis(each, -1, 1) for each in given))
    for ours, theirs in zip(found, expected if isinstance(expected, list) else [expected], strict=True):
        theirs = np.moveaxis(np.asarray(theirs), -1, 1) if ours.ndim > 2 else np.asarray(theirs)
        assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    assert "nothing found" in run_wio("check", path, "--arch", name).stdout


def called_twice(k: Any) -> Any:
    x, shared = k.Input((8, 7, 3)), k.Conv2D(3, 3, padding="same", name="c")
    return keras().Model(x, shared(shared(x)))


def difference(k: Any) -> Any:
    x = k.Input((8, 7, 3))
    return keras().Model(x, k.Subtract(name="minus")([k.Conv2D(4, 3, name="a")(x), k.Conv2D(4, 3, name="b")(x)]))


KERAS_UNSAID: dict[str, tuple[Callable[[Any], Any], str]] = {
    "minus": (difference, "Subtract"),
    "norm": (lambda k: sequential(k.BatchNormalization(axis=1)), "it normalises over H"),
    "slope": (lambda k: sequential(k.PReLU()), "a slope that varies over H W"),
    "twice": (called_twice, "the weights of c, which is called again"),
    "bilinear": (lambda k: sequential(k.UpSampling2D(interpolation="bilinear")), "interpolation=bilinear"),
    "reshape": (lambda k: sequential(k.Reshape((4, 30))), "Reshape(target_shape=[4, 30])"),
}


@pytest.mark.parametrize("name", KERAS_UNSAID)
def test_what_no_operator_says_of_keras_is_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, told = KERAS_UNSAID[name]
    path = save(make(keras().layers), tmp_path / f"{name}.keras")
    assert drafted(path, tmp_path, monkeypatch, [8, 7, 3]).count("TODO: what") == 1
    assert told in run_wio("registry", "check", tmp_path / f"{name}.toml", code=2).stderr


@pytest.mark.parametrize("layer", [{"max_value": 0.5}, {"threshold": 0.9}])
def test_another_relu_is_no_relu(layer: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be said, and no format that holds a graph is written with it."""
    path = save(sequential(keras().layers.ReLU(**layer)), tmp_path / "cut.keras")
    [(key, value)] = layer.items()
    text = drafted(path, tmp_path, monkeypatch, [8, 7, 3])
    assert f'"Activation", "c", {{ function = "ReLU({key}={value})" }}' in text
    done = run_wio("convert", path, "--arch", "cut", "--into", "onnx", "-o", tmp_path / "out.onnx", code=2)
    assert "Activation: the format has no such operator" in done.stderr


CONTRADICTIONS = {
    "leaky": ("alpha = 0.2", "alpha = 0.25", "alpha 0.2; leaky has 0.25"),
    "softmax": ('axis = "H"', 'axis = "W"', "axis H; softmax has W"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_check_sees_what_a_graph_computes_otherwise(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(KERAS[name](keras().layers), tmp_path / f"{name}.keras")
    own, other, told = CONTRADICTIONS[name]
    text = drafted(path, tmp_path, monkeypatch, [8, 7, 3])
    assert text.count(own) == 1
    (tmp_path / f"{name}.toml").write_text(text.replace(own, other))
    assert told in run_wio("check", path, "--arch", name, code=1).stdout
    assert re.search(r"run with \w+ .* as .* has it; the file has", run_wio("verify", path, "--arch", name).stdout)


def test_what_no_operator_says_of_caffe_is_to_do(tmp_path: Path) -> None:
    """Field numbers are those of caffe.proto; the plain layers beside them have nothing to settle."""
    number, single = caffe_files.number, caffe_files.single
    kernels = [
        [caffe_files.blob(caffe_files.values(k, 2, 2, 1, 1)), caffe_files.blob(caffe_files.values(k, 2))]
        for k in (1, 2)
    ]
    net = caffe_files.given((1, 2, 5, 5)) + b"".join(
        (
            caffe_files.layer("plain", "Convolution", ["data"], ["a"], kernels[0], caffe_files.conv(2, (1, 1))),
            caffe_files.layer(
                "stride", "Convolution", ["a"], ["b"], kernels[1], caffe_files.conv(2, (1, 1), more=number(6, 2))
            ),
            caffe_files.layer("relu", "ReLU", ["b"], ["c"]),
            caffe_files.layer("leaky", "ReLU", ["c"], ["d"], (), (123, single(1, 0.25))),
            caffe_files.layer("mean", "Pooling", ["d"], ["e"], (), (121, number(1, 1) + number(2, 3))),
            caffe_files.layer("sum", "Eltwise", ["e", "e"], ["f"]),
            caffe_files.layer("product", "Eltwise", ["f", "f"], ["g"], (), (110, number(1, 0))),
            caffe_files.layer("alone", "Scale", ["g"], ["h"], [caffe_files.blob(caffe_files.values(3, 2))]),
        )
    )
    (tmp_path / "net.caffemodel").write_bytes(net)
    text = run_wio("registry", "new", tmp_path / "net.caffemodel").stdout
    unsaid = dict(re.findall(r'\["(\w+)", .*unsaid = "(.*?)"', text))
    assert unsaid == {
        "stride": "Convolution of stride 2",
        "leaky": "ReLU of negative_slope 0.25",
        "mean": "Pooling of pool AVE; kernel_size 3, sizes rounded up",
        "product": "Eltwise of operation PROD",
        "alone": "a Scale that follows no BatchNorm",
    }
