"""Recurrent weights taken apart and put together: by gate, by bias and by direction.

Keras 1 keeps an array for each gate, later formats one for all of them (axis G); a format has the input and the
recurrent bias in two arrays, in one (axis B), or only their sum; ONNX has both directions in one array (axis F).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from wio.bundle import Tensor
from wio.errors import LayoutError
from wio.layout import Layout, ungrouped
from wio.lazy import Array


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


def with_gates(wanted: str | None, sources: Sequence[Tensor]) -> Tensor:
    """The gates ``wanted`` out of tensors of one role that hold one or more of them each."""
    if wanted is None or not all(t.layout and t.layout.gates for t in sources):
        return sources[0]
    whole = next((t for t in sources if t.layout and sorted(t.layout.gates or "") == sorted(wanted)), None)
    if whole is not None:
        return whole
    parts = []
    for tensor in sources:
        gates = tensor.layout.gates if tensor.layout and tensor.layout.gates else ""
        mine = "".join(gate for gate in wanted if gate in gates)
        if mine:
            parts.append(tensor if sorted(mine) == sorted(gates) else take_gates(tensor, mine))
    return parts[0] if len(parts) == 1 else join_gates(parts)


def take(tensor: Tensor, letter: str, place: int) -> Tensor:
    """The half of a tensor at one place along ``B`` (input, recurrent) or ``F`` (forward, backward), that axis gone."""
    layout = tensor.layout
    if layout is None or letter not in layout.letters:
        raise LayoutError(f"{tensor.name}: layout {layout} has no axis {letter}")
    apart = tensor.to(replace(ungrouped(layout, letter), values=None))
    rest = ungrouped(layout, letter).axes
    axis = rest.index(letter)
    if apart.shape[axis] != 2:
        raise LayoutError(f"{tensor.name}: axis {letter} of layout {layout} must be 2 long, not {apart.shape[axis]}")
    sizes = {key: size for key, size in layout.sizes if key != letter}
    left = Layout((*rest[:axis], *rest[axis + 1 :]), gates=layout.gates).with_sizes(sizes)
    shape = (*apart.shape[:axis], *apart.shape[axis + 1 :])
    return apart.with_values(lambda: apart.load().take(place, axis=axis), shape, left)


def stack(tensors: Sequence[Tensor], letter: str) -> Tensor:
    """Tensors of one layout one after the other along a new first axis ``letter``."""
    first, *others = _alike(tensors)
    layout = _layout(first)
    whole = Layout((letter, *layout.axes), gates=layout.gates).with_sizes(dict(layout.sizes))

    def load() -> Array:
        import numpy as np

        return np.stack([tensor.load() for tensor in (first, *others)])

    return first.with_values(load, (len(tensors), *first.shape), whole)


def added(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one layout, in their own precision: it rounds."""
    first, *others = _alike(tensors)
    if "float" not in first.dtype.name or first.dtype.encoding is not None:
        raise LayoutError(f"{first.name}: biases of {first.dtype} cannot be added")

    def load() -> Array:
        total = first.load()
        for tensor in others:
            total = total + tensor.load()
        return total

    return first.with_values(load, first.shape, first.layout)


def zeros(tensor: Tensor) -> Tensor:
    """As many zeros, of the same dtype and layout."""

    def load() -> Array:
        import numpy as np

        return np.zeros(tensor.shape, tensor.dtype.numpy)

    return tensor.with_values(load, tensor.shape, tensor.layout)


def _alike(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in the layout of the first, as plain arrays. LayoutError if they differ in shape or dtype."""
    layout = replace(_layout(tensors[0]), values=None)
    alike = [tensor.to(layout) for tensor in tensors]
    if len({(tensor.shape, tensor.dtype) for tensor in alike}) > 1:
        told = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in tensors)
        raise LayoutError(f"{tensors[0].name}: what is to be one array differs in shape or dtype: {told}")
    return alike


def _layout(tensor: Tensor) -> Layout:
    if tensor.layout is None:
        raise LayoutError(f"{tensor.name}: its layout is not declared")
    return tensor.layout


def _gate_axis(tensor: Tensor) -> int:
    return _layout(tensor).axes.index("G")


def _with_gates(tensor: Tensor, gates: str) -> Layout:
    return replace(_layout(tensor), gates=gates)
