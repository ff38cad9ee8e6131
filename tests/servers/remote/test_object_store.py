"""A store that speaks S3: read by ranges, listed, written to, the index last."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from s3_server import BUCKET, S3

import wio

PLACE = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def there(s3: S3, written: Path) -> S3:
    store = s3.client()
    for path in written.iterdir():
        store.put_file(str(path), f"{BUCKET}/in/{path.name}")
    return s3


@pytest.mark.parametrize("name", ["net.wio", "set.wio", "net.safetensors", "net.ckpt"])
def test_one_tensor(name: str, there: S3, written: Path, run: Run, tmp_path: Path) -> None:
    listed = run("inspect", f"{PLACE}/in/{name}", **there.environment).stdout
    assert listed == run("inspect", written / name).stdout
    before = there.sent()
    run("export", f"{PLACE}/in/{name}", "--only", "fc13/kernel", "-o", "one.wio", **there.environment)
    assert 4_000_000 < there.sent() - before < 4_800_000
    assert np.array_equal(
        wio.open(tmp_path / "one.wio")["fc13/kernel"].numpy(), wio.open(written / "net.wio")["fc13/kernel"].numpy()
    )


def test_outputs_are_those_that_would_be_written_here(there: S3, written: Path, run: Run, tmp_path: Path) -> None:
    store = there.client()
    few = ("--only", "fc0*/kernel", "--only", "small/*")
    ways: dict[str, tuple[str, ...]] = {
        "set.wio": ("export", "--shard-size", "9MB"),
        "net.wio": ("export",),
        "net.ckpt": ("import", "--into", "tf-checkpoint", "--option", "shards=2"),
        "net.npz": ("import", "--into", "numpy"),
    }
    for name, (command, *options) in ways.items():
        here = tmp_path / name.replace(".", "_")
        here.mkdir()
        run(command, written / "net.wio", *few, *options, "-o", here / name)
        place = f"{PLACE}/{here.name}"
        told = run(command, f"{PLACE}/in/net.wio", *few, *options, "-o", f"{place}/{name}", **there.environment).stderr
        assert f"wrote {place}/{name}" in told
        stored = {path.rpartition("/")[2]: store.cat_file(path) for path in store.ls(place, detail=False)}
        assert stored == {path.name: path.read_bytes() for path in here.iterdir()}
    assert (
        "equal" in run("diff", f"{PLACE}/set_wio/set.wio", tmp_path / "net_wio" / "net.wio", **there.environment).stdout
    )


def test_the_index_comes_last_and_the_file_that_would_hide_it_goes(there: S3, written: Path, run: Run) -> None:
    store, out = there.client(), f"{PLACE}/order/net.wio"
    run("export", written / "net.wio", "--only", "small/*", "-o", out, **there.environment)
    run("export", written / "net.wio", "--shard-size", "20MB", "-o", out, **there.environment)
    found = store.ls(f"{PLACE}/order", detail=True)
    times = {info["name"].rpartition("/")[2]: info["LastModified"] for info in found}
    assert "net.wio" not in times and len(times) == 6
    assert max(times.values()) == times["net.wio.index.json"]


def test_nothing_is_uploaded_if_writing_fails(there: S3, run: Run) -> None:
    store, place = there.client(), f"{PLACE}/failed"
    damaged = bytearray(store.cat_file(f"{BUCKET}/in/net.wio"))
    damaged[-1] ^= 1
    store.pipe_file(f"{BUCKET}/damaged/net.wio", bytes(damaged))
    told = run("export", f"{PLACE}/damaged/net.wio", "-o", f"{place}/net.wio", code=2, **there.environment).stderr
    assert "SHA-256" in told
    assert not store.exists(f"{place}/net.wio")


def test_what_is_not_there_and_what_is_refused(there: S3, run: Run, tmp_path: Path) -> None:
    told = run("inspect", f"{PLACE}/in/other.wio", code=2, WIO_REMOTE_RETRIES="0", **there.environment).stderr
    assert f"{PLACE}/in/other.wio" in told
    run("inspect", "s3://no-such-bucket/net.wio", code=2, WIO_REMOTE_RETRIES="0", **there.environment)
    told = run("export", f"{PLACE}/in/net.wio", "-o", "s3://no-such-bucket/x.wio", code=2, WIO_REMOTE_RETRIES="0",
        **there.environment).stderr  # fmt: skip
    assert "s3://no-such-bucket/x.wio" in told


def test_an_object_that_changes_in_between_is_an_error(
    there: S3, written: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key, value in there.environment.items():
        monkeypatch.setenv(key, value)
    store = there.client()
    content = bytearray((written / "net.wio").read_bytes())
    store.pipe_file(f"{BUCKET}/changing/net.wio", bytes(content))
    bundle = wio.open(f"{PLACE}/changing/net.wio")
    bundle["fc03/kernel"].numpy()
    content[-3_000_000:] = bytes(3_000_000)
    store.pipe_file(f"{BUCKET}/changing/net.wio", bytes(content))
    with pytest.raises(wio.WioError, match="changed on the server"):
        bundle["fc19/kernel"].numpy()


def test_a_folder(there: S3, run: Run, tmp_path: Path, written: Path) -> None:
    """A SavedModel is a folder with its checkpoint in another one."""
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    for path in written.glob("net.ckpt.*"):
        shutil.copy(path, folder / "variables" / path.name.replace("net.ckpt", "variables"))
    store = there.client()
    for path in folder.rglob("*.*"):
        store.put_file(str(path), f"{BUCKET}/folder/saved/{path.relative_to(folder).as_posix()}")
    assert run("inspect", f"{PLACE}/folder/saved", **there.environment).stdout == run("inspect", folder).stdout
