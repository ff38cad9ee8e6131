"""Each way in which the slices of a partitioned variable can fail to cover it exactly once."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tf_tables
from hypothesis import given
from hypothesis import strategies as st
from tf_malformed import ONE, read, rejected, two
from tf_tables import Stored

from wio.adapters import _tf_slices
from wio.adapters._tf_ordered_code import slice_key
from wio.errors import FormatError


def sliced(
    tmp_path: Path, shape: tuple[int, ...], slices: list[list[tuple[int, int]]], drop: int | None = None
) -> Path:
    """A bundle with one partitioned tensor, or what a malformed one looks like."""
    parts = {}
    for extents in slices:
        extent = tuple(
            size if length == -1 else max(length, 0) for (_, length), size in zip(extents, shape, strict=False)
        )
        parts[slice_key(b"w", extents)] = Stored(1, extent, bytes(4 * math.prod(extent)))
    prefix = tmp_path / "m"
    protos: dict[bytes, Any] = {b"": tf_tables.header_proto()}
    data = bytearray()
    for key, stored in parts.items():
        protos[key] = tf_tables.entry_proto(stored, len(data))
        data += stored.raw
    whole = tf_tables.entry_proto(Stored(1, shape, b""), 0)
    for extents in slices:
        proto = whole.slices.add()
        for start, length in extents:
            extent = proto.extent.add()
            if (start, length) != (0, -1):
                extent.start, extent.length = start, length
    protos[b"w"] = whole
    if drop is not None:
        del protos[list(parts)[drop]]
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    tf_tables.write_index(prefix, protos)
    return prefix


def test_slices_that_fit(tmp_path: Path) -> None:
    prefix = sliced(tmp_path, (4, 3), [[(0, 1), (0, -1)], [(1, 3), (0, -1)]])
    assert read(prefix)["w"].numpy().shape == (4, 3)


def test_a_hole_between_slices(tmp_path: Path) -> None:
    rejected(sliced(tmp_path, (4, 3), [[(0, 1), (0, -1)], [(2, 2), (0, -1)]]), "w: ", "hold 9 of the 12 elements")


def test_slices_that_overlap(tmp_path: Path) -> None:
    rejected(sliced(tmp_path, (4, 3), [[(0, 2), (0, -1)], [(1, 3), (0, -1)]]), "w: slices 0,2:- and 1,3:- overlap")


def test_a_hole_and_an_overlap_of_the_same_size(tmp_path: Path) -> None:
    rejected(sliced(tmp_path, (4,), [[(0, 2)], [(1, 2)]]), "w: slices 0,2 and 1,2 overlap")


@pytest.mark.parametrize("extent", [(3, 2), (-1, 2), (0, 0), (1, -1), (0, 2**63 - 1), (2**63 - 1, 2**63 - 1)])
def test_a_slice_out_of_range(tmp_path: Path, extent: tuple[int, int]) -> None:
    prefix = tmp_path / "m"
    whole = tf_tables.entry_proto(Stored(1, (4,), b""), 0)
    proto = whole.slices.add().extent.add()
    proto.start, proto.length = extent
    tf_tables.write_index(prefix, {b"": tf_tables.header_proto(), b"w": whole})
    rejected(prefix, "w: slice", "does not lie within")


def test_a_slice_of_another_rank(tmp_path: Path) -> None:
    rejected(sliced(tmp_path, (4,), [[(0, 2), (0, 1)], [(2, 2), (0, 1)]]), "w: slice 0,2:0,1 has 2 axes, the tensor 1")


def test_a_slice_that_is_declared_but_not_stored(tmp_path: Path) -> None:
    prefix = sliced(tmp_path, (4,), [[(0, 2)], [(2, 2)]], drop=1)
    rejected(prefix, "w: slice 2,2 is declared, but not stored")


def test_a_slice_that_no_tensor_declares(tmp_path: Path) -> None:
    orphan = {slice_key(b"w", [(0, 2)]): tf_tables.entry_proto(Stored(1, (6,), ONE), 0)}
    rejected(two(tmp_path, lambda protos: protos.update(orphan)), "is a slice of w, which does not declare it")


def test_a_slice_of_another_dtype_or_shape(tmp_path: Path) -> None:
    prefix = sliced(tmp_path, (4,), [[(0, 2)], [(2, 2)]])
    protos = {
        b"": tf_tables.header_proto(),
        slice_key(b"w", [(0, 2)]): tf_tables.entry_proto(Stored(3, (2,), bytes(8)), 0),
    }
    whole = tf_tables.entry_proto(Stored(1, (4,), b""), 0)
    for start in (0, 2):
        extent = whole.slices.add().extent.add()
        extent.start, extent.length = start, 2
    protos[b"w"] = whole
    protos[slice_key(b"w", [(2, 2)])] = tf_tables.entry_proto(Stored(1, (3,), bytes(12)), 0)
    tf_tables.write_index(prefix, protos)
    error = rejected(
        prefix, "slice 0,2 is stored as int32 of shape (2,)", "slice 2,2 is stored as float32 of shape (3,)"
    )
    assert len(error.problems) == 2


def test_slices_without_number_do_not_take_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tf_slices, "MOST_COMPARISONS", 1000)
    with pytest.raises(FormatError, match="overlap along every axis"):
        _tf_slices.check_cover((100, 100), [((0, 100), (0, 100))] * 100)


@given(st.lists(st.integers(0, 8), max_size=4), st.lists(st.integers(0, 6), max_size=4), st.randoms())
def test_any_grid_covers_and_no_part_of_it_does(rows: list[int], columns: list[int], random: Any) -> None:
    def cuts(places: list[int], size: int) -> list[tuple[int, int]]:
        edges = sorted({0, size, *places})
        return [(a, b - a) for a, b in pairwise(edges)]

    grid = [(row, column) for row in cuts(rows, 8) for column in cuts(columns, 6)]
    random.shuffle(grid)
    assert len(_tf_slices.check_cover((8, 6), grid)) == len(grid)
    with pytest.raises(FormatError):
        _tf_slices.check_cover((8, 6), grid[1:])
    with pytest.raises(FormatError):
        _tf_slices.check_cover((8, 6), [*grid, random.choice(grid)])
