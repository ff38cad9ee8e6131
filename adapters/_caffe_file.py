"""A .caffemodel as it lies in the file: its layers, their definitions, their blobs, and the bytes of all the rest.

Source: BVLC/caffe, src/caffe/proto/caffe.proto (NetParameter, LayerParameter, V1LayerParameter).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from wio.adapters._caffe_blobs import Blob, parse_blob
from wio.adapters._caffe_schema import MESSAGES, Message, decode, one
from wio.adapters._mapped_files import MappedFile
from wio.adapters._protobuf import LENGTH, VARINT, Buffer, WireError, fields, text
from wio.errors import FormatError, printable

LAYER, V1_LAYER = 100, 2
BLOBS, V1_BLOBS = 7, 6
# The deepest published networks have a few thousand layers, and definitions of a few hundred KB.
MOST_LAYERS, MOST_BLOBS = 20_000, 1000
LARGEST_DEFINITION = 16 << 20
# Fields of a file that is sniffed at; enough to know a network by.
_SNIFFED = 400
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,80}")


class Layer(Struct, frozen=True):
    """``head`` and ``tail`` are the fields before and after the first blob, blobs left out, byte for byte."""

    name: str
    type: str
    message: Message
    blobs: tuple[Blob, ...]
    head: bytes
    tail: bytes


class Net(Struct, frozen=True):
    """``message`` has the network's own fields, without the layers; ``head`` and ``tail`` are their bytes."""

    file: MappedFile
    name: str
    v1: bool
    message: Message
    layers: tuple[Layer, ...]
    head: bytes
    tail: bytes


def read_net(path: Path) -> Net:
    """The network of a file; no value of a blob is read. FormatError with layer and blob for what is no network."""
    file = MappedFile(path)
    try:
        return _net(file)
    except WireError as error:
        raise FormatError(f"{file}: {error.message}", remedy=error.remedy) from None


def _net(file: MappedFile) -> Net:
    data = file.view
    found: dict[int, list[tuple[int, int]]] = {LAYER: [], V1_LAYER: []}
    own = _Pieces(data)
    at = 0
    for tag, value, stop in fields(data, 0, file.size):
        number = tag >> 3
        if number in found:
            if tag & 7 != LENGTH:
                raise WireError(f"the field {number} of the network at byte {value} is no layer")
            found[number].append((value, stop))
            if len(found[number]) > MOST_LAYERS:
                raise WireError(f"more than {MOST_LAYERS} layers")
            own.split()
        else:
            own.keep(at, stop)
        at = stop
    if found[LAYER] and found[V1_LAYER]:
        raise WireError("the network has layers of the new and of the old form; Caffe would ignore the new ones")
    v1 = bool(found[V1_LAYER])
    spans = found[V1_LAYER] if v1 else found[LAYER]
    if not spans:
        raise WireError("no layer is in it", remedy="is it a .caffemodel, and whole?")
    own_bytes = bytes(own.head + own.tail)
    message = decode("NetParameter", own_bytes, 0, len(own_bytes))
    layers = tuple(_layer(file, index, v1, *span) for index, span in enumerate(spans))
    return Net(file, one(message, "name", ""), v1, message, layers, bytes(own.head), bytes(own.tail))


class _Pieces:
    """Fields that are kept as bytes, in two runs: before and after what stands in the middle."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.head, self.tail = bytearray(), bytearray()
        self._now = self.head

    def split(self) -> None:
        self._now = self.tail

    def keep(self, at: int, stop: int) -> None:
        if len(self.head) + len(self.tail) + stop - at > LARGEST_DEFINITION:
            raise WireError(f"a definition of more than {LARGEST_DEFINITION:,} bytes")
        self._now += self._data[at:stop]


def _layer(file: MappedFile, index: int, v1: bool, at: int, end: int) -> Layer:
    data = file.view
    kind, blobs_field = ("V1LayerParameter", V1_BLOBS) if v1 else ("LayerParameter", BLOBS)
    pieces = _Pieces(data)
    spans: list[tuple[int, int]] = []
    where = f"layer {index}"
    try:
        for tag, value, stop in fields(data, at, end):
            if tag >> 3 == blobs_field:
                if tag & 7 != LENGTH:
                    raise WireError(f"the field {blobs_field} at byte {value} is no blob")
                spans.append((value, stop))
                if len(spans) > MOST_BLOBS:
                    raise WireError(f"more than {MOST_BLOBS} blobs")
                pieces.split()
            elif v1 and tag >> 3 == 1:
                raise WireError(
                    "a layer of the oldest form (V0)", remedy="bring the file up to date: upgrade_net_proto_binary"
                )
            else:
                pieces.keep(at, stop)
            at = stop
        kept = bytes(pieces.head + pieces.tail)
        message = decode(kind, kept, 0, len(kept))
        name = one(message, "name", "")
        where = f"layer {printable(name)!r}" if name else where
        if spans and not name:
            raise WireError("it has weights and no name")
        blobs = []
        for number, span in enumerate(spans):
            where = f"layer {printable(name)!r}, blob {number}"
            blobs.append(parse_blob(file, *span))
    except WireError as error:
        raise WireError(f"{where}: {error.message}", remedy=error.remedy) from None
    type_ = one(message, "type", "")
    return Layer(name, type_, message, tuple(blobs), bytes(pieces.head), bytes(pieces.tail))


# --- what tells a network from any other message


def looks_like_caffemodel(path: Path) -> bool:
    """Whether a file is a NetParameter: known fields of their types only, and layers that have a name and a type.

    The format has no magic number; ONNX models, TensorFlow graphs and checkpoints fail at their first fields.
    """
    try:
        if not path.is_file():
            return False
        file = MappedFile(path)
        layers = 0
        for count, (tag, value, stop) in enumerate(fields(file.view, 0, file.size)):
            if not _is_net_field(tag):
                return False
            if tag >> 3 in (LAYER, V1_LAYER):
                if not _is_layer(file.view, value, stop, v1=tag >> 3 == V1_LAYER):
                    return False
                layers += 1
            elif tag == 1 << 3 | LENGTH:
                text(file.view, value, stop)
            if count >= _SNIFFED:
                break
        return layers > 0
    except (FormatError, OSError, ValueError):
        return False


def _is_net_field(tag: int) -> bool:
    number, wire = tag >> 3, tag & 7
    # force_backward and debug_info are bools; input_dim may be packed.
    wires = {5: (VARINT,), 7: (VARINT,), 4: (VARINT, LENGTH)}.get(number, (LENGTH,))
    return (1 <= number <= 8 or number == LAYER) and wire in wires


def _is_layer(data: Buffer, at: int, end: int, *, v1: bool) -> bool:
    known = MESSAGES["V1LayerParameter" if v1 else "LayerParameter"]
    name_field, type_field = known["name"].number, known["type"].number
    name = type_ = False
    for tag, value, stop in _first(fields(data, at, end)):
        number, wire = tag >> 3, tag & 7
        if number == name_field:
            if wire != LENGTH:
                return False
            text(data, value, stop)
            name = True
        elif number == type_field:
            if wire != (VARINT if v1 else LENGTH):
                return False
            type_ = v1 or _TYPE.fullmatch(text(data, value, stop)) is not None
            if not type_:
                return False
        if name and type_:
            return True
    return name and type_


def _first(found: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    for _, each in zip(range(_SNIFFED), found, strict=False):
        yield each
