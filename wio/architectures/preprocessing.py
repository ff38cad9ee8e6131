"""What an architecture declares of pictures: how one becomes an input, and what the classes of an output are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from wio.errors import UsageError
from wio.lazy import Array, np
from wio.network import Network

COLORS = ("RGB", "BGR")
RESIZES = ("bilinear-corner",)


class Preprocessing(Struct, frozen=True):
    """From picture to input: the middle ``crop`` of each side, resized; ``x / divide - subtract``.

    ``bilinear-corner`` lays the corners of the first pixels on each other and looks at four pixels, however much
    smaller the picture becomes: TensorFlow 1's ``tf.image.resize_bilinear``. ``refused`` says why none can be taken.
    """

    source: str
    crop: float = 1.0
    resize: str = "bilinear-corner"
    color: str = "RGB"
    divide: float = 1.0
    subtract: float = 0.0
    refused: str | None = None

    def wrong(self) -> Iterator[tuple[str, str]]:
        """What cannot be meant: the key and what is wrong with it."""
        if not 0 < self.crop <= 1:
            yield "crop", f"is the part of each side that is kept, above 0 and up to 1, not {self.crop:g}"
        if self.resize not in RESIZES:
            yield "resize", f"is {' or '.join(RESIZES)}, not {self.resize!r}"
        if self.color not in COLORS:
            yield "color", f"is {' or '.join(COLORS)}, not {self.color!r}"
        if not self.divide:
            yield "divide", "is not 0"

    def apply(self, picture: Array, height: int, width: int) -> Array:
        """The input (H W C, float32) that a picture becomes (H W C, uint8, C is RGB)."""

        rows, columns = (_middle(size, self.crop) for size in picture.shape[:2])
        resized = _bilinear_corner(picture[rows, columns], height, width)
        if self.color == "BGR":
            resized = resized[..., ::-1]
        prepared: Array = resized / np.float32(self.divide) - np.float32(self.subtract)
        return prepared


class Classes(Struct, frozen=True):
    """The classes of an output: how many, and which of them, if any, is none of the things but the background."""

    output: str
    count: int
    background: int | None = None

    def wrong(self, network: Network) -> Iterator[tuple[str, str]]:
        maps = network.feature_maps()
        if self.output not in maps:
            yield "output", f"no layer is named {self.output!r}"
        elif any(self.output in layer.inputs for layer in network.layers):
            yield "output", f"{self.output!r} is no output of the network: another layer takes it"
        elif (found := maps[self.output]) is not None and found.sizes[-1] != self.count:
            yield "count", f"is {self.count}, and {self.output} gives {found.sizes[-1]}"
        if self.background is not None and not 0 <= self.background < self.count:
            yield "background", f"is a class from 0 to {self.count - 1}, not {self.background}"

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        """A name for each class, given one for each, or one for each but the background."""
        if len(names) == self.count:
            return tuple(names)
        if self.background is not None and len(names) == self.count - 1:
            return (*names[: self.background], "background", *names[self.background :])
        beside = "" if self.background is None else f", or {self.count - 1} without the background"
        raise UsageError(f"{len(names)} names were given for {self.count} classes{beside}")

    def note(self) -> str | None:
        if self.background is None:
            return None
        return f"class {self.background} is the background: lists without it count {self.count - 1} classes from 0"


def _middle(size: int, part: float) -> slice:
    """The middle of a side, as ``tf.image.central_crop`` takes it: the same is left out at both ends, rounded down."""
    begin = int((size - size * part) / 2)
    return slice(begin, size - begin)


def _bilinear_corner(picture: Array, height: int, width: int) -> Array:
    """Source: TensorFlow, ``resize_bilinear_op.cc`` with ``align_corners`` and ``half_pixel_centers`` false."""
    (top, bottom, down), (left, right, across) = (
        _neighbours(before, after) for before, after in zip(picture.shape[:2], (height, width), strict=True)
    )
    upper, lower = picture[top].astype(np.float32), picture[bottom].astype(np.float32)
    across, down = across[None, :, None], down[:, None, None]
    above = upper[:, left] + (upper[:, right] - upper[:, left]) * across
    below = lower[:, left] + (lower[:, right] - lower[:, left]) * across
    resized: Array = above + (below - above) * down
    return resized


def _neighbours(before: int, after: int) -> tuple[Array, Array, Array]:
    """For each place after: the two places before between which it lies, and how far it is from the first."""
    places = np.arange(after, dtype=np.float32) * np.float32(before / after)
    first = np.floor(places).astype(np.int64)
    return first, np.minimum(first + 1, before - 1), places - first.astype(np.float32)
