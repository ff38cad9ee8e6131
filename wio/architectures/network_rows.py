"""The rows of a registry's file, modules and templates written out: the layers of its network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wio.architectures.name_pattern import LONGEST_NAME
from wio.architectures.parameters import REQUIRED
from wio.architectures.registry_limits import wrong_attributes
from wio.errors import Problem, WioError, did_you_mean
from wio.network import OPERATORS, NetLayer, Network, axis_of

MAX_LAYERS = 20_000
_MOST_PROBLEMS = 200
# Modules written out, those without a sound row too.
_MOST_MODULES = 10_000
_MOST_NESTED = 8


class Rows:
    """``network()`` gives what the rows say; a row that says nothing sound goes into ``problems``, and it goes on."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.problems: list[Problem] = []
        self._templates = self._table(document, "templates")
        self._modules = self._table(document, "modules")
        self._network = document.get("network", {})
        self._written_out = 0

    def network(self) -> Network | None:
        """The network, or None where the problems leave none."""
        rows = self._network.get("layers") if isinstance(self._network, Mapping) else None
        if not isinstance(rows, list) or not rows:
            self._wrong("network.layers", "is missing: a list of rows [name, operator, inputs, attributes]")
            return None
        layers: dict[str, NetLayer] = {}
        for layer in self._expand(rows, "network", "", "", ()):
            if len(layers) >= MAX_LAYERS:
                self._wrong("network", f"more than {MAX_LAYERS} layers")
            if len(layers) >= MAX_LAYERS or len(self.problems) >= _MOST_PROBLEMS:
                break
            if layer.name in layers:
                self._wrong("network", f"two layers are named {layer.name!r}")
                continue
            self._check(layer)
            layers[layer.name] = layer
        if self.problems:
            return None
        try:
            network = Network(tuple(layers.values()))
            maps = network.feature_maps()
        except (WioError, TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
            self._wrong("network", error.message if isinstance(error, WioError) else f"its attributes: {error!r}")
            return None
        for layer in network.layers:
            if layer.op == "BatchNormalization" and axis_of(layer, maps[layer.inputs[0]]) not in ("C", None):
                self._wrong(f"network: {layer.name}", "a BatchNormalization has weights over C, and no other axis")
        return None if self.problems else network

    def _expand(
        self, rows: Sequence[Any], table: str, scope: str, entrance: str, within: tuple[str, ...]
    ) -> Iterator[NetLayer]:
        """A table's layers, inside the modules ``within``: ``scope`` goes before names, ``@`` is ``entrance``."""
        self._written_out += 1
        outputs: dict[str, str] = {"@": entrance} if entrance else {}
        for place, row in enumerate(rows):
            where = f"{table}.layers[{place}]"
            if len(self.problems) >= _MOST_PROBLEMS:
                return
            if not _is_row(row):
                self._wrong(where, f"is no row [name, operator, inputs, attributes]: {row!r}")
                continue
            name, op, inputs, attributes = (*row, {}) if len(row) == 3 else row
            where += f" {name}"
            given = [inputs] if isinstance(inputs, str) else inputs
            for each in given:
                if each not in outputs:
                    self._wrong(where, f"takes {each!r}, which is no row before it", self._near(each, outputs))
            sources = tuple(outputs[each] for each in given if each in outputs)
            full = "/".join(part for part in (scope, name) if part)
            last = full
            for layer in self._row(op, full, sources, attributes, where, within):
                last = layer.name
                yield layer
            outputs[name] = last

    def _row(
        self,
        op: str,
        name: str,
        sources: tuple[str, ...],
        attributes: Mapping[str, Any],
        where: str,
        within: tuple[str, ...],
    ) -> Iterator[NetLayer]:
        if op in self._modules:
            rows = self._modules[op].get("layers") if isinstance(self._modules[op], Mapping) else None
            if not isinstance(rows, list) or not rows:
                self._wrong(f"modules.{op}", "has no layers")
            elif self._written_out >= _MOST_MODULES:
                self._wrong("network", f"more than {_MOST_MODULES} modules")
            elif op in within or len(within) >= _MOST_NESTED:
                self._wrong(where, f"modules nest {_MOST_NESTED} deep at most, and none in itself")
            elif len(sources) != 1 or attributes:
                self._wrong(where, "a module takes one input and no attributes")
            else:
                yield from self._expand(rows, f"modules.{op}", name, sources[0], (*within, op))
        elif op in self._templates:
            yield from self._template(op, name, sources, attributes)
        elif op in OPERATORS:
            yield NetLayer(name, op, attributes, sources)
        else:
            remedy = self._near(op, [*OPERATORS, *self._modules, *self._templates])
            meant = f" ({attributes['unsaid']})" if "unsaid" in attributes else ""
            self._wrong(where, f"no operator, module or template is named {op!r}{meant}", remedy)

    def _template(
        self, op: str, name: str, sources: tuple[str, ...], attributes: Mapping[str, Any]
    ) -> Iterator[NetLayer]:
        """Layers in a row: the first has the row's name, inputs and attributes, the others have names inside it."""
        template = self._templates[op]
        rows = template.get("layers") if isinstance(template, Mapping) else None
        if not isinstance(rows, list) or not rows or not all(_is_row(row) and row[1] in OPERATORS for row in rows):
            self._wrong(f"templates.{op}", "its layers are no rows [name, operator, input, attributes]")
            return
        inside: dict[str, str] = {}
        for place, row in enumerate(rows):
            own = row[3] if len(row) > 3 else {}
            if not place:
                first = NetLayer(name, row[1], {**template.get("attributes", {}), **own, **attributes}, sources)
                inside[row[0]] = name
                yield first
                continue
            if row[2] not in inside:
                self._wrong(f"templates.{op}.layers[{place}] {row[0]}", f"takes {row[2]!r}, which is no row before it")
                return
            inside[row[0]] = f"{name}/{row[0]}"
            yield NetLayer(inside[row[0]], row[1], own, (inside[row[2]],))

    def _check(self, layer: NetLayer) -> None:
        lacking = [key for key in REQUIRED.get(layer.op, ()) if key not in layer.attributes]
        if lacking:
            self._wrong(f"network: {layer.name}", f"a {layer.op} says its {' and '.join(lacking)}")
        for message in wrong_attributes(layer.attributes):
            self._wrong(f"network: {layer.name}", message)
        if len(layer.name) > LONGEST_NAME:
            self._wrong(f"network: {layer.name}", f"its name is longer than {LONGEST_NAME} characters")
        if not layer.inputs and layer.op != "Input":
            self._wrong(f"network: {layer.name}", "takes nothing")

    def _near(self, wrong: str, known: Iterable[str]) -> str | None:
        """A remedy, for the first that are wrong: looking for what is near takes long."""
        among = list(known) if len(self.problems) < 10 else []
        return did_you_mean(wrong, among) if len(among) < 1000 and len(wrong) <= LONGEST_NAME else None

    def _table(self, document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = document.get(key, {})
        if not isinstance(found, Mapping):
            self._wrong(key, "is no table")
            return {}
        return found

    def _wrong(self, where: str, message: str, remedy: str | None = None) -> None:
        problem = Problem("network", message, where, remedy)
        if problem not in self.problems:
            self.problems.append(problem)


def _is_row(row: Any) -> bool:
    if not isinstance(row, list) or len(row) not in (3, 4):
        return False
    name, op, inputs = row[:3]
    names = [inputs] if isinstance(inputs, str) else inputs
    texts = isinstance(names, list) and all(isinstance(each, str) for each in (name, op, *names))
    return texts and (len(row) == 3 or isinstance(row[3], dict))
