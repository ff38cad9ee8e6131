"""How two tensors of the same values relate: which layout, or which order of axes, would make them equal.

Found by comparing values, so it is evidence; that a declaration is wrong is for the user to conclude.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

from wio.bundle import Tensor
from wio.contiguous import contiguous, filled, new_tile, on_threads, tile_order, tiles_of
from wio.errors import LayoutError
from wio.layout import Layout

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# Beyond these there is nothing more to learn, and too much to try.
MOST_FOUND = 8
MOST_AXES = 6
# Bytes compared at a time.
_PIECE = 256 << 10


def layouts_that_fit(known: Tensor, other: Tensor) -> list[Layout]:
    """The layouts under which ``other``, as stored, holds the values of ``known``, whose layout is declared.

    Tried are every order of the axes and within groups, space forwards and backwards, every order of the gates; unit
    axes where the other has some. Layouts that differ in axes of length 1 only are one. At most MOST_FOUND.
    """
    layout = known.layout
    if layout is None or "?" in layout.letters or layout.values or known.dtype != other.dtype:
        return []
    groups = [axis for axis in layout.axes if axis != "1"]
    units = len(other.shape) - len(groups)
    if units < 0 or len(other.shape) > MOST_AXES:
        return []
    values, extents = other.numpy(), layout.extents(known.shape)
    found: list[Layout] = []
    seen = set()
    for axes in _orders([*groups, *("1" * units)]):
        key = tuple("".join(c for c in axis if extents.get(c, 1) != 1) for axis in axes)
        if key in seen:
            continue
        seen.add(key)
        for candidate in _candidates(axes, layout, extents):
            rearranged = known.to(candidate)
            if rearranged.shape == other.shape and same_bits(rearranged.numpy(), values):
                found.append(candidate)
                if len(found) == MOST_FOUND:
                    return found
    return found


def _orders(groups: list[str]) -> Iterator[tuple[str, ...]]:
    """Every order of the axes and of the letters in them, the plainest first."""
    for order in permutations(groups):
        for inner in product(*(permutations(group) for group in order)):
            yield tuple("".join(group) for group in inner)


def _candidates(axes: tuple[str, ...], layout: Layout, extents: dict[str, int]) -> Iterator[Layout]:
    """Layouts with these axes: space both ways where it has an extent, gates in every order."""
    letters = layout.letters
    sizes = {letter: extents[letter] for axis in axes if len(axis) > 1 for letter in axis if letter in extents}
    spatial = any(extents.get(letter, 1) > 1 for letter in layout.spatial)
    gates = ["".join(order) for order in permutations(layout.gates)] if layout.gates else [None]
    for flipped, order in product((layout.flipped, not layout.flipped) if spatial else (layout.flipped,), gates):
        usual = {k: v for k, v in sizes.items() if k != "G" or order is None}
        try:
            yield Layout(axes, flipped, None, tuple(usual.items()), order).with_sizes(
                {letter: extents[letter] for letter in letters if letter in extents}
            )
        except LayoutError:
            continue


def orders_that_fit(x: Array, y: Array) -> list[str]:
    """What makes ``x`` equal to ``y`` where neither has a layout: an order of axes, axes backwards; at most MOST_FOUND.

    Axes of length 1 are left out of both first.
    """
    import numpy as np

    x, y = np.squeeze(x), np.squeeze(y)
    found: list[str] = []
    if x.ndim != y.ndim or x.ndim > MOST_AXES or x.dtype != y.dtype:
        return found
    for axes in permutations(range(x.ndim)):
        if tuple(x.shape[axis] for axis in axes) != y.shape:
            continue
        for chosen in product((False, True), repeat=x.ndim):
            backwards = tuple(k for k, each in enumerate(chosen) if each)
            if same_bits(np.flip(x.transpose(axes), backwards), y):
                moved = "" if axes == tuple(range(x.ndim)) else f"its axes in the order {', '.join(map(str, axes))}"
                turned = f"axes {', '.join(map(str, backwards))} backwards" if backwards else ""
                found.append(" and ".join(part for part in (moved, turned) if part) or "its axes of length 1 left out")
                if len(found) == MOST_FOUND:
                    return found
    return found


def same_bits(x: Array, y: Array) -> bool:
    """Bit for bit: a NaN equals itself, 0.0 is not -0.0. A few values first: most tries fail there."""
    import numpy as np

    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if x.dtype.kind == "O":
        return bool((x == y).all())
    whole = np.dtype(f"V{x.dtype.itemsize}")
    if x.size > 256:
        step = tuple(slice(None, None, max(size // 3, 1)) for size in x.shape)
        if not (np.ascontiguousarray(x[step]).view(whole) == np.ascontiguousarray(y[step]).view(whole)).all():
            return False
    for one, other in ((x, y), (y, x)):
        order = tile_order(other)
        if one.flags.c_contiguous and order is not None:
            return _same_in_tiles(one, other, order)
    return same_bytes(*(contiguous(each).reshape(-1).view(np.uint8) for each in (x, y)))


def _same_in_tiles(x: Array, y: Array, order: Sequence[int]) -> bool:
    """Whether a contiguous array and a strided view hold the same bits, without writing the view down anywhere.

    Measured on kernels of 3x3x512x512, HWIO against OIHW, seconds of one core for 1 GB: 0.58; by way of a copy in tiles
    0.70; with array_equal of the view 1.0.
    """
    import numpy as np

    unsigned = np.dtype(f"u{x.itemsize}")
    one, other = (each.view(unsigned).transpose(order) for each in (x, y))
    tiles = tiles_of(other)
    different: list[Any] = []

    def work() -> None:
        tile = new_tile(unsigned)
        for block in tiles:
            if different or (filled(tile, other[block]) != one[block]).any():
                different.append(block)
                return

    on_threads(work, x.nbytes)
    return not different


def same_bytes(x: Array, y: Array) -> bool:
    """Whether two flat arrays of as many bytes are equal; in pieces, so that what is compared stays in the cache.

    Measured on two arrays of 1 GiB on one core: 0.20 s, eight bytes at a time; array_equal of bytes takes 0.44 s.
    """
    import numpy as np

    long = x.size // 8 * 8
    pieces = iter(range(0, long, _PIECE))
    different: list[int] = []

    def work() -> None:
        for start in pieces:
            end = min(start + _PIECE, long)
            if different or (x[start:end].view(np.uint64) != y[start:end].view(np.uint64)).any():
                different.append(start)
                return

    on_threads(work, x.size)
    return not different and bool((x[long:] == y[long:]).all())
