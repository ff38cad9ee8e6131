"""Two weight files run as networks on the same input: whether their outputs agree, and where they first part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins
from msgspec.structs import asdict

from wio.architectures.architecture import Architecture
from wio.atomic import staging
from wio.bundle import Bundle
from wio.comparing.comparison import check_tolerances
from wio.comparing.diff import open_sides
from wio.errors import UsageError, WioError
from wio.execution import execution
from wio.lazy import Array, np
from wio.network import OPERATORS, Network
from wio.plugins import architecture_named
from wio.port import Declarations, Resolved
from wio.running.network_input import NetworkInput, array_input, picture_input, random_input
from wio.running.network_run import NetworkRun, open_network

_TOP = 5


class Bound(Struct, frozen=True):
    """How far apart two maps may be anywhere: ``max(atol, rtol * max|a|)``, by default 1e-4 * max(1, max|a|)."""

    rtol: float = 1e-4
    atol: float = 1e-4

    def __post_init__(self) -> None:
        check_tolerances(self.rtol, self.atol)

    def allows(self, a: Array) -> float:
        return max(self.atol, self.rtol * float(np.abs(a).max(initial=0)))


class Compared(Struct, frozen=True):
    """What one layer gives in both networks.

    ``max_abs`` is None where a value of either is not finite: such agree with nothing, for they prove nothing.
    ``max_rel`` is ``max_abs`` over the largest absolute value of A, None where that is 0.
    """

    layer: str
    shape: tuple[int, ...]
    max_abs: float | None
    max_rel: float | None
    allowed: float

    @property
    def agrees(self) -> bool:
        return self.max_abs is not None and self.max_abs <= self.allowed


class Parting(Struct, frozen=True):
    """The first layer, in the network's order, whose outputs are too far apart, and the last before it that agreed.

    ``weights`` are the layer's: the canonical name, and the names in A and in B.
    """

    compared: Compared
    op: str
    inputs: tuple[str, ...]
    weights: tuple[tuple[str, str, str], ...]
    last_agreed: str | None


class Output(Struct, frozen=True):
    """An output of one file's network: its shape and the range of its values, None where one is not finite."""

    layer: str
    shape: tuple[int, ...]
    least: float | None
    greatest: float | None


class Side(Struct, frozen=True):
    """One file as a network that was run. ``top``: the first sample's likeliest classes with their values."""

    file: str
    outputs: tuple[Output, ...]
    top: tuple[tuple[int, float], ...]
    notes: tuple[str, ...]


class Verification(Struct, frozen=True):
    """What came of it. With one file nothing is compared; ``layers`` is how many layers were."""

    architecture: str
    given: str
    bound: Bound
    sides: tuple[Side, ...]
    outputs: tuple[Compared, ...] = ()
    layers: int = 0
    parting: Parting | None = None

    @property
    def ok(self) -> bool:
        """Whether everything compared agrees; of one file, whether its outputs are finite."""
        if len(self.sides) == 1:
            return all(output.least is not None for output in self.sides[0].outputs)
        return self.parting is None and all(each.agrees for each in self.outputs)

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "ok": self.ok,
            "architecture": self.architecture,
            "input": self.given,
            "sides": [to_builtins(side) for side in self.sides],
        }
        if len(self.sides) == 1:
            return document
        parting = None
        if self.parting is not None:
            parting = {**asdict(self.parting.compared), "op": self.parting.op, "inputs": list(self.parting.inputs)}
            parting["weights"] = [dict(zip(("name", "a", "b"), names, strict=True)) for names in self.parting.weights]
            parting["last_agreed"] = self.parting.last_agreed
        return {
            **document,
            "tolerance": asdict(self.bound),
            "outputs": [{**asdict(each), "agrees": each.agrees} for each in self.outputs],
            "layers_compared": self.layers,
            "first_difference": parting,
        }


def verify(
    paths: Sequence[Path | str],
    *,
    adapters: Sequence[str | None] | None = None,
    options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    given: Array | Path | None = None,
    data_format: str | None = None,
    seed: int = 0,
    bound: Bound | None = None,
    outputs_only: bool = False,
) -> Verification:
    """Runs one file, or two and compares them, in the graph of the architecture that ``told`` or the files name.

    ``given`` is an array, the path of a picture, or None for random numbers from ``seed``. Every layer is compared too,
    for an output such as a softmax hides much; with ``outputs_only`` only where outputs are too far apart. The networks
    are written to a temporary folder, however large, and run by onnxruntime (extra ``verify``).
    Raises WioError where a file is not that network, or the network cannot be run.
    """
    bound = bound or Bound()
    sides = open_sides(paths, adapters or [None] * len(paths), options or {}, told or Declarations())
    architecture = _common_architecture(sides, paths)
    fed = _input(architecture, given, data_format, seed)
    outputs = execution(architecture.network, OPERATORS).outputs
    with staging() as folder:
        runs = [
            open_network(architecture, side, Path(path), folder / f"{k}.onnx")
            for k, (side, path) in enumerate(zip(sides, paths, strict=True))
        ]
        results = [run.session.run(outputs, fed.arrays) for run in runs]
        compared, parting, layers = [], None, 0
        if len(runs) > 1:
            compared = [_compared(name, results[0][name], results[1][name], bound) for name in outputs]
            if not outputs_only or not all(each.agrees for each in compared):
                parting, layers = _first_parting(architecture.network, runs, fed, bound)
    found = tuple(
        _side(architecture, Path(path), run, result, fed)
        for path, run, result in zip(paths, runs, results, strict=True)
    )
    return Verification(architecture.id, fed.told, bound, found, tuple(compared), layers, parting)


def _common_architecture(sides: Sequence[Resolved], paths: Sequence[Path | str]) -> Architecture:
    known = [side.bundle.metadata.get("architecture") for side in sides]
    for identity, path in zip(known, paths, strict=True):
        if identity is None:
            raise UsageError(
                f"{path}: which network it is was not declared", remedy="--arch ID (wio registry list has the ids)"
            )
        if identity != known[0]:
            raise UsageError(f"the files hold two architectures, {known[0]} and {identity}")
    return architecture_named(str(known[0]))


def _input(architecture: Architecture, given: Array | Path | None, data_format: str | None, seed: int) -> NetworkInput:
    if given is None or isinstance(given, Path):
        if data_format is not None:
            raise UsageError("a data format is that of an array", remedy="leave --data-format out")
        return random_input(architecture, seed) if given is None else picture_input(architecture, given)
    return array_input(architecture, given, data_format)


def _compared(layer: str, a: Array, b: Array, bound: Bound) -> Compared:
    allowed = bound.allows(a)
    if a.shape != b.shape:
        raise WioError(f"layer {layer!r} gives {list(a.shape)} in one network and {list(b.shape)} in the other")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Compared(layer, a.shape, None, None, bound.atol)
    farthest = float(np.abs(a.astype(np.float64) - b).max(initial=0))
    peak = float(np.abs(a).max(initial=0))
    return Compared(layer, a.shape, farthest, farthest / peak if peak else None, allowed)


def _first_parting(
    network: Network, runs: Sequence[NetworkRun], fed: NetworkInput, bound: Bound
) -> tuple[Parting | None, int]:
    """The first layer that parts, and how many were compared; only some layers' maps are held at a time."""
    first, second = runs
    layers = {layer.name: layer for layer in network.layers}
    names = [name for name, layer in layers.items() if layer.op != "Input" and name in first.session.shapes]
    last, count = None, 0
    for chunk in first.chunks(names, fed):
        ours, theirs = (run.session.run(chunk, fed.arrays) for run in (first, second))
        for name in chunk:
            count += 1
            compared = _compared(name, ours[name], theirs[name], bound)
            if not compared.agrees:
                layer = layers[name]
                weights = tuple(_weights(name, first.bundle, second.bundle))
                return Parting(compared, layer.op, layer.inputs, weights, last), count
            last = name
    return None, count


def _weights(layer: str, a: Bundle, b: Bundle) -> Iterator[tuple[str, str, str]]:
    for name, tensor in a.items():
        if tensor.layer == layer and name in b:
            yield name, tensor.origin or name, b[name].origin or name


def _side(
    architecture: Architecture, path: Path, run: NetworkRun, result: Mapping[str, Array], fed: NetworkInput
) -> Side:
    classes = architecture.classes
    top: tuple[tuple[int, float], ...] = ()
    if classes is not None and not fed.random:
        values = result[classes.output][0]
        top = tuple((int(k), float(values[k])) for k in np.argsort(-values, kind="stable")[:_TOP])
    outputs = []
    for name, values in result.items():
        finite = bool(np.isfinite(values).all())
        least, greatest = (float(values.min()), float(values.max())) if finite else (None, None)
        outputs.append(Output(name, values.shape, least, greatest))
    return Side(path.name, tuple(outputs), top, run.notes)
