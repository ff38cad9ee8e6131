"""Shards written by a real Dask cluster on loopback: the same bytes as here, whatever becomes of a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dask_cluster import Cluster, running

# Reads .slow files, which are .npz: slowly, and telling which process is at it. "bad" in the name: with a mistake.
MODULE = """
import os, time
from pathlib import Path
from wio.adapter import Adapter
from wio.errors import FormatError
from wio.plugins import adapter_named


class Slow(Adapter):
    name = "slow"
    description = "for tests"

    def sniff(self, path):
        return 40 if path.suffix == ".slow" else 0

    def read(self, path, **options):
        def slowly(tensor):
            def load():
                Path(f"{path}.{os.getpid()}").touch()
                time.sleep(0.3)
                if "bad" in path.name and tensor.name == "l5/kernel":
                    raise FormatError("l5/kernel: the source is damaged")
                return tensor.load()

            return tensor.changed(load=load, raw=None)

        return adapter_named("numpy").read(path).map(slowly)
"""
DECLARED = ("--declare", "l*/kernel=dense.kernel:IO", "--declare", "c*/kernel=conv.kernel:HWIO", "--layout", "neutral")
CHANGED = ("--apply", "cast=l1*:float16")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with the adapter above, as pip would leave it."""
    site = tmp_path_factory.mktemp("site")
    (site / "slowly.py").write_text(MODULE)
    info = site / "slowly-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowly\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wio.adapters]\nslow = slowly:Slow\n")
    return site


@pytest.fixture
def cluster(tmp_path: Path, site: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with running(folder, 2, {"PYTHONPATH": str(site)}) as started:
        yield started


def arrays(folder: Path, name: str) -> Path:
    """Twelve tensors in .npz, some equal in size, one larger than a shard."""
    numbers = np.random.default_rng(0)
    made = {f"l{k}/kernel": numbers.standard_normal((20, 30 + k % 3)).astype("f4") for k in range(10)}
    made["c1/kernel"] = numbers.standard_normal((3, 3, 5, 7)).astype("f4")
    made["large"] = numbers.standard_normal((70, 70)).astype("f4")
    path = folder / name
    with path.open("wb") as file:
        np.savez(file, **made)
    return path


def wio(site: Path, *arguments: object, code: int = 0, cwd: Path | None = None) -> str:
    """What the command tells on stderr."""
    words = [sys.executable, "-m", "wio", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_cluster_writes_the_same_bytes(cluster: Cluster, site: Path, tmp_path: Path) -> None:
    """Export with values that change and layouts that are rearranged, relative paths, and convert of what it wrote."""
    arrays(tmp_path, "s.npz")
    for folder, more in (("here", ()), ("there", ("--dask", cluster.address))):
        (tmp_path / folder).mkdir()
        out = f"{folder}/m.wio"
        wio(site, "export", "s.npz", *DECLARED, *CHANGED, "-o", out, "--shard-size", "6kB", *more, cwd=tmp_path)
        out = f"{folder}/n.wio"
        asked = ("convert", f"{folder}/m.wio", "--into", "wio", "-o", out, "--shard-size", "15kB")
        wio(site, *asked, *("--apply", "cast=l2*:float16"), *more, cwd=tmp_path)
    here = contents(tmp_path / "here")
    assert here == contents(tmp_path / "there")
    assert len([name for name in here if name.startswith("m-")]) == 7
    assert b'"source_sha256":["' in here["m.wio.index.json"] and b'"' + b"0" * 64 not in here["m.wio.index.json"]
    assert "m.wio.index.json" in here and "n.wio.index.json" in here


def test_a_worker_that_is_killed_changes_nothing(cluster: Cluster, site: Path, tmp_path: Path) -> None:
    source = arrays(tmp_path, "s.slow")
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    words = ["export", source, *DECLARED, "--shard-size", "6kB"]
    elsewhere = ["-o", tmp_path / "there" / "m.wio", "--dask", cluster.folder / "scheduler.json"]
    there = subprocess.Popen(
        [sys.executable, "-m", "wio", *map(str, words + elsewhere)],
        env={**os.environ, "PYTHONPATH": str(site)},
        stderr=subprocess.PIPE,
        text=True,
    )
    workers = {process.pid for process in cluster.processes[1:]}
    until = time.monotonic() + 120
    while len(at_work := [p for p in workers if Path(f"{source}.{p}").exists()]) < 2 and time.monotonic() < until:
        assert there.poll() is None, there.stderr and there.stderr.read()
        time.sleep(0.02)
    os.kill(at_work[0], signal.SIGKILL)
    assert there.poll() is None, "it was done before the worker was killed"
    assert [path.name for path in (tmp_path / "there").iterdir() if not path.name.startswith(".")] == []
    _, told = there.communicate(timeout=300)
    assert there.returncode == 0, told + cluster.log()
    wio(site, *words, "-o", tmp_path / "here" / "m.wio")
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_what_a_worker_raises_is_the_error_and_the_old_set_stays(cluster: Cluster, site: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    asked = ("-o", tmp_path / "out" / "m.wio", "--shard-size", "6kB", "--dask", cluster.address)
    wio(site, "export", arrays(tmp_path, "s.npz"), *asked)
    before = contents(tmp_path / "out")
    error = wio(site, "export", arrays(tmp_path, "bad.slow"), *asked, code=2)
    assert error == "wio: l5/kernel: the source is damaged\n"
    assert contents(tmp_path / "out") == before


def test_a_cluster_that_lacks_an_adapter_and_one_that_is_not_there(site: Path, tmp_path: Path) -> None:
    """A worker that cannot read what the client can, and an address where nobody is."""
    source = arrays(tmp_path, "s.slow")
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    with running(lacking, 1, {"PYTHONPATH": ""}) as other:
        asked = ("export", source, "-o", tmp_path / "m.wio", "--shard-size", "6kB", "--dask")
        error = wio(site, *asked, other.address, code=2)
    assert error.startswith("wio: no adapter is named 'slow'")
    assert "no Dask scheduler at tcp://127.0.0.1:9" in wio(site, *asked, "tcp://127.0.0.1:9", code=2)
    assert sorted(path.name for path in tmp_path.glob("m*")) == []
