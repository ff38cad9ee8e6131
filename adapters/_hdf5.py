"""HDF5 as a container of attributes and arrays, read without following what a hostile file may point to.

Soft and external links, external storage and virtual datasets are refused: h5py resolves them in silence, and with
them a weight file reads any file of its user (CVE-2026-1669, tf-keras#921).
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wio.dtypes import DType, dtype_of
from wio.errors import FormatError
from wio.mapping import map_file

MAGIC = b"\x89HDF\r\n\x1a\n"
# Deflate cannot do better than 1032:1 (zlib, "Maximum Compression Factor"); more is a file that lies.
_MAX_RATIO = 1032
_SMALL = 64 << 20
_MOST_SCANNED = 256 << 20
# A heap's signature, version 1 and three reserved bytes; its objects' index, reference count, reserved bytes and size.
_HEAP = b"GCOL\x01\0\0\0"
_HEAP_OBJECT = struct.Struct("<H6xQ")


def refuse_endless_heaps(data: Any, name: str) -> None:
    """Refuses a global heap, which holds the text of attributes, with a free object of no size.

    libhdf5 1.14.6 walks it forever, where no exception can end it (HDF5 File Format Specification 3.0, III.E). Larger
    files than ``_MOST_SCANNED`` are not looked through.
    """
    size = len(data)
    for found in _heaps(data) if size <= _MOST_SCANNED else ():
        at = found + 16
        end = min(size, found + int.from_bytes(data[found + 8 : found + 16], "little"))
        while at + 16 <= end:
            number, length = _HEAP_OBJECT.unpack(data[at : at + 16])
            if number == 0 and length == 0:
                raise FormatError(f"{name}: a global heap of it is damaged: it has no end")
            at += length if number == 0 else 16 + (length + 7) // 8 * 8


def _heaps(data: Any) -> Iterator[int]:
    """Where heaps begin. A mapped file finds them ten times as fast as a pattern does."""
    if not isinstance(data, mmap.mmap):
        yield from (found.start() for found in re.finditer(re.escape(_HEAP), data))
        return
    found = data.find(_HEAP)
    while found >= 0:
        yield found
        found = data.find(_HEAP, found + 1)


class H5File:
    """An HDF5 file open for reading. Raises FormatError for what is not there, not sound or not safe."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.name = path.name
        self._path = path
        self._map: mmap.mmap | None = None
        try:
            if path.stat().st_size:
                refuse_endless_heaps(self.mapped(), self.name)
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise FormatError(f"{self.name}: not a sound HDF5 file: {error}") from None

    def node(self, path: str) -> Any:
        """The group or dataset at a path, every step of it a hard link."""
        import h5py

        node = self._file
        for part in [part for part in path.split("/") if part]:
            try:
                link = node.get(part, getlink=True)
                if link is not None and not isinstance(link, h5py.HardLink):
                    raise FormatError(f"{self.name}: {path!r} is a link to elsewhere, which wio does not follow")
                node = node[part]
            except (KeyError, ValueError, RuntimeError, OSError, AttributeError, TypeError):
                raise FormatError(f"{self.name}: {path!r} is not there or is damaged") from None
        return node

    def has(self, path: str) -> bool:
        try:
            self.node(path)
        except FormatError:
            return False
        return True

    def group(self, path: str) -> Any:
        import h5py

        node = self.node(path)
        if not isinstance(node, h5py.Group):
            raise FormatError(f"{self.name}: {path!r} is no group")
        return node

    def dataset(self, path: str) -> Dataset:
        """The checked dataset at a path."""
        import h5py

        node = self.node(path)
        if not isinstance(node, h5py.Dataset):
            raise FormatError(f"{self.name}: {path!r} is no array")
        return Dataset(self, path, node)

    def mapped(self) -> mmap.mmap:
        """The whole file, mapped read-only."""
        if self._map is None:
            with self._path.open("rb") as file:
                self._map = map_file(file.fileno())
        return self._map

    def attributes(self, path: str) -> dict[str, Any]:
        """The attributes of a group as JSON-able values that :func:`write_attribute` turns back into the same ones."""
        group = self.group(path)
        return {name: self._attribute(group, path, name) for name in group.attrs}

    def text_type(self, path: str, name: str) -> str | None:
        """How an attribute stores text, ``ascii-variable`` or ``utf-8-12``; None if it holds none or is not there."""
        import h5py

        attributes = self.group(path).attrs
        kind = h5py.check_string_dtype(attributes.get_id(name).dtype) if name in attributes else None
        return None if kind is None else f"{kind.encoding}-{kind.length or 'variable'}"

    def strings(self, path: str, name: str) -> list[str] | None:
        """An attribute that lists names, joined from its chunks ``name0``, ``name1``, ... where Keras split it.

        Source: keras >= 2.1.5, ``engine/saving.py``, ``load_attributes_from_hdf5_group``.
        """
        attributes = self.group(path).attrs
        if name in attributes:
            return self._string_list(attributes, path, name)
        found: list[str] = []
        k = 0
        while f"{name}{k}" in attributes:
            found += self._string_list(attributes, path, f"{name}{k}")
            k += 1
        return found if k else None

    def _string_list(self, attributes: Any, path: str, name: str) -> list[str]:
        try:
            return [
                item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in attributes[name].tolist()
            ]
        except (OSError, AttributeError, TypeError, ValueError):
            raise FormatError(f"{self.name}: attribute {name!r} of {path!r} is no list of names") from None

    def _attribute(self, group: Any, path: str, name: str) -> Any:
        import h5py
        import numpy as np

        try:
            identity = group.attrs.get_id(name)
            kind = h5py.check_string_dtype(identity.dtype)
            value = group.attrs[name]
        except (OSError, TypeError, ValueError, KeyError):
            raise FormatError(f"{self.name}: attribute {name!r} of {path!r} cannot be read") from None
        if isinstance(value, h5py.Empty):
            return {"type": "empty", "value": None}
        array = np.asarray(value)
        if kind is not None:
            flat = [
                item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item) for item in array.flat
            ]
            text = f"{kind.encoding}-{kind.length or 'variable'}"
            return {"type": text, "shape": list(array.shape), "value": flat}
        if array.dtype.kind not in "biuf":
            raise FormatError(f"{self.name}: attribute {name!r} of {path!r} has a type wio does not know")
        return {"type": array.dtype.str, "shape": list(array.shape), "value": array.reshape(-1).tolist()}


class Dataset:
    """One array of an HDF5 file, checked but not read."""

    def __init__(self, file: H5File, path: str, node: Any) -> None:
        self._file, self._node, self._what = file, node, f"{file.name}: {path!r}"
        try:
            self._offset = node.id.get_offset()
            stored = node.id.get_storage_size()
            if node.is_virtual or node.external:
                raise FormatError(f"{self._what} keeps its values in another file, which wio does not read")
            if node.shape is None:
                raise FormatError(f"{self._what} holds nothing")
            self.shape: tuple[int, ...] = tuple(node.shape)
            self._native = node.dtype.newbyteorder("<")
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise FormatError(f"{self._what} is damaged: {error}") from None
        import numpy as np

        self.dtype: DType = dtype_of(np.empty(0, self._native))
        size = math.prod(self.shape) * self._native.itemsize
        if size > _SMALL and size > _MAX_RATIO * stored:
            raise FormatError(f"{self._what} declares {size:,} bytes and stores {stored:,}: no compression does that")
        self._size = size

    def load(self) -> Any:
        """The array: a view of the mapped file where HDF5 stores it plain, else read and uncompressed."""
        import numpy as np

        if self._offset is not None and self._size and self._node.dtype == self._native and self._native.kind != "O":
            mapped = self._file.mapped()
            if self._offset + self._size > len(mapped):
                raise FormatError(f"{self._what} reaches beyond the end of the file")
            return np.frombuffer(mapped, self._native, math.prod(self.shape), self._offset).reshape(self.shape)
        try:
            return np.ascontiguousarray(self._node[()], self._native).reshape(self.shape)
        except (OSError, RuntimeError, MemoryError) as error:
            raise FormatError(f"{self._what} cannot be read: {error}") from None


def write_attribute(group: Any, name: str, document: Mapping[str, Any]) -> None:
    """Writes an attribute as :meth:`H5File.attributes` gave it: same type, same shape, same value."""
    import h5py
    import numpy as np

    if document["type"] == "empty":
        group.attrs[name] = h5py.Empty("f")
        return
    encoding, dash, length = document["type"].rpartition("-")
    shape = tuple(document["shape"])
    if not dash:
        group.attrs.create(name, np.array(document["value"], document["type"]).reshape(shape))
        return
    items = [text.encode("utf-8", "surrogateescape") for text in document["value"]]
    dtype = h5py.string_dtype(encoding, None if length == "variable" else int(length))
    array = np.array(items, object if length == "variable" else f"S{length}").reshape(shape)
    group.attrs.create(name, array if shape else items[0], shape=shape, dtype=dtype)
