"""What a dialect says of its port: layers that stand in for others, and what a reader of the port leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wio.architectures.architecture import Architecture
from wio.bundle import Bundle
from wio.checks.finding import NOTE, WARNING, Finding, listed


def check_deviations(architecture: Architecture, dialect: str, bundle: Bundle) -> list[Finding]:
    """How the port that a file is of differs from the architecture, as its dialect declares.

    A layer in another's place is a note as long as it is as its initialiser left it, and a warning once it was trained:
    no other port has a place for its weights. Those few are read.
    """
    trained = {
        fill.parameter.layer.name
        for name, fill in architecture.fills(dialect).items()
        if fill.replaces and name in bundle and not fill.is_held_by(bundle[name])
    }
    return [*_replaced(architecture, dialect, trained), *_otherwise(architecture, dialect)]


def _replaced(architecture: Architecture, dialect: str, trained: set[str]) -> Iterator[Finding]:
    for each in architecture.deviations(dialect):
        if each.by != each.op:
            told = f"{each.by} in place of {each.op}"
            if each.layer in trained:
                evidence = f"{told}, and it was trained: no other port can hold its weights. {each.reason}"
                yield Finding("replaced-layer", WARNING, each.layer, evidence)
            else:
                yield Finding("replaced-layer", NOTE, each.layer, f"{told}: {each.reason}")


def _otherwise(architecture: Architecture, dialect: str) -> Iterator[Finding]:
    """Other attributes. What only fills in weights that change nothing is no difference of the network's."""
    by_reason: dict[str, list[str]] = {}
    filled = {fill.parameter.layer.name for fill in architecture.fills(dialect).values()}
    for each in architecture.deviations(dialect):
        if each.by == each.op and each.layer not in filled:
            by_reason.setdefault(each.reason, []).append(each.layer)
    for reason, layers in by_reason.items():
        evidence = f"the dialect {dialect} declares of {listed(layers)}: {reason}"
        yield Finding("graph-differs", NOTE, layers[0] if len(layers) == 1 else "", evidence, tuple(layers))


def declared_fills(architecture: Architecture, dialect: str, dropped: Mapping[str, str]) -> set[str]:
    """Tensors that the mapping leaves out because only the port has them: nothing is lost that was not told."""
    return dropped.keys() & architecture.fills(dialect).keys()
