"""Tensors written to their places: the same bytes for any number of threads, and errors where they belong."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from wio import placed_writer
from wio.bundle import Tensor
from wio.dtypes import DTYPES
from wio.errors import FormatError
from wio.placed_writer import Placed, take_room, write_placed

SIZES = (0, 1, 5, 700_000, 3 << 20, 2, 90, 1 << 20, 4096)


def bytes_of(size: int, seed: int) -> bytes:
    return hashlib.shake_256(bytes([seed])).digest(size)


def tensor(name: str, size: int, raw: Callable[[], bytes], parallel: bool) -> Tensor:
    return Tensor(
        name,
        DTYPES["uint8"],
        (size,),
        lambda: pytest.fail("read as an array"),
        raw=lambda: memoryview(raw()),
        parallel=parallel,
    )


def placed(parallel: bool, readers: set[int] | None = None) -> list[Placed]:
    """Tensors in order, a hole of 7 bytes after each."""
    items, at = [], 100
    for k, size in enumerate(SIZES):

        def raw(size: int = size, k: int = k) -> bytes:
            if readers is not None:
                readers.add(threading.get_ident())
            return bytes_of(size, k)

        items.append(Placed(tensor(f"t{k}", size, raw, parallel), size, at))
        at += size + 7
    return items


def written(path: Path, items: list[Placed], digests: bool = False) -> bytes:
    with path.open("w+b") as file:
        write_placed(file.fileno(), items, digests=digests)
    return path.read_bytes()


EXPECTED = b"".join([b"\0" * 100] + [bytes_of(size, k) + b"\0" * 7 for k, size in enumerate(SIZES)])[:-7]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("parallel", [True, False])
def test_every_tensor_is_at_its_place(
    threads: int, parallel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_writer, "WRITERS", threads)
    readers: set[int] = set()
    items = placed(parallel, readers)
    assert written(tmp_path / "out", items, digests=True) == EXPECTED
    assert [item.digest for item in items] == [
        hashlib.sha256(bytes_of(size, k)).hexdigest() for k, size in enumerate(SIZES)
    ]
    assert (threading.get_ident() in readers) is not parallel
    assert parallel or len(readers) == 1


@pytest.mark.parametrize("parallel", [True, False])
def test_the_first_error_is_told_and_the_rest_is_left(parallel: bool, tmp_path: Path) -> None:
    read = []

    def source(k: int) -> Placed:
        def raw() -> bytes:
            read.append(k)
            if k == 3:
                raise FormatError("t3: damaged")
            return bytes_of(2 << 20, k)

        return Placed(tensor(f"t{k}", 2 << 20, raw, parallel), 2 << 20, k << 21)

    with pytest.raises(FormatError, match="t3: damaged"):
        written(tmp_path / "out", [source(k) for k in range(200)])
    assert len(read) < 100
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


@pytest.mark.parametrize("parallel", [True, False])
def test_another_number_of_bytes_is_an_error(parallel: bool, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="t: 9 bytes announced, the source gave 8"):
        written(tmp_path / "out", [Placed(tensor("t", 9, lambda: bytes_of(8, 1), parallel), 9)])


def test_an_error_of_the_disk_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(OSError, match="Input/output"):
        written(tmp_path / "out", placed(parallel=True))


def test_a_write_that_falls_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, data[: max(1, len(data) // 3)], offset))
    assert written(tmp_path / "out", placed(parallel=True)) == EXPECTED


def test_no_room_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (tmp_path / "out").open("w+b") as file, pytest.raises(OSError, match="No space left"):
        take_room(file.fileno(), 1 << 20)
