"""Fingerprints of content that do not depend on layout: equal for every rearrangement of the same values."""

from __future__ import annotations

import hashlib
from typing import Any

from wio.bundle import Tensor
from wio.lazy import Array, np

_CHUNK = 1 << 20


def fingerprint(tensor: Tensor) -> tuple[str, int, str]:
    """Dtype, number of elements, and a hash of the multiset of the values' bits. Reads the tensor.

    Each value's bits are mixed (the finalizer of SplitMix64, Steele et al. 2014, doi:10.1145/2660193.2660195) and the
    results added modulo 2**64, twice with different seeds: addition does not ask in which order values come.
    """
    array = tensor.numpy()
    if array.dtype.kind == "O":
        digest = hashlib.sha256(b"\0".join(sorted(hashlib.sha256(each).digest() for each in array.reshape(-1))))
        return tensor.dtype.name, tensor.size, digest.hexdigest()
    words = max(array.dtype.itemsize // 8, 1)
    flat = np.ascontiguousarray(array).reshape(-1)
    bits = flat.view(np.dtype(f"<u{min(flat.dtype.itemsize, 8)}")).reshape(-1, words)
    sums = [0, 0]
    for start in range(0, len(bits), _CHUNK):
        part = bits[start : start + _CHUNK].astype(np.uint64)
        for k, seed in enumerate((0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)):
            mixed = np.zeros(len(part), np.uint64)
            for word in part.T:
                mixed = _mixed(mixed ^ word, np.uint64(seed))
            sums[k] = (sums[k] + int(mixed.sum(dtype=np.uint64))) % 2**64
    return tensor.dtype.name, tensor.size, f"{sums[0]:016x}{sums[1]:016x}"


def _mixed(values: Array, seed: Any) -> Array:
    values = values + seed
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed
