"""One network in several .wio files: what is written, what is read of it, and that half a set is never believed."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_wio
from hypothesis import given
from hypothesis import strategies as st
from test_container import everything, tensor

import wio
import wio.adapters._wio_shards
from wio.bundle import Bundle, Tensor
from wio.container import WioFileReader
from wio.errors import DigestError, FormatError, UsageError, WioError
from wio.plugins import adapter_named
from wio.shard_index import parse_size, split
from wio.testing import AdapterContract

WIO = adapter_named("wio")


def floats(name: str, count: int, first: int = 0, **declared: Any) -> Tensor:
    return tensor(name, np.arange(first, first + count, dtype="f4"), **declared)


def network() -> Bundle:
    """Of 40, 24, 200, 8, 13 and 60 bytes, in several dtypes."""
    tensors = [
        tensor("conv/kernel", np.arange(10, dtype="f4").reshape(1, 1, 2, 5), "conv.kernel", "HWIO"),
        floats("conv/bias", 6, 100),
        floats("large", 50, 200),
        tensor("half", np.array([0.5, 1, 2, 3], "f2")),
        tensor("words", np.array([b"the", b"", b"neutral"], object)),
        floats("last", 15, 900, origin="somewhere/else", layer="of its own"),
    ]
    return Bundle(tensors, {"adapter": "numpy", "epsilon": {"bn": 1e-3}})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def index_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(path.name + ".index.json").read_text())
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """``m.wio`` in four shards."""
    wio.save(network(), tmp_path / "m.wio", shard_size=64)
    return tmp_path / "m.wio"


SHARDS = [f"m-0000{k}-of-00004.wio" for k in range(1, 5)]


# --- what is written


def test_shards_have_the_names_of_the_ecosystem_and_the_order_of_the_bundle(written: Path) -> None:
    assert names(written.parent) == [*SHARDS, "m.wio.index.json"]
    held = {name: list(WioFileReader(written.with_name(name)).bundle()) for name in SHARDS}
    assert list(held.values()) == [["conv/kernel", "conv/bias"], ["large"], ["half", "words"], ["last"]]
    index = index_of(written)
    assert index["weight_map"] == {name: file for file, tensors in held.items() for name in tensors}
    assert index["metadata"] == {"total_size": 40 + 24 + 200 + 8 + 13 + 60}
    assert index["wio"]["metadata"] == network().metadata
    for stated, name in zip(index["wio"]["shards"], SHARDS, strict=True):
        raw = written.with_name(name).read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        header = hashlib.sha256(raw[:end]).hexdigest()
        assert stated == {"file": name, "size": len(raw), "header_sha256": header}


def test_a_set_reads_as_the_one_file_does(written: Path, tmp_path: Path) -> None:
    wio.save(network(), tmp_path / "one.wio")
    one = WIO.read(tmp_path / "one.wio")
    for path in (written, written.with_name("m.wio.index.json")):
        found = wio.open(path)
        assert list(found.items()) != [] and list(found) == list(one)
        assert everything(found) == everything(one)
        assert found.metadata == one.metadata
        assert {name: t.digest for name, t in found.items()} == {name: t.digest for name, t in one.items()}


def test_any_safetensors_reader_opens_a_shard(written: Path) -> None:
    import safetensors.numpy

    found = [safetensors.numpy.load_file(written.with_name(name)) for name in SHARDS]
    assert [sorted(each) for each in found] == [["conv/bias", "conv/kernel"], ["large"], ["half", "words"], ["last"]]
    np.testing.assert_array_equal(found[0]["conv/kernel"], network()["conv/kernel"].numpy())
    np.testing.assert_array_equal(found[3]["last"], network()["last"].numpy())


def test_the_same_bundle_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    digests = wio.save(WIO.read(written), tmp_path / "again" / "m.wio", shard_size="64")
    assert digests == {name: t.digest for name, t in WIO.read(written).items()}
    for name in (*SHARDS, "m.wio.index.json"):
        assert (tmp_path / "again" / name).read_bytes() == written.with_name(name).read_bytes()


def test_a_shard_is_the_same_whatever_becomes_of_the_others(written: Path, tmp_path: Path) -> None:
    """What an upload need not send again: a shard depends on its own tensors alone."""
    other = network().map(lambda t: floats("last", 15, 7) if t.name == "last" else t)
    (tmp_path / "again").mkdir()
    wio.save(Bundle(other.values(), {"adapter": "onnx"}), tmp_path / "again" / "m.wio", shard_size=64)
    same = [(tmp_path / "again" / name).read_bytes() == written.with_name(name).read_bytes() for name in SHARDS]
    assert same == [True, True, True, False]


def test_what_fits_into_one_shard_is_one_file(tmp_path: Path) -> None:
    wio.save(network(), tmp_path / "m.wio", shard_size=1000)
    wio.save(network(), tmp_path / "one.wio")
    assert names(tmp_path) == ["m.wio", "one.wio"]
    assert (tmp_path / "m.wio").read_bytes() == (tmp_path / "one.wio").read_bytes()
    wio.save(Bundle([]), tmp_path / "empty.wio", shard_size=1)
    assert len(WIO.read(tmp_path / "empty.wio")) == 0


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 12))
def test_runs_are_as_long_as_they_can_be(sizes: list[int], most: int) -> None:
    given_sizes = {str(k): size for k, size in enumerate(sizes)}
    runs = split(given_sizes, most)
    assert [name for run in runs for name in run] == list(given_sizes)
    filled = [sum(given_sizes[name] for name in run) for run in runs]
    for run, total in zip(runs, filled, strict=True):
        assert run and (total <= most or len([name for name in run if given_sizes[name]]) == 1)
    for total, after in zip(filled, runs[1:], strict=False):
        assert total + given_sizes[after[0]] > most


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("2GiB", 2**31), ("500mb", 5 * 10**8), ("1.5 kB", 1500), ("7", 7), ("7B", 7), ("1TB", 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "0.5", "GB", "2 G B", "1e9", "nan", "2GB2", "2Gb/s", "\u0662GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="no size"):
        parse_size(text)


# --- commands


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.savez(tmp_path / "s.npz", **{name: t.numpy() for name, t in network().items() if name != "words"})
    return tmp_path / "s.npz"


DECLARED = ("--declare", "conv/kernel=conv.kernel:HWIO", "--layout", "neutral")


def test_export_convert_and_import_write_shards(source: Path, tmp_path: Path) -> None:
    told = run_wio("export", source, *DECLARED, "-o", tmp_path / "a.wio", "--shard-size", "64B")
    assert "a.wio.index.json: 5 tensors" in told.stderr and "in 4 shards" in told.stderr
    run_wio("export", source, *DECLARED, "-o", tmp_path / "one.wio")
    run_wio("convert", tmp_path / "one.wio", "--into", "wio", "-o", tmp_path / "b.wio", "--shard-size", "64")
    run_wio("import", tmp_path / "a.wio", "--into", "wio", "-o", tmp_path / "c.wio", "--option", "shard_size=100")
    assert [len(index_of(tmp_path / name)["wio"]["shards"]) for name in ("a.wio", "b.wio", "c.wio")] == [4, 4, 3]
    for name in ("a.wio", "b.wio", "c.wio.index.json"):
        assert run_wio("diff", tmp_path / "one.wio", tmp_path / name).stdout.startswith("equal: 5 equal")
        listed = run_wio("inspect", tmp_path / name).stdout
        assert listed == run_wio("inspect", tmp_path / "one.wio").stdout
    run_wio("import", tmp_path / "a.wio.index.json", "--into", "safetensors", "-o", tmp_path / "d.safetensors")
    run_wio("import", tmp_path / "one.wio", "--into", "safetensors", "-o", tmp_path / "e.safetensors")
    assert (tmp_path / "d.safetensors").read_bytes() == (tmp_path / "e.safetensors").read_bytes()


def test_other_formats_say_that_they_have_no_shards_of_that_kind(source: Path, tmp_path: Path) -> None:
    arguments = ("convert", source, "--into", "numpy", "-o", tmp_path / "a.npz", "--shard-size", "1GB")
    assert "numpy takes no shard_size" in run_wio(*arguments, code=2).stderr
    arguments = ("export", source, "-o", tmp_path / "a.wio", "--shard-size", "many")
    assert "'many' is no size of a shard" in run_wio(*arguments, code=2).stderr
    assert names(tmp_path) == ["s.npz"]


def test_a_receipt_is_that_of_the_set_and_can_be_replayed(source: Path, tmp_path: Path) -> None:
    cast = ("--apply", "cast=conv/kernel:float16")
    run_wio("export", source, *DECLARED, *cast, "-o", tmp_path / "a.wio", "--shard-size", "64")
    run_wio("export", source, *DECLARED, *cast, "-o", tmp_path / "one.wio")
    receipt = json.loads(run_wio("inspect", "--receipt", tmp_path / "a.wio").stdout)
    assert receipt == json.loads(run_wio("inspect", "--receipt", tmp_path / "one.wio").stdout)
    assert receipt["values"][0]["source_sha256"] == [hashlib.sha256(network()["conv/kernel"].stored()).hexdigest()]
    assert "5 tensors" in run_wio("replay", tmp_path / "a.wio.index.json", "--source", source).stdout
    run_wio("convert", source, "--into", "wio", *cast, "-o", tmp_path / "b.wio", "--shard-size", "64")
    assert json.loads(run_wio("inspect", "--receipt", tmp_path / "b.wio").stdout)["into"] == {"adapter": "wio"}
    run_wio("replay", tmp_path / "b.wio", "--source", source)


def test_diff_compares_digests_and_reads_no_data(written: Path, tmp_path: Path) -> None:
    wio.save(network(), tmp_path / "one.wio")
    for name in SHARDS:
        path = written.with_name(name)
        raw = path.read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        path.write_bytes(raw[:end] + bytes(len(raw) - end))
    found = json.loads(run_wio("diff", written, tmp_path / "one.wio", "--json").stdout)
    assert found["equal"] and found["by"] == "digest"
    assert "damaged" in run_wio("inspect", written, "--digests", code=2).stderr


def test_wrong_sets_are_one_message_and_exit_2(written: Path) -> None:
    written.with_name(SHARDS[0]).unlink()
    shutil.copy(written.with_name(SHARDS[3]), written.with_name(SHARDS[2]))
    error = run_wio("inspect", written, code=2).stderr
    assert error.startswith("wio: m.wio.index.json: ") and error.count("\nwio") == 0 and SHARDS[0] in error
    wio.save(network(), written.with_name("other.wio"), shard_size=64)
    shutil.copy(written.with_name("other-00001-of-00004.wio"), written.with_name(SHARDS[0]))
    error = run_wio("inspect", written, code=2).stderr
    assert (
        error.startswith("wio: m.wio.index.json: ")
        and error.count("\nwio") == 0
        and "1 of 4 shards" in error
        and SHARDS[2] in error
    )


# --- never half a set


def broken(network: Bundle, at: str) -> Bundle:
    """The bundle of a source that fails as this tensor is read."""

    def fail() -> Any:
        raise FormatError("the source is damaged")

    return network.map(lambda t: t.changed(load=fail, raw=None) if t.name == at else t)


def test_a_failure_leaves_the_old_set_as_it_was(written: Path) -> None:
    before = {path.name: path.read_bytes() for path in written.parent.iterdir()}
    other = broken(network().map(lambda t: floats("large", 50) if t.name == "large" else t), "last")
    with pytest.raises(FormatError, match="the source is damaged"):
        wio.save(other, written, shard_size=64)
    assert {path.name: path.read_bytes() for path in written.parent.iterdir()} == before


def test_a_writer_that_is_killed_leaves_no_index(tmp_path: Path) -> None:
    """Killed at any moment up to the last: the set is the old one, or its reader says that it is none."""
    program = """
import os, sys, signal
from pathlib import Path
import wio, wio.sharded_writer
from test_sharded import network
left = int(sys.argv[2])
real = Path.replace
def replace(self, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return real(self, target)
Path.replace = replace
wio.save(network(), Path(sys.argv[1]), shard_size=64)
"""
    for renamed in range(5):
        folder = tmp_path / str(renamed)
        folder.mkdir()
        words = [sys.executable, "-c", program, str(folder / "m.wio"), str(renamed)]
        done = subprocess.run(words, cwd=Path(__file__).parent, check=False)
        assert done.returncode == -9
        assert not (folder / "m.wio.index.json").exists()
        run_wio("inspect", folder / "m.wio", code=2)
        wio.save(network(), folder / "m.wio", shard_size=64)
        assert everything(WIO.read(folder / "m.wio")) == everything(network())


def test_an_older_set_is_swept_and_nothing_else(written: Path) -> None:
    kept = ["m-1-of-2.wio", "m-00001-of-00004.safetensors", "mm-00001-of-00004.wio", "m.wio.index", "n.wio"]
    for name in kept:
        written.with_name(name).write_bytes(b"mine")
    written.write_bytes(b"an older file in one")
    wio.save(network(), written, shard_size=100)
    assert names(written.parent) == sorted([*(f"m-0000{k}-of-00003.wio" for k in (1, 2, 3)), "m.wio.index.json", *kept])
    wio.save(network(), written, shard_size=1000)
    assert names(written.parent) == sorted(["m.wio", *kept])
    assert everything(WIO.read(written)) == everything(network())


def test_a_set_may_be_its_own_source(written: Path) -> None:
    for size in (100, 64, 30, 1000, 64):
        wio.export(written, written, shard_size=size)
        assert everything(WIO.read(written)) == everything(network())
    assert names(written.parent) == [*SHARDS, "m.wio.index.json"]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / SHARDS[1]).mkdir()
    with pytest.raises(WioError, match="is a folder"):
        wio.save(network(), tmp_path / "m.wio", shard_size=64)
    with pytest.raises(WioError, match="cannot write to the folder"):
        wio.save(network(), tmp_path / "none" / "m.wio", shard_size=64)
    assert names(tmp_path) == [SHARDS[1]]


def test_a_shard_exchanged_while_the_set_is_read(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wio.adapters._wio_shards, "MOST_OPEN", 1)
    bundle = WIO.read(written)
    np.testing.assert_array_equal(bundle["large"].numpy(), network()["large"].numpy())
    wio.save(Bundle([floats("large", 50, 201)]), written.with_name("other.wio"))
    written.with_name("other.wio").replace(written.with_name(SHARDS[1]))
    np.testing.assert_array_equal(bundle["last"].numpy(), network()["last"].numpy())
    with pytest.raises(DigestError, match="not the shard"):
        bundle["large"].numpy()


def test_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    many = Bundle(floats(f"t{k}", 2, k) for k in range(300))
    wio.save(many, tmp_path / "m.wio", shard_size=8)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 150, before[1]))
        assert everything(WIO.read(tmp_path / "m.wio")) == everything(many)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_shards_that_are_links(written: Path, tmp_path: Path) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    cache.mkdir()
    outside.mkdir()
    for name in (*SHARDS, "m.wio.index.json"):
        (cache / name).symlink_to(written.with_name(name))
    assert everything(WIO.read(cache / "m.wio")) == everything(network())
    shutil.move(written.with_name(SHARDS[0]), outside / SHARDS[0])
    written.with_name(SHARDS[0]).symlink_to(outside / SHARDS[0])
    with pytest.raises(FormatError, match="a link out of the folder"):
        WIO.read(written)


def test_the_file_itself_is_preferred_to_a_set_of_its_name(written: Path) -> None:
    wio.save(Bundle([floats("one", 3)]), written)
    assert list(wio.open(written)) == ["one"]
    assert "large" in wio.open(written.with_name("m.wio.index.json"))


class TestContract(AdapterContract):
    adapter = WIO

    def sample(self, folder: Path) -> Path:
        wio.save(network(), folder / "m.wio", shard_size=64)
        return folder / "m.wio.index.json"
