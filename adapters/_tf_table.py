"""The sorted table of keys and values that TensorFlow keeps its checkpoints in: LevelDB's, with its own trailer.

Sources: leveldb doc/table_format.md and table/format.cc, as in tensorflow/core/lib/io/{format,block,table_builder}.cc;
Snappy's format_description.txt. Everything is checked before it is used: handles, lengths, order of keys, restarts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wio.adapters._crc32c import crc32c
from wio.adapters._mapped_files import MappedFile
from wio.adapters._protobuf import Buffer, WireError, varint
from wio.adapters._tf_damage import one_changed_byte
from wio.adapters._tf_paths import MAGIC
from wio.errors import DigestError, FormatError
from wio.lazy import np

if TYPE_CHECKING:
    from wio.adapters._mapped_files import Bytes

# format.h: two block handles padded to 40 bytes, then the magic number, little-endian.
FOOTER = 48
# format.h, kBlockTrailerSize: a type byte, then the masked CRC-32C of contents and type.
TRAILER = 5
UNCOMPRESSED, SNAPPY = 0, 1
# A Snappy element of 3 bytes yields 64 at most; no valid block grows more.
SNAPPY_GROWTH = 22
# Every 16th key is stored whole (Options::block_restart_interval), so keys grow 16-fold at most where TensorFlow
# wrote them; beyond this a small file asks for a lot of memory.
KEY_GROWTH, KEYS_ALWAYS_ALLOWED = 64, 1 << 20
# Four bytes make an entry, and reading one takes a thousand. The largest checkpoints list tens of thousands.
MOST_ENTRIES = 200_000
DAMAGED = "the file is damaged: copy it again from where it came"


def masked(crc: int) -> int:
    """A CRC-32C as it is stored (crc32c.h, Mask): rotated by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def unmasked(stored: int) -> int:
    """The CRC-32C that was stored (crc32c.h, Unmask)."""
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


class Block:
    """The entries of one block. ``data`` is the mapped file itself unless the block is compressed or copied."""

    def __init__(self, file: MappedFile, data: Buffer, start: int, stop: int, *, mapped: bool, where: str) -> None:
        self.data, self._file, self.mapped = data, file, mapped
        self.keys, self._starts, self._stops = _entries(data, start, stop, where)

    def __len__(self) -> int:
        return len(self.keys)

    def value(self, place: int) -> tuple[int, int]:
        """Where in ``data`` the value of the entry at this place begins and ends."""
        return self._starts[place], self._stops[place]

    def values(self) -> Iterator[tuple[bytes, int, int]]:
        return zip(self.keys, self._starts, self._stops, strict=True)

    def find(self, key: bytes) -> tuple[int, int] | None:
        place = bisect_left(self.keys, key)
        return self.value(place) if place < len(self.keys) and self.keys[place] == key else None

    def array(self, start: int, stop: int) -> Bytes:
        """Part of ``data`` as a read-only array, a view of the mapped file where it can be one."""
        if self.mapped:
            return self._file.array(start, stop)
        return np.frombuffer(self.data, np.uint8, stop - start, start)

    def bytes(self, start: int, stop: int) -> memoryview:
        """The same bytes without NumPy."""
        return self._file.bytes(start, stop) if self.mapped else memoryview(self.data)[start:stop]


class Table:
    """A table: its index is read on opening, its blocks when they are asked for."""

    def __init__(self, file: MappedFile, *, copy: bool = False) -> None:
        """``copy``: uncompressed blocks are copied out of the map, which is faster for blocks of many small entries."""
        self.file = file
        self._copy = copy
        index = self._open(*self._index_handle(), "index block")
        self._separators: list[bytes] = index.keys
        self._handles = [self._handle(index.data, *index.value(i)) for i in range(len(index))]
        self._refuse_overlapping_blocks()
        # Several threads may look for keys: each of these is changed in one step.
        self._mapped: dict[int, Block] = {}
        self._held: tuple[int, Block] | None = None

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self._handles)

    def blocks(self) -> Iterator[Block]:
        """Every block in the order of keys, none kept."""
        for place in range(len(self)):
            yield self._read(place)

    def find(self, key: bytes) -> tuple[Block, int, int] | None:
        """The block that holds this key, and where in its data the value begins and ends; None if there is none."""
        place = bisect_left(self._separators, key)
        if place == len(self._separators):
            return None
        block, held = self._mapped.get(place), self._held
        if block is None and held is not None and held[0] == place:
            block = held[1]
        if block is None:
            block = self._read(place)
            # What is held in memory, not mapped, is kept one block at a time.
            if block.mapped:
                self._mapped[place] = block
            else:
                self._held = place, block
        # The caller reads the value where it is mapped.
        offset, size = self._handles[place]
        self.file.refuse_shrunk(offset, offset + size)
        found = block.find(key)
        return (block, *found) if found else None

    def where(self, key: bytes) -> tuple[int, int] | None:
        """The bytes of the file that the block with this key takes, trailer included."""
        place = bisect_left(self._separators, key)
        if place == len(self._separators):
            return None
        offset, size = self._handles[place]
        return offset, offset + size + TRAILER

    def damage(self, key: bytes) -> tuple[int | None, dict[bytes, tuple[int, int]]]:
        """What can be said of the block with this key once its checksum has failed: the only byte of the file whose
        change would explain it, and where each value stands. Nothing of it is verified."""
        place = bisect_left(self._separators, key)
        if place == len(self._separators):
            return None, {}
        offset, size = self._handles[place]
        view = self.file.view
        stored = unmasked(int.from_bytes(view[offset + size + 1 : offset + size + TRAILER], "little"))
        changed = one_changed_byte(view[offset : offset + size + 1], stored)
        try:
            block = Block(self.file, view, offset, offset + size, mapped=True, where="")
        except FormatError:
            return None if changed is None else offset + changed, {}
        values = {found: (start, stop) for found, start, stop in block.values()}
        return None if changed is None else offset + changed, values

    def _index_handle(self) -> tuple[int, int]:
        file = self.file
        if file.size < FOOTER:
            raise FormatError(f"{file}: {file.size} bytes cannot be a checkpoint table; its footer alone has {FOOTER}")
        start = file.size - FOOTER
        footer = bytes(file.bytes(start, file.size))
        if footer[40:] != MAGIC:
            raise FormatError(
                f"{file}: the magic number of a checkpoint table is missing at byte {file.size - 8}",
                remedy="the file is cut off, or no TensorFlow checkpoint",
            )
        try:
            # The first handle is the metaindex's, which TensorFlow leaves empty.
            _, at = varint(footer, 0, 40)
            _, at = varint(footer, at, 40)
            return self._handle(footer, at, 40)
        except WireError as error:
            raise FormatError(f"{file}: the footer at byte {start} is malformed: {error.message}") from None

    def _handle(self, data: Buffer, at: int, end: int) -> tuple[int, int]:
        """A BlockHandle (format.cc): offset and size, checked to lie before the footer."""
        try:
            offset, at = varint(data, at, end)
            size, at = varint(data, at, end)
        except WireError as error:
            raise FormatError(f"{self.file}: a block handle is malformed: {error.message}") from None
        if offset + size + TRAILER > self.file.size - FOOTER:
            raise FormatError(
                f"{self.file}: a block of {size} bytes at byte {offset} would reach beyond the end of the file "
                f"({self.file.size} bytes)",
                remedy=DAMAGED,
            )
        return offset, size

    def _refuse_overlapping_blocks(self) -> None:
        end = 0
        for offset, size in self._handles:
            if offset < end:
                raise FormatError(f"{self.file}: the block at byte {offset} begins before the one before it ends")
            end = offset + size + TRAILER

    def _read(self, place: int) -> Block:
        offset, size = self._handles[place]
        block = self._open(offset, size, "block")
        # format.cc: a separator is no less than the keys of its block, and less than those of the next.
        if block.keys and block.keys[-1] > self._separators[place]:
            raise FormatError(f"{self.file}: the block at byte {offset} holds a key that the index puts after it")
        if block.keys and place and block.keys[0] <= self._separators[place - 1]:
            raise FormatError(f"{self.file}: the block at byte {offset} holds a key that the index puts before it")
        return block

    def _open(self, offset: int, size: int, kind: str) -> Block:
        end = offset + size
        self.file.refuse_shrunk(offset, end + TRAILER)
        view = self.file.view
        stored = int.from_bytes(view[end + 1 : end + TRAILER], "little")
        if masked(crc32c(view[offset : end + 1])) != stored:
            raise DigestError(
                f"{self.file}: the {kind} at bytes {offset} to {end} does not match its CRC-32C", remedy=DAMAGED
            )
        compression = view[end]
        where = f"{self.file}: the {kind} at byte {offset}"
        if compression == SNAPPY:
            data = _decompressed(view[offset:end], where)
            return Block(self.file, data, 0, len(data), mapped=False, where=where)
        if compression != UNCOMPRESSED:
            raise FormatError(
                f"{where} is compressed with type {compression}; TensorFlow knows none (0) and Snappy (1)"
            )
        if self._copy:
            return Block(self.file, bytes(view[offset:end]), 0, size, mapped=False, where=where)
        return Block(self.file, view, offset, end, mapped=True, where=where)


def _decompressed(compressed: memoryview, where: str) -> bytes:
    import cramjam

    try:
        declared, _ = varint(compressed, 0, len(compressed))
    except WireError as error:
        raise FormatError(f"{where}: Snappy length: {error.message}") from None
    if declared > SNAPPY_GROWTH * len(compressed):
        raise FormatError(f"{where}: {len(compressed)} bytes of Snappy cannot hold the {declared} that they declare")
    try:
        data = bytes(cramjam.snappy.decompress_raw(compressed))
    except cramjam.DecompressionError as error:
        raise FormatError(f"{where} is no valid Snappy: {error}") from None
    if len(data) != declared:
        raise FormatError(f"{where}: Snappy gave {len(data)} bytes where {declared} were declared")
    return data


def _entries(data: Buffer, at: int, end: int, where: str) -> tuple[list[bytes], list[int], list[int]]:
    """Keys, and where each value begins and ends (block.cc): keys share a prefix with the one before.

    Entries end where the array of restarts begins: as many uint32 as the last four bytes say, each the place of an
    entry whose key is stored whole. They are checked, because TensorFlow finds keys by them and this reader does not.
    """
    size = end - at
    count = int.from_bytes(data[end - 4 : end], "little") if size >= 4 else 0
    limit = end - 4 - 4 * count
    if not count or limit < at:
        raise FormatError(f"{where}: {count} restarts do not fit into {size} bytes")
    restarts = memoryview(data)[limit : end - 4]
    keys: list[bytes] = []
    starts: list[int] = []
    stops: list[int] = []
    whole = {0}
    base, key, held = at, b"", 0
    most = KEYS_ALWAYS_ALLOWED + KEY_GROWTH * size
    while at < limit:
        entry = at
        # Nearly always all three lengths take one byte each.
        if limit - at >= 3 and (data[at] | data[at + 1] | data[at + 2]) < 0x80:
            shared, unshared, length = data[at], data[at + 1], data[at + 2]
            at += 3
        else:
            try:
                shared, at = varint(data, at, limit)
                unshared, at = varint(data, at, limit)
                length, at = varint(data, at, limit)
            except WireError as error:
                raise FormatError(f"{where}: entry {len(keys)} is malformed: {error.message}") from None
        value = at + unshared
        if shared > len(key) or value + length > limit:
            raise FormatError(f"{where}: entry {len(keys)} at byte {entry - base} of it runs out of the block")
        previous = key
        key = key[:shared] + data[at:value]
        held += len(key)
        if held > most:
            raise FormatError(f"{where}: its keys take more than {most} bytes once they are written out")
        if keys and key <= previous:
            problem = "twice" if key == previous else "out of order"
            raise FormatError(f"{where}: key {key!r} stands there {problem}")
        if not shared:
            whole.add(entry - base)
        keys.append(key)
        if len(keys) > MOST_ENTRIES:
            raise FormatError(f"{where} holds more than {MOST_ENTRIES} entries")
        at = value + length
        starts.append(value)
        stops.append(at)
    places = [int.from_bytes(restarts[i : i + 4], "little") for i in range(0, len(restarts), 4)]
    if places[0] != 0 or not whole.issuperset(places):
        raise FormatError(f"{where}: a restart does not point to an entry whose key is stored whole")
    return keys, starts, stops
