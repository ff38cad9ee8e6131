"""A weight file opened as the network that it is of, in the graph of an architecture or in its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from wio.architectures.architecture import Architecture
from wio.architectures.dialect import Difference
from wio.architectures.parameters import PARTS
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.lazy import np
from wio.metadata import epsilon_of
from wio.network import Network, computed_otherwise
from wio.plugins import own_network
from wio.port import Resolved
from wio.running.onnx_session import OnnxSession
from wio.running.runnable import write_onnx

if TYPE_CHECKING:
    from wio.running.network_input import NetworkInput

MOST_BYTES_AT_ONCE = 64 << 20


class NetworkRun(Struct, frozen=True):
    """One file's network, opened with every layer's output to ask for. ``notes``: what a person should know of it."""

    bundle: Bundle
    session: OnnxSession
    notes: tuple[str, ...]

    def chunks(self, names: Sequence[str], fed: NetworkInput) -> Iterator[list[str]]:
        """The layers in parts whose outputs are small enough to be held at the same time."""
        batch = max(len(array) for array in fed.arrays.values())
        chunk: list[str] = []
        held = 0
        for name in names:
            size = 8 * batch
            for axis in self.session.shapes[name]:
                size *= axis if isinstance(axis, int) else 1
            if chunk and held + size > MOST_BYTES_AT_ONCE:
                yield chunk
                chunk, held = [], 0
            chunk.append(name)
            held += size
        if chunk:
            yield chunk


def open_network(architecture: Architecture, side: Resolved, path: Path, model: Path) -> NetworkRun:
    """Writes the network to ``model``, an ONNX file, and opens that. PlanError or WioError if it cannot be run."""
    network, notes = _network(architecture, side, path)
    as_it_runs = Architecture(architecture.id, architecture.title, network, {})
    write_onnx(side.bundle.map(_widened), as_it_runs, model, every_layer=True)
    return NetworkRun(side.bundle, OnnxSession(model), tuple(notes))


def _widened(tensor: Tensor) -> Tensor:
    """Numbers of 16 bits as 32, which is exact: onnxruntime has few operators for them on a CPU, and rounds in each."""
    if tensor.dtype.name not in ("float16", "bfloat16"):
        return tensor
    wide = tensor.with_values(lambda: tensor.numpy().astype(np.float32), tensor.shape, tensor.layout)
    return wide.changed(dtype=DTYPES["float32"])


def _network(architecture: Architecture, side: Resolved, path: Path) -> tuple[Network, list[str]]:
    """The architecture's network with the epsilons that the file itself states; and what a person should know of it."""
    metadata = side.bundle.metadata
    dialect = str(metadata.get("dialect"))
    notes: dict[str, None] = {}
    spelled: dict[str, str] = {}
    if dialect in architecture.dialects:
        spelled = {layer.name: name for layer, name in architecture.layer_order(dialect)}
        for each in architecture.dialects[dialect].differences:
            if not _changes_nothing(each):
                notes[f"run as {architecture.id} is; its dialect {dialect} differs: {each.reason}"] = None
    own = own_network(side.bundle, side.adapter, path, side.options)
    theirs = {} if own is None else {layer.name: layer for layer in own.layers}
    layers = []
    for layer in architecture.network.layers:
        usual = layer.attributes.get("epsilon")
        found = epsilon_of(metadata, layer.name) or usual
        same = theirs.get(spelled.get(layer.name, layer.name))
        if same is not None:
            for key, here, there in computed_otherwise(same, layer):
                notes[f"run with {key} {there} in {layer.name}, as {architecture.id} has it; the file has {here}"] = (
                    None
                )
        if found == usual and same is not None and same.op == layer.op:
            found = same.attributes.get("epsilon", usual)
        if usual is not None and found is not None and not _same_number(found, usual):
            notes[f"run with the file's own epsilon, {found:g} in {layer.name}; {architecture.id} has {usual:g}"] = None
            layer = replace(layer, attributes={**layer.attributes, "epsilon": float(found)})
        layers.append(layer)
    return Network(tuple(layers)), list(notes)


def _changes_nothing(difference: Difference) -> bool:
    """Whether a port only has weights besides, which a reader has found to be what the network does without."""
    weights = {part.switch for parts in PARTS.values() for part in parts}
    return bool(difference.fill) and not difference.by and difference.attributes.keys() <= weights


def _same_number(a: float, b: float) -> bool:
    """Whether two attributes are one number; some formats keep 32 bits of it."""
    return abs(a - b) <= 1e-6 * abs(b)
