"""Readings of dense kernels: which axis goes in, and in which order the rows flatten a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

from wio.errors import UsageError
from wio.layout import SPATIAL, Layout
from wio.lazy import Array
from wio.probing.reading import Reading, Recording


def dense_readings(kernel: Array, recording: Recording) -> Iterator[Reading]:
    """Every reading under which a dense kernel takes the recorded input to an output of the recorded shape.

    An input with an axis beside batch and channels is a map that the layer flattened (N C H W, N H W C, ...), unless
    the output has as many axes: then the layer works on the last axis alone.
    """
    given, recorded = recording.given, recording.recorded
    if kernel.ndim != 2 or recorded.ndim < 2:
        return
    wanted = recorded.reshape(-1, recorded.shape[-1])
    if given.ndim == recorded.ndim:
        flat = given.reshape(-1, given.shape[-1])
        yield from _both_ways(kernel, flat, wanted, ("I",), {}, {})
        return
    if recorded.ndim != 2 or len(given) != len(recorded) or given.ndim > 5:
        return
    if len(recording.formats) > 1:
        raise UsageError(
            "the input is a map, and which of its axes are channels is not known",
            remedy="state it: --data-format channels_first or channels_last",
        )
    space = SPATIAL[3 - (given.ndim - 2) :]
    letters = f"C{space}" if recording.formats[0] == "channels_first" else f"{space}C"
    sizes = dict(zip(letters, given.shape[1:], strict=True))
    seen = set()
    for order in permutations(letters):
        # Axes of length 1 do not change the order of what is flattened.
        key = "".join(letter for letter in order if sizes[letter] > 1)
        if key in seen:
            continue
        seen.add(key)
        flat = given.transpose(0, *(1 + letters.index(letter) for letter in order)).reshape(len(given), -1)
        yield from _both_ways(kernel, flat, wanted, order, sizes, {"rows": f"flatten the map as {''.join(order)}"})


def _both_ways(
    kernel: Array, flat: Array, wanted: Array, rows: tuple[str, ...], sizes: dict[str, int], says: dict[str, str]
) -> Iterator[Reading]:
    group = "".join(rows)
    for axes, matrix in (((group, "O"), kernel), (("O", group), kernel.T)):
        if matrix.shape == (flat.shape[1], wanted.shape[1]):
            layout = Layout(axes, sizes=tuple(sizes.items()))
            yield Reading("dense", layout, says, wanted, _product(flat, matrix))


def _product(flat: Array, matrix: Array) -> Callable[[], Array]:
    def predict() -> Array:
        result: Array = flat @ matrix
        return result

    return predict
