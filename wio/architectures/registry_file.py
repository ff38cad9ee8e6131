"""The registry's files: one TOML file for each architecture, read with everything that is wrong in it told at once.

The format is that of spec/registry-1.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from wio.architectures.architecture import Architecture
from wio.architectures.dialect import Dialect, Difference, LayerRule, Slice, Words
from wio.architectures.name_pattern import Pattern
from wio.architectures.network_rows import Rows
from wio.architectures.parameters import PARTS
from wio.architectures.preprocessing import Classes, Preprocessing
from wio.architectures.registry_limits import read_table, too_much, wrong_attributes
from wio.errors import FormatError, NameMapError, Problem, WioError, did_you_mean
from wio.layout import Layout
from wio.network import OPERATORS, Network
from wio.roles import check_role

Value = TypeVar("Value")

_TOP = ("id", "title", "network", "modules", "templates", "preprocessing", "classes", "dialects")
DIALECT_KEYS = (
    *("adapters", "title", "source", "revision", "verified_by", "verified", "like", "order", "tensors"),
    *("layers", "names", "words", "weights", "layouts", "values", "differs", "drop"),
)
PREPROCESSING_KEYS = ("source", "crop", "resize", "color", "divide", "subtract", "refused")
CLASSES_KEYS = ("output", "count", "background")
DIFFERENCE_KEYS = ("op", "layers", "by", "attributes", "without", "fill", "reason")
# Behind so many problems what is unknown is no longer listed: each is compared with all that is known.
_MOST_UNKNOWN = 100
_ORDERS = ("network", "keras")
_Raised = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, WioError)


def file_name(identity: str) -> str:
    """The name of the file that describes an architecture: by it, it is found."""
    return f"{identity.replace('-', '_')}.toml"


def load_architecture(path: Path, *, every_dialect: bool = True) -> Architecture:
    """Reads one file of a registry.

    FormatError or NameMapError names the file and every problem in it, each with where it is: a table of the TOML file,
    or a row of the network. Without ``every_dialect`` the names of a dialect are checked when it is first used.
    """
    try:
        document = read_table(path)
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FormatError(f"{path.name}: {told}") from None
    reading = _Reading(document)
    architecture = reading.architecture()
    if architecture is not None and every_dialect:
        reading.problems += reading.attempted("dialects", architecture.problems) or []
    if architecture is None or reading.problems:
        count = len(reading.problems)
        kind = NameMapError if all(each.kind == "names" for each in reading.problems) else FormatError
        raise kind(f"{path.name}: {count} problem{'s' if count != 1 else ''}", reading.problems)
    return architecture


class _Reading:
    """One document; what is wrong with it goes into ``problems`` and reading goes on."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.problems: list[Problem] = []

    def architecture(self) -> Architecture | None:
        self._known(self._document, _TOP, "")
        identity = self._text(self._document, "id", "", needed=True)
        title = self._text(self._document, "title", "") or identity
        rows = Rows(self._document)
        network = self.attempted("network", rows.network)
        self.problems += rows.problems
        dialects = dict(self._dialects())
        preprocessing = self.attempted("preprocessing", self._preprocessing)
        if network is None:
            return None
        classes = self.attempted("classes", partial(self._classes, network))
        for name, dialect in dialects.items():
            if too_much(dialect, network):
                self._wrong(f"dialects.{name}", "its patterns would take too long: fewer rules, fields or words")
                return None
        return self.attempted(
            "network", lambda: Architecture(identity, title, network, dialects, preprocessing, classes)
        )

    def _preprocessing(self) -> Preprocessing | None:
        table = self._document.get("preprocessing")
        if table is None:
            return None
        self._known(table, PREPROCESSING_KEYS, "preprocessing")
        given: dict[str, Any] = {k: float(table[k]) for k in ("crop", "divide", "subtract") if k in table}
        given |= {k: self._text(table, k, "preprocessing") for k in ("resize", "color", "refused") if k in table}
        found = Preprocessing(self._text(table, "source", "preprocessing", needed=True), **given)
        for key, message in found.wrong():
            self._wrong(f"preprocessing.{key}", message)
        return found

    def _classes(self, network: Network) -> Classes | None:
        table = self._document.get("classes")
        if table is None:
            return None
        self._known(table, CLASSES_KEYS, "classes")
        background = table.get("background")
        output = self._text(table, "output", "classes", needed=True)
        found = Classes(output, int(table["count"]), None if background is None else int(background))
        for key, message in found.wrong(network):
            self._wrong(f"classes.{key}", message)
        return found

    def _dialects(self) -> Iterator[tuple[str, Dialect]]:
        """Those whose tables are sound: what is wrong with the names of another would only repeat its problems."""
        tables = self._document.get("dialects", {})
        if not isinstance(tables, Mapping):
            self._wrong("dialects", "is no table")
            return
        for name, table in tables.items():
            before = len(self.problems)
            found = self.attempted(f"dialects.{name}", partial(self._dialect, name, table))
            if found is not None and len(self.problems) == before:
                yield name, found

    def _inherited(self, name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """The table of a dialect with what it takes from the one that it is like, which is like no other."""
        like = table.get("like")
        if like is None:
            return table
        other = self._document["dialects"].get(like)
        if not isinstance(other, Mapping) or other.get("like") is not None or like == name:
            raise FormatError(f"is like {like!r}, which is no dialect here that stands for itself")
        return {**other, **table}

    def _dialect(self, name: str, given: Mapping[str, Any]) -> Dialect:
        where, table = f"dialects.{name}", self._inherited(name, given)
        self._known(table, DIALECT_KEYS, where)
        words = {
            str(word): {str(a): str(b) for a, b in texts.items()} for word, texts in table.get("words", {}).items()
        }
        for word, texts in words.items():
            if len(set(texts.values())) != len(texts):
                self._wrong(f"{where}.words.{word}", "two texts become one here")
        tensors = table.get("tensors", "{layer}/{weight}")
        singly = {str(key): _one_text(text) for key, text in tensors.items()} if isinstance(tensors, Mapping) else {}
        pattern = "{layer}/{weight}" if singly else tensors
        order = table.get("order", "network")
        if order not in _ORDERS:
            self._wrong(f"{where}.order", f"is {' or '.join(_ORDERS)}, not {order!r}")
        layouts = {check_role(role): _texts(texts) for role, texts in table.get("layouts", {}).items()}
        for text in (text for each in layouts.values() for text in each):
            Layout.parse(text)
        return Dialect(
            name,
            self._text(table, "title", where, needed=True),
            self._text(table, "source", where, needed=True),
            self._text(table, "verified", where, needed=True),
            _texts(table.get("adapters", ())),
            tuple(self._rules(table, words, where)),
            dict(self._weights(table, where)),
            self._text(table, "revision", where) or None,
            self._text(table, "verified_by", where) or None,
            order,
            self._pattern(pattern, {}, f"{where}.tensors", ("layer", "weight")),
            singly,
            words,
            tuple((str(glob), str(reason)) for glob, reason in table.get("drop", ())),
            tuple(self._differences(table, where)),
            dict(self._slices(table, where)),
            layouts,
        )

    def _rules(self, table: Mapping[str, Any], words: Words, where: str) -> Iterator[LayerRule]:
        ours = {word: tuple(texts) for word, texts in words.items()}
        theirs = {word: tuple(texts.values()) for word, texts in words.items()}
        every = Pattern.parse("{layer}")
        for place, row in enumerate(table.get("names", ())):
            at = f"{where}.names[{place}]"
            if len(row) != 2:
                self._wrong(at, "is not a pair: canonical pattern, this dialect's")
                continue
            canonical = self._pattern(row[0], ours, at)
            spelled = self._pattern(row[1], theirs, at, canonical.fields) if row[1] is not False else None
            yield LayerRule(None, canonical, spelled)
        layers = table.get("layers", {})
        for op, text in layers.items() if isinstance(layers, Mapping) else [(None, layers)]:
            at = f"{where}.layers" + (f".{op}" if op else "")
            if op is not None:
                self._operator(op, at)
            yield LayerRule(op, every, None if text is False else self._pattern(text, theirs, at, ("layer",)))

    def _weights(self, table: Mapping[str, Any], where: str) -> Iterator[tuple[str, tuple[Pattern, ...]]]:
        for key, texts in table.get("weights", {}).items():
            at = f"{where}.weights.{key}"
            self._key(key, at)
            if not texts:
                self._wrong(at, "has no pattern")
            yield key, tuple(self._pattern(text, {}, at, ("layer",)) for text in _texts(texts))

    def _differences(self, table: Mapping[str, Any], where: str) -> Iterator[Difference]:
        for place, each in enumerate(table.get("differs", ())):
            at = f"{where}.differs[{place}]"
            self._known(each, DIFFERENCE_KEYS, at)
            for key in ("op", "by"):
                if key in each:
                    self._operator(each[key], f"{at}.{key}")
            if ("op" in each) == ("layers" in each):
                self._wrong(at, "says either op or layers")
            for message in wrong_attributes(each.get("attributes", {})):
                self._wrong(f"{at}.attributes", message)
            fill = {str(part): float(value) for part, value in each.get("fill", {}).items()}
            yield Difference(
                self._text(each, "reason", at, needed=True),
                each.get("op"),
                _texts(each.get("layers", ())),
                each.get("by"),
                dict(each.get("attributes", {})),
                _texts(each.get("without", ())),
                fill,
            )

    def _slices(self, table: Mapping[str, Any], where: str) -> Iterator[tuple[str, Slice]]:
        for key, rule in table.get("values", {}).items():
            at = f"{where}.values.{key}"
            self._key(key, at)
            self._known(rule, ("slice", "axis", "reason"), at)
            start, colon, stop = str(rule["slice"]).partition(":")
            if not colon:
                raise FormatError(f"values.{key}: a slice is START:STOP, as 1:, not {rule['slice']!r}")
            first, last = (int(text) if text else None for text in (start, stop))
            yield key, Slice(first, last, str(rule["axis"]), self._text(rule, "reason", at, needed=True))

    # --- what every table is asked

    def _pattern(
        self, text: Any, words: Mapping[str, tuple[str, ...]], where: str, fields: tuple[str, ...] | None = None
    ) -> Pattern:
        """The pattern. One that is no text, or uses other fields than ``fields`` and ``{k}``, is a problem."""
        found = self.attempted(where, lambda: Pattern.parse(_one_text(text), words)) or Pattern(("",))
        strange = [] if fields is None else [field for field in found.fields if field not in (*fields, "k")]
        if strange:
            listed = ", ".join(f"{{{field}}}" for field in (*(fields or ()), "k"))
            self._wrong(where, f"the field {{{strange[0]}}} means nothing here; there are {listed}")
        return found

    def _text(self, table: Mapping[str, Any], key: str, where: str, *, needed: bool = False) -> str:
        value = table.get(key, "")
        if not isinstance(value, str) or (needed and not value):
            self._wrong(f"{where}.{key}".lstrip("."), "is missing" if key not in table else "is no text that says it")
        return str(value)

    def _known(self, table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
        for key in table:
            if key not in keys and len(self.problems) < _MOST_UNKNOWN:
                remedy = did_you_mean(key, keys) or f"there are: {', '.join(keys)}"
                self._wrong(f"{where}.{key}".lstrip("."), "means nothing here", remedy)

    def _operator(self, op: str, where: str) -> None:
        if op not in OPERATORS:
            self._wrong(where, f"no operator is named {op!r}", did_you_mean(str(op), OPERATORS))

    def _key(self, key: str, where: str) -> None:
        op, _, part = key.partition(".")
        if part not in [each.name for each in PARTS.get(op, ())]:
            keys = [f"{op}.{each.name}" for op, parts in PARTS.items() for each in parts]
            self._wrong(where, "is no OPERATOR.part", did_you_mean(key, keys) or f"there are: {', '.join(keys)}")

    def _wrong(self, where: str, message: str, remedy: str | None = None) -> None:
        self.problems.append(Problem("names" if where.startswith("dialects.") else "file", message, where, remedy))

    def attempted(self, where: str, make: Callable[[], Value]) -> Value | None:
        try:
            return make()
        except _Raised as error:
            if isinstance(error, WioError) and error.problems:
                self.problems += error.problems
                return None
            message = error.message if isinstance(error, WioError) else f"is not what the format wants here: {error!r}"
            self._wrong(where, message, getattr(error, "remedy", None))
            return None


def _one_text(value: Any) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{value!r} is no pattern")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_one_text, [value] if isinstance(value, str) else value))
