"""The safetensors header: the one place that reads and checks it, and that writes it.

Source: safetensors 0.8, ``safetensors/src/tensor.rs`` (``Metadata::validate``): eight bytes of little-endian header
length, at most 100 MB of JSON, then the data without holes or overlaps.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from wio.dtypes import BY_SAFETENSORS, DType
from wio.errors import FormatError, WioError
from wio.mapping import read_at

MAX_HEADER = 100_000_000
MAX_RANK = 64
_MAX_EXTENT = 2**63
_ENTRY = frozenset({"dtype", "shape", "data_offsets"})
# Values and containers of one JSON document. A value of three bytes takes two hundred once it is read, so that a small
# file could ask for gigabytes; 120,000 tensors, more than any model keeps in one file, stay within.
_MOST_VALUES, _MOST_CONTAINERS = 900_000, 400_000


class Entry(NamedTuple):
    """One tensor of the header; ``start`` and ``end`` count from the first byte of the data."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int


class Header(Struct, frozen=True):
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    data_start: int


def read_header(descriptor: int, name: str) -> Header:
    """The checked header of an open file. Raises FormatError for anything the format forbids."""
    size = os.fstat(descriptor).st_size
    prefix = read_at(descriptor, 8, 0)
    if len(prefix) < 8:
        raise FormatError(f"{name}: {size} bytes are too few for a safetensors file")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise FormatError(f"{name}: a header of {length} bytes is over the limit of {MAX_HEADER}")
    if length > size - 8:
        raise FormatError(f"{name}: the header is {length} bytes, the file holds {size - 8}; is it cut short?")
    raw = read_at(descriptor, length, 8)
    if len(raw) != length:
        raise FormatError(f"{name}: the file shrank while it was read")
    if not raw.startswith(b"{"):
        raise FormatError(f"{name}: the header does not begin with '{{'")
    document = parse_object(raw, f"{name}: the header")
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{name}: __metadata__ must map strings to strings")
    entries = {key: _entry(name, key, value) for key, value in document.items()}
    _check_offsets(name, entries.values(), size - 8 - length)
    return Header(metadata, entries, 8 + length)


def begins_with_header(head: bytes) -> bool:
    """Whether the first bytes of a file are a header's: its length, which is no text, and the start of an object."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and (length <= MAX_HEADER or (head[9:10] == b'"' and min(head[:8]) < 9))


def parse_json(raw: bytes, what: str) -> Any:
    """JSON as strictly as a format wants it: UTF-8, no duplicate keys, no NaN; FormatError otherwise.

    Memory stays within 300 MB: a document of more values than any weight file has is refused unread.
    """
    if _values(raw) > _MOST_VALUES or _containers(raw) > _MOST_CONTAINERS:
        raise FormatError(f"{what} holds more values than any weight file needs ({len(raw)} bytes of JSON)")
    try:
        document = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constants, parse_float=_finite
        )
        if b"\\u" in raw:
            # An escape may hide half of a surrogate pair, which no UTF-8 text can hold.
            json.dumps(document, ensure_ascii=False).encode("utf-8")
        return document
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is no valid JSON: {error}") from None


def _values(raw: bytes) -> int:
    """At least as many values as there are. What follows a backslash is a document inside a text: no values yet."""
    commas = raw.count(b",")
    return commas if commas <= _MOST_VALUES else commas - raw.count(b',\\"') - raw.count(b',{\\"')


def _containers(raw: bytes) -> int:
    opened = raw.count(b"[") + raw.count(b"{")
    return opened if opened <= _MOST_CONTAINERS else opened - raw.count(b'{\\"')


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _no_constants(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is out of range")
    return number


def parse_object(raw: bytes, what: str) -> dict[str, Any]:
    """A JSON object, as :func:`parse_json` reads it. FormatError, naming ``what``, for any other document."""
    document = parse_json(raw, what)
    if not isinstance(document, dict):
        raise FormatError(f"{what} is no JSON object")
    return document


def is_shape(value: object, itemsize: int) -> bool:
    """Whether a value of a JSON document is a list of at most 64 sizes whose product overflows no one's integers."""
    if not isinstance(value, list) or len(value) > MAX_RANK or not _are_sizes(value):
        return False
    # Sizes of 0 are left out: NumPy and others multiply the sizes before they look for one.
    product: int = math.prod(value) or math.prod(size for size in value if size)
    return product * (itemsize or 1) < _MAX_EXTENT


def _are_sizes(values: list[Any]) -> bool:
    """Whether JSON gave whole numbers in range; its ``true`` is no number."""
    # A loop: `all` over a generator takes twice as long, and a file may have 100,000 tensors.
    for value in values:  # noqa: SIM110
        if type(value) is not int or not 0 <= value < _MAX_EXTENT:
            return False
    return True


def _entry(file: str, name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or not value.keys() >= _ENTRY:
        raise FormatError(f"{file}: tensor {name!r} lacks dtype, shape or data_offsets")
    dtype = BY_SAFETENSORS.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise FormatError(f"{file}: tensor {name!r} has a dtype that is not known: {value['dtype']!r}")
    shape, offsets = value["shape"], value["data_offsets"]
    if not is_shape(shape, dtype.itemsize):
        raise FormatError(f"{file}: tensor {name!r} has a shape that is no list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not _are_sizes(offsets):
        raise FormatError(f"{file}: tensor {name!r} has data_offsets that are no pair of offsets")
    start, end = offsets
    if end - start != math.prod(shape) * dtype.itemsize:
        raise FormatError(f"{file}: tensor {name!r} of shape {shape} and dtype {dtype} cannot have {end - start} bytes")
    return Entry(name, dtype, tuple(shape), start, end)


def _check_offsets(file: str, entries: Iterable[Entry], data_size: int) -> None:
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != at:
            trouble = "overlaps what is before it" if entry.start < at else "leaves a hole before it"
            raise FormatError(f"{file}: tensor {entry.name!r} at offset {entry.start} {trouble} (expected {at})")
        at = entry.end
    if at != data_size:
        raise FormatError(f"{file}: the tensors take {at} bytes, the file holds {data_size}")


def encode_json(document: Mapping[str, Any]) -> bytes:
    """A document as compact JSON in UTF-8. WioError for what JSON cannot hold: NaN, bytes, a lone surrogate."""
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise WioError(f"names and metadata must be valid JSON: {error}") from None


def encode_header(metadata: Mapping[str, str], entries: Iterable[Entry]) -> bytes:
    """The header's bytes, its length in front, padded with spaces so that the data begin at a multiple of 8.

    Raises FormatError if it would be over the format's limit.
    """
    document: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for entry in entries:
        document[entry.name] = {
            "dtype": entry.dtype.safetensors,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    raw = encode_json(document)
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER:
        raise FormatError(f"the header would be {len(raw)} bytes, over the format's limit of {MAX_HEADER}")
    return len(raw).to_bytes(8, "little") + raw
