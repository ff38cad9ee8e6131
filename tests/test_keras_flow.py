"""What flows through models of Keras 3 settles what their dense kernels' rows are: PyTorch must compute the same.

Each model is saved by the real Keras, as ``.keras`` and as ``.h5``, converted, and run again in PyTorch, which flattens
channels first: rows of another make-up than the declared one give other numbers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import torch
from keras import layers
from keras3_judge import randomize, same_bits, save

import wio
from wio.errors import LayoutError, PlanError
from wio.network import FeatureMap, merged
from wio.port import export, import_into

TOLERANCE = 1e-5
ENDINGS = ("keras", "h5")
State = dict[str, Any]


def image(*sizes: int) -> Any:
    return keras.Input(sizes, name="x")


def headed(x: Any, y: Any) -> Any:
    return keras.Model(x, layers.Dense(5, name="d")(layers.Flatten()(y)))


def conv(state: State, name: str, x: Any, **how: Any) -> Any:
    key = next(key for key in state if key.split(".")[-2] == name)
    prefix = key.rpartition(".")[0]
    return torch.nn.functional.conv2d(x, state[f"{prefix}.weight"], state[f"{prefix}.bias"], **how)


def dense(state: State, name: str, x: Any) -> Any:
    return torch.nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def gated(first: str) -> Callable[[], Any]:
    """Squeeze and excitation, the gate keeping its unit axes: which input comes first must not matter."""

    def model() -> Any:
        x = image(4, 3, 2)
        c = layers.Conv2D(8, 1, name="c")(x)
        s = layers.Dense(8, activation="sigmoid", name="s")(layers.GlobalAveragePooling2D(keepdims=True)(c))
        return headed(x, layers.Multiply()([s, c] if first == "gate" else [c, s]))

    return model


def gated_in_torch(state: State, x: Any) -> Any:
    c = conv(state, "c", x)
    gate = torch.sigmoid(dense(state, "s", c.mean((2, 3))))[:, :, None, None]
    return dense(state, "d", (gate * c).flatten(1))


def shifted(first: str) -> Callable[[], Any]:
    """A vector over the channels is added to a map."""

    def model() -> Any:
        x = image(4, 3, 2)
        c = layers.Conv2D(8, 1, name="c")(x)
        s = layers.Dense(8, name="s")(layers.GlobalMaxPooling2D()(c))
        return headed(x, layers.Add()([s, c] if first == "vector" else [c, s]))

    return model


def shifted_in_torch(state: State, x: Any) -> Any:
    c = conv(state, "c", x)
    return dense(state, "d", (c + dense(state, "s", c.amax((2, 3)))[:, :, None, None]).flatten(1))


def masked() -> Any:
    x = image(4, 3, 2)
    mask = layers.Conv2D(1, 1, name="mask")(x)
    return headed(x, layers.Multiply()([mask, layers.Conv2D(8, 1, name="c")(x)]))


def masked_in_torch(state: State, x: Any) -> Any:
    return dense(state, "d", (conv(state, "mask", x) * conv(state, "c", x)).flatten(1))


def two_scales(shape: Callable[[Any, Any], Any], second: Callable[[Any], Any]) -> Callable[[], Any]:
    """The second output of a nested model is flattened; the first has as many elements, in another shape."""

    def model() -> Any:
        i = keras.Input((8, 8, 3))
        p = layers.Conv2D(4, 2, strides=2, name="c1")(i)
        q = layers.Conv2D(16, 2, strides=2, name="c2")(p)
        nested = keras.Model(i, shape(p, q), name="nested")
        x = image(8, 8, 3)
        return headed(x, second(nested(x)))

    return model


def two_scales_in_torch(state: State, x: Any) -> Any:
    return dense(state, "d", conv(state, "c2", conv(state, "c1", x, stride=2), stride=2).flatten(1))


def by_name(*, listed: bool) -> Callable[[], Any]:
    """A nested model called with a dictionary: Keras sorts its keys, or puts it in the order of a list of inputs."""

    def model() -> Any:
        a, b = keras.Input((2, 3, 4), name="z"), keras.Input((4, 3, 2), name="k")
        outputs = [[layers.Flatten()(a)], {"flat": layers.Flatten()(inputs=b)}]
        nested = keras.Model([a, b] if listed else {"z": a, "k": b}, outputs, name="nested")
        x = image(4, 3, 2)
        c = layers.Conv2D(4, 1, name="c")(layers.Cropping2D(((2, 0), (0, 0)))(x))
        [first], second = nested({"z": c, "k": x})
        parts = [layers.Dense(2, name="da")(first), layers.Dense(3, name="db")(inputs=second["flat"])]
        return keras.Model({"x": x}, {"out": layers.Dense(5, name="d")(layers.Concatenate()(parts))})

    return model


def by_name_in_torch(state: State, x: Any) -> Any:
    a, b = conv(state, "c", x[:, :, 2:]), x
    return dense(state, "d", torch.cat([dense(state, "da", a.flatten(1)), dense(state, "db", b.flatten(1))], 1))


def shape_kept() -> Any:
    x = image(4, 3, 2)
    a = layers.Rescaling(0.5, offset=0.25)(layers.Conv2D(4, 1, name="c")(x))
    b = layers.UnitNormalization()(layers.Identity()(a))
    return headed(x, layers.Minimum()([layers.GroupNormalization(2, scale=False, center=False, epsilon=1e-3)(a), b]))


def shape_kept_in_torch(state: State, x: Any) -> Any:
    a = conv(state, "c", x) * 0.5 + 0.25
    return dense(
        state,
        "d",
        torch.minimum(torch.nn.functional.group_norm(a, 2, eps=1e-3), torch.nn.functional.normalize(a, dim=1)).flatten(
            1
        ),
    )


def repeated() -> Any:
    """A square layer that takes what it gave out: its second call comes after a layer that stands behind it."""
    x = keras.Input((6,), name="x")
    d = layers.Dense(6, name="d")
    return keras.Model(x, d(layers.ReLU()(d(x))))


def repeated_in_torch(state: State, x: Any) -> Any:
    return dense(state, "d", torch.relu(dense(state, "d", x)))


def states() -> Any:
    x = keras.Input((5, 4), name="x")
    _, hidden, cell = layers.LSTM(3, return_state=True, name="r")(x)
    return keras.Model(x, [layers.Dense(5, name="d")(layers.Concatenate()([hidden, cell]))])


def states_in_torch(state: State, x: Any) -> Any:
    _, (hidden, cell) = recurrent(torch.nn.LSTM(4, 3, batch_first=True), state, "r")(x)
    return dense(state, "d", torch.cat([hidden[0], cell[0]], 1))


def recurrent(module: Any, state: State, name: str) -> Any:
    own = {key.removeprefix(f"{name}."): each for key, each in state.items() if key.startswith(f"{name}.")}
    module.load_state_dict(own)
    return module


def two_kinds() -> Any:
    """A backward layer of another class and size than the forward one."""
    x = keras.Input((5, 4), name="x")
    back = layers.GRU(2, go_backwards=True, name="back")
    return keras.Model(x, layers.Bidirectional(layers.LSTM(3, name="ahead"), backward_layer=back, name="bi")(x))


def two_kinds_in_torch(state: State, x: Any) -> Any:
    _, (ahead, _) = recurrent(torch.nn.LSTM(4, 3, batch_first=True), state, "bi.forward_ahead")(x)
    _, back = recurrent(torch.nn.GRU(4, 2, batch_first=True), state, "bi.back")(x.flip(1))
    return torch.cat([ahead[0], back[0]], 1)


def given_backward() -> Any:
    x = keras.Input((5, 4), name="x")
    back = layers.LSTM(3, go_backwards=True, name="back")
    return keras.Model(
        x,
        layers.Dense(5, name="d")(
            layers.Bidirectional(layers.LSTM(3, name="ahead"), backward_layer=back, name="bi")(x)
        ),
    )


def given_backward_in_torch(state: State, x: Any) -> Any:
    _, (both, _) = recurrent(torch.nn.LSTM(4, 3, batch_first=True, bidirectional=True), state, "bi")(x)
    return dense(state, "d", torch.cat([both[0], both[1]], 1))


CASES: dict[str, tuple[Callable[[], Any], Callable[[State, Any], Any]]] = {
    "gate before map": (gated("gate"), gated_in_torch),
    "map before gate": (gated("map"), gated_in_torch),
    "vector before map": (shifted("vector"), shifted_in_torch),
    "map before vector": (shifted("map"), shifted_in_torch),
    "mask before map": (masked, masked_in_torch),
    "second of a list": (two_scales(lambda p, q: [p, q], lambda found: found[1]), two_scales_in_torch),
    "second by name": (two_scales(lambda p, q: {"y": q, "a": p}, lambda found: found["y"]), two_scales_in_torch),
    "dictionary": (by_name(listed=False), by_name_in_torch),
    "dictionary for a list": (by_name(listed=True), by_name_in_torch),
    "shape kept": (shape_kept, shape_kept_in_torch),
    "repeated": (repeated, repeated_in_torch),
    "states": (states, states_in_torch),
    "directions of two kinds": (two_kinds, two_kinds_in_torch),
    "backward layer given": (given_backward, given_backward_in_torch),
}


@pytest.mark.parametrize("case", CASES)
def test_pytorch_computes_the_same(case: str, tmp_path: Path) -> None:
    build, run = CASES[case]
    model = randomize(build())
    [shape] = [each.shape[1:] for each in model.inputs]
    x = np.random.default_rng(3).uniform(-1, 1, (2, *shape)).astype("f4")
    [expected] = keras.tree.flatten(model({"x": x} if isinstance(model.input, dict) else x))
    given = torch.tensor(x).movedim(-1, 1) if x.ndim == 4 else torch.tensor(x)
    for ending in ENDINGS:
        import_into(save(model, tmp_path / f"m.{ending}"), tmp_path / "m.pt", adapter="torch")
        state = torch.load(tmp_path / "m.pt", weights_only=True)
        with torch.no_grad():
            found = run(state, given).numpy()
        assert np.abs(found - np.asarray(expected)).max() < TOLERANCE * np.abs(expected).max(), ending


def shared_over_two_shapes() -> Any:
    """Two maps of as many elements, of different make-up, flattened for one layer."""
    a, b = keras.Input((4, 3, 2), name="a"), keras.Input((2, 3, 4), name="b")
    d = layers.Dense(5, name="d")
    ends = [
        d(layers.Flatten()(layers.Conv2D(2, 1, name="c")(a))),
        d(layers.Flatten()(layers.Conv2D(4, 1, name="e")(b))),
    ]
    return keras.Model([a, b], layers.Add()(ends))


def joined_with_features() -> Any:
    """A flattened map and features are added: to move the rows of either alone would be wrong."""
    x = image(4, 3, 2)
    flat = layers.Flatten()(layers.Conv2D(2, 1, name="c")(x))
    return keras.Model(x, layers.Dense(5, name="d")(layers.Add()([flat, layers.Dense(24, name="e")(flat)])))


def behind_the_unknown() -> Any:
    """A dense layer on a map of which nothing is known gives out a map as well."""
    x = keras.Input((12, 2), name="x")
    return headed(x, layers.Dense(4, name="e")(layers.Reshape((4, 3, 2))(x)))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("build", [shared_over_two_shapes, joined_with_features, behind_the_unknown])
def test_rows_in_doubt_are_moved_nowhere(build: Callable[[], Any], ending: str, tmp_path: Path) -> None:
    model = randomize(build())
    path = save(model, tmp_path / f"m.{ending}")
    kernel = wio.open(path)["d/kernel"]
    assert (kernel.role, str(kernel.layout)) == ("dense.kernel", "(?)O")
    with pytest.raises(PlanError, match="d/kernel"):
        import_into(path, tmp_path / "m.pt", adapter="torch")
    import_into(path, tmp_path / "out.h5", adapter="keras-tf")
    other = randomize(build(), seed=11)
    other.load_weights(tmp_path / "out.h5")
    assert all(same_bits(a, b) for a, b in zip(other.get_weights(), model.get_weights(), strict=True))


@pytest.mark.parametrize("ending", ENDINGS)
def test_features_behind_the_unknown_are_features(ending: str, tmp_path: Path) -> None:
    x = keras.Input((12, 2), name="x")
    parts = [layers.Dense(4, name="e")(layers.Reshape((24,))(x)), layers.GlobalMaxPooling1D()(x)]
    path = save(keras.Model(x, layers.Dense(5, name="d")(layers.Concatenate()(parts))), tmp_path / f"m.{ending}")
    bundle = wio.open(path)
    assert [str(bundle[f"{name}/kernel"].layout) for name in "ed"] == ["(?)O", "IO"]


def misread(path: Path) -> None:
    """Changes the stride that a saved model says a pool has, as if wio understood the layer wrongly."""

    def change(text: str) -> str:
        config = json.loads(text)
        [pool] = [each for each in config["config"]["layers"] if each["class_name"] == "MaxPooling2D"]
        pool["config"]["strides"] = [1, 1]
        return json.dumps(config)

    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = change(file.attrs["model_config"])
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = change(members["config.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_the_shape_refutes_leaves_one_tensor_undeclared(ending: str, tmp_path: Path) -> None:
    x = image(4, 6, 2)
    model = randomize(headed(x, layers.MaxPooling2D(2)(layers.Conv2D(3, 1, name="c")(x))))
    path = save(model, tmp_path / f"m.{ending}")
    misread(path)
    bundle = wio.open(path)
    told = {name: (t.role, t.layout and str(t.layout)) for name, t in bundle.items()}
    assert told == {
        "c/kernel": ("conv.kernel", "HWIO"),
        "c/bias": ("conv.bias", "O"),
        "d/kernel": (None, None),
        "d/bias": ("dense.bias", "O"),
    }
    facts = bundle.metadata["keras3" if ending == "keras" else "keras"]
    assert list(facts["contradicted"]) == ["d/kernel"]
    export(path, tmp_path / "m.wio")
    assert all(
        same_bits(t.numpy(), w) for t, w in zip(wio.open(tmp_path / "m.wio").values(), model.get_weights(), strict=True)
    )
    with pytest.raises((PlanError, LayoutError), match="d/kernel"):
        import_into(path, tmp_path / "m.pt", adapter="torch")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_backward_layer_speaks_for_itself(ending: str, tmp_path: Path) -> None:
    back = layers.LSTM(3, activation="relu", go_backwards=True, name="back")
    bi = layers.Bidirectional(layers.LSTM(3, recurrent_activation="relu", name="ahead"), backward_layer=back, name="bi")
    path = save(randomize(keras.Sequential([keras.Input((5, 4)), bi])), tmp_path / f"m.{ending}")
    assert wio.open(path).metadata["recurrent"] == {
        "bi": {"directions": ["bi/forward_ahead", "bi/back"]},
        "bi/forward_ahead": {"recurrent_activation": "relu"},
        "bi/back": {"activation": "relu"},
    }


MAP = FeatureMap(("H", "W", "C"), (4, 3, 2))


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([MAP, FeatureMap(("C",), (2,))], MAP),
        ([FeatureMap(None, (1, 1, 2)), MAP], MAP),
        ([FeatureMap(("H", "W", "C"), (None, 3, 1)), MAP], MAP),
        ([FeatureMap(("H", "W", "C"), (None, 3, 2)), FeatureMap(("H", "W", "C"), (1, 3, 2))],
         FeatureMap(("H", "W", "C"), (None, 3, 2))),
        ([FeatureMap(("H", "W", "C"), (1, 3, 2))] * 2, FeatureMap(("H", "W", "C"), (1, 3, 2))),
        ([MAP, None], None),
        ([MAP, FeatureMap(("C", "H", "W"), (4, 3, 2))], None),
        ([MAP, FeatureMap(("H", "W", "C"), (4, 3, 5))], None),
        ([FeatureMap(("C", "H", "W"), (2, 4, 3)), FeatureMap(("C",), (3,))], None),
        ([FeatureMap(None, (4, 3, 2)), FeatureMap(("C",), (2,))], None),
        ([FeatureMap(("H", "W", "C"), (4, 3, 2), flat=True)] * 2, FeatureMap(("H", "W", "C"), (4, 3, 2), flat=True)),
        ([FeatureMap(("H", "W", "C"), (4, 3, 2), flat=True), FeatureMap(("C",), (24,))], None),
    ],
)  # fmt: skip
def test_maps_are_broadcast_or_not_known(inputs: list[FeatureMap | None], expected: FeatureMap | None) -> None:
    assert merged(inputs) == merged(inputs[::-1]) == expected
