"""Blobs of a .caffemodel: where their values lie, and what shape the file gives them.

Source: BVLC/caffe, src/caffe/proto/caffe.proto (BlobProto) and src/caffe/blob.cpp (FromProto, ShapeEquals).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

from wio.adapters._mapped_files import MappedFile
from wio.adapters._protobuf import FIXED32, FIXED64, LENGTH, VARINT, WireError, fields, signed64, varint
from wio.dtypes import DTYPES, DType
from wio.encodings import from_bytes
from wio.lazy import Array, np

# blob.hpp: kMaxBlobAxes, and blob.cpp: a blob's size must fit an int.
MOST_AXES = 32
LARGEST = (1 << 31) - 1

_DATA, _DIFF, _SHAPE, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 7, 8, 9
_WINDOW = 1 << 18
# Writers put values in one piece, or unpacked one behind the other, which is one run.
MOST_PIECES = 10_000


class Span(Struct, frozen=True):
    """Values that lie together: ``count`` of them from byte ``start``, one every ``stride`` bytes."""

    start: int
    count: int
    stride: int


class Blob(Struct, frozen=True):
    """``legacy`` is (num, channels, height, width) where the file gives the shape so; ``shape`` is then those four."""

    dtype: DType
    shape: tuple[int, ...]
    legacy: tuple[int, ...] | None
    spans: tuple[Span, ...]
    has_diff: bool

    @property
    def contiguous(self) -> bool:
        return all(span.stride == self.dtype.itemsize for span in self.spans) and len(self.spans) <= 1

    def raw(self, file: MappedFile) -> Callable[[], memoryview] | None:
        """The bytes of the values, straight from the file; None where they are not packed in one piece."""
        if not self.contiguous:
            return None
        spans = self.spans

        def raw() -> memoryview:
            if not spans:
                return memoryview(b"")
            return file.bytes(spans[0].start, spans[0].start + spans[0].count * spans[0].stride)

        return raw

    def load(self, file: MappedFile, shape: tuple[int, ...]) -> Array:
        """The values in ``shape``, which has as many elements as the blob."""
        if self.contiguous:
            if not self.spans:
                return from_bytes(b"", self.dtype, shape)
            span = self.spans[0]
            stored = from_bytes(file.array(span.start, span.start + span.count * span.stride), self.dtype, shape)
            # Values begin at any byte of the file; not every library takes an array that is not aligned.
            return stored if stored.flags.aligned else stored.copy()
        size = self.dtype.itemsize
        gathered = np.empty((math.prod(shape), size), np.uint8)
        filled = 0
        for span in self.spans:
            # A run of unpacked values has a tag before each of them; the last one ends with its value.
            flat = file.array(span.start, span.start + (span.count - 1) * span.stride + size)
            view = np.lib.stride_tricks.as_strided(flat, (span.count, size), (span.stride, 1), writeable=False)
            gathered[filled : filled + span.count] = view
            filled += span.count
        return from_bytes(gathered.reshape(-1), self.dtype, shape)


def parse_blob(file: MappedFile, at: int, end: int) -> Blob:
    """The blob whose message lies from ``at`` to ``end``. WireError for what Caffe would not take for one."""
    data = file.view
    legacy: dict[int, int] = {}
    dims: list[int] = []
    spans: dict[int, list[Span]] = {_DATA: [], _DOUBLE_DATA: []}
    has_diff = False
    while at < end:
        for tag, value, stop in fields(data, at, end):
            at, number, wire = stop, tag >> 3, tag & 7
            if number in spans:
                size = 4 if number == _DATA else 8
                if len(spans[number]) >= MOST_PIECES:
                    raise WireError(f"the values lie in more than {MOST_PIECES} pieces")
                if wire == LENGTH:
                    if (stop - value) % size:
                        raise WireError(f"{stop - value} packed bytes at byte {value} are no whole number of values")
                    if stop > value:
                        spans[number].append(Span(value, (stop - value) // size, size))
                elif wire == (FIXED32 if size == 4 else FIXED64):
                    count = _run(file, value - 1, end, tag, size)
                    spans[number].append(Span(value, count, size + 1))
                    # The rest of the run is not looked at value by value: go on behind it.
                    at = value + (count - 1) * (size + 1) + size
                    break
                else:
                    raise WireError(f"values at byte {value} have wire type {wire}")
            elif number == _SHAPE and wire == LENGTH:
                dims += _dims(data, value, stop)
            elif 1 <= number <= 4 and wire == VARINT:
                legacy[number] = signed64(value)
            elif number in (_DIFF, _DOUBLE_DIFF):
                has_diff = True
    if spans[_DATA] and spans[_DOUBLE_DATA]:
        raise WireError("the blob has both data and double_data: which of them is meant cannot be told")
    of = _DOUBLE_DATA if spans[_DOUBLE_DATA] else _DATA
    # blob.cpp, FromProto: the deprecated four hold as soon as one of them is there, 0 standing for those that are not.
    four = tuple(legacy.get(number, 0) for number in (1, 2, 3, 4)) if legacy else None
    shape = four if four is not None else tuple(dims)
    _check_shape(shape, sum(span.count for span in spans[of]))
    return Blob(DTYPES["float64" if of == _DOUBLE_DATA else "float32"], shape, four, tuple(spans[of]), has_diff)


def _dims(data: memoryview, at: int, end: int) -> list[int]:
    dims: list[int] = []
    for tag, value, stop in fields(data, at, end):
        if tag >> 3 != 1:
            continue
        if tag & 7 == VARINT:
            dims.append(signed64(value))
        elif tag & 7 == LENGTH:
            while value < stop and len(dims) <= MOST_AXES:
                dim, value = varint(data, value, stop)
                dims.append(signed64(dim))
        else:
            raise WireError(f"a dim at byte {value} has wire type {tag & 7}")
        if len(dims) > MOST_AXES:
            raise WireError(f"a blob of more than {MOST_AXES} axes")
    return dims


def _check_shape(shape: tuple[int, ...], count: int) -> None:
    if len(shape) > MOST_AXES or any(not 0 <= dim <= LARGEST for dim in shape):
        raise WireError(f"{shape} is no shape of a blob")
    # blob.cpp bounds every partial product, so that what follows a 0 cannot be too large either.
    if math.prod(dim or 1 for dim in shape) > LARGEST:
        raise WireError(f"a blob of shape {shape} is larger than Caffe's own limit of {LARGEST} values")
    if math.prod(shape) != count:
        raise WireError(f"shape {shape} needs {math.prod(shape)} values, the blob has {count}")


def _run(file: MappedFile, at: int, end: int, tag: int, size: int) -> int:
    """How many unpacked values of one field stand one behind the other, the first with its tag at ``at``.

    The tag is one byte, as those of fields below 16 are when written the shortest way.
    """
    data, stride, count = file.view, size + 1, 0
    if data[at] != tag:
        return 1
    while True:
        # Few values are told without NumPy; a long run is told window by window.
        room = (end - at) // stride
        if room < 64 or count < 8:
            if room < 1 or data[at] != tag:
                return count
            count, at = count + 1, at + stride
            continue
        window = min(room, _WINDOW)
        tags = np.frombuffer(data, np.uint8, (window - 1) * stride + 1, at)[::stride]
        other = np.flatnonzero(tags != tag)
        if other.size:
            return count + int(other[0])
        count, at = count + window, at + window * stride
