"""The arithmetic of steps that change values: in float64, rounded once to the dtype that the tensor has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wio.dtypes import DType
from wio.errors import LayoutError, WioError
from wio.layout import Layout
from wio.lazy import Array, np

FLOATS = ("float16", "bfloat16", "float32", "float64")
# Which of them hold every value of which others: IEEE 754-2019, table 3.5; bfloat16 is the upper half of a float32.
_HOLDS = {
    "float16": {"float16"},
    "bfloat16": {"bfloat16"},
    "float32": {"float16", "bfloat16", "float32"},
    "float64": {"float16", "bfloat16", "float32", "float64"},
}
# The letters along which a kernel's output channels run, outermost first.
_OUTPUTS = {
    "conv.kernel": "GO",
    "conv_transpose.kernel": "GO",
    "depthwise.kernel": "CM",
    "dense.kernel": "O",
    "separable.pointwise_kernel": "O",
}


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of one dtype is a value of the other."""
    return narrow.name in _HOLDS.get(wide.name, ())


def rounded(values: Array, dtype: DType, name: str) -> Array:
    """Values as another floating dtype, each rounded once, ties to even.

    Raises WioError with the number of finite values that the dtype has no finite number for.
    """
    if dtype.name == "bfloat16" and values.dtype == np.float64:
        values = _rounded_to_odd(values)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result = values.astype(dtype.numpy)
    lost = int(np.count_nonzero(np.isfinite(values) & ~np.isfinite(result)))
    if lost:
        raise WioError(
            f"{name}: {lost} of {values.size} values overflow {dtype}",
            remedy="choose a wider dtype: --apply 'cast=GLOB:float32'",
        )
    return result


def _rounded_to_odd(values: Array) -> Array:
    """float64 as float32 such that rounding again to half as many bits gives what rounding once would.

    Source: S. Boldo and G. Melquiond, "When double rounding is odd" (2005): a value that is no float32 takes the odd
    one of its two neighbours.
    """
    with np.errstate(over="ignore", under="ignore"):
        near = values.astype(np.float32)
    # The largest float32 is odd, and bfloat16 rounds it to infinity: what overflows one overflows the other.
    largest = np.finfo(np.float32).max
    near = np.where(np.isinf(near) & np.isfinite(values), np.copysign(largest, near), near).astype(np.float32)
    inexact = np.isfinite(values) & (near.astype(np.float64) != values)
    towards_zero = np.where(np.abs(near.astype(np.float64)) > np.abs(values), np.nextafter(near, np.float32(0)), near)
    odd = (towards_zero.astype(np.float32).view(np.uint32) | inexact.astype(np.uint32)).view(np.float32)
    return np.where(inexact, odd, near).astype(np.float32)


def inverse_deviation(variance: Array, epsilon: float, name: str) -> Array:
    """``1 / sqrt(variance + epsilon)`` in float64. Raises WioError where that is no finite number."""
    total = variance.astype(np.float64) + epsilon
    wrong = int(np.count_nonzero(~(total > 0)))
    if wrong:
        raise WioError(f"{name}: variance + {epsilon:g} is not positive in {wrong} of {total.size} channels")
    inverse: Array = 1 / np.sqrt(total)
    return inverse


def output_channels(role: str, layout: Layout, shape: Sequence[int]) -> int:
    """How many output channels a kernel has, groups or depth multipliers counted. LayoutError where that is open."""
    return math.prod(_output_sizes(role, layout, shape).values())


def scaled_outputs(kernel: Array, role: str, layout: Layout, factor: Array) -> Array:
    """A kernel in ``layout``, each output channel times its ``factor``; float64.

    Output channels are counted group by group (G outside O), a depthwise kernel's channel by channel (C outside M).
    """
    sizes = _output_sizes(role, layout, kernel.shape)
    expanded: list[int] = []
    broadcast: list[int] = []
    order: list[str] = []
    for axis, extent in zip(layout.axes, kernel.shape, strict=True):
        letters = [axis] if axis in sizes else list(axis)
        inside = [letter for letter in letters if letter in sizes]
        order += inside
        extents = {letter: sizes[letter] for letter in inside}
        if inside and len(inside) < len(letters):
            extents = _settled(layout, kernel.shape, axis)
        expanded += extents.values() if inside else [extent]
        broadcast += [size if letter in sizes else 1 for letter, size in extents.items()] if inside else [1]
    outermost_first = list(sizes)
    arranged = factor.astype(np.float64).reshape(list(sizes.values()))
    arranged = arranged.transpose([outermost_first.index(letter) for letter in order])
    scaled: Array = kernel.astype(np.float64).reshape(expanded) * arranged.reshape(broadcast)
    return scaled.reshape(kernel.shape)


def _output_sizes(role: str, layout: Layout, shape: Sequence[int]) -> dict[str, int]:
    """The sizes of the letters that are output channels, outermost first.

    Letters that fill an axis of their own in that order are taken together, under the first: their sizes need not be
    declared.
    """
    if layout.values is not None:
        raise LayoutError(f"the values of layout {layout} do not run as its axes do")
    present = "".join(letter for letter in _OUTPUTS[role] if letter in layout.letters)
    for axis, extent in zip(layout.axes, shape, strict=True):
        if axis == present:
            return {present: extent}
    return {letter: _settled(layout, shape, letter)[letter] for letter in present}


def _settled(layout: Layout, shape: Sequence[int], letters: str) -> dict[str, int]:
    extents = layout.extents(shape)
    missing = [letter for letter in letters if letter not in extents]
    if missing:
        raise LayoutError(
            f"the size of {', '.join(missing)} in {layout} is not declared",
            remedy=f"declare it: {layout} {missing[0]}=..",
        )
    return {letter: extents[letter] for letter in letters}
