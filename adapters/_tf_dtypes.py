"""What an entry declares, dtype and shape, checked before anything is allocated for it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from wio.adapters._protobuf import WireError
from wio.adapters._tf_messages import shape as parse_shape
from wio.dtypes import DTYPES, DType
from wio.errors import FormatError

# tensorflow/core/framework/types.proto, enum DataType. Not here: 20 DT_RESOURCE, a handle that is never saved;
# 33 DT_FLOAT4_E2M1FN; those above 100, references to variables of a running graph.
DATA_TYPES: dict[int, DType] = {
    number: DTYPES[name]
    for number, name in {
        1: "float32",
        2: "float64",
        3: "int32",
        4: "uint8",
        5: "int16",
        6: "int8",
        7: "string",
        8: "complex64",
        9: "int64",
        10: "bool",
        11: "qint8",
        12: "quint8",
        13: "qint32",
        14: "bfloat16",
        15: "qint16",
        16: "quint16",
        17: "uint16",
        18: "complex128",
        19: "float16",
        21: "variant",
        22: "uint32",
        23: "uint64",
        24: "float8_e5m2",
        25: "float8_e4m3fn",
        26: "float8_e4m3fnuz",
        27: "float8_e4m3b11fnuz",
        28: "float8_e5m2fnuz",
        29: "int4",
        30: "uint4",
        31: "int2",
        32: "uint2",
    }.items()
}
UNREADABLE = {0: "DT_INVALID", 20: "DT_RESOURCE", 33: "DT_FLOAT4_E2M1FN"}
# What every NumPy can hold (NPY_MAXDIMS of 1.x); TensorFlow's limit is 254, and its operations use none above 8.
MOST_AXES = 32


class Declared(NamedTuple):
    dtype: DType
    shape: tuple[int, ...]
    elements: int


@lru_cache(maxsize=4096)
def declared(dtype: int, shape: bytes) -> Declared:
    """The dtype and shape of a serialised TensorShapeProto; FormatError without a file's or tensor's name."""
    known = DATA_TYPES.get(dtype)
    if known is None:
        called = f" ({UNREADABLE[dtype]})" if dtype in UNREADABLE else ""
        raise FormatError(f"its dtype is number {dtype}{called}, which is not one that can be read")
    try:
        dims = parse_shape(shape)
    except WireError as error:
        raise FormatError(f"its shape is malformed: {error.message}") from None
    if dims is None:
        raise FormatError("its shape has an unknown rank")
    if len(dims) > MOST_AXES:
        raise FormatError(f"its shape has {len(dims)} axes; NumPy holds {MOST_AXES} at most")
    if any(dim < 0 for dim in dims):
        raise FormatError(f"its shape {dims} has a negative axis")
    # An axis of length 0 elsewhere does not help: NumPy cannot hold such a shape either.
    if math.prod(dim for dim in dims if dim) * max(known.itemsize, 8) >= 1 << 63:
        raise FormatError(f"its shape {dims} overflows")
    return Declared(known, dims, math.prod(dims))
