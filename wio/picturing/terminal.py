"""Pictures in a terminal: half blocks in colour, or text where there is no colour to be had."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from wio.errors import printable
from wio.lazy import Array, np
from wio.picturing.colours import GAP, SHADES, indices, palette
from wio.picturing.distribution import Distribution, summary
from wio.picturing.grid import Grid

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


_BARS = " ▁▂▃▄▅▆▇█"
_ROWS_OF_BARS = 5
# One value of an unsigned picture as text, from the least to the greatest.
_RAMP = " .:-=+*#%@"
_WIDEST_TILE = 64
# As text a value takes two characters, which are about as wide as a line is tall.
_PLAIN_WIDTH, _WIDEST_AS_TEXT = 100, 48


def coloured_console() -> Console | None:
    """The terminal, if standard output is one that shows colours and half blocks, and NO_COLOR does not forbid it."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or "utf" not in (sys.stdout.encoding or "").lower():
        return None
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    return console if console.color_system else None


def grid_lines(grid: Grid, console: Console | None) -> Iterator[RenderableType]:
    """The picture line by line: coloured for a console, else as plain text."""
    label = max(map(len, grid.rows))
    room = (console.width if console else _PLAIN_WIDTH) - label - 1
    shown, times = _reduced(grid.tiles, max(min(_WIDEST_TILE, room - 1), 1) if console else _WIDEST_AS_TEXT)
    yield printable(f"{grid.title}: {grid.told}" + (f", each drawn number the mean of {times}x{times}" * (times > 1)))
    if grid.directions:
        yield ", ".join(grid.directions)
    step = shown.shape[3] + 1 if console else 2 * shown.shape[3] + 2
    for block in grid.blocks(room // step):
        if any(grid.columns):
            heads = ("".join(name[: step - 1].ljust(step) for name in grid.columns[block])).rstrip()
            yield " " * (label + 1) + heads
        for name, row in zip(grid.rows, shown[:, block], strict=True):
            lines: Iterable[Text | str] = _half_blocks(row, grid) if console else _text(row, grid)
            for k, line in enumerate(lines):
                yield _joined(name.rjust(label) if k == 0 else " " * label, line)
    yield _legend(grid, console)
    if not grid.finite:
        yield "black: not finite" if console else "x: not finite"


def _joined(label: str, line: Text | str) -> Text | str:
    if isinstance(line, str):
        return f"{label} {line}".rstrip()
    from rich.text import Text

    return Text(f"{label} ").append(line)


def _reduced(tiles: Array, widest: int) -> tuple[Array, int]:
    """Tiles that fit, and by how much each side was divided: means of squares, of which the last may be cut off."""
    rows, columns, height, width = tiles.shape
    times = -(-width // widest)
    if times == 1:
        return tiles, 1
    below, beside = -height % times, -width % times
    padded = np.pad(tiles, ((0, 0), (0, 0), (0, below), (0, beside)), mode="edge")
    square = padded.reshape(rows, columns, (height + below) // times, times, (width + beside) // times, times)
    return square.mean(axis=(3, 5)), times


def _half_blocks(row: Array, grid: Grid) -> Iterator[Text]:
    """A row of tiles, two numbers to a character; the gap below a tile is at least half a line."""
    from rich.style import Style
    from rich.text import Text

    colours = [f"rgb({r},{g},{b})" for r, g, b in palette(grid.signed)]
    count, height, width = row.shape
    tall = height + 1 + (height + 1) % 2 if height > 1 else 2
    pixels = np.full((tall, count * (width + 1)), GAP, np.uint8)
    drawn = indices(row, grid.scale)
    for c in range(count):
        pixels[:height, c * (width + 1) : c * (width + 1) + width] = drawn[c]
    styles: dict[tuple[int, int], tuple[str, Style]] = {}
    for y in range(0, tall, 2):
        line = Text()
        for upper, lower in zip(pixels[y].tolist(), pixels[y + 1].tolist(), strict=True):
            if (upper, lower) not in styles:
                over, under = (None if each == GAP else colours[each] for each in (upper, lower))
                if over is None:
                    styles[upper, lower] = (" " if under is None else "▄", Style(color=under))
                else:
                    styles[upper, lower] = ("▀", Style(color=over, bgcolor=under))
            line.append(*styles[upper, lower])
        if line.plain.strip():
            yield line


def _text(row: Array, grid: Grid) -> Iterator[str]:
    """A row of tiles as text: sign and digit for signed numbers, a character of a ramp twice for others."""
    low, high = grid.scale
    for y in range(row.shape[1]):
        cells = ["".join(_cell(value, grid.signed, low, high) for value in tile[y].tolist()) for tile in row]
        yield "  ".join(cells)
    yield ""


def _cell(value: float, signed: bool, low: float, high: float) -> str:
    if not np.isfinite(value):
        return " x"
    if not signed:
        return 2 * _RAMP[int((value / 2 - low / 2) / (high / 2 - low / 2) * (len(_RAMP) - 1) + 0.5)]
    tenth = int(abs(value) / high * 9 + 0.5)
    return f"{'-' if value < 0 else '+'}{tenth}" if tenth else " 0"


def _legend(grid: Grid, console: Console | None) -> Text | str:
    low, high = grid.scale
    if console is None:
        return f"9 stands for {high:.4g}" if grid.signed else f"{_RAMP!r}: from {low:.4g} to {high:.4g}"
    from rich.text import Text

    ramp = Text(f"{low:.4g} ")
    for shade in np.linspace(0, SHADES - 1, 31):
        r, g, b = palette(grid.signed)[round(float(shade))]
        ramp.append("█", f"rgb({r},{g},{b})")
    return ramp.append(f" {high:.4g}")


def histogram_lines(found: Distribution) -> Iterator[str]:
    """A histogram in block characters, and what there is to be said of it."""
    yield printable(f"{found.name}: {', '.join(summary(found))}")
    if found.size > found.not_finite:
        tallest = max(found.counts)
        for line in _bars([count / tallest for count in found.counts]):
            yield f"  {line}"
        least, greatest = f"{found.least:.4g}", f"{found.greatest:.4g}"
        yield f"  {least}{greatest.rjust(max(len(found.counts) - len(least), len(greatest) + 1))}"


def _bars(parts: Sequence[float]) -> Iterable[str]:
    """Bars of parts of the tallest; a part that is not 0 is seen however small it is."""
    steps = len(_BARS) - 1
    eighths = [max(round(part * _ROWS_OF_BARS * steps), 1 if part else 0) for part in parts]
    for row in reversed(range(_ROWS_OF_BARS)):
        yield "".join(_BARS[min(max(each - row * steps, 0), steps)] for each in eighths).rstrip()
