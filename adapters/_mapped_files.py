"""Regular files, mapped read-only; the pages of a large array go back when its last user drops it."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wio.adapters._tf_paths import shown
from wio.errors import FormatError
from wio.lazy import np
from wio.mapping import map_file, shrunk

if TYPE_CHECKING:
    Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# Below this an array's pages are not worth a system call of their own when it goes.
WORTH_RELEASING = 1 << 20


def regular_size(path: Path) -> int | None:
    """The size of a regular file, links followed; None for what is missing, unreadable or no regular file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def open_regular(path: Path) -> int:
    """A descriptor of a regular file; FormatError for anything else. Never waits, not even on a FIFO."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise FormatError(f"{shown(path)}: cannot be opened: {_reason(error)}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FormatError(f"{shown(path)}: is no regular file")
    return descriptor


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return "no such file" if error.errno == errno.ENOENT else os.strerror(error.errno)
    return str(error)


class MappedFile:
    """A file as a read-only buffer; nothing of it is read before it is looked at.

    With ``ranges``, of a file that lies elsewhere nothing is fetched but what is asked for: :meth:`refuse_shrunk`
    comes before ``view`` is read.
    """

    def __init__(self, path: Path, *, ranges: bool = False) -> None:
        self.path = path
        descriptor = open_regular(path)
        try:
            # An empty file cannot be mapped.
            self._map = map_file(descriptor, ranges=ranges) if os.fstat(descriptor).st_size else None
        except (OSError, ValueError, OverflowError) as error:
            raise FormatError(f"{self}: cannot be mapped: {_reason(error)}") from None
        finally:
            os.close(descriptor)
        self.view = memoryview(self._map if self._map is not None else b"")
        self.size = len(self.view)

    def __str__(self) -> str:
        return shown(self.path)

    def array(self, start: int, stop: int) -> Bytes:
        """Bytes ``start`` to ``stop`` as a read-only view. The caller has checked that they are within the file."""
        self.refuse_shrunk(start, stop)
        flat: Bytes = np.frombuffer(self.view, np.uint8, stop - start, start)
        self._release_after(flat, start, stop)
        return flat

    def bytes(self, start: int, stop: int) -> memoryview:
        """The same bytes without NumPy."""
        self.refuse_shrunk(start, stop)
        part = self.view[start:stop]
        self._release_after(part, start, stop)
        return part

    def refuse_shrunk(self, start: int, stop: int) -> None:
        """FormatError if the file does not reach to ``stop`` any more: ``view`` must not be read there."""
        if self._map is not None and shrunk(self._map, start, stop):
            raise FormatError(f"{self}: became shorter while it was read", remedy="let what writes it come to its end")

    def _release_after(self, view: Bytes | memoryview, start: int, stop: int) -> None:
        if self._map is not None and stop - start >= WORTH_RELEASING and hasattr(mmap, "MADV_DONTNEED"):
            # Without this, reading a file tensor by tensor would leave all of it in the resident set.
            weakref.finalize(view, _release, self._map, start, stop).atexit = False


def _release(mapped: mmap.mmap, start: int, stop: int) -> None:
    # On a read-only file mapping this drops page table entries; a neighbour that is still in use faults in again.
    first = start - start % mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, first, stop - first)
