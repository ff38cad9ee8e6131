"""The examples of docs/cluster.md, as far as they go without the clusters that they are for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wio

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


# asyncio's loops and sockets of a cluster that ends are closed by the garbage collector.
@pytest.mark.filterwarnings("ignore")
def test_slurm_by_the_queue_of_one_machine(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs that dask-jobqueue would give to SLURM, run here."""
    import dask_jobqueue
    from dask_jobqueue.local import LocalCluster

    scripts = []

    def here(queue: str, **asked: Any) -> LocalCluster:
        # On one machine there is no queue to name, and no time to ask for.
        cluster = LocalCluster(**{k: v for k, v in asked.items() if k != "walltime"}, local_directory=str(tmp_path))
        scripts.append(cluster.job_script())
        return cluster

    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", here)
    np.savez(tmp_path / "s.npz", a=np.arange(6, dtype="f4"), b=np.arange(7, dtype="f4"))
    asked = ["export", str(tmp_path / "s.npz"), "--shard-size", "28"]
    assert example("on_slurm").run(2, [*asked, "-o", str(tmp_path / "there.wio")]) == 0
    wio.export(tmp_path / "s.npz", tmp_path / "here.wio", shard_size=28)
    for k in (1, 2):
        there, here_too = (tmp_path / f"{name}-0000{k}-of-00002.wio" for name in ("there", "here"))
        assert there.read_bytes() == here_too.read_bytes()
    assert "--nthreads 1 " in scripts[0]


def test_kubernetes_workers_see_the_shared_volume(example: Any) -> None:
    spec = example("on_kubernetes").cluster_spec(100)["spec"]
    worker = spec["worker"]
    assert worker["replicas"] == 100
    assert worker["spec"]["containers"][0]["args"][:4] == ["dask", "worker", "--nthreads", "1"]
    assert worker["spec"]["containers"][0]["volumeMounts"] == [{"name": "weights", "mountPath": "/weights"}]
    assert worker["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "weights"}


@pytest.mark.parametrize("command", ["scheduler", "worker"])
def test_the_flags_of_the_docs_are_those_of_dask(command: str) -> None:
    text = (EXAMPLES.parent / "docs" / "cluster.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith(f"python -m dask {command} ")]
    listed = subprocess.run(
        [sys.executable, "-m", "dask", command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    flags = [word for line in lines for word in line.split("#")[0].split() if word.startswith("--")]
    assert flags and all(flag in listed for flag in flags)
