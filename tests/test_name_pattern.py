"""Name patterns: one parsed value, both directions. By property, and the facts that a property cannot say."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wio.architectures.dialect import Dialect, LayerRule
from wio.architectures.name_pattern import Pattern
from wio.errors import NameMapError
from wio.network import NetLayer, Network

LITERALS = st.text("ab/._-1", max_size=4)
FIELDS = st.lists(st.sampled_from(["layer", "k", "block", "part"]), max_size=4, unique=True)
WORDS = st.lists(st.text("ab/.1", max_size=3), min_size=1, max_size=4, unique=True)


@st.composite
def patterns(draw: st.DrawFn) -> tuple[Pattern, dict[str, str]]:
    """A pattern, some of its fields with words, and a value for each field."""
    fields = draw(FIELDS)
    words = {field: draw(WORDS) for field in fields if field in ("block", "part")}
    literals = [draw(LITERALS) for _ in range(len(fields) + 1)]
    text = literals[0] + "".join(f"{{{field}}}{literal}" for field, literal in zip(fields, literals[1:], strict=True))
    values = {
        field: draw(st.sampled_from(words[field]))
        if field in words
        else str(draw(st.integers(1, 120)))
        if field == "k"
        else draw(st.text("ab/.1", min_size=1, max_size=5))
        for field in fields
    }
    return Pattern.parse(text, words), values


@given(patterns())
def test_what_a_pattern_writes_it_reads(made: tuple[Pattern, dict[str, str]]) -> None:
    """It finds values that give the same name; they are the same values unless the name can be cut in two ways."""
    pattern, values = made
    name = pattern.format(values)
    read = pattern.match(name)
    assert read is not None and pattern.format(read) == name
    if len(pattern.fields) <= 1:
        assert read == values


@given(patterns())
def test_a_pattern_is_its_text(made: tuple[Pattern, dict[str, str]]) -> None:
    pattern = made[0]
    words = {field: each for field, each in zip(pattern.fields, pattern.words, strict=True) if each is not None}
    assert Pattern.parse(str(pattern), words) == pattern


@pytest.mark.parametrize("text", ["{layer", "layer}", "{}", "{Layer}", "{a b}", "{layer}/{layer}", "{{layer}}"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(NameMapError, match="pattern"):
        Pattern.parse(text)


def test_a_word_that_begins_with_another_is_read_whole() -> None:
    pattern = Pattern.parse("{block}{part}", {"block": ["b1", "b1_0", "b1_0a"], "part": ["", ".conv"]})
    assert pattern.match("b1_0a.conv") == {"block": "b1_0a", "part": ".conv"}
    assert pattern.match("b1_0b") is None


def dialect(*rules: LayerRule, words: dict[str, dict[str, str]] | None = None) -> Dialect:
    return Dialect("one", "t", "s", "v", (), rules, {}, words=words or {})


@given(st.lists(st.sampled_from(["Conv", "Relu", "Gemm"]), min_size=1, max_size=12))
def test_counters_follow_the_order_of_creation(ops: list[str]) -> None:
    """The k-th of its operator is called k, whatever stands between; read back, the names are told apart."""
    layers = [NetLayer(f"l{place}", op, {}, (f"l{place - 1}",) if place else ()) for place, op in enumerate(ops)]
    every = Pattern.parse("{layer}")
    rules = [LayerRule(op, every, Pattern.parse(f"{op.lower()}_{{k}}")) for op in ("Conv", "Gemm")]
    names = dialect(*rules).layer_names(Network(tuple(layers)))
    for op in ("Conv", "Gemm"):
        mine = [names[layer.name] for layer in layers if layer.op == op]
        assert mine == [f"{op.lower()}_{k}" for k in range(1, len(mine) + 1)]
    assert all(names[layer.name] is None for layer in layers if layer.op == "Relu")


@given(st.dictionaries(st.text("ab/", min_size=1, max_size=4), st.text("xy.", min_size=1, max_size=4), min_size=1))
def test_words_go_both_ways(table: dict[str, str]) -> None:
    assume(len(set(table.values())) == len(table))
    words = {"block": table}
    rule = LayerRule(
        None,
        Pattern.parse("net/{block}/{rest}", {"block": tuple(table)}),
        Pattern.parse("m.{block}-{rest}", {"block": tuple(table.values())}),
    )
    for here, there in table.items():
        spelled = rule.spell(NetLayer(f"net/{here}/conv", "Conv"), 1, words)
        assert spelled == f"m.{there}-conv"
        assert f"net/{here}/conv" in set(dialect(rule, words=words).layers_read(spelled))
