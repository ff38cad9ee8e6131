"""HDF5 of the newer format: read as the older one is, by way of a copy that a process with limits makes."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pytest
from hostile import Case, Seed, bad_message, measured, survives, wio
from test_hostile_hdf5 import HARM, keras2, keras3

from wio.adapters import _hdf5_newer
from wio.adapters._hdf5_structure import NewerError, check_structure
from wio.plugins import open_bundle

FORMS: dict[str, dict[str, Any]] = {
    "latest": {"libver": "latest"},
    "track_order": {"track_order": True},
    "1.8": {"libver": ("v108", "v108")},
    "dense": {"libver": "latest", "track_order": True},
}
REAL = (
    "keras_early/k033_th/image_last.h5",
    "keras_layers/k205_th_last/ConvFlattenDense.full.h5",
    "keras_layers/k205_th_last/BidirLSTM.full.h5",
)
# They do not name their backend.
THEANO = ("image_last.h5",)
FIXED = ("m_00000.weights.h5", "sequential.keras")


def rewritten(source: Any, target: Any, **form: Any) -> None:
    """The same file as h5py writes it when told to, by libhdf5's own copy."""
    with h5py.File(source) as old, h5py.File(target, "w", **form) as new:
        _rewrite(old, new)


def _rewrite(old: Any, new: Any) -> None:
    for name, value in old.attrs.items():
        identity = old.attrs.get_id(name)
        new.attrs.create(name, value, identity.shape, identity.dtype)
    for name, each in old.items():
        if isinstance(each, h5py.Group):
            _rewrite(each, new.create_group(name))
        else:
            old.copy(name, new)


def in_form(path: Path, target: Path, **form: Any) -> None:
    if path.suffix != ".keras":
        rewritten(path, target, **form)
        return
    weights = target.with_suffix(".h5")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name.endswith(".h5"):
                with old.open(name) as member:
                    rewritten(member, weights, **form)
                new.write(weights, name)
            else:
                new.writestr(name, old.read(name))
    weights.unlink()


def said(path: Path) -> list[tuple[Any, ...]]:
    bundle, adapter = open_bundle(path, "keras-theano" if path.name in THEANO else None)
    return [
        (adapter.name, t.name, t.dtype.name, t.shape, t.role, str(t.layout), t.layer, bytes(t.stored()))
        for t in bundle.values()
    ]


@pytest.fixture(params=[*REAL, *FIXED])
def real(request: pytest.FixtureRequest, data: Path) -> Path:
    name = str(request.param)
    return data / name if name in REAL else Path(__file__).parent / "fuzz" / "fixed" / name


@pytest.mark.parametrize("form", FORMS)
def test_a_real_file_says_the_same_in_the_newer_format(tmp_path: Path, real: Path, form: str) -> None:
    newer = tmp_path / real.name
    in_form(real, newer, **FORMS[form])
    assert newer.read_bytes() != real.read_bytes()
    assert len(said(real)) > 1
    assert said(newer) == said(real)


def test_it_is_what_keras_writes_when_h5py_is_told_to(tmp_path: Path) -> None:
    from keras3_judge import keras, randomize, save

    model = randomize(keras().Sequential([keras().Input((4, 5, 3)), keras().layers.Conv2D(2, 3, name="c")]))
    usual = h5py.File

    def latest(*arguments: Any, **options: Any) -> Any:
        return usual(*arguments, **{**options, "libver": "latest", "track_order": True})

    for name in ("m.keras", "m.weights.h5"):
        with patch("h5py.File", latest):
            save(model, tmp_path / name)
        found, _ = open_bundle(tmp_path / name)
        assert [tensor.shape for tensor in found.values()] == [(3, 3, 3, 2), (2,)]
        for tensor, wanted in zip(found.values(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(tensor.numpy(), wanted)


def _every_way_to_index(group: Any) -> None:
    """Chunks by B-tree, fixed array, extensible array, one chunk, implicitly; some of them missing."""
    values = np.arange(96, dtype="<f4").reshape(8, 12)
    group.create_dataset("2", data=values, chunks=(3, 5), maxshape=(None, None), compression="gzip", shuffle=True)
    group.create_dataset("3", data=values, chunks=(3, 5))
    group.create_dataset("4", data=values, chunks=(3, 5), maxshape=(None, 12), fletcher32=True)
    group.create_dataset("5", data=values, chunks=(8, 12))
    group.create_dataset("6", (8, 12), "<f4", chunks=(3, 5), fillvalue=7)[0, 0] = 1
    group.create_dataset("7", (2, 3), "<f4", fillvalue=5)
    group["8"] = np.float64(2.5)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((3, 5))
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple((8, 12))
    h5py.Dataset(h5py.h5d.create(group.id, b"9", h5py.h5t.IEEE_F32BE, space, plan))[...] = values
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    h5py.Dataset(h5py.h5d.create(group.id, b"10", h5py.h5t.IEEE_F32LE, space, compact))[...] = values
    group["11"] = values.astype("c8")
    group["12"] = values > 3


def test_arrays_of_every_kind_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    keras3(path, _every_way_to_index, **FORMS["latest"])
    with h5py.File(path) as file:
        wanted = {f"d/{name}": array[()] for name, array in file["layers/dense/vars"].items()}
    found = {tensor.name: tensor.numpy() for tensor in open_bundle(path)[0].values()}
    assert len(wanted) == 13
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_many_names_are_kept_densely(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"

    def many(group: Any) -> None:
        for k in range(300):
            group.attrs[f"a{k}"] = k
            group.file.create_group(f"layers/l{k}/vars")["0"] = np.float32(k)

    keras3(path, many, **FORMS["dense"])
    assert b"FRHP" in path.read_bytes()
    usual = tmp_path / "usual.weights.h5"
    keras3(usual, many)
    assert said(path) == said(usual)
    assert len(said(path)) == 302


# Where the usual road finds what is wrong, it says it in its own words.
OTHER_WORDS = {
    "a chunk larger than its array": (),
    "text": ("no weights are",),
    "text of a fixed length": ("no",),
    "nothing": ("holds nothing",),
    **dict.fromkeys(
        ("lists", "references", "references to regions", "arrays in arrays", "times", "bit fields"), ("no weights are",)
    ),
}


@pytest.mark.parametrize("name", HARM)
def test_what_means_harm(tmp_path: Path, name: str) -> None:
    change, words = HARM[name]
    sound = keras3(tmp_path / "m.weights.h5")
    bad = keras3(tmp_path / "m.weights.h5", change, **FORMS["latest"])
    survives(tmp_path, sound, [Case(name, bad.files, refused=OTHER_WORDS.get(name, words))])


def damaged(seed: Seed, count: int) -> Iterator[Case]:
    """Bytes changed where structures are, the checksum of none of them mended: libhdf5 looks at few."""
    (raw,) = seed.files.values()
    places = np.random.default_rng(8).permutation(min(len(raw), 2048))[:count]
    for k, at in enumerate(map(int, places)):
        changed = raw[:at] + bytes([(0, 1, 0xFF, raw[at] ^ 0x80, raw[at] + 1 & 0xFF)[k % 5]]) + raw[at + 1 :]
        if changed != raw:
            yield Case(f"byte {at}", {seed.opened: changed}, may_differ=True)
    for at in range(1, len(raw), len(raw) // 6):
        yield Case(f"cut off at {at}", {seed.opened: raw[:at]})


@pytest.mark.parametrize("form", ["latest", "track_order"])
def test_damaged_ones(tmp_path: Path, form: str) -> None:
    seed = keras2(tmp_path / "m.h5", **FORMS[form])
    assert survives(tmp_path, seed, damaged(seed, 14))["refused"]


ENDINGS = {
    "hangs": ("while True: pass", "worked for more than 3 seconds"),
    "waits": ("import time; time.sleep(1000)", "worked for more than 3 seconds"),
    "crashes": ("import os; os.kill(os.getpid(), 11)", "crashed (signal 11)"),
    "fails": ("raise OSError('\\x1b[31m')", "gave up (exit 1)"),
    "says nonsense": ("import os; os.write(2, b'\\x1b[31m\\xff'); os._exit(3)", "\\x1b[31m"),
    "says much": ("import os\nfor _ in range(9): os.write(2, b'x' * 9999)\nos._exit(3)", "x" * 999),
    "fills the disk": ("import os\nwhile True: os.write(1, bytes(1 << 24))", "gave up (exit 1)"),
    "takes all memory": ("x = bytes(1 << 40)", "gave up (exit 1)"),
    "writes nothing": ("", "HDF5 1.8"),
    "writes anything": ("import os; os.write(1, b'x' * 999)", "cut short"),
    "writes the same": ("import os; os.write(1, os.read(0, 1 << 20))", "superblock"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_whatever_becomes_of_the_process(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in its place does what libhdf5 might; limits are those of the real one."""
    lines, words = ENDINGS[name]
    begin = (
        f"import sys\nsys.path.insert(0, {str(_hdf5_newer._PROGRAM.parent)!r})\nimport _hdf5_copy\n"
        "_hdf5_copy._limit(int(sys.argv[1]), int(sys.argv[2]))\n"
    )
    program = tmp_path / "program.py"
    program.write_text(begin + lines)
    monkeypatch.setattr(_hdf5_newer, "_PROGRAM", program)
    monkeypatch.setattr(_hdf5_newer, "_PATIENCE", 1)
    monkeypatch.setattr(_hdf5_newer, "_COPIES", {})
    keras2(tmp_path / "m.h5", **FORMS["latest"])
    done = wio("inspect", tmp_path / "m.h5")
    assert done.code == 2
    assert words in done.err
    assert not list(bad_message(done.err))


def test_what_it_takes(tmp_path: Path) -> None:
    honest = np.random.default_rng(3).integers(0, 99, 20 << 20, np.uint8)

    def large(**options: Any) -> Callable[[Any], None]:
        return lambda group: group.create_dataset("2", data=honest, **options)

    sound = keras3(tmp_path / "m.weights.h5")
    for options in ({}, {"chunks": (1 << 22,), "compression": 1}):
        bad = keras3(tmp_path / "m.weights.h5", large(**options), **FORMS["latest"])
        measured(tmp_path, sound, Case(f"large {options}", bad.files))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    keras2(tmp_path / "m.h5", **FORMS["latest"])
    with pytest.raises(NewerError):
        check_structure(memoryview((tmp_path / "m.h5").read_bytes()))
    assert wio("inspect", tmp_path / "m.h5").code == 0
    assert not list(folder.iterdir())
    shutil.rmtree(folder)
    (tmp_path / "m.h5").touch()
    done = wio("inspect", tmp_path / "m.h5")
    assert done.code == 2
    assert "TMPDIR" in done.err
