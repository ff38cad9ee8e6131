"""How long a terabyte takes on a cluster: what a worker and the scheduler cost is measured, the cluster is simulated.

    python bench/scaling.py [--measured FILE] [--json OUT]

Processor time is what is measured, not the wall's: the table must not tell how busy this machine was. docs/scaling.md
has a table with its assumptions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import wio
from wio.bundle import Bundle, Tensor
from wio.cluster import plan_digest
from wio.dtypes import dtype_of
from wio.layout import Layout
from wio.port import ready_to_export
from wio.shard_index import index_path, parse_index
from wio.sharded_writer import write_shard

MB, GB, TB = 10**6, 10**9, 10**12
TIMES = 5


@dataclass(frozen=True)
class Measured:
    """Processor seconds, medians. ``keep`` and ``neutral`` are those of a worker for a byte of a shard (hashed, and
    rearranged besides), ``plan`` of planning for a tensor, ``task`` of scheduler and client for a shard, ``index`` of
    writing and of reading the index for a shard."""

    keep: float
    neutral: float
    plan: float
    task: float
    index: float


@dataclass(frozen=True)
class Cluster:
    """``shared`` and ``link``: bytes a second of the file system for all workers together, and for one of them."""

    workers: int
    shared: float
    link: float


def measured() -> Measured:
    with tempfile.TemporaryDirectory(prefix="wio-scaling-") as folder:
        keep, neutral = (_worker(Path(folder), layout) for layout in ("keep", "neutral"))
        plan, index = _planning(Path(folder))
    return Measured(keep, neutral, plan, _scheduler(), index)


def _spent(work: Callable[[], object]) -> float:
    """The median processor time, of all threads."""
    found = []
    for _ in range(TIMES):
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return statistics.median(found)


def _worker(folder: Path, layout: str) -> float:
    """One shard of 300 MB of kernels, 3 x 3 x 512 x 512, its source in the cache of the system."""
    array = np.random.default_rng(0).standard_normal((3, 3, 512, 512)).astype("f4")
    kernels = [
        Tensor(f"conv{k}/kernel", dtype_of(array), array.shape, lambda: array, "conv.kernel", Layout.parse("OIHW"))
        if layout == "neutral"
        else Tensor(f"conv{k}/kernel", dtype_of(array), array.shape, lambda: array)
        for k in range(32)
    ]
    source = folder / f"{layout}.wio"
    wio.save(Bundle(kernels), source)
    made = ready_to_export(source, layout=layout).plan.apply()
    return _spent(lambda: write_shard(made, folder / "shard", list(made))) / made.nbytes


def _planning(folder: Path) -> tuple[float, float]:
    """Of a set of 500 shards with 40 tensors each: opening and planning it, for a tensor; its index, for a shard."""
    array = np.zeros(4, "f4")
    names = [f"layers.{k // 40}.block{k % 40}.weight" for k in range(20_000)]
    small = Bundle(Tensor(name, dtype_of(array), array.shape, lambda: array) for name in names)
    out = folder / "m.wio"
    wio.save(small, out, shard_size=40 * 16)
    raw = index_path(out).read_bytes()
    plan = _spent(lambda: plan_digest(ready_to_export(out).plan)) / len(names)
    return plan, _spent(lambda: (parse_index(raw, "index").encoded(), wio.open(out))) / 500


def _scheduler() -> float:
    """Scheduler and client are in this process, two workers are not; a task has 40 names, and gives a result each."""
    from distributed import Client, LocalCluster

    names = tuple(f"layers.10.block{k}.weight" for k in range(40))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:

        def work() -> None:
            run = time.monotonic_ns()
            tasks = [client.submit(_nothing, names, k, key=f"{run}-{k}") for k in range(500)]
            for task in tasks:
                task.result()

        return _spent(work) / 500


def _nothing(names: tuple[str, ...], _: int) -> dict[str, str]:
    return dict.fromkeys(names, "0" * 64)


# --- the model


def seconds(total: int, shard: int, tensors: int, rate: float, cluster: Cluster, cost: Measured) -> float:
    """How long a port of ``total`` bytes takes, each byte read once and written once.

    The client plans, and so does each worker before its first shard. Tasks are handed out one after the other. A shard
    is read, computed and written without overlap; those that are at the file system share it evenly. The client writes
    the index when the last is done, and opens the set.
    """
    shards = -(-total // shard)
    planning = tensors * cost.plan
    computing = shard * rate
    # In waves, as the shards are of one size: in each, all workers are at the file system for the same share of it.
    active = min(cluster.workers, shards)
    moving = 2 * shard / min(cluster.link, cluster.shared / active)
    waves = -(-shards // active)
    handing = shards * cost.task
    return 2 * planning + max(waves * (computing + moving), handing) + active * cost.task + shards * cost.index


SIZES = ((TB, 2 * GB), (TB, 10 * GB))
TENSORS = 20_000
WORKERS = (1, 10, 50, 100, 200)
FILE_SYSTEMS = ((5 * GB, 1.25 * GB), (50 * GB, 1.25 * GB), (200 * GB, 3 * GB))


def table(cost: Measured) -> list[str]:
    lines = ["| shards of | layout | file system, all / one | " + " | ".join(f"{n} workers" for n in WORKERS) + " |"]
    lines.append("| " + " | ".join(["---"] * (len(WORKERS) + 3)) + " |")
    for total, shard in SIZES:
        for layout, rate in (("kept", cost.keep), ("neutral", cost.neutral)):
            for shared, link in FILE_SYSTEMS:
                cells = []
                alone = seconds(total, shard, TENSORS, rate, Cluster(1, shared, link), cost)
                for workers in WORKERS:
                    took = seconds(total, shard, TENSORS, rate, Cluster(workers, shared, link), cost)
                    cells.append(f"{took:.0f} s ({alone / took:.0f}x)")
                where = f"{shared / GB:g} / {link / GB:g} GB/s"
                lines.append(f"| {shard / GB:g} GB | {layout} | {where} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="the scaling of --dask, by measured costs")
    parser.add_argument("--measured", type=Path, help="costs that were measured before (JSON)")
    parser.add_argument("--json", type=Path, help="where to keep the costs")
    arguments = parser.parse_args()
    cost = Measured(**json.loads(arguments.measured.read_text())) if arguments.measured else measured()
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(cost), indent=1) + "\n")
    print(f"a worker, layouts kept: {1 / cost.keep / MB:.0f} MB for a second of processor time")
    print(f"a worker, made neutral: {1 / cost.neutral / MB:.0f} MB")
    print(f"planning: {cost.plan * 1e6:.0f} us a tensor; scheduler and client: {cost.task * 1e3:.1f} ms a shard")
    print(f"index: {cost.index * 1e3:.1f} ms a shard")
    print("\n".join(table(cost)))


if __name__ == "__main__":
    main()
