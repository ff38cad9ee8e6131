"""Which weights of a recurrent layer make which: what fills a slot, and what a target asks for.

Formats differ in how many biases they keep (one, or two that are added) and in whether the two directions of a
bidirectional layer share arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from wio.adapter import Convention
from wio.bundle import Bundle, Tensor
from wio.container import verified
from wio.errors import LayoutError, Problem
from wio.gates import added, stack, take, with_gates, zeros
from wio.layout import Layout
from wio.recurrent import APART, ONE, TWO, RecurrentLayers, family, holds_two, is_bias, is_recurrent, unknown_reset
from wio.roles import same_axes

# Why peepholes that are all zeros stay behind.
IDLE = "peepholes of zero: the layer computes the same without"


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
    return _bias(role, layout, mine) if is_bias(role) else with_gates(layout.gates, mine)


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
    lacking = [part for part in APART if part not in by_part]
    if lacking:
        raise LayoutError(f"the layer has no {lacking[0]} beside {names}", remedy=f"declare it: {lacking[0]}")
    first, second = (with_gates(gates, by_part[part]) for part in APART)
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
    if not sources or not is_bias(sources[0].role):
        return None
    before = any(holds_two(tensor.role, tensor.layout) for tensor in sources)
    after = any(holds_two(role, layout) for role, layout in wanted)
    if before == after:
        return None
    if (family(sources[0].role) or "").startswith("gru.") and reset is not False:
        if reset is None:
            message, remedy = unknown_reset(sources[0].layer)
            raise LayoutError(message, remedy=remedy)
        kept = "two biases that cannot be added" if before else "two biases, and the source has one"
        raise LayoutError(f"a GRU that applies its reset gate after the recurrent product has {kept}")
    kind = "sum" if before else "synthesise"
    return kind, _WHY[kind]


def regrouped(wanted: Sequence[tuple[str | None, Layout | None]], sources: Sequence[Tensor]) -> str:
    """Why biases or directions are put into one array or taken apart; "" where neither is."""
    after = "".join(layout.letters for _, layout in wanted if layout is not None)
    before = "".join(map(_letters, sources))
    told = []
    for letter, what in (("F", "directions"), ("B", "biases")):
        if is_recurrent(sources[0].role) and (letter in before) != (letter in after):
            told.append(f"the target keeps both {what} {'in one array' if letter in after else 'apart'}")
    return "; ".join(told)


def left_behind(
    wanted: Sequence[tuple[str | None, Layout | None, str]], sources: Sequence[Tensor], layers: RecurrentLayers
) -> str | None:
    """What slots leave behind of their sources: a bias or a direction that none of them takes; None if nothing."""
    parts = {(role or "").partition(".")[2] for role, _, _ in wanted}
    if is_bias(sources[0].role) and len(parts & set(APART)) == 1 and any("B" in _letters(t) for t in sources):
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
    apart = [f"{kind}.{part}" for part in APART]
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


def idle_peephole(tensor: Tensor) -> bool:
    """Whether a tensor is the peepholes of an LSTM, all zeros: the layer computes the same without.

    These few numbers are the only values that a plan reads.
    """
    return tensor.role == "lstm.peephole" and not verified(tensor).numpy().any()
