"""Files of whatever fsspec speaks to: s3, gs, hf, memory and others. The library is imported when a URL needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wio.errors import UsageError, WioError, printable
from wio.places import without_secrets
from wio.remote.limits import timeout
from wio.remote.source import AgainError, Entry, RemoteError

# A file is asked for in pieces of this size, each checked by itself.
_PIECE = 8 << 20
_MOST_LISTED = 20_000
# What file systems call the version of a file, each its own way.
_VERSION = (
    "ETag", "etag", "version_id", "VersionId", "generation", "md5Hash", "content_md5", "checksum", "blob_id", "sha",
    "LastModified", "last_modified", "updated", "mtime", "modified", "created",
)  # fmt: skip


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, listing anew each time, and the path in it. UsageError says what is to be installed."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UsageError(
            f"{without_secrets(url)}: fsspec, which reaches such places, is not installed",
            remedy="pip install 'wio[remote]'",
        ) from None
    scheme = url.partition("://")[0].lower()
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme in ("s3", "s3a"):
        options["config_kwargs"] = {"connect_timeout": timeout(), "read_timeout": timeout()}
    try:
        found, path = url_to_fs(url, **options)
    except ImportError as error:
        raise UsageError(f"{without_secrets(url)}: {said(error)}", remedy="pip install 'wio[remote]'") from None
    except ValueError as error:
        raise UsageError(f"{without_secrets(url)}: {said(error)}", remedy="http, https, s3, gs, hf, ...") from None
    except Exception as error:  # whatever a file system raises that cannot be begun with
        raise RemoteError(f"{without_secrets(url)}: {said(error)}") from None
    return found, str(path)


def said(error: Exception) -> str:
    """What an error of a library says, without secrets, on one line."""
    told = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return printable(without_secrets(" ".join(told.split())))[:300]


class FsspecSource:
    """The folder of a URL in a file system that fsspec knows."""

    def __init__(self, url: str) -> None:
        self._system, path = file_system(url)
        self._folder, _, self._name = path.rstrip("/").rpartition("/")
        self.refused: RemoteError | None = None
        self._noted: dict[str, Entry] = {}
        self._shown = without_secrets(url).rstrip("/").rpartition("/")[0]

    def entry(self, name: str) -> Entry | None:
        try:
            info = self._system.info(self._path(name))
        except FileNotFoundError:
            return None
        except Exception as error:  # each file system has errors of its own
            raise self._trouble(name, error) from None
        return None if info.get("type") == "directory" else self._entry(name, info)

    def listed(self) -> Mapping[str, Entry] | None:
        """Beside a file the files of its folder, of a folder all that is in it."""
        try:
            whole = self._system.isdir(self._path(self._name)) and not self._system.isfile(self._path(self._name))
            if whole:
                found = self._system.find(self._path(self._name), detail=True)
            else:
                found = {info["name"]: info for info in self._system.ls(self._folder or "/", detail=True)}
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._trouble(self._name, error) from None
        start = self._folder.strip("/") + "/" if self._folder.strip("/") else ""
        entries = {}
        for path, info in found.items():
            name = str(path).strip("/").removeprefix(start)
            if info.get("type") == "file" and type(info.get("size")) is int:
                entries[name] = self._entry(name, info)
        if len(entries) > _MOST_LISTED:
            raise WioError(
                f"{self._shown} holds {len(entries)} files, more than {_MOST_LISTED}",
                remedy="put what belongs together into a folder of its own",
            )
        return entries

    def pieces(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:
        # Listings speak of versions otherwise than answers about one file: the first such answer counts.
        noted = self._noted.get(entry.name) or self.entry(entry.name)
        if noted is None or noted.size != entry.size:
            raise self._changed(entry)
        self._noted[entry.name] = noted
        for first in range(start, stop, _PIECE):
            last = min(first + _PIECE, stop)
            try:
                data = self._system.cat_file(self._path(entry.name), start=first, end=last)
            except FileNotFoundError:
                raise self._changed(entry) from None
            except Exception as error:
                raise self._trouble(entry.name, error) from None
            # The version is asked for after the bytes: what was the same before and after was so in between.
            now = self.entry(entry.name)
            if now != noted:
                raise self._changed(entry)
            if len(data) > last - first:
                raise RemoteError(f"{self._shown}/{entry.name}: {last - first} bytes were asked for, {len(data)} came")
            yield data
            if len(data) < last - first:
                raise AgainError(f"the answer ends {last - first - len(data)} bytes early")

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    def _entry(self, name: str, info: Mapping[str, Any]) -> Entry:
        return Entry(name, info["size"], tuple((key, str(info[key])) for key in _VERSION if info.get(key) is not None))

    def _changed(self, entry: Entry) -> RemoteError:
        return RemoteError(
            f"{self._shown}/{printable(entry.name)}: changed on the server while it was read",
            remedy="try again once it stays as it is",
        )

    def _trouble(self, name: str, error: Exception) -> Exception:
        if isinstance(error, (PermissionError, ImportError, NotImplementedError)):
            return RemoteError(f"{self._shown}/{printable(name)}: {said(error)}")
        return AgainError(said(error))


def uploaded(url: str, local: Path) -> None:
    """Puts one file there, over what bears that name, and asks whether it has arrived whole."""
    system, path = file_system(url)
    try:
        system.put_file(str(local), path)
        size = system.info(path)["size"]
    except Exception as error:
        raise AgainError(said(error)) from None
    if size != local.stat().st_size:
        raise AgainError(f"{size} bytes of {local.stat().st_size} have arrived")


def removed(url: str) -> None:
    """Removes a file if it is there."""
    system, path = file_system(url)
    try:
        if system.exists(path):
            system.rm_file(path)
    except Exception as error:
        raise AgainError(said(error)) from None
