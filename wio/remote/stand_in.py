"""Files of this machine that stand in for files elsewhere: of their size, and filled with what is read of them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from wio import mapping
from wio.errors import WioError
from wio.places import as_called
from wio.remote.limits import pause, retries
from wio.remote.source import AgainError, Entry, RemoteError, Source
from wio.remote.spans import Spans

BLOCK = 1 << 16
# Of what is read in one sweep this part is fetched ahead, so that many small tensors are few requests.
_AHEAD_OF, _MOST_AHEAD = 4, 8 << 20

Progress = Callable[[int], None]


class StandIn:
    """One sparse file. Any thread may fetch; each block is fetched once."""

    def __init__(self, source: Source, entry: Entry, path: Path) -> None:
        self.path, self._source, self._entry = path, source, entry
        self._there = Spans()
        self._lock = threading.Lock()
        self._sweep = self._end = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            try:
                file.truncate(entry.size)
            except (OSError, OverflowError):
                raise RemoteError(f"{path} is said to have {entry.size} bytes, which no file here can have") from None
        mapping.stand_in(path, self.fetch)

    def fetch(self, start: int, stop: int, progress: Progress | None = None) -> None:
        """These bytes are in the file afterwards, or RemoteError was raised."""
        size = self._entry.size
        if not self._entry.ranges:
            start, stop = 0, size
        last = -(-size // BLOCK)
        with self._lock:
            for first, end in list(self._there.missing(start // BLOCK, min(-(-stop // BLOCK), last))):
                self._sweep = self._sweep if first == self._end else 0
                ahead = min(self._sweep // _AHEAD_OF, _MOST_AHEAD // BLOCK)
                # Up to the next block that is there: none is fetched twice.
                _, end = next(self._there.missing(first, min(end + ahead, last)))
                self._fill(first * BLOCK, min(end * BLOCK, size), progress)
                self._sweep, self._end = self._sweep + end - first, end

    def complete(self, progress: Progress | None = None) -> None:
        """All of it; WioError where the disk has no room."""
        room = shutil.disk_usage(self.path.parent).free
        if self._entry.size - self.path.stat().st_blocks * 512 > room:
            raise WioError(
                f"{self.path}: its {self._entry.size} bytes do not fit on the disk for temporary files ({room} free)",
                remedy="TMPDIR names another folder",
            )
        self.fetch(0, self._entry.size, progress)

    def close(self) -> None:
        if self.path.exists():
            mapping.stand_in(self.path, None)

    def _fill(self, start: int, stop: int, progress: Progress | None) -> None:
        at, attempt = start, 0
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            while at < stop:
                before = at
                try:
                    for data in self._source.pieces(self._entry, at, stop):
                        if len(data) > stop - at:
                            raise RemoteError(f"{self.path}: the server gives more than it was asked for")
                        _write_all(descriptor, data, at)
                        at += len(data)
                        self._there.add(start // BLOCK, at // BLOCK)
                        if progress:
                            progress(len(data))
                    if at < stop:
                        raise AgainError("the answer ends too early")
                except AgainError as error:
                    # What came is right; an answer that brings a good deal is no failure.
                    attempt = attempt + 1 if at - before < BLOCK else 1
                    if attempt > retries():
                        raise given_up(self.path, error) from None
                    pause(attempt - 1, error.after)
            self._there.add(start // BLOCK, -(-stop // BLOCK))
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        try:
            written = os.pwrite(descriptor, view, at)
        except OSError as error:
            raise WioError(f"the disk for temporary files: {error.strerror}", remedy="TMPDIR names another") from None
        view, at = view[written:], at + written


def given_up(path: Path, error: AgainError) -> RemoteError:
    return RemoteError(
        f"{as_called(str(path))}: {error.message}", remedy="the server is not well, or not reachable; try again later"
    )
