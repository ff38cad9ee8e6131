"""State files and SavedModels made by strangers, and TF checkpoints with bytes that Hypothesis chooses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hostile
import pytest
from hostile import Case, Seed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hostile_tf_checkpoint import ENTRIES, V1, V1_PARTS, V2, framed, index
from tf_tables import block

# --- folders: state files and SavedModels

STATE = b'model_checkpoint_path: "m"\nall_model_checkpoint_paths: "m"\n'
FOLDER = Seed("tf-checkpoint", {"checkpoint": STATE, **V2.files}, "")
VARIABLES = {f"variables/{name.replace('m.', 'variables.')}": raw for name, raw in V2.files.items()}
SAVED = Seed("tf-checkpoint", {"saved_model.pb": b"\x08\x01", **VARIABLES}, "")


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


def made_there(name: str, make: Callable[[Path], object], folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    make(folder / name)


def test_state_files(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, raw in V2.files.items():
        (outside / name).write_bytes(raw)
    cases = []
    for what, name in {**hostile.NAMES, "outside": "../outside/m2", "outside by path": str(outside / "m2")}.items():
        text = json.dumps(name).encode()
        cases.append(Case(what, {"checkpoint": b"model_checkpoint_path: " + text}, refused=()))
    texts = {
        "twice": STATE[:27] * 2,
        "a megabyte of escapes": b'model_checkpoint_path: "' + b"\\377" * (1 << 18) + b'"',
        "quotes and backslashes": b'model_checkpoint_path: "' + b'\\"' * (1 << 19),
        "itself": b'model_checkpoint_path: "checkpoint"',
        "17 MB": STATE + b"#" * (17 << 20),
    }
    cases += [Case(what, {"checkpoint": text}, refused=()) for what, text in texts.items()]
    cases += [
        Case(
            f"a state file that is {what}",
            {"checkpoint": None},
            refused=(),
            place=partial(made_there, "checkpoint", make),
        )
        for what, make in NO_FILES.items()
        if what != "a folder"
    ]
    hostile.survives(tmp_path / "case", FOLDER, cases)


def test_saved_models_and_data_files_that_are_no_files(tmp_path: Path) -> None:
    cases = [
        Case(f"{name} is {what}", {name: None}, refused=(), place=partial(made_there, name, make))
        for name in VARIABLES
        for what, make in NO_FILES.items()
    ]
    cases.append(Case("without variables", dict.fromkeys(VARIABLES), refused=("without variables",)))
    hostile.survives(tmp_path, SAVED, cases)


# --- bytes that Hypothesis chooses

REAL = Path(__file__).parent / "data" / "real_frameworks" / "tf1" / "dtypes"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize(("kind", "victims"), [("v1", ("",)), ("v2", (".index", ".data-00000-of-00001"))])
@given(data=st.data())
def test_real_files_changed_anywhere(tmp_path: Path, kind: str, victims: tuple[str, ...], data: st.DataObject) -> None:
    """Every byte has a checksum: the same values, or refused."""
    files = {suffix: (REAL / kind / f"model.ckpt{suffix}").read_bytes() for suffix in victims}
    for suffix, raw in files.items():
        (tmp_path / f"intact{suffix}").write_bytes(raw)
    victim = data.draw(st.sampled_from(victims))
    for suffix, raw in files.items():
        (tmp_path / f"m{suffix}").write_bytes(hostile.mutated(data, raw) if suffix == victim else raw)
    wanted = hostile.read_whole("tf-checkpoint", tmp_path / "intact")
    assert hostile.read_whole("tf-checkpoint", tmp_path / "m") in (None, wanted)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_v2_blocks_changed_and_sealed_again(tmp_path: Path, data: st.DataObject) -> None:
    contents = hostile.mutated(data, block(sorted(ENTRIES.items()), 3))
    path = Case("", {"m.index": framed(contents, data.draw(st.sampled_from([0, 1])))}).put(tmp_path / "in", V2)
    hostile.read_whole("tf-checkpoint", path)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_v1_entries_changed_and_sealed_again(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(V1_PARTS)))
    key = data.draw(st.sampled_from(list(V1_PARTS[name])))
    bent = {**V1_PARTS[name], key: hostile.mutated(data, V1_PARTS[name][key])}
    hostile.read_whole("tf-checkpoint", Case("", {name: index(bent)}).put(tmp_path / "in", V1))
