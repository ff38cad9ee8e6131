"""Plain and sharded safetensors files as bundles, their tensors mapped and not read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from wio.adapters._mapped_files import MappedFile, open_regular
from wio.adapters._safetensors_write import RECEIPT
from wio.adapters._shards import is_index, open_shards
from wio.bundle import Bundle, Tensor
from wio.encodings import from_bytes
from wio.errors import FormatError
from wio.lazy import Array
from wio.mapping import read_at
from wio.safetensors_header import Entry, Header, begins_with_header, parse_object, read_header

_SUB_BYTE = re.compile(r"has a dtype that is not known: '(F4|F6_E2M3|F6_E3M2)'")

# What the shards of an index are called.
SHARDS = (".safetensors",)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as one: a length that the format allows, and an object. Never raises.

    What is wrong further on, reading it says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return begins_with_header(head)


def read(path: Path) -> Bundle:
    """The bundle of a plain file or of all shards of an index. Raises FormatError for anything the format forbids."""
    descriptor = open_regular(path)
    try:
        head = read_at(descriptor, 16, 0)
    finally:
        os.close(descriptor)
    # The length of a header fills eight bytes, of which the last are zero in any file of this world.
    return _read_sharded(path) if head.lstrip().startswith(b"{") and head[5:8] != b"\0\0\0" else _read_plain(path)


def _read_plain(path: Path) -> Bundle:
    file, header = _opened(path)
    return Bundle(
        (_tensor(file, header, entry) for entry in _in_file_order(header)),
        {"safetensors": {"metadata": dict(header.metadata)}},
    )


def _in_file_order(header: Header) -> list[Entry]:
    return sorted(header.entries.values(), key=lambda entry: (entry.start, entry.end))


def _opened(path: Path) -> tuple[MappedFile, Header]:
    descriptor = open_regular(path)
    try:
        header = read_header(descriptor, path.name)
    except FormatError as error:
        found = _SUB_BYTE.search(error.message)
        if found is None:
            raise
        raise FormatError(
            f"{error.message}: elements of less than a byte ({found[1]}) are not read",
            remedy="save them unpacked, as F8_E5M2 or wider",
        ) from None
    finally:
        os.close(descriptor)
    file = MappedFile(path, ranges=True)
    end = max((entry.end for entry in header.entries.values()), default=0)
    if header.data_start + end != file.size:
        raise FormatError(f"{file}: changed while it was opened")
    return file, header


def _tensor(file: MappedFile, header: Header, entry: Entry) -> Tensor:
    start, end = header.data_start + entry.start, header.data_start + entry.end

    def raw() -> memoryview:
        return file.bytes(start, end)

    def load() -> Array:
        try:
            return from_bytes(raw(), entry.dtype, entry.shape)
        except FormatError as error:
            raise FormatError(f"{file}: tensor {entry.name!r}: {error.message}") from None

    return Tensor(entry.name, entry.dtype, entry.shape, load, raw=raw, parallel=True)


def read_receipt(path: Path) -> dict[str, Any] | None:
    """The receipt that wio left in a file's metadata, or None; a set of shards has none."""
    if is_index(path, SHARDS):
        return None
    text = _opened(path)[1].metadata.get(RECEIPT)
    return None if text is None else parse_object(text.encode("utf-8"), f"{path.name}: the receipt")


def _read_sharded(path: Path) -> Bundle:
    """Every tensor in the shard that the index gives it, and in no other."""
    weight_map, shards = open_shards(path, _opened, lambda shard: shard[1].entries)
    metadata: dict[str, str] = {}
    for _, header in shards.values():
        metadata |= header.metadata
    tensors = [_tensor(*shards[shard], shards[shard][1].entries[name]) for name, shard in weight_map.items()]
    return Bundle(tensors, {"safetensors": {"metadata": metadata, "shards": len(shards)}})
