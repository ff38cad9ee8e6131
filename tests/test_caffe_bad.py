"""Files that are no Caffe network, or damaged: each is named, none is believed, and nothing else is ever raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import caffe_files as cf
import numpy as np
import pytest
from caffe_files import blob, conv, layer, number, packet, values, varint
from hostile import mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wio.adapters._caffe_prototxt import parse
from wio.adapters._protobuf import WireError
from wio.adapters.caffe_model import CaffeModel
from wio.errors import FormatError, WioError

GOOD = values(1, 2, 3)
FOUR = packet(5, bytes(16))


def one(content: bytes, kind: str = "Mystery") -> bytes:
    return layer("x", kind, ["a"], ["b"], [content])


BAD = {
    "empty": (b"", "no layer"),
    "no layer in it": (packet(1, "net"), "no layer"),
    "cut in a layer": (cf.network()[:-9], "needs"),
    "a layer that is a number": (number(100, 3), "is no layer"),
    "layers of both forms": (one(blob(GOOD)) + packet(2, b""), "new and of the old form"),
    "a V0 layer": (packet(2, packet(1, packet(1, "conv"))), "upgrade_net_proto_binary"),
    "a V1 type that there is not": (packet(2, packet(4, "a") + number(5, 99)), "no V1 layer has the type 99"),
    "two layers of one name": (one(blob(GOOD)) * 2, "two layers with weights"),
    "weights without a layer's name": (packet(100, packet(2, "X") + packet(7, blob(GOOD))), "no name"),
    "a name that is no text": (packet(100, packet(1, b"\xff\xfe") + packet(2, "X")), "not UTF-8"),
    "a name that is a number": (packet(100, number(1, 7)), "wire type"),
    "a blob that is a number": (packet(100, packet(1, "x") + number(7, 7)), "is no blob"),
    "too few values": (one(FOUR + cf.shape((5,))), "needs 5 values, the blob has 4"),
    "too many values": (one(FOUR + cf.shape((3,))), "needs 3 values, the blob has 4"),
    "no values": (one(cf.shape((2, 2))), "needs 4 values, the blob has 0"),
    "half a value": (one(packet(5, bytes(6)) + cf.shape((1,))), "no whole number"),
    "half a double": (one(packet(8, bytes(12)) + cf.shape((1,))), "no whole number"),
    "values that are a varint": (one(number(5, 1)), "wire type 0"),
    "values in both types": (one(FOUR + packet(8, bytes(32)) + cf.shape((4,))), "double_data"),
    "a negative dim": (one(FOUR + packet(7, packet(1, varint(-1) + varint(-4)))), "no shape"),
    "a dim that overflows": (one(FOUR + cf.shape((2**62, 2**62))), "no shape"),
    "a product that overflows": (one(FOUR + cf.shape((65536, 65536))), "limit"),
    "zeros that hide a size": (one(cf.shape((0, 2**31 - 1, 2**31 - 1))), "limit"),
    "too many axes": (one(FOUR + cf.shape((1,) * 33)), "32 axes"),
    "a hundred thousand axes": (one(FOUR + packet(7, packet(1, bytes(100_000)))), "32 axes"),
    "a dim that is a float": (one(FOUR + packet(7, cf.single(1, 4.0))), "wire type 5"),
    "a dim cut off": (one(FOUR + packet(7, packet(1, b"\x84"))), "cut off"),
    "legacy sizes that do not fit": (one(number(1, 3) + FOUR), "needs 0 values"),
    "a negative legacy size": (one(number(1, -4) + FOUR), "no shape"),
    "a length beyond the file": (varint(100 * 8 + 2) + varint(2**40), "needs"),
    "a varint of eleven bytes": (b"\xff" * 11, "longer than"),
    "a field numbered 0": (b"\x02\x00", "does not exist"),
    "groups in groups": (b"\x4b" * 200, "nest deeper"),
    "an epsilon that is no number": (
        layer("b", "BatchNorm", (), (), (), (cf.BATCH_NORM, cf.single(3, float("nan")))),
        "no finite number",
    ),
    "values in too many pieces": (one((packet(5, bytes(4)) + number(14, 1)) * 10_001 + cf.shape((10_001,))), "pieces"),
    "too many layers": (packet(100, b"") * 20_001, "more than 20000 layers"),
    "a parameter of another type": (packet(100, packet(1, "c") + packet(2, "X") + number(106, 1)), "wire type"),
    "more values than a definition has": (
        layer("c", "Convolution", (), (), (), (cf.CONV, packet(4, bytes(1_000_001)))),
        "more than",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_malformed(tmp_path: Path, kind: str) -> None:
    content, match = BAD[kind]
    path = cf.put(tmp_path, content)
    with pytest.raises(FormatError) as caught:
        CaffeModel().read(path)
    assert match in str(caught.value)
    assert "net.caffemodel" in str(caught.value)


def test_an_error_names_layer_and_blob(tmp_path: Path) -> None:
    weights = [blob(values(1, 4, 3, 1, 1)), FOUR + cf.shape((5,))]
    path = cf.put(tmp_path, layer("conv/1", "Convolution", ["a"], ["b"], weights, conv(4, (1, 1))))
    with pytest.raises(FormatError, match="layer 'conv/1', blob 1: shape"):
        CaffeModel().read(path)


def test_a_definition_of_absurd_sizes_does_no_harm(tmp_path: Path) -> None:
    huge = number(1, 2**63) + number(3, 2**62) + number(4, 0) + number(6, 0) + number(5, 2**40)
    content = cf.given((2**40, 2**40, 2**62, 2**62))
    content += layer("c", "Convolution", ["data"], ["c"], (), (cf.CONV, huge))
    content += layer("p", "Pooling", ["data"], ["p"], (), (cf.POOLING, number(2, 0) + number(3, 0) + number(4, 2**60)))
    content += layer("k", "Concat", ["p", "c"], ["k"], (), (cf.CONCAT, number(2, -9)))
    content += layer("f", "Flatten", ["p"], ["f"], (), (cf.FLATTEN, number(1, 3) + number(2, 1)))
    content += layer("i", "InnerProduct", ["p"], ["i"], [blob(GOOD)], cf.inner(2, number(5, 2**62)))
    bundle = CaffeModel().read(cf.put(tmp_path, content))
    assert str(bundle["i/weight"].layout) == "O(?)"


def test_odd_files(tmp_path: Path) -> None:
    caffe = CaffeModel()
    for path in (tmp_path, tmp_path / "missing"):
        assert caffe.sniff(path) == 0
        with pytest.raises(FormatError):
            caffe.read(path)


FOREIGN = {
    "an ONNX model": number(1, 8) + packet(2, "pytorch") + packet(7, packet(1, packet(1, "x"))),
    "a TensorFlow graph": packet(1, packet(1, "node") + packet(2, "Const")) + packet(4, number(1, 27)),
    "a network of no layers": packet(1, "net"),
    "a network with a strange field": packet(1, "net") + packet(55, b"x") + one(blob(GOOD)),
    "a layer whose type is no word": packet(100, packet(1, "x") + packet(2, "a b c")),
    "a layer without a type": packet(100, packet(1, "x")),
    "zeros": bytes(100),
    "text": b"name: 'net'\nlayer { }",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_something_else_is_not_claimed(tmp_path: Path, kind: str) -> None:
    assert CaffeModel().sniff(cf.put(tmp_path, FOREIGN[kind])) == 0


def test_a_network_is_known_by_its_content(tmp_path: Path) -> None:
    assert CaffeModel().sniff(cf.put(tmp_path, cf.network(), "weights.bin")) == 10
    v1 = cf.v1_layer("c", "ReLU", ["a"], ["b"])
    assert CaffeModel().sniff(cf.put(tmp_path, packet(1, "old") + v1)) == 10


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_raise_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    """The format has no checksums: a changed value may read as another one; what it is may not change unnoticed."""
    form = data.draw(st.sampled_from([blob, cf.legacy, cf.unpacked]))
    path = cf.put(tmp_path, mutated(data, cf.network(form)))
    CaffeModel().sniff(path)
    try:
        bundle = CaffeModel().read(path)
        for tensor in bundle.values():
            assert tensor.numpy().shape == tensor.shape
            assert len(tensor.stored()) == tensor.nbytes
        CaffeModel().target(bundle)
    except WioError as error:
        assert str(error)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_definitions_raise_nothing_else(data: st.DataObject) -> None:
    text = list(cf.PROTOTXT)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.sampled_from([*"{}<>[]:;,\"'\\#-x9.", "", "\n", "e", " \ud7ff"]))
    try:
        parse("".join(text))
    except WireError as error:
        assert "line" in error.message


def test_memory_follows_the_file(tmp_path: Path) -> None:
    """A long run of unpacked values is counted, not listed."""
    array = np.arange(200_000, dtype=np.float32)
    flat = np.empty((array.size, 5), np.uint8)
    flat[:, 0] = 0x2D
    flat[:, 1:] = array.view(np.uint8).reshape(-1, 4)
    path = cf.put(tmp_path, one(flat.tobytes() + cf.shape((200_000,))))
    tensor: Any = CaffeModel().read(path)["x/blob0"]
    assert tensor.load.func.__self__.spans[0].count == array.size
    assert tensor.numpy().tobytes() == array.tobytes()
