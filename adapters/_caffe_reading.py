"""From a network's file to a bundle: shapes settled, roles and layouts as the network's definition declares them."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from wio.adapters._caffe_blobs import Blob
from wio.adapters._caffe_file import Layer, Net, read_net
from wio.adapters._caffe_graph import Node, Shape, bottoms_of, input_shapes, test_phase
from wio.adapters._caffe_layers import Meaning, batch_norms, meanings, pairs
from wio.adapters._caffe_prototxt import read_prototxt
from wio.adapters._caffe_schema import Message, one
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError, LayoutError, Problem, printable
from wio.layout import Layout
from wio.lazy import Array

# caffe.proto's own defaults.
_EPSILON = struct.unpack("<f", struct.pack("<f", 1e-5))[0]
_LRN = {"local_size": 5, "alpha": 1.0, "beta": 0.75, "norm_region": "ACROSS_CHANNELS", "k": 1.0}


def read_bundle(path: Path, prototxt: Path | None) -> Bundle:
    """The bundle of a .caffemodel. With a prototxt, layers are what it defines and inputs have the shapes it states."""
    net = read_net(path)
    definition = read_prototxt(prototxt) if prototxt is not None else None
    return _Reading(net, _Network(net, definition, prototxt)).bundle()


def _nodes(net: Net) -> list[Node]:
    return [Node(layer.name, layer.type, layer.message, _kernel_axes(layer)) for layer in net.layers]


def _kernel_axes(layer: Layer) -> int | None:
    """The rank of a layer's first blob. A file that gives legacy shapes is older than blobs of other than four axes."""
    return len(layer.blobs[0].shape) if layer.blobs else None


class _Network:
    """What the file and the prototxt together say: the definition of each layer, and what enters it."""

    def __init__(self, net: Net, definition: Message | None, path: Path | None) -> None:
        own = _nodes(net)
        self._own = {node.name: node for node in own}
        self._told: dict[str, Node] = {}
        given = input_shapes(net.message)
        told_entering: dict[str, Shape | None] = {}
        told_pairs: dict[str, str] = {}
        if definition is not None and path is not None:
            told = self._definition(definition, path)
            told_entering, sources = bottoms_of(told, input_shapes(definition))
            told_pairs = pairs(told)
            given |= sources
            self._told = {node.name: node for node in told}
        entering, self.inputs = bottoms_of(own, given)
        self.entering = entering | {name: shape for name, shape in told_entering.items() if name in self._told}
        self.pairs = {name: bn for name, bn in pairs(own).items() if name not in self._told} | told_pairs
        self.batch_norms = batch_norms(list(self._told.values()) if self._told else own)

    def _definition(self, definition: Message, path: Path) -> list[Node]:
        if "layer" in definition and "layers" in definition:
            raise FormatError(f"{printable(str(path))}: layers of the new and of the old form stand side by side")
        nodes = []
        for message in definition.get("layer", []) + definition.get("layers", []):
            name, type_ = one(message, "name", ""), one(message, "type", "")
            stored = self._own.get(name)
            nodes.append(Node(name, type_, message, stored.kernel_axes if stored else None))
        nodes = test_phase(nodes)
        problems = [problem for node in nodes for problem in self._contradictions(node)]
        if problems:
            raise FormatError(
                f"{printable(str(path))}: does not define the network whose weights these are",
                problems,
                remedy="give the prototxt that the weights were trained with, or its deploy form",
            )
        return nodes

    def _contradictions(self, node: Node) -> list[Problem]:
        stored = self._own.get(node.name)
        if stored is None or stored.kernel_axes is None:
            return []
        facts = {"type": (stored.type, node.type)}
        for parameter, names in _DECIDING.items():
            there, here = stored.parameter(parameter), node.parameter(parameter)
            if there and here:
                facts |= {name: (one(there, name, usual), one(here, name, usual)) for name, usual in names.items()}
        return [
            Problem("contradiction", f"the weights' file says {name} {there!r}, the prototxt {here!r}", node.name)
            for name, (there, here) in facts.items()
            if there != here and there != ""
        ]

    def node(self, layer: Layer) -> Node:
        return self._told.get(layer.name, self._own[layer.name])


# What must not differ between the definition in a file and one given beside it: it decides what the values mean.
_DECIDING: dict[str, dict[str, Any]] = {
    "convolution_param": {"num_output": None, "group": 1},
    "inner_product_param": {"num_output": None, "transpose": False, "axis": 1},
    "embed_param": {"num_output": None, "input_dim": None},
    "prelu_param": {"channel_shared": False},
}


class _Reading(Struct):
    net: Net
    network: _Network
    notes: list[dict[str, str]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    scaled: dict[str, dict[str, Any]] = field(default_factory=dict)

    def bundle(self) -> Bundle:
        self._refuse_repeated_layers()
        records = [self._layer(layer) for layer in self.net.layers]
        metadata = {
            "adapter": "caffe",
            "layers": self._owners(records),
            **({"batch_norms": self.network.batch_norms} if self.network.batch_norms else {}),
            "caffe": {
                "name": self.net.name,
                "v1": self.net.v1,
                "inputs": {
                    name: [axis[0][1] if len(axis) == 1 else None for axis in shape]
                    for name, shape in self.network.inputs.items()
                },
                "types": [[layer.name, layer.type] for layer in self.net.layers],
                "lrn": self._normalizations(),
                "layers": records,
                "head": _text(self.net.head),
                "tail": _text(self.net.tail),
                "notes": self.notes,
            },
        }
        return Bundle(self.tensors, metadata)

    def _owners(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The layers that have weights, as other formats count them: gamma and beta are their batch norm's own."""
        owned: dict[str, list[str]] = {}
        for tensor in self.tensors:
            owned.setdefault(tensor.layer, []).append(tensor.name)
        found = {
            record["name"]: {
                "name": record["name"],
                "kind": record["type"],
                "tensors": owned.get(record["name"], []),
                **({"epsilon": record["epsilon"]} if "epsilon" in record else {}),
                **({"scaled": self.scaled[record["name"]]} if record["name"] in self.scaled else {}),
            }
            for record in records
            if record["blobs"]
        }
        return [layer for layer in found.values() if layer["tensors"]]

    def _refuse_repeated_layers(self) -> None:
        seen: set[str] = set()
        for layer in self.net.layers:
            if layer.blobs and layer.name in seen:
                raise FormatError(f"{self.net.file}: two layers with weights are named {printable(layer.name)!r}")
            if layer.blobs:
                seen.add(layer.name)

    def _normalizations(self) -> list[dict[str, Any]]:
        found = []
        for layer in self.net.layers:
            if layer.type == "LRN":
                parameter = one(layer.message, "lrn_param", {})
                found.append({"name": layer.name, **{k: one(parameter, k, usual) for k, usual in _LRN.items()}})
        return found

    def _layer(self, layer: Layer) -> dict[str, Any]:
        record: dict[str, Any] = {
            "name": layer.name,
            "type": layer.type,
            "head": _text(layer.head),
            "tail": _text(layer.tail),
            "blobs": [],
        }
        if layer.type == "BatchNorm":
            record["epsilon"] = one(one(layer.message, "batch_norm_param", {}), "eps", _EPSILON)
        if not layer.blobs:
            return record
        node = self.network.node(layer)
        found = meanings(node, len(layer.blobs), self.network.entering.get(layer.name), self.network.pairs)
        if node.type == "BatchNorm" and len(layer.blobs) == 3:
            found = self._unscaled(layer, found)
        for blob, meaning in zip(layer.blobs, found, strict=True):
            tensor = self._tensor(layer, blob, meaning)
            self.tensors.append(tensor)
            entry: dict[str, Any] = {
                "tensor": tensor.name,
                "role": tensor.role,
                "layout": None if tensor.layout is None else str(tensor.layout),
                "layer": tensor.layer,
            }
            if blob.legacy is not None:
                entry["legacy"] = list(blob.legacy)
            record["blobs"].append(entry)
            if blob.has_diff:
                self._note(tensor.name, "the gradient beside it (diff) is not read")
        return record

    def _note(self, tensor: str, note: str) -> None:
        self.notes.append({"tensor": tensor, "note": note})

    def _unscaled(self, layer: Layer, found: list[Meaning]) -> list[Meaning]:
        """Mean and variance are what their names say only where the factor is exactly 1 (batch_norm_layer.cpp).

        Caffe divides both by the factor when it runs; that is not exact, and so is not done here.
        """
        factor, remedy = layer.blobs[2], ""
        if math.prod(factor.shape) != 1:
            note = f"the scale factor has {math.prod(factor.shape)} values where Caffe has one"
        else:
            value = float(factor.load(self.net.file, (1,))[0])
            if value == 1.0:
                return found
            note = f"stored times a factor: divide by the factor {value!r} to have the {{}}"
            if value == 0.0:
                note = "the factor is 0: Caffe takes the {} to be 0"
            if math.isfinite(value):
                self.scaled[layer.name] = {
                    "factor": value,
                    "held_by": f"{layer.name}/{found[2].short}",
                    "tensors": {str(m.role): f"{layer.name}/{m.short}" for m in found[:2]},
                }
                remedy = f"; --apply 'unscale={layer.name}' does so"
        statistics = [
            replace(m, role=None, layout=None, note=note.format(m.short) + remedy)
            for m in found
            if m.short != "scale_factor"
        ]
        return [*statistics, *found[len(statistics) :]]

    def _tensor(self, layer: Layer, blob: Blob, meaning: Meaning) -> Tensor:
        name = f"{layer.name}/{meaning.short}"
        shape = settled_shape(blob, meaning.rank)
        role, layout = meaning.role, Layout.parse(meaning.layout) if meaning.layout else None
        if meaning.note:
            self._note(name, meaning.note)
        if shape is None:
            self._note(name, f"{layer.type} has {meaning.rank} axes there, the file gives it the shape {blob.shape}")
            shape, role, layout = blob.shape, None, None
        file = self.net.file
        load: Callable[[], Array] = partial(blob.load, file, shape)
        tensor = Tensor(
            name, blob.dtype, shape, load, layer=meaning.layer if meaning.layer else layer.name, raw=blob.raw(file)
        )
        if role is None:
            return tensor
        try:
            declared = tensor.declared(role, layout)
            _refuse_other_outputs(self.network.node(layer), declared)
        except LayoutError as error:
            raise LayoutError(
                f"{file}: layer {printable(layer.name)!r} declares what the shape of its blob refutes: {error.message}",
                remedy="--option prototxt=FILE with the definition and input shape that the weights were made for",
            ) from None
        return declared


def settled_shape(blob: Blob, rank: int | None) -> tuple[int, ...] | None:
    """The blob's shape with the axes that its layer's type gives it; None if the two contradict one another.

    A legacy shape is the true one behind ones, four axes in all (blob.cpp, ShapeEquals and LegacyShape).
    """
    if rank is None or len(blob.shape) == rank:
        return blob.shape
    if rank == 0 and blob.shape == (1,):
        return blob.shape
    if blob.legacy is None or rank > 4 or any(dim != 1 for dim in blob.legacy[: 4 - rank]):
        return None
    return blob.legacy[4 - rank :]


def _refuse_other_outputs(node: Node, tensor: Tensor) -> None:
    """The number of outputs that a layer declares, against the shape of its weights."""
    names = {"Convolution": "convolution_param", "Deconvolution": "convolution_param", "Embed": "embed_param"}
    outputs = one(node.parameter(names.get(node.type, "inner_product_param")), "num_output")
    if outputs is None or tensor.layout is None:
        return
    extents = tensor.layout.extents(tensor.shape)
    if "O" not in extents:
        return
    group = extents.get("G", 1)
    found = extents["O"] * group
    if found != outputs:
        raise LayoutError(f"{tensor.name}: it has {found} outputs, num_output is {outputs}")


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
