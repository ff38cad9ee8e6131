"""What each kind of layer computes, in plain NumPy, from weights in their neutral layouts and maps with channels last.

Written from ``spec/wio-1.md`` (sections 12.4 and 13) and from the definitions of the layers, with nothing of wio and
nothing of a framework: where a framework that is given rearranged weights agrees with it, the layouts are true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Parts = Mapping[str, Array]

EPSILON = 1e-3


def conv(w: Parts, x: Array, groups: int = 1) -> Array:
    return grouped(w["kernel"].astype(np.float64), x, groups) + w["bias"]


def grouped(kernel: Array, x: Array, groups: int = 1) -> Array:
    """Cross-correlation with a kernel of space, I, (GO): group g takes the g-th block of channels, and gives it."""
    inputs, outputs = kernel.shape[-2], kernel.shape[-1] // groups
    blocks = [
        correlated(x[..., g * inputs : (g + 1) * inputs], kernel[..., g * outputs : (g + 1) * outputs])
        for g in range(groups)
    ]
    return np.concatenate(blocks, -1)


def correlated(x: Array, kernel: Array) -> Array:
    """y[p, o] = sum over k and i of x[p + k, i] * w[k, i, o], where the kernel lies within the map."""
    space = kernel.shape[:-2]
    size = [length - k + 1 for length, k in zip(x.shape[1:-1], space, strict=True)]
    out = np.zeros((len(x), *size, kernel.shape[-1]))
    for k in np.ndindex(*space):
        window = tuple(slice(at, at + length) for at, length in zip(k, size, strict=True))
        out += x[(slice(None), *window)] @ kernel[k]
    return out


def conv_transpose(w: Parts, x: Array, groups: int = 1, stride: int = 1) -> Array:
    """Every x[p, i] adds x[p, i] * w[k, o, i] to y[s * p + k, o]; a kernel of space, O, (GI)."""
    kernel = w["kernel"].astype(np.float64)
    space, outputs, inputs = kernel.shape[:-2], kernel.shape[-2], kernel.shape[-1] // groups
    size = [(length - 1) * stride + k for length, k in zip(x.shape[1:-1], space, strict=True)]
    out = np.zeros((len(x), *size, groups * outputs))
    for g in range(groups):
        mine = slice(g * inputs, (g + 1) * inputs)
        for k in np.ndindex(*space):
            places = tuple(slice(at, at + n * stride, stride) for at, n in zip(k, x.shape[1:-1], strict=True))
            out[(slice(None), *places, slice(g * outputs, (g + 1) * outputs))] += x[..., mine] @ kernel[k][:, mine].T
    return out + w["bias"]


def depthwise(w: Parts, x: Array) -> Array:
    return each_channel(w["kernel"], x) + w["bias"]


def each_channel(kernel: Array, x: Array) -> Array:
    """A kernel of space, C, M: channel c gives the channels c * M + m."""
    channels = [correlated(x[..., c : c + 1], kernel[..., c : c + 1, :]) for c in range(kernel.shape[-2])]
    return np.concatenate(channels, -1)


def separable(w: Parts, x: Array) -> Array:
    return correlated(each_channel(w["depthwise_kernel"], x), w["pointwise_kernel"]) + w["bias"]


def dense(w: Parts, x: Array) -> Array:
    return flattened(x) @ w["kernel"].astype(np.float64) + w["bias"]


def flattened(x: Array) -> Array:
    return x.reshape(len(x), -1)


def embedding(w: Parts, x: Array) -> Array:
    return w["table"][x]


def batch_norm(w: Parts, x: Array) -> Array:
    x = x if x.shape[-1] == len(w["gamma"]) else flattened(x)
    return (x - w["mean"]) / np.sqrt(w["variance"].astype(np.float64) + EPSILON) * w["gamma"] + w["beta"]


def layer_norm(w: Parts, x: Array) -> Array:
    """Over the channels of each place, or over a whole flattened map."""
    x = x if x.shape[-1] == len(w["gamma"]) else flattened(x)
    return normalised(x, -1) * w["gamma"] + w["beta"]


def instance_norm(w: Parts, x: Array) -> Array:
    """Each channel over its places; where maps are flattened at each step, each of their elements over the steps."""
    x = x if x.shape[-1] == len(w["gamma"]) else x.reshape(*x.shape[:2], -1)
    return normalised(x, tuple(range(1, x.ndim - 1))) * w["gamma"] + w["beta"]


def normalised(x: Array, axes: int | tuple[int, ...]) -> Array:
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPSILON)


def prelu(w: Parts, x: Array) -> Array:
    return np.where(x > 0, x, x * w["alpha"])


def locally_connected(w: Parts, x: Array, size: tuple[int, ...]) -> Array:
    """A kernel of its own for each output position: X(WI)O or (YX)(HWI)O, kernels of ``size``."""
    kernel, bias = w["kernel"], w["bias"]
    out = np.zeros((len(x), *bias.shape))
    for number, at in enumerate(np.ndindex(*bias.shape[:-1])):
        window = tuple(slice(place, place + k) for place, k in zip(at, size, strict=True))
        out[(slice(None), *at)] = flattened(x[(slice(None), *window)]) @ kernel[number].astype(np.float64)
    return out + bias


def maxout(w: Parts, x: Array) -> Array:
    pieces = [flattened(x) @ kernel + bias for kernel, bias in zip(w["kernel"], w["bias"], strict=True)]
    return np.max(pieces, 0)


def highway(w: Parts, x: Array) -> Array:
    carry = sigmoid(x @ w["carry_kernel"] + w["carry_bias"])
    return carry * (x @ w["kernel"] + w["bias"]) + (1 - carry) * x


# --- recurrent layers: the state after the last step, or after each


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def hard_sigmoid(a: Array) -> Array:
    """The gate of Keras 1 and 2."""
    return np.clip(0.2 * a + 0.5, 0, 1)


Gate = Callable[[Array], Array]


def rnn(w: Parts, x: Array, gate: Gate = sigmoid) -> Array:
    h = np.zeros((len(x), w["recurrent_kernel"].shape[0]))
    bias = w.get("bias", np.zeros(1))
    bias = bias.sum(0) if bias.ndim == 2 else bias
    for t in range(x.shape[1]):
        h = np.tanh(flattened(x[:, t]) @ w["kernel"] + h @ w["recurrent_kernel"] + bias)
    return h


def lstm(w: Parts, x: Array, gate: Gate = sigmoid) -> Array:
    return lstm_states(w, x, gate)[:, -1]


def lstm_states(w: Parts, x: Array, gate: Gate = sigmoid) -> Array:
    """Gates i f c o; two biases are added up. Peepholes i f o: o looks at the cell as it is by then."""
    h = c = np.zeros((len(x), w["recurrent_kernel"].shape[0]))
    bias = w["bias"].reshape(-1, w["kernel"].shape[-1]).sum(0)
    to_i, to_f, to_o = np.split(w.get("peephole", np.zeros(3 * h.shape[-1])), 3)
    states = []
    for t in range(x.shape[1]):
        i, f, new, o = np.split(flattened(x[:, t]) @ w["kernel"] + h @ w["recurrent_kernel"] + bias, 4, -1)
        c, before = gate(f + to_f * c) * c, c
        c = c + gate(i + to_i * before) * np.tanh(new)
        h = gate(o + to_o * c) * np.tanh(c)
        states.append(h)
    return np.stack(states, 1)


def gru(w: Parts, x: Array, gate: Gate = sigmoid) -> Array:
    return gru_states(w, x, gate)[:, -1]


def gru_states(w: Parts, x: Array, gate: Gate = sigmoid) -> Array:
    """Gates z r h. With two biases the reset gate comes after the product with the state, else before it."""
    units = w["recurrent_kernel"].shape[0]
    h = np.zeros((len(x), units))
    after = w["bias"].ndim == 2
    given, state = w["bias"] if after else (w["bias"], np.zeros(3 * units))
    recurrent = np.split(w["recurrent_kernel"], 3, -1)
    states = []
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(flattened(x[:, t]) @ w["kernel"] + given, 3, -1)
        bz, br, bh = np.split(state, 3)
        z, r = gate(xz + h @ recurrent[0] + bz), gate(xr + h @ recurrent[1] + br)
        proposed = xh + (r * (h @ recurrent[2] + bh) if after else (r * h) @ recurrent[2])
        h = z * h + (1 - z) * np.tanh(proposed)
        states.append(h)
    return np.stack(states, 1)


def both_ways(layer: Callable[..., Array], w: Parts, x: Array) -> Array:
    """The last states of a layer run forwards and of one run backwards, side by side; weights by direction first."""
    forward, backward = ({part: array[k] for part, array in w.items()} for k in (0, 1))
    return np.concatenate([layer(forward, x), layer(backward, x[:, ::-1])], -1)


def conv_lstm(w: Parts, x: Array, gate: Gate = sigmoid) -> Array:
    """Maps keep their size: as many zeros before them as after, for an even kernel one more after."""
    h = c = np.zeros((*x.shape[:1], *x.shape[2:-1], w["bias"].shape[0] // 4))
    for t in range(x.shape[1]):
        given = correlated(padded(x[:, t], w["kernel"]), w["kernel"])
        state = correlated(padded(h, w["recurrent_kernel"]), w["recurrent_kernel"])
        i, f, new, o = np.split(given + state + w["bias"], 4, -1)
        c = gate(f) * c + gate(i) * np.tanh(new)
        h = gate(o) * np.tanh(c)
    return h


def padded(x: Array, kernel: Array) -> Array:
    around = [((k - 1) // 2, k // 2) for k in kernel.shape[:2]]
    return np.pad(x, [(0, 0), *around, (0, 0)])


LAYERS: dict[str, Callable[..., Array]] = {
    each.__name__: each
    for each in (
        conv, conv_transpose, depthwise, separable, dense, embedding, batch_norm, layer_norm, instance_norm, prelu,
        locally_connected, maxout, highway, rnn, lstm, gru, conv_lstm,
    )
}  # fmt: skip
