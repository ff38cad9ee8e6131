"""Writing and reading .wio files: what goes in comes out, nothing else is ever believed, and no half file is left."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import places, replaced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vector_files import File, compact, floats, framed, strings, table_digest

import wio.placed_writer
from wio.bundle import Bundle, Tensor
from wio.container import DECLARATION, WioFileReader, verified
from wio.container_writer import save
from wio.dtypes import DTYPES, DType, dtype_of
from wio.encodings import from_bytes, to_bytes
from wio.errors import DigestError, FormatError, WioError
from wio.layout import Layout
from wio.plugins import adapter_named

Array = np.ndarray[Any, np.dtype[Any]]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: not name.startswith("__"))


def tensor(name: str, array: Any, role: str | None = None, layout: str | None = None, **more: Any) -> Tensor:
    array = np.asarray(array)
    declared = None if layout is None else Layout.parse(layout)
    return Tensor(name, dtype_of(array), array.shape, lambda: array, role, declared, **more)


def read(path: Path) -> Bundle:
    return WioFileReader(path).bundle()


def header_of(raw: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return header


def everything(bundle: Bundle) -> dict[str, tuple[Any, ...]]:
    """All that can be read of a bundle, to be compared."""
    return {
        name: (t.dtype.name, t.shape, t.role, str(t.layout), t.origin, t.layer, bytes(to_bytes(t.numpy(), t.dtype)))
        for name, t in bundle.items()
    }


# --- what goes in comes out


@st.composite
def arrays(draw: st.DrawFn) -> tuple[DType, tuple[int, ...], bytes]:
    dtype = draw(st.sampled_from(sorted(DTYPES.values(), key=str)))
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 1, 2, 3]), max_size=4)))
    count = int(np.prod(shape, dtype=int))
    if dtype.encoding == "varbytes":
        items = draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
        return dtype, shape, strings("", shape, items).data
    size = count * dtype.itemsize
    return dtype, shape, draw(st.binary(min_size=size, max_size=size))


@st.composite
def bundles(draw: st.DrawFn) -> tuple[Bundle, dict[str, bytes]]:
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    tensors, stored = [], {}
    for name in names:
        dtype, shape, raw = draw(arrays())
        stored[name] = raw
        letters = draw(st.permutations("OIHW"))[: len(shape)]
        # A layout that no role has is declared without one.
        layout = draw(st.sampled_from([None, Layout(tuple(letters))]))
        tensors.append(
            Tensor(
                name,
                dtype,
                shape,
                lambda raw=raw, dtype=dtype, shape=shape: from_bytes(raw, dtype, shape),  # type: ignore[misc]
                role=None if layout is not None else draw(st.sampled_from([None, "other", "counter"])),
                layout=layout,
                origin=draw(st.none() | NAMES),
                layer=draw(st.just("") | NAMES.filter(lambda layer: layer != "\0")),
            )
        )
    simple = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES
    metadata = draw(
        st.dictionaries(NAMES.filter(lambda key: key != "unknown_keys"), simple | st.lists(simple), max_size=3)
    )
    return Bundle(tensors, metadata), stored


@given(bundles())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_is_written_is_read(tmp_path: Path, case: tuple[Bundle, dict[str, bytes]]) -> None:
    import safetensors

    bundle, stored = case
    path = tmp_path / "a.wio"
    digests = save(bundle, path)
    raw = path.read_bytes()
    found = read(path)

    assert list(found) == list(bundle)
    assert found.metadata == bundle.metadata
    assert digests == {name: hashlib.sha256(data).hexdigest() for name, data in stored.items()}
    assert {name: t.digest for name, t in found.items()} == digests
    assert {name: bytes(verified(t).stored()) for name, t in found.items()} == stored
    for name, t in bundle.items():
        if t.origin == name:
            t = t.changed(origin=None)
        assert everything(found)[name] == everything(Bundle([t]))[name]

    # The reference reader sees the same bytes, under the dtype where it has it.
    theirs = dict(safetensors.deserialize(raw))  # type: ignore[no-untyped-call]
    assert {name: bytes(entry["data"]) for name, entry in theirs.items()} == stored
    for name, t in bundle.items():
        if t.dtype.safetensors:
            assert (theirs[name]["dtype"], tuple(theirs[name]["shape"])) == (t.dtype.safetensors, t.shape)
        else:
            assert (theirs[name]["dtype"], theirs[name]["shape"]) == ("U8", [len(stored[name])])

    # The same bundle gives the same bytes, and so does what was read.
    save(bundle, path)
    assert path.read_bytes() == raw
    save(found, tmp_path / "b.wio")
    assert (tmp_path / "b.wio").read_bytes() == raw


def test_the_reference_library_reads_the_same_arrays(tmp_path: Path) -> None:
    import safetensors.numpy

    given_arrays = {
        name: np.arange(6).reshape(2, 3).astype(name)
        for name in ("bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    }
    given_arrays |= {name: np.linspace(-1, 1, 6).reshape(2, 3).astype(name) for name in ("f2", "f4", "f8", "c8")}
    save(Bundle([tensor(name, array) for name, array in given_arrays.items()]), tmp_path / "a.wio")
    found = safetensors.numpy.load_file(tmp_path / "a.wio")
    assert sorted(found) == sorted(given_arrays)
    for name, array in given_arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1, ::-1, ::-1],
        lambda a: a[..., ::2],
        lambda a: a[:, :, :1][:, :, ::-1],
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a.astype(">f4"),
        np.asfortranarray,
    ],
)
def test_views_are_written_as_they_look(view: Callable[[Array], Array], tmp_path: Path) -> None:
    """The NumPy writer of safetensors 0.8 writes what lies in memory, or beyond it, in their place."""

    import safetensors.numpy

    array = view(np.arange(3 * 4 * 2 * 5, dtype="f4").reshape(3, 4, 2, 5))
    save(Bundle([tensor("kernel", array)]), tmp_path / "a.wio")
    assert np.array_equal(safetensors.numpy.load_file(tmp_path / "a.wio")["kernel"], array)
    assert np.array_equal(read(tmp_path / "a.wio")["kernel"].numpy(), array)


def test_a_rearranged_tensor_is_written_as_its_new_layout(tmp_path: Path) -> None:
    kernel = tensor("conv/kernel", np.arange(24.0).reshape(2, 3, 4, 1), "conv.kernel", "HWIO flipped")
    save(Bundle([kernel.to("OIHW")]), tmp_path / "a.wio")
    found = read(tmp_path / "a.wio")["conv/kernel"]
    assert str(found.layout) == "OIHW"
    assert np.array_equal(found.numpy(), np.arange(24.0).reshape(2, 3, 4, 1)[::-1, ::-1].transpose(3, 2, 0, 1))


def test_other_values_forget_what_was_known_of_the_old_bytes() -> None:
    known = tensor("t", np.zeros(3, "f4"), digest="0" * 64, stored_bytes=99, raw=lambda: memoryview(b"old"))
    other = known.with_values(lambda: np.ones(4, "f4"), (4,), None)
    assert (other.digest, other.nbytes, bytes(other.stored())) == (None, 16, np.ones(4, "f4").tobytes())


def test_arrays_that_are_read_cannot_be_written_to(tmp_path: Path) -> None:
    save(Bundle([tensor("a", np.zeros(3))]), tmp_path / "a.wio")
    with pytest.raises(ValueError, match="read-only"):
        read(tmp_path / "a.wio")["a"].numpy()[0] = 1


# --- the form of the file


def sample() -> Bundle:
    return Bundle(
        [
            tensor("words", np.array([b"the", b""], object)),
            tensor("mask", [True, False, True]),
            tensor("conv/kernel", np.arange(12, dtype="f4").reshape(1, 2, 2, 3), "conv.kernel", "HWIO", origin="c/w"),
            tensor("step", np.int64(7), "counter"),
            tensor("half", np.zeros(3, "f2")),
            tensor("waves", np.zeros(1, "c8")),
        ],
        {"adapter": "numpy", "author": "größe"},
    )


def test_a_file_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    save(sample(), tmp_path / "a.wio")
    raw = (tmp_path / "a.wio").read_bytes()
    assert raw[8:].startswith(b'{"__metadata__":{"wio":"')
    assert header_of(raw)["__metadata__"]["format"] == "pt"
    assert int.from_bytes(raw[:8], "little") % 8 == 0
    assert adapter_named("wio").sniff(tmp_path / "a.wio") == 30


def test_a_file_is_told_wherever_the_declaration_stands(tmp_path: Path) -> None:
    file = File([floats("a", (1,))], bend_header=lambda header: dict(reversed(header.items())))
    (tmp_path / "a.wio").write_bytes(file.bytes())
    assert adapter_named("wio").sniff(tmp_path / "a.wio") == 30
    (tmp_path / "b").write_bytes(framed({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}))
    assert adapter_named("wio").sniff(tmp_path / "b") == 0


def test_data_are_aligned_then_in_declared_order(tmp_path: Path) -> None:
    save(sample(), tmp_path / "a.wio", lambda: {"wio": 1})
    raw = (tmp_path / "a.wio").read_bytes()
    header = header_of(raw)
    entries = {name: entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}
    assert list(entries) == ["step", "conv/kernel", "waves", "half", "words", "mask", "__wio__/receipt"]
    assert list(entries.values()) == sorted(entries.values())
    assert [each["name"] for each in json.loads(header["__metadata__"]["wio"])["tensors"]] == list(sample())
    for name, t in sample().items():
        size = 4 if t.dtype.name == "complex64" else max(t.dtype.itemsize, 1)
        assert (8 + int.from_bytes(raw[:8], "little") + entries[name]) % size == 0


def test_only_what_defaults_do_not_say_is_declared(tmp_path: Path) -> None:
    tensors = [
        tensor("conv/kernel", np.zeros((1, 1)), "dense.kernel", "IO"),
        tensor("plain", np.zeros(1), origin="plain"),
        tensor("a.b", np.zeros(1), layer="elsewhere"),
        tensor("c.d", np.zeros(1), layer=""),
    ]
    save(Bundle(tensors), tmp_path / "a.wio")
    declared = json.loads(header_of((tmp_path / "a.wio").read_bytes())["__metadata__"]["wio"])
    assert list(declared) == ["wio", "generator", "table", "metadata", "layouts", "tensors"]
    assert declared["layouts"] == ["IO"]
    assert [sorted(item) for item in declared["tensors"]] == [
        ["layout", "name", "role", "sha256"],
        ["name", "sha256"],
        ["layer", "name", "sha256"],
        ["layer", "name", "sha256"],
    ]


def test_the_same_bytes_under_any_hash_seed(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np; from pathlib import Path; from wio.bundle import Bundle, Tensor\n"
        "from wio.container_writer import save; from wio.dtypes import dtype_of; from wio.layout import Layout\n"
        "arrays = {f't{k}': np.full((2, 2), k, 'f4') for k in range(20)}\n"
        "tensors = [Tensor(n, dtype_of(a), a.shape, lambda a=a: a, 'dense.kernel',"
        " Layout.parse('IO' if k % 2 else 'OI')) for k, (n, a) in enumerate(arrays.items())]\n"
        "save(Bundle(tensors, {'b': 1, 'a': {'d': 1, 'c': 2}}), Path(sys.argv[1]), lambda: {'z': 1, 'y': 2})\n"
    )
    found = set()
    for seed in ("0", "1", "2"):
        path = tmp_path / f"{seed}.wio"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, str(path)], check=True, env=environment)
        found.add(path.read_bytes())
    assert len(found) == 1


def test_unknown_keys_never_take_the_place_of_known_ones(tmp_path: Path) -> None:
    unknown = {"file": {"table": "x", "tensors": [], "later": 1}, "tensors": {"a": {"sha256": "y", "later": 2}}}
    save(Bundle([tensor("a", np.zeros(1))], {"unknown_keys": unknown}), tmp_path / "a.wio")
    found = read(tmp_path / "a.wio")
    assert found.metadata == {"unknown_keys": {"file": {"later": 1}, "tensors": {"a": {"later": 2}}}}


# --- large files


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """400 MB of tensors that exist only while they are written."""
    size, count = 8 << 20, 50

    def make(k: int) -> Tensor:
        return Tensor(f"t{k}", DTYPES["float32"], (size // 4,), lambda: np.full(size // 4, k, "f4"))

    gc.collect()
    tracemalloc.start()
    try:
        save(Bundle(map(make, range(count))), tmp_path / "a.wio")
        _, most = tracemalloc.get_traced_memory()
        assert most < wio.placed_writer.MOST_WAITING + 8 * size
        tracemalloc.reset_peak()
        bundle = read(tmp_path / "a.wio")
        assert [float(t.numpy()[-1]) for t in bundle.values()] == list(range(count))
        _, most = tracemalloc.get_traced_memory()
        assert most < size
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.wio").stat().st_size > size * count


def test_a_hundred_thousand_tensors(tmp_path: Path) -> None:
    import safetensors

    count = 100_000
    arrays = np.arange(count, dtype="f4")
    layout = Layout.parse("O")
    save(
        Bundle(
            Tensor(f"layer_{k}/bias", DTYPES["float32"], (1,), lambda k=k: arrays[k : k + 1], "dense.bias", layout)  # type: ignore[misc]
            for k in range(count)
        ),
        tmp_path / "a.wio",
    )
    bundle = read(tmp_path / "a.wio")
    assert len(bundle) == count
    assert bundle[f"layer_{count - 1}/bias"].numpy()[0] == count - 1
    with safetensors.safe_open(tmp_path / "a.wio", "numpy") as theirs:
        assert len(theirs.keys()) == count


@pytest.mark.parametrize("receipt", [None, {"wio": 1, "steps": []}])
def test_a_declaration_over_16_mib_goes_outside_the_header(receipt: dict[str, Any] | None, tmp_path: Path) -> None:
    import safetensors.numpy

    path = tmp_path / "a.wio"
    metadata = {"model_config": "x" * (16 << 20)}
    save(
        Bundle([tensor("a", np.arange(3.0)), tensor("b", [True])], metadata),
        path,
        (lambda: receipt) if receipt else None,
    )
    header = header_of(path.read_bytes())
    stub = json.loads(header["__metadata__"]["wio"])
    assert sorted(stub) == ["declaration", "wio"]
    assert list(header) == ["__metadata__", "a", "b", *(["__wio__/receipt"] if receipt else []), DECLARATION]
    reader = WioFileReader(path)
    assert reader.bundle().metadata == metadata
    assert reader.receipt() == receipt
    assert list(reader.bundle()) == ["a", "b"]
    assert np.array_equal(safetensors.numpy.load_file(path)["a"], np.arange(3.0))
    again = tmp_path / "b.wio"
    save(reader.bundle(), again, (lambda: receipt) if receipt else None)
    assert again.read_bytes() == path.read_bytes()


def test_the_limit_is_that_of_the_declaration_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Bundle([], {"a": "é" * 50}), tmp_path / "a.wio")
    length = len(header_of((tmp_path / "a.wio").read_bytes())["__metadata__"]["wio"].encode())
    for limit, inside in ((length, True), (length - 1, False)):
        monkeypatch.setattr(wio.container_writer, "MAX_DECLARATION_IN_HEADER", limit)
        save(Bundle([], {"a": "é" * 50}), tmp_path / "a.wio")
        assert (DECLARATION not in header_of((tmp_path / "a.wio").read_bytes())) == inside


def test_a_header_over_the_limit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wio.safetensors_header.MAX_HEADER", 1000)
    with pytest.raises(FormatError, match="over the format's limit"):
        save(Bundle([tensor(f"t{k}", np.zeros(1)) for k in range(20)]), tmp_path / "a.wio")
    assert list(tmp_path.iterdir()) == []


def test_a_header_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wio"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + b"{")
        file.truncate(100_000_100)
    with pytest.raises(FormatError, match="over the limit of 100000000"):
        read(path)


# --- what cannot be written


@pytest.mark.parametrize("name", ["__wio__/receipt", "__wio__/", "__metadata__"])
def test_reserved_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WioError, match="keeps for itself"):
        save(Bundle([tensor(name, np.zeros(1))]), tmp_path / "a.wio")


@pytest.mark.parametrize(
    "bundle",
    [
        Bundle([], {"epsilon": float("nan")}),
        Bundle([], {"raw": b"bytes"}),
        Bundle([], {"when": object()}),
        Bundle([], {"text": "\ud800"}),
        Bundle([tensor("\udc80", np.zeros(1))]),
        Bundle([tensor("a", np.zeros(1), origin="\udc80")]),
    ],
    ids=["NaN", "bytes", "object", "surrogate", "name", "origin"],
)
def test_what_json_cannot_hold_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(WioError):
        save(bundle, tmp_path / "a.wio")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_gives_other_bytes_than_announced_is_refused(tmp_path: Path) -> None:
    wrong = [
        Tensor("kernel", DTYPES["float32"], (3,), lambda: np.zeros(4, "f4")),
        Tensor("kernel", DTYPES["float32"], (3,), lambda: np.zeros(3, "f8")),
        Tensor("kernel", DTYPES["float32"], (3,), lambda: np.zeros(3, "i4")),
    ]
    for each in wrong:
        with pytest.raises(WioError):
            save(Bundle([tensor("first", np.zeros(2)), each]), tmp_path / "a.wio")
        assert list(tmp_path.iterdir()) == []


def test_a_receipt_keeps_its_size(tmp_path: Path) -> None:
    receipts: Iterator[dict[str, str]] = iter([{"digest": "0" * 64}, {"digest": "1" * 64}])
    save(Bundle([tensor("a", np.zeros(1))]), tmp_path / "a.wio", lambda: next(receipts))
    assert WioFileReader(tmp_path / "a.wio").receipt() == {"digest": "1" * 64}
    growing: Iterator[dict[str, str]] = iter([{"digest": ""}, {"digest": "1"}])
    with pytest.raises(WioError, match="changed its size"):
        save(Bundle([tensor("a", np.zeros(1))]), tmp_path / "b.wio", lambda: next(growing))
    assert [path.name for path in tmp_path.iterdir()] == ["a.wio"]


# --- whole or not at all


def failing() -> Bundle:
    def load() -> Array:
        raise DigestError("weights: damaged")

    return Bundle([tensor("first", np.zeros(100)), Tensor("weights", DTYPES["float32"], (3,), load)])


@pytest.mark.parametrize("before", [None, b"the old file"])
def test_an_error_in_the_middle_leaves_everything_as_it_was(before: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.wio"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(DigestError, match="weights: damaged"):
        save(failing(), path)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == ([("a.wio", before)] if before else [])


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
def test_interruptions_leave_everything_as_it_was(trouble: Any, tmp_path: Path) -> None:
    def load() -> Array:
        raise trouble

    (tmp_path / "a.wio").write_bytes(b"old")
    expected = WioError if isinstance(trouble, OSError) else trouble
    with pytest.raises(expected):
        save(Bundle([Tensor("a", DTYPES["float32"], (3,), load)]), tmp_path / "a.wio")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.wio", b"old")]


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.wio").write_bytes(b"old")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(WioError, match="No space left"):
        save(sample(), tmp_path / "a.wio")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.wio", b"old")]


def test_the_output_may_be_the_input(tmp_path: Path) -> None:
    path = tmp_path / "a.wio"
    kernel = np.arange(12.0).reshape(2, 2, 3, 1)
    save(Bundle([tensor("conv/kernel", kernel, "conv.kernel", "HWIO")]), path)
    bundle = read(path)
    save(bundle.map(lambda t: t.to("OIHW")), path)
    assert np.array_equal(read(path)["conv/kernel"].numpy(), kernel.transpose(3, 2, 0, 1))
    assert np.array_equal(bundle["conv/kernel"].numpy(), kernel)
    assert [each.name for each in tmp_path.iterdir()] == ["a.wio"]


def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.wio", tmp_path / "link.wio"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    save(sample(), link)
    assert link.is_symlink()
    assert everything(read(target)) == everything(sample())
    assert target.stat().st_mode & 0o7777 == 0o640
    assert [each.name for each in target.parent.iterdir()] == ["a.wio"]


def test_paths_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "no such folder" / "a.wio", tmp_path / "file" / "a.wio", tmp_path):
        with pytest.raises(WioError):
            save(sample(), path)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(WioError, match=r"cannot write to the folder .*Permission denied"):
        save(sample(), tmp_path / "a.wio")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


# --- files that another tool saved again


def resaved(path: Path, change: Callable[[dict[str, Array]], dict[str, Array]]) -> None:
    import safetensors.numpy

    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.numpy.save_file(change(arrays), path, metadata)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {f"{name}_ema": array for name, array in arrays.items()},
        lambda arrays: {name: np.ascontiguousarray(array.T) for name, array in arrays.items()},
        lambda arrays: {name: array.astype("f2") for name, array in arrays.items()},
        lambda arrays: {name: array for name, array in arrays.items() if name != "dense/bias"},
        lambda arrays: {**arrays, "extra": np.zeros(1)},
    ],
    ids=["renamed", "transposed", "cast", "dropped", "added"],
)
def test_a_file_that_another_tool_saved_again_is_found_out(change: Any, tmp_path: Path) -> None:
    import safetensors.numpy

    path = tmp_path / "a.wio"
    kernel = tensor("dense/kernel", np.arange(6, dtype="f4").reshape(2, 3), "dense.kernel", "IO")
    save(Bundle([kernel, tensor("dense/bias", np.zeros(3, "f4"), "dense.bias", "O")]), path)
    resaved(path, change)
    with pytest.raises(FormatError, match="another tool has saved this file again"):
        read(path)
    assert list(safetensors.numpy.load_file(path)) != []


def test_values_that_another_tool_changed_are_found_out_when_verified(tmp_path: Path) -> None:
    path = tmp_path / "a.wio"
    save(Bundle([tensor("a", np.arange(3.0))]), path)
    resaved(path, lambda arrays: {name: array + 1 for name, array in arrays.items()})
    found = read(path)["a"]
    with pytest.raises(DigestError, match="a: its bytes do not match its SHA-256"):
        verified(found).numpy()


def test_a_file_saved_again_as_it_was_is_still_good(tmp_path: Path) -> None:
    path = tmp_path / "a.wio"
    save(Bundle([tensor("a", np.arange(3.0), "dense.bias", "O"), tensor("b", np.arange(2.0))]), path)
    resaved(path, lambda arrays: arrays)
    assert verified(read(path)["a"]).numpy().tolist() == [0.0, 1.0, 2.0]


def test_a_file_whose_metadata_were_lost_says_so(tmp_path: Path) -> None:
    import safetensors.numpy

    path = tmp_path / "a.wio"
    safetensors.numpy.save_file({"a": np.zeros(1)}, path)
    with pytest.raises(FormatError, match="without a wio declaration") as caught:
        read(path)
    assert "safetensors:FILE" in str(caught.value)


# --- damage: an error of ours, or nothing has changed


def whole_reading(path: Path) -> tuple[Any, ...]:
    reader = WioFileReader(path)
    bundle = reader.bundle()
    values = [
        (name, t.dtype.name, t.shape, bytes(to_bytes(verified(t).numpy(), t.dtype))) for name, t in bundle.items()
    ]
    declared = [(t.role, str(t.layout), t.origin, t.layer) for t in bundle.values()]
    return values, (declared, bundle.metadata, reader.receipt())


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.wio"
    tensors = [tensor("a/w", np.array([[1.5]], "f2"), "dense.kernel", "IO"), tensor("s", np.array([b"xy"], object))]
    save(Bundle(tensors), path, lambda: {"r": 1})
    return path


def test_a_file_cut_anywhere_is_refused(small: Path) -> None:
    raw = small.read_bytes()
    for length in range(len(raw)):
        small.write_bytes(raw[:length])
        with pytest.raises(FormatError):
            whole_reading(small)


def test_a_flipped_bit_anywhere_is_found_or_changes_no_value(small: Path) -> None:
    """What the header says in the declaration's own text (a role, an origin) has no digest; names and values have."""
    raw = small.read_bytes()
    values, declared = whole_reading(small)
    start = raw.index(b'"wio":"') + 7
    text = range(start, raw.index(b'","format"', start))
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        small.write_bytes(flipped)
        try:
            found_values, found_declared = whole_reading(small)
        except WioError:
            continue
        assert found_values == values
        assert found_declared == declared or bit // 8 in text


@given(st.data())
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300
)
def test_any_declaration_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """A declaration in which anything may stand anywhere: an error of ours, never another."""
    tensors = [floats("a/w", (2, 2), role="dense.kernel", layout="IO"), strings("s", (1,), [b"xy"])]
    file = File(tensors, metadata={"layers": []}, receipt=b'{"wio":1}', outside=data.draw(st.booleans()))
    reference = {"tensor": DECLARATION, "sha256": "0" * 64}
    if file.outside and data.draw(st.booleans()):
        file.bend_stub = mutation({"wio": 1, "declaration": reference}, data)
    else:
        file.bend_document = mutation(file.document(), data)
    raw = file.bytes()
    (tmp_path / "a.wio").write_bytes(raw)
    try:
        whole_reading(tmp_path / "a.wio")
    except WioError:
        return


@given(st.data())
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300
)
def test_any_header_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """The same for the header; what we accept, the reference reader accepts too."""

    import safetensors

    file = File([floats("a", (2, 2)), strings("s", (1,), [b"xy"])])
    raw = file.bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header = mutation(header, data)(header)
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict) and data.draw(st.booleans()):
        with contextlib.suppress(TypeError, KeyError, ValueError, AttributeError):
            header["__metadata__"]["wio"] = compact(file.document(table_digest(header)))
    (tmp_path / "a.wio").write_bytes(framed(json.dumps(header), raw[8 + length :]))
    try:
        whole_reading(tmp_path / "a.wio")
    except WioError:
        return
    safetensors.deserialize((tmp_path / "a.wio").read_bytes())  # type: ignore[no-untyped-call]


NUMBERS = (0, 1, -1, 2, 1.0, 0.5, 1e308, 2**31, 2**63 - 1, 2**63, 2**64, 10**30)
TEXTS = (
    "",
    "a",
    "\0",
    "\u202e",
    "__wio__/x",
    "U8",
    "F32",
    "int4",
    "string",
    "elements",
    "IO",
    "HWIO flipped",
    "0" * 64,
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [0], [2, 2], [1] * 70, [2**62, 2**62, 0], {"tensor": "a"})
ODD = st.sampled_from([*NUMBERS, *TEXTS, *OTHERS])


def mutation(document: Any, data: st.DataObject) -> Callable[[Any], Any]:
    """Puts something odd in one place of such a document, or takes a part away."""
    where = data.draw(st.sampled_from(list(places(document))))
    odd = data.draw(ODD)
    gone = data.draw(st.booleans())
    return lambda each: replaced(each, where, odd, gone=gone)
