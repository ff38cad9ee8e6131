"""nginx and its ranges: the values are those of the file, and few bytes are sent for them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from nginx_server import Nginx

import wio

NAMES = ("net.wio", "set.wio", "net.safetensors", "net.ckpt", "net.ckpt.index", "net.ckpt.data-00001-of-00003")
MEGABYTES = 80


@pytest.fixture(scope="module")
def there(nginx: Nginx, written: Path) -> Nginx:
    shutil.copytree(written, nginx.folder / "weights")
    return nginx


@pytest.mark.parametrize("name", NAMES)
def test_listing_sends_less_than_a_hundredth(name: str, there: Nginx, written: Path, run: Run) -> None:
    with there.counted() as traffic:
        listed = run("inspect", f"{there.url}/weights/{name}").stdout
    assert listed == run("inspect", written / name).stdout
    assert "small/bias" in listed
    assert traffic[0].bytes < MEGABYTES * 10_000, traffic
    assert traffic[0].requests <= 24, traffic


@pytest.mark.parametrize("name", NAMES)
def test_one_tensor_sends_little_more_than_itself(
    name: str, there: Nginx, written: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "one.wio"
    with there.counted() as traffic:
        run("export", f"{there.url}/weights/{name}", "--only", "fc13/kernel", "-o", out)
    assert list(wio.open(out)) == ["fc13/kernel"]
    assert np.array_equal(wio.open(out)["fc13/kernel"].numpy(), wio.open(written / "net.wio")["fc13/kernel"].numpy())
    assert 4_000_000 < traffic[0].bytes < 4_000_000 + MEGABYTES * 10_000, traffic


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_is_sent_once(name: str, there: Nginx, written: Path, run: Run, tmp_path: Path) -> None:
    run("export", written / name, "-o", tmp_path / "local.wio")
    with there.counted() as traffic:
        run("export", f"{there.url}/weights/{name}", "-o", tmp_path / "remote.wio")
    assert (tmp_path / "remote.wio").read_bytes() == (tmp_path / "local.wio").read_bytes()
    assert traffic[0].bytes < MEGABYTES * 1_010_000, traffic
    assert traffic[0].requests < 100, traffic


def test_files_that_are_read_whole(there: Nginx, written: Path, run: Run, tmp_path: Path) -> None:
    few = ("--only", "fc0*/kernel", "--only", "small/*")
    for adapter, name in (("onnx", "net.onnx"), ("numpy", "net.npz"), ("torch", "net.pt")):
        run("import", written / "net.wio", "--into", adapter, *few, "-o", there.folder / name)
        with there.counted() as traffic:
            remote = run("inspect", f"{there.url}/{name}", "--json", "--digests").stdout
        assert remote == run("inspect", there.folder / name, "--json", "--digests").stdout
        size = sum(path.stat().st_size for path in there.folder.glob(f"{name}*"))
        assert size < traffic[0].bytes < size * 1.05 + 10_000


def test_a_login_opens_what_is_locked_and_is_never_shown(there: Nginx, run: Run, tmp_path: Path) -> None:
    host = there.url.removeprefix("http://")
    refused = run("inspect", f"http://name:wrong@{host}/locked/weights/net.wio?sig=hidden", code=2).stderr
    assert "401" in refused and "wrong" not in refused and "hidden" not in refused
    told = run(
        "export", f"http://name:secret@{host}/locked/weights/net.wio?sig=hidden", "--only", "small/*", "-o", "x.wio"
    )
    receipt = run("inspect", "x.wio", "--receipt").stdout
    assert '"net.wio"' in receipt
    for text in (told.stdout, told.stderr, receipt):
        assert "secret" not in text and "hidden" not in text and "127.0.0.1" not in text


def test_what_is_not_there(there: Nginx, run: Run) -> None:
    told = run("inspect", f"{there.url}/weights/other.wio", code=2).stderr
    assert f"{there.url}/weights/other.wio: no such file" in told


def test_nothing_outside_the_folder_is_asked_for(there: Nginx, run: Run, tmp_path: Path) -> None:
    index = there.folder / "weights" / "odd.safetensors.index.json"
    names = ("../secret.safetensors", "/secret.safetensors", "x/../../secret.safetensors")
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict(zip("abc", names, strict=True))}))
    (there.folder / "secret.safetensors").write_bytes((there.folder / "weights" / "net.safetensors").read_bytes())
    with there.counted() as traffic:
        told = run("inspect", f"{there.url}/weights/odd.safetensors.index.json", code=2).stderr
    assert told.count("refused") == 3
    assert "secret" not in "".join(there.log.read_text().splitlines()[-traffic[0].requests :])


def test_a_file_that_changes_in_between_is_an_error(there: Nginx, written: Path) -> None:
    path = there.folder / "changing.wio"
    shutil.copy(written / "net.wio", path)
    # nginx tells versions apart by size and second.
    os.utime(path, (1, 1))
    bundle = wio.open(f"{there.url}/changing.wio")
    assert bundle["fc03/kernel"].numpy().shape == (1000, 1000)
    content = bytearray(path.read_bytes())
    content[-3_000_000:] = bytes(3_000_000)
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(wio.WioError, match="changed on the server"):
        bundle["fc19/kernel"].numpy()
