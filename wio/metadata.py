"""The metadata that every format may have: what weights alone lose (spec/wio-1.md, section 7)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

SHARED = frozenset(
    {
        "adapter",
        "architecture",
        "dialect",
        "data_format",
        "flatten_order",
        "layers",
        "epsilon",
        "batch_norms",
        "recurrent",
        "changes",
    }
)


def detached(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of arrays that their source's own description no longer fits.

    What only the source's format has (its configuration, the names it stored weights under) is gone, so an import into
    that format makes the weights anew and does not copy them.
    """
    kept = {key: value for key, value in metadata.items() if key in SHARED} | {"adapter": "wio"}
    if isinstance(kept.get("layers"), list):
        kept["layers"] = [{k: v for k, v in layer.items() if k != "stored_as"} for layer in layer_records(metadata)]
    return kept


def layer_records(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The source's layers in order, those that are no objects left out: the file may come from anyone."""
    layers = metadata.get("layers")
    return [dict(layer) for layer in layers if isinstance(layer, Mapping)] if isinstance(layers, list) else []


def epsilon_of(metadata: Mapping[str, Any], layer: str) -> float | None:
    """What a normalisation adds to its variance, where the file says so."""
    by_layer = metadata.get("epsilon")
    found = [by_layer.get(layer)] if isinstance(by_layer, Mapping) else []
    found += [record.get("epsilon") for record in layer_records(metadata) if record.get("name") == layer]
    return next((float(each) for each in found if is_number(each)), None)


def with_epsilon(metadata: Mapping[str, Any], layer: str, epsilon: float) -> dict[str, Any]:
    """The metadata with another epsilon for one layer."""
    changed = dict(metadata)
    by_layer = metadata.get("epsilon")
    if "layers" in metadata:
        changed["layers"] = [
            {**record, "epsilon": epsilon} if record.get("name") == layer else record
            for record in layer_records(metadata)
        ]
    if isinstance(by_layer, Mapping) or not any(r.get("name") == layer for r in layer_records(metadata)):
        changed["epsilon"] = {**(by_layer if isinstance(by_layer, Mapping) else {}), layer: epsilon}
    return changed


def stored_times(metadata: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """The statistics that are stored times a factor, by their name in the source: their layer and the factor."""
    found = {}
    for record in layer_records(metadata):
        told = record.get("scaled")
        if isinstance(told, Mapping) and is_number(told.get("factor")) and isinstance(told.get("tensors"), Mapping):
            held = (str(record.get("name")), float(told["factor"]))
            found.update({str(name): held for name in told["tensors"].values()})
    return found


def unscaled(metadata: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """The metadata without the word that a layer's statistics are stored times a factor."""
    records = layer_records(metadata)
    kept = [
        {k: v for k, v in record.items() if k != "scaled"} if record.get("name") == layer else record
        for record in records
    ]
    return {**metadata, "layers": kept}


def with_tensors(metadata: Mapping[str, Any], gone: Collection[str], added: Mapping[str, str]) -> dict[str, Any]:
    """The metadata with the list of each layer's tensors brought up to date. ``added`` maps a new tensor to its layer.

    A layer that lost its last tensor is gone, and so is what was said of it.
    """
    changed = dict(metadata)
    records = []
    emptied = set()
    for record in layer_records(metadata):
        held = [name for name in record.get("tensors", []) if name not in gone]
        held += [name for name, layer in added.items() if layer == record.get("name") and name not in held]
        if record.get("tensors") and not held:
            emptied.add(record.get("name"))
            continue
        records.append({**record, "tensors": held})
    if "layers" in metadata:
        changed["layers"] = records
    for key in ("epsilon", "batch_norms"):
        if isinstance(metadata.get(key), Mapping):
            changed[key] = {name: value for name, value in metadata[key].items() if name not in emptied}
    return changed


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a file's JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
