"""A state_dict written as ``torch.save`` writes one, and as ``torch.load(weights_only=True)`` takes it.

Source: torch 2.13, ``torch/serialization.py`` (``_save``) and ``torch/_utils.py``: one pickle of protocol 2, each
storage a stored member at a multiple of 64 bytes. The folder inside is always ``archive``: the name of the file is no
part of its content.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wio.adapters._torch_pickle import STORAGE_CLASS, WRITABLE
from wio.adapters._zip_writer import ZipWriter
from wio.atomic import atomic_output
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError

_FOLDER = "archive/"


def write_state_dict(path: Path, bundle: Bundle) -> None:
    """Writes every tensor of a bundle under its name, in order; names that share a tensor share its storage."""
    wrong = [f"{tensor.name} ({tensor.dtype})" for tensor in bundle.values() if tensor.dtype.name not in WRITABLE]
    if wrong:
        raise FormatError(f"PyTorch has no dtype for {', '.join(wrong[:5])}", remedy="leave them out with --drop")
    keys = {name: str(index) for index, name in enumerate(bundle)}
    about = bundle.metadata.get("torch") or {}
    names = {name: name for name in bundle}
    for alias, name in about.get("shared", {}).items():
        if name in bundle:
            names.setdefault(alias, name)
    pickle = _pickled(names, bundle, keys, about.get("metadata"))
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        archive = ZipWriter(file)
        archive.add(_FOLDER + "data.pkl", pickle)
        archive.add(_FOLDER + "byteorder", b"little")
        for name, key in keys.items():
            data = bundle[name].stored()
            if len(data) != bundle[name].nbytes:
                raise FormatError(f"{name}: {bundle[name].nbytes} bytes announced, the source gave {len(data)}")
            archive.add(f"{_FOLDER}data/{key}", data)
        archive.add(_FOLDER + "version", b"3\n")
        archive.close()


_MARK, _TUPLE, _REDUCE, _FALSE, _EMPTY_TUPLE, _SETITEMS = b"(", b"t", b"R", b"\x89", b")", b"u"


def _pickled(names: Mapping[str, str], bundle: Bundle, keys: Mapping[str, str], metadata: Any) -> bytes:
    """OrderedDict of name -> tensor, with its ``_metadata`` where there is one."""
    out = bytearray(b"\x80\x02")
    out += _ORDERED_DICT + _MARK
    for name, source in names.items():
        out += _text(name) + _tensor(bundle[source], keys[source])
    out += _SETITEMS
    if isinstance(metadata, dict):
        out += b"}" + _text("_metadata") + _ORDERED_DICT + _MARK
        for path, facts in metadata.items():
            out += _text(path) + b"}" + _MARK
            for key, value in facts.items():
                out += _text(key) + _plain(value)
            out += _SETITEMS
        out += _SETITEMS + b"sb"
    return bytes(out + b".")


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode("ascii")


_ORDERED_DICT = _global("collections", "OrderedDict") + _EMPTY_TUPLE + _REDUCE


def _tensor(tensor: Tensor, key: str) -> bytes:
    """``_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())``; v3 where no storage has the dtype."""
    strides = [math.prod(size or 1 for size in tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
    storage_class = STORAGE_CLASS.get(tensor.dtype.name)
    if storage_class is not None:
        function, kind, count = "_rebuild_tensor_v2", _global("torch", storage_class), tensor.size
        dtype = b""
    else:
        function, kind, count = "_rebuild_tensor_v3", _global("torch.storage", "UntypedStorage"), tensor.nbytes
        dtype = _global("torch", tensor.dtype.name)
    storage = _MARK + _text("storage") + kind + _text(key) + _text("cpu") + _int(count) + _TUPLE + b"Q"
    arguments = storage + _int(0) + _ints(tensor.shape) + _ints(strides) + _FALSE + _ORDERED_DICT + dtype
    return _global("torch._utils", function) + _MARK + arguments + _TUPLE + _REDUCE


def _ints(values: Any) -> bytes:
    return _MARK + b"".join(map(_int, values)) + _TUPLE


def _int(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _text(value: str) -> bytes:
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError(f"{value!r} cannot be the name of a tensor: it is no Unicode text") from None
    return b"X" + struct.pack("<I", len(raw)) + raw


def _plain(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    return _int(value) if isinstance(value, int) and abs(value) < 2**63 else _text(str(value))
