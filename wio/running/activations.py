"""What the layers of one file's network give out for an input: in the graph of its architecture, or in its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from wio.architectures.architecture import Architecture
from wio.architectures.registry_draft import settled
from wio.atomic import staging
from wio.errors import PlanError, UsageError, did_you_mean
from wio.lazy import Array, np
from wio.network import Network
from wio.plugins import architecture_named, own_network
from wio.port import Declarations, Resolved, open_resolved
from wio.running.network_input import array_input
from wio.running.network_run import open_network


class LayerOutput(Struct, frozen=True):
    """What one layer gives out: its shape, N C and space, and of the finite values the range and how many are 0."""

    layer: str
    op: str
    shape: tuple[int, ...]
    least: float
    greatest: float
    zeros: float


class Activations(Struct, frozen=True):
    """Every layer's output in the network's order; ``maps`` are those of the layers asked for.

    Maps are N C and space; what is flattened was flattened so, whatever the file's own order.
    """

    network: str
    given: str
    notes: tuple[str, ...]
    layers: tuple[LayerOutput, ...]
    maps: Mapping[str, Array]


def activations(
    path: Path | str,
    array: Array,
    *,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    data_format: str | None = None,
    layers: Sequence[str] = (),
) -> Activations:
    """Runs a file as a network on an array and gives what each layer does.

    The network is that of ``told.arch``, or that a .wio file names, else the file's own graph or config. The array's
    axes are the input's in the network's order, with N before them or without; ``data_format`` says otherwise.
    Raises UsageError where no graph is known or no layer has the name, WioError where it cannot be run.
    """
    side = open_resolved(path, adapter, options, told)
    side = replace(side, options=side.adapter.checked(options or {}, writing=False))
    identity = side.bundle.metadata.get("architecture")
    own = identity is None
    architecture = _own(side, Path(path), array, data_format) if own else architecture_named(str(identity))
    fed = array_input(architecture, array, data_format)
    with staging() as folder:
        try:
            run = open_network(architecture, side, Path(path), folder / "network.onnx")
        except PlanError as error:
            if not own:
                raise
            # What stands in the way of the layers; weights that are then left over follow from that.
            problems = [replace(each, remedy=None) for each in error.problems if each.tensor is None]
            raise PlanError(
                f"{Path(path).name}: its own graph cannot be run on an input of shape {list(array.shape)}",
                problems or error.problems,
                "--data-format says how the input lies; or --arch ID, if the registry has the network",
            ) from None
        ops = {layer.name: layer.op for layer in architecture.network.layers}
        names = [name for name, op in ops.items() if op != "Input" and name in run.session.shapes]
        for name in layers:
            if name not in names:
                raise UsageError(f"no layer {name!r} gives anything out", remedy=did_you_mean(name, names))
        found: list[LayerOutput] = []
        maps: dict[str, Array] = {}
        for chunk in run.chunks(names, fed):
            results = run.session.run(chunk, fed.arrays)
            found += [_told(name, ops[name], results[name]) for name in chunk]
            maps |= {name: results[name] for name in chunk if name in layers}
    return Activations(architecture.title, fed.told, run.notes, tuple(found), maps)


def _told(layer: str, op: str, values: Array) -> LayerOutput:
    finite = values[np.isfinite(values)]
    least, greatest = (float(finite.min()), float(finite.max())) if finite.size else (float("nan"),) * 2
    return LayerOutput(layer, op, values.shape, least, greatest, float((values == 0).mean()) if values.size else 0.0)


def _own(side: Resolved, path: Path, array: Array, data_format: str | None) -> Architecture:
    """The file's own graph as an architecture whose input has the sizes of the array.

    In which order its axes lie is what the layers of the graph declare, or ``data_format``.
    """
    network = own_network(side.bundle, side.adapter, path, side.options)
    if network is None:
        raise UsageError(
            f"{path.name} holds no graph to run, and which network it is was not declared",
            remedy="--arch ID (wio registry list has the ids)",
        )
    network = settled(network, side.bundle)
    entries = [layer for layer in network.layers if layer.op == "Input"]
    if len(entries) != 1:
        raise UsageError(f"the graph of {path.name} has {len(entries)} inputs, and there is one array")
    entry = entries[0]
    if not entry.attributes.get("sizes") or not entry.attributes.get("axes") or None in entry.attributes["sizes"]:
        axes = _axes(network, path)
        if array.ndim not in (len(axes), len(axes) + 1):
            raise UsageError(f"the input has {array.ndim} axes; {path.name} takes [N] {' '.join(axes)}")
        first, last = ("C", *(axis for axis in axes if axis != "C")), (*(axis for axis in axes if axis != "C"), "C")
        lies = {None: axes, "channels_first": first, "channels_last": last}[data_format]
        sizes = dict(zip(lies, array.shape[-len(axes) :], strict=True))
        filled = replace(entry, attributes={"axes": axes, "sizes": [sizes[axis] for axis in axes]})
        network = Network(tuple(filled if layer is entry else layer for layer in network.layers))
    return Architecture("the file's own graph", f"{path.name}, its own graph", network, {})


def _axes(network: Network, path: Path) -> tuple[str, ...]:
    """The axes of the input, as the first layer that has an order of axes declares it."""
    for layer in network.layers:
        letters, data_format = layer.attributes.get("letters"), layer.attributes.get("data_format")
        if letters and data_format:
            return ("C", *letters) if data_format == "channels_first" else (*letters, "C")
        if layer.op == "Gemm":
            return ("C",)
    raise UsageError(f"no layer of {path.name} says in which order the axes of its input lie", remedy="--arch ID")
