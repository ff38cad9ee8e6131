"""A kernel from HWIO to OIHW flipped, in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from inputs import Inputs
from measure import Cost, interleaved, script
from table import Row, ratio

LARGE = ((3, 3, 512, 512), (1, 1, 1536, 1536), (3, 3, 256, 384), (1, 1, 1024, 256))
SMALL = ((3, 3, 32, 64), (1, 1, 160, 128), (5, 5, 3, 32))


def rows(_inputs: Inputs, runs: int) -> Iterator[Row]:
    for shape in LARGE:
        for threads, target, clock in ((1, 3.0, "cpu"), (2, 5.0, "wall")):
            count = "one thread" if threads == 1 else "two threads"
            costs = _costs(threads, shape, runs)
            yield ratio(f"rearrange {_text(shape)}, {count}", "np.ascontiguousarray", costs, ">=", target, clock)
    for shape in SMALL:
        costs = _costs(2, shape, runs)
        note = "never slower: 1 within noise"
        yield ratio(f"rearrange {_text(shape)}", "np.ascontiguousarray", costs, ">=", 0.9, "cpu", note)


def _costs(threads: int, shape: tuple[int, ...], runs: int) -> list[list[Cost]]:
    ours, theirs = script("rearrange", "wio", threads, *shape), script("rearrange", "numpy", 1, *shape)
    return interleaved([ours, theirs], runs, (True, True))


def _text(shape: tuple[int, ...]) -> str:
    return f"{'x'.join(map(str, shape))} ({math.prod(shape) * 4 / 1e6:.2g} MB)"
