"""Writes .wio files in a stream, tensor by tensor, digests filled in last (spec/wio-1.md, sections 1 to 4 and 10)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wio import __version__
from wio.atomic import atomic_output
from wio.bundle import Bundle, Tensor, default_layer
from wio.container import (
    DECLARATION,
    MAJOR,
    RECEIPT,
    RESERVED,
    TENSOR_KEYS,
    TOP_KEYS,
    UNKNOWN,
    table_digest,
)
from wio.dtypes import DTYPES, DType
from wio.errors import FormatError, LayoutError, WioError
from wio.roles import contradiction
from wio.safetensors_header import Entry, encode_header, encode_json

MAX_DECLARATION_IN_HEADER = 16 << 20
NO_DIGEST = "0" * 64
# Bytes hashed and written at a time (they should still be in the cache when they are written), threads that do it,
# bytes that may wait for them, bytes handed over at once.
CHUNK = 512 << 10
WRITERS = min(4, os.cpu_count() or 1)
MOST_WAITING = 64 << 20
BATCH = 1 << 20
_UINT8 = DTYPES["uint8"]


@dataclass
class _Item:
    """A tensor on its way into the file."""

    tensor: Tensor
    stored: DType
    nbytes: int
    entry: Entry | None = None
    digest: str = NO_DIGEST
    ready: memoryview | None = None


@dataclass(frozen=True)
class Written:
    """A .wio file as it was written: the SHA-256 of each tensor's stored bytes, its size, and that of its header."""

    digests: dict[str, str]
    size: int
    header_sha256: str


def save(
    bundle: Bundle,
    path: Path,
    receipt: Callable[[], Mapping[str, Any]] | None = None,
) -> dict[str, str]:
    """Writes a bundle as a .wio file; gives the SHA-256 of each tensor's stored bytes.

    Tensors are read and written one by one, so memory is bounded by the largest. Same bundle, same bytes. The file
    appears whole or not at all. ``receipt`` is asked twice, before and after the tensors are read: it may fill in
    digests, its size must stay.
    """
    with atomic_output(path) as temporary:
        return write_file(bundle, temporary, receipt).digests


def write_file(bundle: Bundle, path: Path, receipt: Callable[[], Mapping[str, Any]] | None = None) -> Written:
    """What :func:`save` does, into a file that nobody else can see yet."""
    items = [_item(tensor) for tensor in bundle.values()]
    _refuse_reserved(bundle)
    in_data_order = sorted(items, key=lambda item: -_alignment(item.stored))
    at = 0
    for item in in_data_order:
        shape = item.tensor.shape if item.tensor.dtype.encoding is None else (item.nbytes,)
        item.entry = Entry(item.tensor.name, item.stored, shape, at, at + item.nbytes)
        at += item.nbytes
    plan = _HeaderPlan(bundle, items, in_data_order, at, None if receipt is None else encode_json(receipt()))
    with path.open("w+b") as file:
        start = file.write(plan.header())
        _take_room(file.fileno(), start + at)
        _write_items(file.fileno(), in_data_order, start)
        file.seek(start + at)
        if receipt is not None:
            plan.settle_receipt(encode_json(receipt()))
        size = start + at + sum(file.write(data) for data in plan.reserved())
        final = plan.header()
        file.seek(0)
        file.write(final)
    digests = {item.tensor.name: item.digest for item in items}
    return Written(digests, size, hashlib.sha256(final).hexdigest())


def _item(tensor: Tensor) -> _Item:
    if tensor.role is not None and tensor.layout is not None and (wrong := contradiction(tensor.role, tensor.layout)):
        raise LayoutError(f"{tensor.name}: {wrong}")
    if tensor.dtype.encoding == "varbytes":
        # The size of encoded strings is only known once they are read; they are never the bulk of a file.
        data = tensor.stored()
        return _Item(tensor, _UINT8, len(data), ready=data)
    return _Item(tensor, tensor.dtype if tensor.dtype.encoding is None else _UINT8, tensor.size * tensor.dtype.itemsize)


def _alignment(dtype: DType) -> int:
    return 4 if dtype.name == "complex64" else dtype.itemsize


def _refuse_reserved(bundle: Bundle) -> None:
    taken = [name for name in bundle if name.startswith(RESERVED) or name == "__metadata__"]
    if taken:
        raise WioError(f"names that the format keeps for itself: {taken[:5]}", remedy="leave them out with --drop")


def _write_items(descriptor: int, items: Iterable[_Item], data_start: int) -> None:
    """Reads tensors one after the other; digests and writes them on other threads, each at its own place in the file.

    SHA-256 is what an export spends most of its time on, and hashing and writing leave the interpreter free. Bytes that
    wait are bounded, so memory is that bound and the tensors in work. The disk is kept busy meanwhile, so that the
    final fsync finds little left to do (measured: 60 ms of an export of 172 MB).
    """
    waiting: deque[tuple[Future[None], int]] = deque()
    pending = 0
    written = threading.Event()
    with ThreadPoolExecutor(WRITERS + 1) as writers, _set_at_end(written):
        syncing = writers.submit(_keep_syncing, descriptor, written)
        for batch, size in _batches(items):
            waiting.append((writers.submit(_write_batch, descriptor, batch, data_start), size))
            pending += size
            while pending > MOST_WAITING or (waiting and waiting[0][0].done()):
                future, size = waiting.popleft()
                pending -= size
                future.result()
        for future, _ in waiting:
            future.result()
        written.set()
        # An error of the disk is told once only; here it must not be lost.
        syncing.result()


def _take_room(descriptor: int, size: int) -> None:
    """Asks for the file's blocks at once: a full disk is told before any work, and writing them is quicker."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


def _batches(items: Iterable[_Item]) -> Iterator[tuple[list[tuple[_Item, memoryview]], int]]:
    """Tensors with their bytes, read now; small ones together, for handing one over costs more than writing it."""
    batch: list[tuple[_Item, memoryview]] = []
    size = 0
    for item in items:
        data = item.ready if item.ready is not None else item.tensor.stored()
        item.ready = None
        if len(data) != item.nbytes:
            raise FormatError(f"{item.tensor.name}: {item.nbytes} bytes announced, the source gave {len(data)}")
        batch.append((item, data))
        size += len(data)
        if size >= BATCH:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


@contextlib.contextmanager
def _set_at_end(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def _keep_syncing(descriptor: int, written: threading.Event) -> None:
    sync = getattr(os, "fdatasync", os.fsync)
    while not written.wait(0.02):
        sync(descriptor)


def _write_batch(descriptor: int, batch: list[tuple[_Item, memoryview]], data_start: int) -> None:
    for item, data in batch:
        if item.entry is None:
            raise FormatError(f"{item.tensor.name}: has no place in the file")
        digest, offset = hashlib.sha256(), data_start + item.entry.start
        for start in range(0, len(data), CHUNK):
            chunk = data[start : start + CHUNK]
            digest.update(chunk)
            while chunk:
                written = os.pwrite(descriptor, chunk, offset)
                chunk, offset = chunk[written:], offset + written
        item.digest = digest.hexdigest()


class _HeaderPlan:
    """The header before and after the digests are known: the same size both times."""

    def __init__(
        self, bundle: Bundle, items: list[_Item], in_data_order: list[_Item], end: int, receipt: bytes | None
    ) -> None:
        self._items = items
        self._entries = [item.entry for item in in_data_order if item.entry is not None]
        self._end = end
        self._receipt = receipt
        self._document = _declare(bundle, items, {"tensor": RECEIPT, "sha256": NO_DIGEST} if receipt else None)
        size = len(encode_json(self._document))
        self._outside = size > MAX_DECLARATION_IN_HEADER
        self._reserved = self._reserved_entries(size)
        self._document["table"] = table_digest([*self._entries, *self._reserved])

    def header(self) -> bytes:
        text = self._declaration()
        if self._outside:
            stub = {"tensor": DECLARATION, "sha256": hashlib.sha256(text).hexdigest()}
            text = encode_json({"wio": MAJOR, "declaration": stub})
        # "format" says nothing to wio; loaders of the ecosystem refuse files without it (transformers#27064).
        return encode_header({"wio": text.decode("utf-8"), "format": "pt"}, [*self._entries, *self._reserved])

    def settle_receipt(self, receipt: bytes) -> None:
        if self._receipt is None or len(receipt) != len(self._receipt):
            raise WioError("the receipt changed its size while the tensors were written")
        self._receipt = receipt

    def reserved(self) -> list[bytes]:
        """The reserved tensors in data order, once every digest is known."""
        parts = [self._receipt] if self._receipt is not None else []
        if self._outside:
            parts.append(self._declaration())
        return parts

    def _reserved_entries(self, declaration: int) -> list[Entry]:
        sizes = [(RECEIPT, len(self._receipt))] if self._receipt is not None else []
        if self._outside:
            sizes.append((DECLARATION, declaration))
        entries, at = [], self._end
        for name, size in sizes:
            entries.append(Entry(name, _UINT8, (size,), at, at + size))
            at += size
        return entries

    def _declaration(self) -> bytes:
        """The declaration with the digests that are known by now; always of the same size."""
        for document, item in zip(self._document["tensors"], self._items, strict=True):
            document["sha256"] = item.digest
        if self._receipt is not None:
            self._document["receipt"]["sha256"] = hashlib.sha256(self._receipt).hexdigest()
        return encode_json(self._document)


def _declare(bundle: Bundle, items: list[_Item], receipt: Mapping[str, str] | None) -> dict[str, Any]:
    """The declaration as a document, every digest still to be filled in."""
    table: dict[str, int] = {}
    metadata = dict(bundle.metadata)
    unknown = metadata.pop(UNKNOWN, {})
    rest, by_tensor = _unknown(unknown.get("file", {}), TOP_KEYS), unknown.get("tensors", {})
    tensors = [
        _declare_tensor(item, table, _unknown(by_tensor.get(item.tensor.name, {}), TENSOR_KEYS)) for item in items
    ]
    return {
        "wio": MAJOR,
        "generator": f"wio {__version__}",
        "table": NO_DIGEST,
        "metadata": metadata,
        **({"receipt": dict(receipt)} if receipt else {}),
        "layouts": list(table),
        "tensors": tensors,
        **rest,
    }


def _unknown(keys: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Keys of a later minor version, kept as they were; they never take the place of a key that wio writes itself."""
    return {key: value for key, value in keys.items() if key not in known}


def _declare_tensor(item: _Item, table: dict[str, int], unknown: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of the declaration: only what defaults do not imply."""
    tensor = item.tensor
    document: dict[str, Any] = {"name": tensor.name}
    if tensor.dtype.encoding is not None:
        document |= {"dtype": tensor.dtype.name, "shape": list(tensor.shape), "encoding": tensor.dtype.encoding}
    if tensor.role is not None:
        document["role"] = tensor.role
    if tensor.layout is not None:
        document["layout"] = table.setdefault(str(tensor.layout), len(table))
    if tensor.origin is not None and tensor.origin != tensor.name:
        document["origin"] = tensor.origin
    if tensor.layer != default_layer(tensor.name):
        document["layer"] = tensor.layer
    return {**document, "sha256": item.digest, **unknown}
