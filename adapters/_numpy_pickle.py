"""NumPy's pickles, as the .npy dictionaries of caffe-tensorflow hold them: arrays described, never made by the pickle.

Source: NumPy 2.4, ``ndarray.__reduce__`` and ``dtype.__reduce__``: ``_reconstruct(ndarray, (0,), b'b')`` and a state of
(1, shape, dtype, Fortran order, data); ``dtype('f4', 0, 1)`` and a state whose second field is the byte order.
"""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from wio.adapters._numpy_header import Stored, checked, is_shape, read_descr
from wio.adapters._pickle import Built, Constant, Function
from wio.adapters._pickle_values import ENCODE, Encoded
from wio.errors import FormatError


class PickledDtype(Built, Struct, eq=False):
    """``order`` is the byte order that its state gives it."""

    code: str
    order: str = "<"

    def build(self, state: Any) -> None:
        # descriptor.c, arraydescr_setstate: versions 3 and 4, the latter with metadata as the ninth field.
        known = type(state) is tuple and len(state) in (8, 9) and type(state[0]) is int and state[0] in (3, 4)
        order = _latin1(state[1]) if known else None
        if order not in ("<", ">", "|", "=") or any(field is not None for field in state[2:5]):
            raise FormatError("a dtype with fields, without byte order, or of another version: not read")
        # NPY_LIST_PICKLE: NumPy would take the bytes of numbers for a list of objects.
        if type(state[7]) is not int or (state[7] & 2 and not self.code.startswith("O")):
            raise FormatError(f"a dtype {self.code!r} with the flags {state[7]!r}")
        self.order = order


class PickledArray(Built, Struct, eq=False):
    """An array: how it is stored and its bytes, or the list of its objects."""

    stored: Stored | None = None
    data: Any = None

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5 or state[0] != 1:
            raise FormatError("the state of an array is not the one that NumPy writes")
        _, shape, dtype, fortran, data = state
        if not is_shape(shape) or not isinstance(dtype, PickledDtype):
            raise FormatError("an array without shape or dtype")
        if dtype.code in ("O8", "O4", "O"):
            if type(data) is not list:
                raise FormatError("an array of objects without the list of them")
            self.stored, self.data = Stored(None, False, False, shape), data
            return
        found, _ = read_descr(f"{dtype.order}{dtype.code}", "an array in the pickle")
        # Some NumPys wrote the flag as a number.
        stored = checked(Stored(found, dtype.order == ">", fortran in (True, 1), shape), "an array in the pickle")
        if type(data) is str and data == "":
            data = b""
        if not isinstance(data, (bytes, memoryview, Encoded)):
            raise FormatError("an array without its bytes")
        # Spelled as text a byte takes one or two bytes: what was not decoded must at least be able to hold the array.
        least, most = (len(data),) * 2 if not isinstance(data, Encoded) else (-(-len(data.utf8) // 2), len(data.utf8))
        if not least <= stored.nbytes <= most:
            raise FormatError(f"an array of {found} of shape {shape} that does not have its {stored.nbytes} bytes")
        self.stored, self.data = stored, data

    def bytes(self) -> memoryview:
        """The bytes as stored, exactly as many as shape and dtype ask for."""
        data = self.data.decode() if isinstance(self.data, Encoded) else self.data
        if self.stored is None or len(data) != self.stored.nbytes:
            raise FormatError("an array in the pickle does not have its bytes")
        return memoryview(data)

    @property
    def items(self) -> list[Any] | None:
        """The objects of an array of objects, as many as its shape says; None for an array of numbers."""
        if self.stored is None or self.stored.dtype is not None:
            return None
        if math.prod(self.stored.shape) != len(self.data):
            raise FormatError("an array of objects has another number of them than its shape says")
        objects: list[Any] = self.data
        return objects


def resolve(module: str, name: str) -> Function | Constant | None:
    """The globals of a pickled NumPy array: these and no other."""
    return _GLOBALS.get((module, name))


# The class itself is only ever passed on.
_NDARRAY = Constant("numpy.ndarray")


def _latin1(value: Any) -> str | None:
    return value.decode("latin-1") if type(value) is bytes else value if type(value) is str else None


def _dtype(arguments: tuple[Any, ...]) -> PickledDtype:
    code = _latin1(arguments[0]) if len(arguments) == 3 else None
    if code is None or len(code) > 16:
        raise FormatError("a dtype that is not made of its code")
    return PickledDtype(code)


def _reconstruct(arguments: tuple[Any, ...]) -> PickledArray:
    if len(arguments) != 3 or arguments[0] is not _NDARRAY:
        raise FormatError("an array that is reconstructed as something else than numpy.ndarray: refused")
    # What it is before its state: always an empty array of bytes.
    if arguments[1] != (0,) or _latin1(arguments[2]) != "b":
        raise FormatError("an array that is not reconstructed from shape (0,) and dtype 'b', as NumPy writes it")
    return PickledArray()


_GLOBALS: dict[tuple[str, str], Function | Constant] = {
    ("numpy.core.multiarray", "_reconstruct"): Function(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): Function(_reconstruct),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Function(_dtype),
    ("_codecs", "encode"): ENCODE,
}
