"""Writes ``spec/vectors``: files that every reader of the .wio format must accept or refuse, and what it must read.

    python tests/make_vectors.py [FOLDER]

Follows ``spec/wio-1.md`` and shares no code with wio, so that a mistake of wio's writer cannot hide one of its reader.
The same bytes come out of every run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vectors_invalid import invalid_vectors
from vectors_layouts import layout_vectors
from vectors_sharded import invalid_sets, valid_sets
from vectors_valid import valid_vectors

FOLDER = Path(__file__).parent.parent / "spec" / "vectors"


def all_vectors() -> dict[str, bytes]:
    """Every file of ``spec/vectors`` by its path in that folder."""
    files = {"layouts.json": _json(layout_vectors())}
    for name, (raw, reading) in valid_vectors().items():
        files[f"valid/{name}.wio"] = raw
        files[f"valid/{name}.json"] = _json(reading)
    for name, vector in invalid_vectors().items():
        files[f"invalid/{name}.wio"] = vector.raw
        files[f"invalid/{name}.json"] = _json(vector.as_json())
    for name, (held, reading) in valid_sets().items():
        files |= {f"sharded/valid/{name}/{file}": raw for file, raw in held.items()}
        files[f"sharded/valid/{name}.json"] = _json(reading)
    for name, invalid in invalid_sets().items():
        files |= {f"sharded/invalid/{name}/{file}": raw for file, raw in invalid.files.items()}
        files[f"sharded/invalid/{name}.json"] = _json(invalid.as_json())
    return files


def write_vectors(folder: Path) -> None:
    """Brings a folder to what ``all_vectors`` says; files that are no vectors any more go."""
    files = all_vectors()
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)


def _json(document: Any) -> bytes:
    """Indented, lists of plain values on one line."""
    return (_text(document, "") + "\n").encode()


def _text(value: Any, indent: str) -> str:
    plain = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(plain) + len(indent) <= 100 or not _nested(value):
        return plain
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_text(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(inner + part for part in parts) + "\n" + indent + "}"
    return "[\n" + ",\n".join(inner + _text(each, inner) for each in value) + "\n" + indent + "]"


def _nested(value: dict[str, Any] | list[Any]) -> bool:
    return isinstance(value, dict) or any(isinstance(each, dict | list) for each in value)


if __name__ == "__main__":
    write_vectors(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
