"""The rows of the benchmark as text, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape

from measure import Cost, median


@dataclass(frozen=True)
class Row:
    """One job. ``value`` is the ratio or, where there is no peer, the amount; ``low`` and ``high`` are its spread.

    ``sense`` says on which side of ``target`` it should be: ``>=`` or ``<=``.
    """

    job: str
    against: str
    ours: str
    theirs: str
    value: float
    unit: str
    sense: str
    target: float
    low: float
    high: float
    note: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.sense == ">=" else self.value <= self.target


def ratio(
    job: str,
    against: str,
    costs: Sequence[Sequence[Cost]],
    sense: str,
    target: float,
    clock: str = "wall",
    note: str = "",
) -> Row:
    """A row of pairs (wio first). ``>=``: how many times as fast wio is; ``<=``: how many times as long it takes."""
    pick: Callable[[Cost], float] = (lambda c: c.wall) if clock == "wall" else (lambda c: c.cpu)
    one, other = (0, 1) if sense == "<=" else (1, 0)
    pairs = [pick(costs[one][k]) / pick(costs[other][k]) for k in range(len(costs[0]))]
    ours, theirs = (median(each) for each in costs[:2])
    both = (ours, theirs)
    value = pick(both[one]) / pick(both[other])
    cpu = both[one].cpu / both[other].cpu
    told = "; ".join(part for part in (f"CPU ratio {cpu:.2f}" if clock == "wall" else "by CPU time", note) if part)
    return Row(job, against, _cost(ours), _cost(theirs), value, "x", sense, target, min(pairs), max(pairs), told)


def amount(job: str, costs: Sequence[Cost], target: float, clock: str = "cpu", note: str = "") -> Row:
    each = [cost.cpu if clock == "cpu" else cost.wall for cost in costs]
    middle = median(costs)
    value = middle.cpu if clock == "cpu" else middle.wall
    told = "; ".join(part for part in ("CPU time" if clock == "cpu" else "", note) if part)
    return Row(job, "", _cost(middle), "", value, "s", "<=", target, min(each), max(each), told)


def _cost(cost: Cost) -> str:
    return f"{cost.wall:.3g} s ({cost.cpu:.3g} CPU)"


def text(rows: Sequence[Row]) -> str:
    heads = ("job", "against", "wio", "peer", "result", "target", "met", "spread", "note")
    cells = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    spread = f"{row.low:.3g} to {row.high:.3g}"
    result, target = f"{row.value:.3g} {row.unit}", f"{row.sense} {row.target:.4g} {row.unit}"
    return (row.job, row.against, row.ours, row.theirs, result, target, "yes" if row.met else "NO", spread, row.note)


def as_json(rows: Sequence[Row], facts: dict[str, object]) -> str:
    document = {**facts, "rows": [{**asdict(row), "met": row.met} for row in rows]}
    return json.dumps(document, indent=2) + "\n"


def plot(rows: Sequence[Row], title: str) -> str:
    """An SVG: one bar a row, how many times better than its target it is, on a logarithmic scale; 1 is the target."""
    from math import log10

    left, width, step = 460, 420, 24
    height = 60 + step * len(rows)
    # A bar that is a hundred times better than its target fills its side.
    x = lambda better: left + width / 2 * (1 + max(-1.0, min(1.0, log10(better) / 2)))  # noqa: E731
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 110}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>',
        f'<text x="{x(1):.0f}" y="36" text-anchor="middle">target</text>',
        f'<line x1="{x(1):.1f}" y1="40" x2="{x(1):.1f}" y2="{height - 8}" stroke="black"/>',
    ]
    for k, row in enumerate(rows):
        better = max(row.value / row.target if row.sense == ">=" else row.target / max(row.value, 1e-9), 1e-9)
        start, end = sorted((x(1), x(better)))
        y = 46 + step * k
        colour = "#2a7f62" if row.met else "#b3412f"
        parts.append(f'<text x="8" y="{y + 13}">{escape(row.job)}</text>')
        parts.append(f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="16" fill="{colour}"/>')
        parts.append(f'<text x="{left + width + 6}" y="{y + 13}">{row.value:.3g} {row.unit}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
