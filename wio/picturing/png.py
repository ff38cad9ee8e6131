"""Small pictures as PNG bytes, for pages: one byte for each number and a palette, no library needed."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode

from wio.lazy import Array, np
from wio.picturing.colours import GAP, palette

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(picture: Array, *, signed: bool) -> bytes:
    """A picture of indices (H W, uint8) as PNG; gaps are transparent (W3C PNG 3, colour type 3, PLTE and tRNS)."""
    height, width = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    colours = b"".join(map(bytes, palette(signed))) + b"\xff\xff\xff"
    opaque = b"\xff" * GAP + b"\x00"
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 1:] = picture
    data = zlib.compress(lines.tobytes(), 9)
    parts = {b"IHDR": header, b"PLTE": colours, b"tRNS": opaque, b"IDAT": data, b"IEND": b""}
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in parts.items())


def data_uri(picture: Array, *, signed: bool) -> str:
    return f"data:image/png;base64,{b64encode(png(picture, signed=signed)).decode('ascii')}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
