"""A network of the registry in Keras 3's own layers, operator by operator.

Where no layer does what the network says, several do: explicit pads, sizes rounded up, local response normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wio.adapters._keras3_pieces import InexpressibleError, Pieces
from wio.errors import FormatError, Problem
from wio.execution import Execution, Run, Window

# The lowest number of each dtype: a largest value is never that of a pad.
_LOWEST = {
    "float16": -65504.0,
    "bfloat16": -3.3895313892515355e38,
    "float32": -3.4028234663852886e38,
    "float64": -1.7976931348623157e308,
}


def keras_network(
    execution: Execution, names: Mapping[str, str], slopes: Mapping[str, str], data_format: str, dtype: str
) -> tuple[Pieces, list[Problem]]:
    """The pieces of a network, and a problem for each layer that Keras cannot express.

    ``names`` has Keras's name of each layer, ``slopes`` the letters of the axes along which a PRelu's slope varies.
    """
    keras = Pieces(names, slopes, data_format, dtype)
    problems = []
    for run in execution.runs:
        try:
            OPERATORS[run.layer.op](keras, run)
        except InexpressibleError as error:
            problems.append(Problem("network", f"layer {run.layer.name!r}, {run.layer.op}: {error}"))
            keras.put(run, "Identity", {})
        except FormatError as error:
            return keras, [*problems, Problem("twice", error.message)]
    keras.finish(execution)
    return keras, problems


def _input(keras: Pieces, run: Run) -> None:
    keras.put(run, "InputLayer", {"batch_shape": [None, *keras.gives(run)]})


def _walk(run: Run, kernel: str, dilated: bool = True) -> dict[str, Any]:
    strides, dilations = [w.stride for w in run.windows], [w.dilation for w in run.windows]
    if any(each > 1 for each in dilations) and (not dilated or any(each > 1 for each in strides)):
        raise InexpressibleError("Keras does not dilate it" + (" and stride as well" if dilated else ""))
    walk: dict[str, Any] = {kernel: [w.kernel for w in run.windows], "strides": strides}
    return {**walk, "dilation_rate": dilations} if dilated else walk


def _pads(windows: Sequence[Window]) -> list[tuple[int, int]]:
    return [(w.begin, w.end + w.beyond) for w in windows]


def _mode(run: Run) -> str | None:
    """The padding of Keras's that puts the windows where they are to stand, or None."""
    if all(w.as_valid for w in run.windows):
        return "valid"
    return "same" if all(w.as_same for w in run.windows) else None


def _conv(keras: Pieces, run: Run) -> None:
    told, rank = run.layer.attributes, len(run.windows)
    source, mode = keras.given(run), _mode(run)
    if mode is None:
        source, mode = keras.padded(run, source, _pads(run.windows)), "valid"
    config = {
        **_walk(run, "kernel_size"),
        "padding": mode,
        "data_format": keras.data_format(run),
        "activation": "linear",
        "use_bias": bool(told.get("bias", True)),
    }
    if run.layer.op == "DepthwiseConv":
        if rank > 2:
            raise InexpressibleError("Keras has it over one or two axes only")
        keras.put(run, f"DepthwiseConv{rank}D", {**config, "depth_multiplier": told.get("multiplier", 1)}, [source])
        return
    config |= {"filters": run.outgoing.size("C"), "groups": told.get("group", 1)}
    keras.put(run, f"Conv{rank}D", config, [source])


def _conv_transpose(keras: Pieces, run: Run) -> None:
    """Keras cuts ``same`` itself; other cuts are a cropping behind it."""
    told, windows = run.layer.attributes, run.windows
    if told.get("group", 1) != 1:
        raise InexpressibleError("Keras has no groups in it")
    same = told.get("auto_pad") == "SAME_UPPER" and "pads" not in told
    cuts = [[w.begin, w.end] for w in windows]
    extra = {"output_padding": [w.extra for w in windows]} if told.get("output_padding") is not None else {}
    cropped = not same and any(any(cut) for cut in cuts)
    data_format = keras.data_format(run)
    config = {
        **_walk(run, "kernel_size"),
        **extra,
        "filters": run.outgoing.size("C"),
        "padding": "same" if same else "valid",
        "data_format": data_format,
        "activation": "linear",
        "use_bias": bool(told.get("bias", True)),
    }
    class_name = f"Conv{len(windows)}DTranspose"
    if not cropped:
        keras.put(run, class_name, config)
        return
    full = [w.after + w.begin + w.end for w in windows]
    whole = keras.piece(run, "", class_name, config, (keras.given(run),), keras.shape(run, run.outgoing, full))
    cropping = {"cropping": cuts[0]} if len(cuts) == 1 else {"cropping": cuts, "data_format": data_format}
    keras.put(run, f"Cropping{len(cuts)}D", cropping, [whole], "cropped")


def _pooling(keras: Pieces, run: Run, mode: str) -> dict[str, Any]:
    return {**_walk(run, "pool_size", dilated=False), "padding": mode, "data_format": keras.data_format(run)}


def _max_pool(keras: Pieces, run: Run) -> None:
    source, mode = keras.given(run), _mode(run)
    if mode is None:
        pads = _pads(run.windows)
        around = [(0, 0), *pads] if keras.data_format(run) == "channels_first" else [*pads, (0, 0)]
        grown = [size + sum(pad) for size, pad in zip(keras.space(run), pads, strict=True)]
        source = keras.operation(
            run,
            "pad",
            "Pad",
            source,
            config={"pad_width": [[0, 0], *map(list, around)], "mode": "constant"},
            keywords={"constant_values": _LOWEST[keras.dtype]},
            shape=keras.shape(run, run.incoming[0], grown),
        )
    keras.put(run, f"MaxPooling{len(run.windows)}D", _pooling(keras, run, mode or "valid"), [source])


def _average_pool(keras: Pieces, run: Run) -> None:
    """Keras counts no padding of ``same``, and every zero of a padding layer.

    Where some of a window counts and some does not, its average with zeros is divided by the share that counts: the
    average, with zeros, of a map of ones.
    """
    source, mode = keras.given(run), _mode(run)
    class_name = f"AveragePooling{len(run.windows)}D"
    padded = any(w.begin or w.end for w in run.windows)
    counted = padded and bool(run.layer.attributes.get("count_include_pad"))
    pads = _pads(run.windows)
    # On torch, Keras 3.15 counts zeros where SAME pads unevenly; elsewhere the two ways give the same.
    if mode == "valid" or (mode == "same" and not counted and all(w.even for w in run.windows)):
        keras.put(run, class_name, _pooling(keras, run, mode))
        return
    if counted:
        source = keras.padded(run, source, [(w.begin, w.end) for w in run.windows])
        pads = [(0, w.beyond) for w in run.windows]
        if not any(w.beyond for w in run.windows):
            keras.put(run, class_name, _pooling(keras, run, "valid"), [source])
            return
    config, shape = _pooling(keras, run, "valid"), keras.gives(run)
    ones = keras.piece(run, "ones", "Rescaling", {"scale": 0.0, "offset": 1.0}, (source,), keras.shape_of(source))
    mean = keras.piece(run, "mean", class_name, config, (keras.padded(run, source, pads, "beyond"),), shape)
    share = keras.piece(run, "share", class_name, config, (keras.padded(run, ones, pads, "around"),), shape)
    keras.put(run, "Divide", {}, [mean, share], operation=True)


def _lrn(keras: Pieces, run: Run) -> None:
    """x / (bias + alpha / size * (sum of squares over channels near by)) ** beta, as ONNX defines it.

    The map's places become one axis and its channels another, so that an average over neighbouring channels, with
    zeros beyond the ends, is a pooling of a picture of one channel.
    """
    told = run.layer.attributes
    size = int(told["size"])
    shape = keras.shape_of(keras.given(run))
    channels, places = run.incoming[0].size("C") or 0, math.prod(keras.space(run))
    first = keras.data_format(run) == "channels_first"
    pads, window = [[0, 0], [(size - 1) // 2, size // 2]], [1, size]
    flat = (places, channels, 1)
    grown = (places, channels + size - 1, 1)
    if first:
        pads, window, flat, grown = pads[::-1], window[::-1], (channels, places, 1), (channels + size - 1, places, 1)
    last = {"data_format": "channels_last"}
    x = keras.given(run)
    squares = keras.piece(run, "squares", "Multiply", {}, (x, x), shape)
    lined = keras.piece(run, "lined", "Reshape", {"target_shape": list(flat)}, (squares,), flat)
    padded = keras.piece(run, "padded", "ZeroPadding2D", {"padding": pads, **last}, (lined,), grown)
    pooling = {"pool_size": window, "strides": [1, 1], "padding": "valid", **last}
    means = keras.piece(run, "means", "AveragePooling2D", pooling, (padded,), flat)
    mapped = keras.piece(run, "mapped", "Reshape", {"target_shape": list(shape)}, (means,), shape)
    scale = {"scale": float(told.get("alpha", 1e-4)), "offset": float(told.get("bias", 1.0))}
    sums = keras.piece(run, "sums", "Rescaling", scale, (mapped,), shape)
    factor = keras.operation(run, "factor", "Power", sums, arguments=(-float(told.get("beta", 0.75)),))
    keras.put(run, "Multiply", {}, [x, factor])


def _global_pool(keras: Pieces, run: Run) -> None:
    kind = run.layer.op.removeprefix("Global").removesuffix("Pool")
    class_name = f"Global{kind}Pooling{len(keras.space(run))}D"
    kept = bool(run.layer.attributes.get("keepdims", True))
    keras.put(run, class_name, {"keepdims": kept, "data_format": keras.data_format(run)})


def _channel_axis(keras: Pieces, run: Run) -> int:
    return 1 if keras.data_format(run) == "channels_first" else len(keras.space(run)) + 1


def _batch_norm(keras: Pieces, run: Run) -> None:
    told = run.layer.attributes
    config = {
        "axis": _channel_axis(keras, run),
        "epsilon": float(told.get("epsilon", 1e-5)),
        "center": bool(told.get("center", True)),
        "scale": bool(told.get("scale", True)),
    }
    keras.put(run, "BatchNormalization", config)


def _gemm(keras: Pieces, run: Run) -> None:
    told = run.layer.attributes
    bias = bool(told.get("bias", True))
    keras.put(run, "Dense", {"units": told["units"], "activation": "linear", "use_bias": bias})


def _flatten(keras: Pieces, run: Run) -> None:
    """With ``channels_first`` Keras moves the channels behind before it flattens, so rows are always H W C."""
    keras.put(run, "Flatten", {"data_format": keras.data_format(run)})


def _axis(keras: Pieces, run: Run) -> int:
    return 1 if run.incoming[0].flat else 1 + keras.axes(run).index(run.axis())


def _softmax(keras: Pieces, run: Run) -> None:
    keras.put(run, "Softmax", {"axis": _axis(keras, run)})


def _concat(keras: Pieces, run: Run) -> None:
    keras.put(run, "Concatenate", {"axis": _axis(keras, run)})


def _prelu(keras: Pieces, run: Run) -> None:
    """Shared along every axis that the slope itself does not have."""
    slope = keras.slopes.get(run.layer.name, "C")
    keras.put(run, "PReLU", {"shared_axes": [k for k, axis in enumerate(keras.axes(run), 1) if axis not in slope]})


def _activation(keras: Pieces, run: Run) -> None:
    alpha = run.layer.attributes.get("alpha")
    if run.layer.op == "LeakyRelu":
        keras.put(run, "LeakyReLU", {"negative_slope": 0.01 if alpha is None else float(alpha)})
    elif run.layer.op == "Elu":
        keras.put(run, "ELU", {"alpha": 1.0 if alpha is None else float(alpha)})
    else:
        keras.put(run, "Activation", {"activation": run.layer.op.lower()})


def _merge(keras: Pieces, run: Run) -> None:
    keras.put(run, {"Add": "Add", "Mul": "Multiply", "Max": "Maximum", "Average": "Average"}[run.layer.op], {})


OPERATORS: dict[str, Callable[[Pieces, Run], None]] = {
    "Input": _input,
    "Conv": _conv,
    "DepthwiseConv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "BatchNormalization": _batch_norm,
    "LRN": _lrn,
    "Gemm": _gemm,
    "Flatten": _flatten,
    "Concat": _concat,
    "Softmax": _softmax,
    "PRelu": _prelu,
    **dict.fromkeys(("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh"), _activation),
    **dict.fromkeys(("Add", "Mul", "Max", "Average"), _merge),
}
