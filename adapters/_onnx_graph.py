"""A walk over the graph of a model: what its nodes say of each weight, on the way through nodes that leave it a weight.

A weight that two nodes use in contradicting ways stays undeclared. Bodies of If, Loop and Scan see what is around
them; a function is walked for each call, because its weights are the arguments of the call.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from wio.adapters._onnx_maps import Known, Taken, further_output_of, integers, output_of
from wio.adapters._onnx_messages import Function, Graph, Model, Node, Value
from wio.adapters._onnx_uses import Made, Seen, bias_use, made_by, told_by, uses_of
from wio.adapters._onnx_weights import Weight
from wio.errors import LayoutError
from wio.layout import Layout
from wio.network import TIME, FeatureMap
from wio.roles import neutral

DEEPEST_CALL = 16
# Functions that call one another twice double with every level: a walk that long tells nobody anything.
MOST_NODES = 500_000
# Shapes and axes that a node takes as an input are a handful of numbers.
_MOST_CONSTANTS = 16
_TAKES_SHAPES = frozenset({"Reshape", "Squeeze", "Gather", "Concat"})
_STILL_A_WEIGHT = frozenset({"Identity", "Cast", "DequantizeLinear", "Transpose"})


class Declared(Struct, frozen=True):
    """What the graph says of one weight; ``group`` tells layers apart, ``label`` is the name of the layer's node."""

    role: str
    layout: Layout
    group: str
    label: str


class Findings(Struct):
    """Everything that a walk has found; weights are told apart by their place in the file.

    ``told`` are those that some node takes as a shape, an axis or the like, ``used`` those that one takes otherwise.
    """

    declared: dict[int, Declared] = field(default_factory=dict)
    contradicted: dict[int, list[str]] = field(default_factory=dict)
    dequantized: dict[int, list[str]] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    used: set[int] = field(default_factory=set)


class _Scope:
    """The values that nodes of one graph can name."""

    def __init__(self, parent: _Scope | None, values: Iterable[Value] = ()) -> None:
        self.parent = parent
        self.known: dict[str, Seen | Known] = {}
        self.made: dict[str, Made] = {}
        # Shapes that nodes put together: 0 for the batch, as in Reshape; () for the whole shape of something.
        self.built: dict[str, tuple[int, ...]] = {}
        self.shapes = {value.name: value.shape for value in values if value.shape is not None}

    def find(self, name: str) -> Seen | Known:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.known:
                return scope.known[name]
            scope = scope.parent
        return None

    def settle(self, name: str, found: Known) -> Known:
        """What is known of a value, with what the model itself says of its shape."""
        shape = self.shapes.get(name)
        if not shape:
            return found
        sizes = tuple(size if isinstance(size, int) and size > 0 else None for size in shape[1:])
        if found is None:
            return FeatureMap(None, sizes) if sizes else None
        if found.flat or len(found.sizes) != len(sizes):
            return found
        merged = tuple(theirs if ours is None else ours for ours, theirs in zip(found.sizes, sizes, strict=True))
        return FeatureMap(found.axes, merged)


def findings_of(model: Model, weights: Sequence[Weight]) -> Findings:
    """What the main graph of a model, its bodies and the functions that it calls say of the weights."""
    walk = _Walk(model, weights)
    if model.graph is not None:
        walk.graph(model.graph, None, "", 0)
    for place in walk.found.contradicted:
        walk.found.declared.pop(place, None)
    return walk.found


class _Walk:
    def __init__(self, model: Model, weights: Sequence[Weight]) -> None:
        self.found = Findings()
        self._weights = {weight.place: weight for weight in weights}
        self._functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self._left = MOST_NODES
        self._batch: int | None = None

    def graph(self, graph: Graph, parent: _Scope | None, path: str, depth: int) -> None:
        scope = _Scope(parent, (*graph.inputs, *graph.values, *graph.outputs))
        held = {record.name: self._weights[record.within[-1].begin] for record in graph.initializers}
        given = [value for value in graph.inputs if value.name not in held]
        if parent is None:
            lengths = {value.shape[0] if value.shape else None for value in given}
            batch = next(iter(lengths)) if len(lengths) == 1 else None
            self._batch = batch if isinstance(batch, int) and batch > 0 else None
            for value in given:
                scope.known[value.name] = scope.settle(value.name, None)
        else:
            scope.known |= {value.name: None for value in given}
        scope.known |= {name: _whole(weight) for name, weight in held.items()}
        self._nodes(graph.nodes, scope, path, depth)

    def _nodes(self, nodes: Sequence[Node], scope: _Scope, path: str, depth: int) -> None:
        for number, node in enumerate(nodes):
            self._left -= 1
            if self._left < 0:
                return
            group = f"{path}#{number}"
            for attribute in node.attributes.values():
                for i, body in enumerate(attribute.graphs):
                    self.graph(body, scope, f"{group}/{attribute.name}{i}/", depth)
            called = self._functions.get((node.domain, node.op, node.overload))
            if called is not None:
                self._call(called, node, scope, group, depth)
            else:
                self._node(node, scope, group)

    def _call(self, function: Function, node: Node, scope: _Scope, group: str, depth: int) -> None:
        if depth >= DEEPEST_CALL:
            return
        inner = _Scope(None)
        for formal, actual in zip(function.inputs, node.inputs, strict=False):
            inner.known[formal] = scope.find(actual) if actual else None
        self._nodes(function.nodes, inner, f"{group}/", depth + 1)
        for formal, actual in zip(function.outputs, node.outputs, strict=False):
            found = inner.find(formal)
            scope.known[actual] = found if isinstance(found, Seen) else scope.settle(actual, found)

    def _node(self, node: Node, scope: _Scope, group: str) -> None:
        taken = [scope.find(name) if name else None for name in node.inputs]
        if not node.outputs:
            return
        if node.op == "Constant" and not node.domain:
            weight = next((w for a in node.attributes.values() if (w := self._constant(a.tensor, a.within))), None)
            scope.known[node.outputs[0]] = _whole(weight) if weight is not None else None
            return
        seen = {i: each for i, each in enumerate(taken) if isinstance(each, Seen)}
        maps = {i: each for i, each in enumerate(taken) if not isinstance(each, Seen)}
        if not node.domain and node.op in _STILL_A_WEIGHT and 0 in seen:
            scope.known[node.outputs[0]] = self._passed(node, seen)
            return
        for use in uses_of(node, seen, maps):
            self._declare(seen[use.place], use.role, use.layout, group, node)
        self._bias(node, scope, seen)
        made = made_by(node, seen, group)
        if made is not None:
            scope.made[node.outputs[0]] = made
        self._build(node, scope, seen, maps)
        arguments = seen if node.outputs[0] in scope.built else told_by(node)
        for place, each in seen.items():
            (self.found.told if place in arguments else self.found.used).add(each.weight.place)
        found = None
        if not node.domain:
            shapes = {i: each.shape for i, each in seen.items()}
            every = [None if isinstance(each, Seen) else each for each in taken]
            constants = self._numbers(node, seen)
            if node.op == "Reshape" and len(node.inputs) > 1 and scope.built.get(node.inputs[1]):
                constants[1] = list(scope.built[node.inputs[1]])
            found = output_of(node, Taken(every, shapes, constants, self._batch))
        scope.known[node.outputs[0]] = scope.settle(node.outputs[0], found)
        for name in node.outputs[1:]:
            scope.known[name] = scope.settle(name, further_output_of(node))

    def _constant(self, tensor: object, within: Sequence[tuple[int, int, int]]) -> Weight | None:
        place = getattr(tensor, "within", within)[-1][0]
        return self._weights.get(place)

    def _passed(self, node: Node, seen: dict[int, Seen]) -> Seen | None:
        """A weight after a node that changes no more of it than the order of axes, or how numbers are stored."""
        before = seen[0]
        if node.op == "Transpose":
            order = integers(node, "perm", list(range(len(before.order)))[::-1])
            if order is None or sorted(order) != list(range(len(before.order))):
                return None
            return replace(before, order=tuple(before.order[place] for place in order))
        if node.op == "DequantizeLinear":
            names = [self._weights[each.weight.place].tensor.name for i, each in sorted(seen.items()) if i in (1, 2)]
            self.found.dequantized[before.weight.place] = names
        return before

    def _bias(self, node: Node, scope: _Scope, seen: dict[int, Seen]) -> None:
        """An Add right after a layer without a bias brings the bias."""
        if node.op != "Add" or node.domain or len(node.inputs) != 2 or len(seen) != 1:
            return
        place, bias = next(iter(seen.items()))
        made = scope.made.get(node.inputs[1 - place])
        use = bias_use(made, bias, place) if made is not None else None
        if made is not None and use is not None:
            self._declare(bias, use.role, use.layout, made.group, None)

    def _build(self, node: Node, scope: _Scope, seen: dict[int, Seen], maps: dict[int, Known]) -> None:
        """The shape that ``x.view(x.size(0), -1)`` becomes: Shape, Gather of the first length, Unsqueeze, Concat."""
        if node.domain or not node.inputs:
            return
        before, first = scope.built.get(node.inputs[0]), maps.get(0)
        found: tuple[int, ...] | None = None
        if node.op == "Shape" and not node.attributes and first is not None and TIME not in (first.axes or ()):
            found = ()
        elif node.op == "Gather" and before == () and self._numbers(node, seen).get(1) == [0]:
            found = (0,)
        elif node.op in ("Unsqueeze", "Cast", "Identity") and before == (0,):
            found = before
        elif node.op == "Concat":
            numbers = self._numbers(node, seen)
            parts = [scope.built.get(name) or tuple(numbers.get(i, ())) for i, name in enumerate(node.inputs)]
            # Shapes that are joined out of one another double with every node.
            whole = all(parts) and sum(map(len, parts)) <= _MOST_CONSTANTS
            found = tuple(length for part in parts for length in part) if whole else None
        if found is not None:
            scope.built[node.outputs[0]] = found

    def _numbers(self, node: Node, seen: dict[int, Seen]) -> dict[int, list[int]]:
        if node.op not in _TAKES_SHAPES and not node.op.startswith("Reduce"):
            return {}
        found = {}
        for i, each in seen.items():
            tensor = each.weight.tensor
            if tensor.dtype.name == "int64" and len(tensor.shape) <= 1 and tensor.size <= _MOST_CONSTANTS:
                found[i] = list(struct.unpack(f"<{tensor.size}q", tensor.stored()))
        return found

    def _declare(self, seen: Seen, role: str, text: str, group: str, node: Node | None) -> None:
        place = seen.weight.place
        if node is not None:
            self.found.nodes.setdefault(group, node)
        label = self.found.nodes[group].name if group in self.found.nodes else ""
        try:
            layout = seen.stored(Layout.parse(text))
            neutral(role, layout)
        except LayoutError:
            return
        if refuted := layout.check(seen.weight.tensor.shape):
            self.found.contradicted.setdefault(place, []).append(refuted)
            return
        before = self.found.declared.setdefault(place, Declared(role, layout, group, label))
        if (before.role, before.layout) != (role, layout):
            told = self.found.contradicted.setdefault(place, [f"{before.role} {before.layout}"])
            told.append(f"{role} {layout}")


def _whole(weight: Weight) -> Seen:
    return Seen(weight, tuple(range(len(weight.tensor.shape))))
