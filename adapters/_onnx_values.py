"""The values of a TensorProto: raw bytes, typed fields, or bytes in a file of their own.

Source: onnx.proto, TensorProto, the comments of each field (which types it holds and how narrower ones are packed).
"""

from __future__ import annotations

import math
from typing import Any

from wio.adapters._mapped_files import MappedFile
from wio.adapters._onnx_external import ExternalFiles
from wio.adapters._onnx_messages import TensorRecord
from wio.adapters._protobuf import FIXED32, FIXED64, LENGTH, VARINT, WireError, packed_varints
from wio.bundle import Tensor
from wio.dtypes import DTYPES, DType
from wio.encodings import from_bytes
from wio.errors import FormatError
from wio.lazy import Array, np

FLOATS, INT32S, STRINGS, INT64S, RAW, DOUBLES, UINT64S = 4, 5, 6, 7, 9, 10, 11

# TensorProto.DataType -> wio's dtype, and the typed field that holds it.
DATA_TYPES: dict[int, tuple[str, int]] = {
    1: ("float32", FLOATS),
    2: ("uint8", INT32S),
    3: ("int8", INT32S),
    4: ("uint16", INT32S),
    5: ("int16", INT32S),
    6: ("int32", INT32S),
    7: ("int64", INT64S),
    8: ("string", STRINGS),
    9: ("bool", INT32S),
    10: ("float16", INT32S),
    11: ("float64", DOUBLES),
    12: ("uint32", UINT64S),
    13: ("uint64", UINT64S),
    14: ("complex64", FLOATS),
    15: ("complex128", DOUBLES),
    16: ("bfloat16", INT32S),
    17: ("float8_e4m3fn", INT32S),
    18: ("float8_e4m3fnuz", INT32S),
    19: ("float8_e5m2", INT32S),
    20: ("float8_e5m2fnuz", INT32S),
    21: ("uint4", INT32S),
    22: ("int4", INT32S),
    24: ("float8_e8m0fnu", INT32S),
    25: ("uint2", INT32S),
    26: ("int2", INT32S),
}
# FLOAT4E2M1 and the two FLOAT6 have no dtype in wio or in safetensors.
NUMBERS = {name: number for number, (name, _) in DATA_TYPES.items()}
PACKED_BITS = {"uint4": 4, "int4": 4, "uint2": 2, "int2": 2}


def stored_size(dtype: DType, count: int) -> int:
    """The bytes of ``count`` elements as ONNX keeps them: 2 and 4 bits share bytes, the last one filled up."""
    bits = PACKED_BITS.get(dtype.name)
    return count * dtype.itemsize if bits is None else -(-count * bits // 8)


class Values:
    """Reads the tensors of one file."""

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._external = ExternalFiles(file.path)

    def tensor(self, record: TensorRecord, name: str) -> Tensor:
        """The tensor of a record, its payload checked for size and not read. FormatError says what is wrong."""
        what = f"{self._file}: tensor {name!r}"
        if record.data_type not in DATA_TYPES:
            raise FormatError(
                f"{what}: its data type is number {record.data_type}, which wio cannot hold",
                remedy="types 1 to 22 and 24 to 26 of onnx.proto are known here",
            )
        dtype = DTYPES[DATA_TYPES[record.data_type][0]]
        if any(extent < 0 for extent in record.dims):
            raise FormatError(f"{what}: shape {record.dims} has a negative axis")
        # Sizes of 0 are left out: NumPy multiplies the sizes before it looks for one.
        if math.prod(extent for extent in record.dims if extent) * max(1, dtype.itemsize) >= 2**63:
            raise FormatError(f"{what}: shape {record.dims} overflows every integer")
        count = math.prod(record.dims)
        if record.is_external:
            return self._external_tensor(record, name, dtype, count, what)
        if len(record.payload) > 1:
            raise FormatError(f"{what}: its values are stored in {len(record.payload)} fields at once")
        if RAW in record.payload:
            if dtype.name == "string":
                raise FormatError(f"{what}: strings are stored in raw_data, which onnx.proto forbids")
            tag, start, stop = record.payload[RAW][-1]
            if tag & 7 != LENGTH or stop - start != stored_size(dtype, count):
                raise FormatError(
                    f"{what}: {dtype} of shape {record.dims} takes {stored_size(dtype, count)} bytes, "
                    f"raw_data has {stop - start if tag & 7 == LENGTH else 'none'}"
                )
            return stored_tensor(name, dtype, record.dims, lambda: self._file.bytes(start, stop), what)
        if not count and not record.payload:
            return Tensor(name, dtype, record.dims, lambda: _values(b"", dtype, record.dims, what))
        field = DATA_TYPES[record.data_type][1]
        if field not in record.payload:
            found = ", ".join(map(str, record.payload)) or "none"
            raise FormatError(f"{what}: {dtype} must stand in field {field} or raw_data, the tensor has {found}")
        self._check_room(record, field, dtype, count, what)
        stored = None
        if dtype.name == "string":
            lengths = [stop - start for _, start, stop in record.payload[STRINGS]]
            stored = sum(lengths) + sum(max(1, -(-length.bit_length() // 7)) for length in lengths)
        return Tensor(name, dtype, record.dims, lambda: self._typed(record, dtype, what), stored_bytes=stored)

    def _check_room(self, record: TensorRecord, field: int, dtype: DType, count: int, what: str) -> None:
        """Refuses a shape that the bytes of a typed field cannot fill; an element takes a byte, a packed half one."""
        parts = record.payload[field]
        room = sum(1 if tag & 7 == VARINT else stop - start for tag, start, stop in parts)
        room = len(parts) if dtype.name == "string" else room * (8 // PACKED_BITS.get(dtype.name, 8))
        if count > room:
            raise FormatError(f"{what}: shape {record.dims} has {count} elements, its field has room for {room}")

    def _external_tensor(self, record: TensorRecord, name: str, dtype: DType, count: int, what: str) -> Tensor:
        if record.payload:
            raise FormatError(f"{what}: its values are said to be external, and stand in the model as well")
        if dtype.name == "string":
            raise FormatError(f"{what}: strings cannot be external data")
        part = self._external.part(record.external, stored_size(dtype, count), what)
        return stored_tensor(name, dtype, record.dims, part, what)

    def _typed(self, record: TensorRecord, dtype: DType, what: str) -> Array:
        field = DATA_TYPES[record.data_type][1]
        parts = record.payload[field]
        try:
            if field == STRINGS:
                return self._strings(parts, record.dims, what)
            if field in (FLOATS, DOUBLES):
                wire = FIXED32 if field == FLOATS else FIXED64
                if any(tag & 7 not in (wire, LENGTH) for tag, _, _ in parts):
                    raise WireError("the numbers of its typed field are of another width")
                data = b"".join(bytes(self._file.view[start:stop]) for _, start, stop in parts)
                return _values(data, dtype, record.dims, what)
            return self._integers(parts, field, dtype, record.dims, what)
        except WireError as error:
            raise FormatError(f"{what}: {error.message}") from None

    def _strings(self, parts: list[tuple[int, int, int]], shape: tuple[int, ...], what: str) -> Array:
        if any(tag & 7 != LENGTH for tag, _, _ in parts) or len(parts) != math.prod(shape):
            raise FormatError(f"{what}: {len(parts)} strings are stored for shape {shape}")
        array = np.empty(len(parts), object)
        for i, (_, start, stop) in enumerate(parts):
            array[i] = bytes(self._file.view[start:stop])
        return array.reshape(shape)

    def _integers(
        self, parts: list[tuple[int, int, int]], field: int, dtype: DType, shape: tuple[int, ...], what: str
    ) -> Array:
        """Varints, all of them first as 64 bits; narrower types keep their own bits in the low end of an int32."""
        wide = {"int32": "<i4", "uint32": "<u4", "uint64": "<u8", "int64": "<u8"}.get(dtype.name)
        final = np.dtype(wide) if wide else _narrow(dtype)

        def convert(part: Array) -> Array:
            if field == INT32S:
                return self._narrowed(part.astype(np.uint32).view(np.int32), dtype, what)
            if dtype.name == "uint32" and (part >> np.uint64(32)).any():
                raise FormatError(f"{what}: a number does not fit into {dtype}")
            return part.astype(final, copy=False)

        chunks = []
        single: list[int] = []
        for tag, start, stop in parts:
            if tag & 7 == VARINT:
                single.append(start)
            elif tag & 7 == LENGTH:
                if single:
                    chunks.append(convert(np.array(single, np.uint64)))
                    single = []
                chunks.append(packed_varints(self._file.array(start, stop), final, convert))
            else:
                raise WireError("the numbers of its typed field are no varints")
        if single or not chunks:
            chunks.append(convert(np.array(single, np.uint64)))
        values: Array = np.concatenate(chunks) if len(chunks) > 1 else chunks[0]
        return _values(values.view(np.uint8).data, dtype, shape, what)

    def _narrowed(self, signed: Array, dtype: DType, what: str) -> Array:
        if dtype.name == "int32":
            return signed.astype("<i4")
        final = _narrow(dtype)
        width = final.itemsize
        lowest, highest = 0, (1 << 8 * width) - 1
        if dtype.name in ("int8", "int16"):
            lowest, highest = -(1 << 8 * width - 1), (1 << 8 * width - 1) - 1
        if signed.size and (int(signed.min()) < lowest or int(signed.max()) > highest):
            raise FormatError(f"{what}: a number in int32_data does not fit into {dtype}")
        return signed.astype(final)


def _narrow(dtype: DType) -> np.dtype[Any]:
    """What int32_data holds of a type that is narrower than its fields."""
    width = 1 if dtype.name in PACKED_BITS else dtype.itemsize
    return np.dtype(f"<i{width}" if dtype.name in ("int8", "int16") else f"<u{width}")


def stored_tensor(name: str, dtype: DType, shape: tuple[int, ...], part: Any, what: str) -> Tensor:
    """A tensor whose bytes stand somewhere as ONNX keeps them; ``part`` gives them."""
    as_they_are = dtype.name not in PACKED_BITS and dtype.name != "bool"
    return Tensor(name, dtype, shape, lambda: _values(part(), dtype, shape, what), raw=part if as_they_are else None)


def _values(data: Any, dtype: DType, shape: tuple[int, ...], what: str) -> Array:
    try:
        if dtype.name in PACKED_BITS:
            return _unpacked(data, dtype, shape)
        if dtype.name == "bool" and len(data) and int(np.frombuffer(data, np.uint8).max()) > 1:
            raise FormatError("a truth value is stored as neither 0 nor 1")
        return from_bytes(data, dtype, shape)
    except FormatError as error:
        raise FormatError(f"{what}: {error.message}") from None


def _unpacked(data: Any, dtype: DType, shape: tuple[int, ...]) -> Array:
    """One element per byte out of several: the first in the low bits (onnx.proto, int32_data and raw_data)."""
    bits = PACKED_BITS[dtype.name]
    count = math.prod(shape)
    if len(data) != stored_size(dtype, count):
        raise FormatError(f"{len(data)} bytes cannot be {dtype} of shape {shape}")
    flat = np.frombuffer(data, np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (flat[:, None] >> shifts & ((1 << bits) - 1)).reshape(-1)[:count].astype(np.int8)
    if dtype.name.startswith("int"):
        parts = (parts ^ (1 << bits - 1)) - (1 << bits - 1)
    return parts.astype(dtype.numpy).reshape(shape)


def as_stored(tensor: Tensor) -> memoryview:
    """The bytes that ONNX keeps for a tensor: as they are, 2 and 4 bits packed. Not for strings."""
    bits = PACKED_BITS.get(tensor.dtype.name)
    if bits is None:
        return tensor.stored()
    per_byte = 8 // bits
    flat = tensor.numpy().reshape(-1).astype(np.int8).view(np.uint8) & np.uint8((1 << bits) - 1)
    rows = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    rows[: flat.size] = flat
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed: Array = np.bitwise_or.reduce(rows.reshape(-1, per_byte) << shifts, axis=1).astype(np.uint8)
    return packed.data
