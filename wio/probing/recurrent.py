"""Readings of recurrent kernels: the order of the gates, which axis goes in, and the variant of the layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations, product

from wio.layout import Layout
from wio.lazy import Array, np
from wio.probing.reading import Reading, Recording

GATES = {"lstm": "ifco", "gru": "zrh", "rnn": ""}
MOST_SEQUENCES, MOST_STEPS = 16, 64
_RESETS = ("reset before the product", "reset after the product")


def recurrent_readings(
    kind: str, kernel: Array, again: Array, bias: Array | None, recording: Recording
) -> Iterator[Reading]:
    """Every order of gates under which the kernels take the recorded sequences to the recorded states.

    The input is N T I; the output every state, N T U, or the last one, N U. Recurrent activations tried: the logistic
    sigmoid, and the piecewise linear one that Keras calls ``hard_sigmoid`` and used by default before 2.3.
    """
    given, recorded = recording.given, recording.recorded
    if given.ndim != 3 or recorded.ndim not in (2, 3) or kernel.ndim != 2 or again.ndim != 2:
        return
    given, recorded = given[:MOST_SEQUENCES], recorded[:MOST_SEQUENCES]
    if recorded.ndim == 3:
        given, recorded = given[:, :MOST_STEPS], recorded[:, :MOST_STEPS]
    units, count = recorded.shape[-1], max(len(GATES[kind]), 1)
    wide = units * count
    wanted = recorded.reshape(-1, units)
    for order, kernel_in, again_in in product(permutations(GATES[kind]), (True, False), (True, False)):
        inner = kernel if kernel_in else kernel.T
        outer = again if again_in else again.T
        if inner.shape != (given.shape[-1], wide) or outer.shape != (units, wide):
            continue
        for variant, gate in product(_RESETS if kind == "gru" else ("",), ("sigmoid", "hard_sigmoid")):
            if kind == "rnn" and gate != "sigmoid":
                continue
            biases = _biases(bias, wide, two=variant != _RESETS[0])
            if biases is None:
                continue
            gates = "".join(order)
            says = {"recurrent kernel": _axes("I", kind, again_in), "recurrent activation": gate, "variant": variant}
            if kind == "rnn":
                says = {"recurrent kernel": says["recurrent kernel"]}
            elif kind == "lstm":
                del says["variant"]
            axes = ("I", "GU" if gates else "U")
            layout = Layout(axes if kernel_in else axes[::-1], gates=gates or None)
            run = _run(kind, gates, given, inner, outer, biases, variant == _RESETS[1], gate, recorded.ndim == 3)
            yield Reading(kind, layout, says, wanted, run, with_bias=True)


def _axes(row: str, kind: str, first: bool) -> str:
    column = "(GU)" if GATES[kind] else "U"
    return row + column if first else column + row


def _biases(bias: Array | None, wide: int, *, two: bool) -> tuple[Array, Array] | None:
    """The biases added to the input's and to the state's product; None for two where the variant has one."""
    if bias is None:
        return np.zeros(wide), np.zeros(wide)
    if bias.size == wide:
        return bias.reshape(-1), np.zeros(wide)
    if bias.size == 2 * wide:
        pair = bias.reshape(2, wide)
        return (pair[0], pair[1]) if two else None
    return None


def _run(
    kind: str,
    order: str,
    given: Array,
    kernel: Array,
    again: Array,
    biases: tuple[Array, Array],
    after: bool,
    gate: str,
    every: bool,
) -> Callable[[], Array]:
    def predict() -> Array:

        units = again.shape[0]
        state: Array = np.zeros((len(given), units))
        cell: Array = np.zeros((len(given), units))
        states = []
        place = {letter: slice(k * units, (k + 1) * units) for k, letter in enumerate(order)}
        for step in range(given.shape[1]):
            x = given[:, step] @ kernel + biases[0]
            if kind == "rnn":
                state = np.tanh(x + state @ again + biases[1])
            elif kind == "lstm":
                x = x + state @ again + biases[1]
                i, f, o = (_gate(x[:, place[letter]], gate) for letter in "ifo")
                cell = f * cell + i * np.tanh(x[:, place["c"]])
                state = o * np.tanh(cell)
            else:
                h = state @ again + biases[1]
                z, r = (_gate(x[:, place[letter]] + h[:, place[letter]], gate) for letter in "zr")
                if after:
                    candidate = np.tanh(x[:, place["h"]] + r * h[:, place["h"]])
                else:
                    candidate = np.tanh(x[:, place["h"]] + (r * state) @ again[:, place["h"]] + biases[1][place["h"]])
                state = z * state + (1 - z) * candidate
            states.append(state)
        return np.stack(states, axis=1).reshape(-1, units) if every else state

    return predict


def _gate(values: Array, gate: str) -> Array:
    if gate == "hard_sigmoid":
        return np.clip(0.2 * values + 0.5, 0, 1)
    result: Array = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return result
