"""Compares two weight files tensor by tensor, each brought to neutral layout and canonical names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wio.bundle import Bundle, Tensor
from wio.encodings import to_bytes
from wio.errors import LayoutError, UsageError, WioError
from wio.gates import join_gates
from wio.plugins import adapter_named, detect
from wio.port import Declarations, Resolved, convention_of, resolve
from wio.roles import NOT_WEIGHTS, neutral, same_axes

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

EQUAL, CLOSE, CHANGED, UNDECLARED = "equal", "close", "changed", "undeclared"
_SEVERITY = {CHANGED: 0, UNDECLARED: 1, CLOSE: 2, EQUAL: 3}
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Pair:
    """Two tensors that are the same weight. ``max_abs`` is None where values were not compared as numbers."""

    a: str
    b: str
    status: str
    stored_equal: bool | None = None
    max_abs: float | None = None
    detail: str = ""
    by: str | None = None

    def as_json(self) -> dict[str, Any]:
        document = {
            "a": self.a,
            "b": self.b,
            "status": self.status,
            "stored_equal": self.stored_equal,
            "max_abs": self.max_abs,
            "detail": self.detail,
        }
        return {**document, "by": self.by} if self.by else document


@dataclass(frozen=True)
class Difference:
    """What a comparison found: every pair, worst first, and what only one side has.

    Optimizer slots, counters and the like that only one side has (``left_out``) are no difference of the networks.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    close_is_enough: bool = False

    @property
    def equal(self) -> bool:
        """Every pair equal, or close where a tolerance was given, and nothing on one side only."""
        enough = {EQUAL, CLOSE} if self.close_is_enough else {EQUAL}
        return not self.only_a and not self.only_b and all(pair.status in enough for pair in self.pairs)

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "equal": self.equal,
            "pairs": [pair.as_json() for pair in self.pairs],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "left_out": list(self.left_out),
        }
        if self.pairs and all(pair.by == "digest" for pair in self.pairs):
            document["by"] = "digest"
        return document


@dataclass(frozen=True)
class Tolerance:
    """``|a - b| <= atol + rtol * |b|``, as NumPy's isclose."""

    rtol: float = 0.0
    atol: float = 0.0


def diff(
    a: Path | str,
    b: Path | str,
    *,
    adapters: tuple[str | None, str | None] = (None, None),
    options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    tolerance: Tolerance | None = None,
    read_bytes: bool = False,
) -> Difference:
    """Compares two readable files. Pairs by name, and by layer and role where both are declared.

    Declared tensors are compared in neutral layout, bit for bit. Two undeclared ones of one shape and dtype are
    compared as stored. Where only one side is declared nothing is claimed: the pair is ``undeclared``.
    ``read_bytes`` reads equal .wio digests' bytes too. Optimizer slots and counters are compared where both sides
    have them, and are no difference where one has not.
    """
    resolved = _resolved((a, b), adapters, options or {}, told or Declarations())
    sides = [_comparable(side.bundle) for side in resolved]
    matched, only_a, only_b = _match(sides[0], sides[1])
    compare = _Comparison(resolved, tolerance, read_bytes)
    pairs = sorted((compare(x, y) for x, y in matched), key=lambda p: (_SEVERITY[p.status], -(p.max_abs or 0.0)))
    alone_a, alone_b = (
        [name for name in names if not _no_weight(s[name])] for s, names in zip(sides, (only_a, only_b), strict=True)
    )
    left_out = tuple(
        name for s, names in zip(sides, (only_a, only_b), strict=True) for name in names if _no_weight(s[name])
    )
    return Difference(tuple(pairs), tuple(alone_a), tuple(alone_b), left_out, tolerance is not None)


def _no_weight(tensor: Tensor) -> bool:
    return tensor.role in NOT_WEIGHTS


def _resolved(
    paths: Sequence[Path | str], adapters: Sequence[str | None], options: Mapping[str, str], told: Declarations
) -> list[Resolved]:
    """Both sides. What the user declares may fit only one of the two, but it must fit one of them."""
    chosen = [adapter_named(name) if name else detect(Path(path)) for path, name in zip(paths, adapters, strict=True)]
    mine = [
        {key: value for key, value in options.items() if key in {o.name for o in adapter.options if o.reading}}
        for adapter in chosen
    ]
    idle = [key for key in options if not any(key in given for given in mine)]
    if idle:
        raise UsageError(f"neither file's adapter has the option {', '.join(map(repr, idle))} for reading")
    bundles = [
        adapter.read(Path(path), **adapter.checked(given, writing=False))
        for adapter, path, given in zip(chosen, paths, mine, strict=True)
    ]
    globs = [text.partition("=")[0] for text in told.declare] + [*told.only, *told.drop]
    lost = [glob for glob in globs if not any(_some_match(bundle, glob) for bundle in bundles)]
    if lost:
        raise WioError(f"no tensor of either file matches {', '.join(map(repr, lost))}")
    sides = []
    for adapter, bundle in zip(chosen, bundles, strict=True):
        fitted = replace(
            told,
            arch=None if bundle.metadata.get("architecture") else told.arch,
            declare=tuple(text for text in told.declare if _some_match(bundle, text.partition("=")[0])),
            only=tuple(glob for glob in told.only if _some_match(bundle, glob)),
            drop=tuple(glob for glob in told.drop if _some_match(bundle, glob)),
        )
        sides.append(resolve(bundle, adapter, fitted))
    return sides


def _some_match(bundle: Bundle, glob: str) -> bool:
    return any(fnmatchcase(name, glob) for name in bundle)


def _comparable(bundle: Bundle) -> Bundle:
    """The bundle with gates joined that its format keeps apart, so that a layer has one tensor of each role."""
    groups: dict[object, list[Tensor]] = {}
    for tensor in bundle.values():
        gated = tensor.layout is not None and tensor.layout.gates is not None
        groups.setdefault((tensor.layer, tensor.role) if gated else tensor.name, []).append(tensor)
    tensors = []
    for members in groups.values():
        if len(members) == 1:
            tensors.append(members[0])
        else:
            tensors.append(replace(join_gates(members), name=" + ".join(t.name for t in members)))
    return Bundle(tensors, bundle.metadata)


def _match(a: Bundle, b: Bundle) -> tuple[list[tuple[Tensor, Tensor]], list[str], list[str]]:
    """Pairs by layer and role where that is unique on both sides, then by name, then by the last part of the name."""
    pairs = []
    left, right = dict(a), dict(b)
    by_role_a, by_role_b = _by_role(a), _by_role(b)
    for key, tensor in by_role_a.items():
        other = by_role_b.get(key)
        if other is not None:
            pairs.append((tensor, other))
            del left[tensor.name], right[other.name]
    pairs += [(left.pop(name), right.pop(name)) for name in list(left) if name in right]
    ends_a, ends_b = _by_end(left), _by_end(right)
    for end, name in ends_a.items():
        if end in ends_b:
            pairs.append((left.pop(name), right.pop(ends_b[end])))
    return pairs, list(left), list(right)


def _by_end(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The names by their last part, where only one has it: ``conv1/conv1_W`` of Keras 1 is ``conv1_W`` elsewhere."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(name.rpartition("/")[2], []).append(name)
    return {end: names[0] for end, names in found.items() if len(names) == 1}


def _by_role(bundle: Bundle) -> dict[tuple[str, str], Tensor]:
    found: dict[tuple[str, str], list[Tensor]] = {}
    for tensor in bundle.values():
        if tensor.role is not None and tensor.role not in NOT_WEIGHTS:
            found.setdefault((tensor.layer, tensor.role), []).append(tensor)
    return {key: tensors[0] for key, tensors in found.items() if len(tensors) == 1}


class _Comparison:
    def __init__(self, sides: Sequence[Resolved], tolerance: Tolerance | None, read_bytes: bool) -> None:
        self._tolerance, self._read_bytes = tolerance, read_bytes
        self._conventions = [convention_of(side.bundle, side.adapter).layouts for side in sides]
        orders = [side.bundle.metadata.get("flatten_order") for side in sides]
        self._same_flatten = orders[0] is not None and orders[0] == orders[1]

    def __call__(self, a: Tensor, b: Tensor) -> Pair:
        if (a.role is None) != (b.role is None) or (a.layout is None) != (b.layout is None):
            return self._half_declared(a, b)
        if a.role != b.role:
            return Pair(a.name, b.name, CHANGED, detail=f"role {a.role} against {b.role}")
        unsettled = [t for t in (a, b) if t.layout is not None and "?" in t.layout.letters]
        if unsettled and (a.layout != b.layout or not self._same_flatten):
            return self._half_declared(a, b)
        if a.layout is None or b.layout is None or a.layout == b.layout:
            return self._as_stored(a, b)
        return self._neutral(a, b)

    def _half_declared(self, a: Tensor, b: Tensor) -> Pair:
        alike = a.shape == b.shape and a.dtype == b.dtype and _same_bytes(a.numpy(), b.numpy(), a)
        open_a = a.layout is None or "?" in a.layout.letters
        open_one, other = (a, b) if open_a else (b, a)
        usual = self._conventions[0 if open_a else 1].get(other.role or "", ())
        # The layout to declare is one of the open side's own format, with the axes that the other side has.
        fitting = (
            same_axes(other.layout, usual) if other.layout is not None and "?" not in other.layout.letters else None
        )
        if fitting is None and alike and not usual:
            fitting = other.layout
        role = other.role or open_one.role or "ROLE"
        layout = f":{fitting}" if fitting is not None else "[:LAYOUT]"
        remedy = f"settle it with --declare '{open_one.name}={role}{layout}'"
        return Pair(a.name, b.name, UNDECLARED, alike, None, remedy)

    def _as_stored(self, a: Tensor, b: Tensor) -> Pair:
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return Pair(a.name, b.name, CHANGED, False, None, _shapes(a, b))
        if a.digest is not None and a.digest == b.digest and not self._read_bytes:
            return Pair(a.name, b.name, EQUAL, True, 0.0 if a.dtype.encoding is None else None, by="digest")
        return self._values(a, b, a.numpy(), b.numpy(), None)

    def _neutral(self, a: Tensor, b: Tensor) -> Pair:
        try:
            neutral_a, neutral_b = (t.to(neutral(t.role or "", t.layout)) for t in (a, b) if t.layout is not None)
        except LayoutError as error:
            return Pair(a.name, b.name, UNDECLARED, None, None, error.message)
        settled = neutral_a.layout
        if settled is not None and same_axes(settled, tuple(filter(None, [neutral_b.layout]))):
            # Unit axes aside (C and 11C of PReLU) both hold the same.
            neutral_b = neutral_b.to(settled)
        if neutral_a.layout != neutral_b.layout:
            return Pair(
                a.name, b.name, CHANGED, None, None, f"layout {a.layout} against {b.layout} hold different axes"
            )
        if (neutral_a.shape, a.dtype) != (neutral_b.shape, b.dtype):
            return Pair(a.name, b.name, CHANGED, False, None, _shapes(neutral_a, neutral_b))
        stored = a.shape == b.shape and _same_bytes(a.numpy(), b.numpy(), a)
        return self._values(a, b, neutral_a.numpy(), neutral_b.numpy(), stored)

    def _values(self, a: Tensor, b: Tensor, x: Array, y: Array, stored: bool | None) -> Pair:
        if _same_bytes(x, y, a):
            return Pair(a.name, b.name, EQUAL, stored is not False, 0.0 if a.dtype.numpy_name != "object" else None)
        if a.dtype.numpy_name == "object":
            return Pair(a.name, b.name, CHANGED, bool(stored), None, "the strings differ")
        count, worst, close = _measure(x, y, self._tolerance)
        status = CLOSE if close else CHANGED
        return Pair(a.name, b.name, status, bool(stored), worst, f"{count} of {x.size} values differ")


def _shapes(a: Tensor, b: Tensor) -> str:
    return f"{a.dtype} {list(a.shape)} against {b.dtype} {list(b.shape)}"


def _same_bytes(x: Array, y: Array, tensor: Tensor) -> bool:
    """Bit for bit: a NaN equals itself, 0.0 is not -0.0."""
    if x.shape != y.shape:
        return False
    first, second = to_bytes(x, tensor.dtype), to_bytes(y, tensor.dtype)
    import numpy as np

    return np.array_equal(np.frombuffer(first, np.uint8), np.frombuffer(second, np.uint8))


def _measure(x: Array, y: Array, tolerance: Tolerance | None) -> tuple[int, float | None, bool]:
    """How many values differ bit for bit, the largest absolute difference, and whether all are within tolerance."""
    import numpy as np

    count, worst, close = 0, 0.0, tolerance is not None
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    for p, q in _chunks(x, y):
        differing = p.view(np.uint8).reshape(p.size, -1) != q.view(np.uint8).reshape(q.size, -1)
        rows = differing.any(axis=1)
        count += int(rows.sum())
        p, q = p[rows], q[rows]
        if not p.size:
            continue
        if p.dtype.kind in "iu":
            # int64 does not fit into float64: 2**53 + 1 against 2**53 is a difference of 1, not of 0.
            gap = np.array([abs(int(i) - int(j)) for i, j in zip(p.tolist(), q.tolist(), strict=True)], np.float64)
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                gap = np.abs(p.astype(wide) - q.astype(wide))
        worst = max(worst, float(np.nanmax(gap)) if not np.isnan(gap).all() else 0.0)
        if np.isnan(gap).any():
            worst = float("inf")
        if tolerance is not None and close:
            close = bool((gap <= tolerance.atol + tolerance.rtol * np.abs(q.astype(wide))).all())
    return count, worst if np.isfinite(worst) else None, close


def _chunks(x: Array, y: Array) -> Iterator[tuple[Array, Array]]:
    import numpy as np

    p, q = np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(y).reshape(-1)
    for start in range(0, p.size, _CHUNK):
        yield p[start : start + _CHUNK], q[start : start + _CHUNK]
