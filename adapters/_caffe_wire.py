"""Protocol buffer fields as bytes, written the shortest way (protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

import struct

from wio.adapters._protobuf import FIXED32, LENGTH, VARINT


def varint(value: int) -> bytes:
    """An integer; negative ones as 64-bit two's complement, as int32 and int64 fields have them."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value)


def single(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)


def begin(number: int, length: int) -> bytes:
    """What stands before the ``length`` bytes of a string, a message or a packed field."""
    return varint(number << 3 | LENGTH) + varint(length)


def delimited(number: int, payload: bytes) -> bytes:
    return begin(number, len(payload)) + payload


def string(number: int, text: str) -> bytes:
    return delimited(number, text.encode("utf-8"))
