"""sleepecg's sleep stage classifiers: `.keras` files of Keras 3.3, which names no layer in its weights."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from keras3_judge import load, read, same_bits, save, tree_of, twin, write
from packages import Release

SLEEPECG = Release(
    "sleepecg==0.6.0",
    "sleepecg-0.6.0-cp311-abi3-manylinux1_x86_64.manylinux_2_28_x86_64.manylinux_2_5_x86_64.whl",
    "1e4379b1e0a9358f55df093d73246da9170d98ab868071284a04bc603e610c24",
)
CLASSIFIERS = ("wrn-gru-mesa", "wrn-gru-mesa-weighted", "ws-gru-mesa")
GRU = [
    ("kernel", "gru.kernel", "I(GU) G=zrh"),
    ("recurrent_kernel", "gru.recurrent_kernel", "I(GU) G=zrh"),
    ("bias", "gru.bias", "B(GU) G=zrh"),
]
DECLARED = [
    *((f"batch_normalization/{leaf}", f"batch_norm.{part}", "C") for leaf, part in
      (("gamma", "gamma"), ("beta", "beta"), ("moving_mean", "mean"), ("moving_variance", "variance"))),
    ("dense/kernel", "dense.kernel", "IO"),
    ("dense/bias", "dense.bias", "O"),
    *((f"bidirectional{k}/{way}_gru{k}/{leaf}", role, layout) for k in ("", "_1") for way in ("forward", "backward")
      for leaf, role, layout in GRU),
    ("dense_1/kernel", "dense.kernel", "IO"),
    ("dense_1/bias", "dense.bias", "O"),
]  # fmt: skip


@pytest.fixture(params=CLASSIFIERS)
def classifier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    packed = SLEEPECG.member(f"sleepecg/classifiers/{request.param}.zip", tmp_path)
    with zipfile.ZipFile(packed) as archive:
        (tmp_path / "classifier.keras").write_bytes(archive.read("classifier.keras"))
    return tmp_path / "classifier.keras"


def probabilities(model: Any) -> Any:
    return model.predict(np.random.default_rng(5).normal(size=(2, 20, 36)).astype("float32"), verbose=0)


def test_every_tensor_is_what_keras_reads(classifier: Path) -> None:
    model, bundle = load(classifier), read(classifier)
    weights = [t for t in bundle.values() if t.role != "optimizer"]
    assert [(t.name, t.role, str(t.layout)) for t in weights] == DECLARED
    assert all(same_bits(t.numpy(), w) for t, w in zip(weights, model.get_weights(), strict=True))
    slots = [t for t in bundle.values() if t.role == "optimizer"]
    assert all(same_bits(t.numpy(), v.numpy()) for t, v in zip(slots, model.optimizer.variables, strict=True))


def test_it_returns_as_it_was(classifier: Path, tmp_path: Path) -> None:
    write(read(classifier), tmp_path / "out.keras")
    with zipfile.ZipFile(classifier) as old, zipfile.ZipFile(tmp_path / "out.keras") as new:
        assert old.namelist() == new.namelist()
        assert all(old.read(name) == new.read(name) for name in old.namelist() if not name.endswith(".h5"))
        for which, archive in (("old", old), ("new", new)):
            (tmp_path / f"{which}.h5").write_bytes(archive.read("model.weights.h5"))
    assert tree_of(tmp_path / "old.h5") == tree_of(tmp_path / "new.h5")


def test_an_untrained_model_of_today_is_filled(classifier: Path, tmp_path: Path) -> None:
    trained = load(classifier)
    template = save(twin(trained), tmp_path / "template.keras")
    write(read(classifier), tmp_path / "out.keras", template=template)
    np.testing.assert_allclose(probabilities(load(tmp_path / "out.keras")), probabilities(trained), atol=1e-6, rtol=0)
