"""Many conversions in one go: where the outputs go, what fails, what dies, and what is done already."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_wio
from test_plugins import installed

import wio
from wio.batch.files import is_batch, pairs
from wio.errors import UsageError

# Reads what the file says: "kill" ends the process, "wait" takes a minute, "defect" is a mistake of the adapter.
MODULE = """
import os, signal, time
from wio.adapter import Adapter


class Bomb(Adapter):
    name = "bomb"
    description = "for tests"

    def sniff(self, path):
        return 40 if path.suffix == ".bomb" else 0

    def read(self, path, **options):
        what = path.read_text()
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "wait":
            path.with_suffix(".begun").write_text(str(os.getpid()))
            time.sleep(60)
        raise ZeroDivisionError("a mistake")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of several formats: three good ones, a broken one, a hidden one."""
    models = tmp_path / "models"
    for k, name in enumerate(("a.npz", "sub/a.npz", "sub/deep/b.npz", ".hidden.npz")):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(models / name, w=np.arange(k, k + 6, dtype="f4").reshape(2, 3), b=np.full(3, k, "f4"))
    (models / "sub" / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    return models


def convert(folder: Path, *arguments: object, code: int = 0, into: str = "safetensors") -> dict[str, dict[str, Any]]:
    """What became of each file, by source."""
    words = ("convert", *arguments, "--into", into, "-o", "out", "--jobs", "2", "--json")
    found = json.loads(run_wio(*words, cwd=folder, code=code).stdout)["files"]
    return {each["source"]: each for each in found}


def statuses(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {source: each["status"] for source, each in found.items()}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


GOOD = ["models/a.npz", "models/sub/a.npz", "models/sub/deep/b.npz"]


def test_the_outputs_lie_as_the_sources_do_and_failures_do_not_stop_the_others(tree: Path, tmp_path: Path) -> None:
    found = convert(tmp_path, "models/**/*.npz", code=2)
    assert statuses(found) == {**dict.fromkeys(GOOD, "done"), "models/sub/broken.npz": "failed"}
    assert list(found) == sorted(found)
    outputs = {"a.safetensors", "sub/a.safetensors", "sub/deep/b.safetensors"}
    assert files(tmp_path / "out") == outputs | {f".wio-convert/{name}.json" for name in outputs}
    for source in GOOD:
        run_wio("diff", tmp_path / source, tmp_path / found[source]["output"])
    assert found["models/sub/broken.npz"]["error"]["error"] == "AdapterError"


def test_the_table_lists_every_file_and_the_messages_every_failure(tree: Path, tmp_path: Path) -> None:
    done = run_wio("convert", "models/**/*.npz", "--into", "wio", "-o", "out", cwd=tmp_path, code=2)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["source", *GOOD[:2], "models/sub/broken.npz", GOOD[2]]
    assert rows[1][1:] == ["out/a.wio", "done", "2", "0", "exact"]
    assert "wio: models/sub/broken.npz: " in done.stderr
    assert done.stderr.splitlines()[-1] == "3 done, 1 failed"


def test_named_sources_lie_under_the_folder_that_they_share(tree: Path, tmp_path: Path) -> None:
    assert statuses(convert(tmp_path, *GOOD[1:])) == dict.fromkeys(GOOD[1:], "done")
    assert {name for name in files(tmp_path / "out") if name.startswith(("a", "deep"))} == {
        "a.safetensors",
        "deep/b.safetensors",
    }


def test_one_file_is_converted_as_ever(tree: Path, tmp_path: Path) -> None:
    strange = tmp_path / "models" / "a[1].npz"
    shutil.copy(tree / "a.npz", strange)
    assert not is_batch([str(strange)]) and is_batch([str(tree / "*.npz")]) and is_batch(["a", "b"])
    run_wio("convert", strange, "--into", "numpy", "-o", tmp_path / "b.npz")
    assert (tmp_path / "b.npz").is_file() and not (tmp_path / ".wio-convert").exists()


# --- names


def outs(*sources: str, folder: str = "out", suffix: str = ".onnx") -> dict[str, str]:
    return {str(pair.source): str(pair.out) for pair in pairs(sources, Path(folder), suffix)}


def test_names_lose_what_says_their_format_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("m.weights.h5", "ckpt-10.index", "v1.5.pt", "n.wio.index.json", "net.caffemodel", "plain", ".h5")
    for name in given:
        Path(name).touch()
    made = ["m.onnx", "ckpt-10.onnx", "v1.5.onnx", "n.onnx", "net.onnx", "plain.onnx", ".h5.onnx"]
    assert outs(*given) == {name: f"out/{out}" for name, out in zip(given, made, strict=True)}
    assert pairs(["torch:v1.5.pt", "plain"], Path("o"), ".x")[0].adapter == "torch"


def test_collisions_are_refused_before_anything_is_written(tree: Path, tmp_path: Path) -> None:
    for name in ("a.npy", "A.h5"):
        shutil.copy(tree / "a.npz", tree / name)
    words = ("convert", "models/*", "--into", "wio", "-o", "out")
    error = run_wio(*words, cwd=tmp_path, code=2).stderr
    assert error.count("its output out/") == 2 and not (tmp_path / "out").exists()
    words = ("convert", "models/**/a.npz", "--into", "numpy", "-o", "models")
    error = run_wio(*words, cwd=tmp_path, code=2).stderr
    assert "its output models/sub/a.npz is the source models/sub/a.npz" in error


def test_what_cannot_be_a_batch(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no file matches"):
        outs("models/*.none")
    with pytest.raises(UsageError, match="says numpy, --from says torch"):
        pairs(["numpy:models/*.npz"], Path("out"), ".x", "torch")
    for wrong in (["-o", "models/a.npz"], [], ["-o", "out", "--jobs", "0"]):
        run_wio("convert", "models/*.npz", "--into", "wio", *wrong, code=2)


def test_outputs_below_the_sources_are_no_sources_the_next_time(tree: Path, tmp_path: Path) -> None:
    for expected in ("done", "kept"):
        done = run_wio(*("convert", "models/**/a.npz", "--into", "numpy", "-o", "models/out", "--json"), cwd=tmp_path)
        found = {each["source"]: each["status"] for each in json.loads(done.stdout)["files"]}
        assert found == dict.fromkeys(GOOD[:2], expected)


# --- begun again


def test_only_what_is_not_done_is_done_again(tree: Path, tmp_path: Path) -> None:
    """By digests: a file whose time changed is done, one whose bytes changed under an old time is not."""
    good = ("models/a.npz", "models/sub/**/?.npz")
    convert(tmp_path, *good)
    for name in GOOD:
        os.utime(tmp_path / name)
    assert set(statuses(convert(tmp_path, *good)).values()) == {"kept"}
    changed = tmp_path / GOOD[1]
    times = (changed.stat().st_atime_ns, changed.stat().st_mtime_ns)
    np.savez(changed, w=np.arange(6, dtype="f4").reshape(2, 3), b=np.full(3, 9, "f4"))
    os.utime(changed, ns=times)
    assert statuses(convert(tmp_path, *good)) == {GOOD[0]: "kept", GOOD[1]: "done", GOOD[2]: "kept"}
    np.testing.assert_array_equal(wio.open(tmp_path / "out/sub/a.safetensors")["b"].numpy(), np.full(3, 9, "f4"))


def test_an_output_that_is_not_what_was_written_is_written_again(tree: Path, tmp_path: Path) -> None:
    again = partial(convert, tmp_path, *GOOD, "--declare", "w=dense.kernel:IO", "--declare", "b=dense.bias:O")
    found = again(into="tf-checkpoint")
    data, cut, gone = (tmp_path / found[name]["output"] for name in GOOD)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    part = data.with_name(data.name + ".data-00000-of-00001")
    part.write_bytes(part.read_bytes()[:-1] + b"\xff")
    index = cut.with_name(cut.name + ".index")
    index.write_bytes(index.read_bytes()[:40])
    gone.with_name(gone.name + ".index").unlink()
    assert statuses(again(into="tf-checkpoint")) == dict.fromkeys(GOOD, "done")
    assert {path: path.read_bytes() for path in before} == before
    assert statuses(again(into="tf-checkpoint")) == dict.fromkeys(GOOD, "kept")


def test_other_options_another_version_or_a_spoilt_record_are_other_work(tree: Path, tmp_path: Path) -> None:
    convert(tmp_path, *GOOD)
    assert set(statuses(convert(tmp_path, *GOOD, "--drop", "b")).values()) == {"done"}
    assert list(wio.open(tmp_path / "out/a.safetensors")) == ["w"]
    records = sorted((tmp_path / "out" / ".wio-convert").rglob("*.json"))
    documents = [json.loads(path.read_text()) for path in records]
    records[0].write_text("[" * 5000)
    records[1].write_text(json.dumps({**documents[1], "output": None}))
    records[2].unlink()
    assert set(statuses(convert(tmp_path, *GOOD, "--drop", "b")).values()) == {"done"}
    assert [json.loads(path.read_text()) for path in records] == documents
    program = (
        "import sys, wio; wio.__version__ = '99'; import wio.batch.worker as w;"
        "print(w.carried_out(w.Job(*sys.argv[1:5], told={'drop': ['b']}))['status'])"
    )
    words = [GOOD[0], "out/a.safetensors", "out/.wio-convert/a.safetensors.json", "safetensors"]
    for expected in ("done", "kept"):
        ran = subprocess.run(
            [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert ran.stdout.strip() == expected


def test_a_template_or_another_file_that_an_option_names_is_part_of_the_work(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "order.txt").write_text("one")
    from wio.batch.done import request_digest
    from wio.port import import_into

    plan = import_into(tree / "a.npz", None, adapter="safetensors", dry_run=True)
    one = request_digest(plan, {"template": str(tmp_path / "order.txt")})
    assert one == request_digest(plan, {"template": str(tmp_path / "order.txt")})
    (tmp_path / "order.txt").write_text("two")
    assert one != request_digest(plan, {"template": str(tmp_path / "order.txt")})


def test_a_dry_run_says_what_can_be_done_and_writes_nothing(tree: Path, tmp_path: Path) -> None:
    found = convert(tmp_path, "models/**/*.npz", "--dry-run", code=2)
    assert statuses(found) == {**dict.fromkeys(GOOD, "planned"), "models/sub/broken.npz": "failed"}
    assert not (tmp_path / "out").exists()


def test_shards_are_done_as_one_file_is(tree: Path, tmp_path: Path) -> None:
    for expected in ("done", "kept"):
        found = convert(tmp_path, *GOOD, "--shard-size", "12", into="wio")
        assert set(statuses(found).values()) == {expected}
    (tmp_path / "out" / "a-00001-of-00002.wio").unlink()
    found = convert(tmp_path, *GOOD, "--shard-size", "12", into="wio")
    assert statuses(found) == {GOOD[0]: "done", GOOD[1]: "kept", GOOD[2]: "kept"}


# --- processes that die


@pytest.fixture
def bombs(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    (site / "bombs.py").write_text(MODULE)
    installed(site, "bombs", "bomb = bombs:Bomb")
    monkeypatch.setenv("PYTHONPATH", str(site))
    return tree


def test_a_process_that_is_killed_is_one_failed_file(bombs: Path, tmp_path: Path) -> None:
    for name, what in (("1.bomb", "kill"), ("2.bomb", "defect"), ("z.bomb", "kill")):
        (bombs / name).write_text(what)
    found = convert(tmp_path, "models/**/[a-z12]*.[bn][op][mz]*", code=2)
    died = {source: each["error"]["message"] for source, each in found.items() if each["status"] == "failed"}
    assert set(statuses(found)) - set(died) == set(GOOD)
    assert died["models/1.bomb"] == died["models/z.bomb"] == "its process ended: killed by SIGKILL"
    assert "ZeroDivisionError('a mistake')" in died["models/2.bomb"]


def test_whoever_interrupts_it_ends_its_processes_and_may_go_on(bombs: Path, tmp_path: Path) -> None:
    (bombs / "b.bomb").write_text("wait")
    words = ["convert", "models/a.npz", "models/b.bomb", "--into", "wio", "-o", "out", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "wio", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    begun = bombs / "b.begun"
    while not begun.exists() or not (tmp_path / "out" / ".wio-convert" / "a.wio.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    worker = int(begun.read_text())
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in error and "what is done stays done" in error, error
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    (bombs / "b.bomb").unlink()
    np.savez(bombs / "b.npz", w=np.zeros(3))
    assert statuses(convert(tmp_path, "models/a.npz", "models/b.npz", into="wio")) == {
        "models/a.npz": "kept",
        "models/b.npz": "done",
    }
