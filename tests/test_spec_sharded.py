"""Section 15 of the spec, the schema of the index, the vectors of sets, and the code say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from make_vectors import FOLDER
from test_spec import SPEC, seen
from vectors_sharded import INDEX

import wio
from wio.container import WioFileReader, verified
from wio.errors import DigestError, FormatError
from wio.plugins import adapter_named, detect

SCHEMA: dict[str, Any] = json.loads((SPEC.parent / "wio-1-index.schema.json").read_text(encoding="utf-8"))
SETS = FOLDER / "sharded"
VALID = sorted(path.stem for path in (SETS / "valid").glob("*.json"))
INVALID = sorted(path.stem for path in (SETS / "invalid").glob("*.json"))
WIO = adapter_named("wio")


def vector(part: str, name: str) -> tuple[Path, dict[str, Any]]:
    stated = (SETS / part / f"{name}.json").read_text(encoding="utf-8")
    return SETS / part / name / INDEX, json.loads(stated)


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("asked", [INDEX, "NAME.wio"], ids=["index", "name"])
def test_a_valid_set_reads_as_stated(name: str, asked: str) -> None:
    path, expected = vector("valid", name)
    path = path.with_name(asked)
    assert detect(path).name == "wio"
    bundle = wio.open(path, "wio")
    metadata = dict(bundle.metadata)
    unknown = metadata.pop("unknown_keys", {"file": {}, "tensors": {}})
    metadata.pop("adapter" if "adapter" not in expected["metadata"] else "", None)
    shards = [each.pop("shard") for each in expected["tensors"]]
    assert [seen(tensor) for tensor in bundle.values()] == expected["tensors"]
    assert metadata == expected["metadata"]
    assert unknown == expected["unknown_keys"]
    assert WIO.receipt(path) == expected["receipt"]
    for tensor, shard in zip(bundle, shards, strict=True):
        assert tensor in WioFileReader(path.with_name(shard)).bundle()


@pytest.mark.parametrize("name", VALID)
def test_a_valid_set_written_again_reads_the_same(name: str, tmp_path: Path) -> None:
    path, expected = vector("valid", name)
    wio.save(WIO.read(path), tmp_path / "a.wio", shard_size=20)
    bundle = WIO.read(tmp_path / "a.wio")
    assert [seen(t) for t in bundle.values()] == [
        {key: value for key, value in each.items() if key != "shard"} for each in expected["tensors"]
    ]
    unknown = bundle.metadata.pop("unknown_keys", {"file": {}, "tensors": {}})
    assert (bundle.metadata, unknown) == (expected["metadata"], expected["unknown_keys"])


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_set_is_refused(name: str) -> None:
    path, stated = vector("invalid", name)
    with pytest.raises(FormatError) as caught:
        bundle = WIO.read(path)
        assert stated["found"] != "open", "the set was opened"
        for tensor in bundle.values():
            verified(tensor).numpy()
    assert isinstance(caught.value, DigestError) == (stated["kind"] == "digest")
    assert [word for word in stated["words"] if word not in str(caught.value)] == []
    if stated["found"] == "open":
        assert INDEX in str(caught.value)


def test_every_kind_of_set_is_there() -> None:
    stated = [vector("invalid", name)[1] for name in INVALID]
    assert {each["kind"] for each in stated} == {"index", "version", "place", "shard", "tensors", "digest"}
    assert {each["found"] for each in stated} == {"open", "verify"}
    assert all((SETS / "valid" / name / INDEX).is_file() for name in VALID)


# --- the schema


def schema_errors(path: Path) -> list[str]:
    document = json.loads(path.read_text(encoding="utf-8"))
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", VALID)
def test_the_schema_accepts_valid_indexes(name: str) -> None:
    assert schema_errors(vector("valid", name)[0]) == []


@pytest.mark.parametrize("name", [name for name in INVALID if vector("invalid", name)[1]["schema"] is not None])
def test_the_schema_refuses_what_it_can(name: str) -> None:
    path, stated = vector("invalid", name)
    assert bool(schema_errors(path)) == stated["schema"]


def test_the_schema_accepts_what_wio_writes(tmp_path: Path) -> None:
    wio.export(FOLDER / "valid" / "dtypes.wio", tmp_path / "a.wio", shard_size=10)
    assert schema_errors(tmp_path / "a.wio.index.json") == []


def test_the_example_of_an_index_follows_its_schema() -> None:
    section = SPEC.read_text(encoding="utf-8").split("### 15.2 ")[1].split("### 15.3 ")[0]
    shown = "\n".join(line for line in section.splitlines() if line.startswith("    "))
    document = json.loads(shown.replace('5d0c..."', "5d0c" * 16 + '"').replace('a5f2..."', "a5f2" * 16 + '"'))
    assert list(Draft202012Validator(SCHEMA).iter_errors(document)) == []
