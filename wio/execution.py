"""A network as it is run: what flows into each layer and out of it, and how a layer walks along each spatial axis.

Formats that hold a graph are written from this. Everything here follows from what the network declares; a layer that
cannot be followed is a problem, never an assumption.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from msgspec import Struct

from wio.architectures.parameters import Part
from wio.bundle import Bundle
from wio.errors import Problem
from wio.layout import Layout
from wio.network import TIME, FeatureMap, NetLayer, Network, axis_of
from wio.roles import NOT_WEIGHTS

# What these do, they do in training only; a network that is run has their input in their place.
LEFT_OUT = frozenset({"Dropout", "Identity"})
WALKING = frozenset({"Conv", "DepthwiseConv", "ConvTranspose", "MaxPool", "AveragePool"})


class Window(Struct, frozen=True):
    """How a kernel walks along one spatial axis of ``before`` places, giving ``after``.

    ``begin`` and ``end`` places are put around the map; of a transposed convolution they are cut off its output, and
    ``extra`` is what its output has behind the last window (ONNX's ``output_padding``).
    """

    before: int
    after: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    extra: int = 0

    @property
    def reach(self) -> int:
        """How many places a window spans."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def beyond(self) -> int:
        """How far the last window reaches past map and padding: nothing, unless sizes are rounded up."""
        return max(self._last - self.before - self.begin - self.end, 0)

    @property
    def as_same(self) -> bool:
        """Whether the windows stand where SAME_UPPER puts them."""
        usual = -(-self.before // self.stride)
        return self.after == usual and self.begin == _same(self.before, usual, self)[0]

    @property
    def as_valid(self) -> bool:
        """Whether the windows stand where they do without padding, rounded down."""
        usual = (self.before - self.reach) // self.stride + 1
        return self.after == usual and not self.begin

    @property
    def even(self) -> bool:
        """Whether the first window begins as far before the map as the last one ends behind it."""
        return self.begin == max(self._last - self.before - self.begin, 0)

    @property
    def _last(self) -> int:
        """Where the last window ends, counted from the begin of the padding."""
        return (self.after - 1) * self.stride + self.reach


class Run(Struct, frozen=True):
    """One layer that is run: the layers whose outputs it takes, what they give it, and what it gives out."""

    layer: NetLayer
    inputs: tuple[str, ...]
    incoming: tuple[FeatureMap, ...]
    outgoing: FeatureMap
    windows: tuple[Window, ...] = ()

    def has(self, part: Part) -> bool:
        """Whether the layer has this weight, which an attribute of it may deny."""
        return part.switch is None or bool(self.layer.attributes.get(part.switch, True))

    def axis(self) -> str:
        """The letter of the axis along which the layer works: Concat's and Softmax's, C where they do not say."""
        return axis_of(self.layer, self.incoming[0]) or "C"


class Execution(Struct, frozen=True):
    """The layers in order, the names of those whose outputs the network gives out, and what stands in the way."""

    runs: tuple[Run, ...]
    outputs: tuple[str, ...]
    left_out: tuple[str, ...]
    problems: tuple[Problem, ...]


def execution(network: Network, operators: Collection[str]) -> Execution:
    """The network laid out to be run by a format that knows these operators. Every layer it cannot run is a problem."""
    maps = network.feature_maps()
    stands_for: dict[str, str] = {}
    runs: list[Run] = []
    left_out: list[str] = []
    problems: list[Problem] = []
    consumed = {name for layer in network.layers for name in layer.inputs}
    for layer in network.layers:
        inputs = tuple(stands_for.get(name, name) for name in layer.inputs)
        if layer.op in LEFT_OUT and len(inputs) == 1:
            stands_for[layer.name] = inputs[0]
            left_out.append(layer.name)
            continue
        incoming = [maps[name] for name in inputs]
        trouble = _trouble(layer, incoming, maps[layer.name], operators)
        if trouble is not None:
            problems.append(Problem("network", f"layer {layer.name!r}, {layer.op}: {trouble}"))
            continue
        known = tuple(each for each in incoming if each is not None)
        outgoing = maps[layer.name]
        if outgoing is not None:
            walk = windows(layer, known[0], outgoing) if layer.op in WALKING else ()
            runs.append(Run(layer, inputs, known, outgoing, walk))
    ends = [stands_for.get(layer.name, layer.name) for layer in network.layers if layer.name not in consumed]
    return Execution(tuple(runs), tuple(dict.fromkeys(ends)), tuple(left_out), tuple(problems))


def _trouble(
    layer: NetLayer, incoming: Sequence[FeatureMap | None], outgoing: FeatureMap | None, operators: Collection[str]
) -> str | None:
    """Why a layer cannot be run, or None."""
    if "unsaid" in layer.attributes:
        return f"what it does no operator says: {layer.attributes['unsaid']}"
    if layer.op not in operators:
        return f"the format has no such operator; it has {', '.join(sorted(operators))}"
    if any(each is None or not each.complete for each in incoming):
        return "what flows into it is not known"
    if outgoing is None or not outgoing.complete:
        return "what it gives out is not known: its attributes leave sizes open"
    every = [each for each in (*incoming, outgoing) if each is not None and each.axes is not None]
    if any(TIME in (each.axes or ()) or "C" not in (each.axes or ()) for each in every):
        return "it works on sequences, or on axes without channels C"
    if any(size <= 0 for each in every for size in each.sizes if size is not None):
        return "nothing is left of the map"
    first = incoming[0] if incoming else None
    if layer.op == "Gemm" and first is not None and not first.flat and len(first.sizes) > 1:
        return "it takes a map: a Flatten must stand before it"
    along = axis_of(layer, first)
    if along != "C" and (first is None or along not in (first.axes or ())):
        return f"the map has no axis {layer.attributes.get('axis')}"
    if layer.op == "BatchNormalization" and along != "C":
        return f"it normalises over {along}, and its weights are over C"
    if layer.op == "LRN" and "size" not in layer.attributes:
        return "it does not say over how many channels (size)"
    if layer.op == "LRN" and first is not None and len(first.sizes) != 3:
        return "it takes a map that is not of two spatial axes, which onnxruntime does not normalise"
    flattened = first is not None and first.flat and len([size for size in first.sizes if size != 1]) > 1
    if flattened and layer.op in ("BatchNormalization", "PRelu", "LRN", "Softmax"):
        return "it takes a flattened map, whose order differs between formats"
    if layer.op in ("Add", "Mul", "Max", "Average") and any(each != first for each in incoming):
        return "it takes maps of different sizes"
    return None


def windows(layer: NetLayer, incoming: FeatureMap, outgoing: FeatureMap) -> tuple[Window, ...]:
    """How a layer walks along each spatial axis, in the order of the map's letters; both maps are complete.

    Sources: ONNX Operators, Conv and ConvTranspose, ``auto_pad``; Keras and TensorFlow pad SAME alike, the larger half
    behind.
    """
    letters = [axis for axis in incoming.axes or () if axis != "C"]
    found = []
    for i, letter in enumerate(letters):
        before, after = incoming.size(letter) or 0, outgoing.size(letter) or 0
        kernel, stride, dilation = (
            _along(layer.attributes.get(key, 1), i) for key in ("kernel_shape", "strides", "dilations")
        )
        plain = Window(before, after, kernel, stride, dilation, 0, 0)
        pads, mode = layer.attributes.get("pads"), layer.attributes.get("auto_pad", "VALID")
        if pads is not None:
            begin, end = int(pads[i]), int(pads[i + len(letters)])
        elif mode == "SAME_UPPER":
            places = before if layer.op != "ConvTranspose" else after
            begin, end = _same(places, -(-places // stride), plain)
        elif mode == "CAUSAL":
            begin, end = plain.reach - 1, 0
        elif mode == "FULL":
            begin = end = plain.reach - 1
        else:
            begin = end = 0
        extra = 0
        if layer.op == "ConvTranspose":
            extra = after - ((before - 1) * stride + plain.reach - begin - end)
        found.append(Window(before, after, kernel, stride, dilation, begin, end, extra))
    return tuple(found)


def _same(places: int, windows: int, window: Window) -> tuple[int, int]:
    """What SAME_UPPER puts before and after so many places."""
    total = max((windows - 1) * window.stride + window.reach - places, 0)
    return total // 2, total - total // 2


def _along(value: int | Sequence[int], i: int) -> int:
    return value if isinstance(value, int) else int(value[i])


def sizes(fmap: FeatureMap, first: bool) -> list[int]:
    """The sizes of a complete map, channels first or last; of a flattened one how many values it has."""
    known = [size or 0 for size in fmap.sizes]
    if fmap.flat or fmap.axes is None:
        return [math.prod(known)]
    space = [size for axis, size in zip(fmap.axes, known, strict=True) if axis != "C"]
    channels = fmap.size("C") or 0
    return [channels, *space] if first else [*space, channels]


def weights_dtype(bundle: Bundle, known: Sequence[str]) -> tuple[str, list[Problem]]:
    """The one dtype of all weights, in which the network computes; without weights float32. Two are a problem."""
    by_dtype = {tensor.dtype.name: name for name, tensor in bundle.items() if tensor.role not in NOT_WEIGHTS}
    if len(by_dtype) > 1:
        listed = ", ".join(f"{dtype} ({name})" for dtype, name in by_dtype.items())
        return "", [Problem("dtype", f"a network computes in one dtype, its weights have {listed}")]
    dtype = next(iter(by_dtype), "float32")
    return dtype, [] if dtype in known else [
        Problem("dtype", f"a network does not compute in {dtype}", by_dtype[dtype])
    ]


def rows_reason(source: Layout, target: Layout, format_name: str) -> str:
    """Why the rows of a dense kernel are shuffled or stay; "" for one whose rows are no flattened map."""
    before, after = source.axes[0], target.axes[0]
    if len(after) == 1:
        return ""
    if before == after:
        return f"rows stay: {format_name} flattens {' '.join(after)}, as the source does"
    space = [letter for letter in after if letter != "C"]
    if all(target.size(letter) == 1 for letter in space):
        return f"rows stay: {' = '.join(space)} = 1, so every order is the same"
    return f"rows shuffled {before} -> {after}: {format_name} flattens {' '.join(after)}"
