"""What is no weight file at all, and files that change while they are read."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import hostile
import pytest
import test_hostile_safetensors as st
import test_hostile_tf_checkpoint as tf

from wio.api import open as open_bundle
from wio.errors import LONGEST_SHOWN, FormatError, Problem, WioError, legible
from wio.plugins import found_adapters


def tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        file.addfile(tarfile.TarInfo("model.ckpt"))
    return made.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456789\n"
FOREIGN: dict[str, tuple[bytes, str]] = {
    "a Git LFS pointer": (POINTER, "Git LFS pointer"),
    "an HTML page": (b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
    "an HTML page after a line": (b"\n\n  <html lang=en>", "HTML page"),
    "an XML answer": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
    "JSON": (b'{"error": "Repository not found"}', "JSON"),
    "a tar archive": (tar(), "tar archive"),
    "a gzip archive": (gzip.compress(b"weights", mtime=0), "gzip"),
    "a pickle": (pickle.dumps({"a": [1, 2]}, 4), "pickle"),
    "a pickle of protocol 5": (pickle.dumps({"a": [1, 2]}, 5), "pickle"),
    "an empty file": (b"", "empty file"),
    "zeros": (bytes(4096), "none of the formats"),
    "text": (b"hello\x1b[2J\n", "none of the formats"),
    "xz": (b"\xfd7zXZ\0\0\4", "xz archive"),
    "zstd": (b"\x28\xb5\x2f\xfd\0", "Zstandard"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "7z archive"),
    "GGUF": (b"GGUF\3\0\0\0", "GGUF"),
    "a program": (b"\x7fELF\2\1\1", "a program"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_files_are_named_for_what_they_are(tmp_path: Path, what: str) -> None:
    contents, word = FOREIGN[what]
    for name in ("model.ckpt", "model.safetensors", "model.h5", "model"):
        (tmp_path / name).write_bytes(contents)
        done = hostile.wio("inspect", tmp_path / name)
        assert done.code == 2
        assert word in done.err, done.err
        assert not list(hostile.bad_message(done.err))


def readers() -> list[str]:
    return [found.name for found in found_adapters() if found.adapter is not None and found.adapter.reads]


@pytest.mark.parametrize("adapter", readers())
def test_no_reader_takes_what_is_no_weight_file(tmp_path: Path, adapter: str) -> None:
    """Insisting on a format does not help: one message, and nothing is waited for."""
    paths: dict[str, Callable[[Path], object]] = {
        "pipe": lambda path: os.mkfifo(path),
        "device": lambda path: path.symlink_to("/dev/zero"),
        "loop": lambda path: path.symlink_to(path.name),
        "nothing": lambda path: path.symlink_to("missing"),
        "folder": lambda path: path.mkdir(),
        "missing": lambda _: None,
    }
    for name, make in paths.items():
        make(tmp_path / name)
    for name, (contents, _) in FOREIGN.items():
        (tmp_path / name).write_bytes(contents)
    for name in (*paths, *FOREIGN, "x" * 300, "bell\a\x1b[2J", "pipe/below", "\udcff"):
        for command in ("inspect", "export"):
            out = ("-o", tmp_path / "out.wio") if command == "export" else ()
            done = hostile.wio(command, *out, "--from", adapter, tmp_path / name)
            if done.code == 0:
                assert (adapter, name) in READ_ALL_THE_SAME, f"{adapter} reads {name}"
                continue
            assert done.code == 2, f"{name}: {done.err}"
            assert not (found := list(hostile.bad_message(done.err))), f"{name}: {found}"
            assert not (tmp_path / "out.wio").exists()


# A pickle of plain values is what old PyTorch wrote, and holds no tensor; an empty ONNX or Caffe message is a message.
READ_ALL_THE_SAME: set[tuple[str, str]] = set()


# --- files that change


@pytest.mark.parametrize(
    "seed", [st.PLAIN, st.SHARDED, st.wio_seed(st.WIO), tf.V2, tf.V1], ids=lambda seed: seed.opened
)
def test_a_file_that_shrinks_once_it_is_open_is_an_error(tmp_path: Path, seed: hostile.Seed) -> None:
    path = hostile.Case("intact").put(tmp_path / "in", seed)
    bundle = open_bundle(path)
    for file in (tmp_path / "in").iterdir():
        os.truncate(file, 0)
    for tensor in bundle.values():
        with pytest.raises(FormatError, match=r"became shorter|not all there any more"):
            tensor.numpy()
        with pytest.raises(FormatError, match=r"became shorter|not all there any more"):
            tensor.stored()


SHRINKS = """
import hashlib, sys
from concurrent.futures import ThreadPoolExecutor
from wio.mapping import end_with_a_message_when_a_file_shrinks, map_file
end_with_a_message_when_a_file_shrinks()
file = open(sys.argv[1], "r+b")
mapped = map_file(file.fileno())
file.truncate(0)
touch = {"bytes": lambda: mapped[:], "digest": lambda: hashlib.sha256(mapped).digest()}[sys.argv[2]]
if sys.argv[3] == "here":
    touch()
else:
    with ThreadPoolExecutor(1) as other:
        other.submit(touch).result()
"""


@pytest.mark.parametrize("thread", ["here", "on another thread"])
@pytest.mark.parametrize("how", ["bytes", "digest"])
def test_a_file_that_shrinks_in_the_middle_of_a_read_ends_in_a_message(tmp_path: Path, how: str, thread: str) -> None:
    """With the interpreter's lock held, and without: not a crash."""
    (tmp_path / "big").write_bytes(bytes(1 << 20))
    words = [sys.executable, "-c", SHRINKS, str(tmp_path / "big"), how, thread]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done
    assert not list(hostile.bad_message(done.stderr))
    assert "became shorter while it was read" in done.stderr


# --- text


def test_long_and_odd_text_is_legible() -> None:
    assert legible("conv1/weights 卷积 é") == "conv1/weights 卷积 é"
    for name in hostile.NAMES.values():
        shown = legible(name)
        assert not hostile.unsafe(shown)
        assert "\n" not in shown
        assert len(shown) < 12 * LONGEST_SHOWN
    error = WioError("a\nb\x1b", [Problem("x", "c\x07", "d\u202e", "e\x9b")], "f\x7f")
    assert str(error) == "a\\nb\\x1b\n  d\\u202e: c\\x07\n    -> e\\x9b\n  -> f\\x7f"


def test_what_a_terminal_shows_of_a_file(tmp_path: Path) -> None:
    """Tables, plans, JSON and pages, of tensors whose names would paint, jump, reverse or run."""
    odd = [name for name in hostile.NAMES.values() if len(name) < 1000]
    entries = {name: {"dtype": "U8", "shape": [1], "data_offsets": [k, k + 1]} for k, name in enumerate(odd)}
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    a.write_bytes(st.framed(entries, bytes(len(odd))))
    b.write_bytes(st.framed({f"{name}x": entry for name, entry in entries.items()}, bytes(range(1, len(odd) + 1))))
    page = tmp_path / "page.html"
    runs = [
        ("inspect", a), ("inspect", "--json", a), ("inspect", "--textconv", a), ("inspect", "--digests", a),
        ("export", "--dry-run", a), ("export", "--json", "--dry-run", a),
        ("export", "-o", tmp_path / "a.wio", "--drop", "*x1b*", a), ("check", a), ("check", "--json", a),
        ("diff", a, b), ("diff", "--json", a, b), ("diff", "--html", page, a, b),
        ("convert", "--into", "torch", "-o", tmp_path / "a.pt", a),
    ]  # fmt: skip
    for run in runs:
        done = hostile.wio(*run)
        assert done.code in (0, 1, 2), done.err
        assert not hostile.unsafe(done.out), run
        assert not hostile.unsafe(done.err), run
    html = page.read_text("utf-8")
    assert not hostile.unsafe(html)
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
