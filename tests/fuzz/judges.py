"""What the formats' own libraries read: the judges of what wio accepted. Each is imported where it is used."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.reading import Array, Judged, RefusedError, UnjudgedError, Values

from wio.adapters._caffe_schema import V1_TYPES


def tensorflow(path: Path) -> Judged:
    """tf.train.load_checkpoint: the CheckpointReader of V1 and V2. What it cannot give as an array is None."""
    from fuzz.tensorflow_judge import read

    return read(path)


def hdf5(path: Path) -> Values:
    """Arrays of a Keras HDF5 file by layer and weight, as its own lists name them (legacy_h5_format.py)."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return dict(_keras_arrays(file))
    except Exception as error:
        raise RefusedError(repr(error)) from None


def _keras_arrays(file: Any) -> Iterator[tuple[str, Array]]:
    weights = file.get("model_weights", file)
    if "nb_layers" in weights.attrs:
        for k in range(int(weights.attrs["nb_layers"])):
            group = weights[f"layer_{k}"]
            for p in range(int(group.attrs["nb_params"])):
                yield f"layer_{k}/param_{p}", group[f"param_{p}"][()]
        return
    layers = _names(weights, "layer_names")
    more = ["top_level_model_weights"] if "top_level_model_weights" in weights else []
    for layer in dict.fromkeys(layers + more):
        for name in _names(weights[layer], "weight_names"):
            yield f"{layer}/{name}", weights[layer][name][()]
    if "optimizer_weights" in file:
        for name in _names(file["optimizer_weights"], "weight_names"):
            yield f"optimizer_weights/{name}", file["optimizer_weights"][name][()]


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names, which may be cut into pieces of 64 KB (keras 2.1.5)."""
    if attribute in group.attrs:
        pieces = [group.attrs[attribute]]
    else:
        pieces = []
        while f"{attribute}{len(pieces)}" in group.attrs:
            pieces.append(group.attrs[f"{attribute}{len(pieces)}"])
    return [each.decode() if isinstance(each, bytes) else str(each) for piece in pieces for each in piece]


def keras3(path: Path) -> Values:
    """Every dataset under a ``vars`` of a .keras, of a .weights.h5 or of the shards of a .weights.json, by its path."""
    import h5py

    try:
        if path.name.endswith(".json"):
            named = json.loads(path.read_bytes())["weight_map"].values()
            files = [path.with_name(n) for each in named for n in ([each] if isinstance(each, str) else each)]
            return {k: v for each in dict.fromkeys(files) for k, v in keras3(each).items()}
        opened: Any = path
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                opened = io.BytesIO(archive.read("model.weights.h5"))
        found: dict[str, Array] = {}

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                found[name] = node[()]

        with h5py.File(opened, "r") as file:
            file.visititems(visit)
        return found
    except Exception as error:
        raise RefusedError(repr(error)) from None


def onnx(path: Path) -> Values:
    """Initializers and constants of the main graph by name; what bodies and functions hold is not judged."""
    with warnings.catch_warnings():
        # Of keys that it does not know onnx warns, and goes on.
        warnings.simplefilter("ignore")
        return _onnx(path)


def _onnx(path: Path) -> Values:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    def values(proto: Any) -> Array:
        if proto.data_type == onnx.TensorProto.STRING:
            # to_array decodes them, and gives up on strings that are no text.
            return np.array(list(proto.string_data), object).reshape(tuple(proto.dims))
        return numpy_helper.to_array(proto, str(path.parent))

    try:
        model = onnx.load(str(path))
        found = {each.name: values(each) for each in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and not node.domain and node.output:
                for attribute in node.attribute:
                    if attribute.ref_attr_name:
                        continue
                    if attribute.name == "value" and attribute.HasField("t"):
                        found[node.output[0]] = values(attribute.t)
                    elif attribute.name in _NUMBERS:
                        field, dtype = _NUMBERS[attribute.name]
                        value = getattr(attribute, field)
                        found[node.output[0]] = np.array(
                            value if isinstance(value, bytes) else np.asarray(value, dtype)
                        )
        return found
    except DecodeError as error:
        # Protobuf parses every message, wio those that say something of weights.
        raise UnjudgedError(str(error)) from None
    except Exception as error:
        raise RefusedError(repr(error)) from None


_NUMBERS: dict[str, tuple[str, Any]] = {
    "value_float": ("f", "f4"),
    "value_floats": ("floats", "f4"),
    "value_int": ("i", "i8"),
    "value_ints": ("ints", "i8"),
    "value_string": ("s", object),
    "value_strings": ("strings", object),
}


def torch(path: Path) -> Values:
    """torch.load with weights_only, its nested dictionaries and lists joined by dots."""
    import torch

    def leaves(value: Any, name: str) -> Iterator[tuple[str, Array]]:
        if isinstance(value, torch.Tensor):
            yield name, torch_bits(value)
        elif isinstance(value, Mapping):
            for key, each in value.items():
                yield from leaves(each, f"{name}.{key}" if name else str(key))
        elif isinstance(value, list | tuple):
            for key, each in enumerate(value):
                yield from leaves(each, f"{name}.{key}" if name else str(key))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.name.endswith(".json"):
                shards = dict.fromkeys(json.loads(path.read_bytes())["weight_map"].values())
                return {k: v for each in shards for k, v in torch_values(path.with_name(each)).items()}
            return dict(leaves(torch.load(path, weights_only=True, map_location="cpu"), ""))
    except Exception as error:
        raise RefusedError(repr(error)) from None


torch_values = torch


def torch_bits(tensor: Any) -> Array:
    import torch

    whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
    flat = whole.reshape(-1).view(torch.uint8).numpy() if whole.numel() else np.empty(0, "u1")
    return flat.view(f"V{whole.element_size()}").reshape(tuple(whole.shape))


def numpy(path: Path) -> Values:
    """numpy.load without pickles; the dictionaries, which are pickles, through an unpickler that makes arrays only."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(file) if file.read(6) == b"\x93NUMPY" and not file.seek(0) else None
            if version is not None:
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                _, _, dtype = read(file)
                if dtype.hasobject:
                    return dict(_leaves(_Arrays(file, encoding="latin1").load().item(), ""))
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {path.name.removesuffix(".npy"): _little(loaded)}
            with loaded:
                return {name.removesuffix(".npy"): _little(loaded[name]) for name in loaded.files}
    except Exception as error:
        raise RefusedError(repr(error)) from None


def _little(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"))


class _Arrays(pickle.Unpickler):
    _KNOWN = ("_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer")

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in self._KNOWN:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"{module}.{name}")


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Array]]:
    if isinstance(value, np.ndarray | np.generic):
        yield name, _little(np.asarray(value))
    elif isinstance(value, dict):
        for key, each in value.items():
            text = key.decode("latin-1") if isinstance(key, bytes) else str(key)
            yield from _leaves(each, f"{name}/{text}" if name else text)
    elif isinstance(value, list | tuple):
        for key, each in enumerate(value):
            yield from _leaves(each, f"{name}/{key}" if name else str(key))


_WIDTHS = {8: ("F64", "I64", "U64", "C64"), 4: ("F32", "I32", "U32"), 2: ("F16", "BF16", "I16", "U16")}


def safetensors(path: Path) -> Values:
    """The safetensors library, over one file or over every shard of an index."""
    import safetensors

    try:
        raw = path.read_bytes()
        if path.name.endswith(".json"):
            shards = dict.fromkeys(json.loads(raw)["weight_map"].values())
            return {k: v for each in shards for k, v in safetensors_values(path.with_name(each)).items()}
        found = {}
        for name, each in safetensors.deserialize(raw):
            width = next((size for size, codes in _WIDTHS.items() if each["dtype"] in codes), 1)
            found[name] = np.frombuffer(bytes(each["data"]), f"V{width}").reshape(each["shape"])
        return found
    except Exception as error:
        raise RefusedError(repr(error)) from None


safetensors_values = safetensors


def wio(path: Path) -> Values:
    """The same library on the stored bytes, without what wio keeps there for itself."""
    found = safetensors(path)
    return {k: np.frombuffer(v.tobytes(), "u1") for k, v in found.items() if not k.startswith("__wio__/")}


# --- Caffe: caffe.proto 2, as far as blobs and wio's list of definitions go


@cache
def caffe_messages() -> dict[str, Any]:
    """Message classes of the real protobuf, made of wio's own list of fields, which other tests hold against Caffe."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    from wio.adapters._caffe_schema import MESSAGES

    file = descriptor_pb2.FileDescriptorProto(name="caffe_of_the_fuzzers.proto", package="fuzzed", syntax="proto2")
    plain = descriptor_pb2.FieldDescriptorProto
    kinds = {"int": plain.TYPE_INT64, "bool": plain.TYPE_BOOL, "float": plain.TYPE_FLOAT, "string": plain.TYPE_STRING}

    def add(message: Any, name: str, number: int, kind: str, packed: bool = False) -> None:
        field = message.field.add(name=name, number=number, label=plain.LABEL_REPEATED)
        if kind == "V1LayerType" or kind.startswith("enum"):
            values = (
                {n: each for n, (each, _) in V1_TYPES.items()}
                if kind == "V1LayerType"
                else dict(enumerate(kind.split()[1:]))
            )
            made = message.enum_type.add(name=f"Of_{name}")
            for value, each in values.items():
                made.value.add(name=each, number=value)
            field.type, field.type_name = plain.TYPE_ENUM, f".fuzzed.{message.name}.Of_{name}"
            return
        if kind in kinds:
            field.type = kinds[kind]
        elif kind == "double":
            field.type = plain.TYPE_DOUBLE
        elif kind in MESSAGES or kind == "BlobProto":
            field.type, field.type_name = plain.TYPE_MESSAGE, f".fuzzed.{kind}"
        else:
            field.type = plain.TYPE_INT64
        if packed:
            field.options.packed = True

    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, field in fields.items():
            add(message, field_name, field.number, field.kind)
        if name in ("LayerParameter", "V1LayerParameter"):
            add(message, "blobs", 7 if name == "LayerParameter" else 6, "BlobProto")
    blob = file.message_type.add(name="BlobProto")
    for name, number in (("num", 1), ("channels", 2), ("height", 3), ("width", 4)):
        add(blob, name, number, "int")
    add(blob, "shape", 7, "BlobShape")
    add(blob, "data", 5, "float", packed=True)
    add(blob, "double_data", 8, "double", packed=True)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"fuzzed.{name}"))
        for name in (*MESSAGES, "BlobProto")
    }


def caffe(path: Path) -> Values:
    """Values of all blobs in order, as protobuf's own parser finds them; their shapes are not judged here."""
    try:
        net = caffe_messages()["NetParameter"].FromString(path.read_bytes())
    except Exception as error:
        raise RefusedError(repr(error)) from None
    blobs = [blob for layer in net.layers or net.layer for blob in layer.blobs]
    return {
        str(k): np.array(blob.double_data, "f8") if blob.double_data else np.array(blob.data, "f4")
        for k, blob in enumerate(blobs)
    }


def prototxt(path: Path) -> Values:
    """The definition as protobuf's own parser of the text format reads it."""
    from google.protobuf import text_format

    made = caffe_messages()["NetParameter"]()
    try:
        text_format.Parse(path.read_text("utf-8"), made, allow_unknown_field=True)
    except Exception as error:
        raise RefusedError(repr(error)) from None
    return {"": np.array(json.dumps(plain_message(made), sort_keys=True))}


V1_NAMES = {number: new for number, (_, new) in V1_TYPES.items()}


def plain_message(message: Any) -> dict[str, Any]:
    found = {}
    for field, value in message.ListFields():
        names = {each.number: each.name for each in field.enum_type.values} if field.enum_type else {}
        of_v1 = field.name == "type" and bool(names)
        found[field.name] = [
            plain_message(each) if field.message_type else V1_NAMES[each] if of_v1 else names.get(each, each)
            for each in value
        ]
    return found
