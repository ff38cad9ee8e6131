"""What a path may be: prefix, index, data file, shard, directory, link, and nothing of the kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tf_judge import ADAPTER, read, same, save_v2, tensorflow

from wio.errors import FormatError


@pytest.fixture(scope="session")
def tf() -> Any:
    return tensorflow()


@pytest.mark.parametrize(
    "written", ["dir/model.ckpt", "dir/", "dir/.hidden", "dir/model.index", "dir/a-00000-of-00001"]
)
def test_prefixes_of_every_shape(tf: Any, tmp_path: Path, written: str) -> None:
    prefix = f"{tmp_path}/{written}"
    save_v2(tf, prefix, {"x": np.float32([1, 2])})
    assert same(read(prefix)["x"].numpy(), np.float32([1, 2]))
    assert list(read(prefix + ".index")) == ["x"]
    assert list(read(prefix + ".data-00000-of-00001")) == ["x"]


def test_relative_paths_and_links(tf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data files are looked for beside the name that was given, as in a cache of links to blobs."""
    (tmp_path / "blobs").mkdir()
    save_v2(tf, tmp_path / "m", {"x": np.float32([1])})
    for number, name in enumerate(("m.index", "m.data-00000-of-00001")):
        (tmp_path / name).rename(tmp_path / "blobs" / str(number))
        (tmp_path / name).symlink_to(tmp_path / "blobs" / str(number))
    monkeypatch.chdir(tmp_path)
    for path in ("m", "m.index", "./m.data-00000-of-00001"):
        assert read(path)["x"].numpy() == np.float32(1)


@pytest.mark.parametrize("base", ["plain-3", 'é"quoted"', "it's", "back\\slash", "-1"])
def test_checkpoint_files_as_tensorflow_writes_them(tf: Any, tmp_path: Path, base: str) -> None:
    save_v2(tf, tmp_path / base, {"x": np.float32([1])})
    tf.compat.v1.train.update_checkpoint_state(str(tmp_path), str(tmp_path / base))
    assert list(read(tmp_path)) == list(read(tmp_path / "checkpoint")) == ["x"]


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "/home/someone/run/m"',
        "model_checkpoint_path:'m'",
        'all_model_checkpoint_paths: "model_checkpoint_path: \\"n\\"" model_checkpoint_path: "./m"  # a comment',
        'model_checkpoint_path: "C:\\\\Users\\\\x\\\\m"',
        'model_checkpoint_path: "\\155"',
        'model_checkpoint_path: "\\x6d"\nlast_preserved_timestamp: 1.5',
    ],
)
def test_checkpoint_files_by_hand(tf: Any, tmp_path: Path, text: str) -> None:
    save_v2(tf, tmp_path / "m", {"x": np.float32([1])})
    (tmp_path / "checkpoint").write_text(text)
    assert list(read(tmp_path)) == ["x"]


def test_the_checkpoint_file_reaches_nothing_outside_its_folder(tf: Any, tmp_path: Path) -> None:
    save_v2(tf, tmp_path / "secret", {"x": np.float32([1])})
    folder = tmp_path / "a"
    folder.mkdir()
    for path in ("../secret", f"{tmp_path}/secret", ".."):
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{path}"')
        with pytest.raises(FormatError, match=r"is not in its folder|is no name of a checkpoint"):
            ADAPTER.read(folder)


def test_what_a_directory_lacks_is_said(tf: Any, tmp_path: Path) -> None:
    save_v2(tf, tmp_path / "one", {"x": np.float32([1])})
    save_v2(tf, tmp_path / "two", {"x": np.float32([1])})
    with pytest.raises(FormatError, match="name the checkpoint itself: one, two"):
        ADAPTER.read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="without a `checkpoint` file"):
        ADAPTER.read(tmp_path / "empty")
    with pytest.raises(FormatError, match="none: no such file"):
        ADAPTER.read(tmp_path / "none")


def test_sniff_says_no_without_raising(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "nothing").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "text", "nothing", "loop", "folder", "missing", "nul\0", "x" * 300, "text/below"):
        assert ADAPTER.sniff(tmp_path / name) == 0, name
    for name in ("fifo", "loop", "folder", "missing", "nul\0", "x" * 300, "text/below", "text", "nothing"):
        with pytest.raises(FormatError):
            ADAPTER.read(tmp_path / name)


def test_a_v1_file_beside_a_v2_checkpoint_of_the_same_prefix(tf: Any, tmp_path: Path) -> None:
    save_v2(tf, tmp_path / "m", {"x": np.float32([2])})
    tf.raw_ops.Save(filename=str(tmp_path / "m"), tensor_names=["x"], data=[np.float32([1])])
    assert read(tmp_path / "m")["x"].numpy() == 1
    assert read(tmp_path / "m.index")["x"].numpy() == 2
