"""Real servers of files on loopback, and what lies on them. A server that is not installed is a failure, no skip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nginx_server
import numpy as np
import pytest
import s3_server
from lying_server import LyingServer
from nginx_server import Nginx
from s3_server import S3

import wio
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx_server.running(tmp_path_factory.mktemp("nginx")) as started:
        yield started


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server.running(tmp_path_factory.mktemp("s3")) as started:
        yield started


@pytest.fixture
def liar() -> Iterator[LyingServer]:
    with LyingServer() as started:
        yield started


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``wio`` as a user runs it: held to its exit code, to showing no traceback and to leaving nothing behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def run(*words: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        told = {**os.environ, "TMPDIR": str(temporary), "WIO_REMOTE_TIMEOUT": "2", **environment}
        command = [sys.executable, "-m", "wio", *map(str, words)]
        done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        assert list(temporary.iterdir()) == []
        return done

    return run


def network(large: int = 20, side: int = 1000) -> Bundle:
    """So many matrices of 4 MB (for 1000 a side), each of its own values, and a small vector between the halves."""

    def tensor(name: str, values: np.ndarray, role: str, layout: str) -> Tensor:
        return Tensor(name, DTYPES[str(values.dtype)], values.shape, lambda: values, layer=name.split("/")[0]).declared(
            role, wio.Layout.parse(layout)
        )

    random = np.random.default_rng(7)
    tensors = [
        tensor(f"fc{k:02}/kernel", random.random((side, side), dtype="f4"), "dense.kernel", "IO") for k in range(large)
    ]
    tensors.insert(large // 2, tensor("small/bias", np.arange(7, dtype="f4"), "dense.bias", "O"))
    return Bundle(tensors, {})


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 80 MB of weights as .wio, in shards, as safetensors and as a TensorFlow checkpoint of 3 files."""
    folder = tmp_path_factory.mktemp("written")
    bundle = network()
    wio.save(bundle, folder / "net.wio")
    wio.save(bundle, folder / "set.wio", shard_size="20MB")
    wio.import_into(folder / "net.wio", folder / "net.safetensors", adapter="safetensors")
    wio.import_into(folder / "net.wio", folder / "net.ckpt", adapter="tf-checkpoint", shards="3")
    return folder
