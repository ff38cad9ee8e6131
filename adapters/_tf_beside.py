"""The names of the files that belong to a checkpoint, told from what is there: where no folder can be listed."""

from __future__ import annotations

from pathlib import Path

from wio.adapters import _tf_messages as messages
from wio.adapters._mapped_files import MappedFile
from wio.adapters._protobuf import WireError
from wio.adapters._tf_paths import ANY_SHARD, DATA, INDEX, SHARD, named_by
from wio.adapters._tf_table import Table
from wio.errors import FormatError

# More than any checkpoint has; each is a question to a server.
_MOST_FILES = 10_000


def companions(path: Path) -> tuple[str, ...]:
    """The index of a prefix or data file, the data files of an index, the shards of a V1 checkpoint, and what a
    `checkpoint` file names."""
    if path.name == "checkpoint" and path.is_file():
        return tuple(name for base in _of_state(path) for name in (base, *_of(path.with_name(base))))
    return _of(path)


def _of(path: Path) -> tuple[str, ...]:
    data, shard = DATA.fullmatch(path.name), SHARD.fullmatch(path.name)
    if shard and not data and (path.is_file() or shard["shard"] == ANY_SHARD) and int(shard["shards"]) <= _MOST_FILES:
        count = int(shard["shards"])
        return tuple(f"{shard['base']}-{number:05d}-of-{shard['shards']}" for number in range(count))
    base = data["base"] if data else path.name.removesuffix(INDEX)
    index = path.with_name(base + INDEX)
    if index.is_file():
        count = _data_files(index)
        return (index.name, *(f"{base}.data-{number:05d}-of-{count:05d}" for number in range(count)))
    return (index.name,) if data or not path.exists() else ()


def _of_state(state: Path) -> list[str]:
    try:
        return [base for base in named_by(state) if base]
    except (OSError, FormatError):
        return []


def _data_files(index: Path) -> int:
    try:
        table = Table(MappedFile(index, ranges=True))
        found = table.find(b"")
        if found is None:
            return 0
        block, start, stop = found
        count = messages.header(block.data, start, stop).num_shards
    except (OSError, FormatError, WireError):
        return 0
    return count if 0 < count <= _MOST_FILES else 0
