"""``wio import``: a .wio file into another format."""

from __future__ import annotations

import argparse

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_json,
    add_options,
    add_selection,
    add_shard_size,
    add_source,
    add_values,
    cluster,
    declarations,
    key_values,
    place,
    source,
)
from wio.places import without_secrets

_EXAMPLE = """\
  wio import model.wio --into keras-theano --dry-run
  wio import model.wio --into keras-theano -o model.h5 --option keras=1.2 --option data_format=channels_first
  wio import model.wio --into onnx --template untrained.onnx -o model.onnx"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "import",
        "Write the weights of a .wio file in another format, by a plan you can read first.",
        _EXAMPLE,
    )
    parser.add_argument("source", metavar="SRC.wio", help="the file to read; ADAPTER:PATH insists on a format")
    add_port_arguments(parser)


def add_port_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of import and convert, which differ in what they are given."""
    parser.add_argument("--into", required=True, metavar="ADAPTER", help="the format to write (wio adapters)")
    parser.add_argument("-o", "--output", type=place, metavar="OUT", help="where to write")
    parser.add_argument(
        "--template", metavar="FILE", help="an existing file of the target's format whose weights are replaced"
    )
    add_options(parser, "--option", "options", "an option of the target (wio adapters)")
    add_shard_size(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    add_source(parser, "--source-option")
    add_declarations(parser)
    add_values(parser)
    add_selection(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import Progress, message, outcome, print_json, print_plan, values_changed
    from wio.errors import UsageError
    from wio.port import import_into

    if arguments.output is None and not arguments.dry_run:
        raise UsageError("where to? -o OUT is missing", remedy="or --dry-run to see the plan only")
    adapter, path = source(arguments.source, arguments.source_adapter)
    with Progress(f"writing {without_secrets(str(arguments.output))}") as progress:
        plan = import_into(
            path,
            arguments.output,
            adapter=arguments.into,
            options=key_values(arguments.options),
            template=arguments.template,
            shard_size=arguments.shard_size,
            cluster=cluster(arguments),
            source_adapter=adapter,
            source_options=key_values(arguments.source_options),
            told=declarations(arguments),
            dry_run=arguments.dry_run,
            progress=progress,
        )
    if arguments.json:
        print_json(plan.as_json())
    elif arguments.dry_run:
        print_plan(plan)
    if arguments.dry_run:
        return 0
    for name, reason in plan.dropped.items():
        message(f"dropped {name}: {reason}")
    for note in plan.notes:
        message(f"note: {note}")
    changed = sum(step.kind not in ("copy", "keep", "synthesise") for step in plan.steps)
    written = sum(len(step.slots) for step in plan.steps)
    inexact = sum(not step.exact for step in plan.steps)
    path, total = outcome(arguments.output)
    exact = f", {inexact} of them not exact" if inexact else "" if plan.values else ", all exact"
    done = f"{written} tensors, {changed} steps that rearrange{exact}{values_changed(plan)}"
    message(f"wrote {path}: {done}{total}")
    return 0
