"""The one table of dtypes: wio's name, size, NumPy type, and the safetensors code where there is one.

Sources: the safetensors 0.8 ``Dtype`` enumeration; ml_dtypes for the types NumPy lacks. What safetensors has no
code for is stored as ``U8`` bytes with its true dtype, shape and encoding declared (spec, section "Encodings").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from wio.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

Encoding = Literal["elements", "varbytes"]


class DType(Struct, frozen=True):
    """A dtype.

    ``itemsize`` is the number of bytes of one element as wio stores it, 0 where elements vary in size.
    ``numpy_name`` names the NumPy or ml_dtypes type of one element (``object`` for byte strings).
    ``safetensors`` is the format's own code, or None; then ``encoding`` says how the bytes are kept.
    """

    name: str
    itemsize: int
    numpy_name: str
    safetensors: str | None
    encoding: Encoding | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of one element, little-endian on every machine."""
        import numpy as np

        if self.numpy_name in _NEEDS_ML_DTYPES:
            import ml_dtypes

            extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self.numpy_name))
            return extended
        return np.dtype(self.numpy_name).newbyteorder("<")


_NEEDS_ML_DTYPES = {
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e4m3b11fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "int2",
    "int4",
    "uint2",
    "uint4",
}


def _elements(name: str, itemsize: int, numpy_name: str) -> DType:
    return DType(name, itemsize, numpy_name, None, "elements")


_TABLE = (
    DType("bool", 1, "bool", "BOOL"),
    DType("uint8", 1, "uint8", "U8"),
    DType("int8", 1, "int8", "I8"),
    DType("uint16", 2, "uint16", "U16"),
    DType("int16", 2, "int16", "I16"),
    DType("uint32", 4, "uint32", "U32"),
    DType("int32", 4, "int32", "I32"),
    DType("uint64", 8, "uint64", "U64"),
    DType("int64", 8, "int64", "I64"),
    DType("float16", 2, "float16", "F16"),
    DType("bfloat16", 2, "bfloat16", "BF16"),
    DType("float32", 4, "float32", "F32"),
    DType("float64", 8, "float64", "F64"),
    DType("complex64", 8, "complex64", "C64"),
    DType("float8_e5m2", 1, "float8_e5m2", "F8_E5M2"),
    DType("float8_e4m3fn", 1, "float8_e4m3fn", "F8_E4M3"),
    DType("float8_e8m0fnu", 1, "float8_e8m0fnu", "F8_E8M0"),
    _elements("float8_e4m3fnuz", 1, "float8_e4m3fnuz"),
    _elements("float8_e5m2fnuz", 1, "float8_e5m2fnuz"),
    _elements("float8_e4m3b11fnuz", 1, "float8_e4m3b11fnuz"),
    _elements("complex128", 16, "complex128"),
    _elements("int2", 1, "int2"),
    _elements("uint2", 1, "uint2"),
    _elements("int4", 1, "int4"),
    _elements("uint4", 1, "uint4"),
    _elements("qint8", 1, "int8"),
    _elements("quint8", 1, "uint8"),
    _elements("qint16", 2, "int16"),
    _elements("quint16", 2, "uint16"),
    _elements("qint32", 4, "int32"),
    DType("string", 0, "object", None, "varbytes"),
    DType("variant", 0, "object", None, "varbytes"),
)

DTYPES = {dtype.name: dtype for dtype in _TABLE}
BY_SAFETENSORS = {dtype.safetensors: dtype for dtype in _TABLE if dtype.safetensors is not None}


def dtype_named(name: str) -> DType:
    """The dtype of that name; FormatError if there is none."""
    try:
        return DTYPES[name]
    except KeyError:
        raise FormatError(f"no dtype is named {name!r}") from None


def dtype_of(array: np.ndarray[Any, Any]) -> DType:
    """The wio dtype of a NumPy array; FormatError for one that no weight file holds (dates, records, ...)."""
    if array.dtype.kind in "SO":
        return DTYPES["string"]
    found = DTYPES.get(array.dtype.name)
    if found is None:
        raise FormatError(f"arrays of NumPy dtype {array.dtype} are not weights that wio can hold")
    return found
