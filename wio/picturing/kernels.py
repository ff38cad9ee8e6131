"""Kernels as they are laid over an input: every layout turned to one orientation before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from msgspec import Struct

from wio.bundle import Tensor, declare_remedy
from wio.errors import LayoutError, UsageError
from wio.layout import Layout, ungrouped
from wio.lazy import np
from wio.picturing.grid import Grid
from wio.picturing.real import checked_real
from wio.roles import neutral

MOST_KERNELS, MOST_IN_A_MATRIX = 16, 64
_INPUTS, _OUTPUTS = ("I", "GI", "C", "?", "HWC", "WC", "DHWC"), ("O", "GO", "U", "M")
# What stands beside one another; what has none of these is one column.
_ACROSS = ("O", "GO", "C", "G")
_NAMES = {
    **{"O": "output", "GO": "output", "I": "input", "GI": "input", "C": "channel", "M": "multiplier", "D": "depth"},
    **{"G": "gate", "U": "unit", "F": "direction", "B": "bias", "Y": "place down", "X": "place across"},
    **dict.fromkeys(("?", "HWC", "WC", "DHWC", "HWI", "WI"), "row"),
}


class Chosen(Struct, frozen=True):
    """Which channels are drawn: those named, and of others the first ``most``, by default as many as are legible."""

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    most: int | None = None


def kernel_grid(tensor: Tensor, chosen: Chosen | None = None) -> Grid:
    """A tensor of two or more axes as tiles, read now.

    A tile is one kernel as it is laid over the input when cross-correlating, H down and W across; tiles of one output
    stand in one column. What has no space is a matrix, what comes in down and what goes out across, one for each gate
    where there are gates. Raises LayoutError unless role and layout are declared: no order of axes is guessed.
    """
    chosen = chosen or Chosen()
    layout = _spread(tensor)
    if not tensor.size:
        raise UsageError(f"{tensor.name}: shape {list(tensor.shape)} holds no values to draw")
    axes = tuple(axis for axis in layout.axes if axis != "1")
    array = checked_real(tensor, tensor.seen_as(layout))
    array = array.reshape([extent for extent, axis in zip(array.shape, layout.axes, strict=True) if axis != "1"])
    tile = _tile(axes)
    if len(axes) < 2:
        raise UsageError(f"{tensor.name}: layout {tensor.layout} has no two axes to draw", remedy="--histogram")
    counts = dict(zip(axes, array.shape, strict=True))
    taken = {axis: tuple(range(count)) for axis, count in counts.items()}
    most = chosen.most or (MOST_KERNELS if "W" in tile else MOST_IN_A_MATRIX)
    for axis in axes:
        if axis not in ("H", "W"):
            taken[axis] = taken[axis][:most]
    for flag, wanted, letters in (("input", chosen.inputs, _INPUTS), ("output", chosen.outputs, _OUTPUTS)):
        named = [each for each in letters if each in axes]
        if wanted and not named:
            raise UsageError(f"{tensor.name}: layout {tensor.layout} has no {flag}s", remedy=f"leave --{flag} out")
        if wanted:
            taken[named[0]] = chosen_of(wanted, counts[named[0]], flag)
    for place, axis in enumerate(axes):
        if taken[axis] != tuple(range(counts[axis])):
            array = array.take(taken[axis], place)
    across = next((each for each in _ACROSS if each in axes and each not in tile), None)
    down = [axis for axis in axes if axis not in tile and axis != across]
    order = [*down, *([across] if across else []), *tile]
    rows = tuple(map(",".join, product(*(_labels(axis, taken[axis], layout) for axis in down))))
    columns = _labels(across, taken[across], layout) if across else ("",)
    height = len(taken[tile[0]]) if len(tile) > 1 else 1
    return Grid(
        tensor.name,
        array.transpose([axes.index(axis) for axis in order])
        .astype(np.float64)
        .reshape(len(rows), len(columns), height, len(taken[tile[-1]])),
        rows,
        columns,
        " and ".join(_name(axis) for axis in down),
        _name(across) if across else "",
        _told(axes, tile, counts, taken),
    )


def _spread(tensor: Tensor) -> Layout:
    """The neutral layout with flattened maps and gates taken apart; groups of a convolution stay one axis."""
    if tensor.role is None or tensor.layout is None:
        missing = "role" if tensor.role is None else "layout"
        raise LayoutError(
            f"{tensor.name}: its {missing} is not declared, so how it lies is not known",
            remedy=declare_remedy(tensor.name),
        )
    layout = neutral(tensor.role, tensor.layout)
    if not layout.unsettled:
        for letter in ("W", "Y", "G") if layout.gates else ("W", "Y"):
            layout = ungrouped(layout, letter)
    return layout


def _tile(axes: tuple[str, ...]) -> tuple[str, ...]:
    """The axes of one tile: space, or else what comes in and what goes out."""
    if "W" in axes:
        return tuple(axis for axis in axes if axis in ("H", "W"))
    matrix = tuple(axis for axis in axes if axis not in ("G", "F", "M", "B"))
    return (matrix if len(matrix) > 1 else axes)[-2:]


def chosen_of(wanted: Sequence[int], count: int, flag: str) -> tuple[int, ...]:
    """The channels named, each once; UsageError for one that is not there."""
    wrong = [str(each) for each in wanted if not 0 <= each < count]
    if wrong:
        raise UsageError(f"--{flag} {', '.join(wrong)}: there are {count}, numbered from 0")
    return tuple(dict.fromkeys(wanted))


def _labels(axis: str, numbers: Sequence[int], layout: Layout) -> tuple[str, ...]:
    return tuple(layout.gates[each] if axis == "G" and layout.gates else str(each) for each in numbers)


def _told(axes: Sequence[str], tile: Sequence[str], counts: dict[str, int], taken: dict[str, tuple[int, ...]]) -> str:
    """What is shown of each axis, as ``3x3 kernels, 3 inputs, 16 of 64 outputs``."""
    space = [str(counts[axis]) for axis in axes if axis in tile and axis in ("H", "W")]
    told = [f"{'x'.join(space)} kernels"] if space else [f"{_name(tile[0])} down, {_name(tile[-1])} across"]
    for axis in axes:
        if axis not in ("H", "W"):
            shown, count = len(taken[axis]), counts[axis]
            named = f"{count} {_name(axis)}{'s' * (count != 1)}"
            told.append(f"{shown} of {named}" if shown < count else named)
    return ", ".join(told)


def _name(axis: str) -> str:
    return _NAMES.get(axis, axis)
