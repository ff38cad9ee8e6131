"""Partitioned variables: slices of a tensor, which must cover it exactly once.

Source: tensorflow/core/framework/tensor_slice.cc (BuildTensorSlice, SliceTensorShape).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from wio.adapters._tf_messages import Slice
from wio.dtypes import DType
from wio.errors import FormatError
from wio.lazy import Array, np

# One (start, stop) for each axis.
Box = tuple[tuple[int, int], ...]

# Comparisons of two slices, all in all. A grid of 20,000 slices takes a few millions; only slices that overlap along
# every axis take more.
MOST_COMPARISONS = 50_000_000


def box(extents: Slice, shape: Sequence[int]) -> Box:
    """Where a slice lies in a tensor of that shape; FormatError if it does not lie in it."""
    if len(extents) != len(shape):
        raise FormatError(f"slice {slice_text(extents)} has {len(extents)} axes, the tensor {len(shape)}")
    sides = []
    for (start, length), extent in zip(extents, shape, strict=True):
        if (start, length) == (0, -1):
            sides.append((0, extent))
        elif start < 0 or length <= 0 or start + length > extent:
            raise FormatError(f"slice {slice_text(extents)} does not lie within shape {tuple(shape)}")
        else:
            sides.append((start, start + length))
    return tuple(sides)


def is_whole(extents: Slice) -> bool:
    return all(extent == (0, -1) for extent in extents)


def extents_of(sides: Box) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in sides)


def slice_text(extents: Slice) -> str:
    """A slice as TensorFlow spells it (tensor_slice.h): ``0,10:-`` is rows 0 to 9, all columns."""
    return ":".join("-" if extent == (0, -1) else f"{extent[0]},{extent[1]}" for extent in extents)


def check_cover(shape: Sequence[int], slices: Sequence[Slice]) -> list[Box]:
    """The slices as boxes; FormatError unless they cover every element of the shape exactly once."""
    boxes = [box(extents, shape) for extents in slices]
    if len(slices) == 1 and is_whole(slices[0]):
        return boxes
    volumes = [math.prod(extents_of(sides)) for sides in boxes]
    _refuse_overlap([extents for extents, volume in zip(slices, volumes, strict=True) if volume], shape)
    if sum(volumes) != math.prod(shape):
        raise FormatError(
            f"its {len(slices)} slices hold {sum(volumes)} of the {math.prod(shape)} elements of shape {tuple(shape)}"
        )
    return boxes


def _refuse_overlap(slices: Sequence[Slice], shape: Sequence[int]) -> None:
    """Every slice is compared with those that begin before it ends, along the axis where they are fewest."""
    if len(slices) < 2:
        return
    if not shape:
        raise FormatError("a scalar is stored in more than one slice")
    sides = np.array([box(extents, shape) for extents in slices], np.int64)
    best: tuple[int, Array, Array] | None = None
    for axis in range(len(shape)):
        order = np.argsort(sides[:, axis, 0], kind="stable")
        begins = sides[order, axis, 0]
        reach = np.searchsorted(begins, sides[order, axis, 1])
        comparisons = int((reach - np.arange(1, len(slices) + 1)).sum())
        if best is None or comparisons < best[0]:
            best = comparisons, order, reach
    assert best is not None
    comparisons, order, reach = best
    if comparisons > MOST_COMPARISONS:
        raise FormatError(f"its {len(slices)} slices overlap along every axis")
    sides = sides[order]
    for place, until in enumerate(reach.tolist()):
        later = sides[place + 1 : until]
        hit = ((later[:, :, 0] < sides[place, :, 1]) & (later[:, :, 1] > sides[place, :, 0])).all(axis=1)
        if hit.any():
            other = place + 1 + int(hit.argmax())
            raise FormatError(
                f"slices {slice_text(slices[order[place]])} and {slice_text(slices[order[other]])} overlap"
            )


def join(dtype: DType, shape: tuple[int, ...], pieces: Iterable[tuple[Box, Callable[[], Array]]]) -> Array:
    """The whole tensor, read piece by piece. The boxes have been checked to cover the shape."""
    # All pieces first, most of them views: what is there has then been checked to be as much as is declared.
    loaded = [(sides, load()) for sides, load in pieces]
    whole: Array = np.empty(shape, dtype.numpy)
    for sides, values in loaded:
        whole[tuple(slice(start, stop) for start, stop in sides)] = values
    whole.flags.writeable = False
    return whole
