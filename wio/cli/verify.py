"""``wio verify``: files run as networks on the same input, their outputs compared."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_json,
    add_options,
    add_selection,
    array,
    declarations,
    key_values,
    source,
)
from wio.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from wio.running.verify import Compared, Verification

_EXAMPLE = """\
  wio verify inception_v4.ckpt inception_v4.h5 --arch inception-v4
  wio verify inception_v4.ckpt --arch inception-v4 --input panda.jpg --classes imagenet.txt
  wio verify a.wio b.onnx --arch posenet --input scene.npy --rtol 1e-5

exit codes: 0 the networks agree; 1 they part, or an output is not finite; 2 trouble"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "verify",
        "Run one file, or two, as networks on the same input; compare outputs and name the first layer that differs.",
        _EXAMPLE,
    )
    parser.add_argument("a", metavar="A", help="a file; ADAPTER:PATH insists on a format")
    parser.add_argument("b", metavar="B", nargs="?", help="the other; without it A is run alone")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="an .npy file, FILE.npz:NAME, or a PNG or JPEG picture, which is prepared as the architecture declares "
        "(default: random numbers)",
    )
    parser.add_argument(
        "--data-format",
        choices=("channels_first", "channels_last"),
        help="how the array of --input lies (default: as the architecture's input)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one on a line")
    parser.add_argument(
        "--rtol",
        type=float,
        help="how far values may be apart, relative to the layer's largest; with --atol the larger of the two counts "
        "(default: 1e-4 each; the one that is not given is 0)",
    )
    parser.add_argument("--atol", type=float, help="the same as an absolute number")
    parser.add_argument(
        "--outputs-only", action="store_true", help="judge by the outputs; layers only if the outputs differ"
    )
    add_options(parser, "--option", "options", "a reading option")
    add_declarations(parser)
    add_selection(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import print_json
    from wio.plugins import architecture_named
    from wio.running.verify import Bound, verify

    files = [source(each, None) for each in (arguments.a, arguments.b) if each is not None]
    bound = None
    if arguments.rtol is not None or arguments.atol is not None:
        bound = Bound(arguments.rtol or 0.0, arguments.atol or 0.0)
    if arguments.seed < 0:
        raise UsageError("--seed takes a number from 0")
    found = verify(
        [path for _, path in files],
        adapters=[adapter for adapter, _ in files],
        options=key_values(arguments.options),
        told=declarations(arguments),
        given=None if arguments.input is None else _given(arguments.input),
        data_format=arguments.data_format,
        seed=arguments.seed,
        bound=bound,
        outputs_only=arguments.outputs_only,
    )
    names = _class_names(arguments.classes, found.architecture)
    if arguments.json:
        document = found.as_json()
        for side in document["sides"]:
            side["top"] = [{"class": k, "name": names.get(k), "value": value} for k, value in side["top"]]
        print_json(document)
        return 0 if found.ok else 1
    _show(found, names)
    classes = architecture_named(found.architecture).classes
    if classes is not None and (note := classes.note()) and found.sides[0].top:
        print(f"note: {note}")
    return 0 if found.ok else 1


def _given(text: str) -> np.ndarray[Any, Any] | Path:
    """The array that --input names, or the path of what must then be a picture."""
    from wio.plugins import adapter_named

    path = Path(text)
    if path.exists() and not adapter_named("numpy").sniff(path):
        return path
    return array(text)


def _class_names(path: Path | None, identity: str) -> dict[int, str]:
    from wio.plugins import architecture_named

    if path is None:
        return {}
    classes = architecture_named(identity).classes
    if classes is None:
        raise UsageError(f"{identity} declares no classes", remedy="leave --classes out")
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8") from None
    return dict(enumerate(classes.named(lines)))


def _show(found: Verification, names: dict[int, str]) -> None:
    from wio.cli.output import print_table
    from wio.errors import printable

    print(f"{found.architecture}, run on {printable(found.given)}")
    for letter, side in zip("AB", found.sides, strict=False):
        for note in side.notes:
            print(f"note: {letter}: {printable(note)}")
    if len(found.sides) == 1:
        rows = ((o.layer, _shape(o.shape), _number(o.least), _number(o.greatest)) for o in found.sides[0].outputs)
        print_table(("output", "shape", "least", "greatest"), rows, right=("least", "greatest"))
    else:
        numbers = ("max abs", "max rel", "allowed")
        print_table(("output", "shape", *numbers, ""), map(_row, found.outputs), right=numbers)
    for letter, side in zip("AB", found.sides, strict=False):
        if side.top:
            print(f"\ntop 5 of {letter}, {printable(side.file)}:")
            print_table(
                ("value", "class"), ((f"{value:.6f}", names.get(k, f"class {k}")) for k, value in side.top), ("value",)
            )
    if len(found.sides) == 1:
        if not found.ok:
            print("an output has values that are not finite")
        return
    print()
    parting = found.parting
    if parting is not None:
        first = parting.compared
        print(f"first difference: {printable(first.layer)}, {parting.op}: {_apart(first)}")
        print(f"  takes {printable(', '.join(parting.inputs))}, which agreed")
        for name, a, b in parting.weights:
            print(f"  weight {printable(name)}: {printable(a)} in A, {printable(b)} in B")
        if not parting.weights:
            print("  it has no weights")
        before = parting.last_agreed
        print(f"  last that agreed before it: {printable(before)}" if before else "  nothing agreed before it")
    if found.ok:
        compared = f"{len(found.outputs)} outputs, {found.layers} layers" if found.layers else "outputs only"
        print(f"they agree: {compared}")
    else:
        only = " (the outputs are within the tolerance)" if all(each.agrees for each in found.outputs) else ""
        print(f"they part{only}")


def _row(compared: Compared) -> tuple[str, ...]:
    numbers = (_number(compared.max_abs), "" if compared.max_rel is None else f"{compared.max_rel:.3g}")
    allowed = f"{compared.allowed:.3g}"
    return compared.layer, _shape(compared.shape), *numbers, allowed, "agrees" if compared.agrees else "PARTS"


def _apart(compared: Compared) -> str:
    if compared.max_abs is None:
        return "a value is not finite"
    return f"max abs {compared.max_abs:.3g}, allowed {compared.allowed:.3g}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"
