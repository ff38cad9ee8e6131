"""Infer on the same trained weights published in two formats: what people worked out by hand is learnt from values."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packages import BASIC_PITCH, PICASSO
from test_tf_packages import BASIC_PITCH as BASIC_PITCH_CHECKPOINT
from test_tf_packages import PICASSO as PICASSO_CHECKPOINT
from test_torch_numpy_packages import FACENET, ICLABEL, ICLABEL_ASSETS, MTCNN

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import run_wio

import wio


def pairs_of(printed: str) -> dict[str, dict[str, Any]]:
    return {pair["b"]: pair for pair in json.loads(printed)["pairs"]}


def test_a_checkpoint_learns_from_its_keras_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keras = PICASSO.member("picasso/examples/keras/data-volume/MNIST-weights.hdf5", tmp_path)
    checkpoint = PICASSO_CHECKPOINT.checkpoint(tmp_path)
    (tmp_path / "dialects").mkdir()
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    learnt = tmp_path / "dialects" / "picasso.toml"
    found = pairs_of(run_wio("infer", f"keras-tf:{keras}", checkpoint, "--json", "-o", learnt).stdout)
    assert {name: pair["layouts"] for name, pair in found.items() if name.endswith("_W")} == {
        "convolution2d_1_W": ["HWIO"],
        "images_W": ["HWIO"],
        "dense_1_W": ["(HWC)O H=12 W=12 C=32"],
        "logits_W": ["IO"],
    }
    assert len(found) == 8 and all(pair["determined"] for pair in found.values())
    run_wio("registry", "check", learnt)
    run_wio("diff", f"keras-tf:{keras}", checkpoint, code=1)
    run_wio("diff", f"keras-tf:{keras}", checkpoint, "--dialect", "picasso", "--drop", "*ptimizer*", code=0)


def test_iclabel_s_state_dict_learns_from_its_onnx(tmp_path: Path) -> None:
    onnx, pt = (ICLABEL.member(f"{ICLABEL_ASSETS}.{end}", tmp_path) for end in ("onnx", "pt"))
    printed = run_wio("infer", onnx, pt, "--json", code=1).stdout
    found = pairs_of(printed)
    assert len(found) == 20 and all(pair["a"] == name for name, pair in found.items())
    assert {tuple(pair["layouts"]) for pair in found.values()} == {("OIHW",), ("O",)}
    # Two layers have one output: one number is too little to be known by.
    scalars = {"psds_conv.conv3.bias", "autocorr_conv.conv3.bias"}
    assert {name for name, pair in found.items() if not pair["determined"]} == scalars
    assert len(json.loads(printed)["duplicates"]) == 20


def test_basic_pitch_s_checkpoint_learns_the_kernels_that_were_not_folded(tmp_path: Path) -> None:
    model = BASIC_PITCH.member("basic_pitch/saved_models/icassp_2022/nmp.onnx", tmp_path)
    found = pairs_of(run_wio("infer", model, BASIC_PITCH_CHECKPOINT.checkpoint(tmp_path), "--json", code=1).stdout)
    kernels = {name: pair for name, pair in found.items() if pair["role"] == "conv.kernel"}
    assert set(kernels) == {f"layer_with_weights-{k}/kernel/.ATTRIBUTES/VARIABLE_VALUE" for k in (3, 4, 7, 8)}
    assert all(pair["determined"] and pair["layouts"] == ["HWIO"] for pair in kernels.values())


@pytest.mark.parametrize(("dialect", "place"), [("torch", 1), ("npy", 0)])
def test_o_net_s_dialects_are_learnt_as_they_were_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str, place: int
) -> None:
    """Each port's dialect from the other's: names, H and W exchanged, the order in which rows are flattened."""
    files = (
        MTCNN.member("mtcnn/data/mtcnn_weights.npy", tmp_path),
        FACENET.member("facenet_pytorch/data/onet.pt", tmp_path),
    )
    other_nets = ("--drop", "pnet/*", "--drop", "rnet/*")
    learnt = tmp_path / "learnt.txt"
    run_wio("infer", files[1 - place], files[place], "--arch", "mtcnn-onet", *other_nets, "-o", learnt)
    registry = (Path(__file__).parents[2] / "registry" / "mtcnn_onet.toml").read_text()
    ours, theirs = tomllib.loads(learnt.read_text()), tomllib.loads(registry)
    mine, written = ours["dialects"]["learnt"], theirs["dialects"][dialect]
    assert {key: mine.get(key) for key in ("weights", "tensors")} == {k: written.get(k) for k in ("weights", "tensors")}
    texts = {role: [each] if isinstance(each, str) else each for role, each in written["layouts"].items()}
    assert {role: sorted(each) for role, each in mine["layouts"].items()} == {r: sorted(t) for r, t in texts.items()}

    (tmp_path / "o_net.toml").write_text(
        re.sub(r'^id = ".*"', 'id = "o-net"', registry, flags=re.M) + learnt.read_text()
    )
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    run_wio("registry", "check", tmp_path / "o_net.toml")
    told = ("--arch", "o-net", "--dialect", "learnt", *(other_nets if place == 0 else ()))
    run_wio("export", files[place], *told, "-o", tmp_path / "read.wio")
    again = wio.open(tmp_path / "read.wio")
    assert len(again) == 21 and str(again["dense5/kernel"].layout).startswith("O(WHC)" if place else "(WHC)O")
