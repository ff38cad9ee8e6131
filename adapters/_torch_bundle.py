"""From the values of a PyTorch pickle to a bundle: names, views of storages, and what is shared."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from wio.adapters._pickle import Attributed
from wio.adapters._pickle_values import described, leaves
from wio.adapters._torch_pickle import Refused, StorageRef, TensorRef
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES, DType
from wio.errors import FormatError, Problem
from wio.lazy import Array, np
from wio.recurrent import KEY, direction_layers

# A view may repeat its storage (stride 0). Above this many bytes, what the file really holds must account for it.
_MOST_REPEATED = 64 << 20
# Views may overlap: all of them together, in multiples of what their storages hold.
_MOST_SHARED = 4
_MOST_OTHER = 10_000


class Storage(Struct, frozen=True):
    """The bytes of a storage, read when asked for."""

    @property
    def size(self) -> int:
        raise NotImplementedError

    @property
    def mapped(self) -> bool:
        raise NotImplementedError

    def read(self) -> memoryview:
        raise NotImplementedError


class Found(Struct, frozen=True):
    """One pickle's value, where its storages are, and a label that keeps those of two pickles apart."""

    value: Any
    storages: Callable[[StorageRef], Storage]
    label: str
    constant: bool = False


def make_bundle(
    file: str, found: Iterable[Found], kind: str, *, big_endian: bool = False, aliases: bool = False
) -> Bundle:
    """The bundle; one FormatError names every tensor that is malformed or of a kind that is not read.

    A second name of the very same tensor is kept as a tensor only with ``aliases``; it is always in
    ``metadata["torch"]["shared"]``, as are views of one storage that are not the same tensor in ``"views"``.
    """
    tensors: dict[str, Tensor] = {}
    problems: list[Problem] = []
    other: dict[str, Any] = {}
    shared: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    on_storage: dict[tuple[str, str], list[str]] = {}
    elements: dict[tuple[str, str], str | None] = {}
    held: dict[tuple[str, str], int] = {}
    left_out = 0
    for part in found:
        try:
            listed = list(leaves(part.value, "."))
        except FormatError as error:
            raise FormatError(f"{file}: {error.message}") from None
        for name, value in listed:
            if isinstance(value, Refused):
                problems.append(Problem("unsupported", f"is {value.why}", name, "leave it out where the file is saved"))
                continue
            if not isinstance(value, TensorRef):
                if len(other) < _MOST_OTHER:
                    other[name] = described(value)
                else:
                    left_out += 1
                continue
            stored = elements.setdefault((part.label, value.storage.key), value.storage.dtype)
            if stored != value.storage.dtype:
                # PyTorch saves no such file, and takes the first of them for both.
                what = f"storage {value.storage.key} holds {value.storage.dtype} here and {stored} elsewhere"
                problems.append(Problem("malformed", what, name))
                continue
            try:
                tensor = _tensor(file, name, value, part, big_endian)
            except FormatError as error:
                problems.append(Problem("malformed", error.message, name, error.remedy))
                continue
            if name in tensors or name in shared:
                problems.append(Problem("twice", "two tensors have this name once their keys are joined", name))
                continue
            identity = (part.label, *value.identity)
            if identity in first and value.storage.size:
                shared[name] = first[identity]
                if aliases:
                    tensors[name] = tensor
                continue
            first[identity] = name
            tensors[name] = tensor
            on_storage.setdefault((part.label, value.storage.key), []).append(name)
            held[part.label, value.storage.key] = value.storage.nbytes
    if problems:
        raise FormatError(f"{file}: {len(problems)} of its tensors cannot be read", problems)
    claimed = sum(tensor.nbytes for tensor in tensors.values())
    if claimed > _MOST_REPEATED + _MOST_SHARED * sum(held.values()):
        raise FormatError(
            f"{file}: its tensors are {claimed:,} bytes, their storages {sum(held.values()):,}: refused as a bomb",
            remedy="save each tensor after .clone()",
        )
    about: dict[str, Any] = {"kind": kind}
    if shared:
        about["shared"] = shared
    views = [names for names in on_storage.values() if len(names) > 1]
    if views:
        about["views"] = views
    if other:
        about["other"] = {**other, **({"...": f"and {left_out} more"} if left_out else {})}
    about |= _module_metadata([part.value for part in found])
    recurrent, layers = _recurrent_layers(tensors)
    named = (replace(t, layer=layers[name]) if name in layers else t for name, t in tensors.items())
    return Bundle(named, {"torch": about, **({KEY: recurrent} if recurrent else {})})


# torch.nn.RNNBase: one module keeps the weights of all its layers and of both directions.
_RNN_BASE = re.compile(r"(?:(.*)\.)?(?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d{1,4})(_reverse)?")


def _recurrent_layers(names: Iterable[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What the names that RNNBase gives say: which tensors are of one layer and direction, and nothing of their roles.

    The layers of a module ``rnn`` are called ``rnn``, ``rnn_l1``, ...; the two directions as Keras calls them.
    """
    facts: dict[str, dict[str, Any]] = {}
    found: dict[str, tuple[str, bool]] = {}
    for name in names:
        match = _RNN_BASE.fullmatch(name)
        if match is None:
            continue
        module, level = match[1] or "", int(match[2])
        layer = f"{module}_l{level}" if level else module
        found[name] = (layer, match[3] is not None)
        if level:
            facts.setdefault(layer, {}).update(module=module, level=level)
        if match[3]:
            facts.setdefault(layer, {})["directions"] = list(direction_layers(layer))
    layers = {}
    for name, (layer, backward) in found.items():
        directions = facts.get(layer, {}).get("directions")
        layers[name] = directions[backward] if directions else layer
    return facts, layers


def _module_metadata(values: list[Any]) -> dict[str, Any]:
    """The ``_metadata`` that a state_dict carries: the version of each module's part, by the module's path."""
    root = values[0]
    stated = root.attributes.get("_metadata") if isinstance(root, Attributed) else None
    if not isinstance(stated, dict):
        return {}
    kept = {
        path: {key: value for key, value in facts.items() if type(key) is str and type(value) in (int, bool, str)}
        for path, facts in stated.items()
        if type(path) is str and isinstance(facts, dict)
    }
    return {"metadata": kept} if kept else {}


def _tensor(file: str, name: str, ref: TensorRef, part: Found, big_endian: bool) -> Tensor:
    dtype = DTYPES[ref.dtype]
    storage = part.storages(ref.storage)
    if storage.size != ref.storage.nbytes:
        raise FormatError(
            f"storage {ref.storage.key} has {storage.size} bytes where {ref.storage.nbytes} were announced"
        )
    _check_view(ref, dtype)
    swapped = big_endian and dtype.itemsize > 1
    start = ref.storage.offset + ref.offset * dtype.itemsize
    end = start + math.prod(ref.shape) * dtype.itemsize
    straight = _is_contiguous(ref) and not (swapped or ref.conj or ref.neg)

    def data() -> memoryview:
        try:
            return storage.read()
        except FormatError as error:
            raise type(error)(f"{error.message} (tensor {name!r})", error.problems, error.remedy) from None

    def raw() -> memoryview:
        return data()[start:end]

    def load() -> Array:
        try:
            return _array(data(), ref, dtype, swapped=swapped)
        except (ValueError, TypeError) as error:
            raise FormatError(f"{file}: {name}: NumPy cannot hold it: {error}") from None

    layer = name.rpartition(".")[0]
    return Tensor(name, dtype, ref.shape, load, layer=name if part.constant else layer, raw=raw if straight else None)


def _check_view(ref: TensorRef, dtype: DType) -> None:
    # Sizes of 0 are left out: NumPy multiplies the sizes before it looks for one.
    if math.prod(size for size in ref.shape if size) * dtype.itemsize >= 2**63:
        raise FormatError("its shape overflows every integer")
    if 0 in ref.shape:
        return
    last = ref.offset + sum((size - 1) * stride for size, stride in zip(ref.shape, ref.strides, strict=True))
    held = ref.storage.size // dtype.itemsize
    if last >= held:
        raise FormatError(f"reaches element {last} of storage {ref.storage.key}, which has {held}")
    claimed = math.prod(ref.shape) * dtype.itemsize
    if claimed > max(ref.storage.size, _MOST_REPEATED):
        raise FormatError(
            f"repeats the {ref.storage.size} bytes of its storage until they are {claimed}: refused",
            remedy="save what it repeats, or the tensor after .contiguous()",
        )


def _is_contiguous(ref: TensorRef) -> bool:
    expected = 1
    for size, stride in zip(reversed(ref.shape), reversed(ref.strides), strict=True):
        if size != 1 and stride != expected:
            return 0 in ref.shape
        expected *= size
    return True


def _array(data: memoryview, ref: TensorRef, dtype: DType, *, swapped: bool) -> Array:
    target = dtype.numpy
    start = ref.storage.offset + ref.offset * dtype.itemsize
    if 0 in ref.shape:
        return np.empty(ref.shape, target)
    if swapped:
        # The parts of a complex number are swapped one by one; ml_dtypes' types only as integers.
        width = dtype.itemsize // 2 if dtype.numpy.kind == "c" else dtype.itemsize
        whole = data[ref.storage.offset : ref.storage.offset + ref.storage.size]
        parts = np.frombuffer(whole, f">u{width}").astype(f"<u{width}")
        data, start = parts.view(np.uint8).data, ref.offset * dtype.itemsize
    strides = tuple(stride * dtype.itemsize for stride in ref.strides)
    view = np.ndarray(ref.shape, target, buffer=data, offset=start, strides=_within(ref.shape, strides))
    if ref.conj:
        view = np.conjugate(view)
    if ref.neg:
        view = np.negative(view)
    return np.ascontiguousarray(view).reshape(ref.shape)


def _within(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of axes of length 1 count for nothing, and may be larger than NumPy's integers."""
    return tuple(stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True))
