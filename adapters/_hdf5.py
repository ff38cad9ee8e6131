"""HDF5 as a container of attributes and arrays, read without following what a hostile file may point to.

Soft and external links, external storage and virtual datasets are refused: h5py resolves them in silence, and with
them a weight file reads any file of its user (CVE-2026-1669, tf-keras#921). Here libhdf5 is given no file whose
structure was not checked before; of one that is newer than the check it is given a copy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wio.adapters._mapped_files import BufferFile, MappedFile
from wio.dtypes import DType, dtype_of
from wio.errors import FormatError, printable

# What h5py raises over a file that is not sound.
_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


# Files whose structure was found sound: adapters look at a file in turn, each for itself.
_SOUND: set[tuple[int, ...]] = set()
_SETTLED = 2_000_000_000


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes with a file's contents; None for one that changed too lately for the clock to tell it."""
    try:
        found = path.stat()
    except OSError:
        return None
    if time.time_ns() - found.st_ctime_ns < _SETTLED:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class H5File:
    """An HDF5 file open for reading. Raises FormatError for what is not there, not sound or not safe."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._open(path, MappedFile(path).view)

    def _open(self, path: Path, data: memoryview, member: str | None = None) -> None:
        """Opens a file, or the member of an archive as one, once its structure is known to be sound."""
        import h5py

        from wio.adapters._hdf5_newer import oldest
        from wio.adapters._hdf5_structure import NewerError, check_structure

        identity = None if member is not None else _identity(path)
        source: Any = path if member is None else BufferFile(data)
        try:
            if identity not in _SOUND:
                try:
                    check_structure(data)
                except NewerError:
                    data = oldest(path, data, member)
                    source, identity = BufferFile(data), None
        except FormatError as error:
            message = f"{self.name}: not a sound HDF5 file: {error.message}"
            raise FormatError(message, remedy=error.remedy) from None
        self._data = data
        with self.sound("the file"):
            self._file = h5py.File(source, "r")
        if identity is not None:
            _SOUND.add(identity)

    @contextmanager
    def sound(self, what: str) -> Iterator[None]:
        """Turns whatever h5py raises over a damaged part of the file into a FormatError that names the part."""
        try:
            yield
        except _DAMAGED as error:
            raise FormatError(f"{self.name}: {what} is damaged: {printable(str(error))[:200]}") from None

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
            except _DAMAGED:
                raise FormatError(f"{self.name}: {path!r} is not there or is damaged") from None
        return node

    def has(self, path: str) -> bool:
        try:
            self.node(path)
        except FormatError:
            return False
        return True

    def is_group(self, path: str) -> bool:
        try:
            self.group(path)
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

    def mapped(self) -> memoryview:
        """All that libhdf5 was given, mapped read-only."""
        return self._data

    def members(self, path: str) -> list[str]:
        """The names of what a group holds."""
        group = self.group(path)
        with self.sound(repr(path)):
            return list(group)

    def attribute_names(self, path: str) -> list[str]:
        return self._names_of(self.group(path), path)

    def _names_of(self, node: Any, path: str) -> list[str]:
        with self.sound(f"an attribute of {printable(path or '/')!r}"):
            return list(node.attrs)

    def value(self, path: str, name: str) -> Any:
        """The value of an attribute of a group as h5py gives it; None if it has no such attribute."""
        group = self.group(path)
        with self.sound(f"attribute {name!r} of {printable(path)!r}"):
            return group.attrs.get(name)

    def attributes(self, path: str) -> dict[str, Any]:
        """The attributes of a group as JSON-able values that :func:`write_attribute` turns back into the same ones."""
        return self.attributes_of(self.group(path), path)

    def attributes_of(self, node: Any, path: str) -> dict[str, Any]:
        """The same, of a group or an array."""
        return {name: self._attribute(node, path, name) for name in self._names_of(node, path)}

    def text_type(self, path: str, name: str) -> str | None:
        """How an attribute stores text, ``ascii-variable`` or ``utf-8-12``; None if it holds none or is not there."""
        import h5py

        attributes = self.group(path).attrs
        with self.sound(f"attribute {name!r} of {printable(path)!r}"):
            kind = h5py.check_string_dtype(attributes.get_id(name).dtype) if name in attributes else None
        return None if kind is None else f"{kind.encoding}-{kind.length or 'variable'}"

    def strings(self, path: str, name: str) -> list[str] | None:
        """An attribute that lists names, joined from its chunks ``name0``, ``name1``, ... where Keras split it.

        Source: keras >= 2.1.5, ``engine/saving.py``, ``load_attributes_from_hdf5_group``.
        """
        attributes = set(self.attribute_names(path))
        if name in attributes:
            return self._string_list(path, name)
        found: list[str] = []
        k = 0
        while f"{name}{k}" in attributes:
            found += self._string_list(path, f"{name}{k}")
            k += 1
        return found if k else None

    def _string_list(self, path: str, name: str) -> list[str]:
        listed = self.value(path, name)
        try:
            names = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in listed.tolist()]
        except (AttributeError, TypeError, ValueError):
            raise FormatError(f"{self.name}: attribute {name!r} of {path!r} is no list of names") from None
        if "" in names:
            raise FormatError(f"{self.name}: attribute {name!r} of {path!r} lists a name that is empty")
        return names

    def _attribute(self, group: Any, path: str, name: str) -> Any:
        import h5py
        import numpy as np

        try:
            identity = group.attrs.get_id(name)
            kind = h5py.check_string_dtype(identity.dtype)
            value = group.attrs[name]
        except _DAMAGED:
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
        with file.sound(repr(path)):
            if node.shape is None:
                raise FormatError(f"{self._what} holds nothing")
            self.shape: tuple[int, ...] = tuple(node.shape)
            self._native = node.dtype.newbyteorder("<")
            self._place = plain_place(node)
        if self._native.kind not in "biufc":
            raise FormatError(f"{self._what} holds {node.dtype}, which no weights are")
        import numpy as np

        self.dtype: DType = dtype_of(np.empty(0, self._native))

    def load(self) -> Any:
        """The array: a view of the mapped file where HDF5 stores it plain, else read and uncompressed."""
        import numpy as np

        if self._place is not None:
            mapped = self._file.mapped()
            return np.frombuffer(mapped, self._native, math.prod(self.shape), self._place).reshape(self.shape)
        try:
            return np.ascontiguousarray(self._node[()], self._native).reshape(self.shape)
        except _DAMAGED as error:
            raise FormatError(f"{self._what} cannot be read: {error}") from None


def plain_place(node: Any) -> int | None:
    """Where the file has the values of an array, if they stand there byte for byte as NumPy has them, little-endian.

    A number may have fewer bits than bytes, or another exponent: h5py then names the NumPy type that its values fit.
    """
    import h5py

    native = node.dtype.newbyteorder("<")
    place = node.id.get_offset()
    if place is None or not node.size or node.id.get_storage_size() != node.size * native.itemsize:
        return None
    opaque = native.kind == "V" and native.names is None
    return int(place) if opaque or node.id.get_type() == h5py.h5t.py_create(native, logical=True) else None


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
