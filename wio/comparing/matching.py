"""Pairs found by content: the same values in whatever layout, and kernels with a batch norm folded into them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from msgspec.structs import replace

from wio.bundle import Bundle, Tensor
from wio.comparing.comparison import CHANGED, FOLDED, Pair
from wio.comparing.fingerprint import fingerprint
from wio.comparing.folding import batch_norms, biases_by_layer, fold_between

Matched = tuple[list[tuple[Tensor, Tensor]], list[str], list[str]]


def match_by_values(a: Bundle, b: Bundle) -> Matched:
    """Pairs of tensors that hold the same values in any order; what is left over on each side.

    Where several tensors of a side hold the same values, those of one name go together, then those of one role in
    their order. What holds one value only (zeros, ones, a scalar) has no content to be known by: it goes with its
    namesake, with what has its role in a layer that has a pair already, or with none. Reads every tensor that could
    have a partner.
    """
    groups = [(mine, theirs, is_constant(mine[0])) for mine, theirs in same_content(a, b)]
    pairs = [pair for mine, theirs, same in groups if not same for pair in _paired(mine, theirs, _TELLING)]
    layers = {(x.layer, y.layer) for x, y in pairs}

    def beside_a_pair(x: Tensor, y: Tensor) -> bool:
        return x.role is not None and x.role == y.role and (x.layer, y.layer) in layers

    for mine, theirs, same in groups:
        if same:
            pairs += _paired(mine, theirs, (_same_name, beside_a_pair))
    used_a, used_b = {x.name for x, _ in pairs}, {y.name for _, y in pairs}
    return pairs, [n for n in a if n not in used_a], [n for n in b if n not in used_b]


def same_content(a: Bundle, b: Bundle) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The tensors of both sides that hold the same values in any order, together; those without a like left out.

    Reads every tensor that could have a partner.
    """
    sizes = [{(t.dtype.name, t.size) for t in side.values()} for side in (a, b)]
    common = sizes[0] & sizes[1]
    found: list[dict[object, list[Tensor]]] = [{}, {}]
    for side, by_content in zip((a, b), found, strict=True):
        for tensor in side.values():
            if (tensor.dtype.name, tensor.size) in common:
                by_content.setdefault(fingerprint(tensor), []).append(tensor)
    return [(mine, found[1][key]) for key, mine in found[0].items() if key in found[1]]


def is_constant(tensor: Tensor) -> bool:
    """Whether the tensor holds one value only, which tells it from no other of its size. Reads it."""
    array = tensor.numpy()
    return bool(array.size < 2 or (array == array.flat[0]).all())


def _paired(
    mine: list[Tensor], theirs: list[Tensor], likeness: Iterable[Callable[[Tensor, Tensor], bool]]
) -> list[tuple[Tensor, Tensor]]:
    """Partners among tensors of the same values: those alike in the first way, then in the second, and so on."""
    left, right, pairs = list(mine), list(theirs), []
    for alike in likeness:
        for x in list(left):
            partner = next((y for y in right if alike(x, y)), None)
            if partner is not None:
                pairs.append((x, partner))
                left.remove(x)
                right.remove(partner)
    return pairs


def _same_name(x: Tensor, y: Tensor) -> bool:
    return x.name == y.name


def _same_role(x: Tensor, y: Tensor) -> bool:
    return x.role == y.role and x.shape == y.shape


def _same_shape(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape


def _anything(_x: Tensor, _y: Tensor) -> bool:
    return True


_TELLING = (_same_name, _same_role, _same_shape, _anything)


def with_folds(
    a: Bundle, b: Bundle, pairs: list[Pair], only_a: Collection[str], only_b: Collection[str]
) -> tuple[list[Pair], list[str], list[str]]:
    """The pairs with those explained that are one kernel with a batch norm folded in; what is still on one side only.

    Looked at are changed pairs, and kernels that are left over on both sides.
    """
    sides = _Side(a, list(only_a)), _Side(b, list(only_b))
    if not (sides[0].norms or sides[1].norms):
        return pairs, sides[0].alone, sides[1].alone
    result = [_explained(pair, *sides) or pair if pair.status == CHANGED else pair for pair in pairs]
    for name in [name for name in sides[0].alone if _is_kernel(a[name])]:
        for other in [other for other in sides[1].alone if _is_kernel(b[other])]:
            pair = _explained(Pair(name, other, FOLDED), *sides)
            if pair is not None:
                result.append(pair)
                sides[0].alone.remove(name)
                sides[1].alone.remove(other)
                break
    return result, sides[0].alone, sides[1].alone


class _Side:
    """One file: its batch norms, the bias of each layer, and the names that have no partner."""

    def __init__(self, bundle: Bundle, alone: list[str]) -> None:
        self.bundle, self.alone = bundle, alone
        self.norms = batch_norms(bundle.values())
        self.biases = biases_by_layer(bundle)

    def forget(self, names: Iterable[str]) -> None:
        """What went into a fold is no longer without a partner."""
        gone = set(names)
        self.alone = [name for name in self.alone if name not in gone]


def _explained(pair: Pair, a: _Side, b: _Side) -> Pair | None:
    """The pair as ``folded``, one way or the other; None if no batch norm of either side explains it."""
    for plain, folded, x, y in ((a, b, pair.a, pair.b), (b, a, pair.b, pair.a)):
        kernel, product = plain.bundle.get(x), folded.bundle.get(y)
        if kernel is None or product is None or not plain.norms:
            continue
        if (kernel.role, kernel.dtype, kernel.size) != (product.role, product.dtype, product.size):
            continue
        before, after = plain.biases.get(kernel.layer), folded.biases.get(product.layer)
        found = fold_between(kernel, product, plain.norms, (before, after))
        if len(found) > 1:
            names = ", ".join(fold.norm.layer for fold in found)
            detail = f"{y} has a batch norm folded into it, and {len(found)} explain it equally: {names}"
            return replace(pair, status=FOLDED, detail=detail)
        if found:
            fold = found[0]
            said = {True: "; its bias agrees", False: "; its BIAS DOES NOT AGREE", None: ""}[fold.bias]
            detail = f"{y} has the batch norm {fold.norm.layer} folded into it, epsilon {fold.epsilon:g}{said}"
            plain.forget(fold.norm.names)
            if fold.bias:
                plain.forget([before.name] if before is not None else [])
                folded.forget([after.name] if after is not None else [])
            return replace(pair, status=FOLDED, detail=detail)
    return None


def _is_kernel(tensor: Tensor) -> bool:
    return tensor.role is not None and tensor.role.endswith("kernel") and tensor.layout is not None
