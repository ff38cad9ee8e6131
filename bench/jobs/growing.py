"""Cost grows linearly with bytes and with the number of tensors: a power fitted over sizes, which should be 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from inputs import Inputs, kernels, small
from measure import run, wio
from table import Row

import wio as package
from wio.bundle import Bundle

BYTES = (64 << 20, 256 << 20, 1 << 30, 8 << 30)
TENSORS = (10, 100, 1_000, 10_000, 100_000)


def rows(inputs: Inputs, runs: int) -> Iterator[Row]:
    sizes = [size for size in BYTES if size <= inputs.huge]
    counts = [count for count in TENSORS if count <= inputs.many]
    yield _fitted(inputs, "bytes", sizes, lambda size: kernels(size, 512), runs)
    yield _fitted(inputs, "number of tensors", counts, small, runs)


def _fitted(inputs: Inputs, what: str, sizes: Sequence[int], made: Callable[[int], Bundle], runs: int) -> Row:
    """The power of the size by which the CPU time of an export grows, start-up taken off, and from step to step."""
    path, out = inputs.folder / "growing.wio", inputs.folder / "growing-out.wio"
    start = min(_cost(path, out, made(1)) for _ in range(runs))
    costs = [min(_cost(path, out, made(size)) for _ in range(3)) - start for size in sizes]
    points = [(math.log(size), math.log(cost)) for size, cost in zip(sizes, costs, strict=True) if cost > 0.05]
    mean_x, mean_y = (sum(each) / len(points) for each in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    power = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 1.0
    steps = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)] or [power]
    told = ", ".join(f"{size:,}: {cost:.3g} s" for size, cost in zip(sizes, costs, strict=True))
    note = f"power fitted to CPU time above start-up: {told}"
    path.unlink()
    out.unlink()
    return Row(f"export grows with the {what}", "", "", "", power, "", "<=", 1.1, min(steps), max(steps), note)


def _cost(path: Path, out: Path, bundle: Bundle) -> float:
    package.save(bundle, path)
    return run(wio("export", path, "-o", out)).cpu
