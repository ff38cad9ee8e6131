"""The .npy dictionary of layers that caffe-tensorflow made: {layer: {weight: array}}, an array of one object, pickled.

Loaders of other networks (mtcnn) read {layer: [array, ...]}: the names of a list's arrays are their indices.

Written opcode by opcode, protocol 3, which every NumPy of Python 3 loads: ``np.load(path, allow_pickle=True).item()``.
Source of the forms: NumPy 1.16, ``ndarray.__reduce__`` and ``dtype.__reduce__``; ``pickletools`` for the opcodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wio.adapters._numpy_header import NATIVE, descr_of, object_head
from wio.atomic import atomic_output
from wio.bundle import Bundle, Tensor
from wio.errors import FormatError, Problem

# numpy.core and not numpy._core: older NumPys know only the former, newer ones both.
_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
_EMPTY = _RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
_STATE = b"(K\x01"
_LARGEST = (1 << 32) - 1


def layer_and_weight(name: str) -> tuple[str, str] | None:
    """The two keys that a tensor has, or None for a name that has no layer."""
    layer, slash, weight = name.rpartition("/")
    return (layer, weight) if slash and layer and weight else None


def lists_of(metadata: Mapping[str, Any]) -> frozenset[str]:
    """The layers that are lists, as the metadata of a bundle say."""
    about = metadata.get("numpy")
    stated = about.get("lists") if isinstance(about, Mapping) else None
    return frozenset(name for name in stated if isinstance(name, str)) if isinstance(stated, list) else frozenset()


def list_problems(names: Iterable[str], lists: Collection[str]) -> list[Problem]:
    """What keeps the arrays of a layer from being a list again: holes in it, and lists within lists."""
    problems = []
    held: dict[str, set[str]] = {}
    for name in names:
        layer, _, key = name.rpartition("/")
        outer = next((each for each in lists if layer.startswith(f"{each}/")), None)
        if outer is not None:
            what = f"stands deeper in the list {outer!r}: a list of a dictionary of layers holds arrays alone"
            problems.append(Problem("list", what, name, "--option kind=npz"))
        elif layer in lists:
            held.setdefault(layer, set()).add(key)
    for layer, keys in held.items():
        missing = [str(index) for index in range(len(keys)) if str(index) not in keys]
        if missing:
            what = f"is a list of {len(keys)} arrays without the one of index {missing[0]}"
            problems.append(Problem("list", what, layer, f"--drop '{layer}/*', or --option kind=npz"))
    return problems


def write_dictionary(path: Path, bundle: Bundle) -> None:
    """Writes tensors named ``layer/weight``, or ``layer/index`` where the bundle's metadata say that it is a list.

    FormatError for other names, for lists with holes, and for what NumPy cannot hold.
    """
    lists = lists_of(bundle.metadata)
    if wrong := list_problems(bundle, lists):
        raise FormatError("a dictionary of layers cannot be written", wrong)
    layers: dict[str, dict[str, Tensor]] = {}
    for tensor in bundle.values():
        keys = layer_and_weight(tensor.name)
        if keys is None or tensor.dtype.name not in NATIVE or tensor.nbytes > _LARGEST:
            raise FormatError(f"{tensor.name} ({tensor.dtype}): a dictionary of layers cannot hold it")
        layers.setdefault(keys[0], {})[keys[1]] = tensor
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        file.write(object_head())
        for part in _pickled(layers, lists):
            file.write(part)


def _pickled(layers: dict[str, dict[str, Tensor]], lists: Collection[str]) -> Iterator[bytes | memoryview]:
    yield b"\x80\x03" + _EMPTY + _STATE + b")" + _dtype("O8", "|") + b"\x89]"
    yield b"}("
    for layer, weights in layers.items():
        yield _text(layer)
        if layer in lists:
            yield b"]("
            for index in range(len(weights)):
                yield from _array(weights[str(index)])
            yield b"e"
            continue
        yield b"}("
        for name, tensor in weights.items():
            yield _text(name)
            yield from _array(tensor)
        yield b"u"
    yield b"ua" + b"tb."


def _array(tensor: Tensor) -> Iterator[bytes | memoryview]:
    yield _EMPTY + _STATE + _shape(tensor.shape) + _dtype(*_code(tensor)) + b"\x89"
    data = tensor.stored()
    yield b"B" + len(data).to_bytes(4, "little")
    yield data
    yield b"tb"


def _code(tensor: Tensor) -> tuple[str, str]:
    described = descr_of(tensor.dtype)
    return described[1:], described[0]


def _dtype(code: str, order: str) -> bytes:
    """``numpy.dtype(code, False, True)`` and its state; objects have a flag of their own (numpy: 63)."""
    flags = b"K\x3f" if code.startswith("O") else b"K\x00"
    made = b"cnumpy\ndtype\n" + _text(code) + b"\x89\x88\x87R"
    return made + b"(K\x03" + _text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + flags + b"tb"


def _shape(shape: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(_number(size) for size in shape) + b"t"


def _number(value: int) -> bytes:
    """LONG1, for sizes of any length."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(raw)]) + raw


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return b"X" + len(raw).to_bytes(4, "little") + raw
