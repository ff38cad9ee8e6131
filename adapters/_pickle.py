"""Pickles read as data: a machine that builds containers and calls nothing but what its caller put on a list.

The opcodes are those of protocols 2 to 4 (Python's ``pickletools``) that weight files use; every other one is refused.
A global is a value from the caller's exact table, never an import and never an attribute of anything. Text of Python 2
comes as ``bytes``; long byte strings stay views of the file, and long text stays undecoded (:class:`LongText`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from msgspec import Struct

from wio.errors import FormatError, printable

# A state_dict takes about thirty operations a tensor; a file of a few bytes an operation cannot claim more memory.
MOST_OPERATIONS = 2_000_000
MOST_MARKS = 1000
LONG = 4096


class Function(Struct, frozen=True, eq=False):
    """A global that may be called: ``call`` gets the arguments, unchecked, and raises FormatError if they are wrong."""

    call: Callable[[tuple[Any, ...]], Any]


class Kind(Struct, frozen=True, eq=False):
    """A global that is a class of the file's own: an instance is a :class:`Branch`, its state what BUILD gives it."""

    name: str


class Constant(Struct, frozen=True, eq=False):
    """A global that is only ever passed on: a dtype, a class of storages."""

    value: Any


class Built:
    """What BUILD may be applied to."""

    def build(self, state: Any) -> None:
        raise NotImplementedError


class Attributed(dict[Any, Any]):
    """An OrderedDict and the attributes that were set on it."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: dict[Any, Any] = {}


class Branch(Built, Struct, eq=False):
    """An object of the file's own class, known by the class's name and its state."""

    kind: Kind
    state: Any = None

    def build(self, state: Any) -> None:
        self.state = state


class LongText(Struct, frozen=True, eq=False):
    """Text that was not decoded, as UTF-8."""

    utf8: memoryview


Resolve = Callable[[str, str], "Function | Kind | Constant | None"]


def load(
    data: memoryview, start: int, resolve: Resolve, what: str, persistent: Callable[[Any], Any] | None = None
) -> tuple[Any, int]:
    """The value that a pickle at ``start`` builds, and the offset behind its STOP.

    ``resolve`` gives the value of a global by module and name, or None: then the pickle is refused and the error names
    it. ``persistent`` gives the value of a persistent id. Raises FormatError, beginning with ``what``.
    """
    try:
        return _Machine(data, start, resolve, persistent).run()
    except FormatError as error:
        raise FormatError(f"{what}: {error.message}", error.problems, error.remedy) from None
    except IndexError:
        raise FormatError(f"{what}: the pickle takes what it has not put there") from None


class _Machine:
    def __init__(self, data: memoryview, at: int, resolve: Resolve, persistent: Callable[[Any], Any] | None) -> None:
        self._data, self._at, self._resolve, self._persistent = data, at, resolve, persistent
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        size = len(self._data)
        for _ in range(MOST_OPERATIONS):
            if self._at >= size:
                refuse("the pickle is cut short")
            code = self._data[self._at]
            self._at += 1
            if code == _STOP:
                value = self._stack.pop()
                if self._stack or self._below:
                    refuse("the pickle leaves values behind")
                return value, self._at
            operation = _OPERATIONS.get(code)
            if operation is None:
                refuse(f"pickle opcode {code:#04x} is not one of those that weight files use")
            operation(self)
        refuse(f"a pickle of more than {MOST_OPERATIONS:,} operations is no list of weights")

    # --- arguments

    def _take(self, count: int) -> memoryview:
        end = self._at + count
        if end > len(self._data):
            refuse("the pickle is cut short")
        taken, self._at = self._data[self._at : end], end
        return taken

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _line(self) -> str:
        head = bytes(self._data[self._at : self._at + 1000])
        line, newline, _ = head.partition(b"\n")
        if not newline:
            refuse("the name of a global does not end")
        self._at += len(line) + 1
        return _decoded(line)

    # --- what puts plain values

    def _put(self, value: Any) -> None:
        self._stack.append(value)

    def _int4(self) -> None:
        self._put(int.from_bytes(self._take(4), "little", signed=True))

    def _long1(self) -> None:
        self._put(int.from_bytes(self._take(self._number(1)), "little", signed=True))

    def _float(self) -> None:
        self._put(struct.unpack(">d", self._take(8))[0])

    def _bytes(self, width: int) -> None:
        taken = self._take(self._number(width))
        self._put(taken if len(taken) > LONG else bytes(taken))

    def _text(self, width: int) -> None:
        taken = self._take(self._number(width))
        self._put(LongText(taken) if len(taken) > LONG else _decoded(bytes(taken)))

    # --- the memo

    def _remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _recall(self, width: int) -> None:
        index = self._number(width)
        if index not in self._memo:
            refuse(f"the pickle recalls entry {index} of its memo, which it has not set")
        self._put(self._memo[index])

    # --- containers

    def _mark(self) -> None:
        if len(self._below) >= MOST_MARKS:
            refuse(f"the pickle nests deeper than {MOST_MARKS} levels")
        self._below.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            refuse("the pickle takes what it has not put there")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._put(items)

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            refuse("the pickle appends to something that is no list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            refuse("the pickle sets items of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[as_key(key)] = value

    def _set_one(self) -> None:
        value = self._stack.pop()
        self._set([self._stack.pop(), value])

    # --- globals and what is done with them

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            refuse("the pickle names a global by something that is no text")
        found = self._resolve(module, name)
        if found is None:
            raise FormatError(
                f"the pickle wants {printable(f'{module}.{name}')}, which is no part of a file of weights: refused",
                remedy="where you trust the file, load it with its own library and save its weights alone",
            )
        self._put(found)

    def _stack_global(self) -> None:
        name = self._stack.pop()
        self._global(self._stack.pop(), name)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Function) or type(arguments) is not tuple:
            refuse("the pickle calls something that is no function of a file of weights: refused")
        self._put(function.call(arguments))

    def _new(self) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if not isinstance(kind, Kind) or arguments != ():
            refuse("the pickle makes an object of something that is no class of the file: refused")
        self._put(Branch(kind))

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Built):
            target.build(state)
        elif isinstance(target, Attributed) and isinstance(state, dict):
            target.attributes.update(state)
        else:
            refuse("the pickle sets the state of something that has none: refused")

    def _persistent_id(self) -> None:
        if self._persistent is None:
            refuse("the pickle refers to something outside it")
        self._put(self._persistent(self._stack.pop()))

    def _frame(self) -> None:
        """Only readers of streams need the length of a frame; one that is not all there they refuse."""
        if self._number(8) > len(self._data) - self._at:
            refuse("the pickle is cut short")

    def _protocol(self) -> None:
        if (version := self._number(1)) > 5:
            refuse(f"pickle protocol {version} is not known")


def refuse(message: str) -> NoReturn:
    raise FormatError(message)


def _decoded(utf8: bytes) -> str:
    try:
        return utf8.decode("utf-8")
    except UnicodeDecodeError:
        refuse("text that is no UTF-8")


def as_key(key: Any) -> Any:
    """The key itself if hashing it is safe: nested tuples overflow the stack, huge integers collide at will."""
    if type(key) in (str, bytes, bool) or key is None or (type(key) is int and -(2**63) <= key < 2**63):
        return key
    if isinstance(key, (LongText, memoryview)):
        refuse(f"a key of a dictionary is longer than {LONG} bytes")
    refuse("a key of a dictionary is neither text nor a 64-bit integer")


_STOP = 0x2E
_OPERATIONS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine._protocol,
    0x95: _Machine._frame,
    ord("("): _Machine._mark,
    ord("N"): lambda m: m._put(None),
    0x88: lambda m: m._put(True),
    0x89: lambda m: m._put(False),
    ord("J"): _Machine._int4,
    ord("K"): lambda m: m._put(m._number(1)),
    ord("M"): lambda m: m._put(m._number(2)),
    0x8A: _Machine._long1,
    ord("G"): _Machine._float,
    ord("U"): lambda m: m._bytes(1),
    ord("T"): lambda m: m._bytes(4),
    ord("C"): lambda m: m._bytes(1),
    ord("B"): lambda m: m._bytes(4),
    0x8E: lambda m: m._bytes(8),
    0x8C: lambda m: m._text(1),
    ord("X"): lambda m: m._text(4),
    0x8D: lambda m: m._text(8),
    ord("}"): lambda m: m._put({}),
    ord("]"): lambda m: m._put([]),
    ord(")"): lambda m: m._put(()),
    ord("t"): lambda m: m._put(tuple(m._to_mark())),
    0x85: lambda m: m._tuple(1),
    0x86: lambda m: m._tuple(2),
    0x87: lambda m: m._tuple(3),
    ord("a"): lambda m: m._append([m._stack.pop()]),
    ord("e"): lambda m: m._append(m._to_mark()),
    ord("s"): _Machine._set_one,
    ord("u"): lambda m: m._set(m._to_mark()),
    ord("q"): lambda m: m._remember(m._number(1)),
    ord("r"): lambda m: m._remember(m._number(4)),
    0x94: lambda m: m._remember(len(m._memo)),
    ord("h"): lambda m: m._recall(1),
    ord("j"): lambda m: m._recall(4),
    ord("c"): lambda m: m._global(m._line(), m._line()),
    0x93: _Machine._stack_global,
    ord("R"): _Machine._reduce,
    0x81: _Machine._new,
    ord("b"): _Machine._build,
    ord("Q"): _Machine._persistent_id,
}
