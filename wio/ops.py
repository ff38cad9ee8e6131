"""Operations on arrays, and the one way to get from a layout to another.

Each operation is a frozen value that names axes by letters and knows its inverse from its own arguments; integer
permutations exist only inside :meth:`apply`. ``rearrange(a, b)`` composes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from wio.contiguous import contiguous
from wio.errors import LayoutError
from wio.layout import SPATIAL, Layout, settled_forms
from wio.lazy import Array

Axes = tuple[str, ...]


def _text(axes: Axes) -> str:
    return "".join(axis if len(axis) == 1 and axis != "?" else f"({axis})" for axis in axes) or "()"


class Op(Struct, frozen=True):
    """One operation. ``before`` and ``after`` name the axes of the array it takes and gives."""

    before: Axes
    after: Axes

    @property
    def inverse(self) -> Op:
        return type(self)(self.after, self.before)

    def apply(self, array: Array) -> Array:
        """The array rearranged; a view where NumPy can give one."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def as_json(self) -> dict[str, object]:
        return {"op": self.name, "from": _text(self.before), "to": _text(self.after)}

    def __str__(self) -> str:
        return f"{self.name} {_text(self.before)} -> {_text(self.after)}"


class Permute(Op, frozen=True):
    """Axes change places."""

    def apply(self, array: Array) -> Array:
        return array.transpose(_places(self.before, self.after))


class Reread(Op, frozen=True):
    """The same values in the same C order, read as an array whose axes have other places."""

    def apply(self, array: Array) -> Array:
        return array.reshape([array.shape[i] for i in _places(self.before, self.after)])


class Unit(Op, frozen=True):
    """Axes of length 1 appear or go."""

    def apply(self, array: Array) -> Array:
        real = [extent for axis, extent in zip(self.before, array.shape, strict=True) if axis != "1"]
        if any(axis == "1" and extent != 1 for axis, extent in zip(self.before, array.shape, strict=True)):
            raise LayoutError(f"{self}: an array of shape {array.shape} has no unit axis there")
        extents = iter(real)
        return array.reshape([1 if axis == "1" else next(extents) for axis in self.after])


class Flip(Op, frozen=True):
    """Every axis in ``letters`` runs the other way."""

    letters: str

    @property
    def inverse(self) -> Flip:
        return self

    def apply(self, array: Array) -> Array:
        return array[tuple(slice(None, None, -1 if axis in self.letters else None) for axis in self.before)]

    def as_json(self) -> dict[str, object]:
        return {"op": self.name, "axes": self.letters, "of": _text(self.before)}

    def __str__(self) -> str:
        return f"flip {' '.join(self.letters)}"


class Regroup(Op, frozen=True):
    """Letters are grouped into one axis, or a group is split; ``sizes`` are those that a split needs."""

    sizes: tuple[tuple[str, int], ...]

    @property
    def inverse(self) -> Regroup:
        return Regroup(self.after, self.before, self.sizes)

    def apply(self, array: Array) -> Array:
        found = dict(self.sizes)
        for axis, extent in zip(self.before, array.shape, strict=True):
            if axis in self.after:
                found[axis] = extent
                continue
            unknown = [letter for letter in axis if letter not in found]
            known = math.prod(found[letter] for letter in axis if letter in found)
            if len(unknown) == 1 and known and extent % known == 0:
                found[unknown[0]] = extent // known
            elif unknown or known != extent:
                raise LayoutError(f"{self}: cannot be done to an array of shape {array.shape}")
        if len(self.after) < len(self.before):
            # Axes that do not lie side by side are grouped by a copy: NumPy's own would be the slow one.
            array = contiguous(array)
        return array.reshape(
            [found[axis] if axis in found else math.prod(found[letter] for letter in axis) for axis in self.after]
        )


class Regate(Op, frozen=True):
    """Gates along the axis G change places, from the order ``source`` to the order ``target``."""

    source: str
    target: str

    @property
    def inverse(self) -> Regate:
        return Regate(self.after, self.before, self.target, self.source)

    def apply(self, array: Array) -> Array:
        return array.take([self.source.index(gate) for gate in self.target], axis=self.before.index("G"))

    def as_json(self) -> dict[str, object]:
        return {"op": self.name, "from": self.source, "to": self.target, "of": _text(self.before)}

    def __str__(self) -> str:
        return f"regate {self.source} -> {self.target}"


@lru_cache(maxsize=4096)
def _places(before: Axes, after: Axes) -> tuple[int, ...]:
    """For each axis of ``after`` its place in ``before``; unit axes keep their own order."""
    free = list(range(len(before)))
    places = []
    for axis in after:
        place = next(i for i in free if before[i] == axis)
        free.remove(place)
        places.append(place)
    return tuple(places)


@lru_cache(maxsize=4096)
def rearrange(source: Layout, target: Layout) -> tuple[Op, ...]:
    """The operations that bring an array of layout ``source`` to layout ``target``; () if they are the same.

    Sizes that only one of the two declares hold for both. Raises LayoutError where the two hold different axes,
    where a group must be split whose sizes are not declared, or where the rows of a dense kernel are ``(?)`` on one
    side only.
    """
    _refuse_different_axes(source, target)
    sizes = _merged_sizes(source, target)
    if replace(source, sizes=()) == replace(target, sizes=()):
        return ()
    kept = {axis for axis in source.axes if len(axis) > 1 and axis in target.axes}
    if source.gates != target.gates or source.values or target.values:
        kept = {axis for axis in kept if "G" not in axis}
    steps: list[Op] = []
    axes = source.axes

    def step(op: Op) -> None:
        nonlocal axes
        if isinstance(op, Flip | Regate) or op.before != op.after:
            steps.append(op)
            axes = op.after

    step(_split(axes, kept, sizes))
    if source.values:
        step(Permute(axes, _blocks(axes, source.values)))
        step(Reread(axes, _blocks(source.values, axes)))
    stored = _split_axes(target.axes, kept)
    wanted = _blocks(target.values, stored) if target.values else stored
    if axes.count("1") != wanted.count("1"):
        step(Unit(axes, tuple(axis for axis in axes if axis != "1")))
        with_units = wanted
        wanted = tuple(axis for axis in wanted if axis != "1")
    else:
        with_units = wanted
    if source.flipped != target.flipped:
        step(Flip(axes, axes, "".join(axis for axis in axes if axis in SPATIAL)))
    if source.gates and target.gates and source.gates != target.gates:
        step(Regate(axes, axes, source.gates, target.gates))
    step(Permute(axes, wanted))
    step(Unit(axes, with_units))
    if target.values:
        step(Reread(axes, _blocks(stored, target.values)))
        step(Permute(axes, stored))
    step(_split(target.axes, kept, sizes).inverse)
    return tuple(steps)


def _blocks(axes: Axes, others: Axes) -> Axes:
    """The axes, those first that only one of two orders has: the gates, where values run gate by gate."""
    alone = tuple(axis for axis in (*axes, *others) if (axis in axes) != (axis in others))
    return alone + tuple(axis for axis in axes if axis not in alone)


def _refuse_different_axes(source: Layout, target: Layout) -> None:
    if sorted(source.letters) != sorted(target.letters):
        remedy = None
        unknown = next((layout for layout in (source, target) if "?" in layout.letters), None)
        if unknown is not None:
            remedy = f"declare what the axis (?) is made of: {settled_forms(unknown)}"
        raise LayoutError(f"{source} and {target} do not hold the same axes", remedy=remedy)
    if sorted(source.gates or "") != sorted(target.gates or ""):
        raise LayoutError(f"{source} and {target} do not hold the same gates")


def _merged_sizes(source: Layout, target: Layout) -> dict[str, int]:
    sizes = dict(source.sizes)
    for letter, size in target.sizes:
        if sizes.setdefault(letter, size) != size:
            raise LayoutError(f"{source} and {target} disagree on the size of {letter}")
    if source.gates:
        sizes["G"] = len(source.gates)
    return sizes


def _split_axes(axes: Axes, kept: set[str]) -> Axes:
    return tuple(part for axis in axes for part in ((axis,) if axis in kept else tuple(axis)))


def _split(axes: Axes, kept: set[str], sizes: dict[str, int]) -> Regroup:
    after = _split_axes(axes, kept)
    needed: dict[str, int] = {}
    for axis in axes:
        if len(axis) == 1 or axis in kept:
            continue
        if "?" in axis:
            raise LayoutError(f"axis ({axis}) cannot be taken apart: what it is made of was not declared")
        known = {letter: sizes[letter] for letter in axis if letter in sizes}
        if len(known) < len(axis) - 1:
            missing = [letter for letter in axis if letter not in known]
            raise LayoutError(
                f"axis ({axis}) cannot be taken apart: the sizes of {', '.join(missing)} are not declared",
                remedy=f"declare the sizes, as in ({axis}) " + " ".join(f"{letter}=.." for letter in axis),
            )
        needed |= known
    return Regroup(axes, after, tuple(needed.items()))


def apply_all(steps: Sequence[Op], array: Array) -> Array:
    """The array after every step, C-contiguous and little-endian as stored; the array itself if nothing changes.

    A view with negative strides is never given out: writers that trust ``data`` alone have written garbage
    (safetensors#825).
    """
    for op in steps:
        array = op.apply(array)
    return contiguous(array)


def inverse_of(steps: Sequence[Op]) -> tuple[Op, ...]:
    """The steps that undo ``steps``."""
    return tuple(op.inverse for op in reversed(steps))
