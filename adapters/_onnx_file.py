"""An open model: the file, its messages, its weights and the bundle that they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from wio.adapters._mapped_files import MappedFile
from wio.adapters._onnx_bundle import bundle_of
from wio.adapters._onnx_messages import Graph, Model, TensorRecord, looks_like_model, model
from wio.adapters._onnx_values import Values
from wio.adapters._onnx_weights import Weight, weights_of
from wio.adapters._protobuf import WireError
from wio.bundle import Bundle
from wio.errors import FormatError


class OpenModel(Struct, frozen=True):
    file: MappedFile
    model: Model
    weights: dict[str, Weight]
    bundle: Bundle


def open_model(path: Path) -> OpenModel:
    """Reads everything but values. FormatError for what is no model, or a broken one."""
    file = MappedFile(path)
    try:
        found = model(file.view)
        if found.graph is None:
            kind = "has no graph" if looks_like_model(file.view) or found.ir_version else "is no ONNX model"
            raise FormatError(f"{file}: {kind}")
        weights = weights_of(found, Values(file), str(file))
        bundle = bundle_of(found, weights, str(file))
    except WireError as error:
        raise FormatError(f"{file}: {error.message}", remedy="the file is damaged, cut off, or no ONNX model") from None
    return OpenModel(file, found, {weight.tensor.name: weight for weight in weights}, bundle)


def locations(path: Path) -> tuple[str, ...]:
    """Where the model says that its external data lie, each once; none for what is no model. Never raises."""
    try:
        found = model(MappedFile(path).view)
    except (OSError, FormatError, WireError):
        return ()
    records = (record for graph in _graphs(found) for record in _records(graph))
    return tuple(
        dict.fromkeys(
            value for record in records if record.is_external for key, value in record.external if key == "location"
        )
    )


def _graphs(found: Model) -> Iterator[Graph]:
    """The graph and those within its nodes' attributes; functions hold no external data of their own."""
    waiting = [found.graph] if found.graph is not None else []
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += [inner for node in graph.nodes for each in node.attributes.values() for inner in each.graphs]


def _records(graph: Graph) -> Iterator[TensorRecord]:
    yield from graph.initializers
    for node in graph.nodes:
        yield from (each.tensor for each in node.attributes.values() if each.tensor is not None)
