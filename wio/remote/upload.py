"""Outputs to URLs: written into a private folder here, then uploaded, what makes them one file or set last."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from wio.errors import UsageError
from wio.file_set import INDEX, is_name
from wio.places import call_it, temporary_folder, without_secrets
from wio.remote.fsspec_source import file_system, removed, uploaded
from wio.remote.limits import again
from wio.remote.source import AgainError, RemoteError

_INDEXES = (INDEX, ".index", ".weights.json")
_staged: dict[str, Path] = {}


def staged(url: str) -> Path:
    """A new folder's path for the output to a URL. UsageError for a place that takes no files."""
    if url in _staged:
        # What was uploaded before is not uploaded again.
        shutil.rmtree(_staged.pop(url).parent, ignore_errors=True)
    name = url.rstrip("/").rpartition("/")[2]
    if url.partition("://")[0].lower() in ("http", "https"):
        raise UsageError(
            f"{without_secrets(url)}: web servers take no files",
            remedy="write to s3://, gs://, ... or a local file",
        )
    if not is_name(name) or url.endswith("/"):
        raise UsageError(f"{without_secrets(url)} names no file to write")
    # What cannot be reached at all is said before any work is done.
    file_system(url)
    folder = temporary_folder()
    call_it(folder, without_secrets(url).rpartition("/")[0])
    _staged[url] = folder / name
    return folder / name


def staged_before(url: str) -> Path:
    """Where the output to a URL was written last."""
    return _staged[url]


def upload(url: str) -> None:
    """Everything that was written for a URL. RemoteError for what does not arrive; the index has not changed then."""
    out = _staged[url]
    place = url.rpartition("/")[0]
    files = [path for path in out.parent.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (_rank(path, out), path)):
        name = path.relative_to(out.parent).as_posix()
        again(partial(uploaded, f"{place}/{name}", path), partial(_not_uploaded, path))
    if out.with_name(out.name + INDEX) in files and out not in files:
        # As on a disk: a single file of that name would hide the set.
        again(partial(removed, url), partial(_not_uploaded, out))


def _rank(path: Path, out: Path) -> int:
    """Data first; then the file that was named, which may name them; then indexes, and what points to those."""
    if path.name == "checkpoint":
        return 3
    return 2 if path.name.endswith(_INDEXES) else int(path == out)


def _not_uploaded(path: Path, error: AgainError) -> RemoteError:
    return RemoteError(
        f"{path}: was not uploaded: {error.message}",
        remedy="what is there under the name of the index is the old one",
    )
