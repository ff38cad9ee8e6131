"""Every reader that is fuzzed: how inputs become its files, what it reads of them, who judges it, where it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import judges, laying, seal, seeds
from fuzz.reading import Form, Reader, Values, read_all

from wio.adapters.caffe_model import CaffeModel
from wio.adapters.keras3 import Keras3
from wio.adapters.keras_hdf5 import KerasTF, KerasTheano
from wio.adapters.numpy_file import NumpyFile
from wio.adapters.onnx_file import OnnxFile
from wio.adapters.safetensors_file import SafetensorsFile
from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.adapters.torch_file import TorchFile
from wio.adapters.wio_file import WioFile
from wio.architectures.name_pattern import Pattern
from wio.architectures.registry_file import load_architecture
from wio.container import verified
from wio.layout import Layout

TF, TORCH, ONNX, CAFFE = TFCheckpoint(), TorchFile(), OnnxFile(), CaffeModel()
KERAS3, NUMPY, SAFETENSORS, WIO = Keras3(), NumpyFile(), SafetensorsFile(), WioFile()
KERAS = (KerasTF(), KerasTheano())


def _tf(path: Path) -> Values:
    return read_all(TF, path)


def _keras(path: Path) -> Values:
    """With the adapter that its backend calls for, and with the first of them where it names none."""
    return read_all(next((each for each in KERAS if each.sniff(path)), KERAS[0]), path)


def _caffe(path: Path) -> Values:
    found = read_all(CAFFE, path)
    return {str(k): each.reshape(-1) for k, each in enumerate(found.values())}


def _prototxt(path: Path) -> Values:
    from wio.adapters._caffe_prototxt import read_prototxt

    definition = read_prototxt(path)
    read_all(CAFFE, path.with_name("m.caffemodel"), prototxt=str(path))
    return {"": np.array(json.dumps(_as_floats(definition), sort_keys=True))}


def _as_floats(value: Any) -> Any:
    """Numbers as protobuf keeps them, which is in four bytes."""
    if isinstance(value, dict):
        return {key: [_as_floats(each) for each in listed] for key, listed in value.items() if listed}
    return float(np.float32(value)) if isinstance(value, float) else value


def _wio(path: Path) -> Values:
    """Stored bytes, each held against its digest."""
    read_all(WIO, path)
    bundle = WIO.read(path)
    return {name: np.frombuffer(verified(tensor).stored(), np.uint8) for name, tensor in bundle.items()}


def _torch(path: Path) -> Values:
    once = read_all(TORCH, path)
    every = read_all(TORCH, path, shared="all")
    assert once.keys() <= every.keys(), "a tensor is lost where every name is read"
    return every


def _registry(path: Path) -> Values:
    """An architecture whose every dialect gives each weight a name of its own, or a dialect without one."""
    if path.parent.joinpath("habit").exists():
        from wio.architectures.habit import load_habit

        load_habit(path)
        return {}
    architecture = load_architecture(path)
    for dialect in architecture.dialects:
        names = architecture.names(dialect)
        parameters = [each.name for each in names.values()]
        assert len(set(parameters)) == len(parameters), f"{dialect}: two names of one weight"
    return {}


def _habit(folder: Path, data: bytes) -> Path:
    (folder / "habit").write_bytes(b"")
    return laying.raw("m.toml")(folder, data)


def _text(path: Path) -> str:
    from wio.errors import FormatError

    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("no text") from None


def _pattern(path: Path) -> Values:
    """A pattern, a name, and values for fields, a line each: what is read from a name gives that name again."""
    first, _, rest = _text(path).partition("\n")
    name, *given = rest.split("\n")
    pattern = Pattern.parse(first)
    assert str(pattern) == first and Pattern.parse(str(pattern)) == pattern
    fields = pattern.match(name)
    if fields is not None:
        assert set(fields) == set(pattern.fields) and pattern.format(fields) == name, f"{name!r} is read as {fields}"
    values = dict(line.split("=", 1) for line in given if "=" in line)
    if set(values) >= set(pattern.fields) and all(values.values()) and values.get("k", "1").isdecimal():
        written = pattern.format(values)
        again = pattern.match(written)
        plain = values.get("k", "1").isascii() and not values.get("k", "1").startswith("0")
        assert not plain or (again is not None and pattern.format(again) == written), (
            f"{written!r} is written, not read"
        )
    return {}


def _layout(path: Path) -> Values:
    """A layout is what its own text says, and says the same axes as the tests' own reading of it."""
    text = _text(path)
    layout = Layout.parse(text)
    assert Layout.parse(str(layout)) == layout and str(Layout.parse(str(layout))) == str(layout)
    assert Layout.parse(layout.as_json()) == layout and hash(Layout.parse(str(layout))) == hash(layout)
    shape = [layout.size(axis) or 2 for axis in layout.axes]
    layout.check(shape)
    layout.extents(shape)
    return {
        "axes": np.array(list(layout.axes), str),
        "gates": np.array(layout.gates or ""),
        "flipped": np.array(layout.flipped),
    }


def _layout_judge(path: Path) -> dict[str, Any]:
    from layout_reference import axes_of, gates_of

    text = " ".join(word for word in path.read_text("utf-8").split(" ") if word)
    return {
        "axes": np.array(axes_of(text), str),
        "gates": np.array(gates_of(text) or ""),
        "flipped": np.array(" flipped" in text),
    }


def _zipped(raw: bytes) -> bytes:
    return seal.archive(raw) if raw.startswith(b"PK") else raw


READERS = {
    each.name: each
    for each in (
        Reader("tf_v1", (Form(laying.tf_v1), Form(laying.tf_v1_records, True)), _tf, seeds.tf_v1, judges.tensorflow),
        Reader("tf_v2", (Form(laying.tf_v2), Form(laying.tf_v2_records, True)), _tf, seeds.tf_v2, judges.tensorflow),
        Reader(
            "keras_hdf5",
            (Form(laying.raw("m.h5")), Form(laying.hdf5_attributes(seeds.keras_files))),
            _keras,
            seeds.keras_hdf5,
            judges.hdf5,
            largest=32_768,
        ),
        Reader(
            "keras3",
            (
                Form(laying.raw("m.keras", seal.archive)),
                Form(laying.keras_config(seeds.keras3_files)),
                Form(laying.raw("m.weights.h5")),
                Form(laying.beside("m.weights.json", seeds.keras3_shards)),
            ),
            lambda path: read_all(KERAS3, path),
            seeds.keras3,
            judges.keras3,
            largest=65_536,
        ),
        Reader(
            "onnx",
            (Form(laying.raw("m.onnx"), True), Form(laying.several("m.onnx", "weights.bin"))),
            lambda path: read_all(ONNX, path),
            seeds.onnx,
            judges.onnx,
            partly=True,
        ),
        Reader("caffe", (Form(laying.raw("m.caffemodel"), True),), _caffe, seeds.caffe, judges.caffe),
        Reader(
            "caffe_prototxt", (Form(laying.prototxt(seeds.caffe_weights)),), _prototxt, seeds.prototxt, judges.prototxt
        ),
        Reader(
            "torch_zip",
            (
                Form(laying.raw("m.pt", seal.archive)),
                Form(laying.torch_members),
                Form(laying.beside("m.bin.index.json", seeds.torch_shards)),
            ),
            _torch,
            seeds.torch_zip,
            judges.torch,
            strict=False,
        ),
        Reader("torch_legacy", (Form(laying.raw("m.pt")),), _torch, seeds.torch_legacy, judges.torch, strict=False),
        Reader(
            "numpy",
            (Form(laying.raw("m.npy", _zipped)),),
            lambda path: read_all(NUMPY, path),
            seeds.numpy,
            judges.numpy,
        ),
        Reader(
            "safetensors",
            (
                Form(laying.raw("m.safetensors")),
                Form(laying.raw("m.safetensors", seal.framed)),
                Form(laying.beside("m.safetensors.index.json", seeds.safetensors_shards)),
            ),
            lambda path: read_all(SAFETENSORS, path),
            seeds.safetensors,
            judges.safetensors,
        ),
        Reader(
            "wio",
            (Form(laying.raw("m.wio")), Form(laying.raw("m.wio", seal.declared))),
            _wio,
            seeds.wio,
            judges.wio,
        ),
        Reader("registry_toml", (Form(laying.raw("m.toml")), Form(_habit)), _registry, seeds.registry, largest=32_768),
        Reader("name_pattern", (Form(laying.raw("m.txt")),), _pattern, seeds.name_pattern, largest=256),
        Reader("layout", (Form(laying.raw("m.txt")),), _layout, seeds.layout, _layout_judge, largest=256),
    )
}
