"""Networks of the registry as models that run: onnxruntime and Keras 3 against torch, which reads the rows itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras3_judge import load as load_keras
from msgspec.structs import replace

from wio.architectures.architecture import Architecture
from wio.bundle import Bundle
from wio.dtypes import DTYPES
from wio.errors import PlanError
from wio.network import NetLayer, Network
from wio.plan import Plan, make_plan
from wio.plugins import adapter_named, architecture_named
from wio.roles import neutral
from wio.running.runnable import write_onnx

# Every operator; H, W and C differ wherever a map is flattened, and ends are cut off where sizes are rounded up.
MANY = """
  ["data", "Input", [], { axes = "HWC", sizes = [13, 10, 3] }],
  ["a/conv", "Conv", "data", { filters = 6, kernel_shape = [3, 2], strides = [2, 1], pads = [2, 0, 1, 1] }],
  ["a/norm", "BatchNormalization", "a/conv", { epsilon = 0.01, scale = false }],
  ["a/relu", "Relu", "a/norm"],
  ["lrn", "LRN", "a/relu", { size = 5, alpha = 0.7, beta = 0.75, bias = 1.5 }],
  ["same", "Conv", "lrn", { filters = 4, kernel_shape = [4, 3], strides = [2, 3], auto_pad = "SAME_UPPER" }],
  ["max_up", "MaxPool", "a/norm", { kernel_shape = [3, 2], strides = [2, 3], ceil_mode = 1 }],
  ["max_pads", "MaxPool", "a/conv",
    { kernel_shape = [3, 3], strides = [2, 3], pads = [1, 1, 1, 1], ceil_mode = 1 }],
  ["max_same", "MaxPool", "lrn", { kernel_shape = [3, 3], strides = [2, 3], auto_pad = "SAME_UPPER" }],
  ["mean_in", "AveragePool", "a/norm",
    { kernel_shape = [3, 3], strides = [2, 3], pads = [1, 1, 1, 1], count_include_pad = 1 }],
  ["mean_up", "AveragePool", "lrn",
    { kernel_shape = [3, 3], strides = [2, 3], pads = [1, 1, 1, 1], count_include_pad = 1, ceil_mode = 1 }],
  ["mean_out", "AveragePool", "lrn", { kernel_shape = [3, 3], strides = [2, 3], pads = [1, 1, 1, 1], ceil_mode = 1 }],
  ["mean_cut", "AveragePool", "lrn", { kernel_shape = [2, 3], strides = [3, 3], ceil_mode = 1 }],
  ["mean_same", "AveragePool", "lrn", { kernel_shape = [3, 4], strides = [2, 3], auto_pad = "SAME_UPPER" }],
  ["deep", "DepthwiseConv", "max_up", { kernel_shape = [2, 2], multiplier = 2, pads = [0, 1, 1, 0] }],
  ["slope", "PRelu", "deep"],
  ["up", "ConvTranspose", "slope", { filters = 5, kernel_shape = [3, 2], strides = [2, 2] }],
  ["up_cut", "ConvTranspose", "slope",
    { filters = 5, kernel_shape = [3, 4], strides = [2, 2], pads = [1, 0, 0, 2], bias = false }],
  ["up_same", "ConvTranspose", "slope",
    { filters = 5, kernel_shape = [3, 4], strides = [2, 2], auto_pad = "SAME_UPPER" }],
  ["up_sum", "Add", ["up_cut", "up_same", "up_same"]],
  ["join", "Concat", ["up_sum", "up_same"], { axis = "C" }],
  ["drop", "Dropout", "join", { ratio = 0.5 }],
  ["flat", "Flatten", "drop"],
  ["dense", "Gemm", "flat", { units = 9 }],
  ["tanh", "Tanh", "dense"],
  ["first", "Gemm", "tanh", { units = 3, bias = false }],
  ["second", "Softmax", "tanh"],
  ["leaky", "LeakyRelu", "max_pads", { alpha = 0.2 }],
  ["elu", "Elu", "mean_in", { alpha = 1.5 }],
  ["maps", "Mul", ["elu", "elu", "elu"]],
  ["best", "Max", ["maps", "elu"]],
  ["mean", "Average", ["maps", "best"]],
  ["logistic", "Sigmoid", "leaky"],
  ["whole", "GlobalAveragePool", "logistic"],
  ["peak", "GlobalMaxPool", "leaky"],
  ["both", "Concat", ["whole", "peak"], { axis = "C" }],
  ["end", "Softmax", "both"],
"""


def keras_plan(bundle: Bundle, network: Network, **options: str) -> Plan:
    adapter = adapter_named("keras3")
    settled = adapter.checked(options, writing=True)
    whole = Bundle(bundle.values(), bundle.metadata, network)
    return make_plan(whole, adapter.target(whole, **settled), adapter.name, settled)


def run_keras(bundle: Bundle, network: Network, inputs: dict[str, np.ndarray], path: Path) -> list[np.ndarray]:
    """The outputs of a .keras file, maps brought to N C and space."""
    plan = keras_plan(bundle, network)
    adapter_named("keras3").write(path, plan.apply(), **plan.options)
    model = load_keras(path)
    [image] = inputs.values()
    values = model(np.moveaxis(image, 1, -1), training=False)
    found = [np.asarray(value) for value in (values if isinstance(values, list | tuple) else [values])]
    return [np.moveaxis(value, -1, 1) if value.ndim > 2 else value for value in found]


def session(path: Path) -> Any:
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    quiet.intra_op_num_threads = quiet.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])


def run_onnx(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output by name, of a model that onnx's checker has passed, its shapes as inferred."""
    model = onnx.load(str(path))
    onnx.checker.check_model(str(path), full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert list(inferred.graph.value_info) == list(model.graph.value_info), "wio says every shape, and the right one"
    running = session(path)
    return dict(zip((each.name for each in running.get_outputs()), running.run(None, inputs), strict=True))


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and bool(
        np.abs(found - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Architecture, Bundle]:
    made = torch_network.architecture(tmp_path_factory.mktemp("many"), MANY)
    return made, torch_network.made_up(made.network)


@pytest.mark.parametrize("axes", ["HWC", "CHW"])
def test_every_layer_of_a_network_of_all_operators(axes: str, tmp_path: Path) -> None:
    sizes = {"H": 13, "W": 10, "C": 3}
    given = f'axes = "{axes}", sizes = {[sizes[axis] for axis in axes]}'
    made = torch_network.architecture(tmp_path, MANY.replace('axes = "HWC", sizes = [13, 10, 3]', given))
    bundle, inputs = torch_network.made_up(made.network), torch_network.images(made.network)
    expected = torch_network.run(made.network, bundle, inputs)
    write_onnx(bundle, made, tmp_path / "every.onnx", every_layer=True)
    found = run_onnx(tmp_path / "every.onnx", inputs)
    assert set(found) == set(expected) - {"data", "drop"}
    # A flattened map is the one value whose order is each format's own.
    wrong = [name for name in found if name != "flat" and not close(found[name], expected[name])]
    assert wrong == []

    write_onnx(bundle, made, tmp_path / "outputs.onnx")
    outputs = run_onnx(tmp_path / "outputs.onnx", inputs)
    names = torch_network.outputs_of(made.network)
    assert list(outputs) == names
    assert len(names) > 5
    computed = run_keras(bundle, made.network, inputs, tmp_path / "made.keras")
    assert [n for n, value in zip(names, computed, strict=True) if not close(value, expected[n])] == []


MISTAKES = {
    "lrn": {"alpha": 0.07},
    "a/norm": {"epsilon": 0.001},
    "max_pads": {"kernel_shape": [3, 2]},
    "mean_in": {"count_include_pad": 0},
    "mean_up": {"count_include_pad": 0},
    "mean_out": {"count_include_pad": 1},
    "up_cut": {"pads": [0, 0, 1, 2]},
    "same": {"auto_pad": "VALID", "pads": [2, 1, 1, 1]},
    "leaky": {"alpha": 0.1},
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_judge_sees_one_wrong_attribute(name: str, many: tuple[Architecture, Bundle], tmp_path: Path) -> None:
    """The graph of a network with another number in one layer is told from the right one by that layer's output."""
    made, bundle = many
    inputs = torch_network.images(made.network)
    expected = torch_network.run(made.network, bundle, inputs)
    layers = tuple(
        replace(layer, attributes={**layer.attributes, **MISTAKES[name]}) if layer.name == name else layer
        for layer in made.network.layers
    )
    wrong = Architecture("wrong", "wrong", Network(layers), {})
    write_onnx(bundle, wrong, tmp_path / "wrong.onnx", every_layer=True)
    found = run_onnx(tmp_path / "wrong.onnx", inputs)
    assert not close(found[name], expected[name])


def test_the_judge_sees_rows_that_nobody_shuffled(tmp_path: Path) -> None:
    rows = """["x", "Input", [], { axes = "HWC", sizes = [3, 2, 5] }], ["flat", "Flatten", "x"],
              ["y", "Gemm", "flat", { units = 4 }]"""
    made = torch_network.architecture(tmp_path, rows)
    bundle, inputs = torch_network.made_up(made.network), torch_network.images(made.network)
    [expected] = [torch_network.run(made.network, bundle, inputs)["y"]]
    plan = write_onnx(bundle, made, tmp_path / "y.onnx")
    assert close(run_onnx(tmp_path / "y.onnx", inputs)["y"], expected)
    step = next(step for step in plan.steps if step.slots[0].role == "dense.kernel")
    assert step.reason == "rows shuffled HWC -> CHW: ONNX flattens C H W"
    model = onnx.load(str(tmp_path / "y.onnx"))
    for initializer in model.graph.initializer:
        if initializer.name == "y/kernel":
            initializer.raw_data = bundle["y/kernel"].numpy().tobytes()
    onnx.save(model, str(tmp_path / "not.onnx"))
    assert not close(run_onnx(tmp_path / "not.onnx", inputs)["y"], expected)


def test_a_gamma_that_the_network_has_not_is_a_declared_step(many: tuple[Architecture, Bundle], tmp_path: Path) -> None:
    made, bundle = many
    plan = write_onnx(bundle, made, tmp_path / "x.onnx")
    [step] = [step for step in plan.steps if step.kind == "synthesise"]
    assert step.slots[0].name == "a/norm/gamma" and step.exact
    assert "1 changes nothing" in step.reason
    assert (step.results()[0].numpy() == np.ones(6, np.float32)).all()
    assert any("drop" in note and "training only" in note for note in plan.notes)
    assert json.dumps(plan.as_json())


def test_the_graph_read_back_declares_what_went_in(many: tuple[Architecture, Bundle], tmp_path: Path) -> None:
    made, bundle = many
    write_onnx(bundle, made, tmp_path / "x.onnx")
    back = adapter_named("onnx").read(tmp_path / "x.onnx")
    for name, tensor in bundle.items():
        if tensor.layer == "deep":
            # To ONNX a depthwise convolution is one in groups.
            continue
        assert back[name].role == tensor.role, name
        layout = tensor.layout if tensor.role != "prelu.alpha" else None
        if layout is not None:
            np.testing.assert_array_equal(back[name].to(layout).numpy(), tensor.numpy(), name)
    assert set(back) - set(bundle) <= {"a/norm/gamma", "mean_up/pads"}


def test_data_too_large_for_one_message_stand_beside(
    many: tuple[Architecture, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wio.adapters import _onnx_writer

    made, bundle = many
    inputs = torch_network.images(made.network)
    write_onnx(bundle, made, tmp_path / "one.onnx")
    monkeypatch.setattr(_onnx_writer, "LARGEST_MESSAGE", 10_000)
    write_onnx(bundle, made, tmp_path / "two.onnx")
    assert next(tmp_path.glob("two.onnx.*.data")).stat().st_size > 4096
    one, two = run_onnx(tmp_path / "one.onnx", inputs), run_onnx(tmp_path / "two.onnx", inputs)
    assert all((one[name] == two[name]).all() for name in one)


def test_the_same_network_gives_the_same_bytes(many: tuple[Architecture, Bundle], tmp_path: Path) -> None:
    made, bundle = many
    for k in (1, 2):
        write_onnx(bundle, made, tmp_path / f"{k}.onnx")
        plan = keras_plan(bundle, made.network)
        adapter_named("keras3").write(tmp_path / f"{k}.keras", plan.apply(), **plan.options)
    for kind in ("onnx", "keras"):
        assert (tmp_path / f"1.{kind}").read_bytes() == (tmp_path / f"2.{kind}").read_bytes()


def test_what_no_graph_can_hold_is_said_of_every_layer(tmp_path: Path) -> None:
    layers = (
        NetLayer("x", "Input", {"axes": "HWC", "sizes": (4, 5, 3)}),
        NetLayer("odd", "Unheard", {}, ("x",)),
        NetLayer("dense", "Gemm", {"units": 2}, ("x",)),
        NetLayer("big", "Conv", {"filters": 2, "kernel_shape": [9, 9]}, ("x",)),
        NetLayer("line", "Input", {"axes": "WC", "sizes": (4, 3)}),
        NetLayer("near", "LRN", {"size": 3}, ("line",)),
    )
    made = Bundle([], {}, Network(layers))
    for name in ("onnx", "keras3"):
        adapter = adapter_named(name)
        with pytest.raises(PlanError) as caught:
            make_plan(made, adapter.target(made, **adapter.checked({}, writing=True)), name, {})
        said = str(caught.value)
        assert "'odd', Unheard: the format has no such operator" in said
        assert "'dense', Gemm: it takes a map: a Flatten must stand before it" in said
        assert "'big', Conv: nothing is left of the map" in said
        assert "'near', LRN: it takes a map that is not of two spatial axes" in said


def test_two_dtypes_and_names_that_clash_are_refused(many: tuple[Architecture, Bundle]) -> None:
    made, bundle = many
    half = bundle["a/conv/bias"].numpy().astype(np.float16)
    mixed = bundle.map(
        lambda t: (
            replace(t.with_values(lambda: half, t.shape, t.layout), dtype=DTYPES["float16"])
            if t.name == "a/conv/bias"
            else t
        )
    )
    for name in ("onnx", "keras3"):
        adapter = adapter_named(name)
        whole = Bundle(mixed.values(), {}, made.network)
        target = adapter.target(whole, **adapter.checked({}, writing=True))
        assert any("computes in one dtype" in problem.message for problem in target.problems)


def test_keras_needs_no_custom_objects_and_keeps_the_layers_names(
    many: tuple[Architecture, Bundle], tmp_path: Path
) -> None:
    made, bundle = many
    plan = keras_plan(bundle, made.network)
    adapter_named("keras3").write(tmp_path / "x.keras", plan.apply(), **plan.options)
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        config = json.loads(archive.read("config.json"))
    modules = {layer["module"] for layer in config["config"]["layers"]}
    assert modules == {"keras.layers", "keras.src.ops.numpy"}
    model = load_keras(tmp_path / "x.keras")
    assert [layer.name for layer in model.layers] == [
        each["name"] for each in config["config"]["layers"] if each["module"] == "keras.layers"
    ]
    # What wio declares of its own file is what it put there.
    back = adapter_named("keras3").read(tmp_path / "x.keras")
    for tensor in bundle.values():
        name = f"{tensor.layer.replace('/', '_')}/{tensor.name.rpartition('/')[2]}"
        assert back[name].role == tensor.role
        if tensor.role != "prelu.alpha":
            expected = tensor.to(neutral(tensor.role, tensor.layout)).numpy()
            np.testing.assert_array_equal(back[name].numpy(), expected, name)


def test_a_weight_that_is_missing_is_a_problem_of_the_plan(many: tuple[Architecture, Bundle], tmp_path: Path) -> None:
    made, bundle = many
    for name in ("a/norm/moving_mean", "deep/kernel", "dense/bias"):
        left = Bundle(t for t in bundle.values() if t.name != name)
        role = bundle[name].role
        with pytest.raises(PlanError, match=f"nothing fills it: the source has no {role}"):
            write_onnx(left, made, tmp_path / "x.onnx")
        with pytest.raises(PlanError, match=f"nothing fills it: the source has no {role}"):
            keras_plan(left, made.network)
    assert not (tmp_path / "x.onnx").exists()


def test_names_that_keras_cannot_tell_apart_are_a_problem() -> None:
    image = NetLayer("x", "Input", {"axes": "HWC", "sizes": (4, 5, 3)})
    slashed = NetLayer("a/b", "Relu", {}, ("x",)), NetLayer("a_b", "Tanh", {}, ("a/b",))
    helped = NetLayer("n", "LRN", {"size": 3}, ("x",)), NetLayer("n_sums", "Relu", {}, ("n",))
    for layers in (slashed, helped):
        with pytest.raises(PlanError, match="two layers of Keras would be named"):
            keras_plan(Bundle([]), Network((image, *layers)))


def test_graph_none_writes_the_weights_alone(many: tuple[Architecture, Bundle], tmp_path: Path) -> None:
    made, bundle = many
    adapter = adapter_named("onnx")
    whole = Bundle(bundle.values(), {}, made.network)
    options = adapter.checked({"graph": "none"}, writing=True)
    plan = make_plan(whole, adapter.target(whole, **options), "onnx", options)
    adapter.write(tmp_path / "x.onnx", plan.apply(), **options)
    model = onnx.load(str(tmp_path / "x.onnx"))
    assert len(model.graph.initializer) == len(bundle) and not model.graph.node


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_keras_on_torch_computes_it_in_both_data_formats(
    data_format: str, many: tuple[Architecture, Bundle], tmp_path: Path
) -> None:
    made, bundle = many
    inputs = torch_network.images(made.network)
    expected = torch_network.run(made.network, bundle, inputs)
    plan = keras_plan(bundle, made.network, data_format=data_format)
    adapter_named("keras3").write(tmp_path / "x.keras", plan.apply(), **plan.options)
    first = data_format == "channels_first"
    np.save(tmp_path / "x.npy", inputs["data"] if first else np.moveaxis(inputs["data"], 1, -1))
    script = (
        "import sys, keras, numpy\n"
        "folder = sys.argv[1]\n"
        "model = keras.saving.load_model(f'{folder}/x.keras')\n"
        "found = model(numpy.load(f'{folder}/x.npy'), training=False)\n"
        "numpy.savez(f'{folder}/y.npz', *[keras.ops.convert_to_numpy(each) for each in found])\n"
    )
    home = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=home)
    assert done.returncode == 0, done.stderr[-2000:]
    names = torch_network.outputs_of(made.network)
    with np.load(tmp_path / "y.npz") as computed:
        for k, name in enumerate(names):
            value = computed[f"arr_{k}"]
            value = value if first or value.ndim < 3 else np.moveaxis(value, -1, 1)
            assert close(value, expected[name]), name


OTHER_RANKS = {
    "one": """
      ["x", "Input", [], { axes = "WC", sizes = [11, 4] }],
      ["conv", "Conv", "x", { filters = 6, kernel_shape = [3], strides = [2], pads = [1, 2], group = 2 }],
      ["pool", "AveragePool", "conv", { kernel_shape = [3], strides = [2], ceil_mode = 1, pads = [1, 0] }],
      ["up", "ConvTranspose", "pool", { filters = 3, kernel_shape = [3], strides = [2], pads = [1, 0] }],
      ["flat", "Flatten", "up"], ["y", "Gemm", "flat", { units = 2 }]""",
    "three": """
      ["x", "Input", [], { axes = "DHWC", sizes = [6, 5, 7, 4] }],
      ["conv", "Conv", "x", { filters = 6, kernel_shape = [3, 2, 1], dilations = [2, 1, 1], group = 2 }],
      ["pool", "MaxPool", "conv", { kernel_shape = [2, 2, 3], strides = [1, 2, 2], pads = [0, 1, 1, 1, 0, 1] }],
      ["flat", "Flatten", "pool"], ["y", "Gemm", "flat", { units = 2 }]""",
}


@pytest.mark.parametrize("rank", OTHER_RANKS)
def test_maps_of_one_and_three_axes_and_groups(rank: str, tmp_path: Path) -> None:
    made = torch_network.architecture(tmp_path, OTHER_RANKS[rank])
    bundle, inputs = torch_network.made_up(made.network), torch_network.images(made.network)
    expected = torch_network.run(made.network, bundle, inputs)["y"]
    write_onnx(bundle, made, tmp_path / "x.onnx")
    assert close(run_onnx(tmp_path / "x.onnx", inputs)["y"], expected)
    [computed] = run_keras(bundle, made.network, inputs, tmp_path / "x.keras")
    assert close(computed, expected)


# --- made-up networks


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A few layers on a small map, whatever comes; only what fits is kept."""
    axes = draw(st.sampled_from(["HWC", "CHW"]))
    sizes = {"H": draw(st.integers(5, 9)), "W": draw(st.integers(5, 9)), "C": draw(st.integers(1, 4))}
    layers = [NetLayer("x", "Input", {"axes": axes, "sizes": [sizes[axis] for axis in axes]})]
    for k in range(draw(st.integers(1, 4))):
        op = draw(
            st.sampled_from(["Conv", "MaxPool", "AveragePool", "BatchNormalization", "LRN", "Relu", "Add", "Concat"])
        )
        before = layers[-1].name
        told: dict[str, Any] = {}
        inputs: tuple[str, ...] = (before,)
        if op in ("Conv", "MaxPool", "AveragePool"):
            kernel = [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
            told = {"kernel_shape": kernel, "strides": [draw(st.integers(1, 3)), draw(st.integers(1, 3))]}
            padding = draw(st.sampled_from(["VALID", "SAME_UPPER", "pads"]))
            if padding == "pads":
                told["pads"] = [draw(st.integers(0, kernel[i % 2] // 2)) for i in range(4)]
            else:
                told["auto_pad"] = padding
            if op == "Conv":
                told |= {"filters": draw(st.integers(1, 4)), "bias": draw(st.booleans())}
            elif padding != "SAME_UPPER":
                told["ceil_mode"] = draw(st.booleans())
            if op == "AveragePool":
                told["count_include_pad"] = draw(st.booleans())
        elif op == "BatchNormalization":
            told = {"epsilon": 0.01, "scale": draw(st.booleans()), "center": draw(st.booleans())}
        elif op == "LRN":
            told = {"size": draw(st.sampled_from([1, 3, 5])), "alpha": 0.5, "beta": 0.75, "bias": 1.0}
        elif op in ("Add", "Concat"):
            inputs = (before, before)
            told = {"axis": "C"} if op == "Concat" else {}
        layer = NetLayer(f"l{k}", op, told, inputs)
        fmap = Network((*layers, layer)).feature_maps()[layer.name]
        if fmap is not None and all(size and size > 0 for size in fmap.sizes):
            layers.append(layer)
    layers.append(NetLayer("flat", "Flatten", {}, (layers[-1].name,)))
    layers.append(NetLayer("y", "Gemm", {"units": 3}, ("flat",)))
    return Network(tuple(layers))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_any_small_network_is_the_same_in_onnx_keras_and_torch(
    tmp_path_factory: pytest.TempPathFactory, network: Network
) -> None:
    folder = tmp_path_factory.mktemp("any")
    bundle, inputs = torch_network.made_up(network), torch_network.images(network)
    expected = torch_network.run(network, bundle, inputs)["y"]
    write_onnx(bundle, Architecture("any", "any", network, {}), folder / "x.onnx")
    assert close(run_onnx(folder / "x.onnx", inputs)["y"], expected)
    [computed] = run_keras(bundle, network, inputs, folder / "x.keras")
    assert close(computed, expected)


# --- PoseNet


def test_posenet_gives_out_its_six_poses(tmp_path: Path) -> None:
    architecture = architecture_named("posenet")
    bundle = torch_network.made_up(architecture.network)
    inputs = torch_network.images(architecture.network, count=1)
    expected = torch_network.run(architecture.network, bundle, inputs)
    write_onnx(bundle, architecture, tmp_path / "posenet.onnx")
    found = run_onnx(tmp_path / "posenet.onnx", inputs)
    poses = [f"cls{k}_fc_pose_{part}" for k in (1, 2, 3) for part in ("xyz", "wpqr")]
    assert list(found) == poses
    computed = run_keras(bundle, architecture.network, inputs, tmp_path / "posenet.keras")
    for name, keras in zip(poses, computed, strict=True):
        assert close(found[name], expected[name]), name
        assert close(keras, expected[name]), name
