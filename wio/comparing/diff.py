"""Compares two weight files tensor by tensor, each brought to neutral layout and canonical names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from wio.bundle import Bundle, Tensor
from wio.comparing.comparison import CLOSE, EQUAL, SEVERITY, Comparison, Pair, Tolerance
from wio.comparing.matching import match_by_values, with_folds
from wio.errors import UsageError, WioError
from wio.gates import join_gates
from wio.plugins import adapter_named, detect, local
from wio.port import Declarations, Resolved, resolve
from wio.roles import NOT_WEIGHTS
from wio.second_names import second_names, with_second_names


class Duplicate(Struct, frozen=True):
    """On one ``side`` (``a`` or ``b``), ``name`` is the same weight as ``same_as``."""

    side: str
    name: str
    same_as: str


class Difference(Struct, frozen=True, eq=False):
    """What a comparison found: every pair, worst first, and what only one side has.

    Optimizer slots, counters and the like that only one side has (``left_out``) are no difference of the networks.
    ``duplicates``: names under which a file holds again what it holds under another. ``sides``: what was compared, the
    tensors by the names that pairs have for them.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    close_is_enough: bool = False
    duplicates: tuple[Duplicate, ...] = ()
    sides: tuple[Bundle, Bundle] | None = None

    def __eq__(self, other: object) -> bool:
        """What was found counts, not the files that it was found in."""
        return isinstance(other, Difference) and asdict(replace(self, sides=None)) == asdict(replace(other, sides=None))

    __hash__ = None  # type: ignore[assignment]

    @property
    def equal(self) -> bool:
        """Every pair equal, or close where a tolerance was given, and nothing on one side only."""
        enough = {EQUAL, CLOSE} if self.close_is_enough else {EQUAL}
        return not self.only_a and not self.only_b and all(pair.status in enough for pair in self.pairs)

    @property
    def by_digest(self) -> bool:
        """Whether no pair's bytes were read."""
        return bool(self.pairs) and all(pair.by == "digest" for pair in self.pairs)

    @property
    def summary(self) -> str:
        """How many pairs have which status."""
        counts = Counter(pair.status for pair in self.pairs)
        return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no pairs"

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "equal": self.equal,
            "pairs": [pair.as_json() for pair in self.pairs],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "left_out": list(self.left_out),
            "duplicates": [asdict(each) for each in self.duplicates],
        }
        if self.by_digest:
            document["by"] = "digest"
        return document


def diff(
    a: Path | str,
    b: Path | str,
    *,
    adapters: tuple[str | None, str | None] = (None, None),
    options: Mapping[str, str] | None = None,
    told: Declarations | None = None,
    tolerance: Tolerance | None = None,
    read_bytes: bool = False,
    match: str = "names",
    equal_nan: bool = False,
) -> Difference:
    """Compares two readable files. ``match="names"`` pairs by layer and role where both are declared, and by name;
    ``match="values"`` by content, whatever the names and layouts.

    Declared tensors are compared in neutral layout, bit for bit. Two undeclared ones of one shape and dtype are
    compared as stored. Where only one side is declared nothing is claimed: the pair is ``undeclared``.
    ``read_bytes`` reads equal .wio digests' bytes too. Optimizer slots and counters are compared where both sides
    have them, and are no difference where one has not.
    """
    if match not in ("names", "values"):
        raise UsageError(f"--match takes names or values, not {match!r}")
    resolved = open_sides((a, b), adapters, options or {}, told or Declarations())
    left, right = (comparable(side.bundle) for side in resolved)
    compare = Comparison(resolved, tolerance, read_bytes=read_bytes, equal_nan=equal_nan)
    matched, only_a, only_b = _match(left, right) if match == "names" else match_by_values(left, right)
    pairs = [compare(x, y) for x, y in matched]
    pairs, only_a, only_b = with_folds(left, right, pairs, only_a, only_b)
    # What no number tells (NaN, another shape) is the worst of its kind.
    pairs.sort(key=lambda p: (SEVERITY[p.status], -(inf if p.max_abs is None else p.max_abs)))
    sides = ((left, only_a), (right, only_b))
    alone_a, alone_b = (tuple(name for name in names if not _no_weight(side[name])) for side, names in sides)
    left_out = tuple(name for side, names in sides for name in names if _no_weight(side[name]))
    duplicates = tuple(duplicates_of(left, right))
    return Difference(tuple(pairs), alone_a, alone_b, left_out, tolerance is not None, duplicates, (left, right))


def duplicates_of(a: Bundle, b: Bundle) -> Iterator[Duplicate]:
    """The names that share another's storage, as the adapters that read the files say."""
    for side, bundle in (("a", a), ("b", b)):
        for name, same in second_names(bundle.metadata).items():
            yield Duplicate(side, name, same)


def _no_weight(tensor: Tensor) -> bool:
    return tensor.role in NOT_WEIGHTS


def open_sides(
    paths: Sequence[Path | str],
    adapters: Sequence[str | None],
    options: Mapping[str, str],
    told: Declarations,
    *,
    second_unknown: bool = False,
) -> list[Resolved]:
    """The sides of a comparison. What the user declares may fit only one of them, but it must fit one.

    With ``second_unknown`` the architecture and the dialect are those of the first.
    """
    found = [local(path, name) for path, name in zip(paths, adapters, strict=True)]
    chosen = [adapter_named(name) if name else detect(path) for name, path in found]
    readable = [{option.name for option in adapter.options if option.reading} for adapter in chosen]
    mine = [
        adapter.checked({key: value for key, value in options.items() if key in names}, writing=False)
        for adapter, names in zip(chosen, readable, strict=True)
    ]
    idle = [key for key in options if not any(key in names for names in readable)]
    if idle:
        raise UsageError(f"neither file's adapter has the option {', '.join(map(repr, idle))} for reading")
    bundles = [adapter.read(path, **given) for adapter, (_, path), given in zip(chosen, found, mine, strict=True)]
    for bundle, adapter in zip(bundles, chosen, strict=True):
        bundle.metadata.setdefault("adapter", adapter.name)
    # A weight of two names in one file may be two tensors in the other, or be kept under its other name.
    bundles = [with_second_names(bundle, other) for bundle, other in zip(bundles, reversed(bundles), strict=True)]
    globs = [text.partition("=")[0] for text in told.declare] + [*told.only, *told.drop]
    lost = [glob for glob in globs if not any(_some_match(bundle, glob) for bundle in bundles)]
    if lost:
        raise WioError(f"no tensor of either file matches {', '.join(map(repr, lost))}")
    sides = []
    for place, (adapter, bundle, given) in enumerate(zip(chosen, bundles, mine, strict=True)):
        unknown = second_unknown and place == 1
        fitted = replace(
            told,
            arch=None if unknown or bundle.metadata.get("architecture") else told.arch,
            dialect=None if unknown else told.dialect,
            declare=tuple(text for text in told.declare if _some_match(bundle, text.partition("=")[0])),
            only=tuple(glob for glob in told.only if _some_match(bundle, glob)),
            drop=tuple(glob for glob in told.drop if _some_match(bundle, glob)),
        )
        sides.append(replace(resolve(bundle, adapter, fitted), options=given))
    return sides


def _some_match(bundle: Bundle, glob: str) -> bool:
    return any(fnmatchcase(name, glob) for name in bundle)


def comparable(bundle: Bundle) -> Bundle:
    """The bundle with gates joined that its format keeps apart, so that a layer has one tensor of each role."""
    groups: dict[object, list[Tensor]] = {}
    for tensor in bundle.values():
        gated = tensor.layout is not None and tensor.layout.gates is not None
        groups.setdefault((tensor.layer, tensor.role) if gated else tensor.name, []).append(tensor)
    tensors = []
    for members in groups.values():
        if len(members) == 1:
            tensors.append(members[0])
        else:
            tensors.append(replace(join_gates(members), name=" + ".join(t.name for t in members)))
    return Bundle(tensors, bundle.metadata)


def _match(a: Bundle, b: Bundle) -> tuple[list[tuple[Tensor, Tensor]], list[str], list[str]]:
    """Pairs by layer and role where that is unique on both sides, then by name, then by the last part of the name."""
    pairs = []
    left, right = dict(a), dict(b)
    by_role_a, by_role_b = _by_role(a), _by_role(b)
    for key, tensor in by_role_a.items():
        other = by_role_b.get(key)
        if other is not None:
            pairs.append((tensor, other))
            del left[tensor.name], right[other.name]
    pairs += [(left.pop(name), right.pop(name)) for name in list(left) if name in right]
    ends_a, ends_b = _by_end(left), _by_end(right)
    for end, name in ends_a.items():
        if end in ends_b:
            pairs.append((left.pop(name), right.pop(ends_b[end])))
    return pairs, list(left), list(right)


def _by_end(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The names by their last part, where only one has it: ``conv1/conv1_W`` of Keras 1 is ``conv1_W`` elsewhere."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(name.rpartition("/")[2], []).append(name)
    return {end: names[0] for end, names in found.items() if len(names) == 1}


def _by_role(bundle: Bundle) -> dict[tuple[str, str], Tensor]:
    found: dict[tuple[str, str], list[Tensor]] = {}
    for tensor in bundle.values():
        if tensor.role is not None and tensor.role not in NOT_WEIGHTS:
            found.setdefault((tensor.layer, tensor.role), []).append(tensor)
    return {key: tensors[0] for key, tensors in found.items() if len(tensors) == 1}
