"""Whether a kernel is another one with a batch norm folded into it, and with which epsilon: found by computing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from wio.bundle import Tensor
from wio.errors import LayoutError
from wio.lazy import Array, np
from wio.roles import neutral

# float32 rounds a product to 6e-8; a folded kernel went through two or three.
AGREES = 2e-5
LARGEST_EPSILON = 0.1
_PLAIN_EPSILONS = (1e-3, 1e-5, 2e-5, 1e-4, 1e-6, 1e-7, 1e-8, 1e-2, 1e-9, 1e-12)


class BatchNorm(Struct, frozen=True):
    """The tensors of one batch norm, C each; gamma, beta and mean where it has them."""

    layer: str
    variance: Tensor
    gamma: Tensor | None = None
    beta: Tensor | None = None
    mean: Tensor | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(t.name for t in (self.gamma, self.beta, self.mean, self.variance) if t is not None)


class Fold(Struct, frozen=True):
    """A batch norm that explains a kernel, the epsilon that fits, and whether the bias agrees (None: no bias seen)."""

    norm: BatchNorm
    epsilon: float
    bias: bool | None


def batch_norms(tensors: Iterable[Tensor]) -> list[BatchNorm]:
    """The batch norms among declared tensors, by layer."""
    parts: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        kind, _, part = (tensor.role or "").partition(".")
        if kind == "batch_norm":
            parts.setdefault(tensor.layer, {})[part] = tensor
    return [
        BatchNorm(layer, found["variance"], found.get("gamma"), found.get("beta"), found.get("mean"))
        for layer, found in parts.items()
        if "variance" in found
    ]


def fold_between(
    plain: Tensor, folded: Tensor, norms: Iterable[BatchNorm], biases: tuple[Tensor | None, Tensor | None]
) -> list[Fold]:
    """The batch norms that, folded into ``plain``, give ``folded``; usually one, none if nothing does.

    Kernels O last in neutral layout must be proportional for each output channel; of the factors gamma / sqrt(variance
    + epsilon) epsilon is solved for and must be one number for all channels. ``biases``: of the plain and of the folded
    layer; the folded one must be beta + (bias - mean) * factor.
    """
    factors = _factors(plain, folded)
    if factors is None:
        return []
    found = []
    for norm in norms:
        if norm.variance.size != len(factors):
            continue
        epsilon = _epsilon(factors, norm)
        if epsilon is not None:
            found.append(Fold(norm, epsilon, _bias_agrees(norm, factors, biases)))
    return found


def _factors(plain: Tensor, folded: Tensor) -> Array | None:
    """What each output channel was multiplied with, or None if no such numbers make the kernels equal."""
    x, y = _by_channel(plain), _by_channel(folded)
    if x is None or y is None or x.shape != y.shape or not x.size:
        return None
    norm = (x * x).sum(axis=0)
    if not norm.all():
        return None
    factors: Array = (x * y).sum(axis=0) / norm
    scale = np.abs(y).max(axis=0)
    error = np.abs(y - x * factors).max(axis=0)
    return factors if scale.all() and (error <= AGREES * scale).all() else None


def _by_channel(tensor: Tensor) -> Array | None:
    """The kernel as a matrix in double precision, output channels last: the axes O, G O, C M or the like."""
    if tensor.layout is None or tensor.role is None or not tensor.role.endswith("kernel"):
        return None
    try:
        usual = tensor.to(neutral(tensor.role, tensor.layout))
    except LayoutError:
        return None
    if usual.layout is None:
        return None
    axes, array = usual.layout.axes, usual.numpy().astype(np.float64)
    last = axes[-1]
    if last in ("O", "GO"):
        return array.reshape(-1, array.shape[-1])
    if axes[-2:] == ("C", "M"):
        return array.reshape(-1, array.shape[-2] * array.shape[-1])
    if axes[-2:] == ("O", "I"):
        return np.moveaxis(array, -2, -1).reshape(-1, array.shape[-2])
    return None


def _epsilon(factors: Array, norm: BatchNorm) -> float | None:
    """The epsilon with which a batch norm has these factors; the plainest number that explains all of them."""
    variance = norm.variance.numpy().astype(np.float64).reshape(-1)
    gamma = np.ones_like(variance) if norm.gamma is None else norm.gamma.numpy().astype(np.float64).reshape(-1)
    if gamma.shape != variance.shape or not factors.all():
        return None
    solved = (gamma / factors) ** 2 - variance
    # Where the variance is small, epsilon shows best.
    best = float(solved[np.argmin(variance)])
    for epsilon in (*_PLAIN_EPSILONS, best):
        if not 0 < epsilon <= LARGEST_EPSILON or (variance + epsilon <= 0).any():
            continue
        expected = gamma / np.sqrt(variance + epsilon)
        if (np.abs(expected - factors) <= AGREES * np.abs(factors)).all():
            return epsilon
    return None


def _bias_agrees(norm: BatchNorm, factors: Array, biases: tuple[Tensor | None, Tensor | None]) -> bool | None:
    before, after = (None if t is None else t.numpy().astype(np.float64).reshape(-1) for t in biases)
    if after is None or after.shape != factors.shape:
        return None
    beta, mean = (0.0 if t is None else t.numpy().astype(np.float64).reshape(-1) for t in (norm.beta, norm.mean))
    expected = beta + ((0.0 if before is None else before) - mean) * factors
    return bool((np.abs(expected - after) <= 10 * AGREES * (np.abs(beta) + np.abs(mean * factors) + 1e-6)).all())


def biases_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The bias of each layer that has one."""
    return {t.layer: t for t in tensors.values() if t.role is not None and t.role.endswith(".bias")}
