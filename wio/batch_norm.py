"""Batch norms of early Keras, whose ``running_std`` is a standard deviation: the variance that does the same.

Keras 0.3 to 1.0.5 (on Theano to 1.0.6) compute ``gamma (x - mean) / (std + epsilon) + beta``, everything later and
everybody else ``gamma (x - mean) / sqrt(variance + epsilon) + beta``. Source: keras 0.3.3 and 1.0.5
``layers/normalization.py``, run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wio.bundle import Bundle, Tensor
from wio.errors import LayoutError, PlanError, Problem

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

STD, VARIANCE = "batch_norm.std", "batch_norm.variance"


def squared(bundle: Bundle, epsilon: float | None = None) -> Bundle:
    """The bundle with every ``batch_norm.std`` as a ``batch_norm.variance``; values are rounded once.

    The epsilon of a layer is that of ``metadata["layers"]``, else the one given; it stays the epsilon of the layer.
    Raises PlanError with every layer whose epsilon nobody has told.
    """
    told = {layer["name"]: layer.get("epsilon") for layer in bundle.metadata.get("layers", [])}
    deviations = {name: tensor for name, tensor in bundle.items() if tensor.role == STD}
    epsilons = {name: told.get(tensor.layer, epsilon) or epsilon for name, tensor in deviations.items()}
    remedy = "state it; it was 1e-6 by default up to Keras 1.0.7"
    missing = [
        Problem("undeclared", f"the epsilon of layer {deviations[name].layer} is not known", name, remedy)
        for name, value in epsilons.items()
        if value is None
    ]
    if missing:
        raise PlanError("a standard deviation becomes a variance only with its epsilon", missing)
    return bundle.map(lambda t: _as_variance(t, float(epsilons[t.name] or 0)) if t.name in deviations else t)


def _as_variance(tensor: Tensor, epsilon: float) -> Tensor:
    def load() -> Array:
        return variance_of(tensor.numpy(), epsilon, tensor.name)

    return replace(tensor.with_values(load, tensor.shape, tensor.layout), role=VARIANCE)


def variance_of(std: Array, epsilon: float, name: str = "running_std") -> Array:
    """``(std + epsilon)**2 - epsilon``, of the same dtype: ``sqrt(variance + epsilon) = std + epsilon``.

    Raises LayoutError where that is no variance: training keeps ``std`` above ``sqrt(epsilon)``.
    """
    import numpy as np

    wide = std.astype(np.float64)
    if not (wide > 0).all():
        raise LayoutError(f"{name}: a standard deviation of {wide.min()} cannot be")
    found: Array = ((wide + epsilon) ** 2 - epsilon).astype(std.dtype)
    if (found < 0).any():
        raise LayoutError(f"{name}: holds {wide.min()}, less than epsilon = {epsilon} lets a standard deviation be")
    return found
