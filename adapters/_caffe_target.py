"""What a .caffemodel made of a bundle holds: the network it came from as it was, or layers made from declared roles."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from wio.adapter import Convention, Slot, Target
from wio.adapters._caffe_writer import FIELDS, Record, records
from wio.adapters._protobuf_writer import bytes_field, float_field, number_field, text_field
from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError, Problem, WioError
from wio.layout import Layout
from wio.roles import NOT_WEIGHTS, same_axes
from wio.target import plain_target

# Each role's layer type, the blob's place in it and its name there (the LayerSetUp of each type in BVLC/caffe).
_PLACES: dict[str, tuple[str, int, str]] = {
    "conv.kernel": ("Convolution", 0, "weight"),
    "conv.bias": ("Convolution", 1, "bias"),
    "depthwise.kernel": ("Convolution", 0, "weight"),
    "depthwise.bias": ("Convolution", 1, "bias"),
    "conv_transpose.kernel": ("Deconvolution", 0, "weight"),
    "conv_transpose.bias": ("Deconvolution", 1, "bias"),
    "dense.kernel": ("InnerProduct", 0, "weight"),
    "dense.bias": ("InnerProduct", 1, "bias"),
    "embedding.table": ("Embed", 0, "weight"),
    "batch_norm.mean": ("BatchNorm", 0, "mean"),
    "batch_norm.variance": ("BatchNorm", 1, "variance"),
    "batch_norm.gamma": ("Scale", 0, "gamma"),
    "batch_norm.beta": ("Scale", 1, "beta"),
    "prelu.alpha": ("PReLU", 0, "alpha"),
}
_PARAMETERS = {
    "Convolution": 106,
    "Deconvolution": 106,
    "InnerProduct": 117,
    "Embed": 137,
    "BatchNorm": 139,
    "Scale": 142,
}
_WEIGHTS_ONLY = (
    "strides, padding and the graph are not in the weights: layers have names, types and blobs, and load by name into "
    "a net that a prototxt defines"
)


def caffe_target(bundle: Bundle, convention: Convention) -> Target:
    """The target of a bundle: its own network again where it was read from a .caffemodel, else one made from roles."""
    if isinstance(bundle.metadata.get("caffe"), Mapping) and bundle.metadata.get("adapter") == "caffe":
        target = _same_network(bundle, convention)
    else:
        target = _from_roles(bundle, convention)
    problems = list(target.problems)
    for tensor in bundle.values():
        if tensor.name not in target.dropped and tensor.dtype.name not in FIELDS:
            what = f"Caffe stores float32 and float64, not {tensor.dtype}, and a cast would not be exact"
            problems.append(Problem("dtype", what, tensor.name, f"--apply 'cast={tensor.name}:float32', or --drop it"))
    return replace(target, problems=tuple(problems))


# --- the network it was


def _same_network(bundle: Bundle, convention: Convention) -> Target:
    names = bundle.metadata.get("names", {})
    held = {names.get(tensor.name) or tensor.origin or tensor.name: tensor for tensor in bundle.values()}
    slots: list[Slot] = []
    problems: list[Problem] = []
    notes = ["the network's definition is kept byte for byte"]
    layers: list[dict[str, Any]] = []
    for layer, kept in zip(records(bundle.metadata), bundle.metadata["caffe"]["layers"], strict=True):
        wanted = [blob for blob in layer.blobs if "tensor" in blob]
        missing = [blob["tensor"] for blob in wanted if blob["tensor"] not in held]
        if wanted and len(missing) == len(wanted):
            notes.append(f"layer {layer.name!r} is written without weights: none of them is there")
            layers.append({**kept, "blobs": []})
            continue
        layers.append(kept)
        problems += [
            Problem("missing", f"layer {layer.name!r} needs all of its blobs, and this one is not there", name)
            for name in missing
        ]
        for blob in wanted:
            if blob["tensor"] in held:
                _place(held.pop(blob["tensor"]), blob, layer, convention, slots, problems)
    dropped = {
        t.name: f"its role is {t.role}: no weight of the network" for t in held.values() if t.role in NOT_WEIGHTS
    }
    metadata = {**bundle.metadata, "caffe": {**bundle.metadata["caffe"], "layers": layers}}
    return Target(tuple(slots), metadata, dropped, tuple(problems), tuple(notes))


def _place(
    tensor: Tensor,
    blob: Mapping[str, Any],
    layer: Record,
    convention: Convention,
    slots: list[Slot],
    problems: list[Problem],
) -> None:
    """The slot of one blob: copied where it is as it was read, rearranged to the layout that it then had if not."""
    recorded = Layout.parse(blob["layout"]) if blob["layout"] else None
    own = str(blob["layer"] or layer.name)
    slot = Slot(blob["tensor"], tensor.role, tensor.layout, own, tensor.layer, None, "as it was read")
    if recorded is None and tensor.layout is not None and tensor.role is not None:
        usual = same_axes(tensor.layout, convention.layouts.get(tensor.role, ()))
        if usual is None or replace(usual, sizes=()) != replace(tensor.layout, sizes=()):
            what = f"it was declared {tensor.layout} after it was read: whether the file had it so is not recorded"
            problems.append(Problem("layout", what, tensor.name, "write it from a bundle without that declaration"))
    elif recorded is not None and tensor.layout is not None and tensor.role is not None:
        usual = same_axes(tensor.layout, convention.layouts.get(tensor.role, ()))
        if usual is not None and not _same_letters(recorded, tensor.layout):
            # Declared as another role: a convolution of as many groups as channels may be called a depthwise one.
            recorded = usual
    if recorded is None or tensor.layout is None or recorded == tensor.layout:
        slots.append(replace(slot, copy_of=tensor.name))
    else:
        slots.append(replace(slot, layout=recorded, reason="the layout that the network's definition gives it"))


def _same_letters(a: Layout, b: Layout) -> bool:
    return set(a.letters) - {"1"} == set(b.letters) - {"1"}


# --- a network made from roles


def _from_roles(bundle: Bundle, convention: Convention) -> Target:
    target = plain_target(bundle, convention, _spelled, {}, (_WEIGHTS_ONLY,))
    sources = {(tensor.layer, tensor.role): tensor for tensor in bundle.values()}
    by_layer: dict[str, list[Slot]] = {}
    for slot in target.slots:
        by_layer.setdefault(slot.name.rpartition("/")[0], []).append(_sized(slot, sources))
    statistics = {
        slot.source_layer: slot.name.rpartition("/")[0] for slot in target.slots if slot.role == "batch_norm.mean"
    }
    epsilons = _epsilons(bundle)
    problems = list(target.problems)
    layers: list[dict[str, Any]] = []
    slots: list[Slot] = []
    for name, members in _in_order(by_layer, statistics).items():
        batch_norm = statistics.get(members[0].source_layer, name)
        try:
            made = _Made(name, members, sources, batch_norm, epsilons.get(members[0].source_layer))
            layers.append(made.record())
        except LayoutError as error:
            problems.append(Problem("layer", error.message, members[0].name, error.remedy))
            continue
        owner = batch_norm if made.type in ("Scale", "Bias") else name
        slots += [replace(slot, layer=owner) for slot in made.members]
    # The plan would call what has no slot unused; those tensors have a problem of their own already.
    kept = {slot.name for slot in slots}
    slots += [slot for slot in target.slots if slot.name not in kept]
    net = str(bundle.metadata.get("architecture") or "")
    caffe = {
        "name": net,
        "v1": False,
        "layers": layers,
        "head": _text(text_field(1, net) if net else b""),
        "tail": "",
    }
    notes = list(target.notes)
    if statistics:
        notes.append("each BatchNorm gets the scale factor 1: its mean and variance are stored as they are")
    return Target(tuple(slots), {"adapter": "caffe", "caffe": caffe}, target.dropped, tuple(problems), tuple(notes))


def _spelled(tensor: Tensor) -> str:
    kind, _, short = _PLACES[str(tensor.role)]
    layer = f"{tensor.layer}_scale" if kind == "Scale" else tensor.layer
    return f"{layer}/{short}"


def _sized(slot: Slot, sources: Mapping[tuple[str, str | None], Tensor]) -> Slot:
    """A depthwise slot with the sizes of C and M, which Caffe joins and others keep apart."""
    source = sources[slot.source_layer, slot.role]
    if slot.role != "depthwise.kernel" or slot.layout is None or source.layout is None:
        return slot
    extents = source.layout.extents(source.shape)
    return replace(slot, layout=slot.layout.with_sizes(extents))


def _in_order(by_layer: Mapping[str, list[Slot]], statistics: Mapping[str, str]) -> dict[str, list[Slot]]:
    """The layers in the source's order, but gamma and beta behind the BatchNorm that they follow."""
    following: dict[str, list[str]] = {}
    for name, members in by_layer.items():
        batch_norm = statistics.get(members[0].source_layer, name)
        if batch_norm != name:
            following.setdefault(batch_norm, []).append(name)
    later = {name for names in following.values() for name in names}
    order = [each for name in by_layer if name not in later for each in (name, *following.get(name, []))]
    return {name: by_layer[name] for name in order}


def _epsilons(bundle: Bundle) -> dict[str, float]:
    layers = bundle.metadata.get("layers")
    found = {}
    for each in layers if isinstance(layers, list) else []:
        epsilon = each.get("epsilon") if isinstance(each, Mapping) else None
        if isinstance(epsilon, int | float):
            found[str(each.get("name"))] = float(epsilon)
    return found


class _Made:
    """A layer made of slots. LayoutError for slots that no layer of Caffe holds together."""

    def __init__(
        self,
        name: str,
        members: list[Slot],
        sources: Mapping[tuple[str, str | None], Tensor],
        batch_norm: str,
        epsilon: float | None,
    ) -> None:
        self._name, self._batch_norm, self._epsilon = name, batch_norm, epsilon
        self.members = sorted(members, key=lambda slot: _PLACES[str(slot.role)][1])
        kinds = {_PLACES[str(slot.role)][0] for slot in members}
        places = [_PLACES[str(slot.role)][1] for slot in self.members]
        self.type = kinds.pop()
        if kinds:
            held = ", ".join(sorted(str(slot.role) for slot in members))
            raise LayoutError(f"no layer of Caffe holds {held} together, and layer {name!r} would")
        if self.type == "Scale" and places == [1]:
            self.type = "Bias"
        elif places != list(range(len(places))) or (self.type == "BatchNorm" and len(places) != 2):
            held = ", ".join(str(slot.role) for slot in self.members)
            raise LayoutError(f"a {self.type} of Caffe has more than {held}, and layer {name!r} has nothing else")
        if self.type in ("Scale", "Bias") and batch_norm == name:
            raise LayoutError(f"layer {name!r}: a batch norm of Caffe needs its mean and variance")
        first = self.members[0]
        source = sources[first.source_layer, first.role]
        # LayoutError where it cannot be rearranged: the plan would say the same.
        self._kernel = source.to(first.layout) if first.layout is not None else source

    def record(self) -> dict[str, Any]:
        head = text_field(1, self._name) + text_field(2, self.type)
        if self.type in ("Scale", "Bias"):
            # Nothing but what makes it this BatchNorm's own: it takes what that gives out.
            head += text_field(3, self._batch_norm) + text_field(4, self._batch_norm)
        elif self.type == "BatchNorm":
            head += text_field(4, self._name)
        blobs: list[dict[str, Any]] = [
            {"tensor": slot.name, "role": slot.role, "layout": str(slot.layout), "layer": self._name}
            for slot in self.members
        ]
        if self.type == "BatchNorm":
            blobs.append({"constant": 1.0})
        parameter = self._parameter()
        tail = bytes_field(_PARAMETERS[self.type], parameter) if parameter else b""
        return {"name": self._name, "type": self.type, "head": _text(head), "tail": _text(tail), "blobs": blobs}

    def _parameter(self) -> bytes:
        """The layer's parameters that its weights alone settle, fields in the order of their numbers."""
        shape, layout = self._kernel.shape, self._kernel.layout
        without_bias = len(self.members) == 1
        if layout is None:
            raise WioError(f"{self._kernel.name}: its layout is not declared")
        if self.type in ("Convolution", "Deconvolution"):
            group = _group(layout, shape)
            outputs = shape[0] if self.type == "Convolution" else shape[1] * group
            kernel = b"".join(number_field(4, size) for size in shape[2:])
            bias = number_field(2, 0) if without_bias else b""
            return number_field(1, outputs) + bias + kernel + (number_field(5, group) if group != 1 else b"")
        if self.type == "InnerProduct":
            return number_field(1, shape[0]) + (number_field(2, 0) if without_bias else b"")
        if self.type == "Embed":
            return number_field(1, shape[1]) + number_field(2, shape[0]) + number_field(3, 0)
        if self.type == "BatchNorm":
            return float_field(3, self._epsilon) if self._epsilon is not None else b""
        if self.type == "Scale" and len(self.members) == 2:
            return number_field(4, 1)
        return b""


def _group(layout: Layout, shape: tuple[int, ...]) -> int:
    letter = "G" if "G" in layout.letters else "C" if "C" in layout.letters else None
    if letter is None:
        return 1
    size = layout.extents(shape).get(letter)
    if size is None:
        raise LayoutError(
            f"the number of groups in {layout} is not declared", remedy=f"declare it: {layout} {letter}=.."
        )
    return size


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
