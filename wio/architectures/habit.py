"""Dialects without an architecture: naming habits of libraries, TOML files under ``dialects/`` of a registry."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from wio.adapter import Convention
from wio.architectures.registry_limits import read_table
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError, Problem, WioError
from wio.layout import Layout
from wio.roles import check_role, neutral, same_axes


class HabitRule(Struct, frozen=True):
    """What a glob on names declares: a role, and ``axes`` in the order that the format keeps for the role.

    ``layout`` instead is for files that do not keep to their format's convention, or whose format has none.
    """

    glob: str
    role: str
    axes: Layout | None = None
    layout: Layout | None = None

    def declare(self, tensor: Tensor, convention: Convention) -> Tensor:
        usual = convention.layouts.get(self.role, ())
        if self.layout is not None:
            return tensor.declared(self.role, self.layout)
        return tensor.declared(self.role, same_axes(self.axes, usual) if self.axes else usual[0] if usual else None)


class Habit(Struct, frozen=True):
    """A dialect without an architecture: the naming habit of a library, as globs with the role each declares."""

    id: str
    title: str
    adapters: tuple[str, ...]
    rules: tuple[HabitRule, ...]

    def declare(self, bundle: Bundle, convention: Convention) -> Bundle:
        """The bundle with roles from the first rule that each name matches; a tensor already declared keeps its own."""

        def change(tensor: Tensor) -> Tensor:
            if tensor.role is not None:
                return tensor
            rule = next((rule for rule in self.rules if fnmatchcase(tensor.name, rule.glob)), None)
            return tensor if rule is None else rule.declare(tensor, convention)

        return bundle.map(change)


def load_habit(path: Path) -> Habit:
    """Reads one TOML file under ``dialects/`` of a registry; spec/registry-1.md, section 6.

    FormatError names the file and every rule that is wrong.
    """
    try:
        document = read_table(path)
        rows = list(document["rules"])
        habit = Habit(str(document["id"]), str(document["title"]), tuple(map(str, document["adapters"])), ())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path.name}: not a dialect: {error!r}") from None
    rules, problems = [], []
    for place, row in enumerate(rows):
        try:
            rules.append(_rule(row))
        except WioError as error:
            problems.append(Problem("file", error.message, f"rules[{place}]", error.remedy))
    if problems:
        raise FormatError(f"{path.name}: {len(problems)} problems", problems)
    return replace(habit, rules=tuple(rules))


def is_habit(path: Path) -> bool:
    """Whether a TOML file has rules and no network; False for one that cannot be read, which its reader explains."""
    try:
        document = read_table(path)
    except (OSError, ValueError):
        return False
    return "rules" in document and "network" not in document


def _rule(row: Any) -> HabitRule:
    """A row ``[glob, role, axes]``, axes left out for the usual ones, or ``{ glob, role, layout }``."""
    if isinstance(row, Mapping) and set(row) == {"glob", "role", "layout"}:
        role, layout = check_role(str(row["role"])), Layout.parse(str(row["layout"]))
        neutral(role, layout)
        return HabitRule(str(row["glob"]), role, None, layout)
    if isinstance(row, list) and len(row) in (2, 3):
        role, axes = check_role(str(row[1])), Layout.parse(str(row[2])) if len(row) == 3 else None
        if axes is not None:
            neutral(role, axes)
        return HabitRule(str(row[0]), role, axes)
    raise FormatError("is neither [glob, role, axes] nor { glob, role, layout }")
