"""NumPy, imported at its first use: listing and copying need no arrays, and importing it takes longer than both.

``from wio.lazy import Array, np`` where a module is loaded for work that may never touch an array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
else:

    class _NumPy:
        def __getattr__(self, name: str) -> Any:
            import numpy

            value = getattr(numpy, name)
            setattr(self, name, value)
            return value

    class Array:
        """What help() shows for a NumPy array."""

    np = _NumPy()

__all__ = ["Array", "np"]
