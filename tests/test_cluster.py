"""What a worker of a cluster does, done here; ``tests/servers`` runs it on a real one."""

from __future__ import annotations

import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TESTS, run_wio
from msgspec.structs import replace

import wio
from wio.cluster import Request, on_dask, plan_digest, write_one
from wio.errors import UsageError, WioError
from wio.port import Declarations, export, ready_to_export


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.savez(tmp_path / "s.npz", a=np.arange(6, dtype="f4").reshape(2, 3), b=np.arange(4, dtype="f8"))
    return tmp_path / "s.npz"


def request_for(source: Path, run: str = "1", **changed: Any) -> Request:
    asked = {key: value for key, value in changed.items() if key in ("told", "layout")}
    plan = plan_digest(ready_to_export(source, **asked).plan)
    request = Request("export", (("source", str(source)), *asked.items()), plan, run, wio.__version__)
    return replace(request, **{key: value for key, value in changed.items() if key not in asked})


def test_a_shard_written_twice_at_once_is_the_one_that_is_written_here(source: Path, tmp_path: Path) -> None:
    wio.export(source, tmp_path / "here.wio", shard_size=24)
    staged = tmp_path / "staged"
    staged.mkdir()
    with ThreadPoolExecutor(4) as threads:
        asked = [(request_for(source), str(staged / "shard"), ("b",))] * 8
        written = list(threads.map(write_one, *zip(*asked, strict=True)))
    assert all(each == written[0] for each in written)
    assert [path.name for path in staged.iterdir()] == ["shard"]
    assert (staged / "shard").read_bytes() == (tmp_path / "here-00002-of-00002.wio").read_bytes()


def test_another_run_plans_anew(source: Path, tmp_path: Path) -> None:
    """A worker lives on; what it planned of a file that was there before must not be taken for this one."""
    one, _ = write_one(request_for(source), str(tmp_path / "1"), ("b",))
    np.savez(source, b=np.ones(4))
    two, _ = write_one(request_for(source, run="2"), str(tmp_path / "2"), ("b",))
    assert one.digests != two.digests
    np.testing.assert_array_equal(wio.open(tmp_path / "2", "wio")["b"].numpy(), np.ones(4))


def test_a_worker_of_another_version_plan_or_folder_refuses(source: Path, tmp_path: Path) -> None:
    with pytest.raises(WioError, match=r"a worker has wio .*, the client 0\.0"):
        write_one(request_for(source, version="0.0"), str(tmp_path / "x"), ("a",))
    with pytest.raises(WioError, match="another plan"):
        write_one(request_for(source, run="other", plan="0" * 64), str(tmp_path / "x"), ("a",))
    with pytest.raises(WioError, match="does not see the folder"):
        write_one(request_for(source), str(tmp_path / "none" / "x"), ("a",))


def test_the_digests_of_sources_are_those_of_the_shard(source: Path, tmp_path: Path) -> None:
    told = Declarations(declare=("a=dense.kernel:OI",), apply=("cast=a:float16",))
    _, digests = write_one(request_for(source, told=told, layout="neutral"), str(tmp_path / "a"), ("a",))
    assert set(digests) == {"a"}


def test_what_a_cluster_is_not_for(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--dask", "tcp://127.0.0.1:9")
    out = ("-o", tmp_path / "m.wio")
    assert "--shard-size 2GB" in run_wio("export", source, *out, *asked, code=2).stderr
    error = run_wio("convert", source, "--into", "numpy", "-o", tmp_path / "m.npz", *asked, code=2).stderr
    assert "a cluster writes shards of .wio files, not numpy" in error
    several = ("convert", source, source, "--into", "wio", "-o", tmp_path / "out", *asked)
    assert "one file at a time" in run_wio(*several, code=2).stderr
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError) as caught:
        export(source, tmp_path / "m.wio", shard_size=24, cluster=on_dask("tcp://127.0.0.1:9"))
    assert caught.value.remedy == "pip install 'wio[dask]'"
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]


def test_the_table_of_the_docs_is_that_of_the_model() -> None:
    """docs/scaling.md shows what bench/scaling.py makes of the costs that were measured, and nothing else."""
    root = TESTS.parent
    spec = importlib.util.spec_from_file_location("scaling", root / "bench" / "scaling.py")
    assert spec is not None and spec.loader is not None
    scaling = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = scaling
    spec.loader.exec_module(scaling)
    cost = scaling.Measured(**json.loads((root / "bench" / "scaling.json").read_text()))
    shown = [line for line in (root / "docs" / "scaling.md").read_text().splitlines() if line.startswith("|")]
    assert shown == scaling.table(cost)
    # A cluster of one worker and no limit takes what the worker takes.
    alone = scaling.Cluster(1, 10**18, 10**18)
    assert scaling.seconds(10**12, 10**9, 0, 1e-9, alone, scaling.Measured(0, 0, 0, 0, 0)) == pytest.approx(1000)
