"""Which blocks of a file are there: spans without overlap, in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Spans:
    """A set of whole numbers, kept as spans. As large as it has holes, whatever the size of the file."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def missing(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The spans between ``start`` and ``stop`` that are not in it."""
        for place in range(bisect_right(self._stops, start), len(self._starts)):
            if self._starts[place] >= stop:
                break
            if start < self._starts[place]:
                yield start, self._starts[place]
            start = self._stops[place]
        if start < stop:
            yield start, stop
