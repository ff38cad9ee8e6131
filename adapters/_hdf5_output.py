"""A new HDF5 file, as every adapter writes one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def created(path: Path) -> Iterator[Any]:
    """The h5py file; the bounds of the library's version keep its bytes the same.

    What the disk refuses (it is full, say) is an OSError with the system's number. HDF5 tells it again when the file is
    closed, and h5py gives that as a RuntimeError with the number somewhere in its text.
    """
    import h5py

    try:
        with h5py.File(path, "w", libver=("earliest", "v108")) as file:
            yield file
    except (OSError, RuntimeError) as error:
        found = re.search(r"errno = (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
