"""What PyTorch's pickles are made of: the exact table of globals that are let in, and the values they become.

Source: torch 2.13, ``torch/_utils.py`` (the ``_rebuild_*`` functions and their arguments), ``torch/storage.py`` (the
classes of storages), ``torch/_weights_only_unpickler.py`` (what PyTorch itself lets in), and for TorchScript
``torch/csrc/jit/serialization/unpickler.cpp``.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from wio.adapters._pickle import Built, Constant, Function, Kind
from wio.adapters._pickle_values import ENCODE, ORDERED_DICT, Leaf, as_text
from wio.errors import FormatError

MOST_AXES = 64
_MOST = 2**63
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_QUANTISED = ("QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage")
# torch's name -> wio's, where the two differ.
_DTYPES = {
    **{name: name for name in _STORAGES.values()},
    **{name: name for name in ("uint16", "uint32", "uint64")},
    **{f"float8_{kind}": f"float8_{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")},
}
_OTHER_DTYPES = (
    *("qint8", "quint8", "qint32", "quint4x2", "quint2x4", "complex32", "float4_e2m1fn_x2"),
    *("bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
)
STORAGE_CLASS = {dtype: name for name, dtype in _STORAGES.items()}
WRITABLE = frozenset(_DTYPES.values())


class StorageRef(Struct, frozen=True):
    """A storage as a pickle refers to it: ``dtype`` is None for untyped bytes, ``offset`` a legacy view's, in bytes."""

    key: str
    dtype: str | None
    nbytes: int
    size: int
    offset: int = 0
    refused: str | None = None


class TensorRef(Struct, frozen=True, eq=False):
    """A view of a storage; ``offset`` and ``strides`` count elements."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conj: bool = False
    neg: bool = False

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two names of one tensor."""
        return (self.storage.key, self.storage.offset, self.dtype, self.offset, self.shape, self.strides, self.conj,
                self.neg)  # fmt: skip


class Refused(Struct, frozen=True, eq=False):
    """A tensor of a kind that wio does not read, and why."""

    why: str


def resolve(module: str, name: str) -> Function | Kind | Constant | None:
    """The globals of a state_dict."""
    if module == "torch.cuda" and name in _STORAGES:
        module = "torch"
    return _GLOBALS.get((module, name))


def resolve_script(module: str, name: str) -> Function | Kind | Constant | None:
    """The globals of a TorchScript archive: those of a state_dict, its own functions, its own classes."""
    if module == "__torch__" or module.startswith("__torch__."):
        return Kind(f"{module}.{name}")
    if module == "torch.jit._pickle":
        return _SCRIPT.get(name)
    return resolve(module, name)


def persistent(saved: Any) -> StorageRef:
    """The storage that a persistent id names: ('storage', class, key, location, count[, view])."""
    if type(saved) is not tuple or not saved or as_text(saved[0]) != "storage" or len(saved) not in (5, 6):
        what = as_text(saved[0]) if type(saved) is tuple and saved else None
        if what == "module":
            raise FormatError(
                "a pickled module, not a state_dict: refused",
                remedy="load it where its code is, and save model.state_dict()",
            )
        raise FormatError("a persistent id that names no storage")
    kind = saved[1].value if isinstance(saved[1], Constant) else None
    key, location = as_text(saved[2]), as_text(saved[3])
    if not isinstance(kind, StorageKind) or key is None or location is None:
        raise FormatError("a storage without class, key or location")
    count = _size(saved[4], "the size of a storage")
    ref = StorageRef(key, kind.dtype, count * kind.itemsize, count * kind.itemsize, 0, kind.refused)
    view = saved[5] if len(saved) == 6 else None
    if view is None:
        return ref
    if type(view) is not tuple or len(view) != 3:
        raise FormatError("a view of a storage that is no key, offset and size")
    offset, size = (_size(part, "a view of a storage") * kind.itemsize for part in view[1:])
    if offset + size > ref.nbytes:
        raise FormatError(f"a view of storage {key} goes beyond its end")
    return replace(ref, offset=offset, size=size)


class StorageKind(Struct, frozen=True):
    dtype: str | None
    itemsize: int
    refused: str | None = None


def _size(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise FormatError(f"{what} is no size")
    return value


def _sizes(value: Any, what: str) -> tuple[int, ...]:
    if type(value) not in (tuple, list) or len(value) > MOST_AXES:
        raise FormatError(f"{what} is no list of at most {MOST_AXES} sizes")
    return tuple(_size(item, what) for item in value)


# --- the functions that rebuild tensors


def _view(arguments: tuple[Any, ...], dtype: Any, metadata: Any) -> TensorRef | Refused:
    storage = arguments[0]
    if not isinstance(storage, StorageRef):
        raise FormatError("a tensor is rebuilt from something that is no storage")
    refused = storage.refused or (None if dtype is None else _refused_dtype(dtype))
    if refused:
        return Refused(refused)
    name = storage.dtype if dtype is None else dtype.value.name
    if name is None:
        raise FormatError("a tensor of an untyped storage without a dtype")
    offset = _size(arguments[1], "the offset of a tensor")
    shape, strides = _sizes(arguments[2], "a shape"), _sizes(arguments[3], "strides")
    if len(shape) != len(strides):
        raise FormatError(f"a tensor with {len(shape)} axes and {len(strides)} strides")
    flags = metadata if isinstance(metadata, dict) else {}
    return TensorRef(storage, name, offset, shape, strides, bool(flags.get("conj")), bool(flags.get("neg")))


class TorchDtype(Struct, frozen=True):
    name: str
    known: bool


def _refused_dtype(dtype: Any) -> str | None:
    if not isinstance(dtype, Constant) or not isinstance(dtype.value, TorchDtype):
        raise FormatError("a tensor is rebuilt with something that is no dtype")
    return None if dtype.value.known else f"of dtype torch.{dtype.value.name}, which wio does not read"


def _tensor_v2(arguments: tuple[Any, ...]) -> TensorRef | Refused:
    _count(arguments, 4, 7)
    return _view(arguments, None, arguments[6] if len(arguments) > 6 else None)


def _tensor_v3(arguments: tuple[Any, ...]) -> TensorRef | Refused:
    _count(arguments, 7, 8)
    return _view(arguments, arguments[6], arguments[7] if len(arguments) > 7 else None)


def _parameter(arguments: tuple[Any, ...]) -> TensorRef | Refused:
    _count(arguments, 1, 4)
    if not isinstance(arguments[0], (TensorRef, Refused)):
        raise FormatError("a parameter is made of something that is no tensor")
    return arguments[0]


def _from_type(arguments: tuple[Any, ...]) -> Any:
    """A tensor with attributes of its own: (function, class, its arguments, state)."""
    _count(arguments, 4, 4)
    function, kind, inner, _ = arguments
    plain = isinstance(kind, Constant) and kind.value == "tensor class"
    if not plain or not isinstance(function, Function) or type(inner) is not tuple:
        raise FormatError("a tensor of a class of its own: refused")
    if function.call not in (_tensor_v2, _tensor_v3, _parameter):
        raise FormatError("a tensor is rebuilt by something else than PyTorch's own functions: refused")
    return function.call(inner)


def _moved(arguments: tuple[Any, ...]) -> TensorRef | Refused:
    """A tensor of another device, kept as one of the CPU: (tensor, dtype, device, whether it wants gradients)."""
    _count(arguments, 4, 4)
    tensor, dtype = arguments[:2]
    if not isinstance(tensor, (TensorRef, Refused)):
        raise FormatError("a tensor of another device is made of something that is no tensor")
    if refused := _refused_dtype(dtype):
        return Refused(refused)
    if isinstance(tensor, TensorRef) and tensor.dtype != dtype.value.name:
        return Refused(f"kept as {tensor.dtype} and cast to {dtype.value.name} by PyTorch when it is loaded")
    return tensor


def _counter(arguments: tuple[Any, ...]) -> Any:
    """``Counter(counts)``, as the milestones of MultiStepLR: the dictionary of its counts."""
    if arguments and (len(arguments) != 1 or not isinstance(arguments[0], dict)):
        raise FormatError("a Counter is made of something that is no dictionary")
    return arguments[0] if arguments else {}


def _count(arguments: tuple[Any, ...], least: int, most: int) -> None:
    if not least <= len(arguments) <= most:
        raise FormatError(f"a tensor is rebuilt from {len(arguments)} arguments")


def _refusing(why: str) -> Function:
    return Function(lambda _: Refused(why))


class _Opaque(Leaf, Built, frozen=True, eq=False):
    """A leaf that may be given a state, which nobody looks at."""

    def build(self, state: Any) -> None: ...


def _leaf(what: str) -> Function:
    return Function(lambda _: _Opaque(what))


def _torch_size(arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if len(arguments) == 1 and type(arguments[0]) in (tuple, list) else ()


def _first(arguments: tuple[Any, ...]) -> Any:
    """Lists with a type beside them are those lists, and so is what only wears a type tag."""
    if not arguments:
        raise FormatError("a TorchScript list without its items")
    return arguments[0]


_SCRIPT: dict[str, Function | Constant] = {
    **{f"build_{kind}list": Function(_first) for kind in ("int", "double", "bool", "tensor", "complex")},
    "restore_type_tag": Function(_first),
}


def _globals() -> dict[tuple[str, str], Function | Constant]:
    from wio.dtypes import DTYPES

    utils, tensor_class = "torch._utils", Constant("tensor class")
    table: dict[tuple[str, str], Function | Constant] = {
        ("collections", "OrderedDict"): ORDERED_DICT,
        ("collections", "Counter"): Function(_counter),
        ("_codecs", "encode"): ENCODE,
        (utils, "_rebuild_tensor"): Function(_tensor_v2),
        (utils, "_rebuild_tensor_v2"): Function(_tensor_v2),
        (utils, "_rebuild_tensor_v3"): Function(_tensor_v3),
        (utils, "_rebuild_parameter"): Function(_parameter),
        (utils, "_rebuild_parameter_with_state"): Function(_parameter),
        (utils, "_rebuild_qtensor"): _refusing("quantised: its values are no numbers without their scale"),
        (utils, "_rebuild_sparse_tensor"): _refusing("sparse"),
        (utils, "_rebuild_nested_tensor"): _refusing("nested"),
        (utils, "_rebuild_meta_tensor_no_storage"): _refusing("a meta tensor, without values"),
        (utils, "_rebuild_wrapper_subclass"): _refusing("of a class that wraps other tensors, without values"),
        (utils, "_rebuild_device_tensor_from_numpy"): _refusing("kept as a NumPy array"),
        (utils, "_rebuild_device_tensor_from_cpu_tensor"): Function(_moved),
        ("torch._tensor", "_rebuild_from_type_v2"): Function(_from_type),
        ("torch", "Tensor"): tensor_class,
        ("torch._tensor", "Tensor"): tensor_class,
        ("torch.nn.parameter", "Parameter"): tensor_class,
        ("torch", "Size"): Function(_torch_size),
        ("torch", "device"): _leaf("device"),
        ("torch.serialization", "_get_layout"): _leaf("tensor layout"),
        ("torch.storage", "UntypedStorage"): Constant(StorageKind(None, 1)),
        ("torch", "UntypedStorage"): Constant(StorageKind(None, 1)),
        ("torch.storage", "TypedStorage"): Constant("storage class"),
    }
    for module in ("builtins", "__builtin__"):
        table |= {(module, name): _leaf(name) for name in ("set", "complex", "bytearray")}
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
        table[module, "scalar"] = _leaf("NumPy scalar")
    table["numpy", "dtype"] = _leaf("NumPy dtype")
    for name, dtype in _STORAGES.items():
        table["torch", name] = Constant(StorageKind(dtype, DTYPES[dtype].itemsize))
    for name in _STORAGES:
        if not name.startswith("Complex"):
            legacy = name.replace("Storage", "Tensor")
            table |= {(module, legacy): Constant("legacy tensor class") for module in ("torch", "torch.cuda")}
            if legacy != "BoolTensor":
                modules = ("torch.sparse", "torch.cuda.sparse")
                table |= {(module, legacy): Constant("legacy tensor class") for module in modules}
    for name in _QUANTISED:
        table["torch", name] = Constant(StorageKind(None, 1, f"quantised ({name})"))
    for name, dtype in _DTYPES.items():
        table["torch", name] = Constant(TorchDtype(dtype, True))
    for name in _OTHER_DTYPES:
        table["torch", name] = Constant(TorchDtype(name, False))
    for scheme in ("per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric"):
        table["torch", scheme] = Constant(scheme)
    table["torch", "per_channel_affine_float_qparams"] = Constant("per_channel_affine_float_qparams")
    return table


_GLOBALS = _globals()
