"""Hypothesis strategies for valid files of every format, each written by the format's own library, and what is in them.

A file is an input as :mod:`fuzz.readers` takes it, so that it can be judged, and damaged, as the fuzzers' inputs are.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.laying import BREAK
from hypothesis import strategies as st

Array = np.ndarray[Any, np.dtype[Any]]
Draw = st.DrawFn


@dataclass(frozen=True)
class Generated:
    """An input of a reader, and the values that reading it must give."""

    input: bytes
    values: Mapping[str, Array]


SIZES = st.sampled_from([0, 1, 1, 2, 2, 3, 3, 4, 7])
SHAPES = st.lists(SIZES, max_size=5).map(tuple)
NAMES = st.one_of(
    st.from_regex(r"[a-z]{1,4}[0-9]?(/[a-z]{1,5}){0,2}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_characters="\0/."), min_size=1, max_size=12),
)


@st.composite
def arrays(draw: Draw, dtypes: st.SearchStrategy[str], shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES) -> Array:
    """Any bits of a dtype, NaNs of every kind among them; booleans are 0 and 1."""
    dtype, shape = np.dtype(draw(dtypes)), draw(shapes)
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, count * dtype.itemsize, np.uint8)
    return (raw > 127).reshape(shape) if dtype == np.bool_ else raw.view(dtype).reshape(shape)


def _named(draw: Draw, values: st.SearchStrategy[Any], names: st.SearchStrategy[str] = NAMES, most: int = 5) -> Any:
    return draw(st.dictionaries(names, values, min_size=1, max_size=most))


def _written(write: Callable[[Path], Any], *names: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return [(Path(folder) / name).read_bytes() for name in names]


_ENTIRE = ("bool", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8")
_NUMBERS = (*_ENTIRE, "f2", "f4", "f8", "c8")


# --- TensorFlow


_STRINGS = st.lists(st.binary(max_size=20), max_size=4).map(lambda items: np.array(items, object).reshape(len(items)))


@st.composite
def tf_v1(draw: Draw) -> Generated:
    """By the op Save of TensorFlow 1, which is still there."""
    import tensorflow as tf

    # Its writer knows no unsigned integers of 32 or 64 bits, and refuses what has no elements.
    shapes = SHAPES.filter(lambda shape: 0 not in shape)
    kinds = arrays(st.sampled_from(("bool", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8")), shapes)
    tensors = _named(draw, st.one_of(kinds, _STRINGS.filter(len)))
    [raw] = _written(
        lambda folder: tf.raw_ops.Save(
            filename=str(folder / "m"),
            tensor_names=list(tensors),
            data=[_tensor(tf, each) for each in tensors.values()],
        ),
        "m",
    )
    return Generated(b"\0" + raw, tensors)


@st.composite
def tf_v2(draw: Draw) -> Generated:
    """By SaveV2, some variables in two slices."""
    import tensorflow as tf

    tensors = _named(draw, st.one_of(arrays(st.sampled_from((*_NUMBERS, "c16"))), _STRINGS))
    names, slices, parts = [], [], []
    for name, values in tensors.items():
        if values.ndim and values.shape[0] > 1 and values.size and values.dtype != object and draw(st.booleans()):
            cut = draw(st.integers(1, values.shape[0] - 1))
            whole, rest = " ".join(map(str, values.shape)), ":-" * (values.ndim - 1)
            names += [name, name]
            slices += [f"{whole} 0,{cut}{rest}", f"{whole} {cut},{values.shape[0] - cut}{rest}"]
            parts += [values[:cut], values[cut:]]
        else:
            names, slices, parts = [*names, name], [*slices, ""], [*parts, values]
    files = _written(
        lambda folder: tf.raw_ops.SaveV2(
            prefix=str(folder / "m"),
            tensor_names=names,
            shape_and_slices=slices,
            tensors=[_tensor(tf, each) for each in parts],
        ),
        "m.index",
        "m.data-00000-of-00001",
    )
    return Generated(b"\0" + BREAK.join(files), tensors)


def _tensor(tf: Any, values: Array) -> Any:
    if values.dtype == object:
        return tf.constant(values.tolist(), tf.string, values.shape)
    if values.dtype == bool:
        return tf.constant(values)
    # Through bytes, for constant() makes other NaNs of some.
    plain = {"uint32": tf.int32, "uint64": tf.int64}.get(values.dtype.name, tf.as_dtype(values.dtype))
    decoded = tf.reshape(tf.io.decode_raw(values.tobytes(), plain), values.shape)
    return decoded if decoded.dtype == values.dtype else tf.bitcast(decoded, values.dtype)


# --- Keras

_LAYERS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
_WEIGHTS = st.sampled_from(["kernel:0", "bias:0", "gamma:0", "W", "b", "recurrent_kernel:0"])


@st.composite
def keras_hdf5(draw: Draw) -> Generated:
    """The lists and groups of Keras 2, weights alone or in a full model, however h5py can store names and arrays."""
    import h5py

    layers = draw(
        st.dictionaries(
            _LAYERS.filter(lambda name: name not in ("optimizer_weights", "top_level_model_weights")),
            st.dictionaries(_WEIGHTS, arrays(st.sampled_from(("f2", "f4", "f8", "i4", "i8"))), max_size=3),
            min_size=1,
            max_size=4,
        )
    )
    full, nested, variable = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    split = draw(st.booleans())
    buffer, values = io.BytesIO(), {}

    def listed(group: Any, attribute: str, names: list[str]) -> None:
        texts = np.array([name.encode() for name in names], object if variable else "S")
        dtype = h5py.string_dtype() if variable else texts.dtype if len(names) else "S1"
        pieces = np.array_split(texts, 2) if split and len(names) > 1 else [texts]
        for number, piece in enumerate(pieces):
            name = attribute if len(pieces) == 1 else f"{attribute}{number}"
            group.attrs.create(name, piece.tolist(), (len(piece),), dtype)

    with h5py.File(buffer, "w") as file:
        root = file.create_group("model_weights") if full else file
        root.attrs["backend"] = draw(st.sampled_from(["tensorflow", "theano", b"tensorflow"]))
        root.attrs["keras_version"] = "2.2.4"
        listed(root, "layer_names", list(layers))
        for layer, weights in layers.items():
            group = root.create_group(layer)
            names = {name: f"{layer}/{name}" if nested else name for name in weights}
            listed(group, "weight_names", list(names.values()))
            for name, array in weights.items():
                group.create_dataset(names[name], data=array, **_storage(draw, array))
                values[f"{layer}/{names[name]}"] = array
    return Generated(b"\0" + buffer.getvalue(), values)


def _storage(draw: Draw, array: Array) -> dict[str, Any]:
    if not array.size or not array.ndim or draw(st.booleans()):
        return {}
    packed = {"compression": draw(st.sampled_from([None, "gzip"])), "shuffle": draw(st.booleans())}
    return {"chunks": tuple(min(size, 2) for size in array.shape), "fletcher32": draw(st.booleans()), **packed}


@st.composite
def keras3(draw: Draw) -> Generated:
    """Models of Keras itself: a stack of layers drawn one by one, saved whole or as weights."""
    import keras

    # Keras draws seeds of its own, which Hypothesis must not see.
    before = random.getstate()
    layers, shape = keras.layers, (4, 4, 2)
    stack: list[Any] = [layers.Input(shape)]
    kinds = [
        lambda: layers.Conv2D(draw(st.integers(1, 3)), 2, padding="same", use_bias=draw(st.booleans())),
        lambda: layers.BatchNormalization(scale=draw(st.booleans())),
        lambda: layers.DepthwiseConv2D(2, padding="same"),
        lambda: layers.Dense(draw(st.integers(1, 3)), dtype=draw(st.sampled_from(["float32", "bfloat16"]))),
        lambda: layers.Activation("relu"),
    ]
    stack += [draw(st.sampled_from(kinds))() for _ in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        stack += [layers.Reshape((16, -1)), layers.Bidirectional(layers.GRU(2))]
    keras.utils.clear_session(free_memory=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = keras.Sequential(stack)
        whole = draw(st.booleans())
        name = "m.keras" if whole else "m.weights.h5"
        [raw] = _written(lambda folder: (model.save if whole else model.save_weights)(folder / name), name)
    random.setstate(before)
    return Generated(
        (b"\0" if whole else b"\2") + raw, {str(k): np.asarray(each) for k, each in enumerate(model.weights)}
    )


# --- ONNX


@st.composite
def onnx(draw: Draw) -> Generated:
    """Initializers and constants, in raw_data, in the field of their type, or in a file beside the model."""
    from onnx import TensorProto, helper, numpy_helper

    tensors = _named(draw, arrays(st.sampled_from((*_NUMBERS, "c16"))), NAMES)
    external = draw(st.booleans())
    weights, nodes, data = [], [], b""
    for name, values in tensors.items():
        proto = numpy_helper.from_array(values, name)
        # Lists of Python's floats would make other NaNs of some.
        if draw(st.booleans()) and values.dtype.kind in "biu":
            proto = helper.make_tensor(name, proto.data_type, values.shape, values.ravel().tolist())
        if external and proto.HasField("raw_data") and values.size:
            for key, value in (("location", "weights.bin"), ("offset", len(data)), ("length", values.nbytes)):
                entry = proto.external_data.add()
                entry.key, entry.value = key, str(value)
            data += proto.raw_data
            proto.ClearField("raw_data")
            proto.data_location = TensorProto.EXTERNAL
        if draw(st.booleans()):
            proto.ClearField("name")
            nodes.append(helper.make_node("Constant", [], [name], value=proto))
        else:
            weights.append(proto)
    out = [helper.make_tensor_value_info(next(iter(tensors)), TensorProto.FLOAT, None)]
    raw = helper.make_model(helper.make_graph(nodes, "g", [], out, weights)).SerializeToString()
    return Generated(b"\1" + BREAK.join([raw, data]) if external else b"\0" + raw, tensors)


# --- Caffe


@st.composite
def caffe(draw: Draw) -> Generated:
    """Layers that wio knows nothing of, with any blobs, in every way that caffe.proto can hold them."""
    import caffe_files as cf

    some = st.lists(st.sampled_from([1, 1, 2, 3, 4]), min_size=1, max_size=4).map(tuple)
    raw, values = cf.packet(1, "net"), []
    for k in range(draw(st.integers(1, 3))):
        blobs = []
        for _ in range(draw(st.integers(0, 3))):
            array = draw(arrays(st.just("f4"), some))
            put = draw(st.sampled_from([cf.blob, cf.legacy, cf.unpacked, cf.double]))
            with np.errstate(invalid="ignore"):
                values.append(array.astype("f8" if put is cf.double else "f4").reshape(-1))
                blobs.append(put(array))
        raw += cf.layer(f"layer{k}", "Unheard", ["data"], [f"layer{k}"], blobs)
    return Generated(b"\0" + raw, {str(k): each for k, each in enumerate(values)})


@st.composite
def caffe_prototxt(draw: Draw) -> Generated:
    """A definition with any values, printed by protobuf in each of its styles."""
    from fuzz.judges import caffe_messages, plain_message
    from google.protobuf import text_format

    net = caffe_messages()["NetParameter"](name=["net"])
    integers, floats = st.integers(-(2**31), 2**31 - 1), st.floats(width=32, allow_nan=False, allow_infinity=False)
    for k in range(draw(st.integers(0, 3))):
        layer = net.layer.add(name=[f"layer{k}"], type=[draw(st.sampled_from(["Unheard", "Data"]))])
        layer.top.extend(draw(st.lists(st.text(max_size=6), max_size=2)))
        for rule in draw(st.lists(st.sampled_from([0, 1]), max_size=1)):
            layer.include.add(phase=[rule])
        if draw(st.booleans()):
            layer.pooling_param.add(kernel_size=[draw(integers)])
        if draw(st.booleans()):
            layer.batch_norm_param.add(eps=[draw(floats)])
        if draw(st.booleans()):
            layer.scale_param.add(bias_term=[draw(st.booleans())])
    text = text_format.MessageToString(
        net,
        as_utf8=draw(st.booleans()),
        as_one_line=draw(st.booleans()),
        use_short_repeated_primitives=draw(st.booleans()),
        pointy_brackets=draw(st.booleans()),
    )
    return Generated(b"\0" + text.encode(), {"": np.array(json.dumps(plain_message(net), sort_keys=True))})


# --- PyTorch


@st.composite
def torch_zip(draw: Draw) -> Generated:
    return _torch(draw, zipped=True)


@st.composite
def torch_legacy(draw: Draw) -> Generated:
    return _torch(draw, zipped=False)


def _torch(draw: Draw, *, zipped: bool) -> Generated:
    """Nested dictionaries and lists of tensors, views of shared storages among them, and of what is no tensor."""
    import torch
    from fuzz.judges import torch_bits

    dtypes = [
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "complex64",
    ]
    dtypes += ["float8_e4m3fn", "uint16"] if zipped else []
    shared = [
        _torch_tensor(draw, torch, each) for each in draw(st.lists(st.sampled_from(dtypes), min_size=1, max_size=3))
    ]
    keys = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
    others = st.sampled_from([3, -1.5, True, None, "text", b"bytes", (1, 2)])
    leaves = st.one_of(st.sampled_from(shared).flatmap(lambda each: st.just(_view(draw, each))), others)
    state = draw(
        st.dictionaries(
            keys, st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=4), max_size=4
        )
    )
    state["own"] = shared[0]
    buffer, values = io.BytesIO(), {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, torch.Tensor):
            values[name] = torch_bits(value)
        elif isinstance(value, dict):
            for key, each in value.items():
                walk(each, f"{name}.{key}" if name else key)

    walk(state, "")
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    return Generated(b"\0" + buffer.getvalue(), values)


def _torch_tensor(draw: Draw, torch: Any, name: str) -> Any:
    dtype = getattr(torch, name)
    shape = draw(SHAPES)
    raw = torch.from_numpy(
        np.frombuffer(np.random.default_rng(len(shape)).bytes(int(np.prod(shape)) * dtype.itemsize), "u1").copy()
    )
    if name == "bool" or not raw.numel():
        return torch.zeros(shape, dtype=dtype) if not raw.numel() else (raw > 127).reshape(shape)
    return raw.view(dtype).reshape(shape)


def _view(draw: Draw, tensor: Any) -> Any:
    """The tensor, turned, cut, or spread over an axis that it does not have."""
    if draw(st.booleans()) and tensor.ndim > 1:
        tensor = tensor.permute(draw(st.permutations(range(tensor.ndim))))
    if draw(st.booleans()) and tensor.ndim and tensor.shape[0] > 1:
        tensor = tensor[1:]
    return tensor.expand(2, *tensor.shape) if draw(st.booleans()) else tensor


# --- NumPy


@st.composite
def numpy(draw: Draw) -> Generated:
    kind = draw(st.sampled_from(["npy", "npz", "dictionary"]))
    dtypes = st.sampled_from(("bool", *(f"{order}{each}" for order in "<>" for each in (*_NUMBERS[1:], "c16"))))
    arrange = st.sampled_from([np.ascontiguousarray, np.asfortranarray])
    # Both turn an array without axes into one of one axis.
    turned = st.tuples(arrays(dtypes), arrange).map(lambda both: both[1](both[0]).reshape(both[0].shape, order="A"))
    buffer = io.BytesIO()
    if kind == "npy":
        tensors = {"m": draw(turned)}
        np.lib.format.write_array(buffer, tensors["m"], draw(st.sampled_from([None, (1, 0), (2, 0), (3, 0)])))
    elif kind == "npz":
        tensors = _named(
            draw, turned, st.from_regex(r"[a-z]{1,4}(/[a-z]{1,3})?", fullmatch=True).filter(lambda n: n != "file")
        )
        (np.savez_compressed if draw(st.booleans()) else np.savez)(buffer, **tensors)
    else:
        keys = st.from_regex(r"[a-z]{1,4}[0-9]?", fullmatch=True)
        layers = draw(
            st.dictionaries(keys, st.dictionaries(keys, turned, min_size=1, max_size=2), min_size=1, max_size=3)
        )
        tensors = {f"{layer}/{name}": each for layer, weights in layers.items() for name, each in weights.items()}
        np.save(buffer, np.array(layers, dtype=object), allow_pickle=True)
    little = {name: each.astype(each.dtype.newbyteorder("<")) for name, each in tensors.items()}
    return Generated(b"\0" + buffer.getvalue(), little)


# --- safetensors and .wio


@st.composite
def safetensors(draw: Draw) -> Generated:
    from safetensors.numpy import save

    # The library's own NumPy writer corrupts views; these are none.
    tensors = _named(draw, arrays(st.sampled_from(_NUMBERS)), st.text(st.characters(codec="utf-8"), max_size=10))
    metadata = draw(st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
    tensors.pop("__metadata__", None)
    return Generated(b"\0" + save({name: each.copy() for name, each in tensors.items()}, metadata), tensors)


@st.composite
def wio(draw: Draw) -> Generated:
    """By the writer of the spec's test vectors, which is not wio's."""
    from vector_files import File, floats, strings

    roles = st.sampled_from(
        [(None, None, 2), ("conv.kernel", "HWIO", 4), ("dense.kernel", "IO", 2), ("other", None, 1)]
    )
    names = draw(
        st.lists(NAMES.filter(lambda name: not name.startswith("__wio__")), unique=True, min_size=1, max_size=5)
    )
    tensors = []
    for name in names:
        if draw(st.booleans()):
            items = draw(st.lists(st.binary(max_size=9), max_size=4))
            tensors.append(strings(name, (len(items),), items))
            continue
        role, layout, rank = draw(roles)
        shape = tuple(draw(st.lists(SIZES, min_size=rank, max_size=rank)))
        told = {key: value for key, value in (("role", role), ("layout", layout)) if value is not None}
        origin = draw(st.none() | NAMES)
        tensors.append(floats(name, shape, draw(st.integers(0, 9)), **told, **({"origin": origin} if origin else {})))
    file = File(
        tensors,
        metadata=draw(st.dictionaries(st.sampled_from(["epsilon", "note"]), st.integers() | st.text(max_size=4))),
        receipt=draw(st.none() | st.just(b'{"receipt":1}')),
        outside=draw(st.booleans()),
    )
    raw = file.bytes(pad=draw(st.booleans()))
    return Generated(b"\0" + raw, {each.name: np.frombuffer(each.data, "u1") for each in tensors})


# --- the registry


@st.composite
def registry_toml(draw: Draw) -> Generated:
    """A network of a stack of layers, and a dialect that names them all."""
    size = draw(st.integers(4, 9))
    rows = [f'["input", "Input", [], {{ axes = "HWC", sizes = [{size}, {size + 1}, 3] }}]']
    below, used = "input", set()
    for k in range(draw(st.integers(1, 4))):
        kind, name = draw(st.sampled_from(["Conv", "BatchNormalization", "Relu"])), f"layer{k}"
        told = {
            "Conv": f"{{ filters = {draw(st.integers(1, 9))}, kernel_shape = [2, 1] }}",
            "BatchNormalization": "{ epsilon = 0.01 }",
            "Relu": "{}",
        }[kind]
        rows.append(f'["{name}", "{kind}", "{below}", {told}]')
        below = name
        used.add(kind)
    parts = {
        "Conv": ("kernel", "bias"),
        "BatchNormalization": ("gamma", "beta", "mean", "variance"),
    }
    weights = [f'"{kind}.{part}" = "{part}"' for kind, all_parts in parts.items() for part in all_parts if kind in used]
    prefix = draw(st.sampled_from(["", "net/", "a.b.", "x_{k}_"]))
    text = f'id = "m"\ntitle = "M"\n[network]\nlayers = [\n{",".join(rows)}\n]\n[dialects.d]\nadapters = ["torch"]\n'
    text += (
        f'title = "t"\nsource = "s"\nverified = "v"\nlayers = "{prefix}{{layer}}"\n[dialects.d.weights]\n'
        + "\n".join(weights)
    )
    return Generated(b"\0" + text.encode(), {})


FILES: dict[str, Callable[[], st.SearchStrategy[Generated]]] = {
    "tf_v1": tf_v1,
    "tf_v2": tf_v2,
    "keras_hdf5": keras_hdf5,
    "keras3": keras3,
    "onnx": onnx,
    "caffe": caffe,
    "caffe_prototxt": caffe_prototxt,
    "torch_zip": torch_zip,
    "torch_legacy": torch_legacy,
    "numpy": numpy,
    "safetensors": safetensors,
    "wio": wio,
    "registry_toml": registry_toml,
}
