"""What a process costs: wall and processor time, and the memory that is its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIO = str(Path(sys.executable).with_name("wio"))
SCRIPTS = Path(__file__).parent / "scripts"
Command = Sequence[str]


@dataclass(frozen=True)
class Cost:
    """``wall`` and ``cpu`` (user and system) in seconds; ``anonymous``: the peak of RssAnon in bytes, if watched."""

    wall: float
    cpu: float
    anonymous: int = 0


def script(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]


def wio(*arguments: object) -> list[str]:
    return [WIO, *map(str, arguments)]


def run(command: Command, *, watch: bool = False, inner: bool = False) -> Cost:
    """One process. ``inner``: it measures itself and prints its cost as JSON, last; its set-up does not count."""
    # What an earlier run left to be written must not be paid for by this one: wio syncs its file, peers may not.
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE if inner else subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while watch and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, _anonymous(process.pid))
        time.sleep(0.004)
    printed = process.stdout.read() if process.stdout else b""
    errors = process.stderr.read() if process.stderr else b""
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{errors.decode()}")
    if inner:
        told = json.loads(printed.splitlines()[-1])
        return Cost(told["wall"], told["cpu"], peak)
    return Cost(wall, used.ru_utime + used.ru_stime, peak)


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def interleaved(
    commands: Sequence[Command], runs: int, inner: Sequence[bool] = (), made: Sequence[Path] = ()
) -> list[list[Cost]]:
    """The costs of each command, which take turns: what disturbs the machine disturbs them all.

    What they have ``made`` is removed before each: giving up an old file of 1 GB takes a third of a second.
    """
    costs: list[list[Cost]] = [[] for _ in commands]
    for _ in range(runs):
        for k, command in enumerate(commands):
            for path in made:
                path.unlink(missing_ok=True)
            costs[k].append(run(command, inner=bool(inner) and inner[k]))
    return costs


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        max(cost.anonymous for cost in costs),
    )
