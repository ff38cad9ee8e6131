"""``wio replay``: does again what a receipt says, and compares."""

from __future__ import annotations

import argparse

from wio.cli.arguments import Commands, add_command, add_json, add_options, key_values, source

_EXAMPLE = """\
  wio replay inception_v4.wio --source inception_v4.ckpt"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "replay", "Make a file again as its receipt says, and compare every tensor by digest.", _EXAMPLE
    )
    parser.add_argument("file", metavar="FILE", help="a file with a receipt (wio inspect --receipt)")
    parser.add_argument("--source", required=True, metavar="SRC", help="what the file was made from")
    told = "an option of the target that names a path, of which a receipt has the last part only"
    add_options(parser, "--option", "options", told)
    add_options(parser, "--source-option", "source_options", "the same of the source")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import message, print_json
    from wio.errors import printable
    from wio.replay import replay

    adapter, path = source(arguments.file, None)
    found = replay(
        path,
        source(arguments.source, None)[1],
        adapter=adapter,
        source_options=key_values(arguments.source_options),
        options=key_values(arguments.options),
    )
    if arguments.json:
        print_json(found.as_json())
    else:
        for difference in found.differences:
            print(printable(difference))
        if found.same:
            print(f"same: {found.tensors} tensors, each with the digest that the replay gave")
    for note in found.notes:
        message(f"note: {printable(note)}")
    return 0 if found.same else 1
