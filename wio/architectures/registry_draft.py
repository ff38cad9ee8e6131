"""A first draft of a registry file, from a file that holds a graph beside its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from wio.architectures.parameters import PARTS, parameters_of
from wio.architectures.toml_text import exact_glob, quoted
from wio.bundle import Bundle, Tensor
from wio.network import OPERATORS, NetLayer, Network, unused_name

# What the format of spec/registry-1.md knows; graphs say more of their layers, which rows need not.
_ATTRIBUTES = (
    *("filters", "units", "multiplier", "kernel_shape", "strides", "dilations", "pads", "auto_pad", "ceil_mode"),
    *("group", "output_padding", "count_include_pad", "keepdims", "scales", "function", "size", "alpha", "beta"),
    *("bias", "epsilon", "scale", "center", "axes", "sizes", "axis", "ratio", "unsaid"),
)


def draft(identity: str, network: Network, bundle: Bundle, adapter: str, source: str) -> str:
    """The text of a registry file: the layers as the graph has them, and one dialect that names each weight singly.

    What the graph does not tell stands in comments that begin with ``TODO``: an operator without a name here, the size
    of the input. What the format cannot say of a layer is its attribute ``unsaid``; a file that still has one, or an
    operator without a name here, is not sound. Roles, kernel sizes and channels come from what the file declares of its
    tensors.
    """
    held = _by_layer(bundle)
    network = _with_input(network)
    layers = [_drafted(layer, held.get(layer.name, {})) for layer in network.layers]
    lines = [f"id = {quoted(identity)}", f"title = {quoted(identity)}", "", "[network]", "layers = ["]
    for layer in layers:
        lines += _row(layer)
    lines += ["]", "", f"[dialects.{quoted(adapter)}]", f"adapters = [{quoted(adapter)}]", f"title = {quoted(source)}"]
    lines += [f"source = {quoted(source)}", 'verified = "TODO: by whom, and how"', 'layers = "{layer}"']
    named = dict(_named(Network(tuple(layers)), held))
    rest = [name for name in bundle if name not in named.values()]
    if rest:
        lines += ["drop = ["]
        lines += [f'  [{quoted(exact_glob(name))}, "TODO: why, or of which layer it is"],' for name in rest]
        lines += ["]"]
    lines += ["", f"[dialects.{quoted(adapter)}.tensors]"]
    lines += [f"{quoted(canonical)} = {quoted(name)}" for canonical, name in named.items()]
    return "\n".join(lines) + "\n"


def settled(network: Network, bundle: Bundle) -> Network:
    """The network with an Input, its layers with what their weights settle: channels, kernel sizes, whether a bias."""
    held = _by_layer(bundle)
    layers = []
    for layer in _with_input(network).layers:
        attributes = {**layer.attributes, **_completed(layer, held.get(layer.name, {})).attributes}
        layers.append(replace(layer, attributes=attributes))
    return Network(tuple(layers))


def _by_layer(bundle: Bundle) -> dict[str, dict[str, Tensor]]:
    """The weights of each layer by their role."""
    held: dict[str, dict[str, Tensor]] = {}
    for tensor in bundle.values():
        if tensor.role is not None:
            held.setdefault(tensor.layer, {})[tensor.role] = tensor
    return held


def _with_input(network: Network) -> Network:
    """The network with an Input before layers that take nothing: a Sequential of Keras has none."""
    if all(layer.inputs or layer.op == "Input" for layer in network.layers):
        return network
    entrance = unused_name("input", {layer.name for layer in network.layers})
    fed = (
        layer if layer.inputs or layer.op == "Input" else replace(layer, inputs=(entrance,)) for layer in network.layers
    )
    return Network((NetLayer(entrance, "Input"), *fed))


def _completed(layer: NetLayer, weights: Mapping[str, Tensor]) -> NetLayer:
    """The layer with the attributes that its weights settle."""
    op = layer.op
    attributes = {k: v for k, v in layer.attributes.items() if k in _ATTRIBUTES and v is not None}
    if attributes.get("axis") == "C" and op != "Concat":
        del attributes["axis"]
    parts = PARTS.get(op, ())
    for part in parts:
        if part.switch is not None:
            attributes[part.switch] = part.role in weights
    if not parts and op != "LRN":
        attributes.pop("bias", None)
    if op == "Input" and ("axes" not in attributes or None in attributes.get("sizes", ())):
        attributes = {}
    kernel = next((tensor for role, tensor in weights.items() if role.endswith(".kernel")), None)
    if kernel is not None and kernel.layout is not None:
        extents = kernel.layout.extents(kernel.shape)
        outputs = extents.get("O", 0) * extents.get("G", 1)
        spatial = [extents[letter] for letter in "DHW" if letter in extents and letter in kernel.layout.spatial]
        if op == "Gemm":
            attributes["units"] = outputs
        elif op in ("Conv", "ConvTranspose") and outputs:
            attributes |= {"filters": outputs, "kernel_shape": spatial}
        elif op == "DepthwiseConv":
            attributes["kernel_shape"] = spatial
    return NetLayer(layer.name, op, attributes, layer.inputs)


def _drafted(layer: NetLayer, weights: Mapping[str, Tensor]) -> NetLayer:
    """The layer as a row has it: the canonical slope of a PRelu is one for each channel, a graph's may be more."""
    drafted, slope = _completed(layer, weights), weights.get("prelu.alpha")
    varies = set() if slope is None or slope.layout is None else set(slope.layout.letters) - {"C", "1"}
    if not varies:
        return drafted
    unsaid = f"a slope that varies over {' '.join(sorted(varies))}"
    return replace(drafted, attributes={**drafted.attributes, "unsaid": unsaid})


def _row(layer: NetLayer) -> Iterator[str]:
    if "unsaid" in layer.attributes:
        yield "  # TODO: what the graph does here no operator says; settle it, and leave unsaid out"
    elif layer.op not in OPERATORS:
        yield f"  # TODO: the graph has an operator here that is called {layer.op}"
    if layer.op == "Input" and "sizes" not in layer.attributes:
        yield '  # TODO: its axes and sizes, as { axes = "HWC", sizes = [224, 224, 3] }'
    inputs = "[" + ", ".join(map(quoted, layer.inputs)) + "]" if len(layer.inputs) != 1 else quoted(layer.inputs[0])
    row = f"  [{quoted(layer.name)}, {quoted(layer.op)}, {inputs}"
    if layer.attributes:
        row += ", { " + ", ".join(f"{key} = {_value(value)}" for key, value in layer.attributes.items()) + " }"
    yield f"{row}],"


def _named(network: Network, held: Mapping[str, Mapping[str, Tensor]]) -> Iterator[tuple[str, str]]:
    for parameter in parameters_of(network):
        tensor = held.get(parameter.layer.name, {}).get(parameter.role)
        if tensor is not None:
            yield parameter.name, tensor.name


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)
