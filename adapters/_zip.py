"""Zip archives read without trust: every member checked before it is used, stored members mapped, never extracted.

Source: PKWARE APPNOTE 6.3.10. The central directory is the standard library's to parse; what it leaves unchecked is
checked here: names that stand twice or leave the archive, members that overlap, sizes that deflate cannot reach.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from wio.adapters._mapped_files import MappedFile
from wio.errors import DigestError, FormatError, printable

if TYPE_CHECKING:
    import zipfile

STORED, DEFLATED = 0, 8
_LOCAL_HEADER = 30
# The end of the central directory (4.3.16): its size without the comment, where it says how many members there are,
# and what it says there if only the zip64 record does (4.4.22).
_END, _COUNT, _COUNT_ELSEWHERE = 22, 10, 0xFFFF
# Deflate spends at least one bit on 258 bytes, less its block headers (zlib's own documentation: 1032:1).
_MOST_DEFLATE = 1032
# Above this size, what shrinks more than that many times is taken for a bomb: trained weights do not.
_BOMB_SIZE, _BOMB_RATIO = 64 << 20, 100
# Room for sixty thousand members with the names that PyTorch gives them.
_LARGEST_DIRECTORY = 5 << 20


class Member(Struct, frozen=True):
    """One member of an archive; its bytes are checked against their CRC-32 unless ``checked`` is off."""

    archive: ZipArchive
    name: str
    size: int
    start: int
    packed: int
    method: int
    crc: int

    def __str__(self) -> str:
        return f"{self.archive}: {printable(self.name)}"

    @property
    def mapped(self) -> bool:
        """Whether its bytes stand in the file as they are."""
        return self.method == STORED

    def read(self) -> memoryview:
        """All its bytes: a view of the mapped file, or what they inflate to. DigestError if they are damaged."""
        data = self._bytes()
        if self.archive.check and self.name not in self.archive.verified:
            if zlib.crc32(data) != self.crc:
                raise DigestError(
                    f"{self}: does not match its CRC-32: the file is damaged",
                    remedy="fetch it again; for a file saved without checksums say --option checksums=ignore",
                )
            if self.mapped:
                self.archive.verified.add(self.name)
        return data

    def head(self, count: int) -> bytes:
        """Up to ``count`` of its first bytes, unchecked."""
        packed = self.archive.file.view[self.start : self.start + self.packed]
        if self.mapped:
            return bytes(packed[:count])
        return self._inflate(packed[: count + 65536], count, whole=False)

    def _bytes(self) -> memoryview:
        if self.mapped:
            return self.archive.file.bytes(self.start, self.start + self.packed)
        packed = self.archive.file.bytes(self.start, self.start + self.packed)
        return memoryview(self._inflate(packed, self.size, whole=True))

    def _inflate(self, packed: memoryview, count: int, *, whole: bool) -> bytes:
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = machine.decompress(packed, count + 1 if whole else count) if count or whole else b""
        except zlib.error as error:
            raise FormatError(f"{self}: is no deflated data: {error}") from None
        if whole and (len(data) != count or not machine.eof):
            raise FormatError(f"{self}: does not inflate to the {count} bytes that it should have")
        return data


class ZipArchive:
    """An open archive and its members by name. Raises FormatError for anything odd about any of them."""

    def __init__(self, path: Path, *, check: bool = True) -> None:
        self.file = MappedFile(path)
        self.check = check
        self.verified: set[str] = set()
        infos = directory_of(path, str(self))
        self.members: dict[str, Member] = {}
        for info in infos:
            if info.filename.endswith("/") and info.file_size == 0:
                continue
            member = self._member(info)
            if member.name in self.members:
                raise FormatError(f"{member}: stands twice in the archive")
            self.members[member.name] = member
        self._refuse_overlaps()
        whole = sum(member.size for member in self.members.values())
        if whole > _BOMB_SIZE and whole > self.file.size * _BOMB_RATIO:
            raise FormatError(f"{self}: {self.file.size} bytes that claim to be {whole}: refused as a zip bomb")

    def __str__(self) -> str:
        return str(self.file)

    def _member(self, info: zipfile.ZipInfo) -> Member:
        name = f"{self}: {printable(info.orig_filename)}"
        if "\0" in info.orig_filename or info.filename.startswith("/") or ".." in info.filename.split("/"):
            raise FormatError(f"{name}: is no name of a member: it leaves the archive")
        # Encrypted, patched data, strongly encrypted (APPNOTE 4.4.4, bits 0, 5 and 6).
        if info.flag_bits & 0x61:
            raise FormatError(f"{name}: is encrypted or patched")
        if info.compress_type not in (STORED, DEFLATED):
            raise FormatError(
                f"{name}: compression method {info.compress_type} is not supported", remedy="save it uncompressed"
            )
        start = self._data_start(info, name)
        if info.compress_size < 0 or start + info.compress_size > self.file.size:
            raise FormatError(f"{name}: goes beyond the end of the file; is it cut short?")
        if info.compress_type == STORED and info.compress_size != info.file_size:
            raise FormatError(f"{name}: is stored, and its two sizes differ")
        impossible = info.file_size > info.compress_size * _MOST_DEFLATE + 64
        if impossible or (info.file_size > _BOMB_SIZE and info.file_size > info.compress_size * _BOMB_RATIO):
            raise FormatError(
                f"{name}: {info.compress_size} bytes that claim to be {info.file_size}: refused as a zip bomb",
                remedy="if the file is sound, save it uncompressed",
            )
        return Member(self, info.filename, info.file_size, start, info.compress_size, info.compress_type, info.CRC)

    def _data_start(self, info: zipfile.ZipInfo, name: str) -> int:
        at = info.header_offset
        header = bytes(self.file.view[at : at + _LOCAL_HEADER]) if at >= 0 else b""
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise FormatError(f"{name}: the directory points to something that is no member")
        name_size, extra_size = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        spelled = bytes(self.file.view[at + _LOCAL_HEADER : at + _LOCAL_HEADER + name_size])
        encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
        if spelled.decode(encoding, "replace") != info.orig_filename:
            raise FormatError(f"{name}: has another name where it stands than in the directory")
        return at + _LOCAL_HEADER + name_size + extra_size

    def _refuse_overlaps(self) -> None:
        end = 0
        for member in sorted(self.members.values(), key=lambda member: (member.start, member.packed)):
            if member.packed and member.start < end:
                raise FormatError(f"{member}: overlaps another member")
            end = max(end, member.start + member.packed)


class _Directory(io.FileIO):
    """A file whose central directory is read in one piece, as ``zipfile`` reads it: too large a piece is refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGEST_DIRECTORY:
            raise FormatError(f"a directory of {size:,} bytes, more than {_LARGEST_DIRECTORY:,}")
        return super().read(size) or b""


def directory_of(path: Path, what: str) -> list[zipfile.ZipInfo]:
    """What the central directory of an archive says of its members, unchecked. FormatError, naming ``what``."""
    import zipfile

    try:
        with _Directory(path) as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            file.seek(_COUNT - _END - len(archive.comment), io.SEEK_END)
            count = int.from_bytes(file.read(2), "little")
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, NotImplementedError, OverflowError) as error:
        raise FormatError(f"{what}: not a sound zip archive: {printable(str(error))}") from None
    except struct.error as error:
        raise FormatError(f"{what}: not a sound zip archive: its directory is damaged: {error}") from None
    except FormatError as error:
        raise FormatError(f"{what}: {error.message}") from None
    # An entry whose lengths are wrong swallows those after it.
    if count not in (len(infos), _COUNT_ELSEWHERE):
        raise FormatError(f"{what}: not a sound zip archive: {len(infos)} members where its end says {count}")
    return infos


def member_names(path: Path) -> list[str] | None:
    """The names in the directory of a zip archive; None for what is none. Never raises."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return None
        return [info.filename for info in directory_of(path, path.name)]
    except (OSError, FormatError):
        return None
