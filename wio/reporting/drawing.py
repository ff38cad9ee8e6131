"""Small pictures inside a page: kernels as PNG data, vectors and histograms as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from wio.bundle import Tensor
from wio.errors import WioError
from wio.lazy import Array, np
from wio.markup import escaped, name_of
from wio.picturing.distribution import Distribution, distribution
from wio.picturing.grid import Grid
from wio.picturing.kernels import Chosen, kernel_grid
from wio.picturing.png import data_uri
from wio.picturing.real import checked_real

# A page draws so many things, of tensors of so many values at most, and so much of each: rows, columns, H and W.
MOST_CARDS = 12
_MOST_VALUES = 1 << 24
_MOST = (8, 8, 48, 48)
_MOST_BARS = 64
_WIDTH, _HEIGHT = 176, 64
_TALLEST, _LARGEST_PIXEL = 240, 24


class Drawn(Struct, frozen=True):
    """Pictures as markup, and what is to be said of them; where nothing is drawn, why."""

    pictures: tuple[str, ...]
    told: str


def card(title: str, told: Iterable[str], pictures: Sequence[str], mark: str = "") -> str:
    """One tensor or finding: its name, some sentences of plain text, and pictures."""
    sentences = "".join(f"<p>{escaped(each)}</p>" for each in told if each)
    drawn = f'<div class="pictures">{"".join(pictures)}</div>' if pictures else ""
    kind = f' <span class="{escaped(mark)}">{escaped(mark)}</span>' if mark else ""
    return f'<article class="card"><h3>{name_of(title)}{kind}</h3>{sentences}{drawn}</article>'


def cards(title: str, each: Sequence[str]) -> str:
    """A section of cards; nothing where there are none."""
    if not each:
        return ""
    return f'<section><h2>{escaped(title)}</h2>\n<div class="cards">\n{chr(10).join(each)}\n</div></section>'


def kernel(tensor: Tensor) -> Drawn:
    """The first kernels of one tensor."""
    grid = _grid(tensor)
    if isinstance(grid, str):
        return Drawn((), grid)
    shown = _part(
        grid, [np.arange(min(count, most)) for count, most in zip(grid.tiles.shape, _most(grid), strict=True)]
    )
    return Drawn((_figure(shown, "", shown.scale[1]),), grid.told)


def both_and_difference(a: Tensor, b: Tensor) -> Drawn:
    """Two tensors in one orientation and one scale, and A - B in a scale of its own.

    Where there is more than fits, what is shown is where the two differ most.
    """
    left, right = _grid(a), _grid(b)
    if isinstance(left, str) or isinstance(right, str):
        return Drawn((), left if isinstance(left, str) else str(right))
    if left.tiles.shape != right.tiles.shape:
        firsts = [_part(each, _parts(each, np.zeros(each.tiles.shape))) for each in (left, right)]
        figures = [_figure(each, side, each.scale[1]) for each, side in zip(firsts, "AB", strict=True)]
        return Drawn(tuple(figures), f"{left.told} against {right.told}")
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.where(left.tiles == right.tiles, 0, left.tiles - right.tiles)
    parts = _parts(left, np.abs(gap))
    shown = [_part(each, parts) for each in (left, right, replace(left, tiles=gap))]
    reach = max(shown[0].scale[1], shown[1].scale[1])
    reaches = (reach, reach, shown[2].scale[1])
    figures = [_figure(each, side, high) for each, side, high in zip(shown, ("A", "B", "A - B"), reaches, strict=True)]
    return Drawn(tuple(figures), _where(left, shown[0]))


def histogram(tensor: Tensor) -> Drawn:
    """How the values of a tensor are spread."""
    if tensor.size > _MOST_VALUES:
        return Drawn((), _TOO_LARGE)
    try:
        found = distribution(tensor)
    except WioError as error:
        return Drawn((), error.message)
    ends = f"{found.least:.3g} … {found.greatest:.3g}" if found.size > found.not_finite else "nothing finite"
    lost = f", {found.not_finite} not finite" if found.not_finite else ""
    told = f"{found.size} values: {ends}{lost}"
    return Drawn((f"<figure>{_bars_up(found)}<figcaption>{escaped(told)}</figcaption></figure>",), "")


_TOO_LARGE = "too large to be drawn here; wio show draws it"


def _grid(tensor: Tensor) -> Grid | str:
    """The tensor as tiles, or why it is not drawn. One axis has no order: a vector needs no declaration."""
    if tensor.size > _MOST_VALUES:
        return _TOO_LARGE
    if not tensor.size:
        return "it has no values"
    try:
        if len(tensor.shape) > 1:
            return kernel_grid(tensor, Chosen(most=tensor.size))
        values = checked_real(tensor, tensor.numpy()).reshape(1, 1, 1, -1).astype(np.float64)
    except WioError as error:
        return f"not drawn: {error.message}"
    return Grid(tensor.name, values, ("",), ("",), "", "", f"{tensor.size} values")


def _is_vector(grid: Grid) -> bool:
    return bool(grid.tiles.shape[:3] == (1, 1, 1))


def _most(grid: Grid) -> tuple[int, ...]:
    return (1, 1, 1, _MOST_BARS) if _is_vector(grid) else _MOST


def _parts(grid: Grid, gap: Array) -> list[Array]:
    """Along each axis the places with the largest gaps, in their order; what is not finite is the largest."""
    size = np.where(np.isnan(gap), np.inf, gap)
    parts = []
    for axis, most in enumerate(_most(grid)):
        worst = size.max(axis=tuple(other for other in range(4) if other != axis))
        if len(worst) > most:
            # What does not differ at all is left out, if anything does.
            most = min(most, int((worst > 0).sum()) or most)
        parts.append(np.sort(np.argsort(-worst, kind="stable")[:most]))
    return parts


def _part(grid: Grid, parts: Sequence[Array]) -> Grid:
    rows, columns = (tuple(names[k] for k in part) for names, part in ((grid.rows, parts[0]), (grid.columns, parts[1])))
    return replace(grid, tiles=grid.tiles[np.ix_(*parts)], rows=rows, columns=columns)


def _where(whole: Grid, shown: Grid) -> str:
    if whole.tiles.shape == shown.tiles.shape:
        return whole.told
    axes = ((shown.row_axis, shown.rows, whole.rows), (shown.column_axis, shown.columns, whole.columns))
    named = [f"{axis}s {', '.join(part)}" for axis, part, names in axes if axis and len(part) < len(names)]
    more = "; ".join(named) or f"{shown.tiles.size} of {whole.tiles.size} values"
    return f"{whole.told}; drawn is where they differ most: {more}"


def _figure(grid: Grid, caption: str, reach: float) -> str:
    scale = f'<span>-{reach:.3g}</span><span class="scale"></span><span>{reach:.3g}</span>'
    if _is_vector(grid):
        picture, scale = _bars(grid.tiles.reshape(-1), reach, f"{caption} of {grid.title}"), f"±{reach:.3g}"
    else:
        drawn = grid.composed(len(grid.columns), (-reach, reach))
        height, width = drawn.shape
        times = max(1, min(_WIDTH // width, _TALLEST // height, _LARGEST_PIXEL))
        picture = (
            f'<img src="{data_uri(drawn, signed=True)}" width="{width * times}" height="{height * times}" '
            f'alt="{escaped(f"{caption} {grid.title}: {grid.told}".strip())}">'
        )
    label = f"<b>{escaped(caption)}</b> " if caption else ""
    lost = "" if grid.finite else ", not finite: " + str(int((~np.isfinite(grid.tiles)).sum()))
    return f"<figure>{picture}<figcaption>{label}{scale}{lost}</figcaption></figure>"


def _bars(values: Array, reach: float, title: str) -> str:
    """A vector as bars on both sides of zero; what is not finite has a bar of its own kind, from end to end."""
    step, middle = _WIDTH / len(values), _HEIGHT / 2
    parts = {"up": "", "down": "", "lost": ""}
    for place, value in enumerate(values.tolist()):
        if np.isfinite(value):
            tall = value / reach * middle
            kind, start = "up" if value >= 0 else "down", middle
        else:
            kind, start, tall = "lost", _HEIGHT, _HEIGHT
        parts[kind] += f"M{place * step:.2f} {start:g}v{-tall:.2f}h{step * 0.8:.2f}v{tall:.2f}z"
    paths = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in parts.items() if path)
    axis = f'<path class="axis" d="M0 {middle:g}H{_WIDTH}"/>'
    return _svg(paths + axis, title)


def _bars_up(found: Distribution) -> str:
    step, tallest = _WIDTH / len(found.counts), max(*found.counts, 1)
    talls = [max(count / tallest * (_HEIGHT - 2), 1.0 if count else 0.0) for count in found.counts]
    path = "".join(
        f"M{k * step:.2f} {_HEIGHT}v{-tall:.2f}h{step * 0.9:.2f}v{tall:.2f}z" for k, tall in enumerate(talls) if tall
    )
    axis = f'<path class="axis" d="M0 {_HEIGHT - 0.5}H{_WIDTH}"/>'
    return _svg(f'<path class="count" d="{path}"/>{axis}', f"histogram of {found.name}")


def _svg(content: str, title: str) -> str:
    box = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg {box} role="img" aria-label="{escaped(title)}">{content}</svg>'
