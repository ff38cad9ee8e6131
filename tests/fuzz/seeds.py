"""Small valid inputs to begin with: files of real frameworks, and files made here by the formats' own libraries."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import wire
from fuzz.laying import BREAK

TESTS = Path(__file__).parent.parent
REAL = TESTS / "data" / "real_frameworks"
REGISTRY = TESTS.parent / "registry"


def form(number: int, *inputs: bytes) -> list[bytes]:
    return [bytes([number]) + each for each in inputs]


def written(write: Callable[[Path], Any], *names: str) -> list[bytes]:
    """The files that a function writes into a folder, those of the names given, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return [(Path(folder) / name).read_bytes() for name in names]


# --- TensorFlow


def _entries(index: bytes) -> list[tuple[bytes, bytes]]:
    from wio.adapters._tf_table import MappedFile, Table

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t").write_bytes(index)
        table = Table(MappedFile(Path(folder) / "t"))
        return [(bytes(key), bytes(block.data[a:b])) for block in table.blocks() for key, a, b in block.values()]


def _records(index: bytes, values: bytes | None = None) -> bytes:
    parts: list[wire.Field] = [(1, 2, wire.message([(1, 2, key), (2, 2, value)])) for key, value in _entries(index)]
    return wire.message(parts + ([] if values is None else [(2, 2, values)]))


def tf_v1() -> list[bytes]:
    raw = (REAL / "tf1" / "dtypes" / "v1" / "model.ckpt").read_bytes()
    return form(0, raw) + form(1, _records(raw))


def tf_v2() -> list[bytes]:
    pairs = [_v2(REAL / "tf1" / "dtypes" / "v2" / "model.ckpt")]
    with tempfile.TemporaryDirectory() as folder:
        for name, save in (("a", _plain_bundle), ("b", _partitioned_bundle), ("c", _object_graph)):
            pairs.append(_v2(Path(save(Path(folder) / name))))
    return form(0, *(BREAK.join(each) for each in pairs)) + form(1, *(_records(*each) for each in pairs))


def _v2(prefix: Path) -> tuple[bytes, bytes]:
    return Path(f"{prefix}.index").read_bytes(), Path(f"{prefix}.data-00000-of-00001").read_bytes()


def _plain_bundle(prefix: Path) -> Path:
    from tf_judge import save_v2, tensorflow

    tf = tensorflow()
    save_v2(tf, prefix, {"a": tf.range(6.0), "s": tf.constant([b"ab", b"", b"c" * 200]), "e": tf.zeros([0, 2])})
    return prefix


def _partitioned_bundle(prefix: Path) -> Path:
    from tf_judge import tensorflow

    tf = tensorflow()
    halves = {"top": tf.reshape(tf.range(6.0), [2, 3]), "bottom": tf.reshape(tf.range(3.0), [1, 3])}
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=["v", "v", "w"],
        shape_and_slices=["3 3 0,2:-", "3 3 2,1:-", ""],
        tensors=[halves["top"], halves["bottom"], tf.constant([True, False])],
    )
    return prefix


def _object_graph(prefix: Path) -> str:
    from tf_judge import tensorflow

    tf = tensorflow()
    return str(tf.train.Checkpoint(v=tf.Variable([1.0, 2.0]), step=tf.Variable(3)).write(str(prefix)))


# --- Keras


@cache
def keras_files() -> list[bytes]:
    layers = ("ConvFlattenDense", "LSTM", "BidirLSTM", "SeparableConv2D", "TimeDistDense", "BatchNormalization")
    found = [REAL / "keras_layers" / "k224_tf_last" / f"{each}.full.h5" for each in layers]
    found += [REAL / "keras_layers" / "k122_th_first" / "ConvFlattenDense.full.h5"]
    found += [REAL / "keras_layers" / "k205_th_first" / "GRU.full.h5"]
    return [each.read_bytes() for each in found if each.is_file()]


def keras_hdf5() -> list[bytes]:
    import h5py

    inputs = []
    for k, raw in enumerate(keras_files()):
        with h5py.File(io.BytesIO(raw), "r") as file:
            config, weights = file.attrs["model_config"], file["model_weights"]
            names = b"\n".join(map(_bytes, weights.attrs["layer_names"]))
            first = b"\n".join(map(_bytes, weights[next(iter(weights))].attrs["weight_names"]))
        inputs += [bytes([k]) + _bytes(config), bytes([k]) + BREAK + names, bytes([k]) + BREAK + names + BREAK + first]
    whole = [each for each in keras_files() if len(each) < 40_000]
    early = [REAL / "keras_early" / "k033_th" / "image_first.h5", REAL / "keras_layers" / "k224_tf_last" / "Conv2D.h5"]
    return form(0, *whole, *(each.read_bytes() for each in early)) + form(1, *inputs)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@cache
def keras3_files() -> list[bytes]:
    """What :mod:`fuzz.record` had Keras write."""
    return [each.read_bytes() for each in sorted((TESTS / "fuzz" / "fixed").glob("*.keras"))]


@cache
def keras3_shards() -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted((TESTS / "fuzz" / "fixed").glob("*.weights.h5"))}


def keras3() -> list[bytes]:
    inputs = []
    for k, raw in enumerate(keras3_files()):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            inputs.append(bytes([k]) + archive.read("config.json"))
            weights = archive.read("model.weights.h5")
    index = (TESTS / "fuzz" / "fixed" / "m.weights.json").read_bytes()
    return form(0, *keras3_files()) + form(1, *inputs) + form(2, weights) + form(3, index)


# --- ONNX


def onnx() -> list[bytes]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def array(*shape: int) -> Any:
        return np.arange(np.prod(shape), dtype="f4").reshape(shape) / 7

    def model(nodes: list[Any], weights: list[Any]) -> Any:
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 5, 5])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        return helper.make_model(helper.make_graph(nodes, "g", [given], [out], weights), ir_version=10)

    of = numpy_helper.from_array
    conv = model(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 0, 1, 0]),
            helper.make_node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"], epsilon=1e-3),
            helper.make_node("Flatten", ["n"], ["f"]),
            helper.make_node("Gemm", ["f", "k", "d"], ["y"], transB=1),
        ],
        [
            *(of(array(3, 2, 3, 2), "w"), of(array(3), "b")),
            *(of(array(3) + 1, each) for each in "somv"),
            *(of(array(2, 60), "k"), of(array(2), "d")),
        ],
    )
    typed = [
        helper.make_tensor("f", TensorProto.FLOAT, [2], [1.0, -2.0]),
        helper.make_tensor("h", TensorProto.FLOAT16, [2], [1.0, -2.0]),
        helper.make_tensor("z", TensorProto.BFLOAT16, [2], [1.0, -2.0]),
        helper.make_tensor("i", TensorProto.INT64, [3], [1, -2, 3]),
        helper.make_tensor("u", TensorProto.UINT8, [3], [1, 2, 3]),
        helper.make_tensor("q", TensorProto.INT4, [3], [1, -2, 3]),
        helper.make_tensor("d", TensorProto.DOUBLE, [1], [1.5]),
        helper.make_tensor("c", TensorProto.COMPLEX64, [1], [1 + 2j]),
        helper.make_tensor("t", TensorProto.STRING, [2], [b"ab", b""]),
        helper.make_tensor("o", TensorProto.BOOL, [2], [True, False]),
    ]
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value_floats=[1.0, 2.0])],
        "body",
        [],
        [helper.make_tensor_value_info("k", TensorProto.FLOAT, [2])],
    )
    others = model(
        [
            helper.make_node("Constant", [], ["a"], value=of(array(2, 2))),
            helper.make_node("Constant", [], ["e"], value_int=3),
            helper.make_node("If", ["o"], ["y"], then_branch=body, else_branch=body),
        ],
        typed,
    )
    lstm = model(
        [helper.make_node("LSTM", ["x", "W", "R", "B"], ["y"], hidden_size=2, direction="bidirectional")],
        [of(array(2, 8, 3), "W"), of(array(2, 8, 2), "R"), of(array(2, 16), "B")],
    )

    def outside(folder: Path) -> None:
        copy = onnx.ModelProto.FromString(conv.SerializeToString())
        onnx.save(copy, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)

    external = BREAK.join(written(outside, "m.onnx", "weights.bin"))
    return form(0, *(each.SerializeToString() for each in (conv, others, lstm))) + form(1, external)


# --- Caffe


def caffe() -> list[bytes]:
    from caffe_files import (
        CONV,
        blob,
        conv,
        double,
        inner,
        layer,
        legacy,
        network,
        number,
        packet,
        unpacked,
        v1_layer,
        values,
    )

    small = [
        packet(1, "n")
        + layer("c", "Convolution", ["data"], ["c"], [put(values(1, 2, 3, 2, 2)), put(values(2, 2))], conv(2, (2, 2)))
        for put in (blob, double, legacy, unpacked)
    ]
    old = packet(1, "v") + v1_layer(
        "c", "Convolution", ["d"], ["c"], [legacy(values(1, 2, 1, 2, 2))], (CONV, number(1, 2))
    )
    old += v1_layer("i", "InnerProduct", ["c"], ["i"], [legacy(values(1, 2, 8))], inner(2))
    return form(0, network(), old, *small)


def caffe_weights() -> bytes:
    from caffe_files import network

    return network(start=b"")


def prototxt() -> list[bytes]:
    from caffe_files import PROTOTXT

    old = b"""
input: "data"
input_dim: [1, 3, 7]
input_dim: 8
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" include { phase: TEST } }
"""
    return form(0, PROTOTXT.encode(), old)


# --- PyTorch


def _torch_state() -> dict[str, Any]:
    import torch

    torch.manual_seed(1)
    base = torch.arange(24.0).reshape(2, 3, 4)
    return {
        "conv.weight": torch.randn(2, 1, 2, 2),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "ids": torch.arange(4),
        "view": base.permute(2, 0, 1),
        "tail": base[1, 1:],
        "nested": {"list": [torch.zeros(2), 3, "text", None], "flag": torch.tensor([True])},
        "param": torch.nn.Parameter(torch.ones(2)),
        "z": torch.ones(2, dtype=torch.complex64).conj(),
    }


def torch_zip() -> list[bytes]:
    import torch

    def save(state: Any) -> bytes:
        file = io.BytesIO()
        torch.save(state, file)
        return file.getvalue()

    whole = save(_torch_state())
    module = save(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict())
    inputs = []
    for raw in (whole, module):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = sorted(
                (name for name in archive.namelist() if "/data/" in name), key=lambda name: int(name.rpartition("/")[2])
            )
            root = names[0].partition("/")[0]
            parts = [archive.read(f"{root}/data.pkl"), b"little", *map(archive.read, names)]
        inputs.append(BREAK.join(parts))
    index = {"metadata": {}, "weight_map": {"a": "s-1.bin", "b": "s-2.bin"}}
    return form(0, whole, module) + form(1, *inputs) + form(2, json.dumps(index).encode())


def torch_shards() -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted((TESTS / "fuzz" / "fixed").glob("*.bin"))}


def torch_legacy() -> list[bytes]:
    import torch

    file, plain = io.BytesIO(), io.BytesIO()
    state = {key: value for key, value in _torch_state().items() if key != "z"}
    torch.save(state, file, _use_new_zipfile_serialization=False)
    torch.save({"w": torch.ones(2, 3)}, plain, _use_new_zipfile_serialization=False)
    return form(0, file.getvalue(), plain.getvalue())


# --- NumPy


def numpy() -> list[bytes]:
    def saved(save: Callable[..., Any], *arrays: Any, **more: Any) -> bytes:
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save(file, *arrays, **more)
        return file.getvalue()

    some = np.arange(6, dtype="<f4").reshape(2, 3)
    plain = [some, some.astype(">i2"), np.asfortranarray(some.astype("c8")), np.array(True), np.zeros((0, 3), "f2")]
    archives = [{"a": some, "b/c": some.astype("i8")}, {"": some}]
    layers = {"conv1": {"weights": some, "biases": np.arange(3.0)}, "n": {"mean": np.ones((1, 2)), "k": 3, "t": "x"}}
    dictionaries = [layers, {"a": np.asfortranarray(some), "b": [some, (some, 1)], "e": np.zeros(0)}]
    holders = [np.array(each, dtype=object) for each in dictionaries]
    return form(
        0,
        *(saved(np.save, each) for each in plain),
        *(saved(np.savez, **each) for each in archives),
        saved(np.savez_compressed, a=some, b=np.zeros(100)),
        *(saved(np.save, each, allow_pickle=True) for each in holders),
    )


# --- safetensors and .wio


def safetensors() -> list[bytes]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, code, shape, size in (
        ("a", "F32", [2, 3], 24),
        ("b.c", "BF16", [4], 8),
        ("e", "I64", [0, 2], 0),
        ("s", "BOOL", [], 1),
        ("q", "F8_E4M3", [3], 3),
    ):
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    plain = len(text).to_bytes(8, "little") + text + bytes(range(at))
    index = {"metadata": {"total_size": 32}, "weight_map": {"a": "s-1.safetensors", "b": "s-2.safetensors"}}
    return form(0, plain) + form(1, text) + form(2, json.dumps(index).encode())


def safetensors_shards() -> dict[str, bytes]:
    found = {}
    for name, key in (("s-1.safetensors", "a"), ("s-2.safetensors", "b")):
        text = json.dumps({key: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
        found[name] = len(text).to_bytes(8, "little") + text + bytes(range(16))
    return found


def wio() -> list[bytes]:
    vectors = [each.read_bytes() for each in sorted((TESTS.parent / "spec" / "vectors" / "valid").glob("*.wio"))]
    whole, parts = [], []
    for raw in vectors:
        if len(raw) < 8192:
            whole.append(raw)
            header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
            declaration = json.loads(header.pop("__metadata__")["wio"])
            parts.append(json.dumps({"header": header, "wio": declaration}).encode())
    return form(0, *whole) + form(1, *parts)


# --- texts


def registry() -> list[bytes]:
    small = sorted(REGISTRY.glob("*.toml"), key=lambda path: path.stat().st_size)[:4]
    habits = sorted((REGISTRY / "dialects").glob("*.toml"), key=lambda path: path.stat().st_size)[:4]
    made = b"""
id = "m"
title = "M"
[network]
layers = [
  ["input", "Input", [], { axes = "HWC", sizes = [8, 6, 3] }],
  ["c1", "Conv", "input", { filters = 4, kernel_shape = [3, 2] }],
  ["b1", "BatchNormalization", "c1", { epsilon = 0.01 }],
  ["flatten", "Flatten", "b1"],
  ["d1", "Gemm", "flatten", { units = 2 }],
]
[dialects.torch]
adapters = ["torch"]
title = "t"
source = "s"
verified = "v"
layers = "{layer}"
[dialects.torch.weights]
"Conv.kernel" = "weight"
"Conv.bias" = "bias"
"Gemm.kernel" = "weight"
"Gemm.bias" = "bias"
"BatchNormalization.gamma" = "weight"
"BatchNormalization.beta" = "bias"
"BatchNormalization.mean" = "running_mean"
"BatchNormalization.variance" = "running_var"
"""
    return form(0, *(each.read_bytes() for each in small), made) + form(1, *(each.read_bytes() for each in habits))


def name_pattern() -> list[bytes]:
    return form(
        0,
        b"{layer}/{weight}:0\nconv1/kernel:0\nlayer=conv1\nweight=kernel",
        b"block{k}_{part}\nblock3_a\nk=3\npart=a",
        b"{a}_{b}_{c}\nx_y_z_w\na=x\nb=y\nc=z",
        b"plain\nplain",
    )


def layout() -> list[bytes]:
    texts = (
        *("HWIO", "OIHW flipped", "(GO)IHW G=32", "(HWC)O H=4 W=4 C=128", "I(GU) G=ifco", "(?)O", "()", "1OI"),
        *("YXO values=OYX", "I(GU) values=UI G=ifco", "FB(GU) G=zrh", "(CM)1HW C=3"),
    )
    return form(0, *(each.encode() for each in texts))
