"""Pickles and archives that mean harm, and files that are damaged: refused by name, never run, never believed."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wio.adapters._pickle import LongText, load
from wio.adapters._pickle_values import leaves
from wio.adapters._torch_pickle import persistent, resolve
from wio.adapters._torch_read import LEGACY_MAGIC
from wio.adapters.torch_file import TorchFile
from wio.errors import DigestError, FormatError, WioError

TORCH = TorchFile()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def tensor(numel: int = 4, offset: int = 0, shape: int = 4, stride: int = 1, key: str = "0") -> bytes:
    """The opcodes of one float32 tensor with one axis, of any numbers."""

    def number(value: int) -> bytes:
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + raw

    storage = b"((" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(numel) + b"tQ"
    view = number(offset) + b"(" + number(shape) + b"t(" + number(stride) + b"t\x89Nt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + view + b"R"


def state(*items: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(items) + b"u."


def archive(path: Path, pickle: bytes, data: bytes = bytes(16), **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle)
        file.writestr("archive/data/0", data)
        file.writestr("archive/version", b"3")
        for name, content in members.items():
            file.writestr(f"archive/{name}", content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile.pt"


def test_the_frame_of_these_tests_is_sound(path: Path) -> None:
    archive(path, state(text("w"), tensor()))
    assert list(TORCH.read(path)) == ["w"]
    assert torch.load(path, weights_only=True)["w"].shape == (4,)


# --- pickles that want to run something


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("os.system", b"cos\nsystem\n" + text("touch pwned") + b"\x85R"),
        ("posix.system", b"cposix\nsystem\n" + text("touch pwned") + b"\x85R"),
        ("builtins.eval", b"cbuiltins\neval\n" + text("1") + b"\x85R"),
        ("__builtin__.exec", b"c__builtin__\nexec\n" + text("1") + b"\x85R"),
        ("builtins.getattr", b"cbuiltins\ngetattr\n" + text("1") + text("x") + b"\x86R"),
        ("torch.load", b"ctorch\nload\n" + text("x") + b"\x85R"),
        ("torch.serialization.load", b"ctorch.serialization\nload\n" + text("x") + b"\x85R"),
        ("torch._utils._rebuild_tensor_v2.__globals__", b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n"),
        ("collections.OrderedDict.fromkeys", b"ccollections\nOrderedDict.fromkeys\n"),
        ("numpy.load", b"\x8c\x05numpy\x8c\x04load\x93" + text("x") + b"\x85R"),
        ("__torch__.Evil", b"c__torch__\nEvil\n)\x81"),
        ("torch.jit._pickle.build_intlist", b"ctorch.jit._pickle\nbuild_intlist\n"),
    ],
)
def test_globals_off_the_list_are_refused_by_name(path: Path, name: str, code: bytes) -> None:
    archive(path, state(text("w"), code))
    with pytest.raises(FormatError) as caught:
        TORCH.read(path)
    assert f"wants {name}" in str(caught.value)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("a dtype", b"ctorch\nfloat32\n)R"),
        ("a string", text("eval") + b")R"),
        ("a class of storages", b"ctorch\nFloatStorage\n)R"),
        ("what another call gave", b"ccollections\nOrderedDict\n)R)R"),
        ("arguments that are no tuple", b"ccollections\nOrderedDict\n]R"),
    ],
)
def test_reduce_calls_only_functions_of_the_list(path: Path, what: str, code: bytes) -> None:
    archive(path, state(text("w"), code))
    with pytest.raises(FormatError, match="calls something that is no function"):
        TORCH.read(path)


@pytest.mark.parametrize(
    "code", [b"i", b"o", b"P", b"\x82", b"\x92", b"\x98", b"2", b"0", b"I01\n", b"V\n", b"\xff"], ids=repr
)
def test_opcodes_off_the_list_are_refused(path: Path, code: bytes) -> None:
    archive(path, state(text("w"), code))
    with pytest.raises(FormatError, match="pickle opcode"):
        TORCH.read(path)


@pytest.mark.parametrize("target", [b"}", b"]", text("x"), tensor()], ids=["dict", "list", "text", "tensor"])
def test_build_sets_no_state_of_what_has_none(path: Path, target: bytes) -> None:
    archive(path, state(text("w"), target + b"}b"))
    with pytest.raises(FormatError, match="something that has none"):
        TORCH.read(path)


def test_tensors_are_rebuilt_by_functions_of_the_list_only(path: Path) -> None:
    inner = b"ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\nctorch\nTensor\n)NtR"
    archive(path, state(text("w"), inner))
    with pytest.raises(FormatError, match="something else than PyTorch's own functions"):
        TORCH.read(path)


# --- pickles that want all the memory


def refused(code: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        value, _ = load(memoryview(code), 0, resolve, "it", persistent)
        list(leaves(value, "."))
    return str(caught.value)


def test_a_few_bytes_that_say_a_billion_leaves() -> None:
    levels = b"".join(b"](" + (b"h" + bytes([k])) * 10 + b"eq" + bytes([k + 1]) for k in range(40))
    assert "more than 1,000,000 values" in refused(b"\x80\x02](]}aq\x00" + levels + b"e.")


def test_a_long_list_and_a_long_name_reached_many_times() -> None:
    many = (b"h\x01" * 5000 + b"e.").replace(b"\x01", b"\x00")
    assert "more than" in refused(b"\x80\x02](](" + b"N" * 5000 + b"eq\x00" + many)
    named = b"}" + text("x" * 4000) + b"](" + b"}" * 20_000 + b"es."
    assert "more than" in refused(b"\x80\x02" + named)


def test_nesting_without_end() -> None:
    assert "deeper than 64" in refused(b"\x80\x02}" + b"\x85" * 100_000 + b".")
    assert "deeper than 1000" in refused(b"\x80\x02" + b"(" * 100_000)


def test_a_list_that_holds_itself() -> None:
    assert "deeper than 64" in refused(b"\x80\x02]q\x00h\x00a.")


def test_operations_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wio.adapters._pickle.MOST_OPERATIONS", 1000)
    assert "more than 1,000 operations" in refused(b"\x80\x02" + b"N" * 2000 + b".")


def test_lengths_beyond_the_file() -> None:
    for code in (b"X\xff\xff\xff\xff", b"B\xff\xff\xff\xff", b"T\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8, b"\x8a\xff"):
        assert "cut short" in refused(b"\x80\x02" + code)


@pytest.mark.parametrize("key", [b"N\x85", b"\x8a\x20" + b"\x01" * 32, b"]", b"G" + bytes(8)], ids=repr)
def test_keys_that_are_no_keys(key: bytes) -> None:
    assert "key of a dictionary" in refused(b"\x80\x02}" + key + b"Ns.")


@pytest.mark.parametrize(
    "code", [b".", b"\x80\x02R.", b"\x80\x02t.", b"\x80\x02h\x05.", b"\x80\x02\x87.", b"\x80\x02s."]
)
def test_stacks_and_memos_that_hold_nothing(code: bytes) -> None:
    assert "not put there" in refused(code) or "not set" in refused(code)


def test_values_left_behind_and_protocols_unknown() -> None:
    assert "leaves values behind" in refused(b"\x80\x02NN.")
    assert "protocol 9" in refused(b"\x80\x09N.")


def test_long_text_is_not_decoded() -> None:
    value, _ = load(memoryview(b"\x80\x02" + text("x" * 5000) + b"."), 0, resolve, "it")
    assert isinstance(value, LongText)


# --- tensors that claim what is not there


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (tensor(numel=5), "has 16 bytes where 20 were announced"),
        (tensor(numel=2**62), "bytes where"),
        (tensor(numel=-1), "is no size"),
        (tensor(offset=1), "reaches element 4"),
        (tensor(offset=2**62), "reaches element"),
        (tensor(offset=-1), "is no size"),
        (tensor(shape=5), "reaches element 4"),
        (tensor(shape=-4), "a shape is no size"),
        (tensor(stride=2), "reaches element 6"),
        (tensor(stride=-1), "strides is no size"),
        (tensor(shape=2**40, stride=0), "repeats the 16 bytes"),
        (tensor(shape=2**62, stride=0), "overflows"),
        (tensor(key="1"), "is not in the archive"),
        (tensor(key="../../etc/passwd"), "is not in the archive"),
    ],
)
def test_views_beyond_their_storage(path: Path, tensors: bytes, says: str) -> None:
    archive(path, state(text("w"), tensors))
    with pytest.raises(FormatError) as caught:
        TORCH.read(path)
    assert says in str(caught.value)


# --- archives


def test_a_damaged_storage_is_found_out_unless_told_otherwise(path: Path) -> None:
    torch.save({"w": torch.arange(64.0)}, path)
    raw = bytearray(path.read_bytes())
    at = raw.index(struct.pack("<3f", 20, 21, 22))
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DigestError, match=r"CRC-32.*tensor 'w'"):
        TORCH.read(path)["w"].numpy()
    assert TORCH.read(path, checksums="ignore")["w"].numpy().shape == (64,)


def test_a_zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", state(text("w"), tensor(numel=20 << 20, shape=20 << 20)))
        file.writestr("archive/data/0", bytes(80 << 20))
    with pytest.raises(FormatError, match="zip bomb"):
        TORCH.read(path)


def test_a_deflated_archive_is_read(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", state(text("w"), tensor()))
        file.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
    assert TORCH.read(path)["w"].numpy().tolist() == [1, 2, 3, 4]


def test_sizes_that_lie_about_what_inflates(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", state(text("w"), tensor()))
        file.writestr("archive/data/0", bytes(400))
    raw = path.read_bytes().replace(struct.pack("<I", 400), struct.pack("<I", 16))
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="does not inflate to the 16 bytes"):
        TORCH.read(path)["w"].numpy()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_stands_twice(path: Path) -> None:
    archive(path, state(text("w"), tensor()))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/0", bytes(16))
    with pytest.raises(FormatError, match="stands twice"):
        TORCH.read(path)


@pytest.mark.parametrize("name", ["../evil", "archive/../../evil", "/etc/passwd"])
def test_a_member_that_leaves_the_archive(path: Path, name: str) -> None:
    archive(path, state(text("w"), tensor()))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"x")
    with pytest.raises(FormatError, match="leaves the archive"):
        TORCH.read(path)


def test_two_members_on_one_place(path: Path) -> None:
    archive(path, state(text("w"), tensor()))
    raw = path.read_bytes()
    # The directory's second entry is led to the member of the first, which has another name.
    first, second = raw.index(b"PK\x01\x02"), raw.rindex(b"PK\x01\x02")
    path.write_bytes(raw[: second + 42] + raw[first + 42 : first + 46] + raw[second + 46 :])
    with pytest.raises(FormatError, match="another name where it stands"):
        TORCH.read(path)


def test_archives_without_or_with_two_pickles(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"")
        file.writestr("b/data.pkl", b"")
    with pytest.raises(FormatError, match="no one folder"):
        TORCH.read(path)


def test_bytes_behind_the_pickle_and_a_byte_order_that_is_none(path: Path) -> None:
    with pytest.raises(FormatError, match="bytes follow the end"):
        TORCH.read(archive(path, state(text("w"), tensor()) + b"more"))
    with pytest.raises(FormatError, match="neither little nor big"):
        TORCH.read(archive(path, state(text("w"), tensor()), byteorder=b"middle"))


# --- legacy


def legacy(path: Path) -> bytes:
    torch.save({"w": torch.arange(4.0)}, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_a_legacy_file_cut_short_or_with_more_behind_it(path: Path) -> None:
    raw = legacy(path)
    path.write_bytes(raw[:-1])
    with pytest.raises(FormatError, match="cut short"):
        TORCH.read(path)
    path.write_bytes(raw + b"x")
    with pytest.raises(FormatError, match="1 bytes follow"):
        TORCH.read(path)


def test_a_legacy_storage_of_another_size_than_announced(path: Path) -> None:
    raw = legacy(path)
    path.write_bytes(raw[:-24] + struct.pack("<q", 5) + raw[-16:])
    with pytest.raises(FormatError, match="5 elements where 4 were announced"):
        TORCH.read(path)


def test_a_legacy_pickle_that_wants_to_run_something(path: Path) -> None:
    path.write_bytes(LEGACY_MAGIC + b"\x80\x02M\xe9\x03.\x80\x02}." + b"\x80\x02cos\nsystem\n" + text("x") + b"\x85R.")
    with pytest.raises(FormatError, match=r"wants os\.system"):
        TORCH.read(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02N.", bytes(512), LEGACY_MAGIC], ids=repr)
def test_what_is_no_file_of_pytorch(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError):
        TORCH.read(path)
    assert TORCH.sniff(path) in (0, 20)


def test_folders_pipes_and_nothing_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "pipe", "missing"):
        assert TORCH.sniff(tmp_path / name) == 0
        with pytest.raises(FormatError):
            TORCH.read(tmp_path / name)


# --- any byte changed


def sample(zipped: bool) -> bytes:
    torch.manual_seed(0)
    state = {"a": torch.randn(3, 4), "b": {"c": torch.arange(5), "n": 3}, "t": torch.randn(2, 3).t()}
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


SAMPLES = {zipped: sample(zipped) for zipped in (True, False)}


def values(raw: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        path.write_bytes(raw)
        bundle = TORCH.read(path)
        return {name: (t.shape, t.dtype.name, bytes(t.stored()), t.numpy().tobytes()) for name, t in bundle.items()}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(zipped=st.booleans(), data=st.data())
def test_any_bytes_changed_or_cut(zipped: bool, data: st.DataObject) -> None:
    """The storages of a zip are under a CRC; a legacy file has none, so there any values may come out, or an error."""
    raw = bytearray(SAMPLES[zipped])
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(len(raw) // 2, len(raw))) :]
    try:
        found = values(bytes(raw))
    except WioError:
        return
    if zipped:
        assert found == values(SAMPLES[True])
