"""The spec, its schema, its vectors and the code say the same."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spec_tables
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from make_vectors import FOLDER, all_vectors
from vector_files import DTYPES as HAND_WRITTEN_DTYPES

from wio.bundle import Bundle, Tensor
from wio.container import WioFileReader, verified
from wio.container_writer import save
from wio.dtypes import DTYPES, dtype_of
from wio.encodings import to_bytes
from wio.errors import DigestError, FormatError, LayoutError
from wio.layout import LETTERS, Layout
from wio.ops import apply_all, inverse_of, rearrange
from wio.plugins import adapter_named
from wio.roles import ROLES, neutral_layouts
from wio.safetensors_header import read_header

SPEC = spec_tables.SPEC
SCHEMA: dict[str, Any] = json.loads((SPEC.parent / "wio-1.schema.json").read_text(encoding="utf-8"))
VALID = sorted(path.stem for path in (FOLDER / "valid").glob("*.wio"))
INVALID = sorted(path.stem for path in (FOLDER / "invalid").glob("*.wio"))
LAYOUTS: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "layouts.json").read_text(encoding="utf-8"))
Array = np.ndarray[Any, np.dtype[Any]]


def vector(part: str, name: str) -> tuple[Path, dict[str, Any]]:
    path = FOLDER / part / f"{name}.wio"
    return path, json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


# --- vectors


def test_the_vectors_are_what_their_generator_writes() -> None:
    on_disk = {str(path.relative_to(FOLDER)): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    fresh = all_vectors()
    assert sorted(on_disk) == sorted(fresh)
    assert {name for name, raw in on_disk.items() if fresh[name] != raw} == set()
    assert all_vectors() == fresh


@pytest.mark.parametrize("name", VALID)
def test_a_valid_file_reads_as_stated(name: str) -> None:
    path, expected = vector("valid", name)
    reader = WioFileReader(path)
    bundle = reader.bundle()
    metadata = dict(bundle.metadata)
    unknown = metadata.pop("unknown_keys", {"file": {}, "tensors": {}})
    assert [seen(tensor) for tensor in bundle.values()] == expected["tensors"]
    assert metadata == expected["metadata"]
    assert unknown == expected["unknown_keys"]
    assert reader.receipt() == expected["receipt"]


def seen(tensor: Tensor) -> dict[str, Any]:
    array = verified(tensor).numpy()
    stored = bytes(to_bytes(array, tensor.dtype))
    assert hashlib.sha256(stored).hexdigest() == tensor.digest
    assert tensor.nbytes == len(stored)
    return {
        "name": tensor.name,
        "dtype": tensor.dtype.name,
        "shape": list(array.shape),
        "role": tensor.role,
        "layout": None if tensor.layout is None else str(tensor.layout),
        "origin": tensor.origin,
        "layer": tensor.layer,
        "sha256": tensor.digest,
        "bytes": stored.hex(),
        "values": [value_of(item) for item in array.reshape(-1).tolist()],
    }


def value_of(item: Any) -> Any:
    """A value as the vectors' JSON has it: strings in hex, complex numbers as pairs, NaN and infinities by name."""
    if isinstance(item, bytes):
        return item.hex()
    if isinstance(item, complex):
        return [item.real, item.imag]
    number = item if isinstance(item, bool | int) else float(item)
    return str(number) if isinstance(number, float) and not math.isfinite(number) else number


@pytest.mark.parametrize("name", VALID)
def test_a_valid_file_is_a_safetensors_file(name: str) -> None:
    """The reference reader sees the same names and bytes, reserved tensors beside them."""

    import safetensors

    path, expected = vector("valid", name)
    found = dict(safetensors.deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    plain = {key: bytes(value["data"]).hex() for key, value in found.items() if not key.startswith("__wio__/")}
    assert plain == {tensor["name"]: tensor["bytes"] for tensor in expected["tensors"]}


@pytest.mark.parametrize("name", VALID)
def test_a_valid_file_written_again_reads_the_same(name: str, tmp_path: Path) -> None:
    path, expected = vector("valid", name)
    save(WioFileReader(path).bundle(), tmp_path / "again.wio")
    bundle = WioFileReader(tmp_path / "again.wio").bundle()
    assert [seen(tensor) for tensor in bundle.values()] == expected["tensors"]
    unknown = bundle.metadata.pop("unknown_keys", {"file": {}, "tensors": {}})
    assert (bundle.metadata, unknown) == (expected["metadata"], expected["unknown_keys"])


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_file_is_refused(name: str) -> None:
    path, stated = vector("invalid", name)
    error = refusal(path, stated["found"])
    if stated["kind"] == "header":
        with path.open("rb") as file, pytest.raises(FormatError):
            read_header(file.fileno(), path.name)
    message = str(error).replace(path.name, "FILE")
    assert isinstance(error, DigestError) == (stated["kind"] == "digest"), message
    assert [word for word in stated["words"] if word not in message] == []
    if stated["found"] in ("open", "receipt"):
        assert "FILE" in message


def refusal(path: Path, found: str) -> FormatError:
    """The error of a file, which must come up no later than stated."""
    with pytest.raises(FormatError) as caught:
        reader = WioFileReader(path)
        bundle = reader.bundle()
        assert found != "open", "the file was opened"
        reader.receipt()
        assert found != "receipt", "the receipt was read"
        for tensor in bundle.values():
            if found == "read":
                tensor.numpy()
            else:
                verified(tensor).numpy()
    return caught.value


def test_every_kind_of_vector_is_there() -> None:
    stated = [vector("invalid", name)[1] for name in INVALID]
    assert {each["found"] for each in stated} == {"open", "read", "verify", "receipt"}
    kinds = {"header", "declaration", "version", "stale", "layout", "encoding", "digest", "reserved"}
    assert {each["kind"] for each in stated} == kinds
    tensors = [tensor for name in VALID for tensor in vector("valid", name)[1]["tensors"]]
    assert {tensor["dtype"] for tensor in tensors} == set(DTYPES)
    assert {word for each in LAYOUTS["texts"] for word in LETTERS if word in each["canonical"]} == set(LETTERS)


# --- layouts


@pytest.mark.parametrize("each", LAYOUTS["texts"], ids=lambda each: each["text"])
def test_layout_texts(each: dict[str, str]) -> None:
    assert str(Layout.parse(each["text"])) == each["canonical"]
    assert Layout.parse(each["text"]) == Layout.parse(each["canonical"])


@pytest.mark.parametrize("each", LAYOUTS["refused"], ids=lambda each: f"{each['text']} - {each['why']}")
def test_refused_layout_texts(each: dict[str, str]) -> None:
    with pytest.raises(LayoutError):
        Layout.parse(each["text"])


@pytest.mark.parametrize("each", LAYOUTS["shapes"], ids=lambda each: f"{each['layout']} {each['shape']}")
def test_what_a_shape_refutes(each: dict[str, Any]) -> None:
    refuted = Layout.parse(each["layout"]).check(each["shape"])
    assert (refuted is not None) == each["refuted"], refuted


@pytest.mark.parametrize("each", LAYOUTS["rearrangements"], ids=lambda each: f"{each['source']} -> {each['target']}")
def test_rearrangements(each: dict[str, Any]) -> None:
    steps = rearrange(Layout.parse(each["source"]), Layout.parse(each["target"]))
    array: Array = np.arange(math.prod(each["shape"])).reshape(each["shape"])
    result = apply_all(steps, array)
    assert list(result.shape) == each["result_shape"]
    assert result.reshape(-1).tolist() == each["result"]
    assert apply_all(inverse_of(steps), result).tolist() == array.tolist()


@pytest.mark.parametrize("each", LAYOUTS["impossible"], ids=lambda each: f"{each['source']} -> {each['target']}")
def test_impossible_rearrangements(each: dict[str, str]) -> None:
    source, target = Layout.parse(each["source"]), Layout.parse(each["target"])
    for one, other in ((source, target), (target, source)):
        with pytest.raises(LayoutError):
            rearrange(one, other)


# --- the schema


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def declarations(path: Path) -> list[tuple[str, Any]]:
    """The texts of a file that the schema speaks of, each with the part of the schema that it must follow."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    document = json.loads(header["__metadata__"]["wio"])
    if not isinstance(document, dict) or "declaration" not in document:
        return [("declaration", document)]
    start, end = header["__wio__/declaration"]["data_offsets"]
    return [("stub", document), ("declaration", json.loads(raw[8 + length + start : 8 + length + end]))]


def schema_errors(part: str, document: Any) -> list[str]:
    whole = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)]
    only = {**SCHEMA, "if": True, "then": {"$ref": f"#/$defs/{part}"}}
    return whole + [error.message for error in Draft202012Validator(only).iter_errors(document)]


@pytest.mark.parametrize("name", VALID)
def test_the_schema_accepts_valid_declarations(name: str) -> None:
    for part, document in declarations(FOLDER / "valid" / f"{name}.wio"):
        assert schema_errors(part, document) == []


@pytest.mark.parametrize("name", [name for name in INVALID if vector("invalid", name)[1]["schema"] is not None])
def test_the_schema_refuses_what_it_can(name: str) -> None:
    path, stated = vector("invalid", name)
    errors = [error for part, document in declarations(path) for error in schema_errors(part, document)]
    assert bool(errors) == stated["schema"], errors


def test_the_schema_accepts_what_wio_writes(tmp_path: Path) -> None:
    arrays = {"kernel": np.zeros((2, 3), "f4"), "words": np.array([b"a", b""], object), "z": np.zeros(2, "c16")}
    tensors = [
        Tensor(name, dtype_of(array), array.shape, lambda array=array: array)  # type: ignore[misc]
        for name, array in arrays.items()
    ]
    tensors[0] = tensors[0].declared("dense.kernel", Layout.parse("IO"))
    save(Bundle(tensors, {"adapter": "numpy", "epsilon": {"bn": 1e-3}}), tmp_path / "a.wio", lambda: {"wio": 1})
    for part, document in declarations(tmp_path / "a.wio"):
        assert schema_errors(part, document) == []


def test_schema_and_code_list_the_same_words() -> None:
    defined = SCHEMA["$defs"]
    assert defined["role"]["enum"] == list(ROLES)
    assert defined["encoded_dtype"]["enum"] == [dtype.name for dtype in DTYPES.values() if dtype.encoding]
    assert defined["tensor"]["if"]["properties"]["dtype"]["enum"] == [
        dtype.name for dtype in DTYPES.values() if dtype.encoding == "varbytes"
    ]


# --- the text


def test_the_tables_of_the_spec_are_those_of_the_code() -> None:
    """``python tests/spec_tables.py`` writes them anew; a role, dtype or letter more is a new version of the format."""
    assert spec_tables.written(SPEC.read_text(encoding="utf-8")) == spec_tables.tables()


def test_the_hand_written_dtype_table_is_that_of_the_code() -> None:
    assert {name: (dtype.safetensors, dtype.itemsize) for name, dtype in DTYPES.items()} == {
        name: (code, size) for name, (code, size, _) in HAND_WRITTEN_DTYPES.items()
    }


def test_the_grammar_of_the_spec_has_the_letters_of_the_code() -> None:
    text = SPEC.read_text(encoding="utf-8")
    rule = text.split("    letter  = ")[1].split(";")[0]
    assert set(rule.replace('"', "").replace(" ", "").split("|")) == set(LETTERS)


def test_the_layouts_that_the_spec_shows_are_canonical() -> None:
    section = SPEC.read_text(encoding="utf-8").split("### 12.2 Text")[1].split("### 12.3")[0]
    shown = [line.strip() for line in section.split("(12.4).")[1].splitlines() if line.strip()]
    assert len(shown) > 5
    assert [str(Layout.parse(text)) for text in shown] == shown


def test_the_example_of_the_table_digest() -> None:
    section = SPEC.read_text(encoding="utf-8").split("## 3. ")[1].split("## 4. ")[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    digest = hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    assert dict(declarations(FOLDER / "valid" / "plain.wio"))["declaration"]["table"] == digest


def test_the_example_of_varbytes() -> None:
    section = SPEC.read_text(encoding="utf-8").split("## 6. ")[1].split("## 7. ")[0]
    shown = bytes.fromhex(section.rstrip().splitlines()[-1])
    elements: Array = np.array([b"caf\xc3\xa9", b"", b"the"], object)
    assert bytes(to_bytes(elements, DTYPES["string"])) == shown


def test_the_neutral_layouts_are_the_convention_of_wio_itself() -> None:
    layouts = adapter_named("wio").convention().layouts
    assert layouts == {role: neutral_layouts(role) for role in ROLES}


def test_links_in_the_spec_lead_somewhere() -> None:
    text = SPEC.read_text(encoding="utf-8")
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    anchors = {
        "#" + line.lstrip("# ").lower().replace(".", "").replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    lost = [t for t in targets if (t not in anchors if t.startswith("#") else not (SPEC.parent / t).exists())]
    assert lost == []
