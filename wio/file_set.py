"""Which files belong together: one file, or an index and the shards that it names."""

from __future__ import annotations

from pathlib import Path

from wio.errors import FormatError, Problem, WioError
from wio.safetensors_header import parse_object

INDEX = ".index.json"
MAX_INDEX = 100_000_000


def stands_for(path: Path) -> Path:
    """The file itself, or, where there is only the index of the set that it would be, that index."""
    index = path.with_name(path.name + INDEX)
    return index if path.name and not path.exists() and index.is_file() else path


def files_of(path: Path) -> tuple[Path, ...]:
    """The file, and after an index (``NAME.index.json``) its shards in the order in which it first names them.

    FormatError with every name that leads out of the folder of the index; WioError with every file that is not there
    or no regular one. Links are refused: what stands for a set must be the set.
    """
    shards: tuple[Path, ...] = ()
    if path.name.endswith(INDEX) and path.is_file():
        if path.stat().st_size > MAX_INDEX:
            raise FormatError(f"{path.name}: an index of more than {MAX_INDEX} bytes")
        shards = tuple(path.parent / name for name in shard_names(path.read_bytes(), path.name))
    files = (path, *shards)
    problems = [Problem("file", trouble, str(each)) for each in files if (trouble := _trouble(each)) is not None]
    if problems:
        raise WioError(f"{path.name} is not whole", problems)
    return files


def shard_names(raw: bytes, name: str) -> tuple[str, ...]:
    """The files that an index maps tensors to, each once; ``name`` is the index's own. FormatError as above."""
    weight_map = parse_object(raw, f"{name}: the index").get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise FormatError(f"{name}: an index without a weight_map from names to files")
    names = dict.fromkeys(weight_map.values())
    trouble = "is no file name in the folder of the index"
    if problems := [Problem("shard", trouble, repr(shard)) for shard in names if not is_name(shard)]:
        raise FormatError(f"{name}: names of shards are refused", problems)
    return tuple(names)


def is_name(name: str) -> bool:
    """Whether it names a file in a folder, and nothing outside it."""
    return bool(name) and name not in (".", "..") and not set(name) & {"/", "\\", "\0"}


def _trouble(path: Path) -> str | None:
    if path.is_symlink():
        return "is a link: name the file itself"
    if not path.exists():
        return "no such file"
    return None if path.is_file() else "is no regular file"
