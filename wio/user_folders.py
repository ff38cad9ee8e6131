"""Where wio keeps what belongs to a user, by the conventions of the platform.

Sources: XDG Base Directory Specification 0.8; Apple, File System Programming Guide, "The Library Directory";
Microsoft, Known Folders (LocalAppData).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_folder() -> Path:
    """What a user added and would miss: architectures."""
    return _folder("XDG_DATA_HOME", ".local/share", "Application Support")


def cache_folder() -> Path:
    """What can be made again: where an upload stands."""
    return _folder("XDG_CACHE_HOME", ".cache", "Caches")


def _folder(variable: str, usual: str, library: str) -> Path:
    given = os.environ.get(variable, "")
    # The specification says that a relative path is to be ignored.
    if os.path.isabs(given):  # noqa: PTH117  (a Path costs as much as all the rest, and every start passes here)
        return Path(given, "wio")
    home = os.path.expanduser("~")  # noqa: PTH111  (it gives "~" back where there is no home, and does not raise)
    if sys.platform == "darwin":
        return Path(home, "Library", library, "wio")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home), "wio")
    return Path(home, usual, "wio")
