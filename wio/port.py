"""The road: export, import and convert, from a path to a path. What the commands and ``import wio`` call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from wio.adapter import Adapter, Convention, Slot, Target
from wio.architectures.architecture import Architecture
from wio.architectures.dialect import Dialect
from wio.architectures.network_changes import changed
from wio.bundle import Bundle, Tensor
from wio.errors import AdapterError, LayoutError, NameMapError, UsageError, WioError
from wio.layout import Layout
from wio.metadata import detached
from wio.places import written_to
from wio.plan import Plan, make_plan
from wio.plugins import adapter_named, architecture_named, habit_named, local, open_bundle, source_adapter
from wio.receipt import UNKNOWN, Reading, base_names, facts_of, receipt_of
from wio.recurrent import settled, with_facts
from wio.roles import check_role, neutral, neutral_layouts
from wio.second_names import with_second_names, without
from wio.sharded_writer import ShardWriter, save_as

if TYPE_CHECKING:
    from wio.values.step import ValueStep


Progress = Callable[[int], None]
# What a declaration may say of a layer instead of giving its weights a role.
_GRU_FACTS = {"gru.reset_after": True, "gru.reset_before": False}


class Declarations(Struct, frozen=True):
    """What the user says of a file's tensors: architecture, dialect, roles, what to leave out, values to change."""

    arch: str | None = None
    dialect: str | None = None
    declare: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    apply: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        given = {
            "arch": self.arch,
            "dialect": self.dialect,
            "declare": self.declare,
            "only": self.only,
            "drop": self.drop,
            "apply": self.apply,
        }
        return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items() if value}


class Resolved(Struct, frozen=True):
    """A bundle with everything declared that is known of it: by its file, by a dialect or architecture, by the user.

    ``options`` are those that the adapter read the file with, where more is to be read of it.
    """

    bundle: Bundle
    adapter: Adapter
    dropped: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


class Ready(Struct, frozen=True):
    """A port that is planned and not begun; ``reading`` sees all that is read for it, ``facts`` are for the receipt."""

    plan: Plan
    reading: Reading
    facts: Mapping[str, Any]

    @property
    def adapter(self) -> str:
        """Who reads the source: found out here, and not to be found out again elsewhere."""
        return str(self.facts["source"]["adapter"])


class Cluster(Protocol):
    """Who writes the shards of a port elsewhere: is told how it is made ready, and gives what writes them."""

    def __call__(self, command: str, asked: Mapping[str, Any], ready: Ready) -> ShardWriter: ...


def open_resolved(
    path: Path | str,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
) -> Resolved:
    """Opens a file and applies what the user declares. Reads no tensor; raises what :func:`resolve` does."""
    bundle, found = open_bundle(path, adapter, options)
    return resolve(bundle, found, told or Declarations())


def resolve(bundle: Bundle, found: Adapter, told: Declarations) -> Resolved:
    """What an adapter read, with what the user declares of it.

    Raises NameMapError, LayoutError or WioError with every tensor that contradicts what was declared.
    """
    bundle.metadata.setdefault("adapter", found.name)
    spoken_of = (*(text.partition("=")[0] for text in told.declare), *told.only)
    selected, dropped = without(with_second_names(bundle, spoken_of), told.drop)
    convention = convention_of(selected, found)
    bundle = _declare(selected, told.declare, convention)
    if told.arch is not None:
        bundle, by_dialect = _as_architecture(bundle, told, convention, dropped)
        dropped |= by_dialect
    elif told.dialect is not None and "architecture" not in bundle.metadata:
        bundle = habit_named(told.dialect).declare(bundle, convention)
    if told.only:
        chosen = bundle.select(told.only)
        dropped |= {tensor.origin or name: "not in --only" for name, tensor in bundle.items() if name not in chosen}
        bundle = chosen
    return Resolved(settled(bundle, convention), found, dropped)


def convention_of(bundle: Bundle, adapter: Adapter) -> Convention:
    """The convention of the format that the weights come from, which a .wio file remembers."""
    return (source_adapter(bundle, adapter) or adapter).convention_of(bundle)


def _as_architecture(
    bundle: Bundle, told: Declarations, convention: Convention, dropped: Mapping[str, str]
) -> tuple[Bundle, dict[str, str]]:
    architecture = architecture_named(str(told.arch))
    known = bundle.metadata.get("architecture")
    if known == architecture.id:
        return bundle, {}
    if known is not None:
        raise NameMapError(f"the file holds {known}, not {architecture.id}")
    source = str(bundle.metadata["adapter"])
    dialect = architecture.dialect_for(source, _speaks_of(architecture, told.dialect, source))
    if dialect is None:
        known_dialects = ", ".join(
            f"{d.name} (read by {', '.join(d.adapters)})" for d in architecture.dialects.values()
        )
        raise NameMapError(f"{architecture.id} has no dialect for {source}: it has {known_dialects}")
    return architecture.read(bundle, dialect, convention, dropped)


def _speaks_of(architecture: Architecture, dialect: str | None, adapter: str) -> str | None:
    """The dialect the user named, if files of this adapter follow it: a port has two sides, a name speaks of one."""
    if dialect is None:
        return None
    named = architecture.dialect_for(adapter, dialect)
    return dialect if named is not None and adapter in named.adapters else None


def _declare(bundle: Bundle, declarations: Iterable[str], convention: Convention) -> Bundle:
    """The bundle with ``GLOB=ROLE[:LAYOUT]`` applied, later ones over earlier ones."""
    told = tuple(declarations)
    facts = {text: text.partition("=")[2] for text in told if text.partition("=")[2] in _GRU_FACTS}
    rules = [_declaration(text, convention) for text in told if text not in facts]
    for glob in [text.partition("=")[0] for text in told]:
        if not any(fnmatchcase(name, glob) for name in bundle):
            raise WioError(f"--declare: no tensor matches {glob!r}", remedy="wio inspect FILE lists the names")

    def change(tensor: Tensor) -> Tensor:
        for glob, role, layout in rules:
            if fnmatchcase(tensor.name, glob):
                tensor = tensor.declared(role, layout)
        return tensor

    declared = bundle.map(change)
    for text, fact in facts.items():
        named = {t.layer for name, t in declared.items() if fnmatchcase(name, text.partition("=")[0])}
        declared = with_facts(declared, {layer: {"reset_after": _GRU_FACTS[fact]} for layer in named})
    return declared


def _declaration(text: str, convention: Convention) -> tuple[str, str, Layout | None]:
    glob, equals, rest = text.partition("=")
    role, colon, layout = rest.partition(":")
    if not equals or not glob or not role:
        raise UsageError(
            f"--declare {text!r}: expected GLOB=ROLE[:LAYOUT]", remedy="as in 'conv1/weights=conv.kernel:HWIO'"
        )
    check_role(role)
    if colon:
        return glob, role, Layout.parse(layout)
    usual = convention.layouts.get(role)
    if usual is None and neutral_layouts(role):
        raise LayoutError(
            f"--declare {text!r}: the file does not settle the layout of {role}",
            remedy=f"state it, as in '{glob}={role}:HWIO', or its data format with --option data_format=...",
        )
    return glob, role, usual[0] if usual else None


# --- export


def export(
    source: Path | str,
    out: Path | str | None,
    *,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    layout: str = "keep",
    shard_size: int | str | None = None,
    cluster: Cluster | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Writes a .wio file from any readable file; gives the plan that was carried out, which the file keeps as receipt.

    ``layout="keep"`` keeps the source's bytes and declares their layout; ``"neutral"`` rearranges every declared tensor
    to its role's neutral layout. Checksums of the source are verified as it is read. ``dry_run`` only gives the plan.
    With a ``shard_size`` (bytes, or a text such as ``2GB``) what is larger becomes several files and their index, which
    a ``cluster`` may write.
    """
    adapter, source = local(source, adapter)
    if out is None and not dry_run:
        raise UsageError("an export needs a path to write", remedy="-o OUT, or --dry-run to see the plan only")
    asked: dict[str, Any] = {"adapter": adapter, "options": options, "told": told, "layout": layout}
    ready = ready_to_export(source, **asked, progress=progress)
    plan, digests = ready.plan, ready.reading.digests
    if out is None or dry_run:
        return plan
    asked |= {"source": source, "adapter": ready.adapter}
    write = None if cluster is None else cluster("export", asked, ready)
    with written_to(out) as path:
        save_as(plan.apply(), path, shard_size, lambda: receipt_of(plan, ready.facts, digests, UNKNOWN), write)
    return plan


def ready_to_export(
    source: Path | str,
    *,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    layout: str = "keep",
    progress: Progress | None = None,
) -> Ready:
    """What :func:`export` does before it reads or writes a tensor."""
    told = told or Declarations()
    resolved = open_resolved(source, adapter, options, told)
    reading = Reading(progress)
    resolved, values = with_values(replace(resolved, bundle=resolved.bundle.map(reading.watched)), told)
    plan = replace(export_plan(resolved, layout), values=values)
    reading.note_sources_of(plan)
    stated = {**told.as_json(), "layout": layout}
    return Ready(plan, reading, facts_of("export", source, resolved.adapter, stated, options))


def with_values(resolved: Resolved, told: Declarations) -> tuple[Resolved, tuple[ValueStep, ...]]:
    """The bundle after the steps that were declared to change values, and those steps; nothing is read.

    Which batch norm follows which layer is what the architecture says, or else the file's own graph.
    """
    if not told.apply:
        return resolved, ()
    from wio.values.steps import apply_requests, parse_request

    requests = [parse_request(text) for text in told.apply]
    identity = resolved.bundle.metadata.get("architecture")
    known = architecture_named(str(identity)).network.batch_norms() if identity is not None else None
    bundle, values = apply_requests(resolved.bundle, requests, known)
    return replace(resolved, bundle=bundle), values


def export_plan(resolved: Resolved, layout: str = "keep") -> Plan:
    """The plan of an export: every tensor kept, or every declared one made neutral."""
    if layout not in ("keep", "neutral"):
        raise UsageError(f"--layout takes keep or neutral, not {layout!r}")
    slots = []
    for t in resolved.bundle.values():
        target = t.layout
        if layout == "neutral" and t.role is not None and t.layout is not None:
            target = neutral(t.role, t.layout)
        copy = t.name if target == t.layout else None
        reason = "" if copy else f"the neutral layout of {t.role}"
        slots.append(Slot(t.name, t.role, target, t.layer, t.layer, t.origin, reason, copy))
    metadata = resolved.bundle.metadata
    if any(slot.copy_of is None for slot in slots):
        # The arrays no longer follow the source's convention, so what only that format has no longer describes them:
        # an import into the same format must rearrange them again, not copy them.
        metadata = detached(metadata)
    whole = Target(tuple(slots), metadata, {})
    return make_plan(resolved.bundle, whole, "wio", {"layout": layout}, resolved.dropped)


# --- import


def import_into(
    source: Path | str,
    out: Path | str | None,
    *,
    adapter: str,
    options: Mapping[str, str] | None = None,
    template: Path | str | None = None,
    shard_size: int | str | None = None,
    cluster: Cluster | None = None,
    source_adapter: str | None = None,
    source_options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Writes ``out`` in another adapter's format, and gives the plan; with ``dry_run`` only gives the plan.

    ``template`` is an existing file of the target's format whose weights are replaced, ``shard_size`` the bytes (or a
    text such as ``2GB``) over which a file is written in shards, for the adapters that take one. A ``cluster`` may
    write the shards of a .wio file.
    Digests of a .wio source are verified as its tensors are read. Raises PlanError with every tensor that cannot be
    taken there; then nothing is written.
    """
    if out is None and not dry_run:
        raise UsageError("an import needs a path to write", remedy="-o OUT, or --dry-run to see the plan only")
    chosen = adapter_named(adapter)
    if not chosen.writes:
        raise AdapterError(f"{adapter} can be read, not written")
    source_adapter, source = local(source, source_adapter)
    if template is not None:
        template = local(template, adapter)[1]
    given = _with_option(chosen, options or {}, "template", template, "what it writes needs no file to start from")
    given = _with_option(chosen, given, "shard_size", shard_size, "it does not write in shards of that kind")
    asked: dict[str, Any] = {
        "adapter": adapter,
        "options": given,
        "source_adapter": source_adapter,
        "source_options": source_options,
        "told": told,
    }
    ready = ready_to_import(source, **asked, progress=progress)
    plan = ready.plan
    if out is None or dry_run:
        return plan
    into = {"adapter": adapter, **({"options": base_names(options)} if options else {})}
    made = plan.apply()
    # Where no value changed, the same weights must give the same file whichever way they came.
    receipt = receipt_of(plan, {**ready.facts, "into": into}, ready.reading.digests) if plan.values else None
    if cluster is not None:
        if chosen.name != "wio":
            raise UsageError(f"a cluster writes shards of .wio files, not {chosen.name}", remedy="--into wio")
        write = cluster("import", asked | {"source": source, "source_adapter": ready.adapter}, ready)
        with written_to(out) as path:
            save_as(made, path, given.get("shard_size"), None if receipt is None else lambda: receipt, write)
        return plan
    if receipt is not None:
        made.metadata["receipt"] = receipt
    with written_to(out) as path:
        chosen.write(path, made, **plan.options)
    return plan


def ready_to_import(
    source: Path | str,
    *,
    adapter: str,
    options: Mapping[str, str] | None = None,
    source_adapter: str | None = None,
    source_options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    progress: Progress | None = None,
) -> Ready:
    """What :func:`import_into` does before it reads or writes a tensor."""
    told = told or Declarations()
    chosen = adapter_named(adapter)
    resolved = open_resolved(source, source_adapter, source_options, told)
    settled = chosen.checked(options or {}, writing=True)
    reading = Reading(progress)
    plan = plan_into(replace(resolved, bundle=resolved.bundle.map(reading.watched)), chosen, settled, told)
    return Ready(plan, reading, facts_of("import", source, resolved.adapter, told.as_json(), source_options))


def _with_option(
    chosen: Adapter, options: Mapping[str, str], name: str, value: Path | str | int | None, why_not: str
) -> Mapping[str, str]:
    """The options with this one among them, which an adapter that takes it declares under that name."""
    if value is None:
        return options
    flag = f"--{name.replace('_', '-')}"
    if not any(option.name == name and option.writing for option in chosen.options):
        raise UsageError(f"{chosen.name} takes no {name}: {why_not}", remedy=f"leave {flag} out")
    if name in options:
        raise UsageError(f"the {name} is given twice", remedy=f"leave out --option {name}=...: {flag} says it")
    return {**options, name: str(value) if isinstance(value, int) else os.fspath(value)}


def plan_into(resolved: Resolved, chosen: Adapter, settled: Mapping[str, str], told: Declarations) -> Plan:
    """The plan that takes a bundle into another format; ``settled`` are that adapter's options, checked.

    The steps that change values come first: those that the user declares, then those that the target's dialect does.
    """
    resolved, values = with_values(resolved, told)
    resolved, declared = _with_declared_values(resolved, chosen.name, told)
    bundle = _spelled(resolved.bundle, chosen.name, told)
    plan = make_plan(bundle, chosen.target(bundle, **settled), chosen.name, settled, resolved.dropped)
    notes = (*plan.notes, *(f"{v.layer}: {v.reason}" for v in declared))
    return replace(plan, values=(*values, *declared), notes=notes)


def _spelled(bundle: Bundle, adapter: str, told: Declarations) -> Bundle:
    """A canonical bundle of an architecture, with its network, both with the layer names of the target's dialect."""
    architecture, dialect = _target_dialect(bundle, adapter, told)
    if architecture is None:
        return bundle
    if dialect is None:
        return Bundle(bundle.values(), bundle.metadata, changed(architecture.network, bundle.metadata))
    return architecture.spell(bundle, dialect)


def _with_declared_values(
    resolved: Resolved, adapter: str, told: Declarations
) -> tuple[Resolved, tuple[ValueStep, ...]]:
    """The bundle after the steps that the target's dialect declares to change values, and those steps."""
    architecture, dialect = _target_dialect(resolved.bundle, adapter, told)
    if architecture is None or dialect is None or not dialect.slices:
        return resolved, ()
    from wio.values.steps import apply_requests

    requests = architecture.requests(resolved.bundle, dialect)
    bundle, values = apply_requests(resolved.bundle, requests, architecture.network.batch_norms())
    return replace(resolved, bundle=bundle), values


def _target_dialect(bundle: Bundle, adapter: str, told: Declarations) -> tuple[Architecture | None, Dialect | None]:
    """The architecture of a canonical bundle and its dialect that files of the target follow, as far as there are."""
    identity = bundle.metadata.get("architecture")
    if identity is None:
        return None, None
    architecture = architecture_named(str(identity))
    return architecture, architecture.dialect_for(adapter, _speaks_of(architecture, told.dialect, adapter))
