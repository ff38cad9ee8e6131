"""The third party's package, installed as a user would install it, and a network made by the rules of parser.c."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).parent / "third_party" / "wio-darknet"

# Every kind that has weights, maps of distinct height, width and channels, and a kernel whose axes are all alike.
NETWORK = """
[net]
height=9
width=7
channels=3

[convolutional]
batch_normalize=1
filters=4
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=6
groups=2
size=3
stride=1
pad=1
activation=linear

[convolutional]
filters=6
size=1
stride=1
pad=0
activation=leaky

[shortcut]
from=-2
activation=linear

[route]
layers=-1,1

[connected]
output=5
activation=leaky

[connected]
output=5
activation=linear
"""
# The arrays of the file, layer by layer, in the order of load_convolutional_weights and load_connected_weights.
NORM = {"biases": "beta", "scales": "gamma", "rolling_mean": "mean", "rolling_variance": "variance"}
SHAPES = [
    *[(f"batch_norm_0/{name}", (4,)) for name in NORM],
    ("convolutional_0/weights", (4, 3, 3, 3)),
    ("convolutional_2/biases", (6,)),
    ("convolutional_2/weights", (6, 2, 3, 3)),
    ("convolutional_3/biases", (6,)),
    ("convolutional_3/weights", (6, 6, 1, 1)),
    ("connected_6/biases", (5,)),
    ("connected_6/weights", (5, 10 * 5 * 4)),
    ("connected_7/biases", (5,)),
    ("connected_7/weights", (5, 5)),
]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package as its wheel leaves it. Nothing is asked of a registry."""
    folder = tmp_path_factory.mktemp("darknet")
    # Built from a copy: setuptools leaves its build folder beside the sources.
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-index", "--no-deps"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, folder / "source"]
    subprocess.run(build, check=True)
    (built,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", folder / "site", built], check=True)
    return folder / "site"


@pytest.fixture
def darknet(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that are run find the package."""
    monkeypatch.setenv("PYTHONPATH", str(wheel))
    return wheel


def arrays() -> dict[str, np.ndarray]:
    """Values for each array; variances around 1, so that where the epsilon stands does not matter."""
    generator = np.random.default_rng(5)
    made = {name: (generator.standard_normal(shape) / 4).astype("<f4") for name, shape in SHAPES}
    made["batch_norm_0/rolling_variance"] = (1 + abs(made["batch_norm_0/rolling_variance"])).astype("<f4")
    return made


def network(folder: Path, *, transposed: bool = False) -> Path:
    """``net.weights`` and ``net.cfg``; ``transposed`` as Darknet wrote dense kernels before it turned them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.cfg").write_text(NETWORK)
    header = struct.pack("<iiii", 0, 1001, 0, 7) if transposed else struct.pack("<iiiQ", 0, 2, 5, 7)
    dense = {name for name, shape in SHAPES if transposed and name.startswith("connected") and len(shape) == 2}
    content = b"".join((array.T if name in dense else array).tobytes() for name, array in arrays().items())
    path = folder / "net.weights"
    path.write_bytes(header + content)
    return path
