"""Files under URLs, where no server is needed: in fsspec's memory; and what must cost nothing without a URL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sharded import network

import wio
from wio import mapping, places
from wio.cli.main import main
from wio.errors import UsageError, WioError
from wio.remote import upload
from wio.remote.source import Entry, RemoteError
from wio.remote.spans import Spans
from wio.remote.stand_in import BLOCK, StandIn


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    yield system
    places.leave()
    assert list((tmp_path / "temporary").iterdir()) == []
    system.store.clear()
    system.pseudo_dirs[:] = [""]


class Counting:
    """A place that notes what it was asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []

    def entry(self, name: str) -> Entry | None:
        return Entry(name, len(self.content), None)

    def listed(self) -> None:
        return None

    def pieces(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:  # noqa: ARG002
        self.asked.append((start, stop))
        yield self.content[start:stop]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))), st.integers(0, 30), st.integers(0, 30))
def test_spans_are_a_set_of_numbers(added: list[tuple[int, int]], start: int, stop: int) -> None:
    spans, numbers = Spans(), set()
    for first, last in added:
        spans.add(first, last)
        numbers |= set(range(first, last))
    missing = list(spans.missing(start, stop))
    assert [n for first, last in missing for n in range(first, last)] == sorted(set(range(start, stop)) - numbers)
    assert all(first < last for first, last in missing)


def test_each_block_is_fetched_once_and_only_when_it_is_read(tmp_path: Path) -> None:
    content = np.random.default_rng(3).bytes(20 * BLOCK + 100)
    place = Counting(content)
    file = StandIn(place, Entry("x", len(content), None), tmp_path / "x")
    with (tmp_path / "x").open("rb") as opened:
        assert mapping.read_at(opened.fileno(), 10, 3 * BLOCK - 5) == content[3 * BLOCK - 5 : 3 * BLOCK + 5]
        assert place.asked == [(2 * BLOCK, 4 * BLOCK)]
        mapped = mapping.map_file(opened.fileno(), ranges=True)
        assert not mapping.shrunk(mapped, 3 * BLOCK, 6 * BLOCK)
        assert mapped[3 * BLOCK : 6 * BLOCK] == content[3 * BLOCK : 6 * BLOCK]
        assert place.asked[1:] == [(4 * BLOCK, 6 * BLOCK)]
        assert not mapping.shrunk(mapped, 20 * BLOCK, len(content))
        assert mapped[20 * BLOCK :] == content[20 * BLOCK :]
        # Whoever does not ask beforehand has all of it.
        assert mapping.map_file(opened.fileno())[:] == content
    blocks = [block for start, stop in place.asked for block in range(start, stop, BLOCK)]
    assert sorted(blocks) == list(range(0, len(content), BLOCK))
    file.close()


def test_many_small_parts_in_a_row_are_few_requests(tmp_path: Path) -> None:
    place = Counting(bytes(400 * BLOCK))
    file = StandIn(place, Entry("x", len(place.content), None), tmp_path / "x")
    for start in range(0, len(place.content), BLOCK // 4):
        file.fetch(start, start + BLOCK // 4)
    assert len(place.asked) < 40
    assert sum(stop - start for start, stop in place.asked) == len(place.content)
    file.close()


@pytest.mark.parametrize("shard_size", [None, 100])
def test_from_memory_to_memory(shard_size: int | None, memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    wio.save(network(), tmp_path / "net.wio", shard_size=shard_size)
    wio.save(network(), "memory://there/net.wio", shard_size=shard_size)
    stored = {path.rpartition("/")[2]: memory.cat_file(path) for path in memory.ls("/there", detail=False)}
    assert stored == {path.name: path.read_bytes() for path in tmp_path.glob("net*")}
    found = wio.open("memory://there/net.wio")
    assert list(found) == list(network())
    for name, tensor in network().items():
        assert np.array_equal(found[name].numpy(), tensor.numpy())
    assert wio.diff("memory://there/net.wio", tmp_path / "net.wio").equal


def test_a_set_replaces_a_single_file_and_its_index_comes_last(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = upload.uploaded
    monkeypatch.setattr(upload, "uploaded", lambda url, path: sent.append(url) or send(url, path))
    wio.save(network(), "memory://there/net.wio")
    wio.save(network(), "memory://there/net.wio", shard_size=100)
    assert not memory.exists("/there/net.wio")
    assert len(sent) > 3
    assert sent[-1] == "memory://there/net.wio.index.json"
    assert sent[1:-1] == sorted(sent[1:-1])
    assert list(wio.open("memory://there/net.wio")) == list(network())


def test_the_command_line(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wio.save(network(), "memory://there/net.wio")
    assert main(["export", "wio:memory://there/net.wio", "--only", "conv/*", "-o", "memory://out/some.wio"]) == 0
    assert "wrote memory://out/some.wio: 2 tensors" in capsys.readouterr().err
    assert main(["inspect", "memory://out/some.wio", "--receipt"]) == 0
    assert '"file": "net.wio"' in capsys.readouterr().out
    assert main(["inspect", "memory://out/some.wio", "--html", "memory://out/some.html"]) == 0
    assert memory.cat_file("/out/some.html").startswith(b"<!")
    assert main(["inspect", "memory://out/other.wio"]) == 2
    assert "memory://out/other.wio" in capsys.readouterr().err


def test_an_error_leaves_what_was_there(memory: fsspec.AbstractFileSystem) -> None:
    wio.save(network(), "memory://there/net.wio")
    before = memory.cat_file("/there/net.wio")
    damaged = before[:-1] + bytes((before[-1] ^ 1,))
    memory.pipe_file("/there/damaged.wio", damaged)
    with pytest.raises(WioError, match="SHA-256"):
        wio.export("memory://there/damaged.wio", "memory://there/net.wio")
    assert memory.cat_file("/there/net.wio") == before


def test_a_file_that_changes_is_an_error(memory: fsspec.AbstractFileSystem) -> None:
    wio.save(network(), "memory://there/net.wio")
    bundle = wio.open("memory://there/net.wio")
    memory.pipe_file("/there/net.wio", bytes(memory.size("/there/net.wio")))
    assert np.array_equal(bundle["last"].numpy(), network()["last"].numpy())
    wio.save(network(), "memory://there/net.wio")
    fresh = wio.open("memory://there/net.wio")
    assert np.array_equal(fresh["last"].numpy(), network()["last"].numpy())


@pytest.mark.parametrize("url", ["memory://", "nothing://x/y", "http://", "http://h:0/x", "https://h/", "s3x://a/.."])
def test_what_is_no_place(url: str, memory: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(WioError):
        wio.open(url)


def test_web_servers_are_not_written_to(tmp_path: Path) -> None:
    wio.save(network(), tmp_path / "net.wio")
    with pytest.raises(UsageError, match="take no files") as told:
        wio.export(tmp_path / "net.wio", "https://name:secret@host/x.wio?signature=hidden")
    assert "secret" not in str(told.value) and "hidden" not in str(told.value)


def test_secrets_are_left_out_of_messages() -> None:
    text = "no s3://key:secret@bucket/a?sig=hidden, https://u:p@h/x?y#z 'gs://b/c?d'; a@b stays, why? so"
    assert places.without_secrets(text) == "no s3://bucket/a https://h/x 'gs://b/c'; a@b stays, why? so"


@pytest.mark.parametrize("secret", ["u:p'w@", 'u:"@', "u:p?x@", "u@v:p@", ":p@"])
def test_odd_secrets_are_left_out_too(secret: str) -> None:
    assert places.without_secrets(f"https://{secret}host/a/b?c='d'&e=f") == "https://host/a/b"


def test_local_work_imports_nothing_for_it(tmp_path: Path) -> None:
    wio.save(network(), tmp_path / "net.wio")
    script = (
        "import sys, wio.cli.main as m; code = m.main(sys.argv[1:]);"
        "bad = [n for n in sys.modules if n.startswith(('wio.remote', 'fsspec', 'http.client', 'aiohttp'))];"
        "sys.exit(f'{code} {bad}' if bad or code else 0)"
    )
    command = [sys.executable, "-c", script, "inspect", str(tmp_path / "net.wio")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr


def test_a_place_that_gives_more_or_less_than_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIO_REMOTE_RETRIES", "1")

    class More(Counting):
        def pieces(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:  # noqa: ARG002
            yield bytes(stop - start + 1)

    class Less(Counting):
        def pieces(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:  # noqa: ARG002
            yield b""

    for kind, told in ((More, "gives more"), (Less, "ends too early")):
        file = StandIn(kind(bytes(10)), Entry("x", 10, None), tmp_path / kind.__name__)
        with pytest.raises(RemoteError, match=told):
            file.fetch(0, 10)
        file.close()


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "1e9"])
def test_limits_are_numbers(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIO_REMOTE_TIMEOUT", text)
    with pytest.raises(UsageError, match="WIO_REMOTE_TIMEOUT"):
        wio.open("http://127.0.0.1:9/x.wio")
