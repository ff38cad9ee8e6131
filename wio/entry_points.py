"""Entry points of installed packages, read from the files that installers leave (PyPA, Entry points specification).

``importlib.metadata`` gives the same, but importing it and having it parse each package's metadata takes 20 ms, a tenth
of an export of 172 MB. Packages in archives are left to it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import Struct

# What an installer, or setuptools in a source tree, calls the folder of a package's metadata, and the file there.
_METADATA = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}


class Package(Struct, frozen=True):
    """An installed package: its name, its version, what it requires, each as its metadata says."""

    name: str
    version: str
    requires: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


UNKNOWN_PACKAGE = Package("an unknown package", "")


class EntryPoint(Struct, frozen=True):
    """A name that a package gives to an object, ``value`` being MODULE or MODULE:ATTRIBUTE."""

    name: str
    value: str
    package: Package

    def load(self) -> Any:
        """The object. Raises whatever importing a stranger's module raises."""
        module, _, attributes = self.value.partition("[")[0].strip().partition(":")
        found: Any = import_module(module.strip())
        for attribute in filter(None, attributes.strip().split(".")):
            found = getattr(found, attribute)
        return found


def entry_points(group: str) -> list[EntryPoint]:
    """Every package's entry points of a group. Of a package that is installed twice, those of the first on the path."""
    if any(Path(entry).is_file() for entry in sys.path):
        return _through_importlib(group)
    found = []
    for folder, text in _declared():
        for name, value in _of_group(text, group):
            found.append(EntryPoint(name, value, _package(folder)))
    return found


def _declared() -> tuple[tuple[Path, str], ...]:
    """The metadata folders of the packages that declare entry points, with the text that declares them."""
    found: dict[str, tuple[Path, str]] = {}
    for entry in sys.path:
        for folder in _metadata_folders(entry):
            distribution = re.sub(r"[-_.]+", "-", folder.stem.partition("-")[0]).lower()
            try:
                text = (folder / "entry_points.txt").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                text = ""
            found.setdefault(distribution, (folder, text))
    return tuple(each for each in found.values() if each[1])


def _metadata_folders(entry: str) -> Iterator[Path]:
    try:
        with os.scandir(entry or ".") as found:
            names = sorted(each.name for each in found if each.name.endswith(tuple(_METADATA)))
    except OSError:
        return
    yield from (Path(entry, name) for name in names)


def _of_group(text: str, group: str) -> Iterator[tuple[str, str]]:
    section = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        elif section == group and line and line[0] != "#":
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _package(folder: Path) -> Package:
    """Core metadata: a header like that of a mail, up to the first empty line."""
    try:
        text = (folder / _METADATA[folder.suffix]).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return UNKNOWN_PACKAGE
    fields: dict[str, list[str]] = {}
    for line in text.partition("\n\n")[0].splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), []).append(value.strip())
    name, version = (fields.get(key, [""])[0] for key in ("name", "version"))
    return Package(name, version, tuple(fields.get("requires-dist", ()))) if name else UNKNOWN_PACKAGE


def _through_importlib(group: str) -> list[EntryPoint]:
    from importlib import metadata

    return [
        EntryPoint(
            point.name,
            point.value,
            UNKNOWN_PACKAGE
            if point.dist is None
            else Package(point.dist.name, point.dist.version, tuple(point.dist.requires or ())),
        )
        for point in metadata.entry_points(group=group)
    ]
