"""Caffe models read with the network's definition beside them: a .prototxt file in protobuf's text format."""

from __future__ import annotations

from pathlib import Path

import caffe_files as cf
import pytest
from caffe_files import W, blob, layer
from test_caffe_read import EXPECTED, declared, read

from wio.adapters._caffe_prototxt import parse
from wio.adapters._protobuf import WireError
from wio.errors import FormatError


def prototxt(folder: Path, text: str) -> dict[str, str]:
    path = folder / "net.prototxt"
    path.write_text(text)
    return {"prototxt": str(path)}


DATA = layer("data", "Data", (), ("data", "label"))


def test_a_prototxt_gives_the_input_that_training_did_not_state(tmp_path: Path) -> None:
    content = cf.network(start=DATA)
    assert str(read(tmp_path, content)["ip1/weight"].layout) == "O(CHW) C=4"
    told = read(tmp_path, content, **prototxt(tmp_path, cf.PROTOTXT))
    assert declared(told) == EXPECTED


def test_layers_that_only_training_had_are_inferred_from_the_input(tmp_path: Path) -> None:
    short = cf.PROTOTXT[: cf.PROTOTXT.index('layer { name: "ip1"')]
    told = read(tmp_path, cf.network(start=DATA), **prototxt(tmp_path, short))
    assert declared(told) == EXPECTED


def test_a_prototxt_of_inputs_alone(tmp_path: Path) -> None:
    for text in (
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 7 input_dim: 8',
        'input: "data" input_shape { dim: 1 dim: 3 dim: 7 dim: 8 }',
    ):
        assert declared(read(tmp_path, cf.network(start=DATA), **prototxt(tmp_path, text))) == EXPECTED


def test_a_prototxt_defines_layers_that_the_weights_do_not(tmp_path: Path) -> None:
    bare = b"".join(
        layer(name, kind, (), (), [blob(W[f"{name}/{short}"]) for short in ("weight", "bias")])
        for name, kind in (("conv1", "Convolution"), ("grouped", "Convolution"), ("ip1", "InnerProduct"))
    )
    told = read(tmp_path, bare, **prototxt(tmp_path, cf.PROTOTXT))
    assert declared(told) == {name: EXPECTED[name] for name in told}
    assert len(told) == 6


def test_phases_of_a_definition(tmp_path: Path) -> None:
    text = (
        'layer { name: "d" type: "Input" top: "data" include { phase: TRAIN } input_param { shape { dim: 1 dim: 1 } } }'
    )
    told = read(tmp_path, cf.network(start=DATA), **prototxt(tmp_path, text + cf.PROTOTXT))
    assert declared(told) == EXPECTED


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("group: 2", "group: 3", "group 2"),
        ("num_output: 3", "num_output: 4", "num_output 3"),
        ('type: "Deconvolution"', 'type: "Convolution"', "type 'Deconvolution'"),
    ],
)
def test_a_prototxt_of_another_network_is_refused(tmp_path: Path, old: str, new: str, match: str) -> None:
    with pytest.raises(FormatError, match="does not define") as caught:
        read(tmp_path, cf.network(), **prototxt(tmp_path, cf.PROTOTXT.replace(old, new)))
    assert match in str(caught.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("layer {", "line 1: the file ends where } is due"),
        ("layer }", "a value of layer is due"),
        ("name: 5", "'5' is no value of name"),
        ('\n\nlayer { convolution_param { num_output: "x" } }', "line 3"),
        ("input_dim: 99999999999999999999999", "no value of input_dim"),
        ("layer: 3", "layer is a message"),
        ("name { }", "name is no message"),
        ("layers { type: WHATEVER }", "no value of type"),
        ("input_dim: [1, 2", "input_dim"),
        ("@", "has no meaning"),
        ("a {" * 200, "deeper"),
        ("layer { lrn_param { alpha: nan } }", "no value of alpha"),
        ("layer { } layers { }", "side by side"),
    ],
)
def test_a_prototxt_that_is_none(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(FormatError, match=r"net\.prototxt") as caught:
        read(tmp_path, cf.network(), **prototxt(tmp_path, text))
    assert match in str(caught.value)


def test_a_prototxt_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        read(tmp_path, cf.network(), prototxt=str(tmp_path / "none"))
    with pytest.raises(FormatError, match="no text"):
        read(tmp_path, cf.network(), prototxt=str(cf.put(tmp_path, b"\xff\xfe\xff", "x")))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ('"M\\303\\274ller"', "M\u00fcller"),
        ('"M\\xc3\\xBCller"', "M\u00fcller"),
        ('"M\\u00fcller"', "M\u00fcller"),
        ('"M\u00fcller"', "M\u00fcller"),
        ("'a\\'b\\\\' \"\\t\"", "a'b\\\t"),
        ('"\\303" "\\274"', "\u00fc"),
        ('"\\0001"', "\x001"),
    ],
)
def test_escapes_are_those_of_the_text_format(written: str, name: str) -> None:
    """Protobuf prints what is no ASCII as the octal numbers of its UTF-8."""
    assert parse(f"name: {written}") == {"name": [name]}


@pytest.mark.parametrize("written", ['"\\377"', '"\\777"', '"\\ud800"', '"\\q"', '"\\x"'])
def test_escapes_of_no_text_are_refused(written: str) -> None:
    with pytest.raises(WireError, match=r"line 1: .* is no text"):
        parse(f"name: {written}")
