"""The same trained weights in two formats, published side by side; and Keras files, array by array as h5py has them."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import pytest
from packages import BASIC_PITCH, PICASSO, TANKBUSTER
from test_tf_packages import BASIC_PITCH as BASIC_PITCH_CHECKPOINT
from test_tf_packages import PICASSO as PICASSO_CHECKPOINT

sys.path.insert(0, str(Path(__file__).parents[1]))

import wio

KERAS_FILES = {
    "picasso": (PICASSO, "picasso/examples/keras/data-volume/MNIST-weights.hdf5", "keras-tf"),
    "tankbuster": (TANKBUSTER, "tankbuster-0.2.2/tankbuster/engine/weights.h5", "keras-theano"),
}


@pytest.mark.parametrize("name", KERAS_FILES)
def test_every_array_of_a_keras_file_is_what_h5py_reads(name: str, tmp_path: Path) -> None:
    release, member, adapter = KERAS_FILES[name]
    path = release.member(member, tmp_path)
    bundle = wio.open(path, adapter=adapter)
    found = {}

    def visit(_: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            array = node[()]
            found[node.name] = (array.shape, array.dtype.name, array.tobytes())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    read = [(t.shape, t.dtype.name, t.numpy().tobytes()) for t in bundle.values()]
    assert sorted(read) == sorted(found.values())


def test_picasso_is_bit_identical_in_keras_and_in_tensorflow(tmp_path: Path) -> None:
    _, member, adapter = KERAS_FILES["picasso"]
    keras = wio.open(PICASSO.member(member, tmp_path), adapter=adapter)
    checkpoint = wio.open(PICASSO_CHECKPOINT.checkpoint(tmp_path))
    weights = {name.rpartition("/")[2]: t for name, t in keras.items() if t.role != "optimizer"}
    assert set(weights) == set(checkpoint)
    for name, tensor in checkpoint.items():
        assert tensor.numpy().tobytes() == weights[name].numpy().tobytes(), name


def test_four_kernels_of_basic_pitch_are_those_of_its_onnx(tmp_path: Path) -> None:
    """The others were folded with a batch norm. By shapes alone kernels with H and W swapped would fit too."""
    checkpoint = wio.open(
        BASIC_PITCH_CHECKPOINT.checkpoint(tmp_path), declare=["layer_with_weights-*/kernel/*=conv.kernel"]
    )
    model = wio.open(BASIC_PITCH.member("basic_pitch/saved_models/icassp_2022/nmp.onnx", tmp_path))
    kernels = {t.numpy().tobytes() for t in model.values() if t.role == "conv.kernel"}

    def in_onnx(layout: str) -> int:
        mine = (t for name, t in checkpoint.items() if t.role == "conv.kernel" and "OPTIMIZER" not in name)
        return sum(t.to(layout).numpy().tobytes() in kernels for t in mine)

    assert (in_onnx("OIHW"), in_onnx("OIWH"), in_onnx("OIHW flipped")) == (4, 0, 0)
