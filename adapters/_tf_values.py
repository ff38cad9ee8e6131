"""Values as TensorFlow writes them: raw bytes and strings in data files (V2), typed fields in a TensorProto (V1).

Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc (WriteStringTensor, WriteVariantTensor);
tensorflow/core/framework/tensor.proto; saved_tensor_slice_util.h (which field keeps which dtype).
"""

from __future__ import annotations

from array import array as machine_array
from collections.abc import Callable
from typing import TYPE_CHECKING

from wio.adapters._crc32c import crc32c
from wio.adapters._protobuf import (
    FIXED32,
    FIXED64,
    LENGTH,
    LONGEST_VARINT,
    VARINT,
    Buffer,
    WireError,
    fields,
    packed_varints,
    signed32,
    varint,
)
from wio.adapters._tf_table import masked
from wio.dtypes import DType
from wio.errors import DigestError, FormatError
from wio.lazy import Array, np

if TYPE_CHECKING:
    from wio.adapters._mapped_files import Bytes


def elements(raw: Bytes, dtype: DType, *, big_endian: bool) -> Array:
    """Raw bytes as a flat array of that dtype, little-endian; a view where the bytes are so already."""
    unit = dtype.itemsize // 2 if dtype.name.startswith("complex") else dtype.itemsize
    if big_endian and unit > 1:
        # byte_swap_array.cc: each element on its own, each half of a complex number on its own.
        raw = raw.view(f"u{unit}").byteswap().view(np.uint8)
        raw.flags.writeable = False
    return raw.view(dtype.numpy)


def strings(raw: Bytes, count: int, *, big_endian: bool) -> tuple[Array, int]:
    """The byte strings of a DT_STRING entry, and the CRC-32C that the entry must have.

    Stored: ``count`` varint lengths, the masked CRC-32C of the lengths, the bytes. Both checksums take the lengths
    as uint32 (uint64 from 4 GiB on) in the byte order of the machine that wrote them.
    """
    if not raw.size and not count:
        return _objects([]), 0
    order = ">" if big_endian else "<"
    if count + 4 > raw.size:
        raise FormatError(f"{raw.size} bytes cannot hold {count} strings")
    head = raw[: count * LONGEST_VARINT]
    ends = np.flatnonzero(head < 0x80)[:count]
    if ends.size < count:
        raise FormatError(f"the lengths of its {count} strings are cut off")
    at = int(ends[-1]) + 1 if count else 0
    lengths = packed_varints(head[:at], np.dtype(np.uint64), lambda values: values)
    if int(lengths.max(initial=0)) < 1 << 32:
        summed = lengths.astype(f"{order}u4").tobytes()
    else:
        summed = b"".join(
            length.to_bytes(4 if length < 1 << 32 else 8, "big" if big_endian else "little")
            for length in lengths.tolist()
        )
    crc = crc32c(summed)
    stored = raw[at : at + 4].tobytes()
    if stored != masked(crc).to_bytes(4, "big" if big_endian else "little"):
        raise DigestError("the lengths of its strings do not match their CRC-32C")
    at += 4
    # As Python numbers: a sum of hostile lengths must not wrap around.
    if sum(lengths.tolist()) != raw.size - at:
        raise FormatError(f"its strings take {sum(lengths.tolist())} bytes, {raw.size - at} are stored")
    crc = crc32c(raw[at:].data, crc32c(stored, crc))
    found = []
    data = raw.data
    for length in lengths.tolist():
        found.append(bytes(data[at : at + length]))
        at += length
    return _objects(found), crc


def variants(raw: Bytes, count: int) -> tuple[Array, int]:
    """The serialised VariantTensorDataProtos of a DT_VARIANT entry, and the CRC-32C that the entry must have.

    Stored for each: a varint length, the bytes, the masked CRC-32C of all before (lengths taken as uint64).
    """
    data = raw.data
    at = crc = 0
    found: list[bytes] = []
    try:
        while len(found) < count:
            length, at = varint(data, at, raw.size)
            if length + 4 > raw.size - at:
                raise FormatError(f"variant {len(found)} at byte {at} of it runs out of its {raw.size} bytes")
            value = bytes(data[at : at + length])
            at += length
            crc = crc32c(value, crc32c(length.to_bytes(8, "little"), crc))
            stored = bytes(data[at : at + 4])
            if stored != masked(crc).to_bytes(4, "little"):
                raise DigestError(f"variant {len(found)} does not match its CRC-32C")
            crc = crc32c(stored, crc)
            at += 4
            found.append(value)
    except WireError as error:
        raise FormatError(f"the length of variant {len(found)} is malformed: {error.message}") from None
    if at != raw.size:
        raise FormatError(f"its {count} variants take {at} bytes, {raw.size} are stored")
    return _objects(found), crc


def _objects(values: list[bytes]) -> Array:
    made: Array = np.empty(len(values), object)
    made[:] = values
    made.flags.writeable = False
    return made


# tensor.proto: dtype 1, tensor_content 4, and these.
DTYPE, CONTENT, FLOAT8 = 1, 4, 18
_FIXED = {"float32": 5, "float64": 6, "complex64": 9, "complex128": 12}
_VARINT = {
    **dict.fromkeys(("int32", "uint8", "int16", "int8", "uint16"), 7),
    **dict.fromkeys(("qint8", "quint8", "qint32", "qint16", "quint16"), 7),
    **dict.fromkeys(("int4", "uint4", "int2", "uint2"), 7),
    "int64": 10,
    "bool": 11,
    "float16": 13,
    "bfloat16": 13,
    "uint32": 16,
    "uint64": 17,
}
_BYTES = {"string": 8, "variant": 15}


def tensor_proto(
    data: Buffer, start: int, stop: int, view: Callable[[int, int], Bytes], dtype: DType, number: int, count: int
) -> Array:
    """The values of a TensorProto, flat. ``view`` gives part of ``data`` as an array.

    Raises WireError for bytes that are no TensorProto, FormatError for one of another dtype (``number`` is the
    declared one in types.proto) or another number of values than ``count``.
    """
    if dtype.name in _BYTES:
        wanted = _BYTES[dtype.name] << 3 | LENGTH
        found = [bytes(data[a:b]) for tag, a, b in fields(data, start, stop) if tag == wanted]
        if len(found) != count:
            raise FormatError(f"{len(found)} values are stored where its shape needs {count}")
        return _objects(found)
    collect = _Collected(dtype, view)
    for tag, value, end in fields(data, start, stop):
        if tag == DTYPE << 3 | VARINT and signed32(value) not in (0, number):
            raise FormatError(f"its values are of dtype number {signed32(value)}, its declaration says {number}")
        collect.field(data, tag, value, end)
    pieces = collect.pieces()
    values = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, dtype.numpy), *pieces])
    if values.size != count:
        raise FormatError(f"{values.size} values are stored where its shape needs {count}")
    values.flags.writeable = False
    return values


def plain_values(data: Buffer, start: int, stop: int, dtype: DType, number: int, count: int) -> tuple[int, int] | None:
    """Where in ``data`` the values of a TensorProto lie if they are one run of little-endian bytes, else None.

    That is how TensorFlow packs floating-point numbers; then :func:`tensor_proto` has nothing to decode.
    """
    if dtype.name not in _FIXED:
        return None
    collect = _Collected(dtype, _no_view)
    found: tuple[int, int] | None = None
    for tag, value, end in fields(data, start, stop):
        if tag == DTYPE << 3 | VARINT and signed32(value) not in (0, number):
            return None
        if collect.holds_values(tag):
            if found is not None or not collect.holds_raw(tag):
                return None
            found = (value, end)
    return found if found and found[1] - found[0] == count * dtype.itemsize else None


def _no_view(start: int, stop: int) -> Bytes:
    raise AssertionError(f"bytes {start} to {stop} are only looked at")


class _Collected:
    """The values met so far. TensorFlow packs them; protobuf obliges a reader to take them one by one as well."""

    def __init__(self, dtype: DType, view: Callable[[int, int], Bytes]) -> None:
        self._dtype, self._view = dtype, view
        self._pieces: list[Array] = []
        self._single_numbers = machine_array("Q")
        self._single_bytes = bytearray()
        fixed, numbers = _FIXED.get(dtype.name), _VARINT.get(dtype.name)
        half = dtype.itemsize // 2 if dtype.name.startswith("complex") else dtype.itemsize
        self._raw = {CONTENT << 3 | LENGTH}
        if dtype.name.startswith("float8"):
            self._raw.add(FLOAT8 << 3 | LENGTH)
        if fixed:
            self._raw.add(fixed << 3 | LENGTH)
        self._one_fixed = fixed << 3 | (FIXED32 if half == 4 else FIXED64) if fixed else None
        self._packed = numbers << 3 | LENGTH if numbers else None
        self._one_varint = numbers << 3 | VARINT if numbers else None

    def holds_raw(self, tag: int) -> bool:
        return tag in self._raw

    def holds_values(self, tag: int) -> bool:
        return tag in self._raw or tag in (self._packed, self._one_varint, self._one_fixed)

    def field(self, data: Buffer, tag: int, value: int, end: int) -> None:
        if tag in self._raw:
            if (end - value) % self._dtype.itemsize:
                raise FormatError(f"its {end - value} bytes of values are no multiple of {self._dtype.itemsize}")
            if end > value:
                self._add(elements(self._view(value, end), self._dtype, big_endian=False))
        elif tag == self._packed:
            if end > value:
                self._add(packed_varints(self._view(value, end), self._dtype.numpy, self._converted))
        elif tag == self._one_varint:
            self._single_numbers.append(value)
        elif tag == self._one_fixed:
            self._single_bytes += data[value:end]

    def pieces(self) -> list[Array]:
        self._flush()
        return self._pieces

    def _add(self, values: Array) -> None:
        self._flush()
        self._pieces.append(values)

    def _flush(self) -> None:
        if self._single_numbers:
            self._pieces.append(self._converted(np.array(self._single_numbers, np.uint64)))
            self._single_numbers = machine_array("Q")
        if self._single_bytes:
            if len(self._single_bytes) % self._dtype.itemsize:
                raise FormatError("a complex value lacks its imaginary part")
            raw = np.frombuffer(bytes(self._single_bytes), np.uint8)
            self._pieces.append(elements(raw, self._dtype, big_endian=False))
            self._single_bytes = bytearray()

    def _converted(self, values: Array) -> Array:
        """Varints as protobuf and TensorFlow read them: int_val and half_val are int32, bool_val is not 0 or 0."""
        name, target = self._dtype.name, self._dtype.numpy
        if name == "bool":
            return np.asarray(values != 0)
        if name == "int64":
            return values.view(np.int64)
        if name == "uint64":
            return values
        if name == "uint32":
            return values.astype(np.uint32)
        narrow = values.astype(np.uint32).view(np.int32)
        if name in ("float16", "bfloat16"):
            bits = narrow.astype(np.uint16)
            if (bits != narrow).any():
                raise FormatError(f"a value of half_val does not fit into 16 bits, as {name} does")
            return bits.view(target)
        made = narrow.astype(target)
        if (made.astype(np.int32) != narrow).any():
            raise FormatError(f"a value of int_val does not fit into {name}")
        return made
