"""A network that is described by TOML alone: MTCNN's O-Net, whose weights two packages publish.

The two ports hold the same weights, arranged otherwise: with H and W exchanged in kernels and rows. That wio makes one
file's tensors out of the other's, bit for bit, is the proof of both dialects.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from test_torch_numpy_packages import FACENET, MTCNN
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import run_wio

ARCH = ("--arch", "mtcnn-onet")


def published(folder: Path) -> tuple[Path, Path]:
    weights = MTCNN.member("mtcnn/data/mtcnn_weights.npy", folder)
    return weights, FACENET.member("facenet_pytorch/data/onet.pt", folder)


def test_one_port_s_file_becomes_the_other_s(tmp_path: Path) -> None:
    weights, state_dict = published(tmp_path)
    run_wio("convert", weights, *ARCH, "--into", "torch", "-o", tmp_path / "made.pt")
    made, real = (torch.load(path, weights_only=True) for path in (tmp_path / "made.pt", state_dict))
    assert list(made) == list(real) and len(real) == 21
    assert all(torch.equal(made[name], real[name]) for name in real)


def test_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The .npz of O-Net alone. Were its kernels declared the usual way round, the values would tell."""
    weights, state_dict = published(tmp_path)
    run_wio("convert", state_dict, *ARCH, "--into", "numpy", "-o", tmp_path / "made.npz")
    assert json.loads(run_wio("diff", weights, tmp_path / "made.npz", *ARCH, "--json").stdout)["equal"]
    text = (Path(__file__).parents[2] / "registry" / "mtcnn_onet.toml").read_text()
    usual = text.replace('"WHIO"', '"HWIO"').replace('"mtcnn-onet"', '"usual"')
    (tmp_path / "usual.toml").write_text(usual)
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    found = json.loads(run_wio("diff", weights, state_dict, "--arch", "usual", "--json", code=1).stdout)
    changed = {pair["a"] for pair in found["pairs"] if pair["status"] != "equal"}
    assert changed == {f"conv{k}/kernel" for k in (1, 2, 3, 4)}


def outputs(state: dict[str, torch.Tensor], picture: torch.Tensor) -> list[torch.Tensor]:
    """O-Net as facenet-pytorch runs it: rows are flattened W, H, C."""
    x = picture
    for k, (size, stride) in enumerate([(3, 2), (3, 2), (2, 2), (0, 0)], start=1):
        x = functional.conv2d(x, state[f"conv{k}.weight"], state[f"conv{k}.bias"])
        x = functional.prelu(x, state[f"prelu{k}.weight"])
        x = functional.max_pool2d(x, size, stride, ceil_mode=True) if size else x
    x = x.permute(0, 3, 2, 1).reshape(len(x), -1)
    x = functional.prelu(functional.linear(x, state["dense5.weight"], state["dense5.bias"]), state["prelu5.weight"])
    return [functional.linear(x, state[f"dense6_{k}.weight"], state[f"dense6_{k}.bias"]) for k in (1, 2, 3)]


def test_the_network_runs_on_what_was_made(tmp_path: Path) -> None:
    weights, state_dict = published(tmp_path)
    run_wio("convert", weights, *ARCH, "--into", "torch", "-o", tmp_path / "made.pt")
    picture = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(5))
    made = outputs(torch.load(tmp_path / "made.pt", weights_only=True), picture)
    real = outputs(torch.load(state_dict, weights_only=True), picture)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(made, real, strict=True))
    state = torch.load(state_dict, weights_only=True)
    state["conv3.weight"] = state["conv3.weight"].transpose(2, 3)
    turned = outputs(state, picture)
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(turned, real, strict=True))
