"""What value steps change of an architecture's network, as the metadata of its bundles keep it under ``changes``.

A bundle names its architecture, whose network no longer is that of the weights once a batch norm is folded or outputs
are dropped. Each record is an object with ``kind`` and ``layer`` and the numbers and names that its step was made with
(:class:`wio.values.step.ValueStep`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from wio.metadata import is_number
from wio.network import Network

CHANGING = frozenset({"fold-bias", "fold-batch-norm", "gamma", "beta", "epsilon", "slice"})
_SWITCHES = {"fold-bias": ("bias", False), "fold-batch-norm": ("bias", True), "gamma": ("scale", True)}
_SWITCHES |= {"beta": ("center", True)}


def changes_of(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The records, those that are malformed left out: the file may come from anyone."""
    told = metadata.get("changes")
    found = [each for each in told if isinstance(each, Mapping)] if isinstance(told, list) else []
    return [each for each in found if each.get("kind") in CHANGING and isinstance(each.get("layer"), str)]


def slice_of(layer: str, start: int, stop: int, of: int) -> dict[str, Any]:
    """The record of a layer of ``of`` outputs that keeps those from ``start`` to before ``stop``."""
    return {"kind": "slice", "layer": layer, "axis": "O", "start": start, "stop": stop, "of": of}


def slices_of(metadata: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By layer what is left of its outputs: one record, the last, which counts from what those before it left."""
    keys = ("start", "stop", "of")
    found = [each for each in changes_of(metadata) if each["kind"] == "slice"]
    return {each["layer"]: each for each in found if all(is_number(each.get(key)) for key in keys)}


def changed(network: Network, metadata: Mapping[str, Any]) -> Network:
    """The network that a bundle's weights are of: folded batch norms gone, other attributes as the steps left them.

    Layers are named as the architecture names them.
    """
    attributes: dict[str, dict[str, Any]] = {}
    folded: set[str] = set()
    for each in changes_of(metadata):
        mine = attributes.setdefault(each["layer"], {})
        if each["kind"] in _SWITCHES:
            key, value = _SWITCHES[each["kind"]]
            mine[key] = value
        if each["kind"] == "fold-batch-norm":
            folded.add(str(each.get("batch_norm")))
        elif each["kind"] == "epsilon" and is_number(each.get("epsilon")):
            mine["epsilon"] = each["epsilon"]
    for name, cut in slices_of(metadata).items():
        attributes[name] |= dict.fromkeys(("units", "filters"), int(cut["stop"]) - int(cut["start"]))
    if not attributes:
        return network
    stands_for: dict[str, str] = {}
    layers = []
    for layer in network.layers:
        inputs = tuple(stands_for.get(name, name) for name in layer.inputs)
        if layer.name in folded and layer.op == "BatchNormalization" and len(inputs) == 1:
            stands_for[layer.name] = inputs[0]
            continue
        new = attributes.get(layer.name, {})
        known = {k: v for k, v in new.items() if k not in ("units", "filters") or k in layer.attributes}
        layers.append(replace(layer, inputs=inputs, attributes={**layer.attributes, **known}))
    return Network(tuple(layers))
