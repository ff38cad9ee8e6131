"""The structure of an HDF5 file checked before libhdf5 sees it: every address, size and count, whatever points to what.

libhdf5 1.14.6 crashes, runs forever or takes all memory over files that a stranger made. What is checked here is all of
the format that Keras ever wrote, on any version: superblock 0, object headers 1, groups in B-trees 1, arrays that are
compact, contiguous or in chunks. Newer structures, which h5py writes when told to, are a NewerError. Source: HDF5 File
Format Specification 3.0.
"""

from __future__ import annotations

import math
import struct
import zlib

from msgspec import Struct, field

from wio.adapters._hdf5_messages import (
    DEFLATE,
    FLETCHER,
    UNDEFINED,
    Bytes,
    Datatype,
    Filters,
    dataspace,
    datatype,
    fill_value,
    filters,
)
from wio.adapters._hdf5_signature import MAGIC
from wio.errors import FormatError, printable

# Above this size, what is declared to be that many times what is stored is taken for a bomb: weights do not shrink so.
_BOMB_SIZE, _BOMB_RATIO = 64 << 20, 100
_LARGEST_CHUNK = 64 << 20
_MOST_TEXT = 64 << 20
_MOST_OBJECTS = 500_000
_NODE, _ENTRY, _MESSAGE = "<4xBBH16x", "<QQLLQQ", "<HHB3x"
_ENTRY_SIZE, _MESSAGE_SIZE = 40, 8
_ELSEWHERE = "an array keeps its values in another file, which wio does not read"


class NewerError(FormatError):
    """The file is, or pretends to be, of HDF5 1.8 or later: what this module checks is not all that it has."""


def check_structure(data: memoryview) -> None:
    """Raises FormatError for a file that libhdf5 should not be given, NewerError for one whose structure is newer."""
    try:
        _File(data).check()
    except struct.error as error:
        raise FormatError(f"it is cut short: {error}") from None


class _Object(Struct):
    """What the messages of one object header say."""

    shape: tuple[int, ...] | None = None
    type: Datatype | None = None
    filters: Filters = field(default_factory=Filters)
    layout: Bytes | None = None


class _File:
    def __init__(self, data: memoryview) -> None:
        head = Bytes(data, 0, len(data))
        if len(data) < 96 or bytes(data[:8]) != MAGIC:
            raise FormatError("it is cut short")
        version, *versions, width, length, self._leaf, self._internal = head.take("<8xBBBBBBBxHH4x")
        if version > 1:
            raise NewerError(f"superblock {version}") if version < 4 else FormatError("its superblock is damaged")
        self._chunked = head.take("<H2x")[0] if version == 1 else 32
        base, _, end, driver = head.take("<QQQQ")
        if any(versions) or (width, length) != (8, 8) or base or driver != UNDEFINED or not 96 <= end <= len(data):
            raise FormatError("its superblock is damaged, or the file is cut short")
        self._data = data[:end]
        self._root = head.at
        self._seen: set[int] = set()
        self._waiting: list[tuple[int, str]] = []
        # The B-tree and the heap of each group, by its object header, and what the entries that lead there say of it.
        self._groups: dict[int, tuple[int, int]] = {}
        self._cached: list[tuple[int, tuple[int, int]]] = []
        self._heaps: dict[int, dict[int, int]] = {}
        self._texts = self._declared = self._stored = 0

    def check(self) -> None:
        self._entry(self._root, None, "")
        while self._waiting:
            address, path = self._waiting.pop()
            if address in self._seen:
                continue
            self._seen.add(address)
            if len(self._seen) > _MOST_OBJECTS:
                raise FormatError(f"it has more than {_MOST_OBJECTS:,} objects")
            try:
                self._object(address, path)
            except FormatError as error:
                raise type(error)(f"{printable(path or '/')!r}: {error.message}", remedy=error.remedy) from None
        if any(self._groups.get(address) != cached for address, cached in self._cached):
            raise FormatError("an entry names another group than the object it leads to")
        if self._stored > len(self._data):
            raise FormatError("arrays overlap: together they store more than the file has")
        if self._declared > _BOMB_SIZE + _BOMB_RATIO * self._stored:
            raise FormatError(_bomb("its arrays declare", self._declared, self._stored))

    def _at(self, address: int, size: int) -> Bytes:
        return Bytes(self._data, address, address + size)

    def _once(self, address: int, what: str) -> int:
        if address in self._seen:
            raise FormatError(f"{what} at byte {address} is reached twice")
        self._seen.add(address)
        return address

    # --- object headers

    def _object(self, address: int, path: str) -> None:
        head = self._at(address, 16)
        if bytes(self._data[address : address + 4]) == b"OHDR":
            raise NewerError("a newer object header")
        version, size = head.take("<B7xI4x")
        if version != 1:
            raise FormatError(f"the object header at byte {address} is none")
        found, blocks = _Object(), [self._at(address + 16, size)]
        while blocks:
            block = blocks.pop()
            while block.end - block.at >= _MESSAGE_SIZE:
                kind, size, flags = block.take(_MESSAGE)
                message = block.part(size)
                if flags & 0x2:
                    raise FormatError(f"the message at byte {message.at} stands elsewhere, which Keras never writes")
                if kind == 0x10:
                    place, length = message.take("<QQ")
                    blocks.append(self._at(self._once(place, "a part of an object header"), length))
                elif kind == 0x11:
                    self._group(address, message, path)
                else:
                    self._message(kind, message, found)
        if (found.layout is None) != (address in self._groups):
            raise FormatError(f"the object at byte {address} is neither group nor array, or both")
        if found.layout is not None:
            self._array(found)

    def _message(self, kind: int, message: Bytes, found: _Object) -> None:
        if kind == 0x01:
            found.shape = dataspace(message)
        elif kind == 0x03:
            found.type = datatype(message)
        elif kind == 0x05:
            fill_value(message)
        elif kind == 0x04:
            message.skip(message.number(4))
        elif kind == 0x08:
            if found.layout is not None:
                raise FormatError(f"the layout at byte {message.at} is a second one")
            found.layout = message
        elif kind == 0x0B:
            found.filters = filters(message)
        elif kind == 0x0C:
            self._attribute(message)
        elif kind == 0x07:
            raise FormatError(_ELSEWHERE)
        elif kind in (0x02, 0x06, 0x0A, 0x15):
            raise NewerError("newer groups or attributes")
        # Nothing, a comment, two forms of the time of change.
        elif kind not in (0x00, 0x0D, 0x0E, 0x12):
            raise FormatError(f"the message at byte {message.at} is of kind {kind}, which Keras never writes")

    def _attribute(self, message: Bytes) -> None:
        version, flags, name, type_size, space_size = message.take("<BBHHH")
        if version not in (1, 2, 3) or (flags and version > 1):
            raise FormatError(f"the attribute at byte {message.at} is none")
        if version == 3:
            message.skip(1)

        def part(size: int) -> Bytes:
            start = message.skip(-(-size // 8) * 8 if version == 1 else size)
            return Bytes(self._data, start, start + size)

        spelled = part(name).text(name)
        if len(spelled) + 1 != name:
            raise FormatError(f"the name of the attribute at byte {message.at} has another length")
        _text_of(spelled)
        kind, shape = datatype(part(type_size)), dataspace(part(space_size))
        if shape is None:
            return
        values = message.part(math.prod(shape) * kind.size)
        if kind.texts:
            for _ in range(math.prod(shape)):
                self._text(*values.take("<IQI"))

    # --- groups

    def _group(self, address: int, message: Bytes, path: str) -> None:
        tree, heap = message.take("<QQ")
        if address in self._groups:
            raise FormatError(f"the object at byte {address} is two groups")
        self._groups[address] = tree, heap
        names = self._local_heap(heap)
        nodes = [(tree, -1)]
        while nodes:
            place, level = nodes.pop()
            node = self._at(self._once(place, "a node"), 24 + self._internal * 16 + (2 * self._internal + 1) * 8)
            found_level, count = self._node(node, 0, level, 2 * self._internal)
            names.end_of(node.number(8))
            for _ in range(count):
                child, key = node.take("<QQ")
                names.end_of(key)
                if found_level:
                    nodes.append((child, found_level - 1))
                else:
                    self._symbols(child, names, path)

    def _node(self, node: Bytes, kind: int, level: int, most: int) -> tuple[int, int]:
        place = node.at
        found_kind, found_level, count = node.take(_NODE)
        if bytes(node.data[place : place + 4]) != b"TREE" or found_kind != kind or count > most:
            raise FormatError(f"the node at byte {place} is none")
        if level not in (-1, found_level):
            raise FormatError(f"the node at byte {place} is of level {found_level}, not {level}")
        return found_level, count

    def _local_heap(self, address: int) -> _Names:
        head = self._at(address, 32)
        if bytes(self._data[address : address + 5]) != b"HEAP\0":
            raise FormatError(f"the heap at byte {address} is none")
        size, free, place = head.take("<8xQQQ")
        segment = self._at(place, size)
        # 1 ends the list of free places; each names the next and its own size.
        seen: set[int] = set()
        while free != 1:
            block = self._at(segment.at + free, 16)
            if free in seen or free + 16 > size:
                raise FormatError(f"the heap at byte {address} has no end")
            seen.add(free)
            start = free
            free, length = block.take("<QQ")
            if not 16 <= length <= size - start:
                raise FormatError(f"the heap at byte {address} is damaged")
        return _Names(bytes(segment.data[segment.at : segment.end]))

    def _symbols(self, address: int, names: _Names, path: str) -> None:
        self._once(address, "a list of names")
        leaf = self._at(address, 8 + 2 * self._leaf * _ENTRY_SIZE)
        if bytes(self._data[address : address + 5]) != b"SNOD\1":
            raise FormatError(f"the list of names at byte {address} is none")
        (count,) = leaf.take("<6xH")
        if count > 2 * self._leaf:
            raise FormatError(f"the list of names at byte {address} has {count}")
        for _ in range(count):
            self._entry(leaf.skip(_ENTRY_SIZE), names, path)

    def _entry(self, at: int, names: _Names | None, path: str) -> None:
        """A symbol table entry: an object, or a soft link, which its reader refuses. ``names`` is None for the root."""
        name, address, kind, _, first, second = self._at(at, _ENTRY_SIZE).take(_ENTRY)
        if names is not None:
            path = f"{path}/{names.name(name)}".lstrip("/")
        if kind > 2 or (kind == 2 and names is None):
            raise FormatError(f"the entry at byte {at} is of kind {kind}")
        if kind == 2 and names is not None:
            names.end_of(first & 0xFFFFFFFF)
            return
        if kind == 1:
            # libhdf5 believes these and not the object header.
            self._cached.append((address, (first, second)))
        self._waiting.append((address, path))

    # --- text of attributes

    def _text(self, length: int, address: int, index: int) -> None:
        """A text in a global heap, which many attributes may share: what they come to together is bounded."""
        if length == 0:
            return
        if address not in self._heaps:
            self._heaps[address] = self._global_heap(address)
        held = self._heaps[address].get(index)
        if held is None or length > held:
            raise FormatError(f"a text of {length} bytes is not in the global heap at byte {address}")
        self._texts += length
        if self._texts > _MOST_TEXT:
            raise FormatError(f"the texts of its attributes come to more than {_MOST_TEXT:,} bytes")

    def _global_heap(self, address: int) -> dict[int, int]:
        """The sizes of a global heap's objects, by their numbers (section III.E)."""
        head = self._at(address, 16)
        if bytes(self._data[address : address + 5]) != b"GCOL\1":
            raise FormatError(f"the global heap at byte {address} is none")
        (size,) = head.take("<8xQ")
        heap = self._at(address, size)
        heap.skip(16)
        found: dict[int, int] = {}
        while heap.end - heap.at >= 16:
            number, size = heap.take("<H6xQ")
            if number == 0:
                # Free space counts its own head; nothing may follow that is smaller.
                if size < 16:
                    raise FormatError(f"the global heap at byte {address} is damaged: it has no end")
                heap.skip(size - 16)
            elif number in found:
                raise FormatError(f"the global heap at byte {address} has two objects {number}")
            else:
                found[number] = size
                heap.skip(-(-size // 8) * 8)
        return found

    # --- arrays

    def _array(self, found: _Object) -> None:
        message = found.layout
        if found.type is None or message is None:
            raise FormatError("an array without a type")
        if found.type.texts:
            raise FormatError("an array of text, which no weights are")
        version, kind = message.take("<BB")
        if version == 4 and kind == 3:
            raise FormatError(_ELSEWHERE)
        if version != 3:
            raise NewerError(f"the layout at byte {message.at} is of version {version}")
        declared = 0 if found.shape is None else math.prod(found.shape) * found.type.size
        if kind == 0:
            stored = message.number(2)
            message.skip(stored)
        elif kind == 1:
            place, stored = message.take("<QQ")
            if place == UNDEFINED:
                stored = 0
            else:
                self._at(place, stored)
        elif kind == 2:
            stored = self._chunks(message, found, found.type.size)
        else:
            raise FormatError(f"the layout at byte {message.at} is of a kind that Keras never writes")
        if kind < 2 and stored and stored != declared:
            raise FormatError(f"an array declares {declared:,} bytes and stores {stored:,}")
        if declared > _BOMB_SIZE and declared > _BOMB_RATIO * stored:
            raise FormatError(_bomb("an array declares", declared, stored))
        self._declared, self._stored = self._declared + declared, self._stored + stored

    def _chunks(self, message: Bytes, found: _Object, item: int) -> int:
        """The bytes that all chunks of an array store."""
        rank, tree = message.take("<BQ")
        sizes = message.take(f"<{rank}I")
        whole = math.prod(sizes)
        if found.shape is None or rank != len(found.shape) + 1 or sizes[-1] != item or not 0 < whole <= _LARGEST_CHUNK:
            raise FormatError(f"chunks of {sizes[:-1]} in an array of {found.shape}, or too large ones")
        key, stored = 8 + 8 * rank, 0
        nodes = [] if tree == UNDEFINED else [(tree, -1)]
        while nodes:
            address, level = nodes.pop()
            size = 24 + (2 * self._chunked + 1) * key + 2 * self._chunked * 8
            node = self._at(self._once(address, "a node"), size)
            found_level, count = self._node(node, 1, level, 2 * self._chunked)
            for _ in range(count):
                length, skipped = node.take(f"<II{8 * rank}x")
                child = node.number(8)
                if found_level:
                    nodes.append((child, found_level - 1))
                else:
                    self._chunk(self._at(child, length), found.filters.applied, skipped, whole)
                    stored += length
        return stored

    def _chunk(self, packed: Bytes, applied: tuple[int, ...], skipped: int, whole: int) -> None:
        """A chunk holds what its shape says. libhdf5 inflates whatever is there, and what is cut short without end."""
        done = [each for k, each in enumerate(applied) if not skipped >> k & 1]
        size = packed.end - packed.at
        if DEFLATE in done:
            behind = 4 if FLETCHER in done[done.index(DEFLATE) :] else 0
            wanted = whole + (4 if FLETCHER in done and not behind else 0)
            machine = zlib.decompressobj()
            try:
                size = len(machine.decompress(packed.data[packed.at : packed.end - behind], wanted + 1))
            except zlib.error as error:
                raise FormatError(f"a chunk is no deflated data: {error}") from None
            if size > wanted:
                raise FormatError(f"a chunk inflates to more than its {whole} bytes: a decompression bomb")
            if not machine.eof:
                raise FormatError("a chunk is cut short")
        else:
            wanted = whole + (4 if FLETCHER in done else 0)
        if size != wanted:
            raise FormatError(f"a chunk holds {size} bytes where there should be {wanted}")


class _Names:
    """The data of a local heap: names, each ended by a NUL."""

    def __init__(self, data: bytes) -> None:
        self._data, self._last = data, data.rfind(b"\0")
        self._taken: set[bytes] = set()

    def end_of(self, offset: int) -> None:
        if offset > self._last:
            raise FormatError(f"a name at byte {offset} of its heap does not end")

    def name(self, offset: int) -> str:
        """The name of one more entry of the group: libhdf5 would find either of two that are the same."""
        self.end_of(offset)
        found = self._data[offset : self._data.index(b"\0", offset)]
        if found in self._taken:
            raise FormatError(f"two of its entries are named {printable(_text_of(found))!r}")
        self._taken.add(found)
        return _text_of(found)


def _text_of(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"the name {name[:100]!r} is not UTF-8") from None


def _bomb(what: str, declared: int, stored: int) -> str:
    return f"{what} {declared:,} bytes and stores {stored:,}: a decompression bomb"
