"""From a URL to a path: a private folder with what lies there, filled as far as it is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wio.adapter import Adapter
from wio.errors import UsageError
from wio.file_set import is_name
from wio.places import call_it, on_leaving, temporary_folder, without_secrets
from wio.remote.fsspec_source import FsspecSource
from wio.remote.http_source import HttpSource
from wio.remote.limits import again
from wio.remote.source import Entry, RemoteError, Source
from wio.remote.stand_in import BLOCK, Progress, StandIn, given_up

# A file whose first bytes are JSON is an index, which is read whole; the largest that wio reads.
_MOST_JSON = 100_000_000


class Fetched:
    """What lies at a URL and what belongs to it, as a path of this machine.

    ``path`` may not exist, where the URL is the prefix of files. Nothing outside the folder of the URL is asked for.
    """

    def __init__(self, url: str, progress: Progress | None = None) -> None:
        self._progress = progress
        self._source: Source
        if url.partition("://")[0].lower() in ("http", "https"):
            self._source = HttpSource(url)
            name = unquote(urlsplit(url).path.rpartition("/")[2])
        else:
            self._source = FsspecSource(url)
            name = url.rstrip("/").rpartition("/")[2]
        if not is_name(name):
            raise UsageError(
                f"{without_secrets(url)} names no file", remedy="name the file, or the prefix of its files"
            )
        self._url = without_secrets(url)
        folder = temporary_folder()
        self.path = folder / name
        self._files: dict[Path, StandIn] = {}
        self._asked: set[str] = set()
        on_leaving(self.close)
        call_it(folder, self._url.rstrip("/").rpartition("/")[0])
        listed = again(self._source.listed, partial(given_up, self.path))
        for entry in (listed or {}).values():
            self._add(entry)
        self._lists = listed is not None
        self._ask(name)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def begin(self, adapters: Sequence[Adapter]) -> None:
        """What these adapters need to recognise it: its first and last bytes, and the files beside that they name."""
        self._head(self.path)
        self._beside(adapters)
        if not self.path.exists() and not self._files:
            if self._source.refused is not None:
                raise self._source.refused
            raise RemoteError(f"{self._url}: no such file", remedy="name a file, or a prefix as the adapter has it")

    def complete(self) -> None:
        """All bytes of the file, or of the folder."""
        for path, file in self._files.items():
            if path == self.path or self.path in path.parents:
                file.complete(self._progress)

    def complete_beside(self, adapter: Adapter) -> None:
        """All bytes of the files beside that the adapter names for it."""
        for path in self._beside([adapter]):
            if path in self._files:
                self._files[path].complete(self._progress)

    def _beside(self, adapters: Sequence[Adapter]) -> set[Path]:
        """The files that adapters name, until they name no other; names that lead out of the folder are left out."""
        named: set[str] = set()
        while True:
            found = {name for adapter in adapters for name in adapter.companions(self.path) if _is_below(name)} - named
            if not found:
                return {self.path.parent / name for name in named}
            for name in sorted(found):
                self._ask(name)
                if name.endswith(".json") or name == "checkpoint":
                    self._head(self.path.parent / name)
            named |= found

    def _ask(self, name: str) -> None:
        """Makes the stand-in of a file, if there is such a file; each is asked for once."""
        path = self.path.parent / name
        if name in self._asked or path in self._files or self._lists:
            return
        self._asked.add(name)
        entry = again(partial(self._source.entry, name), partial(given_up, path))
        if entry is not None:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        """A name that no file here can have is left out: whoever needs it says that it is missing."""
        if _is_below(entry.name):
            path = self.path.parent / entry.name
            self._files[path] = StandIn(self._source, entry, path)

    def _head(self, path: Path) -> None:
        file = self._files.get(path)
        if file is None:
            return
        size = path.stat().st_size
        file.fetch(0, min(size, BLOCK))
        with path.open("rb") as opened:
            head = opened.read(64)
        if head.lstrip().startswith(b"{") and head[5:8] != b"\0\0\0" and size <= _MOST_JSON:
            file.complete()
        else:
            file.fetch(max(size - BLOCK, 0), size)


def _is_below(name: str) -> bool:
    """Whether a name, of parts between slashes, is that of a file in the folder or below it."""
    return all(map(is_name, name.split("/")))
