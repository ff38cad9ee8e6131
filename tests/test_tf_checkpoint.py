"""The adapter `tf-checkpoint` against real TensorFlow: what TensorFlow writes, wio reads, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tf_judge import ADAPTER, read, same, save_v2, tensorflow

from wio.adapters import _tf_v2
from wio.adapters._mapped_files import MappedFile
from wio.errors import FormatError
from wio.layout import Layout

TF1 = Path(__file__).parent / "data" / "real_frameworks" / "tf1"


@pytest.fixture(scope="session")
def tf() -> Any:
    return tensorflow()


def every_dtype(tf: Any) -> dict[str, Any]:
    """Each dtype with extremes, negative numbers, NaN and infinities; names with slashes and beyond ASCII."""
    rng = np.random.default_rng(7)
    found: dict[str, Any] = {}
    for kind in ("float16", "float32", "float64", "complex64", "complex128"):
        values = rng.standard_normal((2, 3, 4)).astype(kind)
        values.flat[:4] = [np.nan, np.inf, -np.inf, -0.0]
        found[f"numbers/{kind}"] = values
    for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        limits = np.iinfo(kind)
        found[f"numbers/{kind}"] = np.array([[limits.min, limits.max, 0], [1, 2, 100]], kind)
    found["numbers/bfloat16"] = rng.standard_normal((5,)).astype(ml_dtypes.bfloat16)
    for kind in ("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"):
        found[f"small/{kind}"] = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, kind))
    found["small/int4"] = np.arange(-8, 8).astype(ml_dtypes.int4)
    found["small/uint4"] = np.arange(16).astype(ml_dtypes.uint4)
    for kind in ("qint8", "quint8", "qint16", "quint16", "qint32"):
        found[f"quantised/{kind}"] = tf.bitcast(tf.constant([1, 2, 3, 100], kind[1:]), getattr(tf, kind))
    found["boolean"] = np.array([[True, False], [False, True]])
    found["strings"] = np.array([[b"", b"a"], ["ä".encode(), b"\xff\x00" * 200]], object)
    found["no/strings"] = np.empty((0, 3), object)
    found["scalar"] = np.float32(3.25)
    found["scalar/string"] = np.array(b"one", object)
    found["empty"] = np.zeros((3, 0, 2), np.float32)
    found["ascii not: żółw/重み"] = np.arange(3, dtype=np.int32)
    return found


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_dtypes_of_tensorflow_1(tf: Any, version: str) -> None:
    bundle = read(TF1 / "dtypes" / version / "model.ckpt")
    recorded = np.load(TF1 / "dtypes" / "values.npz")
    compared = set()
    for stem in recorded.files:
        name = stem.removesuffix("_bits_u16").replace("|", "/")
        if stem.endswith("_as_f32") or name not in bundle:
            continue
        assert same(bundle[name].numpy(), recorded[stem]), name
        compared.add(name)
    strings = {"t/string", "t/string_scalar"}
    assert compared | strings == set(bundle)
    assert bundle["t/string_scalar"].numpy().item() == b"hello"
    reader = tf.train.load_checkpoint(str(TF1 / "dtypes" / version / "model.ckpt"))
    assert same(bundle["t/string"].numpy(), reader.get_tensor("t/string"))
    assert {name: list(t.shape) for name, t in bundle.items()} == reader.get_variable_to_shape_map()


@pytest.mark.parametrize("kind", ["v1", "v1_sharded", "v2", "v2_sharded", "v2_ema_names"])
def test_networks_of_tensorflow_1(tf: Any, kind: str) -> None:
    """The `checkpoint` file names a folder that is gone; the checkpoint is found beside it all the same."""
    folder = TF1 / "slimtiny" / kind
    bundle = read(folder)
    assert bundle.metadata["tf_checkpoint"]["format"] == ("V1" if kind.startswith("v1") else "V2")
    base = (folder / "checkpoint").read_text().split('"')[1].rpartition("/")[2]
    reader = tf.train.load_checkpoint(str(folder / base))
    assert set(bundle) == set(reader.get_variable_to_shape_map())
    assert all(same(tensor.numpy(), reader.get_tensor(name)) for name, tensor in bundle.items())
    assert all(tensor.role is None and tensor.layout is None for tensor in bundle.values())
    if kind != "v2_ema_names":
        recorded = np.load(TF1 / "slimtiny" / "values.npz")
        assert all(same(bundle[name.replace("|", "/")].numpy(), recorded[name]) for name in recorded.files)
        assert len(recorded.files) == len(bundle)


def test_every_dtype_v2(tf: Any, tmp_path: Path) -> None:
    tensors = every_dtype(tf)
    save_v2(tf, tmp_path / "m.ckpt", tensors)
    bundle = read(tmp_path / "m.ckpt")
    assert list(bundle) == sorted(tensors, key=str.encode)
    for name, value in tensors.items():
        array = bundle[name].numpy()
        assert same(array, value.numpy() if hasattr(value, "numpy") else value), name
        assert not array.flags.writeable and array.flags.c_contiguous
        stem = name.rpartition("/")[2]
        if name.startswith(("numbers", "small", "quantised")):
            assert bundle[name].dtype.name == stem
    assert bundle["strings"].nbytes > 400
    assert json.loads(json.dumps(bundle.metadata)) == {
        "tf_checkpoint": {"format": "V2", "shards": 1, "endianness": "little", "producer": 1}
    }


def test_every_dtype_v1(tf: Any, tmp_path: Path) -> None:
    """TensorFlow's V1 writer aborts on what it has no field for; the rest it takes."""
    none_in_v1 = (
        "small/",
        "numbers/bfloat16",
        "numbers/uint32",
        "numbers/uint64",
        "quantised/qint16",
        "quantised/quint16",
    )
    tensors = {name: value for name, value in every_dtype(tf).items() if not name.startswith(none_in_v1)}
    tf.raw_ops.Save(filename=str(tmp_path / "v1"), tensor_names=list(tensors), data=list(tensors.values()))
    bundle = read(tmp_path / "v1")
    assert list(bundle) == sorted(tensors, key=str.encode)
    for name, value in tensors.items():
        theirs = value.numpy() if hasattr(value, "numpy") else value
        assert same(bundle[name].numpy(), theirs), name
        restored = tf.raw_ops.Restore(
            file_pattern=str(tmp_path / "v1"),
            tensor_name=name,
            dt=tf.as_dtype(getattr(value, "dtype", None) or theirs.dtype) if theirs.dtype != object else tf.string,
        )
        assert same(bundle[name].numpy(), restored.numpy()), name
    assert bundle.metadata["tf_checkpoint"] == {"format": "V1", "shards": 1, "producer": 1}


def test_variants(tf: Any, tmp_path: Path) -> None:
    """A variant is kept as the serialised VariantTensorDataProto that stands in the file."""
    from tensorflow.core.framework import tensor_pb2

    handle = tf.raw_ops.TensorListReserve(element_shape=[2], num_elements=3, element_dtype=tf.float32)
    save_v2(tf, tmp_path / "m", {"lists": tf.stack([handle, handle]), "after": np.float32([1, 2])})
    lists = read(tmp_path / "m")["lists"]
    assert (lists.dtype.name, lists.shape) == ("variant", (2,))
    for value in lists.numpy():
        assert tensor_pb2.VariantTensorDataProto.FromString(value).type_name == "tensorflow::TensorList"


def test_sharded_v2(tf: Any, tmp_path: Path) -> None:
    for shard in range(3):
        save_v2(tf, tmp_path / f"part{shard}", {f"w{shard}": np.full((3,), shard, np.float32)})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / f"part{shard}") for shard in range(3)],
        destination_prefix=str(tmp_path / "m"),
        delete_old_dirs=False,
    )
    bundle = read(tmp_path / "m")
    assert {name: t.numpy().tolist() for name, t in bundle.items()} == {f"w{i}": [i] * 3 for i in range(3)}
    assert bundle.metadata["tf_checkpoint"]["shards"] == 3
    assert list(read(tmp_path / "m.data-00001-of-00003")) == list(bundle)
    (tmp_path / "m.data-00001-of-00003").unlink()
    with pytest.raises(FormatError, match=r"m\.data-00001-of-00003 is missing"):
        ADAPTER.read(tmp_path / "m")


@pytest.mark.parametrize("version", [1, 2])
def test_partitioned_variables(tf: Any, tmp_path: Path, version: int) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, shape, parts, axis in (
            ("rows", (10, 4), 3, 0),
            ("columns", (5, 7), 4, 1),
            ("deep", (2, 300, 2), 2, 1),
        ):
            v1.get_variable(
                name,
                shape,
                initializer=v1.random_normal_initializer(),
                partitioner=v1.fixed_size_partitioner(parts, axis),
            )
        v1.get_variable("plain", (3,), initializer=v1.random_normal_initializer())
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=version)
        saver.save(session, str(tmp_path / "m"), write_meta_graph=False)
        wanted = {}
        for name, axis in (("rows", 0), ("columns", 1), ("deep", 1), ("plain", 0)):
            found = [session.run(v) for v in v1.global_variables() if v.name.startswith(name)]
            wanted[name] = np.concatenate(found, axis)
    bundle = read(tmp_path)
    assert set(bundle) == set(wanted)
    assert all(same(bundle[name].numpy(), value) for name, value in wanted.items())
    parts = bundle.metadata["tf_checkpoint"]["partitioned"]
    assert parts["rows"] == ["0,4:0,4", "4,3:0,4", "7,3:0,4"]
    assert set(parts) == {"rows", "columns", "deep"}


def test_slices_in_a_grid(tf: Any, tmp_path: Path) -> None:
    """Slices along several axes, with lengths that take several bytes in the key."""
    whole = np.random.default_rng(0).standard_normal((9000, 6)).astype(np.float32)
    boxes = [(0, 70), (70, 8500), (8570, 430)]
    columns = [(0, 1), (1, 5)]
    names, specs, values = [], [], []
    for r, rn in boxes:
        for c, cn in columns:
            names.append("grid")
            specs.append(f"9000 6 {r},{rn}:{c},{cn}")
            values.append(whole[r : r + rn, c : c + cn])
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "v2"), tensor_names=names, shape_and_slices=specs, tensors=values)
    tf.raw_ops.SaveSlices(filename=str(tmp_path / "v1"), tensor_names=names, shapes_and_slices=specs, data=values)
    for kind in ("v1", "v2"):
        assert same(read(tmp_path / kind)["grid"].numpy(), whole)


def test_slices_across_v1_shards(tf: Any, tmp_path: Path) -> None:
    whole = np.arange(24, dtype=np.int64).reshape(6, 4) - 12
    for shard, rows in enumerate((slice(0, 2), slice(2, 6))):
        tf.raw_ops.SaveSlices(
            filename=str(tmp_path / f"m-{shard:05d}-of-00002"),
            tensor_names=["w", f"only/{shard}"],
            shapes_and_slices=[f"6 4 {rows.start},{rows.stop - rows.start}:-", ""],
            data=[whole[rows], np.float32([shard])],
        )
    for path in ("m", "m-?????-of-00002", "m-00001-of-00002"):
        bundle = read(tmp_path / path)
        assert list(bundle) == ["only/0", "w", "only/1"]
        assert same(bundle["w"].numpy(), whole)
    assert bundle.metadata["tf_checkpoint"]["shards"] == 2
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path}/gone/m-?????-of-00002"\n')
    assert same(read(tmp_path)["w"].numpy(), whole)
    (tmp_path / "m-00000-of-00002").unlink()
    for path in ("m", "m-00001-of-00002", ""):
        with pytest.raises(FormatError, match="1 of 2 shards are missing: m-00000-of-00002"):
            ADAPTER.read(tmp_path / path)


@pytest.mark.parametrize("version", [1, 2])
def test_ten_thousand_tensors(tf: Any, tmp_path: Path, version: int) -> None:
    """The index has many blocks; a reader that takes the first alone finds some 2,500 names."""
    tensors = {f"scope/layer_{i:05d}/a_long_name_of_a_variable": np.float32([i, -i]) for i in range(10_000)}
    if version == 2:
        save_v2(tf, tmp_path / "m", tensors)
    else:
        tf.raw_ops.Save(filename=str(tmp_path / "m"), tensor_names=list(tensors), data=list(tensors.values()))
    bundle = read(tmp_path / "m")
    assert list(bundle) == list(tensors)
    assert all(same(bundle[name].numpy(), value) for name, value in tensors.items())


def test_large_v1_values_span_blocks_and_are_not_copied(tf: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tensors = {
        "float": rng.standard_normal((700, 600)).astype(np.float32),
        "long": rng.integers(-(2**62), 2**62, 200_000),
        "byte": rng.integers(-128, 128, 400_000).astype(np.int8),
        "half": rng.standard_normal(300_000).astype(np.float16),
    }
    tf.raw_ops.Save(filename=str(tmp_path / "m"), tensor_names=list(tensors), data=list(tensors.values()))
    bundle = read(tmp_path / "m")
    assert all(same(bundle[name].numpy(), value) for name, value in tensors.items())
    assert bundle["float"].numpy().base is not None


def test_object_graph(tf: Any, tmp_path: Path) -> None:
    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = tf.Module()
            self.layer.kernel = tf.Variable(tf.random.normal((3, 4)), name="first/kernel")

    model = Model()
    slot_of = tf.compat.v1.train.AdamOptimizer(0.1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model.layer.kernel**2)
    slot_of.apply_gradients([(tape.gradient(loss, model.layer.kernel), model.layer.kernel)])
    prefix = tf.train.Checkpoint(model=model, optimizer=slot_of).save(str(tmp_path / "ckpt"))
    bundle = read(tmp_path)
    reader = tf.train.load_checkpoint(prefix)
    assert set(bundle) == set(reader.get_variable_to_shape_map())
    assert all(same(t.numpy(), reader.get_tensor(name)) for name, t in bundle.items())

    key = "model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    slot = "model/layer/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
    assert (bundle[key].role, bundle[key].layer) == (None, "model/layer")
    assert (bundle[slot].role, bundle[slot].layer) == ("optimizer", "model/layer")
    assert bundle["_CHECKPOINTABLE_OBJECT_GRAPH"].role == "other"
    assert bundle["save_counter/.ATTRIBUTES/VARIABLE_VALUE"].role == "counter"
    assert bundle.metadata["tf_checkpoint"]["full_names"][key] == "first/kernel"


def test_saved_model(tf: Any, tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable([[1.0, 2.0]])
    tf.saved_model.save(module, str(tmp_path / "saved"))
    for path in ("saved", "saved/variables/variables", "saved/variables/variables.index"):
        assert same(read(tmp_path / path)["v/.ATTRIBUTES/VARIABLE_VALUE"].numpy(), np.float32([[1, 2]]))
    shutil.rmtree(tmp_path / "saved" / "variables")
    with pytest.raises(FormatError, match="a SavedModel without variables"):
        ADAPTER.read(tmp_path / "saved")


def test_listing_reads_the_index_alone(tf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_v2(tf, tmp_path / "m", {"x": np.float32([1, 2])})
    opened: list[str] = []
    monkeypatch.setattr(_tf_v2, "MappedFile", lambda path, **how: opened.append(path.name) or MappedFile(path, **how))
    bundle = read(tmp_path / "m")
    assert (bundle["x"].dtype.name, bundle["x"].shape, bundle["x"].nbytes) == ("float32", (2,), 8)
    assert not opened
    assert same(bundle["x"].numpy(), np.float32([1, 2]))
    assert opened == ["m.data-00000-of-00001"]


def test_convention_is_tensorflow_s() -> None:
    layouts = ADAPTER.convention().layouts
    assert Layout.parse("HWIO") in layouts["conv.kernel"]
    assert Layout.parse("HWOI") in layouts["conv_transpose.kernel"]
    assert set(layouts["depthwise.kernel"]) == {Layout.parse("WCM"), Layout.parse("HWCM")}
    assert Layout.parse("IO") in layouts["dense.kernel"]
    assert not any(layout.flipped for found in layouts.values() for layout in found)
