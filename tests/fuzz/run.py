"""Runs fuzzers, in the folder tests: ``python -m fuzz.run --minutes 20 [--at-once 2] [READER ...]``.

``--runs 500`` instead of minutes: so many inputs of each reader, drawn from one seed, and from nothing that an earlier
run left behind; what it finds does not depend on how fast the machine is.

Every reader gets a process of its own, coverage-guided by atheris (libFuzzer). What it finds is kept: one input for
each cause goes into ``corpus/READER``, where ordinary tests replay it; inputs that reach new code go into ``--work``,
for the next run to begin with. A reader whose process dies (a crash in C, or no answer in time) is started again for
the rest of its time. Exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import pkgutil
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
# A judge that has TensorFlow or PyTorch in its process needs their gigabyte beside what an input may take.
# libFuzzer's own limits of time are as good as off: they go by the clock, which a busy machine runs past. 0 will not
# do, for atheris takes it for no time at all.
_LIMITS = (
    *("-timeout=1000000", "-report_slow_units=1000000", "-rss_limit_mb=4096", "-malloc_limit_mb=512"),
    *("-print_final_stats=1", "-verbosity=1"),
)
# Of CPU, for one input, its judging included: what takes longer would never end, and its process is ended.
_HANGS = 120
_SHORTEST = 2
_CURRENT = "current"


@dataclass
class Report:
    """What the fuzzing of one reader came to. ``accepted`` inputs were read, and judged by the format's library."""

    reader: str
    seconds: float = 0
    executions: int = 0
    accepted: int = 0
    coverage: int = 0
    restarts: int = 0
    findings: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        found = "; ".join(f"{key} ({name})" for key, name in self.findings.items()) or "nothing"
        return (
            f"{self.reader}: {self.executions:,} executions in {self.seconds:.0f} s, {self.accepted:,} accepted, "
            f"coverage {self.coverage}, {self.restarts} restarts; found: {found}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--minutes", type=float, default=20, help="for each reader")
    parser.add_argument("--runs", type=int, default=0, help="inputs of each reader, instead of minutes")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=HERE.parent.parent / ".cache" / "fuzz")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return _fuzz(options.readers[0], options.minutes * 60, options.runs, options.work)
    known = sorted(path.name for path in CORPUS.iterdir())
    if unknown := set(options.readers) - set(known):
        parser.error(f"no reader is called {', '.join(unknown)}; there are {', '.join(known)}")
    if options.runs:
        options.work /= "runs"
        shutil.rmtree(options.work, ignore_errors=True)
    with ThreadPoolExecutor(options.at_once) as pool:
        reports = list(
            pool.map(
                lambda name: _run(name, options.minutes * 60, options.runs, options.work / name),
                options.readers or known,
            )
        )
    (options.work / "report.json").write_text(json.dumps([asdict(each) for each in reports], indent=1))
    found = sum(len(each.findings) for each in reports)
    print(f"{sum(each.executions for each in reports):,} executions, {found} findings")
    return 1 if found else 0


# --- the process that starts the fuzzers


def _run(name: str, seconds: float, runs: int, work: Path) -> Report:
    """Fuzzes one reader for that long, begun anew as often as its process dies; or for so many runs, begun once."""
    (work / "inputs").mkdir(parents=True, exist_ok=True)
    report = Report(name)
    log = work / "log"
    log.write_bytes(b"")
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > min(_SHORTEST, seconds / 2):
        began = time.monotonic()
        words = [sys.executable, "-m", "fuzz.run", "--one", name, f"--minutes={left / 60}", f"--work={work}"]
        words.append(f"--runs={runs}")
        with log.open("ab") as file:
            # Sets are in one order, as everything else that a seed does not settle.
            fixed = {**os.environ, "PYTHONHASHSEED": "0"}
            code = subprocess.run(words, cwd=HERE.parent, env=fixed, stdout=file, stderr=file, check=False).returncode
        took = time.monotonic() - began
        _count(report, work, log)
        report.seconds += took
        if code == 0:
            break
        if runs:
            report.findings.setdefault(f"died, exit {code}", str(log))
        report.restarts += 1
        _crashed(report, work, code)
        if runs:
            break
        if took < _SHORTEST and report.restarts > 3:
            report.findings["it does not start"] = str(log)
            break
    print(report.line(), flush=True)
    return report


def _count(report: Report, work: Path, log: Path) -> None:
    """What a process counted before it ended, however it ended."""
    state = work / "state.json"
    if state.is_file():
        counted = json.loads(state.read_text())
        report.executions += counted["executions"]
        report.accepted += counted["accepted"]
        report.findings |= counted["findings"]
        state.unlink()
    covered = re.findall(rb"cov: (\d+)", log.read_bytes())
    report.coverage = max([report.coverage, *map(int, covered[-1:])])


def _crashed(report: Report, work: Path, code: int) -> None:
    """Keeps the input over which a process died; libFuzzer wrote it, or, where the CPU time ran out, ``once`` did."""
    current = work / _CURRENT
    if code == -signal.SIGXCPU:
        report.findings["hangs"] = _keep(report.reader, current.read_bytes())
    for artefact in sorted(work.glob("died-*")):
        kind = artefact.name.removeprefix("died-").partition("-")[0]
        report.findings[f"{kind}, exit {code}"] = _keep(report.reader, artefact.read_bytes())
        artefact.unlink()


def _keep(reader: str, data: bytes) -> str:
    """Puts an input into the corpus, under its digest."""
    name = hashlib.sha256(data).hexdigest()[:16]
    (CORPUS / reader / name).write_bytes(data)
    return name


# --- the process that fuzzes one reader


def _fuzz(name: str, seconds: float, runs: int, work: Path) -> int:
    import atheris

    with atheris.instrument_imports(include=["wio"]):
        _import_all_of_wio()
    from fuzz import wire
    from fuzz.readers import READERS
    from fuzz.reading import examine

    reader = READERS[name]
    shared_memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared_memory if shared_memory.is_dir() else None, prefix="fuzz-"))
    state = work / "state.json"
    seeds = work / "seeds"
    seeds.mkdir(exist_ok=True)
    for number, seed in enumerate(reader.seeds()):
        (seeds / f"{number:03}").write_bytes(seed)
        # Once before anything is counted or watched: what is imported late is imported now.
        for _ in range(2):
            examine(reader, seed, folder, judged=True)
    counted = {"executions": 0, "accepted": 0}
    findings: dict[str, str] = {}
    written = time.monotonic()

    def once(data: bytes) -> None:
        nonlocal written
        (work / _CURRENT).write_bytes(data)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + _HANGS, resource.RLIM_INFINITY))
        outcome = examine(reader, data, folder, judged=True)
        counted["executions"] += 1
        counted["accepted"] += outcome.values is not None
        for key, detail in outcome.wrong.items():
            if key not in findings:
                findings[key] = _keep(name, data)
                print(f"FOUND in {name}: {key}: {findings[key]}\n{detail}", file=sys.stderr, flush=True)
        if time.monotonic() - written > 1 or outcome.wrong or counted["executions"] == runs:
            # Whole or not at all: the process may die here as anywhere.
            state.with_suffix(".new").write_text(json.dumps({**counted, "findings": findings}))
            state.with_suffix(".new").replace(state)
            written = time.monotonic()

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Keeps the form of an input, mostly, and the lengths of messages where it is one."""
        draw = random.Random(seed)
        if len(data) < 2 or draw.random() < 0.02:
            return bytes(atheris.Mutate(data, most))
        body = data[1:]

        def bend(part: bytes) -> bytes:
            if part and draw.random() < 0.5:
                place = draw.randrange(len(part))
                return part[:place] + draw.randbytes(1) + part[place + 1 :]
            return bytes(atheris.Mutate(part, max(len(part) + 16, 32)))

        if reader.form(data).wire and draw.random() < 0.8:
            for _ in range(draw.choice((1, 1, 2, 4))):
                body = wire.mutated(body, draw, bend)
        else:
            body = bytes(atheris.Mutate(body, most - 1))
        return (data[:1] + body)[:most]

    length = ["-seed=1", f"-runs={runs}"] if runs else [f"-max_total_time={max(int(seconds), 1)}"]
    words = [*length, f"-max_len={reader.largest}", f"-artifact_prefix={work}/died-"]
    atheris.Setup(
        [name, *_LIMITS, *words, str(work / "inputs"), str(CORPUS / name), str(seeds)], once, custom_mutator=mutate
    )
    atheris.Fuzz()
    return 0


def _import_all_of_wio() -> None:
    """Modules are instrumented as they are imported, and many are imported late."""
    import wio
    import wio.adapters

    for package in (wio, wio.adapters):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(("wio.testing", "wio.__main__", "wio.cli", "wio.running")):
                importlib.import_module(found.name)


if __name__ == "__main__":
    sys.exit(main())
