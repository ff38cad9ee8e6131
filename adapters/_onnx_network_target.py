"""What a model of a whole network holds: the weights as its nodes take them, and the graph around them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from wio.adapter import Convention, Slot, Target
from wio.adapters._onnx_convention import CONVENTION
from wio.adapters._onnx_nodes import GRAPH, IR_VERSION, OPERATORS, OPSET, graph
from wio.architectures.parameters import CHANGES_NOTHING, PARTS, Part
from wio.bundle import Bundle, Synthesis, Tensor, synthesised
from wio.errors import Problem
from wio.execution import Execution, Run, execution, rows_reason, sizes, weights_dtype
from wio.layout import Layout
from wio.network import Network
from wio.roles import NOT_WEIGHTS, same_axes

WEIGHTS_ALONE = "--option graph=none writes the weights alone"
_TYPES = ("float32", "float16", "bfloat16", "float64")
_CONVENTION = Convention.of(CONVENTION).layouts


def network_target(bundle: Bundle, network: Network, every_output: bool) -> Target:
    """Slots in the order of the nodes that take them, named as the tensors are canonically, or in a dialect."""
    run = execution(network, OPERATORS)
    problems = [replace(problem, remedy=WEIGHTS_ALONE) for problem in run.problems]
    names = bundle.metadata.get("names", {})
    by_role: dict[tuple[str, str | None], Tensor] = {}
    for tensor in bundle.values():
        by_role.setdefault((tensor.layer, tensor.role), tensor)
    slots: list[Slot] = []
    weights: dict[str, dict[str, str]] = {}
    for each in run.runs:
        layer = each.layer.name
        for part in PARTS.get(each.layer.op, ()):
            source, mean = by_role.get((layer, part.role)), by_role.get((layer, "batch_norm.mean"))
            name = f"{layer}/{part.name}" if source is None else names.get(source.name) or source.name
            if each.has(part):
                slots.append(_slot(name, part.role, each, source))
            elif each.layer.op == "BatchNormalization" and part.name in CHANGES_NOTHING:
                # Without the mean the plan fails for that.
                slots += [] if mean is None else [_changing_nothing(name, part, mean)]
            else:
                continue
            weights.setdefault(layer, {})[part.role] = name
    dtype, trouble = weights_dtype(bundle, _TYPES)
    problems += trouble
    problems += _clashes(run, slots)
    dropped = {n: f"its role is {t.role}: no weight of the network" for n, t in bundle.items() if t.role in NOT_WEIGHTS}
    told: dict[str, Any] = {
        key: bundle.metadata[key] for key in ("architecture", "dialect", "epsilon") if key in bundle.metadata
    }
    made = {} if problems else {GRAPH: graph(run, weights, dtype, every_output)}
    return Target(tuple(slots), {**told, **made}, dropped, tuple(problems), tuple(_notes(run)))


def _notes(run: Execution) -> list[str]:
    inputs = [each for each in run.runs if each.layer.op == "Input"]
    notes = [f"the whole network, opset {OPSET}, IR version {IR_VERSION}: maps are N C and space, pads explicit"]
    for each in inputs:
        axes = zip(_first(each.outgoing.axes), sizes(each.outgoing, first=True), strict=True)
        notes.append(f"it takes {each.layer.name}: N {' '.join(f'{axis}={size}' for axis, size in axes)}")
    notes.append(f"it gives out {', '.join(run.outputs)}")
    if run.left_out:
        notes.append(f"left out, for it works in training only: {', '.join(run.left_out)}")
    return notes


def _first(axes: tuple[str, ...] | None) -> list[str]:
    return ["C", *(axis for axis in axes or () if axis != "C")]


def _slot(name: str, role: str, run: Run, source: Tensor | None) -> Slot:
    layer = run.layer.name
    if source is None or source.layout is None:
        return Slot(name, role, None, layer, layer)
    layout = same_axes(source.layout, _CONVENTION.get(role, ()))
    reason = ""
    if role == "prelu.alpha":
        layout = _slope(source.layout, run)
    elif role == "dense.kernel" and layout is not None:
        reason = rows_reason(source.layout, layout, "ONNX")
    return Slot(name, role, layout or source.layout, layer, layer, None, reason)


def _changing_nothing(name: str, part: Part, beside: Tensor) -> Slot:
    """A weight that the network does without and ONNX's operator takes: the number that changes nothing."""
    value = CHANGES_NOTHING[part.name]
    reason = f"the layer has none and ONNX's BatchNormalization takes one: {value:g} changes nothing"
    why, layer = Synthesis(value, reason), beside.layer
    made = synthesised(name, part.role, beside.layout, layer, beside.shape, beside.dtype, why)
    return Slot(name, part.role, beside.layout, layer, layer, made=made)


def _slope(layout: Layout, run: Run) -> Layout:
    """A slope as PRelu takes it: broadcast to N C and space, with unit axes where the source shares it."""
    axes = _first(run.incoming[0].axes)
    return Layout(tuple(axis if axis in layout.letters else "1" for axis in axes))


def _clashes(run: Execution, slots: list[Slot]) -> list[Problem]:
    """Values and initializers of a graph share their names."""
    layers = {each.layer.name for each in run.runs}
    message = "a layer has this name too, and in ONNX what it gives out is called so"
    return [Problem("twice", message, slot.name, WEIGHTS_ALONE) for slot in slots if slot.name in layers]
