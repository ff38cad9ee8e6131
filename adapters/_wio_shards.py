"""Reads a network in several .wio files by its index (spec/wio-1.md, section 15)."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from wio.adapters._mapped_files import open_regular
from wio.adapters._shards import refuse_differences, shard_paths
from wio.bundle import Bundle, Tensor
from wio.container import UNKNOWN, WioFileReader
from wio.errors import DigestError, FormatError, Problem
from wio.file_set import MAX_INDEX
from wio.safetensors_header import parse_object
from wio.shard_index import FIRST_BYTES, ShardIndex, parse_index

# Shards that are kept open: each takes a descriptor, of which a process has as a rule 1024.
MOST_OPEN = 128


def is_index(path: Path) -> bool:
    """Whether a file is the index of a set of .wio files, sound or damaged. Never raises."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(64)
        if head.startswith(FIRST_BYTES):
            return True
        # The length of a header fills eight bytes, of which the last are zero in any file of this world.
        if not head.lstrip().startswith(b"{") or head[5:8] == b"\0\0\0":
            return False
        document = parse_object(_content(path), path.name)
    except (OSError, FormatError):
        return False
    return isinstance(document.get("wio"), dict) and "weight_map" in document


def read_index(path: Path) -> ShardIndex:
    return parse_index(_content(path), path.name)


def read_set(path: Path) -> Bundle:
    """The bundle of all shards, in the order of the shards, each in its declared order; no tensor is read.

    Raises one FormatError with every shard that is missing, out of place or not the one that the index was written
    with, or else with every tensor that is not in the one shard that the index gives it.
    """
    index = read_index(path)
    shards = {shard.file: shard for shard in index.shards}
    paths = shard_paths(path, shards)

    @lru_cache(maxsize=MOST_OPEN)
    def opened(file: str) -> Bundle:
        reader = WioFileReader(paths[file])
        if (reader.size, reader.header_sha256()) != (shards[file].size, shards[file].header_sha256):
            raise DigestError(f"{file}: is not the shard that the index was written with")
        return reader.bundle()

    def reopened(tensor: Tensor, file: str) -> Tensor:
        name = tensor.name
        return tensor.changed(load=lambda: opened(file)[name].load(), raw=lambda: opened(file)[name].stored())

    tensors: list[Tensor] = []
    held: dict[str, list[str]] = {}
    unknown: dict[str, object] = {}
    problems = []
    for file in shards:
        try:
            shard = opened(file)
        except FormatError as error:
            problems.append(Problem("shard", error.message))
            continue
        tensors += [reopened(tensor, file) for tensor in shard.values()]
        held[file] = list(shard)
        unknown |= shard.metadata.get(UNKNOWN, {}).get("tensors", {})
    if problems:
        wrong = f"{len(problems)} of {len(shards)} shards are not as the index says"
        raise FormatError(f"{path.name}: {wrong}", problems, "fetch or write the whole set again, with its index")
    refuse_differences(path, index.weight_map, held)
    if sum(tensor.nbytes for tensor in tensors) != index.total_size:
        raise FormatError(f"{path.name}: the index's total_size is not that of its tensors")
    metadata = dict(index.metadata)
    if index.unknown or unknown:
        metadata[UNKNOWN] = {"file": dict(index.unknown), "tensors": unknown}
    return Bundle(tensors, metadata)


def _content(path: Path) -> bytes:
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(MAX_INDEX + 1)
