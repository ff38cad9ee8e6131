"""Architectures and dialects: networks as data, and how public ports name their weights.

A file of the registry is TOML: the network once, then each dialect as patterns over its layers. The network is
finite, so both directions of a dialect come from writing every name out once; a pattern that gives two layers one
name is refused when it is loaded.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from wio.adapter import Convention
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError, NameMapError, Problem
from wio.layout import Layout
from wio.network import FeatureMap, NetLayer, Network
from wio.roles import check_role, same_axes

MAX_LAYERS = 100_000
_WEIGHTS = {
    "Conv": (("kernel", "conv.kernel", "bias"), ("bias", "conv.bias", "bias")),
    "ConvTranspose": (("kernel", "conv_transpose.kernel", "bias"), ("bias", "conv_transpose.bias", "bias")),
    "Gemm": (("kernel", "dense.kernel", "bias"), ("bias", "dense.bias", "bias")),
    "BatchNormalization": (
        ("gamma", "batch_norm.gamma", "scale"),
        ("beta", "batch_norm.beta", "center"),
        ("mean", "batch_norm.mean", ""),
        ("variance", "batch_norm.variance", ""),
    ),
}
_OPTIONAL = {"bias", "gamma", "beta"}


@dataclass(frozen=True)
class Parameter:
    """One weight of an architecture: ``name`` is canonical, ``key`` is how dialects speak of it (``Conv.kernel``)."""

    name: str
    key: str
    role: str
    layer: NetLayer
    layout: Layout


@dataclass(frozen=True)
class Dialect:
    """How one public port names the layers and weights of an architecture, and what else its files hold."""

    name: str
    title: str
    source: str
    verified: str
    adapters: tuple[str, ...]
    order: str
    layer_patterns: Mapping[str, str | None]
    weight_names: Mapping[str, str]
    drops: tuple[tuple[str, str], ...]


class Architecture:
    """A network and its dialects. Raises NameMapError where a dialect is not a bijection or names too little."""

    def __init__(self, identity: str, title: str, network: Network, dialects: Mapping[str, Dialect]) -> None:
        self.id, self.title, self.network, self.dialects = identity, title, network, dict(dialects)
        self.parameters = tuple(_parameters(network))
        self._layer_names = {name: _layer_names(network, dialect) for name, dialect in self.dialects.items()}
        for dialect in self.dialects.values():
            self._check(dialect)

    def names(self, dialect: str) -> dict[str, Parameter]:
        """Every tensor name of a dialect, as a bundle of its format has it, and the parameter it is."""
        layers, weights = self._layer_names[dialect], self.dialects[dialect].weight_names
        return {f"{layers[p.layer.name]}/{weights[p.key]}": p for p in self.parameters}

    def layer_order(self, dialect: str) -> list[tuple[NetLayer, str]]:
        """The layers that a dialect has, weightless ones too, in the order its files list them, with their names."""
        by_name = {layer.name: layer for layer in self.network.layers}
        present = {name: spelled for name, spelled in self._layer_names[dialect].items() if spelled is not None}
        if self.dialects[dialect].order == "keras":
            order = _without(self.network, set(by_name) - set(present)).keras_order()
        else:
            order = [layer.name for layer in self.network.layers if layer.name in present]
        return [(by_name[name], present[name]) for name in order]

    def dialect_for(self, adapter: str, wanted: str | None = None) -> Dialect | None:
        """The dialect of that name, or the only one that files of an adapter follow; None if there is none."""
        if wanted is not None:
            if wanted not in self.dialects:
                raise NameMapError(f"{self.id} has no dialect {wanted!r}; it has {', '.join(self.dialects)}")
            return self.dialects[wanted]
        fitting = [dialect for dialect in self.dialects.values() if adapter in dialect.adapters]
        if len(fitting) > 1:
            raise NameMapError(
                f"{self.id} has several dialects for {adapter}",
                remedy="choose one with --dialect " + "|".join(d.name for d in fitting),
            )
        return fitting[0] if fitting else None

    def read(
        self, bundle: Bundle, dialect: Dialect, convention: Convention, left_out: Collection[str] = ()
    ) -> tuple[Bundle, dict[str, str]]:
        """A bundle of a dialect as canonical names, roles and layouts; and what was dropped, with the reasons.

        Every tensor must be a weight of the network or be dropped by name: NameMapError lists all that are missing
        (unless they are in ``left_out``), unexpected, or of a shape that the layout refutes.
        """
        names = self.names(dialect.name)
        tensors, dropped, problems = [], {}, []
        for name, tensor in bundle.items():
            parameter = names.get(name)
            reason = next((why for glob, why in dialect.drops if fnmatchcase(name, glob)), None)
            if parameter is not None:
                try:
                    tensors.append(_as_parameter(tensor, parameter, convention))
                except FormatError as error:
                    problems.append(Problem("shape", error.message, name, error.remedy))
            elif reason is not None or tensor.role in ("optimizer", "moving_average", "counter", "other"):
                dropped[name] = reason or f"its role is {tensor.role}"
            else:
                problems.append(
                    Problem("unexpected", f"no weight of {self.id} in dialect {dialect.name}", name, f"--drop '{name}'")
                )
        missing = [name for name in names if name not in bundle and name not in left_out]
        problems += [Problem("missing", f"{self.id} has it as {names[name].name}", name) for name in missing]
        if problems:
            raise NameMapError(f"the file is not {self.id} in dialect {dialect.name}", problems)
        order = {p.name: k for k, p in enumerate(self.parameters)}
        tensors.sort(key=lambda tensor: order[tensor.name])
        return Bundle(tensors, self._metadata(bundle, dialect)), dropped

    def spell(self, bundle: Bundle, dialect: Dialect) -> Bundle:
        """A canonical bundle with the layer names of a dialect, its layers listed in the dialect's order.

        ``metadata["names"]`` has what the dialect calls each tensor.
        """
        spelled = self._layer_names[dialect.name]
        names = {parameter.name: name for name, parameter in self.names(dialect.name).items()}
        by_layer: dict[str, list[str]] = {}
        tensors = []
        for tensor in bundle.values():
            layer = spelled.get(tensor.layer)
            if layer is None:
                tensors.append(tensor)
                continue
            tensors.append(tensor.changed(layer=layer))
            by_layer.setdefault(layer, []).append(tensor.name)
        layers = [{"name": name, "tensors": by_layer.get(name, [])} for _, name in self.layer_order(dialect.name)]
        kept = {key: value for key, value in bundle.metadata.items() if key != "keras"}
        return Bundle(tensors, {**kept, "layers": layers, "names": names, "dialect": dialect.name})

    def _metadata(self, bundle: Bundle, dialect: Dialect) -> dict[str, Any]:
        epsilon = {
            layer.name: layer.attributes["epsilon"] for layer in self.network.layers if "epsilon" in layer.attributes
        }
        kept = {key: value for key, value in bundle.metadata.items() if key not in ("layers", "keras")}
        return {**kept, "architecture": self.id, "dialect": dialect.name, "epsilon": epsilon}

    def _check(self, dialect: Dialect) -> None:
        layers = self._layer_names[dialect.name]
        lacking = sorted({p.key for p in self.parameters if p.key not in dialect.weight_names})
        unnamed = [p.layer.name for p in self.parameters if layers.get(p.layer.name) is None]
        idle = sorted(set(dialect.weight_names) - {p.key for p in self.parameters})
        where = f"{self.id}, dialect {dialect.name}"
        if lacking or unnamed:
            raise NameMapError(f"{where}: no name for {', '.join(lacking + unnamed[:5])}")
        if idle:
            raise NameMapError(f"{where}: names weights that the network does not have: {', '.join(idle)}")
        spelled = [name for name in layers.values() if name is not None]
        written = [f"{layers[p.layer.name]}/{dialect.weight_names[p.key]}" for p in self.parameters]
        twice = [name for name, count in (Counter(spelled) + Counter(written)).items() if count > 1]
        if twice:
            raise NameMapError(f"{where}: one name for two things: {', '.join(twice[:5])}")
        clash = [name for name in written if any(fnmatchcase(name, glob) for glob, _ in dialect.drops)]
        if clash:
            raise NameMapError(f"{where}: drops weights of the network: {', '.join(clash[:5])}")


def _as_parameter(tensor: Tensor, parameter: Parameter, convention: Convention) -> Tensor:
    layout = same_axes(parameter.layout, convention.layouts.get(parameter.role, ()))
    if layout is None:
        raise FormatError(
            f"the format keeps no {parameter.role} in axes {parameter.layout}, or the file does not settle its order",
            remedy="state it with --option data_format=... where the adapter has that option",
        )
    renamed = tensor.changed(
        name=parameter.name,
        layer=parameter.layer.name,
        origin=tensor.origin or tensor.name,
        role=None,
        layout=None,
    )
    if refuted := layout.check(tensor.shape) or _wrong_channels(parameter, layout, tensor.shape):
        raise FormatError(refuted)
    return renamed.declared(parameter.role, layout)


def _wrong_channels(parameter: Parameter, layout: Layout, shape: tuple[int, ...]) -> str | None:
    """What in the shape contradicts the architecture's own numbers."""
    expected: dict[str, int] = {}
    attributes = parameter.layer.attributes
    if parameter.key.endswith((".kernel", ".bias")):
        channels = attributes.get("filters", attributes.get("units"))
        if channels is not None:
            expected["O"] = channels
    if parameter.key == "Conv.kernel":
        expected |= dict(zip("HW", attributes["kernel_shape"], strict=True))
    found = layout.extents(shape)
    wrong = [
        f"{letter} is {found[letter]}, not {size}" for letter, size in expected.items() if found.get(letter) != size
    ]
    return f"the architecture says otherwise of layout {layout}, shape {shape}: {', '.join(wrong)}" if wrong else None


def _parameters(network: Network) -> Iterator[Parameter]:
    maps = network.feature_maps()
    for layer in network.layers:
        for part, role, attribute in _WEIGHTS.get(layer.op, ()):
            if part in _OPTIONAL and not layer.attributes.get(attribute, True):
                continue
            leaf = {"mean": "moving_mean", "variance": "moving_variance"}.get(part, part)
            incoming = maps[layer.inputs[0]] if layer.inputs else None
            yield Parameter(
                f"{layer.name}/{leaf}",
                f"{layer.op}.{part}",
                role,
                layer,
                Layout.parse(_layout_text(role, layer, incoming)),
            )


def _layout_text(role: str, layer: NetLayer, incoming: FeatureMap | None) -> str:
    """The canonical layout of a parameter, from what flows into its layer."""
    kind, _, part = role.partition(".")
    if kind == "batch_norm":
        return "C"
    if part == "bias":
        return "O"
    if kind == "dense":
        if incoming is None or (incoming.flat and not incoming.complete):
            return "(?)O"
        if not incoming.flat or incoming.axes is None:
            return "IO"
        sizes = " ".join(f"{axis}={size}" for axis, size in zip(incoming.axes, incoming.sizes, strict=True))
        return f"({''.join(incoming.axes)})O {sizes}"
    letters = "DHW"[3 - len(layer.attributes["kernel_shape"]) :]
    return f"{letters}OI" if kind == "conv_transpose" else f"{letters}IO"


def _layer_names(network: Network, dialect: Dialect) -> dict[str, str | None]:
    """How a dialect spells each layer; ``{layer}`` is its name, ``{k}`` counts layers of its operator from 1."""
    counters: Counter[str] = Counter()
    names: dict[str, str | None] = {}
    for layer in network.layers:
        counters[layer.op] += 1
        pattern = dialect.layer_patterns.get(layer.op, dialect.layer_patterns.get("*"))
        names[layer.name] = (
            None if pattern is None else pattern.replace("{layer}", layer.name).replace("{k}", str(counters[layer.op]))
        )
    return names


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


# --- the registry's files


def load_architecture(path: Path) -> Architecture:
    """Reads one TOML file of a registry. FormatError or NameMapError names the file and what is wrong in it."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path.name}: {error}") from None
    try:
        network = Network(tuple(_expand(document)))
        dialects = {name: _dialect(name, each) for name, each in document["dialects"].items()}
        return Architecture(str(document["id"]), str(document.get("title", document["id"])), network, dialects)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FormatError(f"{path.name}: not a description of a network: {error!r}") from None


def _expand(document: Mapping[str, Any]) -> Iterator[NetLayer]:
    """The rows of the network with modules and templates written out."""
    for count, layer in enumerate(_rows(document["network"]["layers"], document, "", "", 0)):
        if count >= MAX_LAYERS:
            raise FormatError(f"more than {MAX_LAYERS} layers")
        yield layer


def _rows(rows: list[Any], document: Mapping[str, Any], scope: str, entrance: str, depth: int) -> Iterator[NetLayer]:
    if depth > 8:
        raise FormatError("modules are nested deeper than 8")
    outputs: dict[str, str] = {"@": entrance}
    for row in rows:
        name, op, inputs, attributes = (*row, {})[:4] if len(row) < 4 else row
        given = [inputs] if isinstance(inputs, str) else inputs
        sources = tuple(outputs[each] for each in given)
        full = "/".join(part for part in (scope, name) if part)
        if op in document.get("templates", {}):
            template = document["templates"][op]
            first, *others = template["layers"]
            merged = {**template.get("attributes", {}), **first[3], **attributes}
            yield NetLayer(full, first[1], merged, sources)
            inside = {"": full}
            for part in others:
                inner = f"{full}/{part[0]}"
                yield NetLayer(inner, part[1], part[3] if len(part) > 3 else {}, (inside[part[2]],))
                inside[part[0]] = inner
            outputs[name] = inside[others[-1][0]] if others else full
        elif op in document.get("modules", {}):
            last = None
            for layer in _rows(document["modules"][op]["layers"], document, full, sources[0], depth + 1):
                last = layer
                yield layer
            if last is None:
                raise FormatError(f"module {op} has no layers")
            outputs[name] = last.name
        else:
            yield NetLayer(full, op, attributes, sources)
            outputs[name] = full


def _dialect(name: str, document: Mapping[str, Any]) -> Dialect:
    layers = document["layers"]
    patterns = {"*": layers} if isinstance(layers, str) else {op: pattern or None for op, pattern in layers.items()}
    drops = tuple((str(glob), str(reason)) for glob, reason in document.get("drop", []))
    return Dialect(
        name,
        str(document["title"]),
        str(document["source"]),
        str(document["verified"]),
        tuple(document["adapters"]),
        str(document.get("order", "network")),
        patterns,
        dict(document["weights"]),
        drops,
    )


@dataclass(frozen=True)
class Habit:
    """A dialect without an architecture: the naming habit of a library, as globs with the role each declares."""

    id: str
    title: str
    adapters: tuple[str, ...]
    rules: tuple[tuple[str, str, str | None], ...]

    def declare(self, bundle: Bundle, convention: Convention) -> Bundle:
        """The bundle with roles from the first rule that each name matches; a tensor already declared keeps its own."""

        def change(tensor: Tensor) -> Tensor:
            if tensor.role is not None:
                return tensor
            for glob, role, axes in self.rules:
                if fnmatchcase(tensor.name, glob):
                    usual = convention.layouts.get(role, ())
                    # A rule says which axes there are; in which order and direction they run, the format says.
                    layout = same_axes(Layout.parse(axes), usual) if axes else usual[0] if usual else None
                    return tensor.declared(role, layout)
            return tensor

        return bundle.map(change)


def load_habit(path: Path) -> Habit:
    """Reads one TOML file under ``dialects/`` of a registry."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
        rules = tuple(
            (str(rule[0]), check_role(str(rule[1])), str(rule[2]) if len(rule) > 2 else None)
            for rule in document["rules"]
        )
        return Habit(str(document["id"]), str(document["title"]), tuple(document["adapters"]), rules)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(f"{path.name}: not a dialect: {error!r}") from None
