"""NumPy files against NumPy: .npy, .npz, and pickled dictionaries read without pickle; .npz written."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wio
from wio.adapters._zip import ZipArchive
from wio.adapters._zip_writer import ZipWriter
from wio.adapters.numpy_file import NumpyFile
from wio.api import save
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES, dtype_of
from wio.errors import DigestError, FormatError, PlanError, WioError
from wio.plan import make_plan
from wio.testing import AdapterContract

NUMPY = NumpyFile()
KINDS = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")


def filled(kind: str, *shape: int) -> np.ndarray:
    dtype = np.dtype(kind)
    raw = np.random.default_rng(5).integers(0, 256, int(np.prod(shape)) * dtype.itemsize, np.uint8)
    return (raw > 99).reshape(shape) if kind == "?" else raw.view(dtype).reshape(shape)


def agree(bundle: Bundle, arrays: dict[str, np.ndarray]) -> None:
    assert list(bundle) == list(arrays)
    for name, array in arrays.items():
        expected = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
        mine = bundle[name].numpy()
        assert mine.shape == array.shape and mine.dtype == expected.dtype and mine.flags.c_contiguous
        assert mine.tobytes() == expected.tobytes() == bytes(bundle[name].stored())


# --- .npy and .npz


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_every_dtype_and_byte_order(tmp_path: Path, kind: str, order: str) -> None:
    array = filled(kind, 2, 3)
    array = array.astype(array.dtype.newbyteorder(order))
    np.save(tmp_path / "conv1.kernel.npy", array)
    bundle = NUMPY.read(tmp_path / "conv1.kernel.npy")
    agree(bundle, {"conv1.kernel": array})
    assert bundle["conv1.kernel"].role is None and NUMPY.sniff(tmp_path / "conv1.kernel.npy") == 10


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(filled("f4", 2, 3, 4)),
        np.array(2.5),
        np.zeros((2, 0, 3)),
        np.arange(4.0)[:, None],
        np.zeros(0),
    ],
    ids=["fortran", "scalar", "empty", "unit", "nothing"],
)
def test_arrays_of_every_shape_and_order(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    agree(NUMPY.read(tmp_path / "a.npy"), {"a": array})


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_the_header(tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, np.arange(3), version)
    agree(NUMPY.read(tmp_path / "a.npy"), {"a": np.arange(3)})


@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_archives_stored_and_compressed(tmp_path: Path, save_npz: Any) -> None:
    arrays = {
        "conv1/weights": filled("f4", 3, 2),
        "conv1/biases": filled("f8", 2),
        "f": np.asfortranarray(filled("f4", 2, 3)),
    }
    save_npz(tmp_path / "a.npz", **arrays)
    bundle = NUMPY.read(tmp_path / "a.npz")
    agree(bundle, arrays)
    assert bundle["f"].raw is None and bundle["conv1/weights"].layer == "conv1"
    assert NUMPY.sniff(tmp_path / "a.npz") == 20


def made(arrays: dict[str, np.ndarray]) -> Bundle:
    return Bundle([Tensor(name, dtype_of(a), a.shape, lambda a=a: a) for name, a in arrays.items()])


def test_what_is_written_numpy_reads(tmp_path: Path) -> None:
    arrays = {f"l/{kind}": filled(kind, 2, 3) for kind in KINDS}
    arrays |= {"scalar": np.array(3.5), "empty": np.zeros((0, 2)), "ünï.npy": np.arange(1000), "one": np.zeros(1)}
    bundle = made(arrays)
    plan = make_plan(bundle, NUMPY.target(bundle), "numpy", {})
    for name in ("a.npz", "b.npz"):
        NUMPY.write(tmp_path / name, plan.apply())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as back:
        assert back.files == list(arrays)
        for name, array in arrays.items():
            assert back[name].dtype == array.dtype and back[name].shape == array.shape
            assert back[name].tobytes() == array.tobytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
    agree(NUMPY.read(tmp_path / "a.npz"), arrays)


def test_there_and_back_through_a_wio_file(tmp_path: Path) -> None:
    arrays = {"a/b": filled("f4", 3, 2), "c": filled("i8", 2)}
    np.savez(tmp_path / "there.npz", **arrays)
    save(NUMPY.read(tmp_path / "there.npz"), tmp_path / "there.wio")
    from wio.adapters.wio_file import WioFile

    bundle = WioFile().read(tmp_path / "there.wio")
    NUMPY.write(tmp_path / "back.npz", make_plan(bundle, NUMPY.target(bundle), "numpy", {}).apply())
    agree(NUMPY.read(tmp_path / "back.npz"), arrays)


def test_dtypes_that_numpy_lacks_are_problems_of_the_plan(tmp_path: Path) -> None:
    bundle = Bundle([Tensor("w", DTYPES["bfloat16"], (2,), lambda: np.zeros(2, ml_dtypes.bfloat16))])
    with pytest.raises(PlanError, match="cannot hold bfloat16"):
        make_plan(bundle, NUMPY.target(bundle), "numpy", {})
    with pytest.raises(FormatError, match=r"w \(bfloat16\)"):
        NUMPY.write(tmp_path / "a.npz", bundle)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../b", "nul\0"])
def test_names_that_leave_an_archive_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="cannot be the name of a member"):
        NUMPY.write(tmp_path / "a.npz", made({name: np.zeros(1)}))
    assert not (tmp_path / "a.npz").exists()


def test_more_members_than_sixteen_bits_count(tmp_path: Path) -> None:
    """Then the directory ends in the records of zip64."""
    with (tmp_path / "a.npz").open("wb") as file:
        archive = ZipWriter(file)
        for index in range(66_000):
            archive.add(f"{index}.npy", b"")
        archive.close()
    with zipfile.ZipFile(tmp_path / "a.npz") as found:
        assert len(found.namelist()) == 66_000 == len(ZipArchive(tmp_path / "a.npz").members)


# --- pickled dictionaries


def network() -> dict[str, Any]:
    return {
        "conv1": {"weights": filled("f4", 3, 2, 4, 5), "biases": filled("f4", 5)},
        "bn1": {"mean": filled("f8", 5), "variance": filled("f8", 5)},
        "ip": {"weights": np.asfortranarray(filled("f4", 4, 3)), "big": np.arange(3).astype(">i4")},
    }


def flat(found: dict[str, Any]) -> dict[str, np.ndarray]:
    return {f"{layer}/{name}": array for layer, arrays in found.items() for name, array in arrays.items()}


def pickled(path: Path, value: Any, protocol: int) -> Path:
    """As np.save writes a dictionary, with a pickle of any protocol."""
    holder = np.empty((), object)
    holder[()] = value
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(file.getvalue() + pickle.dumps(holder, protocol, fix_imports=True))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_dictionaries_of_arrays(tmp_path: Path, protocol: int) -> None:
    path = pickled(tmp_path / "net.npy", network(), protocol)
    assert np.load(path, allow_pickle=True).item().keys() == network().keys()
    agree(NUMPY.read(path), flat(network()))


def test_a_dictionary_as_numpy_saves_it_today(tmp_path: Path) -> None:
    np.save(tmp_path / "net.npy", network(), allow_pickle=True)
    agree(NUMPY.read(tmp_path / "net.npy"), flat(network()))


def short(raw: bytes) -> bytes:
    return b"U" + bytes([len(raw)]) + raw


def python2(items: bytes) -> bytes:
    """A .npy dictionary as Python 2 pickled it: byte strings, and names of NumPy 1."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + short(b"O8") + b"K\x00K\x01\x87R(K\x03" + short(b"|")
    state = b"(K\x01)" + dtype + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89](}(" + items + b"uetb."
    return file.getvalue() + b"\x80\x02" + array + state


def array2(data: bytes, count: int, code: bytes = b"f4", order: bytes = b"<") -> bytes:
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + short(code) + b"K\x00K\x01\x87R(K\x03" + short(order)
    shape = b"J" + struct.pack("<i", count) + b"\x85"
    raw = b"T" + struct.pack("<i", len(data)) + data
    return array + b"(K\x01" + shape + dtype + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + raw + b"tb"


def test_a_dictionary_of_python_2_with_latin_1_names(tmp_path: Path) -> None:
    values = filled("f4", 3)
    (tmp_path / "a.npy").write_bytes(
        python2(short("señal".encode("latin-1")) + b"}" + short(b"w") + array2(values.tobytes(), 3) + b"s")
    )
    assert list(np.load(tmp_path / "a.npy", allow_pickle=True, encoding="latin1").item()) == ["señal"]
    agree(NUMPY.read(tmp_path / "a.npy"), {"señal/w": values})


def test_long_arrays_are_mapped_and_not_copied(tmp_path: Path) -> None:
    values = filled("f4", 5000)
    (tmp_path / "a.npy").write_bytes(python2(short(b"w") + array2(values.tobytes(), 5000)))
    bundle = NUMPY.read(tmp_path / "a.npy")
    agree(bundle, {"w": values})
    assert not bundle["w"].numpy().flags.owndata


def test_what_is_no_array_is_listed(tmp_path: Path) -> None:
    path = pickled(tmp_path / "a.npy", {"w": np.ones(2), "lr": 0.5, "names": ["a", "b"]}, 2)
    bundle = NUMPY.read(path)
    assert list(bundle) == ["w"] and bundle.metadata["numpy"]["other"] == {"lr": 0.5, "names": ["a", "b"]}


# --- refused


class Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.how = (call, arguments)

    def __reduce__(self) -> Any:
        return self.how


@pytest.mark.parametrize(
    "call", [os.system, eval, getattr, np.load, np.frombuffer, bytearray], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_that_want_to_run_something(tmp_path: Path, call: Any, protocol: int) -> None:
    path = pickled(tmp_path / "a.npy", {"w": Evil(call, "x")}, protocol)
    with pytest.raises(FormatError, match=rf"wants .*{call.__name__}.*refused"):
        NUMPY.read(path)


def test_arrays_of_other_classes_are_refused(tmp_path: Path) -> None:
    raw = python2(short(b"w") + array2(bytes(4), 1))
    (tmp_path / "a.npy").write_bytes(raw.replace(b"numpy\nndarray\n", b"numpy\nmatrix\n"))
    with pytest.raises(FormatError, match=r"wants numpy\.matrix"):
        NUMPY.read(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(raw.replace(b"cnumpy\nndarray\nK\x00", b"cnumpy\ndtype\nK\x00"))
    with pytest.raises(FormatError, match=r"something else than numpy\.ndarray"):
        NUMPY.read(tmp_path / "a.npy")


@pytest.mark.parametrize("count", [0, 1, 3, 2**31 - 1, -1])
def test_pickled_arrays_of_another_size_than_their_bytes(tmp_path: Path, count: int) -> None:
    (tmp_path / "a.npy").write_bytes(python2(short(b"w") + array2(bytes(8), count)))
    with pytest.raises(FormatError):
        NUMPY.read(tmp_path / "a.npy")


def test_bytes_spelled_as_text_that_are_none_or_too_few(tmp_path: Path) -> None:
    path = pickled(tmp_path / "a.npy", {"w": np.full(5000, 0xFFFFFFFF, np.uint32)}, 2)
    raw = path.read_bytes()
    path.write_bytes(raw.replace("ÿ".encode() * 100, "Ā".encode() * 100, 1))
    with pytest.raises(FormatError, match="no byte"):
        NUMPY.read(path)["w"].numpy()
    path.write_bytes(raw.replace("ÿ".encode() * 2, b"aaaa"))
    with pytest.raises(FormatError, match="does not have its"):
        NUMPY.read(path)["w"].numpy()


def test_nested_arrays_of_objects_are_refused_by_name(tmp_path: Path) -> None:
    path = pickled(tmp_path / "a.npy", {"l": {"w": np.array([{}, None], object)}}, 2)
    with pytest.raises(FormatError, match="l/w: is an array of Python objects"):
        NUMPY.read(path)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "structured"),
        (np.array(["a", "bc"]), "text"),
        (np.array([b"a", b"bc"]), "byte strings"),
        (np.array(["2020-01-01"], "M8[D]"), "not understood"),
        (np.zeros(2, ml_dtypes.bfloat16), "raw records"),
        (np.zeros(2, np.longdouble), "extended floats"),
        (np.array([1, None], object), "Python objects of shape"),
    ],
    ids=["structured", "text", "bytes", "dates", "bfloat16", "longdouble", "objects"],
)
def test_arrays_that_are_no_numbers_are_refused(tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(FormatError, match=says):
        NUMPY.read(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", good=np.ones(1), bad=array)
    with pytest.raises(FormatError, match=r"bad\.npy: "):
        NUMPY.read(tmp_path / "a.npz")


def head(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + bytes(4),
        head("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }") + bytes(7),
        head("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }") + bytes(9),
        head("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }"),
        head("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807, 4), }"),
        head("{'descr': '<f4', 'fortran_order': False, 'shape': [2], }") + bytes(8),
        head("{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }") + bytes(8),
        head("{'descr': '<f4', 'shape': (2,), }") + bytes(8),
        head("__import__('os').system('x')"),
        head("(" * 5000),
        head("{'descr': '<q9', 'fortran_order': False, 'shape': (2,), }") + bytes(8),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31),
    ],
)
def test_malformed_arrays_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(FormatError):
        NUMPY.read(tmp_path / "a.npy")


def test_a_header_of_python_2_with_long_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(head("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }") + bytes(24))
    assert NUMPY.read(tmp_path / "a.npy")["a"].shape == (2, 3)


def test_a_zip_bomb(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros(80 << 20, np.uint8))
    with pytest.raises(FormatError, match="zip bomb"):
        NUMPY.read(tmp_path / "a.npz")


def test_a_damaged_member_is_found_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.arange(100.0))
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    raw[raw.index(struct.pack("<2d", 50, 51))] ^= 1
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(DigestError, match="CRC-32"):
        NUMPY.read(tmp_path / "a.npz")["w"].numpy()


def test_an_archive_with_something_else_in_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(1))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(FormatError, match=r"readme\.txt: is no \.npy array"):
        NUMPY.read(tmp_path / "a.npz")
    assert NUMPY.sniff(tmp_path / "a.npz") == 0


# --- any byte changed


def samples() -> dict[str, tuple[bytes, bool]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        pickled(path, network(), 2)
        dictionary = path.read_bytes()
        np.save(path, filled("f4", 2, 3))
        plain = path.read_bytes()
        np.savez_compressed(Path(folder) / "a.npz", **flat(network()))
        return {
            "dict": (dictionary, False),
            "npy": (plain, False),
            "npz": ((Path(folder) / "a.npz").read_bytes(), True),
        }


SAMPLES = samples()


def values(raw: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        path.write_bytes(raw)
        return {name: (t.shape, t.dtype.name, bytes(t.stored())) for name, t in NUMPY.read(path).items()}


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(SAMPLES)), data=st.data())
def test_any_bytes_changed_or_cut(kind: str, data: st.DataObject) -> None:
    """Members of an archive are under a CRC: the same values or an error. The others: values of some kind, or one."""
    sample, checked = SAMPLES[kind]
    raw = bytearray(sample)
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(len(raw) // 2, len(raw))) :]
    try:
        found = values(bytes(raw))
    except WioError:
        return
    if checked:
        assert all(found[name] == value for name, value in values(sample).items() if name in found)


# --- the contract of every adapter


class TestArchiveContract(AdapterContract):
    adapter = NUMPY

    def sample(self, folder: Path) -> Path:
        np.savez(folder / "a.npz", **flat(network()))
        return folder / "a.npz"


class TestDictionaryContract(AdapterContract):
    adapter = NUMPY

    def sample(self, folder: Path) -> Path:
        return pickled(folder / "a.npy", network(), 2)


# --- the dictionary of layers


def test_a_dictionary_is_what_numpy_loads_today_and_did_then(tmp_path: Path) -> None:
    arrays = {f"conv{k}/weights": filled(kind, 2, 3) for k, kind in enumerate(KINDS)}
    arrays |= {"a/b/biases": np.zeros(0), "wide/x": np.arange(70_000, dtype="u4"), "scalar/x": np.array(3.5)}
    bundle = made(arrays)
    plan = make_plan(bundle, NUMPY.target(bundle, kind="dictionary"), "numpy", {})
    for name in ("a.npy", "b.npy"):
        NUMPY.write(tmp_path / name, plan.apply(), kind="dictionary")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    loaded = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    found = {f"{layer}/{name}": array for layer, weights in loaded.items() for name, array in weights.items()}
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    agree(NUMPY.read(tmp_path / "a.npy"), arrays)


def test_old_numpy_loads_a_dictionary(tmp_path: Path) -> None:
    from conftest import judge_python

    arrays = {"conv1/weights": filled("f4", 3, 2), "conv1/biases": filled("f8", 2)}
    NUMPY.write(tmp_path / "a.npy", made(arrays), kind="dictionary")
    code = "import numpy, sys; d = numpy.load(sys.argv[1], allow_pickle=True).item(); print(d['conv1'])"
    done = subprocess.run(
        [judge_python("WIO_THEANO2_PYTHON"), "-W", "error", "-c", code, str(tmp_path / "a.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str({"weights": arrays["conv1/weights"], "biases": arrays["conv1/biases"]})


def test_what_a_dictionary_cannot_hold_is_a_problem_of_the_plan() -> None:
    bundle = made({"alone": np.zeros(2), "a/w": np.zeros(2)})
    with pytest.raises(PlanError) as caught:
        make_plan(bundle, NUMPY.target(bundle, kind="dictionary"), "numpy", {})
    assert [problem.tensor for problem in caught.value.problems if problem.kind == "name"] == ["alone"]


def lists() -> dict[str, Any]:
    """As mtcnn's loader reads them, beside a dictionary whose keys look like indices. Twelve: "10" sorts before "2"."""
    return {
        "net": [filled("f4", 2, 3) + k for k in range(12)],
        "pair": (filled("f8", 3), filled("f4", 3, 3)),
        "looks": {"0": filled("f4", 2), "1": filled("f4", 4)},
    }


@pytest.mark.parametrize("by_wio", [True, False], ids=["wio", "npy"])
def test_lists_of_arrays_stay_lists(tmp_path: Path, by_wio: bool) -> None:
    source = pickled(tmp_path / "a.npy", lists(), 2)
    if by_wio:
        wio.export(source, source := tmp_path / "a.wio")
    wio.import_into(source, tmp_path / "b.npy", adapter="numpy", kind="dictionary")
    loaded = np.load(tmp_path / "b.npy", allow_pickle=True).item()
    assert {name: type(layer) for name, layer in loaded.items()} == {"net": list, "pair": list, "looks": dict}
    for name, expected in lists().items():
        one, two = (each.values() if isinstance(each, dict) else each for each in (loaded[name], expected))
        for mine, theirs in zip(one, two, strict=True):
            np.testing.assert_array_equal(mine, theirs, strict=True)
    agree(NUMPY.read(tmp_path / "b.npy"), {name: t.numpy() for name, t in wio.open(source).items()})


def test_a_list_is_asked_for_where_the_source_has_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"onet/1": filled("f4", 2), "onet/0": filled("f4", 3), "fc/w": filled("f4", 1)})
    into: dict[str, Any] = {"adapter": "numpy", "kind": "dictionary"}
    wio.import_into(tmp_path / "a.npz", tmp_path / "b.npy", lists="onet", **into)
    onet = np.load(tmp_path / "b.npy", allow_pickle=True).item()["onet"]
    assert [array.shape for array in onet] == [(3,), (2,)]
    with pytest.raises(PlanError, match="no tensor is of this layer"):
        wio.import_into(tmp_path / "a.npz", tmp_path / "b.npy", lists="onet,pnet", **into)


def test_lists_with_holes_and_lists_within_lists_are_refused(tmp_path: Path) -> None:
    source = pickled(tmp_path / "a.npy", lists(), 2)
    into: dict[str, Any] = {"adapter": "numpy", "kind": "dictionary"}
    with pytest.raises(PlanError, match="a list of 11 arrays without the one of index 3"):
        wio.import_into(source, tmp_path / "b.npy", drop=["net/3"], **into)
    wio.import_into(source, tmp_path / "b.npy", drop=["net/*"], **into)
    assert set(np.load(tmp_path / "b.npy", allow_pickle=True).item()) == {"pair", "looks"}
    deep = pickled(tmp_path / "deep.npy", {"net": [[filled("f4", 2), filled("f4", 3)]]}, 2)
    with pytest.raises(PlanError, match="stands deeper in the list 'net'"):
        wio.import_into(deep, tmp_path / "b.npy", **into)
