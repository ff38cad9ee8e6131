"""Keras files that others trained and published, years before wio: converted, then loaded by real Kerases.

WIO_CORPUS names the folder with `keras1_theano_cats_dogs.h5`, a Keras 1.1.1 model trained on Theano, and the .npz
beside it: an input and what Keras 1.2.2 on Theano 1.0.5 computed from it, layer by layer. The others come from PyPI.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from keras_judge import KERAS_3, THEANO_1, Court, Saved, Tag, tree
from packages import PICASSO, TANKBUSTER

import wio
from wio.errors import AdapterError, PlanError
from wio.port import Declarations, export, import_into

CATS_DOGS = "keras1_theano_cats_dogs"


def corpus(name: str) -> Path:
    folder = os.environ.get("WIO_CORPUS")
    assert folder, "WIO_CORPUS must name the folder with the files of third parties"
    path = Path(folder) / name
    assert path.exists(), f"{path} is not there"
    return path


def sequential(*layers: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": [{"class_name": name, "config": config} for name, config in layers]}


def conv(name: str, filters: int, padding: str = "valid", **more: Any) -> tuple[str, dict[str, Any]]:
    return "Conv2D", {"name": name, "filters": filters, "kernel_size": [3, 3], "padding": padding, **more}


def act(name: str, activation: str = "relu") -> tuple[str, dict[str, Any]]:
    return "Activation", {"name": name, "activation": activation}


def pool(name: str, size: int = 2) -> tuple[str, dict[str, Any]]:
    return "MaxPooling2D", {"name": name, "pool_size": [size, size]}


def dense(name: str, units: int) -> tuple[str, dict[str, Any]]:
    return "Dense", {"name": name, "units": units}


FLATTEN = ("Flatten", {"name": "flatten"})

# --- cats and dogs: Keras 1.1.1 on Theano, channels first

CATS_DOGS_NETWORK = (
    conv("ConvLayer1", 32, "same", batch_input_shape=[None, 32, 32, 3]), act("a1"), pool("PoolingLayer1"),
    conv("ConvLayer2", 8, "same"), act("a2"), pool("PoolingLayer2"), FLATTEN,
    dense("HiddenLayer", 128), act("a3"), dense("dense_14", 2), act("prediction", "softmax"),
)  # fmt: skip


@pytest.fixture(scope="module")
def cats_dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cats_dogs") / "cats_dogs.wio"
    export(corpus(f"{CATS_DOGS}.h5"), path, adapter="keras-theano")
    return path


def test_the_backend_is_not_guessed() -> None:
    with pytest.raises(AdapterError, match="evidence: 0 of 8 weight names end in ':0'"):
        wio.open(corpus(f"{CATS_DOGS}.h5"))


def test_the_values_are_those_its_author_published(cats_dogs: Path) -> None:
    kernel = wio.open(cats_dogs)["ConvLayer1/ConvLayer1_W"]
    assert str(kernel.layout) == "OIHW flipped"
    published = np.array([1.44997299e-01, 9.15070414e-05, -9.17081535e-02], np.float32)
    assert np.array_equal(kernel.numpy()[0, 0, 0], published)
    # The same three taps, read forwards and channels last.
    assert np.array_equal(kernel.to("HWIO").numpy()[2, ::-1, 0, 0], published)


def test_keras_3_computes_what_was_recorded(cats_dogs: Path, tmp_path: Path) -> None:
    written = tmp_path / "cats_dogs.h5"
    import_into(cats_dogs, written, adapter="keras-tf", options={"keras": "2.2", "data_format": "channels_last"})
    court = Court(KERAS_3, tmp_path / "court")
    names = [config["name"] for _, config in CATS_DOGS_NETWORK]
    with np.load(corpus(f"{CATS_DOGS}.npz")) as golden:
        x = np.moveaxis(golden["input"], 1, -1)
        for layer in ("ConvLayer1", "ConvLayer2", "PoolingLayer2", "HiddenLayer", "prediction"):
            np.savez(tmp_path / f"{layer}.npz", x=x, y=golden[layer])
            recorded = Saved(Tag("k122_th_first"), layer, tmp_path)
            network = sequential(*CATS_DOGS_NETWORK[: names.index(layer) + 1])
            court.add(f"{layer}, by name", "by_name", written, network, recorded, first=False)
            if layer == "prediction":
                court.add(f"{layer}, by order", "order", written, network, recorded, first=False)
    court.sit()
    wrong = [text for case in court.expected if (text := court.verdict(case))]
    assert not wrong, "\n".join(wrong)
    assert len(court.outputs) == 6


def test_back_on_theano_it_is_the_same_file(cats_dogs: Path, tmp_path: Path) -> None:
    """Every array, attribute and optimizer weight, the model_config and the training_config among them."""
    back = tmp_path / "back.h5"
    import_into(cats_dogs, back, adapter="keras-theano", options={"keras": "1.2"})
    assert tree(back) == tree(corpus(f"{CATS_DOGS}.h5"))


def test_through_tensorflow_and_back_the_arrays_are_the_same(cats_dogs: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there.h5", tmp_path / "back.h5"
    import_into(cats_dogs, there, adapter="keras-tf", options={"keras": "2.2", "data_format": "channels_last"})
    import_into(there, back, adapter="keras-theano", options={"keras": "1.2", "data_format": "channels_first"})
    original = wio.open(corpus(f"{CATS_DOGS}.h5"), adapter="keras-theano")
    returned = wio.open(back, adapter="keras-theano")
    assert list(returned) == [name for name, tensor in original.items() if tensor.role != "optimizer"]
    for name, tensor in returned.items():
        assert tensor.layout == original[name].layout
        assert tensor.numpy().tobytes() == original[name].numpy().tobytes(), name


# --- picasso-viz: Keras 1.2.1 on TensorFlow, channels last

PICASSO_NETWORK = sequential(
    conv("images", 32, batch_input_shape=[None, 28, 28, 1]), act("a1"), conv("convolution2d_1", 32), act("a2"),
    pool("p1"), FLATTEN, dense("dense_1", 128), act("a3"), dense("logits", 10), act("a4", "softmax"),
)  # fmt: skip


def test_picasso(tmp_path: Path) -> None:
    """Judged by two Kerases: Keras 3 on TensorFlow, and Keras 1.2.2 on Theano with channels first, where every kernel
    is flipped and transposed, and the rows of dense_1 are shuffled. Expected is what NumPy computes from the file."""
    source = PICASSO.member("picasso/examples/keras/data-volume/MNIST-weights.hdf5", tmp_path)
    x = np.random.RandomState(0).uniform(0, 1, (2, 28, 28, 1)).astype(np.float32)
    np.savez(tmp_path / "picasso.npz", x=x, y=picasso_in_numpy(source, x))
    recorded = Saved(Tag("k122_tf_last"), "picasso", tmp_path)
    modern, theano = tmp_path / "modern.h5", tmp_path / "theano.h5"
    import_into(source, modern, adapter="keras-tf", source_adapter="keras-tf")
    import_into(
        source,
        theano,
        adapter="keras-theano",
        options={"keras": "1.2", "data_format": "channels_first"},
        source_adapter="keras-tf",
    )
    for judge, file, network, first in ((KERAS_3, modern, PICASSO_NETWORK, False), (THEANO_1, theano, KERAS_1, True)):
        court = Court(judge, tmp_path / judge.backend)
        court.add("order", "order", file, network, recorded, first)
        court.add("by name", "by_name", file, network, recorded, first)
        court.sit()
        wrong = [text for case in court.expected if (text := court.verdict(case))]
        assert not wrong, "\n".join(wrong)


def keras_1(*layers: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A network in the words of Keras 1, channels first."""
    return {
        **sequential(*layers),
        "keras_version": "1.2.2",
    }


def conv_1(name: str, filters: int, **more: Any) -> tuple[str, dict[str, Any]]:
    size = {"nb_row": 3, "nb_col": 3, "dim_ordering": "th"}
    return "Convolution2D", {"name": name, "nb_filter": filters, **size, **more}


def pool_1(name: str, size: int = 2) -> tuple[str, dict[str, Any]]:
    return "MaxPooling2D", {"name": name, "pool_size": [size, size], "dim_ordering": "th"}


def dense_1(name: str, units: int) -> tuple[str, dict[str, Any]]:
    return "Dense", {"name": name, "output_dim": units}


KERAS_1 = keras_1(
    conv_1("images", 32, batch_input_shape=[None, 1, 28, 28]), act("a1"), conv_1("convolution2d_1", 32), act("a2"),
    pool_1("p1"), FLATTEN, dense_1("dense_1", 128), act("a3"), dense_1("logits", 10), act("a4", "softmax"),
)  # fmt: skip


def picasso_in_numpy(path: Path, x: Any) -> Any:
    with h5py.File(path, "r") as file:
        weights = file["model_weights"]

        def of(layer: str) -> tuple[Any, Any]:
            return (weights[f"{layer}/{layer}_{leaf}:0"][()].astype(np.float64) for leaf in "Wb")  # type: ignore[return-value]

        for layer in ("images", "convolution2d_1"):
            kernel, bias = of(layer)
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
            x = np.maximum(np.einsum("nyxchw,hwco->nyxo", windows, kernel) + bias, 0)
        x = x.reshape(len(x), 12, 2, 12, 2, 32).max((2, 4)).reshape(len(x), -1)
        kernel, bias = of("dense_1")
        x = np.maximum(x @ kernel + bias, 0)
        kernel, bias = of("logits")
        x = np.exp(x @ kernel + bias)
        return x / x.sum(-1, keepdims=True)


# --- tankbuster: Keras 1 on Theano, channels first, weights alone

TANKBUSTER_NETWORK = sequential(
    conv("convolution2d_1", 32, batch_input_shape=[None, 150, 150, 3]), act("a1"), conv("convolution2d_2", 32),
    act("a2"), pool("p1", 3), conv("convolution2d_3", 64), act("a3"), conv("convolution2d_4", 64), act("a4"),
    pool("p2"), FLATTEN, dense("dense_1", 512), act("a5"), dense("dense_2", 3), act("a6", "softmax"),
)  # fmt: skip
TANKBUSTER_1 = keras_1(
    conv_1("convolution2d_1", 32, batch_input_shape=[None, 3, 150, 150]), act("a1"), conv_1("convolution2d_2", 32),
    act("a2"), pool_1("p1", 3), conv_1("convolution2d_3", 64), act("a3"), conv_1("convolution2d_4", 64), act("a4"),
    pool_1("p2"), FLATTEN, dense_1("dense_1", 512), act("a5"), dense_1("dense_2", 3), act("a6", "softmax"),
)  # fmt: skip
TANKBUSTER_ROLES = (
    "convolution2d_*_W=conv.kernel",
    "convolution2d_*_b=conv.bias",
    "dense_1/*_W=dense.kernel:(CHW)O C=64 H=22 W=22",
    "dense_2/*_W=dense.kernel:IO",
    "dense_*_b=dense.bias",
)


def test_tankbuster(tmp_path: Path) -> None:
    """The file as it is in Keras 1.2.2 on Theano against what wio makes of it in Keras 3: 30,976 rows shuffled."""
    source = TANKBUSTER.member("tankbuster-0.2.2/tankbuster/engine/weights.h5", tmp_path)
    target = {"adapter": "keras-tf", "options": {"keras": "2.2", "data_format": "channels_last"}}
    reading = {"source_adapter": "keras-theano", "source_options": {"data_format": "channels_first"}}
    with pytest.raises(PlanError) as error:
        import_into(source, tmp_path / "no.h5", **target, **reading)  # type: ignore[arg-type]
    assert [problem.kind for problem in error.value.problems] == ["undeclared"] * 12
    written = tmp_path / "written.h5"
    import_into(source, written, **target, **reading, told=Declarations(declare=TANKBUSTER_ROLES))  # type: ignore[arg-type]
    x = np.random.RandomState(0).uniform(0, 1, (2, 150, 150, 3)).astype(np.float32)
    np.savez(tmp_path / "tankbuster.npz", x=x, y=np.zeros((2, 3), np.float32))
    recorded = Saved(Tag("k122_th_first"), "tankbuster", tmp_path)
    original = Court(THEANO_1, tmp_path / "original")
    original.add("original", "order", source, TANKBUSTER_1, recorded, first=True)
    original.sit()
    assert not original.errors
    np.savez(tmp_path / "tankbuster.npz", x=x, y=original.outputs["original"])
    ported = Court(KERAS_3, tmp_path / "ported")
    for mode in ("order", "by_name"):
        ported.add(mode, mode, written, TANKBUSTER_NETWORK, recorded, first=False)
    ported.sit()
    wrong = [text for case in ported.expected if (text := ported.verdict(case))]
    assert not wrong, "\n".join(wrong)
