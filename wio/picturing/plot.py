"""Pictures as PNG and SVG files, by matplotlib (extra ``plot``). The same picture gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wio.atomic import atomic_output
from wio.errors import UsageError, WioError, printable
from wio.lazy import np
from wio.picturing.colours import palette
from wio.picturing.distribution import STATISTICS, BatchNormStatistics, Distribution, summary
from wio.picturing.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
_LONGEST_TITLE = 90
_INK, _FAINT, _BAR = "#222222", "#888888", "#2166ac"
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "wio",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}


def check_format(path: Path) -> None:
    """UsageError before anything is read, if a picture cannot be written there."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path.name}: pictures are written as PNG or SVG", remedy="-o NAME.png or -o NAME.svg")


def save_grid(grid: Grid, path: Path) -> None:
    """The tiles with their numbers in the tensor, and the scale."""
    with _settings():
        _save(_grid_figure(grid), path)


def save_histogram(found: Distribution, path: Path) -> None:
    with _settings():
        figure = _figure(6.4, 3.2)
        axes = figure.add_subplot()
        _titled(axes, found.name)
        _histogram(axes, found)
        axes.set_ylabel("values")
        _save(figure, path)


def save_batch_norms(found: Sequence[BatchNormStatistics], path: Path) -> None:
    """Of one layer the histogram of each statistic; of more their range over the layers."""
    with _settings():
        if len(found) == 1:
            figure = _figure(8, 5)
            for place, part in enumerate(found[0].parts):
                axes = figure.add_subplot(2, 2, place + 1)
                _titled(axes, part.name)
                _histogram(axes, part)
            figure.suptitle(_title(f"{found[0].layer}: {found[0].channels} channels"))
        else:
            figure = _figure(8, 8)
            for place, name in enumerate(STATISTICS):
                _ranges(figure.add_subplot(4, 1, place + 1), name, found)
            figure.suptitle(f"{len(found)} batch norms: all channels, half of them, median")
        _save(figure, path)


def _settings() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise WioError(
            "matplotlib, which draws pictures as files, is not installed", remedy="pip install 'wio[plot]'"
        ) from None
    return matplotlib.rc_context(_SETTINGS)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def _title(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST_TITLE else f"{shown[: _LONGEST_TITLE // 2]}…{shown[-_LONGEST_TITLE // 2 :]}"


def _titled(axes: Axes, text: str) -> None:
    axes.set_title(_title(text), loc="left", fontsize=10)


def _grid_figure(grid: Grid) -> Figure:
    from matplotlib.colors import ListedColormap, Normalize

    shades = ListedColormap([tuple(c / 255 for c in colour) for colour in palette(grid.signed)[:-1]])
    columns = grid.columns_for(1.4)
    picture = grid.composed(columns)
    colours = np.array([*palette(grid.signed), (255, 255, 255)], np.uint8)[picture]
    height, width = picture.shape
    # As large as is legible, and a page at most.
    inches = min(8.0, max(3.0, width * 0.11))
    tall = min(10.0, max(1.2, inches * height / width))
    figure = _figure(inches + 1.2, tall + 0.9)
    axes = figure.add_subplot()
    axes.imshow(colours, interpolation="none", aspect="equal")
    axes.set_title(_title(grid.title), loc="left", fontsize=10, pad=16 if any(grid.columns) else 6)
    axes.set_xlabel("\n".join(filter(None, (grid.told, ", ".join(grid.directions)))), fontsize=8, loc="left")
    _numbered(axes, grid, columns)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(_mapped(Normalize(*grid.scale), shades), ax=axes, fraction=0.03, pad=0.02, aspect=30)
    return figure


def _mapped(norm: Any, shades: Any) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm, shades)


def _numbered(axes: Axes, grid: Grid, columns: int) -> None:
    """The number of every row, and of every tile's column above it."""
    rows, _, height, width = grid.tiles.shape
    axes.set_xticks([])
    axes.set_yticks([])
    for place, block in enumerate(grid.blocks(columns)):
        top = place * grid.block_height - 0.5
        for c, name in enumerate(grid.columns[block]):
            axes.text(c * (width + 1) + (width - 1) / 2, top, name, ha="center", va="bottom", fontsize=7)
        for r, name in enumerate(grid.rows if rows > 1 else ()):
            axes.text(-0.8, top + r * (height + 1) + height / 2, f"{name} ", ha="right", va="center", fontsize=7)


def _histogram(axes: Axes, found: Distribution) -> None:
    if found.size > found.not_finite:
        spread = found.greatest - found.least or 1.0
        edges = np.linspace(found.least, found.least + spread, len(found.counts) + 1)
        axes.bar(edges[:-1], found.counts, width=np.diff(edges), align="edge", color=_BAR)
    axes.set_xlabel(", ".join(summary(found)), fontsize=8)
    _quiet(axes)


def _ranges(axes: Axes, name: str, found: Sequence[BatchNormStatistics]) -> None:
    """One statistic of every layer: from least to greatest, the middle half, the median."""
    held = [(k, part) for k, each in enumerate(found) for part in each.parts if part.name == name]
    places = [k for k, _ in held]
    axes.vlines(places, [p.least for _, p in held], [p.greatest for _, p in held], color="#92c5de", linewidth=2)
    axes.vlines(places, [p.quartiles[0] for _, p in held], [p.quartiles[2] for _, p in held], color=_BAR, linewidth=4)
    axes.plot(places, [p.quartiles[1] for _, p in held], "o", color="white", markersize=2)
    axes.set_ylabel(name)
    axes.set_xlim(-0.8, len(found) - 0.2)
    last = name == list(STATISTICS)[-1]
    if last and len(found) <= 40:
        axes.set_xticks(range(len(found)), [_title(each.layer) for each in found], rotation=90, fontsize=6)
    else:
        axes.set_xticks([])
    _quiet(axes)


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    kind = path.suffix.lower()[1:]
    # No time stamp, and no version of the library: the same picture is the same file.
    told = {"Date": None, "Creator": "wio"} if kind == "svg" else {"Software": "wio"}
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=told, bbox_inches="tight", pad_inches=0.12)
