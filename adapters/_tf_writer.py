"""Writing V2 checkpoints: the data files, tensor by tensor, then the index that names them.

Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc (BundleWriter, WriteStringTensor, WriteVariantTensor),
naming.cc; tensorflow/core/protobuf/tensor_bundle.proto; python/training/checkpoint_management.py (`checkpoint`).
For the same tensors, given to it in the order of their names, TensorFlow's SaveV2 writes the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from wio.adapters._crc32c import crc32c
from wio.adapters._protobuf import FIXED32, LENGTH, VARINT
from wio.adapters._protobuf_writer import bytes_field, number_field, varint
from wio.adapters._tf_dtypes import DATA_TYPES
from wio.adapters._tf_paths import INDEX, shown
from wio.adapters._tf_table import masked
from wio.adapters._tf_table_writer import TableWriter
from wio.atomic import atomic_set
from wio.bundle import Bundle, Tensor
from wio.dtypes import DType
from wio.errors import FormatError, Problem, UsageError, WioError, printable

NUMBERS = {dtype.name: number for number, dtype in DATA_TYPES.items()}
# naming.cc writes five digits.
MOST_SHARDS = 99_999
_DATA_FILE = re.compile(r"\.data-\d{5,}-of-\d{5,}\Z")
# What is summed while it is still in the processor's cache.
_PIECE = 1 << 20
# BundleHeaderProto: num_shards 1, endianness 2 (little: 0, not written), version 3 with producer 1 = 1.
_VERSION = bytes((3 << 3 | LENGTH, 2, 1 << 3 | VARINT, 1))


def name_refusal(name: str) -> str | None:
    """Why no tensor of a checkpoint can have this name, or None."""
    if not name:
        return "a checkpoint keeps its header under the empty name"
    if name.startswith("\0"):
        return "a checkpoint keeps slices of partitioned variables under names that begin with a zero byte"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is no UTF-8"
    return None


def dtype_refusal(dtype: DType) -> str | None:
    """Why no tensor of a checkpoint can have this dtype, or None."""
    return None if dtype.name in NUMBERS else f"TensorFlow has no dtype {dtype} (types.proto)"


def shard_count(text: str) -> int:
    """The option ``shards`` as a number; UsageError if it is none that file names have room for."""
    if text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= MOST_SHARDS and len(text) <= 5:
        return int(text)
    raise UsageError(f"option shards takes a number from 1 to {MOST_SHARDS}, not {text!r}")


def write_v2(path: Path, bundle: Bundle, shards: int, *, state: bool) -> None:
    """Writes PREFIX.data-*, then PREFIX.index, then, with ``state``, the folder's `checkpoint` file.

    All are written beside their places, in full, before the first takes its place. The set is then complete with the
    renaming of the index. Until that moment, a checkpoint that had this prefix and as many shards has new data under
    its old index: whoever reads it then finds that values do not match their CRC-32C, never other values. Data files
    of an old checkpoint with another number of shards stay there unused, as TensorFlow leaves them.
    Raises WioError if the path cannot be a prefix, FormatError for tensors that a checkpoint cannot hold.
    """
    folder, base = _prefix(path, state=state)
    _refuse_what_does_not_fit(path, bundle)
    tensors = sorted((name.encode(), tensor) for name, tensor in bundle.items())
    with atomic_set(folder / (base + INDEX)) as files:
        # They take their places in this order.
        data = [files.file(f"{base}.data-{shard:05d}-of-{shards:05d}") for shard in range(shards)]
        index = files.file(base + INDEX)
        if state:
            files.file("checkpoint").write_bytes(_state(base))
        with index.open("wb") as file:
            table = TableWriter(file)
            table.add(b"", number_field(1, shards) + _VERSION)
            for key, entry in _written(tensors, data):
                table.add(key, entry)
            table.finish()


def _prefix(path: Path, *, state: bool) -> tuple[Path, str]:
    """Folder and base name of the checkpoint to write, so that reading the same path finds it again."""
    base = path.name.removesuffix(INDEX)
    if _DATA_FILE.search(base):
        raise WioError(
            f"{shown(path)}: a data file is no name for a checkpoint", remedy="name its prefix, as in out/model.ckpt"
        )
    prefix = path.with_name(base) if base else path.parent
    if base and prefix.is_dir():
        raise WioError(f"{shown(prefix)} is a folder", remedy=f"name a prefix in it: {shown(prefix / 'model.ckpt')}")
    if base and prefix.is_file():
        raise WioError(
            f"{shown(prefix)}: a file of that name is there, and would be read in place of the checkpoint",
            remedy="choose another prefix: a checkpoint is PREFIX.index and PREFIX.data-*",
        )
    if state and base == "checkpoint":
        raise WioError(
            f"{shown(prefix)}: its `checkpoint` file would take the name of the prefix",
            remedy="choose another prefix, or leave out state=yes",
        )
    return path.parent, base


def _refuse_what_does_not_fit(path: Path, bundle: Bundle) -> None:
    problems = [
        Problem("name" if name_refusal(name) else "dtype", refusal, name)
        for name, tensor in bundle.items()
        if (refusal := name_refusal(name) or dtype_refusal(tensor.dtype))
    ]
    if problems:
        raise FormatError(f"{shown(path)}: a checkpoint cannot hold every tensor", problems)


def _written(tensors: list[tuple[bytes, Tensor]], data: list[Path]) -> Iterator[tuple[bytes, bytes]]:
    """Writes the tensors into the data files; gives the key and the BundleEntryProto of each."""
    for shard, (file, part) in enumerate(zip(data, _shared_out(tensors, len(data)), strict=True)):
        with file.open("wb") as out:
            offset = 0
            for key, tensor in part:
                size, crc = _values(out, tensor)
                yield key, _entry(tensor, shard, offset, size, masked(crc))
                offset += size


def _shared_out(tensors: list[tuple[bytes, Tensor]], shards: int) -> list[list[tuple[bytes, Tensor]]]:
    """Runs of consecutive tensors of about the same number of bytes each; some are empty if there is too little."""
    total = sum(tensor.nbytes for _, tensor in tensors)
    parts: list[list[tuple[bytes, Tensor]]] = [[] for _ in range(shards)]
    before = 0
    for key, tensor in tensors:
        parts[min(before * shards // total, shards - 1) if total else 0].append((key, tensor))
        before += tensor.nbytes
    return parts


def _values(out: BinaryIO, tensor: Tensor) -> tuple[int, int]:
    """Writes the values of a tensor; gives the number of bytes and their CRC-32C as the entry must have it."""
    if tensor.dtype.name == "string":
        return _strings(out, _byte_strings(tensor))
    if tensor.dtype.name == "variant":
        return _variants(out, _byte_strings(tensor))
    data = tensor.stored()
    if len(data) != tensor.nbytes:
        raise FormatError(
            f"{printable(tensor.name)}: {len(data)} bytes were given where its shape takes {tensor.nbytes}"
        )
    crc = 0
    for at in range(0, len(data), _PIECE):
        piece = data[at : at + _PIECE]
        crc = crc32c(piece, crc)
        out.write(piece)
    return len(data), crc


def _byte_strings(tensor: Tensor) -> list[bytes]:
    items = [item.encode() if isinstance(item, str) else item for item in tensor.numpy().reshape(-1).tolist()]
    # bytes(5) would be five zero bytes, not an error.
    if odd := {type(item).__name__ for item in items if not isinstance(item, bytes)}:
        raise FormatError(f"{printable(tensor.name)}: its values are {', '.join(sorted(odd))}, not byte strings")
    return items


def _strings(out: BinaryIO, values: list[bytes]) -> tuple[int, int]:
    """Varint lengths, the masked CRC-32C of the lengths, the bytes. Both checksums take the lengths as uint32, one
    that needs more as uint64."""
    lengths = [len(value) for value in values]
    crc = crc32c(b"".join(length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths))
    check = masked(crc).to_bytes(4, "little")
    head = b"".join(map(varint, lengths))
    out.write(head + check)
    crc = crc32c(check, crc)
    for value in values:
        out.write(value)
        crc = crc32c(value, crc)
    return len(head) + len(check) + sum(lengths), crc


def _variants(out: BinaryIO, values: Iterable[bytes]) -> tuple[int, int]:
    """For each serialised VariantTensorDataProto a varint length, the bytes, and the masked CRC-32C of all before,
    the length taken as uint64."""
    size = crc = 0
    for value in values:
        crc = crc32c(value, crc32c(len(value).to_bytes(8, "little"), crc))
        check = masked(crc).to_bytes(4, "little")
        crc = crc32c(check, crc)
        size += out.write(varint(len(value)) + value + check)
    return size, crc


def _entry(tensor: Tensor, shard: int, offset: int, size: int, crc: int) -> bytes:
    """A BundleEntryProto: dtype 1, shape 2, shard_id 3, offset 4, size 5, crc32c 6. Zeros are not written (proto3),
    but the shape is, even a scalar's."""
    axes = b"".join(bytes_field(2, _number(1, extent)) for extent in tensor.shape)
    return (
        _number(1, NUMBERS[tensor.dtype.name])
        + bytes_field(2, axes)
        + _number(3, shard)
        + _number(4, offset)
        + _number(5, size)
        + (bytes((6 << 3 | FIXED32,)) + crc.to_bytes(4, "little") if crc else b"")
    )


def _number(field: int, value: int) -> bytes:
    return number_field(field, value) if value else b""


def _state(base: str) -> bytes:
    """A CheckpointState in text format that names this checkpoint alone, by a path relative to its folder."""
    name = "".join(_ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}") for byte in base.encode())
    return f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'.encode()


_ESCAPES = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", ord('"'): '\\"', ord("'"): "\\'", ord("\\"): "\\\\"}
