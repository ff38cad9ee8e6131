"""The messages of Caffe that say what a layer's blobs are, and one typed form for their binary and text encodings.

Source: BVLC/caffe, src/caffe/proto/caffe.proto. Fields that say nothing of blobs or shapes are left out: they are not
decoded, and what is not decoded is kept as bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from wio.adapters._protobuf import FIXED32, FIXED64, LENGTH, VARINT, Buffer, WireError, fields, signed64, text, varint

# A decoded message: each field by name, with every value it was given, in order.
Message = dict[str, list[Any]]

# Protobuf's own limit on nesting; these messages nest six deep at most.
DEEPEST = 100
# Repeated numbers of one field in a layer's definition: dims, pads, slice points. Real ones have a few.
MOST_VALUES = 10_000


class Field(Struct, frozen=True):
    """``kind`` is ``int``, ``bool``, ``float``, ``string``, ``enum NAME NAME ...`` or the name of a message."""

    number: int
    kind: str


def _table(**columns: tuple[int, str]) -> dict[str, Field]:
    return {name: Field(*column) for name, column in columns.items()}


_PARAMETERS = _table(
    batch_norm_param=(139, "BatchNormParameter"),
    bias_param=(141, "ScaleParameter"),
    concat_param=(104, "ConcatParameter"),
    convolution_param=(106, "ConvolutionParameter"),
    dummy_data_param=(109, "DummyDataParameter"),
    eltwise_param=(110, "EltwiseParameter"),
    embed_param=(137, "EmbedParameter"),
    flatten_param=(135, "FlattenParameter"),
    inner_product_param=(117, "InnerProductParameter"),
    input_param=(143, "InputParameter"),
    lrn_param=(118, "LRNParameter"),
    memory_data_param=(119, "MemoryDataParameter"),
    pooling_param=(121, "PoolingParameter"),
    prelu_param=(131, "PReLUParameter"),
    relu_param=(123, "ReLUParameter"),
    scale_param=(142, "ScaleParameter"),
    slice_param=(126, "SliceParameter"),
    softmax_param=(125, "SoftmaxParameter"),
)

MESSAGES: dict[str, dict[str, Field]] = {
    "NetParameter": _table(
        name=(1, "string"),
        input=(3, "string"),
        input_dim=(4, "int"),
        input_shape=(8, "BlobShape"),
        layer=(100, "LayerParameter"),
        layers=(2, "V1LayerParameter"),
    ),
    "LayerParameter": _table(
        name=(1, "string"),
        type=(2, "string"),
        bottom=(3, "string"),
        top=(4, "string"),
        include=(8, "NetStateRule"),
        exclude=(9, "NetStateRule"),
    )
    | _PARAMETERS,
    "V1LayerParameter": _table(
        bottom=(2, "string"),
        top=(3, "string"),
        name=(4, "string"),
        type=(5, "V1LayerType"),
        include=(32, "NetStateRule"),
        exclude=(33, "NetStateRule"),
        concat_param=(9, "ConcatParameter"),
        convolution_param=(10, "ConvolutionParameter"),
        dummy_data_param=(26, "DummyDataParameter"),
        eltwise_param=(24, "EltwiseParameter"),
        inner_product_param=(17, "InnerProductParameter"),
        lrn_param=(18, "LRNParameter"),
        memory_data_param=(22, "MemoryDataParameter"),
        pooling_param=(19, "PoolingParameter"),
        relu_param=(30, "ReLUParameter"),
        slice_param=(31, "SliceParameter"),
        softmax_param=(39, "SoftmaxParameter"),
    ),
    "BlobShape": _table(dim=(1, "int")),
    "NetStateRule": _table(
        phase=(1, "enum TRAIN TEST"),
        min_level=(2, "int"),
        max_level=(3, "int"),
        stage=(4, "string"),
        not_stage=(5, "string"),
    ),
    "BatchNormParameter": _table(eps=(3, "float")),
    "ConcatParameter": _table(concat_dim=(1, "int"), axis=(2, "int")),
    "ConvolutionParameter": _table(
        num_output=(1, "int"),
        bias_term=(2, "bool"),
        pad=(3, "int"),
        kernel_size=(4, "int"),
        group=(5, "int"),
        stride=(6, "int"),
        pad_h=(9, "int"),
        pad_w=(10, "int"),
        kernel_h=(11, "int"),
        kernel_w=(12, "int"),
        stride_h=(13, "int"),
        stride_w=(14, "int"),
        axis=(16, "int"),
        dilation=(18, "int"),
    ),
    "DummyDataParameter": _table(
        shape=(6, "BlobShape"), num=(2, "int"), channels=(3, "int"), height=(4, "int"), width=(5, "int")
    ),
    "EltwiseParameter": _table(operation=(1, "enum PROD SUM MAX"), coeff=(2, "float")),
    "EmbedParameter": _table(num_output=(1, "int"), input_dim=(2, "int"), bias_term=(3, "bool")),
    "FlattenParameter": _table(axis=(1, "int"), end_axis=(2, "int")),
    "InnerProductParameter": _table(
        num_output=(1, "int"), bias_term=(2, "bool"), axis=(5, "int"), transpose=(6, "bool")
    ),
    "InputParameter": _table(shape=(1, "BlobShape")),
    "LRNParameter": _table(
        local_size=(1, "int"),
        alpha=(2, "float"),
        beta=(3, "float"),
        norm_region=(4, "enum ACROSS_CHANNELS WITHIN_CHANNEL"),
        k=(5, "float"),
    ),
    "MemoryDataParameter": _table(batch_size=(1, "int"), channels=(2, "int"), height=(3, "int"), width=(4, "int")),
    "PoolingParameter": _table(
        pool=(1, "enum MAX AVE STOCHASTIC"),
        pad=(4, "int"),
        pad_h=(9, "int"),
        pad_w=(10, "int"),
        kernel_size=(2, "int"),
        kernel_h=(5, "int"),
        kernel_w=(6, "int"),
        stride=(3, "int"),
        stride_h=(7, "int"),
        stride_w=(8, "int"),
        global_pooling=(12, "bool"),
        round_mode=(13, "enum CEIL FLOOR"),
    ),
    "PReLUParameter": _table(channel_shared=(2, "bool")),
    "ReLUParameter": _table(negative_slope=(1, "float")),
    "SoftmaxParameter": _table(axis=(2, "int")),
    # BiasParameter has the same first two fields.
    "ScaleParameter": _table(axis=(1, "int"), num_axes=(2, "int"), bias_term=(4, "bool")),
    "SliceParameter": _table(slice_dim=(1, "int"), slice_point=(2, "int"), axis=(3, "int")),
}

# V1LayerParameter.LayerType by number: its name, and the type of a new layer (UpgradeV1LayerType, upgrade_proto.cpp).
V1_TYPES: dict[int, tuple[str, str]] = {
    0: ("NONE", ""),
    1: ("ACCURACY", "Accuracy"),
    2: ("BNLL", "BNLL"),
    3: ("CONCAT", "Concat"),
    4: ("CONVOLUTION", "Convolution"),
    5: ("DATA", "Data"),
    6: ("DROPOUT", "Dropout"),
    7: ("EUCLIDEAN_LOSS", "EuclideanLoss"),
    8: ("FLATTEN", "Flatten"),
    9: ("HDF5_DATA", "HDF5Data"),
    10: ("HDF5_OUTPUT", "HDF5Output"),
    11: ("IM2COL", "Im2col"),
    12: ("IMAGE_DATA", "ImageData"),
    13: ("INFOGAIN_LOSS", "InfogainLoss"),
    14: ("INNER_PRODUCT", "InnerProduct"),
    15: ("LRN", "LRN"),
    16: ("MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"),
    17: ("POOLING", "Pooling"),
    18: ("RELU", "ReLU"),
    19: ("SIGMOID", "Sigmoid"),
    20: ("SOFTMAX", "Softmax"),
    21: ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
    22: ("SPLIT", "Split"),
    23: ("TANH", "TanH"),
    24: ("WINDOW_DATA", "WindowData"),
    25: ("ELTWISE", "Eltwise"),
    26: ("POWER", "Power"),
    27: ("SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"),
    28: ("HINGE_LOSS", "HingeLoss"),
    29: ("MEMORY_DATA", "MemoryData"),
    30: ("ARGMAX", "ArgMax"),
    31: ("THRESHOLD", "Threshold"),
    32: ("DUMMY_DATA", "DummyData"),
    33: ("SLICE", "Slice"),
    34: ("MVN", "MVN"),
    35: ("ABSVAL", "AbsVal"),
    36: ("SILENCE", "Silence"),
    37: ("CONTRASTIVE_LOSS", "ContrastiveLoss"),
    38: ("EXP", "Exp"),
    39: ("DECONVOLUTION", "Deconvolution"),
}
_V1_BY_NAME = dict(V1_TYPES.values())


def v1_type(value: int | str) -> str:
    """The type of a new layer that a V1 layer's type means; WireError for a number or name that there is not."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 9:
        value = int(value)
    found = _V1_BY_NAME.get(value) if isinstance(value, str) else V1_TYPES.get(value, (None, None))[1]
    if found is None:
        raise WireError(f"no V1 layer has the type {value!r}")
    return found


def names_of(kind: str) -> tuple[str, ...]:
    return tuple(kind.split()[1:])


def decode(kind: str, data: Buffer, at: int, end: int, depth: int = 0) -> Message:
    """The known fields of a binary message. WireError for what is no message, or a known field of another type."""
    if depth > DEEPEST:
        raise WireError(f"messages nest deeper than {DEEPEST} at byte {at}")
    known = {field.number: (name, field.kind) for name, field in MESSAGES[kind].items()}
    message: Message = {}
    for tag, value, stop in fields(data, at, end):
        found = known.get(tag >> 3)
        if found is None:
            continue
        name, of = found
        values = message.setdefault(name, [])
        if of in MESSAGES:
            _expect(tag, LENGTH, name)
            values.append(decode(of, data, value, stop, depth + 1))
        elif of == "string":
            _expect(tag, LENGTH, name)
            values.append(text(data, value, stop))
        else:
            values.extend(_scalars(of, name, tag, data, value, stop))
        if len(values) > MOST_VALUES:
            raise WireError(f"the field {name} stands there more than {MOST_VALUES} times")
    return message


def _expect(tag: int, wire: int, name: str) -> None:
    if tag & 7 != wire:
        raise WireError(f"the field {name} has wire type {tag & 7} where {wire} is due")


def _scalars(of: str, name: str, tag: int, data: Buffer, value: int, stop: int) -> Iterator[Any]:
    """One value, or those of a packed field: parsers must accept both (protobuf encoding, "Packed repeated fields")."""
    wire = tag & 7
    if of == "float":
        if wire not in (FIXED32, LENGTH) or (stop - value) % 4 or wire == FIXED64:
            raise WireError(f"the field {name} is no float")
        if stop - value > MOST_VALUES * 4:
            raise WireError(f"the field {name} has more than {MOST_VALUES} values")
        numbers = [found[0] for found in struct.iter_unpack("<f", data[value:stop])]
        if not all(map(math.isfinite, numbers)):
            raise WireError(f"the field {name} is no finite number")
        yield from numbers
        return
    if wire == VARINT:
        yield _integer(of, value)
        return
    _expect(tag, LENGTH, name)
    if stop - value > MOST_VALUES * 10:
        raise WireError(f"the field {name} has more than {MOST_VALUES} values")
    while value < stop:
        number, value = varint(data, value, stop)
        yield _integer(of, number)


def _integer(of: str, value: int) -> Any:
    if of == "bool":
        return bool(value)
    if of == "V1LayerType":
        return v1_type(signed64(value))
    if of.startswith("enum"):
        names = names_of(of)
        # A proto2 parser keeps a number that the enum does not have as an unknown field.
        return names[value] if value < len(names) else str(value)
    return signed64(value)


def one(message: Mapping[str, list[Any]], name: str, default: Any = None) -> Any:
    """The value of an optional field: the last that was given, as protobuf reads it."""
    values = message.get(name)
    return values[-1] if values else default
