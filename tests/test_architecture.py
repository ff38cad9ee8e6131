"""The registry: descriptions that hold, and descriptions that are refused when they are loaded."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import TESTS, run_wio
from test_cli import arrays, make

from wio import plugins
from wio.adapter import Convention
from wio.architectures import registry_file
from wio.architectures.architecture import Architecture
from wio.architectures.habit import load_habit
from wio.architectures.registry_file import load_architecture
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.errors import FormatError, NameMapError, WioError
from wio.network import OPERATORS
from wio.port import Declarations, open_resolved
from wio.roles import PER_CHANNEL

INCEPTION = TESTS.parent / "registry" / "inception_v4.toml"

SMALL = """
id = "small"
[templates.conv]
attributes = { auto_pad = "SAME_UPPER" }
layers = [["", "Conv", "@", { bias = false }], ["bn", "BatchNormalization", "", { epsilon = 0.01, scale = false }]]
[modules.pair]
layers = [
  ["left", "conv", "@", { filters = 3, kernel_shape = [1, 3] }],
  ["right", "conv", "left", { filters = 5, kernel_shape = [3, 1] }],
]
[network]
layers = [
  ["in", "Input", [], { axes = "HWC", sizes = [4, 6, 2] }],
  ["a", "pair", "in"],
  ["pool", "MaxPool", "a", { kernel_shape = [2, 2], strides = [2, 2] }],
  ["flat", "Flatten", "pool"],
  ["fc", "Gemm", "flat", { units = 7 }],
]
[dialects.one]
adapters = ["tf-checkpoint", "wio"]
title = "t"
source = "s"
verified = "v"
layers = "net/{layer}"
drop = [["step", "a counter"]]
[dialects.one.weights]
"Conv.kernel" = "weights"
"BatchNormalization.beta" = "beta"
"BatchNormalization.mean" = "mean"
"BatchNormalization.variance" = "var"
"Gemm.kernel" = "weights"
"Gemm.bias" = "biases"
"""


def load(tmp_path: Path, text: str) -> Architecture:
    file = tmp_path / "network.toml"
    file.write_text(text)
    return load_architecture(file)


def test_modules_and_templates_are_written_out(tmp_path: Path) -> None:
    architecture = load(tmp_path, SMALL)
    assert [layer.name for layer in architecture.network.layers] == [
        *("in", "a/left", "a/left/bn", "a/right", "a/right/bn", "pool", "flat", "fc")
    ]
    assert architecture.network.layers[3].inputs == ("a/left/bn",), "a template gives out what its last layer gives out"
    names = architecture.names("one")
    assert names["net/a/right/weights"].name == "a/right/kernel"
    layouts = {p.name: str(p.layout) for p in architecture.parameters}
    assert layouts["fc/kernel"] == "(HWC)O H=2 W=3 C=5" and layouts["a/left/kernel"] == "HWIO"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('layers = "net/{layer}"', 'layers = "net"', "one name for"),
        ('"Gemm.bias" = "biases"', "", "no name for Gemm.bias"),
        ('"Gemm.bias" = "biases"', '"Gemm.bias" = "biases"\n"Conv.bias" = "b"', "does not have"),
        ('"Gemm.bias" = "biases"', '"Gemm.bias" = "weights"', "one name for"),
        ('["step", "a counter"]', '["net/fc/*", "oops"]', "drops weights of the network"),
    ],
)
def test_a_dialect_must_be_a_bijection(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in SMALL
    with pytest.raises(NameMapError, match=words):
        load(tmp_path, SMALL.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["flat", "Flatten", "pool"]', '["flat", "Flatten", "nothing"]'),
        ('["flat", "Flatten", "pool"]', '["pool", "Flatten", "a"]'),
        ("[network]", "[other]"),
        ('id = "small"', "id = "),
        ('"left", { filters = 5', '"right", { filters = 5'),
    ],
)
def test_a_broken_description_is_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(FormatError, match=r"network\.toml|layers? "):
        load(tmp_path, SMALL.replace(old, new))


def test_every_problem_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    """Eleven mistakes in one file: none hides another."""
    broken = SMALL
    for old, new in [
        ('id = "small"', 'title = "t"\nsource = "misplaced"'),
        ('["left", "conv", "@", { filters = 3', '["left", "con", "@", { filters = 3'),
        ('["flat", "Flatten", "pool"]', '["flat", "Flatten", "pol"]'),
        ('["pool", "MaxPool"', '["pool", "Maxpool"'),
        ('title = "t"\nsource = "s"', 'source = "s"'),
        ('verified = "v"', 'verifed = "v"'),
        ('"net/{layer}"', '"net/{leyer}"'),
        ('"Gemm.bias" = "biases"', '"Gem.bias" = "{layer"'),
        ('["fc", "Gemm", "flat", { units = 7 }]', '["fc", "Gemm", "flat", { unit = 7 }], ["odd", "Gemm"]'),
    ]:
        assert old in broken
        broken = broken.replace(old, new, 1) if not old.startswith("title") else broken.replace(old, new)
    with pytest.raises(FormatError) as error:
        load(tmp_path, broken)
    told = {problem.tensor: problem for problem in error.value.problems}
    assert {
        *("id", "source", "modules.pair.layers[0] left", "network.layers[3] flat", "network.layers[2] pool"),
        *("dialects.one.title", "dialects.one.verified", "dialects.one.verifed", "dialects.one.layers"),
        *("dialects.one.weights.Gem.bias", "network.layers[5]", "network: fc"),
    } <= set(told)
    assert told["network.layers[3] flat"].remedy == "did you mean pool?"
    assert told["network.layers[2] pool"].remedy == "did you mean MaxPool?"
    assert told["dialects.one.weights.Gem.bias"].message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["right", "conv", "left"', '["deeper", "pair", "left"], ["right", "conv", "left"', "none in itself"),
        ("[modules.pair]", "modules = [1]\n[other]", "means nothing here|network"),
        ("attributes = { auto_pad", "attributes = 3 #", "network"),
        ('["pool", "MaxPool", "a", {', '["pool", "MaxPool", "a", { pads = [1],', "pads of 2 spatial axes"),
    ],
)
def test_odd_tables_are_problems_not_tracebacks(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in SMALL
    with pytest.raises(FormatError, match=words):
        load(tmp_path, SMALL.replace(old, new, 1))


def test_networks_of_one_axis(tmp_path: Path) -> None:
    text = SMALL.replace("kernel_shape = [1, 3]", "kernel_shape = [3]")
    text = text.replace("kernel_shape = [3, 1]", "kernel_shape = [3]")
    text = text.replace('axes = "HWC", sizes = [4, 6, 2]', 'axes = "WC", sizes = [6, 2]')
    text = text.replace("kernel_shape = [2, 2], strides = [2, 2]", "kernel_shape = [2], strides = [2]")
    layouts = {p.name: str(p.layout) for p in load(tmp_path, text).parameters}
    assert layouts["a/left/kernel"] == "WIO" and layouts["fc/kernel"] == "(WC)O W=3 C=5"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('[[dialects.one.differs]]\nop = "Conv"\nattributes = { bias = true }\nreason = "r"', "no name for Conv.bias"),
        ('[[dialects.one.differs]]\nlayers = ["nowhere"]\nreason = "r"', "does not have nowhere"),
        ('[[dialects.one.differs]]\nop = "Conv"', "reason"),
        ('[[dialects.one.differs]]\nreason = "r"', "either op or layers"),
        ('[dialects.one.values]\n"Gemm.kernel" = { slice = "1", axis = "O", reason = "r" }', "START:STOP"),
        (
            '[dialects.one.values]\n"Gemm.kernel" = { slice = "1:", axis = "O", reason = "r" }',
            r"O\[1:\] leaves 6 of 7 outputs of fc, the port has 7: differs must say as many",
        ),
        ('[dialects.one.values]\n"Gemm.kernel" = { slice = "1:", axis = "I", reason = "r" }', "along O, the outputs"),
        ('[dialects.one.layouts]\n"conv.kernel" = "HWXQ"', "layout"),
        ('[dialects.one.words]\na = { x = "1", y = "1" }', "two texts become one"),
        ('[dialects.two]\nlike = "three"', "no dialect here"),
    ],
)
def test_a_dialect_s_other_tables_are_checked(tmp_path: Path, table: str, words: str) -> None:
    with pytest.raises((FormatError, NameMapError), match=words):
        load(tmp_path, f"{SMALL}\n{table}")


def test_a_dialect_like_another_says_only_what_differs(tmp_path: Path) -> None:
    two = '[dialects.two]\nlike = "one"\nadapters = ["caffe"]\nlayers = "other/{layer}"'
    architecture = load(tmp_path, f"{SMALL}\n{two}")
    assert [name.removeprefix("other/") for name in architecture.names("two")] == [
        name.removeprefix("net/") for name in architecture.names("one")
    ]
    assert architecture.dialects["two"].drops == architecture.dialects["one"].drops


def test_a_name_that_reads_back_as_another_s_is_refused(tmp_path: Path) -> None:
    """No two layers share a name, but a followed by bc cannot be told from ab followed by c."""
    rows = SMALL.replace('["a", "pair"', '["a/bc", "pair"').replace('"MaxPool", "a",', '"MaxPool", "a/bc",')
    words = 'words = { b = { a = "a", ab = "ab" }, c = { bc = "bc", c = "c" } }'
    patterns = 'names = [["{b}/{c}/{rest}", "{b}{c}/{rest}"]]'
    with pytest.raises(NameMapError, match="a/bc/left is spelled abc/left, which reads back as ab/c/left"):
        load(tmp_path, rows.replace('layers = "net/{layer}"', f'layers = "net/{{layer}}"\n{words}\n{patterns}'))


def test_folders_of_the_environment_add_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.toml").write_text(SMALL.replace('id = "small"', f'id = "{name}"'))
    monkeypatch.setenv("WIO_REGISTRY_PATH", os.pathsep.join(str(tmp_path / name) for name in ("first", "second")))
    assert {"first", "second", "posenet", "inception-v4"} <= set(plugins.architectures())


def test_a_shape_that_contradicts_the_architecture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same rank, other numbers: H and W swapped in a file of the very same names."""
    (tmp_path / "small.toml").write_text(SMALL)
    monkeypatch.setenv(plugins.REGISTRY_VARIABLE, str(tmp_path))
    shapes = {"a/left": (1, 3, 2, 3), "a/right": (3, 1, 3, 5)}
    tensors = {f"net/{layer}/weights": (arrays(*shape), None, None) for layer, shape in shapes.items()}
    for layer, shape in shapes.items():
        tensors |= {f"net/{layer}/bn/{leaf}": (arrays(shape[-1]), None, None) for leaf in ("beta", "mean", "var")}
    tensors |= {"net/fc/weights": (arrays(30, 7), None, None), "net/fc/biases": (arrays(7), None, None)}
    tensors["step"] = (np.array(3), None, None)
    good = make(tmp_path / "good.wio", tensors)
    resolved = open_resolved(good, told=Declarations(arch="small"))
    assert len(resolved.bundle) == 10 and resolved.dropped == {"step": "a counter"}
    assert resolved.bundle["a/left/kernel"].origin == "net/a/left/weights"
    tensors["net/a/left/weights"] = (arrays(3, 1, 2, 3), None, None)
    swapped = make(tmp_path / "swapped.wio", tensors)
    with pytest.raises(NameMapError) as error:
        open_resolved(swapped, told=Declarations(arch="small"))
    assert error.value.problems[0].tensor == "net/a/left/weights"


def test_a_file_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture that is asked for costs its own file; another that is broken is not read."""
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "broken.toml").write_text("id = ")
    (tmp_path / "secret.toml").write_text(SMALL.replace('"small"', '"folder/../secret"'))
    monkeypatch.setenv(plugins.REGISTRY_VARIABLE, str(tmp_path))
    assert plugins.architecture_named("small") is plugins.architecture_named("small")
    with pytest.raises(FormatError, match=r"broken\.toml"):
        plugins.architectures()
    (tmp_path / "broken.toml").unlink()
    with pytest.raises(WioError, match="which is looked for in"):
        plugins.architecture_named("folder/../secret")
    (tmp_path / "secret.toml").unlink()
    with pytest.raises(WioError, match="no architecture is named"):
        plugins.architecture_named("smal")
    (tmp_path / "other.toml").write_text(SMALL)
    done = run_wio("registry", "check", tmp_path / "other.toml", code=2)
    assert "other.toml describes small, which is looked for in small.toml" in done.stderr
    run_wio("registry", "check", tmp_path / "small.toml")


def test_a_dialect_is_checked_when_it_is_used(tmp_path: Path) -> None:
    broken = '[dialects.two]\nlike = "one"\nadapters = ["caffe"]\nlayers = "net"'
    (tmp_path / "small.toml").write_text(f"{SMALL}\n{broken}")
    architecture = load_architecture(tmp_path / "small.toml", every_dialect=False)
    assert "net/fc/weights" in architecture.names("one")
    with pytest.raises(NameMapError, match="one name for"):
        architecture.names("two")
    with pytest.raises(NameMapError, match="one name for"):
        load_architecture(tmp_path / "small.toml")


def test_inception_v4_is_what_slim_and_the_keras_port_build() -> None:
    """Names and order against an independent builder of the network (tests/judges)."""
    import inception_v4_slim

    architecture = load_architecture(INCEPTION)
    variables = inception_v4_slim.variable_shapes()
    names = architecture.names("tf-slim")
    ours = {name for name in variables if not name.startswith("InceptionV4/AuxLogits") and name != "global_step"}
    assert set(names) == ours
    scopes = [scope.removeprefix("InceptionV4/") for scope in inception_v4_slim.conv_scopes()]
    convolutions = [layer.name for layer in architecture.network.layers if layer.op == "Conv"]
    assert convolutions == [scope for scope in scopes if not scope.startswith("AuxLogits")]
    keras = {p.name: name for name, p in architecture.names("keras").items()}
    assert keras[f"{convolutions[76]}/kernel"] == "conv2d_77/kernel"
    logits = next(p for p in architecture.parameters if p.name == "Logits/Logits/kernel")
    assert str(logits.layout) == "(HWC)O H=1 W=1 C=1536"


@pytest.mark.parametrize("name", ["tf-slim", "keras"])
def test_habits_load(name: str) -> None:
    assert load_habit(INCEPTION.parent / "dialects" / f"{name}.toml").id == name


def test_a_habit_says_axes_or_a_layout(tmp_path: Path) -> None:
    rules = '[["*/w", "conv.kernel", "HWIO"], { glob = "*/v", role = "conv.kernel", layout = "WHIO flipped" }]'
    path = tmp_path / "habit.toml"
    path.write_text(f'id = "x"\ntitle = "x"\nadapters = []\nrules = {rules}\n')
    array = np.zeros((5, 4, 3, 2), np.float32)
    tensors = [Tensor(name, DTYPES["float32"], array.shape, lambda: array) for name in ("a/w", "a/v", "a/other")]
    declared = load_habit(path).declare(Bundle(tensors), Convention.of({"conv.kernel": ("OIHW",)}))
    assert [str(t.layout) for t in declared.values()] == ["OIHW", "WHIO flipped", "None"]


def test_every_rule_of_a_habit_that_is_wrong_is_told(tmp_path: Path) -> None:
    rules = '[["*", "conv.kernle"], ["*", "conv.bias", "HWIO"], { glob = "*", role = "conv.bias" }, ["*"], 3]'
    path = tmp_path / "habit.toml"
    path.write_text(f'id = "x"\ntitle = "x"\nadapters = []\nrules = {rules}\n')
    with pytest.raises(FormatError) as caught:
        load_habit(path)
    assert [problem.tensor for problem in caught.value.problems] == [f"rules[{k}]" for k in range(5)]


def test_the_specification_names_what_the_code_reads() -> None:
    text = (TESTS.parent / "spec" / "registry-1.md").read_text()
    _, network, pictures, _, dialects, differences, _ = text.split("\n## ")
    operators = next(line for line in network.split("\n\n") if line.startswith("`Input`"))
    assert set(operators.replace("`", "").split()) == OPERATORS
    rows = [row.split("|")[1] for row in dialects.splitlines() if row.startswith("| `")]
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert keys == set(registry_file.DIALECT_KEYS)
    table, _, rest = pictures.partition("`classes` is")
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(registry_file.PREPROCESSING_KEYS)
    assert set(re.findall(r"`(\w+)`", rest)) == set(registry_file.CLASSES_KEYS)
    assert set(registry_file.DIFFERENCE_KEYS) <= set(re.findall(r"`(\w+)`", differences))


@pytest.mark.parametrize("path", sorted(INCEPTION.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_of_the_registry_says_where_it_comes_from(path: Path) -> None:
    for dialect in load_architecture(path).dialects.values():
        assert dialect.adapters and dialect.source and dialect.verified and dialect.verified_by


@pytest.mark.parametrize(
    ("name", "shape", "letter"),
    [
        ("net/a/left/weights", (1, 3, 3, 3), "I is 3, not 2"),
        ("net/a/right/weights", (3, 1, 2, 5), "I is 2, not 3"),
        ("net/a/right/bn/mean", (4,), "C is 4, not 5"),
        ("net/fc/weights", (30, 6), "O is 6, not 7"),
        ("net/fc/biases", (6,), "O is 6, not 7"),
    ],
)
def test_channels_that_do_not_come_in_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], letter: str
) -> None:
    architecture = load(tmp_path, SMALL)
    vectors = dict.fromkeys(PER_CHANNEL, ("C",))
    layouts = {"conv.kernel": ("HWIO",), "dense.kernel": ("(HWC)O",), "dense.bias": ("O",), **vectors}
    read = partial(architecture.read, dialect=architecture.dialects["one"], convention=Convention.of(layouts))
    kernels = {"net/a/left/weights": (1, 3, 2, 3), "net/a/right/weights": (3, 1, 3, 5), "net/fc/weights": (30, 7)}
    outputs = {"net/a/left": 3, "net/a/right": 5, "net/fc": 7}
    sound = {
        each: kernels.get(each) or next((size,) for start, size in outputs.items() if each.startswith(start))
        for each in architecture.names("one")
    }
    read(_zeros(sound))
    with pytest.raises(NameMapError) as error:
        read(_zeros(sound | {name: shape}))
    assert [(problem.tensor, letter in problem.message) for problem in error.value.problems] == [(name, True)]


def _zeros(shapes: dict[str, tuple[int, ...]]) -> Bundle:
    made = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    tensors = (Tensor(name, DTYPES["float32"], a.shape, lambda a=a: a) for name, a in made.items())
    return Bundle(tensors, {"adapter": "tf-checkpoint"})
