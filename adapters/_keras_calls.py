"""The layers of a model_config as a graph: what each is called, of which class it is, what each call of it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

MAX_DEPTH = 32
# Models within models double with every level where one is called twice.
MOST_LAYERS = 100_000
CONTAINERS = ("Sequential", "Model", "Functional", "Container")
# An output of a call of a layer: the layer's name, the number of the call, the number of the output.
Reference = tuple[str, int, int]
_KERAS = ("keras", "keras_core", "tf_keras", "tensorflow")


def class_of(document: Mapping[str, Any]) -> str:
    """The class of a layer; one that is not Keras's own is called by its module or package too, and so is no known one.

    Keras 3 writes where a class comes from, ``module`` and ``registered_name`` (keras 3.15 serialization_lib.py,
    ``serialize_keras_object``; null for one of a script); what came before writes only its name, ``package>Name``.
    """
    name, registered = str(document.get("class_name")), document.get("registered_name")
    if "module" not in document:
        return name
    module = str(document["module"])
    if module.split(".")[0] in _KERAS and registered in (None, name):
        return name
    return str(registered) if ">" in str(registered) else f"{module}>{name}"


def name_of(document: Mapping[str, Any], position: int, names: Sequence[str]) -> str:
    """A layer's name; where the configuration has none, that of its place in the file, or else a mark of its place."""
    config = document["config"]
    name = document.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return str(name or (names[position] if names else f"unnamed_{position}"))


def first_node(document: Mapping[str, Any], name: str, calls: int, inner: Mapping[str, Any]) -> int:
    """The number by which others refer to the first call of a layer.

    A nested model was called once before, when it was made, so its calls count from 1 (keras 2.2.4 network.py,
    ``kept_nodes``); in Keras 3 that is not so for a Sequential. The references tell: every call that is kept is
    referred to, so the highest number among n calls is n - 1 or n.
    """
    if class_of(document) not in CONTAINERS:
        return 0
    nodes = [node for layer in inner["layers"] for node in nodes_of(layer)]
    taken = [reference for node in [*nodes, references(inner.get("output_layers"))] for reference in node]
    return int(max((place for taker, place, _ in taken if taker == name), default=0) == calls)


def references(value: Any, depth: int = 0) -> list[Reference]:
    """``[name, node, tensor]``, or lists and dictionaries of them, in Keras's order.

    Keras goes through a dictionary by its sorted keys (keras 3.15 ``tree.flatten``; ``tf.nest`` of tf.keras).
    """
    if not value or depth > MAX_DEPTH:
        return []
    if isinstance(value, dict):
        return [reference for key in sorted(value) for reference in references(value[key], depth + 1)]
    if isinstance(value[0], str):
        return [(value[0], int(value[1]), int(value[2]))]
    return [reference for each in value for reference in references(each, depth + 1)]


# What the layers of Keras 3 call what they are called on (their ``call``), where it is given by name.
_CALLED_ON = ("inputs", "sequences", "data", "x")


def nodes_of(document: Mapping[str, Any]) -> list[list[Reference]]:
    """For each time a layer is called, what it is called on. Keras 3 writes calls as arguments."""
    nodes = []
    for node in document.get("inbound_nodes", []):
        if isinstance(node, dict) and "args" in node:
            named = node.get("kwargs") or {}
            keys = sorted(named, key=lambda key: (key not in _CALLED_ON, key))
            arguments = [*node["args"], *(named[key] for key in keys)]
            nodes.append([each for argument in arguments for each in _histories(_entering(argument, document), 0)])
        else:
            nodes.append(references(_entering(node, document)))
    return nodes


def _entering(argument: Any, document: Mapping[str, Any]) -> Any:
    """A dictionary that is given to a model whose inputs are none is sorted by the names of these.

    Source: keras 3.15 ``models/functional.py``, ``Functional._standardize_inputs``.
    """
    if class_of(document) not in CONTAINERS or not isinstance(argument, dict) or _is_tensor(argument):
        return argument
    inner = document["config"]
    entrances = inner.get("input_layers") if isinstance(inner, dict) else None
    names = [] if isinstance(entrances, dict) else [name for name, *_ in references(entrances)]
    return [argument[name] for name in names] if names and all(name in argument for name in names) else argument


def _is_tensor(argument: Any) -> bool:
    return isinstance(argument, dict) and argument.get("class_name") == "__keras_tensor__"


def _histories(argument: Any, depth: int) -> list[Reference]:
    if depth > MAX_DEPTH:
        return []
    if _is_tensor(argument):
        return references(argument["config"]["keras_history"])
    if isinstance(argument, dict):
        argument = [argument[key] for key in sorted(argument)]
    if isinstance(argument, list):
        return [reference for each in argument for reference in _histories(each, depth + 1)]
    return []


class _Call(Struct, frozen=True):
    place: int
    number: int
    takes: Sequence[Reference]


def calls_in_order(
    layers: Sequence[Mapping[str, Any]], names: Sequence[str], inner: Mapping[str, Any]
) -> Iterator[tuple[int, int, Sequence[Reference]]]:
    """The calls of a model's layers, each after those whose outputs it takes: place, number, takes.

    A layer stands where its first call does; a later one may take what comes of layers that stand behind it.
    """
    calls = []
    for place, (document, name) in enumerate(zip(layers, names, strict=True)):
        nodes = nodes_of(document)
        start = first_node(document, name, len(nodes), inner)
        calls += [_Call(place, start + k, node) for k, node in enumerate(nodes or [[]])]
    made = {(names[call.place], call.number): k for k, call in enumerate(calls)}
    begun: set[int] = set()
    for first in range(len(calls)):
        stack = [] if first in begun else [(first, iter(calls[first].takes))]
        begun.add(first)
        while stack:
            k, takes = stack[-1]
            before = next((made[each[:2]] for each in takes if made.get(each[:2], k) not in begun), None)
            if before is None:
                stack.pop()
                yield calls[k].place, calls[k].number, calls[k].takes
            else:
                begun.add(before)
                stack.append((before, iter(calls[before].takes)))
