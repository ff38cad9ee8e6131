"""Checkpoints that TensorFlow's own writer does not make here: big-endian, compressed, padded, oddly encoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tf_tables
from hypothesis import given
from hypothesis import strategies as st
from tf_tables import Stored

from wio.adapters._protobuf import WireError, fields, packed_varints
from wio.adapters._tf_ordered_code import name_in_key, slice_key
from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.bundle import Bundle
from wio.errors import FormatError


def read(path: Path) -> Bundle:
    return TFCheckpoint().read(path)


NUMBERS = np.array([[1.5, -2.0, 3.25], [0.0, -0.0, np.inf]])


@pytest.mark.parametrize(
    ("number", "values"),
    [
        (1, NUMBERS.astype("f4")),
        (2, NUMBERS),
        (19, NUMBERS.astype("f2")),
        (14, NUMBERS.astype(ml_dtypes.bfloat16)),
        (3, np.array([1, -2, 2**31 - 1], "i4")),
        (9, np.array([1, -2, 2**63 - 1], "i8")),
        (17, np.array([1, 65535], "u2")),
        (8, (NUMBERS + 1j).astype("c8")),
        (18, NUMBERS + 2j),
        (10, np.array([True, False])),
        (6, np.array([-1, 5], "i1")),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else str(value.dtype),
)
def test_big_endian_numbers(tmp_path: Path, number: int, values: Any) -> None:
    """Bytes are swapped element by element, a complex number half by half; the CRC is of the bytes as stored."""
    unit = values.dtype.itemsize // (2 if values.dtype.kind == "c" else 1)
    raw = np.frombuffer(values.tobytes(), np.uint8).reshape(-1, unit)[:, ::-1].tobytes()
    tf_tables.write_bundle(tmp_path / "m", {"x": Stored(number, values.shape, raw)}, big_endian=True)
    bundle = read(tmp_path / "m")
    assert bundle.metadata["tf_checkpoint"]["endianness"] == "big"
    array = bundle["x"].numpy()
    assert (array.dtype, array.shape, array.tobytes()) == (values.dtype, values.shape, values.tobytes())


def test_big_endian_strings(tmp_path: Path) -> None:
    values = [b"", b"abc", b"x" * 300]
    raw, crc = tf_tables.big_endian_strings(values)
    tf_tables.write_bundle(tmp_path / "m", {"x": Stored(7, (3,), raw, crc)}, big_endian=True)
    assert read(tmp_path / "m")["x"].numpy().tolist() == values


def test_tensorflow_agrees_on_big_endian(tmp_path: Path) -> None:
    import tensorflow as tf

    raw, crc = tf_tables.big_endian_strings([b"one", b"two"])
    values = np.arange(6, dtype="f4").reshape(2, 3)
    tensors = {"s": Stored(7, (2,), raw, crc), "x": Stored(1, (2, 3), values.astype(">f4").tobytes())}
    tf_tables.write_bundle(tmp_path / "m", tensors, big_endian=True)
    judge = tf.train.load_checkpoint(str(tmp_path / "m"))
    bundle = read(tmp_path / "m")
    assert bundle["s"].numpy().tolist() == judge.get_tensor("s").tolist() == [b"one", b"two"]
    assert bundle["x"].numpy().tobytes() == judge.get_tensor("x").tobytes() == values.tobytes()


@pytest.mark.parametrize("kind", [0, 1], ids=["plain", "snappy"])
@pytest.mark.parametrize("per_block", [1, 7, 1000])
@pytest.mark.parametrize("interval", [1, 16])
def test_tables_of_every_make(tmp_path: Path, kind: int, per_block: int, interval: int) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(1)
    values = {f"scope/{'deep/' * (i % 3)}v{i:03d}": rng.standard_normal((i % 4, 3)).astype("f4") for i in range(50)}
    tensors = {name: Stored(1, value.shape, value.tobytes()) for name, value in values.items()}
    tf_tables.write_bundle(tmp_path / "m", tensors, kind=kind, per_block=per_block, interval=interval, gap=5)
    bundle = read(tmp_path / "m")
    judge = tf.train.load_checkpoint(str(tmp_path / "m"))
    assert set(bundle) == set(values) == set(judge.get_variable_to_shape_map())
    for name, value in values.items():
        assert bundle[name].numpy().tobytes() == judge.get_tensor(name).tobytes() == value.tobytes()


def saved_meta(*tensors: tuple[str, int, tuple[int, ...]]) -> Any:
    from tensorflow.core.util import saved_tensor_slice_pb2

    proto = saved_tensor_slice_pb2.SavedTensorSlices()
    proto.meta.versions.producer = 1
    for name, dtype, shape in tensors:
        one = proto.meta.tensor.add(name=name, type=dtype)
        one.shape.SetInParent()
        for size in shape:
            one.shape.dim.add().size = size
        extents = one.slice.add()
        for _ in shape:
            extents.extent.add()
    return proto


def write_v1(path: Path, name: str, dtype: int, shape: tuple[int, ...], data: bytes, **options: Any) -> None:
    """A V1 file with one tensor whose TensorProto is ``data``."""
    from tensorflow.core.util import saved_tensor_slice_pb2

    value = saved_tensor_slice_pb2.SavedSlice(name=name)
    value.slice.SetInParent()
    for _ in shape:
        value.slice.extent.add()
    inner = value.SerializeToString() + b"\x1a" + tf_tables.varint(len(data)) + data
    stored = b"\x12" + tf_tables.varint(len(inner)) + inner
    key = slice_key(name.encode(), [(0, -1)] * len(shape))
    entries = [(b"", saved_meta((name, dtype, shape)).SerializeToString()), (key, stored)]
    path.write_bytes(tf_tables.table(entries, **options))


def tensor_proto(**values: Any) -> bytes:
    from tensorflow.core.framework import tensor_pb2

    return bytes(tensor_pb2.TensorProto(**values).SerializeToString())


@pytest.mark.parametrize("kind", [0, 1], ids=["plain", "snappy"])
@pytest.mark.parametrize(
    ("number", "data", "values"),
    [
        (1, {"float_val": [1, 2.5]}, np.array([1, 2.5], "f4")),
        (2, {"double_val": [1, 2.5]}, np.array([1, 2.5], "f8")),
        (3, {"int_val": [-1, 70000]}, np.array([-1, 70000], "i4")),
        (4, {"int_val": [0, 255]}, np.array([0, 255], "u1")),
        (6, {"int_val": [-128, 127]}, np.array([-128, 127], "i1")),
        (8, {"scomplex_val": [1, 2, 3, 4]}, np.array([1 + 2j, 3 + 4j], "c8")),
        (18, {"dcomplex_val": [1, 2, 3, 4]}, np.array([1 + 2j, 3 + 4j], "c16")),
        (9, {"int64_val": [-(2**63), 2**63 - 1]}, np.array([-(2**63), 2**63 - 1], "i8")),
        (10, {"bool_val": [True, False]}, np.array([True, False])),
        (13, {"int_val": [-5, 5]}, np.array([-5, 5], "i4")),
        (14, {"half_val": [0x3F80, 0xC000]}, np.array([1, -2], ml_dtypes.bfloat16)),
        (19, {"half_val": [0x3C00, 0xFC00]}, np.array([1, -np.inf], "f2")),
        (22, {"uint32_val": [0, 2**32 - 1]}, np.array([0, 2**32 - 1], "u4")),
        (23, {"uint64_val": [1, 2**64 - 1]}, np.array([1, 2**64 - 1], "u8")),
        (25, {"float8_val": b"\x38\x40"}, np.array([1, 2], ml_dtypes.float8_e4m3fn)),
        (29, {"int_val": [-8, 7]}, np.array([-8, 7], ml_dtypes.int4)),
        (1, {"tensor_content": np.array([1, 2.5], "<f4").tobytes()}, np.array([1, 2.5], "f4")),
        (17, {"tensor_content": b"\x01\x00\xff\xff", "dtype": 17}, np.array([1, 65535], "u2")),
    ],
)
def test_v1_fields(tmp_path: Path, kind: int, number: int, data: dict[str, Any], values: Any) -> None:
    """saved_tensor_slice_util.h: which field of a TensorProto keeps which dtype."""
    write_v1(tmp_path / "m", "scope/x", number, (2,), tensor_proto(**data), kind=kind)
    array = read(tmp_path / "m")["scope/x"].numpy()
    assert (array.dtype, array.tobytes()) == (values.dtype, values.tobytes())


@pytest.mark.parametrize(
    ("number", "data", "values"),
    [
        (1, b"\x2d\0\0\x80\x3f" + b"\x2d\0\0\0\x40" + b"\x2a\x04\0\0\x40\x40", np.array([1, 2, 3], "f4")),
        (3, b"\x38\x05" + b"\x3a\x01\x06" + b"\x38" + b"\xff" * 9 + b"\x01", np.array([5, 6, -1], "i4")),
        (22, b"\x80\x01\x05" * 3, np.array([5, 5, 5], "u4")),
        (8, (b"\x4d\0\0\x80\x3f" + b"\x4d\0\0\0\x40") * 3, np.array([1 + 2j] * 3, "c8")),
    ],
)
def test_v1_values_that_are_not_packed(tmp_path: Path, number: int, data: bytes, values: Any) -> None:
    """A parser must take repeated numbers packed, one by one, and mixed (protobuf encoding guide)."""
    skipped = b"\xf2\x3f\x02hi" + b"\xf3\x3f\x08\x01\xf4\x3f"
    write_v1(tmp_path / "m", "x", number, (3,), skipped + data + skipped)
    assert read(tmp_path / "m")["x"].numpy().tobytes() == values.tobytes()


def test_v1_scalars_and_names_of_any_length(tmp_path: Path) -> None:
    for name in ("x", "n" * 200, "ż\0ółw"):
        write_v1(tmp_path / "m", name, 1, (), tensor_proto(float_val=[4]))
        assert read(tmp_path / "m")[name].numpy() == 4


@given(st.lists(st.integers(0, 2**64 - 1)), st.integers(1, 12))
def test_packed_varints_of_any_length(values: list[int], repeat: int) -> None:
    raw = np.frombuffer(b"".join(map(tf_tables.varint, values * repeat)), np.uint8)
    assert packed_varints(raw, np.dtype(np.uint64), lambda part: part).tolist() == values * repeat


def test_packed_varints_larger_than_a_window() -> None:
    values = np.random.default_rng(0).integers(0, 2**63, 300_000, dtype=np.uint64) >> np.uint64(7)
    values[::3] >>= np.uint64(50)
    raw = np.frombuffer(b"".join(map(tf_tables.varint, values.tolist())), np.uint8)
    assert raw.size > 1 << 20
    assert (packed_varints(raw, np.dtype(np.uint64), lambda part: part) == values).all()


@pytest.mark.parametrize("raw", [b"\x80", b"\x01\xff", b"\x80" * 10 + b"\x01", b"\xff" * 9 + b"\x02"])
def test_packed_varints_that_are_none(raw: bytes) -> None:
    with pytest.raises(WireError):
        packed_varints(np.frombuffer(raw, np.uint8), np.dtype(np.uint64), lambda part: part)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error(raw: bytes) -> None:
    try:
        found = list(fields(raw, 0, len(raw)))
    except FormatError:
        return
    assert all(stop <= len(raw) for _, _, stop in found)


@given(st.binary(max_size=60))
def test_the_wire_reader_agrees_with_protobuf(raw: bytes) -> None:
    """What protobuf accepts as an entry, wio reads the same; wio refuses more (varints beyond 64 bits, say)."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import tensor_bundle_pb2

    from wio.adapters._tf_messages import entry

    try:
        ours = entry(raw, 0, len(raw))
    except FormatError:
        return
    try:
        theirs = tensor_bundle_pb2.BundleEntryProto.FromString(raw)
    except DecodeError:
        # Slices are parsed here, shapes are not before they are needed; protobuf parses both at once.
        assert ours.shape or ours.slices
        return
    assert (ours.dtype, ours.shard, ours.offset, ours.size, ours.crc) == (
        theirs.dtype,
        theirs.shard_id,
        theirs.offset,
        theirs.size,
        theirs.crc32c,
    )


@pytest.mark.parametrize(
    ("extents", "key"),
    [
        # tensor_slice.h: a trivial extent is (0, -1). Signed numbers: ordered_code.cc, examples 1 and 2.
        ([(0, -1)], "00 61 0001 0101 80 7f"),
        ([], "00 61 0001 00"),
        ([(63, 64), (0x424242, -0x800)], "00 61 0001 0102 bf c040 f0424242 3800"),
    ],
)
def test_keys_of_slices(extents: list[tuple[int, int]], key: str) -> None:
    assert slice_key(b"a", extents) == bytes.fromhex(key)
    assert name_in_key(slice_key(b"a\0b", extents)) == b"a\0b"
