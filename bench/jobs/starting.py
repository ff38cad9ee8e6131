"""What it takes to begin."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from inputs import Inputs
from measure import interleaved, median, wio
from table import Row, amount


def rows(_inputs: Inputs, runs: int) -> Iterator[Row]:
    commands = [wio("--help"), [sys.executable, "-c", "import numpy, wio"], [sys.executable, "-c", "import numpy"]]
    help_costs, with_wio, without = interleaved(commands, 2 * runs)
    yield amount("wio --help", help_costs, 0.15, "wall")
    over = [one.cpu - other.cpu for one, other in zip(with_wio, without, strict=True)]
    value = median(with_wio).cpu - median(without).cpu
    yield Row("import wio over import numpy", "", "", "", value, "s", "<=", 0.05, min(over), max(over), "CPU time")
