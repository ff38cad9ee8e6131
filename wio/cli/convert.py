"""``wio convert``: export and import in one pass, of one file or of many."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from wio.cli import import_
from wio.cli.arguments import Commands, add_command, declarations, key_values
from wio.errors import UsageError, WioError
from wio.places import is_url

if TYPE_CHECKING:
    from wio.batch.files import Pair
    from wio.batch.worker import Job

_EXAMPLE = """\
  wio convert inception_v4.ckpt --arch inception-v4 --into keras-tf -o inception_v4.h5
  wio convert 'models/**/*.h5' --into onnx -o converted/ --jobs 4

Of several sources, or a quoted pattern, the outputs lie under OUT as the sources do. A file that fails is listed and
does not stop the others: exit code 0 if none failed, else 2. Begun again, only what is not done is done."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "convert", "Write the weights of any readable file, or of many, in another format.", _EXAMPLE
    )
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SRC",
        help="the file to read, several, or a quoted pattern ('models/**/*.h5'); ADAPTER:PATH insists on a format",
    )
    import_.add_port_arguments(parser)
    parser.add_argument(
        "--jobs", type=_count, metavar="N", help="how many of several files are converted at once (default: the CPUs)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.batch.files import is_batch

    if not is_batch(arguments.source):
        arguments.source = arguments.source[0]
        return import_.run(arguments)
    return _run_batch(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes")
    return int(text)


def _processors() -> int:
    """Those that this process may use; macOS tells only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_batch(arguments: argparse.Namespace) -> int:
    from wio.batch.files import pairs, suffix_of
    from wio.batch.pool import run_all
    from wio.cli.output import FileProgress, message, print_json, print_table
    from wio.errors import printable
    from wio.plugins import adapter_named

    folder = arguments.output
    if arguments.dask is not None:
        raise UsageError("a cluster writes the shards of one file at a time", remedy="convert them one by one")
    if folder is None:
        raise UsageError("where to? -o FOLDER is missing", remedy="the outputs of several sources lie in a folder")
    if is_url(folder):
        raise UsageError("the outputs of several sources lie in a local folder", remedy="upload it afterwards")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", remedy="the outputs of several sources lie in a folder")
    if not adapter_named(arguments.into).writes:
        raise UsageError(f"{arguments.into} can be read, not written")
    made = pairs(arguments.source, folder, suffix_of(arguments.into, arguments.template), arguments.source_adapter)
    jobs = [_job(arguments, pair) for pair in made]
    try:
        with FileProgress("converting", len(jobs)) as progress:
            results = run_all(jobs, arguments.jobs or _processors(), progress)
    except KeyboardInterrupt:
        raise WioError("interrupted; what is done stays done", remedy="the same command goes on from there") from None
    if arguments.json:
        print_json({"files": [_as_json(pair, result) for pair, result in zip(made, results, strict=True)]})
    else:
        headings = ("source", "output", "", "tensors", "rearranged", "exact")
        print_table(headings, map(_row, made, results), right=("tensors", "rearranged"))
    for pair, result in zip(made, results, strict=True):
        for warning in result["warnings"]:
            message(f"wio: warning: {pair.source}: {printable(warning)}")
        if result["status"] == "failed":
            for line in f"wio: {pair.source}: {result['message'].removeprefix(f'{pair.source}: ')}".split("\n"):
                message(line)
    counts = {status: sum(result["status"] == status for result in results) for status in _WORDS}
    message(", ".join(f"{count} {_WORDS[status]}" for status, count in counts.items() if count))
    return 2 if counts["failed"] else 0


_WORDS = {"done": "done", "kept": "done already", "planned": "can be done", "failed": "failed"}


def _job(arguments: argparse.Namespace, pair: Pair) -> Job:
    from wio.batch.done import record_path
    from wio.batch.worker import Job

    return Job(
        str(pair.source),
        str(pair.out),
        str(record_path(arguments.output, pair.out)),
        arguments.into,
        pair.adapter,
        key_values(arguments.options),
        arguments.template,
        arguments.shard_size,
        key_values(arguments.source_options),
        declarations(arguments).as_json(),
        arguments.dry_run,
    )


def _row(pair: Pair, result: dict[str, Any]) -> tuple[str, ...]:
    said = _WORDS[result["status"]]
    if result["status"] == "failed":
        return str(pair.source), "", said, "", "", ""
    exact = "exact" if result["exact"] else "NOT EXACT"
    return str(pair.source), str(pair.out), said, str(result["tensors"]), str(result["rearranged"]), exact


def _as_json(pair: Pair, result: dict[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in result.items() if key != "message"}
    return {"source": str(pair.source), "output": str(pair.out), **told}
