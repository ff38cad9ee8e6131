"""Digests computed before they are asked for: the same ones, or none."""

from __future__ import annotations

import hashlib
import sys
import threading
import time

import pytest

from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.errors import DigestError
from wio.hashing_ahead import hashed_ahead


def tensor(name: str, data: bytes, broken: bool = False) -> Tensor:
    def raw() -> memoryview:
        if broken:
            raise DigestError("its bytes are damaged")
        return memoryview(data)

    return Tensor(name, DTYPES["uint8"], (len(data),), lambda: pytest.fail("copied as an array"), raw=raw)


def bytes_of(count: int, seed: int) -> bytes:
    return hashlib.shake_256(bytes([seed])).digest(count)


def let_it_hash() -> None:
    """Waits until the other thread has gone through its bundle."""
    for thread in threading.enumerate():
        if thread.name == "hashing ahead":
            thread.join()


def test_digests_are_those_of_the_bytes() -> None:
    data = {f"t{k}": bytes_of(size, k) for k, size in enumerate((100_000, 9 << 20, 70_000))}
    before = sys.getswitchinterval()
    with hashed_ahead(Bundle(tensor(name, each) for name, each in data.items())) as bundle:
        let_it_hash()
        assert {name: each.sha256 and each.sha256() for name, each in bundle.items()} == {
            name: hashlib.sha256(each).hexdigest() for name, each in data.items()
        }
    assert sys.getswitchinterval() == before


def test_what_cannot_be_read_has_no_digest_and_is_told_by_who_reads_it() -> None:
    whole = bytes_of(100_000, 1)
    with hashed_ahead(
        Bundle([tensor("whole", whole), tensor("bad", whole, broken=True), tensor("small", b"x")])
    ) as bundle:
        let_it_hash()
        digests = {name: each.sha256 and each.sha256() for name, each in bundle.items()}
        assert digests == {"whole": hashlib.sha256(whole).hexdigest(), "bad": None, "small": None}
        with pytest.raises(DigestError, match="damaged"):
            bundle["bad"].stored()


def test_asking_ends_the_hashing() -> None:
    read: list[str] = []

    def slow(name: str) -> Tensor:
        def raw() -> memoryview:
            read.append(name)
            time.sleep(0.05)
            return memoryview(bytes(100_000))

        return Tensor(name, DTYPES["uint8"], (100_000,), lambda: pytest.fail("copied as an array"), raw=raw)

    with hashed_ahead(Bundle(slow(f"t{k}") for k in range(100))) as bundle:
        assert bundle["t99"].sha256 is not None and bundle["t99"].sha256() is None
        assert len(read) <= 2


def test_other_values_have_another_digest() -> None:
    with hashed_ahead(Bundle([tensor("t", bytes_of(100_000, 3))])) as bundle:
        let_it_hash()
        assert bundle["t"].with_values(lambda: pytest.fail("read"), (1,), None).sha256 is None
