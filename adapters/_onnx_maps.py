"""What flows through a graph, as far as it settles the meaning of weights: which axes, which sizes, flattened or not.

Source: Operators.md of ONNX 1.23. An operator that is not known here gives a value of which nothing is known.
Axes are those of :class:`wio.network.FeatureMap`, the first (batch) axis left out: ``1`` for a spatial axis that a
global pool has used up, ``T`` for one of which only is known that the channels come after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from wio.adapters._onnx_messages import Node
from wio.network import TIME, FeatureMap

SPATIAL = {1: ("W",), 2: ("H", "W"), 3: ("D", "H", "W")}
_SAME = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "ThresholdedRelu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Softplus",
        "Softsign",
        "Gelu",
        "Mish",
        "Swish",
        "Softmax",
        "LogSoftmax",
        "Clip",
        "Dropout",
        "Identity",
        "Cast",
        "PRelu",
        "LRN",
        "BatchNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Neg",
        "Abs",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Erf",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)
_BROADCAST = frozenset(["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow"])
_POOLS = frozenset(["MaxPool", "AveragePool", "LpPool"])
_GLOBAL = frozenset(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
_REDUCE = frozenset(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2"])
_RECURRENT = frozenset(["LSTM", "GRU", "RNN"])
_RESIZED = frozenset(["Pad", "Resize", "Upsample"])
FLAT_UNKNOWN = FeatureMap(None, (None,), flat=True)
FEATURES = FeatureMap((TIME, "C"), (None, None))

Known = FeatureMap | None


def integer(node: Node, name: str, default: int) -> int | None:
    """An integer attribute; None if it is an argument of the function around the node."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return default
    return None if attribute.reference else next(iter(attribute.integers(3)), 0)


def number(node: Node, name: str, default: float) -> float | None:
    attribute = node.attributes.get(name)
    if attribute is None:
        return default
    return None if attribute.reference else next(iter(attribute.floats(2)), 0.0)


def string(node: Node, name: str, default: str) -> str | None:
    attribute = node.attributes.get(name)
    if attribute is None:
        return default
    return None if attribute.reference else next(iter(attribute.strings(4)), b"").decode("utf-8", "replace")


def integers(node: Node, name: str, default: list[int] | None = None) -> list[int] | None:
    """A list of integers, ``default`` where it is left out; None if it is an argument of the function around."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return default
    return None if attribute.reference else attribute.integers(8)


class Taken(Struct, frozen=True):
    """What a node takes: maps, the shapes of weights, and the values of small integer weights, by input number."""

    maps: Sequence[Known]
    shapes: Mapping[int, tuple[int, ...]]
    constants: Mapping[int, Sequence[int]]
    # The length of the first axis of everything, where all inputs of the model have the same fixed one.
    batch: int | None

    @property
    def first(self) -> Known:
        return self.maps[0] if self.maps else None

    def axes(self, node: Node) -> Sequence[int] | None:
        """The ``axes`` of a node: an attribute in old opsets, the second input in later ones."""
        return integers(node, "axes") if "axes" in node.attributes else self.constants.get(1)


def output_of(node: Node, taken: Taken) -> Known:
    """What a node gives out first; None if nothing is known of it."""
    first, op = taken.first, node.op
    if op in _SAME:
        return first
    if op in _BROADCAST:
        return _broadcast(taken)
    if op in ("Conv", "ConvTranspose"):
        return _convolved(node, first, taken.shapes.get(1))
    if op in _POOLS:
        kernel = integers(node, "kernel_shape")
        sizes = _channels_first(first, len(kernel)) if kernel else None
        return None if sizes is None or not kernel else _slid(node, sizes, kernel, sizes[0])
    if op in _GLOBAL:
        used_up = len(first.sizes) - 1 if first is not None else 1
        channels = first.sizes[0] if first is not None and first.sizes else None
        return FeatureMap(("C", *["1"] * used_up), (channels, *[1] * used_up))
    if op in _RESIZED and first is not None and first.axes is not None and not first.flat:
        return FeatureMap(first.axes, tuple(None if axis != "C" else s for axis, s in _pairs(first)))
    if op in _REDUCE:
        return _reduced(node, taken)
    if op in ("Flatten", "Reshape"):
        return _flattened(node, taken)
    if op == "Transpose":
        return _transposed(node, first)
    if op == "Squeeze":
        return _squeezed(taken.axes(node), first)
    if op == "Concat":
        return _joined(node, taken.maps)
    if op in ("Gemm", "MatMul"):
        return _multiplied(node, taken)
    if op in _RECURRENT:
        return FeatureMap((TIME, TIME, "C"), (None, None, None))
    if op == "Gather":
        return _gathered(node, taken)
    return None


def further_output_of(node: Node) -> Known:
    """What a node gives out after the first: of recurrent layers the last states, [directions, batch, units]."""
    return FEATURES if node.op in _RECURRENT and not node.domain else None


def _pairs(fmap: FeatureMap) -> list[tuple[str, int | None]]:
    return list(zip(fmap.axes or (), fmap.sizes, strict=True))


def _features(fmap: FeatureMap) -> bool:
    """Whether all that is known is that the last axis holds channels."""
    return fmap.axes is not None and fmap.axes[-1:] == ("C",) and set(fmap.axes[:-1]) <= {TIME}


def _channels_first(fmap: Known, rank: int) -> list[int | None] | None:
    """The sizes of C and the spatial axes of what a convolution or pool takes: the operator itself names the axes."""
    if rank not in SPATIAL:
        return None
    wanted = ("C", *SPATIAL[rank])
    if fmap is None or fmap.flat or (fmap.axes is not None and "1" not in fmap.axes and fmap.axes != wanted):
        return [None] * (rank + 1)
    return list(fmap.sizes) if len(fmap.sizes) == rank + 1 else [None] * (rank + 1)


def _convolved(node: Node, first: Known, kernel: tuple[int, ...] | None) -> Known:
    """Conv: W is M x C/g x k; ConvTranspose: C x M/g x k. Where W is computed, kernel_shape may still say k."""
    told = integers(node, "kernel_shape")
    if kernel is None and told and node.op == "Conv" and len(told) in SPATIAL:
        sizes = _channels_first(first, len(told))
        return None if sizes is None else _slid(node, sizes, told, None)
    if kernel is None or len(kernel) - 2 not in SPATIAL:
        return None
    sizes = _channels_first(first, len(kernel) - 2)
    group = integer(node, "group", 1)
    if sizes is None or group is None:
        return None
    if node.op == "Conv":
        return _slid(node, sizes, list(kernel[2:]), kernel[0])
    return FeatureMap(("C", *SPATIAL[len(kernel) - 2]), (kernel[1] * group, *_spread(node, sizes[1:], kernel[2:])))


def _spread(node: Node, sizes: Sequence[int | None], kernel: Sequence[int]) -> list[int | None]:
    """What a transposed convolution makes of each axis: stride * (n - 1) + output_padding + reach - pads."""
    rank = len(kernel)
    strides = integers(node, "strides", [1] * rank) or []
    dilations = integers(node, "dilations", [1] * rank) or []
    extra = integers(node, "output_padding", [0] * rank) or []
    pads = integers(node, "pads", [0] * (2 * rank)) or []
    lists = (strides, dilations, extra)
    plain = "output_shape" not in node.attributes and string(node, "auto_pad", "NOTSET") == "NOTSET"
    if not plain or any(len(each) != rank for each in lists) or len(pads) != 2 * rank:
        return [None] * rank
    found: list[int | None] = []
    for i, before in enumerate(sizes):
        reach = (kernel[i] - 1) * dilations[i] + 1
        after = None if before is None else strides[i] * (before - 1) + extra[i] + reach - pads[i] - pads[rank + i]
        found.append(after if after is not None and after > 0 else None)
    return found


def _slid(node: Node, sizes: Sequence[int | None], kernel: Sequence[int], channels: int | None) -> Known:
    rank = len(kernel)
    strides = integers(node, "strides", [1] * rank)
    dilations = integers(node, "dilations", [1] * rank)
    pads = integers(node, "pads", [0] * (2 * rank))
    auto_pad, ceil_mode = string(node, "auto_pad", "NOTSET"), integer(node, "ceil_mode", 0)
    found: list[int | None] = [None] * rank
    if strides and dilations and pads and len(strides) == len(dilations) == rank and len(pads) == 2 * rank:
        for i, before in enumerate(sizes[1:]):
            reach = (kernel[i] - 1) * dilations[i] + 1 if dilations[i] > 0 else 0
            found[i] = _extent(before, reach, strides[i], pads[i] + pads[rank + i], auto_pad, ceil_mode != 0)
    return FeatureMap(("C", *SPATIAL[rank]), (channels, *found))


def _extent(before: int | None, reach: int, stride: int, pads: int, auto_pad: str | None, ceil: bool) -> int | None:
    if before is None or stride < 1 or reach < 1:
        return None
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return -(-before // stride)
    if auto_pad not in ("NOTSET", "VALID", ""):
        return None
    rest = before + (0 if auto_pad == "VALID" else pads) - reach
    # With ceil_mode versions of the operator differ over a last window that starts in the padding.
    return None if rest < 0 or (ceil and rest % stride) else rest // stride + 1


def _broadcast(taken: Taken) -> Known:
    maps = [each for i, each in enumerate(taken.maps) if i not in taken.shapes]
    if not maps or any(each is None for each in maps):
        return None
    known = [each for each in maps if each is not None]
    best = max(known, key=lambda each: (len(each.sizes), sum(axis not in ("1", TIME) for axis in each.axes or ())))
    if any(len(shape) > len(best.sizes) + 1 for shape in taken.shapes.values()):
        return None
    for each in known:
        alike = each.axes is not None and best.axes is not None and len(each.axes) == len(best.axes)
        alike = alike and all(a in (b, "1") for a, b in zip(each.axes or (), best.axes or (), strict=True))
        if each.flat != best.flat or not (alike or each.axes == best.axes or (_features(each) and _features(best))):
            return None
    return best


def _reduced(node: Node, taken: Taken) -> Known:
    """A mean over all of space is a global pool under another name."""
    first, axes = taken.first, taken.axes(node)
    if first is None or first.flat or first.axes is None or axes is None:
        return None
    rank = len(first.sizes) + 1
    places = {axis % rank for axis in axes if -rank <= axis < rank}
    space = {i + 1 for i, axis in enumerate(first.axes) if axis in "DHW"}
    if not space or places != space:
        return None
    kept = integer(node, "keepdims", 1)
    if kept is None:
        return None
    pairs = [("1" if axis in "DHW" else axis, 1 if axis in "DHW" else size) for axis, size in _pairs(first)]
    pairs = [pair for pair in pairs if kept or pair[0] != "1"]
    return FeatureMap(tuple(axis for axis, _ in pairs), tuple(size for _, size in pairs))


def flattened(fmap: FeatureMap) -> FeatureMap:
    """All axes but the batch made one, in C order. What a global pool has left is no map any more."""
    if fmap.flat:
        return fmap
    if fmap.axes is None or TIME in fmap.axes:
        return FLAT_UNKNOWN
    pairs = [pair for pair in _pairs(fmap) if pair[0] != "1"]
    axes = tuple(axis for axis, _ in pairs)
    return FeatureMap(axes, tuple(size for _, size in pairs), flat=axes != ("C",))


def _flattened(node: Node, taken: Taken) -> Known:
    first = taken.first
    if first is None:
        return None
    if node.op == "Flatten":
        axis = integer(node, "axis", 1)
        return flattened(first) if axis == 1 or axis == -len(first.sizes) else None
    shape = integers(node, "shape") if "shape" in node.attributes else taken.constants.get(1)
    if shape is None:
        return None
    if integer(node, "allowzero", 0) != 0:
        return None
    total = math.prod(size for size in first.sizes if size is not None) if None not in first.sizes else None
    if len(shape) == 2:
        whole = shape[1] == total
        if (shape[0] in (0, taken.batch) and (shape[1] == -1 or whole)) or (shape[0] == -1 and whole and total):
            return flattened(first)
        return FLAT_UNKNOWN
    return FeatureMap(None, tuple(size if size > 0 else None for size in shape[1:])) if shape else None


def _transposed(node: Node, first: Known) -> Known:
    order = integers(node, "perm")
    if first is None or first.flat or order is None or sorted(order) != list(range(len(first.sizes) + 1)):
        return None
    if first.axes is not None and TIME in first.axes:
        return first if order[-1] == len(first.sizes) and _features(first) else None
    if order[0] != 0:
        return None
    places = [place - 1 for place in order[1:]]
    axes = tuple(first.axes[place] for place in places) if first.axes is not None else None
    return FeatureMap(axes, tuple(first.sizes[place] for place in places))


def _squeezed(axes: Sequence[int] | None, first: Known) -> Known:
    if first is None or first.flat or first.axes is None or not axes:
        return None
    rank = len(first.axes) + 1
    places = {axis % rank for axis in axes if -rank <= axis < rank}
    if _features(first) and TIME in first.axes:
        kept = rank - len(places) - 2
        return FeatureMap((TIME,) * kept + ("C",), (None,) * kept + first.sizes[-1:]) if kept >= 0 else None
    if 0 in places or any(first.axes[place - 1] != "1" for place in places):
        return None
    pairs = [pair for i, pair in enumerate(_pairs(first), 1) if i not in places]
    return FeatureMap(tuple(axis for axis, _ in pairs), tuple(size for _, size in pairs))


def _joined(node: Node, maps: Sequence[Known]) -> Known:
    known = [each for each in maps if each is not None]
    axis = integer(node, "axis", 1)
    if not known or len(known) < len(maps) or axis is None:
        return None
    first = known[0]
    if any(each.flat or each.axes is None for each in known):
        return FLAT_UNKNOWN if all(len(each.sizes) == 1 or each.flat for each in known) else None
    place = axis - 1 if axis > 0 else len(first.sizes) + axis
    if any(each.axes != first.axes for each in known) or axis == 0 or not 0 <= place < len(first.sizes):
        return None
    along = [each.sizes[place] for each in known]
    total = None if None in along else sum(size for size in along if size is not None)
    return FeatureMap(first.axes, (*first.sizes[:place], total, *first.sizes[place + 1 :]))


def _multiplied(node: Node, taken: Taken) -> Known:
    shape = taken.shapes.get(1)
    if node.op == "Gemm":
        units = None
        if shape is not None and len(shape) == 2:
            units = shape[0] if integer(node, "transB", 0) else shape[1]
        return FeatureMap(("C",), (units,)) if 1 in taken.shapes else None
    if shape is None or len(shape) != 2:
        return None
    first = taken.first
    before = len(first.sizes) - 1 if first is not None else 1
    return FeatureMap((TIME,) * before + ("C",), (None,) * before + (shape[1],))


def _gathered(node: Node, taken: Taken) -> Known:
    """Rows of a table for indices; or, of features, a place along some axis before them."""
    shape, axis = taken.shapes.get(0), integer(node, "axis", 0)
    if shape is not None and len(shape) == 2 and axis == 0:
        return FeatureMap((TIME, "C"), (None, shape[1]))
    first, index = taken.first, taken.shapes.get(1)
    if first is not None and _features(first) and TIME in (first.axes or ()) and axis is not None and index == ():
        rank = len(first.sizes) + 1
        if -rank <= axis < rank - 1 and axis != -1:
            return FeatureMap((first.axes or ())[1:], first.sizes[1:])
    return None
