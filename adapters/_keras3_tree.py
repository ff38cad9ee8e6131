"""The tree of a ``.weights.h5`` file: its groups with their attributes, and its variables, checked but not read.

Sources: keras 3.15 ``saving_lib.py``, ``H5IOStore`` (variables are ``PATH/vars/0``, ``1``, ...; bfloat16 is opaque data
with an attribute ``dtype``; since 3.6 the group ``vars`` has an attribute ``name``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from wio.adapters._hdf5 import H5File, plain_place
from wio.adapters._keras3_archive import Member
from wio.dtypes import DTYPES, DType, dtype_of
from wio.encodings import from_bytes
from wio.errors import FormatError, printable

VARS = "vars"
MAX_DEPTH = 64


class Variable(Struct, frozen=True, eq=False):
    """One array of the file: ``path`` is where it stands, ``attributes`` those of its dataset."""

    path: str
    dtype: DType
    shape: tuple[int, ...]
    load: Callable[[], Any]
    raw: Callable[[], memoryview] | None
    attributes: Mapping[str, Any]

    @property
    def group(self) -> str:
        """The group of the layer that owns it, without ``vars``; "" for the model's own."""
        owner = self.path.rpartition("/")[0]
        return owner.removesuffix(VARS).rstrip("/")

    @property
    def index(self) -> str:
        return self.path.rpartition("/")[2]


class Tree(Struct, frozen=True):
    """Groups in the file's order, each with its attributes, and variables in the order of their numbers."""

    groups: Mapping[str, Mapping[str, Any]]
    variables: tuple[Variable, ...]

    def saved_name(self, path: str) -> str | None:
        """The layer name that the group ``vars`` at a path records (keras >= 3.6), if layers can have it."""
        document = self.groups.get(f"{path}/{VARS}".lstrip("/"), {}).get("name")
        value = document["value"] if document and document.get("shape") == [] else []
        name = value[0] if value else None
        return name if isinstance(name, str) and name and "/" not in name else None

    def chain(self, path: str) -> str | None:
        """The names of the layer at a path and of those around it, ``block/conv``; None if any of them has none."""
        names, parts = [], path.split("/")
        for end in range(1, len(parts) + 1):
            around = "/".join(parts[:end])
            if f"{around}/{VARS}" in self.groups:
                names.append(self.saved_name(around))
        return "/".join(name for name in names if name) if names and all(names) else None


class WeightsFile(H5File):
    """A ``.weights.h5``: a file, or a member of an archive."""

    def __init__(self, path: Path, member: Member | None = None) -> None:
        self._member = member
        if member is None:
            super().__init__(path)
            return
        self.name = member.what
        self._open(path, member.data, member.what)

    def mapped(self) -> memoryview:
        """The bytes of the HDF5 file, held against their checksum where the archive has one."""
        if self._member is not None:
            self._member.verify()
        return super().mapped()

    def tree(self) -> Tree:
        """Everything in the file. Raises FormatError for links, cycles and whatever else Keras never writes."""
        import h5py

        groups: dict[str, dict[str, Any]] = {}
        variables: list[Variable] = []
        seen: set[int] = set()
        waiting = [""]
        while waiting:
            path = waiting.pop()
            node = self.node(path)
            with self.sound(repr(printable(path))):
                address = int(h5py.h5o.get_info(node.id).addr)
                names = sorted(node, key=_by_number) if isinstance(node, h5py.Group) else []
            if address in seen or path.count("/") >= MAX_DEPTH:
                raise FormatError(f"{self.name}: {printable(path)!r} is reached twice or lies too deep")
            seen.add(address)
            if isinstance(node, h5py.Group):
                groups[path] = self._sorted_attributes(node, path)
                waiting += [f"{path}/{name}".lstrip("/") for name in reversed(names)]
            elif isinstance(node, h5py.Dataset):
                variables.append(self._variable(node, path))
            else:
                raise FormatError(f"{self.name}: {printable(path)!r} is neither group nor array")
        if not variables:
            # Nothing will be read that would show a changed member.
            self.mapped()
        return Tree(groups, tuple(variables))

    def _sorted_attributes(self, node: Any, path: str) -> dict[str, Any]:
        return dict(sorted(self.attributes_of(node, path).items()))

    def _variable(self, node: Any, path: str) -> Variable:
        import numpy as np

        what = f"{self.name}: {printable(path)!r}"
        attributes = self._sorted_attributes(node, path)
        with self.sound(repr(printable(path))):
            if node.shape is None:
                raise FormatError(f"{what} holds nothing")
            shape: tuple[int, ...] = tuple(int(size) for size in node.shape)
            stored: np.dtype[Any] = node.dtype
            place = plain_place(node)
        dtype = _dtype(what, stored, attributes)
        size = math.prod(shape) * stored.itemsize

        def raw() -> memoryview:
            return self.mapped()[place or 0 : (place or 0) + size]

        def load() -> Any:
            if place is not None:
                return from_bytes(raw(), dtype, shape)
            self.mapped()
            with self.sound(repr(printable(path))):
                array = np.ascontiguousarray(node[()], stored.newbyteorder("<")).reshape(shape)
            return array.view(dtype.numpy)

        return Variable(path, dtype, shape, load, raw if place is not None else None, attributes)


def _dtype(what: str, stored: Any, attributes: Mapping[str, Any]) -> DType:
    """The dtype of a dataset: its own, or the one that the attribute ``dtype`` gives to opaque bytes."""
    document = attributes.get("dtype")
    told = document["value"][0] if document and document.get("shape") == [] and document["value"] else None
    if stored.kind == "V":
        found = DTYPES.get(str(told))
        if stored.names is None and stored.subdtype is None and found is not None and found.itemsize == stored.itemsize:
            return found
        raise FormatError(
            f"{what} holds {stored.itemsize}-byte opaque values and no attribute that says their dtype",
            remedy="save the model again with these weights as float32 (Keras itself cannot load them either)",
        )
    if stored.kind not in "biufc":
        raise FormatError(f"{what} holds {stored}, which no variable of Keras is")
    import numpy as np

    try:
        return dtype_of(np.empty(0, stored.newbyteorder("<")))
    except FormatError as error:
        raise FormatError(f"{what}: {error.message}") from None


def _by_number(name: str) -> tuple[int, int, str]:
    """``vars`` before the layers inside, and variables in their order: 2 before 10."""
    if name.isascii() and name.isdigit() and len(name) < 10:
        return 0, int(name), name
    return (1 if name == VARS else 2), 0, name
