"""Steps that change values, each judged by the outputs of the real network, and each left out once to see the judge."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_files import PROTOTXT, OpenCV, W, network
from keras3_judge import keras, randomize, save
from test_cli import arrays, make

import wio
from wio.architectures.network_changes import changed
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.errors import PlanError, UsageError, WioError
from wio.layout import Layout
from wio.network import NetLayer, Network
from wio.plan import Plan
from wio.values.arithmetic import rounded
from wio.values.steps import STEPS, apply_requests, parse_request

Layers = Callable[[Any], list[Any]]


def sequential(*layers: Any, shape: tuple[int, ...] = (6, 5, 4)) -> Any:
    return randomize(keras().Sequential([keras().Input(shape), *layers]))


def images(model: Any) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).standard_normal((2, *model.input_shape[1:])).astype(np.float32)


def ported(source: Any, target: Any, folder: Path, *apply: str, drop: tuple[str, ...] = ()) -> Any:
    """The target network with the source's weights, as wio brings them there by way of two real files."""
    template = save(target, folder / "template.keras")
    out = folder / "out.keras"
    wio.import_into(
        save(source, folder / "source.keras"),
        out,
        adapter="keras3",
        apply=apply,
        drop=drop,
        template=str(template),
    )
    return keras().saving.load_model(out)


def assert_same(source: Any, target: Any, same: bool = True) -> None:
    given = images(source)
    expected, found = np.asarray(source(given)), np.asarray(target(given))
    error = float(np.max(np.abs(expected - found)))
    assert (error <= 1e-5 * max(1.0, float(np.max(np.abs(expected))))) is same, error


def conv_and_norm(bias: bool = True, **norm: Any) -> Any:
    k = keras().layers
    return sequential(
        k.Conv2D(3, (3, 2), use_bias=bias, name="conv"), k.BatchNormalization(name="bn", **norm), k.ReLU(name="relu")
    )


# --- a bias in front of a batch norm


def test_a_bias_goes_into_the_mean_of_the_batch_norm_that_follows(tmp_path: Path) -> None:
    source = conv_and_norm()
    assert_same(source, ported(source, conv_and_norm(bias=False), tmp_path, "fold-bias=conv"))


def test_leaving_the_bias_out_is_seen(tmp_path: Path) -> None:
    source = conv_and_norm()
    bias_left_out = ported(source, conv_and_norm(bias=False), tmp_path, drop=("conv/bias",))
    assert_same(source, bias_left_out, same=False)


def test_a_bias_behind_an_activation_is_none_of_a_batch_norm(tmp_path: Path) -> None:
    k = keras().layers
    source = sequential(k.Conv2D(3, 2, activation="relu", name="conv"), k.BatchNormalization(name="bn"))
    file = save(source, tmp_path / "s.keras")
    with pytest.raises(WioError, match="no graph says"):
        wio.export(file, tmp_path / "o.wio", apply=["fold-bias=conv"])


def test_a_convolution_that_two_layers_take_is_not_folded(tmp_path: Path) -> None:
    k = keras().layers
    given = keras().Input((6, 5, 4))
    made = k.Conv2D(3, 2, name="conv")(given)
    source = randomize(keras().Model(given, k.Add()([k.BatchNormalization(name="bn")(made), made])))
    with pytest.raises(WioError, match="no graph says"):
        wio.export(save(source, tmp_path / "s.keras"), tmp_path / "o.wio", apply=["fold-batch-norm=conv"])


def test_the_graph_of_a_functional_model_tells_the_pairs_whatever_their_names_and_order(tmp_path: Path) -> None:
    k = keras().layers
    given = keras().Input((6, 5, 4))
    convs = [k.Conv2D(3, 2, name=f"conv{n}")(given) for n in (1, 2)]
    norms = [k.BatchNormalization(name="bn1")(convs[1]), k.BatchNormalization(name="bn2")(convs[0])]
    model = randomize(keras().Model(given, k.Concatenate()(norms)))
    bundle = wio.open(save(model, tmp_path / "s.keras"))
    assert bundle.metadata["batch_norms"] == {"bn1": "conv2", "bn2": "conv1"}
    legacy = wio.open(save(model, tmp_path / "s.h5"), "keras-tf")
    assert legacy.metadata["batch_norms"] == bundle.metadata["batch_norms"]


# --- gamma, epsilon


def test_gamma_is_1_where_the_target_has_one(tmp_path: Path) -> None:
    source = conv_and_norm(scale=False)
    assert_same(source, ported(source, conv_and_norm(), tmp_path, "gamma=*"))
    assert_same(source, ported(source, conv_and_norm(), tmp_path, "gamma=bn:1.01"), same=False)


def test_beta_is_0_where_the_target_has_one(tmp_path: Path) -> None:
    source = conv_and_norm(center=False)
    assert_same(source, ported(source, conv_and_norm(), tmp_path, "beta=bn"))


def test_an_epsilon_difference_goes_into_the_variance(tmp_path: Path) -> None:
    source, target = conv_and_norm(epsilon=0.05), conv_and_norm(epsilon=1e-5)
    assert_same(source, ported(source, target, tmp_path, "epsilon=bn:1e-5"))
    assert_same(source, ported(source, target, tmp_path), same=False)


def test_an_epsilon_that_would_make_a_variance_negative_is_refused(tmp_path: Path) -> None:
    source = conv_and_norm(epsilon=1e-5)
    file = save(source, tmp_path / "s.keras")
    with pytest.raises(WioError, match="would be negative"):
        wio.export(file, tmp_path / "o.wio", apply=["epsilon=bn:0.95"])
    assert not (tmp_path / "o.wio").exists()


def test_the_epsilon_that_the_file_says_is_not_contradicted(tmp_path: Path) -> None:
    file = save(conv_and_norm(epsilon=0.05), tmp_path / "s.keras")
    with pytest.raises(PlanError, match=r"epsilon of bn is 0\.05"):
        wio.export(file, tmp_path / "o.wio", apply=["epsilon=bn:0.001:1e-5"])


def test_a_changed_epsilon_is_what_the_file_says_from_then_on(tmp_path: Path) -> None:
    wio.export(save(conv_and_norm(), tmp_path / "s.keras"), tmp_path / "o.wio", apply=["epsilon=bn:1e-5"])
    layers = {layer["name"]: layer for layer in wio.open(tmp_path / "o.wio").metadata["layers"]}
    assert layers["bn"]["epsilon"] == 1e-5
    assert "keras3" not in wio.open(tmp_path / "o.wio").metadata, "its config says another epsilon"


# --- a batch norm into what is before it

KINDS: dict[str, tuple[Layers, tuple[int, ...]]] = {
    "conv": (lambda k: [k.Conv2D(3, (3, 2), name="l")], (6, 5, 4)),
    "conv without bias": (lambda k: [k.Conv2D(4, 2, use_bias=False, strides=2, padding="same", name="l")], (6, 5, 4)),
    "grouped": (lambda k: [k.Conv2D(6, (3, 2), groups=2, name="l")], (6, 5, 4)),
    "one dimension": (lambda k: [k.Conv1D(5, 3, padding="same", name="l")], (7, 5)),
    "three dimensions": (lambda k: [k.Conv3D(2, 2, name="l")], (3, 4, 5, 2)),
    "depthwise": (lambda k: [k.DepthwiseConv2D((3, 2), depth_multiplier=3, name="l")], (6, 5, 4)),
    "transposed": (lambda k: [k.Conv2DTranspose(3, (3, 2), strides=2, name="l")], (4, 5, 6)),
    "separable": (lambda k: [k.SeparableConv2D(5, (3, 2), depth_multiplier=2, name="l")], (6, 5, 4)),
    "dense": (lambda k: [k.Flatten(name="f"), k.Dense(4, name="l")], (3, 2, 5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_norm_goes_into_the_layer_before_it(kind: str, tmp_path: Path) -> None:
    make_layers, shape = KINDS[kind]
    k = keras().layers
    source = sequential(*make_layers(k), k.BatchNormalization(name="bn", epsilon=0.01), k.ReLU(name="r"), shape=shape)
    alone = make_layers(k)
    alone[-1].use_bias = True
    target = sequential(*alone, k.ReLU(name="r"), shape=shape)
    assert_same(source, ported(source, target, tmp_path, "fold-batch-norm=l"))


def test_leaving_the_batch_norm_out_is_seen(tmp_path: Path) -> None:
    source = conv_and_norm()
    k = keras().layers
    target = sequential(k.Conv2D(3, (3, 2), name="conv"), k.ReLU(name="relu"))
    assert_same(source, ported(source, target, tmp_path, "fold-batch-norm=*"))
    assert_same(source, ported(source, target, tmp_path, drop=("bn/*",)), same=False)


@pytest.mark.parametrize("transposed", [False, True])
def test_groups_of_pytorch_are_folded_where_the_pair_is_declared(transposed: bool, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    conv = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    source = torch.nn.Sequential(conv(4, 6, (3, 2), groups=2, bias=False), torch.nn.BatchNorm2d(6, eps=1e-3)).eval()
    with torch.no_grad():
        for value in source.state_dict().values():
            if value.dtype.is_floating_point:
                value.uniform_(0.2, 0.9)
    torch.save(source.state_dict(), tmp_path / "s.pt")
    kernel = "conv_transpose.kernel:(GI)OHW G=2" if transposed else "conv.kernel:(GO)IHW G=2"
    declare = [
        f"0.weight={kernel}",
        *(
            f"1.{leaf}=batch_norm.{part}:C"
            for leaf, part in {
                "weight": "gamma",
                "bias": "beta",
                "running_mean": "mean",
                "running_var": "variance",
            }.items()
        ),
    ]
    wio.import_into(
        tmp_path / "s.pt",
        tmp_path / "o.pt",
        adapter="torch",
        declare=declare,
        drop=["*num_batches*"],
        apply=["fold-batch-norm=0:1:1e-3"],
    )
    target = conv(4, 6, (3, 2), groups=2)
    held = torch.load(tmp_path / "o.pt", weights_only=True)
    target.load_state_dict({name.removeprefix("0."): value for name, value in held.items()})
    given = torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(target(given), source(given), rtol=1e-5, atol=1e-5)
        target.weight.copy_(target.weight.flip(1 if transposed else 0))
        assert float((target(given) - source(given)).abs().max()) > 1e-2


def test_the_graph_of_onnx_tells_the_pair(tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weights = {
        "conv.k": arrays(5, 3, 2, 3),
        "bn.gamma": arrays(5, seed=1),
        "bn.beta": arrays(5, seed=2),
        "bn.mean": arrays(5, seed=3),
        "bn.var": np.abs(arrays(5, seed=4)) + np.float32(0.1),
        "conv.b": arrays(5, seed=5),
    }

    def model(path: Path, nodes: list[Any], names: list[str]) -> Path:
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 7))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weights[name], name) for name in names],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(made, path)
        return path

    norm = helper.make_node(
        "BatchNormalization", ["c", "bn.gamma", "bn.beta", "bn.mean", "bn.var"], ["y"], "bn", epsilon=0.02
    )
    conv = helper.make_node("Conv", ["x", "conv.k"], ["c"], "conv")
    source = model(tmp_path / "s.onnx", [conv, norm], ["conv.k", "bn.gamma", "bn.beta", "bn.mean", "bn.var"])
    template = model(
        tmp_path / "t.onnx", [helper.make_node("Conv", ["x", "conv.k", "conv.b"], ["y"], "conv")], ["conv.k", "conv.b"]
    )
    bundle = wio.open(source)
    assert bundle.metadata["batch_norms"] == {"bn": "conv"}
    out = tmp_path / "o.onnx"
    wio.import_into(source, out, adapter="onnx", apply=["fold-batch-norm=*"], template=str(template))
    given = {"x": np.random.default_rng(1).standard_normal((1, 3, 6, 7)).astype(np.float32)}
    expected, found = (onnxruntime.InferenceSession(path).run(None, given)[0] for path in (source, out))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(onnxruntime.InferenceSession(template).run(None, given)[0] - expected).max() > 0.1


# --- Caffe's factor, classes, dtypes, early Keras


@pytest.mark.parametrize("factor", [999.98, 4.0, 0.0])
def test_statistics_times_caffes_factor(factor: float, tmp_path: Path) -> None:
    change = {
        "bn1/mean": W["bn1/mean"] * np.float32(factor or 1),
        "bn1/variance": W["bn1/variance"] * np.float32(factor or 1),
        "bn1/scale_factor": np.float32([factor]),
    }
    source = tmp_path / "s.caffemodel"
    source.write_bytes(network(change=change))
    plan = wio.import_into(source, tmp_path / "o.caffemodel", adapter="caffe", apply=["unscale=*"])
    assert [value.exact for value in plan.values] == [factor != 999.98]
    found = wio.open(tmp_path / "o.caffemodel")
    assert found["bn1/scale_factor"].numpy() == 1
    assert found["bn1/mean"].role == "batch_norm.mean"
    if factor:
        np.testing.assert_allclose(found["bn1/mean"].numpy(), W["bn1/mean"], rtol=2e-7)
        np.testing.assert_allclose(found["bn1/variance"].numpy(), W["bn1/variance"], rtol=2e-7)
    given = np.random.default_rng(2).standard_normal((1, 3, 7, 8)).astype(np.float32)
    ignored = tmp_path / "ignored.caffemodel"
    ignored.write_bytes(network(change={**change, "bn1/scale_factor": np.float32([1])}))
    expected, judged, planted = (
        OpenCV(tmp_path, PROTOTXT, path).run(given, "ip2")[0] for path in (source, tmp_path / "o.caffemodel", ignored)
    )
    np.testing.assert_allclose(judged, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
    assert np.abs(planted - expected).max() > 1e-2


@pytest.mark.parametrize("declared", [(), ("bn1/mean=batch_norm.mean:C", "bn1/variance=batch_norm.variance:C")])
def test_statistics_times_a_factor_go_nowhere_before_they_are_divided(declared: list[str], tmp_path: Path) -> None:
    """The remedy was once to declare them, which made a network whose statistics were 999.98 times too large."""
    source = tmp_path / "s.caffemodel"
    factor = np.float32(999.98)
    scaled = {name: W[name] * factor for name in ("bn1/mean", "bn1/variance")}
    source.write_bytes(network(change={**scaled, "bn1/scale_factor": factor[None]}))
    into: dict[str, Any] = {"adapter": "torch", "declare": declared, "drop": ["prelu*"]}
    with pytest.raises(PlanError) as error:
        wio.import_into(source, tmp_path / "o.pt", **into)
    told = {problem.tensor: problem for problem in error.value.problems}
    assert set(told) == {"bn1/mean", "bn1/variance"}
    assert "times the factor 999.97" in told["bn1/mean"].message
    remedies = {str(problem.remedy) for problem in told.values()}
    assert remedies == {"--apply 'unscale=bn1'"}
    wio.import_into(source, tmp_path / "o.pt", apply=["unscale=bn1"], **into)
    import torch

    state = torch.load(tmp_path / "o.pt", weights_only=True)
    np.testing.assert_allclose(state["bn1.running_mean"], W["bn1/mean"], rtol=2e-7)
    np.testing.assert_allclose(state["bn1.running_var"], W["bn1/variance"], rtol=2e-7)


def test_classes_are_cut_and_the_others_stay_bit_for_bit(tmp_path: Path) -> None:
    k = keras().layers
    source = sequential(k.Flatten(name="f"), k.Dense(11, name="logits"), shape=(3, 2, 5))
    target = sequential(k.Flatten(name="f"), k.Dense(10, name="logits"), shape=(3, 2, 5))
    given = images(source)
    cut = ported(source, target, tmp_path, "slice=logits:1:")
    np.testing.assert_allclose(np.asarray(cut(given)), np.asarray(source(given))[:, 1:], rtol=1e-6)
    for after, before in zip(cut.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before[..., 1:])
    wrong = ported(source, target, tmp_path, "slice=logits::10")
    assert np.abs(np.asarray(wrong(given)) - np.asarray(source(given))[:, 1:]).max() > 1e-2


@pytest.mark.parametrize("argument", ["3:3", "4:2", "0:12"])
def test_a_slice_of_outputs_that_are_not_there_is_refused(argument: str, tmp_path: Path) -> None:
    file = make(tmp_path / "a.wio", {"l/w": (arrays(3, 11), "dense.kernel", "IO")})
    with pytest.raises(PlanError, match="it has 11 outputs"):
        wio.export(file, tmp_path / "o.wio", apply=[f"slice=l:{argument}"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_casts_round_as_pytorch_does(dtype: str, tmp_path: Path) -> None:
    import torch

    values = np.concatenate([arrays(400) * 10.0 ** (k % 9 - 5) for k in range(9)]).astype(np.float32)
    file = make(tmp_path / "a.wio", {"l/w": (values, None, None)})
    plan = wio.export(file, tmp_path / "o.wio", apply=[f"cast=l/*:{dtype}"])
    assert plan.exact is (dtype == "float64")
    expected = torch.from_numpy(values).to(getattr(torch, dtype)).double().numpy()
    np.testing.assert_array_equal(wio.open(tmp_path / "o.wio")["l/w"].numpy().astype(np.float64), expected)


def test_float64_is_rounded_once_to_bfloat16() -> None:
    # Just above and below the middle between two bfloat16s; by way of float32 all of them would be the middle.
    step = 2.0**-7
    middle = 1 + step / 2
    values = np.array([middle, middle + 2**-40, middle - 2**-40, -middle - 2**-40, 1e-300, 3.39e38, -0.0])
    found = rounded(values, DTYPES["bfloat16"], "x").astype(np.float64)
    np.testing.assert_array_equal(found, [1, 1 + step, 1, -1 - step, 0, float(Fraction(0xFF, 1) * 2**120), 0])


@pytest.mark.parametrize("value", [3.5e38, 1e300, -1e39])
def test_float64_beyond_bfloat16_overflows(value: float) -> None:
    with pytest.raises(WioError, match="1 of 2 values overflow bfloat16"):
        rounded(np.array([1.0, value]), DTYPES["bfloat16"], "x")


def test_a_cast_that_loses_values_to_infinity_is_an_error(tmp_path: Path) -> None:
    values = np.float32([1, 7e4, -1e6, np.inf])
    file = make(tmp_path / "a.wio", {"l/w": (values, None, None)})
    with pytest.raises(WioError, match="l/w: 2 of 4 values overflow float16"):
        wio.export(file, tmp_path / "o.wio", apply=["cast=*:float16"])
    assert not (tmp_path / "o.wio").exists()


def test_a_standard_deviation_becomes_the_variance_that_does_the_same(tmp_path: Path) -> None:
    k = keras().layers
    parts = {part: arrays(4, seed=n) for n, part in enumerate(("gamma", "beta", "mean"))}
    std = np.abs(arrays(4, seed=9)) + np.float32(0.05)
    tensors = {f"bn/{part}": (array, f"batch_norm.{part}", "C") for part, array in parts.items()}
    file = make(tmp_path / "a.wio", {**tensors, "bn/running_std": (std, "batch_norm.std", "C")})
    wio.export(file, tmp_path / "o.wio", apply=["square=bn:0.01"])
    bundle = wio.open(tmp_path / "o.wio")
    assert bundle["bn/running_std"].role == "batch_norm.variance"
    layer = k.BatchNormalization(epsilon=0.01)
    layer.build((None, 4))
    layer.set_weights([bundle[f"bn/{part}"].numpy() for part in (*parts, "running_std")])
    given = arrays(5, 4, seed=11)
    # keras 1.0.5, normalization.py: what it computes when it is not training.
    expected = (given - parts["mean"]) / (std + 0.01) * parts["gamma"] + parts["beta"]
    np.testing.assert_allclose(np.asarray(layer(given)), expected, rtol=1e-5, atol=1e-5)
    layer.set_weights([*parts.values(), std])
    assert np.abs(np.asarray(layer(given)) - expected).max() > 1e-2


# --- what holds for all of them


def bundle_of_a_pair(read: list[str]) -> Bundle:
    def tensor(name: str, role: str, layout: str, *shape: int) -> Tensor:
        def load() -> np.ndarray[Any, Any]:
            read.append(name)
            return np.ones(shape, np.float32)

        return Tensor(name, DTYPES["float32"], shape, load, role, Layout.parse(layout))

    return Bundle(
        [
            tensor("conv/kernel", "conv.kernel", "HWIO", 2, 2, 3, 4),
            tensor("conv/bias", "conv.bias", "O", 4),
            tensor("bn/beta", "batch_norm.beta", "C", 4),
            tensor("bn/mean", "batch_norm.mean", "C", 4),
            tensor("bn/variance", "batch_norm.variance", "C", 4),
        ],
        {"epsilon": {"bn": 0.001}, "batch_norms": {"bn": "conv"}},
    )


def test_nothing_is_read_until_it_is_asked_for() -> None:
    read: list[str] = []
    requests = ["fold-bias=conv", "gamma=*", "epsilon=bn:1e-5", "fold-batch-norm=conv", "cast=*:float16"]
    bundle, steps = apply_requests(bundle_of_a_pair(read), [parse_request(text) for text in requests])
    assert [step.kind for step in steps] == ["fold-bias", "gamma", "epsilon", "fold-batch-norm", "cast", "cast"]
    assert list(bundle) == ["conv/kernel", "conv/bias"]
    assert not read
    kernel = bundle["conv/kernel"].numpy()
    assert read and kernel.dtype == np.float16
    # gamma / sqrt(variance + epsilon), whichever way the epsilon was split.
    np.testing.assert_allclose(kernel.astype(float), 1 / np.sqrt(1.001), rtol=1e-3)
    np.testing.assert_allclose(bundle["conv/bias"].numpy().astype(float), 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fold=conv", "no step is named"),
        ("gamma", "expected gamma="),
        ("cast=*", "expected cast="),
        ("cast=*:int8", "expected cast="),
        ("gamma=bn:one", "is no number"),
        ("epsilon=bn:nan", "is no number"),
        ("slice=conv:-1:", "is no number of an output"),
        ("unscale=bn:3", "expected unscale="),
    ],
)
def test_what_is_no_step_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply_requests(bundle_of_a_pair([]), [parse_request(text)])


@pytest.mark.parametrize(
    "text",
    ["gamma=conv", "fold-bias=bn", "epsilon=conv:1e-5", "unscale=bn", "square=bn", "cast=x*:float16", "slice=bn:1:"],
)
def test_a_step_that_would_do_nothing_is_an_error(text: str) -> None:
    with pytest.raises(WioError, match="match"):
        apply_requests(bundle_of_a_pair([]), [parse_request(text)])


def test_a_pair_of_other_sizes_is_no_pair() -> None:
    odd = bundle_of_a_pair([]).map(
        lambda t: t if t.layer == "conv" else t.with_values(lambda: np.ones(5, np.float32), (5,), t.layout)
    )
    for text in ("fold-bias=conv", "fold-batch-norm=conv"):
        with pytest.raises(PlanError, match="they are no pair"):
            apply_requests(odd, [parse_request(text)])


def test_every_step_says_what_it_is() -> None:
    assert all(form.startswith(f"{kind}=") for kind, (form, _, _) in STEPS.items())


@pytest.mark.parametrize(("text", "exact"), [("gamma=bn", True), ("gamma=bn:1.01", False)])
def test_a_gamma_that_changes_nothing_is_exact(text: str, exact: bool, tmp_path: Path) -> None:
    plan: Plan = wio.export(save(conv_and_norm(scale=False), tmp_path / "s.keras"), tmp_path / "o.wio", apply=[text])
    [step] = [step for step in plan.steps if step.kind == "synthesise"]
    assert (plan.exact, step.exact, plan.values[0].exact) == (exact, exact, exact)
    assert any(note.startswith("CHECK") for note in plan.notes) != exact
    assert step.as_json()["sources"] == []


def test_the_network_follows_what_the_steps_change() -> None:
    layers = [NetLayer("in", "Input"), NetLayer("c", "Conv", {"filters": 4, "bias": False}, ("in",))]
    layers += [NetLayer("n", "BatchNormalization", {"scale": False, "epsilon": 0.1}, ("c",))]
    network = Network((*layers, NetLayer("fc", "Gemm", {"units": 9}, ("n",))))
    assert changed(network, {}) is network
    fold = {"kind": "fold-batch-norm", "layer": "c", "batch_norm": "n"}
    cut = {"kind": "slice", "layer": "fc", "start": 2, "stop": 9, "of": 9}
    folded = {layer.name: layer for layer in changed(network, {"changes": [fold, cut]}).layers}
    assert list(folded) == ["in", "c", "fc"]
    assert folded["c"].attributes == {"filters": 4, "bias": True}
    assert (folded["fc"].attributes, folded["fc"].inputs) == ({"units": 7}, ("c",))
    told = [{"kind": "gamma", "layer": "n"}, {"kind": "epsilon", "layer": "n", "epsilon": 0.5}]
    assert changed(network, {"changes": told}).layers[2].attributes == {"scale": True, "epsilon": 0.5}
    # A file may say anything.
    nonsense = [3, {"kind": "slice", "layer": "fc"}, {"kind": "melt", "layer": "c"}, {"kind": "gamma", "layer": []}]
    assert changed(network, {"changes": nonsense}).layers == network.layers
    assert changed(network, {"changes": "all"}) is network


def test_an_architecture_tells_the_pairs() -> None:
    from wio.plugins import architecture_named

    pairs = architecture_named("inception-v4").network.batch_norms()
    assert len(pairs) == 149
    assert pairs["Conv2d_1a_3x3/BatchNorm"] == "Conv2d_1a_3x3"


def test_plan_and_json_say_what_changes(tmp_path: Path) -> None:
    source = save(conv_and_norm(), tmp_path / "s.keras")
    plan: Plan = wio.export(source, tmp_path / "o.wio", apply=["fold-batch-norm=conv"])
    document = plan.as_json()
    assert document["exact"] is False
    [value] = document["values"]
    assert value["kind"] == "fold-batch-norm"
    assert value["to"] == ["conv/kernel", "conv/bias"]
    assert value["parameters"] == {"batch_norm": "bn", "epsilon": 0.001}
    assert "bn" in value["reason"]


@pytest.mark.parametrize(
    ("source", "target", "remedy"),
    [
        ({"scale": False}, {}, "--apply 'gamma=*'"),
        ({"center": False}, {}, "--apply 'beta=*'"),
        ({}, {"bias": False}, "--apply 'fold-bias=conv'"),
    ],
)
def test_a_refusal_names_the_step_that_helps(
    source: dict[str, Any], target: dict[str, Any], remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError) as error:
        ported(conv_and_norm(**source), conv_and_norm(**target), tmp_path)
    assert remedy in str(error.value)


def test_keras_1_asks_for_gamma_by_the_step_that_gives_it(tmp_path: Path) -> None:
    file = save(conv_and_norm(scale=False), tmp_path / "s.keras")
    with pytest.raises(PlanError, match=r"--apply 'gamma=\*'"):
        wio.import_into(file, tmp_path / "o.h5", adapter="keras-tf", keras="1.2")
    wio.import_into(file, tmp_path / "o.h5", adapter="keras-tf", keras="1.2", apply=["gamma=*"])
    read = wio.open(tmp_path / "o.h5", "keras-tf")
    gamma = next(tensor for tensor in read.values() if tensor.role == "batch_norm.gamma")
    np.testing.assert_array_equal(gamma.numpy(), np.ones(3, np.float32))
    assert [t.role for t in read.values() if t.layer == gamma.layer] == [
        f"batch_norm.{part}" for part in ("gamma", "beta", "mean", "variance")
    ]


def test_a_layer_of_any_name_may_have_a_factor(tmp_path: Path) -> None:
    source = tmp_path / "s.caffemodel"
    source.write_bytes(network(change={"bn1/scale_factor": np.float32([4])}).replace(b"bn1", b"{x}"))
    wio.export(source, tmp_path / "o.wio", apply=["unscale={x}"])
    np.testing.assert_array_equal(wio.open(tmp_path / "o.wio")["{x}/mean"].numpy(), W["bn1/mean"] / 4)
