"""Finding adapters and registries: the one place that looks at entry points and at files to see what they are."""

from __future__ import annotations

import importlib
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from wio.adapter import Adapter
from wio.architectures.architecture import Architecture
from wio.architectures.registry_file import file_name, load_architecture
from wio.bundle import Bundle
from wio.entry_points import EntryPoint, Package, entry_points
from wio.errors import AdapterError, WioError, printable
from wio.network import Network
from wio.places import is_url
from wio.user_folders import data_folder

if TYPE_CHECKING:
    from wio.architectures.habit import Habit

ADAPTERS = "wio.adapters"
REGISTRY = "wio.registry"
REGISTRY_VARIABLE = "WIO_REGISTRY_PATH"


class Found(Struct, frozen=True):
    """An adapter as it was found: the package it comes from, and why it cannot be used if it cannot.

    ``adapter`` is None for a broken one and for one of two that have the same name. One that only lacks an extra is
    there, to recognise its files. ``remedy`` is a command.
    """

    name: str
    package: Package
    adapter: Adapter | None
    error: str | None = None
    remedy: str | None = None

    def usable(self) -> Adapter:
        """The adapter; AdapterError says what is wrong with it, whose it is, and what would help."""
        if self.adapter is None or self.error is not None:
            raise AdapterError(f"the adapter {self.name!r} of {self.package}: {self.error}", remedy=self.remedy)
        return self.adapter


@lru_cache(maxsize=1)
def found_adapters() -> tuple[Found, ...]:
    """Every adapter of every installed package, by name; one that cannot be used is listed with its error, not raised.

    Of two packages that call an adapter the same neither is used, so that none is chosen by the order in which they
    were installed; the names of wio's own adapters are taken.
    """
    points: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=ADAPTERS), key=lambda point: (point.name, point.package.name)):
        points.setdefault(point.name, []).append(point)
    return tuple(each for same in points.values() for each in _settled(same))


def _settled(points: list[EntryPoint]) -> Iterator[Found]:
    """The adapters that share a name, as found."""
    own = [point for point in points if point.package.name == "wio"]
    for point in points:
        rivals = [each for each in own or points if each is not point]
        if not rivals or point in own:
            yield _load(point)
            continue
        others = " and ".join(str(each.package) for each in rivals)
        error = f"{others} also calls an adapter {point.name!r}" + ("" if own else ", so neither is used")
        remedy = "pip uninstall " + " or ".join(each.package.name for each in points if each not in own)
        warnings.warn(f"the adapter {point.name!r} of {point.package} is refused: {error}", stacklevel=2)
        yield Found(point.name, point.package, None, error, remedy)


def _load(point: EntryPoint) -> Found:
    package = point.package
    try:
        adapter = point.load()()
        if not isinstance(adapter, Adapter):
            raise TypeError(f"{point.value} is no wio.adapter.Adapter")
        missing = {module: extra for module, extra in adapter.extras.items() if find_spec(module) is None}
    except Exception as error:  # a stranger's package must not take wio down; it is listed with what it raised
        missing = _extras_with(package, error.name or "") if isinstance(error, ModuleNotFoundError) else {}
        if not missing:
            warnings.warn(f"the adapter {point.name!r} of {package} is broken: {error!r}", stacklevel=2)
            return Found(point.name, package, None, f"it is broken: {error!r}")
        adapter = None
    if not missing:
        return Found(point.name, package, adapter)
    # An extra that was not asked for is no defect: whoever does not use the adapter is not warned.
    extras = ",".join(sorted(set(missing.values())))
    lacks = f"it needs {', '.join(missing)}, which the extra {extras} of {package.name} brings"
    return Found(point.name, package, adapter, lacks, f"pip install '{package.name}[{extras}]'")


def _extras_with(package: Package, module: str) -> dict[str, str]:
    """A module with the extra of a package that requires a distribution of its name (Core metadata, Requires-Dist)."""
    for requirement in package.requires:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"""\bextra\s*==\s*["']([\w.-]+)["']""", requirement)
        if name and extra and re.sub(r"[-_.]+", "_", name[0]).lower() == module.partition(".")[0].lower():
            return {module: extra[1]}
    return {}


def adapter_named(name: str) -> Adapter:
    """The adapter of that name. AdapterError lists those that exist, or says why this one cannot be used."""
    same = [each for each in found_adapters() if each.name == name]
    if same:
        return min(same, key=lambda each: each.adapter is None).usable()
    names = ", ".join(dict.fromkeys(each.name for each in found_adapters()))
    raise AdapterError(f"no adapter is named {name!r}", remedy=f"adapters are: {names}")


def split_prefix(argument: str) -> tuple[str | None, Path]:
    """``keras-theano:model.h5`` as adapter and path; a path that exists with the colon in its name stays whole."""
    prefix, place = split_place(argument)
    return prefix, Path(place)


def split_place(argument: str) -> tuple[str | None, str]:
    """The same, the place as it was given: it may be a URL."""
    name, colon, rest = argument.partition(":")
    if colon and rest and any(each.name == name for each in found_adapters()):
        return name, rest
    return None, argument


def local(
    place: Path | str, adapter: str | None = None, progress: Callable[[int], None] | None = None
) -> tuple[str | None, Path]:
    """A path for what may be a URL, and the adapter that reads it, where that was asked for or is clear.

    Of a URL as much is fetched as is read, or all of it for adapters that cannot read less. Raises RemoteError for what
    is not there or does not answer, else what :func:`detect` does.
    """
    if not isinstance(place, str) or not is_url(place):
        return adapter, Path(place)
    from wio.remote.fetched import Fetched

    fetched = Fetched(place, progress)
    chosen = [adapter_named(adapter)] if adapter else []
    able = chosen or [each.adapter for each in found_adapters() if each.adapter is not None]
    frugal = [each for each in able if each.ranges]
    fetched.begin(frugal)
    if chosen and frugal:
        return adapter, fetched.path
    # Those that read ranges are asked before more is fetched; the others must see the whole file.
    scores = {each.name: each.sniff(fetched.path) for each in frugal}
    best = [name for name, score in scores.items() if score and score == max(scores.values())]
    if len(best) == 1:
        return best[0], fetched.path
    fetched.complete()
    reader = chosen[0] if chosen else detect(fetched.path)
    fetched.complete_beside(reader)
    return reader.name, fetched.path


def detect(path: Path) -> Adapter:
    """The adapter whose format the file has: the most specific match. AdapterError for none, and for a tie."""
    _refuse_what_is_no_file(path)
    found = found_adapters()
    matches = [(_sniffed(each, path), each) for each in found]
    best = max((score for score, _ in matches), default=0)
    if best <= 0:
        unasked = "".join(f"; {each.name} of {each.package} could not be asked" for each in found if not each.adapter)
        raise AdapterError(
            f"{path}: {_what_it_is(path)}",
            remedy=f"wio adapters lists what can be read; --from ADAPTER insists{unasked}",
        )
    winners = [each for score, each in matches if score == best]
    if len(winners) > 1:
        names = " or ".join(f"--from {each.name}" for each in winners)
        offered = (each.adapter.evidence(path) for each in winners if each.adapter)
        evidence = next((text for text in offered if text), None)
        raise AdapterError(
            f"{path}: {' and '.join(each.name for each in winners)} could both read it"
            f"{': ' + evidence if evidence else ''}",
            remedy=f"say which it is: {names}",
        )
    return winners[0].usable()


def _refuse_what_is_no_file(path: Path) -> None:
    """A pipe or a device is neither asked about nor opened: it might never answer, or never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        # Missing, or a prefix of files: the adapters know which.
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise AdapterError(f"{path}: not a regular file", remedy="copy what it gives into a file, and name that")


def _sniffed(found: Found, path: Path) -> int:
    if found.adapter is None or not found.adapter.reads:
        return 0
    try:
        return found.adapter.sniff(path)
    except Exception as error:  # as above: it must not stand between the others and their files
        warnings.warn(
            f"the adapter {found.name!r} of {found.package} failed to look at {path}: {error!r}", stacklevel=2
        )
        return 0


_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was never fetched (git lfs pull)"),
    (b"<!doctype html", "an HTML page: a download that went wrong"),
    (b"<html", "an HTML page: a download that went wrong"),
    (b"<?xml", "an XML document: a server's answer in place of the file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, but not one of Keras 1 or 2"),
    (b"PK\x03\x04", "a zip archive of a kind wio cannot read"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\xfd7zXZ\0", "an xz archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"GGUF", "a GGUF file, which wio does not read"),
    (b"\x7fELF", "a program"),
    (b"{", "JSON, and no index of weights that wio reads"),
)


def _what_it_is(path: Path) -> str:
    try:
        if not path.exists():
            return "no such file, and no checkpoint has that prefix"
        if path.is_dir():
            return "a folder without a checkpoint in it"
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
    return f"none of the formats that wio reads (it begins with {printable(head[:16].decode('latin-1'))})"


def open_bundle(
    path: Path | str, adapter: str | None = None, options: Mapping[str, str] | None = None
) -> tuple[Bundle, Adapter]:
    """Opens a file lazily with the adapter named, or with the one that its content calls for."""
    adapter, path = local(path, adapter)
    _refuse_what_is_no_file(path)
    chosen = adapter_named(adapter) if adapter else detect(path)
    if not chosen.reads:
        raise AdapterError(f"{chosen.name} cannot read, only write")
    given = chosen.checked(options or {}, writing=False)
    return chosen.read(path, **given), chosen


def own_network(bundle: Bundle, found: Adapter, path: Path, options: Mapping[str, str]) -> Network | None:
    """The graph of the file, or what a .wio file remembers of its source's."""
    source = source_adapter(bundle, found)
    if source is found:
        return found.network(bundle, path, **options)
    return None if source is None else source.network(bundle)


def source_adapter(bundle: Bundle, found: Adapter) -> Adapter | None:
    """The adapter of the format that the weights come from, which a .wio file remembers; None if it is not there."""
    source = str(bundle.metadata.get("adapter", found.name))
    if source == found.name:
        return found
    try:
        return adapter_named(source)
    except AdapterError:
        return None


# --- the registry


def user_registry() -> Path:
    """The folder of the user's own architectures, which need not exist."""
    return data_folder() / "registry"


@lru_cache
def _folders(*besides: Path) -> tuple[Path, ...]:
    """The folders of every registry, and ``besides`` what the user has."""
    found: list[Path] = []
    for point in entry_points(group=REGISTRY):
        try:
            module = importlib.import_module(point.value)
        except Exception as error:  # as above: listed, not raised
            warnings.warn(f"the registry of {point.package} cannot be loaded: {error!r}", stacklevel=2)
            continue
        found += [Path(folder) for folder in module.__path__]
    return (*found, *besides)


def registry_folders() -> tuple[Path, ...]:
    """Of installed packages, then of the environment, then the user's own."""
    named = [Path(folder) for folder in os.environ.get(REGISTRY_VARIABLE, "").split(os.pathsep) if folder]
    own = user_registry()
    return _folders(*named, *((own,) if own.is_dir() else ()))


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
    for folder in registry_folders():
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
    from wio.architectures.habit import load_habit

    found = [load_habit(path) for folder in registry_folders() for path in sorted((folder / "dialects").glob("*.toml"))]
    return {habit.id: habit for habit in found}


def architecture_named(name: str) -> Architecture:
    """The architecture of that id. Its own file is read and no other."""
    file = file_name(name)
    # A .wio file names its architecture: no name leads out of the registry's folders.
    folders = registry_folders() if Path(file).name == file and len(file) < 200 else ()
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
