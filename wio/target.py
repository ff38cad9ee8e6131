"""Targets of formats that keep one array under one name: what most adapters need to write (Keras HDF5 needs more)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from wio.adapter import Convention, Slot, Target
from wio.bundle import Bundle, Tensor, declare_remedy
from wio.errors import LayoutError, Problem
from wio.layout import Layout, settled_forms
from wio.recurrent import RecurrentLayers, behaviour_notes, is_recurrent, reset_problem
from wio.recurrent_weights import IDLE, bias_layouts, gathered, idle_peephole
from wio.roles import NOT_WEIGHTS, WAYS_ON, same_axes


def unchanged_target(bundle: Bundle, metadata: Mapping[str, Any] | None = None) -> Target:
    """Every tensor as it is, under the name it had in its source: the road back into the format it came from."""
    slots = tuple(
        Slot(
            t.origin or t.name,
            t.role,
            t.layout,
            t.layer,
            t.layer,
            None,
            "the target keeps it as the source does",
            t.name,
        )
        for t in bundle.values()
    )
    notes = ("source and target follow one convention: nothing is rearranged",)
    return Target(slots, dict(bundle.metadata if metadata is None else metadata), {}, _twice(slots), notes)


def plain_target(
    bundle: Bundle,
    convention: Convention,
    spell: Callable[[Tensor], str],
    metadata: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> Target:
    """One slot for each declared weight, named by ``spell``, in the layout that ``convention`` has for its role.

    Where the bundle's architecture has a dialect for the target, that dialect's names hold and ``spell`` is not asked,
    and so do the layouts that it states.
    What is undeclared, has no layout in the format, or has rows of unknown make-up, is a problem of the target. Tensors
    that are no weights (optimizer slots, counters) are dropped, and say so.
    """
    names = bundle.metadata.get("names", {})
    if "layouts" in bundle.metadata:
        convention = Convention.of({role: tuple(texts) for role, texts in bundle.metadata["layouts"].items()})
    layers = RecurrentLayers.of(bundle)
    together = any("F" in layout.letters for layout in convention.layouts.get("lstm.kernel", ()))
    exact = {(tensor.layer, tensor.role): tensor for tensor in bundle.values()}
    whole, problems = gathered(bundle, layers, together=together)
    slots, dropped = [], {}
    done: set[tuple[str, str | None]] = set()
    for tensor in whole.values():
        if tensor.role in NOT_WEIGHTS:
            dropped[tensor.name] = f"its role is {tensor.role}: no weight of the network"
            continue
        if tensor.role not in convention.layouts and idle_peephole(tensor):
            dropped[tensor.name] = IDLE
            continue
        if tensor.layout is not None and tensor.layout.gates and (tensor.layer, tensor.role) in done:
            # Where a source keeps gates apart, the first stands for all, which the plan joins.
            continue
        done.add((tensor.layer, tensor.role))
        if wrong := reset_problem(tensor, convention, layers, "the format"):
            problems.append(wrong)
            continue
        try:
            kept = _kept(tensor, convention, layers)
        except LayoutError as error:
            problems.append(Problem("layout", error.message, tensor.name, error.remedy))
            continue
        for role, layout in kept:
            named = tensor if role == tensor.role else exact.get((tensor.layer, role)) or replace(tensor, role=role)
            name = names.get(tensor.name) or spell(named)
            slots.append(Slot(name, role, layout, tensor.layer, tensor.layer))
    told = behaviour_notes(((s.source_layer, s.layer) for s in slots if is_recurrent(s.role)), layers)
    return Target(tuple(slots), metadata, dropped, (*problems, *_twice(slots)), (*notes, *told))


def _kept(tensor: Tensor, convention: Convention, layers: RecurrentLayers) -> list[tuple[str, Layout]]:
    """The roles and layouts in which a format keeps one weight: one of each, but for the two biases of a layer."""
    if is_recurrent(tensor.role) and tensor.role is not None and tensor.role.endswith(".bias") and tensor.layout:
        return bias_layouts(tensor, convention, layers)
    return [(str(tensor.role), _layout(tensor, convention))]


def made_up(role: str | None) -> str | None:
    """How to have a weight that the source lacks and that does nothing, where there is such a step."""
    part = {"batch_norm.gamma": "gamma", "batch_norm.beta": "beta"}.get(role or "")
    return None if part is None else f"--apply '{part}=*' makes one that does nothing"


def _twice(slots: Sequence[Slot]) -> tuple[Problem, ...]:
    taken = Counter(slot.name for slot in slots)
    return tuple(Problem("twice", "two tensors would have this name", n) for n, count in taken.items() if count > 1)


def _layout(tensor: Tensor, convention: Convention) -> Layout:
    if tensor.role is None or tensor.layout is None:
        what = "role" if tensor.role is None else "layout"
        raise LayoutError(f"its {what} is not declared, so it cannot be converted", remedy=declare_remedy(tensor.name))
    found = same_axes(tensor.layout, convention.layouts.get(tensor.role, ()))
    if found is None:
        known = ", ".join(map(str, convention.layouts.get(tensor.role, ()))) or "none"
        remedy = WAYS_ON.get(tensor.role)
        message = f"the format has no {tensor.role} in layout {tensor.layout}; its layouts for it: {known}"
        raise LayoutError(message, remedy=remedy)
    if "?" in found.letters:
        raise LayoutError(
            f"what the axis (?) of {tensor.layout} is made of is not declared, and the target may order it otherwise",
            remedy=f"--declare '{tensor.name}={tensor.role}:LAYOUT', where LAYOUT is {settled_forms(tensor.layout)}",
        )
    return found
