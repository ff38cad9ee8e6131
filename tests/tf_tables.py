"""An independent writer of checkpoint tables and bundles, to make files that TensorFlow does not write.

Big-endian bundles, Snappy, several index blocks, and every malformation. Messages are made by the protobuf classes of
the real TensorFlow; the table follows leveldb doc/table_format.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cramjam
import crc32c
import numpy as np

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")


def mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value % 0x80 + 0x80)
        value //= 0x80
    return bytes([*out, value])


def block(entries: Iterable[tuple[bytes, bytes]], interval: int = 16, restarts: list[int] | None = None) -> bytes:
    """The contents of a block: keys share a prefix with the one before, except at every ``interval``-th entry."""
    out, places, last = bytearray(), [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % interval:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        else:
            places.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    places = (places or [0]) if restarts is None else restarts
    return bytes(out) + np.array([*places, len(places)], "<u4").tobytes()


def sealed(contents: bytes, kind: int = 0, *, compressed: bool = False) -> bytes:
    """A block with its trailer. ``kind`` 1 compresses it, unless it is ``compressed``; others are only written down."""
    stored = bytes(cramjam.snappy.compress_raw(contents)) if kind == 1 and not compressed else contents
    return stored + bytes([kind]) + mask(crc32c.crc32c(stored + bytes([kind]))).to_bytes(4, "little")


def footer(meta: tuple[int, int], index: tuple[int, int], magic: bytes = MAGIC) -> bytes:
    handles = b"".join(varint(number) for number in (*meta, *index))
    return handles.ljust(40, b"\0") + magic


def table(entries: Iterable[tuple[bytes, bytes]], per_block: int = 1000, kind: int = 0, interval: int = 16) -> bytes:
    """A whole table with ``per_block`` entries in each block."""
    rest = list(entries)
    out, handles = bytearray(), []
    while rest:
        part, rest = rest[:per_block], rest[per_block:]
        stored = sealed(block(part, interval), kind)
        handles.append((part[-1][0], varint(len(out)) + varint(len(stored) - 5)))
        out += stored
    meta = (len(out), 8)
    out += sealed(block([]))
    index = sealed(block(handles, 1), kind)
    return bytes(out) + index + footer(meta, (len(out), len(index) - 5))


@dataclass
class Stored:
    """A tensor for :func:`write_bundle`: its bytes as they stand in the data file, and what its entry says."""

    dtype: int
    shape: tuple[int, ...]
    raw: bytes
    crc: int | None = None
    shard: int = 0


def entry_proto(stored: Stored, offset: int) -> Any:
    from tensorflow.core.protobuf import tensor_bundle_pb2

    proto = tensor_bundle_pb2.BundleEntryProto(
        dtype=stored.dtype, shard_id=stored.shard, offset=offset, size=len(stored.raw)
    )
    proto.shape.SetInParent()
    for size in stored.shape:
        proto.shape.dim.add().size = size
    proto.crc32c = mask(crc32c.crc32c(stored.raw) if stored.crc is None else stored.crc)
    return proto


def header_proto(shards: int = 1, *, big_endian: bool = False) -> Any:
    from tensorflow.core.protobuf import tensor_bundle_pb2

    proto = tensor_bundle_pb2.BundleHeaderProto(num_shards=shards, endianness=int(big_endian))
    proto.version.producer = 1
    return proto


def write_bundle(
    prefix: Path, tensors: dict[str, Stored], *, big_endian: bool = False, shards: int = 1, gap: int = 0, **options: Any
) -> dict[bytes, Any]:
    """Writes index and data files, ``gap`` bytes of padding after each tensor; gives the entries as protos by key."""
    data = [bytearray() for _ in range(shards)]
    protos: dict[bytes, Any] = {b"": header_proto(shards, big_endian=big_endian)}
    for name, stored in tensors.items():
        protos[name.encode()] = entry_proto(stored, len(data[stored.shard]))
        data[stored.shard] += stored.raw + bytes(gap)
    for shard, raw in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(raw)
    write_index(prefix, protos, **options)
    return protos


def write_index(prefix: Path, protos: dict[bytes, Any], **options: Any) -> None:
    entries = sorted((key, proto.SerializeToString()) for key, proto in protos.items())
    prefix.with_name(prefix.name + ".index").write_bytes(table(entries, **options))


def big_endian_strings(values: list[bytes]) -> tuple[bytes, int]:
    """A string tensor as a big-endian machine writes it (tensor_bundle.cc, WriteStringTensor), and its CRC-32C."""
    lengths = np.array([len(value) for value in values], ">u4").tobytes()
    check = mask(crc32c.crc32c(lengths)).to_bytes(4, "big")
    body = b"".join(values)
    return b"".join(varint(len(v)) for v in values) + check + body, crc32c.crc32c(check + body, crc32c.crc32c(lengths))
