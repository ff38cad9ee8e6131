"""Damaged and hostile files: each malformation by name, and mutations that give the same values or a WioError."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras3_judge import ADAPTER, write

from wio.adapters._keras_config import KerasModel
from wio.errors import DigestError, FormatError, WioError

LAYERS = [
    {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 4]}},
    {"class_name": "Dense", "config": {"name": "d", "units": 3, "use_bias": True}},
]
CONFIG = json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": LAYERS}}).encode()
METADATA = b'{"keras_version": "3.15.1"}'


def weights(change: Any = None) -> bytes:
    """A ``.weights.h5`` of one dense layer."""
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        file["layers/dense/vars/0"] = np.arange(12, dtype="<f4").reshape(4, 3)
        file["layers/dense/vars/1"] = np.arange(3, dtype="<f4")
        file["layers/dense/vars"].attrs["name"] = "d"
        if change:
            change(file)
    return held.getvalue()


def h5(folder: Path, change: Any = None) -> Path:
    path = folder / "m.weights.h5"
    path.write_bytes(weights(change))
    return path


def archive(folder: Path, members: Any = None, compression: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "m.keras"
    usual = [("metadata.json", METADATA), ("config.json", CONFIG), ("model.weights.h5", weights())]
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, contents in members or usual:
            made.writestr(name, contents)
    return path


def swapped(folder: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    path = archive(folder)
    contents = path.read_bytes()
    assert old in contents
    path.write_bytes(contents.replace(old, new, count))
    return path


def refused(path: Path, match: str, error: type[WioError] = FormatError) -> None:
    with pytest.raises(error, match=match):
        for tensor in ADAPTER.read(path).values():
            tensor.numpy()


def test_the_sound_ones_are_read(tmp_path: Path) -> None:
    for path in (archive(tmp_path), archive(tmp_path, compression=zipfile.ZIP_DEFLATED)):
        assert [(name, t.role) for name, t in ADAPTER.read(path).items()] == [
            ("d/kernel", "dense.kernel"),
            ("d/bias", "dense.bias"),
        ]
        assert ADAPTER.read(path)["d/kernel"].numpy().tolist() == np.arange(12).reshape(4, 3).tolist()
    assert list(ADAPTER.read(h5(tmp_path))) == ["d/0", "d/1"]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.keras")
    assert ADAPTER.sniff(tmp_path / "pipe.keras") == 0
    refused(tmp_path / "pipe.keras", "is no regular file")
    refused(tmp_path / "none.keras", "No such file")


# --- the archive


def test_two_members_of_one_name(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive(tmp_path, [("config.json", CONFIG), ("config.json", b"{}"), ("model.weights.h5", weights())])
    refused(path, "members are there twice: config.json")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "assets/../../evil", "a\\..\\b", "C:evil"])
def test_members_that_lead_out(tmp_path: Path, name: str) -> None:
    usual = [("config.json", CONFIG), ("model.weights.h5", weights())]
    refused(archive(tmp_path, [*usual, (name, b"x")]), "leads out of the archive")


def test_weights_as_npz(tmp_path: Path) -> None:
    path = archive(tmp_path, [("config.json", CONFIG), ("model.weights.npz", b"")])
    assert ADAPTER.sniff(path) == 20
    refused(path, r"its weights are model.weights.npz, which wio does not read")


def test_no_weights(tmp_path: Path) -> None:
    refused(archive(tmp_path, [("config.json", CONFIG)]), "no model.weights.h5")


def test_no_config(tmp_path: Path) -> None:
    refused(archive(tmp_path, [("model.weights.h5", weights())]), "no config.json")


@pytest.mark.parametrize("config", [b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_a_config_that_is_no_json_object(tmp_path: Path, config: bytes) -> None:
    refused(archive(tmp_path, [("config.json", config), ("model.weights.h5", weights())]), "config.json is no")


@pytest.mark.parametrize(
    "model",
    [
        {"class_name": "Sequential"},
        {"class_name": "Sequential", "config": {"layers": [1]}},
        {"class_name": "Functional", "config": {"layers": [{"class_name": "Dense", "config": {}}]}},
        {"class_name": "Functional", "config": {"layers": 5}},
    ],
)
def test_a_config_that_is_no_model(tmp_path: Path, model: Any) -> None:
    path = archive(tmp_path, [("config.json", json.dumps(model).encode()), ("model.weights.h5", weights())])
    try:
        bundle = ADAPTER.read(path)
    except FormatError as error:
        assert "malformed" in str(error)
    else:
        assert {t.role for t in bundle.values()} == {None}


def test_models_nested_without_end(tmp_path: Path) -> None:
    model: Any = json.loads(CONFIG)
    for k in range(40):
        model = {"class_name": "Sequential", "config": {"name": f"s{k}", "layers": [model]}}
    path = archive(tmp_path, [("config.json", json.dumps(model).encode()), ("model.weights.h5", weights())])
    refused(path, "deeper than 32")


def test_a_config_that_a_shape_refutes_says_nothing_of_that_tensor(tmp_path: Path) -> None:
    model = json.loads(CONFIG)
    model["config"]["layers"][1] = {"class_name": "Conv2D", "config": {"name": "d"}}

    def rename(file: Any) -> None:
        file.move("layers/dense", "layers/conv2d")

    path = archive(tmp_path, [("config.json", json.dumps(model).encode()), ("model.weights.h5", weights(rename))])
    found = {name: (t.role, t.layout and str(t.layout)) for name, t in ADAPTER.read(path).items()}
    assert found == {"d/kernel": (None, None), "d/bias": ("conv.bias", "O")}


def test_a_config_of_another_class_declares_nothing(tmp_path: Path) -> None:
    def rename(file: Any) -> None:
        file.move("layers/dense", "layers/einsum_dense")

    path = archive(tmp_path, [("config.json", CONFIG), ("model.weights.h5", weights(rename))])
    assert {t.role for t in ADAPTER.read(path).values()} == {None}


def test_a_config_of_other_variables_declares_nothing(tmp_path: Path) -> None:
    path = archive(
        tmp_path,
        [("config.json", CONFIG.replace(b'"use_bias": true', b'"use_bias": false')), ("model.weights.h5", weights())],
    )
    assert {t.role for t in ADAPTER.read(path).values()} == {None}


def test_a_changed_weight(tmp_path: Path) -> None:
    refused(swapped(tmp_path, struct.pack("<f", 11), struct.pack("<f", 12), 1), "checksum speaks of", DigestError)


def test_a_changed_config(tmp_path: Path) -> None:
    refused(swapped(tmp_path, b'"units": 3', b'"units": 4', 1), "member 'config.json' is damaged")


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = archive(tmp_path)
    contents = bytearray(path.read_bytes())
    at = contents.index(b"PK\x01\x02")
    contents[at + 8] |= 1
    path.write_bytes(contents)
    refused(path, "is encrypted")


def test_an_unknown_compression(tmp_path: Path) -> None:
    refused(archive(tmp_path, compression=zipfile.ZIP_LZMA), "compressed in a way that Keras does not use")


def test_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("config.json", CONFIG)
        with made.open("model.weights.h5", "w") as out:
            for _ in range(65):
                out.write(bytes(1 << 20))
    refused(path, "a decompression bomb")


def test_a_directory_that_lies_about_a_size(tmp_path: Path) -> None:
    path = archive(tmp_path)
    contents = bytearray(path.read_bytes())
    at = contents.rindex(b"PK\x01\x02")
    struct.pack_into("<II", contents, at + 20, 1 << 30, 1 << 30)
    path.write_bytes(contents)
    refused(path, "reaches beyond the end|not a sound zip")


def test_overlapping_members(tmp_path: Path) -> None:
    path = archive(tmp_path)
    contents = bytearray(path.read_bytes())
    first, last = contents.index(b"PK\x01\x02"), contents.rindex(b"PK\x01\x02")
    contents[last + 42 : last + 46] = contents[first + 42 : first + 46]
    path.write_bytes(contents)
    refused(path, "overlaps another|not a sound zip|beyond the end")


def test_a_cut_archive(tmp_path: Path) -> None:
    path = archive(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "not a sound zip archive")


def test_weights_that_are_no_hdf5(tmp_path: Path) -> None:
    refused(archive(tmp_path, [("config.json", CONFIG), ("model.weights.h5", b"no")]), "not a sound HDF5 file")


# --- the tree


def test_a_link_to_another_file(tmp_path: Path) -> None:
    def link(file: Any) -> None:
        file["layers/dense/vars/2"] = h5py.ExternalLink("/etc/passwd", "/")

    refused(h5(tmp_path, link), "links? to elsewhere")


def test_a_soft_link(tmp_path: Path) -> None:
    def link(file: Any) -> None:
        file["layers/other"] = h5py.SoftLink("/layers/dense")

    refused(h5(tmp_path, link), "links? to elsewhere")


def test_one_group_in_two_places(tmp_path: Path) -> None:
    def link(file: Any) -> None:
        file["layers/dense_1"] = file["layers/dense"]

    refused(h5(tmp_path, link), "is reached twice")


def test_a_group_inside_itself(tmp_path: Path) -> None:
    def link(file: Any) -> None:
        file["layers/dense/around"] = file["layers"]

    refused(h5(tmp_path, link), "is reached twice")


def test_groups_without_end(tmp_path: Path) -> None:
    def deep(file: Any) -> None:
        file.create_group("/".join(["layers"] + ["x"] * 80))

    refused(h5(tmp_path, deep), "lies too deep")


def test_a_heap_that_never_ends(tmp_path: Path) -> None:
    """Its free object has no size: libhdf5 1.14.6 would walk it forever, reading the first attribute."""
    path = h5(tmp_path)
    contents = bytearray(path.read_bytes())
    heap = contents.index(b"GCOL")
    contents[heap + 16 : heap + 18] = b"\0\0"
    contents[heap + 24 : heap + 32] = bytes(8)
    path.write_bytes(contents)
    refused(path, "it has no end")
    assert ADAPTER.sniff(path) == 1


def test_values_in_another_file(tmp_path: Path) -> None:
    def external(file: Any) -> None:
        file.create_dataset("layers/dense/vars/2", (4,), "u1", external=[("/etc/passwd", 0, 4)])

    refused(h5(tmp_path, external), "keeps its values in another file")


def test_a_virtual_dataset(tmp_path: Path) -> None:
    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4,), "u1")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset("layers/dense/vars/2", layout)

    refused(h5(tmp_path, virtual), "keeps its values in another file")


def test_a_shape_bomb(tmp_path: Path) -> None:
    def bomb(file: Any) -> None:
        file.create_dataset("layers/dense/vars/2", (1 << 40,), "f4", chunks=(1024,), compression="gzip")

    refused(h5(tmp_path, bomb), "a decompression bomb")


def test_opaque_bytes_without_a_dtype(tmp_path: Path) -> None:
    def opaque(file: Any) -> None:
        file["layers/dense/vars/2"] = np.zeros(3, "V1")

    refused(h5(tmp_path, opaque), "1-byte opaque values and no attribute that says their dtype")


def test_opaque_bytes_of_another_size_than_their_dtype(tmp_path: Path) -> None:
    def opaque(file: Any) -> None:
        file["layers/dense/vars/2"] = np.zeros(3, "V3")
        file["layers/dense/vars/2"].attrs["dtype"] = "bfloat16"

    refused(h5(tmp_path, opaque), "3-byte opaque values")


@pytest.mark.parametrize("values", [["text"], np.zeros(2, [("a", "f4")])])
def test_what_no_variable_is(tmp_path: Path, values: Any) -> None:
    def odd(file: Any) -> None:
        file["layers/dense/vars/2"] = values

    refused(h5(tmp_path, odd), "which no weights are|opaque values")


def test_big_endian_and_compressed_values_are_the_same_values(tmp_path: Path) -> None:
    def store(file: Any) -> None:
        file.create_dataset("layers/dense/vars/2", data=np.arange(5, dtype=">f8"))
        file.create_dataset("layers/dense/vars/3", data=np.arange(5, dtype="<f8"), chunks=(2,), compression="gzip")

    bundle = ADAPTER.read(h5(tmp_path, store))
    for name in ("d/2", "d/3"):
        assert bytes(bundle[name].stored()) == np.arange(5, dtype="<f8").tobytes()


# --- shards


def sharded(folder: Path, weight_map: Any) -> Path:
    path = folder / "s.weights.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    h5(folder)
    return path


VARS = "/layers/dense/vars"


def test_a_sound_map(tmp_path: Path) -> None:
    assert list(ADAPTER.read(sharded(tmp_path, {VARS: "m.weights.h5"}))) == ["d/0", "d/1"]


@pytest.mark.parametrize(
    "name", ["../m.weights.h5", "/etc/m.weights.h5", "..", "", "a\\m.weights.h5", "a\0.weights.h5"]
)
def test_shards_outside_the_folder(tmp_path: Path, name: str) -> None:
    refused(sharded(tmp_path, {VARS: [name]}), "is not in the folder of the map")


def test_a_shard_that_is_a_symbolic_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = sharded(tmp_path, {VARS: ["l.weights.h5"]})
    (tmp_path / "l.weights.h5").symlink_to(h5(elsewhere))
    refused(path, "is no regular file in the folder of the map")


def test_a_missing_shard(tmp_path: Path) -> None:
    refused(sharded(tmp_path, {VARS: ["m.weights.h5", "gone.weights.h5"]}), "'gone.weights.h5' is missing")


def test_a_shard_with_more_than_the_map_says(tmp_path: Path) -> None:
    refused(sharded(tmp_path, {"/layers/other/vars": ["m.weights.h5"]}), "which the map does not expect there")


def test_a_layer_that_no_shard_holds(tmp_path: Path) -> None:
    weight_map = {VARS: "m.weights.h5", "/layers/other/vars": ["m.weights.h5"]}
    refused(sharded(tmp_path, weight_map), "no shard holds /layers/other/vars")


def test_a_variable_in_two_shards(tmp_path: Path) -> None:
    (tmp_path / "n.weights.h5").write_bytes(weights())
    refused(sharded(tmp_path, {VARS: ["m.weights.h5", "n.weights.h5"]}), "is in two shards")


def test_a_gap_in_the_numbers(tmp_path: Path) -> None:
    path = sharded(tmp_path, {VARS: ["m.weights.h5"]})
    with h5py.File(tmp_path / "m.weights.h5", "r+") as file:
        file.move("layers/dense/vars/1", "layers/dense/vars/2")
    refused(path, "are 0, 2: some are missing")


@pytest.mark.parametrize("weight_map", [None, [], {VARS: 5}, {VARS: []}, {VARS: [5]}])
def test_a_map_that_is_none(tmp_path: Path, weight_map: Any) -> None:
    path = sharded(tmp_path, weight_map)
    assert ADAPTER.sniff(path) == 0
    refused(path, "no weight_map|names no file")


# --- what was written down of a source


def test_damaged_metadata_of_a_member(tmp_path: Path) -> None:
    bundle = ADAPTER.read(archive(tmp_path))
    bundle.metadata["keras3"]["members"].append({"name": "assets/x", "base64": "?"})
    with pytest.raises(WioError, match="'assets/x' are damaged"):
        write(bundle, tmp_path / "out.keras")
    assert not (tmp_path / "out.keras").exists()


# --- mutations


def values_of(path: Path) -> dict[str, Any]:
    return {t.origin or name: (t.shape, t.numpy().tobytes()) for name, t in ADAPTER.read(path).items()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_archives(tmp_path: Path, data: st.DataObject) -> None:
    """Every member has a checksum: what is read is what was written."""
    path = archive(tmp_path)
    wanted = values_of(path)
    path.write_bytes(mutated(data, path.read_bytes()))
    ADAPTER.sniff(path)
    try:
        found = values_of(path)
    except WioError:
        return
    assert found == wanted


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_weights(tmp_path: Path, data: st.DataObject) -> None:
    """HDF5 as Keras writes it has no checksums: it is read, or refused with a WioError."""
    path = tmp_path / "m.weights.h5"
    path.write_bytes(mutated(data, weights()))
    ADAPTER.sniff(path)
    try:
        values_of(path)
    except WioError:
        return


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_configs(tmp_path: Path, data: st.DataObject) -> None:
    """A config changed and sealed again: the values are the same, whatever it says that they are."""
    path = archive(tmp_path)
    wanted = values_of(path)
    config = mutated(data, CONFIG)
    archive(tmp_path, [("config.json", config), ("model.weights.h5", weights())])
    try:
        found = values_of(path)
    except WioError:
        return
    assert found == wanted


def test_models_that_are_called_twice_at_every_level_are_refused_in_time() -> None:
    """30 levels are a billion layers."""
    model: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "m0", "layers": []}}
    for level in range(1, 30):
        inner = {**model, "name": model["config"]["name"]}
        calls = [[["x", 0, 0, {}]], [[inner["name"], 1, 0, {}]]]
        entrance = {"class_name": "InputLayer", "name": "x", "config": {"name": "x"}, "inbound_nodes": []}
        ends = {"input_layers": [["x", 0, 0]], "output_layers": [[inner["name"], 2, 0]]}
        layers = [entrance, {**inner, "inbound_nodes": calls}]
        model = {"class_name": "Model", "config": {"name": f"m{level}", "layers": layers, **ends}}
    with pytest.raises(FormatError, match="calls more than"):
        KerasModel(model, "2.2.4", "tensorflow", None)
