"""The checkpoints of test_tf_packages, written again by wio and read by TensorFlow: the same tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_tf_packages import BASIC_PITCH, PICASSO, Package
from tf_judge import ADAPTER, tensorflow

import wio


@pytest.mark.parametrize("package", [PICASSO, BASIC_PITCH], ids=lambda package: package.release.requirement)
@pytest.mark.parametrize("shards", ["1", "3"])
def test_every_tensor_survives(package: Package, shards: str, tmp_path: Path) -> None:
    tf = tensorflow()
    (tmp_path / "theirs").mkdir()
    source = package.checkpoint(tmp_path / "theirs")
    wio.export(source, tmp_path / "a.wio")
    plan = wio.import_into(tmp_path / "a.wio", tmp_path / "again", adapter="tf-checkpoint", shards=shards)
    assert len(plan.steps) == package.tensors
    theirs, ours = (tf.train.load_checkpoint(str(path)) for path in (source, tmp_path / "again"))
    assert ours.get_variable_to_shape_map() == theirs.get_variable_to_shape_map()
    assert ours.get_variable_to_dtype_map() == theirs.get_variable_to_dtype_map()
    for name in theirs.get_variable_to_shape_map():
        assert np.asarray(ours.get_tensor(name)).tobytes() == np.asarray(theirs.get_tensor(name)).tobytes(), name
    before, after = (ADAPTER.read(path) for path in (source, tmp_path / "again"))
    assert {name: bytes(t.stored()) for name, t in before.items()} == {n: bytes(t.stored()) for n, t in after.items()}
