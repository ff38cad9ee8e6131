"""Every kind of layer, saved by real Keras 3, read bit for bit, and written so that real Keras computes the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras3_judge import ADAPTER, KINDS, load, model_of, plan_for, predict, read, same_bits, save, twin, write

from wio.adapters.keras_hdf5 import KerasTF
from wio.errors import PlanError
from wio.layout import Layout

LSTM = [("lstm.kernel", "I(GU) G=ifco"), ("lstm.recurrent_kernel", "I(GU) G=ifco"), ("lstm.bias", "(GU) G=ifco")]
GRU = [("gru.kernel", "I(GU) G=zrh"), ("gru.recurrent_kernel", "I(GU) G=zrh"), ("gru.bias", "B(GU) G=zrh")]
BATCH_NORM = [(f"batch_norm.{part}", "C") for part in ("gamma", "beta", "mean", "variance")]


def kernel_and_bias(kind: str, layout: str) -> list[tuple[str, str]]:
    return [(f"{kind}.kernel", layout), (f"{kind}.bias", "O")]


DECLARED: dict[str, list[Any]] = {
    "conv1d": kernel_and_bias("conv", "WIO"),
    "conv2d": kernel_and_bias("conv", "HWIO"),
    "conv2d_groups": kernel_and_bias("conv", "HWI(GO) G=2"),
    "conv3d": kernel_and_bias("conv", "DHWIO"),
    "conv3d_groups": [("conv.kernel", "DHWI(GO) G=2")],
    "conv1d_transpose": kernel_and_bias("conv_transpose", "WOI"),
    "conv2d_transpose": kernel_and_bias("conv_transpose", "HWOI"),
    "conv3d_transpose": kernel_and_bias("conv_transpose", "DHWOI"),
    "depthwise_conv2d": kernel_and_bias("depthwise", "HWCM"),
    "depthwise_conv1d": kernel_and_bias("depthwise", "WCM"),
    "separable_conv2d": [
        ("separable.depthwise_kernel", "HWCM"),
        ("separable.pointwise_kernel", "HWIO"),
        ("separable.bias", "O"),
    ],
    "separable_conv1d": [
        ("separable.depthwise_kernel", "WCM"),
        ("separable.pointwise_kernel", "WIO"),
        ("separable.bias", "O"),
    ],
    "dense": kernel_and_bias("dense", "IO"),
    "batch_normalization": BATCH_NORM,
    "batch_normalization_no_scale": BATCH_NORM[1:],
    "layer_normalization": [("layer_norm.gamma", "C"), ("layer_norm.beta", "C")],
    "embedding": [("embedding.table", "IO")],
    "lstm": LSTM,
    "gru_reset_after": GRU,
    "gru_reset_before": [*GRU[:2], ("gru.bias", "(GU) G=zrh")],
    "simple_rnn": [("rnn.kernel", "IU"), ("rnn.recurrent_kernel", "IU"), ("rnn.bias", "U")],
    "bidirectional_lstm": LSTM * 2,
    "bidirectional_gru": GRU * 2,
    "time_distributed": kernel_and_bias("dense", "IO"),
    "conv_lstm2d": [
        ("conv_lstm.kernel", "HWI(GO) G=ifco"),
        ("conv_lstm.recurrent_kernel", "HWI(GO) G=ifco"),
        ("conv_lstm.bias", "(GO) G=ifco"),
    ],
    # No role is defined for these: their weights stay undeclared.
    "group_normalization": [(None, None)] * 2,
    "einsum_dense": [(None, None)] * 2,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keras3")


@pytest.fixture
def saved(kind: str, model: Any, folder: Path) -> Path:
    path = folder / f"{kind}.keras"
    return path if path.exists() else save(model, path)


@pytest.fixture
def template(kind: str, model: Any, folder: Path) -> Path:
    """The same network with other weights."""
    path = folder / f"{kind}.template.keras"
    return path if path.exists() else save(twin(model), path)


@pytest.fixture
def model(kind: str, models: dict[str, Any]) -> Any:
    if kind not in models:
        models[kind] = model_of(kind)
    return models[kind]


def test_reads_get_weights_bit_for_bit(kind: str, model: Any, saved: Path, tmp_path: Path) -> None:
    for path in (saved, save(model, tmp_path / "m.weights.h5")):
        found = list(read(path).values())
        if kind.startswith("bidirectional") and path.suffix == ".h5":
            # Without a config there is only the file's order, which is the alphabet's.
            found = found[3:] + found[:3]
        if path.suffix == ".h5":
            assert {(t.role, t.layout) for t in found} == {(None, None)}
        assert len(found) == len(model.get_weights())
        assert all(same_bits(t.numpy(), w) for t, w in zip(found, model.get_weights(), strict=True))
        assert all(bytes(t.stored()) == t.numpy().tobytes() for t in found)


def test_roles_and_layouts_come_from_the_config(kind: str, saved: Path) -> None:
    bundle = read(saved)
    found = [(t.role, None if t.layout is None else str(t.layout)) for t in bundle.values()]
    if kind == "prelu":
        assert [role for role, _ in found] == ["prelu.alpha"]
    else:
        assert found == DECLARED[kind]
    assert all(name.startswith("it/") for name in bundle)
    assert all(t.layer == name.rpartition("/")[0] for name, t in bundle.items())
    table = ADAPTER.convention_of(bundle).layouts
    for t in bundle.values():
        if t.role is not None and t.layout is not None:
            assert Layout(t.layout.axes, gates=t.layout.gates) in table[t.role]


def test_a_template_is_filled_and_keras_computes_the_same(
    model: Any, saved: Path, template: Path, tmp_path: Path
) -> None:
    other = load(template)
    assert not np.allclose(predict(other), predict(model))
    write(read(saved), tmp_path / "out.keras", template=template)
    written = load(tmp_path / "out.keras")
    assert all(same_bits(a, b) for a, b in zip(written.get_weights(), model.get_weights(), strict=True))
    np.testing.assert_allclose(predict(written), predict(model), atol=1e-6, rtol=0)
    write(read(saved), tmp_path / "out.weights.h5", template=template)
    other.load_weights(tmp_path / "out.weights.h5")
    np.testing.assert_allclose(predict(other), predict(model), atol=1e-6, rtol=0)


LEGACY = [k for k in KINDS if DECLARED.get(k, [(None, None)])[0][0]]


@pytest.mark.parametrize("kind", LEGACY)
def test_a_template_is_filled_from_a_legacy_file(model: Any, template: Path, tmp_path: Path) -> None:
    bundle = KerasTF().read(save(model, tmp_path / "m.h5"))
    write(bundle, tmp_path / "out.keras", template=template)
    np.testing.assert_allclose(predict(load(tmp_path / "out.keras")), predict(model), atol=1e-6, rtol=0)


def test_a_gru_is_not_filled_from_one_with_another_reset(tmp_path: Path) -> None:
    template = save(model_of("gru_reset_after"), tmp_path / "after.keras")
    with pytest.raises(PlanError, match="resets after the recurrent product, that of the source before it"):
        plan_for(read(save(model_of("gru_reset_before"), tmp_path / "before.keras")), template=template)


def test_multi_head_attention_is_undeclared_and_returns(tmp_path: Path) -> None:
    from keras3_judge import keras, randomize

    k = keras()
    at = k.Input((4, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attention = k.layers.MultiHeadAttention(2, 3, name="it")
        model = randomize(k.Model(at, attention(at, at)))
    bundle = read(save(model, tmp_path / "m.keras"))
    assert sorted(bundle) == sorted(
        f"it/{n}/{i}" for n in ("query", "key", "value", "attention_output") for i in (0, 1)
    )
    assert {t.role for t in bundle.values()} == {None}
    write(bundle, tmp_path / "out.keras", template=save(twin(model), tmp_path / "t.keras"))
    assert all(
        same_bits(a, b) for a, b in zip(load(tmp_path / "out.keras").get_weights(), model.get_weights(), strict=True)
    )
