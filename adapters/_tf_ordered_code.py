"""Keys of tensor slices: OrderedCode, as far as checkpoints use it.

Source: tensorflow/core/lib/strings/ordered_code.cc; tensorflow/core/util/saved_tensor_slice_util.cc,
EncodeTensorNameSlice: number 0, the name, the rank, then start and length of each axis, (0, -1) for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence


def slice_key(name: bytes, extents: Sequence[tuple[int, int]]) -> bytes:
    """The key under which a slice of a tensor is stored."""
    parts = [_number(0), _string(name), _number(len(extents))]
    for start, length in extents:
        parts += [_signed(start), _signed(length)]
    return b"".join(parts)


def name_in_key(key: bytes) -> bytes | None:
    """The tensor's name in a slice key, or None if it is no such key. The rest of the key is not looked at."""
    if not key.startswith(b"\0"):
        return None
    name, terminator, _ = key[1:].partition(b"\0\1")
    return name.replace(b"\0\xff", b"\0").replace(b"\xff\0", b"\xff") if terminator else None


def _string(value: bytes) -> bytes:
    # 00 is written 00 ff and ff is written ff 00; 00 01 ends the string. Both at once, or one would undo the other.
    return (
        b"".join(_ESCAPED.get(byte, bytes((byte,))) for byte in value) + b"\0\1" if _special(value) else value + b"\0\1"
    )


_ESCAPED = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}


def _special(value: bytes) -> bool:
    return b"\0" in value or b"\xff" in value


def _number(value: int) -> bytes:
    """WriteNumIncreasing: a length byte, then big-endian without leading zeros."""
    size = (value.bit_length() + 7) // 8
    return bytes((size,)) + value.to_bytes(size, "big")


def _signed(value: int) -> bytes:
    """WriteSignedNumIncreasing: as many leading bits equal to the inverted sign as there are bytes, then the value.

    Bits: 6 of value in one byte, then 7 more for each further byte.
    """
    magnitude = ~value if value < 0 else value
    length = 1 if magnitude < 64 else magnitude.bit_length() // 7 + 1
    header = ((1 << length) - 1) << (8 * length - length)
    return ((value & ((1 << 8 * length) - 1)) ^ header).to_bytes(length, "big")
