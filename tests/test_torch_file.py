"""PyTorch files against PyTorch: what it saved is read bit for bit, what wio writes it loads with weights_only."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wio
from wio import port
from wio.adapters._torch_pickle import resolve
from wio.adapters.torch_file import TorchFile
from wio.api import save
from wio.bundle import Bundle, Tensor
from wio.container import WioFileReader
from wio.dtypes import DTYPES, dtype_of
from wio.errors import FormatError, PlanError, UsageError
from wio.layout import Layout
from wio.plan import make_plan
from wio.testing import AdapterContract

TORCH = TorchFile()
DTYPES_OF_TORCH = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128", "bool"),
    *("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
LEGACY_LACKS = ("uint16", "uint32", "uint64", *(name for name in DTYPES_OF_TORCH if name.startswith("float8")))


def bits(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor in C order, whatever its dtype and strides."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def filled(dtype: str, *shape: int) -> torch.Tensor:
    """Random bits of a dtype; booleans are made of true booleans."""
    count = int(np.prod(shape)) * DTYPES[dtype].itemsize
    raw = torch.from_numpy(np.random.default_rng(count).integers(0, 256, count, np.uint8))
    return (raw > 127).reshape(shape) if dtype == "bool" else raw.view(getattr(torch, dtype)).reshape(shape)


def agree(bundle: Bundle, state: dict[str, torch.Tensor]) -> None:
    assert set(bundle) == set(state)
    for name, tensor in state.items():
        mine = bundle[name]
        assert mine.shape == tuple(tensor.shape), name
        assert str(tensor.dtype) == f"torch.{mine.dtype}", name
        assert mine.numpy().tobytes() == bits(tensor), name
        assert bytes(mine.stored()) == bits(tensor), name
        assert mine.numpy().flags.c_contiguous


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        OrderedDict(
            conv=torch.nn.Conv2d(3, 4, (3, 2)),
            norm=torch.nn.BatchNorm2d(4),
            up=torch.nn.ConvTranspose2d(4, 2, 3),
            flat=torch.nn.Flatten(),
            dense=torch.nn.Linear(126, 5),
        )
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


# --- reading


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_state_dict_is_read_bit_for_bit(path: Path, zipped: bool) -> None:
    state = network().state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    bundle = TORCH.read(path)
    agree(bundle, state)
    assert list(bundle) == list(state)
    assert bundle["conv.weight"].role is None and bundle["conv.weight"].layout is None
    assert bundle["conv.weight"].layer == "conv"
    assert bundle.metadata["torch"]["metadata"]["norm"] == {"version": 2}
    assert all(tensor.raw is not None for tensor in bundle.values())
    assert TORCH.sniff(path) == 20


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_dtype(path: Path, zipped: bool) -> None:
    state = {name: filled(name, 2, 3) for name in DTYPES_OF_TORCH if zipped or name not in LEGACY_LACKS}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    agree(TORCH.read(path), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_views_are_made_contiguous(path: Path, zipped: bool) -> None:
    base = torch.arange(120.0).reshape(2, 3, 4, 5)
    state = {
        "transposed": base.permute(3, 1, 0, 2),
        "offset": base[1, 1:],
        "strided": base[..., ::2],
        "expanded": torch.arange(3.0)[:, None].expand(3, 4),
        "channels_last": base.clone().contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(2, 0, 3),
        "unit": base[:1, :, :1, :1],
    }
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    bundle = TORCH.read(path)
    agree(bundle, state)
    assert bundle.metadata["torch"]["views"] == [["transposed", "offset", "strided", "unit"]]
    assert bundle["transposed"].raw is None and bundle["offset"].raw is not None


def test_conjugates_and_negatives_hold_their_values(path: Path) -> None:
    state = {
        "conj": torch.randn(4, dtype=torch.complex64).conj(),
        "imag": torch.randn(4, dtype=torch.complex64).conj().imag,
    }
    torch.save(state, path)
    agree(TORCH.read(path), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_tensor_of_two_names_is_kept_once_and_said(path: Path, zipped: bool) -> None:
    table = torch.randn(4, 3)
    state = {"embed.weight": table, "head.weight": table, "other": torch.randn(3)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    bundle = TORCH.read(path)
    assert list(bundle) == ["embed.weight", "other"]
    assert bundle.metadata["torch"]["shared"] == {"head.weight": "embed.weight"}
    agree(TORCH.read(path, shared="all"), state)


def test_nested_containers_are_flattened_and_the_rest_is_listed(path: Path) -> None:
    checkpoint = {
        "model": OrderedDict(w=torch.ones(2)),
        "stages": [{"w": torch.zeros(1)}, (torch.ones(1), "label")],
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "epoch": 7,
        "none": None,
        "nan": float("nan"),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "score": np.float64(0.5),
        "parameter": torch.nn.Parameter(torch.ones(3)),
    }
    torch.save(checkpoint, path)
    bundle = TORCH.read(path)
    assert list(bundle) == ["model.w", "stages.0.w", "stages.1.0", "optimizer.state.0.step", "parameter"]
    other = bundle.metadata["torch"]["other"]
    assert other["epoch"] == 7 and other["none"] is None and other["stages.1.1"] == "label"
    assert other["optimizer.param_groups.0.params"] == [0, 1] and other["score"] == "NumPy scalar"
    save(bundle, path.with_suffix(".wio"))
    assert WioFileReader(path.with_suffix(".wio")).bundle().metadata["torch"]["other"]["nan"] == "nan"


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickle_protocols(path: Path, protocol: int) -> None:
    state = network().state_dict()
    torch.save(state, path, pickle_protocol=protocol)
    agree(TORCH.read(path), state)


def test_big_endian_files(tmp_path: Path, path: Path) -> None:
    """As a big-endian machine saves them; PyTorch itself says what they hold."""
    names = [name for name in DTYPES_OF_TORCH if name not in LEGACY_LACKS]
    torch.save({name: filled(name, 5) for name in names}, tmp_path / "little.pt")
    with zipfile.ZipFile(tmp_path / "little.pt") as little, zipfile.ZipFile(path, "w") as big:
        for info in little.infolist():
            data = little.read(info)
            if info.filename.endswith("byteorder"):
                data = b"big"
            big.writestr(zipfile.ZipInfo(info.filename), data)
    agree(TORCH.read(path), torch.load(path, weights_only=True))


def test_quantised_tensors_are_refused_by_name(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8)
        torch.save({"good": torch.ones(1), "conv.weight": quantised}, path)
    with pytest.raises(FormatError, match=r"conv\.weight: is quantised"):
        TORCH.read(path)


def test_sparse_tensors_are_refused_by_name(path: Path) -> None:
    torch.save({"good": torch.ones(1), "thin": torch.eye(3).to_sparse()}, path)
    with pytest.raises(FormatError, match="thin: is sparse"):
        TORCH.read(path)


def test_a_pickled_module_is_refused_by_the_name_of_its_class(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(FormatError, match=r"wants torch\.nn\.modules\.linear\.Linear"):
        TORCH.read(path)


def test_names_that_meet_once_joined_are_refused(path: Path) -> None:
    torch.save({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}, path)
    with pytest.raises(FormatError, match=r"a\.b: two tensors have this name"):
        TORCH.read(path)


# --- shards


def sharded(folder: Path, **weight_map: str) -> Path:
    """As Hugging Face saves a model with tied weights in two shards: ``tied`` is another name of ``a.weight``."""
    table = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    torch.save({"a.weight": table, "tied": table, "b.bias": torch.arange(3.0)}, folder / "m-1-of-2.bin")
    torch.save({"c.weight": torch.arange(12.0).reshape(3, 4).t()}, folder / "m-2-of-2.bin")
    usual = dict.fromkeys(("a.weight", "tied", "b.bias"), "m-1-of-2.bin")
    path = folder / "pytorch_model.bin.index.json"
    path.write_text(
        json.dumps({"metadata": {"total_size": 144}, "weight_map": {"c.weight": "m-2-of-2.bin", **usual, **weight_map}})
    )
    return path


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    state = {k: v for i in (1, 2) for k, v in torch.load(tmp_path / f"m-{i}-of-2.bin", weights_only=True).items()}
    assert TORCH.sniff(path) == 20
    agree(TORCH.read(path, shared="all"), state)
    bundle = TORCH.read(path)
    assert list(bundle) == ["c.weight", "a.weight", "b.bias"], "the order of the index"
    assert bundle.metadata["torch"] == {"kind": "sharded", "shards": 2, "shared": {"tied": "a.weight"}}
    plan_and_write(bundle, tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    assert set(whole) == set(state) and all(torch.equal(whole[name], state[name]) for name in state)
    assert whole["tied"].data_ptr() == whole["a.weight"].data_ptr()


def test_storages_of_shards_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    """A flipped bit in a storage is found by its CRC-32 when that tensor is read, and by nothing before."""
    path = sharded(tmp_path)
    shard = tmp_path / "m-2-of-2.bin"
    content = bytearray(shard.read_bytes())
    content[content.index(np.arange(12, dtype=np.float32).tobytes())] ^= 1
    shard.write_bytes(content)
    bundle = TORCH.read(path)
    assert bundle["b.bias"].numpy().tolist() == [0, 1, 2]
    with pytest.raises(FormatError, match="CRC-32"):
        bundle["c.weight"].numpy()


def test_everything_in_which_index_and_shards_differ_is_said_at_once(tmp_path: Path) -> None:
    path = sharded(tmp_path, **{"b.bias": "m-2-of-2.bin", "d.weight": "m-1-of-2.bin"})
    torch.save({"c.weight": torch.zeros(1), "a.weight": torch.zeros(1)}, tmp_path / "m-2-of-2.bin")
    with pytest.raises(FormatError) as caught:
        TORCH.read(path)
    assert {(problem.kind, problem.tensor) for problem in caught.value.problems} == {
        ("unexpected", "a.weight"),
        ("unexpected", "b.bias"),
        ("missing", "b.bias"),
        ("missing", "d.weight"),
    }


def test_every_shard_that_is_out_of_place_is_said_at_once(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    path = sharded(inside, x="../outside/m.bin", y="/etc/x.bin", z="gone.bin", w="sub\\x.bin")
    (inside / "m-2-of-2.bin").rename(outside / "m-2-of-2.bin")
    (inside / "m-2-of-2.bin").symlink_to(outside / "m-2-of-2.bin")
    with pytest.raises(FormatError) as caught:
        TORCH.read(path)
    assert {problem.tensor for problem in caught.value.problems} == {
        "'../outside/m.bin'",
        "'/etc/x.bin'",
        "gone.bin",
        r"'sub\\x.bin'",
        "m-2-of-2.bin",
    }


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.bin")
    assert TORCH.sniff(tmp_path / "m.bin") == 0
    with pytest.raises(FormatError, match="is no regular file"):
        TORCH.read(tmp_path / "m.bin")


def test_a_shard_is_no_index(tmp_path: Path) -> None:
    """Else an index that names itself would be read for ever."""
    path = tmp_path / "loop.bin"
    path.write_text('{"weight_map": {"a": "loop.bin"}}')
    assert TORCH.sniff(path) == 20
    with pytest.raises(FormatError, match=r"is no file of torch\.save"):
        TORCH.read(path)


# --- TorchScript


class Scripted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
        self.steps = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * torch.tensor([2.5, 1.5]).sum()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_names_parameters_and_constants(path: Path) -> None:
    module = Scripted().eval()
    traced = torch.jit.trace(module, torch.zeros(1, 3, 5, 5))
    traced.save(path)
    bundle = TORCH.read(path)
    assert [*bundle] == ["conv.weight", "conv.bias", "blocks.0.weight", "blocks.0.bias", "CONSTANTS.c0"]
    assert bytes(bundle["CONSTANTS.c0"].stored()) == bits(torch.tensor([2.5, 1.5]))
    assert bundle.metadata["torch"]["kind"] == "torchscript"
    agree(bundle.select(drop=["CONSTANTS.*"]), module.state_dict())
    torch.jit.script(module).save(path)
    agree(TORCH.read(path), module.state_dict())
    assert TORCH.read(path).metadata["torch"]["other"]["steps"] == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_weights_of_a_frozen_torchscript_are_its_constants(path: Path) -> None:
    """The code calls them CONSTANTS.c0 and so on: nothing else in the file has a name for them."""
    module = torch.nn.Conv2d(3, 4, 3).eval()
    torch.jit.freeze(torch.jit.trace(module, torch.zeros(1, 3, 5, 5))).save(path)
    bundle = TORCH.read(path)
    assert sorted(bundle[name].shape for name in bundle) == [(4,), (4, 3, 3, 3)]
    assert all(name.startswith("CONSTANTS.c") for name in bundle)
    assert {bytes(t.stored()) for t in bundle.values()} == {bits(module.weight), bits(module.bias)}


# --- writing


def made(state: dict[str, torch.Tensor]) -> Bundle:
    """A bundle that no adapter has read."""

    def tensor(name: str, value: torch.Tensor) -> Tensor:
        dtype = DTYPES[str(value.dtype).removeprefix("torch.")]
        array = np.frombuffer(bits(value), np.uint8).view(dtype.numpy).reshape(tuple(value.shape))
        return Tensor(name, dtype, tuple(value.shape), lambda: array)

    return Bundle([tensor(name, value) for name, value in state.items()])


@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_written_loads_with_weights_only(path: Path, mapped: bool) -> None:
    state = {name: filled(name, 2, 3) for name in DTYPES_OF_TORCH}
    state |= {"scalar": torch.tensor(2.0), "empty": torch.zeros(0, 3), "layer.ünï": torch.ones(70000)}
    TORCH.write(path, made(state))
    loaded = torch.load(path, weights_only=True, mmap=mapped)
    assert list(loaded) == list(state)
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype and loaded[name].shape == value.shape
        assert bits(loaded[name]) == bits(value)
    agree(TORCH.read(path), state)


def test_the_same_bundle_makes_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    bundle = made(network().state_dict())
    for name in ("a.pt", "b.bin"):
        TORCH.write(tmp_path / name, bundle)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_storages_begin_at_multiples_of_64(path: Path) -> None:
    TORCH.write(path, made(network().state_dict()))
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            at = info.header_offset
            name, extra = (
                int.from_bytes(raw[at + 26 : at + 28], "little"),
                int.from_bytes(raw[at + 28 : at + 30], "little"),
            )
            assert (at + 30 + name + extra) % 64 == 0
            assert info.date_time == (1980, 1, 1, 0, 0, 0)


def test_it_may_write_over_what_it_reads(path: Path) -> None:
    state = network().state_dict()
    torch.save(state, path)
    TORCH.write(path, TORCH.read(path))
    agree(TORCH.read(path), state)


# --- targets


def plan_and_write(bundle: Bundle, path: Path) -> Any:
    plan = make_plan(bundle, TORCH.target(bundle), "torch", {})
    TORCH.write(path, plan.apply())
    return plan


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_there_and_back_through_a_wio_file(tmp_path: Path, zipped: bool) -> None:
    model = network()
    state = model.state_dict()
    state["alias"] = state["conv.bias"]
    torch.save(state, tmp_path / "there.pt", _use_new_zipfile_serialization=zipped)
    save(TORCH.read(tmp_path / "there.pt"), tmp_path / "there.wio")
    plan_and_write(WioFileReader(tmp_path / "there.wio").bundle(), tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert set(back) == set(state) and all(bits(back[name]) == bits(state[name]) for name in state)
    assert back["alias"].data_ptr() == back["conv.bias"].data_ptr()
    assert dict(back._metadata) == dict(state._metadata)
    del back["alias"]
    network().load_state_dict(back)


def test_what_was_made_neutral_comes_back_in_pytorchs_layout(tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save(state, tmp_path / "there.pt")
    bundle = TORCH.read(tmp_path / "there.pt")
    bundle = bundle.map(
        lambda t: t.declared("conv.kernel", Layout.parse("OIHW")).to("HWIO") if t.name == "conv.weight" else t
    )
    plan = plan_and_write(bundle, tmp_path / "back.pt")
    assert [step.kind for step in plan.steps].count("rearrange") == 1
    agree(TORCH.read(tmp_path / "back.pt"), state)
    assert list(TORCH.read(tmp_path / "back.pt")) == list(state)


def declared(name: str, role: str, layout: str, *shape: int, layer: str) -> Tensor:
    array = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    return Tensor(name, dtype_of(array), shape, lambda: array, role, Layout.parse(layout), layer=layer)


def test_names_and_layouts_of_another_formats_weights(path: Path) -> None:
    """As TensorFlow and Keras have them; the module then computes what NumPy says it must."""
    bundle = Bundle(
        [
            declared("net/conv/kernel", "conv.kernel", "HWIO", 3, 2, 3, 4, layer="net/conv"),
            declared("net/conv/bias", "conv.bias", "O", 4, layer="net/conv"),
            declared("net/norm/gamma", "batch_norm.gamma", "C", 4, layer="net/norm"),
            declared("net/norm/beta", "batch_norm.beta", "C", 4, layer="net/norm"),
            declared("net/norm/mean", "batch_norm.mean", "C", 4, layer="net/norm"),
            declared("net/norm/variance", "batch_norm.variance", "C", 4, layer="net/norm"),
            declared("net/up/kernel", "conv_transpose.kernel", "HWOI", 3, 3, 2, 4, layer="net/up"),
            declared("net/up/bias", "conv_transpose.bias", "O", 2, layer="net/up"),
            declared("net/dense/kernel", "dense.kernel", "(HWC)O H=7 W=9 C=2", 126, 5, layer="net/dense"),
            declared("net/dense/bias", "dense.bias", "O", 5, layer="net/dense"),
        ]
    )
    plan = plan_and_write(bundle, path)
    assert any("num_batches_tracked" in note for note in plan.notes)
    model = torch.nn.ModuleDict({"net": network()})
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    kernel = bundle["net/conv/kernel"].numpy()
    assert np.array_equal(model["net"].conv.weight.detach().numpy(), kernel.transpose(3, 2, 0, 1))
    up = bundle["net/up/kernel"].numpy()
    assert np.array_equal(model["net"].up.weight.detach().numpy(), up.transpose(3, 2, 0, 1))
    dense = bundle["net/dense/kernel"].numpy().reshape(7, 9, 2, 5)
    assert np.array_equal(model["net"].dense.weight.detach().numpy().reshape(5, 2, 7, 9), dense.transpose(3, 2, 0, 1))


def test_undeclared_unknown_and_unwritable_tensors_are_all_problems_at_once() -> None:
    strings = Tensor("names", DTYPES["string"], (1,), lambda: np.array([b"x"], object), "other")
    bundle = Bundle(
        [
            declared("l/kernel", "conv_lstm.kernel", "HWI(GO) G=ifco", 3, 3, 2, 8, layer="l"),
            Tensor("mystery", DTYPES["float32"], (2, 2), lambda: np.zeros((2, 2), np.float32)),
            Tensor("tiny", DTYPES["int4"], (2,), lambda: np.zeros(2, DTYPES["int4"].numpy), "dense.bias",
                   Layout.parse("O")),
            strings,
        ]
    )  # fmt: skip
    with pytest.raises(PlanError) as caught:
        make_plan(bundle, TORCH.target(bundle), "torch", {})
    kinds = {problem.tensor: problem.kind for problem in caught.value.problems}
    assert kinds == {"l/kernel": "layout", "mystery": "layout", "tiny": "dtype"}
    assert "no conv_lstm.kernel" in str(caught.value)


def test_what_pytorch_has_no_dtype_for_is_not_written(path: Path) -> None:
    bundle = Bundle([Tensor("tiny", DTYPES["int4"], (2,), lambda: np.zeros(2, DTYPES["int4"].numpy))])
    with pytest.raises(FormatError, match=r"tiny \(int4\)"):
        TORCH.write(path, bundle)
    assert not path.exists()


def test_options_are_explicit(path: Path) -> None:
    with pytest.raises(UsageError, match="checksums, shared"):
        TORCH.read(path, weights_only="yes")


# --- the contract of every adapter


class TestZipContract(AdapterContract):
    adapter = TORCH

    def sample(self, folder: Path) -> Path:
        torch.save(network().state_dict(), folder / "model.pt")
        return folder / "model.pt"


class TestLegacyContract(AdapterContract):
    adapter = TORCH

    def sample(self, folder: Path) -> Path:
        torch.save({"net": network().state_dict(), "epoch": 3}, folder / "m.pt", _use_new_zipfile_serialization=False)
        return folder / "m.pt"


class TestShardedContract(AdapterContract):
    adapter = TORCH

    def sample(self, folder: Path) -> Path:
        return sharded(folder)


# --- tied weights, on every road


def tied(path: Path, *names: str, apart: bool = False) -> torch.Tensor:
    """One matrix under two names, or two equal ones, and a vector."""
    table = torch.arange(12.0).reshape(4, 3)
    matrices = {name: table.clone() if apart else table for name in names}
    torch.save({**matrices, "b": torch.ones(2)}, path)
    return table


def test_a_second_name_that_a_format_cannot_keep_is_noted(tmp_path: Path, path: Path) -> None:
    tied(path, "emb.weight", "head.weight")
    plan = wio.import_into(path, tmp_path / "once.npz", adapter="numpy")
    assert "left out: head.weight (emb.weight); torch files read with the option shared=all" in " ".join(plan.notes)
    asked: dict[str, Any] = {"adapter": "numpy", "source_options": {"shared": "all"}}
    plan = port.import_into(path, tmp_path / "each.npz", **asked)
    assert "left out" not in " ".join(plan.notes)
    assert set(np.load(tmp_path / "each.npz")) == {"emb.weight", "head.weight", "b"}
    wio.export(path, tmp_path / "m.wio")
    plan = wio.import_into(tmp_path / "m.wio", tmp_path / "back.pt", adapter="torch")
    assert "left out" not in " ".join(plan.notes)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["head.weight"].data_ptr() == back["emb.weight"].data_ptr()


@pytest.mark.parametrize("drop", ["emb.weight", "head.weight"])
def test_dropping_one_name_leaves_the_other(tmp_path: Path, path: Path, drop: str) -> None:
    table = tied(path, "emb.weight", "head.weight", "third")
    wio.export(path, tmp_path / "m.wio")
    wio.import_into(tmp_path / "m.wio", tmp_path / "back.pt", adapter="torch", drop=[drop])
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    kept = ({"emb.weight", "head.weight"} - {drop}).pop()
    assert set(back) == {kept, "third", "b"}
    assert torch.equal(back[kept], table)
    assert back["third"].data_ptr() == back[kept].data_ptr()
    wio.import_into(tmp_path / "m.wio", tmp_path / "none.pt", adapter="torch", drop=["*.weight", "third"])
    assert set(torch.load(tmp_path / "none.pt", weights_only=True)) == {"b"}


def test_what_is_said_of_a_second_name_makes_it_a_tensor(tmp_path: Path, path: Path) -> None:
    """An embedding's table, and the same numbers as the kernel of a dense layer."""
    table = tied(path, "emb.weight", "head.weight")
    declare = ["head.weight=dense.kernel:OI", "emb.weight=embedding.table:IO"]
    plan = wio.import_into(path, tmp_path / "m.h5", adapter="keras-tf", declare=declare, drop=["b"])
    made = {tensor.role: tensor.numpy() for tensor in plan.apply().values()}
    np.testing.assert_array_equal(made["embedding.table"], table)
    np.testing.assert_array_equal(made["dense.kernel"], table.T)


def test_tied_and_untied_weights_of_equal_values_are_equal(tmp_path: Path) -> None:
    a, b, c, d = (tmp_path / f"{name}.pt" for name in "abcd")
    table = tied(a, "emb.weight", "head.weight")
    tied(b, "head.weight", "emb.weight")
    tied(c, "emb.weight", "head.weight", apart=True)
    torch.save({"emb.weight": table, "head.weight": table + 1, "b": torch.ones(2)}, d)
    wio.export(a, tmp_path / "a.wio")
    for other in (b, c, tmp_path / "a.wio"):
        assert wio.diff(a, other).equal
        assert wio.diff(other, a).equal
    assert wio.diff(tmp_path / "a.wio", c).equal
    found = wio.diff(a, d)
    assert {pair.a: pair.status for pair in found.pairs} == {
        "emb.weight": "equal", "head.weight": "changed", "b": "equal"
    }  # fmt: skip


# --- what PyTorch's own weights_only lets in


def test_every_global_that_pytorch_lets_in_is_known() -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    names = [name.rpartition(".") for name in _get_allowed_globals()]
    assert [f"{module}.{name}" for module, _, name in names if resolve(module, name) is None] == []


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_with_the_milestones_of_a_scheduler(path: Path, zipped: bool) -> None:
    layer = torch.nn.Linear(2, 3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD(layer.parameters(), lr=0.1), [3, 7, 7])
    state = {"model": layer.state_dict(), "schedule": schedule.state_dict()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    bundle = TORCH.read(path)
    agree(bundle, {f"model.{name}": tensor for name, tensor in layer.state_dict().items()})
    other = bundle.metadata["torch"]["other"]
    assert (other["schedule.milestones.3"], other["schedule.milestones.7"]) == (1, 2)


class OnDevice:
    """Pickled as PyTorch pickles a tensor of a device that has no storages."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, self.arguments


def test_a_tensor_of_another_device_is_the_one_it_is_kept_as(path: Path) -> None:
    kept = torch.randn(2, 3)
    torch.save({"a": OnDevice(kept, torch.float32, "cpu", False)}, path)
    agree(TORCH.read(path), {"a": torch.load(path, weights_only=True)["a"]})
    torch.save({"a": OnDevice(kept, torch.float16, "cpu", False)}, path)
    with pytest.raises(FormatError, match="cast to float16 by PyTorch when it is loaded"):
        TORCH.read(path)


def test_a_key_that_is_too_long_is_called_so(path: Path) -> None:
    torch.save({"k" * 5000: torch.ones(1)}, path)
    with pytest.raises(FormatError, match="a key of a dictionary is longer than 4096 bytes"):
        TORCH.read(path)


def test_a_counter_of_steps_that_the_source_has_is_not_said_to_be_missing(tmp_path: Path, path: Path) -> None:
    torch.save(torch.nn.BatchNorm1d(3).state_dict(), path)
    names = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
    declare = [f"{name}=batch_norm.{role}:C" for name, role in names.items()]
    wio.export(path, tmp_path / "m.wio", declare=[*declare, "num_batches_tracked=other"])
    bundle = wio.open(tmp_path / "m.wio")
    made = Bundle(bundle.values(), {"adapter": "wio"})
    (note,) = [note for note in TORCH.target(made).notes if "num_batches_tracked" in note]
    assert "it counts steps and is no weight" in note
    counted = [tensor for tensor in made.values() if tensor.name != "num_batches_tracked"]
    assert "no source has it" in " ".join(TORCH.target(Bundle(counted)).notes)
