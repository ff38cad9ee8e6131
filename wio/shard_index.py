"""Sharded files: their names, and the index that makes one set of them (spec/wio-1.md, section 15)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

from wio import __version__
from wio.container import MAJOR, UNKNOWN, is_digest
from wio.errors import FormatError, UsageError
from wio.file_set import INDEX, MAX_INDEX
from wio.safetensors_header import encode_json, parse_object

# Writers put it first, so that an index is told by its first bytes.
FIRST_BYTES = b'{"wio":{"version":'
_SUFFIX = ".wio"
_KEYS = {"version", "generator", "metadata", "shards", "receipt"}
_UNITS = {"": 1, **{f"{p}B": 1000**k for k, p in enumerate(("", "K", "M", "G", "T"))}}
_UNITS |= {f"{p}IB": 1024**k for k, p in enumerate(("K", "M", "G", "T"), 1)}


class Shard(Struct, frozen=True):
    """One file of a set. ``header_sha256`` is that of its first 8 + N bytes, which hold the digests of the rest."""

    file: str
    size: int
    header_sha256: str


class ShardIndex(Struct, frozen=True):
    """What an index says: the shards in order, the shard of each tensor, and what is said of all of them together."""

    shards: tuple[Shard, ...]
    weight_map: Mapping[str, str]
    total_size: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    receipt: dict[str, Any] | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def encoded(self) -> bytes:
        own: dict[str, Any] = {
            "version": MAJOR,
            "generator": f"wio {__version__}",
            "metadata": dict(self.metadata),
            "shards": [asdict(shard) for shard in self.shards],
        }
        if self.receipt is not None:
            own["receipt"] = self.receipt
        own |= {key: value for key, value in self.unknown.items() if key not in _KEYS}
        total = {"total_size": self.total_size}
        raw = encode_json({"wio": own, "metadata": total, "weight_map": dict(self.weight_map)})
        if len(raw) > MAX_INDEX:
            raise FormatError(f"the index would be {len(raw)} bytes, over the format's limit of {MAX_INDEX}")
        return raw


def parse_index(raw: bytes, name: str) -> ShardIndex:
    """The index in these bytes; ``name`` is the file's. FormatError for anything the spec forbids."""
    if len(raw) > MAX_INDEX:
        raise FormatError(f"{name}: an index of more than {MAX_INDEX} bytes")
    document = parse_object(raw, f"{name}: the index")
    own = document.get("wio")
    if not isinstance(own, dict):
        raise FormatError(f"{name}: an index without the object 'wio'")
    version = own.get("version")
    if type(version) is not int:
        raise FormatError(f"{name}: the index has no version")
    if version != MAJOR:
        raise FormatError(f"{name}: an index of version {version} of the format; this wio reads version {MAJOR}")
    metadata, receipt, weight_map = own.get("metadata", {}), own.get("receipt", {}), document.get("weight_map")
    for key, value in (("metadata", metadata), ("receipt", receipt), ("weight_map", weight_map)):
        if not isinstance(value, dict):
            raise FormatError(f"{name}: the index's {key} is no JSON object")
    if UNKNOWN in metadata:
        raise FormatError(f"{name}: the index's metadata has the key {UNKNOWN!r}, kept for readers")
    shards = tuple(_shard(each, name) for each in _listed(own.get("shards"), name))
    files = {shard.file for shard in shards}
    if len(files) != len(shards):
        raise FormatError(f"{name}: the index lists a shard twice")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise FormatError(f"{name}: the index's weight_map does not map names to files")
    if files != set(weight_map.values()):
        odd = sorted(files ^ set(weight_map.values()))[:5]
        raise FormatError(f"{name}: the index's shards and its weight_map name different files: {odd}")
    stated = document.get("metadata")
    total = stated.get("total_size") if isinstance(stated, dict) else None
    if type(total) is not int or total < 0:
        raise FormatError(f"{name}: the index has no total_size")
    unknown = {key: value for key, value in own.items() if key not in _KEYS}
    return ShardIndex(shards, weight_map, total, metadata, own.get("receipt"), unknown)


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(f"{name}: the index's shards are no list")
    return value


def _shard(value: Any, name: str) -> Shard:
    given = value if isinstance(value, dict) else {}
    file, size, digest = given.get("file"), given.get("size"), given.get("header_sha256")
    if not isinstance(file, str) or type(size) is not int or size < 0 or not is_digest(digest):
        raise FormatError(f"{name}: the index has a shard without file, size or header_sha256")
    return Shard(file, size, digest)


# --- names and sizes


def index_path(out: Path) -> Path:
    """The index of the set that a file of this name would be: ``NAME.wio`` to ``NAME.wio.index.json``."""
    return out.with_name(out.name + INDEX)


def shard_name(out: Path, number: int, count: int) -> str:
    """``NAME-00001-of-00003.wio``, counted from 1."""
    return f"{out.name.removesuffix(_SUFFIX)}-{number:05}-of-{count:05}{_SUFFIX}"


def shards_of_any_set(out: Path) -> list[Path]:
    """Every file beside ``out`` that bears the name of a shard of it, whatever the count."""
    named = re.compile(re.escape(out.name.removesuffix(_SUFFIX)) + r"-\d{5,}-of-\d{5,}" + re.escape(_SUFFIX))
    return sorted(path for path in out.parent.iterdir() if named.fullmatch(path.name))


def parse_size(text: str) -> int:
    """Bytes of a size as it is typed: ``2GB`` is 2,000,000,000, ``2GiB`` 2**31, a plain number bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text.strip(), re.ASCII)
    unit = _UNITS.get(found[2].upper()) if found else None
    size = int(float(found[1]) * unit) if found and unit else 0
    if size < 1:
        raise UsageError(f"{text!r} is no size of a shard", remedy="as in 500MB, 2GB or 2GiB")
    return size


def split(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names in order, cut into runs of at most ``most`` bytes; one that is larger stands alone."""
    runs: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if not runs or filled + size > most:
            runs.append([])
            filled = 0
        runs[-1].append(name)
        filled += size
    return runs


def weight_map_of(runs: Iterable[Iterable[str]], files: Iterable[str]) -> dict[str, str]:
    return {name: file for run, file in zip(runs, files, strict=True) for name in run}
