"""A Darknet .weights: a header of four numbers, then float32 arrays without names, sizes or gaps.

Source: github.com/pjreddie/darknet, src/parser.c, load_weights_upto and save_weights_upto.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from wio.errors import FormatError
from wio_darknet.cfg import Array, arrays_of


@dataclass(frozen=True)
class Header:
    """The version that wrote the file, and how many images its network had seen."""

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    def __post_init__(self) -> None:
        numbers = (self.major, self.minor, self.revision)
        if any(type(each) is not int or not 0 <= each < 1 << 31 for each in numbers) or numbers[:2] == (0, 0):
            raise FormatError(f"{numbers} is no version of Darknet")
        if type(self.seen) is not int or not 0 <= self.seen < 1 << (64 if self.form.size == 20 else 31):
            raise FormatError(f"{self.seen!r} is no count of images")

    @property
    def form(self) -> struct.Struct:
        """The count of images has 64 bits from version 0.2 on."""
        wide = self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000
        return struct.Struct("<iiiQ" if wide else "<iiii")

    @property
    def transposed(self) -> bool:
        """Whether dense kernels lie the other way round, as versions that add 1000 to a number say."""
        return self.major > 1000 or self.minor > 1000

    def packed(self) -> bytes:
        return self.form.pack(self.major, self.minor, self.revision, self.seen)


@dataclass(frozen=True)
class OpenFile:
    """A .weights whose size is what its .cfg comes to; ``places`` has the offset of each array."""

    path: Path
    header: Header
    places: tuple[tuple[Array, int], ...]

    def values(self, array: Array, offset: int) -> Any:
        """The array, read now. FormatError if the file has become shorter."""
        import numpy as np

        found = np.fromfile(self.path, "<f4", prod(array.shape), offset=offset)
        if found.size != prod(array.shape):
            raise FormatError(f"{self.path.name}: cut off while it was open; {array.name} is not all there")
        return found.reshape(array.shape)


def open_weights(path: Path, cfg: str) -> OpenFile:
    """The header, and where each array lies. FormatError unless the .cfg comes to the file's size, to the byte.

    Darknet itself reads short files in silence, and leaves the layers after the cut as they were.
    """
    with path.open("rb") as file:
        start = file.read(20)
        size = file.seek(0, 2)
    if len(start) < 20:
        raise FormatError(f"{path.name}: {size} bytes are no Darknet .weights")
    header = Header(*struct.unpack_from("<iii", start))
    header = Header(*header.form.unpack_from(start))
    places, at = [], header.form.size
    for array in arrays_of(cfg, transposed=header.transposed):
        places.append((array, at))
        at += 4 * prod(array.shape)
    if at != size:
        raise FormatError(
            f"{path.name}: its .cfg comes to {at} bytes, the file has {size}", remedy="is it another's .cfg?"
        )
    return OpenFile(path, header, tuple(places))
