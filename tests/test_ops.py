"""Rearranging, against a reference that moves one element at a time, and against what the layers compute."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_reference import axes_of, gates_of, rearranged, shape_of
from layout_strategies import Axes, pairs

from wio.bundle import Tensor
from wio.dtypes import DTYPES
from wio.errors import LayoutError
from wio.gates import join_gates, take_gates
from wio.layout import Layout
from wio.ops import Flip, Permute, Reread, Unit, apply_all, inverse_of, rearrange

Array = np.ndarray[Any, np.dtype[Any]]


def counting(shape: tuple[int, ...]) -> Array:
    """No two elements are equal."""
    return np.arange(math.prod(shape)).reshape(shape)


def tensor_of(array: Array, layout: str, role: str | None = None, name: str = "layer/weight") -> Tensor:
    return Tensor(name, DTYPES[array.dtype.name], array.shape, lambda: array, role, Layout.parse(layout))


# --- any layouts


@given(pairs())
def test_every_element_goes_where_its_letters_say(case: tuple[list[str], Axes]) -> None:
    (source, target), axes = case
    array = counting(shape_of(source, axes.extents))
    result = apply_all(rearrange(Layout.parse(source), Layout.parse(target)), array)
    assert result.shape == shape_of(target, axes.extents)
    assert result.reshape(-1).tolist() == rearranged(array.reshape(-1).tolist(), source, target, axes.extents)


@given(pairs())
def test_the_inverse_of_every_step_undoes_it(case: tuple[list[str], Axes]) -> None:
    (source, target), axes = case
    array = counting(shape_of(source, axes.extents))
    steps = rearrange(Layout.parse(source), Layout.parse(target))
    assert np.array_equal(apply_all(inverse_of(steps), apply_all(steps, array)), array)
    for step in steps:
        result = step.apply(array)
        assert step.inverse.apply(result).shape == array.shape
        assert np.array_equal(step.inverse.apply(result), array)
        assert step.inverse.inverse == step
        array = result


@given(pairs())
def test_the_way_back_is_the_inverse(case: tuple[list[str], Axes]) -> None:
    (source, target), axes = case
    one, other = Layout.parse(source), Layout.parse(target)
    array = counting(shape_of(source, axes.extents))
    assert np.array_equal(apply_all(rearrange(other, one), apply_all(rearrange(one, other), array)), array)


@given(pairs(3))
def test_a_detour_changes_nothing(case: tuple[list[str], Axes]) -> None:
    a, b, c = (Layout.parse(text) for text in case[0])
    array = counting(shape_of(case[0][0], case[1].extents))
    detour = apply_all(rearrange(b, c), apply_all(rearrange(a, b), array))
    assert np.array_equal(detour, apply_all(rearrange(a, c), array))


@given(pairs(1))
def test_to_the_same_layout_is_no_step(case: tuple[list[str], Axes]) -> None:
    layout = Layout.parse(case[0][0])
    assert rearrange(layout, layout) == ()


@given(pairs())
def test_a_tensor_knows_its_shape_before_it_is_read(case: tuple[list[str], Axes]) -> None:
    (source, target), axes = case
    array = counting(shape_of(source, axes.extents))
    loads = []

    def load() -> Array:
        loads.append(1)
        return array

    tensor = Tensor("t", DTYPES["int64"], array.shape, load, layout=Layout.parse(source)).to(target)
    assert tensor.shape == shape_of(target, axes.extents)
    assert loads == []
    assert tensor.numpy().reshape(-1).tolist() == rearranged(array.reshape(-1).tolist(), source, target, axes.extents)


@given(pairs())
def test_results_can_be_written_as_they_lie(case: tuple[list[str], Axes]) -> None:
    """C-contiguous and no negative stride, which some writers take for what it is not (safetensors#825)."""
    (source, target), axes = case
    array = counting(shape_of(source, axes.extents))
    for given_array in (array, np.flip(array), np.asfortranarray(array).reshape(array.shape)):
        result = apply_all(rearrange(Layout.parse(source), Layout.parse(target)), given_array)
        assert result.flags.c_contiguous
        assert all(stride >= 0 for stride in result.strides)


@given(pairs())
def test_steps_say_what_they_do(case: tuple[list[str], Axes]) -> None:
    steps = rearrange(*(Layout.parse(text) for text in case[0]))
    names = [step.name for step in steps]
    assert set(names) <= {"permute", "reread", "unit", "flip", "regroup", "regate"}
    assert json.loads(json.dumps([step.as_json() for step in steps])) == [step.as_json() for step in steps]
    assert all(step.name in str(step) for step in steps)


@given(pairs(), st.data())
def test_other_axes_are_refused(case: tuple[list[str], Axes], data: st.DataObject) -> None:
    (source, target), axes = case
    if not axes.extents:
        return
    letter = data.draw(st.sampled_from(sorted(axes.extents)))
    fewer = Axes({k: v for k, v in axes.extents.items() if k != letter}, None if letter == "G" else axes.gates)
    text = "".join(sorted(fewer.extents)) or "()"
    gates = gates_of(target)
    text += f" G={gates}" if gates and "G" in fewer.extents else ""
    with pytest.raises(LayoutError, match="do not hold the same axes"):
        rearrange(Layout.parse(source), Layout.parse(text))


# --- each layer, with distinct, equal and length-1 axes

KERNELS = [
    ("WIO", "OIW"),
    ("W1IO flipped", "WIO"),
    ("OIW1 flipped", "WIO"),
    ("HWIO", "OIHW"),
    ("HWIO flipped", "OIHW"),
    ("OIHW flipped", "OIHW"),
    ("OIDHW flipped", "DHWIO"),
    ("(GO)IHW G={G}", "HWI(GO)"),
    ("HWI(GO) flipped G={G}", "(GO)IHW"),
    ("GOIHW", "(GO)IHW G={G}"),
    ("HWOI", "IOHW"),
    ("HWOI flipped", "IOHW"),
    ("(GI)ODHW G={G}", "DHWO(GI)"),
    ("HWCM", "(CM)1HW C={C}"),
    ("HWCM", "MCHW"),
    ("(CM)1HW M={M}", "MCHW"),
    ("IO", "OI"),
    ("(HWC)O H={H} W={W}", "O(CHW) C={C}"),
    ("(DHWC)O D={D} H={H} W={W}", "(CDHW)O"),
    ("(HWC) H={H} W={W} C={C}", "(CHW)"),
    ("(?)O", "O(?)"),
    ("I(GU) G=ifco", "1(GU)I G=iofc"),
    ("I(GU) G=icfo", "(GU)I G=ifco"),
    ("B(GU) G=zrh", "(GU)B G=rzh"),
    ("X(WI)O W={W}", "OX(IW)"),
    ("(YX)(HWI)O Y={Y} H={H} W={W}", "(YX)(IHW)O"),
    ("YXO values=OYX", "YXO"),
    ("MIO", "OIM"),
    ("1C1", "C"),
    ("H1C", "CH1"),
]
SIZES = {
    "distinct": {
        "O": 2,
        "I": 3,
        "D": 2,
        "H": 3,
        "W": 4,
        "C": 5,
        "M": 2,
        "U": 3,
        "G": 2,
        "Y": 2,
        "X": 3,
        "B": 2,
        "?": 4,
    },
    "equal": dict.fromkeys("OIDHWCMUGYXB?", 2),
    "one": dict.fromkeys("OIDHWCMUGYXB?", 1),
    "pointwise": {**dict.fromkeys("OICMUGYXB?", 3), "D": 1, "H": 1, "W": 1},
    "none": {**dict.fromkeys("OIDHWCMUGYXB?", 2), "O": 0},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("one", "other"), KERNELS)
def test_kernels(one: str, other: str, sizes: dict[str, int]) -> None:
    source, target = one.format(**sizes), other.format(**sizes)
    for a, b in ((source, target), (target, source)):
        letters = {letter for axis in axes_of(a) for letter in axis}
        extents = {letter: sizes[letter] for letter in letters if letter != "1"}
        if gates := gates_of(a):
            extents["G"] = len(gates)
        array = counting(shape_of(a, extents))
        steps = rearrange(Layout.parse(a), Layout.parse(b))
        result = apply_all(steps, array)
        assert result.shape == shape_of(b, extents)
        assert result.reshape(-1).tolist() == rearranged(array.reshape(-1).tolist(), a, b, extents)
        assert np.array_equal(apply_all(inverse_of(steps), result), array)


def test_a_permutation_that_is_not_its_own_inverse() -> None:
    """(3, 2, 0, 1) applied in both directions is a bug that equal axes hide."""
    (step,) = rearrange(Layout.parse("HWIO"), Layout.parse("OIHW"))
    array = counting((2, 2, 2, 2))
    once = step.apply(array)
    assert np.array_equal(once, array.transpose(3, 2, 0, 1))
    assert not np.array_equal(step.apply(once), array)
    assert np.array_equal(step.inverse.apply(once), array)


def test_rows_of_a_pointwise_map_stay_in_order() -> None:
    array = counting((6, 2))
    steps = rearrange(Layout.parse("(HWC)O H=1 W=1 C=6"), Layout.parse("(CHW)O"))
    assert np.array_equal(apply_all(steps, array), array)


def test_a_group_of_which_too_little_is_known_names_what_is_missing() -> None:
    with pytest.raises(LayoutError, match="the sizes of W, C are not declared") as caught:
        rearrange(Layout.parse("(HWC)O H=2"), Layout.parse("O(CHW)"))
    assert "(HWC) H=.. W=.. C=.." in str(caught.value)


def test_rows_that_were_not_declared_are_not_taken_apart() -> None:
    with pytest.raises(LayoutError, match=r"declare what the axis \(\?\) is made of: \(HWC\)O"):
        rearrange(Layout.parse("(?)O"), Layout.parse("(HWC)O H=2 W=2 C=2"))


def test_an_array_that_is_not_of_the_layout_is_refused() -> None:
    steps = rearrange(Layout.parse("(HWC)O H=2 W=2 C=3"), Layout.parse("(CHW)O"))
    with pytest.raises(LayoutError, match="shape"):
        apply_all(steps, counting((13, 2)))
    with pytest.raises(LayoutError, match="no unit axis"):
        Unit(("1", "C"), ("C",)).apply(counting((2, 0)))


@pytest.mark.parametrize(
    "step", [Permute(("H", "1", "1"), ("1", "H", "1")), Reread(("Y", "X"), ("X", "Y")), Flip(("W",), ("W",), "W")]
)
def test_single_steps_know_their_inverse(step: Any) -> None:
    array = counting(tuple({"H": 3, "1": 1, "Y": 2, "X": 3, "W": 4}[axis] for axis in step.before))
    assert np.array_equal(step.inverse.apply(step.apply(array)), array)


# --- what the layouts mean: both sides compute the same


def test_a_flipped_kernel_is_what_a_convolution_needs() -> None:
    kernel, signal = np.array([1.0, 10.0, 100.0]), np.array([1.0, 2.0, 4.0, 8.0])
    flipped = apply_all(rearrange(Layout.parse("W"), Layout.parse("W flipped")), kernel)
    assert np.array_equal(np.correlate(signal, kernel, "valid"), np.convolve(signal, flipped, "valid"))


def test_a_transposed_convolution_is_the_gradient_of_a_cross_correlation() -> None:
    """``HWOI`` of the one is ``HWIO`` of the other, whose input channels are its output: here over W, with stride 2."""
    stored = counting((3, 2, 4)).astype(float)
    x = np.array([[1.0, 2.0, 0.0, 5.0], [3.0, 0.0, 1.0, 1.0]])
    y = np.zeros((5, 2))
    for p, k, i, o in itertools.product(range(2), range(3), range(4), range(2)):
        y[2 * p + k, o] += x[p, i] * stored[k, o, i]
    # The cross-correlation with that kernel, as a matrix from (position, channel) to (position, channel).
    matrix = np.zeros((2, 4, 5, 2))
    for p, k, i, o in itertools.product(range(2), range(3), range(4), range(2)):
        matrix[p, i, 2 * p + k, o] = stored[k, o, i]
    assert np.array_equal(y, np.einsum("pi,pixo->xo", x, matrix))


def test_grouped_channels_are_blocks() -> None:
    pixels = counting((6,)).astype(float)
    kernel = counting((1, 1, 3, 4)).astype(float)
    theirs = apply_all(rearrange(Layout.parse("HWI(GO) G=2"), Layout.parse("(GO)IHW")), kernel)
    ours = np.concatenate([pixels[g * 3 : g * 3 + 3] @ kernel[0, 0, :, g * 2 : g * 2 + 2] for g in range(2)])
    assert np.array_equal(ours, [theirs[o, :, 0, 0] @ pixels[o // 2 * 3 : o // 2 * 3 + 3] for o in range(4)])


def test_depthwise_outputs_run_over_the_multiplier_first() -> None:
    kernel = counting((1, 1, 3, 2))
    theirs = apply_all(rearrange(Layout.parse("HWCM"), Layout.parse("(CM)1HW C=3")), kernel)
    assert [theirs[c * 2 + m, 0, 0, 0] for c in range(3) for m in range(2)] == [
        kernel[0, 0, c, m] for c in range(3) for m in range(2)
    ]


def test_dense_rows_follow_the_flattened_map() -> None:
    feature_map = counting((2, 3, 4)).astype(float)
    kernel = counting((24, 5)).astype(float)
    shuffled = apply_all(rearrange(Layout.parse("(HWC)O H=2 W=3 C=4"), Layout.parse("O(CHW)")), kernel)
    channels_first = feature_map.transpose(2, 0, 1)
    assert np.array_equal(feature_map.reshape(-1) @ kernel, shuffled @ channels_first.reshape(-1))


# --- gates


@given(st.permutations("ifco"), st.permutations("ifco"), st.sampled_from(["I(GU)", "(GU)I", "IGU", "1(GU)I", "U(IG)"]))
def test_gates_taken_one_by_one_join_to_the_whole(order: list[str], wanted: list[str], axes: str) -> None:
    sizes = " I=3" if axes == "U(IG)" else ""
    source = f"{axes}{sizes} G={''.join(order)}"
    extents = {"I": 3, "U": 2, "G": 4}
    whole = tensor_of(counting(shape_of(source, extents)), source, "lstm.kernel")
    parts = [take_gates(whole, gate) for gate in wanted]
    for part, gate in zip(parts, wanted, strict=True):
        assert part.layout is not None and part.layout.gates == gate
        assert part.numpy().size == 6
    target = f"I(GU) G={''.join(wanted)}"
    joined = join_gates(parts).to(target)
    assert joined.shape == (3, 8)
    assert joined.numpy().reshape(-1).tolist() == rearranged(
        whole.numpy().reshape(-1).tolist(), source, target, extents
    )


def test_a_keras_1_lstm_is_four_arrays_of_a_keras_2_one() -> None:
    whole = tensor_of(counting((3, 8)), "I(GU) G=ifco", "lstm.kernel")
    w_c = take_gates(whole, "c").to("I(GU) G=c")
    assert np.array_equal(w_c.numpy(), whole.numpy()[:, 4:6])
    assert (w_c.shape, w_c.role, w_c.digest) == ((3, 2), "lstm.kernel", None)


def test_gates_that_do_not_match_are_refused() -> None:
    whole = tensor_of(counting((3, 8)), "I(GU) G=ifco")
    with pytest.raises(LayoutError, match="does not hold the gates z"):
        take_gates(whole, "z")
    with pytest.raises(LayoutError):
        join_gates([take_gates(whole, "i"), take_gates(whole, "i")])
    with pytest.raises(LayoutError, match="differ in shape"):
        join_gates([take_gates(whole, "i"), tensor_of(counting((4, 2)), "I(GU) G=f")])
    with pytest.raises(LayoutError, match="holds no gates"):
        join_gates([take_gates(whole, "i"), tensor_of(counting((3, 2)), "IU")])
    with pytest.raises(LayoutError):
        join_gates([take_gates(whole, "i"), tensor_of(counting((3, 2)), "I(GU) G=z")])
