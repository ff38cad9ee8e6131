"""wio against its peers, side by side on the same files: text, JSON and a plot.

    python bench/run.py [--fast] [--only JOB ...] [--folder DIR] [--out DIR]

Times are medians of interleaved runs, whole processes where a user waits for one. The full run takes up to 30 GB of a
temporary folder, which is removed. ``--fast`` runs small files and fewer runs: a look, not a measurement.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from inputs import Inputs
from table import as_json, plot, text

JOBS = ("starting", "rearranging", "inspecting", "reading", "comparing", "importing", "exporting", "growing", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="64 MB for 1 GB and for 8, 10,000 tensors, three runs")
    parser.add_argument("--only", nargs="+", choices=JOBS, default=JOBS, metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("--runs", type=int, help="runs of each pair, 5 by default")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where results.* are written")
    options = parser.parse_args()
    runs = options.runs or (3 if options.fast else 5)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        large, huge, many = (64 << 20, 64 << 20, 10_000) if options.fast else (1 << 30, 8 << 30, 100_000)
        inputs = Inputs(Path(folder), large, huge, many)
        for job in options.only:
            started = time.perf_counter()
            rows += import_module(f"jobs.{job}").rows(inputs, runs)
            print(f"{job}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    facts: dict[str, object] = {"machine": machine(), "load": os.getloadavg()[0], "runs": runs, "fast": options.fast}
    title = f"wio, {'small files, a look only' if options.fast else 'full run'}: {facts['machine']}"
    table = f"{title}; load {os.getloadavg()[0]:.1f}, medians of {runs}\n\n{text(rows)}\n"
    print(table)
    name = "results-fast" if options.fast else "results"
    for end, content in (("txt", table), ("json", as_json(rows, facts)), ("svg", plot(rows, title))):
        (options.out / f"{name}.{end}").write_text(content, "utf-8")


def machine() -> str:
    """The processor, its cores, the memory and the system."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
