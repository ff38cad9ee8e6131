"""Checksums and digests made right again after a mutation, so that what lies behind them is reached.

Whatever cannot be found where the format puts it stays as it is. The tests' own code, and none of wio's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator

import crc32c
import tf_tables
from tf_tables import mask

_DAMAGED = (IndexError, ValueError, KeyError, TypeError, OverflowError, RecursionError, struct.error, AttributeError)


def read_varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


# --- LevelDB-style tables and tensor bundles


def table(raw: bytes, data: bytes | None = None) -> tuple[bytes, bytes]:
    """A table with the checksum of every block right; with ``data``, those of a bundle's entries and strings too."""
    out, values = bytearray(raw), bytearray(data or b"")
    with contextlib.suppress(*_DAMAGED):
        at, handles = len(out) - 48, []
        for _ in range(4):
            number, at = read_varint(out, at)
            handles.append(number)
        for start, size in [tuple(handles[:2]), *_handles(out, *handles[2:])]:
            if data is not None:
                _entries(out, start, size, values)
            _block(out, start, size)
        _block(out, handles[2], handles[3])
    return bytes(out), bytes(values)


def _block(out: bytearray, start: int, size: int) -> None:
    end = start + size + 1
    if end + 4 <= len(out):
        out[end : end + 4] = mask(crc32c.crc32c(bytes(out[start:end]))).to_bytes(4, "little")


def _handles(out: bytearray, start: int, size: int) -> list[tuple[int, int]]:
    found = []
    for at, _, _ in _items(out, start, size):
        offset, at = read_varint(out, at)
        found.append((offset, read_varint(out, at)[0]))
    return found[:1000]


def _items(out: bytearray, start: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Where each value of a block begins and ends, and whether its key is empty."""
    if out[start + size] != 0 or size > len(out):
        return
    (restarts,) = struct.unpack_from("<I", out, start + size - 4)
    at, end = start, start + size - 4 - 4 * restarts
    while at < end:
        shared, at = read_varint(out, at)
        rest, at = read_varint(out, at)
        length, at = read_varint(out, at)
        yield at + rest, at + rest + length, shared + rest == 0
        at += rest + length


def _entries(out: bytearray, start: int, size: int, values: bytearray) -> None:
    for at, stop, is_header in _items(out, start, size):
        if not is_header:
            with contextlib.suppress(*_DAMAGED):
                _entry(out, at, stop, values)


def _entry(out: bytearray, at: int, stop: int, values: bytearray) -> None:
    """The CRC-32C of one BundleEntryProto (tensor_bundle.proto)."""
    known = {1: 0, 4: 0, 5: 0}
    crc = count = None
    while at < stop:
        tag, at = read_varint(out, at)
        if tag & 7 == 0:
            known[tag >> 3], at = read_varint(out, at)
        elif tag & 7 == 5:
            crc, at = (at if tag >> 3 == 6 else crc), at + 4
        elif tag & 7 == 1:
            at += 8
        else:
            length, at = read_varint(out, at)
            count = _elements(bytes(out[at : at + length])) if tag >> 3 == 2 else count
            at += length
    if crc is None:
        return
    first, last = known[4], known[4] + known[5]
    digest = _string_crc(values, first, last, count or 0) if known[1] == 7 else crc32c.crc32c(bytes(values[first:last]))
    out[crc : crc + 4] = mask(digest).to_bytes(4, "little")


def _elements(shape: bytes) -> int:
    at, product = 0, 1
    while at < len(shape):
        tag, at = read_varint(shape, at)
        length, at = read_varint(shape, at)
        if tag == 18:
            # A size of 0 is left out.
            product *= read_varint(shape, at + 1)[0] if shape[at : at + 1] == b"\x08" else 0
        at += length
    return product


def _string_crc(values: bytearray, first: int, last: int, count: int) -> int:
    """Sets the checksum of the lengths, which stands between them and the bytes; gives that of the whole."""
    at, lengths = first, []
    for _ in range(min(count, last - first)):
        length, at = read_varint(values, at)
        lengths.append(length)
    spoken = b"".join(struct.pack("<I" if each < 1 << 32 else "<Q", each) for each in lengths)
    if at + 4 <= last <= len(values):
        values[at : at + 4] = mask(crc32c.crc32c(spoken)).to_bytes(4, "little")
    return crc32c.crc32c(bytes(values[at:last]), crc32c.crc32c(spoken))


def table_of(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A table of these entries in this order, every key in full."""
    return tf_tables.table(entries, interval=1)


# --- zip archives


def archive(raw: bytes) -> bytes:
    """A zip archive in which the CRC-32 of every member that is stored as it is, or deflated, is right.

    APPNOTE.TXT 6.3.10, 4.3.7 and 4.3.12.
    """
    out = bytearray(raw)
    at = out.find(b"PK\x01\x02")
    while at >= 0 and at + 46 <= len(out):
        with contextlib.suppress(*_DAMAGED, zlib.error):
            method, compressed, header = struct.unpack_from("<10xH8xI18xI", out, at)
            name, extra = struct.unpack_from("<26xHH", out, header)
            start = header + 30 + name + extra
            stored = bytes(out[start : start + min(compressed, len(out))])
            plain = stored if method == 0 else zlib.decompressobj(-15).decompress(stored, 1 << 20)
            crc = zlib.crc32(plain).to_bytes(4, "little")
            out[at + 16 : at + 20] = crc
            if out[header : header + 4] == b"PK\x03\x04" and out[header + 14 : header + 18] != bytes(4):
                out[header + 14 : header + 18] = crc
        at = out.find(b"PK\x01\x02", at + 4)
    return bytes(out)


# --- safetensors and .wio


def framed(header: bytes, most: int = 4096) -> bytes:
    """A header of safetensors with its length before it and, after it, as many bytes as its offsets call for."""
    end = 0
    with contextlib.suppress(*_DAMAGED):
        ends = [each["data_offsets"][1] for name, each in json.loads(header).items() if name != "__metadata__"]
        end = max([each for each in ends if isinstance(each, int)], default=0)
    return len(header).to_bytes(8, "little") + header + bytes(k * 7 % 251 for k in range(min(max(end, 0), most)))


def declared(document: bytes) -> bytes:
    """A .wio file of a document ``{"header": ..., "wio": ...}``, digests right wherever there is a place for one."""
    with contextlib.suppress(*_DAMAGED):
        parts = json.loads(document)
        header, declaration = parts["header"], parts["wio"]
        plain = framed(json.dumps(header).encode())
        data = plain[8 + int.from_bytes(plain[:8], "little") :]
        with contextlib.suppress(*_DAMAGED):
            for each in declaration["tensors"]:
                with contextlib.suppress(*_DAMAGED):
                    start, end = header[each["name"]]["data_offsets"]
                    if "sha256" in each:
                        each["sha256"] = hashlib.sha256(data[start:end]).hexdigest()
        with contextlib.suppress(*_DAMAGED):
            start, end = header["__wio__/receipt"]["data_offsets"]
            declaration["receipt"]["sha256"] = hashlib.sha256(data[start:end]).hexdigest()
        with contextlib.suppress(*_DAMAGED):
            from vector_files import table_digest

            if "table" in declaration:
                declaration["table"] = table_digest({k: v for k, v in header.items() if k != "__metadata__"})
        header = {"__metadata__": {"wio": json.dumps(declaration)}, **header}
        return framed(json.dumps(header).encode())
    return framed(document)
