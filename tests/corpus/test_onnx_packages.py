"""ONNX models inside packages on PyPI: read as the onnx package reads them, and put back into themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from packages import BASIC_PITCH, Release

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_judge import plan, read, same, write

from wio.adapters.onnx_file import OnnxFile
from wio.roles import neutral

ICLABEL = Release(
    "mne-icalabel==0.10.0",
    "mne_icalabel-0.10.0-py3-none-any.whl",
    "57c6821103d5db2869ee9fcd4df566495a2a0c4256e4c948804eb2219a8bdbf8",
)
MODELS = {
    "basic-pitch": (BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
    "ICLabelNet": (ICLABEL, "mne_icalabel/iclabel/network/assets/ICLabelNet.onnx"),
    "megnet": (ICLABEL, "mne_icalabel/megnet/assets/megnet.onnx"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_and_back(tmp_path: Path, name: str) -> None:
    release, member = MODELS[name]
    path = release.member(member, tmp_path)
    assert OnnxFile().sniff(path) == 10
    bundle = read(path)
    made = onnx.load(path)
    protos = {each.name: each for each in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type == "Constant":
            protos[node.output[0]] = node.attribute[0].t
    assert set(protos) <= set(bundle)
    for key, proto in protos.items():
        assert same(bundle[key].numpy(), numpy_helper.to_array(proto)), key
    moved = bundle.map(lambda t: t.to(neutral(t.role, t.layout)) if t.role and t.layout else t)
    kinds = {step.kind for step in plan(moved, template=str(path)).steps}
    assert "rearrange" in kinds
    write(tmp_path / "again.onnx", moved, template=str(path))
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
