"""What goes into each layer: the shapes of a network's blobs, as far as its definition settles them.

Source: BVLC/caffe, src/caffe/layers (Reshape of each type named below) and src/caffe/net.cpp. Nothing is supposed: a
size that no input, kernel or num_output states stays unknown, and so does all that a type not named here gives out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from wio.adapters._caffe_schema import Message, one

# What an axis is made of, in C order: pieces of a feature map by letter, "?" for what cannot be said, None for a size
# that is not stated. Axis 0 is the batch ("N"), axis 1 the channels, the others space (convolution_param.axis).
Part = tuple[str, int | None]
Axis = tuple[Part, ...]
Shape = tuple[Axis, ...]

_SPACE = {3: "W", 4: "HW", 5: "DHW"}
# Types whose tops have the shape of their first bottom.
_KEEPS_SHAPE = frozenset(
    [
        "AbsVal",
        "BatchNorm",
        "Bias",
        "BNLL",
        "Dropout",
        "ELU",
        "Eltwise",
        "Exp",
        "LRN",
        "Log",
        "MVN",
        "PReLU",
        "Power",
        "ReLU",
        "Scale",
        "Sigmoid",
        "Softmax",
        "Split",
        "Swish",
        "TanH",
        "Threshold",
    ]
)
# Nothing real is larger; a definition that says so is not believed.
_LARGEST = 1 << 31


class Node(Struct, frozen=True):
    """A layer of a network's definition. ``kernel_axes`` is the rank of its weights where the file has them."""

    name: str
    type: str
    message: Message
    kernel_axes: int | None = None

    @property
    def bottoms(self) -> list[str]:
        return self.message.get("bottom", [])

    @property
    def tops(self) -> list[str]:
        return self.message.get("top", [])

    def parameter(self, name: str) -> Message:
        found: Message = one(self.message, name, {})
        return found


def test_phase(nodes: Iterable[Node]) -> list[Node]:
    """The layers of a definition that a net in the phase TEST has (net.cpp, FilterNet and StateMeetsRule)."""

    def met(rule: Message) -> bool:
        return (
            one(rule, "phase", "TEST") == "TEST"
            and one(rule, "min_level", 0) <= 0 <= one(rule, "max_level", 0)
            and not rule.get("stage")
        )

    def stays(node: Node) -> bool:
        include, exclude = node.message.get("include", []), node.message.get("exclude", [])
        return any(map(met, include)) if include else not any(map(met, exclude))

    return [node for node in nodes if stays(node)]


def shape_of(dims: Sequence[int | None]) -> Shape:
    """The shape of an input: N, C and space, by position."""
    letters = "NC" + _SPACE.get(len(dims), "")
    letters += "?" * (len(dims) - len(letters))
    return tuple(((letter, dim if _sane(dim) else None),) for letter, dim in zip(letters, dims, strict=False))


def _sane(dim: int | None) -> bool:
    return dim is not None and 0 < dim < _LARGEST


def input_shapes(net: Message) -> dict[str, Shape]:
    """The inputs that a network declares for itself (NetParameter.input with input_shape or input_dim)."""
    names = net.get("input", [])
    dims = [each.get("dim", []) for each in net.get("input_shape", [])]
    if not dims:
        flat = net.get("input_dim", [])
        dims = [flat[at : at + 4] for at in range(0, len(flat), 4)] if len(flat) == 4 * len(names) else []
    if len(dims) == 1 and len(names) > 1:
        dims *= len(names)
    return {name: shape_of(each) for name, each in zip(names, dims, strict=False)}


def bottoms_of(nodes: Iterable[Node], given: Mapping[str, Shape]) -> tuple[dict[str, Shape | None], dict[str, Shape]]:
    """The shape of the first bottom of each layer, by the layer's name; and that of every blob that nothing feeds."""
    blobs: dict[str, Shape] = dict(given)
    sources: dict[str, Shape] = dict(given)
    entering: dict[str, Shape | None] = {}
    for node in nodes:
        bottoms = [blobs.get(name) for name in node.bottoms]
        entering.setdefault(node.name, bottoms[0] if bottoms else None)
        if not node.bottoms:
            shapes = _source(node)
            for top, shape in zip(node.tops, shapes, strict=False):
                sources[top] = blobs[top] = shape
            for top in node.tops[len(shapes) :]:
                # A data layer states no shape; what is known of its blob comes from elsewhere (`given`) or not at all.
                if top in given:
                    blobs[top] = given[top]
                else:
                    blobs.pop(top, None)
            continue
        infer = _RULES.get(node.type)
        if node.type in _KEEPS_SHAPE:
            results: list[Shape | None] = [bottoms[0]] * len(node.tops)
        else:
            results = infer(node, bottoms) if infer else []
        for k, top in enumerate(node.tops):
            shape_out = results[k] if k < len(results) else None
            if shape_out is None:
                blobs.pop(top, None)
            else:
                blobs[top] = shape_out
    return entering, sources


def _source(node: Node) -> list[Shape]:
    """The shapes that a layer without bottoms states: Input, DummyData, MemoryData."""
    if node.type == "Input":
        dims = [each.get("dim", []) for each in node.parameter("input_param").get("shape", [])]
        return [shape_of(each) for each in (dims * len(node.tops) if len(dims) == 1 else dims)]
    if node.type == "DummyData":
        parameter = node.parameter("dummy_data_param")
        dims = [each.get("dim", []) for each in parameter.get("shape", [])]
        if not dims:
            four = [parameter.get(name, []) for name in ("num", "channels", "height", "width")]
            dims = [list(each) for each in zip(*four, strict=False)]
        return [shape_of(each) for each in (dims * len(node.tops) if len(dims) == 1 else dims)]
    if node.type == "MemoryData":
        parameter = node.parameter("memory_data_param")
        four_dims = [one(parameter, name) for name in ("batch_size", "channels", "height", "width")]
        return [shape_of(four_dims)] if all(four_dims) else []
    return []


def _size(shape: Shape, axis: int) -> int | None:
    return shape[axis][0][1] if len(shape[axis]) == 1 else None


def spatial_values(parameter: Message, name: str, axes: int, default: int) -> list[int] | None:
    """pad, kernel_size or stride, once for each spatial axis; None where the definition contradicts itself."""
    short = name.removesuffix("_size")
    pair = [one(parameter, f"{short}_h"), one(parameter, f"{short}_w")]
    listed = parameter.get(name, [])
    if any(value is not None for value in pair):
        # A stride or pad of which only one side is given leaves the other at proto2's default of 0.
        return [value or 0 for value in pair] if axes == 2 and not listed else None
    if not listed:
        return [default] * axes
    if len(listed) == 1:
        return [listed[0]] * axes
    return list(listed) if len(listed) == axes else None


def _convolved(node: Node, bottoms: list[Shape | None]) -> list[Shape | None]:
    """ConvolutionLayer and DeconvolutionLayer, compute_output_shape."""
    parameter = node.parameter("convolution_param")
    outputs = one(parameter, "num_output")
    bottom = bottoms[0]
    rank = node.kernel_axes if bottom is None else len(bottom)
    if rank not in _SPACE or one(parameter, "axis", 1) not in (1, 1 - rank) or not _sane(outputs):
        return []
    letters = _SPACE[rank]
    kernel = spatial_values(parameter, "kernel_size", len(letters), 0)
    stride = spatial_values(parameter, "stride", len(letters), 1)
    pad = spatial_values(parameter, "pad", len(letters), 0)
    dilation = spatial_values(parameter, "dilation", len(letters), 1)
    space: list[Axis] = []
    for k, letter in enumerate(letters):
        size = None if bottom is None else _size(bottom, k + 2)
        if size is not None and kernel and stride and pad and dilation and kernel[k] > 0 and stride[k] > 0:
            reach = dilation[k] * (kernel[k] - 1) + 1
            if node.type == "Deconvolution":
                size = stride[k] * (size - 1) + reach - 2 * pad[k]
            else:
                size = (size + 2 * pad[k] - reach) // stride[k] + 1
        else:
            size = None
        space.append(((letter, size if _sane(size) else None),))
    batch: Axis = (("N", None),) if bottom is None else bottom[0]
    # Each further bottom gives a top of its own, of the same shape.
    return [(batch, (("C", outputs),), *space)] * max(1, len(node.tops))


def _pooled(node: Node, bottoms: list[Shape | None]) -> list[Shape | None]:
    """PoolingLayer, Reshape: rounded up unless round_mode says otherwise, the last window clipped to start inside."""
    bottom = bottoms[0]
    parameter = node.parameter("pooling_param")
    if bottom is None or len(bottom) != 4:
        return []
    kernel = spatial_values(parameter, "kernel_size", 2, 0)
    stride = spatial_values(parameter, "stride", 2, 1)
    pad = spatial_values(parameter, "pad", 2, 0)
    rounding = one(parameter, "round_mode", "CEIL")
    space: list[Axis] = []
    for k, letter in enumerate("HW"):
        size = _size(bottom, k + 2)
        if one(parameter, "global_pooling", False):
            size = 1
        elif (
            size is None
            or not kernel
            or not stride
            or not pad
            or kernel[k] <= 0
            or stride[k] <= 0
            or rounding not in ("CEIL", "FLOOR")
        ):
            size = None
        else:
            covered = size + 2 * pad[k] - kernel[k]
            out = (-(-covered // stride[k]) if rounding == "CEIL" else covered // stride[k]) + 1
            if any(pad) and (out - 1) * stride[k] >= size + pad[k]:
                out -= 1
            size = out
        space.append(((letter, size if _sane(size) else None),))
    return [(bottom[0], bottom[1], *space)]


def first_axis(node: Node, parameter: str, rank: int | None, name: str = "axis") -> int | None:
    """An axis counted from either end (Blob::CanonicalAxisIndex), None where that is not settled."""
    axis = one(node.parameter(parameter), name, -1 if name == "end_axis" else 1)
    if axis < 0:
        axis = None if rank is None else axis + rank
    return axis if axis is not None and axis >= 0 and (rank is None or axis < rank) else None


def _inner_product(node: Node, bottoms: list[Shape | None]) -> list[Shape | None]:
    bottom = bottoms[0]
    axis = first_axis(node, "inner_product_param", None if bottom is None else len(bottom))
    outputs = one(node.parameter("inner_product_param"), "num_output")
    if axis is None or axis > 8 or not _sane(outputs):
        return []
    before: Shape = bottom[:axis] if bottom is not None else ((("N", None),),) + ((("?", None),),) * (axis - 1)
    # From axis 1 on its outputs are channels without space; after any other axis nothing names them.
    return [(*before[:axis], (("C" if axis == 1 else "?", outputs),))]


def _flattened(node: Node, bottoms: list[Shape | None]) -> list[Shape | None]:
    bottom = bottoms[0]
    if bottom is None:
        return []
    start = first_axis(node, "flatten_param", len(bottom))
    end = first_axis(node, "flatten_param", len(bottom), "end_axis")
    if start is None or end is None or end < start:
        return []
    return [(*bottom[:start], flat(bottom[start : end + 1]), *bottom[end + 1 :])]


def flat(axes: Shape) -> Axis:
    """Axes joined into one, in C order."""
    return tuple(part for axis in axes for part in axis)


def _old_axis(node: Node, parameter: str, old: str, rank: int) -> int | None:
    given = one(node.parameter(parameter), old)
    if given is not None:
        return given if 0 <= given < rank else None
    return first_axis(node, parameter, rank)


def _concatenated(node: Node, bottoms: list[Shape | None]) -> list[Shape | None]:
    known = [bottom for bottom in bottoms if bottom is not None]
    if len(known) < len(bottoms) or len({len(bottom) for bottom in known}) != 1:
        return []
    first = known[0]
    axis = _old_axis(node, "concat_param", "concat_dim", len(first))
    if axis is None:
        return []
    if len(known) == 1:
        return [first]
    sizes = [_size(bottom, axis) for bottom in known]
    whole = sum(size for size in sizes if size is not None) if None not in sizes else None
    letters = {bottom[axis][0][0] if len(bottom[axis]) == 1 else "?" for bottom in known}
    letter = letters.pop() if len(letters) == 1 else "?"
    return [(*first[:axis], ((letter, whole if _sane(whole) else None),), *first[axis + 1 :])]


def _sliced(node: Node, bottoms: list[Shape | None]) -> list[Shape | None]:
    bottom = bottoms[0]
    if bottom is None or not node.tops:
        return []
    axis = _old_axis(node, "slice_param", "slice_dim", len(bottom))
    if axis is None:
        return []
    if len(node.tops) == 1:
        return [bottom]
    size = _size(bottom, axis)
    letter = bottom[axis][0][0] if len(bottom[axis]) == 1 else "?"
    points = node.parameter("slice_param").get("slice_point", [])
    count = len(node.tops)
    if points and len(points) == count - 1 and size is not None:
        edges = [0, *points, size]
        sizes = [after - before for before, after in itertools.pairwise(edges)]
    elif not points and size is not None and size % count == 0:
        sizes = [size // count] * count
    else:
        sizes = []
    pieces: Sequence[int | None] = sizes or [None] * count
    return [(*bottom[:axis], ((letter, each if _sane(each) else None),), *bottom[axis + 1 :]) for each in pieces]


_RULES: dict[str, Callable[[Node, list[Shape | None]], list[Any]]] = {
    "Convolution": _convolved,
    "Deconvolution": _convolved,
    "Pooling": _pooled,
    "InnerProduct": _inner_product,
    "Flatten": _flattened,
    "Concat": _concatenated,
    "Slice": _sliced,
}
