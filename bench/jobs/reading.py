"""Every tensor of a .wio file read once."""

from __future__ import annotations

from collections.abc import Iterator

from inputs import Inputs
from measure import interleaved, script
from table import Row, ratio

from jobs.exporting import size


def rows(inputs: Inputs, runs: int) -> Iterator[Row]:
    commands = [script(name, inputs.large_wio) for name in ("read_wio", "read_safetensors")]
    costs = interleaved(commands, runs, (True, True))
    yield ratio(f"read every tensor, {size(inputs.large)} .wio", "safe_open", costs, "<=", 1.05)
