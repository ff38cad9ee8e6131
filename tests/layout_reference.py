"""Layouts a second time, the slow way: one element at a time, by axis letters, without NumPy and without wio.

What ``spec/wio-1.md`` says of layouts, written down again as directly as it can be, so that tests can compare wio with
it, and so that the test vectors do not come from the code that they test.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

# A place in a layer: the letter of each axis with the index (or the gate) along it. It does not depend on storage.
Place = frozenset[tuple[str, object]]


def axes_of(text: str) -> list[str]:
    """The axes of a layout's text, groups without their parentheses."""
    return [group or letter for group, letter in re.findall(r"\(([A-Z?]+)\)|([A-Z1])", text.split()[0])]


def gates_of(text: str) -> str | None:
    found = re.search(r" G=([a-z]+)", text)
    return found[1].replace("g", "c").replace("j", "c").replace("n", "h") if found else None


def values_of(text: str) -> list[str] | None:
    found = re.search(r" values=(\w+)", text)
    return list(found[1]) if found else None


def by_gate(text: str, extents: Mapping[str, int]) -> list[dict[str, int]]:
    """The indices of each stored element where ``values`` leave out G: each gate's elements one by one."""
    stored = [letter for axis in axes_of(text) for letter in axis]
    inside, given = [letter for letter in stored if letter != "G"], values_of(text) or []
    counts = dict.fromkeys(range(extents["G"]), 0)
    found = []
    for indices in itertools.product(*(range(extents.get(letter, 1)) for letter in stored)):
        gate = indices[stored.index("G")]
        number, place = counts[gate], {"G": gate}
        counts[gate] += 1
        for letter in reversed(given):
            number, place[letter] = divmod(number, extents.get(letter, 1))
        found.append(place)
    assert sorted(inside) == sorted(given)
    return found


def shape_of(text: str, extents: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an array stored in a layout, given the size of each letter."""
    return tuple(math.prod(1 if letter == "1" else extents[letter] for letter in axis) for axis in axes_of(text))


def places(text: str, extents: Mapping[str, int]) -> Iterator[Place]:
    """The place in the layer of each stored element, in the order in which the elements are stored."""
    order = [letter for axis in values_of(text) or axes_of(text) for letter in axis]
    gates = gates_of(text)
    if gates and values_of(text) and "G" not in order:
        elements: Iterable[dict[str, int]] = by_gate(text, extents)
    else:
        ranges = (range(1 if letter == "1" else extents[letter]) for letter in order)
        elements = (dict(zip(order, indices, strict=True)) for indices in itertools.product(*ranges))
    for element in elements:
        place: set[tuple[str, object]] = set()
        for letter, index in element.items():
            if letter == "1":
                continue
            if letter == "G" and gates:
                place.add((letter, gates[index]))
            elif letter in "DHW" and " flipped" in text:
                place.add((letter, extents[letter] - 1 - index))
            else:
                place.add((letter, index))
        yield frozenset(place)


def rearranged(elements: Sequence[object], source: str, target: str, extents: Mapping[str, int]) -> list[object]:
    """Elements stored in layout ``source``, in the order in which layout ``target`` stores them."""
    by_place = dict(zip(places(source, extents), elements, strict=True))
    return [by_place[place] for place in places(target, extents)]
