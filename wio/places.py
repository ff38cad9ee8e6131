"""Paths that are URLs, and the private folders of this machine that stand in for them.

Little enough to be imported always; ``wio.remote`` does the work once a URL is given.
"""

from __future__ import annotations

import atexit
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII)
# Secrets in a URL: name and password before the host, whatever is behind a question mark.
_SECRETS = re.compile(r"(?<=://)[^/\s]*@|\?.*", re.DOTALL)
# As they stand in a text, which may put quotes around them.
_URLS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://(?:[^/\s]*@)?[^\s'\"<>]*")
# Each folder that stands for another place, and what a person calls that place.
_folders: dict[str, str] = {}
_leaving: list[Callable[[], None]] = []


def is_url(text: object) -> bool:
    return isinstance(text, str) and _URL.match(text) is not None


def without_secrets(text: str) -> str:
    """Text whose URLs keep neither login nor query: signed URLs have their signature there."""
    if is_url(text) and not re.search(r"\s", text):
        return _SECRETS.sub("", text)
    return _URLS.sub(lambda found: _SECRETS.sub("", found[0]), text)


def call_it(folder: Path, url: str) -> None:
    """From now on messages call this folder by its URL, which has no secrets any more."""
    _folders[str(folder)] = url


def as_called(text: str) -> str:
    """A message in which folders that stand for another place are called by its URL."""
    for folder, url in _folders.items():
        text = text.replace(folder, url)
    return text


def stands_in(path: Path) -> bool:
    return any(str(folder) in _folders for folder in path.parents)


@contextlib.contextmanager
def written_to(out: Path | str) -> Iterator[Path]:
    """The path to write. Of a URL it is one here; what was written is uploaded when the block ends well."""
    if not is_url(out):
        yield Path(out)
        return
    from wio.remote.upload import staged, upload

    yield staged(str(out))
    upload(str(out))


def here(out: Path | str) -> Path:
    """Where the output to a path or a URL was written on this machine."""
    if not is_url(out):
        return Path(out)
    from wio.remote.upload import staged_before

    return staged_before(str(out))


def temporary_folder() -> Path:
    """A folder until the process leaves: a signal that ends it removes it too, and what a killed one left is swept."""
    from wio.atomic import staging

    held = contextlib.ExitStack()
    folder = held.enter_context(staging())
    on_leaving(held.close)
    return folder


def on_leaving(clear: Callable[[], None]) -> None:
    """What is to be done once, when the process leaves."""
    if not _leaving:
        atexit.register(leave)
    _leaving.append(clear)


def leave() -> None:
    """Removes what stood in for other places."""
    while _leaving:
        _leaving.pop()()
    _folders.clear()
