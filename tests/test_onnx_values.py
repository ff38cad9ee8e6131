"""Values of ONNX tensors, however they are stored, as the onnx package's own numpy_helper reads them."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_network
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from onnx_judge import ADAPTER, field, model, read, same, saved, values, with_tensor, write

from wio.adapters.wio_file import WioFile
from wio.api import save
from wio.errors import DigestError, FormatError

TESTED = Path(onnx.__file__).parent / "backend" / "test" / "data"
FILES = sorted(TESTED.rglob("*.onnx"))
RELU = [helper.make_node("Relu", ["x"], ["y"])]

TYPES = {
    name: number
    for name, number in TensorProto.DataType.items()
    if name not in ("UNDEFINED", "STRING", "FLOAT4E2M1", "FLOAT6E2M3", "FLOAT6E3M2")
}


def constants(made: onnx.ModelProto) -> dict[str, TensorProto]:
    found = {each.name: each for each in made.graph.initializer}
    for node in made.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found[node.output[0]] = attribute.t
    return found


def all_tensors(nodes: Iterable[onnx.NodeProto], initializers: Iterable[TensorProto] = ()) -> Iterator[np.ndarray]:
    """Every tensor of a graph, of the bodies in it, and of what those hold, as the onnx package reads them."""
    yield from map(numpy_helper.to_array, initializers)
    for node in nodes:
        for attribute in node.attribute:
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from all_tensors(body.node, body.initializer)
            if node.op_type == "Constant":
                value = helper.get_attribute_value(attribute)
                if attribute.name == "value":
                    yield numpy_helper.to_array(value)
                elif attribute.name.startswith("value_"):
                    yield np.array(value, {"f": np.float32, "i": np.int64}.get(attribute.name[6], object))


def told(array: np.ndarray) -> tuple[object, ...]:
    values = array.tolist() if array.dtype == object else array.tobytes()
    return array.dtype.name, array.shape, repr(values)


def test_all_models_that_onnx_is_tested_with() -> None:
    assert len(FILES) >= 149
    count = 0
    for path in FILES:
        bundle, made = read(path), onnx.load(path)
        wanted = constants(made)
        assert set(wanted) <= set(bundle), path
        for name, proto in wanted.items():
            array = numpy_helper.to_array(proto)
            assert same(bundle[name].numpy(), array), (path, name)
            assert bytes(bundle[name].stored()) == array.tobytes(), (path, name)
        everything = list(all_tensors(made.graph.node, made.graph.initializer))
        for function in made.functions:
            everything += all_tensors(function.node)
        assert sorted(told(t.numpy()) for t in bundle.values()) == sorted(map(told, everything)), path
        count += len(everything)
        assert ADAPTER.sniff(path) == 10
    assert count > 2000


def test_other_files_are_no_models(tmp_path: Path) -> None:
    caffe = b"\x0a\x03net" + b"\xa2\x06\x04\x0a\x02c1"
    saved_model = b"\x08\x01" + b"\x12\x04\x0a\x02\x08\x01"
    for content in (
        b"",
        b"\x08",
        b"\x00" * 64,
        b"<html>",
        b"version https://git-lfs",
        caffe,
        saved_model,
        b"\x80\x02]q\x00.",
    ):
        path = tmp_path / "f"
        path.write_bytes(content)
        assert ADAPTER.sniff(path) == 0
    assert ADAPTER.sniff(tmp_path) == 0
    assert ADAPTER.sniff(tmp_path / "none") == 0


@pytest.mark.parametrize("name", TYPES)
def test_each_data_type_in_raw_data_and_in_its_typed_field(tmp_path: Path, name: str) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(TYPES[name])
    array = np.array([[0, 1, -2, 3, 1.5, -1, 2], [1, 1, 0, 1, -1, -2, 3]])
    array = np.abs(array).astype(dtype) if name.startswith(("UINT", "FLOAT8E8")) else array.astype(dtype)
    raw = numpy_helper.from_array(array, "raw")
    typed = helper.make_tensor("typed", TYPES[name], array.shape, array)
    assert raw.HasField("raw_data")
    assert not typed.HasField("raw_data")
    made = model(RELU, {})
    made.graph.initializer.extend([raw, typed])
    bundle = read(saved(made, tmp_path))
    for each in ("raw", "typed"):
        assert same(bundle[each].numpy(), array), each
        assert bytes(bundle[each].stored()) == array.tobytes()
        assert bundle[each].nbytes == len(array.tobytes())


def test_numbers_that_are_not_packed_are_the_same(tmp_path: Path) -> None:
    floats = b"".join(field(4, 5, struct.pack("<f", value)) for value in (1.5, -2.0))
    path = with_tensor(tmp_path, b"\x08\x02\x10\x01" + floats)
    assert read(path)["w"].numpy().tolist() == onnx_values(path) == [1.5, -2.0]
    numbers = field(5, 0, b"\x05") + field(5, 2, b"\x06\x07") + field(5, 0, b"\xff" * 9 + b"\x01")
    path = with_tensor(tmp_path, b"\x08\x04\x10\x06" + numbers)
    assert read(path)["w"].numpy().tolist() == onnx_values(path) == [5, 6, 7, -1]


def onnx_values(path: Path) -> object:
    return numpy_helper.to_array(onnx.load(path).graph.initializer[0]).tolist()


def test_strings(tmp_path: Path) -> None:
    made = model(RELU, {})
    made.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [2, 2], [b"a", b"", b"\xff", b"x" * 200]))
    tensor = read(saved(made, tmp_path))["s"]
    assert tensor.numpy().tolist() == [[b"a", b""], [b"\xff", b"x" * 200]]
    assert tensor.nbytes == len(tensor.stored())


def test_weights_of_bodies_and_functions_are_named_by_their_way(tmp_path: Path) -> None:
    def constant(array: np.ndarray) -> onnx.NodeProto:
        return helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(array, "inner"))

    def body(array: np.ndarray, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        return helper.make_graph([constant(array), *nodes], "b", [], [], [numpy_helper.from_array(array * 2, "i")])

    inner = helper.make_node("If", ["q"], ["z"], then_branch=body(values(2), []), else_branch=body(values(3), []))
    nodes = [
        helper.make_node("Loop", ["m", "q", "x"], ["y"], "loop", body=body(values(4), [inner])),
        helper.make_node("Scan", ["x"], ["u"], "scan", body=body(values(6), []), num_scan_inputs=1),
        helper.make_node("f", ["x"], ["v"], domain="local"),
    ]
    function = helper.make_function(
        "local",
        "f",
        ["a"],
        ["b"],
        [constant(values(5)), helper.make_node("Add", ["a", "k"], ["b"])],
        [helper.make_opsetid("", 21)],
    )
    bundle = read(saved(model(nodes, {}, functions=[function]), tmp_path))
    assert {t.name: t.shape for t in bundle.values()} == {
        "loop/body/i": (4,),
        "loop/body/k": (4,),
        "loop/body/z/then_branch/i": (2,),
        "loop/body/z/then_branch/k": (2,),
        "loop/body/z/else_branch/i": (3,),
        "loop/body/z/else_branch/k": (3,),
        "scan/body/i": (6,),
        "scan/body/k": (6,),
        "local::f/k": (5,),
    }
    assert same(bundle["local::f/k"].numpy(), values(5))


# --- external data


def external(tmp_path: Path, entries: dict[str, str], content: bytes = b"", name: str = "w.bin") -> Path:
    made = model(RELU, {"w": np.arange(6, dtype=np.float32)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    if content:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(content)
    return saved(made, tmp_path)


DATA = np.arange(6, dtype=np.float32).tobytes()


def test_external_data_are_read_within_their_bounds(tmp_path: Path) -> None:
    made = model(RELU, {"a": values(40), "b": values(3, 4), "c": np.zeros((0,), np.float32)})
    for tensor, offset in zip(made.graph.initializer, (0, 4096, 5000), strict=True):
        set_external_data(tensor, "sub/w.bin", offset, len(tensor.raw_data))
    (tmp_path / "sub").mkdir()
    content = bytearray(5000)
    for tensor, offset in zip(made.graph.initializer, (0, 4096, 5000), strict=True):
        content[offset : offset + len(tensor.raw_data)] = tensor.raw_data
        tensor.ClearField("raw_data")
    (tmp_path / "sub" / "w.bin").write_bytes(content)
    bundle = read(saved(made, tmp_path))
    assert same(bundle["a"].numpy(), values(40))
    assert bytes(bundle["b"].stored()) == values(3, 4).tobytes()
    assert bundle["c"].numpy().shape == (0,)


@pytest.mark.parametrize(
    "entries", [{"location": "w.bin"}, {"location": "./w.bin", "prepacked_0": "x|0|1", "length": "24"}]
)
def test_what_external_data_may_leave_out(tmp_path: Path, entries: dict[str, str]) -> None:
    assert bytes(read(external(tmp_path, entries, DATA))["w"].stored()) == DATA


def test_a_checksum_is_checked(tmp_path: Path) -> None:
    good = hashlib.sha1(DATA).hexdigest()
    assert bytes(read(external(tmp_path, {"location": "w.bin", "checksum": good}, DATA))["w"].stored()) == DATA
    bad = read(external(tmp_path, {"location": "w.bin", "checksum": "0" * 40}, DATA))["w"]
    with pytest.raises(DigestError, match="does not match the SHA-1"):
        bad.numpy()
    with pytest.raises(DigestError, match="does not match the SHA-1"):
        bad.stored()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "no location is given"),
        ({"location": ""}, "leads out of the model's folder"),
        ({"location": "../w.bin"}, "leads out of the model's folder"),
        ({"location": "a/../../w.bin"}, "leads out of the model's folder"),
        ({"location": "/etc/passwd"}, "leads out of the model's folder"),
        ({"location": "C:\\w.bin"}, "leads out of the model's folder"),
        ({"location": "w\0.bin"}, "leads out of the model's folder"),
        ({"location": "none.bin"}, "cannot be opened: No such file"),
        ({"location": "w.bin", "offset": "-1"}, "no number of bytes"),
        ({"location": "w.bin", "offset": "9" * 30}, "no number of bytes"),
        ({"location": "w.bin", "length": "0x18"}, "no number of bytes"),
        ({"location": "w.bin", "offset": "4"}, "24 bytes are needed, its external data are 20 bytes at 4"),
        ({"location": "w.bin", "offset": "4", "length": "24"}, "which has 24"),
        ({"location": "w.bin", "length": "20"}, "24 bytes are needed"),
        ({"location": "w.bin", "offset": "100"}, "24 bytes are needed"),
    ],
)
def test_external_data_that_are_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    (tmp_path / "in").mkdir()
    path = external(tmp_path, entries, DATA, "w.bin")
    with pytest.raises(FormatError, match=message):
        read(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(DATA)
    folder = tmp_path / "in"
    folder.mkdir()
    path = external(folder, {"location": "w.bin"})
    (folder / "w.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="cannot be opened"):
        read(path)
    (folder / "w.bin").unlink()
    os.link(tmp_path / "secret", folder / "w.bin")
    with pytest.raises(FormatError, match="a hard link"):
        read(path)
    (folder / "w.bin").unlink()
    (folder / "w.bin").mkdir()
    with pytest.raises(FormatError, match="is no regular file"):
        read(path)
    path = external(folder, {"location": "sub/secret"})
    (folder / "sub").symlink_to(tmp_path)
    with pytest.raises(FormatError, match="cannot be opened"):
        read(path)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(FormatError, match="is no regular file"):
        read(external(tmp_path, {"location": "w.bin"}))


def test_a_model_is_listed_and_copied_without_numpy(tmp_path: Path) -> None:
    path = saved(onnx_network.network(1), tmp_path)
    script = (
        "import sys; from pathlib import Path; from wio.adapters.onnx_file import OnnxFile\n"
        f"bundle = OnnxFile().read(Path({str(path)!r}))\n"
        "weights = [t for t in bundle.values() if t.role not in (None, 'other')]\n"
        "print(len(bundle), sum(len(t.stored()) for t in weights), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    size = sum(array.nbytes for array in onnx_network.weights(1).values())
    assert done.stdout.split() == [str(len(read(path))), str(size), "False"]


def test_a_model_through_a_wio_file_and_back(tmp_path: Path) -> None:
    path = saved(onnx_network.network(1), tmp_path)
    save(read(path), tmp_path / "m.wio")
    write(tmp_path / "back.onnx", WioFile().read(tmp_path / "m.wio"), template=str(path))
    assert (tmp_path / "back.onnx").read_bytes() == path.read_bytes()
