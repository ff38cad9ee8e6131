"""Hostile safetensors, .wio and index files; the attacks of the review of safetensors, rebuilt from its description.

Source: Trail of Bits, review of safetensors for EleutherAI and Hugging Face (2023), and the library's own tests of it:
a length that no file holds, offsets that overlap or leave holes, keys that stand twice, JSON that nests without end,
numbers beyond 64 bits, files that are of another format as well, headers that are all of the file.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
from hostile import Case, Seed, documents
from vector_files import File, floats, framed, strings

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "U8", "shape": [5], "data_offsets": [24, 29]}
HEADER = {"__metadata__": {"a": "b"}, "x/a": A, "b": B}
DATA = bytes(range(1, 30))
RAW = framed(HEADER, DATA)
NAME = "m.safetensors"
PLAIN = Seed("safetensors", {NAME: RAW}, NAME)


def plain(what: str, header: Any, data: bytes = DATA, **more: Any) -> Case:
    return Case(what, {NAME: framed(header, data)}, **more)


def test_plain_cut_off_or_grown_anywhere(tmp_path: Path) -> None:
    cases = [Case(f"cut off at byte {at}", {NAME: RAW[:at]}, refused=()) for at in range(len(RAW))]
    cases += [Case(f"{more} bytes more", {NAME: RAW + bytes(more)}, refused=("file holds",)) for more in (1, 8, 4096)]
    cases += hostile.numbers(NAME, RAW, {"the length of the header": (0, 8)})
    hostile.survives(tmp_path, PLAIN, cases)


def test_plain_headers_with_something_odd(tmp_path: Path) -> None:
    """Whatever is put where: it is refused, or it is another header that is as sound."""
    cases = [plain(what, bent, may_differ=True) for what, bent in documents(HEADER)]
    for at, entry in (("x/a", A), ("b", B)):
        for place in (0, 1):
            for number in hostile.odd(entry["data_offsets"][place], 64, len(DATA)):
                offsets = [*entry["data_offsets"]]
                offsets[place] = number
                bent = {**HEADER, at: {**entry, "data_offsets": offsets}}
                cases.append(plain(f"{at}: data_offsets {offsets}", bent, refused=()))
        for number in hostile.odd(entry["shape"][-1], 64, len(DATA)):
            shape = [*entry["shape"][:-1], number]
            cases.append(plain(f"{at}: shape {shape}", {**HEADER, at: {**entry, "shape": shape}}, refused=()))
    hostile.survives(tmp_path, PLAIN, cases)


def entry(name: str, start: int, stop: int) -> str:
    return f'"{name}":{{"dtype":"U8","shape":[{stop - start}],"data_offsets":[{start},{stop}]}}'


ONE = entry("a", 0, 4)
REVIEWED: dict[str, tuple[str | bytes, bytes, tuple[str, ...]]] = {
    "tensors that overlap": ("{" + ONE + "," + entry("b", 2, 6) + "}", bytes(6), ("overlaps",)),
    "two tensors in one place": ("{" + ONE + "," + entry("b", 0, 4) + "}", bytes(4), ("overlaps",)),
    "a hole to hide bytes in": ("{" + ONE + "," + entry("b", 9, 12) + "}", bytes(12), ("hole",)),
    "bytes to hide before the first": ("{" + entry("a", 8, 12) + "}", bytes(12), ("hole",)),
    "a zip after the last (polyglot)": ("{" + ONE + "}", bytes(4) + b"PK\5\6" + bytes(18), ("file holds",)),
    "a zip in a hole (polyglot)": ("{" + entry("a", 0, 4) + "," + entry("b", 26, 30) + "}", bytes(30), ("hole",)),
    "keys that stand twice": ("{" + ONE + "," + ONE + "}", bytes(4), ("twice",)),
    "keys that stand twice in an entry": (
        '{"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}',
        bytes(4),
        ("twice",),
    ),
    "a name that stands twice once unescaped": ("{" + ONE + "," + entry("\\u0061", 4, 8) + "}", bytes(8), ("twice",)),
    "lists without end": ('{"a":' + "[" * 200_000 + "]" * 200_000 + "}", b"", ("JSON",)),
    "objects without end": ('{"a":' * 200_000 + "1" + "}" * 200_000, b"", ("JSON",)),
    "a list that does not close": ("{" + ONE + ',"b":' + "[" * 400_000, bytes(4), ("JSON",)),
    "a number of a million digits": (
        '{"a":{"dtype":"U8","shape":[' + "9" * 10**6 + '],"data_offsets":[0,4]}}',
        b"",
        (),
    ),
    "an offset of 2^64": ('{"a":{"dtype":"U8","shape":[4],"data_offsets":[18446744073709551616,4]}}', bytes(4), ()),
    "an offset below zero": ('{"a":{"dtype":"U8","shape":[4],"data_offsets":[-4,0]}}', bytes(4), ()),
    "an offset in exponents": ('{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4e0]}}', bytes(4), ()),
    "sizes whose product wraps around": (
        '{"a":{"dtype":"U8","shape":[4294967296,4294967297],"data_offsets":[0,4294967296]}}',
        bytes(4),
        (),
    ),
    "sizes of a petabyte and none": (
        '{"a":{"dtype":"F32","shape":[1125899906842624,1125899906842624,0],"data_offsets":[0,0]}}',
        b"",
        (),
    ),
    "a header that is no object": ("[1]", b"", ()),
    "two headers": ("{" + ONE + "}{" + ONE + "}", bytes(4), ("JSON",)),
    "zeros after the header": (b"{" + ONE.encode() + b"}" + bytes(64), bytes(4), ("JSON",)),
    "a byte order mark": (b"\xef\xbb\xbf{" + ONE.encode() + b"}", bytes(4), ()),
    "UTF-16": (("{" + ONE + "}").encode("utf-16-le"), bytes(4), ()),
    "half of a pair": ("{" + entry("\\ud800", 0, 4) + "}", bytes(4), ("JSON",)),
    "bytes that are no UTF-8": (b'{"\xc0\xaf":{}}', b"", ()),
}


def test_the_attacks_of_the_review(tmp_path: Path) -> None:
    cases = [
        Case(what, {NAME: framed(header, data, pad=False)}, refused=words)
        for what, (header, data, words) in REVIEWED.items()
    ]
    cases += [
        Case("a length of 2^64 - 1", {NAME: b"\xff" * 8 + RAW[8:]}, refused=()),
        Case("a length of 2^63", {NAME: struct.pack("<Q", 2**63) + RAW[8:]}, refused=()),
        Case("a length of 100 MB and no more", {NAME: struct.pack("<Q", 10**8) + b"{"}, refused=("cut short",)),
        Case("a length over the limit", {NAME: struct.pack("<Q", 10**8 + 1) + b'{"a'}, refused=("over the limit",)),
        Case("a pickle in front (polyglot)", {NAME: b"\x80\x04N." + RAW}, refused=()),
        Case("a zip in front (polyglot)", {NAME: b"PK\3\4" + bytes(26) + RAW}, refused=()),
    ]
    hostile.survives(tmp_path, PLAIN, cases)


BOMBS = {
    "lists": '{"a":[' + "[]," * 8_000_000 + "0]}",
    "objects": '{"a":[' + '{"a":0},' * 4_000_000 + "0]}",
    "keys": "{" + ",".join(f'"{k:x}":0' for k in range(2_500_000)) + "}",
    "numbers": '{"a":[' + "0.5," * 8_000_000 + "0]}",
    "spaces": "{" + " " * 90_000_000 + "}",
    "one long text": '{"__metadata__":{"a":"' + "x" * 90_000_000 + '"}}',
    "one long name": "{" + entry("x" * 90_000_000, 0, 1) + "}",
    "escapes": '{"__metadata__":{"a":"' + "\\u0041" * 10_000_000 + '"}}',
}


@pytest.mark.parametrize("what", BOMBS)
def test_headers_that_ask_for_memory(tmp_path: Path, what: str) -> None:
    bomb = framed(BOMBS[what])
    hostile.measured(
        tmp_path,
        PLAIN,
        Case(what, {NAME: bomb}, refused=None if "text" in what or what in ("spaces", "escapes") else ()),
    )


def test_names_are_shown_and_are_no_paths(tmp_path: Path) -> None:
    cases = []
    for what, name in hostile.NAMES.items():
        cases.append(plain(what, {name: A, "b": B}, may_differ=True))
        cases.append(plain(f"{what}, broken", {name: {**A, "shape": [7]}, "b": B}, refused=()))
        cases.append(plain(f"{what} as a dtype", {"x/a": {**A, "dtype": name}, "b": B}, refused=()))
    hostile.survives(tmp_path, PLAIN, cases)
    assert not Path("/etc/passwd.wio").exists()


# --- .wio

TENSORS = [floats("a/w", (2, 2), role="dense.kernel", layout="IO"), strings("s", (2,), [b"xy", b""])]
WIO = File(TENSORS, metadata={"epsilon": 0.5}, receipt=b'{"wio":1,"steps":[]}')
OUTSIDE = File(TENSORS, outside=True)


def wio_seed(file: File) -> Seed:
    return Seed("wio", {"m.wio": file.bytes()}, "m.wio")


def test_wio_cut_off_anywhere(tmp_path: Path) -> None:
    raw = WIO.bytes()
    cases = [Case(f"cut off at {at}", {"m.wio": raw[:at]}, refused=()) for at in range(0, len(raw), 3)]
    cases += [Case("a byte more", {"m.wio": raw + b"\0"}, refused=())]
    hostile.survives(tmp_path, wio_seed(WIO), cases)


def test_wio_declarations_with_something_odd(tmp_path: Path) -> None:
    cases = []
    for what, bent in documents(WIO.document()):
        file = File(TENSORS, metadata={"epsilon": 0.5}, receipt=WIO.receipt)
        if isinstance(bent, dict) and bent.get("table") == WIO.document()["table"]:
            file.bend_document = lambda document, bent=bent: {**bent, "table": document["table"]}
        else:
            file.bend_document = lambda _, bent=bent: bent
        cases.append(Case(what, {"m.wio": file.bytes()}, may_differ=what.startswith("tensors") or what == "wio"))
    hostile.survives(tmp_path, wio_seed(WIO), cases)


def test_wio_stubs_and_receipts_with_something_odd(tmp_path: Path) -> None:
    reference = {"wio": 1, "declaration": {"tensor": "__wio__/declaration", "sha256": "0" * 64}}
    cases = []
    for what, bent in documents(reference):
        file = File(TENSORS, outside=True)

        def bend(stub: dict[str, Any], bent: Any = bent) -> Any:
            """The digest that belongs there, where this case leaves it alone."""
            right = stub["declaration"]["sha256"]
            if isinstance(bent, dict) and isinstance(bent.get("declaration"), dict):
                inner = bent["declaration"]
                if inner.get("sha256") == "0" * 64:
                    return {**bent, "declaration": {**inner, "sha256": right}}
            return bent

        file.bend_stub = bend
        cases.append(Case(what, {"m.wio": file.bytes()}))
    hostile.survives(tmp_path, wio_seed(OUTSIDE), cases)


def test_wio_names(tmp_path: Path) -> None:
    cases = []
    for what, name in hostile.NAMES.items():
        for key in ("name", "origin", "layer", "role"):
            part = {"role": "dense.kernel", "layout": "IO", **({key: name} if key != "name" else {})}
            tensor = floats(name if key == "name" else "a/w", (2, 2), **part)
            file = File([tensor, TENSORS[1]], metadata={"epsilon": 0.5, name: name}, receipt=WIO.receipt)
            cases.append(Case(f"{what} as {key}", {"m.wio": file.bytes()}, may_differ=True))
        layouts = File([floats("a/w", (2, 2), role="dense.kernel", layout=name or "?")])
        cases.append(Case(f"{what} as a layout", {"m.wio": layouts.bytes()}, refused=()))
    hostile.survives(tmp_path, wio_seed(WIO), cases)


# --- indexes

FIRST, SECOND = framed({"a": {**A}}, DATA[:24]), framed({"b": {**B, "data_offsets": [0, 5]}}, DATA[24:])
SHARDS = {"m-1.safetensors": FIRST, "m-2.safetensors": SECOND}
WEIGHT_MAP = {"a": "m-1.safetensors", "b": "m-2.safetensors"}
INDEX = "m.safetensors.index.json"


def index(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


SHARDED = Seed("safetensors", {INDEX: index({"metadata": {}, "weight_map": WEIGHT_MAP}), **SHARDS}, INDEX)


def test_indexes_with_something_odd(tmp_path: Path) -> None:
    document = {"metadata": {"total_size": 29}, "weight_map": WEIGHT_MAP}
    cases = [Case(what, {INDEX: index(bent)}, may_differ="gone" in what) for what, bent in documents(document)]
    cases += hostile.cuts(INDEX, index(document), range(0, 200, 2))
    for name, raw in SHARDS.items():
        cases += [Case(f"{name} cut off at {at}", {name: raw[:at]}, refused=()) for at in range(0, len(raw), 4)]
        cases += [Case(f"without {name}", {name: None}, refused=(name, "no such file"))]
    cases += [
        Case("the shards exchanged", {"m-1.safetensors": SECOND, "m-2.safetensors": FIRST}, refused=()),
        Case("one shard twice", {"m-2.safetensors": FIRST}, refused=()),
        Case("a shard that is the index", {INDEX: index({"weight_map": {"a": INDEX}})}, refused=()),
        Case(
            "a key that stands twice",
            {INDEX: b'{"weight_map":{"a":"m-1.safetensors","a":"m-2.safetensors"}}'},
            refused=(),
        ),
    ]
    hostile.survives(tmp_path, SHARDED, cases)


def test_shards_that_are_not_in_the_folder(tmp_path: Path) -> None:
    """By name or by link, another folder is not looked into; nothing is waited for that is no file."""
    (tmp_path / "elsewhere").mkdir()
    secret = tmp_path / "elsewhere" / "m-1.safetensors"
    secret.write_bytes(FIRST)
    names = [*hostile.NAMES.values(), str(secret), "../elsewhere/m-1.safetensors", "sub/m-1.safetensors"]
    names += [
        "..\\elsewhere\\m-1.safetensors",
        "m-1.safetensors/",
        "./m-1.safetensors",
        "file:m-1.safetensors",
        "/dev/zero",
    ]
    cases = [
        Case(f"{name!r:.60}", {INDEX: index({"weight_map": {**WEIGHT_MAP, "a": name}})}, refused=()) for name in names
    ]
    # Such names, to be refused as shards, must have been claimed by their ending.
    ending = [f"{name}.safetensors" for name in names]
    cases += [
        Case(f"{name!r:.60}", {INDEX: index({"weight_map": {**WEIGHT_MAP, "a": name}})}, refused=()) for name in ending
    ]

    def placed(what: str, place: Callable[[Path], None]) -> Case:
        return Case(what, {"m-1.safetensors": None}, refused=(), place=place)

    cases += [
        placed("a link out of the folder", lambda f: (f / "m-1.safetensors").symlink_to(secret)),
        placed("a link out and back", lambda f: (f / "m-1.safetensors").symlink_to("../elsewhere/m-1.safetensors")),
        placed("a link to itself", lambda f: (f / "m-1.safetensors").symlink_to("m-1.safetensors")),
        placed("a link to nothing", lambda f: (f / "m-1.safetensors").symlink_to("nothing")),
        placed("a device", lambda f: (f / "m-1.safetensors").symlink_to("/dev/zero")),
        placed("a pipe", lambda f: os.mkfifo(f / "m-1.safetensors")),
        placed("a folder", lambda f: (f / "m-1.safetensors").mkdir()),
    ]
    hostile.survives(tmp_path / "case", SHARDED, cases)


def test_indexes_that_are_no_files(tmp_path: Path) -> None:
    def placed(what: str, place: Callable[[Path], None]) -> Case:
        return Case(what, {INDEX: None}, refused=(), place=place)

    cases = [
        placed("a pipe", lambda f: os.mkfifo(f / INDEX)),
        placed("a folder", lambda f: (f / INDEX).mkdir()),
        placed("a device", lambda f: (f / INDEX).symlink_to("/dev/zero")),
        placed("a link to itself", lambda f: (f / INDEX).symlink_to(INDEX)),
    ]
    hostile.survives(tmp_path, SHARDED, cases)


@pytest.mark.parametrize("what", ["shards", "tensors"])
def test_indexes_that_ask_for_memory(tmp_path: Path, what: str) -> None:
    """A million shards that are not there, and a million tensors of one that is."""
    shard = "{0:x}.safetensors" if what == "shards" else "m-1.safetensors"
    entries = ",".join(f'"{k:x}":"{shard.format(k)}"' for k in range(1_000_000))
    case = Case(what, {INDEX: b'{"weight_map":{' + entries.encode() + b"}}"}, refused=())
    hostile.measured(tmp_path, SHARDED, case)
