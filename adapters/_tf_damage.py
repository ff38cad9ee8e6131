"""Where a block is damaged: its CRC-32C tells which single changed byte would explain the difference.

A checksum is linear: one wrong byte, ``m`` bytes before the end, makes a difference of T^m(table[error]), where T is
one step of the checksum over a zero byte. T can be undone, so every place is tried at once. Only a diagnosis: two
wrong bytes rarely look like one, and then nothing is claimed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wio.adapters._crc32c import crc32c
from wio.lazy import np

if TYPE_CHECKING:
    Words = np.ndarray[Any, np.dtype[np.uint32]]

# Beyond this a chance match is no longer rare (256 of 2^32 for each byte), and a block holds few tensors anyway.
LARGEST_BLOCK = 4 << 20


def one_changed_byte(data: memoryview, stored: int) -> int | None:
    """The place of the only byte whose change would give ``data`` its stored CRC-32C (unmasked); None if there is none,
    or more than one."""
    if not 0 < len(data) <= LARGEST_BLOCK:
        return None
    table = _differences()
    undone = np.array([crc32c(data) ^ stored], np.uint32)
    step = _columns_of_one_step_back(table)
    while undone.size < len(data):
        undone = np.concatenate([undone, _applied(step, undone)])
        step = _applied(step, step)
    found = np.flatnonzero(np.isin(undone[: len(data)], table[1:]))
    return len(data) - 1 - int(found[0]) if found.size == 1 else None


def _differences() -> Words:
    """What a change of the last byte by each XOR does to a CRC-32C."""
    zero = crc32c(b"\0")
    return np.array([crc32c(bytes((error,))) ^ zero for error in range(256)], np.uint32)


def _columns_of_one_step_back(table: Words) -> Words:
    """The images of the 32 bits under the inverse of T(d) = table[d & 255] ^ (d >> 8)."""
    by_top = {int(value) >> 24: index for index, value in enumerate(table)}
    columns = []
    for bit in range(32):
        index = by_top[(1 << bit) >> 24]
        columns.append(((1 << bit ^ int(table[index])) << 8 | index) & 0xFFFFFFFF)
    return np.array(columns, np.uint32)


def _applied(columns: Words, words: Words) -> Words:
    """A linear map, given by the images of the 32 bits, applied to each word: four look-ups of a byte."""
    out = np.zeros_like(words)
    for byte in range(4):
        images = np.zeros(256, np.uint32)
        for bit in range(8):
            images[(np.arange(256) >> bit & 1).astype(bool)] ^= columns[8 * byte + bit]
        out ^= images[words >> np.uint32(8 * byte) & np.uint32(255)]
    return out
