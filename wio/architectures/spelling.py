"""An architecture as one dialect spells it: every name written out, and what keeps that from being a bijection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from wio.architectures.dialect import Dialect, Difference
from wio.architectures.network_changes import slice_of
from wio.architectures.parameters import CHANGES_NOTHING, Parameter, outputs_of, parameters_of
from wio.bundle import Synthesis, Tensor, synthesised
from wio.dtypes import DType
from wio.errors import Problem
from wio.network import FeatureMap, NetLayer, Network


class Fill(Struct, frozen=True):
    """A weight that a port has and the network has not: ``channels`` times the constant that no training changed."""

    parameter: Parameter
    difference: Difference
    channels: int

    @property
    def value(self) -> float:
        return self.difference.fill[self.parameter.part]

    @property
    def replaces(self) -> bool:
        """Whether its whole layer stands in for one of another kind."""
        return self.difference.by is not None

    def is_held_by(self, tensor: Tensor) -> bool:
        return bool((tensor.numpy() == self.value).all())

    def refuted_by(self, tensor: Tensor) -> str | None:
        """What is lost with a tensor that is read. Where the whole layer is another, the dialect says so already."""
        if self.replaces or self.is_held_by(tensor):
            return None
        return f"is not {self.value:g} throughout: the network has no {self.parameter.part}, its values would be lost"

    def tensor(self, dtype: DType) -> Tensor:
        shape = (self.channels,)
        own = self.parameter
        exact = not self.replaces and CHANGES_NOTHING.get(own.part) == self.value
        why = Synthesis(self.value, self.difference.reason, exact)
        return synthesised(own.name, own.role, own.layout, own.layer.name, shape, dtype, why)


class Spelling:
    """The names of a dialect.

    ``network``   the network as the port has it.
    ``layers``    how the port spells each layer, None for one that it does not have.
    ``written``   the name that each weight of the architecture is written under.
    ``read``      every name that a weight may have in a file.
    ``filled``    the names of weights that only the port has.
    ``slices``    by layer what the port keeps of its outputs, as a bundle's ``changes`` record it.
    ``problems``  why this is no dialect of the network, if it is none.
    """

    def __init__(self, network: Network, parameters: Sequence[Parameter], dialect: Dialect) -> None:
        self.dialect = dialect
        self.network = dialect.network(network)
        self.layers = dialect.layer_names(self.network)
        self._canonical = {layer.name: layer for layer in network.layers}
        known = {parameter.name for parameter in parameters}
        own = [each for each in parameters_of(self.network) if each.name not in known]
        self._all = [*parameters, *own]
        spelled = [(parameter, self._names(parameter)) for parameter in self._all]
        named = [(name, parameter) for parameter, names in spelled for name in names]
        self.written = {names[0]: parameter for parameter, names in spelled if names and parameter.name in known}
        self.read = {name: p for name, p in named if p.name in known}
        self.slices: dict[str, dict[str, Any]] = {}
        self.problems = [*self._unnamed(), *self._twice(named), *self._dropped(named), *self._misread()]
        self.problems += self._sliced()
        fills = {parameter.name: self._fill(parameter) for parameter in own}
        self.filled = {name: fill for name, p in named if (fill := fills.get(p.name)) is not None}

    @cached_property
    def _maps(self) -> dict[str, FeatureMap | None]:
        return self.network.feature_maps()

    @property
    def fills(self) -> list[Fill]:
        return list({fill.parameter.name: fill for fill in self.filled.values()}.values())

    def order(self) -> list[tuple[NetLayer, str]]:
        """The layers that the port has, weightless ones too, in the order its files list them, with their names."""
        by_name = {layer.name: layer for layer in self.network.layers}
        present = {name: spelled for name, spelled in self.layers.items() if spelled is not None}
        if self.dialect.order == "keras":
            order = _without(self.network, set(by_name) - set(present)).keras_order()
        else:
            order = [layer.name for layer in self.network.layers if layer.name in present]
        return [(by_name[name], present[name]) for name in order]

    def why_unexpected(self, name: str) -> str:
        """What is wrong about a tensor of this name: the layer that it would be of, where the patterns tell one."""
        fields = self.dialect.tensors.match(name) or {}
        for layer in self.dialect.layers_read(fields.get("layer", "")):
            if layer not in self._canonical:
                return f"the dialect reads it as of a layer {layer}, which the network does not have"
        return "the network has no weight of that name"

    def _names(self, parameter: Parameter) -> list[str]:
        if parameter.name in self.dialect.singly:
            return [self.dialect.singly[parameter.name]]
        layer = self.layers.get(parameter.layer.name)
        if layer is None or parameter.key not in self.dialect.weights:
            return []
        return self.dialect.tensor_names(layer, parameter.key)

    def _fill(self, parameter: Parameter) -> Fill | None:
        layer = self._canonical[parameter.layer.name]
        difference = self.dialect.difference(layer)
        fmap = self._maps[layer.name]
        channels = None if fmap is None else fmap.size("C")
        if difference is None or parameter.part not in difference.fill:
            message = f"the port has it and the network has not: fill must say what {parameter.part} holds"
        elif channels is None:
            message = "how many channels it has does not follow from the network"
        else:
            return Fill(parameter, difference, channels)
        self.problems.append(self._problem(f"differs: {parameter.name}", message))
        return None

    def _problem(self, where: str, message: str) -> Problem:
        return Problem("names", message, f"dialects.{self.dialect.name}.{where}")

    def _unnamed(self) -> Iterator[Problem]:
        patterned = [each for each in self._all if each.name not in self.dialect.singly]
        for key in dict.fromkeys(p.key for p in patterned if p.key not in self.dialect.weights):
            yield self._problem("weights", f"no name for {key}")
        for layer in dict.fromkeys(p.layer.name for p in patterned if self.layers.get(p.layer.name) is None):
            yield self._problem("layers", f"no name for {layer}, which has weights")
        for name in sorted(set(self.dialect.singly) - {each.name for each in self._all}):
            yield self._problem(f"tensors.{name}", "the network does not have such a weight")
        for key in sorted(set(self.dialect.weights) - {p.key for p in self._all}):
            yield self._problem(f"weights.{key}", "the network does not have such a weight")
        for key in sorted(set(self.dialect.slices) - {p.key for p in self._all}):
            yield self._problem(f"values.{key}", "the network does not have such a weight")
        for difference in self.dialect.differences:
            covered = [layer for layer in self._canonical.values() if difference.covers(layer)]
            absent = [name for name in difference.layers if name not in self._canonical]
            if absent or not covered:
                what = ", ".join(absent) or str(difference.op)
                yield self._problem("differs", f"the network does not have {what}")

    def _twice(self, named: list[tuple[str, Parameter]]) -> Iterator[Problem]:
        spelled = [name for name in self.layers.values() if name is not None]
        for where, names in (("layers", spelled), ("weights", [name for name, _ in named])):
            for name, count in Counter(names).items():
                if count > 1:
                    yield self._problem(where, f"one name for {count} things: {name}")

    def _dropped(self, named: list[tuple[str, Parameter]]) -> Iterator[Problem]:
        for glob, _ in self.dialect.drops:
            struck = [name for name, _ in named if fnmatchcase(name, glob)]
            if struck:
                yield self._problem("drop", f"{glob!r} drops weights of the network: {', '.join(struck[:3])}")

    def _sliced(self) -> Iterator[Problem]:
        """Slices that the port's own layer contradicts; the others go into ``slices``."""
        ports = {layer.name: layer for layer in self.network.layers}
        for parameter in self._all:
            cut = self.dialect.slices.get(parameter.key)
            if cut is None:
                continue
            layer, where = parameter.layer.name, f"values.{parameter.key}"
            size, kept = (outputs_of(each.get(layer)) for each in (self._canonical, ports))
            start, stop = cut.of(size or 0)
            record = slice_of(layer, start, stop, size or 0)
            if cut.axis != "O" or parameter.part not in ("kernel", "bias") or size is None:
                yield self._problem(where, "a slice is along O, the outputs, of a kernel and its bias")
            elif kept != stop - start or start >= stop:
                message = f"{cut} leaves {max(stop - start, 0)} of {size} outputs of {layer}, the port has {kept}"
                yield self._problem(where, f"{message}: differs must say as many")
            elif self.slices.setdefault(layer, record) != record:
                yield self._problem(where, f"cuts {layer} otherwise than its kernel")

    def _misread(self) -> Iterator[Problem]:
        """Names that their own pattern, read backwards, takes for another layer's."""
        for layer in self.network.layers:
            rule, spelled = self.dialect.rule_for(layer), self.layers[layer.name]
            if rule is not None and spelled is not None:
                read = rule.read(spelled, self.dialect.words)
                if read not in (None, layer.name):
                    yield self._problem("names", f"{layer.name} is spelled {spelled}, which reads back as {read}")


def _without(network: Network, absent: set[str]) -> Network:
    """The network without some layers, their consumers taking what those took."""
    instead: dict[str, tuple[str, ...]] = {}
    kept = []
    for layer in network.layers:
        inputs = tuple(source for name in layer.inputs for source in instead.get(name, (name,)))
        if layer.name in absent:
            instead[layer.name] = inputs
        else:
            kept.append(replace(layer, inputs=inputs))
    return Network(tuple(kept))
