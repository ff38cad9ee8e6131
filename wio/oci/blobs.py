"""Blobs on their way: checked by digest and size, never held in memory whole, going on where they were interrupted.

Source of each request: OCI Distribution Specification 1.1, "Pulling blobs", "Pushing blobs in chunks".
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from wio.errors import DigestError, FormatError, WioError, printable
from wio.oci.artifact import Layer
from wio.oci.connection import BrokenError, Connection
from wio.user_folders import cache_folder

CHUNK = 16 * 1024 * 1024
# Of what has come when a connection breaks, less than a piece is lost.
_PIECE = 64 * 1024
# How often in a row a transfer may break off without a byte gained.
_ATTEMPTS = 4
_AGAIN = "the same command again goes on where it stopped"

Progress = Callable[[int], None]


def digest_of(path: Path) -> str:
    """``sha256:...`` of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def has(connection: Connection, layer: Layer) -> bool:
    """Whether the registry has the blob. FormatError if it says that it has another size."""
    with connection.asked("HEAD", connection.url(f"blobs/{layer.digest}"), (200, 404)) as answer:
        size = answer.headers.get("Content-Length")
        if answer.status_code == 200 and size not in (None, str(layer.size)):
            raise FormatError(f"{layer.name}: the registry has {printable(size)} bytes of it, not {layer.size}")
        return bool(answer.status_code == 200)


def fetch(connection: Connection, layer: Layer, file: BinaryIO, progress: Progress) -> None:
    """Fetches what is missing at the end of ``file``, which may hold the beginning of the blob, and verifies the whole.

    DigestError or FormatError if the registry sends anything but the blob: what is in the file is then worth nothing.
    """
    digest, at = hashlib.sha256(), 0
    file.seek(0)
    while piece := file.read(_PIECE):
        digest.update(piece)
        at += len(piece)
    broken = 0
    while at < layer.size:
        before = at
        try:
            headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={at}-"} if at else {})}
            url = connection.url(f"blobs/{layer.digest}")
            with connection.asked("GET", url, (200, 206, 416), headers=headers, stream=True) as answer:
                # A registry that knows no ranges sends all of it again.
                known = at if answer.status_code == 200 else 0
                if answer.status_code == 416:
                    raise FormatError(f"{layer.name}: the registry has fewer bytes than the {layer.size} it should")
                if answer.status_code == 206 and not _begins_at(answer.headers.get("Content-Range", ""), at):
                    raise FormatError(f"{layer.name}: the registry sends another part than the one asked for")
                for piece in answer.iter_content(_PIECE):
                    known, piece = max(known - len(piece), 0), piece[known:]
                    if at + len(piece) > layer.size:
                        raise FormatError(f"{layer.name}: the registry sends more than {layer.size} bytes")
                    digest.update(piece)
                    file.write(piece)
                    at += len(piece)
                    progress(len(piece))
        except BrokenError as error:
            broken = _broken_again(broken if at == before else 0, layer, error)
            continue
        if at == before:
            raise FormatError(f"{layer.name}: the registry has {at} bytes of the {layer.size} it should")
    if at != layer.size or f"sha256:{digest.hexdigest()}" != layer.digest:
        raise DigestError(
            f"{layer.name}: its bytes do not match {layer.digest}", remedy="ask whoever keeps the registry"
        )


def send(connection: Connection, layer: Layer, file: BinaryIO, progress: Progress) -> None:
    """Sends a blob in chunks, from where an earlier upload of it to the same place was interrupted.

    The registry checks it against its digest; WioError with what it says if it does not accept it.
    """
    remembered = _Remembered(connection, layer)
    earlier = remembered.location()
    location, at = _state(connection, earlier) if earlier else (None, 0)
    broken, unsure = 0, False
    while location is None or unsure or at < layer.size:
        try:
            if location is None:
                location, at = _begun(connection), 0
            elif unsure:
                location, at = _state(connection, location)
            unsure = False
            if location is None or at >= layer.size:
                continue
            file.seek(at)
            chunk = file.read(min(CHUNK, layer.size - at))
            if not chunk:
                raise FormatError(f"{layer.name} became shorter while it was sent")
            headers = {"Content-Range": f"{at}-{at + len(chunk) - 1}", "Content-Type": "application/octet-stream"}
            with connection.asked("PATCH", location, (202,), headers=headers, data=chunk) as answer:
                location = connection.location(answer, location)
            at, broken = at + len(chunk), 0
            remembered.keep(location)
            progress(len(chunk))
        except BrokenError as error:
            broken, unsure = _broken_again(broken, layer, error), True
    joined = f"{location}{'&' if '?' in location else '?'}digest={layer.digest}"
    try:
        with connection.asked("PUT", joined, (201,), headers={"Content-Type": "application/octet-stream"}):
            pass
    except BrokenError:
        raise
    except WioError:
        # It is not the blob that came together there.
        remembered.forget()
        raise
    remembered.forget()


def _begun(connection: Connection) -> str:
    url = connection.url("blobs/uploads/")
    with connection.asked("POST", url, (202,), headers={"Content-Type": "application/octet-stream"}) as answer:
        return connection.location(answer, url)


def _state(connection: Connection, location: str) -> tuple[str | None, int]:
    """Where an upload goes on and after how many bytes; None where the registry does not know it any more."""
    with connection.asked("GET", location, (204, 400, 404)) as answer:
        found = re.fullmatch(r"(?:bytes=)?0-(\d{1,19})", answer.headers.get("Range", ""))
        if answer.status_code != 204 or found is None:
            return None, 0
        # "0-0" is said of an upload of one byte and of one that has none yet; chunks are larger than that.
        return connection.location(answer, location), int(found[1]) + 1 if found[1] != "0" else 0


def _broken_again(before: int, layer: Layer, error: BrokenError) -> int:
    if before + 1 == _ATTEMPTS:
        raise WioError(f"{layer.name}: {error.message}", remedy=_AGAIN) from None
    time.sleep(before)
    return before + 1


def _begins_at(content_range: str, at: int) -> bool:
    return re.fullmatch(rf"bytes {at}-\d+/(\d+|\*)", content_range) is not None


class _Remembered:
    """Where an upload stands, kept for the next run if this one is interrupted. A cache: losing it loses time."""

    def __init__(self, connection: Connection, layer: Layer) -> None:
        place = f"{connection.url('')} {layer.digest}"
        self._connection = connection
        self._path = cache_folder() / "uploads" / hashlib.sha256(place.encode("utf-8")).hexdigest()

    def location(self) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError, WioError):
            location = self._path.read_text("utf-8")
            self._connection.check_location(location)
            return location
        return ""

    def keep(self, location: str) -> None:
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(0o700, parents=True, exist_ok=True)
            self._path.write_text(location, "utf-8")

    def forget(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
