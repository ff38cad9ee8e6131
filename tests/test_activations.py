"""What layers give out for an input, in the file's own graph or the registry's: held against the frameworks' own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch_network
from conftest import TESTS, run_wio
from keras3_judge import keras, randomize, save
from test_verify import small, weights, written  # noqa: F401  the fixtures

from wio.architectures.architecture import Architecture
from wio.bundle import Bundle
from wio.errors import PlanError, UsageError
from wio.picturing.feature_maps import feature_map_grid
from wio.picturing.kernels import Chosen
from wio.port import Declarations
from wio.running.activations import activations

LAYERS = TESTS / "data" / "real_frameworks" / "keras_layers"
WHOLE = [
    ("k224_th_first", "ConvFlattenDense"),
    ("k224_tf_last", "ConvFlattenDense"),
    ("k205_th_last", "ConvFlattenDense"),
    ("k205_tf_first", "ConvFlattenDense"),
    ("k224_th_first", "Conv2D"),
    ("k224_th_first", "Conv2DTranspose_s2"),
    ("k224_th_last", "DepthwiseConv2D"),
    ("k224_tf_last", "Conv1D"),
]


def off(maps: np.ndarray, recorded: np.ndarray) -> float:
    """How far maps, N C and space, are from those that Keras gave in either data format."""
    either = [maps] if maps.shape == recorded.shape else []
    last = np.moveaxis(maps, 1, -1)
    either += [last] if last.shape == recorded.shape else []
    return min(float(np.abs(each - recorded).max()) for each in either)


@pytest.mark.parametrize(("writer", "name"), WHOLE)
def test_the_files_own_graph_gives_what_keras_gave(writer: str, name: str) -> None:
    """Recorded by Keras 2 on Theano and TensorFlow (x is channels_last throughout)."""
    recorded = np.load(LAYERS / writer / f"{name}.npz")
    path = LAYERS / writer / f"{name}.full.h5"
    listed = activations(path, recorded["x"], data_format="channels_last")
    last = listed.layers[-1].layer
    found = activations(path, recorded["x"], data_format="channels_last", layers=[last])
    assert found.network == f"{name}.full.h5, its own graph"
    assert off(found.maps[last], recorded["y"]) < 1e-5


def test_a_kernel_read_the_wrong_way_would_be_seen() -> None:
    recorded = np.load(LAYERS / "k205_th_last" / "ConvFlattenDense.npz")
    path = LAYERS / "k205_th_last" / "ConvFlattenDense.full.h5"
    told = Declarations(declare=("conv2d_4*/kernel=conv.kernel:HWIO",))
    last = activations(path, recorded["x"]).layers[-1].layer
    wrong = activations(path, recorded["x"], told=told, layers=[last])
    assert off(wrong.maps[last], recorded["y"]) > 0.1


def test_every_layer_of_a_keras_3_model(tmp_path: Path) -> None:
    k = keras()
    given = k.Input((11, 9, 3), name="picture")
    x = k.layers.Conv2D(4, (3, 2), strides=(2, 1), padding="same", use_bias=False, name="conv")(given)
    x = k.layers.BatchNormalization(epsilon=0.01, name="norm")(x)
    x = k.layers.ReLU(name="relu")(x)
    y = k.layers.DepthwiseConv2D((2, 3), name="deep")(x)
    y = k.layers.MaxPooling2D((2, 2), name="pool")(y)
    y = k.layers.Flatten(name="flat")(y)
    model = randomize(k.Model(given, k.layers.Dense(5, activation="softmax", name="out")(y)))
    path = save(model, tmp_path / "m.keras")
    picture = np.random.default_rng(3).uniform(-1, 1, (2, 11, 9, 3)).astype(np.float32)
    names = ["conv", "norm", "relu", "deep", "pool", "flat"]
    judge = k.Model(given, [model.get_layer(name).output for name in names])(picture)
    found = activations(path, picture, layers=names)
    for name, expected in zip(names, judge, strict=True):
        maps = found.maps[name]
        if name == "flat":
            expected = np.moveaxis(np.asarray(judge[names.index("pool")]), -1, 1).reshape(2, -1)
        assert np.abs((np.moveaxis(maps, 1, -1) if maps.ndim > 2 else maps) - np.asarray(expected)).max() < 1e-5, name
        told = next(each for each in found.layers if each.layer == name)
        assert told.shape == maps.shape and (told.least, told.greatest) == (maps.min(), maps.max())
        assert told.zeros == pytest.approx(float((np.asarray(expected) == 0).mean()), abs=0.02)
    relu = feature_map_grid("relu", found.maps["relu"], Chosen(outputs=(2, 0)))
    assert np.array_equal(relu.tiles[0, 1], found.maps["relu"][0, 0]) and relu.columns == ("2", "0")
    assert not relu.signed and feature_map_grid("conv", found.maps["conv"]).signed
    assert feature_map_grid("flat", found.maps["flat"], Chosen(most=7)).tiles.shape == (1, 1, 1, 7)


@pytest.mark.parametrize("name", ["small.wio", "small.ckpt", "small.onnx"])
def test_the_registrys_network_gives_what_torch_gives(
    name: str,
    small: Architecture,  # noqa: F811
    weights: Bundle,  # noqa: F811
    written: Path,  # noqa: F811
) -> None:
    inputs = torch_network.images(small.network)
    expected = torch_network.run(small.network, weights, inputs)
    (entry,) = inputs
    asked = [layer.name for layer in small.network.layers if layer.op in ("Conv", "MaxPool", "Gemm")]
    told = Declarations() if name.endswith(".wio") else Declarations(arch="small")
    found = activations(written / name, inputs[entry], told=told, layers=asked, data_format="channels_first")
    for layer in asked:
        assert np.abs(found.maps[layer] - expected[layer]).max() < 1e-4, layer


def test_an_onnx_file_is_run_in_its_own_graph(
    small: Architecture,  # noqa: F811
    weights: Bundle,  # noqa: F811
    written: Path,  # noqa: F811
) -> None:
    inputs = torch_network.images(small.network)
    expected = torch_network.run(small.network, weights, inputs)
    (array,) = inputs.values()
    listed = activations(written / "small.onnx", array)
    last = listed.layers[-1].layer
    (output,) = torch_network.outputs_of(small.network)
    assert np.abs(activations(written / "small.onnx", array, layers=[last]).maps[last] - expected[output]).max() < 1e-4


# --- what cannot be run


def test_what_is_not_known_is_not_made_up(tmp_path: Path, written: Path) -> None:  # noqa: F811
    x = np.ones((2, 6, 5, 2), np.float32)
    with pytest.raises(UsageError, match="no graph to run") as raised:
        activations(written / "small.ckpt", x)
    assert raised.value.remedy is not None and "--arch" in raised.value.remedy
    path = LAYERS / "k224_th_first" / "ConvFlattenDense.full.h5"
    with pytest.raises(PlanError, match=re.escape("on an input of shape [2, 6, 5, 2]")) as refused:
        activations(path, x)
    assert refused.value.remedy is not None and "--data-format" in refused.value.remedy
    with pytest.raises(UsageError, match="no layer 'dens'"):
        activations(path, x, data_format="channels_last", layers=["dens"])
    with pytest.raises(UsageError, match=r"takes \[N\] C H W"):
        activations(path, np.ones((2, 6), np.float32))
    with pytest.raises(UsageError, match="in which order"):
        activations(LAYERS / "k224_tf_last" / "BatchNormalization.full.h5", x)


def test_the_command(tmp_path: Path) -> None:
    path = LAYERS / "k224_tf_last" / "ConvFlattenDense.full.h5"
    recorded = np.load(LAYERS / "k224_tf_last" / "ConvFlattenDense.npz")
    np.save(tmp_path / "x.npy", recorded["x"])
    listed = run_wio("show", path, "--activations", tmp_path / "x.npy").stdout
    assert re.search(r"^conv2d_4 +Conv +3x3x4x3 ", listed, re.M) and "its own graph" in listed
    by_layer = run_wio("show", path, "--activations", tmp_path / "x.npy", "--layer", "conv2d_4").stdout
    assert by_layer.startswith("conv2d_4: 4x3 maps, 3 channels\nchannels across\n")
    assert run_wio("show", path, "conv2d_4/kernel", "--activations", tmp_path / "x.npy").stdout == by_layer
    drawn = tmp_path / "maps.png"
    run_wio("show", path, "--activations", tmp_path / "x.npy", "--layer", "conv2d_4", "-o", drawn)
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert "--layer NAME" in run_wio("show", path, "--activations", tmp_path / "x.npy", "-o", drawn, code=2).stderr
