"""A third party's adapter in a package of its own, as the tutorial tells how to make one: it needs nothing but wio."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import darknet_files as files
import numpy as np
import pytest
from conftest import TESTS, run_wio
from darknet_files import darknet, wheel  # noqa: F401

import wio

# One process builds and installs the package for all of them.
pytestmark = [pytest.mark.xdist_group("darknet"), pytest.mark.usefixtures("darknet")]

DECLARED = {
    **{f"batch_norm_0/{name}": (f"batch_norm.{part}", "C") for name, part in files.NORM.items()},
    "convolutional_0/weights": ("conv.kernel", "OIHW"),
    "convolutional_2/biases": ("conv.bias", "O"),
    "convolutional_2/weights": ("conv.kernel", "(GO)IHW G=2"),
    "convolutional_3/biases": ("conv.bias", "O"),
    "convolutional_3/weights": ("conv.kernel", "OIHW"),
    "connected_6/biases": ("dense.bias", "O"),
    "connected_6/weights": ("dense.kernel", "O(CHW) C=10 H=5 W=4"),
    "connected_7/biases": ("dense.bias", "O"),
    "connected_7/weights": ("dense.kernel", "OI"),
}


def test_it_passes_the_contract_in_its_own_tests() -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests"]
    done = subprocess.run(words, cwd=files.PACKAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 18


def test_wio_lists_it_beside_its_own() -> None:
    (row,) = [row for row in json.loads(run_wio("adapters", "--json").stdout) if row["package"] == "wio-darknet"]
    assert (row["name"], row["version"], row["usable"]) == ("darknet", "1.0.0", True)
    assert (row["reads"], row["writes"], [option["name"] for option in row["options"]]) == (True, True, ["cfg"])
    assert re.search(
        r"darknet +reads and writes +Darknet \.weights .* wio-darknet +1\.0\.0", run_wio("adapters").stdout
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_every_value_is_where_it_belongs(transposed: bool, tmp_path: Path) -> None:
    """Old files keep dense kernels the other way round, and say so in their header; in neutral layout all is one."""
    run_wio("export", files.network(tmp_path, transposed=transposed), "-o", tmp_path / "net.wio")
    bundle = wio.open(tmp_path / "net.wio")
    expected = files.arrays()
    assert list(bundle) == list(expected)
    for name, tensor in bundle.items():
        role, layout = DECLARED[name]
        assert tensor.role == role
        np.testing.assert_array_equal(tensor.to(layout).numpy(), expected[name], strict=True)
        if not (transposed and role == "dense.kernel"):
            assert str(tensor.layout) == layout
    assert bundle.metadata["epsilon"] == {"batch_norm_0": 1e-6}


@pytest.mark.parametrize("transposed", [False, True])
def test_to_onnx_and_back_is_the_same_file(transposed: bool, tmp_path: Path) -> None:
    source = files.network(tmp_path / "a", transposed=transposed)
    run_wio("convert", source, "--into", "onnx", "-o", tmp_path / "net.onnx")
    back = tmp_path / "b" / "net.weights"
    back.parent.mkdir()
    run_wio(
        "convert", tmp_path / "net.onnx", "--into", "darknet", "-o", back, "--option", f"cfg={source.parent}/net.cfg"
    )
    assert (back.parent / "net.cfg").read_bytes() == (source.parent / "net.cfg").read_bytes()
    run_wio("diff", source, back)
    run_wio("convert", source, "--into", "darknet", "-o", tmp_path / "c.weights")
    assert (tmp_path / "c.weights").read_bytes() == source.read_bytes()


def test_the_cfg_may_lie_elsewhere(tmp_path: Path) -> None:
    source = files.network(tmp_path)
    (tmp_path / "net.cfg").rename(tmp_path / "other.cfg")
    assert "none of the formats" in run_wio("inspect", source, code=2).stderr
    assert "net.cfg is missing" in run_wio("inspect", f"darknet:{source}", code=2).stderr
    run_wio("inspect", f"darknet:{source}", "--option", f"cfg={tmp_path / 'other.cfg'}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("output=5", "output=6", r"comes to \d+ bytes, the file has \d+"),
        ("[maxpool]", "[lstm]", r"\[lstm\] \(layer 1\): not known"),
        ("size=1", "size=1\ndilation=2", "convolutional_3: dilation not known"),
        ("groups=2", "groups=3", "do not fall into 3 groups"),
        ("output=5", "output=5\nbatch_normalize=1", "connected_6: Darknet and OpenCV disagree"),
        ("from=-2", "from=-9", "shortcut_4: from=-9 names no layer"),
        ("height=9", "height=-9", "height=-9 is no number"),
        ("size=1", "size=", "size= is no number"),
        ("[net]", "[nets]", r"does not begin with \[net\]"),
        ("stride=1", "stride", r"neither \[section\] nor key=value"),
    ],
)
def test_a_cfg_that_does_not_fit_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    source = files.network(tmp_path)
    (tmp_path / "net.cfg").write_text(files.NETWORK.replace(old, new, 1))
    assert re.search(said, run_wio("inspect", f"darknet:{source}", code=2).stderr)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\0" * 5000, "is no version of Darknet"),
        (b"\xff" * 5000, "is no version of Darknet"),
        (b"\0\0\0\0\2\0\0\0", "8 bytes are no Darknet"),
    ],
)
def test_a_file_that_is_no_darknet_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    source = files.network(tmp_path)
    source.write_bytes(content)
    assert said in run_wio("inspect", f"darknet:{source}", code=2).stderr


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    """Darknet itself reads a short file in silence."""
    source = files.network(tmp_path)
    whole = source.read_bytes()
    for length in (len(whole) - 1, len(whole) - 4, 300, 24, 20):
        source.write_bytes(whole[:length])
        assert "the file has" in run_wio("inspect", f"darknet:{source}", code=2).stderr


def test_what_is_written_must_fit_the_cfg(tmp_path: Path) -> None:
    source = files.network(tmp_path)
    run_wio("export", source, "-o", tmp_path / "net.wio")
    (tmp_path / "small.cfg").write_text(files.NETWORK.replace("output=5", "output=4"))
    words = ("import", tmp_path / "net.wio", "--into", "darknet", "-o")
    said = run_wio(*words, tmp_path / "x.weights", "--option", f"cfg={tmp_path / 'small.cfg'}", code=2).stderr
    assert "connected_6/weights: as O(CHW) C=10 H=5 W=4 it is (5, 200), the .cfg has (4, 200)" in said
    assert "connected_7/biases" in said, "every misfit at once"
    assert not (tmp_path / "x.weights").exists() and not (tmp_path / "x.cfg").exists()
    assert "would be replaced" in run_wio(*words, tmp_path / "small.weights", code=2).stderr
    assert (tmp_path / "small.cfg").read_text() != files.NETWORK and not (tmp_path / "small.weights").exists()
    run_wio(*words, tmp_path / "y.weights", "--drop", "connected_7/weights", code=2)


def test_the_tutorial_shows_the_package_as_it_is() -> None:
    """Each block that names a file of the package quotes it, or a piece of it."""
    text = (TESTS.parent / "docs" / "tutorials" / "write-an-adapter.md").read_text()
    quoted = re.findall(r"^`([\w./]+)`[^\n]*\n+```\w+\n(.*?)^```", text, re.M | re.S)
    assert {name for name, _ in quoted} == {"pyproject.toml", "src/wio_darknet/__init__.py", "tests/test_contract.py"}
    for name, block in quoted:
        whole = (files.PACKAGE / name).read_text()
        for piece in block.split("\n    ...\n"):
            assert piece.strip("\n") in whole, f"{name} does not have:\n{piece}"
