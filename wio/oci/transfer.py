"""Whole artifacts: files pushed to a registry, and pulled from it into their places."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct, field

from wio.atomic import atomic_output
from wio.errors import DigestError, FormatError, UsageError, WioError, printable
from wio.file_set import INDEX as INDEX_SUFFIX
from wio.file_set import files_of, shard_names
from wio.oci.artifact import (
    ARCHITECTURE,
    EMPTY,
    EMPTY_CONFIG,
    FILE,
    INDEX,
    MANIFEST,
    MOST_BYTES,
    REGISTRY_FILE,
    WEIGHTS,
    Layer,
    layers_of,
    manifest_of,
)
from wio.oci.blobs import Progress, digest_of, fetch, has, send
from wio.oci.connection import Connection
from wio.oci.reference import Reference


class Transfer(Struct):
    """What was done: the manifest's digest, the files, which of them were there already, how many bytes went."""

    reference: Reference
    digest: str = ""
    kind: str = ""
    files: list[str] = field(default_factory=list)
    there_already: list[str] = field(default_factory=list)
    bytes: int = 0
    requests: int = 0

    def __str__(self) -> str:
        count, there = len(self.files), len(self.there_already)
        return f"{count} file{'s' if count != 1 else ''}{f', {there} there already' if there else ''}"

    def as_json(self) -> dict[str, Any]:
        return {
            "reference": str(self.reference),
            "digest": self.digest,
            "type": self.kind,
            "files": self.files,
            "there_already": self.there_already,
            "bytes": self.bytes,
            "requests": self.requests,
        }


def push(path: Path, reference: Reference, *, plain_http: bool = False, progress: Progress | None = None) -> Transfer:
    """Sends a .wio file, an index of .wio shards with all of them, or a registry file; blobs that are there stay there.

    The tag takes its new meaning last: until then readers have the old artifact, whole. UsageError for other files and
    for a reference without a tag; FormatError for a file that is not sound; WioError for what the registry refuses.
    """
    if reference.tag is None or reference.digest is not None:
        raise UsageError(f"{reference}: an artifact is pushed to a tag", remedy="as in oci://HOST/NAME:v1")
    kind, files = _artifact(path)
    layers = [Layer(file.name, media, digest_of(file), file.stat().st_size) for file, media in files]
    raw = manifest_of(kind, layers)
    connection = Connection(reference, plain_http)
    done = Transfer(reference, f"sha256:{sha256(raw).hexdigest()}", kind, [file.name for file, _ in files])
    count = _counted(done, progress)
    for (file, _), layer in zip(files, layers, strict=True):
        if has(connection, layer):
            done.there_already.append(layer.name)
            continue
        with file.open("rb") as opened:
            send(connection, layer, opened, count)
    if not has(connection, EMPTY_CONFIG):
        send(connection, EMPTY_CONFIG, io.BytesIO(EMPTY), count)
    url = connection.url(f"manifests/{reference.tag}")
    with connection.asked("PUT", url, (201,), headers={"Content-Type": MANIFEST}, data=raw):
        pass
    done.requests = connection.requests
    return done


def _artifact(path: Path) -> tuple[str, list[tuple[Path, str]]]:
    """The kind of artifact that a file is, and its files with their media types; each is read as what it says it is."""
    from wio.user_registry import check

    if path.name.endswith(".toml"):
        check(path)
        return ARCHITECTURE, [(path, REGISTRY_FILE)]
    from wio.container import WioFileReader

    index, *shards = files_of(path)
    is_set = path.name.endswith(INDEX_SUFFIX)
    files = shards if is_set else [index]
    for file in files:
        WioFileReader(file).bundle()
    return WEIGHTS, [*((file, FILE) for file in files), *([(index, INDEX)] if is_set else [])]


def pull(
    reference: Reference,
    out: Path,
    *,
    kind: str = WEIGHTS,
    plain_http: bool = False,
    progress: Progress | None = None,
) -> Transfer:
    """Fetches an artifact of that kind. ``out`` is a file to write, or a folder; for several files a folder, made anew.

    Every byte is verified before any file takes its name, the index last. What an interrupted pull left beside ``out``
    is used by the next one. FormatError or DigestError if the registry sends anything but what its manifest says.
    """
    connection = Connection(reference, plain_http)
    raw, digest = _manifest(connection)
    found, layers = layers_of(raw, f"the manifest of {reference}")
    if found != kind:
        remedy = "wio registry add has the place for it" if found == ARCHITECTURE else "wio pull fetches it"
        raise UsageError(f"{reference} is of another type, {found}", remedy=remedy)
    done = Transfer(reference, digest, found)
    count = _counted(done, progress)
    targets = _targets(layers, out)
    parts: dict[Path, Path] = {}
    with contextlib.ExitStack() as held:
        for layer, target in zip(layers, targets, strict=True):
            done.files.append(str(target))
            if target.is_file() and target.stat().st_size == layer.size and digest_of(target) == layer.digest:
                done.there_already.append(str(target))
                continue
            part, file = held.enter_context(_part(target, layer))
            try:
                fetch(connection, layer, file, count)
                file.flush()
            except (DigestError, FormatError):
                part.unlink()
                raise
            except OSError as error:
                raise WioError(f"writing {target} failed: {error.strerror or error}; nothing was changed") from None
            parts[target] = part
        _check_index(layers, targets, parts)
        for target, part in parts.items():
            with atomic_output(target) as temporary:
                part.replace(temporary)
    done.requests = connection.requests
    return done


def _manifest(connection: Connection) -> tuple[bytes, str]:
    """The manifest's bytes and digest. DigestError if it is not the one asked for, or not the one that is announced."""
    wanted = connection.reference.digest
    url = connection.url(f"manifests/{wanted or connection.reference.tag}")
    raw = bytearray()
    with connection.asked("GET", url, (200,), headers={"Accept": MANIFEST}, stream=True) as answer:
        for piece in answer.iter_content(65536):
            raw += piece
            if len(raw) > MOST_BYTES:
                raise FormatError(f"{connection.reference}: a manifest of more than {MOST_BYTES} bytes")
        announced = answer.headers.get("Docker-Content-Digest")
    digest = f"sha256:{sha256(raw).hexdigest()}"
    for expected in (wanted, announced):
        if expected not in (None, digest):
            raise DigestError(f"{connection.reference}: its manifest is {digest}, not {printable(str(expected))}")
    return bytes(raw), digest


def _targets(layers: tuple[Layer, ...], out: Path) -> list[Path]:
    if len(layers) == 1 and not out.is_dir():
        targets = [out]
    elif out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, and {len(layers)} files are to be written", remedy="name a folder")
    else:
        out.mkdir(exist_ok=True)
        targets = [out / layer.name for layer in layers]
    for target in targets:
        if target.exists() and not target.is_file():
            raise UsageError(f"{target} is no regular file, and would be replaced by one", remedy="name another place")
    return targets


@contextlib.contextmanager
def _part(target: Path, layer: Layer) -> Iterator[tuple[Path, BinaryIO]]:
    """What there is of a blob, beside its place, opened to be gone on with; no one else can at the same time."""
    # Beside the file that a link leads to, whose place it will take.
    place = Path(os.path.realpath(target))
    part = place.with_name(f".{place.name[:40]}.{layer.digest[7:23]}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise WioError(f"cannot write to the folder of {target}: {error.strerror}") from error
    with open(descriptor, "r+b") as file:  # noqa: PTH123  (a descriptor is no path)
        _lock(file, target)
        try:
            yield part, file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)


def _lock(file: BinaryIO, target: Path) -> None:
    # A file system may have no locks at all.
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WioError(f"{target} is being pulled by someone else", remedy="wait for them") from None


def _check_index(layers: tuple[Layer, ...], targets: list[Path], parts: dict[Path, Path]) -> None:
    """An index that names other files than came with it would make a set of files that happen to lie there."""
    if layers[-1].media_type != INDEX:
        return
    index = parts.get(targets[-1], targets[-1])
    named, came = set(shard_names(index.read_bytes(), layers[-1].name)), {layer.name for layer in layers[:-1]}
    if named != came:
        odd = ", ".join(printable(name) for name in sorted(named ^ came)[:5])
        raise FormatError(f"{layers[-1].name}: the index and the manifest name different shards: {odd}")


def _counted(done: Transfer, progress: Progress | None) -> Callable[[int], None]:
    def count(size: int) -> None:
        done.bytes += size
        if progress:
            progress(size)

    return count
