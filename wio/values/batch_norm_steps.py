"""Steps on batch norms, and on a layer and the batch norm that follows it.

A batch norm gives ``(x - mean) / sqrt(variance + epsilon) * gamma + beta`` (Ioffe and Szegedy 2015, algorithm 2, at
inference). Every step below leaves that function as it is and moves numbers from one tensor to another; it yields
problems where it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from wio.bundle import Synthesis, Tensor
from wio.errors import LayoutError, Problem, UsageError, WioError
from wio.layout import Layout
from wio.lazy import Array, np
from wio.values.arithmetic import inverse_deviation, output_channels, scaled_outputs
from wio.values.step import BIASES, KERNELS, Layers, Request, ValueStep, beside, computed

Made = Iterator[ValueStep | Problem]
_ROUNDED = "computed in float64, rounded once"


def fold_bias(layers: Layers, request: Request) -> Made:
    """``fold-bias=LAYER[:NORM]``: the bias of a layer goes into the mean of the batch norm that follows."""
    norm_told, *_ = (*request.arguments, "")
    for layer, norm in _pairs(layers, request, norm_told, BIASES):
        try:
            bias, mean = layers.vector(layer, *BIASES), layers.vector(norm, "batch_norm.mean")
            if bias is None or mean is None:
                raise LayoutError(f"a bias folds into a moving mean, and layer {norm} has none")
            _same_channels(bias, bias.size, mean)
        except LayoutError as error:
            yield Problem("value-step", error.message, layer, error.remedy)
            continue
        folded = computed(mean, _difference(mean, bias))
        why = f"{norm} subtracts its mean from what {layer} gives out, bias and all: mean - bias, {_ROUNDED}"
        yield ValueStep("fold-bias", layer, (bias, mean), (folded,), request.reason or why, False, {"batch_norm": norm})


def _difference(mean: Tensor, bias: Tensor) -> Callable[[], Array]:
    return lambda: mean.numpy().astype(np.float64) - bias.numpy().astype(np.float64)


def fold_batch_norm(layers: Layers, request: Request) -> Made:
    """``fold-batch-norm=LAYER[:NORM[:EPSILON]]``: the batch norm that follows goes into kernel and bias."""
    norm_told, epsilon_told, *_ = (*request.arguments, "", "")
    for layer, norm in _pairs(layers, request, norm_told, KERNELS):
        try:
            yield _folded(layers, request, layer, norm, _epsilon(layers, norm, epsilon_told))
        except LayoutError as error:
            yield Problem("value-step", error.message, layer, error.remedy)


def _folded(layers: Layers, request: Request, layer: str, norm: str, epsilon: float) -> ValueStep:
    kernel, bias = layers.part(layer, *KERNELS), layers.vector(layer, *BIASES)
    parts = {part: layers.vector(norm, f"batch_norm.{part}") for part in ("gamma", "beta", "mean", "variance")}
    mean, variance, gamma, beta = parts["mean"], parts["variance"], parts["gamma"], parts["beta"]
    if mean is None or variance is None:
        raise LayoutError(f"layer {norm!r} has no moving mean and variance to fold")
    if kernel is None or kernel.role is None or kernel.layout is None:
        raise LayoutError(f"layer {layer!r} has no kernel whose role and layout are declared")
    role, layout = kernel.role, kernel.layout
    channels = output_channels(role, layout, kernel.shape)
    present = [each for each in (bias, *parts.values()) if each is not None]
    for tensor in present:
        _same_channels(kernel, channels, tensor)

    def factor() -> Array:
        inverse = inverse_deviation(variance.numpy(), epsilon, variance.name)
        return inverse if gamma is None else inverse * gamma.numpy().astype(np.float64)

    def shift() -> Array:
        before = 0.0 if bias is None else bias.numpy().astype(np.float64)
        after = 0.0 if beta is None else beta.numpy().astype(np.float64)
        shifted: Array = (before - mean.numpy().astype(np.float64)) * factor() + after
        return shifted

    scaled = computed(kernel, lambda: scaled_outputs(kernel.numpy(), role, layout, factor()))
    bias_role = f"{role.partition('.')[0]}.bias"
    moved = computed(bias, shift) if bias is not None else beside(kernel, bias_role, "O", (channels,), shift)
    if bias is None and moved.name in layers.bundle:
        raise LayoutError(f"{moved.name} is there already, and is not declared to be the layer's bias")
    why = (
        f"{norm} is folded into {layer} and is gone: kernel * gamma / sqrt(variance + {epsilon:g}) along its outputs, "
        f"(bias - mean) likewise + beta, {_ROUNDED}"
    )
    sources = (kernel, *present)
    told = {"batch_norm": norm, "epsilon": epsilon}
    return ValueStep("fold-batch-norm", layer, sources, (scaled, moved), request.reason or why, False, told)


def synthesise(part: str, usual: float) -> Callable[[Layers, Request], Made]:
    """``gamma=LAYER[:NUMBER]`` and ``beta=...``: a batch norm without one gets one that does nothing, 1 or 0."""

    def make(layers: Layers, request: Request) -> Made:
        value = _number(request, request.arguments[0]) if request.arguments else usual
        found = False
        for layer in layers.matching(request.glob):
            if layers.part(layer, "batch_norm.mean") is None:
                continue
            try:
                sibling = layers.vector(layer, "batch_norm.mean")
                held = layers.part(layer, f"batch_norm.{part}")
                if sibling is None or held is not None:
                    if request.literal:
                        raise LayoutError(f"layer {layer!r} has its {part} already: {held.name if held else ''}")
                    continue
                found = True
                exact = value == usual
                why = f"{layer} has no {part}: " + (
                    f"one that is {value:g} everywhere does the same" if exact else f"{value:g} was declared"
                )
                made = beside(sibling, f"batch_norm.{part}", "C", sibling.shape, _constant(sibling.shape, value))
                made = replace(made, synthesised=Synthesis(value, request.reason or why, exact))
                if made.name in layers.bundle:
                    raise LayoutError(f"{made.name} is there already, and is not declared to be the layer's {part}")
                yield ValueStep(part, layer, (), (made,), request.reason or why, exact, {"value": value})
            except LayoutError as error:
                found = True
                yield Problem("value-step", error.message, layer, error.remedy)
        if not found:
            raise WioError(f"--apply {request}: no batch norm without {part} matches {request.glob!r}")

    return make


def _constant(shape: tuple[int, ...], value: float) -> Callable[[], Array]:
    return lambda: np.full(shape, value, np.float64)


def epsilon(layers: Layers, request: Request) -> Made:
    """``epsilon=LAYER:[FROM:]TO``: the target runs it with another epsilon; the difference goes into its variance."""
    if not request.arguments:
        raise UsageError(f"--apply {request}: to which epsilon?", remedy="--apply 'epsilon=LAYER:1e-5'")
    *told, wanted = request.arguments
    target = _number(request, wanted)
    for layer, variance in _batch_norms(layers, request, "batch_norm.variance"):
        try:
            source = _epsilon(layers, layer, told[0] if told else "")
        except LayoutError as error:
            yield Problem("value-step", error.message, layer, error.remedy)
            continue
        if source == target:
            continue
        moved = computed(variance, _moved(variance, source - target))
        why = f"epsilon {source:g} becomes {target:g}: variance + {source:g} - {target:g}, {_ROUNDED}"
        parameters = {"from": source, "epsilon": target}
        yield ValueStep("epsilon", layer, (variance,), (moved,), request.reason or why, False, parameters)


def _moved(variance: Tensor, difference: float) -> Callable[[], Array]:
    def compute() -> Array:
        values: Array = variance.numpy().astype(np.float64) + difference
        below = int(np.count_nonzero(values < 0))
        if below:
            raise WioError(
                f"{variance.name}: {below} of {values.size} variances are smaller than the difference of the epsilons, "
                f"{-difference:g}, and would be negative",
                remedy="run the target with the source's epsilon",
            )
        return values

    return compute


def square(layers: Layers, request: Request) -> Made:
    """``square=LAYER[:EPSILON]``: a running standard deviation becomes the variance that gives the same outputs.

    Source: keras 1.0.5 ``normalization.py`` and 1.0.6 ``theano_backend.py``, ``batch_normalization``: what holds the
    deviation divides by ``std + epsilon``, so that ``variance + epsilon`` is the square of that.
    """
    told = request.arguments[0] if request.arguments else ""
    for layer, deviation in _batch_norms(layers, request, "batch_norm.std"):
        try:
            added = _epsilon(layers, layer, told)
        except LayoutError as error:
            yield Problem("value-step", error.message, layer, error.remedy)
            continue
        variance = replace(computed(deviation, _squared(deviation, added)), role="batch_norm.variance")
        why = f"it holds the deviation, not the variance: (std + {added:g})^2 - {added:g}, {_ROUNDED}"
        yield ValueStep("square", layer, (deviation,), (variance,), request.reason or why, False, {"epsilon": added})


def _squared(deviation: Tensor, added: float) -> Callable[[], Array]:
    def compute() -> Array:
        values: Array = np.square(deviation.numpy().astype(np.float64) + added) - added
        below = int(np.count_nonzero(~(values >= 0) | (deviation.numpy() < 0)))
        if below:
            raise WioError(
                f"{deviation.name}: {below} of {values.size} deviations are negative, or too small for epsilon "
                f"{added:g}: their variance would be negative",
                remedy="check that these are running_std, and the epsilon: --apply 'square=LAYER:EPSILON'",
            )
        return values

    return compute


def unscale(layers: Layers, request: Request) -> Made:
    """``unscale=LAYER``: mean and variance of a Caffe BatchNorm, stored times a factor, are divided by it.

    Source: BVLC/caffe, src/caffe/layers/batch_norm_layer.cpp, Forward_cpu: a factor of 0 makes both 0.
    """
    found = False
    for layer in layers.matching(request.glob):
        scaled = layers.scaled(layer)
        if scaled is None:
            continue
        found = True
        value = scaled.factor
        results = []
        for role, tensor in scaled.tensors.items():
            declared = tensor.declared(role, Layout.parse("C"))
            results.append(computed(declared, _times(tensor, value)))
        results.append(computed(scaled.holder, _constant(scaled.holder.shape, 1.0)))
        exact = value == 0 or math.frexp(abs(value))[0] == 0.5
        how = "0 makes mean and variance 0" if value == 0 else f"mean and variance / {value!r}"
        why = f"Caffe stores them times a factor, which becomes 1: {how}" + ("" if exact else f", {_ROUNDED}")
        sources = (*scaled.tensors.values(), scaled.holder)
        told = {"factor": value}
        yield ValueStep("unscale", layer, sources, tuple(results), request.reason or why, exact, told, True)
    if not found:
        raise WioError(
            f"--apply {request}: no statistics that are stored times a factor match {request.glob!r}",
            remedy="Caffe's BatchNorm has such; where the factor is 1 there is nothing to divide",
        )


def _times(tensor: Tensor, factor: float) -> Callable[[], Array]:
    def compute() -> Array:
        values: Array = tensor.numpy().astype(np.float64)
        return np.zeros_like(values) if factor == 0 else values / factor

    return compute


# --- which layers


def _pairs(layers: Layers, request: Request, told: str, roles: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The layers that a request means and the batch norm that follows each: declared, or known from a graph."""
    found = [layer for layer in layers.matching(request.glob) if layers.part(layer, *roles) is not None]
    if not found:
        raise WioError(f"--apply {request}: no layer that {request.glob!r} matches has a {roles[0].partition('.')[2]}")
    if told and len(found) != 1:
        raise UsageError(f"--apply {request}: a declared pair takes one layer, {request.glob!r} matches {len(found)}")
    if told:
        layers.matching(told)
    pairs = [(layer, norm) for layer in found if (norm := told or layers.norm_after(layer))]
    if not pairs:
        raise WioError(
            f"--apply {request}: no graph says which batch norm takes what {request.glob!r} gives out",
            remedy=f"declare the pair: --apply '{request.kind}=LAYER:BATCH_NORM', or name the network with --arch",
        )
    yield from pairs


def _batch_norms(layers: Layers, request: Request, role: str) -> Iterator[tuple[str, Tensor]]:
    found = [(layer, layers.vector(layer, role)) for layer in layers.matching(request.glob)]
    held = [(layer, tensor) for layer, tensor in found if tensor is not None]
    if not held:
        raise WioError(f"--apply {request}: no layer that {request.glob!r} matches has a {role}")
    yield from held


def _same_channels(first: Tensor, channels: int, second: Tensor) -> None:
    if second.size != channels:
        raise LayoutError(f"{first.name} has {channels} channels and {second.name} {second.size}: they are no pair")


def _epsilon(layers: Layers, norm: str, told: str) -> float:
    known = layers.epsilon(norm)
    if told:
        value = float(told) if _is_epsilon(told) else math.nan
        if not value >= 0:
            raise UsageError(f"{told!r} is no epsilon")
        # Formats that keep it as float32 say 9.99999974e-06 for 1e-5.
        if known is not None and not math.isclose(known, value, rel_tol=1e-6):
            raise LayoutError(f"the file says that the epsilon of {norm} is {known:g}, not {value:g}")
        return value
    if known is None:
        raise LayoutError(
            f"the epsilon of {norm} is not known, and the weights do not say it",
            remedy="state it: epsilon=LAYER:FROM:TO, fold-batch-norm=LAYER:BATCH_NORM:EPSILON, square=LAYER:EPSILON",
        )
    return known


def _is_epsilon(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(request: Request, text: str) -> float:
    if not _is_epsilon(text):
        raise UsageError(f"--apply {request}: {text!r} is no number")
    return float(text)
