"""ONNX files that are broken or lie: each is a FormatError that names the file, and nothing else ever."""

from __future__ import annotations

import struct
from pathlib import Path

import onnx_network
import pytest
from hostile import mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx_judge import ADAPTER, field, model, read, saved, values, varint, with_tensor

from wio.errors import FormatError, WioError

FLOATS = b"\x10\x01"
RAW = field(9, 2, bytes(24))
NODE = field(1, 2, field(2, 2, b"k") + field(4, 2, b"Constant"))


def dims(*extents: int) -> bytes:
    return b"".join(field(1, 0, varint(extent & (1 << 64) - 1)) for extent in extents)


MALFORMED = {
    "shorter raw_data": (dims(7) + FLOATS + RAW, "takes 28 bytes, raw_data has 24"),
    "longer raw_data": (dims(5) + FLOATS + RAW, "takes 20 bytes, raw_data has 24"),
    "no values": (dims(6) + FLOATS, "must stand in field 4 or raw_data, the tensor has none"),
    "values of another type": (dims(6) + FLOATS + field(7, 2, b"\0" * 6), "the tensor has 7"),
    "values twice": (dims(6) + FLOATS + RAW + field(4, 2, bytes(24)), "stored in 2 fields at once"),
    "raw_data that is a number": (dims(6) + FLOATS + field(9, 0, b"\x05"), "raw_data has none"),
    "a negative axis": (dims(-6) + FLOATS + RAW, "has a negative axis"),
    "an enormous shape": (dims(1 << 62, 1 << 62) + FLOATS + RAW, "overflows every integer"),
    "an enormous shape of varints": (dims(1 << 40) + b"\x10\x06" + field(5, 2, b"\0"), "its field has room for 1"),
    "too many axes": (dims(*[1] * 65) + FLOATS + RAW, "more than 64 axes"),
    "a type that nobody knows": (dims(6) + b"\x10\x63" + RAW, "data type is number 99"),
    "four-bit floats": (dims(48) + b"\x10\x17" + RAW, "data type is number 23"),
    "no type": (dims(6) + RAW, "data type is number 0"),
    "a segment": (dims(6) + FLOATS + RAW + field(3, 2, b""), "is a segment of one"),
    "raw strings": (dims(6) + b"\x10\x08" + RAW, "strings are stored in raw_data"),
    "a place that does not exist": (dims(6) + FLOATS + RAW + field(14, 0, b"\x02"), "data location 2"),
    "inside and outside": (dims(6) + FLOATS + RAW + field(14, 0, b"\x01"), "and stand in the model as well"),
    "strings outside": (dims(6) + b"\x10\x08" + field(14, 0, b"\x01"), "strings cannot be external"),
    "dims of the wrong kind": (field(1, 5, bytes(4)) + FLOATS + RAW, "is stored as no message"),
    "a name that is no text": (field(8, 2, b"\xff") + dims(6) + FLOATS + RAW, "is not UTF-8"),
    "a role that does not exist": (
        dims(6) + FLOATS + RAW + field(16, 2, field(1, 2, b"wio.role") + field(2, 2, b"conv.kernle")),
        "what wio left in the model is not true",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_tensors(tmp_path: Path, case: str) -> None:
    content, message = MALFORMED[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(with_tensor(tmp_path, content))
    assert "m.onnx" in str(caught.value)


MALFORMED_VALUES = {
    "a truth value of 2, raw": (dims(1) + b"\x10\x09" + field(9, 2, b"\x02"), "neither 0 nor 1"),
    "a truth value of 2, typed": (dims(1) + b"\x10\x09" + field(5, 2, b"\x02"), "neither 0 nor 1"),
    "a byte of 300": (dims(1) + b"\x10\x02" + field(5, 2, b"\xac\x02"), "does not fit into uint8"),
    "a half of 17 bits": (dims(1) + b"\x10\x0a" + field(5, 2, b"\x80\x80\x04"), "does not fit into float16"),
    "33 bits": (dims(1) + b"\x10\x0c" + field(11, 2, b"\x80\x80\x80\x80\x10"), "does not fit into uint32"),
    "fewer numbers than the shape": (dims(2) + b"\x10\x06" + field(5, 2, b"\x80\x01"), "cannot be int32 of shape"),
    "a cut varint": (dims(1) + b"\x10\x06" + field(5, 2, b"\x80"), "cut off"),
    "a varint of 11 bytes": (dims(1) + b"\x10\x07" + field(7, 2, b"\x80" * 10 + b"\x01"), "longer than 10"),
    "doubles as floats": (dims(1) + b"\x10\x01" + field(4, 1, bytes(8)), "another width"),
    "a float too many": (dims(1) + b"\x10\x01" + field(4, 2, bytes(8)), "8 bytes cannot be float32"),
    "floats as integers": (dims(1) + b"\x10\x06" + field(5, 5, bytes(4)), "no varints"),
    "a string too many": (dims(1) + b"\x10\x08" + field(6, 2, b"a") * 2, "2 strings are stored"),
}


@pytest.mark.parametrize("case", MALFORMED_VALUES)
def test_malformed_values(tmp_path: Path, case: str) -> None:
    content, message = MALFORMED_VALUES[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(with_tensor(tmp_path, content))["w"].numpy()
    assert "m.onnx: tensor 'w'" in str(caught.value)


GOOD = dims(6) + FLOATS + RAW
SPARSE = field(15, 2, b"")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (field(5, 2, field(8, 2, b"w") + GOOD), b"", "two tensors are named 'w'"),
        (field(5, 2, GOOD), b"", "has no name"),
        (SPARSE, b"", "has 1 sparse initializers, which wio does not read"),
        (b"", field(1, 2, field(2, 2, b"k") + field(4, 2, b"Constant") + field(5, 2, field(22, 2, b""))), "is sparse"),
        (b"", field(1, 2, field(5, 2, field(1, 2, b"a")) * 2), "two attributes 'a'"),
        (b"", field(1, 2, field(5, 2, field(5, 2, b"") * 2)), "has two tensors"),
        (b"", field(1, 2, field(5, 2, field(6, 2, b"") * 2)), "has two graphs"),
        (b"", field(1, 0, b"\x01"), "is stored as no message"),
        (b"", field(2, 0, b"\x01"), "is stored as no string"),
        (b"", b"\x0a\x7f", "needs 127 bytes"),
        (b"", b"\x0f", "wire type 7"),
        (b"", b"\x00", "field number 0"),
    ],
)
def test_malformed_graphs(tmp_path: Path, before: bytes, after: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(with_tensor(tmp_path, GOOD, before, after))


def test_no_graph_or_two(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x0a")
    with pytest.raises(FormatError, match="has no graph"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="is no ONNX model"):
        read(path)
    path.write_bytes(b"\x08\x0a" + field(7, 2, b"") * 2)
    with pytest.raises(FormatError, match="a second graph"):
        read(path)


def test_graphs_that_nest_too_deep(tmp_path: Path) -> None:
    graph = b""
    for _ in range(40):
        graph = field(1, 2, field(5, 2, field(6, 2, graph)))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x0a" + field(7, 2, graph))
    with pytest.raises(FormatError, match="nest deeper than 32"):
        read(path)


def test_attributes_that_make_no_sense_declare_nothing(tmp_path: Path) -> None:
    """Strides of zero, negative dilations, pads too many: what follows from them is not known, and nothing breaks."""
    for attributes in (
        {"strides": [0, 0]},
        {"strides": [-1, 1]},
        {"dilations": [-5, 0]},
        {"pads": [1]},
        {"auto_pad": "SIDEWAYS"},
        {"kernel_shape": [9, 9]},
    ):
        nodes = [
            helper.make_node("MaxPool", ["x"], ["h"], **{"kernel_shape": [2, 2], **attributes}),
            helper.make_node("Flatten", ["h"], ["f"]),
            helper.make_node("Gemm", ["f", "w"], ["y"]),
        ]
        path = saved(model(nodes, {"w": values(8, 2)}, {"x": [1, 2, 3, 3]}), tmp_path)
        assert str(read(path)["w"].layout) in ("(CHW)O C=2", "(CHW)O C=2 W=2")
    infinite = helper.make_node("BatchNormalization", ["x", "g", "g", "g", "g"], ["y"], epsilon=float("nan"))
    assert "epsilon" not in read(saved(model([infinite], {"g": values(3)}), tmp_path)).metadata


def test_a_constant_of_no_number_is_refused(tmp_path: Path) -> None:
    attribute = field(1, 2, b"value_float") + field(2, 0, b"\x01")
    constant = field(1, 2, field(2, 2, b"k") + field(4, 2, b"Constant") + field(5, 2, attribute))
    with pytest.raises(FormatError, match="is stored as no float"):
        read(with_tensor(tmp_path, GOOD, after=constant))


def small() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(values(2), "k"))], "b", [], []
    )
    made = onnx_network.network(3)
    made.graph.node.append(helper.make_node("If", ["q"], ["z"], then_branch=body, else_branch=body))
    made.graph.node.append(helper.make_node("Constant", [], ["fs"], value_floats=[1.0, 2.0]))
    typed = helper.make_tensor("typed", 10, [3], [1.0, 2.0, 3.0])
    made.graph.initializer.append(typed)
    made.graph.initializer.append(helper.make_tensor("four", 22, [3], [1, 2, -3]))
    made.graph.initializer.append(helper.make_tensor("text", 8, [2], [b"ab", b"c"]))
    for each in made.graph.initializer:
        if len(each.raw_data) > 64:
            each.raw_data, each.dims[:] = each.raw_data[:0], [0, *each.dims[1:]]
    return bytes(made.SerializeToString())


SMALL = small()


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(mutated(data, SMALL, 4))
    assert ADAPTER.sniff(path) in (0, 10)
    try:
        bundle = read(path)
    except WioError:
        return
    for tensor in bundle.values():
        try:
            assert tensor.numpy().shape == tensor.shape
        except FormatError:
            continue
    try:
        ADAPTER.target(bundle)
        ADAPTER.write(tmp_path / "o.onnx", bundle, template=str(path))
    except WioError:
        return
    again = read(tmp_path / "o.onnx")
    assert {t.name: bytes(t.stored()) for t in again.values()} == {t.name: bytes(t.stored()) for t in bundle.values()}


def test_a_float_is_kept_whatever_it_is(tmp_path: Path) -> None:
    """A signalling NaN in value_floats is the same NaN afterwards."""
    odd = struct.pack("<3I", 0x7F800001, 0xFFC12345, 0x80000000)
    attribute = field(1, 2, b"value_floats") + field(7, 2, odd)
    constant = field(1, 2, field(2, 2, b"k") + field(4, 2, b"Constant") + field(5, 2, attribute))
    path = with_tensor(tmp_path, GOOD, after=constant)
    assert bytes(read(path)["k"].stored()) == odd
    ADAPTER.write(tmp_path / "o.onnx", read(path), template=str(path))
    assert bytes(read(tmp_path / "o.onnx")["k"].stored()) == odd
