"""Replays a receipt: what was done is done again, from the same source, and the results are compared by digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from wio import __version__
from wio.atomic import staging
from wio.container import verified
from wio.errors import FormatError, UsageError
from wio.plugins import adapter_named, detect
from wio.port import Declarations, export, import_into


class Replayed(Struct, frozen=True):
    """What a replay found. ``differences`` are sentences, one for each thing that is not as the receipt says."""

    receipt: Mapping[str, Any]
    tensors: int
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        return {
            "same": self.same,
            "tensors": self.tensors,
            "differences": list(self.differences),
            "notes": list(self.notes),
            "receipt": dict(self.receipt),
        }


def replay(
    made: Path,
    source: Path,
    *,
    adapter: str | None = None,
    source_options: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Replayed:
    """Makes ``made`` again from ``source`` as its receipt says, and compares every tensor by its SHA-256.

    A receipt keeps of a path its last part only: ``source_options`` and ``options`` (of the target) give such options
    again. Every byte of ``made`` is read and checked. Raises UsageError for a file without a receipt, FormatError for a
    receipt that does not say what was done, and what the port itself raises where the source no longer fits.
    """
    chosen = adapter_named(adapter) if adapter else detect(made)
    receipt = chosen.receipt(made)
    if receipt is None:
        raise UsageError(f"{made.name} has no receipt: there is nothing to replay")
    with staging() as folder:
        # The same name: formats that keep values beside the file write it down.
        again = folder / made.name
        _do_again(receipt, source, again, source_options or {}, options or {})
        before, after = _digests(made, chosen.name), _digests(again, chosen.name)
        new = chosen.receipt(again) or {}
    differences = [f"{name}: the replay does not make it" for name in before if name not in after]
    differences += [f"{name}: the replay makes it, the file has it not" for name in after if name not in before]
    differences += [
        f"{name}: {before[name][:16]} in the file, {after[name][:16]} replayed"
        for name in before
        if name in after and before[name] != after[name]
    ]
    differences += [
        f"the receipt's {key} are not those of the replay"
        for key in ("values", "steps", "dropped")
        if receipt.get(key) != new.get(key)
    ]
    return Replayed(receipt, len(before), tuple(differences), tuple(_notes(receipt, source)))


def _notes(receipt: Mapping[str, Any], source: Path) -> list[str]:
    notes = []
    generator = f"wio {__version__}"
    if receipt.get("generator") != generator:
        notes.append(f"the file was made by {receipt.get('generator')}, the replay by {generator}")
    told = receipt.get("source")
    name = told.get("file") if isinstance(told, Mapping) else None
    if name != source.name:
        notes.append(f"the receipt's source was named {name}")
    return notes


def _do_again(
    receipt: Mapping[str, Any], source: Path, out: Path, source_options: Mapping[str, str], options: Mapping[str, str]
) -> None:
    told, origin, into = (_object(receipt, key) for key in ("told", "source", "into"))
    declarations = Declarations(
        _text(told, "arch"),
        _text(told, "dialect"),
        *(_texts(told, key) for key in ("declare", "only", "drop", "apply")),
    )
    reading = {**_options(told), **source_options}
    if receipt.get("command") == "export":
        layout = _text(told, "layout") or "keep"
        export(source, out, adapter=_text(origin, "adapter"), options=reading, told=declarations, layout=layout)
    elif receipt.get("command") == "import" and _text(into, "adapter"):
        import_into(
            source,
            out,
            adapter=str(_text(into, "adapter")),
            options={**_options(into), **options},
            source_adapter=_text(origin, "adapter"),
            source_options=reading,
            told=declarations,
        )
    else:
        raise FormatError("the receipt does not say which command made the file")


def _digests(path: Path, adapter: str) -> dict[str, str]:
    """The SHA-256 of every tensor as stored, recorded ones verified."""
    bundle = adapter_named(adapter).read(path, **adapter_named(adapter).checked({}, writing=False))
    return {name: hashlib.sha256(verified(tensor).stored()).hexdigest() for name, tensor in bundle.items()}


# --- a receipt may come from anyone


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, Mapping):
        raise FormatError(f"the receipt's {key!r} is no object")
    return value


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"the receipt's {key!r} is no string")
    return value


def _texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise FormatError(f"the receipt's {key!r} is no list of strings")
    return tuple(value)


def _options(document: Mapping[str, Any]) -> dict[str, str]:
    found = _object(document, "options")
    if not all(isinstance(value, str) for value in found.values()):
        raise FormatError("the receipt's 'options' are no strings")
    return dict(found)
