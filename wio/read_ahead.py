"""Tensors read, checked and rearranged on another thread while the one before is written."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from wio.bundle import Tensor

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    Batch = list[tuple[Tensor, Array]]

# Small tensors go over together: handing one over takes longer than writing it.
_BATCH = 1 << 20


def read_ahead(tensors: Iterable[Tensor]) -> Generator[tuple[Tensor, Array], None, None]:
    """Each tensor with its values, in order. One thread reads, so no source is read by two at a time.

    One batch is read ahead, so memory is bounded by two of the largest tensors. What reading raises is raised here.
    """
    from concurrent.futures import ThreadPoolExecutor

    batches = _batches(tensors)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_read, next(batches, []))
        while batch := coming.result():
            coming = reader.submit(_read, next(batches, []))
            yield from batch
            # The values must go before the next ones come, or there would be three.
            batch.clear()


def _read(tensors: list[Tensor]) -> Batch:
    return [(tensor, tensor.numpy()) for tensor in tensors]


def _batches(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if batch and size + tensor.nbytes > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(tensor)
        size += tensor.nbytes
    if batch:
        yield batch
