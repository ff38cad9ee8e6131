"""Infer: what is determined is recovered, whatever the names and layouts; what is not is called so, with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from conftest import run_wio
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import arrays, make

from wio.adapter import Convention
from wio.bundle import Bundle, Tensor
from wio.dtypes import dtype_of
from wio.infer import Inference, infer
from wio.layout import Layout
from wio.plugins import adapter_named

KINDS = (
    ("conv.kernel", ("W", "I", "O")),
    ("conv.kernel", ("H", "W", "I", "O")),
    ("conv.kernel", ("D", "H", "W", "I", "O")),
    ("conv.kernel", ("H", "W", "I", "GO")),
    ("conv_transpose.kernel", ("H", "W", "O", "I")),
    ("depthwise.kernel", ("H", "W", "C", "M")),
    ("dense.kernel", ("I", "O")),
    ("dense.kernel", ("HWC", "O")),
    ("lstm.kernel", ("I", "GU")),
    ("lstm.bias", ("GU",)),
    ("gru.recurrent_kernel", ("I", "GU")),
    ("conv.bias", ("O",)),
    ("batch_norm.gamma", ("C",)),
)
CONTENTS = ("distinct", "distinct", "distinct", "symmetric", "mirrored", "two gates alike", "few values", "constant")
NO_CONVENTION = Convention({})


@dataclass(frozen=True)
class Weight:
    """A weight by letters: ``values`` has one axis for each letter of ``letters``."""

    role: str
    groups: tuple[str, ...]
    gates: str | None
    values: np.ndarray

    @property
    def letters(self) -> str:
        return "".join(self.groups)

    def stored(self, layout: Layout) -> np.ndarray:
        """The array of a layout, by NumPy alone: what wio is judged by."""
        array, letters = self.values, self.letters
        if layout.flipped:
            array = np.flip(array, [letters.index(c) for c in letters if c in "DHW"])
        if self.gates and layout.gates:
            array = array.take([self.gates.index(g) for g in layout.gates], letters.index("G"))
        order = [letters.index(c) for c in "".join(layout.axes) if c != "1"]
        shape = [
            int(np.prod([array.shape[letters.index(c)] for c in axis if c != "1"], dtype=int)) for axis in layout.axes
        ]
        return np.ascontiguousarray(array.transpose(order).reshape(shape))

    def layout(self, axes: tuple[str, ...], flipped: bool, gates: str | None) -> Layout:
        extents = dict(zip(self.letters, self.values.shape, strict=True))
        sizes = {c: extents[c] for axis in axes if len(axis) > 1 for c in axis if not (c == "G" and gates)}
        return Layout(axes, flipped, None, tuple(sizes.items()), gates)

    def layouts(self, units: int) -> Iterator[Layout]:
        """Every layout of this weight with so many unit axes."""
        free = all(axis in "DHW" for axis in self.groups if set(axis) & set("DHW"))
        turns = (False, True) if free and set("DHW") & set(self.letters) else (False,)
        for order in permutations([*self.groups, *"1" * units]):
            for inner in product(*(map("".join, permutations(group)) for group in order)):
                for flipped in turns:
                    for gates in permutations(self.gates) if self.gates else (None,):
                        yield self.layout(inner, flipped, None if gates is None else "".join(gates))

    def explanations(self, array: np.ndarray, units: int) -> int:
        """How many rearrangements that move values otherwise make this weight that array."""
        labels = Weight(self.role, self.groups, self.gates, np.arange(self.values.size).reshape(self.values.shape))
        found = {
            labels.stored(layout).tobytes()
            for layout in self.layouts(units)
            if np.array_equal(self.stored(layout), array)
        }
        return len(found)


@st.composite
def weights(draw: st.DrawFn) -> Weight:
    role, groups = draw(st.sampled_from(KINDS))
    letters = "".join(groups)
    # Equal extents are where shapes do not tell axes apart, and those of 1 where nothing does.
    size = st.sampled_from([1, 2, 2, 3, 3] if len(letters) > 4 else [1, 2, 2, 3, 3, 4])
    gates = {"lstm": "ifco", "gru": "zrh"}.get(role.partition(".")[0])
    shape = [len(gates) if gates and letter == "G" else draw(size) for letter in letters]
    content = draw(st.sampled_from(CONTENTS))
    if content == "symmetric" and {"H", "W"} <= set(letters):
        shape[letters.index("W")] = shape[letters.index("H")]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.standard_normal(shape).astype(np.float32)
    if content == "symmetric" and {"H", "W"} <= set(letters):
        values = values + values.swapaxes(letters.index("H"), letters.index("W"))
    elif content == "mirrored" and set(letters) & set("DHW"):
        values = values + np.flip(values, [k for k, c in enumerate(letters) if c in "DHW"])
    elif content == "two gates alike" and gates:
        first, second = draw(st.permutations(range(len(gates))))[:2]
        moved = np.moveaxis(values, letters.index("G"), 0)
        moved[first] = moved[second]
    elif content == "few values":
        values = rng.integers(0, 2, shape).astype(np.float32)
    elif content == "constant":
        values = np.full(shape, rng.standard_normal(), np.float32)
    return Weight(role, groups, gates, values)


@st.composite
def arrangement(draw: st.DrawFn, weight: Weight, units: int) -> Layout:
    order = draw(st.permutations([*weight.groups, *"1" * units]))
    axes = tuple("".join(draw(st.permutations(axis))) for axis in order)
    spatial = [axis for axis in axes if set(axis) & set("DHW")]
    flipped = bool(spatial) and all(len(axis) == 1 for axis in spatial) and draw(st.booleans())
    return weight.layout(axes, flipped, "".join(draw(st.permutations(weight.gates))) if weight.gates else None)


def tensor(name: str, array: np.ndarray, role: str | None = None, layout: Layout | str | None = None) -> Tensor:
    parsed = Layout.parse(layout) if isinstance(layout, str) else layout
    return Tensor(name, dtype_of(array), array.shape, lambda: array, role, parsed)


def found_in(a: list[Tensor], b: list[Tensor], usual: Convention = NO_CONVENTION, **options: bool) -> Inference:
    return infer(Bundle(a), Bundle(b), usual, **options)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_determined_is_recovered_and_the_rest_called_undetermined(data: st.DataObject) -> None:
    drawn = data.draw(st.lists(weights(), min_size=1, max_size=5))
    known, unknown, truth = [], [], {}
    names = data.draw(st.permutations([f"t{k}" for k in range(len(drawn))]))
    for k, (weight, name) in enumerate(zip(drawn, names, strict=True)):
        units = data.draw(st.integers(0, 1)) if len(weight.groups) < 5 else 0
        mine, theirs = (data.draw(arrangement(weight, each)) for each in (0, units))
        known.append(tensor(f"layer{k}/{weight.role}", weight.stored(mine), weight.role, mine))
        unknown.append(tensor(name, weight.stored(theirs)))
        truth[name] = k, weight, weight.explanations(weight.stored(theirs), units)
    unknown = data.draw(st.permutations(unknown))
    usual = data.draw(st.sampled_from([NO_CONVENTION, adapter_named("torch").convention()]))
    found = found_in(known, unknown, usual)

    contents = [(each.size, tuple(np.sort(each.numpy().reshape(-1)))) for each in known]
    held = {each.name: each for each in (*known, *unknown)}
    paired = {match.b: match for match in found.pairs}
    for name, (k, weight, explanations) in truth.items():
        alone = contents.count(contents[k]) == 1
        constant = len(set(contents[k][1])) == 1
        match = paired.get(name)
        if match is None:
            assert not alone and name in found.unpaired_b
            continue
        for layout in match.layouts:
            assert np.array_equal(held[match.a].to(layout).numpy(), held[name].numpy())
        if alone:
            assert (match.a, match.role) == (known[k].name, weight.role)
            assert len(match.layouts) == min(explanations, 8)
            assert match.determined is (not constant and explanations == 1)
        if match.determined:
            # Where two tensors of one content are told apart, it is because neither can be the other.
            assert weight.explanations(held[name].numpy(), held[name].numpy().ndim - len(weight.groups)) == 1
            assert match.a == known[k].name
        else:
            assert match.doubts and all(match.doubts)


SQUARE = arrays(3, 3, 4, 5)
SYMMETRIC = SQUARE + SQUARE.transpose(1, 0, 2, 3)


@pytest.mark.parametrize(
    ("role", "layout", "array", "stored", "reason"),
    [
        ("conv.kernel", "HWIO", SYMMETRIC, "OIHW", "H = W and the kernel is symmetric"),
        ("conv.kernel", "HWIO", SQUARE + SQUARE[::-1, ::-1], "OIHW", "the kernel is the same backwards"),
        ("conv.kernel", "HWIO", np.full((3, 3, 4, 5), 7, np.float32), "OIHW", "all values are equal"),
        ("dense.kernel", "IO", arrays(4, 4) + arrays(4, 4).T, "OI", "I = O and the kernel is symmetric"),
        (
            "lstm.kernel",
            "I(GU) G=ifco U=3",
            np.concatenate([arrays(2, 3), arrays(2, 6, seed=1), arrays(2, 3)], axis=1),
            "(GU)I G=iofc U=3",
            "the gates i, o hold the same values",
        ),
    ],
)
def test_the_reason_is_named(role: str, layout: str, array: np.ndarray, stored: str, reason: str) -> None:
    known = tensor("a", array, role, layout)
    (match,) = found_in([known], [tensor("b", known.to(stored).numpy())]).pairs
    assert not match.determined
    assert reason in "; ".join(match.doubts)
    assert len(match.layouts) > 1


@pytest.mark.parametrize(
    ("role", "layout", "shape", "stored"),
    [
        ("dense.kernel", "(HWC)O H=2 W=2 C=2", (8, 5), "O(CHW) C=2 H=2 W=2"),
        ("depthwise.kernel", "HWCM", (3, 3, 4, 2), "(CM)1HW C=4 M=2"),
        ("conv.kernel", "HWI(GO) G=2 O=3", (3, 3, 4, 6), "(GO)IHW G=2 O=3"),
        ("lstm.kernel", "I(GU) G=ifco U=3", (5, 12), "1(GU)I G=iofc U=3"),
        ("gru.bias", "B(GU) G=zrh U=3", (2, 9), "(BGU) G=rzh B=2 U=3"),
        ("dense.kernel", "(?)O", (8, 8), "O(?)"),
        ("conv.kernel", "HWIO flipped", (3, 3, 4, 5), "OIHW"),
    ],
)
def test_a_layout_that_shapes_do_not_tell(role: str, layout: str, shape: tuple[int, ...], stored: str) -> None:
    known = tensor("a", arrays(*shape), role, layout)
    (match,) = found_in([known], [tensor("b", known.to(stored).numpy())]).pairs
    assert match.determined
    assert list(map(str, match.layouts)) == [str(known.to(stored).layout)]


def test_gates_that_the_other_keeps_apart() -> None:
    known = tensor("lstm/kernel", arrays(5, 12), "lstm.kernel", "I(GU) G=ifco U=3")
    parts = np.split(known.numpy(), 4, axis=1)
    found = found_in([known], [tensor(f"w{k}", np.ascontiguousarray(parts[k])) for k in (2, 0, 3, 1)])
    assert [(m.a, m.b, str(m.layouts[0])) for m in found.pairs] == [
        ("lstm/kernel[c]", "w2", "I(GU) U=3 G=c"),
        ("lstm/kernel[i]", "w0", "I(GU) U=3 G=i"),
        ("lstm/kernel[o]", "w3", "I(GU) U=3 G=o"),
        ("lstm/kernel[f]", "w1", "I(GU) U=3 G=f"),
    ]
    assert found.determined
