"""Made-up weights: the very same bits on every machine, from a label.

    SHAKE-128(label)             ->  little-endian uint32 words
    word >> 8, minus 2**23       ->  integers in [-2**23, 2**23), exact in float32
    times float32(spread / 2**23), plus float32(centre)

Every step is exact or rounds once, so no NumPy version, random stream or mathematical library enters into it.
"""

from __future__ import annotations

import hashlib

import numpy as np


def uniform(label: str, shape: tuple[int, ...], centre: float, spread: float) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    stream = hashlib.shake_128(label.encode("ascii")).digest(4 * count)
    integers = (np.frombuffer(stream, dtype="<u4") >> 8).astype(np.int32) - 2**23
    values = integers.astype(np.float32) * np.float32(spread / 2**23) + np.float32(centre)
    return values.reshape(shape)
