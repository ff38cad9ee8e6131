"""The invalid test vectors: files that a reader must refuse, each with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vector_files import File, Vector, compact, floats, framed, leb128, strings, table_digest

Document = dict[str, Any]
RECEIPT = compact({"wio": 1, "steps": []}).encode()


@dataclass(frozen=True)
class Invalid:
    """``kind`` is what part is wrong; ``found`` when a reader must find it at the latest: when it opens the file, reads
    the values, verifies their digests, or reads the receipt. ``words`` are what a helpful error mentions. ``schema`` is
    whether the JSON Schema of the declaration finds it too, null where there is no declaration to give to a schema."""

    raw: bytes
    kind: str
    description: str
    words: tuple[str, ...] = ()
    found: str = "open"
    schema: bool | None = None

    def as_json(self) -> Document:
        return {
            "description": self.description,
            "kind": self.kind,
            "found": self.found,
            "words": list(self.words),
            "schema": self.schema,
        }


def invalid_vectors() -> dict[str, Invalid]:
    found = {}
    for part in (_headers(), _tables(), _declarations(), _tensors(), _encodings(), _values(), _reserved(), _stale()):
        for name, vector in part.items():
            if name in found:
                raise ValueError(f"two vectors are named {name}")
            found[name] = vector
    return found


KERNEL = floats("conv1/kernel", (1, 1, 2, 3), role="conv.kernel", layout="HWIO")
BIAS = floats("conv1/bias", (3,), role="conv.bias", layout="O")


# --- the safetensors header


def _headers() -> dict[str, Invalid]:
    good = File([KERNEL, BIAS]).bytes()
    text = good[8 : 8 + int.from_bytes(good[:8], "little")]
    data = good[8 + len(text) :]
    one = '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    deep = "[" * 3000 + "]" * 3000

    def bad(raw: bytes, description: str, *words: str) -> Invalid:
        return Invalid(raw, "header", description, words)

    def texts(header: str | bytes, description: str, *words: str, rest: bytes = b"\0") -> Invalid:
        return bad(framed(header, rest), description, *words)

    return {
        "file_empty": bad(b"", "a file of no bytes"),
        "file_short": bad(b"\x10\0\0\0\0", "a file shorter than the length of its header"),
        "header_over_limit": bad(
            (100_000_001).to_bytes(8, "little") + b"{}",
            "a header that is said to be over 100,000,000 bytes",
            "100000001",
        ),
        "header_length_huge": bad(b"\xff" * 8 + b"{}", "a header that is said to be 2^64 - 1 bytes"),
        "header_cut": bad(good[: 8 + len(text) - 1], "a file that ends inside its header"),
        "data_cut": bad(good[:-1], "a file that ends inside its data"),
        "trailing_byte": bad(good + b"\0", "a byte after the last tensor"),
        "header_array": texts("[]", "a header that is an array", rest=b""),
        "header_leading_space": texts(" " + text.decode(), "a header that does not begin with {", rest=data),
        "header_not_utf8": texts(
            text.replace(b"conv1/bias", b"conv1/bi\xff", 1), "a header that is not UTF-8", rest=data
        ),
        "header_not_json": texts(text[:-9] + b'"' + b" " * 8, "a header that is no JSON", rest=data),
        "header_zero_padding": bad(
            framed(text.rstrip(b" ") + b"\0" * 8, data, pad=False), "a header padded with zeros, not with spaces"
        ),
        "header_two_documents": texts("{" + one + "}{}", "a header of two JSON documents"),
        "header_nan": texts(
            '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"later":NaN}}', "NaN, which is not JSON", "NaN"
        ),
        "header_infinite": texts(
            '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"later":1e999}}', "a number out of range", "1e999"
        ),
        "header_duplicate_tensor": texts("{" + one + "," + one + "}", "a tensor that stands twice", "twice"),
        "header_duplicate_escaped": texts(
            "{" + one + "," + one.replace('"a"', '"\\u0061"') + "}", "a tensor that stands twice, once escaped", "twice"
        ),
        "header_duplicate_metadata": texts(
            '{"__metadata__":{},"__metadata__":{},' + one + "}", "__metadata__ stands twice", "__metadata__"
        ),
        "header_lone_surrogate": texts(
            "{" + one.replace('"a"', '"\\ud800"') + "}", "a name with half of a surrogate pair, which is no text"
        ),
        "header_deep": texts(
            '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"later":' + deep + "}}",
            "JSON nested 3,000 levels deep",
        ),
        "metadata_array": texts('{"__metadata__":[],' + one + "}", "__metadata__ that is no object", "__metadata__"),
        "metadata_null": texts('{"__metadata__":null,' + one + "}", "__metadata__ that is null", "__metadata__"),
        "metadata_nested": texts(
            '{"__metadata__":{"wio":{"wio":1}},' + one + "}",
            "__metadata__ that maps to something else than text",
            "__metadata__",
        ),
    }


def _tables() -> dict[str, Invalid]:
    """The entries of the header: dtype, shape, offsets."""

    def bad(entry: Any, description: str, *words: str, data: bytes = b"\0") -> Invalid:
        header = {"__metadata__": {"wio": compact(File([]).document())}, "tensor": entry}
        return Invalid(framed(header, data), "header", description, ("tensor", *words))

    def entry(dtype: Any = "U8", shape: Any = (1,), offsets: Any = (0, 1)) -> Document:
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    def pair(first: tuple[int, int], second: tuple[int, int], size: int, description: str, *words: str) -> Invalid:
        header = {
            name: entry(shape=[end - start], offsets=[start, end])
            for name, (start, end) in (("first", first), ("second", second))
        }
        return Invalid(framed(header, bytes(size)), "header", description, words)

    return {
        "entry_not_object": bad([1], "an entry that is no object"),
        "entry_without_dtype": bad({"shape": [1], "data_offsets": [0, 1]}, "an entry without dtype", "dtype"),
        "entry_without_shape": bad({"dtype": "U8", "data_offsets": [0, 1]}, "an entry without shape", "shape"),
        "entry_without_offsets": bad({"dtype": "U8", "shape": [1]}, "an entry without data_offsets", "data_offsets"),
        "dtype_unknown": bad(entry("F128"), "a dtype that is not in the table", "F128"),
        "dtype_lower_case": bad(entry("u8"), "a dtype in lower case", "u8"),
        "dtype_not_text": bad(entry(["U8"]), "a dtype that is no text", "dtype"),
        "shape_not_list": bad(entry(shape=1), "a shape that is no list", "shape"),
        "shape_negative": bad(entry(shape=[-1]), "a size below zero", "shape"),
        "shape_two_negatives": bad(entry(shape=[-1, -1]), "two sizes below zero, whose product is right", "shape"),
        "shape_float": bad(entry(shape=[1.0]), "a size with a fraction", "shape"),
        "shape_bool": bad(entry(shape=[True]), "a size that is true", "shape"),
        "shape_text": bad(entry(shape=["1"]), "a size that is text", "shape"),
        "shape_null": bad(entry(shape=[None]), "a size that is null", "shape"),
        "shape_huge": bad(entry(shape=[2**64 + 1]), "a size over 64 bits, right when it wraps around", "shape"),
        "shape_product_wraps": bad(entry(shape=[2**32 + 1, 2**32 + 1]), "sizes whose product is over 64 bits"),
        "shape_product_wraps_to_zero": bad(
            entry(shape=[2**62, 2**62, 0], offsets=[0, 0]),
            "sizes that are too large beside one of 0",
            "shape",
            data=b"",
        ),
        "shape_rank_65": bad(entry(shape=[1] * 65), "a shape of 65 axes", "shape"),
        "offsets_not_list": bad(entry(offsets=1), "data_offsets that are no list", "data_offsets"),
        "offsets_three": bad(entry(offsets=[0, 1, 1]), "three data_offsets", "data_offsets"),
        "offsets_reversed": bad(entry(shape=[0], offsets=[1, 0]), "data_offsets that run backwards"),
        "offsets_negative": bad(entry(offsets=[-1, 0]), "data_offsets below zero", "data_offsets"),
        "offsets_bool": bad(entry(offsets=[False, True]), "data_offsets that are false and true", "data_offsets"),
        "offsets_float": bad(entry(offsets=[0, 1.0]), "data_offsets with a fraction", "data_offsets"),
        "offsets_not_shape": bad(entry("F32"), "data_offsets that are not the size of shape and dtype"),
        "offsets_past_end": Invalid(
            framed({"tensor": entry(shape=[9], offsets=[0, 9])}, b"\0"),
            "header",
            "data_offsets past the end of the file",
        ),
        "overlap": pair((0, 4), (3, 6), 6, "two tensors that share a byte", "second", "overlap"),
        "overlap_whole": pair((0, 4), (0, 4), 4, "two tensors that share all their bytes", "overlap"),
        "hole": pair((0, 2), (3, 5), 5, "a byte that belongs to no tensor", "second", "hole"),
        "hole_at_start": pair((1, 2), (2, 3), 3, "a byte before the first tensor", "first", "hole"),
    }


# --- the declaration


def _declaration(
    text: str, description: str, *words: str, kind: str = "declaration", schema: bool | None = None
) -> Invalid:
    header = {"__metadata__": {"wio": text, "format": "pt"}}
    return Invalid(framed(header), kind, description, words, schema=schema)


def _bent(
    bend: Callable[[Document], Any],
    description: str,
    *words: str,
    schema: bool,
    kind: str = "declaration",
    tensors: tuple[Vector, ...] = (KERNEL, BIAS),
    found: str = "open",
) -> Invalid:
    raw = File(tensors, bend_document=bend).bytes()
    return Invalid(raw, kind, description, words, found, schema)


def _with(**changes: Any) -> Callable[[Document], Document]:
    return lambda document: {**document, **changes}


def _without(key: str) -> Callable[[Document], Document]:
    return lambda document: {k: v for k, v in document.items() if k != key}


def _declarations() -> dict[str, Invalid]:
    empty = compact(File([]).document(table_digest({})))
    plain = framed(
        {"__metadata__": {"format": "pt"}, "tensor": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"\0"
    )
    return {
        "declaration_missing": Invalid(
            plain, "declaration", "a safetensors file that declares nothing", ("declaration",)
        ),
        "declaration_empty": _declaration("", "a declaration of no characters"),
        "declaration_not_json": _declaration(empty[:-1], "a declaration that is no JSON"),
        "declaration_array": _declaration("[]", "a declaration that is an array", schema=True),
        "declaration_null": _declaration("null", "a declaration that is null", schema=True),
        "declaration_duplicate_key": _declaration(
            empty[:-1] + ',"wio":1}', "a key of the declaration that stands twice", "twice", schema=None
        ),
        "declaration_nan": _declaration(empty.replace('"metadata":{}', '"metadata":{"epsilon":NaN}'), "NaN", "NaN"),
        "declaration_deep": _declaration(
            empty.replace('"metadata":{}', '"metadata":{"a":' + "[" * 3000 + "]" * 3000 + "}"),
            "nested 3,000 levels deep",
        ),
        "declaration_lone_surrogate": _declaration(
            empty.replace('"metadata":{}', '"metadata":{"a":"\\ud800"}'), "text with half of a surrogate pair"
        ),
        "version_missing": _bent(_without("wio"), "no version", "version", schema=True, kind="version"),
        "version_0": _bent(_with(wio=0), "version 0", "version 0", schema=True, kind="version"),
        "version_2": _bent(_with(wio=2), "a version to come", "version 2", schema=True, kind="version"),
        "version_text": _bent(_with(wio="1"), "a version that is text", "version", schema=True, kind="version"),
        "version_true": _bent(_with(wio=True), "a version that is true", "version", schema=True, kind="version"),
        "table_missing": _bent(_without("table"), "no digest of the table", schema=True, kind="stale"),
        "table_zeros": _bent(_with(table="0" * 64), "a digest of another table", schema=False, kind="stale"),
        "table_not_text": _bent(_with(table=0), "a digest of the table that is a number", schema=True, kind="stale"),
        "layouts_missing": _bent(_without("layouts"), "no table of layouts", "layouts", schema=True),
        "layouts_object": _bent(
            _with(layouts={"0": "HWIO"}), "a table of layouts that is no list", "layouts", schema=True
        ),
        "layouts_not_text": _bent(_with(layouts=["HWIO", 1]), "a layout that is no text", "layouts", schema=True),
        "layouts_unused_malformed": _bent(
            _with(layouts=["HWIO", "O", "HWHW"]),
            "a layout that nothing uses and that is none",
            "HWHW",
            schema=False,
            kind="layout",
        ),
        "generator_number": _bent(_with(generator=1), "a generator that is a number", "generator", schema=True),
        "tensors_missing": _bent(_without("tensors"), "no list of tensors", "tensors", schema=True),
        "tensors_object": _bent(_with(tensors={}), "tensors that are no list", "tensors", schema=True),
        "tensors_not_objects": _bent(
            _with(tensors=["conv1/kernel"]), "a tensor that is no object", "tensors", schema=True
        ),
        "metadata_list": _bent(_with(metadata=[]), "metadata that are no object", "metadata", schema=True),
        "metadata_unknown_keys": _bent(
            _with(metadata={"unknown_keys": {"file": {"table": "x"}, "tensors": {}}}),
            "a key of the metadata that readers keep for themselves",
            "unknown_keys",
            schema=True,
        ),
    }


def _tensors() -> dict[str, Invalid]:
    def item(description: str, *words: str, schema: bool, **changes: Any) -> Invalid:
        return _bent(lambda document: _change(document, **changes), description, *words, schema=schema)

    def lacking(key: str, description: str, *words: str) -> Invalid:
        def bend(document: Document) -> Document:
            first = {k: v for k, v in document["tensors"][0].items() if k != key}
            return {**document, "tensors": [first, *document["tensors"][1:]]}

        return _bent(bend, description, *words, schema=True)

    def layouts(text: str, description: str, *words: str) -> Invalid:
        return _bent(_with(layouts=[text, "O"]), description, *words, schema=False, kind="layout")

    kernel = KERNEL.name
    return {
        "tensor_missing": _bent(
            lambda document: {
                **document,
                "tensors": [*document["tensors"], {"name": "conv9/kernel", "sha256": "0" * 64}],
            },
            "a declared tensor that is not in the file",
            "conv9/kernel",
            schema=False,
        ),
        "tensor_not_declared": _bent(
            lambda document: {**document, "tensors": document["tensors"][:1]},
            "a tensor of the file that is not declared",
            "conv1/bias",
            schema=False,
        ),
        "tensor_twice": _bent(
            lambda document: {**document, "tensors": [*document["tensors"], document["tensors"][0]]},
            "a tensor that is declared twice",
            schema=False,
        ),
        "tensor_reserved": Invalid(
            File(
                [KERNEL],
                receipt=RECEIPT,
                bend_document=lambda document: {
                    **document,
                    "tensors": [*document["tensors"], {"name": "__wio__/receipt", "sha256": "0" * 64}],
                },
            ).bytes(),
            "declaration",
            "a reserved tensor declared as a weight",
            ("__wio__/receipt",),
            schema=True,
        ),
        "name_missing": lacking("name", "a tensor without a name"),
        "name_number": item("a name that is a number", schema=True, name=1),
        "role_unknown": item("a role that is not in the list", kernel, "conv.filter", schema=True, role="conv.filter"),
        "role_null": item("a role that is null", kernel, schema=True, role=None),
        "role_list": item("a role that is a list", kernel, schema=True, role=["conv.kernel"]),
        "role_against_layout": item(
            "a role that cannot have that layout", kernel, "dense.kernel", schema=False, role="dense.kernel"
        ),
        "role_without_layouts": item(
            "a role that has no layout, and one beside it", kernel, "optimizer", schema=False, role="optimizer"
        ),
        "role_against_gates": Invalid(
            File([floats("rnn/kernel", (2, 4), role="gru.kernel", layout="I(GU) G=ifco")]).bytes(),
            "declaration",
            "the gates of an LSTM, and the role of a GRU's kernel",
            ("rnn/kernel", "gru.kernel"),
            schema=False,
        ),
        "layout_index_too_large": item("a layout that is not in the table", kernel, "2", schema=False, layout=2),
        "layout_index_negative": item("a layout before the table", kernel, "-1", schema=True, layout=-1),
        "layout_index_true": _bent(
            lambda document: {**_change(document, layout=True), "layouts": ["O", "C"]},
            "a layout that is true",
            BIAS.name,
            schema=True,
            tensors=(BIAS,),
        ),
        "layout_index_null": item("a layout that is null", kernel, schema=True, layout=None),
        "layout_index_text": item("a layout that is text, not an index", kernel, schema=True, layout="HWIO"),
        "origin_number": item("an origin that is a number", kernel, "origin", schema=True, origin=1),
        "origin_null": item("an origin that is null", kernel, "origin", schema=True, origin=None),
        "layer_list": item("a layer that is a list", kernel, "layer", schema=True, layer=[]),
        "sha256_missing": lacking("sha256", "a tensor without a digest", kernel),
        "sha256_short": item("a digest that is too short", kernel, schema=True, sha256="0" * 63),
        "sha256_upper_case": item("a digest in upper case", kernel, schema=True, sha256="A" * 64),
        "sha256_not_hex": item("a digest that is not hexadecimal", kernel, schema=True, sha256="g" * 64),
        "sha256_line_break": item("a digest and a line break", kernel, schema=True, sha256="0" * 64 + "\n"),
        "sha256_null": item("a digest that is null", kernel, schema=True, sha256=None),
        "shape_without_dtype": item("a shape without a dtype", kernel, schema=True, shape=[1, 1, 2, 3]),
        "encoding_without_dtype": item("an encoding without a dtype", kernel, schema=True, encoding="elements"),
        "layout_malformed": layouts("HWI(O", "a parenthesis that does not close", "HWI(O"),
        "layout_empty_text": _bent(_with(layouts=["", "O"]), "a layout of no characters", schema=True, kind="layout"),
        "layout_letter_unknown": layouts("HWIZ", "a letter that is no axis", "Z"),
        "layout_letter_twice": layouts("HWOO", "a letter that stands twice", "HWOO"),
        "layout_word_unknown": layouts("HWIO reversed", "a word that is none of the grammar", "reversed"),
        "layout_flipped_twice": layouts("HWIO flipped flipped", "a word that stands twice", "flipped"),
        "layout_flipped_nowhere": layouts("GUIO flipped", "flipped without a spatial axis", "flipped"),
        "layout_flipped_in_group": layouts("H(WI)OC flipped", "flipped with a spatial axis inside a group", "flipped"),
        "layout_size_of_no_axis": layouts("HWIO C=3", "the size of a letter that is no axis", "C"),
        "layout_size_twice": layouts("HWIO I=2 I=2", "a size that is given twice", "I=2"),
        "layout_size_negative": layouts("HWIO I=-2", "a size below zero", "I=-2"),
        "layout_size_unicode": layouts("HWIO I=\u0662", "a size in digits other than 0 to 9"),
        "layout_unit_in_group": layouts("HW(1I)O", "a unit axis inside a group"),
        "layout_question_in_group": layouts("HW(?I)O", "? beside letters"),
        "layout_gates_unknown": layouts("HWGO G=ifcx", "gates that there are none of", "ifcx"),
        "layout_gates_mixed": layouts("HWGO G=iz", "gates of two kinds of layer", "iz"),
        "layout_gates_twice": layouts("HWGO G=ii", "a gate that stands twice", "ii"),
        "layout_gates_alias_twice": layouts("HWGO G=cg", "a gate that stands twice, once under another name"),
        "layout_gates_without_axis": layouts("HWIO G=ifco", "gates without the axis G", "ifco"),
        "layout_values_other_axes": layouts("HWIO values=HWIC", "values of other axes", "values"),
        "layout_values_of_group": layouts("HW(IC)O values=OICHW", "values of a layout with a group", "values"),
        "layout_refuted_rank": layouts("IO", "a layout that the shape refutes: 2 axes for 4", kernel),
        "layout_refuted_size": layouts("HWIO I=3", "a layout that the shape refutes: I=3 where there are 2", kernel),
        "layout_refuted_unit": layouts("HW1O", "a layout that the shape refutes: a unit axis of 2", kernel),
        "layout_refuted_gates": layouts(
            "HWIG G=ifco", "a layout that the shape refutes: 4 gates where there are 3", kernel
        ),
        "layout_refuted_group": layouts("HWI(GO) G=2", "a layout that the shape refutes: 3 are not 2 groups", kernel),
        "layout_refuted_zero": layouts("HWI(GO) G=0", "a layout that the shape refutes: 3 of no groups", kernel),
    }


def _change(document: Document, **changes: Any) -> Document:
    first = {**document["tensors"][0], **changes}
    return {**document, "tensors": [first, *document["tensors"][1:]]}


def _encodings() -> dict[str, Invalid]:
    nibbles = Vector("nibbles", "int4", (4,), b"\0\1\2\3", [0, 1, 2, 3])
    words = strings("words", (2,), [b"ab", b"c"])

    def bad(tensor: Vector, description: str, *mentions: str, schema: bool, **changes: Any) -> Invalid:
        return _bent(
            lambda document: _change(document, **changes),
            description,
            tensor.name,
            *mentions,
            schema=schema,
            kind="encoding",
            tensors=(tensor,),
        )

    def lacking(key: str, description: str) -> Invalid:
        def bend(document: Document) -> Document:
            return {**document, "tensors": [{k: v for k, v in document["tensors"][0].items() if k != key}]}

        return _bent(bend, description, "nibbles", schema=True, kind="encoding", tensors=(nibbles,))

    def stored(change: Mapping[str, Any], description: str) -> Invalid:
        def bend(header: Document) -> Document:
            header["nibbles"] = {**header["nibbles"], **change}
            return header

        # The digest of the table is that of the header as bent: what is wrong is the encoding alone.
        file = File([nibbles])
        raw = file.bytes()
        length = int.from_bytes(raw[:8], "little")
        header = bend(json.loads(raw[8 : 8 + length]))
        header["__metadata__"]["wio"] = compact(file.document(table_digest(header)))
        return Invalid(framed(header, nibbles.data), "encoding", description, ("nibbles",), schema=False)

    return {
        "encoded_dtype_unknown": bad(nibbles, "a declared dtype that is not in the table", schema=True, dtype="int3"),
        "encoded_dtype_list": bad(nibbles, "a declared dtype that is a list", schema=True, dtype=["int4"]),
        "encoded_dtype_native": bad(nibbles, "a declared dtype that safetensors has", schema=True, dtype="int8"),
        "encoded_dtype_null": bad(nibbles, "a declared dtype that is null", schema=True, dtype=None),
        "encoding_wrong": bad(nibbles, "an encoding that is not the dtype's", schema=True, encoding="varbytes"),
        "encoding_unknown": bad(nibbles, "an encoding that there is none of", schema=True, encoding="zip"),
        "encoding_missing": lacking("encoding", "a declared dtype without encoding"),
        "encoded_shape_missing": lacking("shape", "a declared dtype without shape"),
        "encoded_shape_float": bad(nibbles, "a declared size with a fraction", "shape", schema=False, shape=[4.0]),
        "encoded_shape_true": bad(nibbles, "a declared size that is true", "shape", schema=True, shape=[True, 4]),
        "encoded_shape_negative": bad(nibbles, "declared sizes below zero", "shape", schema=True, shape=[-2, -2]),
        "encoded_shape_huge": bad(nibbles, "a declared size over 63 bits", "shape", schema=True, shape=[2**63, 0]),
        "encoded_shape_rank_65": bad(
            nibbles, "a declared shape of 65 axes", "shape", schema=True, shape=[4] + [1] * 64
        ),
        "encoded_size_wrong": bad(
            nibbles, "a declared shape that is not the size of the bytes", schema=False, shape=[5]
        ),
        "encoded_not_bytes": stored({"dtype": "I8"}, "an encoded tensor that is not stored as U8"),
        "encoded_two_axes": stored({"shape": [2, 2]}, "an encoded tensor that is stored with two axes"),
        "strings_too_many": bad(words, "more byte strings than bytes", schema=False, shape=[6]),
    }


def _values() -> dict[str, Invalid]:
    """What only shows when the values are read, or their digests verified."""

    def words(data: bytes, count: int, description: str) -> Invalid:
        tensor = Vector("words", "string", (count,), data, [])
        return Invalid(File([tensor]).bytes(), "encoding", description, ("words",), "read", False)

    def damaged(file: File, raw: bytes, description: str) -> Invalid:
        if len(raw) != len(file.bytes()):
            raise ValueError("damage must not change the size")
        return Invalid(raw, "digest", description, ("conv1/kernel",), "verify", False)

    file = File([KERNEL])
    good = file.bytes()
    wrong = _bent(
        lambda document: _change(document, sha256="0" * 64),
        "a digest of other bytes",
        "conv1/kernel",
        schema=False,
        kind="digest",
        found="verify",
    )
    nothing = floats("nothing", (0,))
    return {
        "strings_end_early": words(leb128(3) + b"ab", 1, "byte strings that end before their last byte"),
        "strings_end_late": words(leb128(1) + b"ab", 1, "a byte after the last byte string"),
        "strings_of_no_elements": words(b"a", 0, "bytes where there are no byte strings"),
        "strings_length_cut": words(b"\x80", 1, "a length that is cut short"),
        "strings_length_endless": words(b"\x80" * 12 + b"\x01", 1, "a length of more than 64 bits"),
        "strings_length_huge": words(b"\xff" * 8 + b"\x7f", 1, "a length of nearly 2^63 bytes"),
        "strings_length_padded": words(b"\x81\x00a", 1, "a length that is not written the shortest way"),
        "data_flipped": damaged(file, good[:-1] + bytes([good[-1] ^ 1]), "one bit of the data is wrong"),
        "sha256_of_other_bytes": wrong,
        "sha256_of_nothing": Invalid(
            File([nothing], bend_document=lambda document: _change(document, sha256="1" * 64)).bytes(),
            "digest",
            "a wrong digest of a tensor without elements",
            ("nothing",),
            "verify",
            False,
        ),
    }


# --- reserved tensors


def _reserved() -> dict[str, Invalid]:
    def receipt(change: Callable[[Document], Any], description: str, *, schema: bool) -> Invalid:
        file = File([KERNEL], receipt=RECEIPT, bend_document=change)
        return Invalid(file.bytes(), "reserved", description, ("receipt",), "receipt", schema)

    def reference(**changes: Any) -> Callable[[Document], Document]:
        return lambda document: {**document, "receipt": {**document["receipt"], **changes}}

    def content(data: bytes, description: str) -> Invalid:
        return Invalid(File([KERNEL], receipt=data).bytes(), "reserved", description, ("receipt",), "receipt", False)

    def stub(change: Callable[[Document], Any], description: str, *words: str, kind: str = "reserved") -> Invalid:
        return Invalid(File([KERNEL], outside=True, bend_stub=change).bytes(), kind, description, words)

    def pointing(**changes: Any) -> Callable[[Document], Document]:
        return lambda document: {**document, "declaration": {**document["declaration"], **changes}}

    kept = File([KERNEL], receipt=RECEIPT).bytes()
    outside = File([KERNEL], outside=True).bytes()
    return {
        "receipt_damaged": Invalid(
            kept[: -len(RECEIPT)] + RECEIPT.replace(b"steps", b"stepz"),
            "digest",
            "a receipt whose bytes are not those of its digest",
            ("receipt",),
            "receipt",
            False,
        ),
        "receipt_not_there": receipt(reference(tensor="__wio__/other"), "a receipt in another tensor", schema=True),
        "receipt_reference_text": receipt(
            lambda document: {**document, "receipt": "__wio__/receipt"}, "a reference that is text", schema=True
        ),
        "receipt_reference_null": receipt(
            lambda document: {**document, "receipt": None}, "a reference that is null", schema=True
        ),
        "receipt_digest_missing": receipt(
            lambda document: {**document, "receipt": {"tensor": "__wio__/receipt"}},
            "a reference without digest",
            schema=True,
        ),
        "receipt_declared_only": Invalid(
            File([KERNEL], bend_document=_with(receipt={"tensor": "__wio__/receipt", "sha256": "0" * 64})).bytes(),
            "reserved",
            "a receipt that is declared and not there",
            ("receipt",),
            "receipt",
            False,
        ),
        "receipt_not_json": content(b"{", "a receipt that is no JSON"),
        "receipt_not_object": content(b"[]", "a receipt that is no object"),
        "receipt_duplicate_key": content(b'{"a":1,"a":2}', "a key of the receipt that stands twice"),
        "outside_damaged": Invalid(
            outside.replace(b'"generator":"test', b'"generator":"tess', 1),
            "digest",
            "a declaration outside the header whose bytes are not those of its digest",
            ("declaration",),
        ),
        "outside_not_there": stub(
            pointing(tensor="conv1/kernel"), "a declaration in a tensor that is not reserved", "declaration"
        ),
        "outside_null": stub(_with(declaration=None), "a reference that is null", "declaration"),
        "outside_digest_missing": stub(
            _with(declaration={"tensor": "__wio__/declaration"}), "a reference without digest"
        ),
        "outside_version_2": stub(_with(wio=2), "a version to come", "version 2", kind="version"),
        "outside_version_missing": stub(_without("wio"), "no version in the header", "version", kind="version"),
        "outside_inner_version_2": Invalid(
            File([KERNEL], outside=True, bend_document=_with(wio=2)).bytes(),
            "version",
            "a version to come outside the header",
            ("version 2",),
        ),
        "outside_twice": Invalid(
            File(
                [KERNEL],
                outside=True,
                bend_document=_with(declaration={"tensor": "__wio__/declaration", "sha256": "0" * 64}),
            ).bytes(),
            "declaration",
            "a declaration outside the header that points to another",
            ("declaration",),
        ),
    }


# --- files that another tool has saved again


def _stale() -> dict[str, Invalid]:
    def saved(
        change: Callable[[Document], Document], description: str, data: bytes = KERNEL.data + BIAS.data
    ) -> Invalid:
        header_of = File([KERNEL, BIAS], bend_header=change)
        raw = header_of.bytes()
        length = int.from_bytes(raw[:8], "little")
        return Invalid(raw[: 8 + length] + data, "stale", description, ("saved",), schema=False)

    def renamed(header: Document) -> Document:
        return {("conv1/b" if name == "conv1/bias" else name): entry for name, entry in header.items()}

    def swapped(header: Document) -> Document:
        bias, kernel = len(BIAS.data), len(KERNEL.data)
        return {
            "__metadata__": header["__metadata__"],
            BIAS.name: {**header[BIAS.name], "data_offsets": [0, bias]},
            KERNEL.name: {**header[KERNEL.name], "data_offsets": [bias, bias + kernel]},
        }

    def transposed(header: Document) -> Document:
        header[KERNEL.name] = {**header[KERNEL.name], "shape": [3, 2, 1, 1]}
        return header

    def retyped(header: Document) -> Document:
        header[BIAS.name] = {**header[BIAS.name], "dtype": "I32"}
        return header

    def dropped(header: Document) -> Document:
        return {name: entry for name, entry in header.items() if name != BIAS.name}

    def added(header: Document) -> Document:
        end = len(KERNEL.data) + len(BIAS.data)
        return {**header, "added": {"dtype": "U8", "shape": [1], "data_offsets": [end, end + 1]}}

    return {
        "stale_renamed": saved(renamed, "saved again with another name"),
        "stale_order": saved(swapped, "saved again in another order", BIAS.data + KERNEL.data),
        "stale_shape": saved(transposed, "saved again with another shape of the same size"),
        "stale_dtype": saved(retyped, "saved again with another dtype of the same size"),
        "stale_dropped": saved(dropped, "saved again without a tensor", KERNEL.data),
        "stale_added": saved(added, "saved again with one more tensor", KERNEL.data + BIAS.data + b"\0"),
    }
