"""The test vectors of networks in several files (``spec/wio-1.md``, section 15): folders of shards and an index."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from vector_files import File, Vector, compact, floats, framed, numbers, strings
from vectors_invalid import Document
from vectors_valid import reading

INDEX = "NAME.wio.index.json"
FIRST, SECOND = "NAME-00001-of-00002.wio", "NAME-00002-of-00002.wio"


@dataclass
class Set:
    """A set in parts, so that a vector can bend any of them: ``bend`` changes the index, ``files`` what lies there."""

    shards: Mapping[str, File]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    receipt: Mapping[str, Any] | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)
    bend: Callable[[Document], Any] = lambda index: index
    encode: Callable[[Any], bytes] = lambda index: compact(index).encode()
    replace: Mapping[str, bytes | None] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        shards = {name: file.bytes() for name, file in self.shards.items()}
        found: dict[str, bytes | None] = {**shards, INDEX: self.encode(self.bend(self.index(shards))), **self.replace}
        return {name: raw for name, raw in found.items() if raw is not None}

    def index(self, shards: Mapping[str, bytes]) -> Document:
        own: Document = {
            "version": 1,
            "generator": "test vectors",
            "metadata": dict(self.metadata),
            "shards": [listed(name, raw) for name, raw in shards.items()],
            **({} if self.receipt is None else {"receipt": self.receipt}),
            **self.unknown,
        }
        held = {name: file.tensors for name, file in self.shards.items()}
        return {
            "wio": own,
            "metadata": {"total_size": sum(len(t.data) for tensors in held.values() for t in tensors)},
            "weight_map": {t.name: name for name, tensors in held.items() for t in tensors},
        }

    def reading(self, description: str) -> Document:
        """What a reader must find: as of one file, and in which shard each tensor is."""
        tensors = [tensor for file in self.shards.values() for tensor in file.tensors]
        receipt = None if self.receipt is None else compact(self.receipt).encode()
        found = reading(File(tensors, self.metadata, self.unknown, receipt), description)
        owners = [name for name, file in self.shards.items() for _ in file.tensors]
        found["tensors"] = [{**each, "shard": name} for each, name in zip(found["tensors"], owners, strict=True)]
        return found


def listed(name: str, raw: bytes) -> Document:
    end = 8 + int(struct.unpack("<Q", raw[:8])[0])
    return {"file": name, "size": len(raw), "header_sha256": sha256(raw[:end]).hexdigest()}


CONV = floats("conv1/kernel", (1, 2, 1, 3), role="conv.kernel", layout="HWIO")
BIAS = floats("conv1/bias", (3,), 100, role="conv.bias", layout="O")
DENSE = floats("fc/kernel", (3, 2), 200, role="dense.kernel", layout="IO")
MASK = numbers("mask", "bool", (3,), [True, False, True])
HALF = numbers("half", "float16", (1,), [0.5])
RECEIPT = {"wio": 1, "generator": "test vectors", "steps": [], "dropped": [], "notes": ["by hand"]}


def valid_sets() -> dict[str, tuple[dict[str, bytes], Document]]:
    """Each set's name, files and reading."""
    sets = {
        "two_shards": (
            "two shards; in the first the data stand in another order than the tensors",
            Set({FIRST: File([MASK, CONV, BIAS]), SECOND: File([DENSE])}, {"adapter": "keras-tf"}, RECEIPT),
        ),
        "one_shard": ("a set of one shard", Set({"NAME-00001-of-00001.wio": File([CONV])})),
        "no_shards": ("a set of no tensors", Set({})),
        "order": (
            "the order is that of the shards, neither of their names nor of the weight_map",
            Set({SECOND: File([DENSE, HALF]), FIRST: File([MASK, CONV])}, bend=_backwards),
        ),
        "spaced": ("keys in another order, white space, escapes", Set(_two(), encode=_spaced)),
        "least": ("an index without what is optional", Set(_two(), bend=_least)),
        "names": ("shards of any plain name, tensors of any name", Set(_odd_names())),
        "encoded": ("strings, and a declaration in a tensor of its own", Set(_encoded())),
        "unknown_keys": (
            "keys that version 1 does not know: of the index and of tensors kept, others ignored",
            Set({FIRST: File([_later(CONV)]), SECOND: File([DENSE])}, unknown={"later": [1]}, bend=_more_keys),
        ),
        "said_twice": (
            "metadata and receipts of the shards are not those of the set",
            Set(
                {
                    FIRST: File([CONV], {"adapter": "onnx"}, receipt=b'{"wio":1}'),
                    SECOND: File([DENSE], {"epsilon": {"fc": 1}}, {"later": 1}),
                },
                {"adapter": "keras-tf"},
            ),
        ),
    }
    return {name: (made.files(), made.reading(description)) for name, (description, made) in sets.items()}


def _two() -> dict[str, File]:
    return {FIRST: File([CONV, BIAS]), SECOND: File([DENSE])}


def _backwards(index: Document) -> Document:
    return {**index, "weight_map": dict(reversed(index["weight_map"].items()))}


def _spaced(index: Document) -> bytes:
    text = json.dumps(dict(reversed(index.items())), indent=2)
    return text.replace("conv1/kernel", "conv1\\u002fkernel").encode()


def _least(index: Document) -> Document:
    own = {key: index["wio"][key] for key in ("version", "shards")}
    return {**index, "wio": own}


def _odd_names() -> dict[str, File]:
    tensors = [floats(name, (2,), k) for k, name in enumerate(("10", "2", "", "__proto__", "caf\u00e9", "a\u202eb"))]
    return {"\u91cd\u307f 1.wio": File(tensors[:3]), "-weights": File(tensors[3:])}


def _encoded() -> dict[str, File]:
    return {FIRST: File([strings("words", (2,), [b"the", b""]), HALF], outside=True), SECOND: File([MASK])}


def _later(tensor: Vector) -> Vector:
    return Vector(**{**vars(tensor), "unknown": {"later": {"a": 1}}})


def _more_keys(index: Document) -> Document:
    shards = [{**shard, "etag": "x"} for shard in index["wio"]["shards"]]
    own = {**index["wio"], "shards": shards}
    return {**index, "wio": own, "metadata": {**index["metadata"], "format": "pt"}, "later": None}


# --- what must be refused


@dataclass(frozen=True)
class InvalidSet:
    """``kind`` is what is wrong: the index, its version, where it looks, a shard, the tensors, or data by digest.

    ``found`` and ``words`` are as those of single files; ``schema`` is whether the JSON Schema of the index finds it,
    null where the index is no JSON.
    """

    files: Mapping[str, bytes]
    kind: str
    description: str
    words: tuple[str, ...]
    found: str
    schema: bool | None

    def as_json(self) -> Document:
        return {
            "description": self.description,
            "kind": self.kind,
            "found": self.found,
            "words": list(self.words),
            "schema": self.schema,
        }


def invalid_sets() -> dict[str, InvalidSet]:
    return {**_texts(), **_indexes(), **_places(), **_shards(), **_tensors()}


def _invalid(
    kind: str, description: str, *words: str, schema: bool | None = True, found: str = "open", **made: Any
) -> InvalidSet:
    return InvalidSet(Set(_two(), **made).files(), kind, description, words, found, schema)


def _own(**changes: Any) -> Callable[[Document], Document]:
    return lambda index: {**index, "wio": {**index["wio"], **changes}}


def _with(**changes: Any) -> Callable[[Document], Document]:
    return lambda index: {**index, **changes}


def _without(*path: str) -> Callable[[Document], Document]:
    def bend(index: Document) -> Document:
        inner = index
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return index

    return bend


def _first(**changes: Any) -> Callable[[Document], Document]:
    """The first shard listed otherwise, in ``weight_map`` too where its file is."""

    def bend(index: Document) -> Document:
        shards = index["wio"]["shards"]
        shards[0] = {**shards[0], **changes}
        if isinstance(changes.get("file"), str):
            moved = {name: changes["file"] if file == FIRST else file for name, file in index["weight_map"].items()}
            index["weight_map"] = moved
        return index

    return bend


def _texts() -> dict[str, InvalidSet]:
    def text(bend: Callable[[str], str], description: str) -> InvalidSet:
        return _invalid("index", description, schema=None, encode=lambda index: bend(compact(index)).encode())

    deep = '"later":' + "[" * 3000 + "]" * 3000 + ","
    return {
        "index_empty": text(lambda _: "", "an index of no bytes"),
        "index_cut": text(lambda index: index[:-9], "an index that is cut short"),
        "index_array": text(lambda index: f"[{index}]", "an index that is an array"),
        "index_trailing": text(lambda index: index + "{}", "something after the index"),
        "index_nan": text(lambda index: index.replace('"version":1', '"version":1,"later":NaN'), "a NaN in the index"),
        "index_deep": text(lambda index: "{" + deep + index[1:], "JSON nested 3,000 levels deep"),
        "index_duplicate_key": text(
            lambda index: index.replace('"weight_map":{', f'"weight_map":{{"conv1/kernel":"{SECOND}",'),
            "a tensor that stands twice in the weight_map",
        ),
        "index_lone_surrogate": text(
            lambda index: index.replace('"metadata":{}', '"metadata":{"a":"\\ud800"}'), "half of a surrogate pair"
        ),
    }


def _indexes() -> dict[str, InvalidSet]:
    return {
        "version_2": _invalid("version", "a version of the future", "version", bend=_own(version=2)),
        "version_true": _invalid("version", "a version that is true", "version", bend=_own(version=True)),
        "version_missing": _invalid("version", "no version", "version", bend=_without("wio", "version")),
        "wio_missing": _invalid("index", "an index of another format", bend=_without("wio")),
        "wio_number": _invalid("index", "wio that is the version alone", bend=_with(wio=1)),
        "shards_missing": _invalid("index", "no list of shards", "shards", bend=_without("wio", "shards")),
        "shards_object": _invalid("index", "shards by name", "shards", bend=_own(shards={FIRST: "0" * 64})),
        "shard_text": _invalid("index", "a shard that is only named", "shard", bend=_own(shards=[FIRST, SECOND])),
        "shard_without_size": _invalid("index", "a shard without size", bend=_first(size=None)),
        "shard_size_float": _invalid("index", "a size with a fraction", "size", schema=False, encode=_sizes_as_floats),
        "shard_size_negative": _invalid("index", "a size below zero", "size", bend=_first(size=-1)),
        "shard_digest_missing": _invalid("index", "a shard without digest", bend=_first(header_sha256=None)),
        "shard_digest_upper": _invalid("index", "a digest in capitals", bend=_first(header_sha256="A" * 64)),
        "shard_twice": _invalid("index", "a shard that is listed twice", "twice", schema=False, bend=_listed_twice),
        "shard_idle": _invalid(
            "index", "a shard of which the weight_map knows nothing", SECOND, schema=False, bend=_idle
        ),
        "shard_unlisted": _invalid(
            "index", "a file of the weight_map that is not listed", SECOND, schema=False, bend=_unlisted
        ),
        "weight_map_missing": _invalid("index", "no weight_map", "weight_map", bend=_without("weight_map")),
        "weight_map_list": _invalid("index", "a weight_map that is a list", "weight_map", bend=_with(weight_map=[])),
        "weight_map_number": _invalid(
            "index", "a tensor whose shard is a number", "weight_map", bend=_with(weight_map={"conv1/kernel": 1})
        ),
        "total_size_missing": _invalid("index", "no total_size", "total_size", bend=_with(metadata={})),
        "total_size_text": _invalid(
            "index", "a total_size that is text", "total_size", bend=_with(metadata={"total_size": "60"})
        ),
        "total_size_wrong": _invalid(
            "index", "a total_size that is not", "total_size", schema=False, bend=_with(metadata={"total_size": 61})
        ),
        "metadata_list": _invalid("index", "metadata that are a list", "metadata", bend=_own(metadata=[])),
        "metadata_unknown_keys": _invalid(
            "index", "a key that is kept for readers", "unknown_keys", bend=_own(metadata={"unknown_keys": {}})
        ),
        "receipt_reference": _invalid("index", "a receipt that is a text", "receipt", bend=_own(receipt="x")),
    }


def _sizes_as_floats(index: Document) -> bytes:
    return compact(index).replace('"size":', '"size": ').replace(',"header_sha256"', '.0,"header_sha256"').encode()


def _listed_twice(index: Document) -> Document:
    shards = index["wio"]["shards"]
    return _own(shards=[*shards, shards[0]])(index)


def _idle(index: Document) -> Document:
    kept = {name: file for name, file in index["weight_map"].items() if file == FIRST}
    return {**index, "weight_map": kept}


def _unlisted(index: Document) -> Document:
    return _own(shards=index["wio"]["shards"][:1])(index)


def _places() -> dict[str, InvalidSet]:
    names = {
        "empty": "",
        "dot": ".",
        "dots": "..",
        "above": "../NAME-00001-of-00002.wio",
        "below": "sub/NAME-00001-of-00002.wio",
        "absolute": "/etc/passwd",
        "backslash": "..\\NAME-00001-of-00002.wio",
        "nul": "NAME\0.wio",
        "address": "file:///etc/passwd",
    }
    return {
        f"file_{key}": _invalid("place", f"a shard named {name!r}", "folder", bend=_first(file=name))
        for key, name in names.items()
    }


def _shards() -> dict[str, InvalidSet]:
    good = Set(_two()).files()[FIRST]
    other = File([CONV, floats("conv1/bias", (3,), 900, role="conv.bias", layout="O")]).bytes()
    plain = framed({"conv1/kernel": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"\0")
    flipped = bytearray(good)
    flipped[-1] ^= 1

    def lies(raw: bytes | None, description: str, *words: str, **more: Any) -> InvalidSet:
        return _invalid("shard", description, FIRST, *words, schema=False, replace={FIRST: raw}, **more)

    return {
        "shard_missing": lies(None, "a shard that is not there"),
        "shard_empty": lies(b"", "a shard of no bytes"),
        "shard_cut": lies(good[:-1], "a shard that is cut short"),
        "shard_exchanged": lies(other, "a shard of another set: the same tensors and size, other values"),
        "shard_of_this_set": lies(Set(_two()).files()[SECOND], "another shard of the same set"),
        "shard_of_another_writer": lies(
            File([CONV, BIAS], extra_metadata={}).bytes(), "a shard with the same tensors and another header"
        ),
        "shard_not_wio": lies(plain, "a safetensors file that declares nothing", bend=_first(**listed(FIRST, plain))),
        "shard_size_wrong": _invalid(
            "shard", "a size that is not the file's", FIRST, schema=False, bend=_first(size=len(good) + 8)
        ),
        "shard_digest_wrong": _invalid(
            "shard", "a digest that is not the header's", FIRST, schema=False, bend=_first(header_sha256="0" * 64)
        ),
        "data_flipped": InvalidSet(
            Set(_two(), replace={FIRST: bytes(flipped)}).files(),
            "digest",
            "one bit of the data of a shard flipped",
            ("conv1/bias",),
            "verify",
            False,
        ),
    }


def _tensors() -> dict[str, InvalidSet]:
    def bent(bend: Callable[[dict[str, str]], dict[str, str]], description: str, *words: str) -> InvalidSet:
        def changed(index: Document) -> Document:
            return {**index, "weight_map": bend(index["weight_map"])}

        return _invalid("tensors", description, *words, schema=False, bend=changed)

    def made(first: Sequence[Vector], second: Sequence[Vector], description: str, *words: str) -> InvalidSet:
        files = Set({FIRST: File(first), SECOND: File(second)}).files()
        return InvalidSet(files, "tensors", description, words, "open", False)

    return {
        "tensor_unexpected": bent(
            lambda found: {name: file for name, file in found.items() if name != "conv1/bias"},
            "a tensor of a shard that is not in the weight_map",
            "conv1/bias",
        ),
        "tensor_missing": bent(lambda found: {**found, "more": FIRST}, "a tensor that no shard holds", "more"),
        "tensor_elsewhere": bent(
            lambda found: {**found, "conv1/bias": SECOND}, "a tensor in another shard than the index says", "conv1/bias"
        ),
        "tensor_twice": made([CONV, BIAS], [DENSE, BIAS], "a tensor in two shards", "conv1/bias"),
    }
