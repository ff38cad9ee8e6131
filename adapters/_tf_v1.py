"""V1 checkpoints: one table, or one for each shard, that holds names, slices and values.

Source: tensorflow/core/util/tensor_slice_{writer,reader}.cc, saved_tensor_slice.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from msgspec import Struct, field

from wio.adapters import _tf_messages as messages
from wio.adapters._protobuf import WireError
from wio.adapters._tf_dtypes import Declared, declared
from wio.adapters._tf_ordered_code import name_in_key, slice_key
from wio.adapters._tf_slices import Box, check_cover, extents_of, join, slice_text
from wio.adapters._tf_table import DAMAGED, Table
from wio.adapters._tf_values import plain_values, tensor_proto
from wio.bundle import Bundle, Tensor
from wio.encodings import to_bytes
from wio.errors import DigestError, FormatError, Problem, printable
from wio.lazy import Array

# tensorflow/core/public/version.h, TF_CHECKPOINT_VERSION.
VERSION = 1


class _Stored(Struct):
    """A tensor as the tables declare it together: each shard lists the slices that it holds."""

    number: int
    shape: bytes
    kind: Declared
    slices: list[tuple[messages.Slice, Table]] = field(default_factory=list)


def is_v1(table: Table) -> bool:
    """Whether a table is a V1 checkpoint: its first entry then begins with SavedTensorSlices.meta, field 1 of a
    message (tag 0x0a), where that of a V2 index begins with a number."""
    found = table.find(b"")
    if found is None:
        raise FormatError(f"{table.file}: a table, but the entry with an empty key that checkpoints have is missing")
    block, start, stop = found
    return stop > start and block.data[start] == 0x0A


def read_v1(tables: Sequence[Table]) -> Bundle:
    """The bundle of all shards of a checkpoint. Names, dtypes and shapes are read, values are not."""
    stored: dict[str, _Stored] = {}
    problems: list[Problem] = []
    producers = [_collect(table, stored, problems) for table in tables]
    boxes: dict[str, list[Box]] = {}
    for name, tensor in stored.items():
        try:
            boxes[name] = check_cover(tensor.kind.shape, [extents for extents, _ in tensor.slices])
        except FormatError as error:
            problems.append(Problem("slices", error.message, name))
    if problems:
        count = len(problems)
        raise FormatError(
            f"{tables[0].file}: {count} problem{'s' if count > 1 else ''} in this checkpoint",
            problems,
            remedy="all shards of a checkpoint belong together" if len(tables) > 1 else DAMAGED,
        )
    return Bundle(_tensors(stored, boxes), {"tf_checkpoint": _metadata(stored, producers)})


def damaged(table: Table, key: bytes, name: str | None, remedy: str | None) -> DigestError:
    """The error for a block whose checksum failed: where it is, and which tensors the damage touches.

    ``name`` is the tensor whose values were wanted. A block's checksum does not tell them apart; but if one byte was
    changed, it can be told which, and so in whose values.
    """
    first, last = table.where(key) or (0, 0)
    changed, values = table.damage(key)
    names = {found: (name_in_key(found) or b"").decode("utf-8", "backslashreplace") for found in values}
    hit = [found for found, (start, stop) in values.items() if changed is not None and start <= changed < stop]
    if hit:
        what = "in its values" if names[hit[0]] else "in the list of tensors"
        reason = f"if one byte was changed, it is byte {changed} of the file, {what}"
    else:
        hit, reason = list(values), "stands in the damaged block"
    where = f"{table.file}: {printable(name)}" if name else f"{table.file}"
    return DigestError(
        f"{where}: the block at bytes {first} to {last} does not match its CRC-32C",
        [Problem("digest", reason, names[found] or None) for found in hit if names[found] or len(hit) == 1],
        remedy=remedy,
    )


def _collect(table: Table, stored: dict[str, _Stored], problems: list[Problem]) -> int:
    found = table.find(b"")
    block, start, stop = found if found else (None, 0, 0)
    try:
        meta = messages.saved_meta(block.data, start, stop) if block else None
    except WireError as error:
        raise FormatError(f"{table.file}: the list of tensors is malformed: {error.message}") from None
    if meta is None:
        raise FormatError(f"{table.file}: the list of tensors, the entry with an empty key, is missing")
    tensors, version = meta
    refused = version.refusal(VERSION)
    if refused:
        raise FormatError(f"{table.file}: {refused}")
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            problems.append(Problem("duplicate", f"is listed twice in {table.file}", tensor.name))
            continue
        seen.add(tensor.name)
        try:
            kind = declared(tensor.dtype, tensor.shape)
        except FormatError as error:
            problems.append(Problem("entry", error.message, tensor.name))
            continue
        known = stored.setdefault(tensor.name, _Stored(tensor.dtype, tensor.shape, kind))
        if (known.kind.dtype, known.kind.shape) != (kind.dtype, kind.shape):
            problems.append(
                Problem(
                    "entry",
                    f"{table.file} declares it {kind.dtype} of shape {kind.shape}, "
                    f"another shard {known.kind.dtype} of shape {known.kind.shape}",
                    tensor.name,
                )
            )
            continue
        known.slices += [(extents, table) for extents in tensor.slices]
    return version.producer


def _tensors(stored: dict[str, _Stored], boxes: dict[str, list[Box]]) -> Iterator[Tensor]:
    for name, tensor in stored.items():
        dtype, shape = tensor.kind.dtype, tensor.kind.shape
        if len(tensor.slices) == 1:
            load, raw = partial(_load, name, tensor, 0, shape), partial(_raw, name, tensor)
            yield Tensor(name, dtype, shape, load, raw=raw if dtype.itemsize else None)
        else:
            yield Tensor(name, dtype, shape, partial(_join, name, tensor, boxes[name]))


def _metadata(stored: dict[str, _Stored], producers: list[int]) -> dict[str, Any]:
    stated: dict[str, Any] = {"format": "V1", "shards": len(producers), "producer": max(producers)}
    partitioned = {
        name: [slice_text(extents) for extents, _ in tensor.slices]
        for name, tensor in stored.items()
        if len(tensor.slices) > 1
    }
    if partitioned:
        stated["partitioned"] = partitioned
    return stated


def _join(name: str, tensor: _Stored, boxes: list[Box]) -> Array:
    return join(
        tensor.kind.dtype,
        tensor.kind.shape,
        ((sides, partial(_load, name, tensor, place, extents_of(sides))) for place, sides in enumerate(boxes)),
    )


def _load(name: str, tensor: _Stored, place: int, shape: tuple[int, ...]) -> Array:
    values: Array = _values(name, tensor, place, shape, as_array=True)
    return values.reshape(shape)


def _raw(name: str, tensor: _Stored) -> memoryview:
    """The bytes of a tensor that is in one piece, where it can be without NumPy."""
    data: memoryview = _values(name, tensor, 0, tensor.kind.shape, as_array=False)
    return data


def _values(name: str, tensor: _Stored, place: int, shape: tuple[int, ...], *, as_array: bool) -> Any:
    """One slice's values, checked: a flat array, or its bytes."""
    extents, table = tensor.slices[place]
    key = slice_key(name.encode("utf-8"), extents)
    where = f"{table.file}: {printable(name)}"
    if len(tensor.slices) > 1:
        where += f", slice {slice_text(extents)}"
    try:
        found = table.find(key)
    except DigestError as error:
        raise damaged(table, key, name, error.remedy) from None
    except FormatError as error:
        raise FormatError(f"{where}: {error.message}", remedy=error.remedy) from None
    if found is None:
        raise FormatError(f"{where}: its values are listed, but not stored in this file", remedy=DAMAGED)
    block, start, stop = found
    count = math.prod(shape)
    try:
        saved = messages.saved_slice(block.data, start, stop)
        if saved.name != name:
            raise FormatError(f"its values say that they are those of {printable(saved.name)}")
        if saved.slice != extents:
            raise FormatError(f"its values say that they are slice {slice_text(saved.slice)}")
        first, last = saved.data if saved.data else (stop, stop)
        if not as_array and (plain := plain_values(block.data, first, last, tensor.kind.dtype, tensor.number, count)):
            return block.bytes(*plain)
        values = tensor_proto(block.data, first, last, block.array, tensor.kind.dtype, tensor.number, count)
    except FormatError as error:
        raise FormatError(f"{where}: {error.message}", remedy=DAMAGED) from None
    return values if as_array else to_bytes(values, tensor.kind.dtype)
