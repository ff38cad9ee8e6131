"""The lint: a file against its own graph, or against an architecture. What ``wio check`` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from wio.adapter import Adapter
from wio.architectures.architecture import Architecture
from wio.architectures.network_changes import changed
from wio.bundle import Bundle, Tensor
from wio.checks import against, deviations, graph, mapping, values
from wio.checks.finding import NOTE, SEVERITIES, Finding
from wio.checks.mapping import BY_THE_USER
from wio.errors import NameMapError
from wio.plugins import architecture_named, open_bundle, own_network
from wio.port import Declarations, Resolved, resolve


class Checked(Struct, frozen=True, eq=False):
    """What a lint found, errors first; ``graph`` says whose graph its rules had: the file's own, or none.

    ``held``: what was looked at, by the names that findings have for tensors.
    """

    findings: tuple[Finding, ...]
    tensors: int
    graph: bool
    architecture: str | None
    held: Mapping[str, Tensor] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """What was found counts, not the tensors that it was found in."""
        return isinstance(other, Checked) and asdict(replace(self, held={})) == asdict(replace(other, held={}))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Checked({self.summary}: {self.tensors} tensors, {self.held_against})"

    @property
    def ok(self) -> bool:
        """Whether there is nothing but notes."""
        return all(finding.severity == NOTE for finding in self.findings)

    @property
    def summary(self) -> str:
        """How many findings there are of which severity."""
        counts = {severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES}
        told = (f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts.items() if count)
        return ", ".join(told) or "nothing found"

    @property
    def held_against(self) -> str:
        """What the file was held against, as a person is told."""
        if self.architecture:
            return f"held against {self.architecture}"
        return "held against the file's own graph" if self.graph else "the file has no graph to hold them against"

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "tensors": self.tensors,
            "graph": self.graph,
            "architecture": self.architecture,
            "findings": [finding.as_json() for finding in self.findings],
        }


def check(
    path: Path | str,
    *,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    progress: Callable[[int], None] | None = None,
) -> Checked:
    """Lints a file. Reads every tensor once, one at a time.

    Without ``told.arch`` (or an architecture that a .wio file names) the file is held against its own graph, where it
    has one. Raises what :func:`wio.port.open_resolved` does, but for names that are not the architecture's: those are
    findings.
    """
    told = told or Declarations()
    bundle, found = open_bundle(path, adapter, options)
    own = own_network(bundle, found, Path(path), found.checked(options or {}, writing=False))
    resolved, findings = _resolved(bundle, found, told)
    # Under the names that the file has for them: those are what the user can look up.
    known = {tensor.origin or tensor.name: tensor for tensor in resolved.bundle.values()}
    declared = [
        replace(tensor, role=same.role, layout=same.layout)
        for tensor in bundle.values()
        if (same := known.get(tensor.origin or tensor.name)) is not None
    ]
    identity = told.arch or resolved.bundle.metadata.get("architecture")
    architecture = None if identity is None else architecture_named(str(identity))
    dialect = None if architecture is None else _dialect(architecture, resolved.bundle, told)
    filled: set[str] = set()
    if architecture is not None and dialect is not None:
        findings += deviations.check_deviations(architecture, dialect, bundle)
        filled = deviations.declared_fills(architecture, dialect, resolved.dropped)
    passed_over = [
        bundle[name] for name, reason in resolved.dropped.items() if reason not in BY_THE_USER and name not in filled
    ]
    if own is not None and architecture is not None:
        named = {known[origin].layer: tensor.layer for tensor in declared if (origin := tensor.origin or tensor.name)}
        wanted = architecture.network if dialect is None else architecture.network_of(dialect)
        wanted = changed(wanted, resolved.bundle.metadata)
        findings += against.check_against(own, wanted, architecture.id, named)
    elif own is not None:
        findings += graph.check_graph(own)
    findings += mapping.check_dropped(resolved.dropped, bundle, filled)
    findings += mapping.check_declared(declared, own if identity is None else None)
    if found.name == "keras-theano":
        findings += mapping.check_direction(declared)
    findings += mapping.check_spread(resolved.bundle)
    looked_at = [*declared, *passed_over]
    findings += values.check_values(looked_at, progress)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    held = {tensor.origin or tensor.name: tensor for tensor in looked_at}
    held_against = None if identity is None else str(identity)
    return Checked(tuple(findings), len(looked_at), own is not None, held_against, held)


def _dialect(architecture: Architecture, bundle: Bundle, told: Declarations) -> str | None:
    """The dialect of the file: the one it was read by, or that files of its format follow, as far as that is known."""
    known = str(bundle.metadata.get("dialect"))
    if bundle.metadata.get("architecture") == architecture.id and known in architecture.dialects:
        return known
    try:
        found = architecture.dialect_for(str(bundle.metadata["adapter"]), told.dialect)
    except NameMapError:
        return None
    return None if found is None else found.name


def _resolved(bundle: Bundle, found: Adapter, told: Declarations) -> tuple[Resolved, list[Finding]]:
    try:
        return resolve(bundle, found, told), []
    except NameMapError as error:
        if not error.problems:
            raise
        return resolve(bundle, found, replace(told, arch=None)), mapping.check_names(error)
