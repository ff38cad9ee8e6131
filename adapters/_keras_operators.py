"""What the layers of Keras compute, in the vocabulary of :mod:`wio.network`.

What a layer does to a feature map is :func:`wio.adapters._keras_layers.net_layer`'s business: a layer of which no
operator says what it computes may well keep the shape. Sources: ``get_config`` and ``call`` of keras 1.2.2, 2.2.4
and 3.15.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wio.adapters._keras_layers import Config, net_layer

Operator = tuple[str, dict[str, Any]]

_LONGEST_TEXT = 80
# They have the shape of an operator and compute something else, or several things.
_OTHER = frozenset(
    {"Subtract", "LayerNormalization", "GroupNormalization", "Embedding", "Masking", "MaxoutDense", "Highway"}
    | {f"Separable{kind}{n}D" for kind in ("Conv", "Convolution") for n in (1, 2)}
)
_FUNCTIONS: Mapping[str, Operator] = {
    "None": ("Identity", {}),
    "linear": ("Identity", {}),
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {"axis": -1}),
    "elu": ("Elu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
}


def operator_of(name: str, class_name: str, config: Config) -> Operator:
    """A layer's operator and attributes; ``unsaid`` among them where these do not say all that it computes.

    ``axis`` of a BatchNormalization and a Softmax is Keras's number, which counts N.
    """
    if class_name in _BY_CONFIG:
        return _BY_CONFIG[class_name](config)
    layer = net_layer(name, class_name, config)
    if class_name in _OTHER or layer.op == "Unknown":
        return _unknown(class_name, config, ("mode",))
    if layer.op == "Activation":
        # Nothing else that keeps the shape does anything when a network is run.
        return ("PRelu", {}) if class_name == "PReLU" else ("Dropout", {})
    attributes = {**layer.attributes, "bias": bool(config.get("use_bias", config.get("bias", True)))}
    if class_name.startswith("Global"):
        kept = {} if config.get("keepdims") else {"keepdims": False}
        return ("GlobalAveragePool" if "Average" in class_name else "GlobalMaxPool"), {**attributes, **kept}
    if layer.op == "Conv" and config.get("groups") not in (None, 1):
        attributes["group"] = config["groups"]
    if layer.op == "ConvTranspose" and "output_shape" in config:
        attributes["unsaid"] = _text(class_name, config, ("output_shape",))
    if layer.op == "Resize" and config.get("interpolation", "nearest") != "nearest":
        attributes["unsaid"] = _text(class_name, config, ("interpolation",))
    return layer.op, attributes


def function_of(activation: Any) -> Operator:
    """The operator of what ``activation`` says: a function's name, or a layer with its config."""
    if isinstance(activation, Mapping):
        class_name, config = str(activation.get("class_name")), activation.get("config")
        if class_name in _BY_CONFIG and class_name != "Activation" and isinstance(config, Mapping):
            return _BY_CONFIG[class_name](config)
        return "Activation", {"function": _short(config if isinstance(config, str) else class_name)}
    return _FUNCTIONS.get(str(activation)) or ("Activation", {"function": _short(activation)})


def _relu(config: Config) -> Operator:
    """max(x, 0), unless it is cut off above, leaks, or begins elsewhere (keras 3.15 ``activations.relu``)."""
    usual = {"max_value": None, "negative_slope": 0, "threshold": 0}
    told = {key: value for key, each in usual.items() if (value := _plain(config.get(key))) not in (None, each)}
    if told.keys() == {"negative_slope"} and isinstance(told["negative_slope"], int | float):
        return "LeakyRelu", {"alpha": float(told["negative_slope"])}
    return ("Activation", {"function": _text("ReLU", told, usual)}) if told else ("Relu", {})


def _sloping(op: str, class_name: str, usual: float) -> Callable[[Config], Operator]:
    def found(config: Config) -> Operator:
        slope = _plain(config.get("negative_slope", config.get("alpha", usual)))
        if isinstance(slope, int | float):
            return op, {"alpha": float(slope)}
        return "Activation", {"function": _text(class_name, config, ("negative_slope", "alpha"))}

    return found


def _batch_norm(config: Config) -> Operator:
    told = {key: config[key] for key in ("epsilon", "scale", "center") if key in config}
    return _along("BatchNormalization", config, told)


def _along(op: str, config: Config, attributes: dict[str, Any]) -> Operator:
    """An operator along the axis that the config says; tf.keras 2 keeps a list of them."""
    axis = config.get("axis", -1)
    if isinstance(axis, list | tuple) and len(axis) == 1:
        axis = axis[0]
    if isinstance(axis, int):
        return op, {**attributes, "axis": axis}
    return op, {**attributes, "unsaid": _text(op, config, ("axis",))}


_BY_CONFIG: Mapping[str, Callable[[Config], Operator]] = {
    "Activation": lambda config: function_of(config.get("activation")),
    "ReLU": _relu,
    "LeakyReLU": _sloping("LeakyRelu", "LeakyReLU", 0.3),
    "ELU": _sloping("Elu", "ELU", 1.0),
    "ThresholdedReLU": lambda config: ("Activation", {"function": _text("ThresholdedReLU", config, ("theta",))}),
    "SReLU": lambda config: ("Activation", {"function": "SReLU"}),  # noqa: ARG005
    "ParametricSoftplus": lambda config: ("Activation", {"function": "ParametricSoftplus"}),  # noqa: ARG005
    "Softmax": lambda config: _along("Softmax", config, {}),
    "BatchNormalization": _batch_norm,
    "Reshape": lambda config: ("Reshape", {"unsaid": _text("Reshape", config, ("target_shape",))}),
}


def _unknown(class_name: str, config: Config, keys: tuple[str, ...] = ()) -> Operator:
    return "Unknown", {"unsaid": _text(class_name, config, keys)}


def _text(class_name: str, config: Config, keys: Any) -> str:
    """A class with what its config says under these keys, for a person."""
    told = ", ".join(f"{key}={_plain(config[key])}" for key in keys if key in config)
    return _short(f"{class_name}({told})" if told else class_name)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _plain(value: Any) -> Any:
    """A number; Keras 2.2 saves some as arrays without axes, ``{"type": .., "value": ..}``."""
    return value["value"] if isinstance(value, Mapping) and "value" in value else value
