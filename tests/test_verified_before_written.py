"""Every digest is checked: by `inspect --digests`, and by an import before its output takes the old one's place."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TESTS, run_wio
from test_keras3_malformed import archive

from wio.cli.main import DONE, TROUBLE, main
from wio.container import WioFileReader
from wio.plugins import found_adapters
from wio.safetensors_header import Entry, read_header

VECTORS = sorted((TESTS.parent / "spec" / "vectors" / "valid").glob("*.wio"))
KERAS = TESTS / "data" / "real_frameworks" / "keras_layers" / "k224_tf_last" / "ConvFlattenDense.full.h5"
WRITERS = sorted(each.name for each in found_adapters() if each.adapter and each.adapter.writes)


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]


def data_start(path: Path) -> int:
    with path.open("rb") as file:
        return read_header(file.fileno(), path.name).data_start


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_every_byte_of_the_data_is_checked(vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tensors, and what lies in reserved ones: a receipt, a declaration outside the header."""
    path, raw, start = tmp_path / "a.wio", vector.read_bytes(), data_start(vector)
    path.write_bytes(raw)
    assert main(["inspect", str(path), "--digests"]) == DONE
    unseen = []
    for at in range(start, len(raw)):
        path.write_bytes(flipped(raw, at))
        if main(["inspect", str(path), "--digests"]) != TROUBLE:
            unseen.append(at)
    reserved = {name: entry for name, entry in _entries(vector).items() if name.startswith("__wio__/")}
    known = {"__wio__/receipt", "__wio__/declaration"}
    # A reserved tensor that this version does not know is no weight, and no one has its digest.
    free = {start + k for name, e in reserved.items() if name not in known for k in range(e.start, e.end)}
    assert set(unseen) <= free


def _entries(path: Path) -> dict[str, Entry]:
    with path.open("rb") as file:
        return dict(read_header(file.fileno(), path.name).entries)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    run_wio("export", KERAS, "-o", folder / "a.wio")
    run_wio("export", archive(folder), "-o", folder / "keras3.wio")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("adapter", WRITERS)
@pytest.mark.parametrize("where", ["over the old one", "where nothing was"])
def test_a_flipped_byte_leaves_what_was_there(
    adapter: str, where: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the last byte of each tensor in turn, so that all before it has been written somewhere."""
    source = sound / ("keras3.wio" if adapter == "keras3" else "a.wio")
    raw, start = source.read_bytes(), data_start(source)
    damaged, out = tmp_path / "damaged.wio", tmp_path / "out"
    out.mkdir()
    written = out / ("model.keras" if adapter == "keras3" else "model")
    words = ["import", str(damaged), "--into", adapter, "-o", str(written)]
    damaged.write_bytes(raw)
    assert main(words) == DONE
    assert content(out), "what is to be kept is there"
    if where == "where nothing was":
        for name in content(out):
            (out / name).unlink()
    before = content(out)
    copied = [t for t in WioFileReader(source).bundle().values() if t.digest]
    entries = _entries(source)
    assert len(copied) >= 2
    for tensor in copied:
        damaged.write_bytes(flipped(raw, start + entries[tensor.name].end - 1))
        capsys.readouterr()
        assert main(words) == TROUBLE, tensor.name
        told = capsys.readouterr().err
        assert tensor.name in told and "SHA-256" in told
        assert content(out) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.wio", "out"]
