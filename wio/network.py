"""A network as data: layers in order, what flows between them, and what follows from that.

The operators are ONNX's where ONNX has one (``Conv``, ``Gemm``, ``BatchNormalization``, ...). The registry's files
and the configurations that Keras saves both become a :class:`Network`, so one piece of code answers what a dense
kernel's rows flatten and in which order old loaders walk the layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from wio.errors import FormatError

ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "Tanh", "Softmax", "Activation"})
GLOBAL_POOLS = frozenset({"GlobalPool", "GlobalAveragePool", "GlobalMaxPool"})
POOLS = GLOBAL_POOLS | {"MaxPool", "AveragePool"}
ELEMENTWISE = ACTIVATIONS | {"BatchNormalization", "LRN", "Dropout", "Identity"}
WITH_KERNEL = frozenset({"Conv", "DepthwiseConv", "ConvTranspose", "Gemm"})
TIME = "T"


class NetLayer(Struct, frozen=True):
    """One layer: its operator, attributes and the names of the layers whose outputs it takes.

    Attributes: ``filters``/``units`` (output channels), ``kernel_shape``, ``strides``, ``dilations``, ``auto_pad``
    (``VALID``, ``SAME_UPPER``, ``CAUSAL``) or ``pads`` (ONNX's: all begins, then all ends), ``ceil_mode``,
    ``data_format``, ``epsilon``, ``scale``, ``center``, ``bias``, ``axes``, ``sizes``; ``group``, ``output_padding``,
    ``count_include_pad``, ``alpha``, ``scales``; ``keepdims`` of a global pool; ``axis``, a letter or a number that
    counts N; ``function``, a text, of an ``Activation``. ``unsaid`` tells a person what the source's operator does and
    these do not say: such a layer is not run, and a registry's file with it is refused.
    """

    name: str
    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()


class FeatureMap(Struct, frozen=True):
    """What flows from one layer to the next, the batch axis left out.

    ``axes``  letters in memory order (H W C, or C H W, a leading T for time), or None if the order is not known.
    ``sizes`` the size of each axis, None where not known.
    ``flat``  the map was flattened to one axis, in the order of ``axes``.
    """

    axes: tuple[str, ...] | None
    sizes: tuple[int | None, ...]
    flat: bool = False

    def size(self, letter: str) -> int | None:
        return self.sizes[self.axes.index(letter)] if self.axes and letter in self.axes else None

    @property
    def complete(self) -> bool:
        return self.axes is not None and all(size is not None for size in self.sizes)


class Network(Struct, frozen=True, dict=True):
    """Layers in the order in which they were created."""

    layers: tuple[NetLayer, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise FormatError(f"two layers are named {layer.name!r}")
            missing = [name for name in layer.inputs if name not in seen]
            if missing:
                raise FormatError(f"layer {layer.name!r} takes {missing[0]!r}, which is no layer before it")
            seen.add(layer.name)

    def feature_maps(self, given: Mapping[str, FeatureMap | None] | None = None) -> dict[str, FeatureMap | None]:
        """For each layer what it gives out; None where that is not known. ``given`` presets some."""
        return self._own_maps if not given else self._maps(given)

    @cached_property
    def _own_maps(self) -> dict[str, FeatureMap | None]:
        return self._maps({})

    def _maps(self, given: Mapping[str, FeatureMap | None]) -> dict[str, FeatureMap | None]:
        maps: dict[str, FeatureMap | None] = {}
        for layer in self.layers:
            if layer.name in given:
                maps[layer.name] = given[layer.name]
            else:
                maps[layer.name] = output_of(layer, [maps[name] for name in layer.inputs])
        return maps

    def batch_norms(self) -> dict[str, str]:
        """For each batch norm that alone takes what a layer with a kernel gives out, that layer."""
        by_name = {layer.name: layer for layer in self.layers}
        takers = Counter(name for layer in self.layers for name in layer.inputs)
        return {
            layer.name: layer.inputs[0]
            for layer in self.layers
            if layer.op == "BatchNormalization" and len(layer.inputs) == 1 and takers[layer.inputs[0]] == 1
            if by_name[layer.inputs[0]].op in WITH_KERNEL
        }

    def renamed(self, names: Mapping[str, str | None]) -> Network:
        """The network with other names for its layers; one without another name keeps its own."""

        def of(name: str) -> str:
            return names.get(name) or name

        return Network(
            tuple(replace(layer, name=of(layer.name), inputs=tuple(map(of, layer.inputs))) for layer in self.layers)
        )

    def keras_order(self, outputs: Sequence[str] | None = None) -> list[str]:
        """The names in the order of Keras's ``model.layers`` for a functional model; by default every end is an output.

        Source: keras 2.2.4 ``engine/network.py``, ``_map_graph_network``: by depth from the outputs, and within one
        depth by the order in which a walk from the outputs first meets a layer.
        """
        by_name = {layer.name: layer for layer in self.layers}
        consumed = {name for layer in self.layers for name in layer.inputs}
        met: dict[str, int] = {}
        finished: list[str] = []
        done: set[str] = set()
        ends = [layer.name for layer in self.layers if layer.name not in consumed]
        for output in ends if outputs is None else outputs:
            stack = [(output, iter(by_name[output].inputs))]
            met.setdefault(output, len(met))
            while stack:
                name, inputs = stack[-1]
                following = next((each for each in inputs if each not in done), None)
                if following is None:
                    stack.pop()
                    if name not in done:
                        done.add(name)
                        finished.append(name)
                else:
                    met.setdefault(following, len(met))
                    stack.append((following, iter(by_name[following].inputs)))
        depth = dict.fromkeys(finished, 0)
        for name in reversed(finished):
            for before in by_name[name].inputs:
                depth[before] = max(depth[before], depth[name] + 1)
        return sorted(finished, key=lambda name: (-depth[name], met[name]))


def unused_name(wanted: str, taken: set[str]) -> str:
    """A name for a layer that may be called more than once: ``conv``, ``conv (2)``, ...; it is taken from then on."""
    name, k = wanted, 1
    while name in taken:
        k += 1
        name = f"{wanted} ({k})"
    taken.add(name)
    return name


def axis_of(layer: NetLayer, incoming: FeatureMap | None) -> str | None:
    """The letter of the axis along which a layer works, C where it does not say; None for a number that tells none."""
    told = layer.attributes.get("axis", "C")
    if isinstance(told, str):
        return told
    if incoming is not None and incoming.flat:
        return "C" if told in (1, -1) else None
    axes = None if incoming is None else incoming.axes
    if axes is None:
        return None
    place = told - 1 if told > 0 else len(axes) + told
    return axes[place] if told and 0 <= place < len(axes) else None


# What layers compute by, and what holds where they do not say: ONNX's defaults, and C for an axis.
_COMPUTED_BY: Mapping[str, Mapping[str, Any]] = {
    "BatchNormalization": {"axis": "C"},
    "Softmax": {"axis": "C"},
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Activation": {"function": None},
    "Conv": {"group": 1},
    "ConvTranspose": {"group": 1},
    "AveragePool": {"count_include_pad": 0},
}


def computed_otherwise(own: NetLayer, wanted: NetLayer) -> Iterator[tuple[str, Any, Any]]:
    """The attributes by which two layers of one operator compute different things, with what each says."""
    if own.op != wanted.op:
        return
    for name, usual in _COMPUTED_BY.get(own.op, {}).items():
        here, there = own.attributes.get(name, usual), wanted.attributes.get(name, usual)
        unsettled = name == "axis" and not (isinstance(here, str) and isinstance(there, str))
        if unsettled or here is None or there is None:
            continue
        near = not isinstance(here, str) and not isinstance(there, str) and abs(here - there) <= 1e-6 * abs(there)
        if here != there and not near:
            yield name, here, there


def output_of(layer: NetLayer, inputs: Sequence[FeatureMap | None]) -> FeatureMap | None:
    """What a layer gives out for what it takes; None if the operator or its input is not known well enough."""
    if "unsaid" in layer.attributes:
        return None
    first = inputs[0] if inputs else None
    attributes = layer.attributes
    if layer.op == "Input":
        sizes = attributes.get("sizes")
        axes = attributes.get("axes")
        return None if sizes is None else FeatureMap(tuple(axes) if axes else None, tuple(sizes))
    if layer.op in ELEMENTWISE:
        return first
    if layer.op in ("Add", "Mul", "Max", "Average"):
        return merged(inputs)
    if layer.op == "Gemm":
        return _gemm(attributes, first)
    if layer.op == "Flatten":
        return _flatten(attributes, first)
    if layer.op == "Concat":
        return _concat(attributes, inputs)
    if layer.op == "Features":
        return FeatureMap(("C",), (attributes.get("units"),))
    if layer.op in _SPATIAL:
        return _spatial(layer, ordered(first, attributes))
    return None


def ordered(fmap: FeatureMap | None, attributes: Mapping[str, Any]) -> FeatureMap | None:
    """The map with its axes named, if the layer that takes it declares a data format."""
    data_format, letters = attributes.get("data_format"), attributes.get("letters")
    if fmap is None or fmap.flat or fmap.axes is not None or not data_format or not letters:
        return fmap
    axes = ("C", *letters) if data_format == "channels_first" else (*letters, "C")
    return FeatureMap(axes, fmap.sizes) if len(axes) == len(fmap.sizes) else None


def merged(inputs: Sequence[FeatureMap | None]) -> FeatureMap | None:
    """What comes of maps that are combined element by element, each broadcast to the others from the last axis on.

    None where an input is not known, or axes that meet are not the same ones: nothing says then what the result is.
    Sources: keras 2.2.4 ``layers/merge.py`` and keras 3.15 ``layers/merging/base_merge.py``, ``_Merge.call``.
    """
    known = [each for each in inputs if each is not None]
    if not known or len(known) < len(inputs):
        return None
    if any(each.flat for each in known):
        return known[0] if all(each == known[0] for each in known) else None
    rank = max(len(each.sizes) for each in known)
    named = {each.axes for each in known if each.axes is not None and len(each.sizes) == rank}
    if len(named) > 1:
        return None
    axes = next(iter(named), None)
    if any(len(each.sizes) < rank and (not axes or each.axes != axes[rank - len(each.sizes) :]) for each in known):
        return None
    sizes: list[int | None] = []
    for place in range(-rank, 0):
        met = {each.sizes[place] for each in known if len(each.sizes) >= -place} - {1}
        told = met - {None}
        if len(told) > 1:
            return None
        # An axis of unknown size has that of the others, or 1; where all others have 1 it may have any.
        sizes.append(next(iter(told), None if met else 1))
    return FeatureMap(axes, tuple(sizes))


def _gemm(attributes: Mapping[str, Any], first: FeatureMap | None) -> FeatureMap | None:
    units = attributes.get("units")
    if first is None or first.flat or len(first.sizes) <= 1:
        return FeatureMap(("C",), (units,))
    return FeatureMap(first.axes, (*first.sizes[:-1], units))


def _flatten(attributes: Mapping[str, Any], first: FeatureMap | None) -> FeatureMap | None:
    """Flatten in C order; with ``data_format="channels_first"`` the first axis is moved last before.

    Source: keras >= 2.1.6 ``layers/core.py``, ``Flatten.call``.
    """
    if first is None or first.flat:
        return first
    axes, sizes = first.axes, first.sizes
    if attributes.get("data_format") == "channels_first" and len(sizes) > 1:
        axes, sizes = (*axes[1:], axes[0]) if axes else None, (*sizes[1:], sizes[0])
    return FeatureMap(axes, sizes, flat=True)


def _concat(attributes: Mapping[str, Any], inputs: Sequence[FeatureMap | None]) -> FeatureMap | None:
    first = inputs[0]
    if first is None or any(each is None or each.flat or each.axes != first.axes for each in inputs):
        return None
    rank = len(first.sizes)
    axis = attributes.get("axis", -1)
    if axis == "C":
        place = first.axes.index("C") if first.axes and "C" in first.axes else None
    else:
        place = axis - 1 if axis > 0 else rank + axis
    if place is None or not 0 <= place < rank:
        return None
    along = [each.sizes[place] for each in inputs if each is not None]
    total = None if None in along else sum(size for size in along if size is not None)
    return FeatureMap(first.axes, (*first.sizes[:place], total, *first.sizes[place + 1 :]))


_SPATIAL = POOLS | frozenset(
    {
        "Conv",
        "DepthwiseConv",
        "ConvTranspose",
        "Pad",
        "Crop",
        "Resize",
        "LocallyConnected",
    }
)


OPERATORS = ELEMENTWISE | _SPATIAL | {"Input", "Add", "Mul", "Max", "Average", "Gemm", "Flatten", "Concat", "Features"}


def _spatial(layer: NetLayer, first: FeatureMap | None) -> FeatureMap | None:
    if first is None or first.axes is None or first.flat or "C" not in first.axes:
        return None
    letters = [axis for axis in first.axes if axis not in ("C", TIME)]
    attributes = layer.attributes
    if layer.op == "GlobalPool" or attributes.get("keepdims") is False:
        return FeatureMap(("C",), (first.size("C"),))
    sizes = dict(zip(first.axes, first.sizes, strict=True))
    if layer.op in ("GlobalAveragePool", "GlobalMaxPool"):
        return FeatureMap(first.axes, tuple(sizes[axis] if axis == "C" else 1 for axis in first.axes))
    for i, letter in enumerate(letters):
        before = sizes[letter]
        sizes[letter] = None if before is None else _extent(layer.op, attributes, i, len(letters), before)
    if layer.op in ("Conv", "ConvTranspose", "LocallyConnected"):
        sizes["C"] = attributes.get("filters")
    if layer.op == "DepthwiseConv":
        channels, multiplier = sizes["C"], attributes.get("multiplier", 1)
        sizes["C"] = None if channels is None else channels * multiplier
    return FeatureMap(first.axes, tuple(sizes[axis] for axis in first.axes))


def _extent(op: str, attributes: Mapping[str, Any], i: int, rank: int, before: int) -> int | None:
    """The size of one spatial axis after a layer (ONNX Operators, ``auto_pad``; Keras ``conv_output_length``)."""
    if op in ("Pad", "Crop"):
        margin = sum(map(int, attributes["pads"][i]))
        return before + margin if op == "Pad" else before - margin
    if op == "Resize":
        return int(before * attributes["scales"][i])
    kernel = _each(attributes.get("kernel_shape", 1), rank)[i]
    stride = _each(attributes.get("strides", 1), rank)[i]
    if stride < 1:
        raise FormatError(f"a {op} cannot have the stride {stride}")
    dilation = _each(attributes.get("dilations", 1), rank)[i]
    pad = attributes.get("auto_pad", "VALID")
    reach = (kernel - 1) * dilation + 1
    begin, end = _pads(attributes.get("pads"), i, rank)
    if op == "ConvTranspose":
        extra = attributes.get("output_padding")
        if extra is not None and pad == "SAME_UPPER":
            return None
        behind = max(stride - reach, 0) if extra is None else _each(extra, rank)[i]
        full = before * stride if pad == "SAME_UPPER" else (before - 1) * stride + reach + behind
        return full - begin - end
    if pad in ("SAME_UPPER", "CAUSAL"):
        return -(-before // stride)
    if pad == "FULL":
        before += 2 * (reach - 1)
    elif pad != "VALID":
        return None
    return _windows(before, reach, stride, begin, end, round_up=bool(attributes.get("ceil_mode")))


def _windows(before: int, reach: int, stride: int, begin: int, end: int, *, round_up: bool) -> int:
    """How many windows fit; rounded up, a last one that would begin in the padding after the map is left out.

    Sources: ONNX Operators, MaxPool, ``ceil_mode``; Caffe pooling_layer.cpp, which always rounds up.
    """
    room = before + begin + end - reach
    if not round_up:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= before + begin else count


def _pads(pads: Sequence[int] | None, i: int, rank: int) -> tuple[int, int]:
    if pads is None:
        return 0, 0
    if len(pads) != 2 * rank:
        raise FormatError(f"{list(pads)} are no pads of {rank} spatial axes: begins first, then ends")
    return int(pads[i]), int(pads[i + rank])


def _each(value: int | Iterable[int], rank: int) -> list[int]:
    found = [value] * rank if isinstance(value, int) else list(value)
    if len(found) != rank:
        raise FormatError(f"{found} were given for {rank} spatial axes")
    return found
