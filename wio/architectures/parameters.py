"""The weights that a network has: their names, roles and layouts, which follow from its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from wio.layout import Layout
from wio.network import FeatureMap, NetLayer, Network


class Part(Struct, frozen=True):
    """One weight of a kind of layer; a layer whose attribute ``switch`` is false goes without it."""

    name: str
    role: str
    switch: str | None = None


# In the order in which most formats keep them.
PARTS: Mapping[str, tuple[Part, ...]] = {
    "Conv": (Part("kernel", "conv.kernel"), Part("bias", "conv.bias", "bias")),
    "ConvTranspose": (Part("kernel", "conv_transpose.kernel"), Part("bias", "conv_transpose.bias", "bias")),
    "DepthwiseConv": (Part("kernel", "depthwise.kernel"), Part("bias", "depthwise.bias", "bias")),
    "Gemm": (Part("kernel", "dense.kernel"), Part("bias", "dense.bias", "bias")),
    "BatchNormalization": (
        Part("gamma", "batch_norm.gamma", "scale"),
        Part("beta", "batch_norm.beta", "center"),
        Part("mean", "batch_norm.mean"),
        Part("variance", "batch_norm.variance"),
    ),
    "PRelu": (Part("alpha", "prelu.alpha"),),
}
# What a part holds with which its layer does what it does without.
CHANGES_NOTHING: Mapping[str, float] = {"gamma": 1.0, "beta": 0.0, "bias": 0.0}
# What a layer with weights must say of itself.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "Conv": ("filters", "kernel_shape"),
    "ConvTranspose": ("filters", "kernel_shape"),
    "DepthwiseConv": ("kernel_shape",),
    "Gemm": ("units",),
}


class Parameter(Struct, frozen=True):
    """One weight of an architecture: ``name`` is canonical, ``key`` is how dialects speak of it (``Conv.kernel``)."""

    name: str
    key: str
    role: str
    layer: NetLayer
    layout: Layout

    @property
    def part(self) -> str:
        return self.key.rpartition(".")[2]


def outputs_of(layer: NetLayer | None) -> int | None:
    """How many output channels a layer says that it has."""
    told = {} if layer is None else layer.attributes
    found = told.get("filters", told.get("units"))
    return found if isinstance(found, int) else None


def parameters_of(network: Network) -> Iterator[Parameter]:
    """Every weight of a network, its layers in order."""
    maps = network.feature_maps()
    for layer in network.layers:
        incoming = maps[layer.inputs[0]] if layer.inputs else None
        for part in PARTS.get(layer.op, ()):
            if part.switch is not None and not layer.attributes.get(part.switch, True):
                continue
            leaf = {"mean": "moving_mean", "variance": "moving_variance"}.get(part.name, part.name)
            layout = Layout.parse(_layout_text(part.role, layer, incoming))
            yield Parameter(f"{layer.name}/{leaf}", f"{layer.op}.{part.name}", part.role, layer, layout)


def _layout_text(role: str, layer: NetLayer, incoming: FeatureMap | None) -> str:
    """The canonical layout of a parameter, from what flows into its layer."""
    kind, _, part = role.partition(".")
    if kind == "batch_norm":
        return "C"
    if kind == "prelu":
        # One slope for each channel, wherever in space (ONNX and PyTorch; shared_axes in Keras).
        return "C" if incoming is None or incoming.flat else "1" * (len(incoming.sizes) - 1) + "C"
    if part == "bias":
        return "O"
    if kind == "dense":
        return _dense_layout(incoming)
    letters = "DHW"[3 - len(layer.attributes["kernel_shape"]) :]
    group = layer.attributes.get("group", 1)
    if group > 1 and kind != "depthwise":
        return f"{letters}{'O(GI)' if kind == 'conv_transpose' else 'I(GO)'} G={group}"
    return letters + {"conv_transpose": "OI", "depthwise": "CM"}.get(kind, "IO")


def _dense_layout(incoming: FeatureMap | None) -> str:
    if incoming is None or (incoming.flat and not incoming.complete):
        return "(?)O"
    if not incoming.flat or incoming.axes is None:
        return "IO"
    sizes = " ".join(f"{axis}={size}" for axis, size in zip(incoming.axes, incoming.sizes, strict=True))
    return f"({''.join(incoming.axes)})O {sizes}"
