"""Caffe models written: the same network again, byte for byte, and networks made from declared roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import caffe_files as cf
import numpy as np
import pytest
from caffe_files import W, blob, conv, double, inner, layer, legacy, number, packet, single, unpacked, values

import wio
from wio.adapter import Adapter
from wio.adapters.caffe_model import CaffeModel
from wio.adapters.wio_file import WioFile
from wio.bundle import Bundle, Tensor
from wio.dtypes import dtype_of
from wio.errors import FormatError, PlanError, WioError
from wio.layout import Layout
from wio.plan import Plan, make_plan
from wio.roles import neutral
from wio.testing import AdapterContract

CAFFE = CaffeModel()


class TestCaffe(AdapterContract):
    adapter: ClassVar[Adapter] = CAFFE

    def sample(self, folder: Path) -> Path:
        return cf.put(folder, cf.network())


def written(bundle: Bundle, path: Path) -> Plan:
    plan = make_plan(bundle, CAFFE.target(bundle), "caffe", {})
    CAFFE.write(path, plan.apply())
    return plan


def v1_network() -> bytes:
    """As PoseNet is: V1 layers, legacy shapes, an LRN, layers whose names are not those of their tops."""
    content = packet(1, "posenet") + packet(3, "data") + b"".join(number(4, dim) for dim in (1, 3, 7, 8))
    return content + b"".join(
        [
            cf.v1_layer(
                "conv1",
                "Convolution",
                ["data"],
                ["conv1"],
                [legacy(W["conv1/weight"]), legacy(W["conv1/bias"])],
                conv(4, (2, 3)),
            ),
            cf.v1_layer("norm1", "LRN", ["conv1"], ["norm1"], (), (cf.LRN, number(1, 5) + single(2, 1e-4))),
            cf.v1_layer(
                "fc_pose",
                "InnerProduct",
                ["norm1"],
                ["fc"],
                [legacy(values(3, 5, 144)), legacy(values(4, 5))],
                inner(5),
            ),
        ]
    )


V1_PROTOTXT = """
name: "posenet"
input: "data"
input_dim: 1 input_dim: 3 input_dim: 7 input_dim: 8
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
         convolution_param { num_output: 4 kernel_h: 2 kernel_w: 3 } }
layers { name: "norm1" type: LRN bottom: "conv1" top: "norm1" lrn_param { local_size: 5 alpha: 0.0001 } }
layers { name: "fc_pose" type: INNER_PRODUCT bottom: "norm1" top: "fc" inner_product_param { num_output: 5 } }
"""


def with_unknown_fields() -> bytes:
    odd = layer("x", "Mystery", ["a"], ["b"], [blob(values(1, 2, 3))], (9999, b"\x01\x02"))
    return packet(1, "odd") + number(5, 1) + odd + packet(777, "kept")


def with_double() -> bytes:
    array = np.random.default_rng(0).standard_normal((3, 5))
    return layer("ip", "InnerProduct", ["x"], ["y"], [double(array)], inner(3, number(2, 0)))


@pytest.mark.parametrize(
    "content", [cf.network(), cf.network(legacy), v1_network(), with_unknown_fields(), with_double()]
)
def test_the_same_network_is_written_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    bundle = CAFFE.read(cf.put(tmp_path, content))
    written(bundle, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


def test_unpacked_values_are_written_packed(tmp_path: Path) -> None:
    written(CAFFE.read(cf.put(tmp_path, cf.network(unpacked))), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == cf.network()


@pytest.mark.parametrize("layout", ["keep", "neutral"])
@pytest.mark.parametrize("content", [cf.network(), v1_network()])
def test_through_a_wio_file(tmp_path: Path, content: bytes, layout: str) -> None:
    bundle = CAFFE.read(cf.put(tmp_path, content))
    if layout == "neutral":
        bundle = bundle.map(lambda t: t.to(neutral(t.role, t.layout)) if t.role and t.layout else t)
    wio.save(bundle, tmp_path / "a.wio")
    kept = WioFile().read(tmp_path / "a.wio")
    written(kept, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


def test_a_bundle_made_neutral_fits_the_layout_it_came_from(tmp_path: Path) -> None:
    """A layout that only declares more sizes than the file settled is no other layout."""
    content = cf.network(start=layer("data", "Data", (), ("data",)))
    bundle = CAFFE.read(cf.put(tmp_path, content))
    assert str(bundle["ip1/weight"].layout) == "O(CHW) C=4"
    told = Layout.parse("O(CHW) C=4 H=5 W=3")
    sized = bundle.map(lambda t: t.declared(t.role, told) if t.name == "ip1/weight" else t)
    hwc = sized.map(lambda t: t.to("(HWC)O") if t.name == "ip1/weight" else t)
    for each in (sized, hwc):
        written(each, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == content


def test_the_output_may_be_the_input(tmp_path: Path) -> None:
    path = cf.put(tmp_path, cf.network())
    written(CAFFE.read(path), path)
    assert path.read_bytes() == cf.network()


def test_opencv_computes_the_same_from_what_was_written(tmp_path: Path) -> None:
    path = cf.put(tmp_path, v1_network())
    data = values(5, *cf.INPUT_DIMS)
    before = cf.OpenCV(tmp_path, V1_PROTOTXT, path).run(data, "conv1", "norm1", "fc_pose")
    written(CAFFE.read(path).map(lambda t: t), tmp_path / "again")
    after = cf.OpenCV(tmp_path, V1_PROTOTXT, tmp_path / "again").run(data, "conv1", "norm1", "fc_pose")
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_layer_whose_blobs_are_all_dropped_is_written_without(tmp_path: Path) -> None:
    bundle = CAFFE.read(cf.put(tmp_path, cf.network())).select((), ["ip2/*"])
    plan = written(bundle, tmp_path / "again")
    assert any("'ip2' is written without weights" in note for note in plan.notes)
    again = CAFFE.read(tmp_path / "again")
    assert list(again) == list(bundle)
    assert again.metadata["caffe"]["types"] == bundle.metadata["caffe"]["types"]


def test_a_layer_that_lacks_one_blob_is_refused(tmp_path: Path) -> None:
    bundle = CAFFE.read(cf.put(tmp_path, cf.network())).select((), ["ip2/bias"])
    with pytest.raises(PlanError, match="needs all of its blobs"):
        written(bundle, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_tensor_declared_after_reading_is_not_guessed_about(tmp_path: Path) -> None:
    content = layer("x", "Mystery", ["a"], ["b"], [blob(values(1, 3, 3))])
    bundle = CAFFE.read(cf.put(tmp_path, content))
    odd = bundle.map(lambda t: t.declared("dense.kernel", Layout.parse("IO")))
    with pytest.raises(PlanError, match="is not recorded"):
        written(odd, tmp_path / "again")
    usual = bundle.map(lambda t: t.declared("dense.kernel", Layout.parse("OI")))
    written(usual, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


# --- networks made from roles


def tensor(name: str, array: np.ndarray[Any, Any], role: str | None, layout: str | None, layer: str = "") -> Tensor:
    return Tensor(
        name,
        dtype_of(array),
        array.shape,
        lambda: array,
        role,
        Layout.parse(layout) if layout else None,
        layer=layer or name.rpartition("/")[0],
    )


def arranged(name: str, short: str, role: str, layout: str, source: str) -> Tensor:
    """A tensor of the small network as another framework would have it, brought there by NumPy alone."""
    array = W[f"{name}/{short}"]
    if layout in ("HWIO", "HWI(GO)", "HWOI"):
        array = array.transpose(2, 3, 1, 0)
    elif layout.startswith("(HWC)O"):
        array = array.reshape(5, 4, 5, 3).transpose(2, 3, 1, 0).reshape(60, 5)
        layout = "(HWC)O H=5 W=3 C=4"
    elif layout == "IO":
        array = array.T
    if layout == "HWI(GO)":
        layout += " G=2"
    return tensor(f"{source}/{short}", np.ascontiguousarray(array), role, layout)


def foreign() -> Bundle:
    return Bundle(
        [
            arranged("conv1", "weight", "conv.kernel", "HWIO", "conv1"),
            arranged("conv1", "bias", "conv.bias", "O", "conv1"),
            *(
                arranged(source, short, f"batch_norm.{short}", "C", "bn1")
                for source, short in (("scale1", "gamma"), ("scale1", "beta"), ("bn1", "mean"), ("bn1", "variance"))
            ),
            arranged("prelu1", "alpha", "prelu.alpha", "C", "prelu1"),
            arranged("grouped", "weight", "conv.kernel", "HWI(GO)", "grouped"),
            arranged("grouped", "bias", "conv.bias", "O", "grouped"),
            arranged("up", "weight", "conv_transpose.kernel", "HWOI", "up"),
            arranged("up", "bias", "conv_transpose.bias", "O", "up"),
            arranged("ip1", "weight", "dense.kernel", "(HWC)O", "ip1"),
            arranged("ip1", "bias", "dense.bias", "O", "ip1"),
            arranged("ip2", "weight", "dense.kernel", "IO", "ip2"),
            arranged("ip2", "bias", "dense.bias", "O", "ip2"),
            tensor("step", np.array(3, np.int64), "counter", None),
        ],
        {"layers": [{"name": "bn1", "epsilon": 1e-3}]},
    )


def test_a_network_from_another_framework(tmp_path: Path) -> None:
    """OpenCV computes the same from weights that were HWIO and (HWC)O as from the ones that never left Caffe."""
    plan = written(foreign(), tmp_path / "made")
    assert list(plan.dropped) == ["step"]
    again = CAFFE.read(tmp_path / "made")
    made = {name.replace("bn1_scale", "scale1"): t for name, t in again.items()}
    assert {name: t.numpy().tobytes() for name, t in made.items()} == {n: a.tobytes() for n, a in W.items()}
    data = values(5, *cf.INPUT_DIMS)
    before = cf.OpenCV(tmp_path, cf.PROTOTXT, cf.put(tmp_path, cf.network())).run(data, "prelu1", "up", "ip2")
    renamed = cf.PROTOTXT.replace('"scale1"', '"bn1_scale"')
    after = cf.OpenCV(tmp_path, renamed, tmp_path / "made").run(data, "prelu1", "up", "ip2")
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_was_made_declares_itself(tmp_path: Path) -> None:
    written(foreign(), tmp_path / "made")
    again = CAFFE.read(tmp_path / "made")
    assert {t.role for t in again.values() if t.layer == "bn1"} == {
        "batch_norm.mean",
        "batch_norm.variance",
        "batch_norm.gamma",
        "batch_norm.beta",
        "other",
    }
    assert str(again["grouped/weight"].layout) == "(GO)IHW G=2"
    [record] = [each for each in again.metadata["layers"] if each["kind"] == "BatchNorm"]
    assert record["epsilon"] == pytest.approx(1e-3)
    # Without a graph the file does not say what a dense layer's columns are made of, and nothing is supposed.
    assert str(again["ip1/weight"].layout) == "O(?)"


def test_a_depthwise_kernel_is_a_convolution_of_as_many_groups(tmp_path: Path) -> None:
    array = values(1, 3, 2, 4, 2)
    written(Bundle([tensor("d/w", array, "depthwise.kernel", "HWCM")]), tmp_path / "made")
    again = CAFFE.read(tmp_path / "made")["d/weight"]
    assert str(again.layout) == "(GO)IHW G=4"
    assert again.numpy().tobytes() == array.transpose(2, 3, 0, 1).tobytes()


def test_beta_alone_is_a_bias_layer(tmp_path: Path) -> None:
    stats = [tensor(f"b/{short}", values(1, 4), f"batch_norm.{short}", "C") for short in ("mean", "variance", "beta")]
    written(Bundle(stats), tmp_path / "made")
    again = CAFFE.read(tmp_path / "made")
    assert again["b_scale/beta"].role == "batch_norm.beta"
    assert again.metadata["caffe"]["types"] == [["b", "BatchNorm"], ["b_scale", "Bias"]]


def test_doubles_stay_doubles(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((5, 3))
    written(Bundle([tensor("d/w", array, "dense.kernel", "IO")]), tmp_path / "made")
    assert CAFFE.read(tmp_path / "made")["d/weight"].numpy().tobytes() == array.T.tobytes()


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ([("a/w", values(1, 2, 2), None, None)], "role is not declared"),
        ([("a/w", values(1, 2, 2).astype(np.float16), "dense.kernel", "IO")], "not float16"),
        ([("a/g", values(1, 4), "batch_norm.gamma", "C")], "needs its mean and variance"),
        ([("a/m", values(1, 4), "batch_norm.mean", "C")], "BatchNorm of Caffe has more"),
        ([("a/b", values(1, 4), "conv.bias", "O")], "Convolution of Caffe has more"),
        ([("a/w", values(1, 4, 4), "dense.kernel", "(?)O")], "is not declared"),
        ([("a/w", values(1, 4, 4), "rnn.kernel", "IU")], "no rnn.kernel"),
        (
            [("a/w", values(1, 4, 4), "dense.kernel", "IO"), ("a/k", values(1, 1, 4, 4), "conv.kernel", "WIO")],
            "two tensors would have this name",
        ),
        (
            [("a/w", values(1, 4, 4), "dense.kernel", "IO"), ("a/b", values(1, 4), "conv.bias", "O")],
            "no layer of Caffe holds",
        ),
    ],
)
def test_what_caffe_cannot_hold_is_a_problem(tmp_path: Path, tensors: list[Any], match: str) -> None:
    with pytest.raises(PlanError, match=match):
        written(Bundle([tensor(*each) for each in tensors]), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_writing_is_refused_without_a_plan(tmp_path: Path) -> None:
    with pytest.raises(WioError, match="with a plan"):
        CAFFE.write(tmp_path / "x", Bundle([]))


@pytest.mark.parametrize(
    "caffe",
    [
        {},
        {"layers": 3},
        {"layers": [{"name": "a"}]},
        {"layers": [{"name": "a", "head": "!", "tail": "", "blobs": []}]},
        {"layers": [{"name": "a", "head": "", "tail": "", "blobs": [{"tensor": "x", "legacy": [1, 2]}]}]},
        {"layers": [{"name": "a", "head": "", "tail": "", "blobs": [{"tensor": "x", "layout": 3}]}]},
        {"layers": [], "head": 3},
    ],
)
def test_metadata_that_wio_did_not_write(tmp_path: Path, caffe: Any) -> None:
    bundle = Bundle([], {"adapter": "caffe", "caffe": caffe})
    with pytest.raises(FormatError, match="metadata"):
        CAFFE.target(bundle)
        CAFFE.write(tmp_path / "x", bundle)
    assert not (tmp_path / "x").exists()


def test_a_legacy_shape_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    bundle = CAFFE.read(cf.put(tmp_path, cf.network(legacy)))
    bundle.metadata["caffe"]["layers"][1]["blobs"][1]["legacy"] = [1, 1, 1, 5]
    with pytest.raises(WioError, match="conv1/bias"):
        CAFFE.write(tmp_path / "x", bundle)


@pytest.mark.parametrize("adapter", ["tf-checkpoint", "keras-tf"])
def test_the_remedy_for_a_square_kernel_keeps_its_axes_where_they_are(tmp_path: Path, adapter: str) -> None:
    """Its layouts were once those of the target: followed, they took a square kernel along transposed."""
    kernel = values(3, 4, 4)
    np.savez(tmp_path / "s.npz", **{"fc/weight": kernel, "fc/bias": values(4, 4)})
    declare = ["fc/weight=dense.kernel:OI", "fc/bias=dense.bias:O"]
    wio.import_into(tmp_path / "s.npz", tmp_path / "s.caffemodel", adapter="caffe", declare=declare)
    with pytest.raises(PlanError) as error:
        wio.import_into(tmp_path / "s.caffemodel", tmp_path / "o", adapter=adapter)
    (problem,) = error.value.problems
    remedy = str(problem.remedy)
    assert "O(HWC) H=.. W=.. C=.., O(CHW) C=.. H=.. W=.., or OI if it is no flattened map" in remedy
    declare = ["fc/weight=dense.kernel:OI"]
    plan = wio.import_into(tmp_path / "s.caffemodel", tmp_path / "o", adapter=adapter, declare=declare)
    (made,) = [tensor for tensor in plan.apply().values() if tensor.role == "dense.kernel"]
    np.testing.assert_array_equal(made.numpy(), kernel.T)
