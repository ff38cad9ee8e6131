"""What reading may not do: open other files, write, start processes, import a framework, run code; nor take long.

Python announces such acts to audit hooks (PEP 578; the events are listed in the Library Reference, "Audit events").
Libraries in C that open files themselves, as HDF5 does, are not seen here.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frameworks import FRAMEWORKS

CPU_SECONDS = 5.0
MEMORY = 300 << 20
# Events that say that something else than reading happens. Looking at a folder, and mapping a file, are reading.
_ACTS = (
    *("exec", "code.__new__", "marshal.", "pickle.", "ctypes.", "cpython.run_", "builtins.input"),
    *(
        "os.",
        "shutil.",
        "socket.",
        "subprocess.",
        "tempfile.",
        "urllib.",
        "http.",
        "ftplib.",
        "sqlite3.",
        "webbrowser.",
    ),
)
_LOOKING = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
_COPIER = "_hdf5_newer.py"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Watched:
    """What was seen while a file was read; ``wrong`` is empty if it was read as it should."""

    folder: Path
    wrong: list[str] = field(default_factory=list)


_now: Watched | None = None
_hooked = False


class Forbidden(BaseException):
    """Stops an act that reading a file must not do. No handler of ``Exception`` may hide it."""


@contextlib.contextmanager
def watching(folder: Path, size: int) -> Iterator[Watched]:
    """Watches what happens within; ``size`` is that of the input, which memory may hold besides."""
    global _now, _hooked
    if not _hooked:
        sys.addaudithook(_seen)
        _hooked = True
    found = Watched(folder)
    before = _reset_peak()
    start = time.process_time()
    # Names that are opened relative to an open folder have no folder in their event.
    with contextlib.chdir(folder):
        _now = found
        try:
            yield found
        except Forbidden:
            pass
        finally:
            _now = None
    if (took := time.process_time() - start) > CPU_SECONDS:
        found.wrong.append(f"slow: {took:.0f} s of CPU")
    if (grew := _peak() - before - size) > MEMORY:
        found.wrong.append(f"memory: {grew >> 20} MB more")


def _seen(event: str, arguments: tuple[Any, ...]) -> None:
    if _now is None:
        return
    what = _forbidden(event, arguments, _now.folder)
    if what is not None and not _expected():
        _now.wrong.append(what)
        raise Forbidden(what)


def _forbidden(event: str, arguments: tuple[Any, ...], folder: Path) -> str | None:
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, int):
            return None
        place = Path(os.path.realpath(os.fsdecode(path)))
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & _WRITING):
            return f"open: {place.name} to write"
        return None if place.is_relative_to(folder) else f"open: {place}"
    if event == "import":
        return f"import: {arguments[0]}" if str(arguments[0]).partition(".")[0] in FRAMEWORKS else None
    return event if event.startswith(_ACTS) and event not in _LOOKING else None


def _expected() -> bool:
    """Whether Python is importing a module of wio's or of its dependencies, which opens, unmarshals and executes it; or
    wio has a newer HDF5 file copied, in a process with limits, to files without a name."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_code.co_filename.endswith(_COPIER):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _reset_peak() -> int:
    """Forgets the process's peak of memory (proc_pid_clear_refs(5)); gives what it holds now, in bytes."""
    with contextlib.suppress(OSError), Path("/proc/self/clear_refs").open("w") as file:
        file.write("5")
    return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
