"""Tiled copies on threads, against NumPy's own, and files that are the same whatever copied them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wio
from wio import contiguous as tiles
from wio.bundle import Bundle, Tensor
from wio.comparing.relation import same_bits
from wio.contiguous import contiguous, tile_order
from wio.dtypes import DTYPES
from wio.layout import Layout

Array = np.ndarray[Any, np.dtype[Any]]
DTYPE = ("uint8", "bool", "int16", "float16", "float32", "float64", "complex64", "complex128")


def random_bits(shape: tuple[int, ...], dtype: np.dtype[Any], seed: int) -> Array:
    """Every pattern of bits, NaNs with payloads among them; bools are 0 and 1."""
    draw = np.random.default_rng(seed)
    if dtype.kind == "b":
        return draw.integers(0, 2, shape).astype(bool)
    return draw.integers(0, 256, (math.prod(shape) * dtype.itemsize,), np.uint8).view(dtype).reshape(shape)


def agrees(view: Array, threads: int) -> None:
    before = view.tobytes()
    result = contiguous(view, threads)
    assert (result.shape, result.dtype) == (view.shape, view.dtype)
    assert result.flags.c_contiguous and all(stride >= 0 for stride in result.strides)
    assert result.tobytes() == before


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small arrays go in tiles too, of an odd number of rows, on threads."""
    for name, value in (("_LEAST_BYTES", 1), ("_LEAST_RUN", 2), ("_LEAST_LINES", 2), ("_WORTH_A_THREAD", 1)):
        monkeypatch.setattr(tiles, name, value)
    monkeypatch.setattr(tiles, "_ROWS", 7)
    monkeypatch.setattr(tiles, "_ROW_BYTES", 24)


@pytest.mark.usefixtures("eager")
@settings(max_examples=300)
@given(st.data())
def test_any_view_of_any_dtype(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 17]), max_size=5)))
    dtype = np.dtype(data.draw(st.sampled_from([*DTYPE, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])))
    array = random_bits(shape, dtype, data.draw(st.integers(0, 9)))
    cut = tuple(slice(None, None, data.draw(st.sampled_from([1, 1, -1, 2, -2]))) for _ in shape)
    view = array[cut].transpose(data.draw(st.permutations(range(len(shape)))))
    agrees(view, data.draw(st.integers(1, 3)))


@pytest.mark.usefixtures("eager")
def test_most_of_those_views_go_in_tiles() -> None:
    assert tile_order(np.zeros((3, 5, 8, 17), np.float32)[::-1, ::-1].transpose(3, 2, 0, 1)) == (1, 2, 3, 0)
    assert tile_order(np.zeros((17, 8, 3, 5), np.float32).transpose(2, 3, 1, 0)) is not None


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 3, 129, 515), (1, 1, 1031, 600), (5, 3, 64, 700), (1, 600, 1, 1031)])
def test_large_kernels_there_and_back(shape: tuple[int, ...], dtype: Any) -> None:
    hwio = random_bits(shape, np.dtype(dtype), 1)
    for threads in (1, 2, 5):
        agrees(hwio[::-1, ::-1].transpose(3, 2, 0, 1), threads)
        agrees(np.ascontiguousarray(hwio.transpose(3, 2, 0, 1))[:, :, ::-1, ::-1].transpose(2, 3, 1, 0), threads)


def test_what_is_contiguous_is_not_copied() -> None:
    array = np.zeros((600, 600), np.float32)
    assert contiguous(array) is array or np.shares_memory(contiguous(array), array)
    assert contiguous(np.broadcast_to(np.float32(1), (600, 600))).flags.c_contiguous


def test_an_error_of_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "new_tile", lambda dtype: np.empty((1, 1), dtype))
    with pytest.raises(ValueError, match="reshape"):
        contiguous(np.zeros((1200, 1200), np.float32).T, 2)


@pytest.mark.parametrize("place", [0, 8, 262_143, 262_144, 5_000_000, -9, -8, -1])
def test_one_bit_is_found_wherever_it_is(place: int) -> None:
    one = random_bits((5_000_011,), np.dtype(np.uint8), 2)
    other = one.copy()
    assert same_bits(one, other)
    other[place] ^= 1
    assert not same_bits(one, other)


def test_bits_of_views_are_compared() -> None:
    kernel = random_bits((3, 3, 256, 384), np.dtype(np.float32), 3)
    view = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)).transpose(2, 3, 1, 0)
    assert same_bits(kernel, view)
    assert not same_bits(kernel, view[::-1])


def test_the_same_file_from_one_thread_and_from_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = random_bits((512, 256, 3, 3), np.dtype(np.float32), 4)
    stored = Tensor("a/kernel", DTYPES["float32"], kernel.shape, lambda: kernel, "conv.kernel", Layout.parse("OIHW"))
    files = []
    for threads in (1, 3):
        monkeypatch.setattr(tiles, "THREADS", threads)
        path = tmp_path / f"{threads}.wio"
        wio.save(Bundle([stored.to("HWIO")]), path)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert wio.open(path)["a/kernel"].numpy().tobytes() == kernel.transpose(2, 3, 1, 0).tobytes()
