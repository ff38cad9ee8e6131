"""What can go wrong, as values: every error says which file and tensor, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from wio.places import as_called


class Problem(Struct, frozen=True):
    """One thing that is wrong, where it is, and the remedy.

    ``kind`` is a stable word for machines (``missing``, ``unexpected``, ``layout``, ``undeclared``, ...).
    """

    kind: str
    message: str
    tensor: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        where = f"{legible(self.tensor)}: " if self.tensor is not None else ""
        remedy = f"\n    -> {legible(self.remedy)}" if self.remedy else ""
        return f"{where}{legible(self.message)}{remedy}"

    def as_json(self) -> dict[str, str | None]:
        return {"kind": self.kind, "tensor": self.tensor, "message": as_called(self.message), "remedy": self.remedy}


class WioError(Exception):
    """Base of every error that wio raises on purpose; the command line prints it without a traceback.

    Problems are collected: one error lists everything that is wrong with a file or a plan at once. As text it is fit
    for a terminal, whatever the names in a file are.
    """

    def __init__(self, message: str, problems: Iterable[Problem] = (), remedy: str | None = None) -> None:
        self.message = message
        self.problems = tuple(problems)
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        lines = [legible(self.message)]
        lines += [f"  {problem}" for problem in self.problems[:MOST_PROBLEMS_SHOWN]]
        if len(self.problems) > MOST_PROBLEMS_SHOWN:
            lines.append(f"  ... and {len(self.problems) - MOST_PROBLEMS_SHOWN} more (--json lists all)")
        if self.remedy:
            lines.append(f"  -> {legible(self.remedy)}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        return {
            "error": type(self).__name__,
            "message": as_called(self.message),
            "remedy": self.remedy,
            "problems": [problem.as_json() for problem in self.problems],
        }


class FormatError(WioError):
    """The bytes of a file are not what its format says they must be."""


class DigestError(FormatError):
    """A checksum or digest does not match the bytes it speaks of."""


class LayoutError(WioError):
    """A layout does not parse, does not fit a shape, or cannot be brought to another layout."""


class NameMapError(WioError):
    """A mapping of names is not a bijection, or leaves a tensor unaccounted for."""


class PlanError(WioError):
    """A bundle cannot be taken to its target; lists every tensor that stands in the way."""


class AdapterError(WioError):
    """No adapter, or more than one, or a broken one, for what was asked."""


class UsageError(WioError):
    """An option or argument that does not exist or does not make sense."""


MOST_PROBLEMS_SHOWN = 20
# Characters of one name or message. No format forbids a name of ten million; no one reads it in a terminal.
LONGEST_SHOWN = 2000


def did_you_mean(wrong: str, known: Iterable[str]) -> str | None:
    """A remedy for a name that does not exist: the nearest that does, if one is near."""
    import difflib

    near = difflib.get_close_matches(wrong, list(known), 1)
    return f"did you mean {near[0]}?" if near else None


def printable(text: str) -> str:
    """Text from a file, made safe for a terminal: control, format and bidirectional characters are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def legible(text: str) -> str:
    """Text from a file for a person: :func:`printable`, and cut in the middle where it is too long to be read.

    What lies elsewhere is called by its URL, not by the file here that stands in for it.
    """
    text = as_called(text)
    if len(text) > LONGEST_SHOWN:
        half = LONGEST_SHOWN // 2
        text = f"{text[:half]} ... ({len(text)} characters in all) ... {text[-half:]}"
    return printable(text)
