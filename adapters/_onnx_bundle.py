"""A model as a bundle: weights with what the graph says of them, and what weights alone lose as metadata."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from wio.adapters._onnx_graph import Declared, Findings, findings_of
from wio.adapters._onnx_maps import integer, number, string
from wio.adapters._onnx_messages import Graph, Model, Node, TensorRecord, Value
from wio.adapters._onnx_values import DATA_TYPES
from wio.adapters._onnx_weights import Weight
from wio.bundle import Bundle, Tensor, default_layer
from wio.errors import FormatError, LayoutError
from wio.layout import Layout
from wio.recurrent import KEY

# Where a model has no graph to say what its weights are, wio says it in TensorProto.metadata_props.
ROLE, LAYOUT, LAYER, RESET_AFTER = "wio.role", "wio.layout", "wio.layer", "wio.reset_after"
_NORMS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization")


def bundle_of(model: Model, weights: Sequence[Weight], file: str) -> Bundle:
    found = findings_of(model, weights)
    layers = layer_names(weights, found)
    tensors = []
    for weight in weights:
        declared = found.declared.get(weight.place)
        if declared is not None:
            layer = layers.get(declared.group, weight.tensor.layer)
            tensors.append(replace(weight.tensor, role=declared.role, layout=declared.layout, layer=layer))
        elif weight.place in found.told - found.used:
            tensors.append(replace(weight.tensor, role="other"))
        else:
            tensors.append(_by_properties(weight, weight.place in found.contradicted, file))
    metadata: dict[str, Any] = {"adapter": "onnx", "onnx": _metadata(model, weights, found, layers)}
    if epsilons := epsilons_of(found, layers):
        metadata["epsilon"] = epsilons
    if model.graph is not None and (pairs := _batch_norms(model.graph, layers)):
        metadata["batch_norms"] = pairs
    if recurrent := {**_left_in_properties(weights, tensors), **_recurrent(found, layers)}:
        metadata[KEY] = recurrent
    return Bundle(tensors, metadata)


def _left_in_properties(weights: Sequence[Weight], tensors: Sequence[Tensor]) -> dict[str, dict[str, Any]]:
    """What wio left of GRUs in a model without a graph."""
    told = {}
    for weight, tensor in zip(weights, tensors, strict=True):
        properties = weight.source.properties if isinstance(weight.source, TensorRecord) else {}
        if properties.get(RESET_AFTER) in ("true", "false"):
            told[tensor.layer] = {"reset_after": properties[RESET_AFTER] == "true"}
    return told


# Operators.md: the activations f, g, h where a node states none.
_USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


def _recurrent(found: Findings, layers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What each recurrent node says of itself, in the words of Keras where it has some."""
    facts = {}
    for group, node in found.nodes.items():
        if node.op not in _USUAL or node.domain or group not in layers:
            continue
        told: dict[str, Any] = {}
        reset = integer(node, "linear_before_reset", 0)
        if node.op == "GRU" and reset is not None:
            told["reset_after"] = reset != 0
        if string(node, "direction", "forward") == "reverse":
            told["go_backwards"] = True
        told |= _activations(node)
        for name, value in (("clip", number(node, "clip", 0.0)), ("input_forget", integer(node, "input_forget", 0))):
            if value and value - value == 0:
                told[name] = value
        if told:
            facts[layers[group]] = told
    return facts


def _activations(node: Node) -> dict[str, str]:
    attribute, usual = node.attributes.get("activations"), _USUAL[node.op]
    stated = [] if attribute is None or attribute.reference else attribute.strings(9)
    words = [re.sub("(?<=[a-z])(?=[A-Z])", "_", each.decode("utf-8", "replace")).lower() for each in stated]
    if not words or words == [each.lower() for each in usual] * (len(words) // len(usual)):
        return {}
    gates = ["/".join(dict.fromkeys(words[k :: len(usual)])) for k in range(len(usual))]
    names = ("activation",) if len(usual) == 1 else ("recurrent_activation", "activation")
    defaults = ("tanh",) if len(usual) == 1 else ("sigmoid", "tanh")
    return {name: each for name, each, known in zip(names, gates, defaults, strict=False) if each != known}


def _by_properties(weight: Weight, contradicted: bool, file: str) -> Tensor:
    properties = weight.source.properties if isinstance(weight.source, TensorRecord) else {}
    role, layout = properties.get(ROLE), properties.get(LAYOUT)
    if contradicted or role is None:
        return weight.tensor
    try:
        declared = weight.tensor.declared(role, None if layout is None else Layout.parse(layout))
    except LayoutError as error:
        raise FormatError(f"{file}: what wio left in the model is not true: {error.message}") from None
    return replace(declared, layer=properties.get(LAYER, declared.layer))


def layer_names(weights: Sequence[Weight], found: Findings) -> dict[str, str]:
    """The name of the layer that each group of weights belongs to, no name twice.

    It is what the names of its weights share; where they share nothing, or two groups share it, the name of the node;
    where that has none, the name of its first weight. This names layers and nothing more.
    """
    members: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    for weight in weights:
        declared: Declared | None = found.declared.get(weight.place)
        if declared is not None:
            members.setdefault(declared.group, []).append(weight.tensor.name)
            labels[declared.group] = declared.label or labels.get(declared.group, "")
    shared = {group: {default_layer(name) for name in names} for group, names in members.items()}
    sharers: dict[str, int] = {}
    for each in shared.values():
        for name in each:
            sharers[name] = sharers.get(name, 0) + 1
    choices = [
        {group: name for group, each in shared.items() if len(each) == 1 for name in each if sharers[name] == 1},
        {group: label for group, label in labels.items() if label},
        {group: names[0] for group, names in members.items()},
    ]
    layers: dict[str, str] = {}
    taken: set[str] = set()
    for choice in choices:
        counts: dict[str, int] = {}
        for name in choice.values():
            counts[name] = counts.get(name, 0) + 1
        for group, name in choice.items():
            if group not in layers and counts[name] == 1 and name not in taken:
                layers[group] = name
                taken.add(name)
    return layers


def _metadata(model: Model, weights: Sequence[Weight], found: Findings, layers: dict[str, str]) -> dict[str, Any]:
    graph = model.graph
    names = {weight.place: weight.tensor.name for weight in weights}
    held = {weight.tensor.name for weight in weights if weight.initializer}
    document: dict[str, Any] = {
        "ir_version": model.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in model.opsets},
        "producer": " ".join(part for part in model.producer if part),
        "graph": graph.name if graph is not None else "",
        "inputs": [_value(value) for value in (graph.inputs if graph else ()) if value.name not in held],
        "outputs": [_value(value) for value in (graph.outputs if graph else ())],
    }
    resets = {
        layers.get(group, node.name): integer(node, "linear_before_reset", 0)
        for group, node in found.nodes.items()
        if node.op == "GRU"
    }
    if resets:
        document["linear_before_reset"] = resets
    if found.contradicted:
        document["contradicted"] = {names[place]: told for place, told in found.contradicted.items()}
    if found.dequantized:
        document["dequantized_with"] = {names[place]: others for place, others in found.dequantized.items()}
    if model.training:
        document["training_info"] = f"{model.training} not read: what trains the model is no part of it"
    return document


def _value(value: Value) -> dict[str, Any]:
    kind = DATA_TYPES.get(value.data_type)
    shape = None if value.shape is None else list(value.shape)
    return {"name": value.name, "dtype": kind[0] if kind else None, "shape": shape}


def epsilons_of(found: Findings, layers: dict[str, str]) -> dict[str, float]:
    epsilons = {}
    for group, node in found.nodes.items():
        epsilon = number(node, "epsilon", 1e-5) if node.op in _NORMS else None
        # JSON has no number for what a hostile file may hold here.
        if epsilon is not None and epsilon - epsilon == 0:
            epsilons[layers.get(group) or node.name or node.outputs[0]] = _shortest(epsilon)
    return epsilons


def _batch_norms(graph: Graph, layers: Mapping[str, str]) -> dict[str, str]:
    """For each BatchNormalization of the main graph that alone takes what a node with a kernel gives out, that node."""
    made = {output: k for k, node in enumerate(graph.nodes) for output in node.outputs}
    taken = Counter(_taken(graph))
    found = {}
    for k, node in enumerate(graph.nodes):
        source = made.get(node.inputs[0]) if node.op == "BatchNormalization" and node.inputs else None
        if source is None or taken[node.inputs[0]] != 1 or graph.nodes[source].op not in ("Conv", "ConvTranspose"):
            continue
        # Groups of the main graph are numbered as its nodes are.
        norm, layer = layers.get(f"#{k}"), layers.get(f"#{source}")
        if norm is not None and layer is not None:
            found[norm] = layer
    return found


def _taken(graph: Graph) -> Iterator[str]:
    """Every name that a node of a graph takes, or of a graph within it, and every name that it gives out."""
    yield from (value.name for value in graph.outputs)
    for node in graph.nodes:
        yield from node.inputs
        for attribute in node.attributes.values():
            for body in attribute.graphs:
                yield from _taken(body)


def _shortest(value: float) -> float:
    """The shortest decimal of a 32-bit float: 0.001, and not the double that its bits make."""
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", value):
            return float(text)
    return value
