"""What a registry's file may ask for. It may come from anyone: checking it takes seconds, whatever is in it."""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wio.architectures.dialect import Dialect
from wio.architectures.name_pattern import LONGEST_NAME, Pattern
from wio.network import Network

LARGEST_FILE = 1 << 20
_DEEPEST, _LARGEST_NUMBER, _LONGEST_LIST = 16, 1 << 31, 64
# tomllib takes time that grows with the square of a dotted key's parts.
_MOST_PARTS = 32
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'[^']*'")
_BETWEEN = re.compile(r"[=,\[\]{}#]")
# Steps of matching and comparing that a dialect may take: about a second.
_MOST_STEPS = 50_000_000
_AT_LEAST_ONE = ("filters", "units", "multiplier", "size", "kernel_shape", "strides", "dilations", "sizes", "group")


def read_table(path: Path) -> dict[str, Any]:
    """The document of a TOML file. ValueError or OSError for what is none, too large, or nested too deep."""
    import tomllib

    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("no regular file")
    if found.st_size > LARGEST_FILE:
        raise ValueError(f"{found.st_size:,} bytes; no description of a network needs {LARGEST_FILE:,}")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError("no text in UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        plain = line if '"""' in line or "'''" in line else _QUOTED.sub("", line)
        if plain.count(".") > _MOST_PARTS and max(part.count(".") for part in _BETWEEN.split(plain)) > _MOST_PARTS:
            raise ValueError(f"line {number}: a key of more than {_MOST_PARTS} parts")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError("its tables are nested too deep") from None
    _refuse_depth(document)
    return document


def _refuse_depth(document: Any) -> None:
    waiting = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError("its tables are nested too deep")
        if isinstance(value, dict | list):
            waiting += [(each, depth + 1) for each in (value.values() if isinstance(value, dict) else value)]


def wrong_attributes(attributes: Mapping[str, Any]) -> Iterator[str]:
    """What no attribute of a layer is: a number beyond all sizes, a stride of 0, a kernel without axes."""
    for key, value in attributes.items():
        values = value if isinstance(value, list) else [value]
        flat = [each for row in values for each in (row if isinstance(row, list) else [row])]
        if len(flat) > _LONGEST_LIST or not all(_is_plain(each) for each in flat):
            yield f"{key} is no number, text, or short list of them"
        elif key in _AT_LEAST_ONE and not all(isinstance(each, int) and each is not True and each > 0 for each in flat):
            yield f"{key} is made of whole numbers from 1"
        elif key == "kernel_shape" and not (isinstance(value, list) and 1 <= len(flat) == len(value) <= 3):
            yield "kernel_shape has a size for each of 1 to 3 axes"
        elif key in ("filters", "units", "multiplier", "group") and isinstance(value, list):
            yield f"{key} is one number"
        elif key in ("pads", "scales") and not all(isinstance(each, int | float) for each in flat):
            yield f"{key} is made of numbers"
        elif key in ("axes", "data_format", "letters", "auto_pad") and not isinstance(value, str):
            yield f"{key} is a text"
        elif key == "axis" and not isinstance(value, int | str):
            yield "axis is a letter or a number"
        elif key == "unsaid":
            yield f"what it does no operator says yet: {value}"
    axes, sizes = attributes.get("axes"), attributes.get("sizes")
    if isinstance(axes, str) and not (isinstance(sizes, list) and len(sizes) == len(axes) == len(set(axes))):
        yield "axes has a letter for each of sizes, no letter twice"


def _is_plain(value: Any) -> bool:
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) < _LARGEST_NUMBER
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def too_much(dialect: Dialect, network: Network) -> bool:
    """Whether writing out the names of a dialect would take longer than any port needs."""
    lengths = [min(len(layer.name), LONGEST_NAME) for layer in network.layers]
    words = sum(map(len, dialect.words.values()))
    by_fields: dict[int, int] = {}

    def steps(pattern: Pattern | None) -> int:
        fields = 1 if pattern is None else max(1, len(pattern.fields))
        if fields not in by_fields:
            by_fields[fields] = sum(length ** (fields - 1) for length in lengths)
        return by_fields[fields]

    rules = sum(steps(rule.canonical) + steps(rule.spelled) for rule in dialect.rules)
    others = sum(1 + len(each.layers) for each in dialect.differences) + 20 * len(dialect.drops)
    others += 10 * sum(map(len, dialect.weights.values())) + words
    return rules * (1 + words // 100) + others * len(lengths) > _MOST_STEPS
