"""Each way in which a V1 checkpoint can be malformed or damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest
import tf_tables
from hypothesis import given
from hypothesis import strategies as st
from tf_malformed import TF1, read, rejected, two

from wio.adapters._tf_damage import one_changed_byte
from wio.adapters._tf_ordered_code import slice_key
from wio.errors import DigestError


@pytest.mark.parametrize(("place", "name"), [(200_000, "a/big"), (700_000, "b/other")])
def test_a_flipped_bit_in_a_v1_tensor(tmp_path: Path, place: int, name: str) -> None:
    """TensorFlow says that the tensor is not found; the tensor, the file and the byte are known."""
    import tensorflow as tf

    big = np.arange(100_000, dtype="f4")
    tensors = {"a/a": big[:5], "a/big": big, "b/other": big + 1}
    tf.raw_ops.Save(filename=str(tmp_path / "m"), tensor_names=list(tensors), data=list(tensors.values()))
    raw = bytearray((tmp_path / "m").read_bytes())
    raw[place] ^= 4
    (tmp_path / "m").write_bytes(raw)
    error = rejected(
        tmp_path / "m", "/m: ", "the block at bytes", f"{name}: if one byte was changed, it is byte {place} "
    )
    assert isinstance(error, DigestError)
    assert [problem.tensor for problem in error.problems] == [name]
    if name == "b/other":
        bundle = read(tmp_path / "m")
        assert bundle["a/big"].numpy().tobytes() == big.tobytes(), "its block is sound"
        with pytest.raises(DigestError, match="m: b/other: the block at bytes"):
            bundle["b/other"].numpy()


def test_a_flipped_bit_among_the_names_of_a_v1_file(tmp_path: Path) -> None:
    raw = bytearray((TF1 / "dtypes" / "v1" / "model.ckpt").read_bytes())
    raw[0x20] ^= 1
    (tmp_path / "m").write_bytes(raw)
    rejected(tmp_path / "m", "if one byte was changed, it is byte 32 of the file, in the list of tensors")


def test_many_changed_bytes_in_a_v1_file(tmp_path: Path) -> None:
    """Then the checksum does not tell where: every tensor of the block is named."""
    raw = bytearray((TF1 / "dtypes" / "v1" / "model.ckpt").read_bytes())
    for place in (0x2C0, 0x390, 0x395, 0x3A2):
        raw[place] ^= 0x55
    (tmp_path / "m").write_bytes(raw)
    error = rejected(tmp_path / "m", "the block at bytes 0 to", "stands in the damaged block")
    assert {"t/float32", "t/complex64"} <= {problem.tensor for problem in error.problems}


@given(st.binary(min_size=1, max_size=300), st.data())
def test_the_changed_byte_is_found(raw: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(raw) - 1))
    changed = bytearray(raw)
    changed[place] ^= data.draw(st.integers(1, 255))
    assert one_changed_byte(memoryview(changed), crc32c.crc32c(raw)) == place


@dataclass
class V1File:
    """The SavedTensorSliceMeta of a V1 file, and the SavedSlice of its only tensor."""

    meta: Any
    data: Any


def v1_file(tmp_path: Path, change: Callable[[V1File], None] | None = None, *, keep: bool = True) -> Path:
    """A V1 file of one float32 tensor `x` of shape (2,) that a test may change before it is written."""
    from tensorflow.core.util import saved_tensor_slice_pb2

    meta, value = saved_tensor_slice_pb2.SavedTensorSlices(), saved_tensor_slice_pb2.SavedTensorSlices()
    meta.meta.versions.producer = 1
    tensor = meta.meta.tensor.add(name="x", type=1)
    tensor.shape.dim.add().size = 2
    tensor.slice.add().extent.add()
    value.data.name = "x"
    value.data.slice.extent.add()
    value.data.data.float_val.extend([1, 2])
    if change:
        change(V1File(meta.meta, value.data))
    entries = [(b"", meta.SerializeToString())]
    if keep:
        entries.append((slice_key(b"x", [(0, -1)]), value.SerializeToString()))
    (tmp_path / "m").write_bytes(tf_tables.table(entries))
    return tmp_path / "m"


def test_a_v1_file_that_fits(tmp_path: Path) -> None:
    assert read(v1_file(tmp_path))["x"].numpy().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: setattr(file.meta.versions, "min_consumer", 9), "readers of version 9"),
        (lambda file: setattr(file.meta.tensor[0], "type", 55), "x: its dtype is number 55"),
        (lambda file: setattr(file.meta.tensor[0].shape.dim[0], "size", -2), "x: its shape (-2,) has a negative"),
        (lambda file: setattr(file.meta.tensor[0].shape.dim[0], "size", 2**40), "x: 2 values are stored where"),
        (lambda file: file.meta.tensor.add().CopyFrom(file.meta.tensor[0]), "x: is listed twice"),
        (lambda file: file.meta.tensor[0].ClearField("slice"), "x: its 0 slices hold 0 of the 2"),
        (lambda file: file.meta.tensor[0].slice.add().extent.add(), "x: slices - and - overlap"),
        (lambda file: setattr(file.data, "name", "y"), "x: its values say that they are those of y"),
        (lambda file: setattr(file.data.slice.extent[0], "length", 2), "x: its values say that they are slice 0,2"),
        (lambda file: setattr(file.data.data, "dtype", 3), "x: its values are of dtype number 3"),
        (lambda file: file.data.data.float_val.append(3), "x: 3 values are stored where its shape needs 2"),
        (lambda file: file.data.ClearField("data"), "x: 0 values are stored"),
        (lambda file: setattr(file.data.data, "tensor_content", b"abc"), "no multiple of 4"),
    ],
)
def test_malformed_v1_files(tmp_path: Path, change: Callable[[V1File], None], message: str) -> None:
    rejected(v1_file(tmp_path, change), message)


def test_a_v1_tensor_that_is_listed_but_not_stored(tmp_path: Path) -> None:
    rejected(v1_file(tmp_path, keep=False), "x: its values are listed, but not stored in this file")


def test_no_memory_for_v1_slices_that_are_only_declared(tmp_path: Path) -> None:
    def change(file: V1File) -> None:
        tensor = file.meta.tensor[0]
        tensor.shape.dim[0].size = 2**50
        tensor.slice[0].extent[0].length = 2**49
        second = tensor.slice.add().extent.add()
        second.start = second.length = 2**49

    rejected(v1_file(tmp_path, change), "x, slice 0,562949953421312: its values are listed, but not stored")


@pytest.mark.parametrize(
    ("dtype", "field", "value"), [(6, "int_val", 200), (4, "int_val", -1), (19, "half_val", 65536)]
)
def test_v1_numbers_that_do_not_fit(tmp_path: Path, dtype: int, field: str, value: int) -> None:
    def change(file: V1File) -> None:
        file.meta.tensor[0].type = dtype
        file.data.data.ClearField("float_val")
        getattr(file.data.data, field).extend([value, 1])

    rejected(v1_file(tmp_path, change), "x: a value of", "does not fit")


def test_v1_shards_that_disagree(tmp_path: Path) -> None:
    v1_file(tmp_path).rename(tmp_path / "m-00000-of-00002")
    v1_file(tmp_path, lambda file: setattr(file.meta.tensor[0].shape.dim[0], "size", 3)).rename(
        tmp_path / "m-00001-of-00002"
    )
    rejected(tmp_path / "m", "another shard float32 of shape (2,)")


def test_v1_shards_of_two_checkpoints(tmp_path: Path) -> None:
    v1_file(tmp_path).rename(tmp_path / "m-00000-of-00001")
    shutil.copy(tmp_path / "m-00000-of-00001", tmp_path / "m-00000-of-00002")
    shutil.copy(tmp_path / "m-00000-of-00001", tmp_path / "m-00001-of-00002")
    rejected(tmp_path / "m", "1, 2 shards stand side by side", "m-?????-of-00001")
    assert list(read(tmp_path / "m-?????-of-00001")) == ["x"]


def test_a_v2_index_under_another_name(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / "m.index").rename(tmp_path / "other")
    rejected(tmp_path / "other", "does not end in .index")
