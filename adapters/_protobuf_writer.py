"""Fields of protocol buffer messages, written the shortest way (protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

import struct

from wio.adapters._protobuf import FIXED32, LENGTH, VARINT
from wio.encodings import leb128


def varint(value: int) -> bytes:
    """An integer; a negative one as int32 and int64 fields have it: 64 bits of two's complement."""
    return leb128(value & (1 << 64) - 1)


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value)


def float_field(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)


def begin_field(number: int, length: int) -> bytes:
    """What stands before the ``length`` bytes of a string, a message or a packed field."""
    return varint(number << 3 | LENGTH) + varint(length)


def bytes_field(number: int, value: bytes) -> bytes:
    return begin_field(number, len(value)) + value


def text_field(number: int, value: str) -> bytes:
    return bytes_field(number, value.encode("utf-8"))
