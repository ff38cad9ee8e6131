"""Finding adapters and registries: the one place that looks at entry points and at files to see what they are."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path

from wio.adapter import Adapter
from wio.architecture import Architecture
from wio.bundle import Bundle
from wio.errors import AdapterError, WioError, printable
from wio.habit import Habit, load_habit
from wio.registry_file import file_name, load_architecture

ADAPTERS = "wio.adapters"
REGISTRY = "wio.registry"
REGISTRY_VARIABLE = "WIO_REGISTRY_PATH"


@dataclass(frozen=True)
class Found:
    """An adapter as it was found: where it comes from, and why it cannot be used if it cannot."""

    name: str
    origin: str
    adapter: Adapter | None
    error: str | None = None


@lru_cache(maxsize=1)
def found_adapters() -> tuple[Found, ...]:
    """Every adapter of every installed package, by name; a broken one is listed with its error, not raised."""
    found: dict[str, Found] = {}
    for point in sorted(entry_points(group=ADAPTERS), key=lambda point: (point.name, _origin(point))):
        this = _load(point)
        if point.name in found:
            first = found[point.name]
            if _is_own(this.origin) and not _is_own(first.origin):
                first, this = this, first
            message = f"{this.origin} also calls an adapter {point.name!r}; that of {first.origin} is used"
            warnings.warn(message, stacklevel=2)
            found[point.name] = first
        else:
            found[point.name] = this
    return tuple(found.values())


def _origin(point: EntryPoint) -> str:
    return "an unknown package" if point.dist is None else _package(point.dist)


@cache
def _package(dist: Distribution) -> str:
    """Name and version; each asking parses the package's metadata anew."""
    return f"{dist.name} {dist.version}"


def _is_own(origin: str) -> bool:
    return origin.startswith("wio ")


def _load(point: EntryPoint) -> Found:
    try:
        adapter = point.load()()
        if not isinstance(adapter, Adapter):
            raise TypeError(f"{point.value} is no wio.adapter.Adapter")
    except Exception as error:  # a stranger's package must not take wio down; it is listed with what it raised
        warnings.warn(f"the adapter {point.name!r} of {_origin(point)} cannot be loaded: {error!r}", stacklevel=2)
        return Found(point.name, _origin(point), None, repr(error))
    return Found(point.name, _origin(point), adapter)


def adapter_named(name: str) -> Adapter:
    """The adapter of that name. AdapterError lists those that exist, or says why this one is broken."""
    for each in found_adapters():
        if each.name == name:
            if each.adapter is None:
                raise AdapterError(f"the adapter {name!r} of {each.origin} is broken: {each.error}")
            return each.adapter
    names = ", ".join(each.name for each in found_adapters())
    raise AdapterError(f"no adapter is named {name!r}", remedy=f"adapters are: {names}")


def split_prefix(argument: str) -> tuple[str | None, Path]:
    """``keras-theano:model.h5`` as adapter and path; a path that exists with the colon in its name stays whole."""
    name, colon, rest = argument.partition(":")
    if colon and rest and any(each.name == name for each in found_adapters()):
        return name, Path(rest)
    return None, Path(argument)


def detect(path: Path) -> Adapter:
    """The adapter whose format the file has: the most specific match. AdapterError for none, and for a tie."""
    matches = [
        (each.adapter.sniff(path), each.adapter) for each in found_adapters() if each.adapter and each.adapter.reads
    ]
    best = max((score for score, _ in matches), default=0)
    if best <= 0:
        raise AdapterError(
            f"{path}: {_what_it_is(path)}", remedy="wio adapters lists what can be read; --from ADAPTER insists"
        )
    winners = [adapter for score, adapter in matches if score == best]
    if len(winners) > 1:
        names = " or ".join(f"--from {adapter.name}" for adapter in winners)
        evidence = next((text for adapter in winners if (text := adapter.evidence(path))), None)
        raise AdapterError(
            f"{path}: {' and '.join(a.name for a in winners)} could both read it{': ' + evidence if evidence else ''}",
            remedy=f"say which it is: {names}",
        )
    return winners[0]


_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was never fetched (git lfs pull)"),
    (b"<!doctype html", "an HTML page: a download that went wrong"),
    (b"<html", "an HTML page: a download that went wrong"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, but not one of Keras 1 or 2"),
    (b"PK\x03\x04", "a zip archive of a kind wio cannot read"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)


def _what_it_is(path: Path) -> str:
    try:
        if not path.exists():
            return "no such file, and no checkpoint has that prefix"
        if path.is_dir():
            return "a folder without a checkpoint in it"
        if not path.is_file():
            return "not a regular file"
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return str(error.strerror)
    if not head:
        return "an empty file"
    for signature, what in _SIGNATURES:
        if head.lstrip().lower().startswith(signature.lower()):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    return f"none of the formats that wio reads (it begins with {printable(head[:16].decode('latin-1'))!r})"


def open_bundle(
    path: Path | str, adapter: str | None = None, options: Mapping[str, str] | None = None
) -> tuple[Bundle, Adapter]:
    """Opens a file lazily with the adapter named, or with the one that its content calls for."""
    chosen = adapter_named(adapter) if adapter else detect(Path(path))
    if not chosen.reads:
        raise AdapterError(f"{chosen.name} cannot read, only write")
    given = chosen.checked(options or {}, writing=False)
    return chosen.read(Path(path), **given), chosen


# --- the registry


@lru_cache
def _folders(variable: str) -> tuple[Path, ...]:
    """The folders of every registry; ``variable`` is what the environment names besides."""
    found: list[Path] = []
    for point in entry_points(group=REGISTRY):
        try:
            module = importlib.import_module(point.value)
        except Exception as error:  # as above: listed, not raised
            warnings.warn(f"the registry of {_origin(point)} cannot be loaded: {error!r}", stacklevel=2)
            continue
        found += [Path(folder) for folder in module.__path__]
    return (*found, *(Path(folder) for folder in variable.split(os.pathsep) if folder))


def _registry_folders() -> tuple[Path, ...]:
    return _folders(os.environ.get(REGISTRY_VARIABLE, ""))


@cache
def _described(path: Path) -> Architecture:
    return load_architecture(path, every_dialect=False)


def misnamed(path: Path, identity: str) -> str | None:
    """What is wrong with the name of the file that describes an architecture, which is found by it."""
    wanted = file_name(identity)
    return None if path.name == wanted else f"{path.name} describes {identity}, which is looked for in {wanted}"


def architectures() -> dict[str, Architecture]:
    """Every architecture of every registry by id. A file that is wrong raises: a registry must not half work."""
    found: dict[str, Architecture] = {}
    for folder in _registry_folders():
        for path in sorted(folder.glob("*.toml")):
            identity = _described(path).id
            if wrong := misnamed(path, identity):
                raise WioError(wrong, remedy=f"rename it to {file_name(identity)}")
            if identity in found:
                raise WioError(f"{path.name}: the architecture {identity!r} is described twice")
            found[identity] = _described(path)
    return found


@lru_cache(maxsize=1)
def habits() -> dict[str, Habit]:
    """The dialects without an architecture, by id."""
    found = [
        load_habit(path) for folder in _registry_folders() for path in sorted((folder / "dialects").glob("*.toml"))
    ]
    return {habit.id: habit for habit in found}


def architecture_named(name: str) -> Architecture:
    """The architecture of that id. Its own file is read and no other."""
    file = file_name(name)
    # A .wio file names its architecture: no name leads out of the registry's folders.
    folders = _registry_folders() if Path(file).name == file else ()
    paths = [path for folder in folders if (path := folder / file).is_file()]
    found = [architecture for path in paths if (architecture := _described(path)).id == name]
    if len(found) > 1:
        raise WioError(f"{paths[0].name}: the architecture {name!r} is described twice")
    if found:
        return found[0]
    known = ", ".join(architectures()) or "none"
    raise WioError(f"no architecture is named {name!r}", remedy=f"the registry has: {known}")


def habit_named(name: str) -> Habit:
    try:
        return habits()[name]
    except KeyError:
        known = ", ".join(habits()) or "none"
        raise WioError(f"no dialect is named {name!r}", remedy=f"without --arch there are: {known}") from None
