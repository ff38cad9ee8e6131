"""Dialects without an architecture: naming habits of libraries, TOML files under ``dialects/`` of a registry."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from wio.adapter import Convention
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError
from wio.layout import Layout
from wio.roles import check_role, same_axes


@dataclass(frozen=True)
class Habit:
    """A dialect without an architecture: the naming habit of a library, as globs with the role each declares."""

    id: str
    title: str
    adapters: tuple[str, ...]
    rules: tuple[tuple[str, str, str | None], ...]

    def declare(self, bundle: Bundle, convention: Convention) -> Bundle:
        """The bundle with roles from the first rule that each name matches; a tensor already declared keeps its own."""

        def change(tensor: Tensor) -> Tensor:
            if tensor.role is not None:
                return tensor
            for glob, role, axes in self.rules:
                if fnmatchcase(tensor.name, glob):
                    usual = convention.layouts.get(role, ())
                    # A rule says which axes there are; in which order and direction they run, the format says.
                    layout = same_axes(Layout.parse(axes), usual) if axes else usual[0] if usual else None
                    return tensor.declared(role, layout)
            return tensor

        return bundle.map(change)


def load_habit(path: Path) -> Habit:
    """Reads one TOML file under ``dialects/`` of a registry."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
        rules = tuple(
            (str(rule[0]), check_role(str(rule[1])), str(rule[2]) if len(rule) > 2 else None)
            for rule in document["rules"]
        )
        return Habit(str(document["id"]), str(document["title"]), tuple(document["adapters"]), rules)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(f"{path.name}: not a dialect: {error!r}") from None
