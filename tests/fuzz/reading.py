"""One input, read as wio's commands read a file, and what was wrong with that."""

from __future__ import annotations

import hashlib
import json
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.watch import watching

from wio.errors import WioError

Array = np.ndarray[Any, np.dtype[Any]]
# What is judged by name: values where they could be read, by the name that the file has for them.
Values = Mapping[str, Array]
# None where the library has a name and cannot give its values as an array.
Judged = Mapping[str, Array | None]


class RefusedError(Exception):
    """The real library does not read the file."""


class UnjudgedError(Exception):
    """The real library gives up over something that is no part of the weights."""


@dataclass(frozen=True)
class Form:
    """A way to make files of an input: ``lay`` writes them into an empty folder and gives the path to read.

    ``wire``: the input is a protocol buffer, and is changed field by field.
    """

    lay: Callable[[Path, bytes], Path]
    wire: bool = False


@dataclass(frozen=True)
class Reader:
    """A reader under test. The first byte of an input says which of the ``forms`` the rest has.

    ``read`` reads everything that there is, and raises WioError for what it refuses; ``judge`` gives what the format's
    own library reads, or raises RefusedError. ``seeds`` are small valid inputs, none larger than ``largest`` bytes.
    ``strict``: what the library refuses wio must refuse too. PyTorch also gives up over storages that no tensor uses,
    over tensors that another of the same name replaces, over records of the archive that hold none, and over opcodes
    that pickles of protocol 2 do not need. ``partly``: the judge does not look at all that wio reads.
    """

    name: str
    forms: tuple[Form, ...]
    read: Callable[[Path], Values]
    seeds: Callable[[], list[bytes]]
    judge: Callable[[Path], Judged] | None = None
    strict: bool = True
    partly: bool = False
    largest: int = 16_384

    def form(self, data: bytes) -> Form:
        return self.forms[data[0] % len(self.forms) if data else 0]

    def lay(self, folder: Path, data: bytes) -> Path:
        return self.form(data).lay(folder, data[1:])


@dataclass
class Outcome:
    """What was read, or why it was refused; ``wrong`` holds findings, under a key that those of one cause share."""

    values: Values | None = None
    refused: str | None = None
    wrong: dict[str, str] = field(default_factory=dict)


def examine(reader: Reader, data: bytes, folder: Path, *, judged: bool) -> Outcome:
    """Reads an input and, where wio accepted it, has the format's own library judge what was read."""
    for old in folder.iterdir():
        old.unlink()
    path = reader.lay(folder, data)
    size = sum(each.stat().st_size for each in folder.iterdir())
    outcome = Outcome()
    raised: Exception | None = None
    with watching(folder, size) as watched:
        try:
            outcome.values = reader.read(path)
        except WioError as error:
            outcome.refused = str(error)
        except Exception as error:
            raised = error
    if raised is not None:
        outcome.wrong[_key(raised)] = "".join(traceback.format_exception(raised))
    if outcome.refused is not None and not outcome.refused.strip():
        outcome.wrong["no message"] = ""
    if outcome.refused is not None and not outcome.refused.replace("\n", "").isprintable():
        outcome.wrong["message with control characters"] = repr(outcome.refused)
    for each in watched.wrong:
        outcome.wrong[each.partition(":")[0]] = each
    if judged and outcome.values is not None and reader.judge is not None and not outcome.wrong:
        outcome.wrong |= _differences(reader, path, outcome.values)
    return outcome


def _key(error: Exception) -> str:
    """The exception and the innermost line of wio's that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/tests/" not in frame.filename and "site-packages" not in frame.filename]
    ours = [frame for frame in ours if "/adapters/" in frame.filename or "/wio/" in frame.filename]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "outside wio"
    return f"{type(error).__name__} in {place}"


def _of_refusal(message: str) -> str:
    """The library's own words, without what differs from file to file."""
    return "the library refuses it: " + re.sub(r"[^a-z ]+", "", message.lower())[:40]


def _differences(reader: Reader, path: Path, ours: Values) -> dict[str, str]:
    assert reader.judge is not None
    try:
        theirs = reader.judge(path)
    except UnjudgedError:
        return {}
    except RefusedError as error:
        return {_of_refusal(str(error)): str(error)} if reader.strict else {}
    wrong = {}
    more, fewer = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if fewer or (more and not reader.partly):
        wrong["other names"] = f"only wio: {more[:5]}; only the library: {fewer[:5]}"
    for name in ours.keys() & theirs.keys():
        judged = theirs[name]
        if judged is not None and not same(ours[name], judged):
            wrong["other values"] = f"{name}: wio {ours[name]!r}, the library {judged!r}"
    return wrong


def same(ours: Array, theirs: Array) -> bool:
    """Equal in shape and bit for bit, of element types of one size; objects (byte strings) by their values."""
    theirs = np.asarray(theirs)
    if ours.shape != theirs.shape:
        return False
    if ours.dtype == object or theirs.dtype == object:
        return ours.ravel().tolist() == theirs.ravel().tolist()
    return ours.dtype.itemsize == theirs.dtype.itemsize and ours.tobytes() == theirs.tobytes()


def read_all(adapter: Any, path: Path, named: Callable[[Any], str] | None = None, **options: str) -> dict[str, Array]:
    """Everything that wio's commands ask an adapter of a file: what it is, its list, its graph, each value's bytes.

    WioError if any of it is refused. AssertionError if the answers contradict one another.
    """
    score = adapter.sniff(path)
    assert isinstance(score, int), "sniff gave no number"
    bundle = adapter.read(path, **options)
    text = json.dumps(bundle.metadata, allow_nan=False)
    assert str(path.parent) not in text, "the metadata remembers where the file lay"
    values = {}
    for name, tensor in bundle.items():
        array = tensor.numpy()
        assert tensor.name == name and array.shape == tensor.shape, f"{name}: not the shape that was listed"
        assert array.dtype == tensor.dtype.numpy, f"{name}: not the dtype that was listed"
        stored = tensor.stored()
        assert not tensor.dtype.itemsize or len(stored) == tensor.nbytes, f"{name}: not the size that was listed"
        hashlib.sha256(stored).digest()
        if tensor.layout is not None:
            assert tensor.layout.check(tensor.shape) is None, f"{name}: the shape refutes the layout"
        values[named(tensor) if named else tensor.origin or name] = array
    asked(lambda: adapter.receipt(path))
    asked(lambda: adapter.network(bundle, path, **options))
    asked(lambda: adapter.convention_of(bundle))
    return values


def asked(question: Callable[[], Any]) -> None:
    """A question that an adapter may refuse though it has read the weights."""
    try:
        question()
    except WioError as error:
        assert str(error).strip()
