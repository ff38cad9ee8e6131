"""The table of dtypes, and how every one of them becomes bytes and comes back."""

from __future__ import annotations

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wio.dtypes import BY_SAFETENSORS, DTYPES, DType, dtype_named, dtype_of
from wio.encodings import decode_varbytes, encode_varbytes, from_bytes, to_bytes
from wio.errors import FormatError

Array = np.ndarray[Any, np.dtype[Any]]
FIXED = [dtype for dtype in DTYPES.values() if dtype.itemsize]
# Names under which NumPy gives the dtype back; the quantised types are integers to NumPy.
NAMED = [dtype for dtype in FIXED if not dtype.name.startswith("q")]


@pytest.mark.parametrize("dtype", FIXED, ids=str)
def test_an_element_takes_the_size_that_the_table_says(dtype: DType) -> None:
    assert dtype.numpy.itemsize == dtype.itemsize
    assert dtype_named(dtype.name) is dtype
    assert (dtype.safetensors is None) == (dtype.encoding is not None)


@pytest.mark.parametrize("code", BY_SAFETENSORS)
def test_safetensors_gives_its_codes_the_same_size(code: str) -> None:
    import safetensors

    size = BY_SAFETENSORS[code].itemsize
    header = json.dumps({"t": {"dtype": code, "shape": [3], "data_offsets": [0, 3 * size]}}).encode()
    raw = len(header).to_bytes(8, "little") + header + bytes(3 * size)
    ((name, found),) = safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
    assert (name, found["dtype"], found["shape"]) == ("t", code, [3])


@pytest.mark.parametrize("dtype", NAMED, ids=str)
def test_numpy_gives_the_dtype_back(dtype: DType) -> None:
    assert dtype_of(np.zeros(2, dtype.numpy)) is dtype


@pytest.mark.parametrize("kind", ["M8[s]", "m8[s]", "f4,i4", "U3", "V3"])
def test_arrays_that_are_no_weights_are_refused(kind: str) -> None:
    with pytest.raises(FormatError, match="not weights"):
        dtype_of(np.zeros(1, kind))


def test_long_doubles_are_refused() -> None:
    if np.dtype("longdouble").itemsize > 8:
        with pytest.raises(FormatError, match="not weights"):
            dtype_of(np.zeros(1, "longdouble"))


def test_types_of_ml_dtypes_without_a_place_in_the_table_are_refused() -> None:
    with pytest.raises(FormatError, match="float6_e2m3fn"):
        dtype_of(np.zeros(1, ml_dtypes.float6_e2m3fn))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(FormatError, match="float128"):
        dtype_named("float128")


@given(st.sampled_from(FIXED), st.lists(st.integers(0, 3), max_size=4), st.data())
def test_any_bytes_are_an_array_and_come_back(dtype: DType, shape: list[int], data: st.DataObject) -> None:
    """NaN payloads, bits above an int4 and bytes that are no bool included: nothing is normalised on the way."""
    size = math.prod(shape) * dtype.itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    array = from_bytes(raw, dtype, tuple(shape))
    assert array.shape == tuple(shape)
    assert array.dtype == dtype.numpy
    assert bytes(to_bytes(array, dtype)) == raw


@given(st.sampled_from(FIXED), st.integers(1, 40))
def test_bytes_of_another_size_are_refused(dtype: DType, size: int) -> None:
    if size != 3 * dtype.itemsize:
        with pytest.raises(FormatError, match="cannot be"):
            from_bytes(bytes(size), dtype, (3,))


@pytest.mark.parametrize("dtype", [d for d in FIXED if d.itemsize > 1 and d.name != "bfloat16"], ids=str)
def test_big_endian_arrays_are_stored_little_endian(dtype: DType) -> None:
    array = np.array([1, 2, 3]).astype(dtype.numpy.newbyteorder(">"))
    assert bytes(to_bytes(array, dtype)) == array.astype(dtype.numpy).tobytes()


VIEWS = {
    "transposed": lambda a: a.T,
    "flipped": lambda a: a[:, ::-1],
    "all flipped": lambda a: a[::-1, ::-1],
    "every other": lambda a: a[::2, 1::2],
    "one row, flipped": lambda a: a[:1][::-1],
    "repeated": lambda a: np.broadcast_to(a[:1], (4, 6)),
    "Fortran order": np.asfortranarray,
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "no elements": lambda a: a[:, :0].T,
    "one element": lambda a: a[2, 3],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("name", ["float32", "bfloat16", "int4", "complex128", "bool"])
def test_views_are_stored_as_they_look(name: str, view: Any) -> None:
    """safetensors 0.8 writes what lies in memory instead, and past it (safetensors#825)."""
    array = view(np.arange(24).reshape(4, 6).astype(DTYPES[name].numpy))
    array = np.asarray(array)
    assert bytes(to_bytes(array, DTYPES[name])) == array.tobytes()


@pytest.mark.parametrize(("given_as", "declared"), [("int32", "float32"), ("uint8", "int8"), ("float64", "float32")])
def test_an_array_of_another_dtype_is_refused(given_as: str, declared: str) -> None:
    with pytest.raises(FormatError, match=f"an array of {given_as} was given where {declared} was declared"):
        to_bytes(np.zeros(3, given_as), DTYPES[declared])


# --- byte strings


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_byte_strings_come_back(items: list[bytes]) -> None:
    array = np.empty(len(items), object)
    array[:] = items
    raw = encode_varbytes(array)
    assert decode_varbytes(raw, (len(items),)).tolist() == items
    assert bytes(to_bytes(from_bytes(raw, DTYPES["string"], (len(items),)), DTYPES["string"])) == raw


@given(st.binary(max_size=40), st.lists(st.integers(0, 4), max_size=3))
def test_any_bytes_are_strings_or_refused(raw: bytes, shape: list[int]) -> None:
    """What is accepted is what the encoder writes: there is one way to store the same strings."""
    try:
        array = decode_varbytes(raw, tuple(shape))
    except FormatError:
        return
    assert array.shape == tuple(shape)
    assert encode_varbytes(array) == raw


def test_strings_in_any_array_of_strings() -> None:
    expected = b"\x02\x00\x03ab\xc3\xa9x"
    for array in (
        np.array([["ab", "", "éx"]], object),
        np.array([[b"ab", b"", b"\xc3\xa9x"]], object),
        np.array([[b"ab", b"", b"\xc3\xa9x"]], "S4"),
    ):
        assert encode_varbytes(array) == expected


@pytest.mark.parametrize("item", [5, None, 1.5, [b"a"], np.zeros(3)])
def test_what_is_no_byte_string_is_refused(item: object) -> None:
    array = np.empty(1, object)
    array[0] = item
    with pytest.raises(FormatError, match="byte strings were declared"):
        encode_varbytes(array)


def test_a_shape_that_numpy_cannot_hold_is_an_error_of_ours() -> None:
    with pytest.raises(FormatError, match="shape"):
        from_bytes(b"\0", DTYPES["uint8"], (1,) * 65)
