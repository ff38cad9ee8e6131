"""What can be drawn: real numbers of any kind that NumPy widens to double precision."""

from __future__ import annotations

from wio.bundle import Tensor
from wio.errors import UsageError
from wio.lazy import Array, np


def checked_real(tensor: Tensor, array: Array) -> Array:
    """The array, which holds values of the tensor; UsageError if these are strings or complex numbers."""
    if not np.can_cast(array.dtype, np.float64, "same_kind"):
        raise UsageError(f"{tensor.name}: {tensor.dtype} are no real numbers to draw")
    return array
