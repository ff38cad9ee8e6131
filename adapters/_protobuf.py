"""The protocol buffer wire format, bounded and without recursion.

Source: protobuf.dev/programming-guides/encoding. Offsets in messages count from the start of the buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from wio.errors import FormatError
from wio.lazy import Array, np

Buffer = bytes | memoryview

VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = range(6)
# What protobuf itself allows (CodedInputStream::GetDefaultRecursionLimit).
DEEPEST_GROUP = 100
# What is one message to the reader has a few fields, or as many as it has small numbers that are not packed.
MOST_FIELDS = 2_000_000
# No format that is read here has groups: they are passed over.
MOST_IN_GROUP = 10_000
LONGEST_VARINT = 10
_WINDOW = 1 << 20


class WireError(FormatError):
    """Bytes that are no valid message; whoever knows the file and the tensor says so around it."""


def varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """The unsigned 64-bit varint at ``at``, and where the next byte is."""
    value = shift = 0
    start = at
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            # The tenth byte holds one bit of 64; protobuf drops what does not fit, here it is an error.
            if value >> 64:
                raise WireError(f"the varint at byte {start} exceeds 64 bits")
            return value, at
        shift += 7
        if shift > 63:
            raise WireError(f"the varint at byte {start} is longer than {LONGEST_VARINT} bytes")
    raise WireError(f"the varint at byte {start} is cut off at byte {end}")


def fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: (tag, value, stop) for a varint, (tag, start, stop) of the payload for all others.

    The tag is ``number << 3 | wire type``; ``stop`` is where the next field begins. Groups come as one field with
    whatever they hold unread.
    """
    left = MOST_FIELDS
    while at < end:
        left -= 1
        if left < 0:
            raise WireError(f"a message of more than {MOST_FIELDS:,} fields before byte {at}")
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = varint(data, at, end)
        wire = tag & 7
        if not 8 <= tag < 1 << 32:
            raise WireError(f"field number {tag >> 3} before byte {at} does not exist")
        if wire == VARINT:
            if at < end and data[at] < 0x80:
                value = data[at]
                at += 1
            else:
                value, at = varint(data, at, end)
            yield tag, value, at
            continue
        start = at
        if wire == LENGTH:
            if at < end and data[at] < 0x80:
                start = at + 1
                at = start + data[at]
                if at > end:
                    _within(start, at - start, end, tag)
            else:
                length, start = varint(data, at, end)
                at = _within(start, length, end, tag)
        elif wire == FIXED32:
            at = _within(at, 4, end, tag)
        elif wire == FIXED64:
            at = _within(at, 8, end, tag)
        elif wire == START_GROUP:
            at = _after_group(data, at, end, tag)
        else:
            raise WireError(f"wire type {wire} of field {tag >> 3} before byte {at} is not allowed here")
        yield tag, start, at


def _within(at: int, length: int, end: int, tag: int) -> int:
    if length > end - at:
        raise WireError(f"field {tag >> 3} at byte {at} needs {length} bytes, {end - at} are there")
    return at + length


def _after_group(data: Buffer, at: int, end: int, tag: int) -> int:
    open_groups = [tag >> 3]
    left = MOST_IN_GROUP
    while open_groups:
        left -= 1
        if left < 0:
            raise WireError(f"a group of more than {MOST_IN_GROUP:,} fields before byte {at}")
        tag, at = varint(data, at, end)
        wire = tag & 7
        if wire == VARINT:
            _, at = varint(data, at, end)
        elif wire == LENGTH:
            length, at = varint(data, at, end)
            at = _within(at, length, end, tag)
        elif wire in (FIXED32, FIXED64):
            at = _within(at, 4 if wire == FIXED32 else 8, end, tag)
        elif wire == START_GROUP:
            open_groups.append(tag >> 3)
            if len(open_groups) > DEEPEST_GROUP:
                raise WireError(f"groups nest deeper than {DEEPEST_GROUP} at byte {at}")
        elif wire != END_GROUP or open_groups.pop() != tag >> 3:
            raise WireError(f"the group that ends before byte {at} was not begun")
    return at


def signed64(value: int) -> int:
    """An int64 field: negative numbers are stored in two's complement."""
    return value - (1 << 64) if value >> 63 else value


def signed32(value: int) -> int:
    """An int32 or enum field: protobuf keeps the low 32 bits."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def text(data: Buffer, start: int, stop: int) -> str:
    """A string field; WireError unless it is UTF-8, as proto3 demands."""
    try:
        return str(data[start:stop], "utf-8")
    except UnicodeDecodeError:
        raise WireError(f"the string at byte {start} is not UTF-8") from None


def packed_varints(flat: Array, dtype: np.dtype[Any], convert: Callable[[Array], Array]) -> Array:
    """A packed field of varints, decoded without a Python loop over its elements.

    ``convert`` takes part of the values as uint64. Works window by window, so that no temporary array is larger
    than a window's.
    """
    count = int(np.count_nonzero(flat < 0x80))
    values = np.empty(count, dtype)
    filled = at = 0
    while at < flat.size:
        window = flat[at : at + _WINDOW]
        ends = np.flatnonzero(window < 0x80)
        if not ends.size:
            raise WireError(f"a packed varint is cut off or longer than {LONGEST_VARINT} bytes")
        part = convert(_varints(window[: ends[-1] + 1], ends))
        values[filled : filled + part.size] = part
        filled += part.size
        at += int(ends[-1]) + 1
    return values


def _varints(flat: Array, ends: Array) -> Array:
    if ends.size == flat.size:
        return flat.astype(np.uint64)
    lengths = np.diff(ends, prepend=-1)
    longest = int(lengths.max())
    if longest > LONGEST_VARINT:
        raise WireError(f"a packed varint is longer than {LONGEST_VARINT} bytes")
    values = np.zeros(ends.size, np.uint64)
    starts = ends - lengths + 1
    for place in range(longest):
        still = np.flatnonzero(lengths > place)
        low = flat[starts[still] + place].astype(np.uint64) & np.uint64(0x7F)
        if place == LONGEST_VARINT - 1 and (low > 1).any():
            raise WireError("a packed varint exceeds 64 bits")
        values[still] |= low << np.uint64(7 * place)
    return values
