"""How the values of a tensor are spread, and the statistics of batch norms: what needs no layout to be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from wio.bundle import Bundle, Tensor
from wio.errors import UsageError
from wio.lazy import Array, np
from wio.picturing.real import checked_real

BINS = 40
# What of a batch norm is shown, in this order, and the roles that it comes from.
STATISTICS = {
    "gamma": ("batch_norm.gamma",),
    "beta": ("batch_norm.beta",),
    "mean": ("batch_norm.mean",),
    "std": ("batch_norm.variance", "batch_norm.std"),
}
_CHUNK = 1 << 22


class Distribution(Struct, frozen=True):
    """Counts of values in equal bins from ``least`` to ``greatest``. Numbers are of the finite values alone.

    ``quartiles``: the least values that a quarter, half and three quarters of all are no greater than.
    """

    name: str
    size: int
    counts: tuple[int, ...]
    least: float
    greatest: float
    mean: float
    std: float
    quartiles: tuple[float, ...]
    zeros: int
    not_finite: int


class BatchNormStatistics(Struct, frozen=True):
    """Of one batch norm: how gamma, beta, mean and standard deviation are spread over its channels.

    ``std`` is the square root of the stored variance, without epsilon. What the layer lacks is left out.
    """

    layer: str
    channels: int
    parts: tuple[Distribution, ...]


def distribution(tensor: Tensor) -> Distribution:
    """Reads the tensor. UsageError if it holds no real numbers."""
    return _spread(tensor.name, _numbers(tensor))


def batch_norms(bundle: Bundle, layer: str | None = None) -> tuple[BatchNormStatistics, ...]:
    """The statistics of every batch norm of a bundle, or of that of one layer, in the order of the file.

    Roles say what is one: UsageError where nothing that is declared is.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for tensor in bundle.values():
        if (tensor.role or "").startswith("batch_norm.") and layer in (None, tensor.layer):
            layers.setdefault(tensor.layer, {})[str(tensor.role)] = tensor
    if not layers:
        raise UsageError(
            f"no tensor of {layer!r} is declared to be a batch norm's" if layer else "no batch norm is declared",
            remedy="--declare 'GLOB=batch_norm.gamma' and so on, or name an --arch or --dialect that knows them",
        )
    return tuple(_statistics(name, parts) for name, parts in layers.items())


def _statistics(layer: str, parts: dict[str, Tensor]) -> BatchNormStatistics:
    found = []
    for name, roles in STATISTICS.items():
        role = next((role for role in roles if role in parts), None)
        if role is not None:
            values = _numbers(parts[role])
            with np.errstate(invalid="ignore"):
                found.append(_spread(name, np.sqrt(values) if role == "batch_norm.variance" else values))
    return BatchNormStatistics(layer, max(part.size for part in found), tuple(found))


def _numbers(tensor: Tensor) -> Array:
    array = checked_real(tensor, tensor.numpy()).reshape(-1)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _spread(name: str, values: Array) -> Distribution:
    finite = values[np.isfinite(values)]
    lost = values.size - finite.size
    if not finite.size:
        none = float("nan")
        return Distribution(name, values.size, (0,) * BINS, none, none, none, none, (none, none, none), 0, lost)
    least, greatest = float(finite.min()), float(finite.max())
    counts = _counted(finite, least, greatest)
    mean, std = _moments(finite, max(abs(least), abs(greatest)) or 1.0)
    quartiles = np.quantile(finite, (0.25, 0.5, 0.75), method="inverted_cdf").tolist()
    zeros = int((finite == 0).sum())
    return Distribution(name, values.size, counts, least, greatest, mean, std, tuple(quartiles), zeros, lost)


def _moments(finite: Array, scale: float) -> tuple[float, float]:
    """Mean and standard deviation; scaled, for the squares of large doubles are none."""
    mean = sum(float(chunk.sum()) for chunk in _scaled(finite, scale)) / finite.size
    variance = sum(float(((chunk - mean) ** 2).sum()) for chunk in _scaled(finite, scale)) / finite.size
    return mean * scale, variance**0.5 * scale


def _scaled(finite: Array, scale: float) -> Iterator[Array]:
    for start in range(0, finite.size, _CHUNK):
        yield finite[start : start + _CHUNK].astype(np.float64) / scale


def _counted(finite: Array, least: float, greatest: float) -> tuple[int, ...]:
    if least == greatest:
        return tuple(finite.size if place == BINS // 2 else 0 for place in range(BINS))
    # Halves: the distance between two doubles may be no double.
    half = greatest / 2 - least / 2 or 1.0
    counts = np.zeros(BINS, np.int64)
    for chunk in _scaled(finite, 2.0):
        places = np.minimum(((chunk - least / 2) / half * BINS).astype(np.int64), BINS - 1)
        counts += np.bincount(places, minlength=BINS)
    return tuple(counts.tolist())


def summary(found: Distribution) -> Iterable[str]:
    """What a person is told under a histogram, one number after another."""
    yield f"{found.size} values"
    if found.size > found.not_finite:
        yield f"from {found.least:.4g} to {found.greatest:.4g}"
        yield f"mean {found.mean:.4g}"
        yield f"std {found.std:.4g}"
        yield f"median {found.quartiles[1]:.4g}"
    if found.zeros:
        yield f"{found.zeros} zeros"
    if found.not_finite:
        yield f"{found.not_finite} not finite"
