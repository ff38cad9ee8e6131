"""Which tensor of one file is which of the other, by content: the only explanation first, then likeness of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from wio.bundle import Bundle, Tensor
from wio.comparing.matching import is_constant, same_content
from wio.comparing.relation import layouts_that_fit, orders_that_fit
from wio.gates import take_gates

CONTENT, LAYER = "content", "layer"
Likeness = Callable[[Tensor, Tensor], bool]


class Paired(Struct, frozen=True):
    """``b`` is ``a``: found by ``evidence``, and why that is not the only explanation, if it is not."""

    a: Tensor
    b: Tensor
    evidence: str = CONTENT
    doubts: tuple[str, ...] = ()


class Ambiguous(Struct, frozen=True):
    """Tensors of one content: content does not tell which is which."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    reason: str


def pairs_by_content(a: Bundle, b: Bundle) -> tuple[list[Paired], tuple[Ambiguous, ...]]:
    """The pairs, and the groups in which content does not tell which is which. Reads what could have a partner."""
    groups = [_Group(mine, theirs) for mine, theirs in same_content(a, b)]
    pairs = [pair for group in groups for pair in group.certain()]
    for likeness in (_same_layer(pairs), _same_layer_and_end(pairs)):
        for group in groups:
            pairs += group.alike(likeness)
    ambiguous = tuple(group.as_ambiguous() for group in groups if group.unsettled)
    for group in groups:
        pairs += group.in_order()
    return pairs, ambiguous


def gates_apart(a: Bundle, b: Bundle) -> Bundle:
    """A with those tensors taken apart by gate of which B keeps an array for each gate."""
    if not any(tensor.layout is not None and tensor.layout.gates for tensor in a.values()):
        return a
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


class _Group:
    """Tensors of one content; ``left`` and ``right`` are those that have no partner yet."""

    def __init__(self, mine: list[Tensor], theirs: list[Tensor]) -> None:
        self.left, self.right = list(mine), list(theirs)
        self._constant = is_constant(mine[0])
        self._alone = len(mine) == len(theirs) == 1
        may_be = _by_shape() if self._constant else _may_be
        self._possible = {x.name: [y for y in theirs if self._alone or may_be(x, y)] for x in mine}
        self._mine: list[Tensor] = []
        self._theirs: list[Tensor] = []

    def certain(self) -> list[Paired]:
        """Those pairs that are the only explanation. What holds one value only could be anything of its size."""
        found = []
        if not self._constant:
            if len(self.left) == len(self.right):
                _narrow(self._possible)
            found = [self._pair(x, y) for x, y in _only_each_other(self.left, self._possible)]
        self._mine, self._theirs = list(self.left), list(self.right)
        return found

    def alike(self, likeness: Likeness) -> list[Paired]:
        """Pairs what is alike and has no second that is."""
        alike = {x.name: [y for y in self._possible[x.name] if y in self.right and likeness(x, y)] for x in self.left}
        why = f"{self._why()}: paired by its layer, not by content"
        return [self._pair(x, y, LAYER, why) for x, y in _only_each_other(list(self.left), alike)]

    def in_order(self) -> list[Paired]:
        """Pairs what is left where any choice says the same: all of one role. Which is which stays undetermined."""
        if len({x.role for x in self.left}) > 1:
            return []
        how = "paired as the only ones" if self._alone else "paired in their order, not by content"
        found = []
        for x in list(self.left):
            y = next((y for y in self.right if y in self._possible[x.name]), None)
            if y is not None:
                found.append(self._pair(x, y, CONTENT, f"{self._why()}: {how}"))
        return found

    @property
    def unsettled(self) -> bool:
        """Whether several tensors could be each other."""
        return bool(self._mine and self._theirs) and len(self._mine) + len(self._theirs) > 2

    def as_ambiguous(self) -> Ambiguous:
        names = tuple(x.name for x in self._mine), tuple(y.name for y in self._theirs)
        return Ambiguous(*names, "all values are equal" if self._constant else "the same values")

    def _pair(self, x: Tensor, y: Tensor, evidence: str = CONTENT, *doubts: str) -> Paired:
        self.left.remove(x)
        self.right.remove(y)
        return Paired(x, y, evidence, doubts)

    def _why(self) -> str:
        names = [x.name for x in self._mine]
        if self._constant:
            return "all values are equal" if self._mine[0].size > 1 else "one value is too little to be known by"
        if len(names) == 1:
            return "B holds these values more than once"
        return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} hold the same values"


def _may_be(x: Tensor, y: Tensor) -> bool:
    """Whether ``y`` can be ``x``: no other role, and some order of axes makes the two one."""
    if y.role not in (None, x.role) and x.role is not None:
        return False
    if x.layout is None:
        return bool(orders_that_fit(x.numpy(), y.numpy()))
    return bool(layouts_that_fit(x, y))


def _by_shape() -> Likeness:
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
    single = ((x, possible[x.name][0]) for x in mine if len(possible[x.name]) == 1)
    return [(x, y) for x, y in single if wanted[y.name] == 1]


def _same_layer(pairs: Iterable[Paired]) -> Likeness:
    """Whether two tensors are of layers that belong together, as the pairs found by then say without contradiction."""
    forward: dict[str, set[str]] = {}
    backward: dict[str, set[str]] = {}
    for x, y in ((pair.a, pair.b) for pair in pairs):
        forward.setdefault(x.layer, set()).add(y.layer)
        backward.setdefault(y.layer, set()).add(x.layer)

    def alike(x: Tensor, y: Tensor) -> bool:
        return forward.get(x.layer) == {y.layer} and backward.get(y.layer) == {x.layer} and "" not in (x.layer, y.layer)

    return alike


def _same_layer_and_end(pairs: Iterable[Paired]) -> Likeness:
    """As :func:`_same_layer`, and the pairs say what the end of the other's name means, as ``/moving_mean``."""
    together = _same_layer(pairs)
    roles: dict[str, set[str | None]] = {}
    for x, y in ((pair.a, pair.b) for pair in pairs):
        roles.setdefault(y.name.removeprefix(y.layer), set()).add(x.role)

    def alike(x: Tensor, y: Tensor) -> bool:
        return together(x, y) and x.role is not None and roles.get(y.name.removeprefix(y.layer)) == {x.role}

    return alike
