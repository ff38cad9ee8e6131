"""Zip archives written as a stream: members stored, aligned, with no time stamp, zip64 where sizes ask for it.

Source: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5. Alignment is by an extra field, as PyTorch's own writer does it
(caffe2/serialize/inline_container.cc, getPadding).
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from msgspec import Struct

from wio.errors import FormatError

ALIGNMENT = 64
_MOST_32, _MOST_16 = 0xFFFFFFFF, 0xFFFF
# 1 January 1980, the first day that the format can name.
_TIME, _DATE = 0, (1 << 5) | 1
_UTF8 = 0x800


class _Written(Struct, frozen=True):
    name: bytes
    crc: int
    size: int
    offset: int


class ZipWriter:
    """Writes members to a file one after the other; :meth:`close` writes the directory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._members: list[_Written] = []

    def add(self, name: str, *parts: bytes | memoryview) -> None:
        """One member, its first byte at a multiple of 64. FormatError for a name that a zip cannot hold."""
        spelled, crc, count = _spelled(name), 0, 0
        for part in parts:
            crc, count = zlib.crc32(part, crc), count + len(part)
        member = _Written(spelled, crc, count, self._at)
        large = count >= _MOST_32
        extra = struct.pack("<HHQQ", 1, 16, count, count) if large else b""
        begins = self._at + 30 + len(spelled) + len(extra) + 4
        padding = -begins % ALIGNMENT
        extra += b"FB" + struct.pack("<H", padding) + b"Z" * padding
        size = _MOST_32 if large else count
        header = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 45 if large else 20, _UTF8, 0, _TIME, _DATE, member.crc,
                             size, size, len(spelled), len(extra))  # fmt: skip
        self._write(header + spelled + extra)
        for part in parts:
            self._write(part)
        self._members.append(member)

    def close(self) -> None:
        """The central directory and the records that end the archive."""
        start = self._at
        for member in self._members:
            self._write(_directory_entry(member))
        size, count = self._at - start, len(self._members)
        if start >= _MOST_32 or size >= _MOST_32 or count >= _MOST_16:
            end = self._at
            self._write(struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start))
            self._write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
        few = min(count, _MOST_16)
        self._write(
            struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, few, few, min(size, _MOST_32), min(start, _MOST_32), 0)
        )

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._at += len(data)


def _spelled(name: str) -> bytes:
    try:
        spelled = name.encode("utf-8")
    except UnicodeEncodeError:
        spelled = b""
    if not spelled or len(spelled) > 32767 or "\0" in name or name.startswith("/") or ".." in name.split("/"):
        raise FormatError(f"{name!r} cannot be the name of a member of a zip archive", remedy="rename it")
    return spelled


def _directory_entry(member: _Written) -> bytes:
    size, offset = min(member.size, _MOST_32), min(member.offset, _MOST_32)
    wide = b"".join(
        struct.pack("<Q", value)
        for value, short in ((member.size, size), (member.size, size), (member.offset, offset))
        if short == _MOST_32
    )
    extra = struct.pack("<HH", 1, len(wide)) + wide if wide else b""
    version = 45 if wide else 20
    sizes = (member.crc, size, size, len(member.name), len(extra))
    made = (b"PK\x01\x02", version, version, _UTF8, 0, _TIME, _DATE)
    header = struct.pack("<4sHHHHHHIIIHHHHHII", *made, *sizes, 0, 0, 0, 0, offset)
    return header + member.name + extra
