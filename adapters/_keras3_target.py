"""What a Keras 3 file made of a bundle holds: the variables of a template, or of the file that the bundle came from.

Keras finds variables by their place in the tree, which only a model's config or code can tell, or a network of the
registry; without either wio fills an existing tree, variable by variable, and never makes one up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wio.adapter import Convention, Slot, Target
from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError, Problem
from wio.layout import Layout
from wio.recurrent import RecurrentLayers, behaviour_notes, is_recurrent, template_reset_problem
from wio.recurrent_weights import IDLE, filling, gathered, idle_peephole
from wio.roles import NOT_WEIGHTS, same_axes
from wio.target import made_up

FACTS = "keras3"
NEEDS_TEMPLATE = (
    "a Keras 3 file is written into the tree of an existing one: what stands where, only a saved model of the same "
    "network tells"
)
TEMPLATE_REMEDY = (
    "save the untrained model once, model.save('MODEL.keras'), and give --template MODEL.keras (a .weights.h5 "
    "of it serves only where tensors have its names)"
)


def no_template() -> Problem:
    """Why a bundle of another format cannot become a Keras 3 file by itself."""
    return Problem("template", NEEDS_TEMPLATE, None, TEMPLATE_REMEDY)


def same_format_target(bundle: Bundle, convention: Convention) -> Target:
    """The road back into the tree that the bundle came from."""
    facts = bundle.metadata[FACTS]
    by_path = {tensor.origin or name: tensor for name, tensor in bundle.items()}
    slots: list[Slot] = []
    problems: list[Problem] = []
    left_out = 0
    for path, variable in facts["variables"].items():
        tensor = by_path.get(path)
        if tensor is None:
            if variable.get("role") in NOT_WEIGHTS:
                left_out += 1
            else:
                problems.append(_missing(path, variable, "the bundle has lost it"))
            continue
        slots.append(_slot(path, variable, tensor, _kept_layout(variable, tensor, convention)))
    notes = ["the tree, its attributes and the archive's other members are those of the source"]
    if left_out:
        notes.append(f"{left_out} variables that are no weights were dropped: Keras starts them anew")
    return Target(tuple(slots), bundle.metadata, {}, tuple(problems), tuple(notes))


def template_target(bundle: Bundle, template: Bundle, convention: Convention) -> Target:
    """A slot for each weight of the template, filled by layer and role, or for undeclared ones by the same place."""
    variables: Mapping[str, Any] = template.metadata[FACTS]["variables"]
    theirs = RecurrentLayers.of(template)
    found = _Filling(bundle, convention, theirs)
    for path, variable in variables.items():
        found.add(path, variable)
    dropped = {
        name: f"its role is {tensor.role}: no weight of the network"
        for name, tensor in bundle.items()
        if tensor.role in NOT_WEIGHTS
    }
    idle = [name for name, tensor in bundle.items() if idle_peephole(tensor)]
    dropped |= dict.fromkeys(idle, IDLE)
    notes = ["the tree, its attributes and the archive's other members are those of the template"]
    pairs = ((slot.source_layer, slot.layer) for slot in found.slots if is_recurrent(slot.role))
    notes += behaviour_notes(pairs, found.layers, theirs)
    if found.kept:
        notes.append(f"{found.kept} variables that are no weights keep the template's values (optimizer, seeds)")
    told: dict[str, Any] = {key: bundle.metadata[key] for key in ("architecture", "dialect") if key in bundle.metadata}
    metadata: dict[str, Any] = {**template.metadata, **told}
    return Target(tuple(found.slots), metadata, dropped, tuple(found.problems), tuple(notes))


class _Filling:
    def __init__(self, bundle: Bundle, convention: Convention, template_layers: RecurrentLayers) -> None:
        self._bundle, self._convention = bundle, convention
        self.layers, self._template_layers = RecurrentLayers.of(bundle), template_layers
        self._by_role: dict[tuple[str, str | None], list[Tensor]] = {}
        whole, self.problems = gathered(bundle, self.layers, together=False)
        for tensor in whole.values():
            self._by_role.setdefault((tensor.layer, tensor.role), []).append(tensor)
        # A bundle of the same format has places of its own; between two files they mean the same if the layers do.
        self._own: Mapping[str, Any] = bundle.metadata.get(FACTS, {}).get("variables", {})
        self._by_path: dict[str, Tensor] = {tensor.origin or name: tensor for name, tensor in bundle.items()}
        self.slots: list[Slot] = []
        self.kept = 0

    def add(self, path: str, variable: Mapping[str, Any]) -> None:
        role = variable.get("role")
        if role in NOT_WEIGHTS:
            self.kept += 1
        elif role is not None and variable.get("layout") is not None:
            self._by_layer(path, variable, str(role))
        else:
            self._by_place(path, variable)

    def _by_layer(self, path: str, variable: Mapping[str, Any], role: str) -> None:
        layer = self.layers.counterpart(variable["layer"], self._template_layers)
        sources = self._by_role.get((layer, role), [])
        wanted = Layout.parse(variable["layout"])
        if not sources:
            self.problems.append(_missing(path, variable, f"the source has no {role} in layer {variable['layer']!r}"))
            return
        if role == "gru.recurrent_kernel":
            ours, theirs = self.layers.reset_after(layer), self._template_layers.reset_after(variable["layer"])
            if wrong := template_reset_problem(sources[0], variable["layer"], ours, theirs):
                self.problems.append(wrong)
        if "?" in wanted.letters and sources[0].layout is not None:
            # The template's config does not tell what its rows are; Keras 3 flattens H W C, so the source may.
            wanted = same_axes(sources[0].layout, self._convention.layouts.get(role, ())) or wanted
        slot = _slot(path, variable, sources[0], wanted, copy=False)
        self.slots.append(slot)
        if len(sources) == 1:
            self._check(path, variable, sources[0], wanted)

    def _by_place(self, path: str, variable: Mapping[str, Any]) -> None:
        tensor = self._bundle[variable["name"]] if variable["name"] in self._bundle else self._at_place(path, variable)
        if tensor is None:
            self.problems.append(
                _missing(path, variable, "the template does not say what it is, and no tensor has its name")
            )
            return
        self.slots.append(_slot(path, variable, tensor, None))
        self._check(path, variable, tensor, None)

    def _at_place(self, path: str, variable: Mapping[str, Any]) -> Tensor | None:
        """The tensor that stands at the same place of another Keras 3 file, in layers of the same names."""
        mine = self._own.get(path)
        if mine is None or mine.get("saved") is None or mine.get("saved") != variable.get("saved"):
            return None
        return self._by_path.get(path)

    def _check(self, path: str, variable: Mapping[str, Any], tensor: Tensor, layout: Layout | None) -> None:
        if tensor.dtype.name != variable["dtype"]:
            self.problems.append(
                Problem(
                    "dtype",
                    f"{tensor.name} is {tensor.dtype}, the template has {variable['dtype']} at {path}; no cast",
                    variable["name"],
                    f"save the template with dtype {tensor.dtype}",
                )
            )
        try:
            shape = tensor.shape if layout is None else filling(tensor, layout, self.layers).shape
        except LayoutError:
            return
        if list(shape) != list(variable["shape"]):
            gives = f"{tensor.name} gives {shape}" + (f" in layout {layout}" if layout else "")
            message = f"{gives}, the template has {tuple(variable['shape'])} at {path}"
            self.problems.append(Problem("shape", message, variable["name"]))


def _slot(
    path: str, variable: Mapping[str, Any], tensor: Tensor, layout: Layout | None, *, copy: bool | None = None
) -> Slot:
    """The slot of a variable. It is copied as it is where nothing is to be rearranged and nothing was declared."""
    name = variable["name"]
    copied = (layout is None or layout == tensor.layout) if copy is None else copy
    role = tensor.role if copied or variable.get("role") is None else variable["role"]
    return Slot(
        name,
        role,
        tensor.layout if copied else layout,
        variable["layer"],
        tensor.layer,
        path if path != name else None,
        "the template's place for it" if copy is False else "kept where the source has it" if copied else "",
        tensor.name if copied else None,
    )


def _kept_layout(variable: Mapping[str, Any], tensor: Tensor, convention: Convention) -> Layout | None:
    """The layout that a tensor goes back into: the recorded one, else the format's for what the user declared."""
    if tensor.role is None or tensor.layout is None:
        return None
    if variable.get("layout") is not None and variable.get("role") == tensor.role:
        return Layout.parse(variable["layout"])
    return same_axes(tensor.layout, convention.layouts.get(tensor.role, ()))


def _missing(path: str, variable: Mapping[str, Any], why: str) -> Problem:
    at = f" at {path}" if path != variable["name"] else ""
    remedy = made_up(variable.get("role")) or TEMPLATE_REMEDY
    return Problem("missing", f"nothing fills it{at}: {why}", variable["name"], remedy)
