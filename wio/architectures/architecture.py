"""Architectures: a network as data with its dialects, and bundles taken from one dialect's names to another's.

The network is finite, so a dialect is proved right before it is used: every name is written out and read back, and one
that two layers share, or that the patterns read as another layer's, is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from glob import escape
from typing import TYPE_CHECKING, Any

from wio.adapter import Convention
from wio.architectures.dialect import Deviation, Dialect
from wio.architectures.network_changes import changed, slices_of
from wio.architectures.parameters import Parameter, outputs_of, parameters_of
from wio.architectures.preprocessing import Classes, Preprocessing
from wio.architectures.spelling import Fill, Spelling
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.errors import FormatError, NameMapError, Problem
from wio.layout import Layout
from wio.network import FeatureMap, NetLayer, Network
from wio.roles import NOT_WEIGHTS, same_axes

if TYPE_CHECKING:
    from wio.values.step import Request

# The letter of a kernel's input channels; what has none has weights for each channel.
_TAKES = {"Conv": "I", "ConvTranspose": "I", "Gemm": "I"}


class Architecture:
    """A network and its dialects, each written out and checked when it is first used.

    What uses a dialect raises NameMapError with everything that keeps it from being a bijection.
    """

    def __init__(
        self,
        identity: str,
        title: str,
        network: Network,
        dialects: Mapping[str, Dialect],
        preprocessing: Preprocessing | None = None,
        classes: Classes | None = None,
    ) -> None:
        self.id, self.title, self.network, self.dialects = identity, title, network, dict(dialects)
        self.preprocessing, self.classes = preprocessing, classes
        self.parameters = tuple(parameters_of(network))
        self._spellings: dict[str, Spelling] = {}

    def problems(self) -> list[Problem]:
        """What keeps any of its dialects from being a bijection."""
        return [problem for dialect in self.dialects for problem in self._written_out(dialect).problems]

    def _written_out(self, dialect: str) -> Spelling:
        if dialect not in self._spellings:
            self._spellings[dialect] = Spelling(self.network, self.parameters, self.dialects[dialect])
        return self._spellings[dialect]

    def _spelling(self, dialect: str) -> Spelling:
        spelling = self._written_out(dialect)
        if spelling.problems:
            raise NameMapError(f"{self.id}: dialect {dialect} does not name its weights", spelling.problems)
        return spelling

    def names(self, dialect: str) -> dict[str, Parameter]:
        """Every tensor name of a dialect, as a bundle of its format has it, and the parameter it is."""
        return self._spelling(dialect).written

    def network_of(self, dialect: str) -> Network:
        """The network as the port has it: with the differences that its dialect declares."""
        return self._spelling(dialect).network

    def deviations(self, dialect: str) -> tuple[Deviation, ...]:
        """The layers that a port has otherwise than the architecture says."""
        return tuple(self.dialects[dialect].deviations(self.network))

    def fills(self, dialect: str) -> dict[str, Fill]:
        """By their names in a file, the weights that only the port has."""
        return self._spelling(dialect).filled

    def layer_order(self, dialect: str) -> list[tuple[NetLayer, str]]:
        """The layers that a dialect has, weightless ones too, in the order its files list them, with their names."""
        return self._spelling(dialect).order()

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
        (unless they are in ``left_out``), unexpected, or of a shape that the layout refutes. Of the values only those
        are read that the dialect says are constant.
        """
        spelling = self._spelling(dialect.name)
        if dialect.layouts:
            convention = Convention.of(dialect.layouts)
        tensors: dict[str, Tensor] = {}
        dropped: dict[str, str] = {}
        problems: list[Problem] = []
        ports = {layer.name: layer for layer in spelling.network.layers}
        maps = spelling.network.feature_maps()
        for name, tensor in bundle.items():
            parameter, fill = spelling.read.get(name), spelling.filled.get(name)
            reason = next((why for glob, why in dialect.drops if fnmatchcase(name, glob)), None)
            if fill is not None:
                dropped[name] = fill.difference.reason
                if lost := fill.refuted_by(tensor):
                    problems.append(Problem("value", lost, name, f"--drop '{name}'"))
            elif parameter is not None and parameter.name in tensors:
                problems.append(Problem("twice", f"{parameter.name} has another name in this file too", name))
            elif parameter is not None:
                tensors[parameter.name] = tensor
                port = ports[parameter.layer.name]
                incoming = maps[port.inputs[0]] if port.inputs else None
                try:
                    tensors[parameter.name] = _as_parameter(tensor, parameter, port, incoming, convention)
                except FormatError as error:
                    problems.append(Problem("shape", error.message, name, error.remedy))
            elif reason is not None or tensor.role in NOT_WEIGHTS:
                dropped[name] = reason or f"its role is {tensor.role}"
            else:
                problems.append(Problem("unexpected", spelling.why_unexpected(name), name, f"--drop '{name}'"))
        away = {spelling.read[name].name for name in left_out if name in spelling.read}
        for name, parameter in spelling.written.items():
            if parameter.name not in tensors and parameter.name not in away:
                problems.append(Problem("missing", f"{self.id} has it as {parameter.name}", name))
        if problems:
            raise NameMapError(f"the file is not {self.id} in dialect {dialect.name}", problems)
        ordered = [tensors[each.name] for each in self.parameters if each.name in tensors]
        metadata = self._metadata(bundle, dialect)
        if spelling.slices:
            metadata["changes"] = list(spelling.slices.values())
        return Bundle(ordered, metadata), dropped

    def requests(self, bundle: Bundle, dialect: Dialect) -> list[Request]:
        """The value steps that a dialect declares and that a canonical bundle has not been through."""
        from wio.values.step import Request

        held, layers = slices_of(bundle.metadata), {tensor.layer for tensor in bundle.values()}
        reasons = {p.layer.name: cut.reason for p in self.parameters if (cut := dialect.slices.get(p.key))}
        return [
            Request("slice", escape(layer), (str(cut["start"]), str(cut["stop"])), reasons[layer])
            for layer, cut in self._spelling(dialect.name).slices.items()
            if layer in layers and layer not in held
        ]

    def spell(self, bundle: Bundle, dialect: Dialect) -> Bundle:
        """A canonical bundle and its network with the layer names of a dialect, layers listed in the dialect's order.

        ``metadata["names"]`` has what the dialect calls each tensor, ``metadata["layouts"]`` the layouts that it states
        itself. Weights that only the port has are there too, synthesised. NameMapError if the bundle does not hold the
        outputs that the dialect's layers have.
        """
        spelling = self._spelling(dialect.name)
        self._refuse_slices(bundle, spelling)
        network = changed(spelling.network, bundle.metadata)
        held = {layer.name for layer in network.layers}
        tensors: list[Tensor] = []
        by_layer: dict[str, list[str]] = {}
        canonical = {parameter.name: parameter.layout for parameter in self.parameters}
        for tensor in (
            *(_with_unit_axes(t, canonical) for t in bundle.values()),
            *self._fills(bundle, spelling, network),
        ):
            layer = spelling.layers.get(tensor.layer)
            if layer is None:
                tensors.append(tensor)
                continue
            tensors.append(tensor.changed(layer=layer))
            by_layer.setdefault(layer, []).append(tensor.name)
        names = {p.name: name for name, p in spelling.written.items()}
        names |= {fill.parameter.name: name for name, fill in reversed(spelling.filled.items())}
        layers = [
            {"name": name, "tensors": by_layer.get(name, [])} for each, name in spelling.order() if each.name in held
        ]
        kept = {key: value for key, value in bundle.metadata.items() if key != "keras"}
        if dialect.layouts:
            kept["layouts"] = {role: list(texts) for role, texts in dialect.layouts.items()}
        metadata = {**kept, "layers": layers, "names": names, "dialect": dialect.name}
        return Bundle(tensors, metadata, network.renamed(spelling.layers))

    def _fills(self, bundle: Bundle, spelling: Spelling, network: Network) -> list[Tensor]:
        """What the port has besides: in layers of which the bundle holds a weight, others only if it holds them all."""
        there = {layer.name for layer in network.layers}
        whole = all(parameter.name in bundle for parameter in self.parameters if parameter.layer.name in there)
        layers = {tensor.layer for tensor in bundle.values()}
        dtype = next((tensor.dtype for tensor in bundle.values()), DTYPES["float32"])
        wanted = there if whole else there & layers
        made = [fill for fill in spelling.fills if fill.parameter.layer.name in wanted]
        return [fill.tensor(dtype) for fill in made if fill.parameter.name not in bundle]

    def _refuse_slices(self, bundle: Bundle, spelling: Spelling) -> None:
        held, wanted = slices_of(bundle.metadata), spelling.slices
        layers = dict.fromkeys(t.layer for t in bundle.values() if t.layer in held or t.layer in wanted)
        problems = [
            Problem("slice", f"holds {_told(held.get(layer))}, the dialect has {_told(wanted.get(layer))}", layer)
            for layer in layers
            if held.get(layer) != wanted.get(layer)
        ]
        if problems:
            raise NameMapError(
                f"{self.id} cannot be written in dialect {spelling.dialect.name}",
                problems,
                "outputs that were dropped cannot come back: start from a file that holds all of them",
            )

    def _metadata(self, bundle: Bundle, dialect: Dialect) -> dict[str, Any]:
        epsilon = {
            layer.name: layer.attributes["epsilon"] for layer in self.network.layers if "epsilon" in layer.attributes
        }
        kept = {key: value for key, value in bundle.metadata.items() if key not in ("layers", "keras", "changes")}
        return {**kept, "architecture": self.id, "dialect": dialect.name, "epsilon": epsilon}


def _told(cut: Mapping[str, Any] | None) -> str:
    return "all outputs" if cut is None else f"outputs {cut['start']} to {cut['stop'] - 1} of {cut['of']}"


def _with_unit_axes(tensor: Tensor, canonical: Mapping[str, Layout]) -> Tensor:
    """The tensor with the unit axes of its canonical layout, which its source may not have kept (C for 11C)."""
    layout = canonical.get(tensor.name)
    if layout is None or tensor.layout is None or "1" in tensor.layout.axes or "1" not in layout.axes:
        return tensor
    return tensor.to(layout)


def _as_parameter(
    tensor: Tensor, parameter: Parameter, port: NetLayer, incoming: FeatureMap | None, convention: Convention
) -> Tensor:
    """The tensor as a weight of the architecture; ``port`` is its layer as the dialect has it, ``incoming`` what that
    takes."""
    # What a file's own graph says comes before what its format is wont to do.
    own = (tensor.layout,) if tensor.layout is not None and tensor.role == parameter.role else ()
    layout = same_axes(parameter.layout, (*own, *convention.layouts.get(parameter.role, ())))
    if own and "?" in parameter.layout.letters:
        # The architecture does not know the size of its input, the file does.
        layout = own[0]
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
    if refuted := layout.check(tensor.shape) or _wrong_channels(parameter, port, incoming, layout, tensor.shape):
        raise FormatError(refuted)
    return renamed.declared(parameter.role, layout)


def _channels(incoming: FeatureMap | None) -> int | None:
    """How many channels a layer takes; of a flattened map its layout says what there is to say."""
    if incoming is None or (incoming.flat and len(incoming.sizes) > 1):
        return None
    return incoming.size("C")


def _wrong_channels(
    parameter: Parameter, port: NetLayer, incoming: FeatureMap | None, layout: Layout, shape: tuple[int, ...]
) -> str | None:
    """What in the shape contradicts the numbers of the architecture, as the dialect has them."""
    expected: dict[str, int] = {}
    taken = _channels(incoming)
    if taken is not None and parameter.part != "bias":
        expected[_TAKES.get(port.op, "C")] = taken
    if parameter.key.endswith((".kernel", ".bias")):
        channels = outputs_of(port)
        if channels is not None:
            expected["O"] = channels
    if parameter.key == "Conv.kernel":
        kernel = port.attributes["kernel_shape"]
        expected |= dict(zip("DHW"[3 - len(kernel) :], kernel, strict=True))
    found = layout.extents(shape)
    if "G" in found:
        # I and O of a grouped kernel are those of one group.
        found |= {letter: found[letter] * found["G"] for letter in "IO"}
    wrong = [
        f"{letter} is {found[letter]}, not {size}" for letter, size in expected.items() if found.get(letter) != size
    ]
    return f"the architecture says otherwise of layout {layout}, shape {shape}: {', '.join(wrong)}" if wrong else None
