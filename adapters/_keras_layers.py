"""The layers of Keras 1 and 2: which weights each class has, in which order, and what it does to a feature map.

Sources: the layer classes of keras 1.2.2, 2.0.5 and 2.2.4 (``build``, ``get_config``), each saved by the real one.
A class that is not here has no roles: its weights stay undeclared until the user declares them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from wio.adapters._keras_conventions import CHANNELS_FIRST, CHANNELS_LAST, KerasConvention
from wio.layout import Layout
from wio.network import TIME, FeatureMap, NetLayer, merged, output_of
from wio.roles import contradiction

Config = Mapping[str, Any]


class Weight(Struct, frozen=True):
    """One array that a layer has: its role, the endings its name may have, and the gate if it holds only one."""

    role: str
    leaves: tuple[str, ...]
    gate: str | None = None
    trainable: bool = True


_SPATIAL_CLASSES = {
    **dict.fromkeys(("Conv1D", "Convolution1D", "AtrousConvolution1D"), ("Conv", "W", "conv")),
    **dict.fromkeys(("Conv2D", "Convolution2D", "AtrousConvolution2D", "AtrousConv2D"), ("Conv", "HW", "conv")),
    **dict.fromkeys(("Conv3D", "Convolution3D"), ("Conv", "DHW", "conv")),
    **dict.fromkeys(("Conv2DTranspose", "Deconvolution2D", "Deconv2D"), ("ConvTranspose", "HW", "conv_transpose")),
    "Conv1DTranspose": ("ConvTranspose", "W", "conv_transpose"),
    **dict.fromkeys(("Conv3DTranspose", "Deconvolution3D"), ("ConvTranspose", "DHW", "conv_transpose")),
    "DepthwiseConv2D": ("DepthwiseConv", "HW", "depthwise"),
    "DepthwiseConv1D": ("DepthwiseConv", "W", "depthwise"),
    **dict.fromkeys(("SeparableConv2D", "SeparableConvolution2D"), ("Conv", "HW", "separable")),
    **dict.fromkeys(("SeparableConv1D", "SeparableConvolution1D"), ("Conv", "W", "separable")),
    "LocallyConnected1D": ("LocallyConnected", "W", "locally_connected"),
    "LocallyConnected2D": ("LocallyConnected", "HW", "locally_connected"),
    **{f"{kind}Pooling{n}D": (f"{kind[:7]}Pool", "DHW"[3 - n :], "") for kind in ("Max", "Average") for n in (1, 2, 3)},
    **{
        f"Global{kind}Pooling{n}D": ("GlobalPool", "DHW"[3 - n :], "") for kind in ("Max", "Average") for n in (1, 2, 3)
    },
    **{f"ZeroPadding{n}D": ("Pad", "DHW"[3 - n :], "") for n in (1, 2, 3)},
    **{f"Cropping{n}D": ("Crop", "DHW"[3 - n :], "") for n in (1, 2, 3)},
    **{f"UpSampling{n}D": ("Resize", "DHW"[3 - n :], "") for n in (1, 2, 3)},
}
_ACTIVATIONS = frozenset({"Activation", "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "Softmax"})
_NOISE = frozenset(
    {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout"}
    | {"GaussianNoise", "GaussianDropout", "ActivityRegularization", "Masking"}
)
_WEIGHTED_ELEMENTWISE = frozenset({"BatchNormalization", "LayerNormalization", "PReLU", "ParametricSoftplus", "SReLU"})
_ELEMENTWISE = _ACTIVATIONS | _NOISE | _WEIGHTED_ELEMENTWISE
_MERGES = {
    "Add": "Add",
    "Multiply": "Mul",
    "Maximum": "Max",
    "Average": "Average",
    "Subtract": "Add",
    "Concatenate": "Concat",
}
_ELEMENT_BY_ELEMENT = frozenset({"Add", "Multiply", "Maximum", "Minimum", "Average", "Subtract"})
# They have no operator in a network; what they give out has the shape of what they take.
_SHAPE_KEPT = frozenset({"Rescaling", "UnitNormalization", "GroupNormalization", "RMSNormalization", "Normalization"})
# What Flatten gives out of whatever it is: flat, and its make-up not known.
FLAT_UNKNOWN = FeatureMap(None, (None, None), flat=True)
# What decides which weights a recurrent layer has, and how they are laid out.
_TELLING = ("use_bias", "reset_after", "units", "filters")
_CUDNN = {"CuDNNLSTM": "lstm", "CuDNNGRU": "gru"}
_RECURRENT = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn", "ConvLSTM2D": "conv_lstm", **_CUDNN}
WEIGHTLESS = (
    _ACTIVATIONS
    | _NOISE
    | frozenset({*_MERGES, "Merge", "InputLayer", "Flatten", "Reshape", "Permute", "RepeatVector", "Lambda"})
    | frozenset({"Minimum", "Identity", "Rescaling", "UnitNormalization"})
)


def data_format(config: Config) -> str | None:
    """What a layer says of its data format: ``data_format``, or ``dim_ordering`` of Keras 1; None if it does not."""
    told = config.get("data_format", config.get("dim_ordering"))
    return {"th": CHANNELS_FIRST, "tf": CHANNELS_LAST}.get(
        str(told), told if told in (CHANNELS_FIRST, CHANNELS_LAST) else None
    )


def spatial_letters(class_name: str) -> str | None:
    return _SPATIAL_CLASSES[class_name][1] if class_name in _SPATIAL_CLASSES else None


def weights_of(class_name: str, config: Config, version: str | None, backend: str) -> tuple[Weight, ...] | None:
    """The arrays of one plain layer in Keras's order, or None for a class whose arrays are not known."""
    bias = bool(config.get("use_bias", config.get("bias", True)))
    if class_name in _SPATIAL_CLASSES:
        kind = _SPATIAL_CLASSES[class_name][2]
        return _convolution(kind, bias) if kind else ()
    if class_name in ("Dense", "TimeDistributedDense"):
        return _kernel_and_bias("dense", bias)
    if class_name == "BatchNormalization":
        return _batch_norm(config, version, backend)
    if class_name == "LayerNormalization":
        return _scale_and_center("layer_norm", config)
    if class_name in _RECURRENT:
        return _recurrent(class_name, config, bias)
    if class_name == "Embedding":
        return (Weight("embedding.table", ("embeddings", "W")),)
    if class_name == "PReLU":
        return (Weight("prelu.alpha", ("alpha", "alphas")),)
    if class_name == "MaxoutDense":
        return _kernel_and_bias("maxout", bias)
    if class_name == "Highway":
        found = [Weight("highway.kernel", ("W",)), Weight("highway.carry_kernel", ("W_carry",))]
        return (*found, *((Weight("highway.bias", ("b",)), Weight("highway.carry_bias", ("b_carry",))) if bias else ()))
    return () if class_name in WEIGHTLESS else None


def _kernel_and_bias(kind: str, bias: bool) -> tuple[Weight, ...]:
    return (Weight(f"{kind}.kernel", ("kernel", "W")), *((Weight(f"{kind}.bias", ("bias", "b")),) if bias else ()))


def _convolution(kind: str, bias: bool) -> tuple[Weight, ...]:
    tail = (Weight(f"{kind}.bias", ("bias", "b")),) if bias else ()
    if kind == "depthwise":
        return (Weight("depthwise.kernel", ("depthwise_kernel", "kernel")), *tail)
    if kind == "separable":
        names = ("depthwise_kernel", "pointwise_kernel")
        return (*(Weight(f"separable.{name}", (name,)) for name in names), *tail)
    return _kernel_and_bias(kind, bias)


def _scale_and_center(kind: str, config: Config) -> tuple[Weight, ...]:
    gamma = (Weight(f"{kind}.gamma", ("gamma",)),) if config.get("scale", True) else ()
    beta = (Weight(f"{kind}.beta", ("beta",)),) if config.get("center", True) else ()
    return gamma + beta


def _batch_norm(config: Config, version: str | None, backend: str) -> tuple[Weight, ...] | None:
    # The attribute keras_version came with 1.0.7. Without it nobody can know what running_std is.
    if version is None:
        return None
    return (
        *_scale_and_center("batch_norm", config),
        Weight("batch_norm.mean", ("moving_mean", "running_mean"), trainable=False),
        Weight(_spread(version, backend), ("moving_variance", "running_std"), trainable=False),
    )


def _spread(version: str, backend: str) -> str:
    """What running_std holds: the standard deviation up to 1.0.5 and, on Theano, in 1.0.6; the variance after.

    Sources: keras 0.3.3, 1.0.5, 1.0.6 and 1.0.7, ``normalization.py`` and ``normalize_batch_in_training``.
    """
    old = version.startswith("0.") or re.match(r"1\.0\.[0-5](?!\d)", version)
    last = backend == "theano" and re.match(r"1\.0\.6(?!\d)", version)
    return "batch_norm.std" if old or last else "batch_norm.variance"


def _recurrent(class_name: str, config: Config, bias: bool) -> tuple[Weight, ...]:
    kind = _RECURRENT[class_name]
    parts = [("kernel", "W"), ("recurrent_kernel", "U"), *([("bias", "b")] if bias else [])]
    # Keras 1 keeps each gate apart, unless consume_less="gpu" joined them (keras 1.2.2 recurrent.py).
    keras1 = "output_dim" in config or "nb_filter" in config
    joined = kind == "rnn" or not keras1 or config.get("consume_less") == "gpu"
    if joined:
        return tuple(Weight(f"{kind}.{part}", (part, letter)) for part, letter in parts)
    gates = "zrh" if kind == "gru" else "icfo"
    return tuple(Weight(f"{kind}.{part}", (f"{letter}_{gate}",), gate) for gate in gates for part, letter in parts)


def is_cudnn(class_name: str) -> bool:
    return class_name in _CUDNN


def recurrent_facts(class_name: str, config: Config) -> dict[str, Any]:
    """What the configuration of a recurrent layer says that its weights do not: which GRU it is, and what it computes
    otherwise than the layers of other frameworks do (tanh, sigmoid for the gates, forwards in time)."""
    if class_name not in _RECURRENT:
        return {}
    usual = {"activation": "tanh", "go_backwards": False}
    if class_name != "SimpleRNN":
        usual["recurrent_activation"] = "sigmoid"
    told = {**config, **({"recurrent_activation": config["inner_activation"]} if "inner_activation" in config else {})}
    facts = {key: told[key] for key, each in usual.items() if told.get(key, each) != each}
    facts = {key: each for key, each in facts.items() if isinstance(each, str | bool)}
    if class_name == "CuDNNGRU":
        return {"reset_after": True, **facts}
    # Keras 1 and 2.0 have no such argument, and reset before; so does 2.2 by default (recurrent.py, GRU).
    return {"reset_after": config.get("reset_after") is True, **facts} if class_name == "GRU" else facts


def are_directions(forward: Mapping[str, Any], backward: Mapping[str, Any]) -> bool:
    """Whether two layers, by their documents, can be the directions of one: they have the same weights."""

    def told(document: Mapping[str, Any]) -> list[Any]:
        own = {"class_name": document["class_name"], "registered_name": document.get("registered_name")}
        return [{**document["config"], **own}.get(key) for key in (*own, *_TELLING)]

    return told(forward) == told(backward)


def as_backward(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a backward layer that was given says of itself, told as of a direction: running backwards is usual."""
    others = {key: each for key, each in facts.items() if key != "go_backwards"}
    return others if facts.get("go_backwards") else {**others, "go_backwards": True}


def layout_of(
    weight: Weight,
    class_name: str,
    config: Config,
    convention: KerasConvention,
    incoming: FeatureMap | None,
    version: str | None,
) -> str | None:
    """The layout text of one array of a layer, or None where the file does not settle it."""
    kind, _, part = weight.role.partition(".")
    letters = spatial_letters(class_name) or ""
    if kind in ("conv", "conv_transpose", "depthwise", "separable", "locally_connected"):
        return _spatial_layout(kind, part, letters, config, convention, version)
    if weight.role == "dense.kernel":
        return _of_rows(incoming, "{}O {}")
    if kind in ("batch_norm", "layer_norm"):
        return _vector(incoming) if _over_channels(config, incoming) else None
    if weight.role == "prelu.alpha":
        return _alpha(config, incoming)
    if kind in ("lstm", "gru", "conv_lstm"):
        gates = weight.gate or ("zrh" if kind == "gru" else "ifco")
        if class_name in _CUDNN:
            return _cudnn_layout(part, gates, _step_of(incoming))
        if part == "bias":
            pair = kind == "gru" and config.get("reset_after") is True
            return f"{'B' if pair else ''}({'GO' if kind == 'conv_lstm' else 'GU'}) G={gates}"
        if kind == "conv_lstm":
            return convention.conv_lstm(gates)
        return _of_rows(_step_of(incoming), "{}(GU) {} G=" + gates) if part == "kernel" else f"I(GU) G={gates}"
    if weight.role == "rnn.kernel":
        return _of_rows(_step_of(incoming), "{}U {}")
    if weight.role == "maxout.kernel":
        return _of_rows(incoming, "M{}O {}")
    if kind == "highway" and incoming is not None and incoming.flat and len(incoming.sizes) > 1:
        # It gives out the map that it takes in, so its columns and biases would have to move as well.
        return None
    return _PLAIN_LAYOUTS.get(weight.role)


def _cudnn_layout(part: str, gates: str, incoming: FeatureMap | None) -> str | None:
    """How cuDNN keeps weights (keras 2.2.4 ``engine/saving.py``, ``_convert_rnn_weights``).

    Of each gate the recurrent kernel is transposed, and the kernel holds the values of a transposed one in its own
    shape; the input biases of all gates come before the recurrent ones.
    """
    if part == "bias":
        return f"(BGU) B=2 G={gates}"
    if part == "recurrent_kernel":
        return f"U(GI) G={gates}"
    return f"I(GU) values=UI G={gates}" if _of_rows(incoming, "{} {}") == "I" else None


_PLAIN_LAYOUTS = {
    "dense.bias": "O",
    "embedding.table": "IO",
    "rnn.recurrent_kernel": "IU",
    "rnn.bias": "U",
    "maxout.bias": "MO",
    "highway.kernel": "IO",
    "highway.carry_kernel": "IO",
    "highway.bias": "O",
    "highway.carry_bias": "O",
}


def _spatial_layout(
    kind: str, part: str, letters: str, config: Config, convention: KerasConvention, version: str | None
) -> str | None:
    if kind == "locally_connected":
        if part == "bias":
            return convention.locally_connected_bias(letters)
        sizes = dict(zip(letters, _numbers(kernel_shape(config)), strict=False))
        declared = " ".join(f"{letter}={size}" for letter, size in sizes.items())
        return f"{convention.locally_connected(letters)} {declared}"
    if part == "bias":
        return "O"
    if kind == "conv" and letters == "W" and convention.keras1 and (version or "").startswith("1.0."):
        # keras 1.0 convolutional.py: W_shape = (nb_filter, input_dim, filter_length, 1)
        return "OIW1 flipped" if convention.backend == "theano" else "OIW1"
    if kind == "conv" and config.get("groups", 1) not in (None, 1):
        return f"{letters}I(GO){' flipped' if convention.backend == 'theano' else ''} G={config['groups']}"
    by_part = {
        "conv": convention.conv,
        "conv_transpose": convention.conv_transpose,
        "depthwise": convention.depthwise,
        "separable": convention.pointwise if part == "pointwise_kernel" else convention.depthwise,
    }
    return by_part[kind](letters)


def _of_rows(incoming: FeatureMap | None, layout: str) -> str:
    """A layout whose rows are a flattened map, plain features, or of a make-up that the file does not tell."""
    if incoming is not None and (not incoming.flat or len(incoming.sizes) == 1):
        rows = ("I", "")
    else:
        rows = (None if incoming is None else _flat_group(incoming)) or ("(?)", "")
    return " ".join(layout.format(*rows).split())


def _step_of(incoming: FeatureMap | None) -> FeatureMap | None:
    """What a recurrent layer takes in at one step."""
    if incoming is None or not incoming.flat or not incoming.axes or incoming.axes[0] != TIME:
        return incoming
    return FeatureMap(incoming.axes[1:], incoming.sizes[1:], flat=True)


def _over_channels(config: Config, incoming: FeatureMap | None) -> bool:
    """Whether a norm is over the channels alone, as far as its input is known: Keras lets it be over any axes."""
    told = _numbers(config.get("axis", -1))
    if len(told) != 1:
        return False
    if incoming is None or incoming.flat or incoming.axes is None or "C" not in incoming.axes:
        return True
    # Counted with the batch, which comes first.
    place = incoming.axes.index("C") + 1
    return told[0] in (place, place - len(incoming.axes) - 1)


def _vector(incoming: FeatureMap | None) -> str:
    """A vector over the channels, or over the features of a flattened map."""
    if incoming is None or not incoming.flat or len(incoming.sizes) == 1:
        return "C"
    group = _flat_group(incoming)
    return "(?)" if group is None else f"{group[0]} {group[1]}"


def _flat_group(incoming: FeatureMap) -> tuple[str, str] | None:
    if not incoming.complete or incoming.axes is None or "T" in incoming.axes:
        return None
    sizes = " ".join(f"{axis}={size}" for axis, size in zip(incoming.axes, incoming.sizes, strict=True))
    return f"({''.join(incoming.axes)})", sizes


def _alpha(config: Config, incoming: FeatureMap | None) -> str | None:
    """PReLU keeps one alpha for each place of the map, an axis that is shared having length 1."""
    if incoming is None or incoming.axes is None or "T" in incoming.axes:
        return None
    if incoming.flat:
        return None if len(incoming.sizes) > 1 else "C"
    shared = config.get("shared_axes") or []
    text = "".join("1" if place + 1 in shared else axis for place, axis in enumerate(incoming.axes))
    # One alpha for all channels and many for the places is a layer that no other framework has.
    return None if contradiction("prelu.alpha", Layout.parse(text)) else text


def net_layer(name: str, class_name: str, config: Config) -> NetLayer:
    """The layer in the vocabulary of :mod:`wio.network`; an unknown class becomes an unknown operator."""
    letters = spatial_letters(class_name)
    if letters is not None:
        op = _SPATIAL_CLASSES[class_name][0]
        if op == "GlobalPool" and config.get("keepdims"):
            op = "GlobalAveragePool" if "Average" in class_name else "GlobalMaxPool"
        return NetLayer(name, op, {"letters": letters, **_spatial_attributes(op, config, letters)})
    if class_name in _ELEMENTWISE:
        return NetLayer(name, "Activation")
    if class_name == "Identity":
        return NetLayer(name, "Identity")
    if class_name in _MERGES:
        return NetLayer(name, _MERGES[class_name], {"axis": config.get("axis", -1)})
    if class_name == "Merge":
        mode = config.get("mode")
        op = {"concat": "Concat", "sum": "Add", "mul": "Mul", "ave": "Average", "max": "Max"}.get(str(mode), "Unknown")
        return NetLayer(name, op, {"axis": config.get("concat_axis", -1)})
    if class_name in ("Dense", "TimeDistributedDense", "MaxoutDense", "Highway"):
        return NetLayer(name, "Gemm", {"units": config.get("units", config.get("output_dim"))})
    if class_name == "Flatten":
        return NetLayer(name, "Flatten", {"data_format": config.get("data_format")})
    if class_name in _RECURRENT and class_name != "ConvLSTM2D" and not config.get("return_sequences"):
        return NetLayer(name, "Features", {"units": config.get("units", config.get("output_dim"))})
    return NetLayer(name, "Unknown")


def flow_of(class_name: str, config: Config, layer: NetLayer, inputs: Sequence[FeatureMap | None]) -> FeatureMap | None:
    """What a layer gives out; None if that is not known well enough."""
    first = inputs[0] if inputs else None
    if class_name in _ELEMENT_BY_ELEMENT:
        return merged(inputs)
    if class_name in _SHAPE_KEPT:
        return first
    if layer.op == "Gemm" and first is None:
        # Features on the last axis; how many axes come before them nobody knows.
        return FeatureMap((TIME, "C"), (None, layer.attributes.get("units")))
    flow = output_of(layer, inputs)
    if flow is not None:
        return flow
    if class_name in _RECURRENT and class_name != "ConvLSTM2D":
        return FeatureMap((TIME, "C"), (None, config.get("units", config.get("output_dim"))))
    if layer.op == "GlobalPool":
        return FeatureMap(("C",), (None,))
    if class_name == "Embedding" and first is not None and len(first.sizes) == 1:
        return FeatureMap(None, (first.sizes[0], config.get("output_dim")))
    if class_name == "RepeatVector" and first is not None and first.axes in (("C",), (TIME, "C")) and not first.flat:
        return FeatureMap((TIME, "C"), (config.get("n"), first.sizes[-1]))
    if layer.op == "Concat" and layer.attributes["axis"] == -1:
        return _features(inputs)
    if class_name == "Flatten":
        return FLAT_UNKNOWN
    return None


def _features(inputs: Sequence[FeatureMap | None]) -> FeatureMap | None:
    """Features joined to features, where of one it is not known how many axes come before them."""
    known = [each for each in inputs if each is not None and each.axes and each.axes[-1] == "C" and not each.flat]
    if len(known) < len(inputs) or all(TIME not in (each.axes or ()) for each in known):
        return None
    units = [each.sizes[-1] for each in known]
    return FeatureMap((TIME, "C"), (None, None if None in units else sum(filter(None, units))))


def states_of(class_name: str, config: Config) -> list[FeatureMap | None]:
    """What a layer gives out after the first: of recurrent layers the last states, where they are asked for."""
    if not config.get("return_state"):
        return []
    if class_name not in _RECURRENT or class_name == "ConvLSTM2D":
        return []
    units = config.get("units", config.get("output_dim"))
    return [FeatureMap(("C",), (units,))] * (2 if _RECURRENT[class_name] == "lstm" else 1)


def kernel_shape(config: Config) -> Any:
    """The kernel's extent along each spatial axis, as either Keras spells it."""
    for key in ("kernel_size", "pool_size", "filter_length", "pool_length"):
        if key in config:
            return config[key]
    if "nb_row" in config:
        return [config["nb_row"], config["nb_col"]]
    if "kernel_dim1" in config:
        return [config["kernel_dim1"], config["kernel_dim2"], config["kernel_dim3"]]
    return 1


def _spatial_attributes(op: str, config: Config, letters: str) -> dict[str, Any]:
    told = data_format(config) if len(letters) > 1 else data_format(config) or CHANNELS_LAST
    attributes: dict[str, Any] = {"data_format": told}
    if op in ("Pad", "Crop"):
        return {**attributes, "pads": _pads(config.get("padding", config.get("cropping", 1)), len(letters))}
    if op == "Resize":
        return {**attributes, "scales": _repeat(config.get("size", config.get("length", 2)), len(letters))}
    kernel = kernel_shape(config)
    strides = next(
        (config[key] for key in ("strides", "subsample", "subsample_length", "stride") if config.get(key)), None
    )
    if strides is None:
        strides = kernel if op.endswith("Pool") else 1
    padding = str(config.get("padding", config.get("border_mode", "valid")))
    return {
        **attributes,
        "kernel_shape": _repeat(kernel, len(letters)),
        "strides": _repeat(strides, len(letters)),
        "dilations": _repeat(config.get("dilation_rate", config.get("atrous_rate", 1)), len(letters)),
        "auto_pad": {"valid": "VALID", "same": "SAME_UPPER", "causal": "CAUSAL", "full": "FULL"}.get(padding, padding),
        "filters": config.get("filters", config.get("nb_filter")),
        "multiplier": config.get("depth_multiplier", 1),
        "output_padding": config.get("output_padding"),
    }


def _numbers(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _repeat(value: Any, rank: int) -> list[int]:
    numbers = _numbers(value)
    return numbers * rank if len(numbers) == 1 else numbers


def _pads(value: Any, rank: int) -> list[list[int]]:
    """Padding as pairs; Keras spells it as a number, a list of numbers, or a list of pairs."""
    if isinstance(value, dict):
        sides = [("top_pad", "bottom_pad"), ("left_pad", "right_pad")]
        return [[value.get(low, 0), value.get(high, 0)] for low, high in sides][:rank]
    numbers = value if isinstance(value, list | tuple) else [value] * rank
    if rank == 1 and len(numbers) == 2 and not isinstance(numbers[0], list | tuple):
        return [list(numbers)]
    if rank == 2 and len(numbers) == 4:
        return [list(numbers[:2]), list(numbers[2:])]
    return [list(each) if isinstance(each, list | tuple) else [each, each] for each in numbers]
