"""Dialects: how one public port names an architecture's layers and weights, and where it is another network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from wio.architectures.name_pattern import Pattern
from wio.network import NetLayer, Network

Words = Mapping[str, Mapping[str, str]]


class LayerRule(Struct, frozen=True):
    """Layers of an operator (None: of any) whose name ``canonical`` fits are called what ``spelled`` says.

    ``spelled`` is None where the port has no such layer. Besides the fields of ``canonical`` it may use ``{k}``: the
    how-manieth of its operator the layer is, counted from 1 in the order of creation.
    """

    op: str | None
    canonical: Pattern
    spelled: Pattern | None

    def fits(self, layer: NetLayer) -> bool:
        return self.op in (None, layer.op) and self.canonical.match(layer.name) is not None

    def spell(self, layer: NetLayer, count: int, words: Words) -> str | None:
        """What the port calls a layer that the rule fits, the ``count``-th of its operator."""
        if self.spelled is None:
            return None
        fields = self.canonical.match(layer.name) or {}
        values = {name: words[name][value] if name in words else value for name, value in fields.items()}
        return self.spelled.format({**values, "k": str(count)})

    def read(self, spelled: str, words: Words) -> str | None:
        """The other direction: the canonical name, or None where the rule never spells so, or counts what it spells."""
        fields = None if self.spelled is None else self.spelled.match(spelled)
        if fields is None or not set(self.canonical.fields) <= set(fields):
            return None
        for name in fields.keys() & words.keys():
            fields[name] = next(here for here, there in words[name].items() if there == fields[name])
        return self.canonical.format(fields)


class Difference(Struct, frozen=True):
    """Where the port is not the network: layers with other attributes, or others in their place (``by``).

    It holds for every layer of the operator ``op``, or for the ``layers`` named. ``without`` are attributes that the
    port's layers do not have. ``fill`` says what the weights hold that the network does not have: the constant of each
    part as its initialiser leaves it.
    """

    reason: str
    op: str | None = None
    layers: tuple[str, ...] = ()
    by: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    fill: Mapping[str, float] = field(default_factory=dict)

    def covers(self, layer: NetLayer) -> bool:
        return layer.op == self.op or layer.name in self.layers

    def apply(self, layer: NetLayer) -> NetLayer:
        """The layer as the port has it. Of a layer that another takes the place of, no attribute stays."""
        kept = {} if self.by else {key: value for key, value in layer.attributes.items() if key not in self.without}
        return replace(layer, op=self.by or layer.op, attributes={**kept, **self.attributes})


class Deviation(Struct, frozen=True):
    """One layer that a port has otherwise than the architecture says: its operator there and here, and why."""

    layer: str
    op: str
    by: str
    reason: str


class Slice(Struct, frozen=True):
    """The port keeps ``[start:stop]`` along the axis ``axis`` of a weight."""

    start: int | None
    stop: int | None
    axis: str
    reason: str

    def of(self, size: int) -> tuple[int, int]:
        """Where it begins and ends on an axis of that size."""
        start, stop, _ = slice(self.start, self.stop).indices(size)
        return start, stop

    def __str__(self) -> str:
        return f"{self.axis}[{'' if self.start is None else self.start}:{'' if self.stop is None else self.stop}]"


class Dialect(Struct, frozen=True):
    """How one public port names the layers and weights of an architecture, and what else its files hold.

    ``source``, ``revision``, ``verified_by`` and ``verified`` are its provenance: what was read, who found it right and
    how. ``weights`` has patterns for each part of each operator (``Conv.kernel``): the first is written, all are read.
    ``singly`` names weights one by one, by their canonical names, where a file follows no pattern. ``layouts`` are for
    formats that have no convention of their own.
    """

    name: str
    title: str
    source: str
    verified: str
    adapters: tuple[str, ...]
    rules: tuple[LayerRule, ...]
    weights: Mapping[str, tuple[Pattern, ...]]
    revision: str | None = None
    verified_by: str | None = None
    order: str = "network"
    tensors: Pattern = Pattern.parse("{layer}/{weight}")
    singly: Mapping[str, str] = field(default_factory=dict)
    words: Words = field(default_factory=dict)
    drops: tuple[tuple[str, str], ...] = ()
    differences: tuple[Difference, ...] = ()
    slices: Mapping[str, Slice] = field(default_factory=dict)
    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def network(self, network: Network) -> Network:
        """The architecture's network as the port has it."""
        layers = []
        for layer in network.layers:
            difference = self.difference(layer)
            layers.append(layer if difference is None else difference.apply(layer))
        return Network(tuple(layers))

    def deviations(self, network: Network) -> Iterator[Deviation]:
        for layer in network.layers:
            difference = self.difference(layer)
            if difference is not None:
                yield Deviation(layer.name, layer.op, difference.by or layer.op, difference.reason)

    def difference(self, layer: NetLayer) -> Difference | None:
        """What the port has otherwise of a layer of the network; the first that covers it holds."""
        return next((each for each in self.differences if each.covers(layer)), None)

    def rule_for(self, layer: NetLayer) -> LayerRule | None:
        """The rule that names a layer: the first that fits it."""
        return next((rule for rule in self.rules if rule.fits(layer)), None)

    def layer_names(self, network: Network) -> dict[str, str | None]:
        """How the port spells each layer of the network that :meth:`network` gives; None where it has none such."""
        counters: Counter[str] = Counter()
        names: dict[str, str | None] = {}
        for layer in network.layers:
            counters[layer.op] += 1
            rule = self.rule_for(layer)
            names[layer.name] = None if rule is None else rule.spell(layer, counters[layer.op], self.words)
        return names

    def layers_read(self, spelled: str) -> Iterator[str]:
        """What the canonical name of a layer that the port spells so can be, whether or not the network has it."""
        for rule in self.rules:
            layer = rule.read(spelled, self.words)
            if layer is not None:
                yield layer

    def tensor_names(self, layer: str, key: str) -> list[str]:
        """What the port calls one weight of the layer that it spells so: the name it is written under first."""
        return [
            self.tensors.format({"layer": layer, "weight": pattern.format({"layer": layer})})
            for pattern in self.weights[key]
        ]
