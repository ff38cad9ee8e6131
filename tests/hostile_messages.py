"""Protocol buffers made hostile field by field, the lengths around each change set right again.

Bytes changed at random break a length before anything else; here the message stays one, and what it says is odd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hostile import odd

# The fields of a message that are messages themselves, by number; each with its own.
Nested = Mapping[int, Any]
Field = tuple[int, int, Any]


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def parsed(raw: bytes) -> list[Field]:
    """The fields of a sound message: number, wire type, and an int or bytes."""
    found: list[Field] = []
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(raw, at)
            found.append((tag >> 3, wire, value))
            continue
        length, at = (4, at) if wire == 5 else (8, at) if wire == 1 else _varint(raw, at)
        found.append((tag >> 3, wire, raw[at : at + length]))
        at += length
    return found


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while raw[at] >= 0x80:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | raw[at] << shift, at + 1


def serialised(fields: list[Field]) -> bytes:
    out = bytearray()
    for number, wire, value in fields:
        out += varint(number << 3 | wire)
        if wire == 0:
            out += varint(value)
        else:
            out += (varint(len(value)) if wire == 2 else b"") + value
    return bytes(out)


def variants(raw: bytes, nested: Nested | None = None, size: int = 0) -> Iterator[tuple[str, bytes]]:
    """A message with one thing odd in it, each with what it is.

    Every varint takes every odd value; every field is left out, doubled, emptied, of another wire type, or said to be
    longer than what is there; and so on within the fields that ``nested`` names.
    """
    nested = nested or {}
    fields = parsed(raw)
    for k, (number, wire, value) in enumerate(fields):
        before, after = fields[:k], fields[k + 1 :]

        def put(*these: Field, before: list[Field] = before, after: list[Field] = after) -> bytes:
            return serialised([*before, *these, *after])

        yield f"{number} is gone", put()
        yield f"{number} stands twice", put((number, wire, value), (number, wire, value))
        if wire == 0:
            for other in odd(value, 64, size):
                yield f"{number}: {value} -> {other}", put((number, wire, other))
            yield f"{number} is bytes", put((number, 2, varint(value)))
            yield f"{number}: varint of 11 bytes", put((number, 0, value))[:-1] + b"\xff" * 10 + b"\1"
            continue
        yield f"{number} is a number", put((number, 0, 1))
        yield f"{number} is a group that never ends", put((number, 3, b"")) if wire == 2 else put((number, 4, b""))
        for other in (b"", value[:-1], value + b"\0", value * 2, b"\xff" * max(len(value), 1)):
            if wire == 2 or len(other) == len(value):
                yield f"{number}: {len(value)} bytes -> {other[:8]!r}... ({len(other)})", put((number, wire, other))
        head = serialised(before) + varint(number << 3 | wire)
        for length in odd(len(value), 64, size) if wire == 2 else ():
            yield f"{number}: length {len(value)} -> {length}", head + varint(length) + value + serialised(after)
        for what, inner in variants(value, nested[number], size) if wire == 2 and number in nested else ():
            yield f"{number}.{what}", put((number, wire, inner))
