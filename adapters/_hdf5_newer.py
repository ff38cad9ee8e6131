"""HDF5 as h5py writes it with ``libver="latest"`` or ``track_order=True``, read by way of a copy in the oldest format.

What wio checks before libhdf5 sees it is the format that Keras writes by itself. The newer one is as large again, so it
is not checked: :mod:`wio.adapters._hdf5_copy` opens it in a process of its own with limits, without a path or a plugin.
What becomes of that process is at worst a message. The copy is checked as any other file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from wio.adapters._hdf5_copy import REFUSED
from wio.adapters._hdf5_structure import check_structure
from wio.adapters._mapped_files import open_regular
from wio.errors import FormatError, printable
from wio.mapping import map_file

_PROGRAM = Path(__file__).with_name("_hdf5_copy.py")
# CPU seconds for a small file, imports included, and what a slow disk still copies in a second.
_SECONDS, _PER_SECOND = 3, 50 << 20
# The machine may be busy: the limit that counts is that of CPU seconds.
_PATIENCE = 20
# A group of the oldest format takes a thousand bytes, one of the newest a tenth of that.
_LARGER, _SMALL = 10, 64 << 20
_KEPT = 4

_COPIES: dict[tuple[object, ...], memoryview | FormatError] = {}


def oldest(path: Path, data: memoryview, member: str | None = None) -> memoryview:
    """The same groups, attributes and arrays as ``data``, in the oldest format, mapped from a file without a name.

    ``data`` is the file at ``path``, or the member of that archive. Several adapters look at a file in turn: the last
    few copies are kept, and so is what was found wrong. Raises FormatError.
    """
    found = path.stat()
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, member)
    if key not in _COPIES:
        try:
            made: memoryview | FormatError = _copied(path, data, member)
        except FormatError as error:
            made = error
        if len(_COPIES) >= _KEPT:
            del _COPIES[next(iter(_COPIES))]
        _COPIES[key] = made
    made = _COPIES[key]
    if isinstance(made, FormatError):
        raise FormatError(made.message, remedy=made.remedy)
    return made


def _copied(path: Path, data: memoryview, member: str | None) -> memoryview:
    try:
        with tempfile.TemporaryFile(prefix="wio-") as made, tempfile.TemporaryFile() as said:
            if member is None:
                descriptor = open_regular(path)
                try:
                    _run(descriptor, made.fileno(), said.fileno(), len(data))
                finally:
                    os.close(descriptor)
            else:
                with tempfile.TemporaryFile(prefix="wio-") as unpacked:
                    unpacked.write(data)
                    unpacked.seek(0)
                    _run(unpacked.fileno(), made.fileno(), said.fileno(), len(data))
            copy = memoryview(map_file(made.fileno()))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(
            f"it is of HDF5 1.8 or later, and cannot be copied into {tempfile.gettempdir()}: {reason}",
            remedy="write it again with h5py, without libver or track_order, or set TMPDIR to a folder with room",
        ) from None
    check_structure(copy)
    return copy


def _run(source: int, target: int, said: int, size: int) -> None:
    """Runs the program over open files; FormatError for whatever it ends with but a copy."""
    seconds = _SECONDS + size // _PER_SECOND
    largest = _SMALL + _LARGER * size
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HDF5_", "PYTHON"))}
    # No plugins; and a pool of threads would only take room.
    environment |= {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    folders = [each for each in sys.path if Path(each).is_absolute()]
    command = [sys.executable, "-I", str(_PROGRAM), str(seconds), str(largest), *folders]
    try:
        ended = subprocess.run(
            command,
            stdin=source,
            stdout=target,
            stderr=said,
            env=environment,
            check=False,
            timeout=_PATIENCE * seconds,
        ).returncode
    except subprocess.TimeoutExpired:
        ended = None
    if ended == 0:
        return
    if ended == REFUSED:
        message = os.pread(said, 1000, 0).decode("utf-8", "replace")
        raise FormatError(f"of HDF5 1.8 or later: {printable(message)}", remedy=_REMEDY)
    raise FormatError(f"libhdf5 {_end(ended, seconds)} over it, in a process of its own", remedy=_REMEDY)


def _end(code: int | None, seconds: int) -> str:
    import signal

    if code is None or (code < 0 and -code in (getattr(signal, "SIGXCPU", 0), getattr(signal, "SIGKILL", 0))):
        return f"worked for more than {seconds} seconds"
    return f"crashed (signal {-code})" if code < 0 else f"gave up (exit {code})"


_REMEDY = "if the file is sound, write it again with h5py, without links, libver or track_order"
