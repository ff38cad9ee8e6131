"""The peak of anonymous memory while files far larger than it are ported."""

from __future__ import annotations

from collections.abc import Iterator

from inputs import Inputs
from measure import Command, run, wio
from table import Row

from jobs.exporting import size

MB = 1e6


def rows(inputs: Inputs, _runs: int) -> Iterator[Row]:
    """One run of each: what is measured is a peak, not a time."""
    source = inputs.huge_wio
    checkpoint, out = inputs.folder / "huge.ckpt", inputs.folder / "huge.out"
    largest = 9 * 1024 * 1024 * 4
    made: dict[str, Command] = {
        "import -> tf-checkpoint": wio("import", source, "--into", "tf-checkpoint", "-o", checkpoint),
        "export": wio("export", checkpoint, "-o", out),
        "import -> keras-theano": wio("import", source, "--into", "keras-theano", "-o", out),
        "diff, every byte read": wio("diff", source, source, "--digests"),
    }
    limit = (200e6 + 2 * largest) / MB
    for name, command in made.items():
        peak = run(command, watch=True).anonymous / MB
        yield Row(
            f"memory: {name}, {size(inputs.huge)}", "", "", "", peak, "MB", "<=", limit, peak, peak, "peak RssAnon"
        )
    out.unlink()
    for path in inputs.folder.glob("huge.ckpt.*"):
        path.unlink()
