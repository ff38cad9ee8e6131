"""What a network is run on: made-up numbers from a seed, an array that the user has, or a picture."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from wio.architectures.architecture import Architecture
from wio.errors import FormatError, UsageError, WioError
from wio.lazy import Array, np
from wio.network import NetLayer

# What Pillow turns into R, G and B of 8 bits as TensorFlow's decoders do; an alpha channel is left out.
_MODES = frozenset({"L", "LA", "P", "RGB", "RGBA"})
_LARGEST_PICTURE = 100_000_000
_PREPARED = "prepare it and give it as an .npy file"


class NetworkInput(Struct, frozen=True):
    """Arrays for every input layer by its name, N C and space; ``told`` says to a person what they are."""

    arrays: Mapping[str, Array]
    told: str
    random: bool = False


def random_input(architecture: Architecture, seed: int) -> NetworkInput:
    """One sample of uniform numbers from -1 to 1 for each input, the same for the same seed."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for layer in _inputs(architecture):
        axes, sizes = _declared(layer)
        shape = (1, *(sizes[axis] for axis in ("C", *(axis for axis in axes if axis != "C"))))
        arrays[layer.name] = generator.uniform(-1, 1, shape).astype(np.float32)
    return NetworkInput(arrays, f"random numbers from -1 to 1, seed {seed}", random=True)


def array_input(architecture: Architecture, array: Array, data_format: str | None = None) -> NetworkInput:
    """An array whose axes are the input's in the architecture's order, with N before them or without.

    ``data_format`` says that C stands first, or last, instead. Sizes alone never decide it: they may be equal.
    """
    layer = _only_input(architecture)
    declared, sizes = _declared(layer)
    orders = {None: declared, "channels_first": _c_first(declared), "channels_last": (*_c_first(declared)[1:], "C")}
    axes = orders[data_format]
    if array.dtype.kind not in "fiu":
        raise UsageError(f"the input's numbers are {array.dtype}, not real numbers")
    if not _fits(array, axes, sizes):
        other = next((name for name, order in orders.items() if name and _fits(array, order, sizes)), None)
        expected = " ".join(f"{axis}={sizes[axis]}" for axis in axes)
        raise UsageError(
            f"the input's shape is {list(array.shape)}; {architecture.id} takes [N] {expected}",
            remedy=f"--data-format {other}, if that is how it lies" if other else None,
        )
    if not array.size:
        raise UsageError("the input has no sample")
    batch = array if array.ndim > len(axes) else array[None]
    if not np.isfinite(batch).all():
        raise UsageError("the input has values that are not finite")
    told = f"an array of {batch.shape[0]}, {'N ' + ' '.join(axes)}"
    return NetworkInput({layer.name: np.moveaxis(batch, 1 + axes.index("C"), 1)}, told)


def picture_input(architecture: Architecture, path: Path) -> NetworkInput:
    """A PNG or JPEG file, prepared as the architecture declares. FormatError if it is none that can be read."""
    layer = _only_input(architecture)
    _, sizes = _declared(layer)
    preparing = architecture.preprocessing
    if preparing is None:
        raise UsageError(
            f"{architecture.id} declares no [preprocessing]: how a picture becomes its input is not known",
            remedy=_PREPARED,
        )
    if preparing.refused is not None:
        raise UsageError(f"no picture can be prepared: {preparing.refused}", remedy=_PREPARED)
    if set(sizes) != {"H", "W", "C"} or sizes["C"] != 3:
        raise UsageError(f"{architecture.id} takes no picture of three colours")
    prepared = preparing.apply(decoded(path), sizes["H"], sizes["W"])
    told = f"{path.name}, prepared after {preparing.source}"
    return NetworkInput({layer.name: np.moveaxis(prepared, -1, 0)[None]}, told)


def decoded(path: Path) -> Array:
    """The pixels of a PNG or JPEG file: H W C, uint8, C is RGB. Turned as they are stored: EXIF is not obeyed.

    Decoders of JPEG differ by a level or two, TensorFlow's from this one too.
    """
    try:
        from PIL import Image
    except ImportError:
        raise WioError("Pillow, which reads pictures, is not installed", remedy="pip install 'wio[verify]'") from None
    try:
        # Pillow warns of what is refused here, and of what changes no colour.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=("PNG", "JPEG")) as picture:
            # The sizes that a file claims are looked at before a pixel is read.
            if picture.width * picture.height > _LARGEST_PICTURE:
                raise FormatError(f"{path.name}: {picture.width} x {picture.height} pixels are too many")
            if picture.mode not in _MODES:
                raise FormatError(
                    f"{path.name}: pixels of kind {picture.mode} are not 8 bits of grey or RGB",
                    remedy="save it as an RGB picture",
                )
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise FormatError(
            f"{path.name}: is no PNG or JPEG picture that can be read: {error}",
            remedy="an input is such a picture, an .npy file, or an array of an .npz file as FILE.npz:NAME",
        ) from None


def _inputs(architecture: Architecture) -> list[NetLayer]:
    return [layer for layer in architecture.network.layers if layer.op == "Input"]


def _only_input(architecture: Architecture) -> NetLayer:
    layers = _inputs(architecture)
    if len(layers) != 1:
        raise UsageError(f"{architecture.id} has {len(layers)} inputs; only random numbers can be given to them all")
    return layers[0]


def _declared(layer: NetLayer) -> tuple[tuple[str, ...], dict[str, int]]:
    axes, sizes = layer.attributes.get("axes"), layer.attributes.get("sizes")
    if not axes or not sizes or "C" not in axes or None in sizes:
        raise UsageError(f"the architecture does not say the axes and sizes of its input {layer.name!r}")
    return tuple(axes), dict(zip(axes, map(int, sizes), strict=True))


def _c_first(axes: tuple[str, ...]) -> tuple[str, ...]:
    return ("C", *(axis for axis in axes if axis != "C"))


def _fits(array: Array, axes: tuple[str, ...], sizes: Mapping[str, int]) -> bool:
    shape = array.shape[1:] if array.ndim > len(axes) else array.shape
    return array.ndim <= len(axes) + 1 and tuple(shape) == tuple(sizes[axis] for axis in axes)
