"""The .wio file: read lazily, written in a stream. ``spec/wio-1.md`` is the norm; section names below are its own."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from wio import __version__
from wio.atomic import atomic_output
from wio.bundle import FROM_NAME, Bundle, Tensor, default_layer
from wio.dtypes import DTYPES, DType
from wio.encodings import from_bytes
from wio.errors import DigestError, FormatError, LayoutError, WioError
from wio.layout import Layout
from wio.roles import ROLES, contradiction
from wio.safetensors_header import Entry, encode_header, encode_json, is_shape, parse_json, read_header

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MAJOR = 1
RESERVED = "__wio__/"
DECLARATION = RESERVED + "declaration"
RECEIPT = RESERVED + "receipt"
MAX_DECLARATION_IN_HEADER = 16 << 20
NO_DIGEST = "0" * 64
CHUNK = 8 << 20
WRITERS = min(4, os.cpu_count() or 1)
MOST_WAITING = 64 << 20
BATCH = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UINT8 = DTYPES["uint8"]
UNKNOWN = "unknown_keys"
_TOP_KEYS = {"wio", "generator", "table", "layouts", "tensors", "metadata", "receipt"}
_TENSOR_KEYS = {"name", "role", "layout", "origin", "layer", "dtype", "shape", "encoding", "sha256"}


# --- reading


class WioFileReader:
    """An open .wio file: its declaration, checked, and its tensors, mapped but not read.

    Raises FormatError for anything the spec forbids, and for a file whose tensor table is not the declared one
    (another tool saved it again).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = path.name
        with path.open("rb") as file:
            self._header = read_header(file.fileno(), self._name)
            size = os.fstat(file.fileno()).st_size
            self._map = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
        self.declaration = self._declaration()

    def bundle(self) -> Bundle:
        """The bundle, in declared order. ``metadata`` is the declaration's, unknown keys kept beside it."""
        document = self.declaration
        layouts = [self._layout(text) for text in _list(document, "layouts", str, self._name)]
        tensors, unknown = [], {}
        for item in _list(document, "tensors", dict, self._name):
            tensor = self._tensor(item, layouts)
            tensors.append(tensor)
            if extra := {key: value for key, value in item.items() if key not in _TENSOR_KEYS}:
                unknown[tensor.name] = extra
        declared = {tensor.name for tensor in tensors}
        stored = {name for name in self._header.entries if not name.startswith(RESERVED)}
        if declared != stored or len(tensors) != len(declared):
            odd = sorted(declared ^ stored)[:5]
            raise FormatError(f"{self._name}: the declaration and the header list different tensors: {odd}")
        metadata = dict(document.get("metadata", {}))
        if UNKNOWN in metadata:
            raise FormatError(f"{self._name}: the declaration's metadata has the key {UNKNOWN!r}, kept for readers")
        rest = {key: value for key, value in document.items() if key not in _TOP_KEYS}
        if rest or unknown:
            metadata[UNKNOWN] = {"file": rest, "tensors": unknown}
        return Bundle(tensors, metadata)

    def receipt(self) -> dict[str, Any] | None:
        """The receipt kept in the file, its digest checked, or None."""
        if "receipt" not in self.declaration:
            return None
        document = parse_json(self._reserved(self.declaration["receipt"], RECEIPT), f"{self._name}: the receipt")
        if not isinstance(document, dict):
            raise FormatError(f"{self._name}: the receipt is no JSON object")
        return document

    def _declaration(self) -> dict[str, Any]:
        text = self._header.metadata.get("wio")
        if text is None:
            raise FormatError(
                f"{self._name}: a safetensors file without a wio declaration", remedy="read it as safetensors:FILE"
            )
        document = parse_json(text.encode("utf-8"), f"{self._name}: the declaration")
        if isinstance(document, dict) and "declaration" in document:
            _check_version(document, self._name)
            document = parse_json(
                self._reserved(document["declaration"], DECLARATION), f"{self._name}: the declaration"
            )
        if not isinstance(document, dict):
            raise FormatError(f"{self._name}: the declaration is no JSON object")
        _check_version(document, self._name)
        if "declaration" in document:
            raise FormatError(f"{self._name}: the declaration outside the header points to another one")
        if document.get("table") != table_digest(self._header.entries.values()):
            raise FormatError(
                f"{self._name}: its tensors are not those that were declared: another tool has saved this file again",
                remedy="go back to the file that wio wrote, or read the arrays alone as safetensors:FILE",
            )
        if not isinstance(document.get("metadata", {}), dict):
            raise FormatError(f"{self._name}: the declaration's metadata is no JSON object")
        return document

    def _reserved(self, reference: Any, expected: str) -> bytes:
        """The bytes of a reserved tensor, checked against the digest in its reference."""
        digest = reference.get("sha256") if isinstance(reference, dict) else None
        if not _is_digest(digest) or reference.get("tensor") != expected:
            raise FormatError(f"{self._name}: a reference to {expected} is malformed")
        entry = self._header.entries.get(expected)
        if entry is None or entry.dtype is not _UINT8 or len(entry.shape) != 1:
            raise FormatError(f"{self._name}: {expected} is declared and not there as U8 bytes")
        data = bytes(self._bytes(entry))
        if hashlib.sha256(data).hexdigest() != digest:
            raise DigestError(f"{self._name}: {expected} does not match its SHA-256")
        return data

    def _bytes(self, entry: Entry) -> memoryview:
        start = self._header.data_start
        return self._map[start + entry.start : start + entry.end]

    def _tensor(self, item: dict[str, Any], layouts: list[Layout]) -> Tensor:
        name = item.get("name")
        entry = self._header.entries.get(name) if isinstance(name, str) else None
        if entry is None or entry.name.startswith(RESERVED):
            raise FormatError(f"{self._name}: the declaration names a tensor that is not in the file: {name!r}")
        dtype, shape = self._stored_as(entry, item)
        role = item.get("role")
        if "role" in item and (not isinstance(role, str) or role not in ROLES):
            raise FormatError(f"{self._name}: tensor {name!r} has a role that is not in the list: {role!r}")
        layout = None
        if "layout" in item:
            index = item["layout"]
            if type(index) is not int or not 0 <= index < len(layouts):
                raise FormatError(f"{self._name}: tensor {name!r} has layout {index!r}, which is not in the table")
            layout = layouts[index]
            refuted = layout.check(shape) or (None if role is None else contradiction(role, layout))
            if refuted:
                raise FormatError(f"{self._name}: tensor {name!r}: {refuted}")
        digest = item.get("sha256")
        if not _is_digest(digest):
            raise FormatError(f"{self._name}: tensor {name!r} has no SHA-256")
        for key in ("origin", "layer"):
            if not isinstance(item.get(key, ""), str):
                raise FormatError(f"{self._name}: tensor {name!r}: {key} is no string")
        return Tensor(
            entry.name,
            dtype,
            shape,
            load=lambda: self._load(entry, dtype, shape),
            role=role,
            layout=layout,
            origin=item.get("origin"),
            layer=item.get("layer", FROM_NAME),
            digest=digest,
            stored_bytes=entry.end - entry.start,
            raw=lambda: self._bytes(entry),
        )

    def _load(self, entry: Entry, dtype: DType, shape: tuple[int, ...]) -> Array:
        try:
            return from_bytes(self._bytes(entry), dtype, shape)
        except FormatError as error:
            raise FormatError(f"{self._name}: tensor {entry.name!r}: {error.message}") from None

    def _stored_as(self, entry: Entry, item: dict[str, Any]) -> tuple[DType, tuple[int, ...]]:
        if "dtype" not in item:
            if "shape" in item or "encoding" in item:
                raise FormatError(f"{self._name}: tensor {entry.name!r} has shape or encoding without dtype")
            return entry.dtype, entry.shape
        dtype = DTYPES.get(item["dtype"]) if isinstance(item["dtype"], str) else None
        shape = item.get("shape")
        if dtype is None or dtype.encoding is None or item.get("encoding") != dtype.encoding:
            raise FormatError(f"{self._name}: tensor {entry.name!r} has an encoding that is not its dtype's")
        if entry.dtype is not _UINT8 or len(entry.shape) != 1:
            raise FormatError(f"{self._name}: tensor {entry.name!r} is encoded and must be stored as U8 bytes")
        if not isinstance(shape, list) or not is_shape(shape, dtype.itemsize):
            raise FormatError(f"{self._name}: tensor {entry.name!r} has a shape that is no list of sizes")
        count, stored = math.prod(shape), entry.end - entry.start
        # A byte string takes at least the byte of its length.
        if count * dtype.itemsize != stored if dtype.itemsize else count > stored:
            raise FormatError(f"{self._name}: tensor {entry.name!r} of shape {shape} cannot have {stored} bytes")
        return dtype, tuple(shape)

    def _layout(self, text: str) -> Layout:
        try:
            return Layout.parse(text)
        except LayoutError as error:
            raise FormatError(f"{self._name}: the table of layouts: {error.message}", remedy=error.remedy) from None


def _is_digest(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _check_version(document: dict[str, Any], name: str) -> None:
    version = document.get("wio")
    if type(version) is not int:
        raise FormatError(f"{name}: the declaration has no version")
    if version != MAJOR:
        raise FormatError(f"{name}: written in version {version} of the format; this wio reads version {MAJOR}")


def _list(document: dict[str, Any], key: str, kind: type, name: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise FormatError(f"{name}: the declaration's {key} is no list of the kind the format asks for")
    return value


def table_digest(entries: Iterable[Entry]) -> str:
    """The SHA-256 of the tensor table (section "The table digest")."""
    lines = []
    for entry in entries:
        name = entry.name.encode("utf-8", "surrogatepass")
        shape = ",".join(map(str, entry.shape))
        rest = f"|{entry.dtype.safetensors}|{shape}|{entry.start}|{entry.end}\n"
        lines.append((name, b"%d:%s%s" % (len(name), name, rest.encode("ascii"))))
    return hashlib.sha256(b"".join(line for _, line in sorted(lines))).hexdigest()


# --- writing


@dataclass
class _Item:
    """A tensor on its way into the file."""

    tensor: Tensor
    stored: DType
    nbytes: int
    entry: Entry | None = None
    digest: str = NO_DIGEST
    ready: memoryview | None = None


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
    items = [_item(tensor) for tensor in bundle.values()]
    _refuse_reserved(bundle)
    in_data_order = sorted(items, key=lambda item: -_alignment(item.stored))
    at = 0
    for item in in_data_order:
        shape = item.tensor.shape if item.tensor.dtype.encoding is None else (item.nbytes,)
        item.entry = Entry(item.tensor.name, item.stored, shape, at, at + item.nbytes)
        at += item.nbytes
    plan = _HeaderPlan(bundle, items, in_data_order, at, None if receipt is None else encode_json(receipt()))
    with atomic_output(path) as temporary, temporary.open("r+b") as file:
        start = file.write(plan.header())
        _write_items(file.fileno(), in_data_order, start)
        file.seek(start + at)
        if receipt is not None:
            plan.settle_receipt(encode_json(receipt()))
        for data in plan.reserved():
            file.write(data)
        final = plan.header()
        file.seek(0)
        file.write(final)
    return {item.tensor.name: item.digest for item in items}


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
        self._bundle = bundle
        self._items = items
        self._entries = [item.entry for item in in_data_order if item.entry is not None]
        self._end = end
        self._receipt = receipt
        self._outside = len(self._declaration(None)) > MAX_DECLARATION_IN_HEADER

    def header(self) -> bytes:
        reserved = self._reserved_entries()
        entries = [*self._entries, *reserved]
        text = self._declaration(entries)
        if self._outside:
            stub = {"tensor": DECLARATION, "sha256": hashlib.sha256(text).hexdigest()}
            text = encode_json({"wio": MAJOR, "declaration": stub})
        # "format" says nothing to wio; loaders of the ecosystem refuse files without it (transformers#27064).
        return encode_header({"wio": text.decode("utf-8"), "format": "pt"}, entries)

    def settle_receipt(self, receipt: bytes) -> None:
        if self._receipt is None or len(receipt) != len(self._receipt):
            raise WioError("the receipt changed its size while the tensors were written")
        self._receipt = receipt

    def reserved(self) -> list[bytes]:
        """The reserved tensors in data order, once every digest is known."""
        parts = [self._receipt] if self._receipt is not None else []
        if self._outside:
            parts.append(self._declaration([*self._entries, *self._reserved_entries()]))
        return parts

    def _reserved_entries(self) -> list[Entry]:
        sizes = [(RECEIPT, len(self._receipt))] if self._receipt is not None else []
        if self._outside:
            sizes.append((DECLARATION, len(self._declaration(None))))
        entries, at = [], self._end
        for name, size in sizes:
            entries.append(Entry(name, _UINT8, (size,), at, at + size))
            at += size
        return entries

    def _declaration(self, entries: list[Entry] | None) -> bytes:
        """The declaration; without ``entries`` one of the same size."""
        return encode_json(_declare(self._bundle, self._items, entries, self._receipt))


def _declare(bundle: Bundle, items: list[_Item], entries: list[Entry] | None, receipt: bytes | None) -> dict[str, Any]:
    table: dict[str, int] = {}
    metadata = dict(bundle.metadata)
    unknown = metadata.pop(UNKNOWN, {})
    rest, by_tensor = _unknown(unknown.get("file", {}), _TOP_KEYS), unknown.get("tensors", {})
    tensors = [
        _declare_tensor(item, table, _unknown(by_tensor.get(item.tensor.name, {}), _TENSOR_KEYS)) for item in items
    ]
    document: dict[str, Any] = {
        "wio": MAJOR,
        "generator": f"wio {__version__}",
        "table": NO_DIGEST if entries is None else table_digest(entries),
        "metadata": metadata,
    }
    if receipt is not None:
        document["receipt"] = {"tensor": RECEIPT, "sha256": hashlib.sha256(receipt).hexdigest()}
    return {**document, "layouts": list(table), "tensors": tensors, **rest}


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


def verified(tensor: Tensor) -> Tensor:
    """The same tensor, its bytes checked against its recorded digest whenever they are read."""
    if tensor.digest is None:
        return tensor

    def check(data: memoryview) -> None:
        if hashlib.sha256(data).hexdigest() != tensor.digest:
            raise DigestError(
                f"{tensor.name}: its bytes do not match its SHA-256: the file is damaged",
                remedy="fetch or export it again",
            )

    return tensor.watched(check)
