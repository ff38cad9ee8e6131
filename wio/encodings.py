"""How any array becomes bytes, and how those are kept that safetensors has no dtype for (spec, "Encodings")."""

from __future__ import annotations

import math
from typing import Any

from wio.dtypes import DType
from wio.errors import FormatError
from wio.lazy import Array, np


def to_bytes(array: Array, dtype: DType) -> memoryview:
    """The stored bytes of an array, C order and little-endian; a view of the array where it is already so."""
    if dtype.encoding == "varbytes":
        return memoryview(encode_varbytes(array))
    wanted = dtype.numpy
    if array.dtype != wanted:
        if array.dtype.newbyteorder("<") != wanted:
            raise FormatError(f"an array of {array.dtype} was given where {dtype} was declared")
        array = array.astype(wanted)
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    # ml_dtypes and zero-size arrays export no plain buffer; their bytes as uint8 do.
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def from_bytes(data: Any, dtype: DType, shape: tuple[int, ...]) -> Array:
    """The array that stored bytes hold: a view of ``data``. FormatError if they are not its size."""
    if dtype.encoding == "varbytes":
        return decode_varbytes(bytes(data), shape)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise FormatError(f"{len(data)} bytes cannot be {dtype} of shape {shape}")
    return _shaped(np.frombuffer(data, np.uint8).view(dtype.numpy), shape)


def encode_varbytes(array: Array) -> bytes:
    """All lengths as LEB128, then all the bytes, elements in C order."""
    items = [item.encode() if isinstance(item, str) else item for item in array.reshape(-1).tolist()]
    # bytes(5) would be five zero bytes, not an error.
    if odd := {type(item).__name__ for item in items if not isinstance(item, bytes)}:
        raise FormatError(f"byte strings were declared, the array holds {', '.join(sorted(odd))}")
    return b"".join(map(leb128, map(len, items))) + b"".join(items)


def decode_varbytes(data: bytes, shape: tuple[int, ...]) -> Array:
    """The byte strings in ``data`` as an object array. FormatError if lengths and bytes do not add up."""
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
        if byte == 0 and shift > 7:
            raise FormatError("the length of a byte string is not written the shortest way")
        lengths.append(length)
    if at + sum(lengths) != len(data):
        raise FormatError(f"byte strings of {sum(lengths)} bytes were declared, {len(data) - at} are there")
    array = np.empty(count, object)
    for i, length in enumerate(lengths):
        array[i] = data[at : at + length]
        at += length
    return _shaped(array, shape)


def _shaped(array: Array, shape: tuple[int, ...]) -> Array:
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise FormatError(f"NumPy cannot hold an array of shape {shape}: {error}") from None


def leb128(number: int) -> bytes:
    """A number from 0, 7 bits a byte, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
