"""Readings of kernels that slide over space: convolution, depthwise and transposed, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

from msgspec import Struct

from wio.errors import UsageError
from wio.layout import SPATIAL, Layout
from wio.lazy import Array, np
from wio.probing.reading import Reading, Recording

MOST_STRIDE = 8
# Places of the output that are computed: as many as this many multiplications allow, borders first.
WORK = 100_000_000
FEWEST_PLACES, MOST_PLACES = 64, 4096


class _Window(Struct, frozen=True):
    """How a kernel slides along each axis: ``before`` zeros in front (of a transposed one: outputs cut off there)."""

    padding: str
    stride: tuple[int, ...]
    before: tuple[int, ...]


def spatial_readings(kind: str, kernel: Array, recording: Recording) -> Iterator[Reading]:
    """Every reading of a kernel of that kind that takes the recorded input to an output of the recorded shape."""
    space = kernel.ndim - 2
    if not 1 <= space <= 3:
        return
    if recording.given.ndim != kernel.ndim or recording.recorded.ndim != kernel.ndim:
        return
    if len(recording.given) != len(recording.recorded):
        raise UsageError(f"the input is a batch of {len(recording.given)}, the output of {len(recording.recorded)}")
    letters = SPATIAL[3 - space :]
    channels = "CM" if kind == "depthwise" else "IO"
    seen: set[object] = set()
    for data_format, order in product(recording.formats, permutations(letters + channels)):
        given, recorded = _last(recording.given, data_format), _last(recording.recorded, data_format)
        layout = _layout(kind, order, kernel.shape, given.shape[-1], recorded.shape[-1])
        if layout is None:
            continue
        # Axes of length 1 cannot be told apart, and need not be.
        shape = tuple(letter if extent > 1 else "1" for letter, extent in zip(order, kernel.shape, strict=True))
        sizes = [kernel.shape[order.index(letter)] for letter in letters]
        for window in _windows(kind, given.shape[1:-1], recorded.shape[1:-1], sizes, recording):
            for flipped in (False, True) if max(sizes) > 1 else (False,):
                key = (data_format, shape, window.stride, window.before, flipped)
                if key in seen:
                    continue
                seen.add(key)
                yield _reading(kind, kernel, order, layout, flipped, window, data_format, given, recorded, recording)


def _last(array: Array, data_format: str) -> Array:
    return np.moveaxis(array, 1, -1) if data_format == "channels_first" else array


def _layout(kind: str, order: tuple[str, ...], shape: tuple[int, ...], into: int, out: int) -> Layout | None:
    """The layout with these letters, groups included, if the channels recorded allow it."""
    sizes = dict(zip(order, shape, strict=True))
    if kind == "depthwise":
        return Layout(order) if sizes["C"] == into and sizes["C"] * sizes["M"] == out else None
    # What slides over the input has whole input channels of one group, and every output channel; transposed, the
    # other way round.
    one, every = ("I", "O") if kind == "conv" else ("O", "I")
    narrow, wide = (into, out) if kind == "conv" else (out, into)
    if sizes[every] != wide or not sizes[one] or narrow % sizes[one]:
        return None
    groups = narrow // sizes[one]
    if wide % groups:
        return None
    if groups == 1:
        return Layout(order)
    return Layout(tuple(f"G{each}" if each == every else each for each in order), sizes=(("G", groups),))


def _windows(
    kind: str, into: tuple[int, ...], out: tuple[int, ...], sizes: list[int], recording: Recording
) -> Iterator[_Window]:
    """The strides and paddings under which the sizes agree; those that compute the same are one."""
    space = len(into)
    reach = [(size - 1) * recording.dilation + 1 for size in sizes]
    if recording.stride is None:
        strides = [(each,) * space for each in range(1, MOST_STRIDE + 1)]
    elif len(recording.stride) in (1, space):
        strides = [recording.stride * (space if len(recording.stride) == 1 else 1)]
    else:
        raise UsageError(f"stride {recording.stride}: the kernel has {space} spatial axes")
    names = ["valid", "same", "same (the odd zero in front)", "causal"]
    names += [f"{pad} on each side" for pad in range(1, max(reach))]
    for stride in strides:
        found: dict[tuple[int, ...], list[str]] = {}
        for name in names:
            if recording.padding is not None and name.partition(" ")[0] != recording.padding:
                continue
            before = [_before(kind, name, *axis) for axis in zip(into, out, reach, stride, strict=True)]
            if None not in before:
                found.setdefault(tuple(each or 0 for each in before), []).append(name)
        for each, same in found.items():
            yield _Window(" = ".join(same), stride, each)


def _before(kind: str, padding: str, into: int, out: int, reach: int, stride: int) -> int | None:
    """The zeros in front along one axis, or None if this padding would not give the recorded size."""
    if kind == "conv_transpose":
        into, out = out, into
    same = -(-into // stride)
    total = max((same - 1) * stride + reach - into, 0)
    if padding == "valid":
        return 0 if reach <= into and (into - reach) // stride + 1 == out else None
    if padding == "same":
        return total // 2 if same == out else None
    if padding.startswith("same"):
        return total - total // 2 if same == out and total % 2 else None
    if padding == "causal":
        return reach - 1 if same == out and kind == "conv" else None
    pad = int(padding.partition(" ")[0])
    return pad if into + 2 * pad >= reach and (into + 2 * pad - reach) // stride + 1 == out else None


def _reading(
    kind: str,
    kernel: Array,
    order: tuple[str, ...],
    layout: Layout,
    flipped: bool,
    window: _Window,
    data_format: str,
    given: Array,
    recorded: Array,
    recording: Recording,
) -> Reading:
    letters = "".join(letter for letter in SPATIAL if letter in order)
    neutral = kernel.transpose([order.index(letter) for letter in letters + ("CM" if kind == "depthwise" else "IO")])
    if flipped:
        neutral = np.flip(neutral, tuple(range(len(letters))))
    places = _places(recorded.shape, kernel.size)
    declared = Layout(layout.axes, flipped, None, layout.sizes)
    says = {
        "operation": "convolution" if flipped else "cross-correlation",
        "stride": "x".join(map(str, window.stride)),
        "padding": window.padding,
        "data_format": data_format,
    }

    def predict() -> Array:
        patches = _patches(kind, given, places, neutral.shape[: len(letters)], window, recording.dilation)
        groups = layout.size("G") or 1
        flat = neutral.reshape(-1, *neutral.shape[len(letters) :])
        if kind == "depthwise":
            result = np.einsum("pkc,kcm->pcm", patches, flat)
        elif kind == "conv":
            grouped = flat.reshape(*flat.shape[:2], groups, -1)
            result = np.einsum(
                "pkgi,kigo->pgo", patches.reshape(*patches.shape[:2], groups, -1), grouped, optimize=True
            )
        else:
            grouped = flat.reshape(len(flat), groups, -1, flat.shape[2])
            result = np.einsum(
                "pkgi,kgio->pgo", patches.reshape(*patches.shape[:2], groups, -1), grouped, optimize=True
            )
        predicted: Array = result.reshape(len(patches), -1)
        return predicted

    return Reading(kind, declared, says, recorded[tuple(places.T)], predict)


def _places(shape: tuple[int, ...], multiplications: int) -> Array:
    """Places of the output, N and space: all of them, or the corners and a seeded choice of the others."""
    shape = shape[:-1]
    many = min(MOST_PLACES, max(FEWEST_PLACES, WORK // max(multiplications, 1)))
    total = int(np.prod(shape))
    if total <= many:
        return np.stack(np.unravel_index(np.arange(total), shape), axis=1)
    corners = np.array(list(product((0,), *((0, size - 1) for size in shape[1:]))))
    chosen = np.random.default_rng(0).choice(total, many, replace=False)
    return np.concatenate([corners, np.stack(np.unravel_index(chosen, shape), axis=1)])


def _patches(kind: str, given: Array, places: Array, sizes: tuple[int, ...], window: _Window, dilation: int) -> Array:
    """What the kernel sees at each place: P, places of the kernel, channels; zeros beyond the borders."""
    space = len(sizes)
    index: list[Array] = [places[:, 0].reshape(-1, *(1,) * space)]
    inside: Array = np.ones((len(places), *sizes), bool)
    for axis, (size, stride, before) in enumerate(zip(sizes, window.stride, window.before, strict=True)):
        at = places[:, axis + 1, None]
        steps = np.arange(size) * dilation
        if kind == "conv_transpose":
            reached = at + before - steps
            source, hit = reached // stride, reached % stride == 0
        else:
            source = at * stride - before + steps
            hit = np.ones_like(source, bool)
        extent = given.shape[axis + 1]
        hit &= (source >= 0) & (source < extent)
        form = (len(places), *(size if k == axis else 1 for k in range(space)))
        inside &= hit.reshape(form)
        index.append(np.clip(source, 0, extent - 1).reshape(form))
    seen: Array = given[tuple(index)] * inside[..., None]
    return seen.reshape(len(places), -1, given.shape[-1])
