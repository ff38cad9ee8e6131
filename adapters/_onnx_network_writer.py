"""A graph that was described as JSON, as the messages of onnx.proto (onnx 1.23)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wio.adapters._onnx_nodes import IR_VERSION, OPSET
from wio.adapters._onnx_values import NUMBERS
from wio.adapters._onnx_writer import Around
from wio.adapters._protobuf_writer import bytes_field, float_field, number_field, text_field

# AttributeProto.AttributeType, and the field that holds a value of it.
_FLOAT, _INT, _INTS = (1, 2), (2, 3), (7, 8)


def around(graph: Mapping[str, Any], name: str) -> Around:
    """The nodes before a graph's initializers; its inputs, outputs and the values between behind them."""
    nodes = b"".join(bytes_field(1, _node(node)) for node in graph["nodes"])
    fields = (("inputs", 11), ("outputs", 12), ("values", 13))
    values = b"".join(bytes_field(n, _value(*value)) for key, n in fields for value in graph[key])
    return Around(nodes + text_field(2, name), values, IR_VERSION, OPSET)


def _node(node: Mapping[str, Any]) -> bytes:
    """NodeProto."""
    parts = [text_field(1, name) for name in node["inputs"]]
    parts += [text_field(2, node["name"]), text_field(3, node["name"]), text_field(4, node["op"])]
    return b"".join(parts) + b"".join(bytes_field(5, _attribute(*each)) for each in node["attributes"].items())


def _attribute(name: str, value: float | int | Sequence[int]) -> bytes:
    """AttributeProto: a float, an integer, or integers, none of them negative."""
    if isinstance(value, float):
        kind, field = _FLOAT
        content = float_field(field, value)
    elif isinstance(value, int):
        kind, field = _INT
        content = number_field(field, value)
    else:
        kind, field = _INTS
        content = b"".join(number_field(field, each) for each in value)
    return text_field(1, name) + content + number_field(20, kind)


def _value(name: str, shape: Sequence[int | str], dtype: str) -> bytes:
    """ValueInfoProto of a tensor: name, element type, and each axis by its size or its name."""
    axes = b"".join(
        bytes_field(1, text_field(2, axis) if isinstance(axis, str) else number_field(1, axis)) for axis in shape
    )
    tensor = number_field(1, NUMBERS[dtype]) + bytes_field(2, axes)
    return text_field(1, name) + bytes_field(2, bytes_field(1, tensor))
