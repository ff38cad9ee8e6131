"""What the tests of the ONNX adapter share: models made by the onnx package and run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from wio.adapters.onnx_file import OnnxFile
from wio.bundle import Bundle
from wio.plan import Plan, make_plan

ADAPTER = OnnxFile()


def values(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) / 2).astype(dtype)


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: dict[str, list[int | str | None]] | None = None,
    outputs: tuple[str, ...] = ("y",),
    functions: list[onnx.FunctionProto] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    given = inputs or {"x": None}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions or [])


def read(path: Path) -> Bundle:
    return ADAPTER.read(path)


def saved(made: onnx.ModelProto, folder: Path, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def declared(made: onnx.ModelProto, folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """Role and layout of every tensor of a model."""
    return {t.name: (t.role, t.layout and str(t.layout)) for t in read(saved(made, folder)).values()}


def plan(bundle: Bundle, **options: str) -> Plan:
    return make_plan(bundle, ADAPTER.target(bundle, **options), "onnx", options)


def write(path: Path, bundle: Bundle, **options: str) -> Plan:
    made = plan(bundle, **options)
    ADAPTER.write(path, made.apply(), **options)
    return made


def run(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    quiet.intra_op_num_threads = quiet.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
    return session.run(None, given)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, wire: int, content: bytes) -> bytes:
    """One field of a message; the length goes before what is delimited by it."""
    tag = varint(number << 3 | wire)
    return tag + (varint(len(content)) if wire == 2 else b"") + content


def with_tensor(folder: Path, content: bytes, before: bytes = b"", after: bytes = b"") -> Path:
    """A model of one initializer ``w`` that has these bytes after its name; more of the graph before and after it."""
    tensor = field(8, 2, b"w") + content
    path = folder / "m.onnx"
    path.write_bytes(b"\x08\x0a" + field(7, 2, field(2, 2, b"g") + before + field(5, 2, tensor) + after))
    return path


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit, NaNs included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
