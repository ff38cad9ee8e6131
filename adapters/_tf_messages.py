"""The protocol buffer messages of a checkpoint, field by field.

Each field is linked to its .proto file (TensorFlow 2.21) by the number that follows its name. Unknown fields and
groups are skipped, as protobuf does; a message that occurs twice where one is meant is merged, as protobuf does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from wio.adapters._protobuf import FIXED32, LENGTH, VARINT, Buffer, WireError, fields, signed32, signed64, text, varint

# (start, length) of each axis; (0, -1) for all of it (tensor_slice.h, kFullExtent).
Slice = tuple[tuple[int, int], ...]

# Of tensors, of slices of one, of objects: two bytes make one, and reading it takes two hundred. A grid of slices that
# covers a variable has thousands.
MOST_LISTED = 200_000

# Tags: field number and wire type.
VARINT_1, VARINT_2, VARINT_3, VARINT_4, VARINT_5 = (number << 3 | VARINT for number in range(1, 6))
LENGTH_1, LENGTH_2, LENGTH_3, LENGTH_4 = (number << 3 | LENGTH for number in range(1, 5))
FIXED32_6, LENGTH_7 = 6 << 3 | FIXED32, 7 << 3 | LENGTH


class Version(NamedTuple):
    """tensorflow/core/framework/versions.proto, VersionDef."""

    producer: int = 0  # 1
    min_consumer: int = 0  # 2
    bad_consumers: tuple[int, ...] = ()  # 3

    def refusal(self, ours: int) -> str | None:
        """Why a reader of version ``ours`` must not read this (versions.cc, CheckVersions), or None."""
        if self.producer < 0:
            return f"its writer is of version {self.producer}, older than any"
        if self.min_consumer > ours:
            return f"its writer asks for readers of version {self.min_consumer} or later; version {ours} is known here"
        if ours in self.bad_consumers:
            return f"its writer forbids readers of version {ours}"
        return None


class Header(NamedTuple):
    """tensorflow/core/protobuf/tensor_bundle.proto, BundleHeaderProto."""

    num_shards: int  # 1
    endianness: int  # 2: LITTLE = 0, BIG = 1
    version: Version  # 3


class Entry(NamedTuple):
    """tensorflow/core/protobuf/tensor_bundle.proto, BundleEntryProto. ``shape`` is left serialised."""

    dtype: int  # 1
    shape: bytes  # 2
    shard: int  # 3
    offset: int  # 4
    size: int  # 5
    crc: int  # 6, masked
    slices: tuple[Slice, ...]  # 7


class SavedTensor(NamedTuple):
    """tensorflow/core/util/saved_tensor_slice.proto, SavedSliceMeta. ``shape`` is left serialised."""

    name: str  # 1
    shape: bytes  # 2
    dtype: int  # 3
    slices: tuple[Slice, ...]  # 4


class SavedSlice(NamedTuple):
    """tensorflow/core/util/saved_tensor_slice.proto, SavedSlice. ``data`` is where its TensorProto stands."""

    name: str  # 1
    slice: Slice  # 2
    data: tuple[int, int] | None  # 3


class Trackable(NamedTuple):
    """tensorflow/core/protobuf/trackable_object_graph.proto, TrackableObjectGraph.TrackableObject."""

    full_names: tuple[tuple[str, str], ...]  # 2, attributes: (checkpoint_key, full_name)
    slots: tuple[int, ...]  # 3, slot_variables: slot_variable_node_id


def version(data: Buffer, start: int, stop: int) -> Version:
    producer = min_consumer = 0
    bad: list[int] = []
    for tag, value, end in fields(data, start, stop):
        if tag == VARINT_1:
            producer = signed32(value)
        elif tag == VARINT_2:
            min_consumer = signed32(value)
        elif tag == VARINT_3:
            bad.append(signed32(value))
        elif tag == LENGTH_3:
            while value < end:
                one, value = varint(data, value, end)
                bad.append(signed32(one))
    return Version(producer, min_consumer, tuple(bad))


def header(data: Buffer, start: int, stop: int) -> Header:
    num_shards = endianness = 0
    written_by: Version | None = None
    for tag, value, end in fields(data, start, stop):
        if tag == VARINT_1:
            num_shards = signed32(value)
        elif tag == VARINT_2:
            endianness = signed32(value)
        elif tag == LENGTH_3:
            _refuse_second("VersionDef", written_by, value)
            written_by = version(data, value, end)
    return Header(num_shards, endianness, written_by or Version())


def entry(data: Buffer, start: int, stop: int) -> Entry:
    dtype = shard = offset = size = crc = 0
    shape = b""
    slices: list[Slice] = []
    if stop - start > 4 and data[start] == VARINT_1 and data[start + 2] == LENGTH_2:
        # How TensorFlow begins every entry; taken at once, because an index may hold a hundred thousand.
        dtype, begin = data[start + 1], start + 4
        end = begin + data[start + 3]
        if dtype < 0x80 and data[start + 3] < 0x80 and end <= stop:
            shape, start = bytes(data[begin:end]), end
        else:
            dtype = 0
    for tag, value, end in fields(data, start, stop):
        if tag == VARINT_4:
            offset = value
        elif tag == VARINT_5:
            size = value
        elif tag == FIXED32_6:
            crc = int.from_bytes(data[value:end], "little")
        elif tag == VARINT_3:
            shard = signed32(value)
        elif tag == VARINT_1:
            dtype = signed32(value)
        elif tag == LENGTH_2:
            shape += bytes(data[value:end])
        elif tag == LENGTH_7:
            if len(slices) == MOST_LISTED:
                raise WireError(f"more than {MOST_LISTED} slices are listed")
            slices.append(tensor_slice(data, value, end))
    return Entry(dtype, shape, shard, signed64(offset), signed64(size), crc, tuple(slices))


@lru_cache(maxsize=4096)
def shape(data: bytes) -> tuple[int, ...] | None:
    """tensorflow/core/framework/tensor_shape.proto, TensorShapeProto: dim 2 {size 1}, unknown_rank 3.

    None where the rank is unknown. Sizes are as stored, negative ones included.
    """
    dims: list[int] = []
    unknown = False
    for tag, value, end in fields(data, 0, len(data)):
        if tag == LENGTH_2:
            size = 0
            for inner, number, _ in fields(data, value, end):
                if inner == VARINT_1:
                    size = signed64(number)
            dims.append(size)
        elif tag == VARINT_3:
            unknown = bool(value)
    return None if unknown else tuple(dims)


def tensor_slice(data: Buffer, start: int, stop: int) -> Slice:
    """tensorflow/core/framework/tensor_slice.proto, TensorSliceProto: extent 1 {start 1, length 2}."""
    return _extents(bytes(data[start:stop]))


@lru_cache(maxsize=4096)
def _extents(data: bytes) -> Slice:
    extents = []
    for tag, value, end in fields(data, 0, len(data)):
        if tag == LENGTH_1:
            first, length = 0, -1
            for inner, number, _ in fields(data, value, end):
                if inner == VARINT_1:
                    first = signed64(number)
                elif inner == VARINT_2:
                    length = signed64(number)
            extents.append((first, length))
    return tuple(extents)


def saved_meta(data: Buffer, start: int, stop: int) -> tuple[list[SavedTensor], Version] | None:
    """saved_tensor_slice.proto, SavedTensorSlices: meta 1 {tensor 1, versions 2}; None if it holds no meta."""
    tensors: list[SavedTensor] = []
    written_by: Version | None = None
    found = False
    for tag, value, end in fields(data, start, stop):
        if tag != LENGTH_1:
            continue
        found = True
        for inner, first, last in fields(data, value, end):
            if inner == LENGTH_1:
                if len(tensors) == MOST_LISTED:
                    raise WireError(f"more than {MOST_LISTED} tensors are listed")
                tensors.append(_saved_tensor(data, first, last))
            elif inner == LENGTH_2:
                _refuse_second("VersionDef", written_by, first)
                written_by = version(data, first, last)
    return (tensors, written_by or Version()) if found else None


def _refuse_second(what: str, before: object, at: int) -> None:
    """Protobuf merges a message that stands twice where one is expected; no writer makes such a file."""
    if before is not None:
        raise WireError(f"a second {what} stands at byte {at}")


def _saved_tensor(data: Buffer, start: int, stop: int) -> SavedTensor:
    name, dims, dtype = "", b"", 0
    slices: list[Slice] = []
    for tag, value, end in fields(data, start, stop):
        if tag == LENGTH_1:
            name = text(data, value, end)
        elif tag == LENGTH_2:
            dims += bytes(data[value:end])
        elif tag == VARINT_3:
            dtype = signed32(value)
        elif tag == LENGTH_4:
            slices.append(tensor_slice(data, value, end))
    return SavedTensor(name, dims, dtype, tuple(slices))


def saved_slice(data: Buffer, start: int, stop: int) -> SavedSlice:
    """saved_tensor_slice.proto, SavedTensorSlices: data 2."""
    name, where = "", None
    extents: Slice | None = None
    found = False
    for tag, value, end in fields(data, start, stop):
        if tag != LENGTH_2:
            continue
        _refuse_second("SavedSlice", found or None, value)
        found = True
        for inner, first, last in fields(data, value, end):
            if inner == LENGTH_1:
                name = text(data, first, last)
            elif inner == LENGTH_2:
                _refuse_second("TensorSliceProto", extents, first)
                extents = tensor_slice(data, first, last)
            elif inner == LENGTH_3:
                _refuse_second("TensorProto", where, first)
                where = first, last
    if not found:
        raise WireError(f"no SavedSlice stands at byte {start}")
    return SavedSlice(name, extents or (), where)


def object_graph(data: Buffer) -> list[Trackable]:
    """trackable_object_graph.proto, TrackableObjectGraph: nodes 1 {attributes 2, slot_variables 3}."""
    nodes: list[Trackable] = []
    for tag, start, stop in fields(data, 0, len(data)):
        if tag != LENGTH_1:
            continue
        if len(nodes) == MOST_LISTED:
            raise WireError(f"more than {MOST_LISTED} objects are listed")
        names: list[tuple[str, str]] = []
        slots: list[int] = []
        for inner, value, end in fields(data, start, stop):
            if inner == LENGTH_2:
                names.append(_serialized_tensor(data, value, end))
            elif inner == LENGTH_3:
                slots += [signed32(number) for field, number, _ in fields(data, value, end) if field == VARINT_3]
        nodes.append(Trackable(tuple(names), tuple(slots)))
    return nodes


def _serialized_tensor(data: Buffer, start: int, stop: int) -> tuple[str, str]:
    """TrackableObject.SerializedTensor: full_name 2, checkpoint_key 3."""
    full_name = key = ""
    for tag, value, end in fields(data, start, stop):
        if tag == LENGTH_2:
            full_name = text(data, value, end)
        elif tag == LENGTH_3:
            key = text(data, value, end)
    return key, full_name
