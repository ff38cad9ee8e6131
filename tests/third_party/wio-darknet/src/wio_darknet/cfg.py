"""A Darknet .cfg: which of its layers have weights, which arrays each keeps, and what those are.

Source: github.com/pjreddie/darknet, src/parser.c. A .weights file itself is but a header and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from wio.errors import FormatError

LARGEST_CFG = 1 << 20

# The keys that may stand in a section. One that is not here might change what the file holds.
_TRAINING = {"truth_thresh", "learning_rate", "onlyforward", "stopbackward"}
_KEYS = {
    "convolutional": {"filters", "size", "stride", "pad", "padding", "groups", "batch_normalize", "activation"},
    "connected": {"output", "batch_normalize", "activation"},
    "maxpool": {"size", "stride", "padding"},
    "avgpool": set[str](),
    "upsample": {"stride", "scale"},
    "route": {"layers"},
    "shortcut": {"from", "activation"},
}
# Sections that keep no weights and give out what they take, whatever their keys.
_PASSES = {"activation", "cost", "detection", "dropout", "logistic", "region", "softmax", "yolo"}


@dataclass(frozen=True)
class Array:
    """An array of the file: float32, C order. ``layer`` is apart for a batch norm, which elsewhere is one."""

    name: str
    layer: str
    role: str
    layout: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Map:
    """What flows between layers: channels, and height and width where there are any."""

    c: int
    h: int | None = None
    w: int | None = None


def read_cfg(path: Path) -> str:
    """The text of a .cfg, byte for byte. FormatError for a file too large to be one."""
    with path.open("rb") as file:
        content = file.read(LARGEST_CFG + 1)
    if len(content) > LARGEST_CFG:
        raise FormatError(f"{path.name}: no .cfg is larger than {LARGEST_CFG} bytes")
    return content.decode("latin-1")


def arrays_of(text: str, *, transposed: bool) -> list[Array]:
    """Every array of a .weights file, in the file's order; ``transposed``: dense kernels are IO, as in old files.

    FormatError names the section for what is unknown, contradicts itself or is out of range.
    """
    sections = _sections(text)
    if not sections or sections[0][0] not in ("net", "network"):
        raise FormatError("the .cfg does not begin with [net]")
    net = _Options("net", sections[0][1])
    if net.has("height") or net.has("width") or net.has("channels"):
        given = _Map(net.size("channels"), net.size("height"), net.size("width"))
    else:
        given = _Map(net.size("inputs"))
    maps: list[_Map] = []
    arrays: list[Array] = []
    for index, (kind, options) in enumerate(sections[1:]):
        before = maps[-1] if maps else given
        section = _Options(f"{kind}_{index}", options)
        if kind not in _PASSES:
            if kind not in _KEYS:
                raise FormatError(f"[{kind}] (layer {index}): not known, so neither is what it keeps in the file")
            section.only(_KEYS[kind] | _TRAINING)
        if kind == "convolutional":
            arrays += _convolutional(section, before)
        elif kind == "connected":
            arrays += _connected(section, before, transposed)
        maps.append(_output(kind, section, before, maps))
    return arrays


def _convolutional(section: _Options, before: _Map) -> list[Array]:
    """load_convolutional_weights: the biases first, which follow the batch norm where there is one."""
    filters, size, groups = section.size("filters", 1), section.size("size", 1), section.size("groups", 1)
    if before.c % groups or filters % groups:
        raise FormatError(f"{section.layer}: {before.c} channels to {filters} do not fall into {groups} groups")
    layout = "OIHW" if groups == 1 else f"(GO)IHW G={groups}"
    kernel = Array(
        f"{section.layer}/weights",
        section.layer,
        "conv.kernel",
        layout,
        (filters, before.c // groups, size, size),
    )
    if not section.flag("batch_normalize"):
        return [Array(f"{section.layer}/biases", section.layer, "conv.bias", "O", (filters,)), kernel]
    layer = section.layer.replace("convolutional", "batch_norm")
    parts = {"biases": "beta", "scales": "gamma", "rolling_mean": "mean", "rolling_variance": "variance"}
    norm = [Array(f"{layer}/{name}", layer, f"batch_norm.{part}", "C", (filters,)) for name, part in parts.items()]
    return [*norm, kernel]


def _connected(section: _Options, before: _Map, transposed: bool) -> list[Array]:
    """load_connected_weights. Rows flatten C, H, W; what has no space is no flattened map."""
    if section.flag("batch_normalize"):
        raise FormatError(f"{section.layer}: Darknet and OpenCV disagree about the order of its batch norm's arrays")
    outputs = section.size("output", 1)
    if before.h is None or before.w is None:
        rows, inputs, sizes = "I", before.c, ""
    else:
        rows, inputs = "(CHW)", prod((before.c, before.h, before.w))
        sizes = f" C={before.c} H={before.h} W={before.w}"
    layout, shape = (f"{rows}O", (inputs, outputs)) if transposed else (f"O{rows}", (outputs, inputs))
    return [
        Array(f"{section.layer}/biases", section.layer, "dense.bias", "O", (outputs,)),
        Array(f"{section.layer}/weights", section.layer, "dense.kernel", layout + sizes, shape),
    ]


def _output(kind: str, section: _Options, before: _Map, maps: list[_Map]) -> _Map:
    """What a layer gives out (the make_*_layer of each kind)."""
    if kind == "connected":
        return _Map(section.size("output", 1))
    if kind == "avgpool":
        return _Map(before.c)
    if kind == "shortcut":
        section.earlier("from", maps)
        return before
    if kind == "route":
        routed = section.earlier("layers", maps)
        if len({(each.h, each.w) for each in routed}) > 1:
            raise FormatError(f"{section.layer}: the maps that it joins differ in height or width")
        return _Map(sum(each.c for each in routed), routed[0].h, routed[0].w)
    if kind not in ("convolutional", "maxpool", "upsample"):
        return before
    if before.h is None or before.w is None:
        raise FormatError(f"{section.layer}: what comes in has no height and width")
    if kind == "upsample":
        stride = section.size("stride", 2)
        return _Map(before.c, before.h * stride, before.w * stride)
    stride = section.size("stride", 1)
    size = section.size("size", 1 if kind == "convolutional" else stride)
    if kind == "convolutional":
        # `pad` is a flag and wins over `padding`, which counts on each side.
        margin = 2 * (size // 2 if section.flag("pad") else section.integer("padding", 0))
    else:
        margin = section.integer("padding", size - 1)
    h, w = ((extent + margin - size) // stride + 1 for extent in (before.h, before.w))
    if h < 1 or w < 1:
        raise FormatError(f"{section.layer}: a window of {size} does not fit {before.h} x {before.w}")
    return _Map(section.size("filters", 1) if kind == "convolutional" else before.c, h, w)


def _sections(text: str) -> list[tuple[str, dict[str, str]]]:
    """read_cfg and strip: blanks count nowhere, # and ; begin a comment line, of a key given twice the first holds."""
    found: list[tuple[str, dict[str, str]]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.replace(" ", "").replace("\t", "")
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            found.append((line.strip("[]"), {}))
            continue
        key, equals, value = line.partition("=")
        if not equals or not found:
            raise FormatError(f"line {number} of the .cfg is neither [section] nor key=value")
        found[-1][1].setdefault(key, value)
    return found


class _Options:
    """The keys of one section, read as numbers. FormatError names the layer."""

    def __init__(self, layer: str, given: Mapping[str, str]) -> None:
        self.layer, self._given = layer, given

    def has(self, key: str) -> bool:
        return key in self._given

    def only(self, known: set[str]) -> None:
        unknown = sorted(set(self._given) - known)
        if unknown:
            raise FormatError(f"{self.layer}: {', '.join(unknown)} not known, and might change what the file holds")

    def integer(self, key: str, default: int | None = None) -> int:
        text = self._given.get(key, "" if default is None else str(default))
        if not text.isdecimal() or not text.isascii() or len(text) > 9:
            raise FormatError(f"{self.layer}: {key}={text} is no number that a size can be")
        return int(text)

    def size(self, key: str, default: int | None = None) -> int:
        value = self.integer(key, default)
        if value == 0:
            raise FormatError(f"{self.layer}: {key} is 0")
        return value

    def flag(self, key: str) -> bool:
        return self.integer(key, 0) != 0

    def earlier(self, key: str, maps: list[_Map]) -> list[_Map]:
        """The maps of the layers named: counted from the first, or back from this one if negative."""
        found = []
        for text in self._given.get(key, "").split(","):
            digits = text.removeprefix("-")
            if not digits.isdecimal() or not digits.isascii() or len(digits) > 9:
                raise FormatError(f"{self.layer}: {key}={text} names no layer")
            place = int(digits) if digits == text else len(maps) - int(digits)
            if not 0 <= place < len(maps):
                raise FormatError(f"{self.layer}: {key}={text} names no layer before it")
            found.append(maps[place])
        return found
