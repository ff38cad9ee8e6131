"""Builds .wio files by hand, byte by byte, as ``spec/wio-1.md`` says; shares no code with wio."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

ZEROS = "0" * 64
# name: (safetensors code or None, bytes of an element as stored, struct format of a value or None)
DTYPES: dict[str, tuple[str | None, int, str | None]] = {
    "bool": ("BOOL", 1, "?"),
    "uint8": ("U8", 1, "B"),
    "int8": ("I8", 1, "b"),
    "uint16": ("U16", 2, "H"),
    "int16": ("I16", 2, "h"),
    "uint32": ("U32", 4, "I"),
    "int32": ("I32", 4, "i"),
    "uint64": ("U64", 8, "Q"),
    "int64": ("I64", 8, "q"),
    "float16": ("F16", 2, "e"),
    "bfloat16": ("BF16", 2, None),
    "float32": ("F32", 4, "f"),
    "float64": ("F64", 8, "d"),
    "complex64": ("C64", 8, "ff"),
    "float8_e5m2": ("F8_E5M2", 1, None),
    "float8_e4m3fn": ("F8_E4M3", 1, None),
    "float8_e8m0fnu": ("F8_E8M0", 1, None),
    "float8_e4m3fnuz": (None, 1, None),
    "float8_e5m2fnuz": (None, 1, None),
    "float8_e4m3b11fnuz": (None, 1, None),
    "complex128": (None, 16, "dd"),
    "int2": (None, 1, None),
    "uint2": (None, 1, None),
    "int4": (None, 1, None),
    "uint4": (None, 1, None),
    "qint8": (None, 1, "b"),
    "quint8": (None, 1, "B"),
    "qint16": (None, 2, "h"),
    "quint16": (None, 2, "H"),
    "qint32": (None, 4, "i"),
    "string": (None, 0, None),
    "variant": (None, 0, None),
}


@dataclass(frozen=True)
class Vector:
    """A tensor of a test vector. ``values`` are what a reader shows of ``data``: numbers, [re, im], hex of strings."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes
    values: list[Any]
    role: str | None = None
    layout: str | None = None
    origin: str | None = None
    layer: str | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def encoding(self) -> str | None:
        if DTYPES[self.dtype][0] is not None:
            return None
        return "elements" if DTYPES[self.dtype][1] else "varbytes"

    @property
    def code(self) -> str:
        return DTYPES[self.dtype][0] or "U8"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return self.shape if self.encoding is None else (len(self.data),)

    @property
    def alignment(self) -> int:
        return {"C64": 4, "U8": 1}.get(self.code, DTYPES[self.dtype][1])


def numbers(name: str, dtype: str, shape: tuple[int, ...], values: Sequence[Any], **declared: Any) -> Vector:
    """A tensor whose bytes are packed from its values."""
    form = DTYPES[dtype][2]
    if form is None:
        raise ValueError(f"{dtype} has no struct format: give its bytes")
    flat = [part for value in values for part in (value if isinstance(value, list) else [value])]
    return Vector(name, dtype, shape, struct.pack("<" + form * len(values), *flat), list(values), **declared)


def floats(name: str, shape: tuple[int, ...], first: int = 0, **declared: Any) -> Vector:
    """A float32 tensor that counts up from ``first``: no two elements are equal."""
    count = 1
    for extent in shape:
        count *= extent
    return numbers(name, "float32", shape, [float(first + k) for k in range(count)], **declared)


def strings(name: str, shape: tuple[int, ...], values: Sequence[bytes], dtype: str = "string") -> Vector:
    """Byte strings: all lengths as LEB128, then all bytes."""
    data = b"".join(leb128(len(value)) for value in values) + b"".join(values)
    return Vector(name, dtype, shape, data, [value.hex() for value in values])


def leb128(number: int) -> bytes:
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def compact(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def table_digest(header: Mapping[str, Any]) -> str:
    """The digest of the tensor table, from a safetensors header."""
    lines = {}
    for name, entry in header.items():
        if name != "__metadata__":
            raw = name.encode()
            shape = ",".join(str(extent) for extent in entry["shape"])
            start, end = entry["data_offsets"]
            rest = f"|{entry['dtype']}|{shape}|{start}|{end}\n"
            lines[raw] = str(len(raw)).encode() + b":" + raw + rest.encode()
    return sha256(b"".join(lines[raw] for raw in sorted(lines))).hexdigest()


def framed(header: Mapping[str, Any] | str | bytes, data: bytes = b"", pad: bool = True) -> bytes:
    """A safetensors file out of a header and its data."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else compact(header)).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def layout_table(tensors: Sequence[Vector]) -> list[str]:
    return list(dict.fromkeys(tensor.layout for tensor in tensors if tensor.layout is not None))


def declared(tensor: Vector, layouts: Sequence[str]) -> dict[str, Any]:
    """The declaration's entry for a tensor."""
    item: dict[str, Any] = {"name": tensor.name}
    if tensor.encoding is not None:
        item |= {"dtype": tensor.dtype, "shape": list(tensor.shape), "encoding": tensor.encoding}
    if tensor.role is not None:
        item["role"] = tensor.role
    if tensor.layout is not None:
        item["layout"] = layouts.index(tensor.layout)
    if tensor.origin is not None:
        item["origin"] = tensor.origin
    if tensor.layer is not None:
        item["layer"] = tensor.layer
    return {**item, "sha256": sha256(tensor.data).hexdigest(), **tensor.unknown}


@dataclass
class File:
    """A .wio file in parts, so that a vector can bend any of them.

    ``reserved`` are the bytes of reserved tensors by name; ``outside`` puts the declaration into one of them.
    ``bend_document`` changes the declaration before it becomes text, ``bend_text`` after, ``bend_header`` the header.
    """

    tensors: Sequence[Vector]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    receipt: bytes | None = None
    reserved: Mapping[str, bytes] = field(default_factory=dict)
    outside: bool = False
    in_data_order: Sequence[Vector] | None = None
    bend_document: Callable[[dict[str, Any]], Any] = lambda document: document
    bend_text: Callable[[str], str] = lambda text: text
    bend_header: Callable[[dict[str, Any]], Any] = lambda header: header
    bend_stub: Callable[[dict[str, Any]], Any] = lambda stub: stub
    extra_metadata: Mapping[str, str] = field(default_factory=lambda: {"format": "pt"})

    def bytes(self, pad: bool = True) -> bytes:
        stored = self.in_data_order
        if stored is None:
            stored = sorted(self.tensors, key=lambda tensor: -tensor.alignment)
        parts = [(tensor.name, tensor.code, tensor.stored_shape, tensor.data) for tensor in stored]
        reserved = dict(self.reserved)
        if self.receipt is not None:
            reserved["__wio__/receipt"] = self.receipt
        if self.outside:
            reserved["__wio__/declaration"] = self._text(ZEROS).encode()
        parts += [(name, "U8", (len(data),), data) for name, data in reserved.items()]
        header: dict[str, Any] = {}
        at = 0
        for name, code, shape, data in parts:
            header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + len(data)]}
            at += len(data)
        text = self._text(table_digest(header))
        chunks = {name: data for name, _, _, data in parts}
        if self.outside:
            chunks["__wio__/declaration"] = text.encode()
            reference = {"tensor": "__wio__/declaration", "sha256": sha256(text.encode()).hexdigest()}
            text = compact(self.bend_stub({"wio": 1, "declaration": reference}))
        header = {"__metadata__": {"wio": text, **self.extra_metadata}, **header}
        return framed(self.bend_header(header), b"".join(chunks.values()), pad)

    def document(self, table: str = ZEROS) -> dict[str, Any]:
        layouts = layout_table(self.tensors)
        document: dict[str, Any] = {
            "wio": 1,
            "generator": "test vectors",
            "table": table,
            "metadata": dict(self.metadata),
        }
        if self.receipt is not None:
            document["receipt"] = {"tensor": "__wio__/receipt", "sha256": sha256(self.receipt).hexdigest()}
        document |= {"layouts": layouts, "tensors": [declared(tensor, layouts) for tensor in self.tensors]}
        return {**document, **self.unknown}

    def _text(self, table: str) -> str:
        return self.bend_text(compact(self.bend_document(self.document(table))))
