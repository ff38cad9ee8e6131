"""Output files that are either the old one or the whole new one, whenever the process or the machine dies.

Everything is written in a hidden folder beside its place, ``.wio-HEX.tmp``, which is locked while its writer lives. The
kernel takes the lock from a dead one, so the next writer in that folder tells what was left behind from what is being
written, and removes it. The lock is on the folder and not on its files, for HDF5 locks those itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from wio.errors import WioError

_STAGING = re.compile(r"\.wio-[0-9a-f]{16}\.tmp")
# Held while the files of a set take their places; left behind, it is swept like any other.
_TURN = f".wio-{'0' * 16}.tmp"
# A folder that cannot be synced by itself: on some network and FUSE file systems, or one that may not be listed.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """A temporary path for ``path``; when the block ends well it is fsynced and takes the place of ``path``.

    A symbolic link is written through, also one that leads nowhere yet; of several hard links only this one gets the
    new file. The mode of an existing file is kept. On any error what was written is removed and ``path`` is as it was.
    So the output may be the input: readers of the old file keep what they opened. Raises WioError if the file cannot be
    written.
    """
    target = _target(path)
    with _outputs(path, target.parent, None) as files:
        yield files.file(target.name)


@contextlib.contextmanager
def atomic_set(path: Path, named_by_content: re.Pattern[str] | None = None) -> Iterator[OutputSet]:
    """Files of the folder of ``path`` that take their places together when the block ends well, one writer at a time.

    No file system renames two files at once. Where the format lets files have any name, those that match
    ``named_by_content`` have one that says what is in them: they are put in place first and take nobody's, and when
    the rest have taken theirs, older ones that match are removed. So whoever dies meanwhile leaves the old set or the
    new one. A set with fixed names can be caught between the two, and its reader must be able to tell.
    """
    with _outputs(path, Path(os.path.realpath(path.parent)), named_by_content) as files:
        yield files


class OutputSet:
    """The files of one output: each is written at a temporary path and takes its place, in the order asked for."""

    def __init__(self, path: Path, folder: Path, staging: Path, named_by_content: re.Pattern[str] | None) -> None:
        self._path, self._folder, self._staging = path, folder, staging
        self._named_by_content = named_by_content
        self._names: dict[Path, str] = {}
        self.changed = False

    def file(self, name: str) -> Path:
        """The temporary path, an empty file, of the one that will have this name. WioError if it cannot have it."""
        place = self._folder / name
        _refuse(place, self._path)
        if place.is_symlink():
            raise WioError(f"{place} is a symbolic link, and the files of a set lie in one folder", remedy="remove it")
        temporary = self.scratch(name)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        self._names[temporary] = name
        return temporary

    def scratch(self, name: str) -> Path:
        """A path for what is needed only while the block runs."""
        return self._staging / name

    def name(self, temporary: Path, name: str) -> None:
        """Gives a file its name at last, one that says what is in it."""
        _refuse(self._folder / name, self._path)
        self._names[temporary] = name

    def place(self) -> None:
        """Everything to the disk, then each file to its place."""
        for temporary, name in self._names.items():
            with contextlib.suppress(FileNotFoundError):
                temporary.chmod((self._folder / name).stat().st_mode & 0o7777)
            fsync(temporary)
        with _uninterrupted():
            if len(self._names) == 1:
                self._rename(self._names)
                _sync_folder(self._folder)
            else:
                self._place_together()

    def _place_together(self) -> None:
        pattern = self._named_by_content
        first = {t: name for t, name in self._names.items() if pattern is not None and pattern.fullmatch(name)}
        with _locked(self._folder / _TURN):
            if first:
                self._rename(first)
                # The file that names them must not reach the disk before they do.
                _sync_folder(self._folder)
            self._rename({t: name for t, name in self._names.items() if t not in first})
            _sync_folder(self._folder)
            if pattern is not None:
                for name in set(filter(pattern.fullmatch, _names(self._folder))).difference(first.values()):
                    with contextlib.suppress(OSError):
                        (self._folder / name).unlink()

    def _rename(self, files: dict[Path, str]) -> None:
        for temporary, name in files.items():
            temporary.replace(self._folder / name)
            self.changed = True


@contextlib.contextmanager
def staging(folder: Path | None = None) -> Iterator[Path]:
    """A new folder in ``folder`` for this block alone: locked, gone when it ends, swept later if the process dies.

    By default it lies in the system's folder for temporary files. ``tempfile`` leaves its own to whoever is killed.
    """
    if folder is None:
        from tempfile import gettempdir

        folder = Path(gettempdir())
    _sweep(folder)
    path = folder / f".wio-{os.urandom(8).hex()}.tmp"
    _Process.staged.add(path)
    try:
        with _locked(path):
            yield path
    finally:
        _Process.staged.discard(path)


def abandon(then: Callable[[bool], None]) -> None:
    """Removes all that is being written and calls ``then``, which ends the process.

    If files are taking their places just now, they do first. ``then`` is told whether any have. For handlers of
    signals: nothing is raised, for an exception could be lost in a destructor.
    """
    if _Process.placing:
        _Process.afterwards = then
        return
    for path in sorted(_Process.staged, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):
            _remove(path)
    then(_Process.placed)


class _Process:
    """What this process is writing, for a signal that ends it."""

    staged: ClassVar[set[Path]] = set()
    placing = placed = False
    afterwards: Callable[[bool], None] | None = None


@contextlib.contextmanager
def _outputs(path: Path, folder: Path, named_by_content: re.Pattern[str] | None) -> Iterator[OutputSet]:
    files: OutputSet | None = None
    try:
        with staging(folder) as temporary:
            files = OutputSet(path, folder, temporary, named_by_content)
            yield files
            files.place()
    except OSError as error:
        if files is None:
            raise WioError(f"cannot write to the folder of {path}: {error.strerror}") from error
        state = "it is not whole: write it again" if files.changed else "nothing was changed"
        raise WioError(f"writing {path} failed: {error.strerror or error}; {state}") from error


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    _Process.placing = True
    try:
        yield
        _Process.placed = True
    finally:
        _Process.placing = False
        then, _Process.afterwards = _Process.afterwards, None
        if then is not None:
            abandon(then)


def _target(path: Path) -> Path:
    """Where the file itself is, links followed; WioError if there can be none."""
    target = Path(os.path.realpath(path))
    _refuse(target, path)
    if target.is_symlink():
        raise WioError(f"{path} is a symbolic link that leads round in a circle", remedy="name a file to write")
    return target


def _refuse(target: Path, path: Path) -> None:
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise WioError(f"{path} cannot be written: {error.strerror}") from error
    if target.is_dir():
        raise WioError(f"{path} is a folder", remedy="name the file to write")
    if not target.is_symlink() and not target.is_file():
        raise WioError(f"{path} is no regular file, and would be replaced by one", remedy="name a file to write")
    if not os.access(target, os.W_OK) and not target.is_symlink():
        raise WioError(f"{path} is write-protected (mode {mode & 0o7777:04o})", remedy="allow it, or name another file")


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries)


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    try:
        fsync(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


# --- folders that are locked while they are in use


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Makes the folder, or waits for it, and holds it alone; removes it, with what it holds, at the end."""
    while True:
        made = False
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
            made = True
        try:
            descriptor = _open_folder(path)
        except FileNotFoundError:
            continue
        except OSError:
            if made:
                path.rmdir()
            raise
        try:
            # Where a file system has no locks nothing is swept either, for that takes one.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A sweeper, or who held it before, may have removed it while this one waited.
            if _is_at(path, descriptor):
                try:
                    yield
                    return
                finally:
                    with contextlib.suppress(OSError):
                        _empty(descriptor)
                        path.rmdir()
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Removes what dead writers left in the folder. What cannot be looked at or removed stays."""
    with contextlib.suppress(OSError):
        for name in filter(_STAGING.fullmatch, _names(folder)):
            with contextlib.suppress(OSError):
                _remove(folder / name, unlocked=True)


def _remove(path: Path, *, unlocked: bool = False) -> None:
    """Removes a folder; OSError if it should be ``unlocked`` and is not."""
    descriptor = _open_folder(path)
    try:
        if unlocked:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _empty(descriptor)
        path.rmdir()
    finally:
        os.close(descriptor)


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _empty(descriptor: int) -> None:
    """Removes what is in a folder, by its descriptor: no link that stands in its place now is followed."""
    for entry in os.scandir(descriptor):
        if entry.is_dir(follow_symlinks=False):
            import shutil

            shutil.rmtree(entry.name, dir_fd=descriptor)
        else:
            os.unlink(entry.name, dir_fd=descriptor)
