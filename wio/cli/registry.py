"""``wio registry``: the architectures whose names and layouts wio knows."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from wio.cli.arguments import Commands, add_command, add_json, add_plain_http, key_values, source

if TYPE_CHECKING:
    from wio.architectures.architecture import Architecture

_EXAMPLE = """\
  wio registry list
  wio registry show inception-v4
  wio registry new model.onnx -o model.toml
  wio registry check model.toml
  wio registry add oci://localhost:5000/team/my-net:v1"""


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "registry", "List, show and check architectures and dialects.", _EXAMPLE)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the architectures, and the dialects without one")
    listing.set_defaults(run=run_list)
    show = actions.add_parser("show", help="one architecture: its layers, weights and dialects")
    show.add_argument("id", metavar="ID")
    show.set_defaults(run=run_show)
    check = actions.add_parser("check", help="whether a TOML file is a sound description")
    check.add_argument("file", metavar="FILE", type=Path)
    check.set_defaults(run=run_check)
    new = actions.add_parser("new", help="a first draft from a file that holds a graph (ONNX, Keras, Caffe)")
    new.add_argument("model", metavar="MODEL", help="the file to read; ADAPTER:PATH insists on a format")
    new.add_argument("-o", "--output", metavar="OUT.toml", type=Path, help="where to write (default: standard output)")
    new.add_argument("--id", help="the id of the architecture (default: the file's name)")
    new.add_argument(
        "--option", dest="options", action="append", default=[], metavar="KEY=VALUE", help="an option of the reader"
    )
    new.set_defaults(run=run_new)
    add = actions.add_parser("add", help="an architecture or dialect for all later commands, from a file or a registry")
    add.add_argument("file", metavar="FILE|oci://HOST/NAME:TAG", help="a registry file, or where one was pushed to")
    add.add_argument("--replace", action="store_true", help="in place of another of that id that was added before")
    add_plain_http(add)
    add.set_defaults(run=run_add)
    for each in (listing, show, check):
        add_json(each)


def run_list(arguments: argparse.Namespace) -> int:
    from wio.cli.output import print_json, print_table
    from wio.plugins import architectures, habits

    found = architectures()
    if arguments.json:
        print_json(
            {
                "architectures": [{"id": a.id, "title": a.title, "dialects": list(a.dialects)} for a in found.values()],
                "dialects": [{"id": h.id, "title": h.title, "adapters": list(h.adapters)} for h in habits().values()],
            }
        )
        return 0
    print_table(("architecture", "title", "dialects"), ((a.id, a.title, ", ".join(a.dialects)) for a in found.values()))
    print()
    print_table(("dialect", "title", "for"), ((h.id, h.title, ", ".join(h.adapters)) for h in habits().values()))
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    from wio.plugins import architecture_named

    _show(architecture_named(arguments.id), arguments.json)
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    from wio.architectures.habit import is_habit, load_habit
    from wio.architectures.registry_file import file_name, load_architecture
    from wio.cli.output import message, print_json
    from wio.errors import FormatError
    from wio.plugins import misnamed

    if is_habit(arguments.file):
        habit = load_habit(arguments.file)
        if arguments.json:
            print_json({"id": habit.id, "title": habit.title, "adapters": list(habit.adapters)})
        message(f"{arguments.file}: sound; a dialect without an architecture, {len(habit.rules)} rules")
        return 0
    architecture = load_architecture(arguments.file)
    if wrong := misnamed(arguments.file, architecture.id):
        raise FormatError(wrong, remedy=f"rename it to {file_name(architecture.id)}")
    _show(architecture, arguments.json)
    message(f"{arguments.file}: sound; every dialect names every weight once")
    return 0


def run_add(arguments: argparse.Namespace) -> int:
    from wio.atomic import staging
    from wio.cli.output import message
    from wio.oci.reference import SCHEME
    from wio.user_registry import add, check

    with staging() as folder:
        files = [Path(arguments.file)]
        if arguments.file.startswith(SCHEME):
            from wio.oci.artifact import ARCHITECTURE
            from wio.oci.reference import Reference
            from wio.oci.transfer import pull

            reference = Reference.parse(arguments.file)
            fetched = pull(reference, folder, kind=ARCHITECTURE, plain_http=arguments.plain_http)
            files = [Path(file) for file in fetched.files]
        for file in files:
            check(file)
        for file in files:
            message(f"added {add(file, replace=arguments.replace)}")
    return 0


def run_new(arguments: argparse.Namespace) -> int:
    from wio.architectures.registry_draft import draft
    from wio.architectures.registry_file import load_architecture
    from wio.atomic import atomic_output
    from wio.cli.output import message
    from wio.errors import WioError
    from wio.plugins import open_bundle

    adapter, path = source(arguments.model, None)
    options = key_values(arguments.options)
    bundle, found = open_bundle(path, adapter, options)
    network = found.network(bundle, path, **options)
    if network is None or not network.layers:
        raise WioError(f"{path}: holds weights and no graph", remedy="write the rows after registry/posenet.toml")
    identity = arguments.id or path.stem.lower().replace("_", "-")
    text = draft(identity, network, bundle, found.name, path.name)
    if arguments.output is None:
        print(text, end="")
        return 0
    with atomic_output(arguments.output) as temporary:
        temporary.write_text(text, "utf-8")
    todo = text.count("TODO")
    message(f"wrote {arguments.output}: {len(network.layers)} layers; {todo} places say TODO")
    try:
        load_architecture(arguments.output)
    except WioError as error:
        message("to do before it is sound:")
        print(error, file=sys.stderr)
    return 0


def _show(architecture: Architecture, json: bool) -> None:
    from wio.cli.output import print_json, print_table

    if json:
        print_json(_as_json(architecture))
        return
    from wio.errors import legible

    kinds = Counter(layer.op for layer in architecture.network.layers)
    print(f"{architecture.id}: {legible(architecture.title)}, {len(architecture.network.layers)} layers")
    print(", ".join(f"{count} {op}" for op, count in kinds.most_common()))
    for dialect in architecture.dialects.values():
        print(f"\ndialect {dialect.name}: {legible(dialect.title)}")
        revision = f", {dialect.revision}" if dialect.revision else ""
        print(legible(f"  for {', '.join(dialect.adapters)}; source: {dialect.source}{revision}"))
        print(legible(f"  verified: {dialect.verified}{f' ({dialect.verified_by})' if dialect.verified_by else ''}"))
        for deviation in dialect.differences:
            print(legible(f"  differs: {deviation.op or ', '.join(deviation.layers)}: {deviation.reason}"))
        for glob, reason in dialect.drops:
            print(legible(f"  drops {glob}: {reason}"))
    print()
    spelled = {name: {p.name: n for n, p in architecture.names(name).items()} for name in architecture.dialects}
    print_table(
        ("weight", "role", "layout", *architecture.dialects),
        (
            (p.name, p.role, str(p.layout), *(spelled[d][p.name] for d in architecture.dialects))
            for p in architecture.parameters
        ),
    )


def _as_json(architecture: Architecture) -> dict[str, Any]:
    return {
        "id": architecture.id,
        "title": architecture.title,
        "layers": [
            {"name": layer.name, "op": layer.op, "attributes": dict(layer.attributes), "inputs": list(layer.inputs)}
            for layer in architecture.network.layers
        ],
        "preprocessing": None if architecture.preprocessing is None else asdict(architecture.preprocessing),
        "classes": None if architecture.classes is None else asdict(architecture.classes),
        "parameters": [{"name": p.name, "role": p.role, "layout": str(p.layout)} for p in architecture.parameters],
        "dialects": {
            d.name: {
                "title": d.title,
                "source": d.source,
                "revision": d.revision,
                "verified_by": d.verified_by,
                "verified": d.verified,
                "deviations": [
                    {"layer": each.layer, "op": each.op, "by": each.by, "reason": each.reason}
                    for each in architecture.deviations(d.name)
                ],
                "adapters": list(d.adapters),
                "drops": [list(drop) for drop in d.drops],
                "names": {p.name: name for name, p in architecture.names(d.name).items()},
            }
            for d in architecture.dialects.values()
        },
    }
