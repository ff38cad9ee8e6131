"""The header of a .npy file: which dtypes are let in, read and written.

Source: NumPy 2.4, ``numpy/lib/_format_impl.py`` (versions 1.0 to 3.0; the header is at most 10,000 bytes).
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from msgspec import Struct

from wio.dtypes import DTYPES, DType
from wio.errors import FormatError, printable
from wio.lazy import Array, np

MAGIC = b"\x93NUMPY"
MOST_HEADER = 10_000
# Enough for any header that is let in: magic, version, length, header.
HEAD = 12 + MOST_HEADER
MOST_AXES = 64
_CODES = {
    **{"b1": "bool", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128"},
    **{f"{sign}{size}": f"{word}{size * 8}" for sign, word in (("i", "int"), ("u", "uint")) for size in (1, 2, 4, 8)},
}
_DESCR = re.compile(r"([<>|=]?)([a-zA-Z?])(\d*)")
# Python 2 wrote sizes as 500L.
_LONG = re.compile(r"(?<=\d)L\b")
NATIVE = frozenset(_CODES.values())


class Stored(Struct, frozen=True):
    """How an array is stored; ``start`` is where its data begin, counted from the magic."""

    dtype: DType | None
    big_endian: bool
    fortran: bool
    shape: tuple[int, ...]
    start: int = 0

    @property
    def numbers(self) -> DType:
        """The dtype; FormatError for objects."""
        if self.dtype is None:
            raise FormatError("an array of Python objects holds no numbers")
        return self.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize if self.dtype else 0

    @property
    def straight(self) -> bool:
        """Whether the bytes stand as wio keeps them: C order, little-endian."""
        dense = sum(size > 1 for size in self.shape) <= 1 or 0 in self.shape
        return (not self.fortran or dense) and not (self.big_endian and self.dtype and self.dtype.itemsize > 1)

    def array(self, data: Any) -> Array:
        """The values, C order and little-endian, of exactly ``nbytes`` bytes."""
        dtype = self.numbers.numpy
        flat = np.frombuffer(data, dtype.newbyteorder(">" if self.big_endian else "<"))
        try:
            shaped = flat.reshape(self.shape, order="F" if self.fortran else "C")
        except ValueError as error:
            raise FormatError(f"NumPy cannot hold an array of shape {self.shape}: {error}") from None
        return np.ascontiguousarray(shaped.astype(dtype, copy=False)).reshape(self.shape)


def read_head(head: bytes, what: str) -> Stored:
    """What the first bytes of a .npy file say; ``dtype`` is None for objects. FormatError, naming ``what``."""
    if not head.startswith(MAGIC) or len(head) < 10:
        raise FormatError(f"{what}: is no .npy array")
    major = head[6]
    if major not in (1, 2, 3) or head[7] != 0:
        raise FormatError(f"{what}: version {major}.{head[7]} of .npy is not known")
    width = 2 if major == 1 else 4
    start = 8 + width
    size = int.from_bytes(head[8:start], "little")
    if size > MOST_HEADER:
        raise FormatError(f"{what}: a header of {size} bytes is over the limit of {MOST_HEADER}")
    raw = head[start : start + size]
    if len(raw) < size:
        raise FormatError(f"{what}: the header is cut short")
    fields = _fields(raw, "utf-8" if major == 3 else "latin-1", what)
    shape, fortran = fields["shape"], fields["fortran_order"]
    if not is_shape(shape):
        raise FormatError(f"{what}: its shape is no tuple of at most {MOST_AXES} sizes")
    if type(fortran) is not bool:
        raise FormatError(f"{what}: fortran_order is neither True nor False")
    if fields["descr"] == "|O":
        return Stored(None, False, False, shape, start + size)
    dtype, big = read_descr(fields["descr"], what)
    return checked(Stored(dtype, big, fortran, shape, start + size), what)


def is_shape(value: Any) -> bool:
    """Whether a value is a tuple of at most 64 sizes."""
    return type(value) is tuple and len(value) <= MOST_AXES and all(type(n) is int and 0 <= n < 2**63 for n in value)


def checked(stored: Stored, what: str) -> Stored:
    """Sizes of 0 are left out: NumPy multiplies the sizes before it looks for one."""
    itemsize = stored.dtype.itemsize if stored.dtype else 1
    if math.prod(size for size in stored.shape if size) * itemsize >= 2**63:
        raise FormatError(f"{what}: its shape overflows every integer")
    return stored


def _fields(raw: bytes, encoding: str, what: str) -> dict[str, Any]:
    try:
        text = raw.decode(encoding)
        document = ast.literal_eval(_LONG.sub("", text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise FormatError(f"{what}: the header is no dictionary of Python") from None
    if not isinstance(document, dict) or set(document) != {"descr", "fortran_order", "shape"}:
        raise FormatError(f"{what}: the header has not the keys descr, fortran_order and shape")
    return document


def read_descr(descr: Any, what: str) -> tuple[DType, bool]:
    """The dtype that a descr names, and whether it is big-endian. FormatError for what is no array of numbers."""
    if isinstance(descr, (list, tuple)):
        raise FormatError(f"{what}: is a structured array", remedy="save each of its fields as an array of its own")
    found = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    if found is None:
        raise FormatError(f"{what}: its dtype is not understood")
    order, kind, size = found.groups()
    code = "b1" if (kind, size) == ("?", "") else f"{kind}{size}"
    if code not in _CODES:
        kinds = {
            "O": "Python objects",
            "U": "text",
            "S": "byte strings",
            "V": "raw records",
            "M": "dates",
            "m": "dates",
        }
        known = {**kinds, "a": "byte strings", "f": "extended floats", "c": "extended complex numbers"}
        raise FormatError(
            f"{what}: an array of {known.get(kind, 'an unknown kind')} ({printable(descr)}), not of numbers",
            remedy="save it as numbers, or leave it out where the file is saved",
        )
    return DTYPES[_CODES[code]], order == ">"


def head_bytes(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """The header of version 1.0 or 2.0 that NumPy would write for a C-ordered array, to a multiple of 64 bytes."""
    return _head(descr_of(dtype), shape)


def object_head() -> bytes:
    """The header of an array without axes that holds one object."""
    return _head("|O", ())


def descr_of(dtype: DType) -> str:
    """How NumPy writes a dtype: byte order, kind, size."""
    return dtype.numpy.str if dtype.itemsize > 1 else f"|{dtype.numpy.str[1:]}"


def _head(descr: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}"
    # NumPy leaves room for the first size to grow in place.
    text += " " * (21 - len(repr(shape[0]))) if shape else ""
    for major, width in ((1, 2), (2, 4)):
        size = 8 + width + len(text) + 1
        padded = text + " " * (-size % 64) + "\n"
        if len(padded) < 1 << 8 * width:
            return MAGIC + bytes([major, 0]) + len(padded).to_bytes(width, "little") + padded.encode("ascii")
    raise FormatError(f"a shape of {len(shape)} axes has no place in a .npy header")
