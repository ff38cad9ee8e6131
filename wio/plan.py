"""Plans: the steps that take a bundle to a target, checked before anything is read. What is shown is what is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from wio.adapter import Slot, Target
from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError, PlanError, Problem
from wio.layout import Layout
from wio.metadata import stored_times
from wio.ops import Op, rearrange
from wio.recurrent import RecurrentLayers, family, is_recurrent
from wio.recurrent_weights import assembled, bias_step, left_behind, regrouped
from wio.roles import NOT_WEIGHTS
from wio.second_names import note_of, second_names
from wio.values.step import ValueStep


class Step(Struct, frozen=True):
    """One group of source tensors and the group of target tensors it becomes.

    ``kind``: ``copy`` (as it is), ``keep`` (declared, nothing to do), ``rearrange``, ``join`` or ``split`` (gates,
    biases, directions), ``sum`` (two biases) or ``synthesise`` (no source holds it). ``why`` is the plan's own reason.
    ``exact`` is whether every bit of every value survives.
    """

    kind: str
    sources: tuple[Tensor, ...]
    slots: tuple[Slot, ...]
    ops: tuple[Op, ...]
    layers: RecurrentLayers = RecurrentLayers({})
    exact: bool = True
    why: str = ""

    @property
    def reason(self) -> str:
        told = next((slot.reason for slot in self.slots if slot.reason), "")
        return "; ".join(filter(None, (self.why, told)))

    @property
    def read(self) -> tuple[Tensor, ...]:
        """The sources that were read, not made."""
        return tuple(tensor for tensor in self.sources if tensor.synthesised is None)

    def results(self) -> list[Tensor]:
        """The target tensors, lazy."""
        return [_filled(slot, self.sources, self.layers) for slot in self.slots]

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


class Plan(Struct, frozen=True):
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
    problems = _with_factors(bundle, target.problems)
    layers = RecurrentLayers.of(bundle)
    by_role: dict[tuple[str, str | None], list[Tensor]] = {}
    for tensor in bundle.values():
        by_role.setdefault((layers.whole(tensor.layer), family(tensor.role)), []).append(tensor)
    troubled = {problem.tensor for problem in problems}
    named = [bundle[name] for name in troubled if name is not None and name in bundle]
    for tensor in [tensor for tensor in named if is_recurrent(tensor.role)]:
        troubled.update(t.name for t in by_role[layers.whole(tensor.layer), family(tensor.role)])
    steps: list[Step] = []
    used: dict[str, int] = {}
    for slots, sources in _grouped(target.slots, bundle, by_role, layers):
        try:
            step = _step(slots, sources, layers)
        except LayoutError as error:
            problems.append(Problem("layout", error.message, slots[0].name, error.remedy))
            troubled.update(tensor.name for tensor in sources)
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
    # Beside its own format, a .wio file keeps what a source says of its tensors' names.
    keeps = adapter in ("wio", bundle.metadata.get("adapter"))
    unnamed = note_of(bundle, second_names(target.metadata) if keeps else {})
    notes = (*_synthesised(bundle), *filter(None, (unnamed,)), *target.notes)
    return Plan(adapter, dict(options), tuple(map(_marked, steps)), left, notes, target.metadata)


def _with_factors(bundle: Bundle, problems: Iterable[Problem]) -> list[Problem]:
    """The problems, and one for each tensor that is stored times a factor and is not known for what it is before that.

    Declared to be the mean or variance it would be taken along as many times too large.
    """
    factors = stored_times(bundle.metadata)
    found = list(problems)
    stuck = {problem.tensor for problem in found}
    for name, tensor in bundle.items() if factors else ():
        layer, factor = factors.get(tensor.origin or name, ("", 1.0))
        if layer and (name in stuck or tensor.role not in (None, *NOT_WEIGHTS)):
            what = f"is stored times the factor {factor!r} and is no {tensor.role or 'statistic'} before it is divided"
            found = [problem for problem in found if problem.tensor != name]
            found.append(Problem("value", what, name, f"--apply 'unscale={layer}'"))
    return found


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
    from wio.values.step import BIASES

    if tensor.role in BIASES:
        # Left out, the bias of a layer in front of a batch norm is missed: its mean counts on it.
        return f"--apply 'fold-bias={tensor.layer}' where a batch norm follows, else --drop '{tensor.name}'"
    return f"--drop '{tensor.name}'"


_Groups = list[tuple[list[Slot], tuple[Tensor, ...]]]


def _grouped(
    slots: Iterable[Slot],
    bundle: Bundle,
    by_role: Mapping[tuple[str, str | None], list[Tensor]],
    layers: RecurrentLayers,
) -> _Groups:
    """Slots that are filled from the same source tensors, together; the order is that of the first of each."""
    groups: dict[object, tuple[list[Slot], tuple[Tensor, ...]]] = {}
    for slot in slots:
        sources: tuple[Tensor, ...] = ()
        if slot.copy_of is not None:
            sources = (bundle[slot.copy_of],)
        elif slot.made is None:
            sources = _sources(slot, by_role, layers)
        alone = slot.name if slot.made is not None else None
        key = (slot.copy_of, tuple(t.name for t in sources) or (slot.source_layer, slot.role, alone))
        groups.setdefault(key, ([], sources))[0].append(slot)
    return list(groups.values())


def _sources(
    slot: Slot, by_role: Mapping[tuple[str, str | None], list[Tensor]], layers: RecurrentLayers
) -> tuple[Tensor, ...]:
    """The tensors that a slot is made of: those of its layer, or direction of one, and of its role or kin."""
    whole = layers.whole(slot.source_layer)
    found = [
        tensor
        for tensor in by_role.get((whole, family(slot.role)), [])
        if whole == slot.source_layer or tensor.layer in (whole, slot.source_layer)
    ]
    alike = [tensor for tensor in found if tensor.role == slot.role]
    return tuple(alike if alike and slot.role != family(slot.role) else found)


def _step(slots: list[Slot], sources: tuple[Tensor, ...], layers: RecurrentLayers) -> Step:
    first = slots[0]
    if first.made is not None:
        return Step("synthesise", (first.made,), tuple(slots), ())
    if first.copy_of is not None:
        return Step("copy", sources, tuple(slots), ())
    if not sources:
        raise LayoutError(f"nothing fills it: the source has no {first.role} in layer {first.source_layer!r}")
    _refuse_ambiguous(slots, sources)
    left = left_behind([(slot.role, slot.layout, slot.source_layer) for slot in slots], sources, layers)
    if left is not None:
        raise LayoutError(f"the target takes only {left} from {sources[0].name}")
    wanted = [(slot.role, slot.layout) for slot in slots]
    made = bias_step(wanted, sources, layers.reset_after(first.source_layer))
    for slot in slots:
        _filled(slot, sources, layers)
    if made is not None:
        kind, why = made
        return Step(kind, sources, tuple(slots), (), layers, exact=kind != "sum", why=why)
    if len(sources) == len(slots) == 1:
        source, slot = sources[0], slots[0]
        if source.layout is None or slot.layout is None:
            raise LayoutError(f"{source.name}: its layout is not declared")
        sizes = {**dict(source.layout.sizes), **dict(slot.layout.sizes)}
        extents = source.layout.extents(source.shape)
        sizes |= {letter: extents[letter] for letter in slot.layout.with_sizes(sizes).unsettled if letter in extents}
        ops = rearrange(source.layout.with_sizes(sizes), slot.layout.with_sizes(sizes))
        return Step("rearrange" if ops else "keep", sources, tuple(slots), ops, layers)
    kind = "join" if len(sources) > len(slots) else "split" if len(slots) > len(sources) else "rearrange"
    return Step(kind, sources, tuple(slots), (), layers, why=regrouped(wanted, sources))


def _refuse_ambiguous(slots: list[Slot], sources: tuple[Tensor, ...]) -> None:
    """Several tensors of one role in one layer are told apart by their gates, and by nothing else."""
    held: dict[tuple[str, str | None], list[str]] = {}
    for tensor in sources:
        held.setdefault((tensor.layer, tensor.role), []).extend(_gates(tensor.layout))
    wanted: dict[tuple[str, str | None], list[str]] = {}
    for slot in slots:
        wanted.setdefault((slot.source_layer, slot.role), []).extend(_gates(slot.layout))
    for (layer, role), gates in held.items():
        if len(set(gates)) != len(gates):
            names = [tensor.name for tensor in sources if (tensor.layer, tensor.role) == (layer, role)]
            raise LayoutError(f"{len(names)} tensors of layer {layer!r} are its {role}: {', '.join(names)}")
        for each in wanted.values():
            if sorted(gates) != sorted(each):
                raise LayoutError(f"the source holds the gates {''.join(gates)}, the target wants {''.join(each)}")


def _gates(layout: Layout | None) -> str:
    return layout.gates if layout is not None and layout.gates else "?"


def _filled(slot: Slot, sources: tuple[Tensor, ...], layers: RecurrentLayers) -> Tensor:
    """The tensor of a slot: what it wants out of its sources, rearranged to its layout."""
    tensor = sources[0]
    if slot.copy_of is None and slot.layout is not None:
        tensor = assembled(slot.role, slot.layout, slot.source_layer, sources, layers).to(slot.layout)
    return tensor.changed(name=slot.name, layer=slot.layer, origin=slot.origin, role=slot.role)
