"""Nested models of which a part is frozen: Keras lists what is trained first, by the flags of the moment.

Layers of one size throughout, so that a wrong order shows in nothing but what the model computes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from conftest import judge_python
from keras3_judge import predict, randomize, save

import wio
from wio.port import export, import_into

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
L = keras.layers
HERE = Path(__file__).parent


def blocks(names: str) -> list[Any]:
    """A dense layer and a batch norm for each letter."""
    return [layer for name in names for layer in (L.Dense(4, name=f"{name}_d"), L.BatchNormalization(name=f"{name}_n"))]


def chain(layers: list[Any], name: str, shape: tuple[int, ...] = (4,)) -> Any:
    """A functional model, which unlike Sequential keeps its own flag when it is loaded."""
    x = y = keras.Input(shape)
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y, name=name)


def partly() -> Any:
    inner = keras.Sequential([keras.Input((4,)), *blocks("pq")], name="inner")
    inner.get_layer("p_d").trainable = False
    return chain([inner, L.Dense(3, name="out")], "partly")


def wholly() -> Any:
    backbone = chain(blocks("pq"), "backbone")
    backbone.trainable = False
    return chain([backbone, L.Dense(3, name="out")], "wholly")


def in_two_steps() -> Any:
    """A frozen model inside one that is not, and under a wrapper another with a frozen layer."""
    frozen, timed = chain(blocks("pq"), "frozen"), chain(blocks("rs"), "timed")
    frozen.trainable = False
    timed.get_layer("r_n").trainable = False
    outer = chain([frozen, *blocks("t")], "outer")
    steps = [outer, L.Reshape((2, 2)), L.Dense(4, name="widen"), L.TimeDistributed(timed, name="steps")]
    return chain([*steps, L.Flatten(), L.Dense(3, name="out")], "two_steps")


def thawed() -> Any:
    """Frozen as a whole, one layer in it thawed after: what is frozen as a whole is listed as it comes."""
    model = wholly()
    model.get_layer("backbone").get_layer("q_d").trainable = True
    return model


MODELS = (partly, wholly, in_two_steps, thawed)


@pytest.fixture(params=MODELS, ids=lambda build: build.__name__)
def build(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_same_network_by_every_road(build: Callable[[], Any], tmp_path: Path) -> None:
    """``.keras`` to ``.h5`` and back by a template, each loaded by Keras; and both into a live model."""
    model, other = randomize(build()), randomize(build(), seed=99)
    expected = predict(model)
    assert not np.allclose(expected, predict(other), atol=1e-3)
    for name in ("m.keras", "m.h5"):
        save(model, tmp_path / name)
    save(other, tmp_path / "template.keras")

    export(tmp_path / "m.keras", tmp_path / "neutral.wio", layout="neutral")
    for name in ("m.keras", "neutral.wio"):
        import_into(tmp_path / name, tmp_path / "made.h5", adapter="keras-tf")
        loaded = randomize(build(), seed=98)
        loaded.load_weights(tmp_path / "made.h5")
        np.testing.assert_allclose(predict(loaded), expected, atol=1e-5)

    import_into(tmp_path / "m.h5", tmp_path / "made.keras", adapter="keras3", template=str(tmp_path / "template.keras"))
    loaded = randomize(build(), seed=97)
    loaded.load_weights(tmp_path / "made.keras")
    np.testing.assert_allclose(predict(loaded), expected, atol=1e-5)

    for name in ("m.keras", "m.h5"):
        live = randomize(build(), seed=96)
        wio.load_into(live, tmp_path / name)
        np.testing.assert_allclose(predict(live), expected, atol=1e-5)
    assert wio.diff(tmp_path / "m.keras", tmp_path / "m.h5").equal


def test_the_order_written_is_the_one_that_keras_writes(build: Callable[[], Any], tmp_path: Path) -> None:
    model = randomize(build())
    save(model, tmp_path / "m.keras")
    save(model, tmp_path / "m.h5")
    import_into(tmp_path / "m.keras", tmp_path / "made.h5", adapter="keras-tf")
    for group, arrays in listed(tmp_path / "m.h5", "model_weights").items():
        made = listed(tmp_path / "made.h5", "/")[group]
        assert len(made) == len(arrays)
        for ours, theirs in zip(made, arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_the_plan_says_that_the_order_is_that_of_a_frozen_model(tmp_path: Path) -> None:
    """Keras loads by order, and one that is not frozen has another."""
    for build, frozen in ((wholly, True), (lambda: chain([chain(blocks("pq"), "inner")], "free"), False)):
        model = randomize(build())
        save(model, tmp_path / "m.keras")
        plan = import_into(tmp_path / "m.keras", tmp_path / "made.h5", adapter="keras-tf")
        assert any("freeze the same layers" in note for note in plan.notes) is frozen
    model = randomize(wholly())
    save(model, tmp_path / "m.keras")
    import_into(tmp_path / "m.keras", tmp_path / "made.h5", adapter="keras-tf")
    free = randomize(wholly(), seed=5)
    free.get_layer("backbone").trainable = True
    with pytest.raises(ValueError, match="Shape mismatch"):
        free.load_weights(tmp_path / "made.h5")


def listed(path: Path, root: str) -> dict[str, list[Any]]:
    with h5py.File(path) as file:
        groups = {name: file[root][name] for name in map(as_text, file[root].attrs["layer_names"])}
        return {
            name: [group[as_text(each)][()] for each in group.attrs["weight_names"]] for name, group in groups.items()
        }


def as_text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def test_a_live_model_that_is_not_frozen_is_filled_by_name(tmp_path: Path) -> None:
    model = randomize(partly())
    save(model, tmp_path / "m.h5")
    live = randomize(partly(), seed=9)
    live.get_layer("inner").get_layer("p_d").trainable = True
    wio.load_into(live, tmp_path / "m.h5")
    np.testing.assert_allclose(predict(live), predict(model), atol=1e-5)


def test_names_decide_where_the_config_is_older_than_the_freezing(tmp_path: Path) -> None:
    """Its order is not that of the file: Keras itself would exchange p and q."""
    model = randomize(partly())
    save(model, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        text = file.attrs["model_config"]
        frozen = '"name": "p_d", "trainable": false'
        assert frozen in as_text(text)
        file.attrs["model_config"] = as_text(text).replace(frozen, frozen.replace("false", "true"))
    loaded = wio.open(tmp_path / "m.h5")
    inner = model.get_layer("inner")
    for tensor in loaded.values():
        if tensor.layer.startswith("inner/"):
            own = inner.get_layer(tensor.layer.partition("/")[2])
            [variable] = [each for each in own.weights if each.name == tensor.name.rpartition("/")[2]]
            np.testing.assert_array_equal(tensor.numpy(), np.asarray(variable))
    assert {t.role for t in loaded.values() if t.layer == "inner/q_d"} == {"dense.kernel", "dense.bias"}


@pytest.mark.parametrize(("version", "variable"), [("1.2.2", "WIO_THEANO1_PYTHON"), ("2.2.4", "WIO_THEANO2_PYTHON")])
def test_files_of_keras_1_and_2(version: str, variable: str, tmp_path: Path) -> None:
    """In them a container's own flag changes nothing; the layers' own do."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "THEANO"))}
    command = [judge_python(variable), str(HERE / "judges" / "frozen.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=inherited, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "weights.npz") as arrays:
        expected = dict(arrays)
    found = wio.open(tmp_path / "m.h5", adapter="keras-theano")
    assert found.metadata["keras"]["version"] == version
    kernels = {tensor.layer: tensor for tensor in found.values() if tensor.role == "dense.kernel"}
    means = {tensor.layer: tensor for tensor in found.values() if tensor.role == "batch_norm.mean"}
    assert {*kernels, *means} == {*expected}
    for layer, tensor in (kernels | means).items():
        np.testing.assert_array_equal(tensor.numpy(), expected[layer])
