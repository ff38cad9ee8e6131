"""Writes the shards of a port on a Dask cluster: one task for each, on workers that see the same files.

A task names the port, not its data: a worker plans it again, reads what its shard needs and writes the shard. The
client plans, waits, and puts shards and index in their places, so a worker that dies takes nothing with it but time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from wio import __version__, port
from wio.bundle import Bundle
from wio.container import WioFileReader
from wio.container_writer import Written
from wio.errors import UsageError, WioError
from wio.plan import Plan
from wio.receipt import Reading
from wio.sharded_writer import Job, ShardWriter, write_shard

if TYPE_CHECKING:
    from distributed import Client

    from wio.port import Ready

# Until a network file system shows here what was written there; seconds.
VISIBLE_WITHIN = 60.0
_SAME_EVERYWHERE = "workers need the same wio, adapters and registry, and see the same files under the same paths"


class Request(Struct, frozen=True):
    """A port as it is sent to workers: all paths absolute, and the digest of the plan that it must come to.

    ``run`` tells it from the same one at another time.
    """

    command: str
    asked: tuple[tuple[str, Any], ...]
    plan: str
    run: str
    version: str


def on_dask(address: str) -> port.Cluster:
    """What ``cluster`` takes: the scheduler of this address (``tcp://HOST:8786``), or of a scheduler file (``*.json``).

    Raises UsageError where the extra is missing or nobody answers; what a worker raises is raised by the port.
    """

    def cluster(command: str, asked: Mapping[str, Any], ready: Ready) -> ShardWriter:
        def write(_: Bundle, jobs: Sequence[Job]) -> Iterator[Written]:
            # The folder that the shards are written in has a name that no other ever has.
            run = jobs[0][0].parent.name
            frozen = tuple((key, _frozen(key, value)) for key, value in asked.items())
            request = Request(command, frozen, plan_digest(ready.plan), run, __version__)
            with _connected(address) as client:
                yield from _written(client, request, jobs, ready.reading)

        return write

    return cluster


def _connected(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("a cluster needs Dask", remedy="pip install 'wio[dask]'") from None
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        return Client(**where, timeout=20, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(f"no Dask scheduler at {address}: {error}") from None


def _written(client: Client, request: Request, jobs: Sequence[Job], reading: Reading) -> Iterator[Written]:
    tasks = [
        client.submit(write_one, request, str(path.absolute()), tuple(names), key=f"wio-{request.run}-{path.name}")
        for path, names in jobs
    ]
    for task, (path, _) in zip(tasks, jobs, strict=True):
        try:
            written, digests = task.result()
        except WioError:
            raise
        except Exception as error:  # whatever became of a worker, or of what it was asked to import
            raise WioError(f"{path.name} was not written: {error}", remedy=_SAME_EVERYWHERE) from error
        _await(path, written)
        reading.digests.update(digests)
        if reading.progress:
            reading.progress(written.size)
        yield written


def _await(path: Path, written: Written) -> None:
    """Until the shard is seen here as it was written there; WioError if it never is."""
    until = time.monotonic() + VISIBLE_WITHIN
    while not path.is_file() or path.stat().st_size != written.size:
        if time.monotonic() > until:
            raise WioError(f"{path.name} was written and is not to be seen here", remedy=_SAME_EVERYWHERE)
        # Listing a folder makes a network file system look again.
        list(path.parent.iterdir())
        time.sleep(0.1)
    if WioFileReader(path).header_sha256() != written.header_sha256:
        raise WioError(f"{path.name} is not here what was written there", remedy=_SAME_EVERYWHERE)


# --- on a worker


def write_one(request: Request, path: str, names: tuple[str, ...]) -> tuple[Written, dict[str, str]]:
    """Writes one shard, and gives the digests of what it was made of. Done twice at once, it is the same file."""
    if request.version != __version__:
        raise WioError(f"a worker has wio {__version__}, the client {request.version}", remedy=_SAME_EVERYWHERE)
    place = Path(path)
    if not place.parent.is_dir():
        raise WioError(f"a worker does not see the folder {place.parent.parent}", remedy=_SAME_EVERYWHERE)
    ready = _ready(request)
    # A worker that was given up may still be at it.
    attempt = place.with_name(f"{place.name}.{os.urandom(6).hex()}")
    try:
        written = write_shard(ready.plan.apply(), attempt, names)
        attempt.replace(place)
    except OSError as error:
        raise WioError(f"a worker cannot write {place.name}: {error.strerror or error}") from error
    return written, _digests_for(ready, frozenset(names))


@lru_cache(maxsize=2)
def _ready(request: Request) -> Ready:
    """The port, planned once for all shards that a worker writes of it."""
    asked: dict[str, Any] = dict(request.asked)
    for key in ("options", "source_options"):
        if asked.get(key) is not None:
            asked[key] = dict(asked[key])
    ready = port.ready_to_export(**asked) if request.command == "export" else port.ready_to_import(**asked)
    if plan_digest(ready.plan) != request.plan:
        raise WioError("a worker comes to another plan than the client", remedy=_SAME_EVERYWHERE)
    return ready


def plan_digest(plan: Plan) -> str:
    """Of all that a plan does; its options may name files, which lie elsewhere for others."""
    steps = {key: value for key, value in plan.as_json().items() if key != "options"}
    return hashlib.sha256(json.dumps(steps).encode()).hexdigest()


def _digests_for(ready: Ready, names: frozenset[str]) -> dict[str, str]:
    """The digests that a receipt wants, of the sources of these tensors."""
    wanted = {t.name for value in ready.plan.values for t in value.sources}
    wanted |= {t.name for step in ready.plan.steps if names & {slot.name for slot in step.slots} for t in step.read}
    return {name: digest for name, digest in ready.reading.digests.items() if name in wanted}


def _frozen(key: str, value: Any) -> Any:
    """A value as a key of a cache, a path in it as any machine finds it."""
    if isinstance(value, Mapping):
        return tuple(
            (name, str(Path(each).absolute()) if Path(each).is_file() else each) for name, each in value.items()
        )
    return str(Path(value).absolute()) if key == "source" else value
