"""Writing the sorted table that TensorFlow keeps its checkpoints in, byte for byte as TensorFlow's own builder does.

Sources: tensorflow/core/lib/io/table_builder.cc, block_builder.cc and table_options.h (TensorFlow 2.21); leveldb
doc/table_format.md. No compression: tensor_bundle.cc, TableBuilderOptions, asks for none.
"""

from __future__ import annotations

from typing import BinaryIO

from wio.adapters._crc32c import crc32c
from wio.adapters._protobuf_writer import varint
from wio.adapters._tf_paths import MAGIC
from wio.adapters._tf_table import FOOTER, UNCOMPRESSED, masked

# table_options.h: block_size and block_restart_interval. In the index every key stands whole (table_builder.cc).
BLOCK_SIZE = 256 << 10
RESTART_INTERVAL = 16
INDEX_RESTART_INTERVAL = 1


class TableWriter:
    """A table that grows in ``file``, from its start. Keys must come in ascending order, each once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = 0
        self._block = _Block(RESTART_INTERVAL)
        self._index = _Block(INDEX_RESTART_INTERVAL)
        self._pending: bytes | None = None

    def add(self, key: bytes, value: bytes) -> None:
        last = self._block.last_key
        if self._pending is not None:
            # Only now is it known how short a key tells the finished block from the next one.
            self._index.add(_separator(last, key), self._pending)
            self._pending = None
        self._block.add(key, value)
        if self._block.size >= BLOCK_SIZE:
            self._flush()

    def finish(self) -> None:
        """Writes what is left: the last block, the metaindex, which is empty, the index and the footer."""
        self._flush()
        metaindex = self._write(_Block(RESTART_INTERVAL))
        if self._pending is not None:
            self._index.add(_successor(self._block.last_key), self._pending)
        index = self._write(self._index)
        self._file.write((metaindex + index).ljust(FOOTER - len(MAGIC), b"\0") + MAGIC)

    def _flush(self) -> None:
        if not self._block.empty:
            self._pending = self._write(self._block)
            self._block = _Block(RESTART_INTERVAL, self._block.last_key)

    def _write(self, block: _Block) -> bytes:
        """Writes a block with its trailer; gives its handle (format.cc, BlockHandle): offset and size."""
        stored = block.contents() + bytes((UNCOMPRESSED,))
        handle = varint(self._written) + varint(len(stored) - 1)
        stored += masked(crc32c(stored)).to_bytes(4, "little")
        self._file.write(stored)
        self._written += len(stored)
        return handle


class _Block:
    """Entries of one block: a key leaves out what it shares with the one before, except where a restart begins."""

    def __init__(self, interval: int, last_key: bytes = b"") -> None:
        self._interval = interval
        self._data = bytearray()
        self._restarts = [0]
        self._since_restart = 0
        self.last_key = last_key

    @property
    def empty(self) -> bool:
        return not self._data

    @property
    def size(self) -> int:
        return len(self._data) + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_restart == self._interval:
            self._restarts.append(len(self._data))
            self._since_restart = 0
        elif self._since_restart:
            shared = _shared(self.last_key, key)
        self._data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self._since_restart += 1
        self.last_key = key

    def contents(self) -> bytes:
        numbers = (*self._restarts, len(self._restarts))
        return bytes(self._data) + b"".join(number.to_bytes(4, "little") for number in numbers)


def _shared(left: bytes, right: bytes) -> int:
    """How many bytes two keys begin with alike."""
    most = min(len(left), len(right))
    if left[:most] == right[:most]:
        return most
    return next(place for place in range(most) if left[place] != right[place])


def _separator(last: bytes, following: bytes) -> bytes:
    """A short key that is no less than ``last`` and less than ``following`` (FindShortestSeparator)."""
    place = _shared(last, following)
    if place < min(len(last), len(following)) and last[place] + 1 < following[place]:
        return last[:place] + bytes((last[place] + 1,))
    return last


def _successor(last: bytes) -> bytes:
    """A short key that is no less than ``last`` (FindShortSuccessor)."""
    place = next((place for place, byte in enumerate(last) if byte != 0xFF), None)
    return last if place is None else last[:place] + bytes((last[place] + 1,))
