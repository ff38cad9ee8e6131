"""Numbers as colours: two scales that colour-blind people read too, and one index for each shade.

Signed numbers: ColorBrewer's RdBu, turned so that negative is blue and positive red (colorbrewer2.org lists it as safe
for the colour-blind). Others: viridis (Smith and van der Walt, matplotlib 1.5; public domain).
"""

from __future__ import annotations

from functools import cache

from wio.lazy import Array, np

Colour = tuple[int, int, int]
# An odd number: zero has a shade of its own.
SHADES = 253
NOT_FINITE, GAP = SHADES, SHADES + 1
NOT_FINITE_COLOUR: Colour = (0, 0, 0)

_SIGNED = (
    ("053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7"),
    ("fddbc7", "f4a582", "d6604d", "b2182b", "67001f"),
)
_PLAIN = ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725")


@cache
def palette(signed: bool) -> tuple[Colour, ...]:
    """The colour of each shade, R G B of 8 bits, and of what is not finite."""
    anchors = (*_SIGNED[0], *_SIGNED[1]) if signed else _PLAIN
    points = np.array([[int(each[k : k + 2], 16) for k in (0, 2, 4)] for each in anchors], np.float64)
    places = np.linspace(0, len(anchors) - 1, SHADES)
    channels = [np.interp(places, np.arange(len(anchors)), points[:, k]) for k in range(3)]
    shades = np.rint(np.stack(channels, axis=1)).astype(int).tolist()
    return (*((r, g, b) for r, g, b in shades), NOT_FINITE_COLOUR)


def indices(values: Array, scale: tuple[float, float]) -> Array:
    """The shade of each value in a scale from its low to its high end, uint8."""
    low, high = scale
    # Halves: the distance between two doubles may be no double.
    with np.errstate(invalid="ignore", over="ignore"):
        place = (values / 2 - low / 2) / (high / 2 - low / 2) * (SHADES - 1)
    finite = np.isfinite(values)
    return np.where(finite, np.clip(np.rint(np.where(finite, place, 0)), 0, SHADES - 1), NOT_FINITE).astype(np.uint8)
