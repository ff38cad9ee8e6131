"""The text format of protocol buffers, as far as Caffe's network definitions use it.

Source: protobuf.dev/reference/protobuf/textformat-spec; the fields are those of :mod:`wio.adapters._caffe_schema`.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from wio.adapters._caffe_schema import DEEPEST, MESSAGES, Message, names_of, v1_type
from wio.adapters._mapped_files import open_regular
from wio.adapters._protobuf import WireError
from wio.adapters._tf_paths import shown
from wio.errors import FormatError

# The largest published definitions are a few hundred KB.
LARGEST = 4 << 20
# What a network has of one field, its layers first of all.
MOST_VALUES = 20_000

_TOKEN = re.compile(
    r"""(?P<skip>[\s]+|\#[^\n]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)(?![A-Za-z0-9_.]))
    |(?P<minus>-)
    |(?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')
    |(?P<mark>[{}<>\[\]:;,])""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_BOOLS = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPES = dict(zip(b"ntrabfv?\\'\"", b"\n\t\r\a\b\f\v?\\'\"", strict=True))


def read_prototxt(path: Path) -> Message:
    """The network that a .prototxt file defines. FormatError with file and line for what does not parse."""
    with os.fdopen(open_regular(path), "rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise FormatError(f"{shown(path)}: too large for the network definition that it should be")
    try:
        return parse(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise FormatError(
            f"{shown(path)}: no text: not a network definition", remedy="--option prototxt= takes the .prototxt file"
        ) from None
    except WireError as error:
        raise FormatError(f"{shown(path)}: {error.message}") from None


def parse(source: str) -> Message:
    """A NetParameter in text format. WireError with the line for what is no text format or has a wrong value."""
    return _Parser(source).message("NetParameter", None, 0)


class _Parser:
    def __init__(self, source: str) -> None:
        self._source, self._at = source, 0
        self._kind, self._text = "", ""
        self._step()

    def _step(self) -> tuple[str, str]:
        """The current token; the next becomes current."""
        now = self._kind, self._text
        while True:
            if self._at >= len(self._source):
                self._kind, self._text = "end", ""
                return now
            found = _TOKEN.match(self._source, self._at)
            if found is None:
                raise self._error(f"{self._source[self._at]!r} has no meaning here")
            self._at = found.end()
            if found.lastgroup != "skip":
                self._kind, self._text = str(found.lastgroup), found[0]
                return now

    def _error(self, what: str) -> WireError:
        line = self._source.count("\n", 0, self._at) + 1
        return WireError(f"line {line}: {what}")

    def message(self, kind: str | None, closing: str | None, depth: int) -> Message:
        """The fields up to ``closing``, those of an unknown message (None) read and forgotten."""
        if depth > DEEPEST:
            raise self._error(f"messages nest deeper than {DEEPEST}")
        known = MESSAGES[kind] if kind else {}
        found: Message = {}
        while True:
            if (self._kind == "end" and closing is None) or (self._text == closing and self._kind == "mark"):
                self._step()
                return found
            if self._kind == "end":
                raise self._error(f"the file ends where {closing} is due")
            if self._kind != "name":
                raise self._error(f"a field's name is due, not {self._text!r}")
            _, name = self._step()
            field = known.get(name)
            values = self._values(name, field.kind if field else None, depth)
            if field is not None:
                found.setdefault(name, []).extend(values)
                if len(found[name]) > MOST_VALUES:
                    raise self._error(f"{name} stands there more than {MOST_VALUES:,} times")
            if self._kind == "mark" and self._text in ";,":
                self._step()

    def _unquoted(self, quoted: list[str]) -> str:
        """Strings that stand side by side are one; escapes are bytes of its UTF-8, or characters."""
        try:
            return b"".join(_ESCAPE.sub(_escaped, each[1:-1].encode("utf-8")) for each in quoted).decode("utf-8")
        except (KeyError, ValueError, OverflowError):
            raise self._error(f"{' '.join(quoted)} is no text") from None

    def _values(self, name: str, kind: str | None, depth: int) -> list[Any]:
        colon = self._kind == "mark" and self._text == ":"
        if colon:
            self._step()
        if self._kind == "mark" and self._text == "[":
            self._step()
            if not colon and self._text not in _CLOSING:
                raise self._error(f"a message of {name} is due, or a colon before its values")
            values: list[Any] = []
            while not (self._kind == "mark" and self._text == "]"):
                values.append(self._value(name, kind, depth))
                if self._kind == "mark" and self._text == ",":
                    self._step()
                    if self._kind == "mark" and self._text == "]":
                        raise self._error(f"a value of {name} is due, not ']'")
                elif not (self._kind == "mark" and self._text == "]"):
                    raise self._error(f"the list of {name} is not closed")
            self._step()
            return values
        if not colon and not (self._kind == "mark" and self._text in _CLOSING):
            raise self._error(f"a value of {name} is due, not {self._text!r}")
        return [self._value(name, kind, depth)]

    def _value(self, name: str, kind: str | None, depth: int) -> Any:
        token, text = self._step()
        if token == "mark" and text in _CLOSING:
            if kind is not None and kind not in MESSAGES:
                raise self._error(f"{name} is no message")
            return self.message(kind, _CLOSING[text], depth + 1)
        if kind in MESSAGES:
            raise self._error(f"{name} is a message")
        if token == "string":
            quoted = [text]
            while self._kind == "string":
                quoted.append(self._step()[1])
            text = self._unquoted(quoted)
        elif token == "minus" and self._kind == "name":
            text = "-" + self._step()[1]
        elif token not in ("name", "number"):
            raise self._error(f"a value of {name} is due, not {text!r}")
        if kind is None:
            return None
        try:
            return _typed(kind, token, text)
        except (ValueError, OverflowError, IndexError, WireError):
            raise self._error(f"{text!r} is no value of {name}") from None


def _escaped(found: re.Match[bytes]) -> bytes:
    """The bytes of an escape: by number, of a character's UTF-8, or one of C's. KeyError or ValueError for another."""
    octal, hexadecimal, short, long, mark = found.groups()
    if short or long:
        return chr(int(short or long, 16)).encode("utf-8")
    return bytes([_ESCAPES[mark[0]] if mark else int(octal, 8) if octal else int(hexadecimal, 16)])


def _typed(kind: str, token: str, text: str) -> Any:
    if kind == "string":
        if token != "string":
            raise ValueError(text)
        return text
    if token == "string":
        raise ValueError(text)
    if kind == "V1LayerType":
        return v1_type(text)
    if kind.startswith("enum"):
        names = names_of(kind)
        return text if text in names else names[int(text)] if text.isdecimal() else _refuse(text)
    if kind == "bool":
        return _BOOLS[text] if text in _BOOLS else _refuse(text)
    text = text.replace(" ", "")
    if kind == "float":
        if re.match("-?0[0-9]", text):
            # Protobuf takes it for an octal number, which no float is.
            raise ValueError(text)
        number = float(text.rstrip("fF"))
        return number if math.isfinite(number) else _refuse(text)
    return _integer(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _integer(text: str) -> int:
    digits = text.removeprefix("-")
    if len(digits) > 20:
        raise ValueError(text)
    base = 16 if digits[:2].lower() == "0x" else 8 if len(digits) > 1 and digits[0] == "0" else 10
    number = int(text, base)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(text)
    return number
