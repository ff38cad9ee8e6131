"""A layer for each row of a convention: random weights, neutral and as the row has them, and what must come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import layer_reference
import numpy as np

from wio.bundle import Tensor
from wio.dtypes import DTYPES
from wio.layout import Layout
from wio.roles import PER_CHANNEL, neutral, same_axes

Array = np.ndarray[Any, Any]
Layouts = Mapping[str, tuple[Layout, ...]]

PARTS = {
    "conv": ("kernel", "bias"),
    "conv_transpose": ("kernel", "bias"),
    "depthwise": ("kernel", "bias"),
    "separable": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "dense": ("kernel", "bias"),
    "embedding": ("table",),
    **{kind: tuple(r.partition(".")[2] for r in PER_CHANNEL if r.startswith(kind)) for kind in
       ("batch_norm", "layer_norm", "instance_norm")},
    "prelu": ("alpha",),
    "locally_connected": ("kernel", "bias"),
    "maxout": ("kernel", "bias"),
    "highway": ("kernel", "bias", "carry_kernel", "carry_bias"),
    **dict.fromkeys(
        ("rnn", "lstm", "gru", "conv_lstm"), ("kernel", "recurrent_kernel", "bias", "input_bias", "recurrent_bias")
    ),
}  # fmt: skip
DISTINCT = {
    "D": 2,
    "H": 3,
    "W": 4,
    "O": 5,
    "I": 6,
    "C": 7,
    "M": 2,
    "U": 5,
    "G": 8,
    "Y": 8,
    "X": 9,
    "B": 2,
    "F": 2,
    "?": 11,
}
# Of equal lengths the shapes say nothing: only the values can tell.
EQUAL = {**dict.fromkeys("DHWOICMUGYX?", 3), "B": 2, "F": 2}
SIZES = {"distinct": DISTINCT, "equal": EQUAL}
BATCH, STEPS = 2, 3


@dataclass(frozen=True)
class Case:
    """``weights`` and ``layouts`` by part, as a format has them; ``space`` holds the letters of a convolution's space,
    ``flat`` those of the map that is flattened, in the format's order; ``y`` is what must come out."""

    kind: str
    weights: Mapping[str, Array]
    layouts: Mapping[str, Layout]
    x: Array
    y: Array = field(repr=False)
    space: str = ""
    flat: str = ""
    groups: int = 1
    size: tuple[int, ...] = ()

    def in_neutral_order(self, y: Array) -> Array:
        """What a normalisation gives out of a map that the framework flattened in its own order, channels last."""
        if not self.flat or self.kind not in ("batch_norm", "layer_norm", "instance_norm"):
            return y
        letters = "".join(letter for letter in "DHW" if letter in self.flat) + "C"
        lengths = dict(zip(letters, self.x.shape[-len(letters) :], strict=True))
        apart = y.reshape(*y.shape[:-1], *(lengths[letter] for letter in self.flat))
        lead = list(range(y.ndim - 1))
        return apart.transpose(*lead, *(len(lead) + self.flat.index(letter) for letter in letters)).reshape(y.shape)


def case_of(role: str, row: Layout, table: Layouts, sizes: Mapping[str, int]) -> Case:
    """A layer that has a weight of this role in this layout, its other weights as the same table has them."""
    kind, _, part = role.partition(".")
    wanted = _neutral_parts(kind, part, neutral(role, row), table)
    main = wanted[PARTS[kind][0]]
    groups = sizes["G"] if kind in ("conv", "conv_transpose") and "G" in main.letters else 1
    extents = {name: _extents(kind, name, layout, sizes, groups) for name, layout in wanted.items()}
    neutral_weights = {
        name: _random(f"{kind}.{name}", [_extent(axis, extents[name]) for axis in layout.axes])
        for name, layout in wanted.items()
    }
    stored, layouts = {}, {}
    for name, layout in wanted.items():
        target = row if name == part else same_axes(layout, table[f"{kind}.{name}"])
        assert target is not None, f"{kind}.{name} {layout} has no row"
        tensor = _tensor(f"{kind}.{name}", neutral_weights[name], layout.with_sizes(extents[name])).to(target)
        assert tensor.layout is not None
        stored[name], layouts[name] = tensor.numpy(), tensor.layout
    space = "".join(letter for letter in "DHW" if letter in main.axes)
    flat = next((axis for each in layouts.values() for axis in each.axes if len(axis) > 1 and "C" in axis), "")
    flat = "" if "M" in flat else flat
    size = tuple(sizes[letter] for letter in ("HW" if "Y" in main.letters else "W"))
    x = _input(kind, main, space, flat, groups, sizes)
    told: dict[str, Any] = {}
    if kind in ("conv", "conv_transpose"):
        told["groups"] = groups
    if kind == "conv_transpose":
        told["stride"] = 2
    if kind == "locally_connected":
        told["size"] = size
    layer = layer_reference.LAYERS[kind]
    if {"input_bias", "recurrent_bias"} <= neutral_weights.keys():
        pair = [neutral_weights.pop(name) for name in ("input_bias", "recurrent_bias")]
        neutral_weights["bias"] = np.stack(pair)
    y = (
        layer_reference.both_ways(layer, neutral_weights, x)
        if "F" in main.letters
        else layer(neutral_weights, x, **told)
    )
    return Case(kind, stored, layouts, x, y, space, flat, groups, size)


def _neutral_parts(kind: str, part: str, row: Layout, table: Layouts) -> dict[str, Layout]:
    """The neutral layout of every weight of the layer, after that of the one at hand."""
    found = {p: neutral(f"{kind}.{p}", table[f"{kind}.{p}"][0]) for p in PARTS[kind] if f"{kind}.{p}" in table}
    if "F" in row.letters:
        alike = {p: [each for each in table[f"{kind}.{p}"] if "F" in each.letters] for p in found}
        found = {p: neutral(f"{kind}.{p}", layouts[0]) for p, layouts in alike.items()}
    if f"{kind}.{PARTS[kind][0]}" in PER_CHANNEL:
        return dict.fromkeys(found, row)
    if kind == "separable" and part != "bias":
        letters = row.spatial
        found |= {"depthwise_kernel": Layout.parse(f"{letters}CM"), "pointwise_kernel": Layout.parse(f"{letters}IO")}
    if kind == "locally_connected":
        one = "Y" not in row.letters
        found |= {
            "kernel": Layout.parse("X(WI)O" if one else "(YX)(HWI)O"),
            "bias": Layout.parse("XO" if one else "YXO"),
        }
    return {**found, part: row}


def _extents(kind: str, part: str, layout: Layout, sizes: Mapping[str, int], groups: int) -> dict[str, int]:
    found = dict(sizes)
    if layout.gates:
        found["G"] = len(layout.gates)
    if part == "recurrent_kernel":
        found["I"] = sizes["O"] if kind == "conv_lstm" else sizes["U"]
    if kind == "highway":
        found["O"] = sizes["I"]
    if part == "pointwise_kernel":
        found |= {"I": sizes["C"] * sizes["M"], **dict.fromkeys("DHW", 1)}
    if part == "bias" and kind == "depthwise":
        found["O"] = sizes["C"] * sizes["M"]
    if part == "bias" and kind in ("conv", "conv_transpose"):
        found["O"] = sizes["O"] * groups
    return found


def _extent(axis: str, extents: Mapping[str, int]) -> int:
    return int(np.prod([1 if letter == "1" else extents[letter] for letter in axis]))


def _random(name: str, shape: list[int]) -> Array:
    generator = np.random.default_rng([len(name), *name.encode(), *shape])
    low = 0.5 if name.endswith("variance") else -0.6
    return generator.uniform(low, low + 1.2, shape).astype(np.float32)


def _tensor(role: str, array: Array, layout: Layout) -> Tensor:
    return Tensor(role, DTYPES["float32"], array.shape, lambda: array, role).declared(role, layout)


def _input(kind: str, main: Layout, space: str, flat: str, groups: int, sizes: Mapping[str, int]) -> Array:
    generator = np.random.default_rng(len(kind))
    if kind == "embedding":
        found: Array = generator.integers(0, sizes["I"], (BATCH, 4))
        return found
    return generator.uniform(-1, 1, (BATCH, *_features(kind, main, space, flat, groups, sizes))).astype(np.float32)


def _features(kind: str, main: Layout, space: str, flat: str, groups: int, sizes: Mapping[str, int]) -> Iterator[int]:
    steps = [STEPS] if kind in ("rnn", "lstm", "gru", "conv_lstm") else []
    if flat:
        letters = [letter for letter in "DHW" if letter in flat]
        yield from [STEPS] if kind == "instance_norm" else steps
        yield from (sizes[letter] for letter in letters)
        yield sizes["C"]
    elif kind == "prelu":
        for place, axis in enumerate(main.axes):
            yield sizes[axis] if axis != "1" else place + 2
    elif kind in ("batch_norm", "layer_norm", "instance_norm"):
        yield from (3, 4)
        yield sizes[main.axes[0]]
    elif kind == "locally_connected":
        pairs = ("YH", "XW") if "Y" in main.letters else ("XW",)
        yield from (sizes[out] + sizes[k] - 1 for out, k in pairs)
        yield sizes["I"]
    elif space:
        yield from steps
        yield from (sizes[letter] + 1 + place for place, letter in enumerate(space))
        yield sizes["C"] if kind in ("depthwise", "separable") else sizes["I"] * groups
    else:
        yield from steps
        yield sizes["?"] if "?" in main.letters else sizes["I"]
