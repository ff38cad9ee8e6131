"""What two files of the same weights tell of each other: which tensor is which, and how the unknown one is laid out.

One file, A, declares roles and layouts; the other, B, does not. A pair is found by content, which no layout changes,
and its layout by trying all of them. What more than one explanation fits is undetermined, and said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wio.adapter import Convention
from wio.bundle import Bundle, Tensor
from wio.diff import Duplicate, duplicates_of
from wio.errors import LayoutError
from wio.gates import take_gates
from wio.infer_structure import propose
from wio.layout import Layout
from wio.matching import is_constant, same_content
from wio.relation import essence, holds, layouts_of_shape, layouts_that_fit, orders_that_fit
from wio.roles import NOT_WEIGHTS, same_axes

CONTENT, LAYER, STRUCTURE = "content", "layer", "structure"


@dataclass(frozen=True)
class Match:
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


@dataclass(frozen=True)
class Ambiguous:
    """Tensors of one content: content does not tell which is which."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Inference:
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
    left = _gates_apart(left, right)
    pairing = _Pairing(left, right)
    matches = [_by_content(x, y, evidence, doubts, usual) for x, y, evidence, doubts in pairing.pairs]
    rest_a, rest_b = pairing.unpaired
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
    groups = tuple(pairing.ambiguous)
    return Inference(tuple(matches), tuple(rest_a), tuple(rest_b), groups, left_out, duplicates)


def _gates_apart(a: Bundle, b: Bundle) -> Bundle:
    """A with those tensors taken apart by gate of which B keeps an array for each gate."""
    paired = {x.name for mine, _ in same_content(a, b) for x in mine}
    tensors = []
    for tensor in a.values():
        gates = tensor.layout.gates if tensor.layout is not None else None
        apart = [tensor]
        if gates and len(gates) > 1 and tensor.name not in paired:
            parts = [take_gates(tensor, gate).changed(name=f"{tensor.name}[{gate}]") for gate in gates]
            apart = parts if same_content(Bundle(parts), b) else apart
        tensors += apart
    return Bundle(tensors, a.metadata)


class _Pairing:
    """Pairs by content: those that have one explanation first, then those that their layer explains."""

    def __init__(self, a: Bundle, b: Bundle) -> None:
        self.pairs: list[tuple[Tensor, Tensor, str, tuple[str, ...]]] = []
        self.ambiguous: list[Ambiguous] = []
        self._used: tuple[set[str], set[str]] = (set(), set())
        open_groups = []
        for mine, theirs in same_content(a, b):
            constant = is_constant(mine[0])
            alone = len(mine) == len(theirs) == 1
            may_be = _by_shape() if constant else _may_be
            possible = {x.name: [y for y in theirs if alone or may_be(x, y)] for x in mine}
            if not constant:
                if len(mine) == len(theirs):
                    _narrow(possible)
                for x, y in _only_each_other(mine, possible):
                    self._pair(x, y, CONTENT, ())
            rest = [x for x in mine if x.name not in self._used[0]], [y for y in theirs if y.name not in self._used[1]]
            if all(rest):
                open_groups.append((*rest, possible, constant))
        for likeness in (_same_layer(self.pairs), _same_layer_and_end(self.pairs)):
            for mine, theirs, possible, constant in open_groups:
                self._alike(mine, theirs, possible, constant, likeness)
        for mine, theirs, possible, constant in open_groups:
            self._in_order(mine, theirs, possible, constant)
        self.unpaired = [n for n in a if n not in self._used[0]], [n for n in b if n not in self._used[1]]

    def _pair(self, x: Tensor, y: Tensor, evidence: str, doubts: tuple[str, ...]) -> None:
        self.pairs.append((x, y, evidence, doubts))
        self._used[0].add(x.name)
        self._used[1].add(y.name)

    def _alike(
        self,
        mine: list[Tensor],
        theirs: list[Tensor],
        possible: Mapping[str, list[Tensor]],
        constant: bool,
        likeness: Callable[[Tensor, Tensor], bool],
    ) -> None:
        """Pairs what is alike and has no second that is."""
        left = [x for x in mine if x.name not in self._used[0]]
        free = {y.name for y in theirs} - self._used[1]
        alike = {x.name: [y for y in possible[x.name] if y.name in free and likeness(x, y)] for x in left}
        for x, y in _only_each_other(left, alike):
            self._pair(x, y, LAYER, (f"{_why_unknown(mine, constant)}: paired by its layer, not by content",))

    def _in_order(
        self, mine: list[Tensor], theirs: list[Tensor], possible: Mapping[str, list[Tensor]], constant: bool
    ) -> None:
        """Pairs what is left where any choice says the same: all of one role. Which is which stays undetermined."""
        left = [x for x in mine if x.name not in self._used[0]]
        right = [y for y in theirs if y.name not in self._used[1]]
        if len(mine) > 1 or len(theirs) > 1:
            names = tuple(x.name for x in mine), tuple(y.name for y in theirs)
            self.ambiguous.append(Ambiguous(*names, "all values are equal" if constant else "the same values"))
        if len({x.role for x in left}) > 1:
            return
        alone = len(mine) == len(theirs) == 1
        how = "paired as the only ones" if alone else "paired in their order, not by content"
        for x in left:
            y = next((y for y in right if y in possible[x.name]), None)
            if y is not None:
                right.remove(y)
                self._pair(x, y, CONTENT, (f"{_why_unknown(mine, constant)}: {how}",))


def _why_unknown(mine: list[Tensor], constant: bool) -> str:
    if constant:
        return "all values are equal" if mine[0].size > 1 else "one value is too little to be known by"
    others = f" and {len(mine) - 3} more" if len(mine) > 3 else ""
    if len(mine) == 1:
        return "B holds these values more than once"
    return f"{', '.join(x.name for x in mine[:3])}{others} hold the same values"


def _may_be(x: Tensor, y: Tensor) -> bool:
    """Whether ``y`` can be ``x``: no other role, and some order of axes makes the two one."""
    if y.role not in (None, x.role) and x.role is not None:
        return False
    if x.layout is None:
        return bool(orders_that_fit(x.numpy(), y.numpy()))
    return bool(layouts_that_fit(x, y))


def _by_shape() -> Callable[[Tensor, Tensor], bool]:
    """As :func:`_may_be` for tensors of one value: of those nothing but what is declared and the shapes counts."""
    known: dict[object, bool] = {}

    def may_be(x: Tensor, y: Tensor) -> bool:
        key = x.role, x.layout, x.shape, y.role, y.shape
        if key not in known:
            known[key] = _may_be(x, y)
        return known[key]

    return may_be


def _narrow(possible: dict[str, list[Tensor]]) -> None:
    """Takes away what cannot be, where each of a group has one partner in the other: what only one can have, it has."""
    changed = True
    while changed:
        before = sum(map(len, possible.values()))
        for name, others in possible.items():
            if len(others) == 1:
                for other, theirs in possible.items():
                    if other != name:
                        possible[other] = [y for y in theirs if y is not others[0]]
        for y in {id(y): y for others in possible.values() for y in others}.values():
            takers = [name for name, others in possible.items() if y in others]
            if len(takers) == 1:
                possible[takers[0]] = [y]
        changed = sum(map(len, possible.values())) < before


def _only_each_other(mine: Iterable[Tensor], possible: Mapping[str, list[Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The pairs of which neither could be paired otherwise."""
    wanted: dict[str, int] = {}
    for others in possible.values():
        for y in others:
            wanted[y.name] = wanted.get(y.name, 0) + 1
    return [
        (x, possible[x.name][0]) for x in mine if len(possible[x.name]) == 1 and wanted[possible[x.name][0].name] == 1
    ]


Found = Iterable[tuple[Tensor, Tensor, str, tuple[str, ...]]]


def _same_layer(pairs: Found) -> Callable[[Tensor, Tensor], bool]:
    """Whether two tensors are of layers that belong together, as the pairs found by then say without contradiction."""
    forward: dict[str, set[str]] = {}
    backward: dict[str, set[str]] = {}
    for x, y, _, _ in pairs:
        forward.setdefault(x.layer, set()).add(y.layer)
        backward.setdefault(y.layer, set()).add(x.layer)

    def alike(x: Tensor, y: Tensor) -> bool:
        return forward.get(x.layer) == {y.layer} and backward.get(y.layer) == {x.layer} and "" not in (x.layer, y.layer)

    return alike


def _same_layer_and_end(pairs: Found) -> Callable[[Tensor, Tensor], bool]:
    """As :func:`_same_layer`, and the pairs say what the end of the other's name means, as ``/moving_mean``."""
    together = _same_layer(pairs)
    roles: dict[str, set[str | None]] = {}
    for x, y, _, _ in pairs:
        roles.setdefault(y.name.removeprefix(y.layer), set()).add(x.role)

    def alike(x: Tensor, y: Tensor) -> bool:
        return together(x, y) and x.role is not None and roles.get(y.name.removeprefix(y.layer)) == {x.role}

    return alike


# --- what a pair says of the layout


def _by_content(x: Tensor, y: Tensor, evidence: str, doubts: tuple[str, ...], usual: Convention) -> Match:
    told = list(doubts)
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
