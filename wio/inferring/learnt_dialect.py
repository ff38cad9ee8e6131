"""What was learnt of a file as a dialect in the registry's TOML, and as declarations for ``--declare``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from wio.adapter import Convention
from wio.architectures.architecture import Architecture
from wio.architectures.parameters import Parameter
from wio.architectures.toml_text import exact_glob, quoted
from wio.bundle import Bundle
from wio.comparing.relation import essence
from wio.errors import printable
from wio.inferring.infer import Inference, Match
from wio.layout import Layout
from wio.roles import neutral, same_axes

_SEPARATORS = "/._"
Named = Sequence[tuple[Parameter, str]]


class Learnt(Struct, frozen=True):
    """What a dialect is written from: the pairs, B as it was read, and the convention of its format (``usual``)."""

    found: Inference
    b: Bundle
    adapter: str
    usual: Convention
    sources: tuple[str, str]

    def layout(self, match: Match) -> Layout | None:
        """The layout to declare: the one that fits; of several, that of the format, for a file keeps to its format's
        convention until something says otherwise."""
        if len(match.layouts) == 1:
            return match.layouts[0]
        return next((layout for layout in match.layouts if self.is_usual(match, layout)), None)

    def is_usual(self, match: Match, layout: Layout) -> bool:
        """Whether the format would lay out this tensor so, if one only said its role and axes."""
        own = same_axes(layout, self.usual.layouts.get(match.role or "", ()))
        if own is None or match.role is None:
            return False
        extents = layout.extents(self.b[match.b].shape)
        return own.check(self.b[match.b].shape) is None and essence(own, extents) == essence(layout, extents)

    def comment(self, match: Match) -> str | None:
        """What the reader must know before trusting a line."""
        if match.determined:
            return None
        word = "proposal" if match.proposed else "undetermined"
        said = "; ".join(match.doubts).removeprefix("a proposal: ")
        layouts = " or ".join(map(str, match.layouts)) if len(match.layouts) > 1 else ""
        return f"{word}: {said}" + (f": {layouts}" if layouts else "")

    def summary(self) -> str:
        """How far a dialect made of this is verified."""
        pairs = self.found.pairs
        proposed = sum(match.proposed for match in pairs)
        sure = sum(match.determined for match in pairs)
        parts = [f"{sure} of {len(pairs)} tensors by their values, the only explanation"]
        if len(pairs) > sure + proposed:
            parts.append(f"{len(pairs) - sure - proposed} undetermined")
        if proposed:
            parts.append(f"{proposed} A PROPOSAL from order and shapes")
        return ", ".join(parts)


def declarations_of(learnt: Learnt) -> list[str]:
    """What ``--declare`` takes to settle B; what was only proposed, or has no layout to declare, is left out."""
    found = []
    for match in learnt.found.pairs:
        layout = learnt.layout(match)
        if match.role is not None and layout is not None and not match.proposed:
            # The first = ends the glob.
            glob = exact_glob(match.b).replace("=", "?")
            found.append(f"{glob}={match.role}:{layout}")
    return found


# --- without an architecture


def habit_text(learnt: Learnt, name: str) -> str:
    """A dialect without an architecture: a rule for each tensor of B. ``load_habit`` reads it."""
    a, b = learnt.sources
    lines = _unsaid(learnt, f"Learnt by wio infer from {b} and {a}, which holds the same weights: {learnt.summary()}.")
    lines += [f"id = {quoted(name)}", f"title = {quoted(f'learnt from {b} and {a}')}"]
    lines += [f"adapters = [{quoted(learnt.adapter)}]", "", "rules = ["]
    for match in learnt.found.pairs:
        if comment := learnt.comment(match):
            lines.append(f"  # {printable(comment)}")
        lines.append(f"  {_rule(learnt, match)}")
    return "\n".join([*lines, "]"]) + "\n"


def _rule(learnt: Learnt, match: Match) -> str:
    glob, layout = quoted(exact_glob(match.b)), learnt.layout(match)
    if match.role is None or layout is None:
        return f"# not declared: {printable(match.b)}" + (f" is {match.role}" if match.role else "")
    role = quoted(match.role)
    if learnt.is_usual(match, layout):
        # Direction and the order of gates are the format's to say, as the order of axes is.
        own = neutral(match.role, layout)
        return f"[{glob}, {role}, {quoted(str(Layout(own.axes, sizes=own.sizes)))}],"
    return f"{{ glob = {glob}, role = {role}, layout = {quoted(str(layout))} }},"


def _unsaid(learnt: Learnt, head: str) -> list[str]:
    """Comments on what a dialect cannot hold."""
    lines = [f"# {printable(head)}"]
    for other, names in (("B", learnt.found.unpaired_a), ("A", learnt.found.unpaired_b)):
        lines += [f"# without a partner in {other}: {printable(name)}" for name in names]
    for group in learnt.found.ambiguous:
        lines.append(f"# {group.reason}: {printable(', '.join(group.a))}; in B {printable(', '.join(group.b))}")
    return lines


# --- of an architecture


def dialect_section(learnt: Learnt, name: str, architecture: Architecture) -> str:
    """A table ``[dialects.NAME]`` for the architecture's file: patterns where they explain every name, else the names.

    A's names are canonical. Weights without a name are said in a comment: the registry refuses the dialect until they
    have one.
    """
    a, b = learnt.sources
    matches = {match.a: match for match in learnt.found.pairs}
    named = [(p, matches[p.name].b) for p in architecture.parameters if p.name in matches]
    lines = _unsaid(learnt, f"For the file of {architecture.id} in the registry; learnt by wio infer.")
    doubts = ((match, learnt.comment(match)) for match in learnt.found.pairs)
    lines += [f"# {printable(match.a)} is {printable(match.b)}: {printable(said)}" for match, said in doubts if said]
    layouts, unsaid = _layouts(learnt, [name for _, name in named])
    lines += [f"# {printable(name)}: this dialect cannot say its layout {layout}" for name, layout in unsaid]
    lines += [f"[dialects.{quoted(name)}]", f"adapters = [{quoted(learnt.adapter)}]"]
    lines += [f"title = {quoted(f'learnt from {b}')}", f"source = {quoted(f'wio infer {a} {b}')}"]
    lines += [f"verified = {quoted(learnt.summary())}"]
    table = f"dialects.{quoted(name)}"
    lines += _patterns(architecture, named, table) or _singly(named, table)
    if layouts:
        lines += ["", f"[{table}.layouts]"]
        for role, texts in layouts.items():
            lines.append(f"{quoted(role)} = [{', '.join(map(quoted, texts))}]")
    return "\n".join(lines) + "\n"


def _layouts(learnt: Learnt, names: Iterable[str]) -> tuple[dict[str, list[str]], list[tuple[str, Layout]]]:
    """The layouts of each role where they are not the format's own, one for each set of axes; what does not fit in.

    A dialect that states layouts must state them all.
    """
    matches = {match.b: match for match in learnt.found.pairs}
    said = [(matches[name], layout) for name in names if (layout := learnt.layout(matches[name])) is not None]
    if all(learnt.is_usual(match, layout) for match, layout in said):
        return {}, []
    table: dict[str, dict[str, Layout]] = {}
    unsaid = []
    for match, layout in said:
        plain = Layout(layout.axes, layout.flipped, layout.values, (), layout.gates)
        # As same_axes chooses: by letters, then by unit axes.
        axes = "".join(sorted("".join(layout.axes)))
        held = table.setdefault(match.role or "", {}).setdefault(axes, plain)
        extents = layout.extents(learnt.b[match.b].shape)
        if essence(held.with_sizes(dict(layout.sizes)), extents) != essence(layout, extents):
            unsaid.append((match.b, layout))
    return {role: [str(layout) for layout in each.values()] for role, each in table.items()}, unsaid


def _singly(named: Named, table: str) -> list[str]:
    return ["", f"[{table}.tensors]", *(f"{quoted(p.name)} = {quoted(name)}" for p, name in named)]


def _patterns(architecture: Architecture, named: Named, table: str) -> list[str] | None:
    """The names as a pattern of layer and weight, each weight of an operator of one name; None if they are not so."""
    if any(brace in text for p, name in named for text in (name, p.layer.name) for brace in "{}"):
        return None
    for separator in _SEPARATORS:
        parts = [(p, *name.rpartition(separator)) for p, name in named]
        if not all(layer and leaf for _, layer, _, leaf in parts):
            continue
        layers = _one_each((p.layer.name, layer) for p, layer, _, _ in parts)
        # Keras 1 calls the kernel of conv1 conv1_W.
        weights = _one_each((p.key, leaf) for p, _, _, leaf in parts) or _one_each(
            (p.key, leaf.replace(layer, "{layer}", 1)) for p, layer, _, leaf in parts
        )
        if weights is None or layers is None or len(set(layers.values())) < len(layers):
            continue
        lines = [f"tensors = {quoted(f'{{layer}}{separator}{{weight}}')}"] if separator != "/" else []
        lines += _layer_lines(architecture, layers)
        lines += ["", f"[{table}.weights]"]
        return lines + [f"{quoted(key)} = {quoted(leaf)}" for key, leaf in weights.items()]
    return None


def _one_each(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            return None
    return found


def _layer_lines(architecture: Architecture, layers: Mapping[str, str]) -> list[str]:
    """How layers are called: one pattern for all, one for each operator, or name by name where no pattern holds."""
    counts: dict[str, int] = {}
    numbers = {}
    for layer in architecture.network.layers:
        counts[layer.op] = counts.get(layer.op, 0) + 1
        numbers[layer.name] = counts[layer.op]
    by_op: dict[str, list[str]] = {}
    for layer in architecture.network.layers:
        if layer.name in layers:
            by_op.setdefault(layer.op, []).append(layer.name)
    whole = _pattern_of(layers, list(layers), "layer", lambda layer: layer)
    if whole is not None:
        return [f"layers = {quoted(whole)}"]
    patterns, singly = {}, []
    for op, names in by_op.items():
        pattern = _pattern_of(layers, names, "layer", lambda layer: layer)
        pattern = pattern or _pattern_of(layers, names, "k", lambda layer: str(numbers[layer]))
        if pattern is None:
            singly += names
        else:
            patterns[op] = pattern
    lines = []
    if singly:
        pairs = (f"  [{quoted(name)}, {quoted(layers[name])}]," for name in singly)
        lines += ["names = [", *pairs, "]"]
    if patterns:
        rows = ", ".join(f"{quoted(op)} = {quoted(pattern)}" for op, pattern in patterns.items())
        lines.append(f"layers = {{ {rows} }}")
    return lines


def _pattern_of(layers: Mapping[str, str], names: Sequence[str], field: str, value: Callable[[str], str]) -> str | None:
    """``prefix{field}suffix`` if it gives what each of these layers is called."""
    for prefix, suffix in _around(layers[names[0]], value(names[0])):
        if all(layers[name] == f"{prefix}{value(name)}{suffix}" for name in names):
            return f"{prefix}{{{field}}}{suffix}"
    return None


def _around(text: str, part: str) -> Iterator[tuple[str, str]]:
    """What stands before and after each place of ``part`` in ``text``."""
    start = text.find(part)
    while start >= 0:
        yield text[:start], text[start + len(part) :]
        start = text.find(part, start + 1)
