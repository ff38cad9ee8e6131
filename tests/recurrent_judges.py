"""Recurrent layers in the real frameworks: Keras 3, PyTorch and onnxruntime save them, load them and compute them.

A network is one layer called ``it``; it takes (batch, time, input) and gives (batch, time, units), both directions of a
bidirectional layer one beside the other, each step where its input stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from keras3_judge import keras, randomize, save
from onnx import helper
from onnx_judge import model as onnx_model
from onnx_judge import run, saved

from wio.plan import Plan
from wio.port import Declarations, import_into

BATCH, STEPS = 2, 5
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Net:
    """One recurrent layer: its kind, what comes in, its units, and which variant it is."""

    kind: str
    inputs: int = 3
    units: int = 2
    both: bool = False
    bias: bool = True
    reset_after: bool = True

    def __str__(self) -> str:
        words = [self.kind, f"{self.inputs}-{self.units}"]
        words += ["both"] * self.both + ["nobias"] * (not self.bias)
        if self.kind == "gru":
            words.append("after" if self.reset_after else "before")
        return " ".join(words)

    @property
    def gates(self) -> int:
        return {"lstm": 4, "gru": 3, "rnn": 1}[self.kind]

    @property
    def x(self) -> np.ndarray:
        return np.random.default_rng(3).standard_normal((BATCH, STEPS, self.inputs)).astype(np.float32)


def numbers(*shape: int, seed: int) -> np.ndarray:
    """Weights no two of which are alike, and none near zero."""
    generator = np.random.default_rng([seed, *shape])
    return (generator.uniform(0.1, 0.9, shape) * generator.choice([-1, 1], shape)).astype(np.float32)


# --- Keras 3


def keras_model(net: Net, seed: int) -> Any:
    k = keras()
    told: dict[str, Any] = {"return_sequences": True, "use_bias": net.bias, "name": "cell" if net.both else "it"}
    if net.kind == "gru":
        told["reset_after"] = net.reset_after
    layer = {"lstm": k.layers.LSTM, "gru": k.layers.GRU, "rnn": k.layers.SimpleRNN}[net.kind](net.units, **told)
    if net.both:
        layer = k.layers.Bidirectional(layer, name="it")
    model = randomize(k.Sequential([k.Input((STEPS, net.inputs)), layer]), seed)
    model.set_weights([w * np.sign(numbers(*w.shape, seed=seed)) for w in model.get_weights()])
    return model


def keras_output(model: Any, net: Net) -> np.ndarray:
    return np.asarray(model(net.x))


# --- PyTorch


class TorchNet(torch.nn.Module):
    def __init__(self, net: Net, seed: int) -> None:
        super().__init__()
        layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[net.kind]
        self.it = layer(net.inputs, net.units, batch_first=True, bias=net.bias, bidirectional=net.both)
        with torch.no_grad():
            for place, weight in enumerate(self.parameters()):
                weight.copy_(torch.from_numpy(numbers(*weight.shape, seed=seed + place)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.it(x)[0]


def torch_output(model: TorchNet, net: Net) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(net.x)).numpy()


def torch_declarations(net: Net) -> tuple[str, ...]:
    parts = {"weight_ih": "kernel", "weight_hh": "recurrent_kernel"}
    if net.bias:
        parts |= {"bias_ih": "input_bias", "bias_hh": "recurrent_bias"}
    return tuple(f"*.{leaf}_l*={net.kind}.{part}" for leaf, part in parts.items())


# --- ONNX


def onnx_net(net: Net, seed: int, direction: str = "") -> onnx.ModelProto:
    ways = 2 if net.both else 1
    weights = {
        "it.W": numbers(ways, net.gates * net.units, net.inputs, seed=seed),
        "it.R": numbers(ways, net.gates * net.units, net.units, seed=seed + 1),
    }
    if net.bias:
        weights["it.B"] = numbers(ways, 2 * net.gates * net.units, seed=seed + 2)
    told: dict[str, Any] = {"hidden_size": net.units}
    if net.kind == "gru":
        told["linear_before_reset"] = int(net.reset_after)
    way = direction or ("bidirectional" if net.both else "forward")
    node = helper.make_node(net.kind.upper(), ["x", *weights], ["y"], "it", direction=way, **told)
    return onnx_model([node], weights, {"x": [STEPS, BATCH, net.inputs]})


def onnx_output(path: Path, net: Net) -> np.ndarray:
    """Y is [time, directions, batch, units]."""
    [y] = run(path, {"x": np.ascontiguousarray(net.x.transpose(1, 0, 2))})
    return y.transpose(2, 0, 1, 3).reshape(BATCH, STEPS, -1)


# --- every framework as one that saves, and as one that loads


@dataclass(frozen=True)
class Source:
    """``make`` saves a network with weights of its own and gives the path and what it computes."""

    make: Callable[[Net, Path], tuple[Path, np.ndarray]]
    declare: Callable[[Net], tuple[str, ...]] = lambda net: ()  # noqa: ARG005
    holds: Callable[[Net], bool] = lambda net: True  # noqa: ARG005

    def told(self, net: Net) -> Declarations:
        return Declarations(declare=self.declare(net))


def _from_keras(ending: str) -> Callable[[Net, Path], tuple[Path, np.ndarray]]:
    def make(net: Net, folder: Path) -> tuple[Path, np.ndarray]:
        model = keras_model(net, 1)
        return save(model, folder / f"source{ending}"), keras_output(model, net)

    return make


def _from_torch(net: Net, folder: Path) -> tuple[Path, np.ndarray]:
    model = TorchNet(net, 1)
    torch.save(model.state_dict(), folder / "source.pt")
    return folder / "source.pt", torch_output(model, net)


def _from_onnx(net: Net, folder: Path) -> tuple[Path, np.ndarray]:
    path = saved(onnx_net(net, 1), folder, "source.onnx")
    return path, onnx_output(path, net)


def _in_torch(net: Net) -> bool:
    return net.kind != "gru" or net.reset_after


SOURCES = {
    "keras-tf": Source(_from_keras(".h5")),
    "keras3": Source(_from_keras(".keras")),
    "torch": Source(_from_torch, torch_declarations, _in_torch),
    "onnx": Source(_from_onnx),
}


def _into_keras_hdf5(source: Path, net: Net, folder: Path, told: Declarations) -> tuple[Plan, np.ndarray]:
    model = keras_model(net, 9)
    plan = import_into(source, folder / "out.h5", adapter="keras-tf", told=told)
    model.load_weights(folder / "out.h5")
    return plan, keras_output(model, net)


def _into_keras3(source: Path, net: Net, folder: Path, told: Declarations) -> tuple[Plan, np.ndarray]:
    template = save(keras_model(net, 9), folder / "template.keras")
    out = folder / "out.keras"
    plan = import_into(source, out, adapter="keras3", options={"template": str(template)}, told=told)
    return plan, keras_output(keras().saving.load_model(out), net)


def _into_torch(source: Path, net: Net, folder: Path, told: Declarations) -> tuple[Plan, np.ndarray]:
    model = TorchNet(net, 9)
    plan = import_into(source, folder / "out.pt", adapter="torch", told=told)
    model.load_state_dict(torch.load(folder / "out.pt", weights_only=True))
    return plan, torch_output(model, net)


def _into_onnx_template(source: Path, net: Net, folder: Path, told: Declarations) -> tuple[Plan, np.ndarray]:
    template = saved(onnx_net(net, 9), folder, "template.onnx")
    out = folder / "out.onnx"
    plan = import_into(source, out, adapter="onnx", options={"template": str(template)}, told=told)
    return plan, onnx_output(out, net)


def _into_onnx_weights(source: Path, net: Net, folder: Path, told: Declarations) -> tuple[Plan, np.ndarray]:
    """The initializers that wio wrote, put into a graph by the onnx package."""
    plan = import_into(source, folder / "weights.onnx", adapter="onnx", told=told)
    made = onnx_net(net, 9)
    written = {each.name: each for each in onnx.load(folder / "weights.onnx").graph.initializer}
    assert written.keys() == {each.name for each in made.graph.initializer}
    for each in made.graph.initializer:
        each.CopyFrom(written[each.name])
    return plan, onnx_output(saved(made, folder, "out.onnx"), net)


Load = Callable[[Path, Net, Path, Declarations], tuple[Plan, np.ndarray]]
TARGETS: dict[str, tuple[Load, Callable[[Net], bool]]] = {
    "keras-tf": (_into_keras_hdf5, lambda net: True),  # noqa: ARG005
    "keras3": (_into_keras3, lambda net: True),  # noqa: ARG005
    "torch": (_into_torch, _in_torch),
    "onnx template": (_into_onnx_template, lambda net: True),  # noqa: ARG005
    "onnx weights": (_into_onnx_weights, lambda net: True),  # noqa: ARG005
}
