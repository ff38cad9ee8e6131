"""How each operator uses its weights: their role and layout, by the operator's own definition.

Source: Operators.md of ONNX 1.23, the inputs of each operator. The number of spatial axes of a convolution is by that
definition the number of axes that its W has beyond two; a shape says nothing here that the operator does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

from wio.adapters._onnx_maps import SPATIAL, Known, integer, integers, number, string
from wio.adapters._onnx_messages import Node
from wio.adapters._onnx_weights import Weight
from wio.layout import Layout
from wio.network import TIME, FeatureMap


class Seen(Struct, frozen=True):
    """A weight as a node sees it: axis i of what it sees is axis ``order[i]`` of what is stored."""

    weight: Weight
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.tensor.shape[place] for place in self.order)

    def stored(self, layout: Layout) -> Layout:
        """A layout of what is seen, as a layout of what is stored."""
        axes = [""] * len(self.order)
        for axis, place in zip(layout.axes, self.order, strict=True):
            axes[place] = axis
        return Layout(tuple(axes), layout.flipped, None, layout.sizes, layout.gates)


class Use(NamedTuple):
    """What one node says of the weight that it takes as its input number ``place``."""

    place: int
    role: str
    layout: str


class Made(NamedTuple):
    """A layer whose bias an Add may bring: what it gives out is a value without a bias yet."""

    role: str
    group: str
    channels: int
    spatial: int


class _Take(NamedTuple):
    """A node and what it takes, by input number: weights, and everything else."""

    node: Node
    seen: Mapping[int, Seen]
    maps: Mapping[int, Known]


def uses_of(node: Node, seen: Mapping[int, Seen], maps: Mapping[int, Known]) -> Iterator[Use]:
    """What a node says of the weights among its inputs; nothing where its attributes leave it open."""
    if not node.domain and (rule := _RULES.get(node.op)) is not None:
        yield from rule(_Take(node, seen, maps))


# Inputs that are shapes, axes, indices and limits by the operator's own definition: what a node is told, no weights.
_TOLD: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Split", "Squeeze", "Unsqueeze", "TopK", "OneHot", "CumSum"), (1,)),
    **dict.fromkeys(("Upsample", "Trilu"), (1,)),
    **dict.fromkeys(("Clip", "Dropout"), (1, 2)),
    **dict.fromkeys(("Pad", "Resize"), (1, 2, 3)),
    "Slice": (1, 2, 3, 4),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
}


def told_by(node: Node) -> tuple[int, ...]:
    """The numbers of a node's inputs that are no weights, whatever they hold."""
    if node.domain:
        return ()
    return (1,) if node.op.startswith("Reduce") else _TOLD.get(node.op, ())


def made_by(node: Node, seen: Mapping[int, Seen], group: str) -> Made | None:
    """The layer that a node is, if a later Add can be its bias."""
    kernel = seen.get(1)
    if node.domain or kernel is None or (len(node.inputs) > 2 and node.inputs[2]):
        return None
    if node.op == "MatMul" and len(kernel.shape) == 2:
        return Made("dense.bias", group, kernel.shape[1], 0)
    if node.op == "Conv" and len(kernel.shape) - 2 in SPATIAL:
        return Made("conv.bias", group, kernel.shape[0], len(kernel.shape) - 2)
    return None


def bias_use(made: Made, seen: Seen, place: int) -> Use | None:
    """What an Add says of the weight that it adds to a layer's output: along the channels, one for all the rest."""
    wanted = ["O", *["1"] * made.spatial]
    shape, spare = seen.shape, len(seen.shape) - len(wanted)
    if spare not in (0, 1) or shape[spare] != made.channels or math.prod(shape) != made.channels:
        return None
    return Use(place, made.role, "".join(["1"] * spare + wanted))


def rows_of(fmap: Known) -> tuple[str, str]:
    """What the rows of a kernel that multiplies the last axis of a value are made of, and the sizes to say."""
    if fmap is None or fmap.axes is None or not fmap.axes:
        return "(?)", ""
    if not fmap.flat:
        # A product over one axis of a map that nobody flattened; "1" is what a global pool has left of one.
        return ("(?)", "") if fmap.axes[-1] in ("1", TIME) else ("I", "")
    if set(fmap.axes) <= set("CDHW") and len(fmap.axes) > 1:
        sizes = [f" {axis}={size}" for axis, size in zip(fmap.axes, fmap.sizes, strict=True) if size is not None]
        return f"({''.join(fmap.axes)})", "".join(sizes)
    return "(?)", ""


def _conv(take: _Take) -> Iterator[Use]:
    node, seen, _ = take
    kernel, bias = seen.get(1), seen.get(2)
    if kernel is not None and len(kernel.shape) - 2 in SPATIAL:
        letters = "".join(SPATIAL[len(kernel.shape) - 2])
        group, told = integer(node, "group", 1), integers(node, "kernel_shape", list(kernel.shape[2:]))
        if group is not None and group > 0 and told is not None and tuple(told) == kernel.shape[2:]:
            plain = "OI" if node.op == "Conv" else "IO"
            grouped = f"(G{plain[0]}){plain[1]}{letters} G={group}"
            yield Use(1, f"{_KIND[node.op]}.kernel", f"{plain}{letters}" if group == 1 else grouped)
    if bias is not None and len(bias.shape) == 1:
        yield Use(2, f"{_KIND[node.op]}.bias", "O")


_KIND = {"Conv": "conv", "ConvTranspose": "conv_transpose", "LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}


def _gemm(take: _Take) -> Iterator[Use]:
    """Y = alpha A' B' + beta C. A factor other than 1 makes what is stored something else than the layer's weights."""
    node, seen, maps = take
    kernel, bias = seen.get(1), seen.get(2)
    transposed = integer(node, "transB", 0)
    if 1 not in seen and 0 in seen and len(seen[0].shape) == 2:
        # The weights stand on the left: columns are samples, and A multiplies what B has along its rows.
        turned = integer(node, "transA", 0)
        if number(node, "alpha", 1.0) == 1.0 and turned is not None:
            yield Use(0, "dense.kernel", "(?)O" if turned else "O(?)")
        return
    turned = integer(node, "transA", 0)
    if kernel is None or 0 in seen or len(kernel.shape) != 2 or transposed is None or turned is None:
        return
    # What stands turned on the left has its samples along the axis that is known as that of features.
    rows, sizes = rows_of(None if turned else maps.get(0))
    if number(node, "alpha", 1.0) == 1.0:
        yield Use(1, "dense.kernel", f"O{rows}{sizes}" if transposed else f"{rows}O{sizes}")
    units = kernel.shape[0 if transposed else 1]
    if bias is not None and number(node, "beta", 1.0) == 1.0 and bias.shape in ((units,), (1, units)):
        yield Use(2, "dense.bias", "1O" if len(bias.shape) == 2 else "O")


def _matmul(take: _Take) -> Iterator[Use]:
    """A matrix on the right multiplies the last axis of whatever stands on the left."""
    _, seen, maps = take
    kernel = seen.get(1)
    if kernel is not None and 0 not in seen and len(kernel.shape) == 2:
        rows, sizes = rows_of(maps.get(0))
        yield Use(1, "dense.kernel", f"{rows}O{sizes}")


def _batch_norm(take: _Take) -> Iterator[Use]:
    """A vector over axis 1: channels, or the rows of a flattened map."""
    _, seen, maps = take
    fmap = maps.get(0)
    layout, sizes = "(?)", ""
    if fmap is not None and fmap.flat:
        layout, sizes = rows_of(fmap)
    elif fmap is not None and (len(fmap.sizes) > 1 or fmap.axes == ("C",)):
        if fmap.axes is not None and fmap.axes[0] != "C":
            return
        layout = "C"
    for place, part in enumerate(("gamma", "beta", "mean", "variance"), 1):
        if place in seen and len(seen[place].shape) == 1:
            yield Use(place, f"batch_norm.{part}", layout + sizes)


def _instance_norm(take: _Take) -> Iterator[Use]:
    seen = take.seen
    for place, part in enumerate(("gamma", "beta"), 1):
        if place in seen and len(seen[place].shape) == 1:
            yield Use(place, f"instance_norm.{part}", "C")


def _layer_norm(take: _Take) -> Iterator[Use]:
    """Over the last axis only; over more of them, the weights are a map that no role has."""
    node, seen, maps = take
    if integer(node, "axis", -1) != -1:
        return
    rows, sizes = rows_of(maps.get(0))
    fmap = maps.get(0)
    if fmap is not None and not fmap.flat and fmap.axes is not None and fmap.axes[-1] != "C":
        return
    for place, part in enumerate(("gamma", "beta"), 1):
        if place in seen and len(seen[place].shape) == 1:
            yield Use(place, f"layer_norm.{part}", "C" if rows == "I" else rows + sizes)


def _prelu(take: _Take) -> Iterator[Use]:
    """The slope is broadcast to X from the right: an axis of length 1 holds one value for all places along it."""
    _, seen, maps = take
    slope, fmap = seen.get(1), maps.get(0)
    if slope is None or not isinstance(fmap, FeatureMap) or fmap.flat or fmap.axes is None:
        return
    axes = fmap.axes[len(fmap.axes) - len(slope.shape) :]
    if len(slope.shape) > len(fmap.axes) or not set(axes) <= set("CDHW"):
        return
    text = "".join("1" if extent == 1 else axis for axis, extent in zip(axes, slope.shape, strict=True))
    if "C" in text:
        yield Use(1, "prelu.alpha", text)


def _gather(take: _Take) -> Iterator[Use]:
    """Rows of a table of numbers, looked up by what the network was given; a fixed index picks from a constant."""
    node, seen, _ = take
    table = seen.get(0)
    if table is None or 1 in seen or integer(node, "axis", 0) != 0 or len(table.shape) != 2:
        return
    if "float" in table.weight.tensor.dtype.name:
        yield Use(0, "embedding.table", "IO")


def _recurrent(take: _Take) -> Iterator[Use]:
    """W is [directions, gates*hidden, input], R likewise, B the two biases one after the other, P i o f."""
    node, seen, _ = take
    direction = string(node, "direction", "forward")
    if direction not in _DIRECTIONS:
        return
    axis, count = _DIRECTIONS[direction]
    kind = _KIND[node.op]
    gates = {"lstm": " G=iofc", "gru": " G=zrh", "rnn": ""}[kind]
    units = "(GU)" if gates else "U"
    uses = (
        Use(1, f"{kind}.kernel", f"{axis}{units}I{gates}"),
        Use(2, f"{kind}.recurrent_kernel", f"{axis}{units}I{gates}"),
        Use(3, f"{kind}.bias", f"{axis}(B{units.strip('()')}) B=2{gates}"),
        *((Use(7, "lstm.peephole", f"{axis}(GU) G=iof"),) if kind == "lstm" else ()),
    )
    for use in uses:
        shape = seen[use.place].shape if use.place in seen else ()
        if shape[:1] == (count,) and len(shape) == Layout.parse(use.layout).rank:
            yield use


_DIRECTIONS = {"forward": ("1", 1), "reverse": ("1", 1), "bidirectional": ("F", 2)}


_RULES = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "PRelu": _prelu,
    "Gather": _gather,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
