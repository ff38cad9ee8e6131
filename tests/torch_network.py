"""A network of the registry computed by torch's own functions, straight from its rows: the judge of written graphs.

It knows nothing of how wio lays a network out. Maps are N C and space; weights are in the network's canonical layouts.
What torch defines as the network does it computes itself: Caffe's rounding up (ceil_mode), what an average counts
(count_include_pad), LRN. SAME has no counterpart in torch; its pads are TensorFlow's documented ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from wio.architectures.architecture import Architecture
from wio.architectures.parameters import parameters_of
from wio.architectures.registry_file import load_architecture
from wio.bundle import Bundle, Tensor
from wio.dtypes import dtype_of
from wio.network import NetLayer, Network


def architecture(folder: Path, rows: str, name: str = "made-up") -> Architecture:
    """An architecture of these rows, read from a file as a user would write it."""
    path = folder / f"{name}.toml"
    path.write_text(f'id = "{name}"\n[network]\nlayers = [\n{rows}\n]\n')
    return load_architecture(path)


def made_up(network: Network, seed: int = 0) -> Bundle:
    """Weights for a network, in canonical names and layouts: all different, variances positive."""
    maps = network.feature_maps()
    tensors = []
    for parameter in parameters_of(network):
        told, layout = parameter.layer.attributes, parameter.layout
        incoming = maps[parameter.layer.inputs[0]]
        channels, out = incoming.size("C"), told.get("filters", told.get("units"))
        group = told.get("group", 1)
        kernel = dict(zip("DHW"[3 - len(told.get("kernel_shape", [])) :], told.get("kernel_shape", []), strict=True))
        sizes = {"1": 1, "I": channels // group, "O": out, "C": channels, "M": told.get("multiplier", 1), **kernel}
        if parameter.key == "DepthwiseConv.bias":
            sizes["O"] = channels * told.get("multiplier", 1)
        sizes |= dict(layout.sizes)
        if group > 1:
            sizes["O"] = out // group
        if parameter.key == "Gemm.bias" or (parameter.key.endswith(".bias") and group > 1):
            sizes["O"] = out
        shape = tuple(int(np.prod([sizes[letter] for letter in axis])) for axis in layout.axes)
        array = np.random.default_rng([seed, len(tensors)]).uniform(-0.5, 0.5, shape).astype(np.float32)
        if parameter.part in ("variance", "gamma"):
            array = np.abs(array) + np.float32(0.5)
        made = Tensor(parameter.name, dtype_of(array), shape, lambda array=array: array, layer=parameter.layer.name)
        tensors.append(made.declared(parameter.role, layout))
    return Bundle(tensors)


def images(network: Network, count: int = 2, seed: int = 5) -> dict[str, np.ndarray]:
    """Something for each input, N C and space."""
    found = {}
    for layer in network.layers:
        if layer.op == "Input":
            sizes = dict(zip(layer.attributes["axes"], layer.attributes["sizes"], strict=True))
            shape = (count, sizes.pop("C"), *sizes.values())
            found[layer.name] = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    return found


def outputs_of(network: Network) -> list[str]:
    consumed = {name for layer in network.layers for name in layer.inputs}
    return [layer.name for layer in network.layers if layer.name not in consumed]


def run(network: Network, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What every layer gives out; a flattened map in the order of the network's own axes."""
    maps = network.feature_maps()
    values: dict[str, torch.Tensor] = {name: torch.from_numpy(array) for name, array in inputs.items()}
    by_role = {(t.layer, str(t.role).partition(".")[2]): t for t in bundle.values()}
    for layer in network.layers:
        if layer.op == "Input":
            continue
        weights = {part: t for (name, part), t in by_role.items() if name == layer.name}
        given = [values[name] for name in layer.inputs]
        values[layer.name] = _layer(layer, given, weights, maps[layer.inputs[0]].axes)
    return {name: value.numpy() for name, value in values.items()}


def _layer(layer: NetLayer, given: Sequence[Any], weights: Mapping[str, Tensor], axes: tuple[str, ...]) -> Any:
    x, told = given[0], layer.attributes

    def w(part: str, layout: str | None = None) -> Any:
        tensor = weights.get(part)
        if tensor is None:
            return None
        return torch.from_numpy(np.array(tensor.numpy() if layout is None else tensor.to(layout).numpy()))

    space = "DHW"[3 - (x.ndim - 2) :] if x.ndim > 2 else ""
    match layer.op:
        case "Conv":
            group = told.get("group", 1)
            kernel = w("kernel", f"(GO)I{space} G={group}" if group > 1 else f"OI{space}")
            return _conv(_around(x, told), kernel, w("bias"), told, group)
        case "DepthwiseConv":
            kernel = w("kernel", f"(CM)1{space}")
            return _conv(_around(x, told), kernel, w("bias"), told, x.shape[1])
        case "ConvTranspose":
            transposed = getattr(functional, f"conv_transpose{len(space)}d")
            y = transposed(x, w("kernel", f"IO{space}"), w("bias"), stride=tuple(told.get("strides", [1] * len(space))))
            return _cut(y, told, x.shape[2:])
        case "MaxPool":
            return _max_pool(x, told)
        case "AveragePool":
            return _average_pool(x, told)
        case "GlobalAveragePool":
            return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        case "GlobalMaxPool":
            return x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)
        case "BatchNormalization":
            return functional.batch_norm(
                x, w("mean"), w("variance"), w("gamma"), w("beta"), False, 0.0, told.get("epsilon", 1e-5)
            )
        case "LRN":
            return functional.local_response_norm(x, told["size"], told["alpha"], told["beta"], told["bias"])
        case "Gemm":
            return functional.linear(x, w("kernel").T, w("bias"))
        case "Flatten":
            order = [0, *(1 + ["C", *[a for a in axes if a != "C"]].index(axis) for axis in axes)]
            return x.permute(order).flatten(1)
        case "Concat":
            return torch.cat(list(given), 1)
        case "Softmax":
            return functional.softmax(x, 1)
        case "PRelu":
            return functional.prelu(x, w("alpha").reshape(-1))
        case "LeakyRelu":
            return functional.leaky_relu(x, told.get("alpha", 0.01))
        case "Elu":
            return functional.elu(x, told.get("alpha", 1.0))
        case "Relu" | "Sigmoid" | "Tanh":
            return getattr(torch, layer.op.lower())(x)
        case "Dropout" | "Identity":
            return x
        case "Add":
            return sum(given[1:], x)
        case "Average":
            return sum(given[1:], x) / len(given)
        case "Mul":
            return torch.stack(list(given)).prod(0)
        case "Max":
            return torch.stack(list(given)).amax(0)
    raise AssertionError(layer.op)


def _conv(x: Any, kernel: Any, bias: Any, told: Mapping[str, Any], group: int) -> Any:
    rank = x.ndim - 2
    strides, dilations = (tuple(told.get(key, [1] * rank)) for key in ("strides", "dilations"))
    return getattr(functional, f"conv{rank}d")(x, kernel, bias, strides, 0, dilations, group)


def _sides(told: Mapping[str, Any], space: Sequence[int]) -> list[tuple[int, int]]:
    """What stands around each axis. SAME: tensorflow.org, tf.nn, "Notes on padding"."""
    rank = len(space)
    if "pads" in told:
        return [(told["pads"][i], told["pads"][i + rank]) for i in range(rank)]
    if told.get("auto_pad") != "SAME_UPPER":
        return [(0, 0)] * rank
    sides = []
    for i, size in enumerate(space):
        stride = told.get("strides", [1] * rank)[i]
        reach = (told["kernel_shape"][i] - 1) * told.get("dilations", [1] * rank)[i] + 1
        total = max(reach - stride, 0) if size % stride == 0 else max(reach - size % stride, 0)
        sides.append((total // 2, total - total // 2))
    return sides


def _around(x: Any, told: Mapping[str, Any], value: float = 0.0) -> Any:
    sides = _sides(told, x.shape[2:])
    return functional.pad(x, [each for side in reversed(sides) for each in side], value=value)


def _cut(y: Any, told: Mapping[str, Any], before: Sequence[int]) -> Any:
    """SAME keeps as many places as the map had times the stride; pads are cut off."""
    rank = len(before)
    sides = [(told["pads"][i], told["pads"][i + rank]) if "pads" in told else (0, 0) for i in range(rank)]
    if told.get("auto_pad") == "SAME_UPPER":
        over = [max(told["kernel_shape"][i] - told.get("strides", [1] * rank)[i], 0) for i in range(rank)]
        sides = [(each // 2, each - each // 2) for each in over]
    for i, (begin, end) in enumerate(sides):
        y = y.narrow(2 + i, begin, y.shape[2 + i] - begin - end)
    return y


def _windows(told: Mapping[str, Any], rank: int) -> dict[str, Any]:
    return {
        "kernel_size": tuple(told["kernel_shape"]),
        "stride": tuple(told.get("strides", [1] * rank)),
        "ceil_mode": bool(told.get("ceil_mode")),
    }


def _max_pool(x: Any, told: Mapping[str, Any]) -> Any:
    rank = x.ndim - 2
    sides = _sides(told, x.shape[2:])
    pool = getattr(functional, f"max_pool{rank}d")
    if all(begin == end for begin, end in sides):
        return pool(x, padding=tuple(begin for begin, _ in sides), **_windows(told, rank))
    return _begun(pool(_around(x, told, -np.inf), **_windows(told, rank)), x, told, sides)


def _average_pool(x: Any, told: Mapping[str, Any]) -> Any:
    """torch's own where a side is padded as the other; else, by hand, an average over what is no padding."""
    rank = x.ndim - 2
    sides = _sides(told, x.shape[2:])
    pool = getattr(functional, f"avg_pool{rank}d")
    counted = bool(told.get("count_include_pad"))
    if all(begin == end for begin, end in sides):
        padding = tuple(begin for begin, _ in sides)
        return pool(x, padding=padding, count_include_pad=counted, **_windows(told, rank))
    sums = pool(_around(x, told), **_windows(told, rank))
    means = sums if counted else sums / pool(_around(torch.ones_like(x), told), **_windows(told, rank))
    return _begun(means, x, told, sides)


def _begun(y: Any, x: Any, told: Mapping[str, Any], sides: Sequence[tuple[int, int]]) -> Any:
    """Without the windows that begin behind the map: torch leaves them out where it pads itself."""
    for i, (begin, _) in enumerate(sides):
        stride = told.get("strides", [1] * len(sides))[i]
        y = y.narrow(2 + i, 0, min(y.shape[2 + i], -(-(x.shape[2 + i] + begin) // stride)))
    return y
