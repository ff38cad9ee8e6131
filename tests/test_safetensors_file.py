"""safetensors files against the safetensors library: plain, sharded, and written to the same bytes."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wio.adapters.safetensors_file import SafetensorsFile
from wio.api import save
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.errors import FormatError, LayoutError, PlanError, WioError
from wio.layout import Layout
from wio.plan import make_plan
from wio.port import Declarations
from wio.testing import AdapterContract

SAFETENSORS = SafetensorsFile()
DTYPES_OF_SAFETENSORS = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "bool", "float8_e4m3fn", "float8_e5m2"),
    *("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float8_e8m0fnu"),
)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def weights() -> dict[str, torch.Tensor]:
    made = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    for name in DTYPES_OF_SAFETENSORS:
        raw = torch.from_numpy(np.random.default_rng(7).integers(0, 256, 6 * DTYPES[name].itemsize, np.uint8))
        made[f"l/{name}"] = (raw > 99).reshape(2, 3) if name == "bool" else raw.view(getattr(torch, name)).reshape(2, 3)
    return made


def agree(bundle: Bundle, state: dict[str, torch.Tensor]) -> None:
    assert set(bundle) == set(state)
    for name, tensor in state.items():
        assert str(tensor.dtype) == f"torch.{bundle[name].dtype}" and bundle[name].shape == tuple(tensor.shape)
        assert bytes(bundle[name].stored()) == bits(tensor) == bundle[name].numpy().tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# --- reading and writing


def test_a_file_of_the_library_is_read_bit_for_bit(path: Path) -> None:
    safetensors.torch.save_file(weights(), path, {"format": "pt", "note": "ünï"})
    bundle = SAFETENSORS.read(path)
    agree(bundle, weights())
    assert bundle.metadata["safetensors"]["metadata"] == {"format": "pt", "note": "ünï"}
    assert all(tensor.raw is not None and tensor.role is None for tensor in bundle.values())
    assert SAFETENSORS.sniff(path) == 10


def test_what_is_written_is_what_the_library_would_write(tmp_path: Path, path: Path) -> None:
    safetensors.torch.save_file(weights(), path, {"format": "pt"})
    bundle = SAFETENSORS.read(path)
    SAFETENSORS.write(tmp_path / "again.safetensors", bundle)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def plan_and_write(bundle: Bundle, path: Path) -> Any:
    plan = make_plan(bundle, SAFETENSORS.target(bundle), "safetensors", {})
    SAFETENSORS.write(path, plan.apply())
    return plan


def test_there_and_back_through_a_wio_file_it_is_the_same_file(tmp_path: Path, path: Path) -> None:
    safetensors.torch.save_file(weights(), path, {"format": "pt", "note": "kept"})
    save(SAFETENSORS.read(path), tmp_path / "there.wio")
    from wio.adapters.wio_file import WioFile

    plan_and_write(WioFile().read(tmp_path / "there.wio"), tmp_path / "back.safetensors")
    with safetensors.safe_open(tmp_path / "back.safetensors", "pt") as back:
        assert back.metadata() == {"format": "pt", "note": "kept"}
        assert {name: bits(back.get_tensor(name)) for name in back.keys()} == {n: bits(t) for n, t in weights().items()}  # noqa: SIM118


def test_declared_and_undeclared_tensors_pass_as_they_are(path: Path) -> None:
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    bundle = Bundle(
        [
            Tensor("k", DTYPES["float32"], (2, 3, 4), lambda: kernel, "conv.kernel", Layout.parse("WIO")),
            Tensor("x", DTYPES["float32"], (2, 3, 4), lambda: kernel),
        ]
    )
    plan = plan_and_write(bundle, path)
    assert "do not record roles and layouts" in plan.notes[0]
    assert all(np.array_equal(t.numpy(), kernel) for t in safetensors.torch.load_file(path).values())


def test_a_view_that_runs_backwards_is_written_as_what_it_says(path: Path) -> None:
    """The library's own NumPy writer stores the memory behind a view, not its values (safetensors#825)."""
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    kernel = Tensor("k", DTYPES["float32"], (2, 3, 4), lambda: array, "conv.kernel", Layout.parse("WIO"))
    SAFETENSORS.write(path, Bundle([kernel.to("OIW flipped")]))
    assert np.array_equal(safetensors.torch.load_file(path)["k"].numpy(), array.transpose(2, 1, 0)[:, :, ::-1])


def test_a_wio_file_is_read_as_plain_arrays_when_asked(tmp_path: Path, path: Path) -> None:
    safetensors.torch.save_file(weights(), path)
    save(SAFETENSORS.read(path), tmp_path / "x.wio")
    agree(SAFETENSORS.read(tmp_path / "x.wio"), weights())
    assert SAFETENSORS.sniff(tmp_path / "x.wio") == 10


def test_dtypes_that_the_format_lacks_are_problems_of_the_plan(path: Path) -> None:
    bundle = Bundle([Tensor("z", DTYPES["complex128"], (2,), lambda: np.zeros(2, complex))])
    with pytest.raises(PlanError, match="no dtype for complex128"):
        make_plan(bundle, SAFETENSORS.target(bundle), "safetensors", {})
    with pytest.raises(FormatError, match=r"z \(complex128\)"):
        SAFETENSORS.write(path, bundle)
    assert not path.exists()


def test_a_role_alone_means_no_layout() -> None:
    from wio.port import _declaration

    assert Declarations().as_json() == {}
    with pytest.raises(LayoutError, match="does not settle the layout"):
        _declaration("k=conv.kernel", SAFETENSORS.convention())


# --- shards


def sharded(folder: Path) -> Path:
    safetensors.torch.save_file({"a": torch.ones(2), "b": torch.zeros(3)}, folder / "m-1-of-2.safetensors", {"x": "1"})
    safetensors.torch.save_file({"c": torch.arange(4)}, folder / "m-2-of-2.safetensors")
    return index(folder, a="m-1-of-2.safetensors", b="m-1-of-2.safetensors", c="m-2-of-2.safetensors")


def index(folder: Path, **weight_map: object) -> Path:
    path = folder / "m.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 52}, "weight_map": weight_map}, indent=2))
    return path


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    bundle = SAFETENSORS.read(path)
    agree(bundle, {"a": torch.ones(2), "b": torch.zeros(3), "c": torch.arange(4)})
    assert SAFETENSORS.sniff(path) == 10


def test_a_tensor_in_another_shard_than_the_index_says(tmp_path: Path) -> None:
    sharded(tmp_path)
    path = index(tmp_path, a="m-1-of-2.safetensors", b="m-2-of-2.safetensors", c="m-2-of-2.safetensors")
    with pytest.raises(FormatError, match=r"b: is in m-1-of-2\.safetensors, the index says otherwise"):
        SAFETENSORS.read(path)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    safetensors.torch.save_file({"c": torch.arange(4), "a": torch.ones(2)}, tmp_path / "m-2-of-2.safetensors")
    with pytest.raises(FormatError, match=r"a: is in m-2-of-2\.safetensors, the index says otherwise"):
        SAFETENSORS.read(path)


def test_a_tensor_in_no_shard_and_one_that_the_index_lacks(tmp_path: Path) -> None:
    sharded(tmp_path)
    with pytest.raises(FormatError, match="d: is not in"):
        SAFETENSORS.read(index(tmp_path, a="m-1-of-2.safetensors", b="m-1-of-2.safetensors", d="m-1-of-2.safetensors"))
    with pytest.raises(FormatError, match="b: is in"):
        SAFETENSORS.read(index(tmp_path, a="m-1-of-2.safetensors"))


@pytest.mark.parametrize(
    "name", ["../m.safetensors", "/etc/passwd", "sub/m.safetensors", "..", ".", "", "a\\b", "a\0b"]
)
def test_shards_outside_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="no file name in the folder"):
        SAFETENSORS.read(index(tmp_path, a=name))


def test_a_shard_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    path = sharded(inside)
    (inside / "m-2-of-2.safetensors").rename(outside / "m-2-of-2.safetensors")
    (inside / "m-2-of-2.safetensors").symlink_to(outside / "m-2-of-2.safetensors")
    with pytest.raises(FormatError, match="a link out of the folder"):
        SAFETENSORS.read(path)


def test_an_index_and_shards_that_are_links_into_one_folder(tmp_path: Path) -> None:
    """As the cache of huggingface_hub keeps a snapshot: links side by side, the files in one folder elsewhere."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    sharded(blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert set(SAFETENSORS.read(snapshot / "m.safetensors.index.json")) == {"a", "b", "c"}


def test_missing_shards_and_indexes_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        SAFETENSORS.read(index(tmp_path, a="gone.safetensors"))
    with pytest.raises(FormatError, match="without a weight_map"):
        SAFETENSORS.read(index(tmp_path, a=3))
    path = tmp_path / "m.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "x", "a": "y"}}')
    with pytest.raises(FormatError, match="stands twice"):
        SAFETENSORS.read(path)
    assert SAFETENSORS.sniff(path) == 0


# --- malformed files


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("code", ["F4", "F6_E2M3", "F6_E3M2"])
def test_elements_of_less_than_a_byte_are_refused_by_name(path: Path, code: str) -> None:
    path.write_bytes(raw({"w": {"dtype": code, "shape": [2], "data_offsets": [0, 1]}}, b"x"))
    with pytest.raises(FormatError, match=rf"tensor 'w'.*less than a byte \({code}\)"):
        SAFETENSORS.read(path)
    assert SAFETENSORS.sniff(path) == 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        raw(b"[]"),
        raw(b'{"a": NaN}'),
        raw({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        raw({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(5)),
        raw({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        raw({"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        struct.pack("<Q", 2**40) + b"{}",
    ],
    ids=["empty", "an index", "a list", "NaN", "size", "trailing", "hole", "dtype", "header beyond the file"],
)  # fmt: skip
def test_malformed_files_are_refused(path: Path, content: bytes) -> None:
    """A damaged file is claimed where it begins as one, so that the user is told what is wrong with it."""
    path.write_bytes(content)
    assert SAFETENSORS.sniff(path) == (10 if content[8:10] == b'{"' else 0)
    with pytest.raises(FormatError):
        SAFETENSORS.read(path)


SAMPLE = safetensors.torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(3)}, {"format": "pt"})


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_bytes_changed_or_cut(data: st.DataObject) -> None:
    changed = bytearray(SAMPLE)
    for at in data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=4)):
        changed[at] = data.draw(st.integers(0, 255))
    del changed[data.draw(st.integers(len(changed) // 2, len(changed))) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(changed)
        try:
            found = {name: bytes(t.stored()) for name, t in SAFETENSORS.read(path).items()}
        except WioError:
            return
    with_library = safetensors.deserialize(bytes(changed))
    assert found == {name: bytes(entry["data"]) for name, entry in with_library}


# --- the contract of every adapter


class TestPlainContract(AdapterContract):
    adapter = SAFETENSORS

    def sample(self, folder: Path) -> Path:
        # The format orders tensors by dtype and name: what is written comes back in that order.
        safetensors.torch.save_file(weights(), folder / "model.safetensors", {"format": "pt"})
        return folder / "model.safetensors"


class TestShardedContract(AdapterContract):
    adapter = SAFETENSORS

    def sample(self, folder: Path) -> Path:
        safetensors.torch.save_file({"a": torch.ones(2)}, folder / "m-1-of-2.safetensors")
        safetensors.torch.save_file({"b": torch.zeros(3)}, folder / "m-2-of-2.safetensors")
        return index(folder, a="m-1-of-2.safetensors", b="m-2-of-2.safetensors")
