"""Recurrent layers: what a bundle says of them beside their weights, and which weights make which.

Formats differ in how many biases they keep (one, or two that are added), in whether the two directions of a
bidirectional layer share arrays, and in which GRU they compute. None of that follows from a shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wio.adapter import Convention
from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError, Problem
from wio.gates import added, stack, take, with_gates, zeros
from wio.layout import Layout
from wio.roles import same_axes

KEY = "recurrent"
_KINDS = ("lstm", "gru", "rnn")
_APART = ("input_bias", "recurrent_bias")
# By the number of biases of a layer, what Convention.reset_after calls it.
NONE, ONE, TWO = "none", "one", "two"
# What makes a layer compute something else than its weights say, by the words of Keras.
_BEHAVIOUR = ("activation", "recurrent_activation", "go_backwards", "clip", "input_forget")


def is_recurrent(role: str | None) -> bool:
    """Whether a role is a weight of an LSTM, a GRU or a plain recurrent layer."""
    return (role or "").partition(".")[0] in _KINDS


def family(role: str | None) -> str | None:
    """The role that a weight belongs to: ``lstm.bias`` for each of the biases of an LSTM, else the role itself."""
    kind, _, part = (role or "").partition(".")
    return f"{kind}.bias" if kind in _KINDS and part in _APART else role


def direction_layers(layer: str) -> tuple[str, str]:
    """What the layers of the two directions are called, as Keras's Bidirectional does; this names and nothing more."""
    leaf = layer.rpartition("/")[2]
    return f"{layer}/forward_{leaf}", f"{layer}/backward_{leaf}"


@dataclass(frozen=True)
class RecurrentLayers:
    """The facts of ``metadata["recurrent"]``, by layer (spec/wio-1.md, section 7)."""

    facts: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def of(bundle: Bundle) -> RecurrentLayers:
        """The facts of a bundle. A layer whose weights hold both directions has two, whether its file names them or
        not."""
        stated = bundle.metadata.get(KEY)
        facts = {
            layer: dict(each)
            for layer, each in (stated.items() if isinstance(stated, Mapping) else ())
            if isinstance(each, Mapping)
        }
        for tensor in bundle.values():
            if is_recurrent(tensor.role) and tensor.layout is not None and "F" in tensor.layout.letters:
                facts.setdefault(tensor.layer, {}).setdefault("directions", list(direction_layers(tensor.layer)))
        return RecurrentLayers(facts)

    def directions(self, layer: str) -> tuple[str, str] | None:
        """The layers of the forward and the backward direction of a bidirectional one; None for any other."""
        stated = self.facts.get(layer, {}).get("directions")
        if isinstance(stated, Sequence) and len(stated) == 2 and all(isinstance(each, str) for each in stated):
            return stated[0], stated[1]
        return None

    def home(self, layer: str) -> tuple[str, int] | None:
        """The bidirectional layer that a layer is one direction of, and which: 0 forward, 1 backward."""
        for name in self.facts:
            directions = self.directions(name)
            if directions is not None and layer in directions:
                return name, directions.index(layer)
        return None

    def whole(self, layer: str) -> str:
        """The bidirectional layer that a layer is part of, or the layer itself."""
        home = self.home(layer)
        return layer if home is None else home[0]

    def _said(self, layer: str) -> dict[str, Any]:
        """What is said of a layer, of the bidirectional layer that it is part of, and of its parts."""
        names = (*(self.directions(layer) or ()), self.whole(layer), layer)
        return {key: value for name in names for key, value in self.facts.get(name, {}).items()}

    def reset_after(self, layer: str) -> bool | None:
        """Whether a GRU applies its reset gate after the recurrent product; None where nobody said so."""
        stated = self._said(layer).get("reset_after")
        return stated if isinstance(stated, bool) else None

    def behaviour(self, layer: str) -> dict[str, Any]:
        """What a layer computes otherwise than every format's layers do unless told: tanh, sigmoid for the gates,
        forwards."""
        return {key: value for key, value in self._said(layer).items() if key in _BEHAVIOUR}

    def stacked(self, layer: str) -> tuple[str, int]:
        """The module of several layers, one on the other, that a layer is in, and its number; else itself and 0."""
        facts = self.facts.get(layer, {})
        module, level = facts.get("module"), facts.get("level")
        return (module, level) if isinstance(module, str) and type(level) is int else (layer, 0)

    def counterpart(self, layer: str, theirs: RecurrentLayers) -> str:
        """The layer of these that a layer of ``theirs`` is: the same direction of the layer of the same name."""
        home = theirs.home(layer)
        directions = self.directions(home[0]) if home is not None else None
        return layer if home is None or directions is None else directions[home[1]]


def behaviour_notes(
    pairs: Iterable[tuple[str, str]], ours: RecurrentLayers, theirs: RecurrentLayers | None = None
) -> Iterator[str]:
    """What to check of recurrent layers, source and target: the weights are right, and the layers compute otherwise."""
    for source, target in dict.fromkeys(pairs):
        told, wanted = ours.behaviour(source), theirs.behaviour(target) if theirs else {}
        if told != wanted:
            here, there = (", ".join(f"{k}={v}" for k, v in each.items()) or "what is usual" for each in (told, wanted))
            yield f"CHECK {target}: the source computes with {here}, the target with {there}; weights do not carry that"


def with_facts(bundle: Bundle, told: Mapping[str, Mapping[str, Any]]) -> Bundle:
    """The bundle with more facts, by layer."""
    if not told:
        return bundle
    facts = {**RecurrentLayers.of(bundle).facts}
    for layer, each in told.items():
        facts[layer] = {**facts.get(layer, {}), **each}
    return Bundle(bundle.values(), {**bundle.metadata, KEY: facts})


def settled(bundle: Bundle, convention: Convention) -> Bundle:
    """The bundle with what its format says of every GRU, where the file does not: PyTorch's always reset after."""
    layers = RecurrentLayers.of(bundle)
    grus: dict[str, list[Tensor]] = {}
    for tensor in bundle.values():
        if (tensor.role or "").startswith("gru."):
            grus.setdefault(tensor.layer, []).append(tensor)
    resets = {layer: convention.reset_after.get(_bias_form(tensors)) for layer, tensors in grus.items()}
    unknown = {k: reset for k, reset in resets.items() if reset is not None and layers.reset_after(k) is None}
    return with_facts(bundle, {layer: {"reset_after": reset} for layer, reset in unknown.items()})


def _bias_form(tensors: Sequence[Tensor]) -> str:
    biases = [t for t in tensors if (family(t.role) or "").endswith(".bias")]
    if not biases:
        return NONE
    return TWO if any(_holds_two(t.role, t.layout) for t in biases) else ONE


def _holds_two(role: str | None, layout: Layout | None) -> bool:
    return (role or "").partition(".")[2] in _APART or (layout is not None and "B" in layout.letters)


def _is_bias(role: str | None) -> bool:
    return is_recurrent(role) and (family(role) or "").endswith(".bias")


# --- what fills a slot


def assembled(
    role: str | None, layout: Layout, layer: str, sources: Sequence[Tensor], layers: RecurrentLayers
) -> Tensor:
    """What a slot of that role, layout and source layer takes out of its sources; rearranging is left to do."""
    first = sources[0]
    if first.layout is None or (len(sources) == 1 and _as_it_is(role, layout, first)):
        return first
    directions = layers.directions(layer)
    if "F" in layout.letters and directions is not None:
        rest = Layout(tuple(each for axis in layout.axes if (each := axis.replace("F", ""))), gates=layout.gates)
        return stack([assembled(role, rest, each, sources, layers) for each in directions], "F")
    mine = _of_direction(layer, sources, layers)
    return _bias(role, layout, mine) if _is_bias(role) else with_gates(layout.gates, mine)


def filling(tensor: Tensor, layout: Layout, layers: RecurrentLayers) -> Tensor:
    """What one tensor alone becomes in that layout, a bias in the number of biases that the layout has."""
    return assembled(tensor.role, layout, tensor.layer, [tensor], layers).to(layout)


def _as_it_is(role: str | None, layout: Layout, source: Tensor) -> bool:
    held = source.layout
    if role != source.role or held is None:
        return False
    same_gates = not (held.gates and layout.gates) or sorted(held.gates) == sorted(layout.gates)
    return same_gates and (not is_recurrent(role) or not set("FB") & (set(held.letters) ^ set(layout.letters)))


def _of_direction(layer: str, sources: Sequence[Tensor], layers: RecurrentLayers) -> list[Tensor]:
    home = layers.home(layer)
    found = []
    if home is None and layers.directions(layer) is not None:
        raise LayoutError(f"layer {layer!r} has two directions, the target keeps one")
    for tensor in sources:
        if tensor.layout is not None and "F" in tensor.layout.letters:
            found.append(take(tensor, "F", home[1] if home else 0))
        elif home is None or tensor.layer == layer:
            found.append(tensor)
    if not found:
        raise LayoutError(f"the source has no {sources[0].role} of layer {layer!r}")
    return found


def _bias(role: str | None, layout: Layout, sources: Sequence[Tensor]) -> Tensor:
    first, second = _two_biases(layout.gates, sources)
    part = (role or "").partition(".")[2]
    if part == "input_bias":
        return first
    if part == "recurrent_bias":
        return zeros(first) if second is None else second
    if "B" in layout.letters:
        return stack([first, zeros(first) if second is None else second], "B")
    return first if second is None else added([first, second])


def _two_biases(gates: str | None, sources: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """The input and the recurrent bias; None where the source has one bias only."""
    by_part: dict[str, list[Tensor]] = {}
    for tensor in sources:
        by_part.setdefault((tensor.role or "").partition(".")[2], []).append(tensor)
    names = ", ".join(tensor.name for tensor in sources)
    for alike in by_part.values():
        held = "".join(t.layout.gates or "?" for t in alike if t.layout is not None)
        if len(set(held)) < len(held):
            told = ", ".join(tensor.name for tensor in alike)
            raise LayoutError(f"{len(alike)} tensors of layer {alike[0].layer!r} are its {alike[0].role}: {told}")
    if "bias" in by_part:
        if len(by_part) > 1:
            raise LayoutError(f"declared both as one bias and as the two that it is the sum of: {names}")
        whole = with_gates(gates, by_part["bias"])
        if whole.layout is not None and "B" in whole.layout.letters:
            return take(whole, "B", 0), take(whole, "B", 1)
        return whole, None
    lacking = [part for part in _APART if part not in by_part]
    if lacking:
        raise LayoutError(f"the layer has no {lacking[0]} beside {names}", remedy=f"declare it: {lacking[0]}")
    first, second = (with_gates(gates, by_part[part]) for part in _APART)
    return first, second


# --- steps


_WHY = {
    "sum": "the target keeps one bias, the sum of the input and the recurrent one: it rounds and cannot be taken apart",
    "synthesise": "the target keeps two biases that it adds: the recurrent one is made, all zeros",
}


def bias_step(
    wanted: Sequence[tuple[str | None, Layout | None]], sources: Sequence[Tensor], reset: bool | None
) -> tuple[str, str] | None:
    """What a step does that makes one bias of two or two of one, and why; None for every other step.

    LayoutError where that would change what a GRU computes. One that resets after multiplies the reset gate with the
    candidate's recurrent bias as well, so that no single bias is the same as its two (ONNX Operators.md, GRU:
    linear_before_reset; torch.nn.GRU; keras 2.2.4 recurrent.py, reset_after).
    """
    if not sources or not _is_bias(sources[0].role):
        return None
    before = any(_holds_two(tensor.role, tensor.layout) for tensor in sources)
    after = any(_holds_two(role, layout) for role, layout in wanted)
    if before == after:
        return None
    if (family(sources[0].role) or "").startswith("gru.") and reset is not False:
        if reset is None:
            message, remedy = _unknown_reset(sources[0].layer)
            raise LayoutError(message, remedy=remedy)
        kept = "two biases that cannot be added" if before else "two biases, and the source has one"
        raise LayoutError(f"a GRU that applies its reset gate after the recurrent product has {kept}")
    kind = "sum" if before else "synthesise"
    return kind, _WHY[kind]


def spread(
    wanted: Sequence[tuple[str | None, Layout | None, str]], sources: Sequence[Tensor], layers: RecurrentLayers
) -> str | None:
    """What slots leave behind of their sources: a bias or a direction that none of them takes; None if nothing."""
    parts = {(role or "").partition(".")[2] for role, _, _ in wanted}
    if _is_bias(sources[0].role) and len(parts & set(_APART)) == 1 and any("B" in _letters(t) for t in sources):
        return "one of its two biases"
    if any("F" in _letters(t) for t in sources) and not any(
        layout is not None and "F" in layout.letters for _, layout, _ in wanted
    ):
        taken = {home[1] for _, _, layer in wanted if (home := layers.home(layer)) is not None}
        return None if taken == {0, 1} else "one of its two directions"
    return None


def _letters(tensor: Tensor) -> str:
    return tensor.layout.letters if tensor.layout is not None else ""


# --- what a target asks for


def gathered(bundle: Bundle, layers: RecurrentLayers, *, together: bool) -> tuple[Bundle, list[Problem]]:
    """The bundle with the biases of a layer as one tensor (two along ``B``), and with its directions apart or
    ``together`` along ``F``: one tensor for what a target keeps, standing for those that make it.

    What cannot be put together is left out, and is a problem.
    """
    groups: dict[object, list[Tensor]] = {}
    for tensor in bundle.values():
        key: object = tensor.name
        if is_recurrent(tensor.role) and tensor.layout is not None:
            key = (layers.whole(tensor.layer), family(tensor.role))
        groups.setdefault(key, []).append(tensor)
    tensors: list[Tensor] = []
    problems = []
    for group in groups.values():
        try:
            tensors += _gathered(group, layers, together=together)
        except LayoutError as error:
            problems.append(Problem("layout", error.message, group[0].name, error.remedy))
    return Bundle(tensors, bundle.metadata), problems


def _gathered(group: list[Tensor], layers: RecurrentLayers, *, together: bool) -> list[Tensor]:
    first = group[0]
    role, layer = family(first.role), layers.whole(first.layer)
    directions = layers.directions(layer)
    if not is_recurrent(role) or first.layout is None:
        return group
    if directions is None or not together:
        made: list[Tensor] = []
        for each in directions or (layer,):
            if directions and not any("F" in _letters(t) or t.layer == each for t in group):
                continue
            mine = _of_direction(each, group, layers)
            if any(tensor.role != role for tensor in mine):
                first_bias, second = _two_biases(_all_gates(mine), mine)
                mine = [stack([first_bias, second or first_bias], "B")]
            made += [replace(tensor, role=role, layer=each) for tensor in mine]
        names = [tensor.name for tensor in made]
        return [
            replace(t, name=f"{t.name} ({t.layer})") if names.index(t.name) != place else t
            for place, t in enumerate(made)
        ]
    if len(group) == 1:
        return group
    apart = _gathered(group, layers, together=False)
    both = []
    for each in directions:
        mine = [tensor for tensor in apart if tensor.layer == each]
        if not mine:
            raise LayoutError(f"the source has no {role} of layer {each!r}")
        both.append(with_gates(_all_gates(mine), mine))
    return [replace(stack(both, "F"), name=first.name, role=role, layer=layer)]


def _all_gates(tensors: Sequence[Tensor]) -> str | None:
    gates = "".join(dict.fromkeys(g for t in tensors for g in (t.layout.gates or "" if t.layout else "")))
    return gates or None


def bias_layouts(tensor: Tensor, convention: Convention, layers: RecurrentLayers) -> list[tuple[str, Layout]]:
    """The roles and layouts in which a format keeps the bias, or the two, of a layer; LayoutError if it has none."""
    kind = (tensor.role or "").partition(".")[0]
    table = convention.layouts
    apart = [f"{kind}.{part}" for part in _APART]
    if all(role in table for role in apart):
        return [(role, table[role][0]) for role in apart]
    usual = [layout for layout in table.get(f"{kind}.bias", ()) if ("F" in layout.letters) == ("F" in _letters(tensor))]
    reset = layers.reset_after(tensor.layer) if kind == "gru" else None
    if reset is not None and convention.reset_after:
        forms = {form for form, each in convention.reset_after.items() if each == reset}
        usual = [layout for layout in usual if (TWO if "B" in layout.letters else ONE) in forms]
    found = same_axes(tensor.layout, tuple(usual)) if tensor.layout is not None else None
    if found is None and (not usual or tensor.layout is None):
        raise LayoutError(f"the format has no {tensor.role} in layout {tensor.layout}")
    return [(f"{kind}.bias", usual[0] if found is None else found)]


def reset_problem(tensor: Tensor, convention: Convention, layers: RecurrentLayers, target: str) -> Problem | None:
    """Why a weight of a GRU cannot be taken to a format whose GRUs all compute another, or None."""
    possible = set(convention.reset_after.values())
    if not (tensor.role or "").startswith("gru.") or len(possible) != 1:
        return None
    [only], reset = possible, layers.reset_after(tensor.layer)
    if reset is None:
        message, remedy = _unknown_reset(tensor.layer)
        return Problem("undeclared", message, tensor.name, remedy)
    if reset == only:
        return None
    words = ("after", "before") if reset else ("before", "after")
    message = f"GRU {tensor.layer!r} resets {words[0]} the recurrent product, {target} only {words[1]} it"
    return Problem("unsupported", message, tensor.name, "no weights make the two compute the same")


def _unknown_reset(layer: str) -> tuple[str, str]:
    message = f"whether GRU {layer!r} applies its reset gate before or after the recurrent product is not declared"
    return message, "--declare 'GLOB=gru.reset_after' or 'GLOB=gru.reset_before' for its weights"


def same_reset(layer: str, ours: bool | None, theirs: bool | None) -> str | None:
    """Why a GRU of a template cannot take weights: it is another GRU; None if it can, or if it is not known."""
    if ours is None or theirs is None or ours == theirs:
        return None
    words = ("after", "before") if theirs else ("before", "after")
    return f"GRU {layer!r} of the template resets {words[0]} the recurrent product, that of the source {words[1]} it"


def idle_peephole(tensor: Tensor) -> bool:
    """Whether a tensor is the peepholes of an LSTM, all zeros: the layer computes the same without. Reads it."""
    return tensor.role == "lstm.peephole" and not tensor.numpy().any()
