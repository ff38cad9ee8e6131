"""Each way in which the header and the entries of a V2 checkpoint, strings and variants can be malformed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import crc32c
import pytest
import tf_tables
from tf_malformed import ADAPTER, ONE, raw_index, read, rejected, two
from tf_tables import Stored, varint

from wio.errors import DigestError, FormatError


def test_a_table_without_a_header(tmp_path: Path) -> None:
    rejected(raw_index(tmp_path, tf_tables.block([(b"a", b"")])), "empty key")


def test_a_header_that_is_cut_off(tmp_path: Path) -> None:
    rejected(raw_index(tmp_path, tf_tables.block([(b"", b"\x08")])), "header is malformed", "cut off")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("min_consumer", 2, "readers of version 2 or later"),
        ("bad_consumers", [1], "forbids readers of version 1"),
    ],
)
def test_versions_that_must_not_be_read(tmp_path: Path, field: str, value: Any, message: str) -> None:
    def change(protos: dict[bytes, Any]) -> None:
        version = protos[b""].version
        version.bad_consumers.extend(value) if field == "bad_consumers" else setattr(version, field, value)

    rejected(two(tmp_path, change), message)


def test_an_unknown_endianness(tmp_path: Path) -> None:
    contents = tf_tables.block([(b"", b"\x08\x01\x10\x02")])
    rejected(raw_index(tmp_path, contents), "endianness 2")


def test_a_negative_number_of_shards(tmp_path: Path) -> None:
    rejected(two(tmp_path, lambda protos: setattr(protos[b""], "num_shards", -1)), "-1 data files")


def test_an_entry_that_is_cut_off(tmp_path: Path) -> None:
    contents = tf_tables.block([(b"", b"\x08\x01"), (b"conv/kernel", b"\x08\x01\x12\x7f")])
    rejected(raw_index(tmp_path, contents), "entry of conv/kernel is malformed", "at byte")


def changed(tmp_path: Path, field: str, value: int) -> Path:
    return two(tmp_path, lambda protos: setattr(protos[b"b"], field, value))


@pytest.mark.parametrize("shard", [1, -1, 2**31 - 1])
def test_a_shard_that_is_out_of_range(tmp_path: Path, shard: int) -> None:
    rejected(changed(tmp_path, "shard_id", shard), f"b: its data file is number {shard} of 1")


@pytest.mark.parametrize("offset", [25, 2**40, 2**63 - 1])
def test_bytes_beyond_the_end_of_the_data_file(tmp_path: Path, offset: int) -> None:
    rejected(changed(tmp_path, "offset", offset), "b: 24 bytes at byte", "beyond the end of m.data-00000-of-00001")


def test_a_negative_offset(tmp_path: Path) -> None:
    rejected(changed(tmp_path, "offset", -24), "b: 24 bytes at byte -24")


@pytest.mark.parametrize("size", [23, 0, -24, 2**62])
def test_a_size_that_is_not_that_of_the_shape(tmp_path: Path, size: int) -> None:
    rejected(changed(tmp_path, "size", size), f"b: {size} bytes are stored where float32 of shape (2, 3) takes 24")


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([-1, -24], "has a negative axis"),
        ([2**32, 2**32], "overflows"),
        ([2**62, 0], "overflows"),
        ([0, 2**62, 2**62], "overflows"),
        ([1] * 255, "255 axes"),
        ([2**40], "takes 4398046511104"),
    ],
)
def test_shapes_that_cannot_be(tmp_path: Path, dims: list[int], message: str) -> None:
    def change(protos: dict[bytes, Any]) -> None:
        del protos[b"b"].shape.dim[:]
        for size in dims:
            protos[b"b"].shape.dim.add().size = size

    rejected(two(tmp_path, change), "b: ", message)


def test_no_memory_for_an_empty_shape_with_a_huge_axis(tmp_path: Path) -> None:
    tensors = {"x": Stored(1, (2**40, 0), b""), "y": Stored(1, (6,), ONE), "z": Stored(1, (0, 2**40), b"")}
    tf_tables.write_bundle(tmp_path / "m", tensors)
    bundle = read(tmp_path / "m")
    assert (bundle["x"].numpy().shape, bundle["z"].numpy().shape) == ((2**40, 0), (0, 2**40))


def test_an_unknown_rank(tmp_path: Path) -> None:
    rejected(
        two(tmp_path, lambda protos: setattr(protos[b"b"].shape, "unknown_rank", True)),
        "b: its shape has an unknown rank",
    )


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 (DT_INVALID)"), (20, "20 (DT_RESOURCE)"), (33, "33"), (101, "101")]
)
def test_dtypes_that_cannot_be_read(tmp_path: Path, number: int, shown: str) -> None:
    rejected(changed(tmp_path, "dtype", number), f"b: its dtype is number {shown}")


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    def change(protos: dict[bytes, Any]) -> None:
        protos[b"a"].size = 5
        protos[b"b"].dtype = 99

    error = rejected(two(tmp_path, change), "2 problems")
    assert [problem.tensor for problem in error.problems] == ["a", "b"]


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    tensor = tf_tables.entry_proto(Stored(1, (6,), ONE), 0)
    rejected(two(tmp_path, lambda protos: protos.update({b"\xff": tensor})), r"b'\xff' is no UTF-8")


def test_a_flipped_bit_in_a_tensor(tmp_path: Path) -> None:
    prefix = two(tmp_path)
    data = tmp_path / "m.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[30] ^= 16
    data.write_bytes(raw)
    bundle = read(prefix)
    assert bundle["a"].numpy().tobytes() == ONE
    with pytest.raises(DigestError, match=r"m\.data-00000-of-00001: b: bytes 24 to 48 do not match their CRC-32C"):
        bundle["b"].numpy()


def test_a_missing_data_file(tmp_path: Path) -> None:
    prefix = two(tmp_path)
    (tmp_path / "m.data-00000-of-00001").unlink()
    rejected(prefix, "m.data-00000-of-00001 is missing", "belong together")


def test_a_missing_index(tmp_path: Path) -> None:
    prefix = two(tmp_path)
    (tmp_path / "m.index").unlink()
    for path in (prefix, tmp_path / "m.data-00000-of-00001"):
        assert ADAPTER.sniff(path) == 10
        rejected(path, "m.index: no such file", "copy the .index file beside them")


def test_a_data_file_that_shrank_after_listing(tmp_path: Path) -> None:
    bundle = read(two(tmp_path))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(30))
    with pytest.raises(FormatError, match="b: bytes 24 to 48 are not all there any more"):
        bundle["b"].numpy()


def test_a_data_file_that_is_a_directory(tmp_path: Path) -> None:
    prefix = two(tmp_path)
    (tmp_path / "m.data-00000-of-00001").unlink()
    (tmp_path / "m.data-00000-of-00001").mkdir()
    rejected(prefix, "is missing")


@pytest.mark.parametrize(
    ("raw", "count", "message"),
    [
        (b"", 1, "cannot hold shape"),
        (b"\1\1", 3, "cannot hold shape"),
        (b"\x80" * 30, 2, "lengths of its 2 strings are cut off"),
        (b"\xff" * 9 + b"\x02" + bytes(9), 1, "exceeds 64 bits"),
        (b"\x05" + b"\0\0\0\0" + b"hello", 1, "lengths of its strings do not match"),
    ],
)
def test_malformed_strings(tmp_path: Path, raw: bytes, count: int, message: str) -> None:
    tf_tables.write_bundle(tmp_path / "m", {"s": Stored(7, (count,), raw)})
    rejected(tmp_path / "m", "s: ", message)


@pytest.mark.parametrize("length", [4, 6, 2**63, 2**64 - 1])
def test_strings_that_take_more_or_less_than_there_is(tmp_path: Path, length: int) -> None:
    summed = length.to_bytes(4 if length < 2**32 else 8, "little")
    raw = varint(length) + tf_tables.mask(crc32c.crc32c(summed)).to_bytes(4, "little") + b"hello"
    tf_tables.write_bundle(tmp_path / "m", {"s": Stored(7, (1,), raw)})
    rejected(tmp_path / "m", "s: ", f"take {length} bytes, 5 are stored")


@pytest.mark.parametrize("raw", [b"\x05hello", b"\xff" * 12, b"\x01x\0\0\0\0", b"\0" + b"\1" * 4])
def test_malformed_variants(tmp_path: Path, raw: bytes) -> None:
    tf_tables.write_bundle(tmp_path / "m", {"v": Stored(21, (1,), raw)})
    rejected(tmp_path / "m", "v: ")


def test_a_variant_of_a_big_endian_machine(tmp_path: Path) -> None:
    tf_tables.write_bundle(tmp_path / "m", {"v": Stored(21, (1,), bytes(9))}, big_endian=True)
    assert list(read(tmp_path / "m")) == ["v"]
    rejected(tmp_path / "m", "v: ", "big-endian")
