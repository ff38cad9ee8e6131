"""``wio push``: weights, or a registry file, into an OCI registry."""

from __future__ import annotations

import argparse
from pathlib import Path

from wio.cli.arguments import Commands, add_command, add_json, add_registry

_EXAMPLE = """\
  wio push model.wio oci://registry.example.org/team/model:v1
  wio push model.wio.index.json oci://localhost:5000/team/model:v1
  wio push my_net.toml oci://localhost:5000/team/my-net:v1"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "push",
        "Send a .wio file, a set of shards or a registry file to an OCI registry (extra wio[oci]).",
        _EXAMPLE,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a .wio file, NAME.wio.index.json of a set, or a TOML")
    add_registry(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import Progress, message, print_json, size
    from wio.file_set import stands_for
    from wio.oci.reference import Reference
    from wio.oci.transfer import push

    reference = Reference.parse(arguments.reference)
    with Progress(f"pushing {arguments.file}") as progress:
        done = push(stands_for(arguments.file), reference, plain_http=arguments.plain_http, progress=progress)
    if arguments.json:
        print_json(done.as_json())
    message(f"pushed {reference}: {done}, {size(done.bytes)} sent; {done.digest}")
    return 0
