"""Layouts: where each axis of a tensor sits, which way it runs, how grouped axes are ordered.

The grammar and its meaning are in ``spec/wio-1.md``, section "Layouts". A layout is declared, never guessed:
nothing here looks at a shape to find out what an axis is; a shape can only refute a layout (:meth:`Layout.check`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache

from msgspec import Struct
from msgspec.structs import force_setattr

from wio.errors import LayoutError

LETTERS = {
    "O": "output channels (of one group)",
    "I": "input channels (of one group); of a recurrent kernel what comes in, state included",
    "D": "depth",
    "H": "height",
    "W": "width (the only axis of 1-D layers)",
    "C": "channels of a feature map",
    "M": "depth multiplier, or the pieces of a maxout",
    "U": "units",
    "G": "groups in convolutions, gates in recurrent layers",
    "Y": "output rows (locally connected)",
    "X": "output columns (locally connected)",
    "B": "the two biases of a recurrent layer: input, recurrent",
    "F": "the two directions of a bidirectional recurrent layer: forward, backward",
}
SPATIAL = "DHW"
# One letter, one meaning: PyTorch's g and TF's j are the cell gate c, PyTorch's n is the candidate h.
GATE_ALIASES = str.maketrans({"g": "c", "j": "c", "n": "h"})
GATE_SETS = (frozenset("ifco"), frozenset("zrh"))


class Layout(Struct, frozen=True, dict=True):
    """A layout as a value: hashable, comparable, and equal to what its own text or JSON parses to.

    ``axes``
        one string per stored axis: a letter, several letters for a grouped axis, ``1`` for a unit axis,
        ``?`` inside a group for a make-up that was not declared.
    ``flipped``
        every spatial axis of the kernel runs backwards relative to cross-correlation.
    ``values``
        rare: the order in which the values really run, in C order, where it is not the order of ``axes``
        (Keras <= 2.2.4 shapes the channels_first bias of LocallyConnected2D Y, X, O and reads it as O, Y, X).
        Where it leaves out the gates' G, it is the order within the block of each gate (the kernels of CuDNN).
    ``sizes``
        the declared sizes of letters inside groups.
    ``gates``
        the order of recurrent gates along G (``ifco``, ``zrh``, or a part of them).
    """

    axes: tuple[str, ...]
    flipped: bool = False
    values: tuple[str, ...] | None = None
    sizes: tuple[tuple[str, int], ...] = ()
    gates: str | None = None

    def __post_init__(self) -> None:
        _validate(self)
        if self.values in (self.axes, tuple("".join(self.axes).replace("G", "")) if self.gates else None):
            force_setattr(self, "values", None)
        order = {letter: i for i, letter in enumerate("".join(self.axes))}
        force_setattr(self, "sizes", tuple(sorted(self.sizes, key=lambda item: order[item[0]])))

    @staticmethod
    def parse(text: str) -> Layout:
        """The layout that a text such as ``(HWC)O H=4 W=4 C=128`` or ``OIHW flipped`` declares.

        Raises LayoutError with the place that does not parse.
        """
        return _parse(text)

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        words = ["".join(_bracketed(axis) for axis in self.axes) or "()"]
        if self.flipped:
            words.append("flipped")
        if self.values:
            words.append("values=" + "".join(self.values))
        words += [f"{letter}={size}" for letter, size in self.sizes]
        if self.gates:
            words.append(f"G={self.gates}")
        return " ".join(words)

    def as_json(self) -> str:
        """The JSON form of a layout is its text."""
        return str(self)

    @property
    def rank(self) -> int:
        return len(self.axes)

    @property
    def letters(self) -> str:
        """Every letter once, in stored order, unit axes left out."""
        return "".join(self.axes).replace("1", "")

    @property
    def spatial(self) -> str:
        """The spatial letters that stand on axes of their own: those that ``flipped`` speaks of."""
        return "".join(axis for axis in self.axes if axis in SPATIAL)

    def size(self, letter: str) -> int | None:
        """The declared size of a letter, the number of gates for a gate axis; None if not declared."""
        if letter == "G" and self.gates:
            return len(self.gates)
        return dict(self.sizes).get(letter)

    def with_sizes(self, sizes: Mapping[str, int]) -> Layout:
        """The same layout with more sizes declared; those of letters that stand alone are left out."""
        grouped = {letter for axis in self.axes if len(axis) > 1 for letter in axis}
        merged = {**{k: v for k, v in sizes.items() if k in grouped}, **dict(self.sizes)}
        if self.gates:
            merged.pop("G", None)
        if len(merged) == len(self.sizes):
            return self
        return Layout(self.axes, self.flipped, self.values, tuple(merged.items()), self.gates)

    @property
    def unsettled(self) -> str:
        """The letters in groups that no shape could take apart: two or more of a group have no declared size."""
        groups = [[letter for letter in axis if self.size(letter) is None] for axis in self.axes if "?" not in axis]
        return "".join(letter for group in groups if len(group) > 1 for letter in group)

    def check(self, shape: Sequence[int]) -> str | None:
        """What in a shape refutes this layout, or None. Never says what a shape might mean."""
        if len(shape) != len(self.axes):
            return f"layout {self} has {self.rank} axes, shape {tuple(shape)} has {len(shape)}"
        for k, product, complete in self._bounds:
            axis, extent = self.axes[k], shape[k]
            if axis == "1" and extent != 1:
                return f"layout {self} has a unit axis where shape {tuple(shape)} has {extent}"
            fits = product == extent if complete else extent % product == 0 if product else extent == 0
            if not fits:
                return f"layout {self}: axis {_bracketed(axis)} cannot have the {extent} of shape {tuple(shape)}"
        return None

    @cached_property
    def _bounds(self) -> tuple[tuple[int, int, bool], ...]:
        """The axes that can refute a shape, each with the product of its known sizes and whether all are known."""
        found = []
        for k, axis in enumerate(self.axes):
            known = [1] if axis == "1" else [size for size in map(self.size, axis) if size is not None]
            if known:
                found.append((k, math.prod(known), len(known) == len(axis)))
        return tuple(found)

    def extents(self, shape: Sequence[int]) -> dict[str, int]:
        """The size of every letter that the declared sizes and a shape together settle."""
        found = {letter: size for letter in self.letters if (size := self.size(letter)) is not None}
        for axis, extent in zip(self.axes, shape, strict=True):
            unknown = [letter for letter in axis if letter not in found and letter != "1"]
            if len(unknown) == 1:
                known = math.prod(found[letter] for letter in axis if letter in found)
                if known:
                    found[unknown[0]] = extent // known
        return found


def _bracketed(axis: str) -> str:
    return axis if len(axis) == 1 and axis != "?" else f"({axis})"


def _validate(layout: Layout) -> None:
    letters = layout.letters
    text = "".join(map(_bracketed, layout.axes))
    repeated = sorted({letter for letter in letters if letters.count(letter) > 1})
    if repeated:
        raise LayoutError(f"layout {text}: each letter may stand once, {', '.join(repeated)} does not")
    unknown = sorted(set(letters) - set(LETTERS) - {"?"})
    if unknown:
        raise LayoutError(
            f"layout {text}: no axis is called {', '.join(unknown)}",
            remedy="axes are " + ", ".join(f"{k} ({v})" for k, v in LETTERS.items()),
        )
    if any(len(axis) != 1 and (not axis or "1" in axis or "?" in axis) for axis in layout.axes):
        raise LayoutError(f"layout {text}: neither a unit axis nor ? can be part of a group")
    if layout.flipped and (
        not layout.spatial or any(letter in SPATIAL and letter not in layout.spatial for letter in letters)
    ):
        raise LayoutError(
            f"layout {text}: flipped speaks of spatial axes D, H, W, and here they do not all stand alone"
        )
    if len({letter for letter, _ in layout.sizes}) < len(layout.sizes):
        raise LayoutError(f"layout {text}: the size of a letter is given twice")
    for letter, size in layout.sizes:
        if letter not in letters or letter == "?":
            raise LayoutError(f"layout {text}: the size of {letter} is given, but {letter} is no axis of it")
        if size < 0:
            raise LayoutError(f"layout {text}: {letter}={size} is no size")
    if layout.gates is not None:
        if "G" not in letters:
            raise LayoutError(f"layout {text}: gates {layout.gates} are given, but G is no axis of it")
        once = len(set(layout.gates)) == len(layout.gates) > 0
        if not once or not any(set(layout.gates) <= gates for gates in GATE_SETS):
            raise LayoutError(
                f"layout {text}: {layout.gates!r} is no order of gates",
                remedy="gates are i f c o (LSTM; g and j mean c) or z r h (GRU; n means h), each once",
            )
        if any(letter == "G" for letter, _ in layout.sizes):
            raise LayoutError(f"layout {text}: G is given both as gates and as a number")
    if layout.values is not None and not _reorders(layout.values, layout.axes, layout.gates):
        raise LayoutError(
            f"layout {text}: values={''.join(layout.values)} must hold the same axes, each a single letter",
            remedy="only the gates' G may be left out, with letters that share its axis: I(GU) values=UI G=ifco",
        )


def _reorders(values: tuple[str, ...], axes: tuple[str, ...], gates: str | None) -> bool:
    """Whether ``values`` is an order of the axes, or of what each gate's block has."""
    if gates and "G" not in values:
        axes = tuple(letter for axis in axes for letter in (axis.replace("G", "") if "G" in axis else (axis,)))
    return sorted(values) == sorted(axes) and all(len(axis) == 1 and axis != "?" for axis in axes)


_AXES = re.compile(r"(?:[A-Z1]|\([A-Z?]+\))*|\(\)")
_AXIS = re.compile(r"\(([A-Z?]+)\)|([A-Z1])")


@lru_cache(maxsize=4096)
def _parse(text: str) -> Layout:
    words = [word for word in text.split(" ") if word]
    if not words or not _AXES.fullmatch(words[0]):
        raise LayoutError(
            f"{text!r} is no layout",
            remedy="a layout reads like HWIO, OIHW flipped, (HWC)O H=4 W=4 C=128, I(GU) G=ifco",
        )
    axes = tuple(group or letter for group, letter in _AXIS.findall(words[0]))
    flipped, gates, values = False, None, None
    sizes: dict[str, int] = {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        if word == "flipped" and not flipped:
            flipped = True
        elif key == "values" and value and "?" not in value and values is None:
            values = tuple(value)
        elif key == "G" and value.isalpha() and value.isascii() and gates is None:
            gates = value.translate(GATE_ALIASES)
        elif len(key) == 1 and value.isdecimal() and value.isascii() and len(value) < 19 and key not in sizes:
            sizes[key] = int(value)
        else:
            raise LayoutError(f"{text!r} is no layout: {word!r} is not understood")
    return Layout(axes, flipped, values, tuple(sizes.items()), gates)


def settled_forms(layout: Layout) -> str:
    """What to write for a layout whose ``(?)`` nobody declared. The other axes stay where they are stored."""
    text = str(layout)
    alone = "C" if layout.letters == "?" else "I"
    forms = (" ".join((text.replace("?", order), *(f"{axis}=.." for axis in order))) for order in ("HWC", "CHW"))
    return f"{', '.join(forms)}, or {text.replace('(?)', alone)} if it is no flattened map"


def ungrouped(layout: Layout, letter: str) -> Layout:
    """The layout in which the group that holds ``letter`` is split into single axes."""
    axes: Iterable[str] = (
        part for axis in layout.axes for part in (tuple(axis) if letter in axis and len(axis) > 1 else (axis,))
    )
    return Layout(tuple(axes), layout.flipped, layout.values, (), layout.gates).with_sizes(dict(layout.sizes))
