"""Reads .wio files lazily. ``spec/wio-1.md`` is the norm; section names below are its own."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from wio.bundle import FROM_NAME, Bundle, Tensor
from wio.dtypes import DTYPES, DType
from wio.encodings import from_bytes
from wio.errors import DigestError, FormatError, LayoutError
from wio.layout import Layout
from wio.lazy import Array
from wio.mapping import map_file, shrunk
from wio.roles import ROLES, contradiction
from wio.safetensors_header import Entry, is_shape, parse_object, read_header

MAJOR = 1
RESERVED = "__wio__/"
DECLARATION = RESERVED + "declaration"
RECEIPT = RESERVED + "receipt"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UINT8 = DTYPES["uint8"]
UNKNOWN = "unknown_keys"
TOP_KEYS = {"wio", "generator", "table", "layouts", "tensors", "metadata", "receipt"}
TENSOR_KEYS = {"name", "role", "layout", "origin", "layer", "dtype", "shape", "encoding", "sha256"}


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
            self._map = map_file(file.fileno(), ranges=True)
        self._view = memoryview(self._map)
        # Roles and the numbers of layouts in the table that do not contradict each other.
        self._agreed: set[tuple[str, int]] = set()
        self.size = len(self._view)
        self.declaration = self._declaration()

    def bundle(self) -> Bundle:
        """The bundle, in declared order. ``metadata`` is the declaration's, unknown keys kept beside it."""
        document = self.declaration
        layouts = [self._layout(text) for text in _list(document, "layouts", str, self._name)]
        tensors, unknown = [], {}
        for item in _list(document, "tensors", dict, self._name):
            tensor = self._tensor(item, layouts)
            tensors.append(tensor)
            if not TENSOR_KEYS.issuperset(item):
                unknown[tensor.name] = {key: value for key, value in item.items() if key not in TENSOR_KEYS}
        declared = {tensor.name for tensor in tensors}
        stored = {name for name in self._header.entries if not name.startswith(RESERVED)}
        if declared != stored or len(tensors) != len(declared):
            odd = sorted(declared ^ stored)[:5]
            raise FormatError(f"{self._name}: the declaration and the header list different tensors: {odd}")
        metadata = dict(document.get("metadata", {}))
        if UNKNOWN in metadata:
            raise FormatError(f"{self._name}: the declaration's metadata has the key {UNKNOWN!r}, kept for readers")
        rest = {key: value for key, value in document.items() if key not in TOP_KEYS}
        if rest or unknown:
            metadata[UNKNOWN] = {"file": rest, "tensors": unknown}
        return Bundle(tensors, metadata)

    def header_sha256(self) -> str:
        """The SHA-256 of length and header, which hold the digests of everything else in the file."""
        return hashlib.sha256(self._map[: self._header.data_start]).hexdigest()

    def receipt(self) -> dict[str, Any] | None:
        """The receipt kept in the file, its digest checked, or None."""
        if "receipt" not in self.declaration:
            return None
        return parse_object(self._reserved(self.declaration["receipt"], RECEIPT), f"{self._name}: the receipt")

    def _declaration(self) -> dict[str, Any]:
        text = self._header.metadata.get("wio")
        if text is None:
            raise FormatError(
                f"{self._name}: a safetensors file without a wio declaration", remedy="read it as safetensors:FILE"
            )
        what = f"{self._name}: the declaration"
        document = parse_object(text.encode("utf-8"), what)
        if "declaration" in document:
            _check_version(document, self._name)
            document = parse_object(self._reserved(document["declaration"], DECLARATION), what)
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
        if not isinstance(document.get("generator", ""), str):
            raise FormatError(f"{self._name}: the declaration's generator is no text")
        return document

    def _reserved(self, reference: Any, expected: str) -> bytes:
        """The bytes of a reserved tensor, checked against the digest in its reference."""
        digest = reference.get("sha256") if isinstance(reference, dict) else None
        if not is_digest(digest) or reference.get("tensor") != expected:
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
        if shrunk(self._map, start + entry.start, start + entry.end):
            raise FormatError(f"{self._name}: became shorter while it was read")
        return self._view[start + entry.start : start + entry.end]

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
            refuted = layout.check(shape)
            if refuted is None and role is not None and (role, index) not in self._agreed:
                refuted = contradiction(role, layout)
                self._agreed.add((role, index))
            if refuted:
                raise FormatError(f"{self._name}: tensor {name!r}: {refuted}")
        digest = item.get("sha256")
        if not is_digest(digest):
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
            parallel=True,
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


def is_digest(value: object) -> TypeGuard[str]:
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
        rest = f"|{entry.dtype.safetensors}|{shape}|{entry.start}|{entry.end}\n".encode("ascii")
        lines.append((name, b"%d:%b%b" % (len(name), name, rest)))
    return hashlib.sha256(b"".join(line for _, line in sorted(lines))).hexdigest()


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
