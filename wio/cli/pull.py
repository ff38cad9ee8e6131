"""``wio pull``: weights from an OCI registry, every byte verified."""

from __future__ import annotations

import argparse
from pathlib import Path

from wio.cli.arguments import Commands, add_command, add_json, add_registry

_EXAMPLE = """\
  wio pull oci://registry.example.org/team/model:v1 -o model.wio
  wio pull oci://localhost:5000/team/model@sha256:0123... -o folder"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "pull", "Fetch weights from an OCI registry, every byte verified (extra wio[oci]).", _EXAMPLE
    )
    add_registry(parser)
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="a file; a folder for a set")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import Progress, message, print_json, size
    from wio.oci.reference import Reference
    from wio.oci.transfer import pull

    reference = Reference.parse(arguments.reference)
    with Progress(f"pulling {reference}") as progress:
        done = pull(reference, arguments.output, plain_http=arguments.plain_http, progress=progress)
    if arguments.json:
        print_json(done.as_json())
    message(f"pulled {', '.join(done.files)}: {done}, {size(done.bytes)} received; {done.digest}")
    return 0
