"""How values that safetensors has no dtype for are kept as bytes, and how any array becomes bytes (spec, "Encodings")."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from wio.dtypes import DType
from wio.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def to_bytes(array: Array, dtype: DType) -> memoryview:
    """The stored bytes of an array, C order and little-endian; a view of the array where it is already so."""
    import numpy as np

    if dtype.encoding == "varbytes":
        return memoryview(encode_varbytes(array))
    wanted = dtype.numpy
    if array.dtype != wanted:
        if array.dtype.itemsize != wanted.itemsize:
            raise FormatError(f"an array of {array.dtype} was given where {dtype} was declared")
        array = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    # ml_dtypes and zero-size arrays export no plain buffer; their bytes as uint8 do.
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")


def from_bytes(data: Any, dtype: DType, shape: tuple[int, ...]) -> Array:
    """The array that stored bytes hold: a view of ``data``. FormatError if they are not its size."""
    import numpy as np

    if dtype.encoding == "varbytes":
        return decode_varbytes(bytes(data), shape)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise FormatError(f"{len(data)} bytes cannot be {dtype} of shape {shape}")
    return np.frombuffer(data, np.uint8).view(dtype.numpy).reshape(shape)


def encode_varbytes(array: Array) -> bytes:
    """All lengths as LEB128, then all the bytes, elements in C order."""
    items = [bytes(item) if not isinstance(item, str) else item.encode() for item in array.reshape(-1).tolist()]
    return b"".join(map(_leb128, map(len, items))) + b"".join(items)


def decode_varbytes(data: bytes, shape: tuple[int, ...]) -> Array:
    """The byte strings in ``data`` as an object array. FormatError if lengths and bytes do not add up."""
    import numpy as np

    count = math.prod(shape)
    if count > len(data):
        raise FormatError(f"{len(data)} bytes cannot hold {count} byte strings")
    lengths, at = [], 0
    for _ in range(count):
        length, shift = 0, 0
        while True:
            if at >= len(data) or shift > 63:
                raise FormatError("the lengths of byte strings are cut short or too long")
            byte = data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if at + sum(lengths) != len(data):
        raise FormatError(f"byte strings of {sum(lengths)} bytes were declared, {len(data) - at} are there")
    array = np.empty(count, object)
    for i, length in enumerate(lengths):
        array[i] = data[at : at + length]
        at += length
    return array.reshape(shape)


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
