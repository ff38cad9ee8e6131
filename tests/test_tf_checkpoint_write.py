"""Checkpoints that wio writes, judged by real TensorFlow: its own bytes for the same tensors, and its own restores."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tf_checkpoint import TF1, every_dtype
from tf_judge import ADAPTER, read, same, save_v2, tensorflow
from tf_written import assert_restores, bundle_of, files, rewritten

import wio
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES

ONE = (".index", ".data-00000-of-00001")


@pytest.fixture(scope="session")
def tf() -> Any:
    return tensorflow()


# --- the same bytes


def with_variants(tf: Any) -> dict[str, Any]:
    tensors = every_dtype(tf)
    one = tf.raw_ops.TensorListFromTensor(tensor=tf.constant([1.0, 2.0]), element_shape=tf.constant([], tf.int32))
    tensors |= {"variant": one, "variants": tf.stack([one] * 3)}
    tensors |= {f"small/{kind}": np.arange(4).astype(getattr(ml_dtypes, kind)) for kind in ("int2", "uint2")}
    numbers = {name: values for name, values in tensors.items() if name.startswith(("numbers", "small"))}
    tensors |= {f"scalars/{name}": values[(0,) * values.ndim] for name, values in numbers.items()}
    return tensors | {f"none/{name}": values[:0] for name, values in numbers.items()}


def ten_thousand(_: Any) -> dict[str, Any]:
    """The index takes several blocks, so separators count."""
    return {f"scope/layer_{i:05d}/a_long_name_of_a_variable": np.float32([i, -i]) for i in range(10_000)}


def strange_names(_: Any) -> dict[str, Any]:
    parts = ["ÿ", "\uffff", "/", "a" * 300, "重み", "\x7f", "é", "\U0010ffff" * 40, " ", "b:0", "\x01", ".", "x/"]
    rng = np.random.default_rng(5)
    names = {"".join(rng.choice(parts, rng.integers(1, 12))) for _ in range(4_000)}
    return {name: np.zeros(len(name) % 3) for name in names}


MADE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "every dtype": with_variants,
    "ten thousand": ten_thousand,
    "strange names": strange_names,
}


@pytest.mark.parametrize("kind", MADE)
def test_the_bytes_are_tensorflow_s(tf: Any, tmp_path: Path, kind: str) -> None:
    """TensorFlow stores values in the order in which it is given them; given names in order, its files are wio's."""
    tensors = dict(sorted(MADE[kind](tf).items(), key=lambda item: item[0].encode()))
    for folder in ("theirs", "ours"):
        (tmp_path / folder).mkdir()
    save_v2(tf, tmp_path / "theirs" / "m", tensors)
    rewritten(tmp_path / "theirs" / "m", tmp_path / "ours" / "m")
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")


def test_the_bytes_of_a_sharded_set_are_tensorflow_s(tf: Any, tmp_path: Path) -> None:
    """TensorFlow saves each shard on its own, then merges their indexes."""
    rng = np.random.default_rng(1)
    tensors = {f"layer{i}/kernel": rng.standard_normal((i + 1, 7)).astype(np.float32) for i in range(9)}
    (tmp_path / "ours").mkdir()
    ADAPTER.write(tmp_path / "ours" / "m", bundle_of(tensors), shards="3")
    ours = files(tmp_path / "ours")
    assert list(ours) == [f"m.data-0000{k}-of-00003" for k in range(3)] + ["m.index"]
    shards: list[dict[str, Any]] = [{}, {}, {}]
    position = 0
    for shard in range(3):
        stored = ours[f"m.data-0000{shard}-of-00003"]
        while stored:
            name, values = sorted(tensors.items())[position]
            assert stored.startswith(values.tobytes())
            shards[shard][name] = values
            stored = stored[values.nbytes :]
            position += 1
    assert position == len(tensors) and all(shards)
    parts = [str(tmp_path / f"part{shard}") for shard in range(3)]
    for part, held in zip(parts, shards, strict=True):
        save_v2(tf, part, held)
    (tmp_path / "theirs").mkdir()
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "theirs" / "m"))
    assert files(tmp_path / "theirs") == ours
    assert_restores(tf, tmp_path / "ours" / "m", tensors)


def test_a_small_checkpoint_byte_for_byte(tmp_path: Path) -> None:
    ADAPTER.write(tmp_path / "m", bundle_of({"b": np.float32([1, 2, 3]), "a": np.array([], object)}))
    assert (tmp_path / "m.data-00000-of-00001").read_bytes() == bytes.fromhex("d8ea82a2 0000803f 00000040 00004040")
    blocks = (
        # header; a, whose 4 bytes are the checksum of no lengths; b, whose key shares nothing with it
        "000006 0801 1a020801  00010d61 0807 12021200 2804 35f6c10c64  00011162 0801 120412020803 2004 280c 35735b8971"
        "00000000 01000000 00 3f8a827d"
        # metaindex, then index: the first key after b, and where the block is
        "00000000 01000000 00 c0f2a1b0"
        "00010263 0037  00000000 01000000 00 ff511005"
    )
    assert (tmp_path / "m.index").read_bytes() == (
        bytes.fromhex(blocks) + bytes.fromhex("3c08 490e").ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    )


# --- restored by TensorFlow


def test_every_dtype_is_restored(tf: Any, tmp_path: Path) -> None:
    tensors = with_variants(tf)
    save_v2(tf, tmp_path / "m", tensors)
    for shards in ("1", "4"):
        rewritten(tmp_path / "m", tmp_path / f"of{shards}", shards=shards)
        assert_restores(tf, tmp_path / f"of{shards}", tensors)


@pytest.mark.parametrize("shards", ["1", "3"])
def test_saver_and_checkpoint_restore_by_name(tf: Any, tmp_path: Path, shards: str) -> None:
    values = {
        "net/conv/kernel": np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(np.float32),
        "net/conv/bias": np.float32([1, 2, 3, 4, 5]),
        "net/step": np.int64(7),
    }
    prefix = tmp_path / "model.ckpt"
    ADAPTER.write(prefix, bundle_of(values), shards=shards, state="yes")
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(prefix)

    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        made = {
            name: tf.compat.v1.get_variable(name, value.shape, value.dtype, use_resource=resource)
            for (name, value), resource in zip(values.items(), (True, False, True), strict=True)
        }
        tf.compat.v1.train.Saver().restore(session, str(prefix))
        assert all(same(session.run(made[name]), value) for name, value in values.items())

    variables = {name: tf.Variable(tf.zeros(value.shape, value.dtype), name=name) for name, value in values.items()}
    module = tf.Module()
    module.held = list(variables.values())
    tf.train.Checkpoint(module=module).restore(str(prefix)).assert_consumed()
    assert all(same(variables[name].numpy(), value) for name, value in values.items())


def test_partitioned_variables_are_cut_out_of_whole_ones(tf: Any, tmp_path: Path) -> None:
    whole = np.arange(24, dtype=np.float32).reshape(6, 4)
    save_v2(tf, tmp_path / "m", {"w": whole[:2], "w2": whole}, ["6 4 0,2:-", ""])
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=["w", "w"],
        shape_and_slices=["6 4 0,2:-", "6 4 2,4:-"],
        tensors=[whole[:2], whole[2:]],
    )
    bundle = read(tmp_path / "m")
    bundle.metadata["adapter"] = "tf-checkpoint"
    assert any("partitioned variables are written whole" in note for note in ADAPTER.target(bundle).notes)
    rewritten(tmp_path / "m", tmp_path / "whole")
    assert_restores(tf, tmp_path / "whole", {"w": whole})
    part = tf.raw_ops.RestoreV2(
        prefix=str(tmp_path / "whole"), tensor_names=["w"], shape_and_slices=["6 4 2,4:-"], dtypes=[tf.float32]
    )[0]
    assert same(part.numpy(), whole[2:])


class Trained:
    """A model with an optimizer's slots, as tf.train.Checkpoint keeps it."""

    def __init__(self, tf: Any, values: Any) -> None:
        self.model = tf.Module()
        self.model.layer = tf.Module()
        self.model.layer.kernel = tf.Variable(values, name="first/kernel")
        self.optimizer = tf.compat.v1.train.AdamOptimizer(0.1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.model.layer.kernel**2)
        kernel = self.model.layer.kernel
        self.optimizer.apply_gradients([(tape.gradient(loss, kernel), kernel)])
        self.checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.optimizer)

    def values(self) -> list[bytes]:
        kernel = self.model.layer.kernel
        return [bytes(v.numpy()) for v in (kernel, *(self.optimizer.get_slot(kernel, slot) for slot in ("m", "v")))]


@pytest.mark.parametrize("shards", ["1", "2"])
def test_an_object_graph_is_restored(tf: Any, tmp_path: Path, shards: str) -> None:
    first, second = Trained(tf, [[1.0, 2.0], [3.0, 4.0]]), Trained(tf, tf.zeros((2, 2)))
    saved = first.checkpoint.save(str(tmp_path / "ckpt"))
    rewritten(Path(saved), tmp_path / "again", shards=shards)
    assert second.values() != first.values()
    second.checkpoint.restore(str(tmp_path / "again")).assert_consumed()
    assert second.values() == first.values()


def test_a_graph_that_names_what_is_dropped_is_said(tf: Any, tmp_path: Path) -> None:
    bundle = read(Path(Trained(tf, [[1.0]]).checkpoint.save(str(tmp_path / "ckpt"))))
    bundle.metadata["adapter"] = "tf-checkpoint"
    notes = ADAPTER.target(bundle.select(drop=("model/layer/*",))).notes
    assert any("still names 3 tensors that are not written, model/layer/kernel/" in note for note in notes)
    assert not any("still names" in note for note in ADAPTER.target(bundle).notes)


# --- round trips


@pytest.mark.parametrize("shards", ["1", "5"])
def test_through_a_wio_file(tf: Any, tmp_path: Path, shards: str) -> None:
    """Names, dtypes, shapes and bytes of every tensor; where TensorFlow stored them in order, the files too."""
    tensors = dict(sorted(with_variants(tf).items(), key=lambda item: item[0].encode()))
    save_v2(tf, tmp_path / "m", tensors)
    wio.export(tmp_path / "m", tmp_path / "m.wio")
    plan = wio.import_into(tmp_path / "m.wio", tmp_path / "again", adapter="tf-checkpoint", shards=shards)
    assert all(step.exact for step in plan.steps) and not plan.dropped
    before, after = read(tmp_path / "m"), read(tmp_path / "again")
    assert [(t.name, t.dtype, t.shape) for t in after.values()] == [(t.name, t.dtype, t.shape) for t in before.values()]
    assert all(bytes(after[name].stored()) == bytes(before[name].stored()) for name in before)
    if shards == "1":
        for suffix in ONE:
            assert (tmp_path / f"again{suffix}").read_bytes() == (tmp_path / f"m{suffix}").read_bytes()


@pytest.mark.parametrize(
    "kind", ["dtypes/v1/model.ckpt", "dtypes/v2/model.ckpt", "slimtiny/v1_sharded", "slimtiny/v2_sharded"]
)
def test_checkpoints_of_tensorflow_1(tf: Any, tmp_path: Path, kind: str) -> None:
    rewritten(TF1 / kind, tmp_path / "again")
    before, after = read(TF1 / kind), read(tmp_path / "again")
    assert [(t.name, t.dtype, t.shape) for t in after.values()] == [(t.name, t.dtype, t.shape) for t in before.values()]
    assert_restores(tf, tmp_path / "again", {name: t.numpy() for name, t in before.items()})


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda name: name[0] != "\0")
SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    named=st.dictionaries(
        NAMES, st.tuples(st.sampled_from(["float32", "int64", "bool", "complex128", "bfloat16"]), SHAPES), max_size=8
    ),
    strings=st.dictionaries(NAMES, st.lists(st.binary(max_size=200), max_size=4), max_size=2),
    shards=st.integers(1, 4),
)
def test_any_bundle_is_restored(
    tf: Any, tmp_path: Path, named: dict[str, Any], strings: dict[str, list[bytes]], shards: int
) -> None:
    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    for name, (dtype, shape) in named.items():
        kind = DTYPES[dtype].numpy
        raw = rng.integers(0, 2 if dtype == "bool" else 256, (*shape, kind.itemsize)).astype(np.uint8)
        tensors[name] = raw.reshape(-1).view(kind).reshape(shape)
    for name, values in strings.items():
        tensors[name] = np.array([*values, None], object)[:-1]
    ADAPTER.write(tmp_path / "m", bundle_of(tensors), shards=str(shards))
    again = read(tmp_path / "m")
    assert list(again) == sorted(tensors, key=str.encode)
    assert all(same(t.numpy(), tensors[name]) for name, t in again.items())
    if tensors:
        assert_restores(tf, tmp_path / "m", tensors)


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    values = {"b": np.float32([1, 2]), "a": np.array([b"x", b""], object), "c/": np.int8(3)}
    for folder, order in (("one", list(values)), ("two", sorted(values))):
        (tmp_path / folder).mkdir()
        ADAPTER.write(
            tmp_path / folder / "m", bundle_of({name: values[name] for name in order}), shards="2", state="yes"
        )
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_memory_stays_that_of_one_tensor(tf: Any, tmp_path: Path) -> None:
    """Six tensors of 16 MB each, made when asked for; one of them is restored by TensorFlow."""
    shape = (4 << 20,)

    def load(value: int) -> Callable[[], Any]:
        return lambda: np.full(shape, value, np.float32)

    bundle = Bundle(Tensor(f"t{i}", DTYPES["float32"], shape, load(i)) for i in range(6))
    tracemalloc.start()
    ADAPTER.write(tmp_path / "m", bundle, shards="2")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 36 << 20
    assert same(tf.train.load_checkpoint(str(tmp_path / "m")).get_tensor("t5"), load(5)())


def test_a_tensor_of_64_mb(tf: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, 64 << 20, np.uint8)
    ADAPTER.write(tmp_path / "m", bundle_of({"before": np.float32(1), "large": values, "x": np.float32(2)}))
    reader = tf.train.load_checkpoint(str(tmp_path / "m"))
    assert same(reader.get_tensor("large"), values) and reader.get_tensor("x") == 2


def test_a_checkpoint_of_nothing(tf: Any, tmp_path: Path) -> None:
    ADAPTER.write(tmp_path / "m", Bundle([]))
    assert len(read(tmp_path / "m")) == 0
    assert tf.train.load_checkpoint(str(tmp_path / "m")).get_variable_to_shape_map() == {}
