"""Hypothesis strategies for texts of layouts, and for pairs of them that hold the same axes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

LETTERS = "OIDHWCMUGYXBF"
SPATIAL = "DHW"
GATES = ("ifco", "zrh")


@dataclass(frozen=True)
class Axes:
    """What a layer's weight is made of: the size of each letter, and its gates if it has some."""

    extents: dict[str, int]
    gates: str | None


@st.composite
def some_axes(draw: st.DrawFn) -> Axes:
    letters = draw(st.lists(st.sampled_from(LETTERS), unique=True, max_size=5))
    # Equal sizes and sizes of 1 are where a wrong order of axes goes unnoticed by shapes.
    extents = {letter: draw(st.sampled_from([1, 2, 2, 3, 3, 4])) for letter in letters}
    gates = None
    if "G" in letters and draw(st.booleans()):
        gates = "".join(draw(st.lists(st.sampled_from(draw(st.sampled_from(GATES))), unique=True, min_size=1)))
        extents["G"] = len(gates)
    return Axes(extents, gates)


@st.composite
def arrangements(draw: st.DrawFn, axes: Axes, *, all_sizes: bool = True) -> str:
    """The canonical text of one way to store such a weight.

    ``all_sizes`` declares the size of every letter in a group; else of all but one of each group.
    """
    order = draw(st.permutations(sorted(axes.extents)))
    groups = _cut(order, draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order))))
    for place in draw(st.lists(st.integers(0, len(groups)), max_size=2)):
        groups.insert(place, "1")
    words = ["".join(group if len(group) == 1 else f"({group})" for group in groups) or "()"]
    single = all(len(group) == 1 for group in groups)
    spatial = [letter for letter in order if letter in SPATIAL]
    if spatial and all(letter in groups for letter in spatial) and draw(st.booleans()):
        words.append("flipped")
    if single and draw(st.booleans()):
        values = draw(st.permutations(groups))
        if values != groups:
            words.append("values=" + "".join(values))
    elif axes.gates and all(len(group) == 1 or "G" in group for group in groups) and draw(st.booleans()):
        inside = [letter for group in groups for letter in group if letter != "G"]
        values = draw(st.permutations(inside))
        if values != inside:
            words.append("values=" + "".join(values))
    declared = set()
    for group in groups:
        if len(group) > 1:
            left_out = None if all_sizes else draw(st.sampled_from(group))
            declared |= set(group) - {left_out}
    words += [
        f"{letter}={axes.extents[letter]}" for letter in order if letter in declared and not _is_gate(letter, axes)
    ]
    if axes.gates:
        words.append("G=" + "".join(draw(st.permutations(axes.gates))))
    return " ".join(words)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, Axes]:
    axes = draw(some_axes())
    return draw(arrangements(axes, all_sizes=draw(st.booleans()))), axes


@st.composite
def pairs(draw: st.DrawFn, count: int = 2) -> tuple[list[str], Axes]:
    """Several layouts of one weight."""
    axes = draw(some_axes())
    return [draw(arrangements(axes)) for _ in range(count)], axes


def _is_gate(letter: str, axes: Axes) -> bool:
    return letter == "G" and axes.gates is not None


def _cut(letters: list[str], joined: list[bool]) -> list[str]:
    groups: list[str] = []
    for letter, join in zip(letters, joined, strict=True):
        if join and groups:
            groups[-1] += letter
        else:
            groups.append(letter)
    return groups
