"""A Dask scheduler and workers, each a process of its own on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Cluster:
    folder: Path
    environment: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(json.loads((self.folder / "scheduler.json").read_text())["address"])

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"log-{len(self.processes)}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--no-dashboard"],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def add_worker(self) -> subprocess.Popen[bytes]:
        """One process, which nobody starts again when it dies."""
        folder = self.folder / f"worker-{len(self.processes)}"
        flags = ("--no-nanny", "--nthreads", "1", "--death-timeout", "120", "--local-directory", str(folder))
        return self.start("worker", "--scheduler-file", str(self.folder / "scheduler.json"), *flags)

    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("log-*")))


@contextlib.contextmanager
def running(folder: Path, workers: int, environment: Mapping[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(folder, environment)
    try:
        written = folder / "scheduler.json"
        scheduler = cluster.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(written))
        until = time.monotonic() + 120
        while not written.exists():
            if scheduler.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the Dask scheduler did not start\n{cluster.log()}")
            time.sleep(0.05)
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        for process in cluster.processes:
            process.kill()
        for process in cluster.processes:
            process.wait()
