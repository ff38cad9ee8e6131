"""Plain safetensors files, written tensor by tensor, as the reference library orders them.

Source: safetensors 0.8, ``safetensors/src/tensor.rs`` (``prepare``): by alignment of the dtype, the largest first, then
by name. Metadata has ``format``: loaders of the ecosystem refuse files without it (transformers#27064).
"""

from __future__ import annotations

from pathlib import Path

from wio.atomic import atomic_output
from wio.bundle import Bundle
from wio.errors import FormatError
from wio.placed_writer import Placed, take_room, write_placed
from wio.safetensors_header import Entry, encode_header, encode_json

# Metadata of safetensors are strings; this one is JSON.
RECEIPT = "wio.receipt"


def write(path: Path, bundle: Bundle) -> None:
    """Writes every tensor of a bundle. FormatError for a dtype that safetensors lacks."""
    wrong = [f"{tensor.name} ({tensor.dtype})" for tensor in bundle.values() if tensor.dtype.safetensors is None]
    if wrong:
        raise FormatError(f"safetensors has no dtype for {', '.join(wrong[:5])}", remedy="write a .wio file")
    if "__metadata__" in bundle:
        raise FormatError("a tensor has the name that the format keeps for itself: __metadata__", remedy="--drop it")
    ordered = sorted(bundle.values(), key=lambda tensor: (-_ALIGNMENT_RANK[str(tensor.dtype)], tensor.name.encode()))
    entries, at = [], 0
    for tensor in ordered:
        entries.append(Entry(tensor.name, tensor.dtype, tensor.shape, at, at + tensor.nbytes))
        at += tensor.nbytes
    stated = bundle.metadata.get("safetensors") or {}
    kept = {key: value for key, value in stated.get("metadata", {}).items() if key != "wio"}
    if (receipt := bundle.metadata.get("receipt")) is not None:
        kept[RECEIPT] = encode_json(receipt).decode("utf-8")
    header = encode_header({"format": "pt", **kept}, entries)
    with atomic_output(path) as temporary, temporary.open("r+b") as file:
        start = file.write(header)
        file.flush()
        take_room(file.fileno(), start + at)
        placed = [Placed(t, t.nbytes, start + e.start) for t, e in zip(ordered, entries, strict=True)]
        write_placed(file.fileno(), placed)


# The order of the library's Dtype enumeration, by which it sorts.
_ORDER = (
    *("bool", "uint8", "int8", "float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu", "int16", "uint16", "float16"),
    *("bfloat16", "int32", "uint32", "float32", "complex64", "float64", "int64", "uint64"),
)
_ALIGNMENT_RANK = {name: rank for rank, name in enumerate(_ORDER)}
