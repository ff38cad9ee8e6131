"""What a layer gives out for an input, as pictures."""

from __future__ import annotations

from wio.errors import UsageError
from wio.lazy import Array, np
from wio.picturing.grid import Grid
from wio.picturing.kernels import MOST_IN_A_MATRIX, MOST_KERNELS, Chosen, chosen_of


def feature_map_grid(layer: str, maps: Array, chosen: Chosen | None = None) -> Grid:
    """The maps of the first sample, a tile for each channel, all in one scale; ``maps`` is N C and W, H W or D H W.

    What has no space is one row of numbers. ``chosen.outputs`` names channels.
    """
    chosen = chosen or Chosen()
    if chosen.inputs:
        raise UsageError("maps have no input channels", remedy="--output N chooses a channel")
    first = np.asarray(maps[0], np.float64)
    count, flat = first.shape[0], first.ndim == 1
    most = chosen.most or (MOST_IN_A_MATRIX if flat else MOST_KERNELS)
    taken = chosen_of(chosen.outputs, count, "output") if chosen.outputs else tuple(range(count))[:most]
    first = first[list(taken)]
    shown = f"{len(taken)} of {count}" if len(taken) < count else str(count)
    signed = bool((first < 0).any())
    if flat:
        return Grid(layer, first[None, None, None], ("",), ("",), "", "", f"{shown} numbers", signed)
    depth = first.shape[1] if first.ndim == 4 else 1
    height, width = (1, *first.shape[-2:])[-2:] if first.ndim == 2 else first.shape[-2:]
    tiles = first.reshape(len(taken), depth, height, width).transpose(1, 0, 2, 3)
    return Grid(
        layer,
        tiles,
        tuple(map(str, range(depth))) if depth > 1 else ("",),
        tuple(map(str, taken)),
        "depth" if depth > 1 else "",
        "channel",
        f"{height}x{width} maps, {shown} channels",
        signed,
    )
