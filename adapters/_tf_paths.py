"""Which files a path means: a prefix, an index, a data file, a shard, or a directory that points to one.

Sources: tensor_bundle/naming.cc (file names of V2); tensorflow/python/training/checkpoint_state.proto, kept as text in
``checkpoint``; saved_model/constants.h (variables/variables). Standard library alone: this runs for every path that
is sniffed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from wio.errors import FormatError, printable
from wio.mapping import read_at

# tensorflow/core/lib/io/format.h, kTableMagicNumber, little-endian: what a table ends in.
MAGIC = bytes.fromhex("57fb808b247547db")
DATA = re.compile(r"(?P<base>.*)\.data-\d{5,}-of-\d{5,}", re.DOTALL)
SHARD = re.compile(r"(?P<base>.*)-(?P<shard>\d{5}|\?{5})-of-(?P<shards>\d{5})", re.DOTALL)
ANY_SHARD = "?????"
INDEX = ".index"
# A `checkpoint` file lists every checkpoint kept; this is room for twenty thousand.
LARGEST_STATE = 4 << 20
MOST_LISTED = 8


class Located(Struct, frozen=True):
    """``tables``: the index of a V2 checkpoint, or the files of a V1 one. Data files begin with ``base``, beside it.

    ``base`` is empty where the prefix ends in a slash.
    """

    tables: tuple[Path, ...]
    folder: Path
    base: str


def looks_like_checkpoint(path: Path) -> bool:
    """Whether the files that a path means end in a table's magic number, or are plainly part of a checkpoint."""
    try:
        found = _located(path)
        # A cut-off index beside its data files is this format's to complain of.
        return found is not None and (_ends_in_magic(found.tables[0]) or _has_data_files(found.folder, found.base))
    except FormatError:
        return True
    except (OSError, ValueError):
        return False


def locate(path: Path) -> Located:
    """The files that a path means; FormatError, with the remedy, if they cannot be told or are not there."""
    try:
        found = _located(path)
        if found is not None:
            return found
        if path.is_dir():
            prefixes = sorted(file.name.removesuffix(INDEX) for file in path.iterdir() if file.name.endswith(INDEX))
            raise FormatError(
                f"{shown(path)}: a directory without a `checkpoint` file, and no SavedModel",
                remedy=f"name the checkpoint itself: {_listed(prefixes)}"
                if prefixes
                else "a checkpoint is PREFIX.index with PREFIX.data-*, or a single file",
            )
        there = os.path.lexists(path)
    except (OSError, ValueError) as error:
        raise FormatError(f"{shown(path)}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if there:
        raise FormatError(f"{shown(path)}: is no regular file, and no prefix of a checkpoint")
    raise FormatError(
        f"{shown(path)}: no such file",
        remedy="name a checkpoint by its prefix (PREFIX.index and PREFIX.data-* exist), its .index, or its directory",
    )


def shown(path: Path | str) -> str:
    """A path made safe for a message: undecodable bytes and control characters are escaped."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(map(shown, names[:MOST_LISTED])) + more


def _located(path: Path) -> Located | None:
    if path.is_dir():
        return _of_directory(path)
    if path.name == "checkpoint" and path.is_file() and not _ends_in_magic(path):
        return _of_state(path)
    return _of_prefix(path.parent, path.name)


def _of_directory(folder: Path) -> Located | None:
    if (folder / "checkpoint").is_file():
        found = _of_state(folder / "checkpoint")
        if found is not None:
            return found
    # tf.train.Checkpoint.write("DIR/") leaves DIR/.index; the slash is gone from a Path.
    if (folder / INDEX).is_file():
        return _of_prefix(folder, "")
    if any((folder / f"saved_model.{kind}").is_file() for kind in ("pb", "pbtxt")):
        found = _of_prefix(folder / "variables", "variables")
        if found is None:
            raise FormatError(
                f"{shown(folder)}: a SavedModel without variables",
                remedy="variables/variables.index and its data files belong to it",
            )
        return found
    return None


def _of_state(state: Path) -> Located | None:
    """What a `checkpoint` file points to."""
    named = named_by(state)
    if not named:
        return None
    for base in named:
        found = _of_prefix(state.parent, base)
        if found is not None:
            return found
    raise FormatError(
        f"{shown(state)}: the checkpoint that it names, {printable(named[0])}, is not in its folder",
        remedy="name another checkpoint by its prefix, or put the missing files beside it",
    )


def named_by(state: Path) -> list[str]:
    """The prefixes that a `checkpoint` file may mean; only a base name within its own directory is believed."""
    with state.open("rb") as file:
        raw = file.read(LARGEST_STATE + 1)
    if len(raw) > LARGEST_STATE:
        raise FormatError(f"{shown(state)}: too large for the text that it should be")
    values = _strings_named(b"model_checkpoint_path", raw)
    if not values:
        return []
    if len(values) > 1:
        raise FormatError(f"{shown(state)}: model_checkpoint_path stands there {len(values)} times")
    named = os.fsdecode(values[0])
    bases = []
    # A checkpoint that was trained on Windows names its folder with backslashes.
    for base in dict.fromkeys((named.rpartition("/")[2], re.split(r"[/\\]", named)[-1])):
        if base == ".." or "\0" in base:
            raise FormatError(f"{shown(state)}: {printable(named)} is no name of a checkpoint")
        bases.append("" if base == "." else base)
    return bases


_STATE_FIELD = re.compile(rb"""#[^\n]*|(\w+)\s*:\s*(?:"([^"\\\n]*(?:\\.[^"\\\n]*)*)"|'([^'\\\n]*(?:\\.[^'\\\n]*)*)')""")
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)")
_PLAIN_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


def _strings_named(field: bytes, raw: bytes) -> list[bytes]:
    """The values of a string field of a text-format message, escapes undone (protobuf text format specification)."""
    return [
        _ESCAPE.sub(_unescaped, found[2] if found[2] is not None else found[3])
        for found in _STATE_FIELD.finditer(raw)
        if found[1] == field
    ]


def _unescaped(found: re.Match[bytes]) -> bytes:
    code = found[1]
    if code[:1].isdigit():
        return bytes((int(code, 8) & 0xFF,))
    if code[:1] == b"x" and len(code) > 1:
        return bytes((int(code[1:], 16),))
    return _PLAIN_ESCAPES.get(code, code)


def _of_prefix(folder: Path, base: str) -> Located | None:
    """The checkpoint of that prefix. A file of exactly that name is what was named; else V2 comes first, as in
    TensorFlow (checkpoint_reader.cc)."""
    index = folder / (base + INDEX)
    if base and (folder / base).is_file():
        return _of_file(folder, base)
    if index.is_file():
        return Located((index,), folder, base)
    if not base:
        return None
    pattern = SHARD.fullmatch(base)
    if pattern and pattern["shard"] == ANY_SHARD:
        return _shards(folder, pattern["base"], pattern["shards"])
    counts = sorted(_shard_counts(folder, base))
    if len(counts) > 1:
        several = ", ".join(str(int(count)) for count in counts)
        raise FormatError(
            f"{shown(folder / base)}: checkpoints of {several} shards stand side by side",
            remedy=f"name one of them: '{shown(folder / base)}-{ANY_SHARD}-of-{counts[0]}'",
        )
    if counts:
        return _shards(folder, base, counts[0])
    if _has_data_files(folder, base):
        raise _no_index(folder, base)
    return None


def _of_file(folder: Path, name: str) -> Located:
    if name.endswith(INDEX):
        return Located((folder / name,), folder, name.removesuffix(INDEX))
    if not _ends_in_magic(folder / name):
        data = DATA.fullmatch(name)
        if data:
            index = folder / (data["base"] + INDEX)
            if not index.is_file():
                raise _no_index(folder, data["base"])
            return Located((index,), folder, data["base"])
    else:
        shard = SHARD.fullmatch(name)
        if shard and shard["shard"] != ANY_SHARD:
            return _shards(folder, shard["base"], shard["shards"])
    return Located((folder / name,), folder, name)


def _no_index(folder: Path, base: str) -> FormatError:
    return FormatError(
        f"{shown(folder / (base + INDEX))}: no such file, though data files of that checkpoint are there",
        remedy="copy the .index file beside them: names, dtypes and shapes are in it alone",
    )


def _shards(folder: Path, base: str, count: str) -> Located:
    files = tuple(folder / f"{base}-{shard:05d}-of-{count}" for shard in range(int(count)))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise FormatError(
            f"{shown(folder / base)}: {len(missing)} of {int(count)} shards are missing: {_listed(missing)}",
            remedy="all shards of a checkpoint belong together",
        )
    return Located(files, folder, base)


def _shard_counts(folder: Path, base: str) -> set[str]:
    return {
        found["shards"]
        for name in _names(folder)
        if (found := SHARD.fullmatch(name)) and found["base"] == base and found["shard"] != ANY_SHARD
    }


def _has_data_files(folder: Path, base: str) -> bool:
    return any((found := DATA.fullmatch(name)) and found["base"] == base for name in _names(folder))


def _names(folder: Path) -> list[str]:
    try:
        return [file.name for file in folder.iterdir()]
    except OSError:
        return []


def _ends_in_magic(path: Path) -> bool:
    # The caller knows that it is a regular file, so that opening it cannot wait.
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return size >= len(MAGIC) and read_at(file.fileno(), len(MAGIC), size - len(MAGIC)) == MAGIC
