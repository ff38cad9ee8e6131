"""Each way in which the table of a checkpoint, or a message in it, can be malformed."""

from __future__ import annotations

from pathlib import Path

import pytest
import tf_tables
from tf_malformed import ADAPTER, raw_index, rejected, two
from tf_tables import varint

from wio.adapters import _tf_table
from wio.adapters._protobuf import WireError, fields
from wio.errors import DigestError


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
    raw_index(tmp_path, varint(2**31 - 1) + b"\0\0", kind=1, compressed=True)
    rejected(tmp_path / "m.index", "of Snappy cannot hold the 2147483647")


@pytest.mark.parametrize("body", [b"", b"\x05\xff\xff", b"\x80", b"\x04\x0chi"])
def test_snappy_that_is_none(tmp_path: Path, body: bytes) -> None:
    rejected(raw_index(tmp_path, body, kind=1, compressed=True), "Snappy")


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
