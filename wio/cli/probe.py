"""``wio probe``: which layout a kernel has, decided by computing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_json,
    add_source,
    array,
    declarations,
    key_values,
    source,
)

if TYPE_CHECKING:
    from wio.probing.probe import Verdict

MOST_SHOWN = 12
_EXAMPLE = """\
  wio probe keras-theano:model.h5 conv1/conv1_W --input x.npy --output conv1.npy
  wio probe weights.npz conv1 --kind conv --input seen.npz:images --output seen.npz:conv1 --activation relu

exit codes: 0 one reading fits; 1 none or several fit, or the file declares another; 2 trouble"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "probe",
        "Decide by computing how a kernel is laid out: convolution or cross-correlation, axes, padding, gates.",
        _EXAMPLE,
    )
    parser.add_argument("file", metavar="FILE", help="the file to read; ADAPTER:PATH insists on a format")
    parser.add_argument("tensor", metavar="TENSOR", help="the kernel, by the name that wio inspect shows")
    for name, what in (("input", "was given"), ("output", "gave out")):
        parser.add_argument(
            f"--{name}",
            required=True,
            metavar="X.npy",
            help=f"what its layer {what}, batch first; of an .npz FILE.npz:NAME",
        )
    group = parser.add_argument_group("what you know of the layer (what you leave out is found out)")
    group.add_argument("--kind", action="append", default=[], help="conv, depthwise, conv_transpose, dense, lstm, ...")
    group.add_argument("--data-format", help="channels_first or channels_last: of the recordings")
    group.add_argument("--stride", metavar="S[,S]", help="one number, or one for each spatial axis")
    group.add_argument("--padding", choices=("same", "valid"))
    group.add_argument("--dilation", type=int, default=1, metavar="N")
    group.add_argument("--activation", default="linear", help="relu, sigmoid, tanh or softmax, if recorded after one")
    group.add_argument("--bias", metavar="TENSOR", help="its bias (default: the one declared, or a fitted constant)")
    group.add_argument("--recurrent", metavar="TENSOR", help="the recurrent kernel of an lstm, gru or rnn")
    add_source(parser)
    add_declarations(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import print_json
    from wio.errors import UsageError
    from wio.port import open_resolved
    from wio.probing.probe import probe

    adapter, path = source(arguments.file, arguments.source_adapter)
    bundle = open_resolved(path, adapter, key_values(arguments.source_options), declarations(arguments)).bundle
    if arguments.tensor not in bundle:
        raise UsageError(f"{path} has no tensor {arguments.tensor!r}", remedy="wio inspect FILE lists the names")
    verdict = probe(
        bundle,
        arguments.tensor,
        array(arguments.input),
        array(arguments.output),
        kinds=arguments.kind,
        data_format=arguments.data_format,
        stride=_stride(arguments.stride),
        padding=arguments.padding,
        dilation=arguments.dilation,
        activation=arguments.activation,
        bias=arguments.bias,
        recurrent=arguments.recurrent,
    )
    if arguments.json:
        print_json(verdict.as_json())
    else:
        _show(verdict)
    return 0 if verdict.decided is not None and verdict.agrees is not False else 1


def _stride(text: str | None) -> tuple[int, ...] | None:
    from wio.errors import UsageError

    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isdigit() and 0 < int(part) < 1000 for part in parts):
        raise UsageError(f"--stride {text!r}: expected a number, or one for each spatial axis as in 2,1")
    return tuple(map(int, parts))


def _show(verdict: Verdict) -> None:
    from wio.cli.output import print_table
    from wio.errors import printable

    rows = []
    for each in verdict.hypotheses[:MOST_SHOWN]:
        operation = each.says.get("operation", each.kind)
        rest = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in each.says.items() if key != "operation")
        rows.append(("fits" if each.fits else "", f"{each.residual:.2e}", each.kind, operation, str(each.layout), rest))
    print_table(("", "residual", "kind", "operation", "layout", "with"), rows)
    if len(verdict.hypotheses) > MOST_SHOWN:
        print(f"and {len(verdict.hypotheses) - MOST_SHOWN} more, none better")
    name = printable(verdict.tensor)
    if verdict.decided is None:
        print(f"{name}: not decided: {verdict.reason}")
        return
    found = verdict.decided
    print(f"{name}: {found.says.get('operation', found.kind)}, stored as {found.layout}: {verdict.reason}")
    if verdict.agrees is False:
        print(f"the file declares {verdict.declared}: that is wrong, or the recording is of another layer")
    elif verdict.agrees:
        print("as the file declares")
