"""Which sources a batch has, and where each one's output goes: the same tree under another folder."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from wio.errors import Problem, UsageError
from wio.file_set import INDEX
from wio.places import is_url
from wio.plugins import found_adapters, split_place, split_prefix

# Endings that say of what format a file is and are no part of its name.
_ENDINGS = frozenset({".h5", ".hdf5", ".pth", ".bin", ".npy", ".pb", ".index", ".weights", ".pkl"})


class Pair(Struct, frozen=True):
    """One conversion of a batch: the adapter that a source insists on, its path, and where its output goes."""

    adapter: str | None
    source: Path
    out: Path


def is_batch(sources: Sequence[str]) -> bool:
    """Whether these are several sources, or a pattern for them; a file that has such a name is one."""
    if not any(is_url(split_place(source)[1]) for source in sources):
        return len(sources) > 1 or _is_pattern(split_prefix(sources[0])[1])
    if len(sources) > 1:
        raise UsageError("of several sources none may be a URL", remedy="convert each by a command of its own")
    return False


def pairs(sources: Sequence[str], folder: Path, suffix: str, insisted: str | None = None) -> list[Pair]:
    """Every source with its output, in the order of the arguments, those of a pattern by name; each source once.

    Outputs lie under ``folder`` as the sources do under the folder that all arguments share, of a pattern its part
    without wildcards. UsageError for a pattern that matches nothing, and with every two sources that would have one
    output, and every output that is a source.
    """
    found: dict[Path, str | None] = {}
    bases = []
    for argument in sources:
        prefix, path = split_prefix(argument)
        if prefix and insisted and prefix != insisted:
            raise UsageError(f"{argument} says {prefix}, --from says {insisted}")
        base, matches = _matches(path, folder) if _is_pattern(path) else (path.parent, [path])
        if not matches:
            raise UsageError(f"no file matches {str(path)!r}")
        bases.append(_absolute(base))
        for match in matches:
            found.setdefault(match, prefix or insisted)
    shared = Path(os.path.commonpath(bases))
    made = []
    for source, adapter in found.items():
        below = _absolute(source).relative_to(shared)
        made.append(Pair(adapter, source, folder / below.with_name(_bare(below.name) + suffix)))
    _refuse_collisions(made)
    return made


def suffix_of(adapter: str, template: str | None) -> str:
    """What the outputs of an adapter end with; a template says which of several."""
    if template is not None:
        path = Path(template)
        return (".weights" if path.stem.endswith(".weights") else "") + path.suffix
    usual = next((each.adapter.suffix for each in found_adapters() if each.name == adapter and each.adapter), "")
    return usual or f".{adapter}"


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not path.exists()


def _matches(pattern: Path, outputs: Path) -> tuple[Path, list[Path]]:
    """The part of a pattern that has no wildcards, and the files that match it, by name; hidden ones are left alone.

    What lies in a folder of outputs below is no source: a second run must not take up what the first has made.
    """
    base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    below = outputs if _absolute(outputs) != _absolute(base) and _is_below(outputs, base) else None
    # Path.glob would give hidden files too.
    found = map(Path, glob.glob(str(pattern), recursive=True))  # noqa: PTH207
    return base, sorted(path for path in found if path.is_file() and not (below and _is_below(path, below)))


def _is_below(path: Path, folder: Path) -> bool:
    return _absolute(path).is_relative_to(_absolute(folder))


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _bare(name: str) -> str:
    """A file's name without what says of which format it is: at most two endings, as in ``m.weights.h5``."""
    endings = _ENDINGS | {each.adapter.suffix for each in found_adapters() if each.adapter and each.adapter.suffix}
    name = name.removesuffix(INDEX)
    for _ in range(2):
        stem, dot, ending = name.rpartition(".")
        if not stem or f"{dot}{ending}".lower() not in endings:
            break
        name = stem
    return name


def _refuse_collisions(made: Iterable[Pair]) -> None:
    problems = []
    sources = {os.path.realpath(pair.source): pair.source for pair in made}
    # Some file systems do not tell capitals from small letters.
    taken: dict[str, Pair] = {}
    for pair in made:
        if (source := sources.get(os.path.realpath(pair.out))) is not None:
            problems.append(Problem("collision", f"its output {pair.out} is the source {source}", str(pair.source)))
        other = taken.setdefault(str(pair.out).casefold(), pair)
        if other is not pair:
            message = f"its output {pair.out} is that of {other.source}"
            problems.append(Problem("collision", message, str(pair.source)))
    if problems:
        raise UsageError("outputs collide; nothing was written", problems, "convert them into different folders")
