"""Name patterns: text with ``{fields}``, parsed once and used in both directions, to write a name and to read one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cached_property

from msgspec import Struct

from wio.errors import NameMapError

_TOKEN = re.compile(r"\{([^{}]*)\}|([^{}]+)|([{}])")
_FIELD = re.compile(r"[a-z][a-z0-9_]*")
_COUNTER = "k"
# A longer name fits no pattern: what a pattern takes to try grows with the length, to the power of its fields less one.
LONGEST_NAME = 500
_MOST_FIELDS = 4


class Pattern(Struct, frozen=True, dict=True):
    """Text and fields by turns, text at even places; ``words`` are those that each place's field can be, None for any.

    A field without words takes what is left of the name, but something; ``{k}`` a number without leading zeros.
    """

    parts: tuple[str, ...]
    words: tuple[tuple[str, ...] | None, ...] = ()

    @staticmethod
    def parse(text: str, words: Mapping[str, Collection[str]] | None = None) -> Pattern:
        """NameMapError for braces that do not pair, a field without a name or there twice, and too many."""
        parts = [""]
        for found in _TOKEN.finditer(text):
            field, literal, brace = found.groups()
            if brace:
                raise NameMapError(f"pattern {text!r}: the braces do not pair", remedy="a field is written {layer}")
            if literal is not None:
                parts[-1] += literal
                continue
            if not _FIELD.fullmatch(field):
                raise NameMapError(f"pattern {text!r}: {field!r} is no name of a field", remedy="as in {layer} or {k}")
            if field in parts[1::2]:
                raise NameMapError(f"pattern {text!r}: the field {{{field}}} stands twice")
            parts += [field, ""]
        if len(parts) // 2 > _MOST_FIELDS or len(text) > LONGEST_NAME:
            raise NameMapError(f"pattern {text!r}: more than {_MOST_FIELDS} fields or {LONGEST_NAME} characters")
        known = words or {}
        return Pattern(tuple(parts), tuple(tuple(known[f]) if f in known else None for f in parts[1::2]))

    def __str__(self) -> str:
        return "".join(f"{{{part}}}" if place % 2 else part for place, part in enumerate(self.parts))

    @property
    def fields(self) -> tuple[str, ...]:
        return self.parts[1::2]

    def format(self, values: Mapping[str, str]) -> str:
        """The name with these values in its fields."""
        return "".join(values[part] if place % 2 else part for place, part in enumerate(self.parts))

    def match(self, name: str) -> dict[str, str] | None:
        """Values of the fields with which the pattern gives this name, or None if it never does."""
        found = self._expression.fullmatch(name) if len(name) <= LONGEST_NAME else None
        return None if found is None else found.groupdict()

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        text = re.escape(self.parts[0])
        for field, words, literal in zip(self.parts[1::2], self.words, self.parts[2::2], strict=True):
            text += f"(?P<{field}>{_any_of(field, words)}){re.escape(literal)}"
        return re.compile(text, re.DOTALL)


def _any_of(field: str, words: tuple[str, ...] | None) -> str:
    if words is not None:
        # Alternatives are tried in order: a word that begins with another comes before it.
        return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return "[1-9][0-9]*" if field == _COUNTER else ".+"
