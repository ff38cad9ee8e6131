"""HDF5 made by strangers: libhdf5 crashes, hangs and takes all memory over such files, so it is given none of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import Case, Seed, cuts, measured, numbers, survives

from wio.adapters._hdf5_structure import check_structure
from wio.errors import FormatError
from wio.plugins import open_bundle

Change = Callable[[Any], None]


def keras2(path: Path, change: Change | None = None, **form: Any) -> Seed:
    """One dense layer of Keras 2; ``change`` may add the array ``x`` to its group, which lists it."""
    with h5py.File(path, "w", **form) as file:
        file.attrs["layer_names"] = [b"d"]
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = b"2.2.4"
        group = file.create_group("d")
        group["kernel"] = np.arange(12, dtype="<f4").reshape(4, 3)
        group["bias"] = np.arange(3, dtype="<f4")
        names = [b"kernel", b"bias"]
        if change is not None:
            change(group)
            names.append(b"x")
        group.attrs["weight_names"] = names
    return Seed.of("keras-tf", path)


def keras3(path: Path, change: Change | None = None, **form: Any) -> Seed:
    with h5py.File(path, "w", **form) as file:
        group = file.create_group("layers/dense/vars")
        group["0"] = np.arange(12, dtype="<f4").reshape(4, 3)
        group.create_dataset("1", data=np.arange(64, dtype="<f4"), chunks=(16,), compression="gzip", fletcher32=True)
        group.attrs["name"] = "d"
        if change is not None:
            change(group)
            if "x" in group:
                group.move("x", "2")
    return Seed.of("keras3", path)


SEEDS = {"keras2": (keras2, "m.h5"), "keras3": (keras3, "m.weights.h5")}


def seed_of(kind: str, folder: Path, change: Change | None = None) -> Seed:
    make, name = SEEDS[kind]
    return make(folder / name, change)


# The numbers of each structure, from its signature: where, and how many bytes (HDF5 File Format Specification 3.0).
_SUPERBLOCK = {8: 1, 9: 1, 13: 1, 14: 1, 16: 2, 18: 2, 24: 8, 32: 8, 40: 8, 48: 8, 56: 8, 64: 8, 72: 4, 80: 8, 88: 8}
_STRUCTURES = {
    b"TREE": {4: 1, 5: 1, 6: 2, 8: 8, 24: 8, 32: 8},
    b"SNOD": {4: 1, 6: 2, 8: 8, 16: 8, 24: 4, 32: 8, 40: 8, 48: 8},
    b"HEAP": {4: 1, 8: 8, 16: 8, 24: 8},
    b"GCOL": {4: 1, 8: 8, 16: 2, 24: 8},
}


def structures(raw: bytes) -> Iterator[tuple[int, dict[int, int]]]:
    """Where each structure begins, and its numbers."""
    yield 0, _SUPERBLOCK
    for signature, parts in _STRUCTURES.items():
        at = raw.find(signature)
        while at >= 0:
            yield at, parts
            at = raw.find(signature, at + 4)


def headers(raw: bytes) -> Iterator[int]:
    """Where object headers of version 1 begin, as far as their first bytes tell."""
    for at in range(96, len(raw) - 16, 8):
        if raw[at : at + 2] == b"\1\0" and raw[at + 4 : at + 8] == b"\1\0\0\0" and not any(raw[at + 12 : at + 16]):
            yield at


@pytest.mark.parametrize("kind", SEEDS)
def test_every_number_of_every_structure(tmp_path: Path, kind: str) -> None:
    seed = seed_of(kind, tmp_path)
    (raw,) = seed.files.values()
    fields = {
        f"byte {at + place}": (at + place, width) for at, parts in structures(raw) for place, width in parts.items()
    }
    found = survives(tmp_path, seed, numbers(seed.opened, raw, fields, may_differ=True))
    assert found["refused"] > found["read"]


@pytest.mark.parametrize("kind", SEEDS)
def test_every_number_of_the_object_headers(tmp_path: Path, kind: str) -> None:
    """Every two bytes of them: counts, sizes, types, shapes, places and attributes are all in there."""
    seed = seed_of(kind, tmp_path)
    (raw,) = seed.files.values()
    cases = []
    for start in headers(raw):
        size = int.from_bytes(raw[start + 8 : start + 12], "little")
        for at in range(start, min(len(raw) - 2, start + 16 + size), 2):
            for number in (0, 1, 0x7FFF, 0x8000, 0xFFFF):
                changed = raw[:at] + number.to_bytes(2, "little") + raw[at + 2 :]
                if changed != raw:
                    cases.append(Case(f"byte {at} = {number}", {seed.opened: changed}, may_differ=True))
    assert len(cases) > 1000
    found = survives(tmp_path, seed, cases)
    assert found["refused"]


@pytest.mark.parametrize("kind", SEEDS)
def test_cut_off_anywhere(tmp_path: Path, kind: str) -> None:
    seed = seed_of(kind, tmp_path)
    (raw,) = seed.files.values()
    places = [at for at, _ in structures(raw)] + list(headers(raw))
    assert survives(tmp_path, seed, cuts(seed.opened, raw, [*places, len(raw)])).keys() == {"refused"}


def create(shape: tuple[int, ...], kind: Any = h5py.h5t.IEEE_F32LE, most: Any = None) -> Change:
    def put(group: Any) -> None:
        h5py.h5d.create(group.id, b"x", kind, h5py.h5s.create_simple(shape, most))

    return put


def _texts(group: Any) -> None:
    """One long text, and an attribute that names it many times."""
    group["x"] = np.zeros(1, "f4")
    group.attrs["texts"] = np.array(["x" * (1 << 20)] + ["y"] * 4000, object)


def _external(group: Any) -> None:
    group.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual(group: Any) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    group.create_virtual_dataset("x", layout)


def _unknown_filter(group: Any) -> None:
    """An identifier that libhdf5 would look for among the plugins of the machine, and load."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    made = h5py.h5d.create(group.id, b"x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), plist)
    made.write_direct_chunk((0,), bytes(16))


def _chunk(packed: bytes) -> Change:
    """A chunk of 64 bytes whose stored bytes are what they are."""

    def put(group: Any) -> None:
        made = group.create_dataset("x", (16,), "f4", chunks=(16,), compression="gzip")
        made.id.write_direct_chunk((0,), packed)

    return put


def put(**arguments: Any) -> Change:
    return lambda group: group.create_dataset("x", **arguments)


HARM: dict[str, tuple[Change, tuple[str, ...]]] = {
    "a shape without values": (create((1 << 40,)), ("a decompression bomb",)),
    "two axes without values": (create((1 << 29, 1 << 29)), ("a decompression bomb",)),
    "a shape of nothing that overflows": (create((0, 1 << 62)), ("overflows",)),
    "values that are only a fill value": (put(shape=(1 << 28,), dtype="u1", fillvalue=7), ("a decompression bomb",)),
    "gzip that packs a thousandfold": (
        put(data=np.zeros(80 << 20, "u1"), chunks=(16 << 20,), compression="gzip"),
        ("a decompression bomb",),
    ),
    "a chunk larger than its array": (
        put(shape=(4,), maxshape=(None,), dtype="u1", chunks=(1 << 30,), compression="gzip"),
        ("too large",),
    ),
    "a chunk that inflates to more than it is": (_chunk(zlib.compress(bytes(60 << 20))), ("a decompression bomb",)),
    "a chunk that is cut short": (_chunk(zlib.compress(bytes(64))[:-6]), ("cut short",)),
    "a chunk that is no deflate": (_chunk(b"\xff" * 40), ("no deflated data",)),
    "lzf": (put(data=np.zeros(64, "f4"), chunks=(64,), compression="lzf"), ("filter 32000",)),
    "scale and offset": (put(data=np.zeros(64, "i4"), chunks=(64,), scaleoffset=0), ("filter 6",)),
    "a filter of a plugin": (_unknown_filter, ("filter 32015",)),
    "values in another file": (_external, ("in another file",)),
    "a virtual dataset": (_virtual, ("in another file",)),
    "a link to another file": (lambda g: g.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")), ("elsewhere",)),
    "a soft link": (lambda g: g.__setitem__("x", h5py.SoftLink("/")), ("elsewhere",)),
    "a group in itself": (lambda g: g.__setitem__("x", g), ("m.",)),
    "text": (put(data=["a", "b"]), ("no weights are",)),
    "text of a fixed length": (put(data=np.array([b"abc"])), ("no",)),
    "lists": (put(shape=(2,), dtype=h5py.vlen_dtype("i4")), ("variable length",)),
    "references": (put(shape=(2,), dtype=h5py.ref_dtype), ("references",)),
    "references to regions": (put(shape=(2,), dtype=h5py.regionref_dtype), ("references",)),
    "arrays in arrays": (create((4,), h5py.h5t.array_create(h5py.h5t.IEEE_F32LE, (3,))), ("arrays",)),
    "times": (create((4,), h5py.h5t.UNIX_D32LE), ("times",)),
    "bit fields": (create((4,), h5py.h5t.STD_B32LE), ("bit fields",)),
    "records": (put(data=np.zeros(2, [("a", "f4"), ("b", "i4")])), ("weights",)),
    "long doubles": (put(data=np.zeros(2, np.longdouble)), ("not weights",)),
    "nothing": (lambda g: g.__setitem__("x", h5py.Empty("f4")), ("holds nothing",)),
}


@pytest.mark.parametrize("name", HARM)
@pytest.mark.parametrize("kind", SEEDS)
def test_what_means_harm(tmp_path: Path, kind: str, name: str) -> None:
    change, words = HARM[name]
    sound, bad = seed_of(kind, tmp_path), seed_of(kind, tmp_path, change)
    survives(tmp_path, sound, [Case(name, bad.files, refused=words)])


@pytest.mark.parametrize("name", list(HARM)[:8])
def test_what_the_worst_of_them_take(tmp_path: Path, name: str) -> None:
    sound, bad = keras2(tmp_path / "m.h5"), keras2(tmp_path / "m.h5", HARM[name][0])
    measured(tmp_path, sound, Case(name, bad.files, refused=()))


def test_one_text_named_many_times(tmp_path: Path) -> None:
    """4000 elements of an attribute lead to one text of a megabyte: 16 bytes of the file each."""
    sound = keras2(tmp_path / "m.h5")
    raw = bytearray(keras2(tmp_path / "m.h5", _texts).files["m.h5"])
    heap = bytes(raw).rindex(b"GCOL", 0, bytes(raw).index(b"x" * 1000))
    first = raw.find((1 << 20).to_bytes(4, "little") + heap.to_bytes(8, "little"))
    assert first > 0
    for k in range(1, 4000):
        raw[first + 16 * k : first + 16 * (k + 1)] = raw[first : first + 16]
    measured(tmp_path, sound, Case("texts", {"m.h5": bytes(raw)}, refused=()))
    with pytest.raises(FormatError, match="the texts of its attributes come to more than"):
        check_structure(memoryview(raw))


def test_arrays_on_one_another(tmp_path: Path) -> None:
    """Two hundred layouts lead to the same bytes: together they claim more than the file has."""
    path = tmp_path / "m.weights.h5"

    def change(group: Any) -> None:
        group["x"] = np.zeros(4096, "f4")
        for k in range(200):
            create((4096,))(group.create_group(f"y{k}"))

    sound = keras3(path)
    raw = keras3(path, change).files[path.name]
    with h5py.File(path) as file:
        place = file["layers/dense/vars/2"].id.get_offset()
    size = (4 * 4096).to_bytes(8, "little")
    nowhere = (2**64 - 1).to_bytes(8, "little") + size
    assert raw.count(nowhere) == 200
    claimed = raw.replace(nowhere, place.to_bytes(8, "little") + size)
    survives(tmp_path, sound, [Case("on one another", {path.name: claimed}, refused=("arrays overlap",))])


def test_numbers_of_odd_widths_are_the_numbers_that_h5py_reads(tmp_path: Path) -> None:
    """Twelve bits at bit four of 32, and an exponent of another bias: their bytes are not NumPy's."""
    odd_integer, odd_float = h5py.h5t.STD_I32LE.copy(), h5py.h5t.IEEE_F32LE.copy()
    odd_integer.set_precision(12)
    odd_integer.set_offset(4)
    odd_float.set_ebias(100)
    for kind in (odd_integer, odd_float):

        def change(group: Any, kind: Any = kind) -> None:
            made = h5py.h5d.create(group.id, b"x", kind, h5py.h5s.create_simple((4,)))
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([1, 2, 3, 4], "f4"))

        for each, name in SEEDS.values():
            each(tmp_path / name, change)
            bundle, _ = open_bundle(tmp_path / name)
            found = next(t for key, t in bundle.items() if key.endswith(("x", "2")))
            assert found.numpy().tolist() == [1, 2, 3, 4]
