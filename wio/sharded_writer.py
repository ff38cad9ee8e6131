"""Writes one network as several .wio files and the index that makes them one (spec/wio-1.md, section 15)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wio.atomic import atomic_set, fsync
from wio.bundle import Bundle, Tensor
from wio.container import UNKNOWN
from wio.container_writer import Written, save, write_file
from wio.errors import UsageError, WioError
from wio.shard_index import (
    Shard,
    ShardIndex,
    index_path,
    parse_size,
    shard_name,
    shards_of_any_set,
    split,
    weight_map_of,
)

# A shard to be written: its path, which nobody else can see yet, and the names of its tensors.
Job = tuple[Path, Sequence[str]]
# Gives the shards in the order of the jobs, from wherever it has them written.
ShardWriter = Callable[[Bundle, Sequence[Job]], Iterable[Written]]


def save_as(
    bundle: Bundle,
    out: Path,
    shard_size: int | str | None,
    receipt: Callable[[], Mapping[str, Any]] | None = None,
    write: ShardWriter | None = None,
) -> dict[str, str]:
    """Writes a bundle as one .wio file, or in shards where a size is given: bytes, or a text such as ``2GB``.

    Gives the SHA-256 of each tensor's stored bytes.
    """
    if shard_size is not None:
        return save_sharded(bundle, out, parse_size(str(shard_size)), receipt, write)
    if write is not None:
        raise UsageError("a cluster writes shards, one for each task", remedy="say how large: --shard-size 2GB")
    return save(bundle, out, receipt)


def save_sharded(
    bundle: Bundle,
    out: Path,
    shard_size: int,
    receipt: Callable[[], Mapping[str, Any]] | None = None,
    write: ShardWriter | None = None,
) -> dict[str, str]:
    """Writes a bundle in shards of at most ``shard_size`` bytes of tensors, in order; gives what :func:`save` gives.

    A tensor that is larger stands alone. What fits in one shard becomes the plain file ``out``. Every shard is written
    and on the disk before the first takes its place, and the index takes its own last: whoever reads meanwhile sees the
    old set, the new one, or by their digests that the two are mixed. ``out`` and the shards of an older set of that
    name are gone afterwards. ``write`` writes them elsewhere than here; ``receipt`` is asked when they are written.
    """
    runs = split({name: _stored_size(tensor) for name, tensor in bundle.items()}, shard_size)
    if len(runs) < 2:
        digests = save(bundle, out, receipt)
        _sweep(out, keep=())
        return digests
    files = [shard_name(out, number, len(runs)) for number in range(1, len(runs) + 1)]
    index = index_path(out)
    if out.is_dir():
        raise WioError(f"{out} is a folder", remedy="name another file to write")
    metadata = dict(bundle.metadata)
    unknown = metadata.pop(UNKNOWN, {})
    with atomic_set(index) as placed:
        jobs = [(placed.file(file), run) for file, run in zip(files, runs, strict=True)]
        written = list((write or write_here)(bundle, jobs))
        document = ShardIndex(
            tuple(Shard(f, w.size, w.header_sha256) for f, w in zip(files, written, strict=True)),
            weight_map_of(runs, files),
            sum(map(_stored_size, bundle.values())),
            metadata,
            None if receipt is None else dict(receipt()),
            unknown.get("file", {}),
        )
        # Files take their places in the order in which they were asked for: this one is the last.
        placed.file(index.name).write_bytes(document.encoded())
    _sweep(out, keep=(index.name, *files))
    return {name: digest for shard in written for name, digest in shard.digests.items()}


def write_here(bundle: Bundle, jobs: Sequence[Job]) -> Iterator[Written]:
    """The shards, one after the other; each is on the disk when it is given."""
    for path, names in jobs:
        yield write_shard(bundle, path, names)


def write_shard(bundle: Bundle, path: Path, names: Sequence[str]) -> Written:
    """One shard of a bundle: a .wio file of these tensors. What is said of the whole set is said in the index."""
    said = bundle.metadata.get(UNKNOWN, {}).get("tensors", {})
    kept = {name: said[name] for name in names if name in said}
    metadata = {UNKNOWN: {"tensors": kept}} if kept else {}
    written = write_file(Bundle((bundle[name] for name in names), metadata), path)
    # Here, for whoever puts it in its place may be on another machine.
    fsync(path)
    return written


def _stored_size(tensor: Tensor) -> int:
    # The size of encoded strings is only known once they are read; they are never the bulk of a file.
    return len(tensor.stored()) if tensor.dtype.encoding == "varbytes" else tensor.nbytes


def _sweep(out: Path, keep: Sequence[str]) -> None:
    """Removes what another writing under this name left: the plain file, an index, shards of another count."""
    old = [*shards_of_any_set(out), index_path(out), *([out] if keep else [])]
    for path in old:
        if path.name not in keep:
            path.unlink(missing_ok=True)
