"""The zip of a ``.keras`` file, read without trusting what its directory says.

Sources: APPNOTE.TXT 6.3.10 (4.3.7 local header, 4.3.12 central directory); keras 3.15 ``saving_lib.py`` for the
members. Keras stores members as they are; one that somebody compressed again is unpacked in memory, within bounds.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from wio.adapters._zip import directory_of
from wio.errors import DigestError, FormatError, printable
from wio.mapping import map_file

MAGIC = b"PK\x03\x04"
CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS, WEIGHTS_NPZ = "model.weights.h5", "model.weights.npz"
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
# Weights and JSON do not shrink a hundredfold; what does, and is large, is a bomb (keras 3.15 _reject_zip_bomb).
_SMALL, _MAX_RATIO = 64 << 20, 100
_UNSOUND = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, KeyError, RuntimeError)


def looks_like_keras(path: Path) -> bool:
    """Whether a file is a zip with the members of a Keras model."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return False
        names = {entry.filename for entry in directory_of(path, path.name)}
    except (OSError, FormatError):
        return False
    return CONFIG in names and bool(names & {WEIGHTS, WEIGHTS_NPZ})


class Archive:
    """The members of a ``.keras`` file. Raises FormatError for what is not sound or not safe, all of it at once."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        entries = directory_of(path, self.name)
        with self._sound("not a sound zip archive"):
            with path.open("rb") as file:
                self._map = map_file(file.fileno())
            self._zip = zipfile.ZipFile(path)
        self._check_names([entry.filename for entry in entries])
        self._starts = {entry.filename: self._start(entry) for entry in entries}
        self._refuse_overlaps(entries)
        self.names = [entry.filename for entry in entries]

    def read(self, name: str) -> bytes:
        """The contents of a member, its checksum verified."""
        with self._sound(f"member {name!r} is damaged"):
            return self._zip.read(name)

    def size(self, name: str) -> int:
        return self._zip.getinfo(name).file_size

    def close(self) -> None:
        """Lets go of the file's handle; what was mapped stays."""
        self._zip.close()

    def view(self, name: str) -> Member:
        """A member as a buffer: mapped where it is stored as it is, else unpacked into memory."""
        entry = self._zip.getinfo(name)
        what = f"{self.name}: member {name!r}"
        if entry.compress_type == zipfile.ZIP_STORED:
            start = self._starts[name]
            return Member(what, memoryview(self._map)[start : start + entry.file_size], entry.CRC)
        return Member(what, memoryview(self.read(name)), None)

    def _check_names(self, names: list[str]) -> None:
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise FormatError(f"{self.name}: members are there twice: {', '.join(map(printable, twice[:5]))}")
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
                raise FormatError(f"{self.name}: member {printable(name)!r} leads out of the archive")

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where a member's data begin, after a local header that must agree with the directory."""
        what = f"{self.name}: member {printable(entry.filename)!r}"
        if entry.flag_bits & _ENCRYPTED:
            raise FormatError(f"{what} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"{what} is compressed in a way that Keras does not use (method {entry.compress_type})")
        if entry.file_size > _SMALL and entry.file_size > _MAX_RATIO * entry.compress_size:
            raise FormatError(
                f"{what} declares {entry.file_size:,} bytes and stores {entry.compress_size:,}: a decompression bomb"
            )
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise FormatError(f"{what} is stored as it is, yet has two sizes")
        header = self._map[entry.header_offset : entry.header_offset + _LOCAL.size] if entry.header_offset >= 0 else b""
        if len(header) < _LOCAL.size or header[:4] != MAGIC:
            raise FormatError(f"{what} is not where the directory says")
        _, name_length, extra_length = _LOCAL.unpack(header)
        start = entry.header_offset + _LOCAL.size + name_length + extra_length
        if start + entry.compress_size > len(self._map):
            raise FormatError(f"{what} reaches beyond the end of the file")
        return int(start)

    def _refuse_overlaps(self, entries: list[zipfile.ZipInfo]) -> None:
        end = 0
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            if entry.header_offset < end:
                raise FormatError(f"{self.name}: member {printable(entry.filename)!r} overlaps another")
            end = self._starts[entry.filename] + entry.compress_size

    @contextmanager
    def _sound(self, otherwise: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FormatError(f"{self.name}: no such file") from None
        except (*_UNSOUND, NotImplementedError, MemoryError) as error:
            raise FormatError(f"{self.name}: {otherwise}: {error}") from None


class Member:
    """The bytes of one member. Those that are mapped are held against their checksum when values are first read."""

    def __init__(self, what: str, data: memoryview, crc: int | None) -> None:
        self.what, self.data, self._crc = what, data, crc

    def verify(self) -> None:
        if self._crc is None:
            return
        if zlib.crc32(self.data) != self._crc:
            raise DigestError(f"{self.what}: its bytes are not those that the archive's checksum speaks of")
        self._crc = None
