"""Layouts: what their text means, which are refused, and what a shape can say against them."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from layout_reference import axes_of, gates_of, shape_of, values_of
from layout_strategies import Axes, texts

from wio.errors import LayoutError
from wio.layout import LETTERS, Layout, ungrouped
from wio.roles import NOT_WEIGHTS, ROLES, check_role, neutral, neutral_layouts, same_axes


@given(texts())
@example(("()", Axes({}, None)))
@example(("(?)O", Axes({"?": 4, "O": 2}, None)))
def test_a_layout_is_its_text(case: tuple[str, Axes]) -> None:
    text, _ = case
    layout = Layout.parse(text)
    assert str(layout) == text
    assert layout.as_json() == text
    assert Layout.parse(str(layout)) == layout
    assert hash(Layout.parse(str(layout))) == hash(layout)
    assert pickle.loads(pickle.dumps(layout)) == layout


@given(texts())
def test_the_parts_of_a_layout(case: tuple[str, Axes]) -> None:
    text, _ = case
    layout = Layout.parse(text)
    assert list(layout.axes) == axes_of(text)
    assert layout.rank == len(axes_of(text))
    assert (list(layout.values) if layout.values else None) == values_of(text)
    assert layout.gates == gates_of(text)
    assert layout.flipped == (" flipped" in text)


@given(texts(), st.randoms(use_true_random=False))
def test_words_may_stand_in_any_order(case: tuple[str, Axes], random: object) -> None:
    first, *words = case[0].split(" ")
    random.shuffle(words)  # type: ignore[attr-defined]
    assert str(Layout.parse("  ".join([first, *words]) + " ")) == case[0]


@given(texts())
def test_a_shape_never_refutes_the_layout_it_comes_from(case: tuple[str, Axes]) -> None:
    text, axes = case
    layout = Layout.parse(text)
    shape = shape_of(text, axes.extents)
    assert layout.check(shape) is None
    found = layout.extents(shape)
    assert {letter: axes.extents[letter] for letter in found} == found
    assert layout.with_sizes(axes.extents).extents(shape) == axes.extents


@given(texts(), st.data())
def test_what_a_shape_refutes_is_arithmetic(case: tuple[str, Axes], data: st.DataObject) -> None:
    """Against the definition, axis by axis: no letters, sizes or ranks are special."""
    text, axes = case
    layout = Layout.parse(text)
    shape = list(shape_of(text, axes.extents))
    if shape:
        place = data.draw(st.integers(0, len(shape) - 1))
        shape[place] = data.draw(st.integers(0, 30))
    sizes = {letter: size for letter in layout.letters if (size := layout.size(letter)) is not None}
    fits = all(_fits(axis, extent, sizes) for axis, extent in zip(layout.axes, shape, strict=True))
    assert (layout.check(shape) is None) == fits
    assert layout.check([*shape, 1]) is not None


def _fits(axis: str, extent: int, sizes: dict[str, int]) -> bool:
    if axis == "1":
        return extent == 1
    known = math.prod(sizes.get(letter, 1) for letter in axis)
    if all(letter in sizes for letter in axis):
        return extent == known
    return any(known * rest == extent for rest in range(extent + 1))


@given(st.text(alphabet="HWIOCGU()1? =flipedvaus0123456789\t\u00a0\u0663", max_size=30))
def test_any_text_is_a_layout_or_refused(text: str) -> None:
    try:
        layout = Layout.parse(text)
    except LayoutError:
        return
    assert Layout.parse(str(layout)) == layout


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("HWIZ", ["Z", "axes are", "output channels"]),
        ("HWOO", ["each letter may stand once", "O"]),
        ("HWIO reversed", ["'reversed' is not understood"]),
        ("I(GU) G=ifx", ["'ifx' is no order of gates", "i f c o"]),
        ("(HWC)O flipped", ["flipped", "D, H, W"]),
    ],
)
def test_an_error_says_what_is_wrong(layout: str, words: list[str]) -> None:
    with pytest.raises(LayoutError) as caught:
        Layout.parse(layout)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_refuted_layout_names_layout_axis_and_shape() -> None:
    refuted = Layout.parse("(HWC)O H=4 W=4 C=128").check((1024, 10))
    assert refuted is not None
    assert [word for word in ("(HWC)O H=4 W=4 C=128", "(HWC)", "(1024, 10)") if word not in refuted] == []


@pytest.mark.parametrize(
    "parts",
    [
        {"axes": ("",)},
        {"axes": ("HW", "C"), "values": ("C", "HW")},
        {"axes": ("HW",), "sizes": (("H", 2), ("H", 3))},
        {"axes": ("HW",), "sizes": (("C", 2),)},
        {"axes": ("HW",), "sizes": (("H", -1),)},
        {"axes": ("?",), "sizes": (("?", 4),)},
        {"axes": ("G", "U"), "gates": ""},
        {"axes": ("G", "U"), "gates": "ifco", "sizes": (("G", 4),)},
        {"axes": ("H", "WC"), "flipped": True},
    ],
)
def test_what_has_no_text_cannot_be_built_either(parts: dict[str, object]) -> None:
    with pytest.raises(LayoutError):
        Layout(**parts)  # type: ignore[arg-type]


def test_more_sizes_are_declared_for_letters_in_groups_only() -> None:
    layout = Layout.parse("H(WC)O W=4")
    assert str(layout.with_sizes({"H": 2, "W": 9, "C": 3, "O": 5, "X": 1})) == "H(WC)O W=4 C=3"
    assert str(Layout.parse("I(GU) G=ifco").with_sizes({"G": 4, "U": 2})) == "I(GU) U=2 G=ifco"


def test_a_group_opened_for_one_letter() -> None:
    assert str(ungrouped(Layout.parse("(GI)O(HW) G=ifco H=2 W=3 I=4"), "G")) == "GIO(HW) H=2 W=3 G=ifco"
    assert str(ungrouped(Layout.parse("GU G=zrh"), "G")) == "GU G=zrh"


# --- roles


def test_the_neutral_layouts_of_a_role_differ_in_their_axes() -> None:
    """So which of them applies follows from the letters alone."""
    for role in ROLES:
        layouts = neutral_layouts(role)
        keys = {("".join(sorted(layout.letters)), layout.axes.count("1")) for layout in layouts}
        assert len(keys) == len(layouts), role
        assert (layouts == ()) == (role in NOT_WEIGHTS), role
        for layout in layouts:
            assert neutral(role, layout) == layout
            assert not layout.flipped


def test_letters_of_neutral_layouts_are_the_letters_there_are() -> None:
    used = {letter for role in ROLES for layout in neutral_layouts(role) for letter in layout.letters}
    assert used == set(LETTERS) | {"?"}


@pytest.mark.parametrize(
    ("role", "layout", "expected"),
    [
        ("conv.kernel", "OIHW flipped", "HWIO"),
        ("conv.kernel", "(GO)IHW G=32", "HWI(GO) G=32"),
        ("conv.kernel", "OIW1 flipped", "WIO"),
        ("conv_transpose.kernel", "(GI)OHW G=2", "HWO(GI) G=2"),
        ("depthwise.kernel", "(CM)1HW C=8 M=2", "HWCM"),
        ("dense.kernel", "O(CHW) C=2 H=3 W=4", "(HWC)O H=3 W=4 C=2"),
        ("dense.kernel", "OI", "IO"),
        ("dense.kernel", "O(?)", "(?)O"),
        ("lstm.kernel", "(GU)I G=iofc", "I(GU) G=ifco"),
        ("lstm.kernel", "(GU)I G=oi", "I(GU) G=io"),
        ("gru.bias", "B(GU) G=rzh", "B(GU) G=zrh"),
        ("prelu.alpha", "C11", "11C"),
        ("prelu.alpha", "1C", "1C"),
        ("prelu.alpha", "C", "C"),
        ("locally_connected.bias", "YXO values=OYX", "YXO"),
    ],
)
def test_neutral_layouts(role: str, layout: str, expected: str) -> None:
    assert str(neutral(role, Layout.parse(layout))) == expected


def test_a_role_refuses_layouts_of_other_axes() -> None:
    with pytest.raises(LayoutError, match=r"dense\.kernel cannot have layout HWIO"):
        neutral("dense.kernel", Layout.parse("HWIO"))
    with pytest.raises(LayoutError, match="none"):
        neutral("optimizer", Layout.parse("IO"))
    assert same_axes(Layout.parse("HWIO"), neutral_layouts("dense.kernel")) is None


def test_an_unknown_role_is_told_its_neighbours() -> None:
    assert check_role("conv.kernel") == "conv.kernel"
    with pytest.raises(LayoutError, match=r"did you mean .*conv\.kernel"):
        check_role("conv.kernal")
