"""``wio export``: any readable file to .wio."""

from __future__ import annotations

import argparse
from pathlib import Path

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_json,
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
from wio.places import as_called, stands_in, without_secrets

_EXAMPLE = """\
  wio export inception_v4.ckpt --arch inception-v4 -o inception_v4.wio
  wio export weights.h5 --from keras-theano --declare 'conv*/*_W=conv.kernel:OIHW flipped'"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "export", "Export a weight file to .wio: every byte kept, every layout declared.", _EXAMPLE
    )
    parser.add_argument(
        "source", metavar="SRC", help="the file, checkpoint prefix or folder to read; ADAPTER:PATH insists on a format"
    )
    parser.add_argument(
        "-o", "--output", type=place, metavar="OUT.wio", help="where to write (default: beside SRC, as NAME.wio)"
    )
    parser.add_argument(
        "--layout",
        choices=("keep", "neutral"),
        default="keep",
        help="keep the source's layouts, or rearrange to neutral ones",
    )
    add_shard_size(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    add_source(parser)
    add_declarations(parser)
    add_values(parser)
    add_selection(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import Progress, message, outcome, print_json, print_plan, values_changed
    from wio.port import export

    adapter, path = source(arguments.source, arguments.source_adapter)
    out = arguments.output or _beside(path)
    with Progress(f"exporting {path.name}") as progress:
        plan = export(
            path,
            out,
            adapter=adapter,
            options=key_values(arguments.source_options),
            told=declarations(arguments),
            layout=arguments.layout,
            shard_size=arguments.shard_size,
            cluster=cluster(arguments),
            dry_run=arguments.dry_run,
            progress=progress,
        )
    if arguments.json:
        written = out if arguments.dry_run else outcome(out)[0]
        print_json({"output": as_called(without_secrets(str(written))), **plan.as_json()})
    elif arguments.dry_run:
        print_plan(plan)
    if arguments.dry_run:
        return 0
    for name, reason in plan.dropped.items():
        message(f"dropped {name}: {reason}")
    undeclared = sum(slot.role is None for step in plan.steps for slot in step.slots)
    known = f", {undeclared} of them without a declared role" if undeclared else ""
    path, total = outcome(out)
    message(f"wrote {path}: {len(plan.steps)} tensors{known}{values_changed(plan)}{total}")
    return 0


def _beside(path: Path) -> Path:
    """Beside the source; of one that lies elsewhere, in the current folder."""
    if stands_in(path):
        path = Path(path.name)
    name = path.name.removesuffix(".index") or path.parent.name
    return path.with_name(f"{name}.wio") if path.name else Path(f"{name}.wio")
