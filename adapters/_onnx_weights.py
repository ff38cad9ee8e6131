"""Every array that a model holds, and its name: initializers, Constant nodes, those of bodies and functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from wio.adapters._onnx_messages import MOST_TENSORS, Attribute, Function, Graph, Model, Node, TensorRecord
from wio.adapters._onnx_values import Values
from wio.bundle import Tensor
from wio.dtypes import DTYPES
from wio.errors import FormatError
from wio.lazy import Array, np

# Attributes of Constant that are numbers or strings: field of AttributeProto, wio's dtype (Operators.md, Constant).
NUMBERS = {
    "value_float": (2, "float32"),
    "value_floats": (7, "float32"),
    "value_int": (3, "int64"),
    "value_ints": (8, "int64"),
    "value_string": (4, "string"),
    "value_strings": (9, "string"),
}
_SINGLE = frozenset({2, 3, 4})


class Weight(Struct, frozen=True, eq=False):
    """An array, and where in the file it stands: a TensorProto, or an attribute of numbers."""

    tensor: Tensor
    source: TensorRecord | Attribute
    initializer: bool

    @property
    def place(self) -> int:
        """Where its field begins, which tells it from every other."""
        return self.source.within[-1].begin


def path_of(prefix: str, node: Node, attribute: str, number: int, count: int) -> str:
    """What the names in a body begin with: the node, and the attribute that holds the body."""
    owner = node.name or next((output for output in node.outputs if output), node.op)
    return f"{prefix}{owner}/{attribute}{f'_{number}' if count > 1 else ''}/"


def function_path(function: Function) -> str:
    overload = f":{function.overload}" if function.overload else ""
    return f"{function.domain}::{function.name}{overload}/" if function.domain else f"{function.name}{overload}/"


def weights_of(model: Model, values: Values, file: str) -> list[Weight]:
    """All arrays, in the order of the file; FormatError lists what cannot be read and names that stand twice."""
    found = [*_of_graph(model.graph, "", values, file)] if model.graph is not None else []
    for function in model.functions:
        found += _of_nodes(function.nodes, function_path(function), values, file)
    taken: set[str] = set()
    for weight in found:
        if weight.tensor.name in taken:
            raise FormatError(f"{file}: two tensors are named {weight.tensor.name!r}")
        taken.add(weight.tensor.name)
        if len(taken) > MOST_TENSORS:
            raise FormatError(f"{file}: more than {MOST_TENSORS:,} tensors")
    return found


def _of_graph(graph: Graph, prefix: str, values: Values, file: str) -> Iterator[Weight]:
    if graph.sparse:
        raise FormatError(
            f"{file}: graph {graph.name!r} has {graph.sparse} sparse initializers, which wio does not read",
            remedy="store them dense, and save the model again",
        )
    for record in graph.initializers:
        if not record.name:
            raise FormatError(f"{file}: an initializer of graph {graph.name!r} has no name")
        yield Weight(values.tensor(record, prefix + record.name), record, True)
    yield from _of_nodes(graph.nodes, prefix, values, file)


def _of_nodes(nodes: Iterable[Node], prefix: str, values: Values, file: str) -> Iterator[Weight]:
    for node in nodes:
        if node.op == "Constant" and not node.domain and node.outputs:
            yield from _of_constant(node, prefix + node.outputs[0], values, file)
        for attribute in node.attributes.values():
            for i, graph in enumerate(attribute.graphs):
                yield from _of_graph(
                    graph, path_of(prefix, node, attribute.name, i, len(attribute.graphs)), values, file
                )


def _of_constant(node: Node, name: str, values: Values, file: str) -> Iterator[Weight]:
    for attribute in node.attributes.values():
        if attribute.sparse:
            raise FormatError(f"{file}: constant {name!r} is sparse, which wio does not read", remedy="store it dense")
        if attribute.reference:
            continue
        if attribute.name == "value" and attribute.tensor is not None:
            yield Weight(values.tensor(attribute.tensor, name), attribute.tensor, False)
        elif attribute.name in NUMBERS:
            yield Weight(_numbers(attribute, name), attribute, False)


def _numbers(attribute: Attribute, name: str) -> Tensor:
    field, dtype = NUMBERS[attribute.name]
    # Floats are not decoded: not through Python's doubles, which would quieten signalling NaNs.
    floats = attribute.float_bytes(field) if dtype == "float32" else b""
    decoded: list[Any] = attribute.strings(field) if dtype == "string" else []
    decoded = attribute.integers(field) if dtype == "int64" else decoded
    shape: tuple[int, ...] = (len(decoded) + len(floats) // 4,)
    if field in _SINGLE:
        # proto2 leaves out nothing that was set, but a default that was never set reads as zero.
        decoded = decoded or [b"" if dtype == "string" else 0]
        floats = floats or bytes(4)
        shape = ()

    def load() -> Array:
        if dtype == "string":
            array = np.empty(len(decoded), object)
            array[:] = decoded
            return array.reshape(shape)
        if dtype == "float32":
            return np.frombuffer(floats, "<f4").reshape(shape)
        return np.array(decoded, "<i8").reshape(shape)

    stored = None
    if dtype == "string":
        stored = sum(size + max(1, -(-size.bit_length() // 7)) for size in map(len, decoded))
    return Tensor(name, DTYPES[dtype], shape, load, stored_bytes=stored)
