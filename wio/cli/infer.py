"""``wio infer``: names and layouts of an unknown file, learnt from one with the same weights."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_json,
    add_options,
    add_selection,
    declarations,
    key_values,
    source,
)

if TYPE_CHECKING:
    from wio.inferring.infer import Match
    from wio.inferring.learnt_dialect import Learnt

_EXAMPLE = """\
  wio infer model.h5 model.ckpt
  wio infer inception_v4.ckpt mine.pt --arch inception-v4 -o mine.toml
  wio infer fine_tuned.onnx other.npz --structure

exit codes: 0 everything is paired and has one explanation, 1 something is not, 2 trouble."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "infer",
        "Learn names, roles and layouts of B from A, which is declared and holds the same weights.",
        _EXAMPLE,
    )
    parser.add_argument("a", metavar="A", help="the file whose roles and layouts are known; ADAPTER:PATH insists")
    parser.add_argument("b", metavar="B", help="the file to learn of")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIALECT.toml",
        type=Path,
        help="write what was learnt as a dialect: with --arch a section for that architecture's file, else globs",
    )
    parser.add_argument(
        "--structure",
        action="store_true",
        help="propose partners by order and shape for what values do not pair; done by itself where they pair nothing",
    )
    add_options(parser, "--option", "options", "a reading option")
    add_declarations(parser)
    add_selection(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import message, print_json
    from wio.comparing.diff import comparable, open_sides
    from wio.inferring.infer import infer
    from wio.inferring.learnt_dialect import Learnt, declarations_of
    from wio.port import convention_of

    (adapter_a, a), (adapter_b, b) = source(arguments.a, None), source(arguments.b, None)
    told = declarations(arguments)
    known, unknown = open_sides(
        (a, b), (adapter_a, adapter_b), key_values(arguments.options), told, second_unknown=True
    )
    usual = convention_of(unknown.bundle, unknown.adapter)
    bundle = comparable(unknown.bundle)
    found = infer(comparable(known.bundle), bundle, usual, structure=arguments.structure)
    learnt = Learnt(found, bundle, unknown.adapter.name, usual, (a.name, b.name))
    settling = declarations_of(learnt)
    if arguments.json:
        print_json({**found.as_json(), "declare": settling})
    else:
        _print(learnt, settling)
    if not any(match.role for match in found.pairs):
        swap = any(tensor.role for tensor in unknown.bundle.values())
        message(
            "wio: A declares no tensor that has a partner, so nothing can be declared of B"
            + ("; B is declared: give it first" if swap else "; name its --arch or --dialect, or --declare it")
        )
    elif arguments.output is not None:
        _write(arguments.output, learnt, known.bundle.metadata.get("architecture"))
    return 0 if found.determined else 1


def _write(path: Path, learnt: Learnt, architecture: Any) -> None:
    from wio.atomic import atomic_output
    from wio.cli.output import message
    from wio.inferring.learnt_dialect import dialect_section, habit_text
    from wio.plugins import architecture_named

    if architecture is None:
        text, where = habit_text(learnt, path.stem), "goes under dialects/ of a registry (WIO_REGISTRY_PATH)"
    else:
        text = dialect_section(learnt, path.stem, architecture_named(str(architecture)))
        where = f"goes into the file of {architecture} in the registry"
    with atomic_output(path) as temporary:
        temporary.write_text(text, "utf-8")
    message(f"wrote {path}: {learnt.summary()}; it {where}")


def _print(learnt: Learnt, settling: list[str]) -> None:
    from wio.cli.output import print_table
    from wio.errors import printable

    found = learnt.found
    headings = ("A", "B", "role", "layout of B", "by", "")
    print_table(headings, ((m.a, m.b, m.role or "-", _layouts(m), m.evidence, _said(m)) for m in found.pairs))
    lines = [f"duplicate in {each.side.upper()}: {each.name} is {each.same_as}" for each in found.duplicates]
    lines += [f"not told apart ({g.reason}): {', '.join(g.a)}; in B {', '.join(g.b)}" for g in found.ambiguous]
    for side, names in (("A", found.unpaired_a), ("B", found.unpaired_b)):
        lines += [f"only in {side}: {name}" for name in names]
    if found.left_out:
        lines.append(f"left out: {len(found.left_out)} tensors that are no weights, or that A does not declare")
    if settling:
        lines += ["what settles B:", *(f"  --declare {shlex.quote(text)}" for text in settling)]
    for line in lines:
        print(printable(line))
    alone = "".join(
        f", {len(names)} only in {side}" for side, names in (("A", found.unpaired_a), ("B", found.unpaired_b)) if names
    )
    print(f"{'determined' if found.determined else 'not all determined'}: {learnt.summary()}{alone}")


def _layouts(match: Match) -> str:
    return " or ".join(map(str, match.layouts)) or "; ".join(match.orders) or "-"


def _said(match: Match) -> str:
    if match.determined:
        return "determined"
    said = "; ".join(match.doubts)
    return said if match.proposed else f"undetermined: {said}"
