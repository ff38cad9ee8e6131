"""What the graph says of each weight: role and layout from the node that takes it, and nothing from its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import layer_reference
import numpy as np
import onnx_network
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_judge import declared, model, read, run, saved, values

from wio.roles import neutral

Shapes = dict[str, tuple[int, ...]]


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    name = attributes.pop("name", "")
    return helper.make_node(op, inputs.split(), outputs.split(), name, **attributes)


CONV = "conv.kernel"
TABLE: dict[str, tuple[list[Any], Shapes, list[Any] | None, dict[str, tuple[str | None, str | None]]]] = {
    "1-D": ([node("Conv", "x w b")], {"w": (4, 3, 5), "b": (4,)}, None, {"w": (CONV, "OIW"), "b": ("conv.bias", "O")}),
    "2-D": ([node("Conv", "x w")], {"w": (4, 3, 5, 5)}, None, {"w": (CONV, "OIHW")}),
    "3-D": ([node("Conv", "x w")], {"w": (4, 3, 2, 2, 2)}, None, {"w": (CONV, "OIDHW")}),
    "grouped": ([node("Conv", "x w", group=2)], {"w": (4, 3, 5, 5)}, None, {"w": (CONV, "(GO)IHW G=2")}),
    "groups that do not divide": ([node("Conv", "x w", group=3)], {"w": (4, 3, 5, 5)}, None, {"w": (None, None)}),
    "another kernel_shape": (
        [node("Conv", "x w", kernel_shape=[3, 3])],
        {"w": (4, 3, 5, 5)},
        None,
        {"w": (None, None)},
    ),
    "another domain": ([node("Conv", "x w", domain="local")], {"w": (4, 3, 5, 5)}, None, {"w": (None, None)}),
    "no convolution": ([node("Conv", "x w")], {"w": (4, 3)}, None, {"w": (None, None)}),
    "transposed": (
        [node("ConvTranspose", "x w b")],
        {"w": (3, 4, 5, 5), "b": (4,)},
        None,
        {"w": ("conv_transpose.kernel", "IOHW"), "b": ("conv_transpose.bias", "O")},
    ),
    "transposed, grouped": (
        [node("ConvTranspose", "x w", group=3)],
        {"w": (3, 4, 5)},
        None,
        {"w": ("conv_transpose.kernel", "(GI)OW G=3")},
    ),
    "Gemm": (
        [node("Gemm", "x w b")],
        {"w": (3, 4), "b": (4,)},
        None,
        {"w": ("dense.kernel", "(?)O"), "b": ("dense.bias", "O")},
    ),
    "Gemm, transB": (
        [node("Gemm", "x w b", transB=1)],
        {"w": (4, 3), "b": (1, 4)},
        None,
        {"w": ("dense.kernel", "O(?)"), "b": ("dense.bias", "1O")},
    ),
    "Gemm on the left": ([node("Gemm", "w x")], {"w": (4, 3)}, None, {"w": ("dense.kernel", "O(?)")}),
    "Gemm on the left, transA": ([node("Gemm", "w x", transA=1)], {"w": (3, 4)}, None, {"w": ("dense.kernel", "(?)O")}),
    "Gemm, scaled": (
        [node("Gemm", "x w b", alpha=0.5, beta=2.0)],
        {"w": (3, 4), "b": (4,)},
        None,
        {"w": (None, None), "b": (None, None)},
    ),
    "MatMul and Add": (
        [node("MatMul", "x w", "h"), node("Add", "b h")],
        {"w": (3, 4), "b": (4,)},
        None,
        {"w": ("dense.kernel", "(?)O"), "b": ("dense.bias", "O")},
    ),
    "Add of something else": (
        [node("MatMul", "x w", "h"), node("Add", "h b")],
        {"w": (3, 4), "b": (5, 4)},
        None,
        {"w": ("dense.kernel", "(?)O"), "b": (None, None)},
    ),
    "MatMul of a stack": ([node("MatMul", "x w")], {"w": (2, 3, 4)}, None, {"w": (None, None)}),
    "Conv and Add": (
        [node("Conv", "x w", "h"), node("Add", "h b")],
        {"w": (4, 3, 1, 1), "b": (1, 4, 1, 1)},
        None,
        {"w": (CONV, "OIHW"), "b": ("conv.bias", "1O11")},
    ),
    "after Gemm": (
        [node("Gemm", "x w", "h"), node("Relu", "h", "r"), node("Gemm", "r v")],
        {"w": (3, 4), "v": (4, 5)},
        None,
        {"w": ("dense.kernel", "(?)O"), "v": ("dense.kernel", "IO")},
    ),
    "after Flatten": (
        [
            node("Conv", "x w", "h", pads=[1, 1, 1, 1], strides=[2, 1]),
            node("MaxPool", "h", "p", kernel_shape=[2, 2]),
            node("Flatten", "p", "f"),
            node("Gemm", "f v"),
        ],
        {"w": (4, 3, 3, 3), "v": (4 * 3 * 6, 5)},
        [1, 3, 8, 7],
        {"w": (CONV, "OIHW"), "v": ("dense.kernel", "(CHW)O C=4 H=3 W=6")},
    ),
    "after Flatten of unknown space": (
        [node("Conv", "x w", "h"), node("Flatten", "h", "f"), node("Gemm", "f v", transB=1)],
        {"w": (4, 3, 3, 3), "v": (5, 24)},
        None,
        {"w": (CONV, "OIHW"), "v": ("dense.kernel", "O(CHW) C=4")},
    ),
    "after a view of the first length": (
        [
            node("Conv", "x w", "h"),
            node("Shape", "h", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Unsqueeze", "n zeros", "u", name="u"),
            node("Concat", "u rest", "shape", axis=0),
            node("Reshape", "h shape", "f"),
            node("Gemm", "f v"),
        ],
        {"w": (4, 3, 1, 1), "v": (24, 5)},
        [None, 3, 2, 3],
        {"w": (CONV, "OIHW"), "v": ("dense.kernel", "(CHW)O C=4 H=2 W=3")},
    ),
    "SAME": (
        [
            node("Conv", "x w", "h", auto_pad="SAME_UPPER", strides=[2, 2]),
            node("Flatten", "h", "f"),
            node("MatMul", "f v"),
        ],
        {"w": (4, 3, 3, 3), "v": (4 * 4 * 4, 5)},
        [None, 3, 8, 7],
        {"w": (CONV, "OIHW"), "v": ("dense.kernel", "(CHW)O C=4 H=4 W=4")},
    ),
    "channels last": (
        [
            node("Conv", "x w", "h"),
            node("Transpose", "h", "t", perm=[0, 2, 3, 1]),
            node("Flatten", "t", "f"),
            node("MatMul", "f v"),
        ],
        {"w": (4, 3, 3, 3), "v": (4 * 6 * 5, 5)},
        [1, 3, 8, 7],
        {"w": (CONV, "OIHW"), "v": ("dense.kernel", "(HWC)O H=6 W=5 C=4")},
    ),
    "global pool": (
        [node("Conv", "x w", "h"), node("GlobalAveragePool", "h", "p"), node("Flatten", "p", "f"), node("Gemm", "f v")],
        {"w": (4, 3, 3, 3), "v": (4, 5)},
        None,
        {"w": (CONV, "OIHW"), "v": ("dense.kernel", "IO")},
    ),
    "mean over space": (
        [node("Conv", "x w", "h"), node("ReduceMean", "h a", "p", keepdims=0), node("Gemm", "p v")],
        {"w": (4, 3, 3, 3), "v": (4, 5), "a": (2,)},
        None,
        {"w": (CONV, "OIHW"), "v": ("dense.kernel", "IO"), "a": ("other", None)},
    ),
    "residual": (
        [
            node("Conv", "x w", "h", pads=[1, 1, 1, 1]),
            node("Add", "h x", "s"),
            node("Flatten", "s", "f"),
            node("Gemm", "f v"),
        ],
        {"w": (3, 3, 3, 3), "v": (3 * 8 * 7, 5)},
        [1, 3, 8, 7],
        {"w": (CONV, "OIHW"), "v": ("dense.kernel", "(?)O")},
    ),
    "BatchNormalization": (
        [node("Conv", "x w", "h"), node("BatchNormalization", "h g b m v")],
        {"w": (4, 3, 1), "g": (4,), "b": (4,), "m": (4,), "v": (4,)},
        None,
        {
            "w": (CONV, "OIW"),
            "g": ("batch_norm.gamma", "C"),
            "b": ("batch_norm.beta", "C"),
            "m": ("batch_norm.mean", "C"),
            "v": ("batch_norm.variance", "C"),
        },
    ),
    "BatchNormalization of a flattened map": (
        [node("Conv", "x w", "h"), node("Flatten", "h", "f"), node("BatchNormalization", "f g b m v")],
        {"w": (4, 3, 1, 1), "g": (24,), "b": (24,), "m": (24,), "v": (24,)},
        [1, 3, 2, 3],
        {
            "w": (CONV, "OIHW"),
            "g": ("batch_norm.gamma", "(CHW) C=4 H=2 W=3"),
            "b": ("batch_norm.beta", "(CHW) C=4 H=2 W=3"),
            "m": ("batch_norm.mean", "(CHW) C=4 H=2 W=3"),
            "v": ("batch_norm.variance", "(CHW) C=4 H=2 W=3"),
        },
    ),
    "BatchNormalization of who knows what": (
        [node("BatchNormalization", "x g b m v")],
        {"g": (4,), "b": (4,), "m": (4,), "v": (4,)},
        None,
        {
            "g": ("batch_norm.gamma", "(?)"),
            "b": ("batch_norm.beta", "(?)"),
            "m": ("batch_norm.mean", "(?)"),
            "v": ("batch_norm.variance", "(?)"),
        },
    ),
    "InstanceNormalization": (
        [node("InstanceNormalization", "x g b")],
        {"g": (4,), "b": (4,)},
        None,
        {"g": ("instance_norm.gamma", "C"), "b": ("instance_norm.beta", "C")},
    ),
    "LayerNormalization": (
        [node("Gather", "e x", "h"), node("LayerNormalization", "h g b")],
        {"e": (9, 4), "g": (4,), "b": (4,)},
        None,
        {"e": ("embedding.table", "IO"), "g": ("layer_norm.gamma", "C"), "b": ("layer_norm.beta", "C")},
    ),
    "Gather along another axis": ([node("Gather", "e x", axis=1)], {"e": (9, 4)}, None, {"e": (None, None)}),
    "PRelu": (
        [node("Conv", "x w", "h"), node("PRelu", "h s")],
        {"w": (4, 3, 1, 1), "s": (4, 1, 1)},
        None,
        {"w": (CONV, "OIHW"), "s": ("prelu.alpha", "C11")},
    ),
    "PRelu along one axis": (
        [node("Conv", "x w", "h"), node("PRelu", "h s")],
        {"w": (4, 3, 1, 1), "s": (4, 5, 1)},
        None,
        {"w": (CONV, "OIHW"), "s": ("prelu.alpha", "CH1")},
    ),
    "PRelu of one number": (
        [node("Conv", "x w", "h"), node("PRelu", "h s")],
        {"w": (4, 3, 1, 1), "s": (1,)},
        None,
        {"w": (CONV, "OIHW"), "s": (None, None)},
    ),
    "LSTM": (
        [node("LSTM", "x w r b", hidden_size=2)],
        {"w": (1, 8, 3), "r": (1, 8, 2), "b": (1, 16)},
        None,
        {
            "w": ("lstm.kernel", "1(GU)I G=iofc"),
            "r": ("lstm.recurrent_kernel", "1(GU)I G=iofc"),
            "b": ("lstm.bias", "1(BGU) B=2 G=iofc"),
        },
    ),
    "LSTM both ways": (
        [node("LSTM", "x w r", direction="bidirectional")],
        {"w": (2, 8, 3), "r": (2, 8, 2)},
        None,
        {"w": ("lstm.kernel", "F(GU)I G=iofc"), "r": ("lstm.recurrent_kernel", "F(GU)I G=iofc")},
    ),
    "LSTM backwards, with peepholes": (
        [helper.make_node("LSTM", ["x", "w", "r", "", "", "", "", "p"], ["y"], direction="reverse")],
        {"w": (1, 8, 3), "r": (1, 8, 2), "p": (1, 6)},
        None,
        {
            "w": ("lstm.kernel", "1(GU)I G=iofc"),
            "r": ("lstm.recurrent_kernel", "1(GU)I G=iofc"),
            "p": ("lstm.peephole", "1(GU) G=iof"),
        },
    ),
    "LSTM whose shape refutes its direction": (
        [node("LSTM", "x w r", direction="bidirectional")],
        {"w": (1, 8, 3), "r": (2, 8, 2)},
        None,
        {"w": (None, None), "r": ("lstm.recurrent_kernel", "F(GU)I G=iofc")},
    ),
    "GRU": (
        [node("GRU", "x w r b")],
        {"w": (1, 6, 3), "r": (1, 6, 2), "b": (1, 12)},
        None,
        {
            "w": ("gru.kernel", "1(GU)I G=zrh"),
            "r": ("gru.recurrent_kernel", "1(GU)I G=zrh"),
            "b": ("gru.bias", "1(BGU) B=2 G=zrh"),
        },
    ),
    "RNN": (
        [node("RNN", "x w r b")],
        {"w": (1, 2, 3), "r": (1, 2, 2), "b": (1, 4)},
        None,
        {"w": ("rnn.kernel", "1UI"), "r": ("rnn.recurrent_kernel", "1UI"), "b": ("rnn.bias", "1(BU) B=2")},
    ),
    "through Transpose": (
        [node("Transpose", "w", "t", perm=[3, 2, 0, 1]), node("Conv", "x t")],
        {"w": (5, 5, 3, 4)},
        None,
        {"w": (CONV, "HWIO")},
    ),
    "through two of them": (
        [node("Transpose", "w", "t", perm=[1, 2, 0]), node("Transpose", "t", "u", perm=[1, 2, 0]), node("Conv", "x u")],
        {"w": (5, 6, 7)},
        None,
        {"w": (CONV, "IWO")},
    ),
    "through Transpose without perm": (
        [node("Transpose", "w", "t"), node("MatMul", "x t")],
        {"w": (4, 3)},
        None,
        {"w": ("dense.kernel", "O(?)")},
    ),
    "through Identity and Cast": (
        [node("Identity", "w", "i"), node("Cast", "i", "c", to=1), node("Conv", "x c")],
        {"w": (4, 3, 5)},
        None,
        {"w": (CONV, "OIW")},
    ),
    "through DequantizeLinear": (
        [node("DequantizeLinear", "w s z", "d"), node("Conv", "x d")],
        {"w": (4, 3, 5), "s": (), "z": ()},
        None,
        {"w": (CONV, "OIW"), "s": (None, None), "z": (None, None)},
    ),
    "used twice alike": ([node("Conv", "x w", "h"), node("Conv", "h w")], {"w": (3, 3, 5)}, None, {"w": (CONV, "OIW")}),
    "used in contradicting ways": (
        [node("Gather", "e x", "h"), node("Transpose", "e", "t"), node("MatMul", "h t")],
        {"e": (9, 4)},
        None,
        {"e": (None, None)},
    ),
    "a square kernel": (
        [node("Transpose", "w", "t"), node("Gemm", "x t")],
        {"w": (4, 4)},
        None,
        {"w": ("dense.kernel", "O(?)")},
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_declared(tmp_path: Path, case: str) -> None:
    nodes, shapes, given, wanted = TABLE[case]
    weights = {name: np.array([2, 3]) if name == "a" else values(*shape) for name, shape in shapes.items()}
    if "view" in case:
        weights |= {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1])}
        wanted = {**wanted, **dict.fromkeys(("zero", "zeros", "rest"), ("other", None))}
    assert declared(model(nodes, weights, {"x": given}), tmp_path) == wanted


def test_a_tensor_used_in_contradicting_ways_is_named(tmp_path: Path) -> None:
    nodes, shapes, _, _ = TABLE["used in contradicting ways"]
    bundle = read(saved(model(nodes, {"e": values(*shapes["e"])}), tmp_path))
    assert bundle.metadata["onnx"]["contradicted"] == {"e": ["embedding.table IO", "dense.kernel OI"]}


def test_bodies_see_weights_around_them_and_functions_those_they_are_given(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            node("Constant", "", "k", value=numpy_helper.from_array(values(4, 3, 2), "k")),
            node("Conv", "x k", "h"),
            node("Conv", "h outer", "o"),
        ],
        "b",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )
    function = helper.make_function(
        "local",
        "layer",
        ["a", "kernel"],
        ["b"],
        [node("Transpose", "kernel", "t", perm=[1, 0]), node("Gemm", "a t", "b", transB=1)],
        [helper.make_opsetid("", 21)],
    )
    nodes = [
        node("If", "q", "i", then_branch=body, else_branch=body, name="if"),
        node("layer", "x given", "f", domain="local"),
        node("Relu", "f", "g"),
        node("Gemm", "g last"),
    ]
    weights = {"q": np.array(True), "outer": values(5, 4, 2), "given": values(3, 4), "last": values(4, 2)}
    assert declared(model(nodes, weights, functions=[function]), tmp_path) == {
        "q": (None, None),
        "outer": (CONV, "OIW"),
        "given": ("dense.kernel", "(?)O"),
        "last": ("dense.kernel", "IO"),
        "if/then_branch/k": (CONV, "OIW"),
        "if/else_branch/k": (CONV, "OIW"),
    }


def test_functions_that_call_one_another_for_ever_are_left_alone(tmp_path: Path) -> None:
    calls = [node("f", "a k", "b", domain="local"), node("f", "a k", "c", domain="local")]
    function = helper.make_function("local", "f", ["a", "k"], ["b"], calls, [helper.make_opsetid("local", 1)])
    made = model([node("f", "x w", "y", domain="local")], {"w": values(3)}, functions=[function])
    assert declared(made, tmp_path) == {"w": (None, None)}


def test_layers_are_what_names_share_or_else_nodes(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x conv1.weight conv1.bias", "a"),
        node("Conv", "a w1 b1", "b", name="second"),
        node("Conv", "b onnx::Conv_7 onnx::Conv_8", "c", name="third"),
        node("Conv", "c onnx::Conv_9 onnx::Conv_10", "d", name="fourth"),
        node("Conv", "d lone"),
    ]
    kernels = ("conv1.weight", "w1", "onnx::Conv_7", "onnx::Conv_9", "lone")
    biases = ("conv1.bias", "b1", "onnx::Conv_8", "onnx::Conv_10")
    weights = {**{name: values(3, 3, 1) for name in kernels}, **{name: values(3) for name in biases}}
    layers = {t.name: t.layer for t in read(saved(model(nodes, weights), tmp_path)).values()}
    assert [layers[name] for name in kernels] == ["conv1", "second", "third", "fourth", "lone"]
    assert [layers[name] for name in biases] == ["conv1", "second", "third", "fourth"]


def test_metadata_keep_what_weights_lose(tmp_path: Path) -> None:
    made = onnx_network.network(1)
    made.producer_name, made.producer_version = "tests", "1"
    found = read(saved(made, tmp_path)).metadata
    assert found["adapter"] == "onnx"
    assert found["epsilon"] == {"bn": 0.001, "ln": 1e-05}
    assert found["onnx"] == {
        "ir_version": 10,
        "opsets": {"ai.onnx": 21, "local": 1},
        "producer": "tests 1",
        "graph": "g",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [2, 3, 6, 5]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": None}],
        "linear_before_reset": {"gru": 1},
    }


def test_what_a_quantised_kernel_is_dequantised_with(tmp_path: Path) -> None:
    nodes, *_ = TABLE["through DequantizeLinear"]
    weights = {"w": np.ones((4, 3, 5), np.int8), "s": np.array(0.5, np.float32), "z": np.array(3, np.int8)}
    found = read(saved(model(nodes, weights), tmp_path))
    assert found.metadata["onnx"]["dequantized_with"] == {"w": ["s", "z"]}


# --- what the graph declares, judged by what onnxruntime computes

BETWEEN = {
    "Transpose": ([node("Transpose", "w", "k", perm=[3, 2, 0, 1])], (3, 2, 4, 5)),
    "two Transposes": ([node("Transpose", "w", "t", perm=[1, 0, 3, 2]), node("Transpose", "t", "k", perm=[1, 3, 0, 2])],
                       (3, 5, 4, 2)),
    "equal axes": ([node("Transpose", "w", "k", perm=[2, 3, 1, 0])], (3, 3, 3, 3)),
    "Identity and Cast": ([node("Identity", "w", "i"), node("Cast", "i", "k", to=1)], (5, 4, 3, 2)),
    "DequantizeLinear": ([node("DequantizeLinear", "w scale", "k")], (5, 4, 3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("case", BETWEEN)
def test_a_kernel_behind_other_nodes_is_what_it_is_declared(tmp_path: Path, case: str) -> None:
    between, shape = BETWEEN[case]
    kernel, scale = values(*shape), np.array(0.0625, np.float32)
    if case == "DequantizeLinear":
        kernel = (kernel * 10).astype(np.int8)
    elif "Cast" in case:
        kernel = kernel.astype(np.float64)
    made = model([*between, node("Conv", "x k")], {"w": kernel, "scale": scale})
    path = saved(made, tmp_path)
    declared_kernel = read(path)["w"]
    assert declared_kernel.role == CONV
    hwio = declared_kernel.to("HWIO").numpy() * (scale if case == "DequantizeLinear" else 1)
    x = values(2, hwio.shape[2], 6, 7)
    [y] = run(path, {"x": x})
    expected = layer_reference.correlated(x.transpose(0, 2, 3, 1), hwio)
    np.testing.assert_allclose(y.transpose(0, 2, 3, 1), expected, rtol=0, atol=1e-5)


NODES: dict[str, tuple[list[Any], Shapes, tuple[int, ...], dict[str, Any]]] = {
    "1-D": ([node("Conv", "x kernel bias")], {"kernel": (4, 3, 5), "bias": (4,)}, (2, 3, 8), {}),
    "3-D": ([node("Conv", "x kernel bias")], {"kernel": (4, 3, 2, 3, 4), "bias": (4,)}, (1, 3, 4, 5, 6), {}),
    "groups": (
        [node("Conv", "x kernel bias", group=3)], {"kernel": (6, 2, 2, 3), "bias": (6,)}, (2, 6, 4, 5), {"groups": 3}
    ),
    "ConvTranspose in groups": (
        [node("ConvTranspose", "x kernel bias", group=2, strides=[2, 2])],
        {"kernel": (6, 4, 2, 3), "bias": (8,)}, (2, 6, 4, 5), {"groups": 2, "stride": 2},
    ),
    "ConvTranspose in groups, equal axes": (
        [node("ConvTranspose", "x kernel bias", group=3, strides=[2, 2])],
        {"kernel": (9, 3, 3, 3), "bias": (9,)}, (2, 9, 3, 3), {"groups": 3, "stride": 2},
    ),
    "Gemm, transB": ([node("Gemm", "x kernel bias", transB=1)], {"kernel": (4, 3), "bias": (4,)}, (2, 3), {}),
    "Gemm, transA": ([node("Transpose", "x", "t"), node("Gemm", "t kernel bias", transA=1)],
                     {"kernel": (3, 4), "bias": (4,)}, (2, 3), {}),
    "Gemm on the left": ([node("Transpose", "x", "t"), node("Gemm", "kernel t", "h"), node("Transpose", "h")],
                         {"kernel": (3, 3)}, (2, 3), {}),
    "Gemm on the left, transA": (
        [node("Transpose", "x", "t"), node("Gemm", "kernel t", "h", transA=1), node("Transpose", "h")],
        {"kernel": (3, 3)}, (2, 3), {},
    ),
    "MatMul and Add": ([node("MatMul", "x kernel", "h"), node("Add", "h bias")],
                       {"kernel": (3, 3), "bias": (3,)}, (2, 3), {}),
    "InstanceNormalization": (
        [node("InstanceNormalization", "x gamma beta", epsilon=1e-3)], {"gamma": (4,), "beta": (4,)}, (2, 4, 3, 5), {}
    ),
    "RNN": ([node("RNN", "x kernel recurrent_kernel", "s last", hidden_size=3), node("Squeeze", "last one")],
            {"kernel": (1, 3, 3), "recurrent_kernel": (1, 3, 3)}, (4, 2, 3), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", NODES)
def test_what_a_graph_declares_is_what_it_computes(tmp_path: Path, case: str) -> None:
    nodes, shapes, given, options = NODES[case]
    weights = {part: values(*shape) for part, shape in shapes.items()}
    path = saved(model(nodes, {**weights, "one": np.array([0])}, {"x": list(given)}), tmp_path)
    bundle = read(path)
    kind = str(bundle[next(iter(shapes))].role).partition(".")[0]
    neutrals = {}
    for part in shapes:
        tensor = bundle[part]
        assert tensor.role == f"{kind}.{part}" and tensor.layout is not None
        neutrals[part] = tensor.to(neutral(tensor.role, tensor.layout)).numpy()
    neutrals.setdefault("bias", np.zeros(1))
    x = values(*given)
    [y] = run(path, {"x": x})
    # Operators of sequences have time first, the others channels.
    mine = x.swapaxes(0, 1) if case == "RNN" else np.moveaxis(x, 1, -1)
    expected = layer_reference.LAYERS[kind](neutrals, mine, **options)
    np.testing.assert_allclose(y if case == "RNN" else np.moveaxis(y, 1, -1), expected, rtol=0, atol=1e-5)
