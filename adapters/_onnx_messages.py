"""The protocol buffer messages of an ONNX model, field by field.

Each field is linked to onnx.proto (onnx 1.23, IR version 14) by the number that follows its name. Unknown fields are
skipped, as protobuf does. A sub-message that occurs twice where one is meant is refused: readers differ over it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sized
from typing import NamedTuple

from msgspec import Struct

from wio.adapters._protobuf import FIXED32, LENGTH, VARINT, Buffer, WireError, fields, signed32, signed64, text, varint

# Graphs stand in attributes of nodes of graphs: three levels of message each, and protobuf itself stops at 100.
DEEPEST_GRAPH = 32
MOST_AXES = 64
# Outermost fields that are looked at to know a model by.
_SNIFFED = 10_000
# The largest published models have some ten thousand nodes; a byte of a file must not become a hundred of memory.
MOST_NODES, MOST_TENSORS, MOST_ATTRIBUTES, MOST_PIECES, MOST_NUMBERS = 200_000, 50_000, 1000, 500_000, 1_000_000


class Span(NamedTuple):
    """A length-delimited field: where its tag begins, where its payload does, and where both end."""

    begin: int
    start: int
    stop: int


Path = tuple[Span, ...]
# Field number -> its occurrences: (tag, payload start or varint value, stop).
Fields = dict[int, list[tuple[int, int, int]]]


class TensorRecord(Struct, frozen=True):
    """TensorProto, its payload unread. ``within``: the fields of the messages around it, and its own."""

    name: str  # 8
    data_type: int  # 2
    dims: tuple[int, ...]  # 1
    payload: Fields  # 4, 5, 6, 7, 9, 10, 11
    external: tuple[tuple[str, str], ...]  # 13
    is_external: bool  # 14: EXTERNAL = 1
    properties: dict[str, str]  # 16
    within: Path


class Attribute(Struct, frozen=True):
    """AttributeProto; numbers are decoded when asked for. ``reference`` names an attribute of the function around."""

    data: Buffer
    name: str  # 1
    reference: str  # 21
    parts: Fields  # f 2, i 3, s 4, floats 7, ints 8, strings 9
    tensor: TensorRecord | None  # 5
    graphs: tuple[Graph, ...]  # g 6, graphs 11
    sparse: bool  # 22
    within: Path

    def integers(self, number: int = 8) -> list[int]:
        """``ints``, or ``i`` with number 3. WireError for another wire type."""
        found: list[int] = []
        for tag, start, stop in self.parts.get(number, ()):
            if tag & 7 == VARINT:
                found.append(signed64(start))
            elif tag & 7 == LENGTH:
                if stop - start > MOST_NUMBERS:
                    raise WireError(f"attribute {self.name!r} has more than {MOST_NUMBERS:,} bytes of integers")
                while start < stop:
                    value, start = varint(self.data, start, stop)
                    found.append(signed64(value))
            else:
                raise WireError(f"attribute {self.name!r} is stored as no integer")
        return found

    def floats(self, number: int = 7) -> list[float]:
        """``floats``, or ``f`` with number 2."""
        data = self.float_bytes(number)
        return list(struct.unpack(f"<{len(data) // 4}f", data))

    def float_bytes(self, number: int) -> bytes:
        """The same as they are stored, NaNs and all."""
        for tag, start, stop in self.parts.get(number, ()):
            if tag & 7 not in (FIXED32, LENGTH) or (stop - start) % 4:
                raise WireError(f"attribute {self.name!r} is stored as no float")
        return b"".join(bytes(self.data[start:stop]) for _, start, stop in self.parts.get(number, ()))

    def strings(self, number: int = 9) -> list[bytes]:
        """``strings``, or ``s`` with number 4."""
        if any(tag & 7 != LENGTH for tag, _, _ in self.parts.get(number, ())):
            raise WireError(f"attribute {self.name!r} is stored as no string")
        return [bytes(self.data[start:stop]) for _, start, stop in self.parts.get(number, ())]


class Node(Struct, frozen=True):
    """NodeProto."""

    inputs: tuple[str, ...]  # 1
    outputs: tuple[str, ...]  # 2
    name: str  # 3
    op: str  # 4
    domain: str  # 7
    overload: str  # 8
    attributes: dict[str, Attribute]  # 5


class Value(NamedTuple):
    """ValueInfoProto of a tensor: each axis a number, the name of a variable, or None."""

    name: str  # 1
    data_type: int  # 2, type: tensor_type: elem_type
    shape: tuple[int | str | None, ...] | None


class Graph(Struct, frozen=True):
    """GraphProto."""

    name: str  # 2
    nodes: tuple[Node, ...]  # 1
    initializers: tuple[TensorRecord, ...]  # 5
    sparse: int  # 15: how many
    inputs: tuple[Value, ...]  # 11
    outputs: tuple[Value, ...]  # 12
    values: tuple[Value, ...]  # 13


class Function(Struct, frozen=True):
    """FunctionProto."""

    name: str  # 1
    domain: str  # 10
    overload: str  # 13
    inputs: tuple[str, ...]  # 4
    outputs: tuple[str, ...]  # 5
    nodes: tuple[Node, ...]  # 7


class Model(Struct, frozen=True):
    """ModelProto."""

    ir_version: int  # 1
    opsets: tuple[tuple[str, int], ...]  # 8
    producer: tuple[str, str]  # 2, 3: name and version
    graph: Graph | None  # 7
    graph_within: Path
    training: int  # 20: how many
    functions: tuple[Function, ...]  # 25


def spans(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, Span]]:
    """The fields of a message: number, wire type and span; the start of a varint's span is its value."""
    for tag, start, stop in fields(data, at, end):
        yield tag >> 3, tag & 7, Span(at, start, stop)
        at = stop


def _text(data: Buffer, wire: int, span: Span) -> str:
    if wire != LENGTH:
        raise WireError(f"the field at byte {span.begin} is stored as no string")
    return text(data, span.start, span.stop)


def _number(wire: int, span: Span) -> int:
    if wire != VARINT:
        raise WireError(f"the field at byte {span.begin} is stored as no integer")
    return span.start


def _message(wire: int, span: Span) -> Span:
    if wire != LENGTH:
        raise WireError(f"the field at byte {span.begin} is stored as no message")
    return span


def _pair(data: Buffer, span: Span) -> tuple[str, str]:
    """StringStringEntryProto."""
    found = {1: "", 2: ""}
    for number, wire, part in spans(data, span.start, span.stop):
        if number in found:
            found[number] = _text(data, wire, part)
    return found[1], found[2]


def _append(parts: Fields, number: int, wire: int, span: Span) -> None:
    found = parts.setdefault(number, [])
    found.append((number << 3 | wire, span.start, span.stop))
    _at_most(MOST_PIECES, found, "pieces of one field", span)


def _at_most(most: int, found: Sized, what: str, span: Span) -> None:
    if len(found) > most:
        raise WireError(f"more than {most:,} {what} before byte {span.stop}")


def tensor(data: Buffer, within: Path) -> TensorRecord:
    """The TensorProto that the last span of ``within`` holds."""
    name, data_type, location = "", 0, 0
    dims: list[int] = []
    payload: Fields = {}
    external: list[tuple[str, str]] = []
    properties: dict[str, str] = {}
    for number, wire, span in spans(data, within[-1].start, within[-1].stop):
        if number == 1:
            if wire == VARINT:
                dims.append(signed64(span.start))
            else:
                at = _message(wire, span).start
                while at < span.stop:
                    value, at = varint(data, at, span.stop)
                    dims.append(signed64(value))
            if len(dims) > MOST_AXES:
                raise WireError(f"the tensor at byte {within[-1].begin} has more than {MOST_AXES} axes")
        elif number == 2:
            data_type = signed32(_number(wire, span))
        elif number == 3:
            raise WireError(f"the tensor at byte {within[-1].begin} is a segment of one, which nobody reads")
        elif number in (4, 5, 6, 7, 9, 10, 11):
            _append(payload, number, wire, span)
        elif number == 8:
            name = _text(data, wire, span)
        elif number == 13:
            external.append(_pair(data, _message(wire, span)))
        elif number == 14:
            location = signed32(_number(wire, span))
        elif number == 16:
            key, value_text = _pair(data, _message(wire, span))
            properties[key] = value_text
    if location not in (0, 1):
        raise WireError(f"tensor {name!r} has data location {location}, which does not exist")
    return TensorRecord(name, data_type, tuple(dims), payload, tuple(external), location == 1, properties, within)


def _attribute(data: Buffer, within: Path, depth: int) -> Attribute:
    name = reference = ""
    parts: Fields = {}
    found: TensorRecord | None = None
    graphs: list[Graph] = []
    singles, sparse = 0, False
    for number, wire, span in spans(data, within[-1].start, within[-1].stop):
        if number == 1:
            name = _text(data, wire, span)
        elif number == 21:
            reference = _text(data, wire, span)
        elif number in (2, 3, 4):
            parts[number] = [(number << 3 | wire, span.start, span.stop)]
        elif number in (7, 8, 9):
            _append(parts, number, wire, span)
        elif number == 5:
            if found is not None:
                raise WireError(f"the attribute at byte {within[-1].begin} has two tensors")
            found = tensor(data, (*within, _message(wire, span)))
        elif number in (6, 11):
            singles += number == 6
            if singles > 1:
                raise WireError(f"the attribute at byte {within[-1].begin} has two graphs")
            graphs.append(graph(data, (*within, _message(wire, span)), depth + 1))
        elif number in (22, 23):
            sparse = True
    return Attribute(data, name, reference, parts, found, tuple(graphs), sparse, within)


def _node(data: Buffer, within: Path, depth: int) -> Node:
    names: dict[int, str] = {3: "", 4: "", 7: "", 8: ""}
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: dict[str, Attribute] = {}
    for number, wire, span in spans(data, within[-1].start, within[-1].stop):
        if number == 1:
            inputs.append(_text(data, wire, span))
        elif number == 2:
            outputs.append(_text(data, wire, span))
        elif number in names:
            names[number] = _text(data, wire, span)
        elif number == 5:
            attribute = _attribute(data, (*within, _message(wire, span)), depth)
            if attribute.name in attributes:
                raise WireError(f"the node at byte {within[-1].begin} has two attributes {attribute.name!r}")
            attributes[attribute.name] = attribute
            _at_most(MOST_ATTRIBUTES, attributes, "attributes of one node", span)
    domain = "" if names[7] == "ai.onnx" else names[7]
    return Node(tuple(inputs), tuple(outputs), names[3], names[4], domain, names[8], attributes)


def _value(data: Buffer, span: Span) -> Value:
    name, data_type = "", 0
    shape: tuple[int | str | None, ...] | None = None
    for number, wire, part in spans(data, span.start, span.stop):
        if number == 1:
            name = _text(data, wire, part)
        elif number == 2:
            for kind, kind_wire, tensor_type in spans(data, _message(wire, part).start, part.stop):
                if kind == 1:  # TypeProto.tensor_type
                    data_type, shape = _tensor_type(data, _message(kind_wire, tensor_type))
    return Value(name, data_type, shape)


def _tensor_type(data: Buffer, span: Span) -> tuple[int, tuple[int | str | None, ...] | None]:
    """TypeProto.Tensor: elem_type 1, shape 2 (TensorShapeProto: dim 1: dim_value 1, dim_param 2)."""
    data_type = 0
    shape: tuple[int | str | None, ...] | None = None
    for number, wire, part in spans(data, span.start, span.stop):
        if number == 1:
            data_type = signed32(_number(wire, part))
        elif number == 2:
            axes: list[int | str | None] = []
            for dim, dim_wire, inner in spans(data, _message(wire, part).start, part.stop):
                if dim != 1:
                    continue
                axis: int | str | None = None
                for kind, kind_wire, each in spans(data, _message(dim_wire, inner).start, inner.stop):
                    if kind == 1:
                        axis = signed64(_number(kind_wire, each))
                    elif kind == 2:
                        axis = _text(data, kind_wire, each)
                axes.append(axis)
                _at_most(MOST_AXES, axes, "axes of one value", inner)
            shape = tuple(axes)
    return data_type, shape


def graph(data: Buffer, within: Path, depth: int = 0) -> Graph:
    """The GraphProto that the last span of ``within`` holds."""
    if depth > DEEPEST_GRAPH:
        raise WireError(f"graphs nest deeper than {DEEPEST_GRAPH} at byte {within[-1].begin}")
    name, sparse = "", 0
    nodes: list[Node] = []
    initializers: list[TensorRecord] = []
    values: dict[int, list[Value]] = {11: [], 12: [], 13: []}
    for number, wire, span in spans(data, within[-1].start, within[-1].stop):
        if number == 1:
            nodes.append(_node(data, (*within, _message(wire, span)), depth))
            _at_most(MOST_NODES, nodes, "nodes", span)
        elif number == 2:
            name = _text(data, wire, span)
        elif number == 5:
            initializers.append(tensor(data, (*within, _message(wire, span))))
            _at_most(MOST_TENSORS, initializers, "initializers", span)
        elif number in values:
            values[number].append(_value(data, _message(wire, span)))
        elif number == 15:
            sparse += 1
    return Graph(name, tuple(nodes), tuple(initializers), sparse, *(tuple(values[each]) for each in (11, 12, 13)))


def _function(data: Buffer, span: Span) -> Function:
    names: dict[int, str] = {1: "", 10: "", 13: ""}
    values: dict[int, list[str]] = {4: [], 5: []}
    nodes: list[Node] = []
    for number, wire, part in spans(data, span.start, span.stop):
        if number in names:
            names[number] = _text(data, wire, part)
        elif number in values:
            values[number].append(_text(data, wire, part))
        elif number == 7:
            nodes.append(_node(data, (span, _message(wire, part)), 0))
            _at_most(MOST_NODES, nodes, "nodes", part)
    return Function(names[1], names[10], names[13], tuple(values[4]), tuple(values[5]), tuple(nodes))


def model(data: Buffer) -> Model:
    """The ModelProto that a whole file is."""
    ir_version = training = 0
    producer = {2: "", 3: ""}
    opsets: list[tuple[str, int]] = []
    functions: list[Function] = []
    found: tuple[Graph, Path] | None = None
    for number, wire, span in spans(data, 0, len(data)):
        if number == 1:
            ir_version = signed64(_number(wire, span))
        elif number in producer:
            producer[number] = _text(data, wire, span)
        elif number == 7:
            if found is not None:
                raise WireError(f"a second graph begins at byte {span.begin}")
            found = graph(data, (_message(wire, span),)), (span,)
        elif number == 8:
            opsets.append(_opset(data, _message(wire, span)))
        elif number == 20:
            training += 1
        elif number == 25:
            functions.append(_function(data, _message(wire, span)))
    main, within = found if found is not None else (None, ())
    return Model(ir_version, tuple(opsets), (producer[2], producer[3]), main, within, training, tuple(functions))


def _opset(data: Buffer, span: Span) -> tuple[str, int]:
    """OperatorSetIdProto."""
    domain, version = "", 0
    for number, wire, part in spans(data, span.start, span.stop):
        if number == 1:
            domain = _text(data, wire, part)
        elif number == 2:
            version = signed64(_number(wire, part))
    return domain, version


def looks_like_model(data: Buffer) -> bool:
    """Whether the outermost fields are those of a ModelProto: an IR version and a graph. Reads a few bytes of each.

    TensorFlow's SavedModel and GraphDef, and Caffe's NetParameter, have other wire types under the same numbers.
    """
    wires = {1: VARINT, 2: LENGTH, 3: LENGTH, 4: LENGTH, 5: VARINT, 6: LENGTH, 7: LENGTH, 8: LENGTH}
    found: set[int] = set()
    try:
        for (number, wire, span), _ in zip(spans(data, 0, len(data)), range(_SNIFFED), strict=False):
            if wires.get(number, wire) != wire or (number == 1 and not 0 < span.start < 1000):
                return False
            found.add(number)
    except WireError:
        return False
    return {1, 7} <= found
