"""Which conversions of a batch are done already: told by digests of all that went in and came out, not by times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wio import __version__
from wio.atomic import atomic_output
from wio.bundle import Bundle, Tensor
from wio.errors import WioError
from wio.plan import Plan
from wio.plugins import adapter_named
from wio.receipt import base_names
from wio.safetensors_header import encode_json

# Records lie in a folder of this name beside the outputs, in the tree of the outputs.
FOLDER = ".wio-convert"


def record_path(folder: Path, out: Path) -> Path:
    below = out.relative_to(folder)
    return folder / FOLDER / below.with_name(below.name + ".json")


def request_digest(plan: Plan, options: Mapping[str, str]) -> str:
    """Of everything that decides the output: the plan, every byte that it reads, files that options name, the version.

    Reads the source, but no tensor whose digest its file has recorded.
    """
    files = {key: _file_digest(Path(value)) for key, value in options.items() if Path(value).is_file()}
    made: set[str] = set()
    sources: dict[str, Tensor] = {}
    for value in plan.values:
        sources |= {t.name: t for t in value.sources if t.name not in made}
        made |= {t.name for t in value.results}
    for step in plan.steps:
        sources |= {t.name: t for t in step.read if t.name not in made}
    told = {
        "wio": __version__,
        "plan": {**plan.as_json(), "options": base_names(plan.options)},
        "metadata": plan.metadata,
        "options": {**base_names(options), **files},
        "sources": _digests(sources.values()),
    }
    return _digest_of(told)


def output_digest(out: Path, adapter: str) -> str | None:
    """Of an output as it lies there: its own bytes and, by its adapter, those of files beside it; None for none."""
    chosen = adapter_named(adapter)
    try:
        bundle = chosen.read(out, **chosen.checked({}, writing=False)) if chosen.reads else Bundle([])
        found = {
            "file": _file_digest(out) if out.is_file() else None,
            "tensors": _digests(bundle.values(), trust=False),
        }
    except (WioError, OSError):
        return None
    return _digest_of(found)


def recorded(path: Path) -> dict[str, Any] | None:
    """What a record says, or None where it is missing or no record."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def record(path: Path, request: str, output: str | None, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path) as temporary:
        temporary.write_bytes(encode_json({"wio": __version__, "request": request, "output": output, **result}))


def _digest_of(document: Any) -> str:
    # Of a model's own metadata anything may be found, NaN too.
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=repr).encode()).hexdigest()


def _digests(tensors: Iterable[Tensor], *, trust: bool = True) -> list[list[Any]]:
    return [
        [
            t.name,
            t.dtype.name,
            list(t.shape),
            t.digest if trust and t.digest is not None else hashlib.sha256(t.stored()).hexdigest(),
        ]
        for t in tensors
    ]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
