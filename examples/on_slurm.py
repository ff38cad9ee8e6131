"""Runs one wio command on SLURM, by dask-jobqueue.

``python -m on_slurm WORKERS export SRC -o OUT.wio --shard-size 2GB``: change partition, memory and time to those of
your site. The scheduler lives in this process, so run it where it may stay.
"""

from __future__ import annotations

import sys

import dask_jobqueue

from wio.cli.main import main


def run(workers: int, command: list[str]) -> int:
    """One job for each worker: one core, for wio hashes and writes on threads of its own."""
    asked = {"cores": 1, "processes": 1, "memory": "8GB", "walltime": "02:00:00"}
    with dask_jobqueue.SLURMCluster(queue="batch", **asked) as cluster:
        cluster.scale(jobs=workers)
        return main([*command, "--dask", cluster.scheduler_address])


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
