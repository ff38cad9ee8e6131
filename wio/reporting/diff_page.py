"""``wio diff --html``: a comparison as a page, the worst pairs first and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from wio.comparing.comparison import EQUAL, SEVERITY, Pair
from wio.comparing.diff import Difference
from wio.reporting.drawing import MOST_CARDS, both_and_difference, card, cards
from wio.reporting.page import page
from wio.reporting.table import Cell, Column, number, table

_COLUMNS = (
    Column("status"),
    Column("A", "name"),
    Column("B", "name"),
    Column("max abs", "number"),
    Column("max rel", "number"),
    Column("cosine", "number"),
    Column("ulps", "number"),
    Column("detail"),
)


def diff_page(found: Difference, a: str, b: str) -> str:
    """A comparison of the files called ``a`` and ``b``. Reads again the pairs that are drawn."""
    facts = [f"A: {a}", f"B: {b}", f"{len(found.pairs)} pairs: {found.summary}" if found.pairs else "no pairs"]
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        facts += [f"{len(names)} only in {side}"] * bool(names)
    if found.left_out:
        facts.append(f"{len(found.left_out)} of one side are no weights (optimizer, counters) and left out")
    facts += [f"in {each.side.upper()}, {each.name} is {each.same_as}" for each in found.duplicates]
    if found.by_digest:
        facts.append("by digest: no bytes were read")
    worst = [pair for pair in found.pairs if pair.status != EQUAL]
    drawn = [_card(found, pair) for pair in worst[:MOST_CARDS]]
    title = "The pairs that differ" if len(worst) <= MOST_CARDS else f"The {MOST_CARDS} worst of {len(worst)} pairs"
    whole = table("pairs", "All tensors, the worst first", _COLUMNS, _rows(found))
    verdict = "equal" if found.equal else "different"
    return page(f"{a} against {b}", verdict, found.equal, facts, [cards(title, drawn), whole])


def _rows(found: Difference) -> Iterator[list[Cell]]:
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        for name in names:
            both = [Cell(name), Cell("")] if side == "A" else [Cell(""), Cell(name)]
            yield [Cell(f"only in {side}", -1, "only"), *both, *[Cell("")] * 5]
    for pair in found.pairs:
        measure = pair.measure
        numbers = [number(pair.max_abs), *[Cell("")] * 3]
        if measure is not None:
            worst = Cell("not finite", inf, "bad") if measure.max_abs is None else number(measure.max_abs)
            numbers = [worst, number(measure.max_rel), number(measure.cosine, 6), number(measure.ulps)]
        status = Cell(pair.status, SEVERITY[pair.status], pair.status)
        yield [status, Cell(pair.a), Cell(pair.b), *numbers, Cell(pair.detail)]


def _card(found: Difference, pair: Pair) -> str:
    other = f"in B: {pair.b}" if pair.b != pair.a else ""
    sides = [side.get(name) for side, name in zip(found.sides or ({}, {}), (pair.a, pair.b), strict=True)]
    if sides[0] is None or sides[1] is None:
        return card(pair.a, (other, pair.detail), (), pair.status)
    drawn = both_and_difference(sides[0], sides[1])
    return card(pair.a, (other, pair.detail, drawn.told), drawn.pictures, pair.status)
