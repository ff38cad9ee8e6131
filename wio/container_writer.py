"""Writes .wio files in a stream, tensor by tensor, digests filled in last (spec/wio-1.md, sections 1 to 4 and 10)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

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
from wio.errors import LayoutError, WioError
from wio.placed_writer import Placed, take_room, write_placed
from wio.roles import contradiction
from wio.safetensors_header import Entry, encode_header, encode_json

MAX_DECLARATION_IN_HEADER = 16 << 20
NO_DIGEST = "0" * 64
_UINT8 = DTYPES["uint8"]


class _Item(Placed):
    """``stored`` is what safetensors takes the tensor for, ``entry`` its row in the table."""

    stored: DType = _UINT8
    entry: Entry | None = None


class Written(Struct, frozen=True):
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

    Tensors are read as they are written, a few at a time (:func:`write_placed` says what memory they take). Same
    bundle, same bytes. The file appears whole or not at all. ``receipt`` is asked twice, before and after the tensors
    are read: it may fill in digests, its size must stay.
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
        take_room(file.fileno(), start + at)
        for item, entry in zip(in_data_order, plan.entries, strict=True):
            item.offset = start + entry.start
        write_placed(file.fileno(), in_data_order, digests=True)
        file.seek(start + at)
        if receipt is not None:
            plan.settle_receipt(encode_json(receipt()))
        size = start + at + sum(file.write(data) for data in plan.reserved())
        final = plan.header()
        file.seek(0)
        file.write(final)
    digests = {item.tensor.name: item.digest or NO_DIGEST for item in items}
    return Written(digests, size, hashlib.sha256(final).hexdigest())


def _item(tensor: Tensor) -> _Item:
    if tensor.role is not None and tensor.layout is not None and (wrong := contradiction(tensor.role, tensor.layout)):
        raise LayoutError(f"{tensor.name}: {wrong}")
    if tensor.dtype.encoding == "varbytes":
        # The size of encoded strings is only known once they are read; they are never the bulk of a file.
        data = tensor.stored()
        return _Item(tensor, len(data), ready=data)
    stored = tensor.dtype if tensor.dtype.encoding is None else _UINT8
    return _Item(tensor, tensor.size * tensor.dtype.itemsize, stored=stored)


def _alignment(dtype: DType) -> int:
    return 4 if dtype.name == "complex64" else dtype.itemsize


def _refuse_reserved(bundle: Bundle) -> None:
    taken = [name for name in bundle if name.startswith(RESERVED) or name == "__metadata__"]
    if taken:
        raise WioError(f"names that the format keeps for itself: {taken[:5]}", remedy="leave them out with --drop")


class _HeaderPlan:
    """The header before and after the digests are known: the same size both times."""

    def __init__(
        self, bundle: Bundle, items: list[_Item], in_data_order: list[_Item], end: int, receipt: bytes | None
    ) -> None:
        self._items = items
        self.entries = [item.entry for item in in_data_order if item.entry is not None]
        self._end = end
        self._receipt = receipt
        self._document = _declare(bundle, items, {"tensor": RECEIPT, "sha256": NO_DIGEST} if receipt else None)
        size = len(encode_json(self._document))
        self._outside = size > MAX_DECLARATION_IN_HEADER
        self._reserved = self._reserved_entries(size)
        self._document["table"] = table_digest([*self.entries, *self._reserved])

    def header(self) -> bytes:
        text = self._declaration()
        if self._outside:
            stub = {"tensor": DECLARATION, "sha256": hashlib.sha256(text).hexdigest()}
            text = encode_json({"wio": MAJOR, "declaration": stub})
        # "format" says nothing to wio; loaders of the ecosystem refuse files without it (transformers#27064).
        return encode_header({"wio": text.decode("utf-8"), "format": "pt"}, [*self.entries, *self._reserved])

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
            document["sha256"] = item.digest or NO_DIGEST
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
    return {**document, "sha256": NO_DIGEST, **unknown}
