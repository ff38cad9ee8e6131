"""What two files of the same weights tell of each other: which tensor is which, and how the unknown one is laid out.

One file, A, declares roles and layouts; the other, B, does not. A pair is found by content, which no layout changes,
and its layout by trying all of them. What more than one explanation fits is undetermined, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from wio.adapter import Convention
from wio.bundle import Bundle, Tensor
from wio.comparing.diff import Duplicate, duplicates_of
from wio.comparing.matching import is_constant
from wio.comparing.relation import essence, holds, layouts_of_shape, layouts_that_fit, orders_that_fit
from wio.errors import LayoutError
from wio.inferring.pairing import Ambiguous, Paired, gates_apart, pairs_by_content
from wio.inferring.structure import propose
from wio.layout import Layout
from wio.roles import NOT_WEIGHTS, same_axes

STRUCTURE = "structure"


class Match(Struct, frozen=True):
    """``b`` of the unknown file is ``a`` of the known one, and so has its role.

    ``layouts``   those under which ``b`` holds the values of ``a``; of a proposal, those that its shape allows.
    ``evidence``  ``content``: the same values in whatever order. ``layer``: several tensors hold these values, and this
                  one stands beside weights that are paired by content. ``structure``: shapes and order only.
    ``doubts``    why this is not the only explanation; none if it is.
    ``orders``    where ``a`` has no layout: what makes its array that of ``b``.
    """

    a: str
    b: str
    role: str | None
    layouts: tuple[Layout, ...]
    evidence: str
    doubts: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()

    @property
    def determined(self) -> bool:
        """Whether name and layout have this one explanation."""
        return not self.doubts

    @property
    def proposed(self) -> bool:
        """Whether nothing in the values speaks for it."""
        return self.evidence == STRUCTURE

    def as_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "role": self.role,
            "layouts": [str(layout) for layout in self.layouts],
            "evidence": self.evidence,
            "proposal": self.proposed,
            "determined": self.determined,
            "reason": "; ".join(self.doubts) or None,
            "orders": list(self.orders),
        }


class Inference(Struct, frozen=True):
    """What was learnt: pairs in the order of B, what has no partner, and groups of tensors of one content.

    ``left_out``: optimizer slots, counters and the like, which no dialect names, and tensors without a partner that A
    does not declare. ``duplicates``: further names of one storage, which are not paired.
    """

    pairs: tuple[Match, ...]
    unpaired_a: tuple[str, ...]
    unpaired_b: tuple[str, ...]
    ambiguous: tuple[Ambiguous, ...] = ()
    left_out: tuple[str, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()

    @property
    def determined(self) -> bool:
        """Everything paired, and every name and layout with one explanation."""
        return not self.unpaired_a and not self.unpaired_b and all(pair.determined for pair in self.pairs)

    def as_json(self) -> dict[str, Any]:
        return {
            "determined": self.determined,
            "pairs": [pair.as_json() for pair in self.pairs],
            "unpaired_a": list(self.unpaired_a),
            "unpaired_b": list(self.unpaired_b),
            "ambiguous": [{"a": list(g.a), "b": list(g.b), "reason": g.reason} for g in self.ambiguous],
            "left_out": list(self.left_out),
            "duplicates": [asdict(each) for each in self.duplicates],
        }


def infer(a: Bundle, b: Bundle, usual: Convention, *, structure: bool = False) -> Inference:
    """What A, whose tensors are declared, tells of B. Reads every tensor that could have a partner.

    ``usual`` is the convention of B's format. It decides nothing: of layouts that differ in axes of length 1 only, it
    says which is named. ``structure`` proposes partners by order and shape for what content does not pair; where it
    pairs nothing at all, that is done anyway.
    """
    duplicates = tuple(duplicates_of(a, b))
    again = {(each.side, each.name) for each in duplicates}
    left, right = (
        Bundle((t for t in side.values() if t.role not in NOT_WEIGHTS and (key, t.name) not in again), side.metadata)
        for key, side in (("a", a), ("b", b))
    )
    left = gates_apart(left, right)
    pairs, groups = pairs_by_content(left, right)
    matches = [_by_content(pair, usual) for pair in pairs]
    rest_a, rest_b = (
        [name for name in side if name not in used]
        for side, used in ((left, {match.a for match in matches}), (right, {match.b for match in matches}))
    )
    if structure or not matches:
        proposed = propose([left[name] for name in rest_a], [right[name] for name in rest_b])
        matches += [_by_structure(x, y, why, usual) for x, y, why in proposed]
        gone = {x.name for x, _, _ in proposed}, {y.name for _, y, _ in proposed}
        rest_a, rest_b = ([n for n in rest if n not in g] for rest, g in zip((rest_a, rest_b), gone, strict=True))
    order = {name: place for place, name in enumerate(right)}
    matches.sort(key=lambda match: order[match.b])
    if any(tensor.role is not None for tensor in left.values()):
        # A graph's own constants, which it does not declare, say nothing of B.
        rest_a = [name for name in rest_a if left[name].role is not None]
    left_out = tuple(name for side in (a, b) for name, tensor in side.items() if tensor.role in NOT_WEIGHTS)
    left_out += tuple(name for name in left if name not in rest_a and name not in {match.a for match in matches})
    return Inference(tuple(matches), tuple(rest_a), tuple(rest_b), groups, left_out, duplicates)


def _by_content(pair: Paired, usual: Convention) -> Match:
    x, y, evidence, told = pair.a, pair.b, pair.evidence, list(pair.doubts)
    if x.role is not None and y.role not in (None, x.role):
        told.append(f"its own file says it is {y.role}")
    if x.layout is None:
        orders = orders_that_fit(x.numpy(), y.numpy())
        told.append("A does not declare it")
        return Match(x.name, y.name, x.role, (), evidence, tuple(told), tuple(orders))
    layouts = _with_usual(layouts_that_fit(x, y), x, y, usual)
    if y.layout is not None and layouts:
        if _fits(x, y.layout, y):
            layouts = [y.layout]
        else:
            told.append(f"its own file says {y.layout}, under which it does not hold these values")
    if not layouts:
        told.append(f"the same values in an order that no layout of {x.role} explains")
    elif len(layouts) > 1:
        told.append(_why_several(layouts, x))
    return Match(x.name, y.name, x.role, tuple(layouts), evidence, tuple(dict.fromkeys(told)))


def _with_usual(layouts: list[Layout], x: Tensor, y: Tensor, usual: Convention) -> list[Layout]:
    """The layouts with that of the format first and in its own words, if it is one of them."""
    own = None if x.layout is None else same_axes(x.layout, usual.layouts.get(x.role or "", ()))
    if own is None or x.layout is None or not layouts or not _fits(x, own, y):
        return layouts
    extents = x.layout.extents(x.shape)
    settled = x.to(own).layout or own
    return [settled, *(each for each in layouts if essence(each, extents) != essence(settled, extents))][: len(layouts)]


def _fits(x: Tensor, layout: Layout, y: Tensor) -> bool:
    try:
        return layout.check(y.shape) is None and holds(x, layout, y.numpy())
    except LayoutError:
        return False


def _by_structure(x: Tensor, y: Tensor, why: str, usual: Convention) -> Match:
    layouts = layouts_of_shape(x, y.shape)
    own = None if x.layout is None else same_axes(x.layout, usual.layouts.get(x.role or "", ()))
    if y.layout is not None:
        layouts = [y.layout]
    elif own is not None and x.layout is not None and any(x.to(each).shape == x.to(own).shape for each in layouts):
        layouts = [x.to(own).layout or own]
    return Match(x.name, y.name, x.role, tuple(layouts), STRUCTURE, (f"a proposal: {why}; the values differ",))


def _why_several(layouts: list[Layout], x: Tensor) -> str:
    """Why more than one layout fits the values of ``x``."""
    if is_constant(x):
        return "all values are equal"
    first, *others = layouts
    what = "kernel" if (x.role or "").endswith("kernel") else "array"
    extents = first.extents(x.to(first).shape)
    reasons = []
    if any(each.flipped != first.flipped for each in others):
        reasons.append(f"the {what} is the same backwards")
    moved = {letter for each in others for letter in _moved(first, each, extents)}
    if moved:
        letters = [letter for letter in first.letters if letter in moved]
        if len({extents[letter] for letter in letters}) == 1:
            reasons.append(f"{' = '.join(letters)} and the {what} is symmetric")
        else:
            reasons.append(f"the {what} is the same with {', '.join(letters)} in another order")
    gates = {g for each in others for g, h in zip(first.gates or "", each.gates or "", strict=False) if g != h}
    if gates:
        reasons.append(f"the gates {', '.join(g for g in first.gates or '' if g in gates)} hold the same values")
    return ", ".join(reasons)


def _moved(first: Layout, other: Layout, extents: Mapping[str, int]) -> Iterable[str]:
    orders = ([letter for letter in each.letters if extents.get(letter, 1) != 1] for each in (first, other))
    return (letter for letter, instead in zip(*orders, strict=True) if letter != instead)
