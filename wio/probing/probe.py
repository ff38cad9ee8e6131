"""Which layout does a kernel have? Decided by computing: every hypothesis against one recorded input and output.

People do this by hand with SciPy (``convolve2d`` against ``correlate2d``). Here each way in which the stored numbers
could be read is tried, and each is shown with its residual. Where two fit, nothing is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from wio.bundle import Bundle, Tensor
from wio.errors import UsageError
from wio.layout import Layout
from wio.lazy import Array, np
from wio.probing.dense import dense_readings
from wio.probing.reading import FITTED, Reading, Recording
from wio.probing.recurrent import recurrent_readings
from wio.probing.spatial import spatial_readings

# A residual is the largest error over the largest deviation of the output from its mean. Frameworks compute in
# float32 and in orders of their own, which leaves about 1e-6; a wrong reading leaves about 1.
FITS = 1e-4
# Below this many recorded values for each output channel a fitted constant could explain too much.
ENOUGH_TO_FIT = 8
KINDS = ("conv", "depthwise", "conv_transpose", "dense", "lstm", "gru", "rnn")
ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh", "softmax")


class Hypothesis(Struct, frozen=True):
    """One reading of a kernel and how well it explains the recording.

    ``says``: ``operation`` (``convolution`` or ``cross-correlation``), ``stride``, ``padding``, ``data_format``, ...
    ``residual``: the largest error, relative to the largest deviation of the recorded output from its mean.
    """

    kind: str
    layout: Layout
    says: Mapping[str, str]
    residual: float

    @property
    def fits(self) -> bool:
        return self.residual <= FITS

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "layout": str(self.layout),
            **self.says,
            "residual": self.residual,
            "fits": self.fits,
        }


class Verdict(Struct, frozen=True):
    """Every hypothesis, the best first, and what follows: one fits, several do, or none."""

    tensor: str
    declared: Layout | None
    hypotheses: tuple[Hypothesis, ...]

    @property
    def fitting(self) -> tuple[Hypothesis, ...]:
        return tuple(each for each in self.hypotheses if each.fits)

    @property
    def decided(self) -> Hypothesis | None:
        return self.fitting[0] if len(self.fitting) == 1 else None

    @property
    def agrees(self) -> bool | None:
        """Whether the file's declaration is what was found; None where there is no declaration or no decision."""
        if self.declared is None or self.decided is None:
            return None
        found, declared = self.decided.layout, self.declared
        return (found.axes, found.flipped, found.gates) == (declared.axes, declared.flipped, declared.gates)

    def as_json(self) -> dict[str, Any]:
        found = self.decided
        return {
            "tensor": self.tensor,
            "decided": found is not None,
            **({} if found is None else found.as_json()),
            "declared": None if self.declared is None else str(self.declared),
            "agrees": self.agrees,
            "reason": self.reason,
            "hypotheses": [each.as_json() for each in self.hypotheses],
        }

    @property
    def reason(self) -> str:
        """Why it is decided, or why it is not."""
        if not self.hypotheses:
            return "no way to read the kernel gives an output of the recorded shape from the recorded input"
        best = self.hypotheses[0].residual
        if not self.fitting:
            return f"none of {len(self.hypotheses)} hypotheses fits; the best is off by {best:.1e}"
        if len(self.fitting) > 1:
            return f"{len(self.fitting)} hypotheses fit the recording equally: it cannot tell them apart"
        others = f"; the next is off by {self.hypotheses[1].residual:.1e}" if len(self.hypotheses) > 1 else ""
        return f"one of {len(self.hypotheses)} hypotheses fits, to {best:.1e}{others}"


def probe(
    bundle: Bundle,
    name: str,
    given: Array,
    recorded: Array,
    *,
    kinds: Iterable[str] = (),
    data_format: str | None = None,
    stride: tuple[int, ...] | None = None,
    padding: str | None = None,
    dilation: int = 1,
    activation: str = "linear",
    bias: str | None = None,
    recurrent: str | None = None,
) -> Verdict:
    """Tries every reading of a kernel against what its layer was given and what it gave out.

    ``given``, ``recorded``: arrays with the batch first, as the framework that ran them had them: N C H W or N H W C
    for layers with space, N I or any map for dense ones, N T I for recurrent ones.
    ``kinds``: the kinds of layer to try; by default that of the declared role, else every kind that has one kernel.
    ``bias``, ``recurrent``: tensors of the same file; by default those declared to belong to the same layer. Without a
    bias a constant for each channel is fitted to the recording, where it is long enough.

    Raises UsageError if the arrays cannot be what they are said to be, KeyError if there is no such tensor.
    """
    tensor = bundle[name]
    chosen = tuple(kinds) or _declared_kinds(tensor)
    unknown = [kind for kind in chosen if kind not in KINDS]
    if unknown:
        raise UsageError(f"no kind of layer is named {unknown[0]!r}", remedy=f"kinds are: {', '.join(KINDS)}")
    if data_format not in (None, *_FORMATS):
        raise UsageError(f"data format {data_format!r}: expected {' or '.join(_FORMATS)}")
    known = data_format or bundle.metadata.get("data_format")
    formats = (str(known),) if known in _FORMATS else _FORMATS
    recording = Recording(
        _numbers(given, "input"), _numbers(recorded, "output"), formats, stride, padding, dilation, activation
    )
    constant = _numbers_of(bundle, bias) if bias else _sibling(bundle, tensor, "bias")
    again = _numbers_of(bundle, recurrent) if recurrent else _sibling(bundle, tensor, "recurrent_kernel")
    kernel = _numbers(tensor.numpy(), name)
    readings = (reading for kind in chosen for reading in _readings(kind, kernel, again, constant, recording))
    tried = (_tried(reading, constant, activation) for reading in readings)
    return Verdict(name, tensor.layout, tuple(sorted(tried, key=lambda each: each.residual)))


_FORMATS = ("channels_last", "channels_first")


def _readings(
    kind: str, kernel: Array, again: Array | None, bias: Array | None, recording: Recording
) -> Iterator[Reading]:
    if kind in ("lstm", "gru", "rnn"):
        if again is None:
            raise UsageError(f"an {kind} has two kernels", remedy="name the recurrent one: --recurrent TENSOR")
        return recurrent_readings(kind, kernel, again, bias, recording)
    if kind == "dense":
        return dense_readings(kernel, recording)
    return spatial_readings(kind, kernel, recording)


def _declared_kinds(tensor: Tensor) -> tuple[str, ...]:
    kind, _, part = (tensor.role or "").partition(".")
    if kind in KINDS and part == "kernel":
        return (kind,)
    if tensor.role is not None and part != "kernel":
        raise UsageError(f"{tensor.name} is declared to be {tensor.role}, which is no kernel", remedy="--kind KIND")
    return ("conv", "depthwise", "conv_transpose", "dense")


def _sibling(bundle: Bundle, tensor: Tensor, part: str) -> Array | None:
    """The tensor that is declared to be that part of the same layer, if there is one of it."""
    kind = (tensor.role or "").partition(".")[0]
    found = [t for t in bundle.values() if t.layer == tensor.layer and t.role == f"{kind}.{part}"] if kind else []
    return _numbers(found[0].numpy(), found[0].name) if len(found) == 1 else None


def _numbers_of(bundle: Bundle, name: str) -> Array:
    if name not in bundle:
        raise UsageError(f"there is no tensor {name!r}", remedy="wio inspect FILE lists the names")
    return _numbers(bundle[name].numpy(), name)


def _numbers(array: Array, what: str) -> Array:
    """The array in double precision, so that what is compared is the recording's rounding and not ours."""
    try:
        numbers: Array = np.asarray(array).astype(np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{what}: {array.dtype} is no array of numbers") from None
    if not np.isfinite(numbers).all():
        raise UsageError(f"{what}: holds NaN or infinity: nothing can be compared with that")
    return numbers


def _tried(reading: Reading, bias: Array | None, activation: str) -> Hypothesis:
    """How far a reading is off, with the bias given or a constant fitted to each channel."""
    predicted, wanted = reading.predict(), reading.wanted
    says = dict(reading.says)
    if not reading.with_bias:
        if bias is not None and bias.size == predicted.shape[-1]:
            predicted = predicted + bias.reshape(-1)
        elif activation == "linear" and len(predicted) >= ENOUGH_TO_FIT:
            predicted = predicted + (wanted - predicted).mean(axis=0)
            says["bias"] = FITTED
        else:
            says["bias"] = "none"
        predicted = activated(predicted, activation)
    deviation = float(np.abs(wanted - wanted.mean(axis=0)).max()) if len(wanted) > 1 else float(np.abs(wanted).max())
    error = float(np.abs(wanted - predicted).max())
    residual = error / deviation if deviation else (0.0 if error == 0 else float("inf"))
    return Hypothesis(reading.kind, reading.layout, says, residual)


def activated(values: Array, activation: str) -> Array:
    """The values after the activation; ``softmax`` is over the last axis."""
    result: Array
    if activation == "linear":
        result = values
    elif activation == "relu":
        result = np.maximum(values, 0)
    elif activation == "sigmoid":
        result = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    elif activation == "tanh":
        result = np.tanh(values)
    elif activation == "softmax":
        shifted = np.exp(values - values.max(axis=-1, keepdims=True))
        result = shifted / shifted.sum(axis=-1, keepdims=True)
    else:
        raise UsageError(f"no activation is named {activation!r}", remedy=f"they are: {', '.join(ACTIVATIONS)}")
    return result
