"""A new HDF5 file, as every adapter writes one."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

_NUMBER = re.compile(r"errno = (\d+)")
# HDF5 writes again when an object of a file that it could not close goes, and h5py prints a traceback of that: so
# these stay, in the frames of the error that they led to.
_unclosed: list[OSError] = []


@contextlib.contextmanager
def created(path: Path) -> Iterator[Any]:
    """The h5py file; the bounds of the library's version keep its bytes the same.

    What the disk refuses (it is full, say) is an OSError with the system's number. HDF5 may tell it when an object
    goes, where no exception can be raised, and when the file is closed, which h5py gives as a RuntimeError.
    """
    import h5py

    lost: list[BaseException] = []
    usual = sys.excepthook, sys.unraisablehook

    # Cython prints the traceback of what it cannot raise by the one, and says where that was by the other.
    def excepted(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        if not _noted(value, lost):
            usual[0](kind, value, trace)

    def unraisable(told: Any) -> None:
        if not _noted(told.exc_value, lost):
            usual[1](told)

    sys.excepthook, sys.unraisablehook = excepted, unraisable
    try:
        with h5py.File(path, "w", libver=("earliest", "v108")) as file:
            yield file
        if lost:
            raise lost[0]
    except (OSError, RuntimeError) as error:
        found = _NUMBER.search(str(error))
        if found is None:
            raise
        refused = OSError(int(found[1]), os.strerror(int(found[1])))
        _unclosed.append(refused)
        raise refused from error
    finally:
        sys.excepthook, sys.unraisablehook = usual


def _noted(error: BaseException | None, lost: list[BaseException]) -> bool:
    if not isinstance(error, RuntimeError) or not _NUMBER.search(str(error)):
        return False
    lost.append(error)
    return True
