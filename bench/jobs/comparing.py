"""``wio diff``, whole processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from inputs import Inputs
from measure import interleaved, script, wio
from table import Row, amount, ratio

from jobs.exporting import size


def rows(inputs: Inputs, runs: int) -> Iterator[Row]:
    copy = inputs.folder / "copy.wio"
    shutil.copyfile(inputs.large_wio, copy)
    (costs,) = interleaved([wio("diff", inputs.large_wio, copy)], runs)
    yield amount(f"diff of two equal .wio, {size(inputs.large)}", costs, 0.25, note="digests, not data")
    copy.unlink()
    pair = (inputs.large_wio, inputs.large_oihw)
    costs = interleaved([wio("diff", *pair), script("transposed_equal", *pair)], runs, (False, True))
    yield ratio(
        f"diff HWIO against OIHW, {size(inputs.large)} each", "np.array_equal, transposed view", costs, "<=", 0.6
    )
