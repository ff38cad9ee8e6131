"""Recurrent weights by gate: Keras 1 keeps an array for each gate, later formats one for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wio.bundle import Tensor
from wio.errors import LayoutError
from wio.layout import Layout, ungrouped

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def take_gates(tensor: Tensor, gates: str) -> Tensor:
    """The part of a tensor that holds ``gates``, in that order; its G axis stands alone."""
    layout = tensor.layout
    if layout is None or layout.gates is None or not set(gates) <= set(layout.gates):
        raise LayoutError(f"{tensor.name}: layout {layout} does not hold the gates {gates}")
    whole = tensor.to(replace(ungrouped(layout, "G"), values=None))
    places = [layout.gates.index(gate) for gate in gates]
    axis = _gate_axis(whole)
    shape = tuple(len(gates) if k == axis else extent for k, extent in enumerate(whole.shape))
    return whole.with_values(lambda: whole.load().take(places, axis=axis), shape, _with_gates(whole, gates))


def join_gates(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one role that hold different gates, as one; the gates in the order of ``tensors``."""
    first = tensors[0]
    if first.layout is None:
        raise LayoutError(f"{first.name}: its layout is not declared")
    apart = []
    for tensor in tensors:
        if tensor.layout is None or tensor.layout.gates is None:
            raise LayoutError(f"{tensor.name}: layout {tensor.layout} holds no gates")
        wanted = ungrouped(first.layout, "G")
        apart.append(tensor.to(Layout(wanted.axes, wanted.flipped, None, (), tensor.layout.gates)))
    shapes = {tuple(extent for k, extent in enumerate(t.shape) if k != _gate_axis(t)) for t in apart}
    if len(shapes) > 1 or len({t.dtype for t in apart}) > 1:
        raise LayoutError(
            f"{first.name}: the arrays of its gates differ in shape or dtype: {[t.shape for t in tensors]}"
        )
    axis = _gate_axis(apart[0])
    gates = "".join(t.layout.gates for t in apart if t.layout and t.layout.gates)
    shape = tuple(len(gates) if k == axis else extent for k, extent in enumerate(apart[0].shape))

    def load() -> Array:
        import numpy as np

        return np.concatenate([tensor.load() for tensor in apart], axis=axis)

    return apart[0].with_values(load, shape, _with_gates(apart[0], gates))


def _gate_axis(tensor: Tensor) -> int:
    if tensor.layout is None:
        raise LayoutError(f"{tensor.name}: its layout is not declared")
    return tensor.layout.axes.index("G")


def _with_gates(tensor: Tensor, gates: str) -> Layout:
    if tensor.layout is None:
        raise LayoutError(f"{tensor.name}: its layout is not declared")
    return replace(tensor.layout, gates=gates)
