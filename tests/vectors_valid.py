"""The valid test vectors: what each file is made of, and the reading that every reader must arrive at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from vector_files import File, Vector, compact, floats, framed, numbers, strings

RECEIPT = {"wio": 1, "source": {"file": "model.h5", "adapter": "keras-tf"}, "steps": [], "note": "größer"}
LAYOUT_FORMS = (
    ("conv.kernel", "HWIO", (1, 2, 3, 2)),
    ("conv.kernel", "OIHW flipped", (2, 1, 1, 2)),
    ("conv.kernel", "WIO", (2, 1, 2)),
    ("conv.kernel", "W1IO flipped", (2, 1, 1, 2)),
    ("conv.kernel", "DHWIO", (1, 2, 1, 2, 1)),
    ("conv.kernel", "(GO)IHW G=2", (4, 1, 1, 1)),
    ("conv.kernel", "HWI(GO) flipped G=2", (1, 1, 1, 4)),
    ("conv_transpose.kernel", "HWOI", (1, 1, 2, 1)),
    ("conv_transpose.kernel", "(GI)OHW G=2", (4, 1, 1, 1)),
    ("depthwise.kernel", "HWCM", (1, 1, 2, 2)),
    ("depthwise.kernel", "(CM)1HW C=2 M=2", (4, 1, 1, 1)),
    ("dense.kernel", "IO", (2, 3)),
    ("dense.kernel", "(HWC)O H=1 W=2 C=2", (4, 2)),
    ("dense.kernel", "O(CHW) C=2 H=1 W=2", (2, 4)),
    ("dense.kernel", "(HWC)O H=1 W=2", (4, 1)),
    ("dense.kernel", "(?)O", (4, 1)),
    ("lstm.kernel", "I(GU) G=ifco", (1, 8)),
    ("lstm.kernel", "1(GU)I G=iofc", (1, 4, 2)),
    ("gru.bias", "B(GU) G=zrh", (2, 3)),
    ("lstm.kernel", "I(GU) G=i", (2, 2)),
    ("lstm.kernel", "I(GU) values=UI G=ifco", (2, 4)),
    ("lstm.recurrent_bias", "F(GU) G=ifco", (2, 4)),
    ("locally_connected.kernel", "(YX)(HWI)O H=1 W=2 I=1", (4, 2, 1)),
    ("locally_connected.bias", "YXO values=OYX", (1, 2, 2)),
    ("maxout.kernel", "MIO", (2, 1, 2)),
    ("prelu.alpha", "1C1", (1, 3, 1)),
    ("batch_norm.gamma", "(HWC) H=0 W=2 C=3", (0,)),
    ("dense.bias", "O", (3,)),
    (None, "()", ()),
)
# Texts of the grammar that are not the canonical ones, and the layouts they are.
OTHER_TEXTS = (
    ("(HWC)O C=2 H=1 W=1", "(HWC)O H=1 W=1 C=2", (2, 1)),
    ("I(GU) G=ijfo", "I(GU) G=icfo", (1, 4)),
    ("I(GU) G=ifgo", "I(GU) G=ifco", (1, 4)),
    ("(GU) G=rzn", "(GU) G=rzh", (3,)),
    ("(H)(W)IO", "HWIO", (1, 1, 1, 1)),
    ("HWIO  flipped ", "HWIO flipped", (1, 1, 1, 1)),
    ("HWI(GO) G=01 flipped", "HWI(GO) flipped G=1", (1, 1, 1, 1)),
    ("YXO values=YXO", "YXO", (1, 1, 1)),
    ("I(GU) values=IU G=ifco", "I(GU) G=ifco", (1, 4)),
)
ROLES_WITHOUT_LAYOUT = ("optimizer", "moving_average", "counter", "other")


def reading(file: File, description: str, tensors: Sequence[Vector] | None = None, **more: Any) -> dict[str, Any]:
    """The JSON that says what a reader must find in a file, in the declared order."""
    found = [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "role": tensor.role,
            "layout": tensor.layout,
            "origin": tensor.origin,
            "layer": default_layer(tensor.name) if tensor.layer is None else tensor.layer,
            "sha256": sha256(tensor.data).hexdigest(),
            "bytes": tensor.data.hex(),
            "values": tensor.values,
        }
        for tensor in tensors or file.tensors
    ]
    unknown = {tensor.name: dict(tensor.unknown) for tensor in file.tensors if tensor.unknown}
    return {
        "description": description,
        "tensors": found,
        "metadata": dict(file.metadata),
        "receipt": None if file.receipt is None else json.loads(file.receipt),
        "unknown_keys": {"file": dict(file.unknown), "tensors": unknown},
        **more,
    }


def default_layer(name: str) -> str:
    """The layer of a tensor whose layer is not declared."""
    for separator in "/._":
        if separator in name:
            return name[: name.rindex(separator)]
    return name


def valid_vectors() -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Each vector's name, bytes and reading."""
    vectors: dict[str, tuple[bytes, dict[str, Any]]] = {}

    def add(
        name: str, description: str, file: File, raw: bytes | None = None, read: Sequence[Vector] | None = None
    ) -> None:
        vectors[name] = (file.bytes() if raw is None else raw, reading(file, description, read))

    conv = floats("conv1/kernel", (1, 2, 1, 3), role="conv.kernel", layout="HWIO")
    bias = floats("conv1/bias", (3,), 100, role="conv.bias", layout="O")
    half = numbers("scale", "float16", (1,), [0.5])
    byte = numbers("mask", "bool", (3,), [True, False, True])

    add("empty", "no tensors at all", File([]))
    add("plain", "a kernel and its bias", File([conv, bias]))
    add("undeclared", "a tensor without role and layout can be stored and copied", File([floats("weights", (2, 2))]))
    add("dtypes", "every dtype that safetensors has", File(_native()))
    add("encoded", "every dtype that safetensors lacks, kept as U8", File(_encoded()))
    add("strings", "byte strings and variants, empty, long, of rank 0 and of no elements", File(_strings()))
    add("shapes", "rank 0, rank 8, and tensors without elements", File(_shapes()))
    add("names", "names that need care", File(_names()))
    add("layouts", "every form of layout", File(_layouts()))
    other = [floats(f"t{k}", shape, layout=text) for k, (text, _, shape) in enumerate(OTHER_TEXTS)]
    canonical = [floats(f"t{k}", shape, layout=text) for k, (_, text, shape) in enumerate(OTHER_TEXTS)]
    add("layout_texts", "texts of layouts that are not the canonical ones", File(other), read=canonical)
    add("roles", "roles without a layout, and a role whose layout is not declared", File(_roles()))
    add("origin_and_layer", "names in the source, and layers that are not part of the name", File(_origins()))
    add("metadata", "metadata of the file, known and unknown keys", File([conv], metadata=_metadata()))
    add(
        "unknown_keys",
        "keys that version 1 does not know are kept",
        File([_with_unknown(conv), bias], unknown={"later": [1]}),
    )
    receipt = compact(RECEIPT).encode()
    add("receipt", "a receipt", File([conv, bias], receipt=receipt))
    add("declaration_outside", "the declaration in a tensor of its own", File([conv, bias, half], outside=True))
    both = File([half, conv], outside=True, receipt=receipt)
    add("declaration_outside_and_receipt", "the declaration in a tensor of its own, and a receipt", both)
    later = File([conv], reserved={"__wio__/later": b"\x01\x02\x03"})
    add("reserved_unknown", "a reserved tensor that version 1 does not know is not shown", later)
    last = File([conv, bias], extra_metadata={}, bend_header=_declaration_last)
    add("declaration_last", "the declaration neither first in the metadata nor the metadata first in the header", last)
    other_data = File([bias, half, byte, conv], in_data_order=[byte, conv, half, bias])
    add("data_order", "data in another order than the declaration, and not aligned", other_data)
    add("declared_order", "tensors declared in another order than their data", File([byte, half, conv]))
    unpadded = File([conv, byte])
    add("unpadded", "a header that is not padded to eight bytes", unpadded, unpadded.bytes(pad=False))
    add("escapes", "a header and a declaration with JSON escapes", *_escaped(conv))
    spaced = File([conv], bend_text=lambda text: json.dumps(json.loads(text), indent=1))
    add("spaced", "a declaration with line breaks", spaced)
    shared = File(
        [conv], bend_document=lambda document: {**document, "layouts": ["IO", "HWIO", "HWIO"], **_layout_two(document)}
    )
    add("layout_table", "layouts that nothing uses, or that stand twice", shared)
    return vectors


def _layout_two(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"tensors": [{**document["tensors"][0], "layout": 2}]}


def _raw(name: str, dtype: str, data: Sequence[int], values: Sequence[Any]) -> Vector:
    """A tensor of a small float or integer type, its bytes given by hand."""
    return Vector(name, dtype, (len(values),), bytes(data), list(values))


def _native() -> list[Vector]:
    top = {"uint8": 255, "uint16": 65535, "uint32": 2**32 - 1, "uint64": 2**64 - 1}
    found = [numbers(dtype, dtype, (3,), [0, 1, most]) for dtype, most in top.items()]
    found += [
        numbers(f"int{bits}", f"int{bits}", (3,), [-(2 ** (bits - 1)), -1, 2 ** (bits - 1) - 1])
        for bits in (8, 16, 32, 64)
    ]
    found += [
        numbers("bool", "bool", (2,), [False, True]),
        numbers("float16", "float16", (3,), [-0.5, 65504.0, 2.0**-24]),
        _raw("bfloat16", "bfloat16", [0x80, 0x3F, 0x49, 0xC0, 0x01, 0x00], [1.0, -3.140625, 2.0**-133]),
        numbers("float32", "float32", (3,), [0.1015625, -(2.0**127), 2.0**-149]),
        numbers("float64", "float64", (3,), [0.1, -1e300, 5e-324]),
        numbers("complex64", "complex64", (2,), [[1.5, -2.0], [0.0, 1.0]]),
        _raw("float8_e5m2", "float8_e5m2", [0x3C, 0xC0, 0x7B, 0x01], [1.0, -2.0, 57344.0, 2.0**-16]),
        _raw("float8_e4m3fn", "float8_e4m3fn", [0x38, 0xC0, 0x7E, 0x01], [1.0, -2.0, 448.0, 2.0**-9]),
        _raw("float8_e8m0fnu", "float8_e8m0fnu", [0x7F, 0x80, 0x00, 0xFE], [1.0, 2.0, 2.0**-127, 2.0**127]),
        _raw("nan", "float32", [0, 0, 0xC0, 0x7F, 0, 0, 0x80, 0xFF], ["nan", "-inf"]),
    ]
    return found


def _encoded() -> list[Vector]:
    return [
        _raw("float8_e4m3fnuz", "float8_e4m3fnuz", [0x40, 0xC8, 0x7F, 0x01], [1.0, -2.0, 240.0, 2.0**-10]),
        _raw("float8_e5m2fnuz", "float8_e5m2fnuz", [0x40, 0xC4, 0x7F, 0x01], [1.0, -2.0, 57344.0, 2.0**-17]),
        _raw("float8_e4m3b11fnuz", "float8_e4m3b11fnuz", [0x58, 0xE0, 0x7F, 0x01], [1.0, -2.0, 30.0, 2.0**-13]),
        numbers("complex128", "complex128", (2,), [[0.1, -1e300], [0.0, 5e-324]]),
        _raw("int2", "int2", [0, 1, 2, 3], [0, 1, -2, -1]),
        _raw("uint2", "uint2", [0, 1, 2, 3], [0, 1, 2, 3]),
        _raw("int4", "int4", [0, 7, 8, 15], [0, 7, -8, -1]),
        _raw("uint4", "uint4", [0, 7, 8, 15], [0, 7, 8, 15]),
        numbers("qint8", "qint8", (2, 1), [-128, 127]),
        numbers("quint8", "quint8", (2,), [0, 255]),
        numbers("qint16", "qint16", (2,), [-32768, 32767]),
        numbers("quint16", "quint16", (2,), [0, 65535]),
        numbers("qint32", "qint32", (2,), [-(2**31), 2**31 - 1]),
        Vector("int4 scalar", "int4", (), b"\x0f", [-1]),
        Vector("complex128 of no elements", "complex128", (0, 2), b"", []),
    ]


def _strings() -> list[Vector]:
    return [
        strings("vocabulary", (2, 2), [b"caf\xc3\xa9", b"", b"\x00\xff", b"the"]),
        strings("long", (1,), [b"x" * 200]),
        strings("scalar", (), [b"graph"]),
        strings("none", (0, 3), []),
        strings("variant", (1,), [b"\x01\x02\x03"], "variant"),
    ]


def _shapes() -> list[Vector]:
    return [
        floats("scalar", ()),
        floats("none", (0,)),
        floats("none in the middle", (3, 0, 2)),
        floats("rank 8", (1, 1, 2, 1, 1, 1, 1, 1)),
        numbers("int8 scalar", "int8", (), [-7]),
        floats("one", (1,), 5),
    ]


def _names() -> list[Vector]:
    names = [
        "",
        " ",
        "a",
        "a/b",
        "a|b",
        "a}b",
        "InceptionV4/Mixed_5b/Branch_0/Conv2d_0a_1x1/weights:0",
        "/leading//double/trailing/",
        "größe/核/🙂",
        "e\u0301 is not \u00e9",
        "\u00e9 is not e\u0301",
        'quote " and backslash \\',
        "line\nbreak\tand \u0001 control",
        "wio",
        "__wio__",
        "__metadata__x",
        "model_weights/conv/kernel.ATTRIBUTES/VARIABLE_VALUE",
    ]
    return [floats(name, (1,), k) for k, name in enumerate(names)]


def _layouts() -> list[Vector]:
    return [
        floats(f"t{k}", shape, role=role, layout=text, first=10 * k)
        for k, (role, text, shape) in enumerate(LAYOUT_FORMS)
    ]


def _roles() -> list[Vector]:
    plain = [numbers(f"t{k}", "int64", (), [k], role=role) for k, role in enumerate(ROLES_WITHOUT_LAYOUT)]
    return [*plain, floats("kernel", (2, 2), role="dense.kernel"), floats("map", (2, 2), layout="HW")]


def _origins() -> list[Vector]:
    return [
        floats("conv1/kernel", (1,), origin="InceptionV4/Conv2d_1a_3x3/weights"),
        floats("conv2/kernel", (1,), origin="", layer="conv2"),
        floats("kernel", (1,), layer="dense/1"),
        floats("a/b/c", (1,), layer="a"),
        floats("a/none", (1,), layer=""),
        *(floats(name, (1,)) for name in ("a.b/c_d", "features.0.weight", "conv_1_W", "alone", "/a.b", "_a")),
    ]


def _metadata() -> dict[str, Any]:
    return {
        "adapter": "keras-theano",
        "architecture": "inception_v4",
        "dialect": "keras",
        "data_format": "channels_first",
        "flatten_order": "CHW",
        "epsilon": {"bn1": 0.001},
        "layers": [{"name": "conv1", "tensors": ["conv1/kernel"]}],
        "keras": {"backend": "theano", "version": None, "family": "1.2"},
        "someone else's": {"deep": [1, -2.5, 1e-7, True, None, "größe", []]},
    }


def _with_unknown(tensor: Vector) -> Vector:
    known = {key: getattr(tensor, key) for key in ("name", "dtype", "shape", "data", "values", "role", "layout")}
    return Vector(**known, unknown={"later": {"a": None}, "sharding": [0, 1]})


def _declaration_last(header: dict[str, Any]) -> dict[str, Any]:
    metadata = header.pop("__metadata__")
    return {**header, "__metadata__": {"format": "tf", "author": "someone", **metadata}}


def _escaped(conv: Vector) -> tuple[File, bytes]:
    """A header in which every character outside ASCII is an escape, half of a surrogate pair each where needed."""
    file = File([conv, floats("größe/🙂", (2,))], metadata={"author": "Größe 🙂"})
    raw = file.bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    return file, framed(json.dumps(header, ensure_ascii=True), raw[8 + length :])
