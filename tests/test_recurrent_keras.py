"""Recurrent layers of Keras 1 and 2: recorded on Theano and TensorFlow, taken through PyTorch and ONNX and back."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_judge import SAVED, THEANO_1, THEANO_2, TOLERANCE, Court, Saved, config_layers, model_config
from onnx import helper
from onnx_judge import model as onnx_model
from onnx_judge import run, saved
from recurrent_judges import Net, TorchNet, keras_model, numbers, torch_declarations

import wio
from wio.errors import PlanError
from wio.port import Declarations, import_into

KINDS = {"LSTM": "lstm", "GRU": "gru", "GRU_reset_after": "gru", "SimpleRNN": "rnn", "BidirLSTM": "lstm"}
RECORDED = [name for name, source in SAVED.items() if source.layer in KINDS]
HARD = {"lstm": ["HardSigmoid", "Tanh", "Tanh"], "gru": ["HardSigmoid", "Tanh"], "rnn": ["Tanh"]}


def net_of(source: Saved) -> Net:
    return Net(KINDS[source.layer], 2, 3, source.layer == "BidirLSTM", reset_after=source.layer == "GRU_reset_after")


def layer_of(path: Path, adapter: str) -> str:
    return wio.open(path, adapter=adapter).metadata["layers"][-1]["name"]


def template(net: Net, layer: str, folder: Path) -> Path:
    """An ONNX model of the layer as old Keras computes it: the hard sigmoid is 0.2 x + 0.5."""
    ways, hard = 1 + net.both, HARD[net.kind]
    weights = {
        f"{layer}.W": numbers(ways, net.gates * net.units, net.inputs, seed=5),
        f"{layer}.R": numbers(ways, net.gates * net.units, net.units, seed=6),
        f"{layer}.B": numbers(ways, 2 * net.gates * net.units, seed=7),
    }
    told: dict[str, Any] = {"activations": hard * ways, "direction": "bidirectional" if net.both else "forward"}
    if net.kind != "rnn":
        told |= {"activation_alpha": [0.2] * ways, "activation_beta": [0.5] * ways}
    if net.kind == "gru":
        told["linear_before_reset"] = int(net.reset_after)
    node = helper.make_node(net.kind.upper(), ["x", *weights], ["y"], layer, hidden_size=net.units, **told)
    return saved(onnx_model([node], weights, {"x": [None, None, net.inputs]}), folder, "template.onnx")


def computed(path: Path, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What the ONNX model gives, as Keras gives it: every step of both directions, or the last step of one."""
    [out] = run(path, {"x": np.ascontiguousarray(x.transpose(1, 0, 2))})
    steps = out.transpose(2, 0, 1, 3).reshape(x.shape[0], x.shape[1], -1)
    return steps if y.ndim == 3 else steps[:, -1]


def declared_torch(net: Net) -> Declarations:
    return Declarations(declare=torch_declarations(net))


@pytest.mark.parametrize("name", RECORDED)
def test_onnx_computes_what_old_keras_recorded(name: str, tmp_path: Path) -> None:
    """Straight, and by way of PyTorch where it has such a layer: hard sigmoids and all."""
    source = SAVED[name]
    net, (x, y) = net_of(source), source.recorded()
    layer = layer_of(source.full, source.tag.adapter)
    options = {"template": str(template(net, layer, tmp_path))}
    out = tmp_path / "out.onnx"
    plan = import_into(source.full, out, adapter="onnx", options=options, source_adapter=source.tag.adapter)
    np.testing.assert_allclose(computed(out, x, y), y, rtol=0, atol=TOLERANCE)
    assert not [note for note in plan.notes if note.startswith("CHECK")], "both sides compute with a hard sigmoid"
    if net.kind != "gru" or net.reset_after:
        plan = import_into(source.full, tmp_path / "m.pt", adapter="torch", source_adapter=source.tag.adapter)
        assert any("recurrent_activation=hard_sigmoid" in note for note in plan.notes) is (net.kind != "rnn")
        import_into(tmp_path / "m.pt", out, adapter="onnx", options=options, told=declared_torch(net))
        np.testing.assert_allclose(computed(out, x, y), y, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Every recorded layer through PyTorch (ONNX for the GRU that resets before) and back, loaded by old Keras."""
    folder = tmp_path_factory.mktemp("recurrent")
    courts = {"122": Court(THEANO_1, folder / "one"), "224": Court(THEANO_2, folder / "two")}
    for name in RECORDED:
        source = SAVED[name]
        version = source.tag.name[1:4]
        if version not in courts or not source.tag.theano:
            continue
        net, stem = net_of(source), name.replace("/", "-")
        if net.kind != "gru" or net.reset_after:
            between, told = folder / f"{stem}.pt", declared_torch(net)
            import_into(source.full, between, adapter="torch", source_adapter=source.tag.adapter)
        else:
            between, told = folder / f"{stem}.onnx", None
            import_into(source.full, between, adapter="onnx", source_adapter=source.tag.adapter)
        back = folder / f"{stem}.h5"
        import_into(between, back, adapter=source.tag.adapter, options=source.tag.options, told=told)
        courts[version].add(name, "order", back, model_config(source.full), source, source.tag.first)
    for court in courts.values():
        court.sit()
    return {case: court.verdict(case) for court in courts.values() for case in court.expected}


@pytest.mark.parametrize("name", [n for n in RECORDED if SAVED[n].tag.theano and not n.startswith("k205")])
def test_old_keras_computes_what_it_recorded_after_the_way_back(name: str, verdicts: dict[str, str | None]) -> None:
    assert verdicts[name] is None, verdicts[name]


# --- cuDNN


def transposed(kernel: np.ndarray, gates: int, block: Any) -> np.ndarray:
    return np.hstack([block(part) for part in np.hsplit(kernel, gates)])


def cudnn_file(kind: str, units: int, path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A file of CuDNNLSTM or CuDNNGRU, made of plain weights by the inverse of the rule in Keras 2.2.4.

    Its rule (``engine/saving.py``, ``_convert_rnn_weights``) is run by Keras itself in these tests. Gives the plain
    weights, both biases apart, and the configuration of the plain layer.
    """
    gates = {"lstm": 4, "gru": 3}[kind]
    kernel, recurrent = numbers(2, gates * units, seed=11), numbers(units, gates * units, seed=12)
    biases = numbers(2, gates * units, seed=13)
    shutil.copy(SAVED[f"k224_th_last/{'LSTM' if kind == 'lstm' else 'GRU_reset_after'}"].full, path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        plain = copy.deepcopy(config)
        for document in (config, plain):
            [layer] = config_layers(document)
            layer["config"] |= {"units": units, "recurrent_activation": "sigmoid"}
        [layer] = config_layers(config)
        layer["class_name"] = f"CuDNN{layer['class_name']}"
        for key in ("activation", "recurrent_activation", "use_bias", "reset_after", "implementation"):
            layer["config"].pop(key, None)
        file.attrs["model_config"] = json.dumps(config).encode()
        group = file["model_weights"][layer["config"]["name"]]
        stored = {
            "/kernel": transposed(kernel, gates, lambda part: part.T.reshape(part.shape)),
            "recurrent_kernel": transposed(recurrent, gates, np.transpose),
            "/bias": biases.reshape(-1),
        }
        for weight_name in [name.decode() for name in group.attrs["weight_names"]]:
            [array] = [array for leaf, array in stored.items() if weight_name.removesuffix(":0").endswith(leaf)]
            del group[weight_name]
            group[weight_name] = array
    return [kernel, recurrent, biases], plain


CUDNN = [(kind, units) for kind in ("lstm", "gru") for units in (3, 2)]
X = np.random.default_rng(8).standard_normal((3, 4, 2)).astype(np.float32)


def plain_output(kind: str, weights: list[np.ndarray]) -> np.ndarray:
    """What Keras 3 computes with the plain weights."""
    kernel, recurrent, biases = weights
    model = keras_model(Net(kind, 2, recurrent.shape[0]), 1)
    model.set_weights([kernel, recurrent, biases.sum(0) if kind == "lstm" else biases])
    return np.asarray(model(X))


@pytest.mark.parametrize(("kind", "units"), CUDNN)
def test_cudnn_layers_are_plain_layers_of_every_target(kind: str, units: int, tmp_path: Path) -> None:
    weights, _ = cudnn_file(kind, units, tmp_path / "cudnn.h5")
    net, expected = Net(kind, 2, units), plain_output(kind, weights)
    layer = layer_of(tmp_path / "cudnn.h5", "keras-theano")
    model = keras_model(net, 9)
    plan = import_into(tmp_path / "cudnn.h5", tmp_path / "out.h5", adapter="keras-tf")
    kinds = {step.slots[0].role: (step.kind, step.exact) for step in plan.steps}
    bias = ("sum", False) if kind == "lstm" else ("rearrange", True)
    assert kinds == {
        f"{kind}.kernel": ("rearrange", True),
        f"{kind}.recurrent_kernel": ("rearrange", True),
        f"{kind}.bias": bias,
    }
    with h5py.File(tmp_path / "out.h5") as file:
        assert "model_config" not in file.attrs, "its configuration is that of another layer"
    model.load_weights(tmp_path / "out.h5")
    np.testing.assert_allclose(np.asarray(model(X)), expected, rtol=0, atol=TOLERANCE)
    import_into(tmp_path / "cudnn.h5", tmp_path / "m.pt", adapter="torch")
    import torch

    module = TorchNet(net, 9)
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    module.load_state_dict({name.replace(layer, "it", 1): value for name, value in state.items()})
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(X)).numpy(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("kind", "units"), CUDNN)
def test_cudnn_files_stay_what_they_are_in_their_own_format(kind: str, units: int, tmp_path: Path) -> None:
    cudnn_file(kind, units, tmp_path / "cudnn.h5")
    import_into(tmp_path / "cudnn.h5", tmp_path / "same.h5", adapter="keras-theano")
    for name, tensor in wio.open(tmp_path / "cudnn.h5").items():
        np.testing.assert_array_equal(wio.open(tmp_path / "same.h5")[name].numpy(), tensor.numpy())


def test_keras_2_converts_cudnn_files_to_the_same_layers(tmp_path: Path) -> None:
    """Keras 2.2.4 loads the file of the cuDNN layer, and what wio made of it, into the plain layer."""
    court = Court(THEANO_2, tmp_path / "court")
    for kind, units in CUDNN:
        path = tmp_path / f"{kind}{units}.h5"
        weights, plain = cudnn_file(kind, units, path)
        source = Recorded(SAVED["k224_th_last/LSTM"].tag, kind, tmp_path, plain_output(kind, weights)[:, -1])
        out, options = tmp_path / f"{kind}{units}.out.h5", {"data_format": "channels_first"}
        import_into(path, out, adapter="keras-theano", options=options)
        for file in (path, out):
            court.add(file.name, "order", file, plain, source, first=False)
    court.sit()
    assert not [text for case in court.expected if (text := court.verdict(case))]


class Recorded(Saved):
    """A network whose input and output are known without a file."""

    def __init__(self, tag: Any, layer: str, folder: Path, y: np.ndarray) -> None:
        super().__init__(tag, layer, folder)
        object.__setattr__(self, "_y", y)

    def recorded(self) -> tuple[Any, Any]:
        return X, self._y  # type: ignore[attr-defined]


# --- what old Keras does not have


@pytest.mark.parametrize("family", ["1.2", "2.0"])
def test_a_gru_that_resets_after_is_not_one_of_old_keras(family: str, tmp_path: Path) -> None:
    source = SAVED["k224_th_last/GRU_reset_after"]
    import_into(source.full, tmp_path / "m.pt", adapter="torch", source_adapter="keras-theano")
    with pytest.raises(PlanError) as error:
        import_into(
            tmp_path / "m.pt", tmp_path / "out.h5", adapter="keras-theano", options={"keras": family},
            told=declared_torch(net_of(source)),
        )  # fmt: skip
    assert {problem.kind for problem in error.value.problems} == {"unsupported"}
    assert f"resets after the recurrent product, Keras {family} only before it" in str(error.value)
    assert not (tmp_path / "out.h5").exists()
