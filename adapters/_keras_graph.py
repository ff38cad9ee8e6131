"""Which batch norm of a Keras model alone takes what a layer with a kernel gives out, by the model's own graph.

A layer that applies an activation of its own is none of them, nor is one whose channels the batch norm does not
normalise: a bias in front of either means something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from wio.adapters._keras_calls import CONTAINERS, MAX_DEPTH, class_of, name_of, nodes_of, references
from wio.adapters._keras_conventions import CHANNELS_LAST
from wio.adapters._keras_layers import data_format, spatial_letters

_KERNELS = ("Conv", "AtrousConv", "Deconv", "DepthwiseConv", "SeparableConv")


def batch_norms(config: Any, told_format: str | None) -> dict[str, str]:
    """For each such batch norm the layer before it, named as their tensors' layers are; {} for what is no model.

    ``told_format`` is the data format of layers that do not say theirs.
    """
    try:
        return dict(_pairs(config, "", told_format, 0))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return {}


def _pairs(config: Mapping[str, Any], prefix: str, told: str | None, depth: int) -> Iterator[tuple[str, str]]:
    inner = config["config"]
    layers = inner if isinstance(inner, list) else inner["layers"]
    named = {name_of(document, place, ()): document for place, document in enumerate(layers)}
    for name, document in named.items():
        if class_of(document) in CONTAINERS and depth < MAX_DEPTH:
            yield from _pairs(document, f"{prefix}{name}/", told, depth + 1)
    for before, after in _edges(config, inner, named):
        if _normalises(named[before], named[after], told):
            yield f"{prefix}{after}", f"{prefix}{before}"


def _edges(config: Mapping[str, Any], inner: Any, named: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Pairs of layers, each called once, of which the second alone takes what the first gives out."""
    if isinstance(inner, list) or config["class_name"] == "Sequential":
        names = list(named)
        yield from pairwise(names)
        return
    calls = {name: nodes_of(document) for name, document in named.items()}
    taken = Counter(source for nodes in calls.values() for node in nodes for source, *_ in node)
    taken.update(name for name, *_ in references(inner.get("output_layers")))
    for name, nodes in calls.items():
        if len(nodes) == 1 and len(nodes[0]) == 1:
            source = nodes[0][0][0]
            if taken[source] == 1 and len(calls[source]) == 1:
                yield source, name


def _normalises(layer: Mapping[str, Any], norm: Mapping[str, Any], told: str | None) -> bool:
    kind, config = class_of(layer), layer["config"]
    if class_of(norm) != "BatchNormalization" or norm["config"].get("mode", 0) != 0:
        return False
    if config.get("activation", "linear") not in ("linear", None):
        return False
    axis = norm["config"].get("axis", -1)
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    if kind == "Dense":
        return bool(axis == -1)
    letters = spatial_letters(kind)
    if letters is None or not kind.startswith(_KERNELS):
        return False
    # Layers of one dimension that say nothing keep channels last in every version.
    order = data_format(config) or (CHANNELS_LAST if letters == "W" else told)
    if order is None:
        return False
    return axis in ((-1, len(letters) + 1) if order == CHANNELS_LAST else (1, -1 - len(letters)))
