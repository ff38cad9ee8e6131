"""``wio adapters``: the formats that can be read and written."""

from __future__ import annotations

import argparse

from msgspec.structs import asdict

from wio.cli.arguments import Commands, add_command, add_json

_EXAMPLE = "  wio adapters --json"


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "adapters", "List the formats wio reads and writes, with their options.", _EXAMPLE)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import print_json, print_table
    from wio.plugins import found_adapters

    found = found_adapters()
    if arguments.json:
        print_json(
            [
                {
                    "name": each.name,
                    "package": each.package.name,
                    "version": each.package.version,
                    "usable": each.error is None,
                    "error": each.error,
                    "remedy": each.remedy,
                    "reads": bool(each.adapter and each.adapter.reads),
                    "writes": bool(each.adapter and each.adapter.writes),
                    "description": each.adapter.description if each.adapter else None,
                    "options": [asdict(option) for option in each.adapter.options] if each.adapter else [],
                    "extras": dict(each.adapter.extras) if each.adapter else {},
                }
                for each in found
            ]
        )
        return 0
    print_table(
        ("adapter", "does", "format", "package", "version"),
        (
            (
                each.name,
                "unusable" if each.error or not each.adapter else _does(each.adapter.reads, each.adapter.writes),
                each.adapter.description if each.adapter else "",
                each.package.name,
                each.package.version,
            )
            for each in found
        ),
    )
    for each in found:
        for option in each.adapter.options if each.adapter else ():
            choices = "|".join(option.choices) or "VALUE"
            default = f" (default {option.default})" if option.default else ""
            flag = "--template FILE" if option.name == "template" else f"--option {option.name}={choices}"
            print(f"{each.name}: {flag}{default}: {option.help}")
    for each in found:
        if each.error:
            print(f"{each.name} of {each.package} cannot be used: {each.error}")
            if each.remedy:
                print(f"    -> {each.remedy}")
    return 0


def _does(reads: bool, writes: bool) -> str:
    return " and ".join(word for word, can in (("reads", reads), ("writes", writes)) if can)
