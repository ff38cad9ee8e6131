"""``wio show``: kernels, values and feature maps as pictures, in the terminal or as a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_source,
    array,
    declarations,
    key_values,
    source,
)
from wio.errors import UsageError

if TYPE_CHECKING:
    from wio.bundle import Bundle, Tensor
    from wio.picturing.distribution import BatchNormStatistics, Distribution
    from wio.picturing.grid import Grid
    from wio.picturing.kernels import Chosen
    from wio.running.activations import Activations

_EXAMPLE = """\
  wio show model.h5 conv1/kernel --max 32
  wio show inception_v4.ckpt InceptionV4/Conv2d_1a_3x3/weights --dialect tf-slim -o conv1.svg
  wio show model.h5 --batch-norms
  wio show model.h5 --activations x.npy --layer conv1 -o maps.png"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "show",
        "Draw a tensor's kernels as they are laid over the input, its values, or what layers make of an input.",
        _EXAMPLE,
    )
    parser.add_argument("file", metavar="FILE", help="the file to read; ADAPTER:PATH insists on a format")
    parser.add_argument("tensor", metavar="TENSOR", nargs="?", help="a tensor, or a layer that is a batch norm")
    parser.add_argument("-o", "--output-file", type=Path, metavar="OUT", help="write a .png or .svg (extra wio[plot])")
    what = parser.add_argument_group("what is drawn (default: kernels; of a batch norm its statistics)")
    what.add_argument("--histogram", action="store_true", help="how the values are spread; needs no layout")
    what.add_argument("--batch-norms", action="store_true", help="gamma, beta, mean and std of every batch norm")
    what.add_argument(
        "--activations", metavar="X.npy", help="what the layers make of this input; .npz as FILE.npz:NAME"
    )
    what.add_argument("--layer", metavar="NAME", help="the layer whose maps are drawn; without it layers are listed")
    what.add_argument(
        "--data-format",
        choices=("channels_first", "channels_last"),
        help="how the array of --activations lies (default: as the network's input)",
    )
    channels = parser.add_argument_group("choosing channels")
    for kind in ("input", "output"):
        channels.add_argument(
            f"--{kind}",
            type=int,
            action="append",
            default=[],
            metavar="N",
            help=f"this {kind} channel; may be repeated",
        )
    channels.add_argument(
        "--max", type=int, metavar="N", help="at most N of each (default: 16 kernels, 64 of a matrix)"
    )
    add_source(parser)
    add_declarations(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.picturing.kernels import Chosen
    from wio.port import open_resolved

    if arguments.max is not None and arguments.max < 1:
        raise UsageError("--max takes a number from 1")
    out: Path | None = arguments.output_file
    if out is not None:
        from wio.picturing.plot import check_format

        check_format(out)
    adapter, path = source(arguments.file, arguments.source_adapter)
    options, told = key_values(arguments.source_options), declarations(arguments)
    chosen = Chosen(tuple(arguments.input), tuple(arguments.output), arguments.max)
    if arguments.activations is not None:
        from wio.running.activations import activations

        given = array(arguments.activations)
        layers = [arguments.layer] if arguments.layer else []
        if arguments.tensor and not layers:
            layers = [_tensor(open_resolved(path, adapter, options, told).bundle, arguments.tensor).layer]
        found = activations(
            path, given, adapter=adapter, options=options, told=told, data_format=arguments.data_format, layers=layers
        )
        return _show_activations(found, chosen, out)
    if arguments.layer or arguments.data_format:
        raise UsageError("--layer and --data-format are of --activations")
    bundle = open_resolved(path, adapter, options, told).bundle
    return _show_weights(bundle, arguments, chosen, out)


def _show_weights(bundle: Bundle, arguments: argparse.Namespace, chosen: Chosen, out: Path | None) -> int:
    from wio.picturing.distribution import batch_norms, distribution
    from wio.picturing.kernels import kernel_grid

    name: str | None = arguments.tensor
    if arguments.batch_norms:
        _show_batch_norms(batch_norms(bundle, None if name is None else _layer(bundle, name)), out)
        return 0
    if name is None:
        raise UsageError("which tensor is to be shown?", remedy="wio inspect FILE lists the names; or --batch-norms")
    layer = _layer(bundle, name)
    of_batch_norm = name in bundle and (bundle[name].role or "").startswith("batch_norm.")
    if not arguments.histogram and (of_batch_norm or (layer is not None and name not in bundle)):
        _show_batch_norms(batch_norms(bundle, layer), out)
        return 0
    tensor = _tensor(bundle, name)
    if arguments.histogram or len(tensor.shape) < 2:
        # One axis has no order to be declared.
        _show_histogram(distribution(tensor), out)
    else:
        _show_grid(kernel_grid(tensor, chosen), out)
    return 0


def _tensor(bundle: Bundle, name: str) -> Tensor:
    from wio.errors import did_you_mean

    found = bundle.get(name) or next((tensor for tensor in bundle.values() if tensor.origin == name), None)
    if found is None:
        near = did_you_mean(name, [*bundle, *(tensor.layer for tensor in bundle.values())])
        raise UsageError(f"no tensor is named {name!r}", remedy=near or "wio inspect FILE lists the names")
    return found


def _layer(bundle: Bundle, name: str) -> str | None:
    """The layer of that name, or of the tensor of that name; None if there is neither."""
    if name in bundle:
        return bundle[name].layer
    return name if any(tensor.layer == name for tensor in bundle.values()) else None


def _show_grid(grid: Grid, out: Path | None) -> None:
    if out is not None:
        from wio.picturing.plot import save_grid

        save_grid(grid, out)
        _wrote(out)
        return
    from wio.picturing.terminal import coloured_console, grid_lines

    console = coloured_console()
    for line in grid_lines(grid, console):
        if console is None:
            print(line)
        else:
            console.print(line, soft_wrap=True)


def _show_histogram(found: Distribution, out: Path | None) -> None:
    if out is not None:
        from wio.picturing.plot import save_histogram

        save_histogram(found, out)
        _wrote(out)
        return
    from wio.picturing.terminal import histogram_lines

    print("\n".join(histogram_lines(found)))


def _show_batch_norms(found: Sequence[BatchNormStatistics], out: Path | None) -> None:
    from wio.errors import printable

    if out is not None:
        from wio.picturing.plot import save_batch_norms

        save_batch_norms(found, out)
        _wrote(out)
        return
    if len(found) == 1:
        from wio.picturing.terminal import histogram_lines

        print(printable(f"{found[0].layer}: a batch norm of {found[0].channels} channels"))
        for part in found[0].parts:
            print("\n".join(histogram_lines(part)))
        return
    from wio.cli.output import print_table
    from wio.picturing.distribution import STATISTICS

    rows = []
    for each in found:
        parts = {part.name: part for part in each.parts}
        spreads = (_spread(parts[name]) if name in parts else "-" for name in STATISTICS)
        rows.append((each.layer, str(each.channels), *spreads))
    print_table(("batch norm", "channels", *STATISTICS), rows, right=("channels", *STATISTICS))
    print(f"{len(found)} batch norms: least / median / greatest of the channels; std is the root of the variance")


def _spread(part: Distribution) -> str:
    told = " / ".join(f"{each:.3g}" for each in (part.least, part.quartiles[1], part.greatest))
    return told + (f" ({part.not_finite} not finite)" if part.not_finite else "")


def _show_activations(found: Activations, chosen: Chosen, out: Path | None) -> int:
    from wio.cli.output import message, print_table
    from wio.errors import printable
    from wio.picturing.feature_maps import feature_map_grid

    for note in found.notes:
        message(f"note: {printable(note)}")
    if found.maps:
        for layer, maps in found.maps.items():
            _show_grid(feature_map_grid(layer, maps, chosen), out)
        return 0
    if out is not None:
        raise UsageError("which layer is to be drawn?", remedy="--layer NAME; without -o the layers are listed")
    rows = (
        (e.layer, e.op, "x".join(map(str, e.shape)), f"{e.least:.4g}", f"{e.greatest:.4g}", f"{e.zeros:.0%}")
        for e in found.layers
    )
    numbers = ("least", "greatest", "zeros")
    print_table(("layer", "operator", "shape", *numbers), rows, right=numbers)
    print(printable(f"{found.network}, run on {found.given}; --layer NAME draws one"))
    return 0


def _wrote(out: Path) -> None:
    from wio.cli.output import message

    message(f"wrote {out}")
