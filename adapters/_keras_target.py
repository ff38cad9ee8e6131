"""What a Keras HDF5 file made of a bundle holds: names, order and layouts for one version, backend and data format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from wio.adapter import Slot, Target
from wio.adapters import _keras_early as early
from wio.adapters._keras_conventions import CHANNELS_LAST, KerasConvention
from wio.adapters._keras_mixed import convention_for, own_flattens, rows_in
from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError, Problem
from wio.layout import Layout, settled_forms
from wio.metadata import layer_records
from wio.recurrent import KEY as RECURRENT
from wio.recurrent import RecurrentLayers, behaviour_notes, is_recurrent, reset_problem
from wio.recurrent_weights import IDLE, bias_layouts, gathered, idle_peephole
from wio.roles import NOT_WEIGHTS, WAYS_ON, same_axes
from wio.target import made_up

# The full version that each family's files name; what Keras 2 loaders test is only the part before the first dot.
_WRITTEN_VERSION = {"0.3": "0.3.3", "1.2": "1.2.2", "2.0": "2.0.5", "2.2": "2.2.4"}
_LEAVES: dict[str, tuple[str, str]] = {
    "kernel": ("kernel", "W"),
    "recurrent_kernel": ("recurrent_kernel", "U"),
    "bias": ("bias", "b"),
    "depthwise_kernel": ("depthwise_kernel", "depthwise_kernel"),
    "pointwise_kernel": ("pointwise_kernel", "pointwise_kernel"),
    "gamma": ("gamma", "gamma"),
    "beta": ("beta", "beta"),
    "mean": ("moving_mean", "running_mean"),
    "variance": ("moving_variance", "running_std"),
    "std": ("running_std", "running_std"),
    "table": ("embeddings", "W"),
    "alpha": ("alpha", "alphas"),
    "carry_kernel": ("W_carry", "W_carry"),
    "carry_bias": ("b_carry", "b_carry"),
}
_ORDER = {part: place for place, part in enumerate(_LEAVES)}
_ONLY_KERAS_1 = ("maxout", "highway")
# Before 1.0 arrays have numbers, in Keras 1 names like conv1_W, later conv1/kernel.
_NAMING = {"0.3": 0, "1.2": 1, "2.0": 2, "2.2": 2}
_NOT_IN_KERAS_1 = ("depthwise",)


class _Group(Struct, frozen=True):
    """One layer of the target file and the tensors that go into it, with the names its source stored them under.

    ``listed`` says that the source lists them, in this order.
    """

    name: str
    tensors: tuple[Tensor, ...]
    stored_as: tuple[str, ...] | None
    listed: bool


def keras_target(bundle: Bundle, backend: str, options: Mapping[str, str]) -> Target:
    """The target for a bundle. Undeclared tensors, roles that the version lacks and unsettled rows are its problems."""
    source = bundle.metadata.get("keras") or {}
    known_format = options.get("data_format") or bundle.metadata.get("data_format")
    convention = KerasConvention(options["keras"], backend, known_format or CHANNELS_LAST)
    same_format = known_format == bundle.metadata.get("data_format")
    same_keras = (source.get("family"), source.get("backend")) == (convention.family, backend)
    if (
        same_keras
        and same_format
        and all(t.role in (None, *convention.table().layouts, *NOT_WEIGHTS) for t in bundle.values())
    ):
        return _unchanged(bundle)
    return _Targeting(bundle, convention, source, options).target()


def _layers_left(bundle: Bundle) -> list[dict[str, Any]]:
    """The source's layers without the tensors that were left out of the bundle."""
    layers = []
    for layer in bundle.metadata["layers"]:
        pairs = zip(layer["tensors"], layer["stored_as"], strict=True)
        kept = [(name, stored) for name, stored in pairs if name in bundle]
        layers.append({**layer, "tensors": [n for n, _ in kept], "stored_as": [s for _, s in kept]})
    return layers


def _unchanged(bundle: Bundle) -> Target:
    """The file's own convention: every tensor, attribute and optimizer weight passes as it is."""
    layers = _layers_left(bundle)
    listed = {name for layer in layers for name in layer["tensors"]}
    slots, left = [], {}
    for t in bundle.values():
        if t.name in listed or t.role == "optimizer":
            reason = "the target keeps it as the source does"
            slots.append(Slot(t.name, t.role, t.layout, t.layer, t.layer, t.origin, reason, t.name))
        else:
            left[t.name] = "not listed in a layer of the source"
    note = "source and target follow one convention: nothing is rearranged"
    return Target(tuple(slots), {**bundle.metadata, "layers": layers}, left, notes=(note,))


class _Targeting:
    def __init__(
        self, bundle: Bundle, convention: KerasConvention, source: Mapping[str, Any], options: Mapping[str, str]
    ) -> None:
        self._layers = RecurrentLayers.of(bundle)
        self._convention, self._source = convention, source
        # What the layers hold, in the forms that Keras keeps: one tensor for the bias, each direction for itself.
        self._bundle, self._problems = gathered(bundle, self._layers, together=False)
        self._idle = {name for name, tensor in self._bundle.items() if idle_peephole(tensor)}
        self._rules = convention.table()
        self._table = self._rules.layouts
        # Within one generation of Keras the names stay; only TensorFlow's ":0" comes or goes.
        self._same_names = bool(source) and _NAMING.get(source["family"]) == _NAMING.get(convention.family)
        self._told_format = options.get("data_format")
        # Of a model that mixes data formats: that of each layer, which stays as long as no other is asked for.
        self._own: Mapping[str, str] = {} if self._told_format else source.get("data_formats", {})
        self._tables = {convention: self._table}
        self._flattens = own_flattens(bundle)
        # Keras lists the weights of a nested model trained ones first, which no order of roles gives again.
        self._in_keras_order = bool(source) or bundle.metadata.get("adapter") == "keras3"
        self._order = [name for name in options.get("layers", "").split(",") if name]

    def target(self) -> Target:
        dropped = {
            t.name: f"its role is {t.role}: no weight of the network"
            for t in self._bundle.values()
            if t.role in NOT_WEIGHTS
        }
        dropped |= dict.fromkeys(self._idle, IDLE)
        slots: list[Slot] = []
        layers = []
        for group in self._ordered(list(self._groups())):
            made = list(self._group_slots(group))
            slots += [slot for slot, _ in made]
            layers.append({"name": group.name, "tensors": [s.name for s, _ in made], "stored_as": [n for _, n in made]})
        if self._convention.family == "0.3":
            slots, layers = early.numbered(slots, layers, self._bundle.metadata.get("layers", []))
        return Target(tuple(slots), self._metadata(layers), dropped, tuple(self._problems), tuple(self._notes()))

    def _ordered(self, groups: list[_Group]) -> list[_Group]:
        """The groups in the order that the user states, which must name each of them once."""
        if not self._order:
            return groups
        names = [group.name for group in groups if group.tensors]
        wrong = sorted(set(names) ^ set(self._order)) or [n for n in self._order if self._order.count(n) > 1]
        if wrong:
            message = f"option layers must name every layer with weights once; look at {', '.join(wrong[:5])}"
            self._problems.append(Problem("order", message, None, "the layers are " + ",".join(names)))
            return groups
        return sorted((group for group in groups if group.tensors), key=lambda group: self._order.index(group.name))

    def _groups(self) -> Iterator[_Group]:
        left_out = {name for name, t in self._bundle.items() if t.role in NOT_WEIGHTS} | self._idle
        weights = {name: t for name, t in self._bundle.items() if name not in left_out}
        for layer in self._bundle.metadata.get("layers", []):
            there = [
                (n, s)
                for n, s in zip(layer["tensors"], layer.get("stored_as", layer["tensors"]), strict=True)
                if n in weights
            ]
            tensors = tuple(weights.pop(name) for name, _ in there)
            if not tensors and layer.get("unlisted"):
                continue
            yield _Group(layer["name"], tensors, tuple(s for _, s in there) if self._same_names else None, True)
        rest: dict[str, list[Tensor]] = {}
        for tensor in weights.values():
            rest.setdefault(self._layers.whole(tensor.layer) or tensor.name, []).append(tensor)
        for name, members in rest.items():
            yield _Group(name, tuple(members), None, False)

    def _group_slots(self, group: _Group) -> Iterator[tuple[Slot, str]]:
        """The slots of one layer in Keras's order, each with the name it is stored under."""
        declared = [t for t in group.tensors if self._usable(t)]
        self._refuse_partial_batch_norms(declared)
        members = {(t.layer, str(t.role)): t for t in reversed(declared)}
        keys = list(dict.fromkeys((t.layer, str(t.role)) for t in declared))
        # So does a record of its layers that another format has handed on.
        in_keras_order = self._in_keras_order or (group.listed and len({module for module, _ in keys}) > 1)
        if group.stored_as is None and not in_keras_order:
            modules = {module: place for place, (module, _) in reversed(list(enumerate(keys)))}
            keys.sort(key=lambda key: (modules[key[0]], _ORDER.get(key[1].partition(".")[2], len(_ORDER))))
        for module, role in self._interleaved(keys):
            tensor = members[module, role[0]]
            layout = self._layout(tensor, role[1])
            if layout is None:
                continue
            stored = self._stored_as(group, tensor, role, declared)
            name = f"{group.name}/{stored.removesuffix(':0').removeprefix(f'{group.name}/')}"
            origin = f"{group.name}/{stored}"
            reason = self._reason(tensor, layout)
            yield (
                Slot(name, role[0], layout, tensor.layer, tensor.layer, origin if origin != name else None, reason),
                stored,
            )

    def _usable(self, tensor: Tensor) -> bool:
        if tensor.role is None or tensor.layout is None:
            what = "role" if tensor.role is None else "layout"
            remedy = f"--declare '{tensor.name}=ROLE[:LAYOUT]', --arch or --dialect; or leave it out with --drop"
            if tensor.role is not None and self._source and self._bundle.metadata.get("data_format") is None:
                remedy = f"export with --option data_format=channels_first|channels_last; or {remedy}"
            self._problem("undeclared", tensor, f"its {what} is not declared, so it cannot be converted", remedy)
            return False
        kind = tensor.role.partition(".")[0]
        lacking = _NOT_IN_KERAS_1 if self._convention.keras1 else _ONLY_KERAS_1
        if tensor.role not in self._table or kind in lacking:
            message = f"Keras {self._convention.family} has no layer with a {tensor.role}"
            self._problem("unsupported", tensor, message, WAYS_ON.get(tensor.role))
            return False
        if wrong := reset_problem(tensor, self._rules, self._layers, f"Keras {self._convention.family}"):
            self._problems.append(wrong)
            return False
        return True

    def _refuse_partial_batch_norms(self, tensors: list[Tensor]) -> None:
        """Keras 1.2 normalization.py: a batch norm has all four arrays, there is no scale=False."""
        if not self._convention.keras1:
            return
        by_module: dict[str, dict[str, Tensor]] = {}
        for tensor in tensors:
            kind, _, part = str(tensor.role).partition(".")
            if kind == "batch_norm":
                by_module.setdefault(tensor.layer, {})[part] = tensor
        for module, parts in by_module.items():
            spread = self._convention.spread.partition(".")[2]
            lacking = [part for part in ("gamma", "beta", "mean", spread) if part not in parts]
            if lacking:
                self._problem(
                    "missing",
                    next(iter(parts.values())),
                    f"a batch norm of Keras 1.2 always has a {' and a '.join(lacking)}, layer {module} has none",
                    "; ".join(
                        filter(None, [*(made_up(f"batch_norm.{part}") for part in lacking), "or write for keras=2.2"])
                    ),
                )

    def _interleaved(self, keys: list[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, str | None]]]:
        """Each (module, role) once, or once a gate where Keras 1 keeps gates apart: W_i U_i b_i W_c U_c b_c ..."""
        done: set[str] = set()
        for module, role in keys:
            gates = self._convention.separate_gates(role)
            if gates is None:
                yield module, (role, None)
            elif module not in done:
                done.add(module)
                parts = [each for owner, each in keys if owner == module]
                parts.sort(key=lambda each: _ORDER[each.partition(".")[2]])
                for gate in gates:
                    for part in parts:
                        yield module, (part, gate)

    def _layout(self, tensor: Tensor, gate: str | None) -> Layout | None:
        """The layout of a slot: that of the target's convention which has the axes of the source's layout."""
        if tensor.layout is None or tensor.role is None:
            return None
        if is_recurrent(tensor.role) and tensor.role.endswith(".bias"):
            [(_, layout)] = bias_layouts(tensor, self._rules, self._layers)
            return replace(layout, gates=gate) if gate else layout
        convention = self._convention_of(tensor)
        found = same_axes(tensor.layout, self._tables[convention][tensor.role])
        if found is not None and self._own:
            try:
                found = rows_in(found, tensor.layout, self._source["family"], convention)
            except LayoutError as error:
                self._problem("layout", tensor, error.message, error.remedy)
                return None
        elif found is not None and self._same_flattens() and (order := self._flattens.get(tensor.layer)):
            axes = tuple(order if sorted(axis) == sorted(order) else axis for axis in found.axes)
            found = replace(found, axes=axes)
        if found is None:
            self._problem(
                "unsupported",
                tensor,
                f"Keras {self._convention.family} has no {tensor.role} in layout {tensor.layout}; its layouts are "
                + ", ".join(map(str, self._table[tensor.role])),
                None,
            )
            return None
        if "?" in found.letters and not self._alike():
            self._problem(
                "layout",
                tensor,
                f"what the axis (?) of {tensor.layout} is made of is not declared, and the target may order it "
                f"otherwise (its rows run {self._convention.flatten_order}, the source's "
                f"{self._bundle.metadata.get('flatten_order') or 'are unknown'})",
                f"--declare '{tensor.name}={tensor.role}:LAYOUT', where LAYOUT is {settled_forms(tensor.layout)}; "
                "or export with --option data_format=channels_first|channels_last",
            )
            return None
        return replace(found, gates=gate) if gate else found

    def _same_flattens(self) -> bool:
        """Whether a Flatten of the source has the same data format in the target, if it says one of its own."""
        source = self._bundle.metadata.get("data_format")
        return self._convention.family == "2.2" and source in (self._told_format, self._convention.data_format)

    def _convention_of(self, tensor: Tensor) -> KerasConvention:
        if not self._own:
            return self._convention
        found = convention_for(tensor, self._convention, self._own)
        if found not in self._tables:
            self._tables[found] = found.table().layouts
        return found

    def _alike(self) -> bool:
        """Whether source and target flatten a map in the same order, whatever the map."""
        source_order = self._bundle.metadata.get("flatten_order")
        if source_order is not None:
            return bool(source_order == self._convention.flatten_order)
        return self._told_format is None and self._source.get("family") == self._convention.family

    def _stored_as(self, group: _Group, tensor: Tensor, role: tuple[str, str | None], declared: list[Tensor]) -> str:
        suffix = ":0" if self._convention.backend == "tensorflow" else ""
        if group.stored_as is not None and (role[1] is None or self._gate_kept(tensor)):
            for candidate, stored in zip(group.tensors, group.stored_as, strict=True):
                gate = candidate.layout.gates if candidate.layout else None
                if (candidate.layer, candidate.role) == (tensor.layer, role[0]) and role[1] in (None, gate):
                    return stored.removesuffix(":0") + suffix
        new, old = _LEAVES[role[0].partition(".")[2]]
        # The layer inside a group is named only where the group has several (Bidirectional, nested models).
        modules = {t.layer for t in declared}
        inner = tensor.layer.removeprefix(f"{group.name}/") if tensor.layer.startswith(f"{group.name}/") else ""
        if self._convention.keras1:
            leaf = f"{old}_{role[1]}" if role[1] else old
            return f"{inner or group.name}_{leaf}{suffix}"
        inside = f"{inner}/" if inner and len(modules) > 1 else ""
        return f"{group.name}/{inside}{new}{suffix}"

    @staticmethod
    def _gate_kept(tensor: Tensor) -> bool:
        return tensor.layout is not None and tensor.layout.gates is not None and len(tensor.layout.gates) == 1

    def _reason(self, tensor: Tensor, layout: Layout) -> str:
        """Why this tensor is kept so in the target: a sentence for the plan."""
        reasons = []
        convention = self._convention_of(tensor)
        source = tensor.layout
        if source is None:
            return ""
        if source.flipped != layout.flipped:
            convolves, correlates = (
                "Theano convolves, so its kernels run backwards",
                "TensorFlow correlates: kernels run forwards",
            )
            reasons.append(convolves if layout.flipped else correlates)
        if layout.spatial and source.axes != layout.axes and not source.gates:
            reasons.append(f"Keras {convention.family} {convention.data_format} keeps {str(layout).partition(' ')[0]}")
        group = next((axis for axis in layout.axes if len(axis) > 1 and "C" in axis and set(axis) <= set("DHWC")), None)
        if group is not None and tensor.role is not None:
            reasons.append(self._flatten_reason(source, layout, group, convention))
        if source.gates and layout.gates and (source.gates != layout.gates):
            apart = "one array for each gate" if convention.keras1 else f"gates {layout.gates} in one array"
            reasons.append(f"Keras {convention.family} keeps {apart}")
        return "; ".join(reasons)

    @staticmethod
    def _flatten_reason(source: Layout, layout: Layout, group: str, convention: KerasConvention) -> str:
        before = next((axis for axis in source.axes if sorted(axis) == sorted(group)), group)
        sizes = [layout.size(letter) for letter in group if letter != "C"]
        where = f"Keras {convention.family} {convention.data_format} flattens {' '.join(group)}"
        if before == group:
            return f"rows stay: {where}, as the source does"
        if all(size == 1 for size in sizes):
            return (
                f"rows stay: {' = '.join(letter for letter in group if letter != 'C')} = 1, so every order is the same"
            )
        return f"rows shuffled {before} -> {group}: {where}"

    def _metadata(self, layers: list[dict[str, Any]]) -> dict[str, Any]:
        version = _WRITTEN_VERSION[self._convention.family]
        keep_config = self._keeps_config()
        attributes: dict[str, dict[str, Any]] = {"/": {}}
        if keep_config:
            attributes = {
                group: dict(each) for group, each in self._source["attributes"].items() if group != "optimizer_weights"
            }
            version = self._source["version"] or version
        if not self._convention.keras1:
            for group in attributes:
                attributes[group] |= {"keras_version": _text(version), "backend": _text(self._convention.backend)}
        return {
            **{k: v for k, v in self._bundle.metadata.items() if k in ("architecture", "dialect")},
            **({RECURRENT: self._layers.facts} if self._layers.facts else {}),
            "adapter": "keras-tf" if self._convention.backend == "tensorflow" else "keras-theano",
            "data_format": None if self._own else self._convention.data_format,
            "flatten_order": None if self._own else self._convention.flatten_order,
            "layers": layers,
            "keras": {
                "backend": self._convention.backend,
                "version": version,
                "family": self._convention.family,
                "full_model": keep_config,
                "attributes": attributes,
                "optimizer": [],
                **({"data_formats": dict(self._own)} if self._own else {}),
            },
        }

    def _keeps_config(self) -> bool:
        """A model_config names no backend: it holds for the other backend of the same Keras and data format."""
        return (
            bool(self._source.get("full_model"))
            and self._source["family"] == self._convention.family
            # What is written are the plain layers that compute what those of CuDNN do.
            and not self._source.get("cudnn")
            # Where the source does not say its data format, the target's is the same only if none was asked for.
            and self._bundle.metadata.get("data_format") in (self._told_format, self._convention.data_format)
        )

    def _notes(self) -> Iterator[str]:
        convention = self._convention
        reshapes = self._source.get("reshapes", [])
        if reshapes and not self._own and self._bundle.metadata.get("data_format") != convention.data_format:
            yield (
                f"CHECK {', '.join(reshapes[:5])}: what a Reshape or Permute gives out depends on the data format, and "
                "wio does not follow it: the weights before it are kept in the source's order"
            )
        if not self._order and "layers" not in self._bundle.metadata:
            yield (
                "layers are in the source's order, which need not be the model's (checkpoints are sorted by name): "
                "load with by_name=True, or give the order with --option layers=NAME,NAME,..."
            )
        frozen = [
            str(record["name"]) for record in layer_records(self._bundle.metadata) if record.get("frozen") is True
        ]
        if frozen and not self._keeps_config():
            yield (
                f"CHECK {', '.join(frozen[:5])}: Keras lists trained weights first, so the order is that of a model "
                "frozen as the source is: freeze the same layers before load_weights"
            )
        own = "each layer in its own data format, a Flatten in that of its map"
        formats = own if self._own else convention.data_format
        yield f"written for Keras {convention.family} on {convention.backend}, {formats}"
        if not self._keeps_config():
            pairs = ((t.layer, t.layer) for t in self._bundle.values() if is_recurrent(t.role))
            yield from behaviour_notes(pairs, self._layers)
        if self._source.get("full_model") and not self._keeps_config():
            yield (
                f"weights only: the model_config of Keras {self._source['version'] or '1'} does not hold for "
                f"Keras {convention.family}, {formats}; build the model, then load_weights"
            )

    def _problem(self, kind: str, tensor: Tensor, message: str, remedy: str | None) -> None:
        self._problems.append(Problem(kind, message, tensor.name, remedy))


def _text(value: str) -> dict[str, Any]:
    return {"type": "ascii-variable", "shape": [], "value": [value]}
