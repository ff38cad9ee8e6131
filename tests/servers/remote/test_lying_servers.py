"""Servers that are slow, broken or lie: an error or the right values, never wrong ones, and always an end."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, network
from lying_server import LyingServer

import wio


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """Safetensors have no checksums: wrong bytes would be wrong values."""
    wio.save(network(4, 300), tmp_path / "net.wio")
    wio.import_into(tmp_path / "net.wio", tmp_path / "net.safetensors", adapter="safetensors")
    return (tmp_path / "net.safetensors").read_bytes()


ERRORS = {
    "another range": "were asked for",
    "shifted bytes, said": "were asked for",
    "another version": "changed on the server",
    "another size": "changed on the server",
    "short": "early|Incomplete",
    "less announced": "are announced",
    "compressed": "encoded as gzip",
    "stalls": "no byte came for 2 seconds",
    "trickles": "bytes came in",
    "unavailable": "answers 503",
    "no ranges": "changed on the server",
}


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("lie", ERRORS)
def test_a_lie_is_an_error(
    lie: str, after: int, liar: LyingServer, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIO_REMOTE_TIMEOUT", "2")
    monkeypatch.setenv("WIO_REMOTE_RETRIES", "1")
    liar.content, liar.lie, liar.after = content, lie, after
    began = time.monotonic()
    with pytest.raises(wio.WioError, match=ERRORS[lie]) as told:
        bundle = wio.open(f"{liar.url}/net.safetensors")
        for tensor in bundle.values():
            tensor.numpy()
    assert liar.url in str(told.value)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("lie", ["short at times", "unavailable at times"])
def test_what_passes_is_asked_for_again(lie: str, liar: LyingServer, content: bytes, tmp_path: Path) -> None:
    liar.content, liar.lie, liar.after = content, lie, 0
    remote = wio.open(f"{liar.url}/net.safetensors")
    local = wio.open(tmp_path / "net.safetensors")
    assert list(remote) == list(local)
    for name, tensor in local.items():
        assert np.array_equal(remote[name].numpy(), tensor.numpy())


def test_a_server_without_ranges_gives_the_whole_file(liar: LyingServer, content: bytes, tmp_path: Path) -> None:
    liar.content, liar.lie, liar.after = content, "no ranges", 0
    remote = wio.open(f"{liar.url}/net.safetensors")
    for name, tensor in wio.open(tmp_path / "net.safetensors").items():
        assert np.array_equal(remote[name].numpy(), tensor.numpy())
    assert liar.requests == 2


def test_a_whole_file_that_is_cut_off(liar: LyingServer, content: bytes, run: Run) -> None:
    liar.content, liar.lie, liar.after = content, "no ranges, cut", 0
    assert "early" in run("inspect", f"{liar.url}/net.safetensors", code=2, WIO_REMOTE_RETRIES="1").stderr


@pytest.mark.parametrize("lie", ["huge", "larger than any file"])
def test_a_size_that_no_file_has(lie: str, liar: LyingServer, content: bytes, run: Run) -> None:
    liar.content, liar.lie, liar.after = content, lie, 0
    run("export", f"{liar.url}/net.safetensors", "-o", "out.wio", code=2, WIO_REMOTE_RETRIES="1")
    liar.content = b"\x89HDF\r\n\x1a\n" + content
    told = run("export", f"{liar.url}/net.h5", "-o", "out.wio", code=2, WIO_REMOTE_RETRIES="1").stderr
    assert "do not fit" in told or "no file here can have" in told or "were asked for" in told


def test_a_redirect_takes_no_login_along(liar: LyingServer, content: bytes, run: Run) -> None:
    liar.lie, liar.after = "redirect", 0
    with LyingServer() as other:
        other.content = content
        liar.location = f"{other.url}/elsewhere?signature=hidden"
        url = liar.url.replace("://", "://name:secret@")
        told = run("inspect", f"{url}/net.safetensors")
        assert "fc03/kernel" in told.stdout and "hidden" not in told.stderr
        assert liar.logins and None not in liar.logins
        assert other.logins and set(other.logins) == {None}


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "http://:80/x", "gopher:x"])
def test_a_redirect_leads_to_web_servers_only(location: str, liar: LyingServer, run: Run) -> None:
    liar.lie, liar.after, liar.location = "redirect", 0, location
    assert "refused" in run("inspect", f"{liar.url}/net.safetensors", code=2).stderr


def test_redirects_have_an_end(liar: LyingServer, run: Run) -> None:
    liar.lie, liar.after, liar.location = "redirect", 0, f"{liar.url}/again"
    assert "more than 5 redirects" in run("inspect", f"{liar.url}/net.safetensors", code=2).stderr


def test_what_is_forbidden_may_not_be_there(liar: LyingServer, run: Run) -> None:
    liar.lie, liar.after = "forbidden", 0
    assert "answers 403" in run("inspect", f"{liar.url}/net.ckpt", code=2).stderr
    # Its index was asked for too.
    assert liar.requests > 1


def test_nobody_answers(run: Run) -> None:
    told = run("inspect", "http://name:secret@127.0.0.1:9/net.wio", code=2, WIO_REMOTE_RETRIES="1").stderr
    assert "http://127.0.0.1:9/net.wio" in told and "secret" not in told
