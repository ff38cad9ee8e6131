"""Files of Keras before 1.0: layers and arrays by number, ``layer_3/param_0``, whose meaning only the model's JSON has.

Sources: keras 0.3.3 ``models.py`` (``Sequential.save_weights``, ``Graph.save_weights``) and
``utils/layer_utils.py`` (``container_from_config``), run on Theano.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from wio.adapter import Slot
from wio.adapters._hdf5 import H5File
from wio.errors import FormatError

VERSION = "0.3"
LAYERS, PARAMS = "nb_layers", "nb_params"
GRAPH = "graph"


def numbered_names(file: H5File) -> dict[str, list[str]] | None:
    """The arrays of each layer of such a file, both in order; None for a file of another kind.

    Raises FormatError where a number is not that of the groups or arrays that are there.
    """
    if LAYERS in file.attribute_names("/"):
        layers = [f"layer_{k}" for k in range(_number(file, "/", LAYERS))]
    elif file.is_group(GRAPH) and PARAMS in file.attribute_names(GRAPH):
        layers = [GRAPH]
    else:
        return None
    return {layer: [f"param_{n}" for n in range(_number(file, layer, PARAMS))] for layer in layers}


def _number(file: H5File, path: str, name: str) -> int:
    """An attribute that counts the members of its group."""
    try:
        found = int(file.value(path, name))
    except (TypeError, ValueError, OverflowError):
        raise FormatError(f"{file.name}: {path!r} has no {name} that is a number") from None
    there = sum(member.startswith("layer_" if name == LAYERS else "param_") for member in file.members(path))
    if found != there:
        raise FormatError(f"{file.name}: {path!r} says {name} = {found}, and holds {there}")
    return found


def in_later_words(document: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The ``to_json()`` of a Sequential as Keras 1 words it, its layers named as a file of ``count`` numbers them.

    Raises FormatError for a Graph: its file is one list of arrays, in an order that its JSON does not give.
    """
    if document.get("name") != "Sequential" or not isinstance(document.get("layers"), list):
        raise FormatError("it is not the to_json() of a Sequential of Keras 0.3, and of a Graph it tells no order")
    layers = document["layers"]
    if len(layers) != count:
        raise FormatError(f"it has {len(layers)} layers, the file {count}")
    return {"class_name": "Sequential", "config": [_layer(each, k) for k, each in enumerate(layers)]}


def _layer(document: Mapping[str, Any], k: int) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise FormatError(f"its layer {k} is no object")
    class_name = str(document.get("name"))
    if class_name == "Sequential":
        # A container in a container: its arrays follow one another in one group.
        inner = [_layer(each, n) for n, each in enumerate(document.get("layers", []))]
        return {"class_name": class_name, "name": f"layer_{k}", "config": inner}
    config = {**document, "name": f"layer_{k}"}
    if isinstance(document.get("input_shape"), list):
        config["batch_input_shape"] = [None, *document["input_shape"]]
    return {"class_name": class_name, "config": config}


def numbered(
    slots: Sequence[Slot], layers: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]
) -> tuple[list[Slot], list[dict[str, Any]]]:
    """Slots and layers of a file with names as those of a file with numbers.

    The loader counts every layer, with weights or without; what ``known`` has as an InputLayer is none there.
    """
    inputs = {layer["name"] for layer in known if layer.get("kind") == "InputLayer"}
    by_name = {slot.name: slot for slot in slots}
    renamed: list[Slot] = []
    records = []
    for k, layer in enumerate(layer for layer in layers if layer["name"] not in inputs):
        params = [f"param_{n}" for n in range(len(layer["tensors"]))]
        name = f"layer_{k}"
        made = [
            replace(by_name[old], name=f"{name}/{param}", layer=name, origin=None)
            for old, param in zip(layer["tensors"], params, strict=True)
        ]
        renamed += made
        records.append({"name": name, "tensors": [slot.name for slot in made], "stored_as": params})
    return renamed, records
