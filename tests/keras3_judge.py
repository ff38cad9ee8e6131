"""Real Keras 3 on TensorFlow as the judge of what wio reads and writes in its own formats."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wio.adapters.keras3 import Keras3
from wio.bundle import Bundle
from wio.plan import Plan, make_plan

ADAPTER = Keras3()


def keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

    return keras


def read(path: Path) -> Bundle:
    assert ADAPTER.sniff(path) == 20
    return ADAPTER.read(path)


def plan_for(bundle: Bundle, **options: Any) -> Plan:
    told = {key: str(value) for key, value in options.items()}
    return make_plan(bundle, ADAPTER.target(bundle, **told), ADAPTER.name, told)


def write(bundle: Bundle, path: Path, **options: Any) -> Plan:
    """Plans and writes, as an import does."""
    plan = plan_for(bundle, **options)
    ADAPTER.write(path, plan.apply(), **plan.options)
    return plan


def randomize(model: Any, seed: int = 7) -> Any:
    """Weights that no initializer gives, every one different, variances positive."""
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.1, 0.9, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def twin(model: Any) -> Any:
    """The same network with the same names, other weights."""
    return randomize(keras().models.clone_model(model), seed=99)


def save(model: Any, path: Path) -> Path:
    """Saves in the format that the path's ending asks for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return path


def save_shards(model: Any, path: Path, gigabytes: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(path, max_shard_size=gigabytes)


def load(path: Path) -> Any:
    return keras().saving.load_model(path)


def load_weights(model: Any, path: Path) -> None:
    """Keras warns, and loads the rest, where the optimizer is another or is not in the file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        model.load_weights(path)


def same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def tree_of(path: Path | Any) -> dict[str, Any]:
    """Everything in an HDF5 file: groups and datasets, attributes with their types, values."""
    found: dict[str, Any] = {}

    def attributes(node: Any) -> dict[str, str]:
        return {key: f"{node.attrs.get_id(key).dtype} {value!r}" for key, value in node.attrs.items()}

    with h5py.File(path, "r") as file:
        found[""] = attributes(file)

        def visit(name: str, node: Any) -> None:
            values = () if isinstance(node, h5py.Group) else (node.dtype.str, node.shape, node[()].tobytes())
            found[name] = (attributes(node), *values)

        file.visititems(visit)
    return found


Build = Callable[[Any], tuple[tuple[int, ...], Any]]
# For each kind of layer: what comes in, and the layer.
KINDS: Mapping[str, Build] = {
    "conv1d": lambda k: ((7, 2), k.Conv1D(4, 3)),
    "conv2d": lambda k: ((7, 6, 2), k.Conv2D(4, (3, 2))),
    "conv2d_groups": lambda k: ((7, 6, 4), k.Conv2D(6, 3, groups=2)),
    "conv3d": lambda k: ((5, 6, 4, 2), k.Conv3D(4, (3, 2, 2))),
    "conv3d_groups": lambda k: ((5, 6, 4, 4), k.Conv3D(4, (3, 2, 2), groups=2, use_bias=False)),
    "conv1d_transpose": lambda k: ((5, 2), k.Conv1DTranspose(4, 3, strides=2)),
    "conv2d_transpose": lambda k: ((4, 3, 2), k.Conv2DTranspose(4, (3, 2), strides=2)),
    "conv3d_transpose": lambda k: ((3, 3, 2, 2), k.Conv3DTranspose(4, (3, 2, 2), strides=2)),
    "depthwise_conv2d": lambda k: ((7, 6, 3), k.DepthwiseConv2D((3, 2), depth_multiplier=2)),
    "depthwise_conv1d": lambda k: ((7, 3), k.DepthwiseConv1D(3, depth_multiplier=2)),
    "separable_conv2d": lambda k: ((7, 6, 3), k.SeparableConv2D(5, (3, 2), depth_multiplier=2)),
    "separable_conv1d": lambda k: ((7, 3), k.SeparableConv1D(5, 3, depth_multiplier=2)),
    "dense": lambda k: ((4,), k.Dense(5)),
    "batch_normalization": lambda k: ((5, 4, 3), k.BatchNormalization()),
    "batch_normalization_no_scale": lambda k: ((5, 4, 3), k.BatchNormalization(scale=False)),
    "layer_normalization": lambda k: ((6,), k.LayerNormalization()),
    "group_normalization": lambda k: ((4, 4, 6), k.GroupNormalization(3)),
    "embedding": lambda k: ((5,), k.Embedding(11, 3)),
    "prelu": lambda k: ((5, 4, 2), k.PReLU(shared_axes=[1, 2])),
    "lstm": lambda k: ((5, 2), k.LSTM(3)),
    "gru_reset_after": lambda k: ((5, 2), k.GRU(3, reset_after=True)),
    "gru_reset_before": lambda k: ((5, 2), k.GRU(3, reset_after=False)),
    "simple_rnn": lambda k: ((5, 2), k.SimpleRNN(3)),
    "bidirectional_lstm": lambda k: ((5, 2), k.Bidirectional(k.LSTM(3))),
    "bidirectional_gru": lambda k: ((5, 2), k.Bidirectional(k.GRU(3))),
    "time_distributed": lambda k: ((5, 2), k.TimeDistributed(k.Dense(3))),
    "conv_lstm2d": lambda k: ((4, 6, 6, 2), k.ConvLSTM2D(3, (3, 3))),
    "einsum_dense": lambda k: ((4, 3), k.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d")),
}


def model_of(kind: str) -> Any:
    """A network of that one layer, named ``it``."""
    k = keras()
    shape, layer = KINDS[kind](k.layers)
    inputs = k.Input(shape, name="x")
    layer.name = "it"
    return randomize(k.Model(inputs, layer(inputs)))


def predict(model: Any) -> Any:
    shapes = [each.shape[1:] for each in model.inputs]
    generator = np.random.default_rng(3)
    inputs = [generator.uniform(-1, 1, (2, *shape)).astype("float32") for shape in shapes]
    if any("embedding" in layer.__class__.__name__.lower() for layer in model.layers):
        inputs = [(abs(each) * 10).astype("int32") for each in inputs]
    return np.asarray(model(inputs if len(inputs) > 1 else inputs[0], training=False))


def big_model() -> Any:
    """Nested functional and sequential models, a shared layer, a flattened map into a dense one, recurrence."""
    k = keras()
    layers = k.layers
    at = k.Input((8, 6, 3), name="inner_x")
    block = k.Model(
        at, layers.BatchNormalization(name="bn")(layers.Conv2D(3, 3, padding="same", name="conv")(at)), name="block"
    )
    tail = k.Sequential(
        [k.Input((8, 6, 3)), layers.DepthwiseConv2D(3, name="dw"), layers.Conv2D(4, 1, name="pw")], name="tail"
    )
    inputs = k.Input((8, 6, 3), name="image")
    x = layers.Conv2D(3, 3, padding="same", name="stem")(inputs)
    # Made in this order and called in the other: their names cross the order of their classes.
    first, second = layers.Conv2D(3, 1, name="zz"), layers.Conv2D(3, 1, name="aa")
    x = second(block(first(block(x))))
    x = layers.Flatten()(tail(x))
    head = layers.Dense(6, name="head")
    x = head(head(layers.Dense(6, name="down")(x)))
    x = layers.Dropout(0.5)(layers.Reshape((3, 2))(x))
    x = layers.Bidirectional(layers.GRU(2, name="cellar"), name="both")(x)
    return randomize(k.Model(inputs, layers.Dense(2, name="out")(x), name="big"))
