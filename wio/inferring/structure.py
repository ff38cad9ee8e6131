"""Partners proposed from structure alone, for files whose values differ: shapes, order in the file, siblings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from difflib import SequenceMatcher

from wio.bundle import Tensor

Proposal = tuple[Tensor, Tensor, str]


def propose(a: Iterable[Tensor], b: Iterable[Tensor]) -> list[Proposal]:
    """Pairs of tensors, each of one shape up to the order of its axes, and what speaks for it.

    First what is the only one of its shape and siblings on either side, wherever it stands; then what stands in the
    same order among tensors of its shape and siblings; then the rest by the order of their shapes alone.
    """
    left, right = list(a), list(b)
    kin = _with_siblings(left), _with_siblings(right)
    found: list[Proposal] = []
    counts: list[dict[Hashable, int]] = [{}, {}]
    for tensors, tokens, count in zip((left, right), kin, counts, strict=True):
        for tensor in tensors:
            count[tokens(tensor)] = count.get(tokens(tensor), 0) + 1
    alone = {kin[1](y): y for y in right if counts[1][kin[1](y)] == 1}
    for x in left:
        y = alone.get(kin[0](x))
        if y is not None and counts[0][kin[0](x)] == 1:
            found.append((x, y, "the only one of its shape and siblings"))
    found += _in_order(*_rest(left, right, found), kin, "the same place among tensors of its shape and siblings")
    found += _in_order(*_rest(left, right, found), (_shape, _shape), "the same place among tensors of its shape")
    return [(x, y, why) for x, y, why in found if None in (x.role, y.role) or x.role == y.role]


def _shape(tensor: Tensor) -> Hashable:
    """The shape without order and axes of length 1."""
    return tensor.dtype.name, tuple(sorted(extent for extent in tensor.shape if extent != 1))


def _with_siblings(tensors: Iterable[Tensor]) -> Callable[[Tensor], Hashable]:
    """A tensor's shape together with those of the tensors of its layer."""
    layers: dict[str, list[Hashable]] = {}
    for tensor in tensors:
        layers.setdefault(tensor.layer, []).append(_shape(tensor))
    kinds = {layer: tuple(sorted(map(repr, shapes))) for layer, shapes in layers.items()}
    return lambda tensor: (_shape(tensor), kinds[tensor.layer])


def _rest(a: list[Tensor], b: list[Tensor], found: list[Proposal]) -> tuple[list[Tensor], list[Tensor]]:
    used = {id(tensor) for x, y, _ in found for tensor in (x, y)}
    return [x for x in a if id(x) not in used], [y for y in b if id(y) not in used]


def _in_order(
    a: list[Tensor], b: list[Tensor], tokens: tuple[Callable[[Tensor], Hashable], ...], why: str
) -> list[Proposal]:
    matcher = SequenceMatcher(None, list(map(tokens[0], a)), list(map(tokens[1], b)), autojunk=False)
    blocks = matcher.get_matching_blocks()
    return [(a[block.a + k], b[block.b + k], why) for block in blocks for k in range(block.size)]
