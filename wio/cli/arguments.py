"""Arguments that several commands share, and what they say as values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wio.errors import UsageError
from wio.places import is_url

if TYPE_CHECKING:
    import numpy as np

    from wio.port import Cluster, Declarations

Commands = Any  # argparse keeps the type of its sub-parsers to itself


def add_command(commands: Commands, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A sub-parser whose help begins with what the command does and ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_declarations(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("declaring what the file does not say")
    group.add_argument("--arch", metavar="ID", help="the network it is (wio registry list)")
    group.add_argument("--dialect", metavar="NAME", help="whose names it uses, where more than one would fit")
    group.add_argument(
        "--declare",
        action="append",
        default=[],
        metavar="GLOB=ROLE[:LAYOUT]",
        help="role and layout of tensors, as in 'fc1/weights=dense.kernel:(HWC)O H=4 W=4 C=128'; "
        "without a layout that of the format for the role",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("choosing tensors")
    group.add_argument("--only", action="append", default=[], metavar="GLOB", help="leave out every other tensor")
    group.add_argument("--drop", action="append", default=[], metavar="GLOB", help="leave these tensors out")


def add_values(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("values that must change")
    group.add_argument(
        "--apply",
        action="append",
        default=[],
        metavar="STEP=LAYER[:ARGUMENT]",
        help="change values, in the order given, and say so in plan and receipt: fold-bias=conv*, gamma=bn*, "
        "fold-batch-norm=conv1:bn1, epsilon=bn*:1e-5, unscale=bn*, slice=logits:1:, cast=*:float16, square=bn*",
    )


def add_source(parser: argparse.ArgumentParser, option: str = "--option") -> None:
    parser.add_argument("--from", dest="source_adapter", metavar="ADAPTER", help="the adapter that reads the file")
    add_options(parser, option, "source_options", "an option of that adapter")


def add_options(parser: argparse.ArgumentParser, flag: str, dest: str, told: str) -> None:
    """A flag that may be given again and again, each time as KEY=VALUE; see :func:`key_values`."""
    parser.add_argument(flag, dest=dest, action="append", default=[], metavar="KEY=VALUE", help=told)


def add_shard_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard-size",
        metavar="SIZE",
        help="write a .wio file of more bytes of tensors (2GB, 500MiB) as NAME-00001-of-0000N.wio and an index",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="have the shards written by the workers of this Dask scheduler (tcp://HOST:8786, or its *.json file)",
    )


def cluster(arguments: argparse.Namespace) -> Cluster | None:
    """What writes the shards, where it is not this process."""
    if arguments.dask is None:
        return None
    from wio.cluster import on_dask

    return on_dask(arguments.dask)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def add_registry(parser: argparse.ArgumentParser) -> None:
    """A place in an OCI registry, and how it may be reached."""
    parser.add_argument("reference", metavar="oci://HOST/NAME:TAG", help="where it lies; @sha256:... is exact")
    add_plain_http(parser)


def add_plain_http(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plain-http", action="store_true", help="unencrypted, which otherwise only this machine is spoken to"
    )


def add_html(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", type=place, metavar="OUT", help="write one page for a browser too")


def declarations(arguments: argparse.Namespace) -> Declarations:
    from wio.port import Declarations

    return Declarations(
        arguments.arch,
        arguments.dialect,
        tuple(arguments.declare),
        tuple(getattr(arguments, "only", ())),
        tuple(getattr(arguments, "drop", ())),
        tuple(getattr(arguments, "apply", ())),
    )


def key_values(given: list[str]) -> dict[str, str]:
    """``KEY=VALUE`` arguments as a mapping; UsageError for one without ``=`` or given twice."""
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key in found:
            raise UsageError(f"--option {text!r}: " + ("given twice" if equals else "expected KEY=VALUE"))
        found[key] = value
    return found


def source(argument: str, insisted: str | None) -> tuple[str | None, Path]:
    """The adapter and path of a FILE argument; ``--from`` and a prefix must not contradict each other."""
    from wio.plugins import local, split_place

    prefix, given = split_place(argument)
    if prefix and insisted and prefix != insisted:
        raise UsageError(f"{argument} says {prefix}, --from says {insisted}")
    if not is_url(given):
        return prefix or insisted, Path(given)
    from wio.cli.output import Progress

    with Progress("fetching") as progress:
        return local(given, prefix or insisted, progress)


def place(text: str) -> Path | str:
    """An argument that names what is written: a path, or a URL as it is."""
    return text if is_url(text) else Path(text)


def array(text: str) -> np.ndarray[Any, Any]:
    """The array of an .npy file, or the one of that name in an .npz."""
    from wio.plugins import local, open_bundle

    path, name = Path(text), None
    before, colon, last = text.rpartition(":")
    if is_url(text):
        # Behind the last colon stands a port, or the name of an array.
        url, name = (before, last) if is_url(before) and "/" not in last else (text, None)
        path = local(url, "numpy")[1]
    elif not path.exists() and colon:
        path, name = Path(before), last
    bundle, _ = open_bundle(path, "numpy")
    if name is None and len(bundle) == 1:
        name = next(iter(bundle))
    if name is None or name not in bundle:
        raise UsageError(
            f"{path} has no array {name!r}" if name else f"{path} holds {len(bundle)} arrays",
            remedy=f"name one: {path}:NAME with NAME one of {', '.join(list(bundle)[:20])}",
        )
    return bundle[name].numpy()
