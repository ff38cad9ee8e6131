"""What pickles of several formats have in common: two globals, and the walk over what was built, leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from wio.adapters._pickle import Attributed, Branch, Function, LongText, as_key, refuse
from wio.errors import FormatError


class Leaf(Struct, frozen=True, eq=False):
    """Something that is neither a container nor a weight: what it is, in a word."""

    what: str


def _ordered_dict(arguments: tuple[Any, ...]) -> Attributed:
    """Python 3 calls it with nothing, Python 2 with a list of pairs."""
    made = Attributed()
    if arguments == ():
        return made
    pairs = arguments[0]
    if (
        len(arguments) != 1
        or type(pairs) is not list
        or not all(type(p) in (list, tuple) and len(p) == 2 for p in pairs)
    ):
        refuse("an OrderedDict is made of something that is no list of pairs")
    for key, value in pairs:
        made[as_key(key)] = value
    return made


class Encoded(Struct, frozen=True, eq=False):
    """Bytes that the pickle spells as Latin-1 text, decoded when they are wanted."""

    utf8: memoryview

    def decode(self) -> bytes:
        try:
            return bytes(self.utf8).decode("utf-8").encode("latin-1")
        except UnicodeError:
            raise FormatError("bytes that are spelled as text hold what is no byte") from None


def _encode(arguments: tuple[Any, ...]) -> bytes | Encoded:
    """``_codecs.encode(text, 'latin1')``: how Python 3 writes bytes in protocol 2."""
    if len(arguments) != 2 or as_text(arguments[1]) not in ("latin1", "latin-1"):
        refuse("_codecs.encode is called for something else than Latin-1 bytes")
    if isinstance(arguments[0], LongText):
        return Encoded(arguments[0].utf8)
    if type(arguments[0]) is not str:
        refuse("_codecs.encode is called with something that is no text")
    try:
        return arguments[0].encode("latin-1")
    except UnicodeError:
        refuse("bytes that are spelled as text hold what is no byte")


ORDERED_DICT = Function(_ordered_dict)
ENCODE = Function(_encode)


# --- what was built, leaf by leaf

MOST_LEAVES = 1_000_000
MOST_LEVELS = 64
LONGEST_NAME = 4096
# A value may be reached by many ways, each of which costs time and a name.
_MOST_SCANNED = 20_000_000
_MOST_CHARACTERS = 1 << 26
_SCALARS = (str, bytes, int, float, bool, type(None), LongText, memoryview, Encoded)


def as_text(value: Any) -> str | None:
    """Text of either Python, or None for anything else. Python 2's is UTF-8 where it can be, else Latin-1."""
    if type(value) is str:
        return value
    if type(value) is not bytes:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def is_scalars(value: Any) -> bool:
    """Whether a value is a list or tuple of plain values, an empty one included."""
    return type(value) in (list, tuple) and all(type(item) in _SCALARS for item in value)


def leaves(
    root: Any, separator: str, text: Callable[[Any], str | None] = as_text, lists: set[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """Every leaf below nested dictionaries, lists and objects, its keys and indices joined by ``separator``.

    Lists of plain values are one leaf; the names of the others are added to ``lists``. Raises FormatError for nesting
    without end, and for what a few bytes claim to be a million leaves.
    """
    left, scanned, spelled = MOST_LEAVES, _MOST_SCANNED, _MOST_CHARACTERS

    def walk(value: Any, name: str, level: int) -> Iterator[tuple[str, Any]]:
        if level > MOST_LEVELS:
            refuse(f"values are nested deeper than {MOST_LEVELS} levels")
        if len(name) > LONGEST_NAME:
            refuse(f"a name is longer than {LONGEST_NAME} characters")
        nonlocal left, scanned, spelled
        left, spelled = left - 1, spelled - len(name)
        if isinstance(value, (list, tuple)):
            scanned -= len(value)
        if min(left, scanned, spelled) < 0:
            refuse(f"more than {MOST_LEAVES:,} values")
        if isinstance(value, Branch):
            yield from walk(value.state, name, level + 1)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, _joined(name, key, separator, text), level + 1)
        elif type(value) in (list, tuple) and not is_scalars(value):
            if lists is not None:
                lists.add(name)
            for index, item in enumerate(value):
                yield from walk(item, _joined(name, index, separator, text), level + 1)
        else:
            yield name, value

    return walk(root, "", 0)


def _joined(name: str, key: Any, separator: str, text: Callable[[Any], str | None]) -> str:
    spelled = text(key)
    if spelled is None:
        spelled = str(key)
    return f"{name}{separator}{spelled}" if name else spelled


def described(value: Any) -> Any:
    """A leaf that is no weight as JSON may hold it: small plain values themselves, others by what they are."""
    if isinstance(value, Leaf):
        return value.what
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if value is None or isinstance(value, (bool, int)):
        return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)
    if isinstance(value, str) or (isinstance(value, bytes) and value.isascii()):
        spelled = as_text(value) or ""
        return spelled if len(spelled) <= 200 else f"text of {len(spelled)} characters"
    if is_scalars(value):
        return [described(item) for item in value] if len(value) <= 16 else f"list of {len(value)} values"
    if isinstance(value, (bytes, memoryview, LongText, Encoded)):
        return "bytes or long text"
    return "an object"
