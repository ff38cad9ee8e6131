"""What a place gives, whatever protocol it speaks: files of a known size and version, in ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from msgspec import Struct

from wio.errors import WioError


class RemoteError(WioError):
    """A place cannot be reached, or answers with anything but what it was asked for."""


class AgainError(Exception):
    """A request failed in a way that may pass. ``after`` are the seconds that the server asks to wait."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.after = after


class Entry(Struct, frozen=True):
    """A file elsewhere. ``version`` is whatever the place tells two contents of one name apart by.

    ``name`` is relative to the folder of the URL; ``ranges`` is False where the file is only given as a whole.
    """

    name: str
    size: int
    version: Any
    ranges: bool = True


class Source(Protocol):
    """The folder that a URL lies in. ``refused`` is what was said of a file that may be there or not."""

    refused: RemoteError | None

    def entry(self, name: str) -> Entry | None:
        """The file of that name; None if there is none."""

    def listed(self) -> Mapping[str, Entry] | None:
        """Every file beside the one of the URL, or below it; None where the place does not list."""

    def pieces(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:
        """These bytes, in order, of this very version. RemoteError, or AgainError for what may pass, in the middle too.

        A part that was given is right; the end may be missing, which the caller must see.
        """
