"""Files mapped into memory, and what happens when one of them becomes shorter while it is read.

A read beyond the new end of a mapped file is no exception: the system sends SIGBUS, and a process that does not expect
it is gone without a word. The command line expects it; nothing is written then. Readers ask :func:`shrunk` before they
hand out a part of the file, so that what happened before that is an error like others.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable

_MESSAGE = b"""wio: a file became shorter while it was read; nothing was written
  -> let whatever writes it come to its end, then try again
"""
_TROUBLE = 2
_handler: Callable[[int], None] | None = None
_expected = False


def map_file(descriptor: int) -> mmap.mmap:
    """An open file, not an empty one, as a read-only map."""
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    if _expected and _handler is None:
        _install()
    return mapped


def shrunk(mapped: mmap.mmap, stop: int) -> bool:
    """Whether the file no longer reaches to ``stop``. Costs a system call."""
    return mapped.size() < stop


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
