"""Plain and sharded safetensors files as bundles, their tensors mapped and not read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wio.adapters._mapped_files import MappedFile, open_regular
from wio.adapters._safetensors_write import RECEIPT
from wio.bundle import Bundle, Tensor
from wio.encodings import from_bytes
from wio.errors import FormatError, printable
from wio.safetensors_header import Entry, Header, parse_json, read_header

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_MAX_INDEX = 100_000_000
_SUB_BYTE = re.compile(r"has a dtype that is not known: '(F4|F6_E2M3|F6_E3M2)'")


def is_safetensors(path: Path) -> bool:
    """Whether a file begins with a sound header. Never raises."""
    try:
        with path.open("rb") as file:
            if file.read(9)[8:] != b"{":
                return False
            read_header(file.fileno(), path.name)
        return True
    except (OSError, FormatError) as error:
        # A file of sub-byte tensors is still one of this format: reading it says what is wrong.
        return isinstance(error, FormatError) and _SUB_BYTE.search(str(error)) is not None


def is_index(path: Path) -> bool:
    """Whether a file is the index of shards. Never raises."""
    try:
        with path.open("rb") as file:
            if not file.read(64).lstrip().startswith(b"{"):
                return False
        shards = _weight_map(path).values()
        return bool(shards) and all(shard.endswith(".safetensors") for shard in shards)
    except (OSError, FormatError):
        return False


def read(path: Path) -> Bundle:
    """The bundle of a plain file or of all shards of an index. Raises FormatError for anything the format forbids."""
    descriptor = open_regular(path)
    try:
        head = os.pread(descriptor, 16, 0)
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
    file = MappedFile(path)
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

    return Tensor(entry.name, entry.dtype, entry.shape, load, raw=raw)


def read_receipt(path: Path) -> dict[str, Any] | None:
    """The receipt that wio left in a file's metadata, or None; a set of shards has none."""
    if is_index(path):
        return None
    text = _opened(path)[1].metadata.get(RECEIPT)
    if text is None:
        return None
    document = parse_json(text.encode("utf-8"), f"{path.name}: the receipt")
    if not isinstance(document, dict):
        raise FormatError(f"{path.name}: the receipt is no JSON object")
    return document


# --- shards


def _weight_map(path: Path) -> dict[str, str]:
    """Tensor name to shard, of an index."""
    if path.stat().st_size > _MAX_INDEX:
        raise FormatError(f"{path.name}: an index of more than {_MAX_INDEX} bytes")
    document = parse_json(path.read_bytes(), f"{path.name}: the index")
    found = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(found, dict) or not all(isinstance(shard, str) for shard in found.values()):
        raise FormatError(f"{path.name}: an index without a weight_map from names to files")
    return found


def _read_sharded(path: Path) -> Bundle:
    """Every tensor in the shard that the index gives it, and in no other."""
    weight_map = _weight_map(path)
    shards = {name: _opened(_shard(path, name)) for name in dict.fromkeys(weight_map.values())}
    wrong: list[str] = []
    metadata: dict[str, str] = {}
    for name, (_, header) in shards.items():
        metadata |= header.metadata
        wrong += [
            f"{key} is in {name}, the index says otherwise" for key in header.entries if weight_map.get(key) != name
        ]
    wrong += [f"{key} is not in {name}" for key, name in weight_map.items() if key not in shards[name][1].entries]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise FormatError(f"{path.name}: index and shards differ: {printable('; '.join(wrong[:5]))}{more}")
    tensors = [_tensor(*shards[shard], shards[shard][1].entries[name]) for name, shard in weight_map.items()]
    return Bundle(tensors, {"safetensors": {"metadata": metadata, "shards": len(shards)}})


def _shard(index: Path, name: str) -> Path:
    """The path of a shard: a plain name in the folder of the index, and no link out of it."""
    shown = printable(name)
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise FormatError(f"{index.name}: the shard {shown!r} is no file name in the folder of the index: refused")
    path = index.parent / name
    # Caches of models hold index and shards as links, side by side: what counts is the folder both really are in.
    if path.is_symlink() and path.resolve().parent not in (index.parent.resolve(), index.resolve().parent):
        raise FormatError(
            f"{index.name}: the shard {shown!r} is a link out of the folder of the index: refused",
            remedy="put the file itself beside the index",
        )
    return path
