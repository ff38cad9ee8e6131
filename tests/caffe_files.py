"""Small .caffemodel files, written field by field as caffe.proto numbers them, and OpenCV's Caffe importer as judge.

Nothing here is wio's: the writer is the tests' own, so that a mistake in wio's reading is not made twice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FLOAT = np.dtype("<f4")
V1 = {
    "Convolution": 4,
    "InnerProduct": 14,
    "LRN": 15,
    "Pooling": 17,
    "ReLU": 18,
    "Dropout": 6,
    "Data": 5,
    "Concat": 3,
    "Deconvolution": 39,
    "Softmax": 20,
    "Flatten": 8,
}
V1_PARAMETERS = {106: 10, 117: 17, 118: 18, 121: 19, 104: 9}
CONV, BATCH_NORM, SCALE, PRELU, INNER, POOLING, LRN, EMBED, INPUT, CONCAT, FLATTEN, BIAS = (
    106,
    139,
    142,
    131,
    117,
    121,
    118,
    137,
    143,
    104,
    135,
    141,
)


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)


def number(field: int, value: int) -> bytes:
    return varint(field * 8) + varint(value)


def packet(field: int, payload: bytes | str) -> bytes:
    payload = payload.encode() if isinstance(payload, str) else payload
    return varint(field * 8 + 2) + varint(len(payload)) + payload


def single(field: int, value: float) -> bytes:
    return varint(field * 8 + 5) + struct.pack("<f", value)


def shape(dims: Sequence[int]) -> bytes:
    return packet(7, packet(1, b"".join(map(varint, dims))) if dims else b"")


def blob(array: np.ndarray[Any, Any]) -> bytes:
    return packet(5, np.ascontiguousarray(array, FLOAT).tobytes()) + shape(array.shape)


def legacy(array: np.ndarray[Any, Any]) -> bytes:
    dims = (1,) * (4 - array.ndim) + array.shape
    four = b"".join(number(k + 1, dim) for k, dim in enumerate(dims))
    return four + packet(5, np.ascontiguousarray(array, FLOAT).tobytes())


def unpacked(array: np.ndarray[Any, Any]) -> bytes:
    return b"".join(b"\x2d" + value.tobytes() for value in array.astype(FLOAT).reshape(-1)) + shape(array.shape)


def double(array: np.ndarray[Any, Any]) -> bytes:
    return shape(array.shape) + packet(8, np.ascontiguousarray(array, "<f8").tobytes())


def layer(
    name: str,
    kind: str,
    bottoms: Sequence[str] = (),
    tops: Sequence[str] = (),
    blobs: Sequence[bytes] = (),
    parameter: tuple[int, bytes] | None = None,
) -> bytes:
    body = packet(1, name) + packet(2, kind)
    body += b"".join(packet(3, b) for b in bottoms) + b"".join(packet(4, t) for t in tops)
    body += b"".join(packet(7, each) for each in blobs) + number(10, 1)
    return packet(100, body + (packet(*parameter) if parameter else b""))


def v1_layer(
    name: str,
    kind: str,
    bottoms: Sequence[str] = (),
    tops: Sequence[str] = (),
    blobs: Sequence[bytes] = (),
    parameter: tuple[int, bytes] | None = None,
) -> bytes:
    body = b"".join(packet(2, b) for b in bottoms) + b"".join(packet(3, t) for t in tops)
    body += packet(4, name) + number(5, V1[kind]) + b"".join(packet(6, each) for each in blobs)
    return packet(2, body + (packet(V1_PARAMETERS[parameter[0]], parameter[1]) if parameter else b""))


def conv(outputs: int, kernel: Sequence[int], group: int = 1, more: bytes = b"") -> tuple[int, bytes]:
    text = number(1, outputs)
    text += number(11, kernel[0]) + number(12, kernel[1]) if len(kernel) == 2 else b""
    text += b"" if len(kernel) == 2 else b"".join(number(4, size) for size in kernel)
    return CONV, text + (number(5, group) if group != 1 else b"") + more


def inner(outputs: int, more: bytes = b"") -> tuple[int, bytes]:
    return INNER, number(1, outputs) + more


def given(dims: Sequence[int]) -> bytes:
    return layer("input", "Input", (), ("data",), (), (INPUT, packet(1, packet(1, b"".join(map(varint, dims))))))


def values(seed: int, *dims: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(dims).astype(FLOAT)


W: dict[str, np.ndarray[Any, Any]] = {
    "conv1/weight": values(1, 4, 3, 2, 3),
    "conv1/bias": values(2, 4),
    "bn1/mean": values(3, 4),
    "bn1/variance": np.abs(values(4, 4)) + np.float32(0.5),
    "bn1/scale_factor": np.ones(1, FLOAT),
    "scale1/gamma": values(5, 4),
    "scale1/beta": values(6, 4),
    "prelu1/alpha": values(7, 4),
    "grouped/weight": values(8, 6, 2, 3, 2),
    "grouped/bias": values(9, 6),
    "up/weight": values(10, 6, 4, 3, 2),
    "up/bias": values(11, 4),
    "ip1/weight": values(12, 5, 4 * 5 * 3),
    "ip1/bias": values(13, 5),
    "ip2/weight": values(14, 3, 5),
    "ip2/bias": values(15, 3),
}
INPUT_DIMS = (1, 3, 7, 8)


def network(
    put: Callable[[np.ndarray[Any, Any]], bytes] = blob,
    change: dict[str, np.ndarray[Any, Any]] | None = None,
    head: bytes = packet(1, "small"),
    start: bytes | None = None,
) -> bytes:
    """conv 2x3, batch norm, scale, PReLU, conv in two groups, a transposed conv, pooling, two inner products."""
    w = {**W, **(change or {})}

    def blobs(name: str) -> list[bytes]:
        return [put(array) for key, array in w.items() if key.startswith(f"{name}/")]

    pool = number(2, 2) + number(3, 2)
    return head + b"".join(
        [
            given(INPUT_DIMS) if start is None else start,
            layer("conv1", "Convolution", ["data"], ["conv1"], blobs("conv1"), conv(4, (2, 3))),
            layer("bn1", "BatchNorm", ["conv1"], ["bn1"], blobs("bn1"), (BATCH_NORM, number(1, 1) + single(3, 1e-3))),
            layer("scale1", "Scale", ["bn1"], ["bn1"], blobs("scale1"), (SCALE, number(4, 1))),
            layer("prelu1", "PReLU", ["bn1"], ["act1"], blobs("prelu1")),
            layer("grouped", "Convolution", ["act1"], ["grouped"], blobs("grouped"), conv(6, (3, 2), 2)),
            layer(
                "up",
                "Deconvolution",
                ["grouped"],
                ["up"],
                blobs("up"),
                conv(4, (3, 2), 1, number(13, 2) + number(14, 1)),
            ),
            layer("pool", "Pooling", ["up"], ["pool"], (), (POOLING, pool)),
            layer("ip1", "InnerProduct", ["pool"], ["ip1"], blobs("ip1"), inner(5)),
            layer("ip2", "InnerProduct", ["ip1"], ["ip2"], blobs("ip2"), inner(3)),
        ]
    )


PROTOTXT = """
name: "small"  # a comment
layer { name: "input" type: "Input" top: "data" input_param { shape { dim: [1, 3] dim: 7 dim: 8 } } }
layer { name: 'conv1' type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_h: 2 kernel_w: 3 weight_filler { type: "xavier" std: -1.5e-2 } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "bn1" batch_norm_param { use_global_stats: true eps: 1e-3 } }
layer { name: "scale1" type: "Scale" bottom: "bn1" top: "bn1" scale_param { bias_term: true } }
layer { name: "prelu1" type: "PReLU" bottom: "bn1" top: "act1" }
layer { name: "grouped" type: "Convolution" bottom: "act1" top: "grouped"
        convolution_param < num_output: 6, kernel_h: 3; kernel_w: 2 group: 2 > }
layer { name: "up" type: "Deconvolution" bottom: "grouped" top: "up"
        convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 } }
layer { name: "pool" type: "Pooling" bottom: "up" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool" top: "ip1" inner_product_param { num_output: 5 } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 3 } }
"""


def put(folder: Path, content: bytes, name: str = "net.caffemodel") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


class OpenCV:
    """The importer of OpenCV over a definition and a weights file; layers are not fused, so every output is true."""

    def __init__(self, folder: Path, prototxt: str, weights: Path) -> None:
        import cv2

        definition = folder / "judge.prototxt"
        definition.write_text(prototxt)
        self._net = cv2.dnn.readNetFromCaffe(str(definition), str(weights))
        self._net.enableFusion(False)

    def blob(self, name: str, place: int) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self._net.getParam(name, place)
        return found

    def run(self, data: np.ndarray[Any, Any], *names: str) -> list[np.ndarray[Any, Any]]:
        self._net.setInput(data)
        return [np.array(each) for each in self._net.forward(list(names))]
