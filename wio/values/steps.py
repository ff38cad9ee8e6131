"""Steps that change values, done only where they are declared: ``--apply STEP=LAYER[:ARGUMENT...]``.

They run on a bundle before a plan is made of it, in the order in which they are declared, and become part of the plan
and its receipt. Nothing is read until it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from msgspec.structs import replace

from wio.architectures.network_changes import CHANGING, changes_of
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.errors import LayoutError, PlanError, Problem, UsageError, WioError
from wio.lazy import Array
from wio.metadata import detached, unscaled, with_epsilon, with_tensors
from wio.values.arithmetic import FLOATS, holds, rounded
from wio.values.batch_norm_steps import Made, epsilon, fold_batch_norm, fold_bias, square, synthesise, unscale
from wio.values.step import BIASES, KERNELS, Layers, Request, ValueStep


def parse_request(text: str) -> Request:
    """``STEP=LAYER[:ARGUMENT...]`` as a request. UsageError for a step that does not exist or takes other arguments."""
    kind, equals, rest = text.partition("=")
    glob, *arguments = rest.split(":")
    if kind not in STEPS:
        raise UsageError(f"--apply {text!r}: no step is named {kind!r}", remedy="steps are " + ", ".join(STEPS))
    form, _, most = STEPS[kind]
    if not equals or not glob or len(arguments) > most:
        raise UsageError(f"--apply {text!r}: expected {form}")
    return Request(kind, glob, tuple(arguments))


def apply_requests(
    bundle: Bundle, requests: Iterable[Request], batch_norms: Mapping[str, str] | None = None
) -> tuple[Bundle, tuple[ValueStep, ...]]:
    """The bundle after every step that was declared, lazy, and the steps.

    ``batch_norms`` maps a batch norm to the layer whose output it takes; by default what the bundle's metadata say.
    Raises PlanError with every layer that a request matches and cannot be done to, WioError for one that does nothing.
    """
    done: list[ValueStep] = []
    for request in requests:
        known = bundle.metadata.get("batch_norms") if batch_norms is None else batch_norms
        _, make, _ = STEPS[request.kind]
        made = list(make(Layers(bundle, known if isinstance(known, Mapping) else {}), request))
        problems = [each for each in made if isinstance(each, Problem)]
        if problems:
            count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
            raise PlanError(f"--apply {request} cannot be done: {count}", problems)
        steps = [each for each in made if isinstance(each, ValueStep)]
        bundle = _after(bundle, steps)
        done += steps
    return bundle, tuple(done)


def _after(bundle: Bundle, steps: Iterable[ValueStep]) -> Bundle:
    """The bundle with results in their sources' places, and new tensors behind the last one of their layer."""
    results: dict[str, Tensor] = {}
    gone: set[str] = set()
    metadata: Mapping[str, Any] = bundle.metadata
    for step in steps:
        results |= {tensor.name: tensor for tensor in step.results}
        gone |= set(step.gone)
        if not step.keeps_source:
            metadata = detached(metadata)
        if step.kind == "epsilon":
            metadata = with_epsilon(metadata, step.layer, step.parameters["epsilon"])
        if step.kind in CHANGING and "architecture" in metadata:
            record = {"kind": step.kind, "layer": step.layer, **step.parameters}
            metadata = {**metadata, "changes": [*changes_of(metadata), record]}
        if step.kind == "unscale":
            metadata = unscaled(metadata, step.layer)
    added = {name: tensor for name, tensor in results.items() if name not in bundle}
    last = {tensor.layer: name for name, tensor in bundle.items()}
    tensors: list[Tensor] = []
    for name, tensor in bundle.items():
        if name not in gone:
            tensors.append(results.get(name, tensor))
        if name == last[tensor.layer]:
            tensors += [each for each in added.values() if each.layer == tensor.layer]
    if gone or added:
        metadata = with_tensors(metadata, gone, {name: tensor.layer for name, tensor in added.items()})
    return Bundle(tensors, metadata)


def _slice(layers: Layers, request: Request) -> Made:
    """``slice=LAYER:[START]:[STOP]``: some of a layer's outputs stay, in kernel and bias; the others are dropped."""
    bounds = [_bound(request, text) for text in (*request.arguments, "", "")[:2]]
    found = False
    for layer in layers.matching(request.glob):
        kernel = layers.part(layer, *KERNELS)
        if kernel is None:
            continue
        found = True
        try:
            if (norm := layers.norm_after(layer)) is not None:
                raise LayoutError(f"{norm} normalises every output of {layer}")
            members = [kernel, *(bias for bias in [layers.vector(layer, *BIASES)] if bias is not None)]
            outputs = kernel.shape[_axis(kernel)]
            start, stop = bounds[0] or 0, outputs if bounds[1] is None else bounds[1]
            if not start < stop <= outputs:
                raise LayoutError(f"it has {outputs} outputs: there is no {start}:{stop}")
            results = tuple(_sliced(tensor, outputs, start, stop) for tensor in members)
        except LayoutError as error:
            yield Problem("value-step", error.message, layer, error.remedy)
            continue
        kept = f"outputs {start} to {stop - 1} of {outputs} stay as they are"
        left = outputs - (stop - start)
        why = f"{kept}, {left} {'is' if left == 1 else 'are'} dropped and cannot come back"
        told = {"axis": "O", "start": start, "stop": stop, "of": outputs}
        yield ValueStep(
            "slice", layer, tuple(members), results, "; ".join(filter(None, (why, request.reason))), True, told
        )
    if not found:
        raise WioError(f"--apply {request}: no layer that {request.glob!r} matches has a kernel")


def _axis(tensor: Tensor) -> int:
    layout = tensor.layout
    if layout is None or "O" not in layout.axes or "G" in layout.letters or layout.values is not None:
        raise LayoutError(f"{tensor.name}: outputs stand on no axis of their own in layout {layout}")
    return layout.axes.index("O")


def _bound(request: Request, text: str) -> int | None:
    if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UsageError(f"--apply {request}: {text!r} is no number of an output, counted from 0")
    return int(text) if text else None


def _sliced(tensor: Tensor, outputs: int, start: int, stop: int) -> Tensor:
    axis = _axis(tensor)
    if tensor.shape[axis] != outputs:
        raise LayoutError(f"{tensor.name} has {tensor.shape[axis]} outputs, the kernel {outputs}")
    shape = (*tensor.shape[:axis], stop - start, *tensor.shape[axis + 1 :])
    index = (*(slice(None),) * axis, slice(start, stop))

    def load() -> Array:
        import numpy as np

        return np.ascontiguousarray(tensor.numpy()[index])

    return tensor.with_values(load, shape, tensor.layout)


def _cast(layers: Layers, request: Request) -> Made:
    """``cast=TENSOR:DTYPE``: floating tensors as another dtype, exact where that holds every value of theirs."""
    wanted = request.arguments[0] if request.arguments else ""
    if wanted not in FLOATS:
        raise UsageError(f"--apply {request}: expected {STEPS['cast'][0]}", remedy="dtypes are " + ", ".join(FLOATS))
    dtype = DTYPES[wanted]
    found = [
        tensor
        for name, tensor in layers.bundle.items()
        if (name == request.glob or fnmatchcase(name, request.glob)) and tensor.dtype.name in FLOATS
    ]
    if not found:
        raise WioError(f"--apply {request}: no tensor of floating numbers matches {request.glob!r}")
    for tensor in found:
        if tensor.dtype == dtype:
            continue
        exact = holds(dtype, tensor.dtype)
        how = f"{dtype} holds every {tensor.dtype}" if exact else "rounded to the nearest, ties to even"
        made = replace(tensor.with_values(_as(tensor, wanted), tensor.shape, tensor.layout), dtype=dtype)
        told = {"from": tensor.dtype.name, "dtype": wanted}
        why = f"{tensor.dtype} as {dtype}: {how}"
        yield ValueStep("cast", tensor.layer, (tensor,), (made,), request.reason or why, exact, told, True)


def _as(tensor: Tensor, dtype: str) -> Callable[[], Array]:
    return lambda: rounded(tensor.numpy(), DTYPES[dtype], tensor.name)


# Each step: how it is written, what makes it, and how many arguments it takes behind the layer.
STEPS: dict[str, tuple[str, Callable[[Layers, Request], Made], int]] = {
    "fold-bias": ("fold-bias=LAYER[:BATCH_NORM]", fold_bias, 1),
    "fold-batch-norm": ("fold-batch-norm=LAYER[:BATCH_NORM[:EPSILON]]", fold_batch_norm, 2),
    "gamma": ("gamma=BATCH_NORM[:NUMBER]", synthesise("gamma", 1.0), 1),
    "beta": ("beta=BATCH_NORM[:NUMBER]", synthesise("beta", 0.0), 1),
    "epsilon": ("epsilon=BATCH_NORM:[FROM:]TO", epsilon, 2),
    "square": ("square=BATCH_NORM[:EPSILON]", square, 1),
    "unscale": ("unscale=BATCH_NORM", unscale, 0),
    "slice": ("slice=LAYER:[START]:[STOP]", _slice, 2),
    "cast": ("cast=TENSOR:DTYPE", _cast, 1),
}
