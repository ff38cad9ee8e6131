"""Architectures and dialects that a user added: registry files in a folder of the user's own (spec/registry-1.md)."""

from __future__ import annotations

from pathlib import Path

from wio.architectures.habit import is_habit, load_habit
from wio.architectures.registry_file import file_name, load_architecture
from wio.atomic import atomic_output
from wio.errors import FormatError, UsageError
from wio.file_set import is_name
from wio.plugins import registry_folders, user_registry


def check(path: Path) -> tuple[str, bool]:
    """The id in a registry file, and whether it is of a dialect without an architecture.

    FormatError with all that is wrong with the file, every dialect of it included.
    """
    if is_habit(path):
        return load_habit(path).id, True
    return load_architecture(path).id, False


def add(path: Path, *, replace: bool = False) -> Path:
    """Copies a registry file, checked, to where every later command finds it, and gives that place.

    UsageError if that id is described in another registry, or differently in the user's own and not to be replaced.
    """
    identity, habit = check(path)
    name = file_name(identity)
    if not is_name(name) or name.startswith("."):
        raise FormatError(f"{path.name}: the id {identity!r} gives no file name", remedy="letters, digits and -")
    inside = Path("dialects", name) if habit else Path(name)
    own = user_registry()
    for folder in registry_folders():
        if folder != own and (folder / inside).exists():
            raise UsageError(f"{identity!r} is described already, by {folder / inside}", remedy="give it another id")
    target, content = own / inside, path.read_bytes()
    if target.exists() and target.read_bytes() != content and not replace:
        raise UsageError(
            f"{identity!r} was added already, and differs: {target}", remedy="--replace puts this in its place"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(target) as temporary:
        temporary.write_bytes(content)
    return target
