"""Weights in shards: ``NAME.weights.json`` with a ``weight_map``, and the ``.weights.h5`` files it names.

Source: keras 3.15 ``saving_lib.py``, ``ShardedH5IOStore`` (since 3.10). The map goes from ``/PATH/vars`` to one file or
several; the numbers of one layer's variables may be spread over them.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wio.adapters._keras3_tree import Tree, Variable, WeightsFile
from wio.errors import FormatError, printable
from wio.file_set import is_name
from wio.safetensors_header import parse_json
from wio.shard_index import split

MAP = ".weights.json"
NO_DIGEST = "0" * 16
_LARGEST = 100 << 20


def looks_sharded(path: Path) -> bool:
    """Whether a file is the map of a sharded ``.weights.h5``."""
    try:
        with path.open("rb") as file:
            if not file.read(64).lstrip().startswith(b"{"):
                return False
        weight_map = _weight_map(path)
    except (OSError, FormatError):
        return False
    files = [name for names in weight_map.values() for name in names]
    return bool(files) and all(name.endswith(".weights.h5") for name in files)


def read_shards(path: Path) -> Tree:
    """The one tree that the shards make up. Raises FormatError if they do not hold exactly what the map says."""
    weight_map = _weight_map(path)
    files = dict.fromkeys(name for names in weight_map.values() for name in names)
    groups: dict[str, dict[str, Any]] = {}
    variables: dict[str, Variable] = {}
    for name in files:
        tree = WeightsFile(_shard(path, name)).tree()
        for group, attributes in tree.groups.items():
            groups.setdefault(group, {}).update(attributes)
        for variable in tree.variables:
            owner = "/" + variable.path.rpartition("/")[0]
            if name not in weight_map.get(owner, ()):
                raise FormatError(f"{path.name}: {name} holds {variable.path!r}, which the map does not expect there")
            if variable.path in variables:
                raise FormatError(f"{path.name}: {variable.path!r} is in two shards")
            variables[variable.path] = variable
    held = {"/" + each.rpartition("/")[0] for each in variables}
    missing = [owner for owner in weight_map if owner not in held]
    if missing:
        raise FormatError(f"{path.name}: no shard holds {', '.join(map(printable, missing[:5]))}")
    place = {group: k for k, group in enumerate(groups)}
    ordered = sorted(variables.values(), key=lambda each: (place[each.path.rpartition("/")[0]], _number(each)))
    _refuse_gaps(path, ordered)
    return Tree(groups, tuple(ordered))


def shards_of(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Which variables each shard holds, in order: at most ``most`` bytes, or one variable that is larger."""
    return split(sizes, most) or [[]]


def first_name(path: Path) -> str:
    """The file that Keras opens before it looks at the map, and that therefore no set can have for itself alone."""
    return f"{path.name.removesuffix(MAP)}_00000.weights.h5"


def shard_name(path: Path, number: int, digest: str = NO_DIGEST) -> str:
    """A shard by its number, from 1, and the beginning of the SHA-256 of the file."""
    return f"{path.name.removesuffix(MAP)}_{number:05}_{digest[: len(NO_DIGEST)]}.weights.h5"


def shard_names(path: Path) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(path.name.removesuffix(MAP))}_\d{{5,}}_[0-9a-f]{{{len(NO_DIGEST)}}}\.weights\.h5")


def map_of(shards: Mapping[str, list[str]], total: int) -> str:
    """The text of the map: for each layer's variables the shard that holds them, or the shards."""
    files: dict[str, list[str]] = {}
    for name, held in shards.items():
        for variable in held:
            named = files.setdefault("/" + variable.rpartition("/")[0], [])
            if name not in named:
                named.append(name)
    weight_map = {owner: named[0] if len(named) == 1 else named for owner, named in files.items()}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=4)


def _number(variable: Variable) -> int:
    return int(variable.index) if variable.index.isascii() and variable.index.isdigit() else 0


def _refuse_gaps(path: Path, variables: list[Variable]) -> None:
    """A shard that lost an array leaves a gap in the numbers, or one fewer, which only the config can tell."""
    by_owner: dict[str, list[str]] = {}
    for variable in variables:
        by_owner.setdefault(variable.path.rpartition("/")[0], []).append(variable.index)
    for owner, numbers in by_owner.items():
        if all(number.isdigit() for number in numbers) and numbers != [str(k) for k in range(len(numbers))]:
            raise FormatError(f"{path.name}: the variables of {owner!r} are {', '.join(numbers)}: some are missing")


def _weight_map(path: Path) -> dict[str, list[str]]:
    try:
        if path.stat().st_size > _LARGEST:
            raise FormatError(f"{path.name}: larger than a weight map can be")
        document = parse_json(path.read_bytes(), path.name)
    except OSError as error:
        raise FormatError(f"{path.name}: cannot be read: {error.strerror}") from None
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict):
        raise FormatError(f"{path.name}: no weight_map: not the index of sharded weights")
    found: dict[str, list[str]] = {}
    for owner, names in weight_map.items():
        listed = [names] if isinstance(names, str) else names
        if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
            raise FormatError(f"{path.name}: the weight_map names no file for {printable(owner)!r}")
        found[owner] = list(listed)
    return found


def _shard(path: Path, name: str) -> Path:
    """A shard beside the map; a name that leads elsewhere, by its text or as a symbolic link, is refused."""
    if not is_name(name):
        raise FormatError(f"{path.name}: the shard {printable(name)!r} is not in the folder of the map")
    shard = path.with_name(name)
    try:
        kind = shard.lstat().st_mode
    except (OSError, ValueError):
        raise FormatError(
            f"{path.name}: the shard {printable(name)!r} is missing", remedy="fetch all shards into one folder"
        ) from None
    if not stat.S_ISREG(kind):
        raise FormatError(f"{path.name}: the shard {printable(name)!r} is no regular file in the folder of the map")
    return shard
