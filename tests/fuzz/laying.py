"""How an input becomes the files that a reader is given; :mod:`fuzz.readers` says which reader is given which."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz import seal, wire

# Between the files of an input that is several.
BREAK = b"\n%%\n"
Lay = Callable[[Path, bytes], Path]


def raw(name: str, sealed: Callable[[bytes], bytes] | None = None) -> Lay:
    """The input is the file, its checksums made right."""

    def lay(folder: Path, data: bytes) -> Path:
        (folder / name).write_bytes(sealed(data) if sealed else data)
        return folder / name

    return lay


def several(*names: str) -> Lay:
    """The input is several files; the first is read."""

    def lay(folder: Path, data: bytes) -> Path:
        for name, part in zip(names, data.split(BREAK, len(names) - 1), strict=False):
            (folder / name).write_bytes(part)
        return folder / names[0]

    return lay


# --- TensorFlow checkpoints


def tf_v1(folder: Path, data: bytes) -> Path:
    return raw("m", lambda each: seal.table(each)[0])(folder, data)


def tf_v1_records(folder: Path, data: bytes) -> Path:
    return raw("m", seal.table_of)(folder, _records(data)[0])


def tf_v2(folder: Path, data: bytes) -> Path:
    index, _, values = data.partition(BREAK)
    return _bundle(folder, index, values)


def tf_v2_records(folder: Path, data: bytes) -> Path:
    entries, values = _records(data)
    return _bundle(folder, seal.table_of(entries), values)


def _records(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A message of entries (1: key 1, value 2) and of the data file (2): tables as protobuf, for :mod:`fuzz.wire`."""
    entries, values = [], b""
    for number, _, value in wire.fields(data) or []:
        if number == 1 and isinstance(value, bytes):
            parts = {each[0]: each[2] for each in wire.fields(value) or [] if isinstance(each[2], bytes)}
            entries.append((parts.get(1, b""), parts.get(2, b"")))
        elif isinstance(value, bytes):
            values = value
    return entries, values


def _bundle(folder: Path, index: bytes, values: bytes) -> Path:
    index, values = seal.table(index, values)
    (folder / "m.index").write_bytes(index)
    (folder / "m.data-00000-of-00001").write_bytes(values)
    return folder / "m"


# --- Keras


def hdf5_attributes(files: Callable[[], list[bytes]]) -> Lay:
    """A byte for one of some files, then its model_config, its list of layers, that of the first layer's weights."""

    def lay(folder: Path, data: bytes) -> Path:
        import h5py
        import numpy as np

        path = folder / "m.h5"
        path.write_bytes(_chosen(files(), data))
        config, *names = data[1:].split(BREAK, 2)
        with h5py.File(path, "r+") as file:
            group = file.get("model_weights", file)
            if config:
                file.attrs["model_config"] = np.bytes_(config[:60_000])
            if names:
                group.attrs["layer_names"] = _texts(names[0])
            if len(names) == 2:
                group[next(iter(group))].attrs["weight_names"] = _texts(names[1])
        return path

    return lay


def _texts(lines: bytes) -> Any:
    """As many of the lines as an attribute of HDF5 has room for."""
    import numpy as np

    texts = lines[:30_000].split(b"\n")
    width = max(map(len, texts)) or 1
    return np.array(texts[: 60_000 // width], f"S{width}")


def keras_config(files: Callable[[], list[bytes]]) -> Lay:
    """A byte for one of some .keras files, then its config.json."""

    def lay(folder: Path, data: bytes) -> Path:
        path = folder / "m.keras"
        with zipfile.ZipFile(io.BytesIO(_chosen(files(), data))) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(zipfile.ZipInfo(name), data[1:] if name == "config.json" else old.read(name))
        return path

    return lay


def _chosen(files: list[bytes], data: bytes) -> bytes:
    return files[data[0] % len(files) if data else 0]


def beside(index: str, shards: Callable[[], dict[str, bytes]]) -> Lay:
    """The input is the index of shards that lie beside it."""

    def lay(folder: Path, data: bytes) -> Path:
        for name, content in shards().items():
            (folder / name).write_bytes(content)
        (folder / index).write_bytes(data)
        return folder / index

    return lay


# --- PyTorch


def torch_members(folder: Path, data: bytes) -> Path:
    """The pickle, the byte order if it is said, and the storages 0, 1, ..., as a zip archive."""
    pickle, *storages = data.split(BREAK, 16)
    path = folder / "m.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(zipfile.ZipInfo("archive/data.pkl"), pickle)
        if storages and storages[0] in (b"little", b"big"):
            file.writestr(zipfile.ZipInfo("archive/byteorder"), storages.pop(0))
        for key, storage in enumerate(storages):
            file.writestr(zipfile.ZipInfo(f"archive/data/{key}"), storage)
        file.writestr(zipfile.ZipInfo("archive/version"), b"3\n")
    return path


# --- Caffe


def prototxt(weights: Callable[[], bytes]) -> Lay:
    """The definition of a network whose weights lie beside it."""

    def lay(folder: Path, data: bytes) -> Path:
        (folder / "m.caffemodel").write_bytes(weights())
        (folder / "m.prototxt").write_bytes(data)
        return folder / "m.prototxt"

    return lay
