"""Receipts: the plan that was carried out, with the digests of what it was made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from wio import __version__
from wio.adapter import Adapter
from wio.bundle import Tensor
from wio.container import verified
from wio.plan import Plan, Step

# As long as a digest, for one that is not known: the size of a receipt must not depend on what is known.
UNKNOWN = "0" * 64


class Reading(Struct):
    """What passes while tensors are read: recorded digests are verified, bytes counted, a receipt's digests noted.

    ``digests`` are SHA-256 (hex) by name, of the stored bytes of every tensor that a step changes.
    """

    progress: Callable[[int], None] | None = None
    digests: dict[str, str] = field(default_factory=dict)
    _wanted: set[str] = field(default_factory=set)

    def watched(self, tensor: Tensor) -> Tensor:
        if tensor.digest is not None:
            self.digests[tensor.name] = tensor.digest

        def watch(data: memoryview) -> None:
            if tensor.name in self._wanted and tensor.name not in self.digests:
                self.digests[tensor.name] = hashlib.sha256(data).hexdigest()
            if self.progress:
                self.progress(len(data))

        return verified(tensor).watched(watch)

    def note_sources_of(self, plan: Plan) -> None:
        """The writer digests what passes as it is; the source of what a step changes is digested here."""
        self._wanted |= {t.name for step in plan.values for t in step.sources}
        self._wanted |= {t.name for step in plan.steps if _changes(step) for t in step.read}


def _changes(step: Step) -> bool:
    return step.kind not in ("copy", "keep")


def facts_of(
    command: str,
    source: Path | str,
    adapter: Adapter,
    told: Mapping[str, Any],
    options: Mapping[str, str] | None,
) -> dict[str, Any]:
    """What was asked for: enough to ask for it again, given the source."""
    stated = {**told, **({"options": base_names(options)} if options else {})}
    return {
        "command": command,
        "source": {"file": _as_text(Path(source).name), "adapter": adapter.name},
        "told": stated,
    }


def _as_text(name: str) -> str:
    """A file's name as a receipt holds it: bytes that are no UTF-8, which JSON cannot hold, escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def base_names(options: Mapping[str, str]) -> dict[str, str]:
    """Options as a receipt holds them: of a path its last part, for a receipt must not tell where files lay."""
    return {key: Path(value).name if os.sep in value else value for key, value in options.items()}


def receipt_of(
    plan: Plan, facts: Mapping[str, Any], digests: Mapping[str, str], unknown: str | None = None
) -> dict[str, Any]:
    """What was done: only what the declaration does not already say. A tensor that is not named passed as it was.

    ``source_sha256`` is that of a tensor of the source: null where a step before made the tensor, ``unknown`` where
    nobody has digested it.
    """
    made: set[str] = set()
    values = []
    for value in plan.values:
        values.append({**value.as_json(), "source_sha256": _digests(value.sources, made, digests, unknown)})
        made |= {tensor.name for tensor in value.results}
    steps = []
    for step in plan.steps:
        renamed = [(t, s) for t, s in zip(step.sources, step.slots, strict=False) if (t.origin or t.name) != s.name]
        if not _changes(step) and not renamed:
            continue
        document: dict[str, Any] = {
            "from": [t.origin or t.name for t in step.read],
            "to": [s.name for s in step.slots],
        }
        if _changes(step):
            document |= {
                "kind": step.kind,
                "layouts": [str(t.layout) for t in step.read],
                "ops": [op.as_json() for op in step.ops],
                "reason": step.reason,
                "exact": step.exact,
                "source_sha256": _digests(step.read, made, digests, unknown),
            }
        steps.append(document)
    return {
        "wio": 1,
        "generator": f"wio {__version__}",
        **facts,
        **({"values": values} if values else {}),
        "steps": steps,
        "dropped": [{"name": name, "reason": reason} for name, reason in plan.dropped.items()],
        "notes": list(plan.notes),
    }


def _digests(
    sources: tuple[Tensor, ...], made: set[str], digests: Mapping[str, str], unknown: str | None
) -> list[str | None]:
    return [None if tensor.name in made else digests.get(tensor.name, unknown) for tensor in sources]
