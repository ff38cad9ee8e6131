"""``wio inspect``, whole processes."""

from __future__ import annotations

from collections.abc import Iterator

from inputs import Inputs
from measure import interleaved, wio
from table import Row, amount

from jobs.exporting import size


def rows(inputs: Inputs, runs: int) -> Iterator[Row]:
    files = [inputs.large_checkpoint, inputs.large_wio, inputs.many_wio]
    costs = interleaved([wio("inspect", path) for path in files], runs)
    names = [f"checkpoint, {size(inputs.large)}", f".wio, {size(inputs.large)}", f"{inputs.many:,} tensors"]
    for name, target, cost in zip(names, (0.3, 0.3, 1.5), costs, strict=True):
        yield amount(f"inspect {name}", cost, target)
