"""Rules over a file's graph against that of an architecture, both walked together from their outputs.

Layers are paired by their place in the graph, not by name: Keras counts on where a layer is missing, and every name
after it is another layer's. What has a kernel or joins several inputs is paired; what stands between, a batch norm, an
activation, is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wio.checks.finding import ERROR, WARNING, Finding
from wio.checks.graph import KERNELS, Graph, first_of, norm_in
from wio.network import ACTIVATIONS, NetLayer, Network, computed_otherwise

_PAIRED = KERNELS | {"Add", "Mul", "Max", "Average", "Concat", "Input"}
_CLOSE = 1e-6


def check_against(own: Network, wanted: Network, title: str, named: Mapping[str, str] | None = None) -> list[Finding]:
    """How a file's graph differs from the architecture's.

    ``named`` gives the file's names for layers of the architecture, as far as they are known: they say which of
    several outputs is which. Where they do not, outputs are paired in their order.
    """
    ours, theirs = Graph(own), Graph(wanted)
    pairs, differences = _aligned(ours, theirs, title, named or {})
    order = {layer.name: k for k, layer in enumerate(own.layers)}
    pairs.sort(key=lambda pair: order[pair[0].name])
    return [*differences, *(finding for pair in pairs for finding in _compared(ours, theirs, *pair, title))]


def _aligned(
    ours: Graph, theirs: Graph, title: str, named: Mapping[str, str]
) -> tuple[list[tuple[NetLayer, NetLayer]], list[Finding]]:
    ends, wanted_ends = _ends(ours), _ends(theirs)
    if len(ends) != len(wanted_ends):
        evidence = f"it has {len(ends)} outputs, {title} has {len(wanted_ends)}"
        return [], [Finding("graph-differs", ERROR, "", evidence)]
    spelled = [named.get(layer.name) for layer in wanted_ends]
    if {layer.name for layer in ends} == set(spelled):
        ends = [ours.layers[name] for name in spelled if name is not None]
    waiting = list(zip(ends, wanted_ends, strict=True))
    pairs: dict[str, tuple[NetLayer, NetLayer]] = {}
    differences: list[Finding] = []
    while waiting:
        own, wanted = waiting.pop()
        own, wanted = _paired_before(ours, own), _paired_before(theirs, wanted)
        if own.name in pairs:
            continue
        pairs[own.name] = (own, wanted)
        told = _difference(own, wanted)
        if told is not None:
            evidence = f"it is {told[0]}; {title} has {told[1]} there, {wanted.name}. What comes before is not compared"
            differences.append(Finding("graph-differs", ERROR, own.name, evidence))
            del pairs[own.name]
            continue
        before = [theirs.layers[name] for name in wanted.inputs]
        if own.inputs:
            waiting += zip((ours.layers[name] for name in own.inputs), before, strict=True)
            continue
        # A Sequential model of Keras may leave its input layer out.
        left = [at.name for at in (_paired_before(theirs, layer) for layer in before) if at.op != "Input"]
        if left:
            evidence = f"nothing comes before it; {title} has {', '.join(left)} there"
            differences.append(Finding("graph-differs", ERROR, own.name, evidence))
    return list(pairs.values()), differences


def _ends(graph: Graph) -> list[NetLayer]:
    return [_paired_before(graph, graph.layers[name]) for name, after in graph.consumers.items() if not after]


def _paired_before(graph: Graph, layer: NetLayer) -> NetLayer:
    """The layer itself or the nearest before it that is paired, going back through what has one input."""
    while layer.op not in _PAIRED and len(layer.inputs) == 1:
        layer = graph.layers[layer.inputs[0]]
    return layer


def _difference(own: NetLayer, wanted: NetLayer) -> tuple[str, str] | None:
    facts: list[tuple[str, Any, Any]] = [("", own.op, wanted.op)]
    if own.op in KERNELS and own.op == wanted.op:
        names = ("filters", "units", "kernel_shape", "strides")
        facts += [(f"{n} ", own.attributes.get(n), wanted.attributes.get(n)) for n in names]
    else:
        facts.append(("a layer of inputs ", len(own.inputs), len(wanted.inputs)))
    for name, here, there in facts:
        if None not in (here, there) and _plain(here) != _plain(there):
            return f"{name}{here}", f"{name}{there}"
    return None


def _plain(value: object) -> object:
    return list(value) if isinstance(value, list | tuple) else value


def _compared(ours: Graph, theirs: Graph, own: NetLayer, wanted: NetLayer, title: str) -> Iterator[Finding]:
    chain, expected = ours.chain(own.name), theirs.chain(wanted.name)
    norm, late = norm_in(chain)
    wanted_norm, wanted_late = norm_in(expected)
    name, place = own.name, f"{title} has {wanted.name}"
    replaced = first_of(expected, frozenset({"LRN"}))
    if norm is not None and wanted_norm is None and replaced is not None:
        evidence = f"a batch norm; {title} has a local response normalisation there, {expected[replaced].name}"
        yield Finding("replaced-layer", WARNING, norm.name, evidence)
    elif norm is None and wanted_norm is not None:
        yield Finding("conv-without-norm", ERROR, name, f"no batch norm after it; {place} -> {wanted_norm.name}")
    elif norm is not None and wanted_norm is None:
        yield Finding("graph-differs", ERROR, norm.name, f"a batch norm after {name}; {place}, without one")
    elif norm is not None and wanted_norm is not None:
        if late and not wanted_late:
            path = " -> ".join([name, *(each.name for each in chain[: chain.index(norm) + 1])])
            yield Finding("activation-before-norm", ERROR, name, f"{path}; {place} -> {wanted_norm.name} first")
        elif wanted_late and not late:
            evidence = f"{norm.name} comes before the activation; in {title} it comes after"
            yield Finding("graph-differs", ERROR, name, evidence)
        yield from _epsilon(norm, wanted_norm, title)
        yield from _otherwise(norm, wanted_norm, title)
    if own.op in KERNELS:
        yield from _otherwise(own, wanted, title)
        yield from _bias(own, wanted, norm, title)
        yield from _activation(name, chain, expected, title)


def _epsilon(own: NetLayer, wanted: NetLayer, title: str) -> Iterator[Finding]:
    here, there = own.attributes.get("epsilon"), wanted.attributes.get("epsilon")
    if here is not None and there is not None and abs(here - there) > _CLOSE * abs(there):
        yield Finding("epsilon-mismatch", ERROR, own.name, f"epsilon {here:g}; {title} has {there:g}")


def _bias(own: NetLayer, wanted: NetLayer, norm: NetLayer | None, title: str) -> Iterator[Finding]:
    here, there = own.attributes.get("bias"), wanted.attributes.get("bias", True)
    if here and not there:
        code = "graph-differs" if norm is None else "bias-before-norm"
        after = "" if norm is None else f" in front of {norm.name}"
        yield Finding(code, ERROR, own.name, f"a bias{after}; {title} has none in {wanted.name}")
    elif here is False and there:
        yield Finding("graph-differs", ERROR, own.name, f"no bias; {title} has one in {wanted.name}")


def _activation(name: str, chain: list[NetLayer], expected: list[NetLayer], title: str) -> Iterator[Finding]:
    """Softmax aside: a network is often kept without it, and gives out logits."""
    ends = [first_of(layers, frozenset({"Softmax"})) for layers in (chain, expected)]
    if ends[0] is not None and ends[1] is not None:
        yield from _otherwise(chain[ends[0]], expected[ends[1]], title)
    kinds = ACTIVATIONS - {"Softmax"}
    here, there = first_of(chain, kinds), first_of(expected, kinds)
    own = None if here is None else chain[here].op
    wanted = None if there is None else expected[there].op
    if own != wanted:
        evidence = f"its activation is {own or 'none'}; that of {title} is {wanted or 'none'}"
        yield Finding("graph-differs", ERROR, name, evidence)
    elif here is not None and there is not None:
        yield from _otherwise(chain[here], expected[there], title)


def _otherwise(own: NetLayer, wanted: NetLayer, title: str) -> Iterator[Finding]:
    for attribute, here, there in computed_otherwise(own, wanted):
        yield Finding("graph-differs", ERROR, own.name, f"{attribute} {here}; {title} has {there} in {wanted.name}")
