"""Infer: what is determined is recovered, whatever the names and layouts; what is not is called so, with the reason."""

from __future__ import annotations

import json
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
from wio.architectures.habit import load_habit
from wio.bundle import Bundle, Tensor
from wio.dtypes import dtype_of
from wio.inferring.infer import Inference, infer
from wio.inferring.learnt_dialect import Learnt, habit_text
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


@settings(max_examples=120, deadline=None)
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


def test_tensors_of_one_content_are_not_told_apart() -> None:
    bias, kernel = arrays(5), arrays(3, 3, 2, 5)
    known = [
        tensor("conv1/kernel", kernel, "conv.kernel", "HWIO"),
        tensor("conv1/bias", bias, "conv.bias", "O"),
        tensor("conv2/bias", bias, "conv.bias", "O"),
    ]
    relaid = known[0].to("OIHW").numpy()
    apart = found_in(known, [tensor("x", bias), tensor("y", relaid), tensor("z", bias)])
    assert [(m.b, m.role, m.determined) for m in apart.pairs] == [
        ("x", "conv.bias", False),
        ("y", "conv.kernel", True),
        ("z", "conv.bias", False),
    ]
    assert [(g.a, g.b) for g in apart.ambiguous] == [(("conv1/bias", "conv2/bias"), ("x", "z"))]
    beside = found_in(known, [tensor("second.b", bias), tensor("first.w", relaid), tensor("first.b", bias)])
    assert {m.b: (m.a, m.evidence, m.determined) for m in beside.pairs} == {
        "first.w": ("conv1/kernel", "content", True),
        "first.b": ("conv1/bias", "layer", False),
        "second.b": ("conv2/bias", "content", False),
    }


def test_tensors_of_one_content_that_cannot_be_each_other_are_told_apart() -> None:
    """The one array of B is the kernel and can be nothing else, for no layout brings it to the other's rows."""
    kernel = arrays(4, 6)
    known = [tensor("a1", kernel, "dense.kernel", "IO"), tensor("a2", kernel.reshape(3, 8), "dense.kernel", "IO")]
    found = found_in(known, [tensor("b1", kernel.reshape(3, 8).T.copy()), tensor("b2", kernel.T.copy())])
    assert [(m.a, m.b, m.determined) for m in found.pairs] == [("a2", "b1", True), ("a1", "b2", True)]


def test_what_only_one_can_be_the_others_are_not() -> None:
    """Either array could be ``map``, whose rows may run W H C; ``plain`` can be one of them only."""
    kernel = arrays(6, 5)
    known = [
        tensor("map", kernel, "dense.kernel", "(HWC)O H=2 W=3 C=1"),
        tensor("plain", kernel, "dense.kernel", "IO"),
    ]
    turned = known[0].to("(WHC)O H=2 W=3 C=1").numpy()
    found = found_in(known, [tensor("x", kernel.T.copy()), tensor("y", turned)])
    assert [(m.a, m.b, m.determined) for m in found.pairs] == [("plain", "x", True), ("map", "y", True)]
    # Were there a third that B lacks, either could be it.
    more = [*known, tensor("third", kernel, "dense.kernel", "(HWC)O H=2 W=3 C=1")]
    assert not any(m.determined for m in found_in(more, [tensor("x", kernel.T.copy()), tensor("y", turned)]).pairs)


def test_of_layouts_that_say_the_same_the_format_s_own_is_named() -> None:
    known = tensor("a", arrays(3, 3, 4, 1), "depthwise.kernel", "HWCM")
    unknown = [tensor("b", known.to("(CM)1HW").numpy())]
    for usual, said in ((adapter_named("torch").convention(), "(CM)1HW C=4 M=1"), (NO_CONVENTION, "CMHW")):
        (match,) = found_in([known], unknown, usual).pairs
        assert match.determined and list(map(str, match.layouts)) == [said]


def test_zeros_of_several_roles_in_one_layer_go_by_what_names_mean_elsewhere() -> None:
    def norm(name: str, seed: int, *, known: bool) -> list[Tensor]:
        zeros = np.zeros(6, np.float32)
        values = {"gamma": arrays(6, seed=seed), "beta": zeros if seed else arrays(6, seed=77), "mean": zeros}
        values["mean"] = zeros if seed else arrays(6, seed=78)
        spelled = {"gamma": "weight", "beta": "bias", "mean": "running_mean"}
        if known:
            return [tensor(f"{name}/{part}", v, f"batch_norm.{part}", "C") for part, v in values.items()]
        return [tensor(f"{name}.{spelled[part]}", v) for part, v in reversed(values.items())]

    known = [*norm("bn1", 0, known=True), *norm("bn2", 1, known=True)]
    found = found_in(known, [*norm("norms.1", 1, known=False), *norm("norms.0", 0, known=False)])
    assert {m.b: m.a for m in found.pairs} == {
        **{f"norms.0.{b}": f"bn1/{a}" for a, b in (("gamma", "weight"), ("beta", "bias"), ("mean", "running_mean"))},
        **{f"norms.1.{b}": f"bn2/{a}" for a, b in (("gamma", "weight"), ("beta", "bias"), ("mean", "running_mean"))},
    }
    assert {m.b for m in found.pairs if not m.determined} == {"norms.1.bias", "norms.1.running_mean"}


def test_values_in_an_order_that_no_layout_explains() -> None:
    shuffled = np.random.default_rng(4).permutation(SQUARE.reshape(-1)).reshape(SQUARE.shape)
    (match,) = found_in([tensor("a", SQUARE, "conv.kernel", "HWIO")], [tensor("b", shuffled)]).pairs
    assert not match.determined and match.layouts == () and "no layout of conv.kernel" in match.doubts[0]


def test_what_the_other_file_declares_of_itself_is_held_against_the_values() -> None:
    known = tensor("a", SQUARE, "conv.kernel", "HWIO")
    stored = known.to("OIHW").numpy()
    for layout, determined in (("OIHW", True), ("OIWH", False)):
        (match,) = found_in([known], [tensor("b", stored, "conv.kernel", layout)]).pairs
        assert match.determined is determined
    symmetric = tensor("a", SYMMETRIC, "conv.kernel", "HWIO")
    (match,) = found_in([symmetric], [tensor("b", symmetric.to("OIHW").numpy(), "conv.kernel", "OIHW")]).pairs
    assert match.determined and list(map(str, match.layouts)) == ["OIHW"]
    (match,) = found_in([known], [tensor("b", stored, "conv_transpose.kernel", "OIHW")]).pairs
    assert not match.determined and "its own file says it is conv_transpose.kernel" in match.doubts


def test_where_nothing_is_declared_only_the_order_of_axes_is_said() -> None:
    found = found_in([tensor("a", SQUARE)], [tensor("b", SQUARE.transpose(3, 2, 0, 1).copy())])
    (match,) = found.pairs
    assert (match.role, match.layouts, match.determined) == (None, (), False)
    assert match.orders == ("its axes in the order 3, 2, 0, 1",)


def network(seed: int) -> list[Tensor]:
    return [
        tensor("conv1/kernel", arrays(3, 3, 4, 8, seed=seed), "conv.kernel", "HWIO"),
        tensor("conv1/bias", arrays(8, seed=seed + 1), "conv.bias", "O"),
        tensor("conv2/kernel", arrays(3, 3, 8, 8, seed=seed + 2), "conv.kernel", "HWIO"),
        tensor("conv2/bias", arrays(8, seed=seed + 3), "conv.bias", "O"),
        tensor("bn/gamma", arrays(8, seed=seed + 4), "batch_norm.gamma", "C"),
        tensor("bn/beta", arrays(8, seed=seed + 5), "batch_norm.beta", "C"),
        tensor("fc/kernel", arrays(8, 10, seed=seed + 6), "dense.kernel", "IO"),
    ]


def test_structure_alone_proposes_and_determines_nothing() -> None:
    spelled = ["c1.w", "c1.b", "c2.w", "c2.b", "n.g", "n.b", "fc.w"]
    layouts = {"conv.kernel": "OIHW", "dense.kernel": "OI"}
    other = [
        tensor(name, each.to(layouts.get(str(each.role), str(each.layout))).numpy())
        for name, each in zip(spelled, network(100), strict=True)
    ]
    found = found_in(network(0), other, adapter_named("torch").convention())
    assert [(m.a, m.b) for m in found.pairs] == [(t.name, b) for t, b in zip(network(0), spelled, strict=True)]
    assert all(m.evidence == "structure" and m.as_json()["proposal"] and not m.determined for m in found.pairs)
    assert [str(m.layouts[0]) for m in found.pairs] == ["OIHW", "O", "OIHW", "O", "C", "C", "OI"]
    mixed = [network(0)[0], *other[1:]]
    some = found_in(network(0), [tensor("c1.w", mixed[0].numpy()), *mixed[1:]])
    assert ([m.evidence for m in some.pairs], len(some.unpaired_b)) == (["content"], 6)
    all_of_them = found_in(network(0), [tensor("c1.w", mixed[0].numpy()), *mixed[1:]], structure=True)
    assert [m.evidence for m in all_of_them.pairs] == ["content"] + ["structure"] * 6


# --- the command, and what it writes


def relaid(tmp_path: Path, layouts: dict[str, str], names: dict[str, str], **metadata: object) -> tuple[Path, Path]:
    """A declared file of a small network, and an .npz of its weights with other names and layouts."""
    weights = {
        "conv1/kernel": (arrays(3, 3, 4, 6), "conv.kernel", "HWIO"),
        "conv1/bias": (arrays(6, seed=1), "conv.bias", "O"),
        "conv2/kernel": (arrays(3, 3, 6, 5, seed=2), "conv.kernel", "HWIO"),
        "conv2/bias": (arrays(5, seed=3), "conv.bias", "O"),
        "fc/kernel": (arrays(2 * 2 * 5, 7, seed=4), "dense.kernel", "(HWC)O H=2 W=2 C=5"),
        "fc/bias": (arrays(7, seed=5), "dense.bias", "O"),
    }
    a = make(tmp_path / "a.wio", weights, **metadata)
    held = {n: tensor(n, v, role, layout) for n, (v, role, layout) in weights.items()}
    other = {names[n]: t.to(layouts[n]).numpy() if n in layouts else t.numpy() for n, t in held.items()}
    b = tmp_path / "b.npz"
    np.savez(b, **other)
    return a, b


NAMES = {
    "conv1/kernel": "first=w[0]",
    "conv1/bias": "first.b",
    "conv2/kernel": "zweite.w",
    "conv2/bias": "zweite.b",
    "fc/kernel": "last *",
    "fc/bias": "last?",
}
LAYOUTS = {"conv1/kernel": "OIHW flipped", "conv2/kernel": "IOWH", "fc/kernel": "O(CHW) C=5 H=2 W=2"}


def test_a_dialect_written_without_an_architecture_settles_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = relaid(tmp_path, LAYOUTS, NAMES)
    (tmp_path / "dialects").mkdir()
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    found = json.loads(run_wio("infer", a, b, "--json", "-o", tmp_path / "dialects" / "learnt.toml").stdout)
    assert found["determined"] is True
    assert {p["a"]: p["b"] for p in found["pairs"]} == NAMES
    assert "sound" in run_wio("registry", "check", tmp_path / "dialects" / "learnt.toml").stderr
    run_wio("diff", a, b, "--match", "values", code=1)
    run_wio("diff", a, b, "--match", "values", "--dialect", "learnt")


def dialect_of(tmp_path: Path, known: list[Tensor], unknown: list[Tensor], usual: Convention) -> tuple[str, Bundle]:
    """The text of the dialect that is learnt, and the unknown file as it is read with it."""
    b = Bundle(unknown)
    text = habit_text(Learnt(infer(Bundle(known), b, usual), b, "torch", usual, ("a.wio", "b.pt")), "learnt")
    path = tmp_path / "learnt.toml"
    path.write_text(text)
    return text, load_habit(path).declare(b, usual)


def test_an_undetermined_layout_is_left_to_the_format_with_a_comment(tmp_path: Path) -> None:
    known = tensor("c/kernel", SYMMETRIC, "conv.kernel", "HWIO")
    unknown = tensor("c.weight", known.to("OIWH").numpy())
    comment = "# undetermined: H = W and the kernel is symmetric: OIHW or OIWH"
    text, read = dialect_of(tmp_path, [known], [unknown], adapter_named("torch").convention())
    assert f'  {comment}\n  ["c.weight", "conv.kernel", "HWIO"],' in text
    assert str(read["c.weight"].layout) == "OIHW"
    text, read = dialect_of(tmp_path, [known], [unknown], NO_CONVENTION)
    assert f"  {comment}\n  # not declared: c.weight is conv.kernel" in text
    assert read["c.weight"].role is None
    # Of a format whose usual layout does not fit, nothing is left to it.
    text, read = dialect_of(tmp_path, [known], [unknown], Convention.of({"conv.kernel": ("HWIO",)}))
    assert read["c.weight"].role is None


def test_a_dialect_from_structure_says_that_it_is_a_proposal(tmp_path: Path) -> None:
    other = [tensor(f"t.{k}", each.numpy()) for k, each in enumerate(network(50))]
    text, read = dialect_of(tmp_path, network(0), other, Convention.of({"conv.kernel": ("HWIO",)}))
    assert "7 A PROPOSAL from order and shapes" in text
    assert text.count("# proposal: ") == 7 and "undetermined" not in text
    assert (read["t.0"].role, str(read["t.0"].layout)) == ("conv.kernel", "HWIO")


def test_what_names_hold_stays_text(tmp_path: Path) -> None:
    """A name may hold anything; in the file it is quoted, in comments escaped."""
    names = ['a"b\nrules = 1', "x\x7f[*]?", "\u202etxt"]
    known = [tensor(f"l{k}", arrays(4, seed=k), "conv.bias", "O") for k in range(3)]
    unknown = [tensor(name, arrays(4, seed=k)) for k, name in enumerate(names)]
    lonely = tensor("evil\nid = 2", arrays(9))
    _, read = dialect_of(tmp_path, known, [*unknown, lonely], NO_CONVENTION)
    assert [t.role for t in read.values()] == ["conv.bias"] * 3 + [None]


def test_the_declarations_printed_settle_the_file(tmp_path: Path) -> None:
    a, b = relaid(tmp_path, LAYOUTS, NAMES)
    declared = json.loads(run_wio("infer", a, b, "--json").stdout)["declare"]
    assert len(declared) == 6
    told = [word for text in declared for word in ("--declare", text)]
    run_wio("diff", a, b, "--match", "values", *told)
    run_wio("diff", a, b, "--match", "values", *(word.replace("OIHW flipped", "OIHW") for word in told), code=1)


ARCHITECTURE = """
id = "small"

[network]
layers = [
  ["image", "Input", [], { axes = "HWC", sizes = [4, 4, 4] }],
  ["conv1", "Conv", "image", { filters = 6, kernel_shape = [3, 3], auto_pad = "SAME_UPPER" }],
  ["conv2", "Conv", "conv1", { filters = 5, kernel_shape = [3, 3], auto_pad = "SAME_UPPER" }],
  ["pool", "MaxPool", "conv2", { kernel_shape = [2, 2], strides = [2, 2] }],
  ["flat", "Flatten", "pool"],
  ["fc", "Gemm", "flat", { units = 7 }],
]

[dialects.own]
adapters = ["safetensors"]
title = "as the architecture has it"
source = "this test"
verified = "by this test"
layers = "{layer}"
weights = { "Conv.kernel" = "kernel", "Conv.bias" = "bias", "Gemm.kernel" = "kernel", "Gemm.bias" = "bias" }
"""
PARTS = {"kernel": "weight", "bias": "bias"}


@pytest.mark.parametrize(
    ("spelled", "written"),
    [
        ({"conv1": "net.conv1", "conv2": "net.conv2", "fc": "net.fc"}, 'layers = "net.{layer}"'),
        ({"conv1": "c-1", "conv2": "c-2", "fc": "out"}, '"Conv" = "c-{k}"'),
        ({"conv1": "stem", "conv2": "body", "fc": "head"}, '["conv1", "stem"]'),
        (None, '"conv1/kernel" = "0"'),
    ],
)
def test_a_dialect_of_an_architecture_names_every_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: dict[str, str] | None, written: str
) -> None:
    names = {
        name: str(k) if spelled is None else f"{spelled[name.partition('/')[0]]}.{PARTS[name.partition('/')[2]]}"
        for k, name in enumerate(NAMES)
    }
    layouts = {"conv1/kernel": "OIHW", "conv2/kernel": "OIHW", "fc/kernel": "O(CHW) C=5 H=2 W=2"}
    a, b = relaid(tmp_path, layouts, names, architecture="small")
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    file = tmp_path / "small.toml"
    file.write_text(ARCHITECTURE)
    run_wio("infer", a, b, "--arch", "small", "-o", tmp_path / "dialect.txt")
    section = (tmp_path / "dialect.txt").read_text()
    assert written in section
    run_wio("diff", a, b, "--arch", "small", code=2)
    file.write_text(ARCHITECTURE + "\n" + section)
    run_wio("registry", "check", file)
    run_wio("diff", a, b, "--arch", "small")


def test_exit_codes(tmp_path: Path) -> None:
    a, b = relaid(tmp_path, LAYOUTS, NAMES)
    shown = run_wio("infer", a, b).stdout
    assert "determined: 6 of 6" in shown and "--declare 'first?w[[]0]=conv.kernel:OIHW flipped'" in shown
    reversed_ = run_wio("infer", b, a, "-o", tmp_path / "none.toml", code=1)
    assert "B is declared: give it first" in reversed_.stderr and not (tmp_path / "none.toml").exists()
    np.savez(tmp_path / "more.npz", **np.load(b), extra=arrays(3))
    assert "only in B: extra" in run_wio("infer", a, tmp_path / "more.npz", code=1).stdout
    run_wio("infer", a, tmp_path / "missing.npz", code=2)
