"""Architectures and dialects that a user adds: checked, kept in the user's own folder, found by every later command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TESTS, run_wio

from wio import user_folders
from wio.errors import FormatError, UsageError, WioError
from wio.plugins import architectures, habits
from wio.user_registry import add

REGISTRY = TESTS.parent / "registry"
NETWORK = """
id = "my-net"
title = "Mine"

[network]
layers = [
    ["image", "Input", [], { axes = "HWC", sizes = [8, 6, 2] }],
    ["conv1", "Conv", "image", { filters = 5, kernel_shape = [3, 4], auto_pad = "SAME_UPPER" }],
]

[dialects.plain]
title = "Mine, as it is"
adapters = ["numpy"]
source = "written for this test"
verified = "here"
layers = "{layer}"
tensors = "{layer}.{weight}"
weights = { "Conv.kernel" = "w", "Conv.bias" = "b" }
layouts = { "conv.kernel" = "HWIO", "conv.bias" = "O" }
"""
HABIT = """
id = "my-habit"
title = "Mine"
adapters = ["numpy"]
rules = [["*/kernel", "conv.kernel", "HWIO"]]
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own registry, empty; habits are found once for each process otherwise."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    habits.cache_clear()
    return tmp_path / "data" / "wio" / "registry"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_added_architecture_is_there_for_every_command(own: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "any_name.toml", NETWORK)
    assert str(own / "my_net.toml") in run_wio("registry", "add", file).stderr
    listed = json.loads(run_wio("registry", "list", "--json").stdout)["architectures"]
    assert {"id": "my-net", "title": "Mine", "dialects": ["plain"]} in listed
    kernel = np.arange(3 * 4 * 2 * 5, dtype=np.float32).reshape(3, 4, 2, 5)
    np.savez(tmp_path / "w.npz", **{"conv1.w": kernel, "conv1.b": np.arange(5, dtype=np.float32)})
    run_wio("export", tmp_path / "w.npz", "--arch", "my-net", "-o", tmp_path / "w.wio")
    found = json.loads(run_wio("inspect", tmp_path / "w.wio", "--json").stdout)["tensors"]
    assert [(t["name"], t["role"], t["layout"]) for t in found] == [
        ("conv1/kernel", "conv.kernel", "HWIO"),
        ("conv1/bias", "conv.bias", "O"),
    ]


def test_a_dialect_is_added_too(own: Path, tmp_path: Path) -> None:
    run_wio("registry", "add", written(tmp_path / "h.toml", HABIT))
    assert [path.name for path in (own / "dialects").iterdir()] == ["my_habit.toml"]
    listed = json.loads(run_wio("registry", "list", "--json").stdout)["dialects"]
    assert {"id": "my-habit", "title": "Mine", "adapters": ["numpy"]} in listed


def test_without_a_folder_of_ones_own_nothing_changes(own: Path) -> None:
    assert not own.exists()
    assert "mtcnn-onet" in architectures() and "keras" in habits()


def test_an_id_is_described_once(own: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="described already"):
        add(REGISTRY / "mtcnn_onet.toml")
    with pytest.raises(UsageError, match="described already"):
        add(REGISTRY / "dialects" / "keras.toml", replace=True)
    assert not own.exists()
    add(written(tmp_path / "a.toml", NETWORK))
    add(written(tmp_path / "b.toml", NETWORK))
    other = written(tmp_path / "c.toml", NETWORK.replace("Mine", "Another"))
    with pytest.raises(UsageError, match="--replace") as caught:
        add(other)
    assert "my_net.toml" in str(caught.value) and architectures()["my-net"].title == "Mine"
    run_wio("registry", "add", other, "--replace")
    assert (own / "my_net.toml").read_text() == other.read_text()


@pytest.mark.parametrize("identity", ["../evil", "/evil", "..", "a/b", "a\\b", ".", ""])
@pytest.mark.parametrize("text", [NETWORK, HABIT])
def test_an_id_does_not_lead_out_of_the_folder(identity: str, text: str, own: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    file = written(
        tmp_path / "a.toml", text.replace('"my-net"', json.dumps(identity)).replace('"my-habit"', json.dumps(identity))
    )
    with pytest.raises(WioError):
        add(file)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, file])


def test_what_is_not_sound_is_not_added(own: Path, tmp_path: Path) -> None:
    for text in (
        "id = 'a'",
        NETWORK.replace('"Conv", "image"', '"Conv", "imagine"'),
        NETWORK.replace('"{layer}.{weight}"', '"w"'),
    ):
        with pytest.raises(WioError):
            add(written(tmp_path / "a.toml", text))
        run_wio("registry", "add", tmp_path / "a.toml", code=2)
    with pytest.raises(FormatError):
        add(tmp_path / "none.toml")
    assert not own.exists()


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("linux", "/x/data", "/x/data/wio"),
        ("linux", "relative", "/home/me/.local/share/wio"),
        ("linux", "", "/home/me/.local/share/wio"),
        ("darwin", "", "/home/me/Library/Application Support/wio"),
        ("darwin", "/x/data", "/x/data/wio"),
    ],
)
def test_where_a_users_data_are(platform: str, variable: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_DATA_HOME", variable)
    assert user_folders.data_folder() == Path(folder)
