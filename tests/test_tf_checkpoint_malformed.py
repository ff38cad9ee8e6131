"""One named test for each way in which a checkpoint can be malformed: always a FormatError that says where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tf_tables import Stored, varint

from wio.adapters import _tf_slices, _tf_table
from wio.adapters._tf_damage import one_changed_byte
from wio.adapters._tf_ordered_code import slice_key
from wio.adapters._tf_wire import WireError, fields
from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.bundle import Bundle
from wio.errors import DigestError, FormatError

TF1 = Path(__file__).parent / "data" / "real_frameworks" / "tf1"
ADAPTER = TFCheckpoint()
ONE = np.arange(6, dtype="f4").tobytes()


def read(path: Path) -> Bundle:
    return ADAPTER.read(path)


def two(tmp_path: Path, change: Callable[[dict[bytes, Any]], None] | None = None, **options: Any) -> Path:
    """A small bundle of two tensors whose entries a test may change before the index is written."""
    prefix = tmp_path / "m"
    protos = tf_tables.write_bundle(prefix, {"a": Stored(1, (6,), ONE), "b": Stored(1, (2, 3), ONE)}, **options)
    if change:
        change(protos)
        tf_tables.write_index(prefix, protos)
    return prefix


def raw_index(tmp_path: Path, contents: bytes, **options: Any) -> Path:
    """A bundle whose only block holds these contents."""
    path = tmp_path / "m.index"
    stored = tf_tables.sealed(contents, **options)
    index = tf_tables.sealed(tf_tables.block([(b"z", varint(0) + varint(len(stored) - 5))]))
    path.write_bytes(stored + index + tf_tables.footer((0, 0), (len(stored), len(index) - 5)))
    return path


def rejected(path: Path, *words: str) -> FormatError:
    with pytest.raises(FormatError) as caught:
        for tensor in read(path).values():
            tensor.numpy()
    text = str(caught.value)
    assert all(word in text for word in words), text
    return caught.value


# The table.


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(b"")
    rejected(tmp_path / "m.index", "m.index", "0 bytes cannot be a checkpoint table")


def test_a_bad_magic_number(tmp_path: Path) -> None:
    index = two(tmp_path).with_name("m.index")
    index.write_bytes(index.read_bytes()[:-1] + b"\0")
    rejected(tmp_path / "m", "magic number", "m.index")
    assert ADAPTER.sniff(tmp_path / "m") == 10, "its data files say what it is"


def test_a_cut_off_file(tmp_path: Path) -> None:
    index = two(tmp_path).with_name("m.index")
    whole = index.read_bytes()
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        rejected(tmp_path / "m", "m.index")


def test_a_footer_that_is_all_varint(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(bytes(100) + b"\xff" * 40 + tf_tables.MAGIC)
    rejected(tmp_path / "m.index", "footer", "longer than 10 bytes")


@pytest.mark.parametrize("handle", [(2**63, 5), (0, 2**63), (100, 0), (2**64 - 1, 2**64 - 1)])
def test_an_index_block_beyond_the_end(tmp_path: Path, handle: tuple[int, int]) -> None:
    (tmp_path / "m.index").write_bytes(bytes(100) + tf_tables.footer((0, 0), handle))
    rejected(tmp_path / "m.index", "reach beyond the end of the file")


def test_a_data_block_beyond_the_end(tmp_path: Path) -> None:
    index = tf_tables.sealed(tf_tables.block([(b"z", varint(0) + varint(10**6))]))
    (tmp_path / "m.index").write_bytes(index + tf_tables.footer((0, 0), (0, len(index) - 5)))
    rejected(tmp_path / "m.index", "reach beyond the end of the file")


def test_a_block_handle_that_is_cut_off(tmp_path: Path) -> None:
    index = tf_tables.sealed(tf_tables.block([(b"z", b"\x80")]))
    (tmp_path / "m.index").write_bytes(index + tf_tables.footer((0, 0), (0, len(index) - 5)))
    rejected(tmp_path / "m.index", "block handle is malformed")


def test_blocks_that_overlap(tmp_path: Path) -> None:
    """A thousand handles to one block would make a small file a large one."""
    stored = tf_tables.sealed(tf_tables.block([(b"", b"")]))
    handle = varint(0) + varint(len(stored) - 5)
    index = tf_tables.sealed(tf_tables.block([(b"a", handle), (b"b", handle)]))
    footer = tf_tables.footer((0, 0), (len(stored), len(index) - 5))
    (tmp_path / "m.index").write_bytes(stored + index + footer)
    rejected(tmp_path / "m.index", "begins before the one before it ends")


def test_a_flipped_bit_in_the_index_block(tmp_path: Path) -> None:
    index = two(tmp_path).with_name("m.index")
    raw = bytearray(index.read_bytes())
    raw[-60] ^= 1
    index.write_bytes(raw)
    assert isinstance(rejected(tmp_path / "m", "index block", "CRC-32C"), DigestError)


def test_a_flipped_bit_in_a_data_block(tmp_path: Path) -> None:
    index = two(tmp_path).with_name("m.index")
    raw = bytearray(index.read_bytes())
    raw[5] ^= 1
    index.write_bytes(raw)
    assert isinstance(rejected(tmp_path / "m", "block at bytes 0 to", "CRC-32C"), DigestError)


@pytest.mark.parametrize("kind", [2, 4, 255])
def test_a_compression_that_nobody_writes(tmp_path: Path, kind: int) -> None:
    rejected(raw_index(tmp_path, tf_tables.block([(b"", b"")]), kind=kind), f"compressed with type {kind}")


def test_snappy_that_declares_too_much(tmp_path: Path) -> None:
    stored = varint(2**31 - 1) + b"\0\0"
    with_trailer = tf_tables.sealed(stored)[:-5]
    import crc32c

    sealed = with_trailer + b"\1" + tf_tables.mask(crc32c.crc32c(with_trailer + b"\1")).to_bytes(4, "little")
    index = tf_tables.sealed(tf_tables.block([(b"z", varint(0) + varint(len(sealed) - 5))]))
    footer = tf_tables.footer((0, 0), (len(sealed), len(index) - 5))
    (tmp_path / "m.index").write_bytes(sealed + index + footer)
    rejected(tmp_path / "m.index", "of Snappy cannot hold the 2147483647")


@pytest.mark.parametrize("body", [b"", b"\x05\xff\xff", b"\x80", b"\x04\x0chi"])
def test_snappy_that_is_none(tmp_path: Path, body: bytes) -> None:
    import crc32c

    sealed = body + b"\1" + tf_tables.mask(crc32c.crc32c(body + b"\1")).to_bytes(4, "little")
    index = tf_tables.sealed(tf_tables.block([(b"z", varint(0) + varint(len(body)))]))
    footer = tf_tables.footer((0, 0), (len(sealed), len(index) - 5))
    (tmp_path / "m.index").write_bytes(sealed + index + footer)
    rejected(tmp_path / "m.index", "Snappy")


@pytest.mark.parametrize("contents", [b"", b"\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\0\2\0\0\0"])
def test_restarts_that_do_not_fit(tmp_path: Path, contents: bytes) -> None:
    rejected(raw_index(tmp_path, contents), "restarts do not fit")


@pytest.mark.parametrize("restarts", [[1], [0, 3], [0, 10**6]])
def test_restarts_that_point_into_an_entry(tmp_path: Path, restarts: list[int]) -> None:
    contents = tf_tables.block([(b"", b"x"), (b"ab", b"y"), (b"abc", b"z")], restarts=restarts)
    rejected(raw_index(tmp_path, contents), "restart")


@pytest.mark.parametrize("entry", [b"\x01\x00\x00", b"\x00\x7f\x00", b"\x00\x00\x7f", b"\x00" + b"\xff" * 10, b"\0\0"])
def test_entries_that_run_out_of_the_block(tmp_path: Path, entry: bytes) -> None:
    rejected(raw_index(tmp_path, entry + b"\0\0\0\0\1\0\0\0"), "entry 0")


def test_duplicate_keys(tmp_path: Path) -> None:
    rejected(raw_index(tmp_path, tf_tables.block([(b"a", b""), (b"a", b"")])), "b'a' stands there twice")


def test_keys_out_of_order(tmp_path: Path) -> None:
    rejected(raw_index(tmp_path, tf_tables.block([(b"b", b""), (b"a", b"")])), "b'a' stands there out of order")


def test_keys_on_the_wrong_side_of_the_index(tmp_path: Path) -> None:
    rejected(raw_index(tmp_path, tf_tables.block([(b"zz", b"")])), "that the index puts after it")


def test_duplicate_keys_in_two_blocks(tmp_path: Path) -> None:
    entries = [(b"", b""), (b"a", b""), (b"a", b""), (b"b", b"")]
    (tmp_path / "m.index").write_bytes(tf_tables.table(entries, per_block=2))
    rejected(tmp_path / "m.index", "m.index")


def test_keys_that_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry of four bytes repeats a key of a thousand: memory would grow with the square of the file."""
    monkeypatch.setattr(_tf_table, "KEYS_ALWAYS_ALLOWED", 0)
    keys = [b"k" * 1000 + bytes((i // 256, i % 256)) for i in range(2000)]
    rejected(raw_index(tmp_path, tf_tables.block([(key, b"") for key in keys], interval=10**9)), "written out")


# The header and the entries.


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
    tf_tables.write_bundle(tmp_path / "m", {"x": Stored(1, (2**40, 0), b"")})
    assert read(tmp_path / "m")["x"].numpy().shape == (2**40, 0)


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


# Strings and variants.


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
    import crc32c

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


# Slices.


def sliced(
    tmp_path: Path, shape: tuple[int, ...], slices: list[list[tuple[int, int]]], drop: int | None = None
) -> Path:
    """A bundle with one partitioned tensor, or what a malformed one looks like."""
    import math

    parts = {}
    for extents in slices:
        extent = tuple(
            size if length == -1 else max(length, 0) for (_, length), size in zip(extents, shape, strict=False)
        )
        parts[slice_key(b"w", extents)] = Stored(1, extent, bytes(4 * math.prod(extent)))
    prefix = tmp_path / "m"
    protos: dict[bytes, Any] = {b"": tf_tables.header_proto()}
    data = bytearray()
    for key, stored in parts.items():
        protos[key] = tf_tables.entry_proto(stored, len(data))
        data += stored.raw
    whole = tf_tables.entry_proto(Stored(1, shape, b""), 0)
    for extents in slices:
        proto = whole.slices.add()
        for start, length in extents:
            extent = proto.extent.add()
            if (start, length) != (0, -1):
                extent.start, extent.length = start, length
    protos[b"w"] = whole
    if drop is not None:
        del protos[list(parts)[drop]]
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    tf_tables.write_index(prefix, protos)
    return prefix


def test_slices_that_fit(tmp_path: Path) -> None:
    prefix = sliced(tmp_path, (4, 3), [[(0, 1), (0, -1)], [(1, 3), (0, -1)]])
    assert read(prefix)["w"].numpy().shape == (4, 3)


def test_a_hole_between_slices(tmp_path: Path) -> None:
    rejected(sliced(tmp_path, (4, 3), [[(0, 1), (0, -1)], [(2, 2), (0, -1)]]), "w: ", "hold 9 of the 12 elements")


def test_slices_that_overlap(tmp_path: Path) -> None:
    rejected(sliced(tmp_path, (4, 3), [[(0, 2), (0, -1)], [(1, 3), (0, -1)]]), "w: slices 0,2:- and 1,3:- overlap")


def test_a_hole_and_an_overlap_of_the_same_size(tmp_path: Path) -> None:
    rejected(sliced(tmp_path, (4,), [[(0, 2)], [(1, 2)]]), "w: slices 0,2 and 1,2 overlap")


@pytest.mark.parametrize("extent", [(3, 2), (-1, 2), (0, 0), (1, -1), (0, 2**63 - 1), (2**63 - 1, 2**63 - 1)])
def test_a_slice_out_of_range(tmp_path: Path, extent: tuple[int, int]) -> None:
    rejected(
        sliced(tmp_path, (4,), [[(0, 1)], [extent]] if extent[1] < 5 else [[extent]])
        if extent[1] < 5
        else _huge(tmp_path, extent),
        "w: slice",
        "does not lie within",
    )


def _huge(tmp_path: Path, extent: tuple[int, int]) -> Path:
    """The slice is declared, not stored: its bytes would fill the disk."""
    prefix = tmp_path / "m"
    whole = tf_tables.entry_proto(Stored(1, (4,), b""), 0)
    proto = whole.slices.add().extent.add()
    proto.start, proto.length = extent
    tf_tables.write_index(prefix, {b"": tf_tables.header_proto(), b"w": whole})
    return prefix


def test_a_slice_of_another_rank(tmp_path: Path) -> None:
    rejected(sliced(tmp_path, (4,), [[(0, 2), (0, 1)], [(2, 2), (0, 1)]]), "w: slice 0,2:0,1 has 2 axes, the tensor 1")


def test_a_slice_that_is_declared_but_not_stored(tmp_path: Path) -> None:
    prefix = sliced(tmp_path, (4,), [[(0, 2)], [(2, 2)]], drop=1)
    rejected(prefix, "w: slice 2,2 is declared, but not stored")


def test_a_slice_that_no_tensor_declares(tmp_path: Path) -> None:
    orphan = {slice_key(b"w", [(0, 2)]): tf_tables.entry_proto(Stored(1, (6,), ONE), 0)}
    rejected(two(tmp_path, lambda protos: protos.update(orphan)), "is a slice of w, which does not declare it")


def test_a_slice_of_another_dtype_or_shape(tmp_path: Path) -> None:
    prefix = sliced(tmp_path, (4,), [[(0, 2)], [(2, 2)]])
    protos = {
        b"": tf_tables.header_proto(),
        slice_key(b"w", [(0, 2)]): tf_tables.entry_proto(Stored(3, (2,), bytes(8)), 0),
    }
    whole = tf_tables.entry_proto(Stored(1, (4,), b""), 0)
    for start in (0, 2):
        extent = whole.slices.add().extent.add()
        extent.start, extent.length = start, 2
    protos[b"w"] = whole
    protos[slice_key(b"w", [(2, 2)])] = tf_tables.entry_proto(Stored(1, (3,), bytes(12)), 0)
    tf_tables.write_index(prefix, protos)
    error = rejected(
        prefix, "slice 0,2 is stored as int32 of shape (2,)", "slice 2,2 is stored as float32 of shape (3,)"
    )
    assert len(error.problems) == 2


def test_slices_without_number_do_not_take_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tf_slices, "MOST_COMPARISONS", 1000)
    with pytest.raises(FormatError, match="overlap along every axis"):
        _tf_slices.check_cover((100, 100), [((0, 100), (0, 100))] * 100)


@given(st.lists(st.integers(0, 8), max_size=4), st.lists(st.integers(0, 6), max_size=4), st.randoms())
def test_any_grid_covers_and_no_part_of_it_does(rows: list[int], columns: list[int], random: Any) -> None:
    def cuts(places: list[int], size: int) -> list[tuple[int, int]]:
        edges = sorted({0, size, *places})
        return [(a, b - a) for a, b in zip(edges, edges[1:], strict=False)]

    grid = [(row, column) for row in cuts(rows, 8) for column in cuts(columns, 6)]
    random.shuffle(grid)
    assert len(_tf_slices.check_cover((8, 6), grid)) == len(grid)
    with pytest.raises(FormatError):
        _tf_slices.check_cover((8, 6), grid[1:])
    with pytest.raises(FormatError):
        _tf_slices.check_cover((8, 6), [*grid, random.choice(grid)])


# V1.


@pytest.mark.parametrize(("place", "name"), [(200_000, "a/big"), (700_000, "b/other")])
def test_a_flipped_bit_in_a_v1_tensor(tmp_path: Path, place: int, name: str) -> None:
    """TensorFlow says that the tensor is not found; the tensor, the file and the byte are known."""
    import tensorflow as tf

    big = np.arange(100_000, dtype="f4")
    tensors = {"a/a": big[:5], "a/big": big, "b/other": big + 1}
    tf.raw_ops.Save(filename=str(tmp_path / "m"), tensor_names=list(tensors), data=list(tensors.values()))
    raw = bytearray((tmp_path / "m").read_bytes())
    raw[place] ^= 4
    (tmp_path / "m").write_bytes(raw)
    error = rejected(
        tmp_path / "m", "/m: ", "the block at bytes", f"{name}: if one byte was changed, it is byte {place} "
    )
    assert isinstance(error, DigestError)
    assert [problem.tensor for problem in error.problems] == [name]
    if name == "b/other":
        bundle = read(tmp_path / "m")
        assert bundle["a/big"].numpy().tobytes() == big.tobytes(), "its block is sound"
        with pytest.raises(DigestError, match="m: b/other: the block at bytes"):
            bundle["b/other"].numpy()


def test_a_flipped_bit_among_the_names_of_a_v1_file(tmp_path: Path) -> None:
    raw = bytearray((TF1 / "dtypes" / "v1" / "model.ckpt").read_bytes())
    raw[0x20] ^= 1
    (tmp_path / "m").write_bytes(raw)
    rejected(tmp_path / "m", "if one byte was changed, it is byte 32 of the file, in the list of tensors")


def test_many_changed_bytes_in_a_v1_file(tmp_path: Path) -> None:
    """Then the checksum does not tell where: every tensor of the block is named."""
    raw = bytearray((TF1 / "dtypes" / "v1" / "model.ckpt").read_bytes())
    for place in (0x2C0, 0x390, 0x395, 0x3A2):
        raw[place] ^= 0x55
    (tmp_path / "m").write_bytes(raw)
    error = rejected(tmp_path / "m", "the block at bytes 0 to", "stands in the damaged block")
    assert {"t/float32", "t/complex64"} <= {problem.tensor for problem in error.problems}


@given(st.binary(min_size=1, max_size=300), st.data())
def test_the_changed_byte_is_found(raw: bytes, data: st.DataObject) -> None:
    import crc32c

    place = data.draw(st.integers(0, len(raw) - 1))
    changed = bytearray(raw)
    changed[place] ^= data.draw(st.integers(1, 255))
    assert one_changed_byte(memoryview(changed), crc32c.crc32c(raw)) == place


def v1_file(tmp_path: Path, change: Callable[[Any, Any], None] | None = None, *, keep: bool = True) -> Path:
    """A V1 file of one float32 tensor `x` of shape (2,) whose meta and value a test may change."""
    from tensorflow.core.util import saved_tensor_slice_pb2

    meta, value = saved_tensor_slice_pb2.SavedTensorSlices(), saved_tensor_slice_pb2.SavedTensorSlices()
    meta.meta.versions.producer = 1
    tensor = meta.meta.tensor.add(name="x", type=1)
    tensor.shape.dim.add().size = 2
    tensor.slice.add().extent.add()
    value.data.name = "x"
    value.data.slice.extent.add()
    value.data.data.float_val.extend([1, 2])
    if change:
        change(meta.meta, value.data)
    entries = [(b"", meta.SerializeToString())]
    if keep:
        entries.append((slice_key(b"x", [(0, -1)]), value.SerializeToString()))
    (tmp_path / "m").write_bytes(tf_tables.table(entries))
    return tmp_path / "m"


def test_a_v1_file_that_fits(tmp_path: Path) -> None:
    assert read(v1_file(tmp_path))["x"].numpy().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta, value: setattr(meta.versions, "min_consumer", 9), "readers of version 9"),
        (lambda meta, value: setattr(meta.tensor[0], "type", 55), "x: its dtype is number 55"),
        (lambda meta, value: setattr(meta.tensor[0].shape.dim[0], "size", -2), "x: its shape (-2,) has a negative"),
        (lambda meta, value: setattr(meta.tensor[0].shape.dim[0], "size", 2**40), "x: 2 values are stored where"),
        (lambda meta, value: meta.tensor.add().CopyFrom(meta.tensor[0]), "x: is listed twice"),
        (lambda meta, value: meta.tensor[0].ClearField("slice"), "x: its 0 slices hold 0 of the 2"),
        (lambda meta, value: meta.tensor[0].slice.add().extent.add(), "x: slices - and - overlap"),
        (lambda meta, value: setattr(value, "name", "y"), "x: its values say that they are those of y"),
        (lambda meta, value: setattr(value.slice.extent[0], "length", 2), "x: its values say that they are slice 0,2"),
        (lambda meta, value: setattr(value.data, "dtype", 3), "x: its values are of dtype number 3"),
        (lambda meta, value: value.data.float_val.append(3), "x: 3 values are stored where its shape needs 2"),
        (lambda meta, value: value.ClearField("data"), "x: 0 values are stored"),
        (lambda meta, value: setattr(value.data, "tensor_content", b"abc"), "no multiple of 4"),
    ],
)
def test_malformed_v1_files(tmp_path: Path, change: Callable[[Any, Any], None], message: str) -> None:
    rejected(v1_file(tmp_path, change), message)


def test_a_v1_tensor_that_is_listed_but_not_stored(tmp_path: Path) -> None:
    rejected(v1_file(tmp_path, keep=False), "x: its values are listed, but not stored in this file")


@pytest.mark.parametrize(
    ("dtype", "field", "value"), [(6, "int_val", 200), (4, "int_val", -1), (19, "half_val", 65536)]
)
def test_v1_numbers_that_do_not_fit(tmp_path: Path, dtype: int, field: str, value: int) -> None:
    def change(meta: Any, data: Any) -> None:
        meta.tensor[0].type = dtype
        data.data.ClearField("float_val")
        getattr(data.data, field).extend([value, 1])

    rejected(v1_file(tmp_path, change), "x: a value of", "does not fit")


def test_v1_shards_that_disagree(tmp_path: Path) -> None:
    v1_file(tmp_path).rename(tmp_path / "m-00000-of-00002")
    v1_file(tmp_path, lambda meta, value: setattr(meta.tensor[0].shape.dim[0], "size", 3)).rename(
        tmp_path / "m-00001-of-00002"
    )
    rejected(tmp_path / "m", "another shard float32 of shape (2,)")


def test_v1_shards_of_two_checkpoints(tmp_path: Path) -> None:
    v1_file(tmp_path).rename(tmp_path / "m-00000-of-00001")
    shutil.copy(tmp_path / "m-00000-of-00001", tmp_path / "m-00000-of-00002")
    shutil.copy(tmp_path / "m-00000-of-00001", tmp_path / "m-00001-of-00002")
    rejected(tmp_path / "m", "1, 2 shards stand side by side", "m-?????-of-00001")
    assert list(read(tmp_path / "m-?????-of-00001")) == ["x"]


def test_a_v2_index_under_another_name(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / "m.index").rename(tmp_path / "other")
    rejected(tmp_path / "other", "does not end in .index")


# The wire format.


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00",
        b"\x07",
        b"\x0e",
        b"\x0c",
        b"\x80",
        b"\x08",
        b"\x08" + b"\xff" * 10,
        b"\x08" + b"\xff" * 9 + b"\x02",
        b"\x0a\x05ab",
        b"\x0a" + b"\xff" * 9 + b"\x01",
        b"\x0d\0\0\0",
        b"\x09\0\0\0\0",
        b"\x0b",
        b"\x0b\x14",
        b"\x0b" * 200,
        b"\xff\xff\xff\xff\x7f\x00",
    ],
)
def test_messages_that_are_none(raw: bytes) -> None:
    with pytest.raises(WireError):
        list(fields(raw, 0, len(raw)))


# Mutations: a flipped or missing byte gives the same values, or a FormatError.


def values_of(path: Path) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.numpy().tolist().__repr__()) for name, tensor in read(path).items()}


REAL = {
    "v1": (TF1 / "dtypes" / "v1" / "model.ckpt", ("",)),
    "v2": (TF1 / "dtypes" / "v2" / "model.ckpt", (".index", ".data-00000-of-00001")),
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("kind", ["v1", "v2"])
@given(data=st.data())
def test_mutated_real_files(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    source, suffixes = REAL[kind]
    wanted = values_of(source)
    files = {suffix: Path(f"{source}{suffix}").read_bytes() for suffix in suffixes}
    victim = data.draw(st.sampled_from(suffixes))
    raw = bytearray(files[victim])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "remove"])):
            case "flip":
                raw[place] ^= data.draw(st.integers(1, 255))
            case "cut":
                del raw[max(place, 1) :]
            case "insert":
                raw.insert(place, data.draw(st.integers(0, 255)))
            case _ if len(raw) > 1:
                del raw[place]
    for suffix, contents in files.items():
        (tmp_path / f"m{suffix}").write_bytes(raw if suffix == victim else contents)
    try:
        found = values_of(tmp_path / "m")
    except FormatError:
        return
    assert found == wanted


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_that_the_checksums_confirm(tmp_path: Path, data: st.DataObject) -> None:
    """The block of a real index changed, then sealed again: whatever it says, it is read or a FormatError."""
    source = Path(f"{TF1 / 'dtypes' / 'v2' / 'model.ckpt'}")
    entries = [(b"", tf_tables.header_proto().SerializeToString())]
    table = _tf_table.Table(_tf_table.MappedFile(Path(f"{source}.index")))
    entries = [(key, bytes(block.data[a:b])) for block in table.blocks() for key, a, b in block.values()]
    contents = bytearray(tf_tables.block(entries))
    for _ in range(data.draw(st.integers(1, 4))):
        contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
    raw_index(tmp_path, bytes(contents))
    shutil.copy(f"{source}.data-00000-of-00001", tmp_path / "m.data-00000-of-00001")
    try:
        bundle = read(tmp_path / "m")
    except FormatError:
        return
    for tensor in bundle.values():
        try:
            tensor.numpy()
        except FormatError:
            continue


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_v1_mutations_that_the_checksums_confirm(tmp_path: Path, data: st.DataObject) -> None:
    table = _tf_table.Table(_tf_table.MappedFile(TF1 / "dtypes" / "v1" / "model.ckpt"))
    entries = [(key, bytes(block.data[a:b])) for block in table.blocks() for key, a, b in block.values()]
    number = data.draw(st.integers(0, len(entries) - 1))
    value = bytearray(entries[number][1])
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    entries[number] = entries[number][0], bytes(value)
    (tmp_path / "m").write_bytes(tf_tables.table(entries))
    try:
        bundle = read(tmp_path / "m")
    except FormatError:
        return
    for tensor in bundle.values():
        try:
            tensor.numpy()
        except FormatError:
            continue
