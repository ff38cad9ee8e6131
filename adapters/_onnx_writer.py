"""Models of weights alone, and the pieces of which any model is written: messages whose lengths are known beforehand.

The largest message that protobuf parses is 2 GiB - 1 bytes; a model that would be larger keeps its data beside it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from wio import __version__
from wio.adapters._onnx_bundle import LAYER, LAYOUT, RESET_AFTER, ROLE
from wio.adapters._onnx_values import NUMBERS, RAW, STRINGS, as_stored, stored_size
from wio.adapters._protobuf_writer import begin_field, bytes_field, number_field, text_field
from wio.atomic import atomic_output, atomic_set
from wio.bundle import Bundle, Tensor, default_layer
from wio.errors import WioError
from wio.recurrent import RecurrentLayers

LARGEST_MESSAGE = (1 << 31) - 1
# Readers map data files: the start of a page, as onnx's and onnxruntime's own writers align them.
ALIGNMENT = 4096
_CHUNK = 8 << 20
# Of the SHA-256 that names a data file, the digits that do.
_NO_DIGEST = "0" * 16

# TensorProto.metadata_props came with IR version 10, opset 21 (onnx 1.16); newer types ask for newer versions.
_VERSIONS = {"float8_e8m0fnu": (12, 24), "uint2": (13, 25), "int2": (13, 25)}
_USUAL_VERSION = (10, 21)


class Later(Struct, frozen=True):
    """Bytes whose number is known and which are produced when they are written."""

    size: int
    produce: Callable[[], memoryview | bytes]


Part = bytes | memoryview | Later


def length_of(parts: Iterable[Part]) -> int:
    return sum(part.size if isinstance(part, Later) else len(part) for part in parts)


def pair_field(number: int, key: str, value: str) -> bytes:
    return bytes_field(number, text_field(1, key) + text_field(2, value))


def message_field(number: int, parts: Sequence[Part]) -> list[Part]:
    return [begin_field(number, length_of(parts)), *parts]


def write_parts(file: BinaryIO | _Digesting, parts: Iterable[Part], what: str) -> None:
    for part in parts:
        data = part.produce() if isinstance(part, Later) else part
        view = memoryview(data)
        if isinstance(part, Later) and view.nbytes != part.size:
            raise WioError(f"{what}: a tensor of {part.size} bytes gave {view.nbytes}")
        for start in range(0, len(view), _CHUNK):
            file.write(view[start : start + _CHUNK])


def payload(tensor: Tensor) -> list[Part]:
    """The values of a tensor as fields of a TensorProto: raw_data, or string_data."""
    if tensor.dtype.name == "string":
        return [bytes_field(STRINGS, _string(each)) for each in tensor.numpy().reshape(-1).tolist()]
    size = stored_size(tensor.dtype, tensor.size)
    return [begin_field(RAW, size), Later(size, lambda: as_stored(tensor))]


def _string(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8")


class DataFile:
    """Where the data of a model too large for one file go: one tensor after the other, each on a page of its own."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._parts: list[tuple[int, Later]] = []
        self._end = 0
        self._digest = _NO_DIGEST

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def name(self) -> str:
        """The name in the model's folder; it says what is in the file, once that is written."""
        return f"{self._model.name}.{self._digest}.data"

    @property
    def names(self) -> re.Pattern[str]:
        """What data files of this model are called."""
        return re.compile(rf"{re.escape(self._model.name)}\.[0-9a-f]{{{len(_NO_DIGEST)}}}\.data")

    def add(self, size: int, produce: Callable[[], memoryview | bytes]) -> Later:
        """Takes a tensor's bytes; gives the fields that say where they will stand: external_data 13, location 14."""
        offset = -(-self._end // ALIGNMENT) * ALIGNMENT
        self._parts.append((offset, Later(size, produce)))
        self._end = offset + size

        def told() -> bytes:
            pairs = (("location", self.name), ("offset", str(offset)), ("length", str(size)))
            return b"".join(pair_field(13, key, value) for key, value in pairs) + number_field(14, 1)

        return Later(len(told()), told)

    def write(self, temporary: Path) -> None:
        with temporary.open("wb") as file:
            out = _Digesting(file)
            for offset, part in self._parts:
                out.write(bytes(offset - file.tell()))
                write_parts(out, [part], str(self._model))
        self._digest = out.sha256.hexdigest()[: len(_NO_DIGEST)]


class _Digesting:
    """A file that knows the SHA-256 of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: memoryview | bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def write_model(path: Path, parts: Sequence[Part], data: DataFile) -> None:
    """Writes the model, and its data under a name that no other data have: the old model keeps its own till it goes."""
    if not data:
        with atomic_output(path) as temporary, temporary.open("wb") as file:
            write_parts(file, parts, str(path))
        return
    with atomic_set(path, data.names) as files:
        model, beside = files.file(path.name), files.file(data.name)
        data.write(beside)
        files.name(beside, data.name)
        with model.open("wb") as file:
            write_parts(file, parts, str(path))


class Around(Struct, frozen=True):
    """What stands around the initializers of a graph, as fields of GraphProto, and the versions that it needs."""

    before: bytes
    after: bytes
    ir_version: int
    opset: int


def write_weights(path: Path, bundle: Bundle, around: Around | None = None, tail: Sequence[Part] = ()) -> None:
    """A model of initializers, by default without a graph; roles and layouts stand in their metadata_props.

    ``tail`` are further fields of the model.
    """
    tensors = list(bundle.values())
    data = DataFile(path)
    size = sum(tensor.nbytes + len(tensor.name) + 1024 for tensor in tensors)
    if around is None:
        # The IR and opset versions that the types of these tensors need.
        versions = max((_VERSIONS.get(t.dtype.name, _USUAL_VERSION) for t in tensors), default=_USUAL_VERSION)
        around = Around(text_field(2, "weights"), b"", *versions)
    graph: list[Part] = [around.before]
    layers = RecurrentLayers.of(bundle)
    for tensor in tensors:
        reset = layers.reset_after(tensor.layer) if (tensor.role or "").startswith("gru.") else None
        graph += message_field(5, _tensor(tensor, data if size > LARGEST_MESSAGE else None, reset))
    graph.append(around.after)
    head = number_field(1, around.ir_version) + text_field(2, "wio") + text_field(3, __version__)
    model: list[Part] = [head, *message_field(7, graph), bytes_field(8, number_field(2, around.opset))]
    write_model(path, [*model, *tail], data)


def _tensor(tensor: Tensor, data: DataFile | None, reset_after: bool | None) -> list[Part]:
    head = b"".join(number_field(1, extent) for extent in tensor.shape)
    head += number_field(2, NUMBERS[tensor.dtype.name]) + text_field(8, tensor.name)
    if data is not None and tensor.dtype.name != "string":
        size = stored_size(tensor.dtype, tensor.size)
        values: list[Part] = [data.add(size, lambda: as_stored(tensor))]
    else:
        values = payload(tensor)
    told = {ROLE: tensor.role, LAYOUT: None if tensor.layout is None else str(tensor.layout)}
    if tensor.role is not None and tensor.layer != default_layer(tensor.name):
        told[LAYER] = tensor.layer
    if reset_after is not None:
        told[RESET_AFTER] = str(reset_after).lower()
    tail = b"".join(pair_field(16, key, value) for key, value in told.items() if value is not None)
    return [head, *values, tail]
