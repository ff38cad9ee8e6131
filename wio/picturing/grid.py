"""A picture of arrays as a value: tiles in rows and columns, all drawn in one scale."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from wio.lazy import Array, np
from wio.picturing.colours import GAP, indices
from wio.picturing.png import png

_SHOWN_WIDTH = 640
_LEAST_REACH = 1e-300


class Grid(Struct, frozen=True, eq=False):
    """Tiles of Y X numbers, ``tiles[r, c]`` standing in row r and column c.

    ``row_axis`` and ``column_axis`` say what the rows and columns are, ``rows`` and ``columns`` which of them (the
    numbers that they have in the tensor). ``told`` says to a person what is shown and what is left out.
    ``signed``: zero is the middle of the scale; else it goes from the least value to the greatest.
    """

    title: str
    tiles: Array
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_axis: str
    column_axis: str
    told: str
    signed: bool = True

    @property
    def scale(self) -> tuple[float, float]:
        """The numbers at both ends of the scale; values that are not finite do not count."""
        finite = self.tiles[np.isfinite(self.tiles)]
        if not finite.size:
            return (-1.0, 1.0) if self.signed else (0.0, 1.0)
        if self.signed:
            # Zeros alone are drawn as zero, and so is what can no longer be halved.
            reach = max(float(np.abs(finite).max()) or 1.0, _LEAST_REACH)
            return -reach, reach
        least, greatest = float(finite.min()), float(finite.max())
        return least, greatest if greatest > least else least + max(abs(least), 1.0)

    @property
    def directions(self) -> tuple[str, ...]:
        """Which way the tiles' axes run, for a person."""
        ways = ((self.row_axis, self.rows, "down"), (self.column_axis, self.columns, "across"))
        return tuple(f"{axis}s {way}" for axis, names, way in ways if axis and len(names) > 1)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.tiles).all())

    def blocks(self, columns: int) -> Iterator[slice]:
        """The columns in blocks of at most that many: what stands beside one another where room is short."""
        for start in range(0, len(self.columns), max(columns, 1)):
            yield slice(start, min(start + max(columns, 1), len(self.columns)))

    @property
    def block_height(self) -> int:
        """From the top of one block of the composed picture to that of the next, pixels."""
        height: int = self.tiles.shape[2]
        return len(self.rows) * (height + 1) + 1 + height // 8

    def composed(self, columns: int, scale: tuple[float, float] | None = None) -> Array:
        """The whole picture as indices of colours (uint8), one pixel for each number and between tiles; blocks of
        ``columns`` columns stand below one another. ``scale`` is another than its own.
        """
        rows, _, height, width = self.tiles.shape
        drawn = indices(self.tiles, scale or self.scale)
        blocks = list(self.blocks(columns))
        across = max(block.stop - block.start for block in blocks)
        step = self.block_height
        whole = np.full(
            (len(blocks) * step - (step - rows * (height + 1) + 1), across * (width + 1) - 1), GAP, np.uint8
        )
        for place, block in enumerate(blocks):
            for r in range(rows):
                for c in range(block.start, block.stop):
                    y, x = place * step + r * (height + 1), (c - block.start) * (width + 1)
                    whole[y : y + height, x : x + width] = drawn[r, c]
        return whole

    def _repr_png_(self) -> bytes:
        """For notebooks: the picture as large as is legible."""
        picture = self.composed(self.columns_for(1.4))
        times = max(1, _SHOWN_WIDTH // max(picture.shape))
        return png(picture.repeat(times, axis=0).repeat(times, axis=1), signed=self.signed)

    def columns_for(self, ratio: float) -> int:
        """How many columns a block has for the composed picture to be about ``ratio`` times as wide as it is tall."""
        width, count = self.tiles.shape[3], len(self.columns)

        def off(columns: int) -> float:
            blocks = -(-count // columns)
            wide, tall = columns * (width + 1), blocks * self.block_height
            return abs(float(np.log(wide / tall / ratio)))

        nearest: int = min(range(1, count + 1), key=lambda columns: (off(columns), -columns))
        # The last block is no shorter than it must be.
        return -(-count // -(-count // nearest))
