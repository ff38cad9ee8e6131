"""``wio check``: what looks wrong in a weight file, before anybody trusts it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_html,
    add_json,
    add_selection,
    add_source,
    declarations,
    key_values,
    source,
)

if TYPE_CHECKING:
    from wio.checks.check import Checked

_EXAMPLE = """\
  wio check model.h5
  wio check inception_v4.h5 --arch inception-v4
  wio check model.onnx --html report.html"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "check",
        "Lint a weight file against its own graph or an architecture; exit code 1 on warnings and errors.",
        _EXAMPLE,
    )
    parser.add_argument("file", metavar="FILE", help="the file to read; ADAPTER:PATH insists on a format")
    add_source(parser)
    add_declarations(parser)
    add_selection(parser)
    add_html(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.checks.check import check
    from wio.cli.output import Progress, print_json

    adapter, path = source(arguments.file, arguments.source_adapter)
    with Progress("" if arguments.json else "checking") as progress:
        found = check(
            path,
            adapter=adapter,
            options=key_values(arguments.source_options),
            told=declarations(arguments),
            progress=progress,
        )
    if arguments.html is not None:
        from wio.cli.output import write_page
        from wio.reporting.check_page import check_page

        write_page(arguments.html, check_page(found, path.name))
    if arguments.json:
        print_json(found.as_json())
    else:
        _show(found)
    return 0 if found.ok else 1


def _show(found: Checked) -> None:
    from wio.cli.output import print_table
    from wio.errors import printable

    if found.findings:
        rows = ((f.severity, f.code, f.where or "the file", f.evidence) for f in found.findings)
        print_table(("severity", "code", "where", "evidence"), rows)
        print("\nwhat to do:")
        for code, remedy in dict.fromkeys((f.code, f.remedy) for f in found.findings):
            print(f"  {code}: {printable(remedy)}")
        print()
    print(f"{found.summary}: {found.tensors} tensors; {found.held_against}")
