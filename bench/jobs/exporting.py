"""Checkpoints into .wio, whole processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from inputs import Inputs
from measure import Command, interleaved, median, run, script, wio
from table import Row, ratio

# The original way through real Keras: 339 s of CPU time, recorded once for the same network, not run again.
ORIGINAL_WAY = 339.0


def rows(inputs: Inputs, runs: int) -> Iterator[Row]:
    out = inputs.folder / "out.wio"
    prefix = inputs.large_checkpoint
    index, data = (Path(f"{prefix}{end}") for end in (".index", ".data-00000-of-00001"))
    copies = [f"{inputs.folder}/copy{end}" for end in (".index", ".data")]
    shell = (
        f"cp --reflink=never {index} {copies[0]} && cp --reflink=never {data} {copies[1]} && sync {' '.join(copies)}"
    )
    commands: list[Command] = [wio("export", prefix, "-o", out), ["sh", "-c", shell], script("sha256", index, data)]
    costs = interleaved(commands, runs, made=(out, *map(Path, copies)))
    one_thread = median(costs[2])
    note = f"one-thread SHA-256 of the same bytes {one_thread.wall:.3g} s ({one_thread.cpu:.3g} CPU)"
    yield ratio(f"export V2, {size(inputs.large)}", "cp, then sync", costs, "<=", 1.5, note=note)
    safe = inputs.folder / "out.safetensors"
    for version, target in (("v2", 15.0), ("v1", 10.0)):
        checkpoint = inputs.inception[version]
        ours = wio("export", checkpoint, "--arch", "inception-v4", "-o", out)
        costs = interleaved([ours, script("tensorflow_export", checkpoint, safe)], runs, made=(out, safe))
        yield ratio(f"export {version.upper()}, 172 MB", "TensorFlow + safetensors", costs, ">=", target)
    yield _whole_port(inputs, runs, out)
    for path in (out, safe, *map(Path, copies)):
        path.unlink(missing_ok=True)


def _whole_port(inputs: Inputs, runs: int, out: Path) -> Row:
    cpu, wall = [], []
    h5 = inputs.folder / "out.h5"
    for _ in range(runs):
        first = run(wio("export", inputs.inception["v2"], "--arch", "inception-v4", "-o", out))
        second = run(wio("import", out, "--into", "keras-theano", "-o", h5))
        cpu.append(first.cpu + second.cpu)
        wall.append(first.wall + second.wall)
    h5.unlink()
    middle, middle_wall = sorted(cpu)[len(cpu) // 2], sorted(wall)[len(wall) // 2]
    ours = f"{middle_wall:.3g} s ({middle:.3g} CPU)"
    times = [ORIGINAL_WAY / each for each in cpu]
    return Row(
        "ckpt -> .wio -> keras-theano, 172 MB",
        "real Keras, as recorded",
        ours,
        f"({ORIGINAL_WAY:.0f} CPU)",
        ORIGINAL_WAY / middle,
        "x",
        ">=",
        300,
        min(times),
        max(times),
        "by CPU time",
    )


def size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.0f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
