"""Every kind of layer, saved by real Keras 3, read bit for bit, and written so that real Keras computes the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras3_judge import (
    ADAPTER,
    KINDS,
    keras,
    load,
    model_of,
    plan_for,
    predict,
    randomize,
    read,
    same_bits,
    save,
    twin,
    write,
)

from wio.adapters.keras_hdf5 import KerasTF
from wio.adapters.wio_file import WioFile
from wio.errors import PlanError, UsageError
from wio.layout import Layout
from wio.port import export, import_into

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


def test_a_norm_over_other_axes_than_the_channels_is_not_declared(tmp_path: Path) -> None:
    """A torch.nn.BatchNorm2d would be over the channels: of equal sizes nobody would notice."""
    layers = keras().layers
    norms = {
        "last": layers.BatchNormalization(name="last"),
        "third": layers.BatchNormalization(axis=3, name="third"),
        "rows": layers.BatchNormalization(axis=1, name="rows"),
        "features": layers.LayerNormalization(name="features"),
        "columns": layers.LayerNormalization(axis=2, name="columns"),
        "places": layers.LayerNormalization(axis=[1, 2], name="places"),
    }
    model = keras().Sequential([layers.Input((4, 4, 4)), layers.Conv2D(4, 1), *norms.values()])
    bundle = read(save(model, tmp_path / "m.keras"))
    told = {name: {str(t.layout) for t in bundle.values() if t.layer == name} for name in norms}
    assert {name for name, layouts in told.items() if layouts == {"C"}} == {"last", "third", "features"}
    assert {name for name, layouts in told.items() if layouts == {"None"}} == {"rows", "columns", "places"}


@pytest.mark.parametrize("shared", [[1], [3], [1, 2], [2, 3], [1, 2, 3]])
def test_a_slope_for_each_place_and_all_channels_is_kept_as_it_is(shared: list[int], tmp_path: Path) -> None:
    layers = keras().layers
    model = keras().Sequential(
        [layers.Input((5, 6, 2)), layers.Conv2D(3, 1), layers.PReLU(shared_axes=shared, name="p")]
    )
    path = save(randomize(model), tmp_path / "m.keras")
    export(path, tmp_path / "m.wio")
    kept = WioFile().read(tmp_path / "m.wio")["p/alpha"]
    assert (str(kept.layout) == "None") is (3 in shared)
    np.testing.assert_array_equal(kept.numpy(), model.get_layer("p").get_weights()[0])


def test_weights_alone_are_not_written_under_a_name_that_keras_does_not_load(tmp_path: Path) -> None:
    model = keras().Sequential([keras().layers.Input((4,)), keras().layers.Dense(3)])
    path = save(model, tmp_path / "m.keras")
    with pytest.raises(UsageError, match=r"out\.h5: Keras 3 loads weights alone by a name that ends in \.weights\.h5"):
        import_into(path, tmp_path / "out.h5", adapter="keras3")
    import_into(path, tmp_path / "out.weights.h5", adapter="keras3")
    twin(model).load_weights(tmp_path / "out.weights.h5")


def test_a_layer_may_be_called_wio(tmp_path: Path) -> None:
    """As is the dataset in which wio leaves roles and layouts."""
    layers = keras().layers
    model = randomize(keras().Sequential([layers.Input((4,)), layers.Dense(3, name="wio"), layers.Dense(2, name="d")]))
    weights = export(save(model, tmp_path / "m.keras"), tmp_path / "m.wio") and tmp_path / "m.wio"
    import_into(weights, tmp_path / "m.h5", adapter="keras-tf")
    bundle = KerasTF().read(tmp_path / "m.h5")
    assert [t.role for t in bundle.values()] == ["dense.kernel", "dense.bias"] * 2
    other = twin(model)
    other.load_weights(tmp_path / "m.h5")
    assert all(same_bits(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
