"""Targets of formats that say nothing of layouts: every tensor as it is."""

from __future__ import annotations

from msgspec.structs import replace

from wio.adapter import Convention, Slot, Target
from wio.bundle import Bundle
from wio.errors import Problem
from wio.target import plain_target


def kept_target(bundle: Bundle, adapter: str, problems: tuple[Problem, ...]) -> Target:
    """Each tensor copied, under its name in the bundle, or under that of its source where that is of this format.

    Where a dialect states layouts, they are those of the file, and the tensors are brought to them.
    """
    names = bundle.metadata.get("names", {})
    if "layouts" in bundle.metadata:
        note = f"names and layouts are those of the dialect {bundle.metadata['dialect']}"
        target = plain_target(bundle, Convention({}), lambda tensor: tensor.name, {}, (note,))
        return replace(target, problems=(*target.problems, *problems))
    own = adapter in bundle.metadata
    slots, found, seen = [], list(problems), set()
    for tensor in bundle.values():
        name = names.get(tensor.name) or ((tensor.origin or tensor.name) if own else tensor.name)
        if name in seen:
            found.append(Problem("twice", "two tensors would have this name", name))
        seen.add(name)
        why = "the format keeps every layout as it is"
        slots.append(Slot(name, tensor.role, tensor.layout, tensor.layer, tensor.layer, None, why, tensor.name))
    declared = any(tensor.layout is not None for tensor in bundle.values())
    note = f"{adapter} files do not record roles and layouts: whoever reads it must know them (a .wio file says them)"
    return Target(tuple(slots), dict(bundle.metadata), {}, tuple(found), (note,) if declared else ())
