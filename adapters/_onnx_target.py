"""What a model made of a bundle holds: the weights alone, or the weights of a template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec.structs import replace

from wio.adapter import Convention, Slot, Target
from wio.adapters._onnx_convention import CONVENTION, spelled
from wio.adapters._onnx_file import OpenModel, open_model
from wio.adapters._onnx_values import NUMBERS
from wio.adapters._onnx_weights import Weight
from wio.bundle import Bundle, Tensor, declare_remedy
from wio.errors import LayoutError, Problem
from wio.layout import Layout
from wio.recurrent import RecurrentLayers, behaviour_notes, family, is_recurrent, template_reset_problem
from wio.recurrent_weights import IDLE, filling, gathered, idle_peephole
from wio.roles import NOT_WEIGHTS
from wio.target import made_up, plain_target

_SAME_OPERATOR = {
    "depthwise.kernel": "conv.kernel",
    "separable.depthwise_kernel": "conv.kernel",
    "separable.pointwise_kernel": "conv.kernel",
    "depthwise.bias": "conv.bias",
    "separable.bias": "conv.bias",
}


def weights_target(bundle: Bundle) -> Target:
    """A model without a graph: initializers only. What came from ONNX goes back as it is, declared or not."""
    from_onnx = bundle.metadata.get("adapter") == "onnx"
    copies = {t.name: t for t in bundle.values() if from_onnx and _is_onnx(t)}
    rest = Bundle((t for t in bundle.values() if t.name not in copies), bundle.metadata)
    notes = ("weights only: the model has initializers and no graph",)
    plain = plain_target(rest, Convention.of(CONVENTION), spelled, dict(bundle.metadata), notes)
    layers = RecurrentLayers.of(bundle)
    converted = {(layers.whole(slot.source_layer), slot.role): slot for slot in plain.slots}
    slots = []
    for tensor in bundle.values():
        if tensor.name in copies:
            slots.append(_copy(tensor, tensor.origin or tensor.name, "it stays as ONNX keeps it"))
        elif (slot := converted.pop((layers.whole(tensor.layer), family(tensor.role)), None)) is not None:
            slots.append(slot)
    problems = list(plain.problems)
    for tensor in bundle.values():
        if tensor.dtype.name not in NUMBERS and tensor.name not in plain.dropped:
            message = f"ONNX has no data type for {tensor.dtype}"
            problems.append(Problem("dtype", message, tensor.name, f"--drop '{tensor.name}'"))
    return Target(tuple(slots), plain.metadata, plain.dropped, tuple(problems), plain.notes)


def _is_onnx(tensor: Tensor) -> bool:
    """Whether a tensor that came from ONNX is still as ONNX keeps it."""
    if tensor.role is None or tensor.layout is None:
        return True
    bare = replace(tensor.layout, sizes=())
    return any(bare == replace(layout, sizes=()) for layout in map(Layout.parse, CONVENTION.get(tensor.role, ())))


def _copy(tensor: Tensor, name: str, reason: str) -> Slot:
    return Slot(name, tensor.role, tensor.layout, tensor.layer, tensor.layer, None, reason, tensor.name)


def template_target(bundle: Bundle, template: Path, keep: str) -> Target:
    """The weights of an existing model, each filled from the bundle by its name, or by its layer and role.

    What the graph of the template declares, and every initializer of floating-point numbers with axes, must be filled
    or named in ``keep``; other constants (shapes, limits, indices) stay as the template has them.
    """
    return _Matching(bundle, open_model(template), tuple(glob for glob in keep.split(",") if glob)).target()


class _Matching:
    def __init__(self, bundle: Bundle, template: OpenModel, keep: tuple[str, ...]) -> None:
        self._bundle, self._template, self._keep = bundle, template, keep
        self._from_onnx = bundle.metadata.get("adapter") == "onnx"
        self._dropped = {
            t.name: f"its role is {t.role}: no weight of the network" for t in bundle.values() if t.role in NOT_WEIGHTS
        }
        self._layers = RecurrentLayers.of(bundle)
        self._template_layers = RecurrentLayers.of(template.bundle)
        self._by_name: dict[str, Tensor] = {}
        self._by_role: dict[tuple[str, str], list[Tensor]] = {}
        names = bundle.metadata.get("names", {})
        every, self._problems = gathered(bundle, self._layers, together=True)
        weights = [t for t in every.values() if t.name not in self._dropped]
        for spell in (_name, _origin, lambda t: names.get(t.name), _spelled):
            for tensor in weights:
                name = spell(tensor)
                if name is not None:
                    self._by_name.setdefault(name, tensor)
        for tensor in weights:
            role = _SAME_OPERATOR.get(str(tensor.role), str(tensor.role))
            self._by_role.setdefault((tensor.layer, role), []).append(tensor)

    def target(self) -> Target:
        slots: list[Slot] = []
        kept: list[str] = []
        used: set[str] = set()
        for name, weight in self._template.weights.items():
            wanted = self._template.bundle[name]
            if any(fnmatchcase(name, glob) for glob in self._keep):
                kept.append(name)
                continue
            sources = self._sources(wanted, used)
            if sources:
                used.update(source.name for source in sources)
                slots += self._slot(wanted, sources)
            elif _must_be_filled(weight, wanted):
                self._problems.append(self._missing(wanted))
            else:
                kept.append(name)
        notes = [f"the graph is that of {self._template.file.path.name}"]
        if kept:
            listed = ", ".join(kept[:10]) + (f" and {len(kept) - 10} more" if len(kept) > 10 else "")
            notes.append(f"{len(kept)} constants stay as the template has them: {listed}")
        notes += self._epsilons(slots)
        idle = [t.name for t in self._bundle.values() if t.name not in used and idle_peephole(t)]
        self._dropped |= dict.fromkeys(idle, IDLE)
        pairs = ((slot.source_layer, slot.layer) for slot in slots if is_recurrent(slot.role))
        notes += behaviour_notes(pairs, self._layers, self._template_layers)
        metadata = {**self._template.bundle.metadata}
        metadata |= {k: v for k, v in self._bundle.metadata.items() if k in ("architecture", "dialect")}
        return Target(tuple(slots), metadata, self._dropped, tuple(self._problems), tuple(notes))

    def _epsilons(self, slots: list[Slot]) -> list[str]:
        """What to check of normalisations: the template adds its own number to the variance, not the source's."""
        layers, by_layer = self._bundle.metadata.get("layers", []), self._bundle.metadata.get("epsilon", {})
        theirs = {each.get("name"): each.get("epsilon") for each in layers if isinstance(each, Mapping)}
        theirs |= by_layer if isinstance(by_layer, Mapping) else {}
        ours = self._template.bundle.metadata.get("epsilon", {})
        pairs = {(slot.source_layer, slot.layer) for slot in slots if slot.role == "batch_norm.variance"}
        return [
            f"CHECK {layer}: the template adds {ours[layer]} to the variance, the source {theirs[source]}; "
            f"--apply 'epsilon={source}:{ours[layer]}' makes up for it"
            for source, layer in sorted(pairs)
            if layer in ours and theirs.get(source, ours[layer]) not in (None, ours[layer])
        ]

    def _missing(self, wanted: Tensor) -> Problem:
        what = f"{wanted.role} of layer {wanted.layer!r}" if wanted.role else f"{wanted.dtype} {list(wanted.shape)}"
        remedy = (
            made_up(wanted.role)
            or f"leave it as it is with --option keep='{wanted.name}', or name the layers as the template does"
        )
        return Problem("missing", f"nothing fills it: the source has no {what}", wanted.name, remedy)

    def _sources(self, wanted: Tensor, used: set[str]) -> list[Tensor]:
        named = self._by_name.get(wanted.name)
        if named is not None and named.name not in used:
            # Where the source keeps gates apart, the name is that of them all.
            apart = is_recurrent(named.role) and wanted.role is not None
            return self._by_role[named.layer, str(named.role)] if apart else [named]
        if wanted.role is None:
            return []
        return [t for t in self._by_role.get((wanted.layer, wanted.role), []) if t.name not in used]

    def _slot(self, wanted: Tensor, sources: list[Tensor]) -> Iterator[Slot]:
        source = sources[0]
        if any(each.dtype != wanted.dtype for each in sources):
            message = f"the template holds {wanted.dtype}, the source {source.dtype}"
            self._problem("dtype", message, source, "wio does not cast: take a template of the source's dtype")
            return
        if wanted.role is None or source.role is None:
            if source.role is None and (wanted.role is None or self._from_onnx):
                if source.shape != wanted.shape:
                    self._problem("shape", f"the template has shape {wanted.shape}, the source {source.shape}", source)
                    return
                yield replace(_copy(source, wanted.name, "neither side declares it"), role=wanted.role)
            elif wanted.role is None and self._from_onnx and source.shape == wanted.shape and _is_onnx(source):
                yield _copy(source, wanted.name, "both are ONNX, and their names are the same")
            elif source.role is None:
                message = f"its role is not declared, the template has a {wanted.role} in its place"
                self._problem("undeclared", message, source, declare_remedy(source.name))
            else:
                message = f"{wanted.name} of the template is a {source.role} for all the source says, and not declared"
                self._problem("undeclared", message, source, f"--option keep='{wanted.name}' with --drop")
            return
        layout = _layout(wanted, source)
        if _SAME_OPERATOR.get(source.role, source.role) != wanted.role or layout is None:
            self._problem("role", f"the source has a {source.role}, {wanted.name} is a {wanted.role}", source)
            return
        if wanted.role == "gru.recurrent_kernel":
            ours, theirs = self._layers.reset_after(source.layer), self._template_layers.reset_after(wanted.layer)
            if wrong := template_reset_problem(source, wanted.layer, ours, theirs):
                self._problems.append(wrong)
        if len(sources) == 1 and source.layout is not None:
            try:
                shape = filling(source, layout, self._layers).shape
            except LayoutError as error:
                self._problem("layout", error.message, source, error.remedy)
                return
            if shape != wanted.shape:
                message = f"the template has shape {wanted.shape}, the source {shape} in layout {layout}"
                self._problem("shape", message, source)
                return
        reason = f"the graph of the template takes {layout}"
        yield Slot(wanted.name, source.role, layout, wanted.layer, source.layer, None, reason)

    def _problem(self, kind: str, message: str, tensor: Tensor, remedy: str | None = None) -> None:
        self._problems.append(Problem(kind, message, tensor.name, remedy))


def _name(tensor: Tensor) -> str | None:
    return tensor.name


def _origin(tensor: Tensor) -> str | None:
    return tensor.origin


def _spelled(tensor: Tensor) -> str | None:
    return spelled(tensor) if tensor.role is not None and tensor.layout is not None else None


def _must_be_filled(weight: Weight, wanted: Tensor) -> bool:
    if wanted.role is not None:
        return wanted.role not in NOT_WEIGHTS
    return weight.initializer and "float" in wanted.dtype.name and bool(wanted.shape)


def _layout(wanted: Tensor, source: Tensor) -> Layout | None:
    """The layout of a slot: the template's, said with what the source alone knows of the layer.

    A depthwise kernel is to ONNX a convolution with as many groups as channels; rows that the source declares to be
    no flattened map need no order, whatever the graph of the template leaves open about them.
    """
    layout = wanted.layout
    if layout is None or source.layout is None:
        return layout
    axes = layout.axes
    if source.role in ("depthwise.kernel", "separable.depthwise_kernel"):
        if axes[:2] == ("GO", "I"):
            return Layout(("CM", "1", *axes[2:]), False, None, (("C", layout.size("G") or 0),))
        return Layout(("CM", "1", *axes[2:]), False, None, (("C", 1),)) if axes[:2] == ("O", "I") else None
    letter = next((each for each in ("I", "C") if each in source.layout.axes), None)
    if "?" in axes and letter is not None:
        return Layout(tuple(letter if axis == "?" else axis for axis in axes))
    return layout
