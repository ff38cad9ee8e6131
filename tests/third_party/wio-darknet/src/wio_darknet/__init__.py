"""The adapter `darknet`: Darknet .weights files, with the .cfg that says what they hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

from wio.adapter import Adapter, Convention, Option, Slot, Target
from wio.atomic import atomic_output
from wio.bundle import Bundle, Tensor
from wio.dtypes import dtype_named
from wio.errors import FormatError, LayoutError, Problem, UsageError, WioError
from wio.layout import Layout
from wio.roles import NOT_WEIGHTS
from wio_darknet.cfg import Array, arrays_of, read_cfg
from wio_darknet.weights import Header, open_weights

FLOAT32 = dtype_named("float32")
REMEDY = "the option cfg=FILE names it"


class Darknet(Adapter):
    """``NAME.weights`` beside ``NAME.cfg``; another .cfg is an option."""

    name = "darknet"
    description = "Darknet .weights with their .cfg: convolutional and connected layers"
    writes = True
    options = (Option("cfg", "the network's .cfg; by default the one beside the file", reading=True, writing=True),)

    def sniff(self, path: Path) -> int:
        """The format has no magic bytes: a file is of it if the .cfg beside it comes to its size, to the byte."""
        try:
            open_weights(path, read_cfg(path.with_suffix(".cfg")))
        except (OSError, ValueError, WioError):
            return 0
        return 10

    def read(self, path: Path, **options: str) -> Bundle:
        """Lazy: values are read when asked for. FormatError unless the file holds what the .cfg says."""
        given = self.checked(options, writing=False)
        beside = Path(given.get("cfg", path.with_suffix(".cfg")))
        if not beside.is_file():
            raise FormatError(f"{beside.name} is missing, and nothing else says what {path.name} holds", remedy=REMEDY)
        cfg = read_cfg(beside)
        opened = open_weights(path, cfg)
        tensors = (
            Tensor(
                array.name,
                FLOAT32,
                array.shape,
                partial(opened.values, array, offset),
                array.role,
                Layout.parse(array.layout),
                layer=array.layer,
            )
            for array, offset in opened.places
        )
        return Bundle(tensors, _metadata(cfg, opened.header, (array for array, _ in opened.places)))

    def convention(self, **options: str) -> Convention:
        """Which layouts the format keeps: what `--declare 'GLOB=ROLE'` means, and what other formats come to."""
        self.checked(options, writing=True)
        return Convention.of(
            {
                "conv.kernel": ("OIHW", "(GO)IHW"),
                "conv.bias": ("O",),
                "dense.kernel": ("OI", "O(CHW)"),
                "dense.bias": ("O",),
                **{f"batch_norm.{part}": ("C",) for part in ("gamma", "beta", "mean", "variance")},
            }
        )

    def target(self, bundle: Bundle, **options: str) -> Target:
        """A slot for each array of the .cfg: the one given, or the one that the weights came with."""
        given = self.checked(options, writing=True)
        cfg, header = (read_cfg(Path(given["cfg"])), Header()) if "cfg" in given else _came_with(bundle)
        arrays = arrays_of(cfg, transposed=header.transposed)
        slots = tuple(Slot(a.name, a.role, Layout.parse(a.layout), a.layer, a.layer) for a in arrays)
        dropped = {t.name: f"its role is {t.role}: no weight" for t in bundle.values() if t.role in NOT_WEIGHTS}
        notes = ("layers are matched by name, and the .cfg is written beside the file",)
        return Target(slots, _metadata(cfg, header, arrays), dropped, tuple(_misfits(bundle, arrays)), notes)

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        """The .weights, and its .cfg beside it. WioError rather than replacing a .cfg that says otherwise."""
        self.checked(options, writing=True)
        cfg, header = str(bundle.metadata["darknet"]["cfg"]), Header(*bundle.metadata["darknet"]["header"])
        beside = path.with_suffix(".cfg")
        if beside == path or (beside.exists() and read_cfg(beside) != cfg):
            raise WioError(f"{beside.name} would be replaced by another .cfg", remedy="choose another name to write")
        with atomic_output(path) as weights, atomic_output(beside) as definition:
            definition.write_bytes(cfg.encode("latin-1"))
            with weights.open("wb") as file:
                file.write(header.packed())
                for array in arrays_of(cfg, transposed=header.transposed):
                    file.write(bundle[array.name].stored())


def _metadata(cfg: str, header: Header, arrays: Iterable[Array]) -> dict[str, Any]:
    # Darknet divides by sqrt(variance) + 1e-6 (blas.c, normalize_cpu), OpenCV's importer by sqrt(variance + 1e-6).
    epsilon = {array.layer: 1e-6 for array in arrays if array.role == "batch_norm.variance"}
    return {
        "data_format": "channels_first",
        "flatten_order": "CHW",
        "epsilon": epsilon,
        "darknet": {"cfg": cfg, "header": list(astuple(header))},
    }


def _came_with(bundle: Bundle) -> tuple[str, Header]:
    """The .cfg and header of weights that were Darknet's before, as :func:`_metadata` left them."""
    about = bundle.metadata.get("darknet")
    if about is None:
        raise UsageError("darknet writes the weights of a .cfg, and there is none", remedy=REMEDY)
    try:
        return str(about["cfg"]), Header(*about["header"])
    except (KeyError, TypeError) as error:
        raise FormatError(f"what the source says of its .cfg is damaged: {error}", remedy=REMEDY) from error


def _misfits(bundle: Bundle, arrays: Iterable[Array]) -> Iterable[Problem]:
    """Source tensors that the .cfg's sizes, or Darknet's only dtype, refute."""
    wanted = {(array.layer, array.role): array for array in arrays}
    for tensor in bundle.values():
        array = wanted.get((tensor.layer, str(tensor.role)))
        if array is None or tensor.layout is None:
            continue
        if tensor.dtype != FLOAT32:
            yield Problem("dtype", f"Darknet stores float32, not {tensor.dtype}", tensor.name)
        try:
            shape = tensor.to(array.layout).shape
        except LayoutError:
            continue  # the plan will say why
        if shape != array.shape:
            yield Problem("shape", f"as {array.layout} it is {shape}, the .cfg has {array.shape}", tensor.name)
