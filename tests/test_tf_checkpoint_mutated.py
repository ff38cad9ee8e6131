"""Mutations of real files: a changed, missing or added byte gives the same values, or a FormatError."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tf_tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tf_malformed import TF1, raw_index, read

from wio.adapters import _tf_table
from wio.errors import FormatError


def values_of(path: Path) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.numpy().tolist().__repr__()) for name, tensor in read(path).items()}


REAL = {
    "v1": (TF1 / "dtypes" / "v1" / "model.ckpt", ("",)),
    "v2": (TF1 / "dtypes" / "v2" / "model.ckpt", (".index", ".data-00000-of-00001")),
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("kind", ["v1", "v2"])
@given(data=st.data())
def test_mutated_real_files(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    source, suffixes = REAL[kind]
    wanted = values_of(source)
    files = {suffix: Path(f"{source}{suffix}").read_bytes() for suffix in suffixes}
    victim = data.draw(st.sampled_from(suffixes))
    raw = bytearray(files[victim])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "remove"])):
            case "flip":
                raw[place] ^= data.draw(st.integers(1, 255))
            case "cut":
                del raw[max(place, 1) :]
            case "insert":
                raw.insert(place, data.draw(st.integers(0, 255)))
            case _ if len(raw) > 1:
                del raw[place]
    for suffix, contents in files.items():
        (tmp_path / f"m{suffix}").write_bytes(raw if suffix == victim else contents)
    try:
        found = values_of(tmp_path / "m")
    except FormatError:
        return
    assert found == wanted


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_that_the_checksums_confirm(tmp_path: Path, data: st.DataObject) -> None:
    """The block of a real index changed, then sealed again: whatever it says, it is read or a FormatError."""
    source = TF1 / "dtypes" / "v2" / "model.ckpt"
    table = _tf_table.Table(_tf_table.MappedFile(Path(f"{source}.index")))
    entries = [(key, bytes(block.data[a:b])) for block in table.blocks() for key, a, b in block.values()]
    contents = bytearray(tf_tables.block(entries))
    for _ in range(data.draw(st.integers(1, 4))):
        contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
    raw_index(tmp_path, bytes(contents))
    shutil.copy(f"{source}.data-00000-of-00001", tmp_path / "m.data-00000-of-00001")
    try:
        bundle = read(tmp_path / "m")
    except FormatError:
        return
    for tensor in bundle.values():
        try:
            tensor.numpy()
        except FormatError:
            continue


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_v1_mutations_that_the_checksums_confirm(tmp_path: Path, data: st.DataObject) -> None:
    table = _tf_table.Table(_tf_table.MappedFile(TF1 / "dtypes" / "v1" / "model.ckpt"))
    entries = [(key, bytes(block.data[a:b])) for block in table.blocks() for key, a, b in block.values()]
    number = data.draw(st.integers(0, len(entries) - 1))
    value = bytearray(entries[number][1])
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    entries[number] = entries[number][0], bytes(value)
    (tmp_path / "m").write_bytes(tf_tables.table(entries))
    try:
        bundle = read(tmp_path / "m")
    except FormatError:
        return
    for tensor in bundle.values():
        try:
            tensor.numpy()
        except FormatError:
            continue
