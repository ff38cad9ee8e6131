"""Tensor data beside a model: files that the model names, opened only within its own folder.

Source: onnx ``ExternalDataSecurity.md`` and ``external_data_helper.py`` (1.23): locations are relative and stay within
the folder of the model; no symbolic link on the way, no file that has another name as well, bounds against the size.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from wio.adapters._mapped_files import MappedFile
from wio.adapters._tf_paths import shown
from wio.errors import DigestError, FormatError, printable
from wio.mapping import map_file

# Tied weights share bytes, a few at a time.
MOST_REPEATED, MOST_SHARED = 64 << 20, 4
# Any other key of external_data has no effect, as in onnx.
_KEYS = ("location", "offset", "length", "checksum")


class ExternalFiles:
    """The data files of one model, each opened once, when a tensor first speaks of it."""

    def __init__(self, model: Path) -> None:
        self._folder = model.parent
        self._files: dict[str, _ExternalFile] = {}
        self._claimed = 0

    def part(self, entries: Sequence[tuple[str, str]], size: int, what: str) -> Callable[[], memoryview]:
        """What gives the ``size`` bytes of a tensor, checked to be within their file; FormatError if not."""
        told: dict[str, str] = {}
        for key, value in entries:
            if key in _KEYS and told.setdefault(key, value) != value:
                raise FormatError(f"{what}: its external data have two values for {key!r}")
        if "location" not in told:
            raise FormatError(f"{what}: its values are external, and no location is given")
        offset = _number(told.get("offset"), "offset", what) or 0
        length = _number(told.get("length"), "length", what)
        file = self._open(told["location"], what)
        if length is None:
            # Without a length the data run to the end of the file, which must hold just them.
            length = file.size - offset
        if length != size or offset > file.size or length > file.size - offset:
            raise FormatError(
                f"{what}: {size} bytes are needed, its external data are {length} bytes at {offset} of {file}, "
                f"which has {file.size}",
                remedy="the data file is cut off, or belongs to another model",
            )
        self._claimed += size
        held = sum(each.size for each in self._files.values())
        if self._claimed > MOST_REPEATED + MOST_SHARED * held:
            raise FormatError(
                f"{what}: with it {self._claimed:,} bytes are taken out of files of {held:,}: refused as a bomb",
                remedy="give each tensor bytes of its own",
            )
        checksum = told.get("checksum")

        def read() -> memoryview:
            if checksum is not None:
                file.verify(checksum, what)
            return file.bytes(offset, offset + size)

        return read

    def _open(self, location: str, what: str) -> _ExternalFile:
        if location not in self._files:
            self._files[location] = _ExternalFile(self._folder, location, what)
        return self._files[location]


def _number(value: str | None, key: str, what: str) -> int | None:
    if value is None:
        return None
    if not value.isdecimal() or not value.isascii() or len(value) > 19:
        raise FormatError(f"{what}: the {key} of its external data is {value!r}, no number of bytes")
    return int(value)


def names_of(location: str, what: str) -> tuple[str, ...]:
    """The folders and the file of a location; FormatError unless it stays where it starts."""
    parts = PurePosixPath(location).parts
    bad = not parts or any(part in ("..", "/", "//") for part in parts)
    if bad or any(c in location for c in "\\:\0") or location.startswith("/"):
        raise FormatError(
            f"{what}: the location {printable(location)!r} of its external data leads out of the model's folder",
            remedy="a location is the name of a file beside the model, or in a folder beside it",
        )
    return parts


class _ExternalFile(MappedFile):
    """A mapped file that was reached without following a link, one name at a time."""

    def __init__(self, folder: Path, location: str, what: str) -> None:
        parts = names_of(location, what)
        self.path = folder.joinpath(*parts)
        descriptor = _descend(folder, parts, f"{what}: {shown(self.path)}")
        try:
            self._map = map_file(descriptor) if os.fstat(descriptor).st_size else None
        except (OSError, ValueError, OverflowError) as error:
            raise FormatError(f"{what}: {self}: cannot be mapped: {error}") from None
        finally:
            os.close(descriptor)
        self.view = memoryview(self._map if self._map is not None else b"")
        self.size = len(self.view)
        self._checked: set[str] = set()

    def verify(self, checksum: str, what: str) -> None:
        """The SHA-1 of the whole file, where the model gives it (onnx.proto, external_data)."""
        if checksum not in self._checked:
            if hashlib.sha1(self.view, usedforsecurity=False).hexdigest() != checksum.lower():
                raise DigestError(f"{what}: {self} does not match the SHA-1 that the model gives for it")
            self._checked.add(checksum)


def _descend(folder: Path, parts: Sequence[str], what: str) -> int:
    """A descriptor of the file at the end of ``parts``: a regular file with one name, no link on the way."""
    no_link = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    binary = getattr(os, "O_BINARY", 0)
    by_descriptor = os.open in os.supports_dir_fd
    at: int | None = None
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY) if by_descriptor else None
        for depth, part in enumerate(parts, 1):
            # Where folders cannot be opened, links are looked for by name.
            path = part if by_descriptor else str(folder.joinpath(*parts[:depth]))
            if not by_descriptor and Path(path).is_symlink():
                raise FormatError(f"{what}: a symbolic link stands on the way to it")
            if not by_descriptor and depth < len(parts):
                continue
            kind = os.O_DIRECTORY if depth < len(parts) else binary
            descriptor = os.open(path, os.O_RDONLY | no_link | kind, dir_fd=at)
            if at is not None:
                os.close(at)
            at = descriptor
    except (OSError, ValueError) as error:
        if at is not None:
            os.close(at)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FormatError(
            f"{what}: cannot be opened: {reason}",
            remedy="the data file must stand beside the model, and be no symbolic link",
        ) from None
    except FormatError:
        if at is not None:
            os.close(at)
        raise
    if at is None:
        raise FormatError(f"{what}: its location is empty")
    found = os.fstat(at)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(at)
        fault = "is no regular file" if not stat.S_ISREG(found.st_mode) else "has another name (a hard link) elsewhere"
        raise FormatError(f"{what}: {fault}", remedy="copy it, so that the model's folder holds a file of its own")
    return at
