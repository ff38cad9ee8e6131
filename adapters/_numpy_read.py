"""NumPy files as bundles: one array, the members of an .npz, or the leaves of a pickled dictionary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wio.adapters._mapped_files import MappedFile
from wio.adapters._numpy_header import HEAD, MAGIC, Stored, read_head
from wio.adapters._numpy_pickle import PickledArray, resolve
from wio.adapters._pickle import load
from wio.adapters._pickle_values import described, leaves
from wio.adapters._zip import Member, ZipArchive, member_names
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError, Problem, printable
from wio.lazy import Array

_MOST_OTHER = 10_000


def score(path: Path) -> int:
    """10 for a .npy file, 20 for a zip of nothing but them, 0 for anything else. Never raises."""
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except OSError:
        return 0
    if head == MAGIC:
        return 10
    names = member_names(path)
    return 20 if names and all(name.endswith(".npy") for name in names) else 0


def read(path: Path, *, check: bool) -> Bundle:
    """The bundle of any of them. FormatError for what is none, or holds what is no array of numbers."""
    file = MappedFile(path)
    head = bytes(file.view[:HEAD])
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _read_npz(ZipArchive(path, check=check))
    stored = read_head(head, str(file))
    if stored.dtype is None:
        return _read_pickled(file, stored)
    if file.size - stored.start != stored.nbytes:
        raise FormatError(
            f"{file}: {stored.nbytes} bytes of {stored.dtype} of shape {stored.shape} were announced, "
            f"{file.size - stored.start} are there; is it cut short?"
        )
    name = printable(path.name.removesuffix(".npy")) or "array"
    tensor = _tensor(str(file), name, stored, lambda: file.bytes(stored.start, file.size))
    return Bundle([tensor], {"numpy": {"kind": "npy"}})


def _tensor(what: str, name: str, stored: Stored, data: Callable[[], memoryview]) -> Tensor:
    def load() -> Array:
        try:
            return stored.array(data())
        except FormatError as error:
            raise type(error)(f"{what}: {name}: {error.message}", error.problems, error.remedy) from None

    return Tensor(name, stored.numbers, stored.shape, load, raw=data if stored.straight else None)


# --- npz


def _read_npz(archive: ZipArchive) -> Bundle:
    tensors, problems = [], []
    for member in archive.members.values():
        try:
            tensors.append(_member_tensor(member))
        except FormatError as error:
            problems.append(Problem("unsupported", error.message, member.name, error.remedy))
    if problems:
        raise FormatError(f"{archive}: {len(problems)} of its members cannot be read", problems)
    return Bundle(tensors, {"numpy": {"kind": "npz"}})


def _member_tensor(member: Member) -> Tensor:
    if not member.name.endswith(".npy"):
        raise FormatError("is no .npy array")
    stored = read_head(member.head(HEAD), "it")
    if stored.dtype is None:
        raise FormatError("it holds Python objects, which are read from .npy dictionaries only")
    if member.size != stored.start + stored.nbytes:
        raise FormatError(f"{stored.nbytes} bytes of data were announced, {member.size - stored.start} are there")
    return _tensor(str(member), member.name.removesuffix(".npy"), stored, lambda: member.read()[stored.start :])


# --- pickled dictionaries


def _latin1(key: Any) -> str | None:
    return key.decode("latin-1") if type(key) is bytes else key if type(key) is str else None


def _read_pickled(file: MappedFile, stored: Stored) -> Bundle:
    """``np.save`` of a dictionary: an array of no axes that holds one object, pickled."""
    if stored.shape != ():
        raise FormatError(
            f"{file}: an array of Python objects of shape {stored.shape}; only a single dictionary is read",
            remedy="save its arrays with np.savez",
        )
    value, end = load(file.view, stored.start, resolve, f"{file}: its pickle")
    if end != file.size:
        raise FormatError(f"{file}: {file.size - end} bytes follow the end of its pickle")
    try:
        held = value.items if isinstance(value, PickledArray) else None
        if held is None or len(held) != 1 or not isinstance(held[0], (dict, list, tuple)):
            raise FormatError("the pickle holds no dictionary")
        lists: set[str] = set()
        listed = list(leaves(held[0], "/", _latin1, lists))
        objects = [name for name, leaf in listed if isinstance(leaf, PickledArray) and not _is_numbers(leaf)]
    except FormatError as error:
        raise FormatError(f"{file}: {error.message}", remedy=error.remedy) from None
    if objects:
        problems = [Problem("unsupported", "is an array of Python objects, not of numbers", name) for name in objects]
        raise FormatError(f"{file}: {len(objects)} of its arrays cannot be read", problems)
    tensors: dict[str, Tensor] = {}
    other: dict[str, Any] = {}
    for name, leaf in listed:
        if name in tensors:
            raise FormatError(f"{file}: two arrays have the name {printable(name)!r} once their keys are joined")
        if isinstance(leaf, PickledArray) and leaf.stored is not None:
            tensors[name] = _tensor(str(file), name, leaf.stored, leaf.bytes)
        elif len(other) < _MOST_OTHER:
            other[name] = described(leaf)
    about: dict[str, Any] = {"kind": "pickled"}
    if lists:
        about["lists"] = sorted(lists)
    if other:
        about["other"] = other
    return Bundle(tensors.values(), {"numpy": about})


def _is_numbers(leaf: PickledArray) -> bool:
    return leaf.stored is not None and leaf.stored.dtype is not None
