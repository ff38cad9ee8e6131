"""Each code of the lint where it is right, and where it must not be given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import caffe_files
import numpy as np
import onnx_judge
import pytest
from conftest import TESTS, run_wio
from onnx import helper
from test_architecture import SMALL
from test_cli import arrays, make

import wio
from wio.adapters._keras_network import keras_network
from wio.checks.against import check_against
from wio.checks.finding import CODES, ERROR, NOTE, SEVERITIES, WARNING, Finding
from wio.checks.graph import check_graph
from wio.checks.mapping import check_declared
from wio.network import NetLayer, Network
from wio.plugins import adapter_named


def lint(*arguments: object, code: int) -> dict[str, dict[str, Any]]:
    document = json.loads(run_wio("check", *arguments, "--json", code=code).stdout)
    assert document["ok"] == (code == 0)
    found = {each["code"]: each for each in document["findings"]}
    assert len(found) == len(document["findings"]), "one finding of each code"
    return found


def norm(**parts: np.ndarray) -> dict[str, tuple[np.ndarray, str | None, str | None]]:
    usual = {"gamma": arrays(3, seed=1), "beta": arrays(3, seed=2), "mean": arrays(3, seed=3)}
    usual["variance"] = np.abs(arrays(3, seed=4)) + 0.1
    return {f"bn/{part}": (value, f"batch_norm.{part}", "C") for part, value in {**usual, **parts}.items()}


ZEROS, ONES = np.zeros(3, np.float32), np.ones(3, np.float32)


def test_a_trained_norm_is_silent(tmp_path: Path) -> None:
    assert lint(make(tmp_path / "a.wio", norm()), code=0) == {}


def test_untrained_statistics(tmp_path: Path) -> None:
    found = lint(make(tmp_path / "a.wio", norm(mean=ZEROS, variance=ONES)), code=1)
    assert found.keys() == {"untrained-statistics"}
    assert found["untrained-statistics"]["where"] == "bn"
    assert "gamma and beta" not in found["untrained-statistics"]["evidence"]
    whole = lint(make(tmp_path / "b.wio", norm(mean=ZEROS, variance=ONES, gamma=ONES, beta=ZEROS)), code=1)
    assert "gamma and beta are as initialised too" in whole["untrained-statistics"]["evidence"]


@pytest.mark.parametrize("place", ["mean", "variance"])
def test_half_untrained_is_not_untrained(place: str, tmp_path: Path) -> None:
    values = {"mean": ZEROS, "variance": ONES}
    found = lint(make(tmp_path / "a.wio", norm(**{place: values[place]})), code=0)
    assert found.keys() == {"constant"} and found["constant"]["severity"] == NOTE


@pytest.mark.parametrize(("value", "word"), [(0.0, "zero"), (-1e-3, "negative")])
def test_a_variance_that_is_not_positive(value: float, word: str, tmp_path: Path) -> None:
    found = lint(make(tmp_path / "a.wio", norm(variance=np.array([1, value, 2], np.float32))), code=1)
    assert found.keys() == {"variance-not-positive"} and word in found["variance-not-positive"]["evidence"]


def test_a_norm_without_its_variance(tmp_path: Path) -> None:
    tensors = norm()
    del tensors["bn/variance"]
    found = lint(make(tmp_path / "a.wio", tensors), code=1)
    assert found.keys() == {"missing-statistics"} and "no variance" in found["missing-statistics"]["evidence"]


def test_not_finite_counts_and_names_the_first(tmp_path: Path) -> None:
    kernel = arrays(3, 2, 4, 5)
    kernel[1, 0, 3, 2], kernel[2, 1, 0, 0] = np.nan, -np.inf
    file = make(tmp_path / "a.wio", {"c/kernel": (kernel, "conv.kernel", "HWIO")})
    [finding] = lint(file, code=1).values()
    assert (finding["code"], finding["severity"], finding["where"]) == ("not-finite", ERROR, "c/kernel")
    assert finding["evidence"] == "2 of 120 values are NaN or infinite, the first at (1, 0, 3, 2)"


def test_not_finite_far_into_a_long_tensor(tmp_path: Path) -> None:
    """Tensors are read in pieces of a million values: the first index counts from the tensor's beginning."""
    long = arrays(3_000_000)
    long[2_500_001] = np.nan
    [finding] = lint(make(tmp_path / "a.wio", {"c/bias": (long, "conv.bias", "O")}), code=1).values()
    assert finding["evidence"].endswith("the first at (2500001,)")


def test_not_finite_in_what_an_optimizer_left_is_a_note(tmp_path: Path) -> None:
    file = make(tmp_path / "a.wio", {"adam/v": (np.array([np.nan, 1], np.float32), "optimizer", None)})
    assert lint(file, code=0)["not-finite"]["severity"] == NOTE


def test_constant_kernels_but_not_what_initialisers_leave(tmp_path: Path) -> None:
    tensors = {
        "c/kernel": (np.full((2, 3), 0.25, np.float32), "dense.kernel", "IO"),
        "c/bias": (np.zeros(3, np.float32), "dense.bias", "O"),
        **norm(gamma=ONES, beta=ZEROS),
    }
    found = lint(make(tmp_path / "a.wio", tensors), code=1)
    assert found.keys() == {"constant"} and found["constant"]["where"] == "c/kernel"
    assert found["constant"]["evidence"] == "all 6 values are 0.25"


def test_duplicated_kernels(tmp_path: Path) -> None:
    kernel, other = arrays(3, 2), arrays(3, 2, seed=1)
    tensors = {f"{k}/kernel": (a, "dense.kernel", "IO") for k, a in (("a", kernel), ("b", other), ("c", kernel))}
    found = lint(make(tmp_path / "a.wio", tensors), code=1)
    assert found["duplicated"]["tensors"] == ["a/kernel", "c/kernel"] and found["duplicated"]["severity"] == WARNING
    # The same bytes in another role or shape are another thing: tied weights, say.
    tensors = {"a/kernel": (kernel, "dense.kernel", "IO"), "b/table": (kernel, "embedding.table", "IO")}
    assert lint(make(tmp_path / "b.wio", tensors), code=0) == {}


def test_equal_statistics_are_a_note(tmp_path: Path) -> None:
    tensors = norm()
    tensors |= {name.replace("bn/", "bn2/"): value for name, value in tensors.items() if "mean" in name}
    tensors |= {f"bn2/{part}": norm()[f"bn/{part}"] for part in ("variance",)}
    document = json.loads(run_wio("check", make(tmp_path / "a.wio", tensors), "--json").stdout)
    assert [(each["code"], each["severity"]) for each in document["findings"]] == [("duplicated", NOTE)] * 2


def test_undeclared_tensors(tmp_path: Path) -> None:
    tensors = {
        "a": (arrays(3, 2), None, None),
        "b": (arrays(3), "conv.kernel", None),
        "adam": (arrays(2), "optimizer", None),
        "c": (arrays(4), "conv.bias", "O"),
    }
    found = lint(make(tmp_path / "a.wio", tensors), code=1)
    assert found["undeclared"]["tensors"] == ["a", "b"]
    assert lint(make(tmp_path / "a.wio", tensors), "--declare", "a=dense.kernel:IO", "--drop", "b", code=0).keys() == {
        "passed-over"
    }


def test_undeclared_integers_are_a_note(tmp_path: Path) -> None:
    """Axes and shapes of an ONNX graph, step counters: nothing that a conversion would have to turn."""
    file = make(tmp_path / "a.wio", {"axes": (np.array([1, 2]), None, None), "shape": (np.array([0, 0]), None, None)})
    assert {code: each["severity"] for code, each in lint(file, code=0).items()} == {"undeclared": NOTE}


def test_running_std_without_a_version(data: Path) -> None:
    folder = data / "keras_layers" / "k122_tf_last"
    found = lint(f"keras-tf:{folder / 'BatchNormalization.h5'}", code=1)
    assert found["std-as-variance"]["tensors"] == ["batchnormalization_1/batchnormalization_1_running_std"]
    # With its config the file names Keras 1.2.2, where it is the variance.
    assert lint(f"keras-tf:{folder / 'BatchNormalization.full.h5'}", code=0) == {}


def test_running_std_of_a_keras_that_kept_the_deviation() -> None:
    """Keras 1.0.5, by the real one's file and the JSON beside it; 1.0.6 on TensorFlow keeps the variance."""
    folder = TESTS / "data" / "real_frameworks" / "keras_early" / "k105_th"
    arguments = (f"keras-theano:{folder / 'image_first.h5'}", "--option", f"config={folder / 'image_first.json'}")
    document = json.loads(run_wio("check", *arguments, "--json", code=1).stdout)
    [finding] = [each for each in document["findings"] if each["code"] == "std-as-variance"]
    assert finding["severity"] == WARNING and "Keras 1.0.5" in finding["evidence"]
    assert "batchnormalization_1/batchnormalization_1_running_std" in finding["tensors"]


def small(**weights: np.ndarray) -> dict[str, tuple[np.ndarray, None, None]]:
    """The tensors of the network ``small`` of the registry's own tests, in its dialect; some others in their stead."""
    usual = {"net/fc/weights": arrays(30, 7), "net/fc/biases": arrays(7)}
    for layer, shape in {"a/left": (1, 3, 2, 3), "a/right": (3, 1, 3, 5)}.items():
        usual[f"net/{layer}/weights"] = arrays(*shape)
        usual |= {f"net/{layer}/bn/{leaf}": np.abs(arrays(shape[-1], seed=k)) for k, leaf in enumerate(PARTS)}
    return {name: (value, None, None) for name, value in {**usual, **weights}.items()}


PARTS = ("beta", "mean", "var")


def test_names_and_shapes_against_an_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    arguments = ("--arch", "small")
    names = {"missing-tensor", "unexpected-tensor", "refuted-shape"}
    tensors = small()
    assert not names & lint(make(tmp_path / "good.wio", tensors), *arguments, code=0).keys()
    lacking = {name: value for name, value in tensors.items() if name != "net/fc/biases"}
    found = lint(make(tmp_path / "lacking.wio", lacking), *arguments, code=1)
    assert names & found.keys() == {"missing-tensor"} and found["missing-tensor"]["where"] == "net/fc/biases"
    found = lint(make(tmp_path / "more.wio", small(**{"net/b/weights": arrays(2, 3)})), *arguments, code=1)
    assert names & found.keys() == {"unexpected-tensor"} and found["unexpected-tensor"]["where"] == "net/b/weights"
    turned = small(**{"net/a/left/weights": arrays(3, 1, 2, 3)})
    found = lint(make(tmp_path / "turned.wio", turned), *arguments, code=1)
    assert names & found.keys() == {"refuted-shape"} and found["refuted-shape"]["where"] == "net/a/left/weights"


def test_a_weight_that_a_mapping_leaves_out_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose role the file itself declares; a counter, or what the user dropped, is a note."""
    (tmp_path / "small.toml").write_text(SMALL.replace('["step", "a counter"]', '["aux/*", "of training"]'))
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    file = make(tmp_path / "a.wio", {**small(), "aux/kernel": (arrays(2, 3), "dense.kernel", "IO")})
    told = lint(file, "--arch", "small", code=1)["passed-over"]
    assert (told["severity"], told["tensors"], told["evidence"]) == (WARNING, ["aux/kernel"], "aux/kernel: of training")
    assert lint(file, "--arch", "small", "--drop", "aux/*", code=0)["passed-over"]["severity"] == NOTE
    plain = make(tmp_path / "b.wio", {**small(), "aux/count": (np.array(3), None, None)})
    assert lint(plain, "--arch", "small", code=0)["passed-over"]["severity"] == NOTE


def test_a_theano_file_without_convolutions_loads_as_it_is(data: Path, tmp_path: Path) -> None:
    folder = data / "keras_layers" / "k224_th_last"
    assert lint(folder / "LSTM.full.h5", code=0) == {}
    assert lint(folder / "Conv2D.full.h5", code=1).keys() == {"loads-wrong"}
    # In a .wio file the direction is declared: nobody loads it without knowing.
    run_wio("export", folder / "Conv2D.full.h5", "-o", tmp_path / "x.wio")
    assert lint(tmp_path / "x.wio", code=0) == {}
    assert lint(data / "keras_layers" / "k224_tf_last" / "Conv2D.full.h5", code=0) == {}


# --- rules over graphs


def chain(*rows: tuple[str, str] | tuple[str, str, dict[str, Any]]) -> Network:
    """Layers one after the other; convolutions have no bias unless the row says so."""
    layers = [NetLayer("input", "Input")]
    for name, op, *more in rows:
        layers.append(NetLayer(name, op, {"bias": False, **(more[0] if more else {})}, (layers[-1].name,)))
    return Network(tuple(layers))


def block(k: int, bias: bool = False) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (f"c{k}", "Conv", {"bias": bias}),
        (f"n{k}", "BatchNormalization", {"epsilon": 1e-3}),
        (f"r{k}", "Relu", {}),
    ]


def codes(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(each.code, each.severity, each.where) for each in findings]


BARE: list[tuple[str, str, dict[str, Any]]] = [("bare", "Conv", {"bias": True}), ("rb", "Relu", {})]


def test_the_last_convolution_needs_no_norm() -> None:
    blocks = [row for k in range(3) for row in block(k)]
    assert codes(check_graph(chain(*blocks, *BARE))) == []
    assert codes(check_graph(chain(*BARE, *blocks))) == [("conv-without-norm", WARNING, "bare")]


def test_networks_without_norms_have_nothing_to_stand_out_from() -> None:
    plain = [(f"plain{k}", "Conv", {"bias": True}) for k in range(5)]
    assert check_graph(chain(*plain)) == []
    assert check_graph(chain(*block(0), *plain)) == []


def test_squeeze_and_excitation_needs_no_norm() -> None:
    blocks = [row for k in range(4) for row in block(k)]
    squeezed = chain(*blocks, ("pool", "GlobalPool"), *BARE, ("up", "Conv", {"bias": True}), ("fc", "Gemm"))
    assert codes(check_graph(squeezed)) == []


def test_a_norm_after_a_sum_counts() -> None:
    """Networks that activate before they convolve have the norm of a block's last convolution behind the sum."""
    layers = list(chain(*block(0), *block(1), ("last", "Conv")).layers)
    layers.append(NetLayer("sum", "Add", {}, ("last", "r0")))
    layers.append(NetLayer("after", "BatchNormalization", {}, ("sum",)))
    layers.append(NetLayer("fc", "Gemm", {}, ("after",)))
    assert codes(check_graph(Network(tuple(layers)))) == []


def test_many_biased_convolutions_without_norm_are_a_design() -> None:
    """Inception-ResNet: the 1x1 convolution in front of each sum has a bias instead of a norm."""
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for k in range(8):
        rows += block(k)
        if k % 2:
            rows += [(f"up{k}", "Conv", {"bias": True}), (f"a{k}", "Relu", {})]
    [finding] = check_graph(chain(*rows, ("fc", "Gemm")))
    assert (finding.code, finding.severity) == ("conv-without-norm", NOTE)
    assert finding.tensors == ("up1", "up3", "up5", "up7")


@pytest.mark.parametrize("name", ["ResNet50V2", "MobileNetV3Small", "DenseNet121"])
def test_published_networks_are_silent(name: str) -> None:
    """Norms behind sums and concatenations, squeeze and excitation, as Keras's own applications build them."""
    import keras

    network = keras_network(json.loads(getattr(keras.applications, name)(weights=None).to_json()))
    assert sum(layer.op == "BatchNormalization" for layer in network.layers) > 30
    assert check_graph(network) == []


def test_epsilon_replaced_layers_and_other_graphs() -> None:
    wanted = chain(*block(0), ("pool", "MaxPool"), ("lrn", "LRN"), *block(1), ("fc", "Gemm", {"units": 7}))
    assert check_against(wanted, wanted, "net") == []
    own = chain(
        *block(0)[:1],
        ("n0", "BatchNormalization", {"epsilon": 1e-5}),
        ("r0", "Relu"),
        ("pool", "MaxPool"),
        ("bn_for_lrn", "BatchNormalization"),
        *block(1),
        ("fc", "Gemm", {"units": 7}),
    )
    assert codes(check_against(own, wanted, "net")) == [("epsilon-mismatch", ERROR, "n0")]


def test_a_batch_norm_for_lrn_is_named() -> None:
    """PoseNet's port in Keras; what follows conv1 and its pool there is a response normalisation."""

    def network(op: str) -> Network:
        return chain(("conv1", "Conv"), ("relu1", "Relu"), ("pool1", "MaxPool"), ("norm1", op), ("conv2", "Conv"))

    [finding] = check_against(network("BatchNormalization"), network("LRN"), "posenet")
    assert (finding.code, finding.where) == ("replaced-layer", "norm1") and "response" in finding.evidence
    assert check_against(network("LRN"), network("LRN"), "posenet") == []


def test_a_graph_that_is_another() -> None:
    wanted = chain(*block(0), ("fc", "Gemm", {"units": 7}))
    other = chain(*block(0), ("fc", "Gemm", {"units": 8}))
    assert codes(check_against(other, wanted, "net")) == [("graph-differs", ERROR, "fc")]
    assert codes(check_against(chain(*block(0)[:2], ("fc", "Gemm")), wanted, "net")) == [("graph-differs", ERROR, "c0")]


def test_a_norm_of_the_graph_without_tensors(tmp_path: Path) -> None:
    source = TESTS / "data" / "real_frameworks" / "keras_layers" / "k224_tf_last" / "BatchNormalization.full.h5"
    bundle = wio.open(source)
    network = adapter_named("keras-tf").network(bundle)
    assert network is not None and [layer.op for layer in network.layers] == ["BatchNormalization"]
    twice = Network((*network.layers, NetLayer("lost", "BatchNormalization", {}, (network.layers[0].name,))))
    assert codes(check_declared(bundle.values(), network)) == []
    assert codes(check_declared(bundle.values(), twice)) == [("missing-statistics", ERROR, "lost")]


def test_a_graph_without_its_input_layer() -> None:
    """As a Sequential model of Keras 2 may be: no fault, unless layers are missing with it."""
    short = chain(*block(0), ("fc", "Gemm"))
    first, *rest = short.layers[1:]
    own = Network((NetLayer(first.name, first.op, first.attributes), *rest))
    assert codes(check_against(own, short, "net")) == []
    deeper = chain(*block(1), *block(0), ("fc", "Gemm"))
    assert codes(check_against(own, deeper, "net")) == [("graph-differs", ERROR, "c0")]


def test_outputs_are_paired_by_name_where_names_are_known() -> None:
    """PoseNet gives out positions and rotations; a file may list them in another order than the architecture."""

    def network(*heads: tuple[str, int]) -> Network:
        first = chain(*block(0)).layers
        return Network((*first, *(NetLayer(name, "Gemm", {"units": units}, ("r0",)) for name, units in heads)))

    wanted, own = network(("xyz", 3), ("wpqr", 4)), network(("dense_b", 4), ("dense_a", 3))
    assert check_against(own, wanted, "net", {"xyz": "dense_a", "wpqr": "dense_b"}) == []
    assert codes(check_against(own, wanted, "net")) == [("graph-differs", ERROR, f"dense_{k}") for k in "ab"]


# --- graphs of other formats


def onnx_model(folder: Path, relu_first: bool) -> Path:
    nodes, weights, flowing = [], {}, "x"
    for k in range(3):
        weights[f"w{k}"] = onnx_judge.values(2, 2, 1, 1, seed=k)
        for part in ("scale", "b", "mean", "var"):
            weights[f"{part}{k}"] = np.abs(onnx_judge.values(2, seed=10 * k + ord(part[0]))) + np.float32(0.1)
        norm_inputs = [f"{part}{k}" for part in ("scale", "b", "mean", "var")]
        nodes.append(helper.make_node("Conv", [flowing, f"w{k}"], [f"c{k}"], name=f"conv{k}"))
        if relu_first and k == 1:
            nodes.append(helper.make_node("Relu", [f"c{k}"], [f"r{k}"], name=f"relu{k}"))
            nodes.append(helper.make_node("BatchNormalization", [f"r{k}", *norm_inputs], [f"y{k}"], name=f"bn{k}"))
        else:
            nodes.append(helper.make_node("BatchNormalization", [f"c{k}", *norm_inputs], [f"n{k}"], name=f"bn{k}"))
            nodes.append(helper.make_node("Relu", [f"n{k}"], [f"y{k}"], name=f"relu{k}"))
        flowing = f"y{k}"
    return onnx_judge.saved(onnx_judge.model(nodes, weights, {"x": (1, 2, 4, 4)}, ["y2"]), folder)


def test_the_graph_of_onnx(tmp_path: Path) -> None:
    assert lint(onnx_model(tmp_path, relu_first=False), code=0) == {}
    found = lint(onnx_model(tmp_path, relu_first=True), code=1)
    assert found.keys() == {"activation-before-norm"}
    assert re.search(r"-> relu1 -> \S*1", found["activation-before-norm"]["evidence"])


def caffe_net(path: Path, relu_first: bool, biased: bool) -> Path:
    """Three convolutions with BatchNorm and Scale, ReLUs in place; the second as asked for."""
    net, flowing = caffe_files.given((1, 2, 5, 5)), "data"
    scale = (caffe_files.SCALE, caffe_files.number(4, 1))
    for k in range(3):
        bias = biased and k == 1
        blobs = [caffe_files.values(k, 2, 2, 1, 1), *([caffe_files.values(k, 2)] if bias else [])]
        conv = caffe_files.conv(2, (1, 1), more=caffe_files.number(2, int(bias)))
        norm = [caffe_files.values(10 + k, 2), np.abs(caffe_files.values(20 + k, 2)) + 1, np.ones(1, np.float32)]
        relu = caffe_files.layer(f"relu{k}", "ReLU", [f"x{k}"], [f"x{k}"])
        parts = [
            caffe_files.layer(f"conv{k}", "Convolution", [flowing], [f"x{k}"], map_blobs(blobs), conv),
            relu if relu_first and k == 1 else b"",
            caffe_files.layer(f"bn{k}", "BatchNorm", [f"x{k}"], [f"x{k}"], map_blobs(norm)),
            caffe_files.layer(
                f"scale{k}",
                "Scale",
                [f"x{k}"],
                [f"x{k}"],
                map_blobs([caffe_files.values(30 + k, 2), caffe_files.values(40 + k, 2)]),
                scale,
            ),
            b"" if relu_first and k == 1 else relu,
        ]
        net, flowing = net + b"".join(parts), f"x{k}"
    path.write_bytes(net)
    return path


def map_blobs(given: list[np.ndarray]) -> list[bytes]:
    return [caffe_files.blob(each) for each in given]


def test_the_graph_of_caffe(tmp_path: Path) -> None:
    assert lint(caffe_net(tmp_path / "a.caffemodel", relu_first=False, biased=False), code=0) == {}
    found = lint(caffe_net(tmp_path / "b.caffemodel", relu_first=True, biased=False), code=1)
    assert {code: each["where"] for code, each in found.items()} == {"activation-before-norm": "conv1"}
    found = lint(caffe_net(tmp_path / "c.caffemodel", relu_first=False, biased=True), code=1)
    assert {code: each["where"] for code, each in found.items()} == {"bias-before-norm": "conv1"}


def test_the_graph_of_a_prototxt(tmp_path: Path) -> None:
    """The definition beside the weights is the graph that is run, whatever the weights' file says of itself."""
    weights = caffe_net(tmp_path / "a.caffemodel", relu_first=False, biased=False)
    for relu_first in (False, True):
        text = 'input: "data" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5\n'
        flowing = "data"
        for k in range(3):
            conv = "convolution_param { num_output: 2 kernel_size: 1 bias_term: false }"
            rows = [("conv", "Convolution", flowing, conv), ("bn", "BatchNorm", f"x{k}", "")]
            rows += [("scale", "Scale", f"x{k}", "scale_param { bias_term: true }"), ("relu", "ReLU", f"x{k}", "")]
            if relu_first and k == 1:
                rows.insert(1, rows.pop())
            for name, kind, bottom, more in rows:
                text += f'layer {{ name: "{name}{k}" type: "{kind}" bottom: "{bottom}" top: "x{k}" {more} }}\n'
            flowing = f"x{k}"
        (tmp_path / "net.prototxt").write_text(text)
        arguments = (weights, "--option", f"prototxt={tmp_path / 'net.prototxt'}")
        found = lint(*arguments, code=int(relu_first))
        expected = {"activation-before-norm": "conv1"} if relu_first else {}
        assert {code: each["where"] for code, each in found.items()} == expected


# --- what users see


def test_what_is_printed(tmp_path: Path) -> None:
    done = run_wio("check", make(tmp_path / "a.wio", norm(mean=ZEROS, variance=ONES)), code=1)
    assert "warning   untrained-statistics  bn " in done.stdout
    assert f"untrained-statistics: {CODES['untrained-statistics'][1]}" in done.stdout
    assert done.stdout.endswith("1 warning: 4 tensors; the file has no graph to hold them against\n")
    run_wio("check", tmp_path / "none.h5", code=2)


def test_the_documented_codes_are_those_of_the_code() -> None:
    text = (TESTS.parent / "docs" / "check.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", text, re.MULTILINE))
    assert rows == {code: f"{meaning} | {remedy}" for code, (meaning, remedy) in CODES.items()}
    assert SEVERITIES == (ERROR, WARNING, NOTE)
