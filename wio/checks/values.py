"""Rules over values. Each tensor is read once, in pieces; of each a few numbers are kept until all are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from wio.bundle import Tensor
from wio.checks.finding import ERROR, NOTE, WARNING, Finding, listed
from wio.container import verified
from wio.lazy import Array, np
from wio.roles import NOT_WEIGHTS

_PIECE = 1 << 20
# What initialisers leave in these, and training may leave so: no sign that a tensor was not filled.
_INITIAL = {"bias": (0.0, 1.0), "beta": (0.0,), "gamma": (1.0,), "alpha": (0.0, 0.25)}
_STATISTICS = ("batch_norm.mean", "batch_norm.variance")


class Seen(Struct, frozen=True):
    """What is kept of a tensor: ``lowest`` and ``highest`` leave NaN and infinity out, and are None without numbers."""

    tensor: Tensor
    not_finite: int
    first_not_finite: int | None
    lowest: float | None
    highest: float | None
    digest: str

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def constant(self) -> float | None:
        """The one value that it has everywhere, be it of one element."""
        return self.lowest if not self.not_finite and self.lowest == self.highest else None

    @property
    def is_weight(self) -> bool:
        """Whether it is declared to be a weight: of what is not, nobody can say what its values should be."""
        return self.tensor.role is not None and self.tensor.role not in NOT_WEIGHTS

    @property
    def part(self) -> str:
        return (self.tensor.role or "").rpartition(".")[2]


def check_values(tensors: Iterable[Tensor], progress: Callable[[int], None] | None = None) -> list[Finding]:
    """What the values of a file say against it. Reads every tensor; a damaged one raises FormatError."""
    seen = []
    for tensor in tensors:
        found = _seen(tensor)
        if found is not None:
            seen.append(found)
        if progress:
            progress(tensor.nbytes)
    untrained = list(_untrained(seen))
    told = {name for finding in untrained for name in finding.tensors}
    return [
        *_not_finite(seen),
        *_not_positive(seen),
        *untrained,
        *_constant([each for each in seen if each.name not in told]),
        *_duplicated(seen),
    ]


def _seen(tensor: Tensor) -> Seen | None:
    """A tensor's numbers; None for one without any (strings, no elements)."""
    if tensor.size == 0 or tensor.dtype.name in ("string", "variant"):
        return None
    array = verified(tensor).numpy()
    if array.dtype == object:
        return None
    flat = array.reshape(-1)
    digest = hashlib.sha256()
    count, first, lowest, highest = 0, None, None, None
    for begin in range(0, flat.size, _PIECE):
        piece = np.ascontiguousarray(flat[begin : begin + _PIECE])
        digest.update(piece.view(np.uint8).data)
        numbers = _numbers(piece)
        if numbers is None:
            continue
        finite = np.isfinite(numbers)
        bad = int(finite.size - finite.sum())
        if bad:
            first = begin + int(np.argmin(finite)) if first is None else first
            count += bad
            numbers = numbers[finite]
        if numbers.size:
            low, high = float(numbers.min()), float(numbers.max())
            lowest = low if lowest is None else min(lowest, low)
            highest = high if highest is None else max(highest, high)
    return Seen(tensor, count, first, lowest, highest, digest.hexdigest())


def _numbers(piece: Array) -> Array | None:
    """The values as real numbers that can be compared; None for kinds that are not."""
    if piece.dtype.kind in "fiub":
        return piece
    if piece.dtype.kind == "c":
        return piece.view(np.float32 if piece.dtype.itemsize == 8 else np.float64)
    try:
        # bfloat16 and the 8-bit floats of ml_dtypes are of kind V: single precision holds all of them.
        return piece.astype(np.float32)
    except (TypeError, ValueError):
        return None


def _not_finite(seen: list[Seen]) -> Iterator[Finding]:
    for each in seen:
        if each.first_not_finite is not None:
            place = each.tensor.shape and _index(each.first_not_finite, each.tensor.shape)
            evidence = f"{each.not_finite} of {each.tensor.size} values are NaN or infinite, the first at {place}"
            yield Finding("not-finite", NOTE if each.tensor.role in NOT_WEIGHTS else ERROR, each.name, evidence)


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    found = []
    for size in reversed(shape):
        flat, place = divmod(flat, size)
        found.append(place)
    return tuple(reversed(found))


def _not_positive(seen: list[Seen]) -> Iterator[Finding]:
    for each in seen:
        if each.tensor.role == "batch_norm.variance" and each.lowest is not None and each.lowest <= 0:
            kind = "zero" if each.lowest == 0 else "negative"
            yield Finding("variance-not-positive", ERROR, each.name, f"the smallest is {each.lowest:g}: {kind}")


def _untrained(seen: list[Seen]) -> Iterator[Finding]:
    layers: dict[str, dict[str, Seen]] = {}
    for each in seen:
        if (each.tensor.role or "").startswith("batch_norm."):
            layers.setdefault(each.tensor.layer, {})[str(each.tensor.role)] = each
    found: list[tuple[str, tuple[str, ...], bool]] = []
    for layer, parts in layers.items():
        mean, variance = (parts.get(role) for role in _STATISTICS)
        if mean is None or variance is None or (mean.constant, variance.constant) != (0.0, 1.0):
            continue
        initial = all(each.constant in _INITIAL[each.part] for each in parts.values() if each.part in _INITIAL)
        found.append((layer, tuple(each.name for each in parts.values()), initial))
    if len(found) > 5 and len(found) == len(layers):
        evidence = f"mean 0 and variance 1 in all {len(found)} batch norms: {listed([layer for layer, *_ in found])}"
        yield Finding("untrained-statistics", WARNING, "", evidence, tuple(n for _, names, _ in found for n in names))
        return
    for layer, names, initial in found:
        evidence = f"mean 0 and variance 1 everywhere; {len(found)} of {len(layers)} batch norms are so"
        if initial:
            evidence += "; gamma and beta are as initialised too, so that the layer does nothing but divide by "
            evidence += "sqrt(1 + epsilon)"
        yield Finding("untrained-statistics", WARNING, layer, evidence, names)


def _constant(seen: list[Seen]) -> Iterator[Finding]:
    for each in seen:
        value = each.constant
        if value is None or each.tensor.size == 1 or not each.is_weight:
            continue
        if value in _INITIAL.get(each.part, ()):
            continue
        severity = WARNING if each.part.endswith(("kernel", "table")) else NOTE
        yield Finding("constant", severity, each.name, f"all {each.tensor.size} values are {value:g}")


def _duplicated(seen: list[Seen]) -> Iterator[Finding]:
    """Equal bytes of one role, shape and dtype; constant ones, and of one element, are equal by chance."""
    groups: dict[tuple[object, ...], list[Seen]] = {}
    for each in seen:
        if each.tensor.size > 1 and each.constant is None and each.is_weight:
            key = (each.tensor.role, each.tensor.dtype.name, each.tensor.shape, each.digest)
            groups.setdefault(key, []).append(each)
    for group in groups.values():
        if len(group) > 1:
            names = tuple(each.name for each in group)
            # Two norms of one map have the same statistics, and they may be right.
            severity = WARNING if group[0].part.endswith(("kernel", "table")) else NOTE
            yield Finding("duplicated", severity, names[0], f"the same bytes as {listed(names[1:])}", names)
