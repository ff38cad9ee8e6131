"""What is left when writing goes wrong: killed, interrupted, refused by the disk or by permissions, twice at once."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import faults
import numpy as np
import pytest
from conftest import run_wio

from wio import atomic
from wio.adapters import _onnx_writer
from wio.atomic import atomic_output, atomic_set, staging
from wio.bundle import Bundle, Tensor
from wio.cli.main import main
from wio.dtypes import DTYPES
from wio.errors import WioError
from wio.plugins import adapter_named

NOBODY = 65534
KERNELS = ("--declare", "*=dense.kernel:IO")
WIO = (sys.executable, "-m", "wio")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small safetensors file in a folder of its own."""
    (tmp_path / "source").mkdir()
    return written(tmp_path / "source" / "m.safetensors", 0)


def written(path: Path, value: float, count: int = 6) -> Path:
    tensors = [
        Tensor(f"l{k}/w", DTYPES["float32"], (k + 2, 5), lambda k=k: np.full((k + 2, 5), value + k, np.float32))
        for k in range(count)
    ]
    adapter_named("safetensors").write(path, Bundle(tensors))
    return path


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# --- killed


def test_whoever_is_killed_leaves_the_old_output_or_the_new_one(tmp_path: Path) -> None:
    """A share of what `make faults` runs; another share for every day."""
    seed = int(time.time() // 86400)
    found = faults.run(tmp_path / "w", at_calls=80, at_times=20, seed=seed)
    assert found["runs"] == 100 and found["old"] and found["new"], f"seed {seed}: {found}"
    assert found["old"] + found["new"] + found["refused"] == found["runs"], f"seed {seed}: {found}"


def planted(kinds: tuple[faults.Kind, ...], tmp_path: Path) -> dict[str, int]:
    return dict(faults.run(tmp_path / "w", at_calls=0, at_times=0, seed=0, kinds=kinds))


def test_a_file_written_in_its_place_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_place(files: atomic.OutputSet, name: str) -> Path:
        place = files._folder / name
        place.touch()
        files._names[place] = name
        return place

    monkeypatch.setattr(atomic.OutputSet, "file", in_place)
    [kind] = [each for each in faults.KINDS if each.name == "onnx m.onnx"]
    assert planted((kind,), tmp_path)["torn"] > 0


def test_data_of_a_fixed_name_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_writer.DataFile, "name", property(lambda self: f"{self._model.name}.data"))
    [kind] = [each for each in faults.KINDS if each.name == "onnx external data"]
    assert planted((kind,), tmp_path)["torn"] > 0


def test_what_nobody_sweeps_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_sweep", lambda folder: None)  # noqa: ARG005
    [kind] = [each for each in faults.KINDS if each.name == "safetensors m.safetensors"]
    assert planted((kind,), tmp_path)["litter"] > 0


def test_only_what_nobody_writes_is_swept(tmp_path: Path) -> None:
    dead = tmp_path / ".wio-00000000000000aa.tmp"
    (dead / "inner").mkdir(parents=True)
    (dead / "inner" / "m.wio").write_bytes(b"half")
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (dead / "link").symlink_to(outside)
    kept = [tmp_path / ".wio-mine.tmp", tmp_path / ".wio-00000000000000ab.tmp"]
    kept[0].mkdir()
    kept[1].symlink_to(kept[0])
    (kept[0] / "file").write_bytes(b"")
    with atomic_output(tmp_path / "a") as first, atomic_output(tmp_path / "b") as second:
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert names(tmp_path) == sorted(["a", "b", "outside", *(each.name for each in kept)])
    assert outside.read_bytes() == b"mine" and (kept[0] / "file").exists()


def test_what_is_written_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noted(name: str, usual: object) -> object:
        def call(first: object, *rest: object, **more: object) -> object:
            where = Path(f"/proc/self/fd/{first}").readlink() if isinstance(first, int) else Path(str(rest[0]))
            done.append(f"{name} {where.name}")
            return usual(first, *rest, **more)  # type: ignore[operator]

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", noted("rename", Path.replace))
    folder = tmp_path / "folder"
    folder.mkdir()
    with atomic_output(folder / "m") as temporary:
        temporary.write_bytes(b"1")
    assert done == ["fsync m", "rename m", "fsync folder"]
    done.clear()
    with atomic_set(folder / "index", re.compile(r"data-\d")) as files:
        files.file("index").write_bytes(b"1")
        for k in range(2):
            files.name(files.file(f"later-{k}"), f"data-{k}")
    synced = ["fsync index", "fsync later-0", "fsync later-1"]
    assert done == [*synced, "rename data-0", "rename data-1", "fsync folder", "rename index", "fsync folder"]
    # The next set takes away what belonged to this one.
    with atomic_set(folder / "index", re.compile(r"data-\d")) as files:
        files.file("index").write_bytes(b"2")
        files.file("data-7").write_bytes(b"2")
    assert names(folder) == ["data-7", "index", "m"]


# --- interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_command_says_so_and_leaves_nothing(number: int, tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "m.npz").write_bytes(b"old")
    wait = f"""
import os, signal, sys, wio.adapters._zip_writer as zips
from wio.cli import program
def add(*_):
    os.kill(os.getpid(), {int(number)})
zips.ZipWriter.add = add
sys.argv = ["wio", "convert", "{source}", "--into", "numpy", "-o", "{out}/m.npz"]
program()"""
    done = subprocess.run([sys.executable, "-c", wait], capture_output=True, text=True, check=False)
    assert done.returncode == -number
    assert done.stderr == "wio: interrupted; nothing was changed\n"
    assert names(out) == ["m.npz"] and (out / "m.npz").read_bytes() == b"old"


def test_an_interruption_waits_for_files_that_take_their_places(tmp_path: Path, source: Path) -> None:
    wait = f"""
import os, signal, sys
from pathlib import Path
from wio.cli import program
usual = Path.replace
def replace(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    return usual(*arguments)
Path.replace = replace
sys.argv = ["wio", "convert", "{source}", *{KERNELS}, "--into", "tf-checkpoint", "-o", "{tmp_path}/m.ckpt"]
program()"""
    done = subprocess.run([sys.executable, "-c", wait], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == "wio: interrupted; what it wrote is whole\n"
    assert names(tmp_path) == ["m.ckpt.data-00000-of-00001", "m.ckpt.index", "source"]
    run_wio("export", tmp_path / "m.ckpt", "-o", tmp_path / "m.wio")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path, source: Path) -> None:
    code = f"""
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
import wio.adapters._zip_writer as zips
from wio.cli import program
usual = zips.ZipWriter.add
def add(*arguments):
    os.kill(os.getpid(), signal.SIGHUP)
    usual(*arguments)
zips.ZipWriter.add = add
sys.argv = ["wio", "convert", "{source}", "--into", "numpy", "-o", "{tmp_path}/m.npz"]
program()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and len(np.load(tmp_path / "m.npz").files) == 6


# --- the disk and permissions


@pytest.mark.parametrize("kind", faults.KINDS, ids=lambda kind: kind.name)
def test_a_file_too_large_for_the_disk(kind: faults.Kind, tmp_path: Path, onet: Path) -> None:
    """RLIMIT_FSIZE fails as a full disk does, in the middle of a file (EFBIG for ENOSPC)."""
    size = 100_000 if kind.output.endswith(".json") else 900_000
    done = subprocess.run(
        [*WIO, *kind.arguments(tmp_path, onet)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(rf"wio: writing .*{kind.output}.* failed: File too large; nothing was changed", last), (
        done.stderr
    )
    assert names(tmp_path) == []


@pytest.fixture(scope="module")
def onet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.sources(tmp_path_factory.mktemp("onet"))[1]


def test_paths_that_cannot_be_written_are_answered_in_one_line(tmp_path: Path, source: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    for output, words in {
        "folder": "is a folder",
        "no/such/m.wio": "cannot write to the folder of .*: No such file or directory",
        "source/m.safetensors/m.wio": "Not a directory",
        "circle": "leads round in a circle",
        "pipe": "is no regular file",
        "n" * 256: "File name too long",
    }.items():
        done = run_wio("export", source, "-o", tmp_path / output, code=2)
        assert re.fullmatch(rf"wio: .*{words}.*(\n  -> .*)?\n", done.stderr), (output, done.stderr)
    assert names(tmp_path) == before


def test_a_name_may_be_as_long_as_the_file_system_lets_it(tmp_path: Path, source: Path) -> None:
    for name in ("n" * 251 + ".wio", "\N{GREEK SMALL LETTER ALPHA}" * 125 + "m.wio"):
        run_wio("export", source, "-o", tmp_path / name)
        assert (tmp_path / name).is_file()


def test_a_write_protected_file_and_folder(tmp_path: Path, source: Path) -> None:
    """As a user without privileges, for whom permissions are there."""
    out = tmp_path / "out"
    out.mkdir()
    protected = out / "m.wio"
    protected.write_bytes(b"old")
    protected.chmod(0o444)
    assert "write-protected" in as_user("export", source, "-o", protected, owned=out)
    out.chmod(0o555)
    assert "cannot write to the folder" in as_user("export", source, "-o", out / "other.wio", owned=out)
    out.chmod(0o755)
    assert names(out) == ["m.wio"] and protected.read_bytes() == b"old"


def as_user(*arguments: object, owned: Path) -> str:
    """What a command that fails says to somebody who is not root: run in a copy of this process, for whom the
    interpreter need not be readable."""
    words = [str(each) for each in arguments]
    if os.geteuid() == 0:
        for each in (owned, *owned.iterdir()):
            os.chown(each, NOBODY, NOBODY)
        for each in owned.parents:
            if not each.stat().st_mode & 0o001:
                each.chmod(each.stat().st_mode | 0o011)
    # Everything that is needed is loaded before privileges go.
    main([*words[:-1], str(owned.parent / "loaded.wio")])
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            with contextlib.redirect_stderr(io.StringIO()) as said:
                code = main(words)
            os.write(write_end, f"{code} {said.getvalue()}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end, encoding="utf-8") as answer:
        code, _, message = answer.read().partition(" ")
    assert code == "2", message
    return message


# --- links, and the output that is the input


def test_links_and_outputs_that_are_inputs(tmp_path: Path, source: Path) -> None:
    whole = source.read_bytes()
    convert = ("convert", source, "--into", "safetensors", "-o")
    hard, link, dangling = tmp_path / "hard", tmp_path / "link", tmp_path / "dangling"
    os.link(source, hard)
    link.symlink_to(source)
    dangling.symlink_to("made")
    for output in (source, hard, link, dangling):
        run_wio(*convert, output, "--drop", "l0/*")
        assert output.read_bytes() != whole
        source.write_bytes(whole)
    assert link.is_symlink() and dangling.is_symlink() and (tmp_path / "made").is_file()
    # The other name of a hard link keeps the old file.
    assert hard.stat().st_nlink == 1
    kept = written(tmp_path / "kept", 0)
    os.link(kept, tmp_path / "other")
    run_wio("convert", kept, "--into", "safetensors", "-o", kept, "--drop", "l0/*")
    assert (tmp_path / "other").read_bytes() == whole != kept.read_bytes()


def test_a_set_is_not_written_through_links(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "m.ckpt.index").symlink_to(tmp_path / "elsewhere")
    done = run_wio("convert", source, *KERNELS, "--into", "tf-checkpoint", "-o", out / "m.ckpt", code=2)
    assert "m.ckpt.index is a symbolic link" in done.stderr and names(out) == ["m.ckpt.index"]


# --- two writers at once


@pytest.mark.parametrize("output", ["m.safetensors", "m.ckpt"])
def test_of_two_writers_one_wins_whole(output: str, tmp_path: Path) -> None:
    """Many, at once, in one process and in two; whoever is last has every file."""
    (tmp_path / "out").mkdir()
    adapter = adapter_named("tf-checkpoint" if output.endswith("ckpt") else "safetensors")
    options = {"shards": "4"} if output.endswith("ckpt") else {}
    value = 0

    def write(value: float) -> None:
        tensors = [
            Tensor(f"l{k}", DTYPES["float32"], (9,), lambda k=k: np.full(9, value * 10 + k, np.float32))
            for k in range(8)
        ]
        for _ in range(20):
            adapter.write(tmp_path / "out" / output, Bundle(tensors), **options)

    child = os.fork()
    value = 1 if child else 2
    threads = [threading.Thread(target=write, args=(value + 2 * k,)) for k in range(2)]
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        if not child:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = {int(t.numpy()[0]) // 10 for t in adapter.read(tmp_path / "out" / output).values()}
    assert len(found) == 1
    assert names(tmp_path / "out") in ([output], [f"m.ckpt.data-0000{k}-of-00004" for k in range(4)] + ["m.ckpt.index"])


def test_a_writer_waits_for_one_that_is_taking_its_places(tmp_path: Path) -> None:
    order = []

    def later() -> None:
        with atomic_set(tmp_path / "index") as files:
            files.file("index").write_bytes(b"2")
            files.file("data").write_bytes(b"2")
        order.append("second")

    with atomic._locked(tmp_path / atomic._TURN):
        thread = threading.Thread(target=later)
        thread.start()
        time.sleep(0.2)
        assert "index" not in names(tmp_path)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and names(tmp_path) == ["data", "index"]


def test_a_folder_that_is_gone_when_its_lock_is_had_is_made_again(tmp_path: Path) -> None:
    """A sweeper may be quicker than the lock of a new writer."""
    path = tmp_path / "folder"
    usual = atomic._open_folder
    swept = []

    def slow(opened: Path) -> int:
        descriptor = usual(opened)
        if not swept:
            swept.append(opened)
            opened.rmdir()
        return descriptor

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(atomic, "_open_folder", slow)
        with atomic._locked(path):
            assert path.is_dir()
    assert swept and not path.exists()


def test_an_error_in_the_block_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no more"), staging(tmp_path) as folder:
        (folder / "half").write_bytes(b"")
        raise ValueError("no more")
    with pytest.raises(WioError, match="Input/output error; nothing was changed"), atomic_output(tmp_path / "m"):
        raise OSError(5, "Input/output error")
    assert names(tmp_path) == []


# --- pipes


@pytest.mark.parametrize(
    "command",
    [
        "inspect {source} | head -c 1",
        "inspect {source} >&-",
        "export {source} -o {out} 2>&-",
        "export {source} -o {out} <&- >&- 2>&-",
        "export {source} -o {out} 2>&1 | head -c 0",
        "export {source} -o {out} 2>/dev/full",
    ],
)
def test_closed_streams_do_no_harm(command: str, tmp_path: Path, source: Path) -> None:
    out = tmp_path / "m.wio"
    # Whose reader has gone says nothing, and what it was to print counts as not done; what is written does.
    pipefail = "set -o pipefail; " if "export" in command else ""
    line = f"{pipefail}{sys.executable} -m wio {command.format(source=source, out=out)}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    if "export" in command:
        run_wio("inspect", out, "--digests")


@pytest.mark.parametrize("command", ["inspect {source}", "adapters --json"])
def test_a_full_standard_output_is_trouble(command: str, source: Path) -> None:
    line = f"{sys.executable} -m wio {command.format(source=source)} > /dev/full"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == "wio: No space left on device\n"
