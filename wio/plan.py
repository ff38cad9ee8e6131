"""Plans: the steps that take a bundle to a target, checked before anything is read. What is shown is what is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from wio.adapter import Slot, Target
from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError, PlanError, Problem
from wio.gates import join_gates, take_gates
from wio.ops import Op, rearrange
from wio.value_step import BIASES, ValueStep


@dataclass(frozen=True)
class Step:
    """One group of source tensors and the group of target tensors it becomes.

    ``kind``: ``copy`` (as it is), ``keep`` (declared, nothing to do), ``rearrange``, ``join`` or ``split`` (gates),
    ``synthesise`` (no source holds it).
    ``exact`` is whether every bit of every value survives.
    """

    kind: str
    sources: tuple[Tensor, ...]
    slots: tuple[Slot, ...]
    ops: tuple[Op, ...]
    exact: bool = True

    @property
    def reason(self) -> str:
        return next((slot.reason for slot in self.slots if slot.reason), "")

    @property
    def read(self) -> tuple[Tensor, ...]:
        """The sources that were read, not made."""
        return tuple(tensor for tensor in self.sources if tensor.synthesised is None)

    def results(self) -> list[Tensor]:
        """The target tensors, lazy."""
        return [_filled(slot, self.sources) for slot in self.slots]

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "sources": [
                {
                    "name": t.name,
                    "role": t.role,
                    "layout": _text(t.layout),
                    "shape": list(t.shape),
                    "dtype": t.dtype.name,
                }
                for t in self.read
            ],
            "targets": [
                {"name": t.name, "role": t.role, "layout": _text(t.layout), "shape": list(t.shape)}
                for t in self.results()
            ],
            "ops": [op.as_json() for op in self.ops],
            "reason": self.reason,
            "exact": self.exact,
        }


def _text(layout: object) -> str | None:
    return None if layout is None else str(layout)


@dataclass(frozen=True)
class Plan:
    """Every step of a port, what stays behind and why. Made before a value is read, executed lazily.

    ``values`` are the steps that changed values, in order; the sources of ``steps`` are what those left.
    """

    adapter: str
    options: Mapping[str, str]
    steps: tuple[Step, ...]
    dropped: Mapping[str, str]
    notes: tuple[str, ...]
    metadata: Mapping[str, Any]
    values: tuple[ValueStep, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every bit of every value that is taken along survives."""
        return all(value.exact for value in self.values) and all(step.exact for step in self.steps)

    def apply(self) -> Bundle:
        """The target bundle, lazy."""
        return Bundle((tensor for step in self.steps for tensor in step.results()), self.metadata)

    def as_json(self) -> dict[str, Any]:
        return {
            "adapter": self.adapter,
            "options": dict(self.options),
            "values": [step.as_json() for step in self.values],
            "steps": [step.as_json() for step in self.steps],
            "dropped": [{"name": name, "reason": reason} for name, reason in self.dropped.items()],
            "notes": list(self.notes),
            "exact": self.exact,
        }


def make_plan(
    bundle: Bundle, target: Target, adapter: str, options: Mapping[str, str], dropped: Mapping[str, str] | None = None
) -> Plan:
    """The plan that fills every slot of a target from a bundle, every source tensor used once or dropped by name.

    Raises PlanError with everything that stands in the way, at once.
    """
    problems = list(target.problems)
    troubled = {problem.tensor for problem in problems}
    by_role: dict[tuple[str, str | None], list[Tensor]] = {}
    for tensor in bundle.values():
        by_role.setdefault((tensor.layer, tensor.role), []).append(tensor)
    steps: list[Step] = []
    used: dict[str, int] = {}
    for group in _grouped(target.slots):
        try:
            step = _step(group, bundle, by_role)
        except LayoutError as error:
            problems.append(Problem("layout", error.message, group[0].name, error.remedy))
            troubled.update(t.name for t in by_role.get((group[0].source_layer, group[0].role), []))
            continue
        steps.append(step)
        for tensor in step.sources:
            used[tensor.name] = used.get(tensor.name, 0) + 1
    twice = sorted(name for name, count in used.items() if count > 1)
    problems += [Problem("twice", "would be used by more than one step", name) for name in twice]
    unused = [name for name in bundle if name not in used and name not in target.dropped and name not in troubled]
    why = "no step takes it and it is not dropped"
    problems += [Problem("unused", why, name, _unused_remedy(bundle[name])) for name in unused]
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        raise PlanError(f"cannot be taken to {adapter}: {count}", problems)
    left = {**(dropped or {}), **{name: why for name, why in target.dropped.items() if name in bundle}}
    notes = (*_synthesised(bundle), *target.notes)
    return Plan(adapter, dict(options), tuple(map(_marked, steps)), left, notes, target.metadata)


def _marked(step: Step) -> Step:
    """A step whose tensors no source holds says so: what it writes was declared, not read."""
    made = next((tensor.synthesised for tensor in step.sources if tensor.synthesised), None)
    if made is None:
        return step
    reason = f"{made.value:g} throughout: {made.reason}"
    slots = tuple(replace(slot, reason="; ".join(filter(None, (reason, slot.reason)))) for slot in step.slots)
    return replace(step, kind="synthesise", slots=slots, exact=made.exact)


def _synthesised(bundle: Bundle) -> list[str]:
    """One note for each reason why tensors are there that no source holds, and with which a layer is another."""
    by_reason: dict[str, list[str]] = {}
    for tensor in bundle.values():
        if tensor.synthesised and not tensor.synthesised.exact:
            by_reason.setdefault(tensor.synthesised.reason, []).append(f"{tensor.name} = {tensor.synthesised.value:g}")
    return [
        f"CHECK: {len(made)} tensors are made up, not read ({', '.join(made[:4])}{', ...' if len(made) > 4 else ''}): "
        f"{reason}"
        for reason, made in by_reason.items()
    ]


def _unused_remedy(tensor: Tensor) -> str:
    if tensor.role in BIASES:
        # Left out, the bias of a layer in front of a batch norm is missed: its mean counts on it.
        return f"--apply 'fold-bias={tensor.layer}' where a batch norm follows, else --drop '{tensor.name}'"
    return f"--drop '{tensor.name}'"


def _grouped(slots: Iterable[Slot]) -> list[list[Slot]]:
    """Slots that are filled from the same source tensors, together; the order is that of the first of each."""
    groups: dict[tuple[str, str | None, str | None], list[Slot]] = {}
    for slot in slots:
        groups.setdefault((slot.source_layer, slot.role, slot.copy_of), []).append(slot)
    return list(groups.values())


def _step(slots: list[Slot], bundle: Bundle, by_role: Mapping[tuple[str, str | None], list[Tensor]]) -> Step:
    first = slots[0]
    if first.made is not None:
        return Step("synthesise", (first.made,), tuple(slots), ())
    if first.copy_of is not None:
        return Step("copy", (bundle[first.copy_of],), tuple(slots), ())
    sources = tuple(by_role.get((first.source_layer, first.role), ()))
    if not sources:
        raise LayoutError(f"nothing fills it: the source has no {first.role} in layer {first.source_layer!r}")
    _refuse_ambiguous(slots, sources)
    for slot in slots:
        _filled(slot, sources)
    if len(sources) == len(slots) == 1:
        source, slot = sources[0], slots[0]
        if source.layout is None or slot.layout is None:
            raise LayoutError(f"{source.name}: its layout is not declared")
        sizes = {**dict(source.layout.sizes), **dict(slot.layout.sizes)}
        extents = source.layout.extents(source.shape)
        sizes |= {letter: extents[letter] for letter in slot.layout.with_sizes(sizes).unsettled if letter in extents}
        ops = rearrange(source.layout.with_sizes(sizes), slot.layout.with_sizes(sizes))
        return Step("rearrange" if ops else "keep", sources, tuple(slots), ops)
    kind = "join" if len(sources) > len(slots) else "split" if len(slots) > len(sources) else "rearrange"
    return Step(kind, sources, tuple(slots), ())


def _refuse_ambiguous(slots: list[Slot], sources: tuple[Tensor, ...]) -> None:
    """Several tensors of one role in one layer are told apart by their gates, and by nothing else."""
    held = [
        gate for tensor in sources for gate in (tensor.layout.gates if tensor.layout and tensor.layout.gates else "?")
    ]
    wanted = [gate for slot in slots for gate in (slot.layout.gates if slot.layout and slot.layout.gates else "?")]
    if len(sources) == len(slots) == 1 and sorted(held) == sorted(wanted):
        return
    if "?" in held or len(set(held)) != len(held):
        names = ", ".join(tensor.name for tensor in sources)
        raise LayoutError(f"{len(sources)} tensors of layer {slots[0].source_layer!r} are its {slots[0].role}: {names}")
    if sorted(held) != sorted(wanted):
        raise LayoutError(f"the source holds the gates {''.join(held)}, the target wants {''.join(wanted)}")


def _filled(slot: Slot, sources: tuple[Tensor, ...]) -> Tensor:
    """The tensor of a slot: the gates it wants out of its sources, rearranged to its layout."""
    tensor = sources[0]
    if slot.copy_of is None and slot.layout is not None:
        if slot.layout.gates and tensor.layout and tensor.layout.gates:
            tensor = _with_gates(slot.layout.gates, sources)
        tensor = tensor.to(slot.layout)
    return tensor.changed(name=slot.name, layer=slot.layer, origin=slot.origin, role=slot.role)


def _with_gates(wanted: str, sources: tuple[Tensor, ...]) -> Tensor:
    whole = next((t for t in sources if t.layout and t.layout.gates and sorted(t.layout.gates) == sorted(wanted)), None)
    if whole is not None:
        return whole
    parts = []
    for tensor in sources:
        gates = tensor.layout.gates if tensor.layout and tensor.layout.gates else ""
        mine = "".join(gate for gate in wanted if gate in gates)
        if mine:
            parts.append(tensor if sorted(mine) == sorted(gates) else take_gates(tensor, mine))
    return parts[0] if len(parts) == 1 else join_gates(parts)
