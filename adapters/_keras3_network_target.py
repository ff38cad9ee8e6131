"""What a ``.keras`` file of a whole network holds: the config that Keras 3 builds it from, and the tree it saves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wio.adapter import Convention, Slot, Target
from wio.adapters._keras3_archive import CONFIG, METADATA, WEIGHTS
from wio.adapters._keras3_config import LAYERS, snake_case
from wio.adapters._keras3_network import OPERATORS, keras_network
from wio.adapters._keras3_pieces import Piece, Pieces
from wio.adapters._keras3_target import FACTS
from wio.adapters._keras3_tree import VARS
from wio.architectures.parameters import PARTS
from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError, Problem
from wio.execution import Execution, execution, rows_reason, weights_dtype
from wio.layout import Layout
from wio.network import Network
from wio.roles import NOT_WEIGHTS, same_axes

# The version whose files these are like; no clock enters into them.
_METADATA = {"keras_version": "3.15.0", "date_saved": "1980-01-01@00:00:00"}
_TYPES = ("float32", "float16", "bfloat16", "float64")
_LEAVES = {"mean": "moving_mean", "variance": "moving_variance"}


def network_target(bundle: Bundle, network: Network, convention: Convention, data_format: str) -> Target:
    """Slots in the order of Keras's ``model.layers``; layers are named as in the bundle, ``_`` in place of ``/``."""
    run = execution(network, OPERATORS)
    by_role: dict[tuple[str, str | None], Tensor] = {}
    for tensor in bundle.values():
        by_role.setdefault((tensor.layer, tensor.role), tensor)
    names = {each.layer.name: each.layer.name.replace("/", "_") for each in run.runs}
    slopes = {
        layer: "".join(t.layout.letters) for (layer, role), t in by_role.items() if role == "prelu.alpha" and t.layout
    }
    dtype, problems = weights_dtype(bundle, _TYPES)
    problems = [*run.problems, *problems, *_twice(names)]
    dropped = {n: f"its role is {t.role}: no weight of the network" for n, t in bundle.items() if t.role in NOT_WEIGHTS}
    if problems:
        return Target((), {}, dropped | dict.fromkeys(bundle, ""), tuple(problems))
    keras, problems = keras_network(run, names, slopes, data_format, dtype)
    tree = _Tree(run, by_role, convention)
    for piece in keras.ordered:
        tree.add(piece, keras)
    title = str(bundle.metadata.get("architecture", "network"))
    told: dict[str, Any] = {key: bundle.metadata[key] for key in ("architecture", "dialect") if key in bundle.metadata}
    texts = ((METADATA, _METADATA), (CONFIG, keras.config(title.replace("/", "_"))))
    members = [{"name": name, "text": json.dumps(document)} for name, document in texts]
    facts = {
        "kind": "keras",
        "version": _METADATA["keras_version"],
        "members": [*members, {"name": WEIGHTS}],
        "groups": {VARS: _named(title), LAYERS: {}, **tree.groups},
        "variables": tree.variables,
    }
    metadata = {"adapter": FACTS, "data_format": data_format, "flatten_order": "HWC", "layers": tree.layers}
    notes = tuple(_notes(run, keras, data_format))
    return Target(tuple(tree.slots), {**metadata, **told, FACTS: facts}, dropped, tuple(problems), notes)


class _Tree:
    """The groups and variables of ``model.weights.h5``, named as Keras names them: by class and a counter."""

    def __init__(
        self, run: Execution, by_role: Mapping[tuple[str, str | None], Tensor], convention: Convention
    ) -> None:
        self._runs = {each.layer.name: each for each in run.runs}
        self._by_role, self._convention = by_role, convention
        self._used: Counter[str] = Counter()
        self.groups: dict[str, dict[str, Any]] = {}
        self.variables: dict[str, dict[str, Any]] = {}
        self.layers: list[dict[str, Any]] = []
        self.slots: list[Slot] = []

    def add(self, piece: Piece, keras: Pieces) -> None:
        if piece.operation:
            return
        name = snake_case(piece.class_name)
        k = self._used[name]
        self._used[name] += 1
        path = f"{LAYERS}/{name}_{k}" if k else f"{LAYERS}/{name}"
        self.groups |= {path: {}, f"{path}/{VARS}": _named(piece.name)}
        record: dict[str, Any] = {"name": piece.name, "tensors": [], "kind": piece.class_name}
        if "epsilon" in piece.config:
            record["epsilon"] = piece.config["epsilon"]
        self.layers.append(record)
        if piece.layer is None:
            return
        run = self._runs[piece.layer]
        for index, part in enumerate(part for part in PARTS[run.layer.op] if run.has(part)):
            at = f"{path}/{VARS}/{index}"
            slot = self._slot(f"{piece.name}/{_LEAVES.get(part.name, part.name)}", part.role, piece, at, keras)
            self.slots.append(slot)
            record["tensors"].append(slot.name)

    def _slot(self, name: str, role: str, piece: Piece, at: str, keras: Pieces) -> Slot:
        layer = str(piece.layer)
        source = self._by_role.get((layer, role))
        layout, reason = None, ""
        shape: tuple[int, ...] = ()
        if source is not None and source.layout is not None:
            layout = same_axes(source.layout, self._convention.layouts.get(role, ())) or source.layout
            if role == "prelu.alpha":
                axes = keras.axes(self._runs[layer])
                layout = Layout(tuple(axis if axis in source.layout.letters else "1" for axis in axes))
            elif role == "dense.kernel":
                reason = rows_reason(source.layout, layout, "Keras 3")
            try:
                shape = source.to(layout).shape
            except LayoutError:
                # The plan says so, with the remedy.
                shape = source.shape
        self.variables[at] = {
            "name": name,
            "layer": piece.name,
            "dtype": keras.dtype,
            "shape": list(shape),
            "role": role,
            "layout": None if layout is None else str(layout),
        }
        return Slot(name, role, layout, piece.name, layer, at, reason)


def _named(name: str) -> dict[str, Any]:
    """The attribute ``name`` that Keras has written beside variables since 3.6."""
    return {"name": {"type": "utf-8-variable", "shape": [], "value": [name]}}


def _twice(names: Mapping[str, str]) -> list[Problem]:
    counts = Counter(names.values())
    return [Problem("twice", f"two layers of Keras would be named {n!r}") for n, count in counts.items() if count > 1]


def _notes(run: Execution, keras: Pieces, data_format: str) -> list[str]:
    notes = [f"the whole network in Keras 3's own layers, {data_format}"]
    helping = Counter(piece.class_name for piece in keras.ordered if piece.operation)
    if helping:
        listed = ", ".join(f"{count} {name}" for name, count in helping.items())
        notes.append(f"what no layer of Keras does, keras.ops do: {listed}")
    notes.append(f"it gives out {', '.join(run.outputs)}")
    if run.left_out:
        notes.append(f"left out, for it works in training only: {', '.join(run.left_out)}")
    return notes
