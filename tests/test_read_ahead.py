"""Reading ahead: the same tensors in the same order, one thread that reads, and errors where they belong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wio.atomic import atomic_output, kept_synced
from wio.bundle import Tensor
from wio.dtypes import DTYPES
from wio.errors import FormatError
from wio.read_ahead import read_ahead

LARGE = 300_000


def tensor(name: str, size: int, load: Callable[[], Any]) -> Tensor:
    return Tensor(name, DTYPES["float32"], (size,), load)


def filled(size: int, value: float) -> Any:
    return np.full(size, value, np.float32)


@pytest.mark.parametrize("sizes", [[], [1], [LARGE], [1, LARGE, 2, 3, LARGE, LARGE, 4], [5] * 1000])
def test_every_tensor_comes_in_order_with_its_values(sizes: list[int]) -> None:
    readers = set()

    def load(size: int, k: int) -> Any:
        readers.add(threading.get_ident())
        return filled(size, k)

    tensors = [tensor(str(k), size, lambda s=size, k=k: load(s, k)) for k, size in enumerate(sizes)]
    found = [(t.name, array) for t, array in read_ahead(tensors)]
    assert [name for name, _ in found] == [t.name for t in tensors]
    for k, (size, (_, array)) in enumerate(zip(sizes, found, strict=True)):
        assert np.array_equal(array, filled(size, k))
    assert len(readers) == min(len(sizes), 1)


def test_no_more_than_one_batch_is_ahead() -> None:
    loaded: list[int] = []
    tensors = [tensor(str(k), LARGE, lambda k=k: (loaded.append(k), filled(LARGE, k))[1]) for k in range(20)]
    for k, _ in enumerate(read_ahead(tensors)):
        assert max(loaded) <= k + 1


def test_a_damaged_tensor_is_told_in_its_turn() -> None:
    def damaged() -> Any:
        raise FormatError("c: damaged")

    tensors = [tensor("a", LARGE, lambda: filled(LARGE, 1)), tensor("c", LARGE, damaged)]
    values = read_ahead(tensors)
    assert next(values)[0].name == "a"
    with pytest.raises(FormatError, match="c: damaged"):
        next(values)


def test_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    values = read_ahead([tensor(str(k), LARGE, lambda: filled(LARGE, 0)) for k in range(9)])
    next(values)
    values.close()
    assert threading.active_count() == before


def test_an_error_while_a_file_is_kept_synced_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(FormatError), atomic_output(path) as temporary, kept_synced(temporary):
        temporary.write_bytes(b"half")
        raise FormatError("no more")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_disk_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def full(descriptor: int) -> None:
        tried.set()
        raise OSError(5, "Input/output error")

    path = tmp_path / "out"
    path.write_bytes(b"")
    monkeypatch.setattr("os.fdatasync", full)
    with pytest.raises(OSError, match="Input/output"), kept_synced(path):
        assert tried.wait(10)
