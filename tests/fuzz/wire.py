"""Protocol buffers as they lie in a file, whatever their schema, and mutations that keep every length right.

Source: protobuf.dev/programming-guides/encoding. A field whose bytes parse as a message is taken for one.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fuzz.seal import read_varint
from tf_tables import varint

Field = tuple[int, int, "int | bytes"]
_EDGES = (0, 1, 2, 3, 7, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
_FIXED = {1: 8, 5: 4}


def fields(data: bytes) -> list[Field] | None:
    """Number, wire type and value of each field, or None where the bytes are no message."""
    found: list[Field] = []
    at = 0
    try:
        while at < len(data):
            tag, at = read_varint(data, at)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                value, at = read_varint(data, at)
                found.append((number, kind, value))
                continue
            length = _FIXED.get(kind)
            if kind == 2:
                length, at = read_varint(data, at)
            if length is None or number == 0 or at + length > len(data):
                return None
            found.append((number, kind, data[at : at + length]))
            at += length
    except (IndexError, ValueError):
        return None
    return found


def message(parts: list[Field]) -> bytes:
    out = b""
    for number, kind, value in parts:
        out += varint(number << 3 | kind)
        if isinstance(value, int):
            out += varint(value & (1 << 64) - 1)
        else:
            out += (varint(len(value)) if kind == 2 else b"") + value
    return out


def mutated(data: bytes, draw: random.Random, bend: Callable[[bytes], bytes], depth: int = 0) -> bytes:
    """A message with one change somewhere in it; ``bend`` changes bytes that are no message."""
    parts = fields(data)
    if not parts or depth > 12:
        return bend(data)
    place = draw.randrange(len(parts))
    number, kind, value = parts[place]
    choice = draw.random()
    if choice < 0.04:
        del parts[place]
    elif choice < 0.08:
        parts.insert(draw.randrange(len(parts) + 1), parts[place])
    elif choice < 0.11:
        other = draw.randrange(len(parts))
        parts[place], parts[other] = parts[other], parts[place]
    elif choice < 0.13:
        parts[place] = (draw.choice([number + 1, max(number - 1, 1), draw.randint(1, 40)]), kind, value)
    elif choice < 0.15:
        parts[place] = (number, 0, draw.choice(_EDGES))
    elif isinstance(value, int):
        parts[place] = (number, kind, _bent(value, draw))
    elif kind == 2:
        parts[place] = (number, kind, mutated(value, draw, bend, depth + 1))
    else:
        parts[place] = (number, kind, bend(value).ljust(_FIXED[kind], b"\0")[: _FIXED[kind]])
    return message(parts)


def _bent(value: int, draw: random.Random) -> int:
    return draw.choice(
        [draw.choice(_EDGES), value + 1, value - 1, value ^ 1 << draw.randrange(64), draw.randint(0, 64)]
    )
