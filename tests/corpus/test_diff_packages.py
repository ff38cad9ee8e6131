"""What ``wio diff`` says of weights that others published in two formats: what it should, and nothing beyond."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from packages import BASIC_PITCH, PICASSO
from test_tf_packages import BASIC_PITCH as BASIC_PITCH_CHECKPOINT
from test_tf_packages import PICASSO as PICASSO_CHECKPOINT
from test_torch_numpy_packages import FACENET, ICLABEL, MTCNN

sys.path.insert(0, str(Path(__file__).parents[1]))

import wio
from wio.comparing.diff import diff
from wio.port import Declarations

KEY = "/.ATTRIBUTES/VARIABLE_VALUE"


def test_picasso_is_undeclared_until_it_is_declared(tmp_path: Path) -> None:
    keras = PICASSO.member("picasso/examples/keras/data-volume/MNIST-weights.hdf5", tmp_path)
    checkpoint = PICASSO_CHECKPOINT.checkpoint(tmp_path)
    adapters = (None, "keras-tf")
    found = diff(checkpoint, keras, adapters=adapters)
    assert [pair.status for pair in found.pairs] == ["undeclared"] * 8
    assert all(pair.stored_equal for pair in found.pairs)
    named = tuple(pair.detail.partition("--declare '")[2].rstrip("'") for pair in found.pairs)
    assert diff(checkpoint, keras, adapters=adapters, told=Declarations(declare=named)).equal


def test_basic_pitch_has_four_equal_kernels_and_two_folded_ones(tmp_path: Path) -> None:
    roles = {
        "kernel": "conv.kernel:HWIO",
        "bias": "conv.bias",
        "gamma": "batch_norm.gamma",
        "beta": "batch_norm.beta",
        "moving_mean": "batch_norm.mean",
        "moving_variance": "batch_norm.variance",
    }
    declare = tuple(f"layer_with_weights-*/{leaf}{KEY}={role}" for leaf, role in roles.items())
    model = BASIC_PITCH.member("basic_pitch/saved_models/icassp_2022/nmp.onnx", tmp_path)
    checkpoint = BASIC_PITCH_CHECKPOINT.checkpoint(tmp_path)
    found = diff(checkpoint, model, told=Declarations(declare=declare), match="values")

    kernels = [pair for pair in found.pairs if "/kernel/" in pair.a]
    assert Counter(pair.status for pair in kernels) == {"equal": 4, "folded": 2}
    assert all("epsilon 0.001; its bias agrees" in pair.detail for pair in kernels if pair.status == "folded")
    # The batch norm of the input is in no kernel.
    assert {name.split("/")[0] for name in found.only_a if name.startswith("layer_")} == {"layer_with_weights-0"}
    assert {pair.status for pair in found.pairs} == {"equal", "folded"} and not found.equal


def test_mtcnn_has_height_and_width_swapped(tmp_path: Path) -> None:
    ported = FACENET.member("facenet_pytorch/data/pnet.pt", tmp_path)
    original = MTCNN.member("mtcnn/data/mtcnn_weights.npy", tmp_path)
    declare = ("conv*.weight=conv.kernel", *(f"pnet/{k}=conv.kernel:HWIO" for k in (0, 3, 6, 9, 11)))
    told = Declarations(declare=declare, drop=("[ro]net/*",))
    found = diff(ported, original, told=told, match="values")
    swapped = {pair.b: pair.detail for pair in found.pairs if pair.status == "layout" and "WHIO" in pair.detail}
    assert set(swapped) == {"pnet/0", "pnet/3", "pnet/6"} and not found.equal
    assert all("is WHIO, and it is declared HWIO" in detail for detail in swapped.values())


def test_iclabel_is_equal_and_its_second_names_are_told(tmp_path: Path) -> None:
    folder = "mne_icalabel/iclabel/network/assets/ICLabelNet"
    files = [ICLABEL.member(f"{folder}{ending}", tmp_path) for ending in (".pt", ".onnx")]
    told = Declarations(declare=("*conv*.weight=conv.kernel:OIHW", "*conv*.bias=conv.bias:O"))
    found = diff(*files, told=told)
    assert [pair.status for pair in found.pairs] == ["equal"] * 20
    assert len(found.duplicates) == 20 and {each.side for each in found.duplicates} == {"a"}


def test_two_trainings_of_one_network_are_changed_with_sizes(tmp_path: Path) -> None:
    path = FACENET.member("facenet_pytorch/data/pnet.pt", tmp_path)
    first = wio.open(path)
    noise = np.random.default_rng(0)
    other = first.map(
        lambda t: t.with_values(
            lambda: t.numpy() + noise.normal(0, 1e-3, t.shape).astype(np.float32), t.shape, t.layout
        )
    )
    wio.save(other, tmp_path / "other.wio")
    found = diff(path, tmp_path / "other.wio")
    assert {pair.status for pair in found.pairs} == {"changed"}
    for pair in found.pairs:
        assert pair.max_abs is not None and 1e-4 < pair.max_abs < 1e-2
        assert pair.measure is not None and pair.measure.differing == first[pair.a].size
