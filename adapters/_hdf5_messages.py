"""The header messages of HDF5 that say what an array or an attribute holds, checked byte by byte.

Source: HDF5 File Format Specification 3.0, section IV.A.2. Offsets count from the start of the buffer.
"""

from __future__ import annotations

import math
import struct

from msgspec import Struct

from wio.errors import FormatError

UNDEFINED = 0xFFFFFFFFFFFFFFFF
_MOST_AXES, _MOST_MEMBERS, _DEEPEST_TYPE = 32, 64, 4
_FIXED, _FLOAT, _STRING, _OPAQUE, _COMPOUND, _REFERENCE, _ENUM, _VLEN = 0, 1, 3, 5, 6, 7, 8, 9
# Those of libhdf5 itself that Keras's own writer can be asked for: deflate, shuffle, Fletcher's checksum.
DEFLATE, SHUFFLE, FLETCHER = 1, 2, 3


class Bytes:
    """A part of a file; what reaches beyond it is a FormatError."""

    def __init__(self, data: memoryview, at: int, end: int) -> None:
        if not 0 <= at <= end <= len(data):
            raise FormatError(f"a part of {end - at} bytes at byte {at} reaches beyond the end of the file")
        self.data, self.at, self.end = data, at, end

    def skip(self, count: int) -> int:
        """Where the ``count`` bytes to come begin; goes on behind them."""
        start = self.at
        if count > self.end - start:
            raise FormatError(f"{count} bytes are due at byte {start}, {max(0, self.end - start)} are there")
        self.at = start + count
        return start

    def take(self, form: str) -> tuple[int, ...]:
        """Numbers, as :mod:`struct` spells them."""
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))

    def number(self, width: int) -> int:
        start = self.skip(width)
        return int.from_bytes(self.data[start : start + width], "little")

    def part(self, count: int) -> Bytes:
        start = self.skip(count)
        return Bytes(self.data, start, start + count)

    def text(self, room: int) -> bytes:
        """What stands before the NUL that must be within ``room`` bytes."""
        start = self.at
        found = bytes(self.data[start : min(self.end, start + room)])
        text, nul, _ = found.partition(b"\0")
        if not nul:
            raise FormatError(f"the name at byte {start} does not end")
        return text


class Datatype(Struct, frozen=True):
    """``texts`` is whether its elements are text of any length, kept in a global heap."""

    size: int
    texts: bool = False


def datatype(found: Bytes, depth: int = 0) -> Datatype:
    """Message 0x0003. FormatError for what is not sound, and for types that no weight and no attribute of Keras has."""
    head, size = found.take("<II")
    version, kind, bits = head >> 4 & 0xF, head & 0xF, head >> 8
    if not 1 <= version <= 3 or not size or depth > _DEEPEST_TYPE:
        raise FormatError(f"the type at byte {found.at} is none")
    if kind in (_FIXED, _FLOAT):
        _number(found, kind, size, bits)
    elif kind == _OPAQUE:
        found.skip(bits & 0xFF)
    elif kind == _COMPOUND:
        _compound(found, version, bits & 0xFFFF, size, depth)
    elif kind == _ENUM:
        base = datatype(found, depth + 1)
        for _ in range(bits & 0xFFFF):
            _name(found, version)
        found.skip(base.size * (bits & 0xFFFF))
        if base.size != size or base.texts:
            raise FormatError("an enumeration of another size than its numbers")
    elif kind == _VLEN:
        base = datatype(found, depth + 1)
        # Bits 0 to 3: a sequence, or text, whose base is one character.
        if bits & 0xF != 1 or base.size != 1 or size != 16 or depth:
            raise FormatError("values of variable length that are no text")
        return Datatype(size, texts=True)
    elif kind != _STRING:
        names = {2: "times", 4: "bit fields", _REFERENCE: "references to other objects", 10: "arrays"}
        raise FormatError(f"values that are {names.get(kind, 'of an unknown kind')}, which no weights are")
    return Datatype(size)


def _number(found: Bytes, kind: int, size: int, bits: int) -> None:
    offset, precision = found.take("<HH")
    if size > 16 or not 0 < precision <= 8 * size - offset:
        raise FormatError(f"a number of {precision} bits at bit {offset} of {size} bytes")
    if kind == _FLOAT:
        exponent, exponent_size, mantissa, mantissa_size = found.take("<BBBB4x")
        top = offset + precision
        within = exponent + exponent_size <= top and mantissa + mantissa_size <= top and bits >> 8 & 0xFF < top
        if not exponent_size or not mantissa_size or not within:
            raise FormatError("a float whose parts are not within it")


def _name(found: Bytes, version: int) -> None:
    length = len(found.text(256)) + 1
    found.skip(length if version == 3 else -(-length // 8) * 8)


def _compound(found: Bytes, version: int, members: int, size: int, depth: int) -> None:
    """Complex numbers are two members; other records are refused where their dtype is asked for."""
    if not 0 < members <= _MOST_MEMBERS:
        raise FormatError(f"a record of {members} members")
    for _ in range(members):
        _name(found, version)
        offset = found.number(4 if version < 3 else max(1, -(-size.bit_length() // 8)))
        if version == 1:
            # Dimensionality, permutation and four sizes of a member that is an array.
            if found.number(1):
                raise FormatError("a member of a record that is an array")
            found.skip(27)
        member = datatype(found, depth + 1)
        if offset + member.size > size or member.texts:
            raise FormatError("a member of a record that reaches beyond it")


def dataspace(found: Bytes) -> tuple[int, ...] | None:
    """Message 0x0001: the shape; None for one that holds nothing."""
    version, rank, flags, kind = found.take("<BBBB")
    if version not in (1, 2) or rank > _MOST_AXES or flags & ~1:
        raise FormatError(f"the shape at byte {found.at} is none")
    if version == 1:
        found.skip(4)
    sizes = found.take(f"<{rank}Q")
    if flags & 1:
        most = found.take(f"<{rank}Q")
        if any(limit < size for size, limit in zip(sizes, most, strict=True)):
            raise FormatError(f"shape {sizes} is beyond its own limit {most}")
    # Sizes of 0 are left out: NumPy and libhdf5 multiply before they look for one.
    if math.prod(size for size in sizes if size) >= 1 << 60:
        raise FormatError(f"shape {sizes} overflows every integer")
    return None if version == 2 and kind == 2 else sizes


class Filters(Struct, frozen=True):
    """How chunks are packed: the identifiers in the order in which they were applied."""

    applied: tuple[int, ...] = ()


def filters(found: Bytes) -> Filters:
    """Message 0x000B."""
    version, count = found.take("<BB")
    if version not in (1, 2) or not 0 < count <= 32:
        raise FormatError("a list of filters that is none")
    if version == 1:
        found.skip(6)
    applied = []
    for _ in range(count):
        identifier = found.number(2)
        name = found.number(2) if version == 1 or identifier >= 256 else 0
        found.skip(2)
        values = found.number(2)
        found.skip(-(-name // 8) * 8 if version == 1 else name)
        found.skip(4 * values + (4 if version == 1 and values % 2 else 0))
        if identifier not in (DEFLATE, SHUFFLE, FLETCHER) or identifier in applied:
            raise FormatError(f"values packed by filter {identifier}, which wio does not run; store them plain")
        if DEFLATE in applied and identifier != FLETCHER:
            raise FormatError("values that are deflated before they are packed again")
        applied.append(identifier)
    return Filters(tuple(applied))


def fill_value(found: Bytes) -> None:
    """Messages 0x0005, and 0x0004 before HDF5 1.6."""
    version = found.number(1)
    if version not in (1, 2, 3):
        raise FormatError(f"the fill value at byte {found.at} is none")
    if version == 3:
        defined = found.number(1) & 0x20
    else:
        found.skip(2)
        defined = found.number(1)
        # Version 1 has a size in any case.
        defined = defined or version == 1
    if defined:
        found.skip(found.number(4))
