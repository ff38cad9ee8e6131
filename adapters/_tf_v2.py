"""V2 checkpoints, tensor bundles: ``PREFIX.index`` and ``PREFIX.data-NNNNN-of-MMMMM``.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.{h,cc}, naming.cc.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from wio.adapters import _tf_messages as messages
from wio.adapters._crc32c import crc32c
from wio.adapters._mapped_files import MappedFile, regular_size
from wio.adapters._protobuf import WireError
from wio.adapters._tf_dtypes import Declared, declared
from wio.adapters._tf_graph import GRAPH_KEY, ObjectGraph, layer_of
from wio.adapters._tf_ordered_code import name_in_key, slice_key
from wio.adapters._tf_paths import Located, shown
from wio.adapters._tf_slices import Box, check_cover, extents_of, is_whole, join, slice_text
from wio.adapters._tf_table import DAMAGED, MOST_ENTRIES, Table, masked
from wio.adapters._tf_values import elements, strings, variants
from wio.bundle import FROM_NAME, Bundle, Tensor
from wio.errors import DigestError, FormatError, Problem, printable
from wio.lazy import Array

# tensor_bundle.cc, kTensorBundleVersion.
VERSION = 1


def read_v2(files: Located, table: Table) -> Bundle:
    """The bundle of a checkpoint whose index is ``table``. Data files are looked at, but not opened."""
    header, entries = _index(table)
    return _Reader(files, table, header, entries).bundle()


def _index(table: Table) -> tuple[messages.Header, dict[bytes, messages.Entry]]:
    header: messages.Header | None = None
    entries: dict[bytes, messages.Entry] = {}
    parse = messages.entry
    for block in table.blocks():
        data = block.data
        if len(entries) + len(block) > MOST_ENTRIES:
            raise FormatError(f"{table.file}: lists more than {MOST_ENTRIES} tensors")
        for key, start, stop in block.values():
            try:
                if not key:
                    header = messages.header(data, start, stop)
                    continue
                entries[key] = parse(data, start, stop)
            except WireError as error:
                what = f"the entry of {_shown_key(key)}" if key else "the header"
                raise FormatError(f"{table.file}: {what} is malformed: {error.message}") from None
    if header is None:
        raise FormatError(f"{table.file}: the header, the entry with an empty key, is missing")
    refused = header.version.refusal(VERSION)
    if refused:
        raise FormatError(f"{table.file}: {refused}")
    if header.endianness not in (0, 1):
        raise FormatError(f"{table.file}: endianness {header.endianness} is neither little (0) nor big (1)")
    if header.num_shards < 0 or (entries and not header.num_shards):
        raise FormatError(f"{table.file}: {header.num_shards} data files is no number of data files")
    return header, entries


def _shown_key(key: bytes) -> str:
    return printable((name_in_key(key) or key).decode("utf-8", "backslashreplace"))


class _Reader:
    def __init__(
        self, files: Located, table: Table, header: messages.Header, entries: dict[bytes, messages.Entry]
    ) -> None:
        self._folder, self._base = files.folder, files.base
        self._index = str(table.file)
        self._header = header
        self._entries = entries
        self._big_endian = header.endianness == 1
        self._sizes: dict[int, int | None] = {}
        self._files: dict[int, MappedFile] = {}
        self._problems: list[Problem] = []

    def bundle(self) -> Bundle:
        slices = self._partitioned()
        of_slices = {key for keys in slices.values() for key, _ in keys}
        found: list[tuple[str, messages.Entry, Declared]] = []
        for key, entry in self._entries.items():
            if key in of_slices:
                continue
            checked = self._declared(key, entry)
            if checked is not None:
                name, kind = checked
                if not entry.slices:
                    self._check_place(name, entry, kind)
                found.append((name, entry, kind))
        boxes = {key: self._check_slices(key, keys) for key, keys in slices.items()}
        if not self._problems:
            for shard, size in self._sizes.items():
                if size is None:
                    self._problem("missing", None, f"the data file {shown(self._data_file(shard))} is missing")
        if self._problems:
            count = len(self._problems)
            raise FormatError(
                f"{self._index}: {count} problem{'s' if count > 1 else ''} in this checkpoint",
                self._problems,
                remedy=f"all files of a checkpoint belong together: {self._base}.index and {self._data_file('*')}",
            )
        graph = self._graph(found)
        return Bundle(self._tensors(found, boxes, graph), self._metadata(found, graph))

    def _problem(self, kind: str, tensor: str | None, message: str) -> None:
        self._problems.append(Problem(kind, message, tensor))

    def _partitioned(self) -> dict[bytes, list[tuple[bytes, messages.Slice]]]:
        """The keys of the slices of each partitioned variable. A whole slice is the entry itself (Lookup)."""
        found = {}
        for key, entry in self._entries.items():
            if entry.slices and not all(map(is_whole, entry.slices)):
                found[key] = [(slice_key(key, extents), extents) for extents in entry.slices]
        return found

    def _declared(self, key: bytes, entry: messages.Entry) -> tuple[str, Declared] | None:
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError:
            owner = name_in_key(key)
            what = f"is a slice of {_shown_key(key)}, which does not declare it" if owner else "is no UTF-8"
            self._problem("name", None, f"the key {key!r} {what}")
            return None
        try:
            return name, declared(entry.dtype, entry.shape)
        except FormatError as error:
            self._problem("entry", name, error.message)
            return None

    def _check_place(self, name: str, entry: messages.Entry, kind: Declared) -> None:
        """Whether the bytes that the entry names are there, and as many as its dtype and shape need."""
        if not 0 <= entry.shard < self._header.num_shards:
            self._problem("entry", name, f"its data file is number {entry.shard} of {self._header.num_shards}")
            return
        size = self._sizes.get(entry.shard, -1)
        if size == -1:
            size = self._sizes[entry.shard] = regular_size(self._folder / self._data_file(entry.shard))
        if kind.dtype.itemsize and entry.size != kind.elements * kind.dtype.itemsize:
            self._problem(
                "entry",
                name,
                f"{entry.size} bytes are stored where {kind.dtype} of shape {kind.shape} takes "
                f"{kind.elements * kind.dtype.itemsize}",
            )
        elif entry.offset < 0 or entry.size < 0 or (not kind.dtype.itemsize and kind.elements > entry.size):
            self._problem("entry", name, f"{entry.size} bytes at byte {entry.offset} cannot hold shape {kind.shape}")
        elif size is not None and entry.offset + entry.size > size:
            self._problem(
                "entry",
                name,
                f"{entry.size} bytes at byte {entry.offset} reach beyond the end of "
                f"{shown(self._data_file(entry.shard))} ({size} bytes)",
            )

    def _check_slices(
        self, key: bytes, keys: list[tuple[bytes, messages.Slice]]
    ) -> list[tuple[Box, messages.Entry, Declared]]:
        entry = self._entries[key]
        checked = self._declared(key, entry) if not self._problems else None
        if checked is None:
            return []
        name, whole = checked
        try:
            boxes = check_cover(whole.shape, entry.slices)
        except FormatError as error:
            self._problem("slices", name, error.message)
            return []
        found = []
        for (part, extents), sides in zip(keys, boxes, strict=True):
            stored = self._entries.get(part)
            if stored is None:
                self._problem("slices", name, f"slice {slice_text(extents)} is declared, but not stored")
                continue
            try:
                kind = declared(stored.dtype, stored.shape)
            except FormatError as error:
                self._problem("slices", name, f"slice {slice_text(extents)}: {error.message}")
                continue
            if stored.slices or kind.dtype != whole.dtype or kind.shape != extents_of(sides):
                self._problem(
                    "slices", name, f"slice {slice_text(extents)} is stored as {kind.dtype} of shape {kind.shape}"
                )
                continue
            self._check_place(name, stored, kind)
            found.append((sides, stored, kind))
        return found

    def _tensors(
        self,
        found: list[tuple[str, messages.Entry, Declared]],
        boxes: dict[bytes, list[tuple[Box, messages.Entry, Declared]]],
        graph: ObjectGraph | None,
    ) -> Iterator[Tensor]:
        parts = {key.decode("utf-8"): pieces for key, pieces in boxes.items()}
        load = self._load
        for name, entry, kind in found:
            pieces = parts.get(name)
            plain = pieces is None and kind.dtype.itemsize and not self._big_endian
            yield Tensor(
                name,
                kind.dtype,
                kind.shape,
                partial(load, name, entry, kind) if pieces is None else partial(self._join, name, kind, pieces),
                role=graph.role(name) if graph else None,
                layer=layer_of(name) if graph else FROM_NAME,
                stored_bytes=None if kind.dtype.itemsize else entry.size,
                raw=partial(self._raw, name, entry) if plain else None,
                parallel=True,
            )

    def _graph(self, found: list[tuple[str, messages.Entry, Declared]]) -> ObjectGraph | None:
        """The object graph, if this checkpoint has one: the only tensor whose bytes are read to list the others."""
        for name, entry, kind in found:
            if name == GRAPH_KEY and kind.dtype.name == "string" and kind.shape == ():
                try:
                    return ObjectGraph.of(messages.object_graph(self._load(name, entry, kind).item()))
                except WireError as error:
                    raise FormatError(f"{self._index}: {GRAPH_KEY} is malformed: {error.message}") from None
        return None

    def _metadata(self, found: list[tuple[str, messages.Entry, Declared]], graph: ObjectGraph | None) -> dict[str, Any]:
        stated: dict[str, Any] = {
            "format": "V2",
            "shards": self._header.num_shards,
            "endianness": "big" if self._big_endian else "little",
            "producer": self._header.version.producer,
        }
        partitioned = {
            name: [slice_text(extents) for extents in entry.slices] for name, entry, _ in found if entry.slices
        }
        if partitioned:
            stated["partitioned"] = partitioned
        if graph:
            names = {name for name, _, _ in found}
            stated["full_names"] = {key: full for key, full in graph.full_names.items() if key in names}
        return {"tf_checkpoint": stated}

    def _data_file(self, shard: int | str) -> str:
        """naming.cc, DataFilename."""
        number = f"{shard:05d}" if isinstance(shard, int) else shard
        return f"{self._base}.data-{number}-of-{self._header.num_shards:05d}"

    def _join(self, name: str, kind: Declared, pieces: list[tuple[Box, messages.Entry, Declared]]) -> Array:
        return join(
            kind.dtype,
            kind.shape,
            ((sides, partial(self._load, name, entry, part)) for sides, entry, part in pieces),
        )

    def _file(self, name: str, entry: messages.Entry) -> MappedFile:
        """The data file of an entry, which reaches as far as the entry."""
        file = self._files.get(entry.shard)
        if file is None:
            file = self._files[entry.shard] = MappedFile(self._folder / self._data_file(entry.shard), ranges=True)
        if entry.offset + entry.size > file.size:
            where = _where(file, name, entry)
            raise FormatError(f"{where} are not all there any more; the file has {file.size} bytes")
        return file

    def _raw(self, name: str, entry: messages.Entry) -> memoryview:
        """The bytes of a tensor that is stored as it is, their checksum verified."""
        file = self._file(name, entry)
        data = file.bytes(entry.offset, entry.offset + entry.size)
        if masked(crc32c(data)) != entry.crc:
            raise DigestError(f"{_where(file, name, entry)} do not match their CRC-32C", remedy=DAMAGED)
        return data

    def _load(self, name: str, entry: messages.Entry, kind: Declared) -> Array:
        file = self._file(name, entry)
        raw = file.array(entry.offset, entry.offset + entry.size)
        try:
            if kind.dtype.name == "string":
                values, crc = strings(raw, kind.elements, big_endian=self._big_endian)
            elif kind.dtype.name == "variant":
                if self._big_endian:
                    raise FormatError("are a variant written on a big-endian machine, which TensorFlow cannot read")
                values, crc = variants(raw, kind.elements)
            else:
                values, crc = raw, crc32c(raw.data)
        except FormatError as error:
            raise type(error)(f"{_where(file, name, entry)}: {error.message}", remedy=error.remedy or DAMAGED) from None
        if masked(crc) != entry.crc:
            raise DigestError(f"{_where(file, name, entry)} do not match their CRC-32C", remedy=DAMAGED)
        if kind.dtype.itemsize:
            values = elements(raw, kind.dtype, big_endian=self._big_endian)
        return values.reshape(kind.shape)


def _where(file: MappedFile, name: str, entry: messages.Entry) -> str:
    """How an error speaks of an entry's place in its data file."""
    return f"{file}: {printable(name)}: bytes {entry.offset} to {entry.offset + entry.size}"
