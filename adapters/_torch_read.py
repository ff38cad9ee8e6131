"""PyTorch files, zip and legacy, and TorchScript archives, as bundles.

Source: torch 2.13, ``torch/serialization.py`` (``_save``, ``_load``, ``_legacy_load``), ``docs/source/notes/
serialization.rst``, and for TorchScript ``torch/csrc/jit/docs/serialization.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wio.adapters._mapped_files import MappedFile
from wio.adapters._pickle import load
from wio.adapters._shards import is_index, open_shards
from wio.adapters._torch_bundle import Found, Storage, make_bundle
from wio.adapters._torch_pickle import StorageRef, persistent, resolve, resolve_script
from wio.adapters._zip import Member, ZipArchive, member_names
from wio.bundle import Bundle
from wio.errors import FormatError

# torch.serialization.MAGIC_NUMBER, as pickle protocol 2 writes it.
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PROTOCOL = 1001
# What the shards of an index are called: pytorch_model-00001-of-00002.bin, and so on.
SHARDS = (".bin", ".pt", ".pth")


def is_torch(path: Path) -> bool:
    """Whether a file is one of PyTorch's: a zip with its ``data.pkl``, the legacy magic number, an index of shards."""
    try:
        with path.open("rb") as file:
            head = file.read(len(LEGACY_MAGIC))
    except OSError:
        return False
    if head == LEGACY_MAGIC or any(_is_root(name) for name in member_names(path) or ()):
        return True
    return is_index(path, SHARDS)


def read(path: Path, *, check: bool, aliases: bool) -> Bundle:
    """The bundle of any of them. FormatError for what is none."""
    if is_index(path, SHARDS):
        return _read_sharded(path, check=check, aliases=aliases)
    return _read_file(path, check=check, aliases=aliases)


def _read_file(path: Path, *, check: bool, aliases: bool) -> Bundle:
    with_magic = MappedFile(path)
    head = bytes(with_magic.view[: len(LEGACY_MAGIC)])
    if head == LEGACY_MAGIC:
        return _read_legacy(with_magic, aliases)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(ZipArchive(path, check=check), aliases)
    if bytes(with_magic.view[257:262]) == b"ustar":
        raise FormatError(
            f"{with_magic}: a tar file, as PyTorch wrote before 0.2",
            remedy="load it with PyTorch (weights_only=False, if you trust it) and save it again",
        )
    raise FormatError(f"{with_magic}: is no file of torch.save")


# --- zip


def _is_root(name: str) -> bool:
    return name.endswith("/data.pkl") and name.count("/") == 1


class _MemberStorage(Storage, frozen=True):
    member: Member

    @property
    def size(self) -> int:
        return self.member.size

    @property
    def mapped(self) -> bool:
        return self.member.mapped

    def read(self) -> memoryview:
        return self.member.read()


def _read_zip(archive: ZipArchive, aliases: bool) -> Bundle:
    roots = [name for name in archive.members if _is_root(name)]
    if len(roots) != 1:
        old = any(name.endswith("/model.json") for name in archive.members)
        what = (
            "a TorchScript archive older than PyTorch 1.3" if old else "no one folder/data.pkl, as torch.save makes it"
        )
        raise FormatError(f"{archive}: a zip archive with {what}")
    folder = roots[0].removesuffix("data.pkl")
    big_endian = _byte_order(archive, folder) == "big"
    script = f"{folder}constants.pkl" in archive.members
    found: list[Found] = []
    parts = [("data.pkl", "data/", "")]
    if script:
        parts.append(("constants.pkl", "constants/", "CONSTANTS"))
    for pickle, storages, prefix in parts:
        name = folder + pickle
        value, end = load(
            archive.members[name].read(), 0, resolve_script if script else resolve, f"{archive}: {name}", persistent
        )
        if end != archive.members[name].size:
            raise FormatError(f"{archive}: {name}: bytes follow the end of the pickle")
        if prefix:
            # The code of the archive calls its constants CONSTANTS.c0, c1, ... in this order.
            constants = value if type(value) in (tuple, list) else ()
            value = {prefix: {f"c{index}": constant for index, constant in enumerate(constants)}}
        found.append(Found(value, _members(archive, folder + storages), storages, constant=bool(prefix)))
    kind = "torchscript" if script else "zip"
    return make_bundle(str(archive), found, kind, big_endian=big_endian, aliases=aliases)


def _byte_order(archive: ZipArchive, folder: str) -> str:
    """Little where the record is missing: PyTorch before 2.1 wrote none, on machines that were."""
    member = archive.members.get(f"{folder}byteorder")
    order = bytes(member.read()).decode("latin-1") if member is not None and member.size < 16 else "little"
    if order not in ("little", "big"):
        raise FormatError(f"{archive}: {folder}byteorder says {order!r}, neither little nor big")
    return order


def _members(archive: ZipArchive, folder: str) -> Callable[[StorageRef], Storage]:
    def storage(ref: StorageRef) -> Storage:
        member = archive.members.get(folder + ref.key)
        if member is None:
            raise FormatError(f"{archive}: storage {folder}{ref.key} is not in the archive")
        return _MemberStorage(member)

    return storage


# --- legacy


class _Slice(Storage, frozen=True):
    file: MappedFile
    start: int
    nbytes: int

    @property
    def size(self) -> int:
        return self.nbytes

    @property
    def mapped(self) -> bool:
        return True

    def read(self) -> memoryview:
        return self.file.bytes(self.start, self.start + self.nbytes)


def _read_legacy(file: MappedFile, aliases: bool) -> Bundle:
    """Pickles one after the other: magic, protocol, machine, the object, storage keys; then the storages themselves."""
    refs: dict[str, StorageRef] = {}

    def noted(saved: Any) -> StorageRef:
        ref = persistent(saved)
        first = refs.setdefault(ref.key, ref)
        if (first.nbytes, first.dtype) != (ref.nbytes, ref.dtype):
            raise FormatError(f"storage {ref.key} is given two sizes or dtypes")
        return ref

    at = len(LEGACY_MAGIC)
    protocol, at = load(file.view, at, resolve, f"{file}: the protocol")
    if protocol != _LEGACY_PROTOCOL:
        raise FormatError(f"{file}: its protocol is not {_LEGACY_PROTOCOL}, the only one there is")
    _, at = load(file.view, at, resolve, f"{file}: what it says of the machine")
    value, at = load(file.view, at, resolve, f"{file}: its pickle", noted)
    keys, at = load(file.view, at, resolve, f"{file}: its storage keys")
    spelled = [key.decode("latin-1") if type(key) is bytes else key for key in keys] if type(keys) is list else []
    texts = [key for key in spelled if type(key) is str]
    if len(texts) != len(spelled) or sorted(texts) != sorted(refs):
        raise FormatError(f"{file}: its storage keys are not those of its pickle")
    slices: dict[str, Storage] = {}
    for key in texts:
        ref = refs[key]
        itemsize = _itemsize(ref)
        count = int.from_bytes(file.view[at : at + 8], "little", signed=True)
        if at + 8 + ref.nbytes > file.size:
            raise FormatError(f"{file}: storage {key} goes beyond the end of the file; is it cut short?")
        if count * itemsize != ref.nbytes:
            raise FormatError(
                f"{file}: storage {key} has {count} elements where {ref.nbytes // itemsize} were announced"
            )
        slices[key] = _Slice(file, at + 8, ref.nbytes)
        at += 8 + ref.nbytes
    if at != file.size:
        raise FormatError(f"{file}: {file.size - at} bytes follow the last storage")
    return make_bundle(str(file), [Found(value, lambda ref: slices[ref.key], "")], "legacy", aliases=aliases)


def _itemsize(ref: StorageRef) -> int:
    from wio.dtypes import DTYPES

    return DTYPES[ref.dtype].itemsize if ref.dtype is not None else 1


# --- shards


def _read_sharded(path: Path, *, check: bool, aliases: bool) -> Bundle:
    """The tensors of all shards in the order of the index. A storage is shared within one shard at most."""

    def opened(shard: Path) -> Bundle:
        return _read_file(shard, check=check, aliases=aliases)

    weight_map, shards = open_shards(path, opened, lambda bundle: {**bundle, **_about(bundle).get("shared", {})})
    about: dict[str, Any] = {"kind": "sharded", "shards": len(shards)}
    for bundle in shards.values():
        for key, value in _about(bundle).items():
            if isinstance(value, dict):
                about[key] = {**about.get(key, {}), **value}
            elif isinstance(value, list):
                about[key] = [*about.get(key, []), *value]
    tensors = [shards[shard][name] for name, shard in weight_map.items() if name in shards[shard]]
    return Bundle(tensors, {"torch": about})


def _about(bundle: Bundle) -> dict[str, Any]:
    about: dict[str, Any] = bundle.metadata["torch"]
    return about
