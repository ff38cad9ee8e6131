"""Small files that ask for much: pickles, archives, messages and definitions, each in a process that is measured."""

from __future__ import annotations

import os
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import caffe_files as cf
import numpy as np
import pytest
from hostile import Case, Seed, measured, survives
from onnx_judge import field, varint
from test_torch_hostile import archive, state, tensor, text

from wio.adapters._caffe_prototxt import parse
from wio.adapters._protobuf import WireError
from wio.adapters.keras_hdf5 import KerasTF


def torch_seed(folder: Path, pickle: bytes, data: bytes = bytes(16)) -> Seed:
    return Seed.of("torch", archive(folder / "m.pt", pickle, data))


def number(at: int, value: int) -> bytes:
    return varint(at << 3) + varint(value)


def onnx_seed(folder: Path, graph: bytes, **beside: bytes) -> Seed:
    model = number(1, 8) + field(8, 2, number(2, 13)) + field(7, 2, graph)
    return Seed("onnx", {"m.onnx": model, **{f"{name}.bin": raw for name, raw in beside.items()}}, "m.onnx")


def weight(name: str, size: int, raw: bytes | None = None, more: bytes = b"") -> bytes:
    values = b"" if raw is None else field(9, 2, raw)
    return field(5, 2, number(1, size) + number(2, 1) + field(8, 2, name.encode()) + values + more)


def node(op: str, inputs: list[str], output: str, more: bytes = b"") -> bytes:
    names = b"".join(field(1, 2, each.encode()) for each in inputs)
    return field(1, 2, names + field(2, 2, output.encode()) + field(4, 2, op.encode()) + more)


def _beside(location: str, size: int) -> bytes:
    entries = {"location": location, "offset": "0", "length": str(size)}
    pairs = (field(13, 2, field(1, 2, k.encode()) + field(2, 2, v.encode())) for k, v in entries.items())
    return b"".join(pairs) + number(14, 1)


SOUND_ONNX = weight("w", 2, bytes(8))


def views(folder: Path) -> Seed:
    """Two hundred views of one storage, each from another element on."""
    numel = 2 << 20
    each = (text(f"w{i}") + tensor(numel=numel, offset=i, shape=numel - 200) for i in range(200))
    return torch_seed(folder, b"\x80\x02}(" + b"".join(each) + b"u.", bytes(4 * numel))


def repeated(folder: Path) -> Seed:
    """Thirty tensors that repeat four values sixty million times."""
    size = 15 << 20
    each = (text(f"w{i}") + tensor(offset=i % 4, shape=size - i, stride=0) for i in range(30))
    return torch_seed(folder, b"\x80\x02}(" + b"".join(each) + b"u.")


def zeros(folder: Path) -> Seed:
    path = folder / "m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for k in range(8):
            with file.open(f"a{k}.npy", "w") as out:
                np.save(out, np.zeros(15 << 18, "f4"))
    return Seed.of("numpy", path)


def members(folder: Path) -> Seed:
    path = folder / "m.npz"
    with zipfile.ZipFile(path, "w") as file:
        for k in range(110_000):
            file.writestr(f"{k}.npy", b"")
    return Seed.of("numpy", path)


def joined_shapes(folder: Path) -> Seed:
    """Each Concat joins sixteen times what the one before it gave."""
    first = field(5, 2, number(1, 1) + number(2, 7) + field(8, 2, b"c") + field(9, 2, bytes(8)))
    nodes = (node("Concat", [f"c{k - 1}" if k else "c"] * 16, f"c{k}") for k in range(9))
    return onnx_seed(folder, first + b"".join(nodes))


BOMBS: dict[str, tuple[Callable[[Path], Seed], tuple[str, ...] | None]] = {
    "operations of a pickle": (lambda f: torch_seed(f, b"\x80\x02](" + b"}" * 3_000_000 + b"e."), ()),
    "lists of lists": (lambda f: torch_seed(f, b"\x80\x02](](" + b"N" * 1000 + b"eq\0" + b"h\0" * 900_000 + b"e."), ()),
    "views that overlap": (views, ()),
    "views that repeat": (repeated, ()),
    "an archive of zeros": (zeros, ()),
    "members without end": (members, ()),
    "shapes that double": (joined_shapes, None),
    "nodes without end": (lambda f: onnx_seed(f, SOUND_ONNX + node("Relu", ["a"], "b") * 300_000), ()),
    "tensors without end": (lambda f: onnx_seed(f, b"".join(weight(f"w{k}", 0) for k in range(60_000))), ()),
    "empty pieces": (lambda f: onnx_seed(f, weight("w", 2, None, field(4, 2, b"") * 2_000_000)), ()),
    "numbers of an attribute": (
        lambda f: onnx_seed(
            f,
            SOUND_ONNX + node("Conv", ["x", "w"], "y", field(5, 2, field(1, 2, b"pads") + field(8, 2, bytes(3 << 20)))),
        ),
        None,
    ),
    "external data of one place": (
        lambda f: onnx_seed(
            f,
            b"".join(weight(f"w{k}", 1 << 20, None, _beside("d.bin", 4 << 20)) for k in range(60)),
            d=bytes(4 << 20),
        ),
        (),
    ),
    "layers without end": (
        lambda _: Seed("caffe", {"m.caffemodel": cf.network() + cf.packet(100, b"") * 30_000}, "m.caffemodel"),
        (),
    ),
    "a definition of megabytes": (
        lambda _: Seed("caffe", {"m.caffemodel": cf.packet(1, b"x" * (20 << 20)) + cf.network()}, "m.caffemodel"),
        (),
    ),
    "a header of megabytes": (
        lambda _: Seed(
            "numpy", {"a.npy": b"\x93NUMPY\2\0" + (10 << 20).to_bytes(4, "little") + b"(" * (10 << 20)}, "a.npy"
        ),
        (),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb(tmp_path: Path, name: str) -> None:
    make, words = BOMBS[name]
    seed = make(tmp_path)
    measured(tmp_path, seed, Case(name, refused=words))


def test_every_opcode_of_every_protocol(tmp_path: Path) -> None:
    """With what it takes and without, on what it may take: each is read as data or refused, and none does anything."""
    cases = []
    for opcode in pickletools.opcodes:
        code = opcode.code.encode("latin-1")
        for argument in (b"", bytes(16), b"1\n1\n", b"os\nsystem\n", b"\xff" * 16):
            for before in (b"", b"}", b"(", b"NN", tensor()):
                pickle = state(text("w"), before + code + argument)
                path = archive(tmp_path / "m.pt", pickle)
                cases.append(Case(f"{opcode.name} {argument!r} on {before[:8]!r}", {"m.pt": path.read_bytes()}, True))
    seed = torch_seed(tmp_path, state(text("w"), tensor()))
    found = survives(tmp_path, seed, cases)
    assert found["refused"] > found["read"]


@pytest.mark.parametrize("source", ['a: "' + "x" * 3_000_000 + '"', "layer{}" * 100_000, "a{" * 5000, '"\\' * 500_000])
def test_definitions_of_megabytes(source: str) -> None:
    try:
        assert parse(source) == {}
    except WireError as error:
        assert "line 1" in error.message


def test_a_pipe_is_asked_about_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.h5")
    assert KerasTF().sniff(tmp_path / "m.h5") == 0


def test_the_frame_of_the_bombs_is_sound(tmp_path: Path) -> None:
    """Without what makes them bombs they are read."""
    assert survives(tmp_path, onnx_seed(tmp_path, SOUND_ONNX), [Case("same")]) == {"read": 1}
    good = torch_seed(tmp_path, state(text("w"), tensor()), struct.pack("<4f", 1, 2, 3, 4))
    assert survives(tmp_path, good, [Case("same")]) == {"read": 1}
