"""A program: an HDF5 file of any version, on standard input, becomes one of the oldest format on standard output.

Run by :mod:`wio.adapters._hdf5_newer` in a process of its own, because libhdf5 may crash, hang or take all memory over
what a stranger wrote. It imports nothing of wio, knows no path, and has done all that could need memory or time of
Python's own before it sets its limits. What it refuses it says on standard error and ends with 3; what it writes is
checked by who ran it. Values are carried as the bytes that are stored, chunks still packed: nothing is inflated here.
"""

from __future__ import annotations

import os
import sys
from typing import Any

REFUSED = 3
_ROOM = 256 << 20
_LARGEST_PART = 64 << 20
# Deflate, shuffle, Fletcher's checksum: what wio unpacks.
_FILTERS = (1, 2, 3)


class RefusedError(Exception):
    """What wio does not read."""


def copy(source: int, target: int) -> None:
    """Copies what an open file has into another, in the layout of HDF5 1.6."""
    import h5py

    size = os.fstat(source).st_size
    runs: list[tuple[int, int, int]] = []
    with (
        os.fdopen(source, "rb", 0, closefd=False) as old_bytes,
        os.fdopen(target, "w+b", 0, closefd=False) as new_bytes,
        h5py.File(old_bytes, "r", track_order=False) as old,
        h5py.File(new_bytes, "w", libver=("earliest", "v110"), track_order=False) as new,
    ):
        _group(h5py, old["/"].id, new["/"].id, size, runs)
    for start, place, length in runs:
        for at in range(0, length, _LARGEST_PART):
            part = os.pread(source, min(_LARGEST_PART, length - at), start + at)
            if os.pwrite(target, part, place + at) != len(part):
                raise OSError("no room for the copy")


def _group(h5py: Any, old: Any, new: Any, size: int, runs: list[tuple[int, int, int]]) -> None:
    copies = {h5py.h5o.get_info(old).addr: new}
    _attributes(h5py, old, new)
    waiting = [(old, new)]
    while waiting:
        old, new = waiting.pop()
        for name in old:
            if old.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise RefusedError(f"{name!r} is a link to elsewhere, which wio does not follow")
            if not name or b"/" in name or name == b".":
                raise RefusedError(f"{name!r} is no name")
            found = h5py.h5o.open(old, name)
            address = h5py.h5o.get_info(found).addr
            if address in copies:
                new.links.create_hard(name, copies[address], b".")
                continue
            if isinstance(found, h5py.h5g.GroupID):
                made = h5py.h5g.create(new, name)
                waiting.append((found, made))
            elif isinstance(found, h5py.h5d.DatasetID):
                made = _array(h5py, found, new, name, size, runs)
            else:
                raise RefusedError(f"{name!r} is neither group nor array")
            copies[address] = made
            _attributes(h5py, found, made)


def _attributes(h5py: Any, old: Any, new: Any) -> None:
    import numpy as np

    for k in range(h5py.h5a.get_num_attrs(old)):
        found = h5py.h5a.open(old, index=k, index_type=h5py.h5.INDEX_NAME, order=h5py.h5.ITER_INC)
        kind, space = _type(h5py, found), found.get_space()
        made = h5py.h5a.create(new, found.name, kind, space)
        count = space.get_simple_extent_npoints()
        if count * kind.get_size() > _LARGEST_PART:
            raise RefusedError(f"attribute {found.name!r} is too large")
        if not count or space.get_simple_extent_type() == h5py.h5s.NULL:
            continue
        if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
            values = np.empty(found.shape, found.dtype)
            kind = h5py.h5t.py_create(found.dtype)
        elif _plain(h5py, kind):
            values = np.empty(found.shape, f"V{kind.get_size()}")
        else:
            raise RefusedError(f"attribute {found.name!r} is of a type that Keras never writes")
        found.read(values, mtype=kind)
        made.write(values, mtype=kind)


def _type(h5py: Any, old: Any) -> Any:
    """The type, made anew where NumPy can say it: one that was read insists on the version it was written in."""
    kind = old.get_type()
    try:
        fresh = h5py.h5t.py_create(kind.dtype, logical=True)
    except (TypeError, ValueError):
        return kind.copy()
    return fresh if fresh == kind else kind.copy()


def _plain(h5py: Any, kind: Any) -> bool:
    """Whether values of a type are the bytes that are stored, and lead nowhere."""
    text = isinstance(kind, h5py.h5t.TypeStringID)
    if text or isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeOpaqueID)):
        return not (text and kind.is_variable_str())
    if isinstance(kind, h5py.h5t.TypeEnumID):
        return True
    members = range(kind.get_nmembers()) if isinstance(kind, h5py.h5t.TypeCompoundID) else ()
    return bool(members) and all(_plain(h5py, kind.get_member_type(k)) for k in members)


def _array(h5py: Any, old: Any, group: Any, name: bytes, size: int, runs: list[tuple[int, int, int]]) -> Any:
    import numpy as np

    kind, space, plan = _type(h5py, old), old.get_space(), old.get_create_plist()
    if not _plain(h5py, kind):
        raise RefusedError(f"{name!r} holds values of a type that no weights are")
    layout = plan.get_layout()
    if layout == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise RefusedError(f"{name!r} keeps its values in another file, which wio does not read")
    packed = [plan.get_filter(k) for k in range(plan.get_nfilters())]
    if unknown := [each[0] for each in packed if each[0] not in _FILTERS]:
        raise RefusedError(f"{name!r}: values packed by filter {unknown[0]}, which wio does not run; store them plain")
    wanted = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    wanted.set_obj_track_times(False)
    if plan.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED and old.dtype.kind in "biufc":
        value = np.zeros((), old.dtype)
        plan.get_fill_value(value)
        wanted.set_fill_value(value)
    if layout == h5py.h5d.CHUNKED:
        wanted.set_chunk(plan.get_chunk())
        for identifier, flags, values, *_ in packed:
            wanted.set_filter(identifier, flags, values)
        made = h5py.h5d.create(group, name, kind, space, wanted)
        for k in range(old.get_num_chunks()):
            each = old.get_chunk_info(k)
            if each.size > _LARGEST_PART:
                raise RefusedError(f"{name!r} has a chunk of {each.size:,} bytes, which is too large")
            mask, contents = old.read_direct_chunk(each.chunk_offset)
            made.write_direct_chunk(each.chunk_offset, contents, mask)
        return made
    start, stored = old.get_offset(), old.get_storage_size()
    if start is not None and stored:
        if start + stored > size:
            raise RefusedError(f"{name!r} reaches beyond the end of the file")
        wanted.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        wanted.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        made = h5py.h5d.create(group, name, kind, space, wanted)
        if made.get_storage_size() != stored:
            raise RefusedError(f"{name!r} stores {stored:,} bytes, and declares others")
        runs.append((start, made.get_offset(), stored))
        return made
    made = h5py.h5d.create(group, name, kind, space, wanted)
    if layout == h5py.h5d.COMPACT and stored:
        values = np.empty(old.shape, f"V{kind.get_size()}")
        old.read(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=kind)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=kind)
    return made


def _limit(seconds: int, largest: int) -> None:
    """From here on: CPU seconds, the size of the copy, and memory beyond what the imports took. Not on Windows."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  (pathlib is not needed otherwise)
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))


def main(seconds: str, largest: str, *paths: str) -> int:
    sys.path[:] = paths
    import h5py
    import numpy

    _limit(int(seconds), int(largest))
    try:
        copy(0, 1)
    except RefusedError as error:
        message = str(error)
    except MemoryError:
        message = "it asks for more room than such a file needs"
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        message = f"libhdf5 {h5py.version.hdf5_version}, NumPy {numpy.__version__}: {error}"
    else:
        return 0
    os.write(2, message.encode("utf-8", "backslashreplace")[:1000])
    return REFUSED


if __name__ == "__main__":
    # Past the end of the interpreter, where libhdf5 closes what it holds open of a damaged file.
    os._exit(main(*sys.argv[1:]))
