"""The index of weights in several files, as Hugging Face writes it: ``weight_map``, from each tensor to its shard.

Source: ``huggingface_hub`` serialization (``*.safetensors.index.json``, ``pytorch_model.bin.index.json``): one JSON
object with ``metadata`` and ``weight_map``, the shards beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from wio.adapters._mapped_files import regular_size
from wio.errors import FormatError, Problem, printable
from wio.file_set import MAX_INDEX, is_name
from wio.safetensors_header import parse_json

# The largest open models keep 140,000 tensors in 60 to 200 files.
_MOST_TENSORS, _MOST_SHARDS = 400_000, 10_000

Shard = TypeVar("Shard")


def is_index(path: Path, endings: tuple[str, ...]) -> bool:
    """Whether a file is an index all of whose shards have one of these endings. Never raises, never waits on a FIFO."""
    if regular_size(path) is None:
        return False
    try:
        with path.open("rb") as file:
            if not file.read(64).lstrip().startswith(b"{"):
                return False
        shards = read_weight_map(path).values()
        return bool(shards) and all(shard.endswith(endings) for shard in shards)
    except (OSError, FormatError):
        return False


def read_weight_map(path: Path) -> dict[str, str]:
    """Tensor name to shard, of an index."""
    if path.stat().st_size > MAX_INDEX:
        raise FormatError(f"{path.name}: an index of more than {MAX_INDEX} bytes")
    raw = path.read_bytes()
    if raw.count(b",") > _MOST_TENSORS:
        raise FormatError(f"{path.name}: an index of more than {_MOST_TENSORS} tensors")
    document = parse_json(raw, f"{path.name}: the index")
    found = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(found, dict) or not all(isinstance(shard, str) for shard in found.values()):
        raise FormatError(f"{path.name}: an index without a weight_map from names to files")
    if len(set(found.values())) > _MOST_SHARDS:
        raise FormatError(f"{path.name}: an index of more than {_MOST_SHARDS} files")
    return found


def names_beside(index: Path) -> tuple[str, ...]:
    """The files that an index of any kind names; none for a file that is no index. Never raises."""
    try:
        with index.open("rb") as file:
            if not file.read(64).lstrip().startswith(b"{") or index.stat().st_size > MAX_INDEX:
                return ()
        document = parse_json(index.read_bytes(), index.name)
    except (OSError, FormatError):
        return ()
    found = document.get("weight_map") if isinstance(document, dict) else None
    values = found.values() if isinstance(found, dict) else ()
    # Keras maps to one file or to several.
    names = (name for value in values for name in (value if isinstance(value, list) else [value]))
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def open_shards(
    index: Path, opened: Callable[[Path], Shard], names: Callable[[Shard], Collection[str]]
) -> tuple[dict[str, str], dict[str, Shard]]:
    """The weight map of an index, and every shard of it by name, opened; ``names`` gives the tensors of a shard.

    Raises one FormatError with every shard that is missing or not in the folder of the index, or else with every
    tensor that is not in the one shard that the index gives it.
    """
    weight_map = read_weight_map(index)
    paths = shard_paths(index, dict.fromkeys(weight_map.values()))
    shards = {name: opened(path) for name, path in paths.items()}
    refuse_differences(index, weight_map, {name: names(shard) for name, shard in shards.items()})
    return weight_map, shards


def shard_paths(index: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where the shards of an index lie: beside it. FormatError with every one that is missing or elsewhere."""
    found = {name: index.parent / name for name in names}
    problems = [problem for name in found if (problem := _out_of_place(index, name)) is not None]
    if problems:
        raise FormatError(f"{index.name}: {_count(problems, 'shard')} cannot be opened", problems)
    return found


def refuse_differences(index: Path, weight_map: Mapping[str, str], held: Mapping[str, Collection[str]]) -> None:
    """FormatError with every tensor that is not in the one shard that the index gives it; ``held`` is what is there."""
    if problems := _differences(weight_map, held):
        raise FormatError(f"{index.name}: index and shards differ over {_count(problems, 'tensor')}", problems)


def _differences(weight_map: Mapping[str, str], held: Mapping[str, Collection[str]]) -> list[Problem]:
    wrong = [
        Problem("unexpected", f"is in {printable(shard)}, the index says otherwise", name)
        for shard, names in held.items()
        for name in names
        if weight_map.get(name) != shard
    ]
    return wrong + [
        Problem("missing", f"is not in {printable(shard)}", name)
        for name, shard in weight_map.items()
        if name not in held[shard]
    ]


def _out_of_place(index: Path, name: str) -> Problem | None:
    """What is wrong with the name of a shard: it must be a plain one in the folder of the index, and no link out."""
    if not is_name(name):
        return Problem("shard", "is no file name in the folder of the index: refused", repr(name))
    path = index.parent / name
    # Caches of models hold index and shards as links, side by side: what counts is the folder both really are in.
    folders = (Path(os.path.realpath(index)).parent, Path(os.path.realpath(index.parent)))
    if path.is_symlink() and Path(os.path.realpath(path)).parent not in folders:
        return Problem("shard", "is a link out of the folder of the index: refused", name, "put the file itself there")
    if regular_size(path) is None:
        return Problem("shard", "no such file beside the index", name, "fetch all shards into one folder")
    return None


def _count(problems: list[Problem], what: str) -> str:
    return f"{len(problems)} {what}{'s' if len(problems) != 1 else ''}"
