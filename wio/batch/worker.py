"""A process that carries out conversions: one job a line on its input, one result a line on its output, both JSON.

``python -m wio.batch.worker``; it ends with its input. Whatever becomes of one file, the next is tried.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from wio.atomic import abandon
from wio.batch.done import output_digest, record, recorded, request_digest
from wio.errors import WioError
from wio.plan import Plan
from wio.port import Declarations, import_into


class Job(Struct, frozen=True):
    """One conversion, as `wio convert` takes it. ``record`` is where is kept that it is done."""

    source: str
    out: str
    record: str
    into: str
    adapter: str | None = None
    options: dict[str, str] | None = None
    template: str | None = None
    shard_size: str | None = None
    source_options: dict[str, str] | None = None
    told: dict[str, Any] | None = None
    dry_run: bool = False

    def as_line(self) -> str:
        return json.dumps(asdict(self))


def carried_out(job: Job) -> dict[str, Any]:
    """What became of a job: ``status`` is done, kept (it was done already), planned or failed."""
    told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (job.told or {}).items()}
    asked: dict[str, Any] = {
        "adapter": job.into,
        "options": job.options,
        "template": job.template,
        "shard_size": job.shard_size,
        "source_adapter": job.adapter,
        "source_options": job.source_options,
        "told": Declarations(**told),
    }
    plan = import_into(job.source, None, dry_run=True, **asked)
    result = {
        "tensors": sum(len(step.slots) for step in plan.steps),
        "rearranged": sum(step.kind not in ("copy", "keep", "synthesise") for step in plan.steps),
        "exact": plan.exact,
    }
    if job.dry_run:
        return {"status": "planned", **result}
    out, kept = Path(job.out), Path(job.record)
    request = _request(job, plan)
    before = recorded(kept)
    if before is not None and before.get("request") == request:
        output = output_digest(out, job.into)
        if output is not None and before.get("output") == output:
            return {"status": "kept", **result}
    out.parent.mkdir(parents=True, exist_ok=True)
    import_into(job.source, out, **asked)
    record(kept, request, output_digest(out, job.into), result)
    return {"status": "done", **result}


def _request(job: Job, plan: Plan) -> str:
    beside = {"template": job.template, "shard_size": job.shard_size}
    given = {**(job.source_options or {}), **(job.options or {}), **{k: v for k, v in beside.items() if v is not None}}
    return request_digest(plan, given)


def main() -> None:
    # Whoever started this process ends it; what is half written is removed on the way out.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: abandon(lambda _: os._exit(143)))
    # What a library prints must not be taken for a result.
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result = _tried(Job(**json.loads(line)))
        result["warnings"] = list(dict.fromkeys(str(each.message) for each in warned))
        print(json.dumps(result), file=results, flush=True)


def _tried(job: Job) -> dict[str, Any]:
    try:
        return carried_out(job)
    except WioError as error:
        return failed(str(error), error.as_json())
    except OSError as error:
        return failed(f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:  # a defect of one adapter must not stop the other files
        return failed(f"a defect of wio or of an adapter: {error!r}")


def failed(message: str, error: dict[str, Any] | None = None) -> dict[str, Any]:
    told = error or {"error": "WioError", "message": message, "remedy": None, "problems": []}
    return {"status": "failed", "error": told, "message": message, "warnings": []}


if __name__ == "__main__":
    main()
