"""The tables in ``spec/wio-1.md`` that follow from the code. ``python tests/spec_tables.py`` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wio.dtypes import DTYPES
from wio.layout import LETTERS, Layout
from wio.plugins import adapter_named
from wio.roles import ROLES, neutral_layouts

SPEC = Path(__file__).parent.parent / "spec" / "wio-1.md"
_PART = re.compile(r"(?<=<!-- generated: )(?P<name>[\w-]+)(?P<open> -->\n)(?P<body>.*?)(?=<!-- end -->)", re.DOTALL)
_KERAS = [(version, form) for version in ("1.2", "2.0", "2.2") for form in ("channels_last", "channels_first")]
# Adapters with one convention; a block of this name in the spec holds its table.
_PLAIN = ("tf-checkpoint", "caffe", "torch", "onnx", "keras3")
_Row = tuple[tuple[Layout, ...], ...]
# What the layers and weights are, where the name of the role does not say it.
_MEANINGS = {
    "conv.kernel": "convolution over 1, 2 or 3 spatial axes, grouped or not",
    "conv_transpose.kernel": "transposed convolution; of groups, `I` and `O` are channels of one group",
    "depthwise.kernel": "depthwise convolution; output channel c * M + m",
    "depthwise.bias": "its outputs: `O` counts the channels c * M + m",
    "separable.depthwise_kernel": "the depthwise half of a separable convolution",
    "separable.pointwise_kernel": "the 1x1 half of a separable convolution",
    "dense.kernel": "y = x W; rows `I`, or a flattened map",
    "embedding.table": "`I` counts the entries, `O` their features",
    "batch_norm.gamma": "scale",
    "batch_norm.beta": "offset",
    "batch_norm.mean": "moving mean",
    "batch_norm.variance": "moving variance",
    "batch_norm.std": "moving standard deviation, of early Keras",
    "layer_norm.gamma": "scale",
    "layer_norm.beta": "offset",
    "instance_norm.gamma": "scale",
    "instance_norm.beta": "offset",
    "prelu.alpha": "the slope below zero, over the axes of a map",
    "rnn.kernel": "input to state of a plain recurrent layer",
    "rnn.recurrent_kernel": "state to state; `I` is the old state",
    "lstm.kernel": "input to gates",
    "lstm.recurrent_kernel": "state to gates; `I` is the old state",
    "rnn.bias": "one bias, or one each for input and state (`B`)",
    "rnn.input_bias": "the bias of the input, where `bias` is its sum with the next",
    "rnn.recurrent_bias": "the bias of the state",
    "lstm.bias": "one bias for each gate, or one each for input and state (`B`)",
    "lstm.input_bias": "the biases of the input, where `bias` is their sum with the next",
    "lstm.recurrent_bias": "the biases of the state",
    "lstm.peephole": "from the cell to the gates",
    "gru.kernel": "input to gates",
    "gru.recurrent_kernel": "state to gates; `I` is the old state",
    "gru.bias": "one bias for each gate, or one each for input and state (`B`)",
    "gru.input_bias": "the biases of the input",
    "gru.recurrent_bias": "the biases of the state; that of `h` is inside the reset gate if it applies after",
    "conv_lstm.kernel": "convolution of the input, for each gate",
    "conv_lstm.recurrent_kernel": "convolution of the state, for each gate",
    "locally_connected.kernel": "a kernel of its own for every output position",
    "maxout.kernel": "`M` dense kernels of which the largest output counts",
    "highway.carry_kernel": "the gate between the layer and its input",
    "highway.carry_bias": "the gate's bias",
    "optimizer": "a slot of an optimizer, or a value of its own",
    "moving_average": "a smoothed copy of a weight",
    "counter": "a number of steps",
    "other": "known to be none of these",
}


def tables() -> dict[str, str]:
    """Each generated part of the spec by its name."""
    return {
        "dtypes": _table(
            ("dtype", "size", "safetensors", "alignment", "encoding"),
            (
                (
                    f"`{t}`",
                    str(t.itemsize or "varies"),
                    f"`{t.safetensors or 'U8'}`",
                    str(_alignment(t.name)),
                    _code(t.encoding),
                )
                for t in DTYPES.values()
            ),
        ),
        "letters": _table(("letter", "axis"), ((f"`{letter}`", meaning) for letter, meaning in LETTERS.items())),
        "roles": _table(
            ("role", "neutral layouts", "meaning"),
            ((f"`{role}`", _layouts(neutral_layouts(role)), _MEANINGS.get(role, "")) for role in ROLES),
        ),
        **{name: _convention({role: (held,) for role, held in _of(name).items()}, ("layouts",)) for name in _PLAIN},
        "keras": _keras(),
    }


def written(text: str) -> dict[str, str]:
    """The generated parts as a text of the spec has them."""
    return {part["name"]: part["body"] for part in _PART.finditer(text)}


def rewritten(text: str) -> str:
    fresh = tables()
    return _PART.sub(lambda part: part["name"] + part["open"] + fresh[part["name"]], text)


def _keras() -> str:
    columns = {
        (version, form): [_of(f"keras-{backend}", keras=version, data_format=form) for backend in ("tf", "theano")]
        for version, form in _KERAS
    }
    everywhere = next(iter(columns.values()))[0]
    same = {
        role: (layouts,)
        for role, layouts in everywhere.items()
        if all(table.get(role) == layouts for pair in columns.values() for table in pair)
    }
    parts = [_convention(same, ("layouts",))]
    for (version, form), (tf, theano) in columns.items():
        rest = {role: (layouts, theano.get(role, ())) for role, layouts in tf.items() if role not in same}
        parts.append(f"\nKeras {version}, `{form}`:\n\n" + _convention(rest, ("keras-tf", "keras-theano")))
    return "".join(parts)


def _of(adapter: str, **options: str) -> dict[str, tuple[Layout, ...]]:
    return dict(adapter_named(adapter).convention(**options).layouts)


def _convention(rows: Mapping[str, _Row], columns: Sequence[str]) -> str:
    """Roles that are kept alike share a row."""
    alike: dict[_Row, list[str]] = {}
    for role, row in rows.items():
        alike.setdefault(row, []).append(role)
    return _table(
        ("roles", *columns),
        ((", ".join(f"`{role}`" for role in roles), *map(_layouts, row)) for row, roles in alike.items()),
    )


def _alignment(dtype: str) -> int:
    if DTYPES[dtype].safetensors is None:
        return 1
    return 4 if dtype == "complex64" else DTYPES[dtype].itemsize


def _layouts(layouts: Iterable[Layout]) -> str:
    return ", ".join(f"`{layout}`" for layout in layouts) or "none"


def _code(word: str | None) -> str:
    return f"`{word}`" if word else ""


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    SPEC.write_text(rewritten(SPEC.read_text(encoding="utf-8")), encoding="utf-8")
