"""Caffe models read: every form a blob is stored in, and the roles and layouts that a network's definition declares."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import caffe_files as cf
import numpy as np
import pytest
from caffe_files import W, blob, conv, double, given, inner, layer, legacy, number, packet, single, unpacked, values

from wio.adapters.caffe_model import CaffeModel
from wio.bundle import Bundle
from wio.errors import LayoutError

EXPECTED = {
    "conv1/weight": ("conv.kernel", "OIHW"),
    "conv1/bias": ("conv.bias", "O"),
    "bn1/mean": ("batch_norm.mean", "C"),
    "bn1/variance": ("batch_norm.variance", "C"),
    "bn1/scale_factor": ("other", None),
    "scale1/gamma": ("batch_norm.gamma", "C"),
    "scale1/beta": ("batch_norm.beta", "C"),
    "prelu1/alpha": ("prelu.alpha", "C"),
    "grouped/weight": ("conv.kernel", "(GO)IHW G=2"),
    "grouped/bias": ("conv.bias", "O"),
    "up/weight": ("conv_transpose.kernel", "IOHW"),
    "up/bias": ("conv_transpose.bias", "O"),
    "ip1/weight": ("dense.kernel", "O(CHW) C=4 H=5 W=3"),
    "ip1/bias": ("dense.bias", "O"),
    "ip2/weight": ("dense.kernel", "OI"),
    "ip2/bias": ("dense.bias", "O"),
}


def read(folder: Path, content: bytes, **options: str) -> Bundle:
    return CaffeModel().read(cf.put(folder, content), **options)


def declared(bundle: Bundle) -> dict[str, tuple[str | None, str | None]]:
    return {name: (t.role, None if t.layout is None else str(t.layout)) for name, t in bundle.items()}


def one_layer(folder: Path, *layers: bytes) -> Bundle:
    return read(folder, b"".join(layers))


def notes(bundle: Bundle) -> dict[str, str]:
    return {each["tensor"]: each["note"] for each in bundle.metadata["caffe"]["notes"]}


@pytest.mark.parametrize("put", [blob, legacy, unpacked])
def test_a_network_reads_the_same_in_every_form(tmp_path: Path, put: Any) -> None:
    bundle = read(tmp_path, cf.network(put))
    assert declared(bundle) == EXPECTED
    for name, array in W.items():
        assert bundle[name].shape == array.shape
        assert bundle[name].numpy().tobytes() == array.tobytes()
        assert bytes(bundle[name].stored()) == array.tobytes()
        assert (bundle[name].raw is None) == (put is unpacked and array.size >= 1)


def test_opencv_reads_the_same_values(tmp_path: Path) -> None:
    path = cf.put(tmp_path, cf.network())
    judge = cf.OpenCV(tmp_path, cf.PROTOTXT, path)
    bundle = CaffeModel().read(path)
    for name in ("conv1", "grouped", "ip1", "ip2"):
        for place, short in enumerate(("weight", "bias")):
            ours = bundle[f"{name}/{short}"].numpy()
            assert judge.blob(name, place).reshape(ours.shape).tobytes() == ours.tobytes()


def test_layouts_are_what_opencv_computes_with(tmp_path: Path) -> None:
    """Each kernel with unequal axes, brought to HWIO and the like, gives OpenCV's output by plain sums."""
    path = cf.put(tmp_path, cf.network())
    judge = cf.OpenCV(tmp_path, cf.PROTOTXT, path)
    data = values(99, *cf.INPUT_DIMS)
    names = ("conv1", "bn1", "scale1", "prelu1", "grouped", "up", "pool", "ip1", "ip2")
    got = dict(zip(names, judge.run(data, *names), strict=True))
    t = CaffeModel().read(path)

    def close(name: str, ours: np.ndarray[Any, Any]) -> None:
        np.testing.assert_allclose(got[name], ours, rtol=1e-6, atol=2e-5)

    close("conv1", _conv(data, t["conv1/weight"].to("HWIO").numpy()) + t["conv1/bias"].numpy()[:, None, None])
    column = {name: t[name].numpy()[:, None, None] for name in t if t[name].role and t[name].shape == (4,)}
    normal = (got["conv1"] - column["bn1/mean"]) / np.sqrt(column["bn1/variance"] + np.float32(1e-3))
    close("scale1", normal * column["scale1/gamma"] + column["scale1/beta"])
    close("prelu1", np.where(got["scale1"] > 0, got["scale1"], got["scale1"] * column["prelu1/alpha"]))
    kernel = t["grouped/weight"].to("GHWIO").numpy()
    halves = [_conv(got["prelu1"][:, 2 * g : 2 * g + 2], kernel[g]) for g in range(2)]
    close("grouped", np.concatenate(halves, axis=1) + t["grouped/bias"].numpy()[:, None, None])
    kernel = t["up/weight"].to("HWOI").numpy()
    close("up", _transposed(got["grouped"], kernel, (2, 1)) + t["up/bias"].numpy()[:, None, None])
    rows = got["pool"].transpose(0, 2, 3, 1).reshape(1, -1)
    close("ip1", rows @ t["ip1/weight"].to("(HWC)O").numpy() + t["ip1/bias"].numpy())
    close("ip2", got["ip1"] @ t["ip2/weight"].to("IO").numpy() + t["ip2/bias"].numpy())


def _conv(data: np.ndarray[Any, Any], hwio: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    kh, kw = hwio.shape[:2]
    height, width = data.shape[2] - kh + 1, data.shape[3] - kw + 1
    return sum(
        np.einsum("nihw,io->nohw", data[:, :, y : y + height, x : x + width], hwio[y, x])
        for y, x in itertools.product(range(kh), range(kw))
    )


def _transposed(
    data: np.ndarray[Any, Any], hwoi: np.ndarray[Any, Any], stride: tuple[int, int]
) -> np.ndarray[Any, Any]:
    (kh, kw, outputs, _), (_, _, h, w), (sy, sx) = hwoi.shape, data.shape, stride
    out = np.zeros((data.shape[0], outputs, sy * (h - 1) + kh, sx * (w - 1) + kw), np.float32)
    for y, x in itertools.product(range(kh), range(kw)):
        out[:, :, y : y + sy * h : sy, x : x + sx * w : sx] += np.einsum("nihw,oi->nohw", data, hwoi[y, x])
    return out


def test_double_data_stays_double(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((3, 5))
    bundle = one_layer(tmp_path, layer("ip", "InnerProduct", ["x"], ["y"], [double(array)], inner(3)))
    assert bundle["ip/weight"].dtype.name == "float64"
    assert bundle["ip/weight"].numpy().tobytes() == array.tobytes()
    assert bytes(bundle["ip/weight"].stored()) == array.tobytes()


def test_values_in_many_pieces_are_joined(tmp_path: Path) -> None:
    array = values(3, 300)
    whole = array.tobytes()
    pieces = packet(5, whole[:40]) + b"".join(b"\x2d" + whole[k : k + 4] for k in range(40, 1000, 4)) + packet(6, b"")
    pieces += packet(5, whole[1000:]) + cf.shape((300,))
    bundle = one_layer(tmp_path, layer("x", "Mystery", (), (), [pieces]))
    assert bundle["x/blob0"].numpy().tobytes() == whole


def test_gradients_are_left_and_said(tmp_path: Path) -> None:
    array = values(1, 3)
    bundle = one_layer(tmp_path, layer("x", "Mystery", (), (), [blob(array) + packet(6, bytes(12))]))
    assert bundle["x/blob0"].numpy().tobytes() == array.tobytes()
    assert "gradient" in notes(bundle)["x/blob0"]


def test_raw_is_the_file_itself(tmp_path: Path) -> None:
    raw = read(tmp_path, cf.network())["ip1/weight"].raw
    assert raw is not None
    first, second = raw(), raw()
    assert np.shares_memory(np.frombuffer(first, np.uint8), np.frombuffer(second, np.uint8))


def test_v1_layers(tmp_path: Path) -> None:
    kernel, bias, dense = values(1, 4, 3, 2, 3), values(2, 4), values(3, 5, 4 * 6 * 6)
    content = packet(1, "old") + packet(3, "data") + b"".join(number(4, dim) for dim in (1, 3, 7, 8))
    content += cf.v1_layer("c/1", "Convolution", ["data"], ["c"], [legacy(kernel), legacy(bias)], conv(4, (2, 3)))
    content += cf.v1_layer("n", "LRN", ["c"], ["n"], (), (cf.LRN, number(1, 3) + single(2, 2e-5)))
    content += cf.v1_layer("f", "InnerProduct", ["n"], ["f"], [legacy(dense)], inner(5, number(2, 0)))
    bundle = read(tmp_path, content)
    assert declared(bundle) == {
        "c/1/weight": ("conv.kernel", "OIHW"),
        "c/1/bias": ("conv.bias", "O"),
        "f/weight": ("dense.kernel", "O(CHW) C=4 H=6 W=6"),
    }
    assert (bundle["c/1/bias"].layer, bundle["c/1/bias"].shape) == ("c/1", (4,))
    assert bundle["f/weight"].numpy().tobytes() == dense.tobytes()
    caffe = bundle.metadata["caffe"]
    assert caffe["v1"] and caffe["name"] == "old" and caffe["inputs"] == {"data": [1, 3, 7, 8]}
    assert caffe["types"] == [["c/1", "Convolution"], ["n", "LRN"], ["f", "InnerProduct"]]
    assert caffe["lrn"] == [
        {
            "name": "n",
            "local_size": 3,
            "alpha": pytest.approx(2e-5),
            "beta": 0.75,
            "norm_region": "ACROSS_CHANNELS",
            "k": 1.0,
        }
    ]


def test_epsilon_is_kept(tmp_path: Path) -> None:
    [record] = [each for each in read(tmp_path, cf.network()).metadata["layers"] if each["kind"] == "BatchNorm"]
    assert record == {
        "name": "bn1",
        "kind": "BatchNorm",
        "tensors": ["bn1/mean", "bn1/variance", "bn1/scale_factor", "scale1/gamma", "scale1/beta"],
        "epsilon": pytest.approx(1e-3),
    }


# --- batch norm and what follows it


@pytest.mark.parametrize("factor", [999.9824, 0.0, np.nextafter(np.float32(1), np.float32(2)), np.nan])
def test_statistics_stored_times_a_factor_are_not_declared(tmp_path: Path, factor: float) -> None:
    bundle = read(tmp_path, cf.network(change={"bn1/scale_factor": np.array([factor], np.float32)}))
    for name in ("bn1/mean", "bn1/variance"):
        assert (bundle[name].role, bundle[name].layout) == (None, None)
        assert "factor" in notes(bundle)[name]
    assert bundle["scale1/gamma"].role == "batch_norm.gamma"
    if factor == np.float32(999.9824):
        assert "divide by the factor 999.98" in notes(bundle)["bn1/mean"]


def test_gamma_and_beta_belong_to_the_layer_of_the_batch_norm(tmp_path: Path) -> None:
    bundle = read(tmp_path, cf.network())
    assert {t.layer for t in bundle.values() if (t.role or "").startswith("batch_norm")} == {"bn1"}


def _normalized(*after: bytes) -> bytes:
    vector = blob(values(1, 4))
    return layer("bn", "BatchNorm", ["x"], ["t"], [vector, vector, blob(np.ones(1))]) + b"".join(after)


def _scale(bottom: str = "t", parameter: bytes = b"") -> bytes:
    return layer("sc", "Scale", [bottom], ["t"], [blob(values(2, 4))], (cf.SCALE, parameter))


def test_a_bias_layer_may_hold_beta(tmp_path: Path) -> None:
    bias = layer("b", "Bias", ["t"], ["t"], [blob(values(3, 4))])
    bundle = read(tmp_path, _normalized(_scale(), bias))
    assert (bundle["sc/gamma"].role, bundle["b/beta"].role) == ("batch_norm.gamma", "batch_norm.beta")
    assert bundle["b/beta"].layer == "bn"


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([layer("r", "ReLU", ["t"], ["t"]), _scale()], id="a nonlinearity between"),
        pytest.param([layer("r", "ReLU", ["t"], ["u"]), _scale()], id="another layer takes the normalized map"),
        pytest.param([_scale("y")], id="another map"),
        pytest.param([_scale("t", number(1, 0))], id="along the batch"),
        pytest.param([_scale("t", number(1, 3))], id="along the width"),
    ],
)
def test_a_scale_that_follows_no_batch_norm_is_not_its_gamma(tmp_path: Path, after: list[bytes]) -> None:
    bundle = read(tmp_path, _normalized(*after))
    assert (bundle["sc/gamma"].role, bundle["sc/gamma"].layer) == (None, "sc")


# --- convolutions


@pytest.mark.parametrize(
    ("kind", "dims", "kernel", "group", "layout"),
    [
        ("Convolution", (6, 4, 3), (3, 3)[:1], 1, "OIW"),
        ("Convolution", (6, 4, 2, 3, 4), (2, 3, 4), 1, "OIDHW"),
        ("Convolution", (6, 1, 3, 2), (3, 2), 6, "(GO)IHW G=6"),
        ("Deconvolution", (6, 2, 3, 2), (3, 2), 3, "(GI)OHW G=3"),
    ],
)
def test_kernels(tmp_path: Path, kind: str, dims: Any, kernel: Any, group: int, layout: str) -> None:
    outputs = dims[0] if kind == "Convolution" else dims[1] * group
    bundle = one_layer(tmp_path, layer("c", kind, ["x"], ["y"], [blob(values(1, *dims))], conv(outputs, kernel, group)))
    assert str(bundle["c/weight"].layout) == layout


def test_a_convolution_without_its_definition_is_not_declared(tmp_path: Path) -> None:
    bundle = one_layer(tmp_path, layer("c", "Convolution", ["x"], ["y"], [blob(values(1, 4, 3, 2, 3))]))
    assert bundle["c/weight"].role is None
    assert "prototxt" in notes(bundle)["c/weight"]


def test_a_layer_of_an_unknown_type_is_not_declared(tmp_path: Path) -> None:
    bundle = one_layer(tmp_path, layer("q", "Mystery", ["x"], ["y"], [blob(values(1, 4)), blob(values(2, 2, 2))]))
    assert declared(bundle) == {"q/blob0": (None, None), "q/blob1": (None, None)}


def test_embedding_and_shared_slope(tmp_path: Path) -> None:
    table = layer("e", "Embed", ["x"], ["y"], [blob(values(1, 7, 3))], (cf.EMBED, number(1, 3) + number(2, 7)))
    slope = layer("p", "PReLU", ["y"], ["z"], [blob(np.float32(0.25).reshape(()))], (cf.PRELU, number(2, 1)))
    bundle = one_layer(tmp_path, table, slope)
    assert declared(bundle) == {"e/weight": ("embedding.table", "IO"), "p/alpha": (None, None)}
    assert bundle["p/alpha"].shape == () and bundle["p/alpha"].numpy() == np.float32(0.25)


def test_a_legacy_shape_that_its_type_cannot_have_is_kept_and_not_declared(tmp_path: Path) -> None:
    odd = b"".join(number(k, dim) for k, dim in ((1, 4), (2, 1), (3, 1), (4, 1))) + packet(5, values(1, 4).tobytes())
    weight = legacy(values(2, 4, 3, 2, 3))
    bundle = one_layer(tmp_path, layer("c", "Convolution", ["x"], ["y"], [weight, odd], conv(4, (2, 3))))
    assert (bundle["c/bias"].shape, bundle["c/bias"].role) == ((4, 1, 1, 1), None)
    assert "1 axes" in notes(bundle)["c/bias"]


# --- inner products: what their inputs are made of


def ip(count: int, more: bytes = b"", bottom: str = "t", dims: tuple[int, int] | None = None) -> bytes:
    return layer("ip", "InnerProduct", [bottom], ["out"], [blob(values(1, *(dims or (2, count))))], inner(2, more))


MAP = given((1, 4, 3, 5))
POOL = (cf.POOLING, number(12, 1))


@pytest.mark.parametrize(
    ("layers", "layout"),
    [
        pytest.param([ip(60)], "O(?)", id="nothing known of the bottom"),
        pytest.param([MAP, ip(60, bottom="data")], "O(CHW) C=4 H=3 W=5", id="a map"),
        pytest.param([given((1, 9)), ip(9, bottom="data")], "OI", id="a vector"),
        pytest.param([given((1, 9, 4)), ip(36, bottom="data")], "O(CW) C=9 W=4", id="a sequence"),
        pytest.param([MAP, ip(60, number(6, 1), "data", (60, 2))], "(CHW)O C=4 H=3 W=5", id="transposed"),
        pytest.param([MAP, ip(15, number(5, 2), "data")], "O(?)", id="from another axis"),
        pytest.param([MAP, ip(60, number(5, -3), "data")], "O(CHW) C=4 H=3 W=5", id="an axis from the end"),
        pytest.param(
            [MAP, layer("f", "Flatten", ["data"], ["t"]), ip(60)], "O(CHW) C=4 H=3 W=5", id="flattened before"
        ),
        pytest.param(
            [MAP, layer("r", "ReLU", ["data"], ["data"]), layer("d", "Dropout", ["data"], ["t"]), ip(60)],
            "O(CHW) C=4 H=3 W=5",
            id="through layers that keep the shape",
        ),
        pytest.param(
            [MAP, layer("g", "Pooling", ["data"], ["t"], (), POOL), ip(4)], "O(CHW) C=4 H=1 W=1", id="pooled to a point"
        ),
        pytest.param(
            [MAP, layer("k", "Concat", ["data", "data"], ["t"]), ip(120)], "O(CHW) C=8 H=3 W=5", id="maps joined"
        ),
        pytest.param(
            [
                MAP,
                layer("f", "Flatten", ["data"], ["u"]),
                layer("k", "Concat", ["u", "u"], ["t"]),
                ip(120),
            ],
            "O(?)",
            id="flattened maps joined",
        ),
        pytest.param([MAP, layer("m", "Mystery", ["data"], ["t"]), ip(60)], "O(?)", id="behind an unknown type"),
        pytest.param([MAP, layer("m", "Permute", ["data"], ["data"]), ip(60, bottom="data")], "O(?)", id="permuted"),
        pytest.param(
            [
                layer("c", "Convolution", ["x"], ["t"], [blob(values(1, 5, 3, 1, 1))], conv(5, (1, 1))),
                ip(60),
            ],
            "O(CHW) C=5",
            id="sizes of space not stated",
        ),
        pytest.param(
            [layer("i", "InnerProduct", ["x"], ["t"], (), inner(9)), ip(9)], "OI", id="after another inner product"
        ),
    ],
)
def test_rows_of_an_inner_product(tmp_path: Path, layers: list[bytes], layout: str) -> None:
    bundle = one_layer(tmp_path, *layers)
    assert str(bundle["ip/weight"].layout) == layout


def test_pooling_rounds_up_and_clips(tmp_path: Path) -> None:
    """7 by 6, window 3, stride 2, padding 1: 4 by 4, of which the last column would start outside without clipping."""
    pool = (cf.POOLING, number(2, 3) + number(3, 2) + number(4, 1))
    bundle = one_layer(tmp_path, given((1, 2, 7, 6)), layer("p", "Pooling", ["data"], ["t"], (), pool), ip(2 * 4 * 4))
    assert str(bundle["ip/weight"].layout) == "O(CHW) C=2 H=4 W=4"


def test_what_the_shape_refutes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="ip/weight"):
        one_layer(tmp_path, MAP, ip(61, bottom="data"))
    with pytest.raises(LayoutError, match="num_output is 5"):
        one_layer(tmp_path, layer("c", "Convolution", ["x"], ["y"], [blob(values(1, 4, 3, 1, 1))], conv(5, (1, 1))))
    with pytest.raises(LayoutError, match="G=3"):
        one_layer(tmp_path, layer("c", "Convolution", ["x"], ["y"], [blob(values(1, 4, 3, 1, 1))], conv(4, (1, 1), 3)))
