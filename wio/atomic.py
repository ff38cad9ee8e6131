"""Output files that are either the old one or the whole new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from wio.errors import WioError


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; when the block ends well it is fsynced and takes the place of ``path``.

    A symbolic link is written through, the mode of an existing file is kept, and on any error the temporary file is
    removed and ``path`` is as it was. So the output may be the input: readers of the old file keep what they opened.
    Raises WioError if the folder cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise WioError(f"{path} is a folder", remedy="name the file to write")
    if target.exists() and not target.is_file():
        raise WioError(f"{path} is no regular file, and would be replaced by one", remedy="name a file to write")
    temporary = target.with_name(f".{target.name[:40]}.{os.urandom(6).hex()}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise WioError(f"cannot write to the folder of {path}: {error.strerror}") from error
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(target.stat().st_mode & 0o7777)
        _fsync(temporary)
        temporary.replace(target)
        _fsync(target.parent)
    except OSError as error:
        raise WioError(f"writing {path} failed: {error.strerror or error}; nothing was changed") from error
    finally:
        temporary.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
