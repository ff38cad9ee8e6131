"""Files mapped into memory, and what happens when one of them becomes shorter while it is read.

A file may stand in for one elsewhere (``wio.remote``): of its true size, and empty where nothing was fetched yet. What
reads it says beforehand which bytes; who says nothing is given all of them.

A read beyond the new end of a mapped file is no exception: the system sends SIGBUS, and a process that does not expect
it is gone without a word. The command line expects it; nothing is written then. Readers ask :func:`shrunk` before they
hand out a part of the file, so that what happened before that is an error like others.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

_MESSAGE = b"""wio: a file became shorter while it was read; nothing was written
  -> let whatever writes it come to its end, then try again
"""
_TROUBLE = 2
_handler: Callable[[int], None] | None = None
_expected = False

# Given first and last byte of a part, it puts that part into the file.
Fetch = Callable[[int, int], None]
_elsewhere: dict[tuple[int, int], Fetch] = {}


class _FetchedMap(mmap.mmap):
    """The map of a file that stands in for one elsewhere."""

    fetch: Fetch


def stand_in(path: Path, fetch: Fetch | None) -> None:
    """From now on the parts of this file come by ``fetch``; None: it is a file like others."""
    if fetch is None:
        _elsewhere.pop(_identity(path), None)
    else:
        _elsewhere[_identity(path)] = fetch


def _identity(file: Path | int) -> tuple[int, int]:
    found = os.stat(file)  # noqa: PTH116  (a descriptor is no path)
    return found.st_dev, found.st_ino


def map_file(descriptor: int, *, ranges: bool = False) -> mmap.mmap:
    """An open file, not an empty one, as a read-only map.

    With ``ranges`` the caller asks :func:`shrunk` before it reads any part. Otherwise all of the file is there.
    """
    fetch = _elsewhere.get(_identity(descriptor)) if _elsewhere else None
    if fetch is not None and ranges:
        mapped: mmap.mmap = _FetchedMap(descriptor, 0, access=mmap.ACCESS_READ)
        assert isinstance(mapped, _FetchedMap)
        mapped.fetch = fetch
    else:
        if fetch is not None:
            fetch(0, os.fstat(descriptor).st_size)
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    if _expected and _handler is None:
        _install()
    return mapped


def shrunk(mapped: mmap.mmap, start: int, stop: int) -> bool:
    """Whether the file no longer reaches to ``stop``. Costs a system call. Otherwise the part is there to be read."""
    if mapped.size() < stop:
        return True
    if isinstance(mapped, _FetchedMap):
        mapped.fetch(start, stop)
    return False


def read_at(descriptor: int, size: int, start: int) -> bytes:
    """As many bytes of an open file, fewer where it ends before."""
    if _elsewhere and (fetch := _elsewhere.get(_identity(descriptor))) is not None:
        fetch(start, min(start + size, os.fstat(descriptor).st_size))
    return os.pread(descriptor, size, start)


def end_with_a_message_when_a_file_shrinks() -> None:
    """From now on a file that shrinks in the middle of a read ends the process: one message, exit code 2.

    For the process of the command line alone: what others do about SIGBUS is theirs.
    """
    global _expected
    _expected = hasattr(signal, "SIGBUS")


def _install() -> None:
    """Python's own handlers run between two instructions of Python, and the one that failed never ends.

    So the C library calls this one at once. It does not return; the fault is a read of the map, in the midst of no
    allocation or lock, so that Python can still say what happened.
    """
    global _handler
    import ctypes

    libc = ctypes.CDLL(None)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    _handler = kind(_say_and_end)
    libc.signal.argtypes = (ctypes.c_int, kind)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGBUS, _handler)


def _say_and_end(_: int) -> None:
    os.write(2, _MESSAGE)
    os._exit(_TROUBLE)
