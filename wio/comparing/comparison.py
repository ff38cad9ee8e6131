"""Two tensors that are the same weight, compared: what is equal, and what is known of how they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from wio.bundle import Tensor
from wio.comparing.fingerprint import fingerprint
from wio.comparing.relation import MOST_FOUND, layouts_that_fit, orders_that_fit, same_bits
from wio.contiguous import contiguous
from wio.errors import LayoutError, UsageError
from wio.lazy import Array, np
from wio.port import Resolved, convention_of
from wio.roles import neutral, same_axes

if TYPE_CHECKING:
    from wio.layout import Layout


EQUAL, CLOSE, FOLDED, UNDECLARED, LAYOUT, CHANGED = "equal", "close", "folded", "undeclared", "layout", "changed"
SEVERITY = {status: k for k, status in enumerate((CHANGED, LAYOUT, UNDECLARED, FOLDED, CLOSE, EQUAL))}
_CHUNK = 1 << 22


class Tolerance(Struct, frozen=True):
    """``|a - b| <= atol + rtol * |b|``, as NumPy's isclose."""

    rtol: float = 0.0
    atol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerances(self.rtol, self.atol)


def check_tolerances(rtol: float, atol: float) -> None:
    """UsageError for what is no tolerance: infinity would call everything close, NaN nothing."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} takes a number from 0, not {value}")


class Measure(Struct, frozen=True):
    """How far apart two arrays are. ``max_abs`` is None where a NaN or an infinity stands against something else.

    ``max_rel``: the largest ``|a - b| / max(|a|, |b|)``. ``cosine``: of the two as vectors. ``ulps``: the largest
    distance in representable numbers, for floats of up to 64 bits.
    """

    differing: int
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    ulps: int | None
    close: bool


class Pair(Struct, frozen=True):
    """Two tensors that are the same weight, and how they compare. Statuses:

    ``equal``       bit for bit in their declared layouts; two undeclared tensors, as stored.
    ``close``       within the tolerance given.
    ``folded``      one is the other with a batch norm folded into it.
    ``undeclared``  one side is not declared, so nothing is claimed; ``stored_equal`` says whether the bytes agree.
    ``layout``      the same values, in an order that the declarations do not explain: one of them is wrong.
    ``changed``     other values, dtype, shape or role.
    """

    a: str
    b: str
    status: str
    stored_equal: bool | None = None
    max_abs: float | None = None
    detail: str = ""
    by: str | None = None
    measure: Measure | None = None

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "a": self.a,
            "b": self.b,
            "status": self.status,
            "stored_equal": self.stored_equal,
            "max_abs": self.max_abs,
            "detail": self.detail,
        }
        if self.measure is not None:
            document |= {key: getattr(self.measure, key) for key in ("differing", "max_rel", "cosine", "ulps")}
        return {**document, "by": self.by} if self.by else document


class Comparison:
    """Compares pairs of tensors of two resolved files."""

    def __init__(
        self, sides: Sequence[Resolved], tolerance: Tolerance | None, *, read_bytes: bool, equal_nan: bool
    ) -> None:
        self._tolerance, self._read_bytes, self._equal_nan = tolerance, read_bytes, equal_nan
        self._conventions = [convention_of(side.bundle, side.adapter).layouts for side in sides]
        facts = [side.bundle.metadata for side in sides]
        orders = [each.get("flatten_order") for each in facts]
        # Where no order is known, files that say the same of themselves, as one and the same file does, have the same.
        self._same_flatten = orders[0] == orders[1] and (orders[0] is not None or facts[0] == facts[1])

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
        alike = a.shape == b.shape and a.dtype == b.dtype and same_bits(a.numpy(), b.numpy())
        open_a = a.layout is None or "?" in a.layout.letters
        open_one, other = (a, b) if open_a else (b, a)
        layout = self._layout_to_declare(open_one, other, self._conventions[0 if open_a else 1], alike)
        role = other.role or open_one.role or "ROLE"
        text = f":{layout}" if layout is not None else "[:LAYOUT]"
        return Pair(a.name, b.name, UNDECLARED, alike, None, f"settle it with --declare '{open_one.name}={role}{text}'")

    def _layout_to_declare(self, open_one: Tensor, other: Tensor, convention: Any, alike: bool) -> Layout | None:
        """The layout of the open side's own format with the axes of the other; else the only one that makes the two
        equal; else that of the other side, if they are stored alike."""
        if other.layout is None or "?" in other.layout.letters:
            return None
        usual: Layout | None = same_axes(other.layout, convention.get(other.role or "", ()))
        if usual is not None:
            return usual
        if alike:
            return other.layout
        fitting = layouts_that_fit(other, open_one) if other.dtype == open_one.dtype else []
        return fitting[0] if len(fitting) == 1 else None

    def _as_stored(self, a: Tensor, b: Tensor) -> Pair:
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return self._misread(a, b) or Pair(a.name, b.name, CHANGED, False, None, _shapes(a, b))
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
            differing = f"layout {a.layout} against {b.layout} hold different axes"
            return self._misread(a, b) or Pair(a.name, b.name, CHANGED, None, None, differing)
        if (neutral_a.shape, a.dtype) != (neutral_b.shape, b.dtype):
            shapes = _shapes(neutral_a, neutral_b)
            return self._misread(a, b) or Pair(a.name, b.name, CHANGED, False, None, shapes)
        stored = a.shape == b.shape and same_bits(a.numpy(), b.numpy())
        # Views: where the two are equal, as most are, neither is ever written down in the other's order.
        x, y = (t.numpy() if n.layout is None else t.seen_as(n.layout) for t, n in ((a, neutral_a), (b, neutral_b)))
        return self._values(a, b, x, y, stored)

    def _values(self, a: Tensor, b: Tensor, x: Array, y: Array, stored: bool | None) -> Pair:
        if same_bits(x, y):
            return Pair(a.name, b.name, EQUAL, stored is not False, 0.0 if a.dtype.numpy_name != "object" else None)
        if a.dtype.numpy_name == "object":
            return Pair(a.name, b.name, CHANGED, bool(stored), None, "the strings differ")
        measure = measured(x, y, self._tolerance, equal_nan=self._equal_nan)
        if measure.differing == 0:
            return Pair(a.name, b.name, EQUAL, False, 0.0, "NaNs of other bits")
        if not measure.close and (misread := self._misread(a, b)) is not None:
            return misread
        status = CLOSE if measure.close else CHANGED
        detail = f"{measure.differing} of {x.size} values differ"
        return Pair(a.name, b.name, status, bool(stored), measure.max_abs, detail, measure=measure)

    def _misread(self, a: Tensor, b: Tensor) -> Pair | None:
        """The pair as a ``layout`` finding, if both hold the same values in an order that some layout explains."""
        if a.dtype != b.dtype or a.size != b.size or a.size < 2 or fingerprint(a) != fingerprint(b):
            return None
        stored = a.shape == b.shape and same_bits(a.numpy(), b.numpy())
        if a.layout is not None and b.layout is not None:
            fitting = [each for each in layouts_that_fit(a, b) if each != b.layout]
            if not fitting:
                return None
            others = f", or {_count(fitting)} other layouts" if len(fitting) > 1 else ""
            detail = (
                f"the same values: equal if {b.name} is {fitting[0]}{others}, and it is declared {b.layout}; "
                f"or {a.name}, declared {a.layout}, is the wrong one"
            )
        elif a.layout is None and b.layout is None:
            orders = orders_that_fit(a.numpy(), b.numpy())
            if not orders:
                return None
            others = f" (or in {_count(orders)} other ways)" if len(orders) > 1 else ""
            detail = (
                f"the same values: equal once {a.name} is taken with {orders[0]}{others}; declare both to settle it"
            )
        else:
            return None
        return Pair(a.name, b.name, LAYOUT, stored, None, detail)


def _count(found: Sequence[object]) -> str:
    return f"{MOST_FOUND - 1} or more" if len(found) >= MOST_FOUND else str(len(found) - 1)


def _shapes(a: Tensor, b: Tensor) -> str:
    return f"{a.dtype} {list(a.shape)} against {b.dtype} {list(b.shape)}"


def measured(x: Array, y: Array, tolerance: Tolerance | None, *, equal_nan: bool = False) -> Measure:
    """How far two arrays of one shape and dtype are apart; all in double precision, integers exactly."""
    count, worst, relative, ulps, close = 0, 0.0, 0.0, 0, tolerance is not None
    dot, norm_x, norm_y = 0.0, 0.0, 0.0
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    floats = x.dtype.kind == "f" and x.dtype.itemsize <= 8
    for p, q in _chunks(x, y):
        with np.errstate(invalid="ignore", over="ignore"):
            wide_p, wide_q = p.astype(wide), q.astype(wide)
            dot += float(np.vdot(wide_p, wide_q).real)
            norm_x, norm_y = norm_x + float(np.vdot(wide_p, wide_p).real), norm_y + float(np.vdot(wide_q, wide_q).real)
        rows = (p.view(np.uint8).reshape(p.size, -1) != q.view(np.uint8).reshape(q.size, -1)).any(axis=1)
        if equal_nan:
            rows &= ~(np.isnan(wide_p) & np.isnan(wide_q))
        count += int(rows.sum())
        if not rows.any():
            continue
        p, q, wide_p, wide_q = p[rows], q[rows], wide_p[rows], wide_q[rows]
        if p.dtype.kind in "iu":
            # int64 does not fit into float64: 2**53 + 1 against 2**53 is a difference of 1, not of 0.
            gap = np.array([abs(int(i) - int(j)) for i, j in zip(p.tolist(), q.tolist(), strict=True)], np.float64)
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                gap = np.abs(wide_p - wide_q)
        worst = max(worst, float(np.nanmax(gap)) if not np.isnan(gap).all() else 0.0)
        if np.isnan(gap).any():
            worst = float("inf")
        size = np.maximum(np.abs(wide_p), np.abs(wide_q))
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = max(relative, float(np.nan_to_num(np.where(size > 0, gap / size, 0.0), nan=np.inf).max()))
        if floats:
            ulps = max(ulps, _ulps(p, q))
        if tolerance is not None and close:
            with np.errstate(invalid="ignore", over="ignore"):
                allowed = tolerance.atol + tolerance.rtol * np.abs(wide_q)
            # Nothing is close to an infinity but itself, and that does not differ.
            close = bool((np.isfinite(gap) & (gap <= allowed)).all())
    length = (norm_x * norm_y) ** 0.5
    cosine = dot / length if length > 0 and np.isfinite(length) else None
    known = np.isfinite(worst)
    return Measure(
        count,
        worst if known else None,
        relative if known else None,
        cosine,
        ulps if known and floats else None,
        close,
    )


def _ulps(p: Array, q: Array) -> int:
    """The largest number of representable floats between two, of IEEE floats of up to 64 bits."""
    kind, lowest = np.dtype(f"<i{p.dtype.itemsize}"), -(1 << 8 * p.dtype.itemsize - 1)
    sides = []
    for each in (p, q):
        bits = np.ascontiguousarray(each).view(kind)
        # Sign and magnitude made a line: -0.0 stands where 0.0 does.
        sides.append(np.where(bits < 0, kind.type(lowest) - bits, bits))
    high, low = np.maximum(*sides), np.minimum(*sides)
    return int((high.astype(np.uint64) - low.astype(np.uint64)).max())


def _chunks(x: Array, y: Array) -> Iterator[tuple[Array, Array]]:
    p, q = contiguous(x).reshape(-1), contiguous(y).reshape(-1)
    for start in range(0, p.size, _CHUNK):
        yield p[start : start + _CHUNK], q[start : start + _CHUNK]
