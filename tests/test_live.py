"""Into a live model: strict, and judged by what the model then computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras3_judge import big_model, predict, twin

import wio
from wio.errors import PlanError

# TensorFlow's variables speak NumPy 1 to NumPy 2; that is between the two of them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def model(seed: int) -> Any:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.layers.Input((7, 6, 2)),
            keras.layers.Conv2D(3, (3, 2), name="conv"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dropout(0.5, name="drop"),
            keras.layers.Dense(4, name="fc"),
        ]
    )


def shaken(seed: int) -> Any:
    """A model whose every weight, statistics included, is its own."""
    made = model(seed)
    rng = np.random.default_rng(seed)
    for variable in made.weights:
        variable.assign(np.abs(rng.standard_normal(variable.shape)).astype(np.float32))
    return made


X = np.random.default_rng(9).standard_normal((2, 7, 6, 2)).astype(np.float32)


def test_a_keras_model_computes_the_same_afterwards(tmp_path: Path) -> None:
    source, target = shaken(1), shaken(2)
    source.save(tmp_path / "m.h5")
    wio.export(tmp_path / "m.h5", tmp_path / "m.wio")
    assert not np.allclose(source(X), target(X))
    wio.load_into(target, tmp_path / "m.wio")
    np.testing.assert_array_equal(np.asarray(source(X)), np.asarray(target(X)))


def test_from_theano_by_way_of_a_file(tmp_path: Path) -> None:
    """Kernels that run backwards in the file are turned for the model."""
    source, target = shaken(3), shaken(4)
    source.save(tmp_path / "m.h5")
    wio.import_into(tmp_path / "m.h5", tmp_path / "th.h5", adapter="keras-theano")
    wio.load_into(target, tmp_path / "th.h5")
    np.testing.assert_array_equal(np.asarray(source(X)), np.asarray(target(X)))


def test_strict_lists_everything_and_changes_nothing(tmp_path: Path) -> None:
    source, target = shaken(5), shaken(6)
    source.save(tmp_path / "m.h5")
    wio.export(tmp_path / "m.h5", tmp_path / "m.wio", drop=["*conv/bias", "*bn/gamma"])
    before = [np.asarray(variable) for variable in target.weights]
    with pytest.raises(PlanError) as error:
        wio.load_into(target, tmp_path / "m.wio")
    assert {p.tensor for p in error.value.problems} == {"conv/bias", "bn/gamma"}
    for variable, old in zip(target.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), old)
    wio.load_into(target, tmp_path / "m.wio", strict=False)
    assert (np.asarray(target.get_layer("bn").gamma) == before[2]).all(), "beta must not take gamma's place"
    np.testing.assert_array_equal(np.asarray(target.get_layer("fc").kernel), np.asarray(source.get_layer("fc").kernel))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    shaken(7).save(tmp_path / "m.h5")
    with pytest.raises(wio.WioError, match="neither"):
        wio.load_into(object(), tmp_path / "m.h5")


def test_a_torch_module_computes_what_the_keras_model_does(tmp_path: Path) -> None:
    """HWIO to OIHW, rows from H W C to C H W, moving_variance to running_var: all of it, by names alone."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 3, (3, 2))
            self.bn = torch.nn.BatchNorm2d(3, eps=1e-3)
            self.fc = torch.nn.Linear(5 * 5 * 3, 4)

        def forward(self, x: Any) -> Any:
            return self.fc(torch.flatten(self.bn(self.conv(x)), 1))

    source, target = shaken(8), Net().eval()
    source.save(tmp_path / "m.h5")
    wio.export(tmp_path / "m.h5", tmp_path / "m.wio")
    wio.load_into(target, tmp_path / "m.wio")
    with torch.no_grad():
        computed = target(torch.from_numpy(np.ascontiguousarray(X.transpose(0, 3, 1, 2)))).numpy()
    np.testing.assert_allclose(computed, np.asarray(source(X)), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        target.fc = torch.nn.Linear(5 * 5 * 3, 5)
    with pytest.raises(PlanError, match="does not fit the model"):
        wio.load_into(target, tmp_path / "m.wio")


# --- whole models: nested, shared, recurrent; on TensorFlow here, on torch in a process of its own


def test_nested_shared_and_recurrent_layers(tmp_path: Path) -> None:
    """From .keras, .h5 and .wio; a judge that would see two alike layers of a Bidirectional exchanged."""
    source = big_model()
    source.save(tmp_path / "m.keras")
    wio.export(tmp_path / "m.keras", tmp_path / "m.wio")
    for name in ("m.keras", "m.wio"):
        target = twin(source)
        assert not np.allclose(predict(source), predict(target))
        wio.load_into(target, tmp_path / name)
        for ours, theirs in zip(target.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(predict(target), predict(source), atol=1e-6, rtol=0)


def test_all_that_does_not_fit_is_told_at_once(tmp_path: Path) -> None:
    """Missing, unexpected and of another shape, in nested and recurrent layers too; nothing is changed."""
    source = big_model()
    source.save(tmp_path / "m.keras")
    wio.export(tmp_path / "m.keras", tmp_path / "m.wio", drop=["both/forward_cellar/bias", "block/conv/kernel"])
    layers = keras.layers
    target = keras.models.clone_model(
        source, clone_function=lambda layer: (
            layers.Dense(3, name="out") if layer.name == "out"
            else layers.Conv2D(3, 3, padding="same", use_bias=False, name="stem") if layer.name == "stem"
            else layer.__class__.from_config(layer.get_config())
        ),
    )  # fmt: skip
    before = [np.array(each) for each in target.get_weights()]
    with pytest.raises(PlanError) as error:
        wio.load_into(target, tmp_path / "m.wio")
    kinds: dict[str, set[str]] = {}
    for problem in error.value.problems:
        kinds.setdefault(problem.kind, set()).add(str(problem.tensor).partition("/")[0])
    assert kinds["shape"] == {"out"}
    assert kinds["missing"] >= {"both", "block"}
    assert kinds["unexpected"] >= {"stem"}
    for ours, old in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)


_ON_TORCH = """
import sys
import numpy as np
import keras, wio
from keras3_judge import big_model, predict, twin
assert keras.backend.backend() == "torch"
source = big_model()
source.save(sys.argv[1] + "/m.keras")
target = twin(source)
wio.load_into(target, sys.argv[1] + "/m.keras")
def host(model):
    return [np.asarray(each) for each in model.get_weights()]
assert all((a == b).all() for a, b in zip(host(source), host(target), strict=True))
wio.load_into(target, sys.argv[2])
np.savez(sys.argv[1] + "/torch.npz", *host(target))
try:
    wio.load_into(target, sys.argv[2], drop=["out/bias", "both/*"])
except wio.WioError as error:
    print(sorted({problem.tensor.partition("/")[0] for problem in error.problems}))
"""


def test_on_torch_as_on_tensorflow(tmp_path: Path) -> None:
    """A model of Keras 3 on torch, filled from a file that Keras 3 on TensorFlow saved."""
    source = big_model()
    source.save(tmp_path / "tf.keras")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", _ON_TORCH, str(tmp_path), str(tmp_path / "tf.keras")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "['both', 'out']"
    with np.load(tmp_path / "torch.npz") as arrays:
        for ours, theirs in zip(arrays.values(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


# --- dtypes, tied weights, and what cannot be filled


def torch_module(dtype: Any = None, **shapes: tuple[int, ...]) -> Any:
    """A module of bare parameters: what is loaded is all that it has."""
    import torch

    made = torch.nn.Module()
    for name, shape in shapes.items():
        made.register_parameter(name, torch.nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False))
    return made


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float64", "float8_e4m3fn", "complex64", "bool", "int64"])
def test_every_dtype_arrives_bit_for_bit(tmp_path: Path, name: str) -> None:
    import torch

    dtype = getattr(torch, name)
    values = (torch.arange(6).reshape(2, 3) % 4 - 1).to(dtype)
    saved = {"a": values, "empty": torch.zeros((0, 3), dtype=dtype), "point": values[1, 0].clone()}
    torch.save(saved, tmp_path / "m.pt")
    target = torch_module(dtype, a=(2, 3), empty=(0, 3), point=())
    assert wio.load_into(target, tmp_path / "m.pt").exact
    bits = [each.reshape(-1).view(torch.uint8) for each in (target.a, values, target.point, saved["point"])]
    assert torch.equal(bits[0], bits[1])
    assert torch.equal(bits[2], bits[3])


def test_nothing_is_cast_unless_that_is_declared(tmp_path: Path) -> None:
    """1e5 is infinite in float16, 1.7 is 1 in int64: both were once taken for exact."""
    import torch

    torch.save({"a": torch.tensor([1.5, 1 / 3]), "b": torch.tensor([1.7, -0.5])}, tmp_path / "m.pt")
    target = torch_module(torch.float16, a=(2,))
    target.register_buffer("b", torch.zeros(2, dtype=torch.int64))
    with pytest.raises(PlanError) as error:
        wio.load_into(target, tmp_path / "m.pt")
    remedies = {problem.tensor: (problem.kind, problem.remedy) for problem in error.value.problems}
    assert remedies["a"] == ("dtype", "apply=['cast=a:float16']")
    assert remedies["b"][0] == "dtype"
    assert not target.a.any()
    assert not target.b.any()
    target.b = torch.ones(2, dtype=torch.float32)
    plan = wio.load_into(target, tmp_path / "m.pt", apply=["cast=a:float16"])
    assert not plan.exact
    assert torch.equal(target.a, torch.tensor([1.5, 1 / 3]).half())
    torch.save({"a": torch.tensor([1e5, 0.0]), "b": torch.zeros(2)}, tmp_path / "large.pt")
    with pytest.raises(wio.WioError, match="overflow float16"):
        wio.load_into(target, tmp_path / "large.pt", apply=["cast=a:float16"])
    assert target.b.all(), "no weight is changed where another cannot be"


def test_keras_weights_keep_their_dtype_too(tmp_path: Path) -> None:
    target = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d")])
    rng = np.random.default_rng(0)
    kernel, bias = rng.standard_normal((3, 2)), rng.standard_normal(2)
    np.savez(tmp_path / "m.npz", **{"d/kernel": kernel, "d/bias": bias.astype(np.float32)})
    declare = ["d/kernel=dense.kernel:IO", "d/bias=dense.bias:O"]
    before = target.get_weights()
    with pytest.raises(PlanError, match="the file has float64, the model float32") as error:
        wio.load_into(target, tmp_path / "m.npz", declare=declare)
    (problem,) = error.value.problems
    assert problem.remedy == "apply=['cast=d/kernel:float32']"
    np.testing.assert_array_equal(target.get_weights()[1], before[1])
    wio.load_into(target, tmp_path / "m.npz", declare=declare, apply=["cast=d/kernel:float32"])
    np.testing.assert_array_equal(target.get_weights()[0], kernel.astype(np.float32))


def tied(seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    made = torch.nn.Module()
    made.emb, made.head = torch.nn.Embedding(4, 4), torch.nn.Linear(4, 4, bias=False)
    made.head.weight = made.emb.weight
    return made


@pytest.mark.parametrize("name", ["m.pt", "m.wio"])
def test_a_tied_weight_takes_its_own_state_dict(tmp_path: Path, name: str) -> None:
    """PyTorch gives both names, the file keeps the first; a model that is not tied has both filled."""
    import torch

    source = tied(1)
    torch.save(source.state_dict(), tmp_path / "m.pt")
    wio.export(tmp_path / "m.pt", tmp_path / "m.wio")
    target = tied(2)
    wio.load_into(target, tmp_path / name)
    assert torch.equal(target.head.weight, source.emb.weight)
    wio.load_into(untied := tied_apart(), tmp_path / "m.pt")
    assert torch.equal(untied.head.weight, source.emb.weight)
    assert torch.equal(untied.emb.weight, source.emb.weight)


def tied_apart() -> Any:
    import torch

    made = tied(3)
    made.head.weight = torch.nn.Parameter(torch.zeros(4, 4))
    return made


def test_a_tied_weight_takes_no_two_values(tmp_path: Path) -> None:
    import torch

    torch.save(tied_apart().state_dict(), tmp_path / "two.pt")
    target = tied(4)
    before = target.emb.weight.detach().clone()
    with pytest.raises(PlanError, match=r"one weight for it and emb\.weight, the file two values"):
        wio.load_into(target, tmp_path / "two.pt", strict=False)
    assert torch.equal(target.emb.weight, before)
    wio.load_into(target, tmp_path / "two.pt", drop=["head.weight"])
    assert not torch.equal(target.emb.weight, before)


def test_what_no_value_can_be_put_into_is_named(tmp_path: Path) -> None:
    """A meta model was once "filled" and stayed empty."""
    import torch

    class Stateful(torch.nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None: ...

    source = Stateful(2, 2)
    torch.save(source.state_dict(), tmp_path / "m.pt")
    with pytest.raises(PlanError, match="meta device") as error:
        wio.load_into(torch.nn.Linear(2, 2, device="meta"), tmp_path / "m.pt", strict=False)
    assert [problem.tensor for problem in error.value.problems] == ["weight", "bias"]
    with pytest.raises(PlanError, match="before the lazy module has seen an input"):
        wio.load_into(torch.nn.LazyLinear(2), tmp_path / "m.pt")
    target = Stateful(2, 2)
    with pytest.raises(PlanError, match="get_extra_state"):
        wio.load_into(target, tmp_path / "m.pt")
    assert not torch.equal(target.weight, source.weight)
    wio.load_into(target, tmp_path / "m.pt", strict=False)
    assert torch.equal(target.weight, source.weight)
