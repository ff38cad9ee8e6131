"""Writing a .caffemodel: the layers that a target lists, their definitions as bytes, their blobs one by one.

Fields stand in the order of their numbers, as protobuf's own writer puts them (caffe.proto: BlobProto, LayerParameter).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

from wio.adapters._caffe_file import BLOBS, LAYER, V1_BLOBS, V1_LAYER
from wio.adapters._protobuf_writer import begin_field, bytes_field, number_field, varint
from wio.atomic import atomic_output
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError, WioError, printable

# protobuf parses no message of 2 GB or more, and a blob's size must fit an int (blob.cpp).
LARGEST = (1 << 31) - 1
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
FIELDS = {"float32": _DATA, "float64": _DOUBLE_DATA}


class Record(Struct, frozen=True):
    """A layer as metadata keep it: the bytes of its definition around its blobs."""

    name: str
    head: bytes
    tail: bytes
    blobs: tuple[Mapping[str, Any], ...]


def records(metadata: Mapping[str, Any]) -> list[Record]:
    """The layers in ``metadata["caffe"]``. FormatError if what stands there is not what this adapter leaves there."""
    try:
        return [
            Record(str(each["name"]), unpacked(each["head"]), unpacked(each["tail"]), tuple(map(_blob, each["blobs"])))
            for each in metadata["caffe"]["layers"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FormatError("metadata['caffe'] is not what the caffe adapter keeps of a network") from None


def unpacked(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _blob(each: Mapping[str, Any]) -> Mapping[str, Any]:
    if "constant" in each:
        return {"constant": float(each["constant"])}
    found = {"tensor": str(each["tensor"]), "layout": each.get("layout"), "layer": each.get("layer")}
    if each.get("legacy") is not None:
        legacy = [int(dim) for dim in each["legacy"]]
        if len(legacy) != 4 or any(not 0 <= dim <= LARGEST for dim in legacy):
            raise ValueError(legacy)
        found["legacy"] = legacy
    if not all(value is None or isinstance(value, str) for key, value in found.items() if key != "legacy"):
        raise TypeError(found)
    return found


def write_caffemodel(path: Path, bundle: Bundle) -> None:
    """Writes the layers that ``bundle.metadata["caffe"]`` lists with the bundle's tensors. Atomic, deterministic.

    Raises WioError for a tensor that no layer holds, and for a network too large for the format.
    """
    if not isinstance(bundle.metadata.get("caffe"), Mapping):
        raise WioError("the bundle says nothing of a Caffe network", remedy="bring it to caffe with a plan")
    layers = records(bundle.metadata)
    caffe = bundle.metadata["caffe"]
    try:
        head, tail = unpacked(caffe.get("head", "")), unpacked(caffe.get("tail", ""))
    except (TypeError, ValueError):
        raise FormatError("metadata['caffe'] is not what the caffe adapter keeps of a network") from None
    placed = [blob["tensor"] for layer in layers for blob in layer.blobs if "tensor" in blob]
    unplaced = sorted(set(bundle) - set(placed))
    if unplaced or len(set(placed)) != len(placed):
        raise WioError(f"{printable(unplaced[0]) if unplaced else 'a tensor'} has no place of its own in a layer")
    prepared = [[_Blob.of(blob, bundle) for blob in layer.blobs] for layer in layers]
    v1 = bool(caffe.get("v1"))
    sizes = [_layer_size(layer, blobs, v1) for layer, blobs in zip(layers, prepared, strict=True)]
    if len(head) + len(tail) + sum(size + 10 for size in sizes) > LARGEST:
        raise WioError("a .caffemodel cannot be 2 GB or larger: protobuf would not parse it")
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        file.write(head)
        for layer, blobs, size in zip(layers, prepared, sizes, strict=True):
            file.write(begin_field(V1_LAYER if v1 else LAYER, size) + layer.head)
            for blob in blobs:
                blob.write(file, V1_BLOBS if v1 else BLOBS)
            file.write(layer.tail)
        file.write(tail)


def _layer_size(layer: Record, blobs: list[_Blob], v1: bool) -> int:
    field = V1_BLOBS if v1 else BLOBS
    return len(layer.head) + len(layer.tail) + sum(len(begin_field(field, blob.size)) + blob.size for blob in blobs)


class _Blob(Struct, frozen=True):
    """A blob about to be written: what stands before and after its values, and where they come from."""

    before: bytes
    after: bytes
    nbytes: int
    values: Tensor | bytes

    @staticmethod
    def of(record: Mapping[str, Any], bundle: Bundle) -> _Blob:
        if "constant" in record:
            constant = struct.pack("<f", record["constant"])
            return _Blob(begin_field(_DATA, len(constant)), _shape((1,)), len(constant), constant)
        tensor = bundle.get(record["tensor"])
        if tensor is None:
            raise WioError(f"{printable(record['tensor'])}: the network has it, the bundle does not")
        field = FIELDS.get(tensor.dtype.name)
        if field is None:
            raise WioError(f"{printable(tensor.name)}: Caffe stores float32 and float64, not {tensor.dtype}")
        legacy = record.get("legacy")
        if legacy is not None and math.prod(legacy) != tensor.size:
            raise WioError(f"{printable(tensor.name)}: shape {tensor.shape} is not {tuple(legacy)}, kept for it")
        four = (
            b"".join(number_field(number, dim) for number, dim in enumerate(legacy, 1)) if legacy is not None else b""
        )
        shape = _shape(tensor.shape) if legacy is None else b""
        values = begin_field(field, tensor.nbytes) if tensor.size else b""
        if field == _DOUBLE_DATA:
            return _Blob(four + shape + values, b"", tensor.nbytes, tensor)
        return _Blob(four + values, shape, tensor.nbytes, tensor)

    @property
    def size(self) -> int:
        return len(self.before) + self.nbytes + len(self.after)

    def write(self, file: BinaryIO, field: int) -> None:
        file.write(begin_field(field, self.size) + self.before)
        data = self.values if isinstance(self.values, bytes) else self.values.stored()
        if len(data) != self.nbytes:
            what = "a constant" if isinstance(self.values, bytes) else printable(self.values.name)
            raise WioError(f"{what}: {len(data)} bytes were given where {self.nbytes} were announced")
        for part in _parts(data):
            file.write(part)
        file.write(self.after)


def _parts(data: bytes | memoryview, step: int = 1 << 24) -> Iterator[bytes | memoryview]:
    """The bytes in pieces that do not fill a buffer."""
    view = memoryview(data).cast("B")
    for at in range(0, len(view), step):
        yield view[at : at + step]


def _shape(shape: tuple[int, ...]) -> bytes:
    dims = b"".join(varint(dim) for dim in shape)
    return bytes_field(_SHAPE, bytes_field(1, dims) if dims else b"")
