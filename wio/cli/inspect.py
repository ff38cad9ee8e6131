"""``wio inspect``: what a file holds."""

from __future__ import annotations

import argparse
import hashlib
import json
from typing import TYPE_CHECKING, Any

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
    from pathlib import Path

    from wio.bundle import Bundle

_EXAMPLE = """\
  wio inspect model.ckpt
  wio inspect model.wio --digests
  wio inspect model.h5 --html model.html"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "inspect", "List the tensors of a file: names, dtypes, shapes, roles, layouts.", _EXAMPLE
    )
    parser.add_argument("file", metavar="FILE", help="the file to read; ADAPTER:PATH insists on a format")
    parser.add_argument(
        "--digests", action="store_true", help="read every byte, check it, and show each tensor's SHA-256"
    )
    parser.add_argument(
        "--textconv", action="store_true", help="one line for each tensor, with its SHA-256: what git diff compares"
    )
    parser.add_argument("--receipt", action="store_true", help="show how a file that wio wrote came to be")
    add_source(parser)
    add_declarations(parser)
    add_selection(parser)
    add_html(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import print_json, print_table, size
    from wio.port import open_resolved

    adapter, path = source(arguments.file, arguments.source_adapter)
    if arguments.receipt:
        return _receipt(path, adapter)
    resolved = open_resolved(path, adapter, key_values(arguments.source_options), declarations(arguments))
    bundle = resolved.bundle
    if arguments.textconv:
        return _textconv(resolved.adapter.name, bundle)
    digests = _digests(bundle, arguments.json) if arguments.digests else {}
    if arguments.digests and resolved.adapter.name == "wio":
        # Reading it checks its digest.
        resolved.adapter.receipt(path)
    if arguments.html is not None:
        from wio.cli.output import write_page
        from wio.reporting.inspect_page import inspect_page

        write_page(arguments.html, inspect_page(bundle, resolved.adapter.name, path.name, digests))
    if arguments.json:
        print_json({"adapter": resolved.adapter.name, "metadata": bundle.metadata, "tensors": _rows(bundle, digests)})
        return 0
    headings = ["name", "dtype", "shape", "role", "layout"] + (["sha256"] if digests else [])
    print_table(
        headings,
        (
            (
                t.name,
                t.dtype.name,
                "x".join(map(str, t.shape)) or "scalar",
                t.role or "-",
                str(t.layout or "-"),
                *_short(digests, t.name),
            )
            for t in bundle.values()
        ),
    )
    print(f"{resolved.adapter.name}: {len(bundle)} tensors, {size(bundle.nbytes)}{_facts(bundle)}")
    if digests:
        print("every byte was read and checked")
    return 0


def _textconv(adapter: str, bundle: Bundle) -> int:
    """The file as text that git can compare: the same for the same content, a line for each tensor and fact."""
    from wio.errors import printable

    print(f"adapter {adapter}")
    for key, value in sorted(bundle.metadata.items()):
        print(printable(f"metadata {key} {json.dumps(value, sort_keys=True, ensure_ascii=False)}"))
    digests = _digests(bundle, quiet=True)
    for name, tensor in sorted(bundle.items()):
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        layout = str(tensor.layout or "-")
        print(printable(f"{name} {tensor.dtype} {shape} {tensor.role or '-'} {layout} sha256:{digests[name]}"))
    return 0


def _facts(bundle: Bundle) -> str:
    keys = ("architecture", "dialect", "data_format")
    told = [f"{key.replace('_', ' ')} {bundle.metadata[key]}" for key in keys if bundle.metadata.get(key)]
    return f" ({', '.join(told)})" if told else ""


def _short(digests: dict[str, str], name: str) -> tuple[str, ...]:
    return (digests[name][:16],) if digests else ()


def _rows(bundle: Bundle, digests: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for tensor in bundle.values():
        row: dict[str, Any] = {
            "name": tensor.name,
            "dtype": tensor.dtype.name,
            "shape": list(tensor.shape),
            "role": tensor.role,
            "layout": None if tensor.layout is None else str(tensor.layout),
            "bytes": tensor.nbytes,
        }
        if tensor.origin is not None:
            row["origin"] = tensor.origin
        if digests:
            row["sha256"] = digests[tensor.name]
        rows.append(row)
    return rows


def _digests(bundle: Bundle, quiet: bool) -> dict[str, str]:
    """The SHA-256 of every tensor as stored; FormatError lists every tensor that is damaged."""
    from wio.cli.output import Progress
    from wio.container import verified
    from wio.encodings import to_bytes
    from wio.errors import FormatError, Problem

    found, problems = {}, []
    with Progress("checking" if not quiet else "") as progress:
        for tensor in bundle.values():
            try:
                found[tensor.name] = hashlib.sha256(to_bytes(verified(tensor).numpy(), tensor.dtype)).hexdigest()
            except FormatError as error:
                problems.append(Problem("damaged", error.message, None, error.remedy))
            progress(tensor.nbytes)
    if problems:
        raise FormatError(f"{len(problems)} of {len(bundle)} tensors are damaged", problems)
    return found


def _receipt(path: Path, adapter: str | None) -> int:
    from wio.cli.output import print_json
    from wio.errors import UsageError
    from wio.plugins import adapter_named, detect

    chosen = adapter_named(adapter) if adapter else detect(path)
    receipt = chosen.receipt(path)
    if receipt is None:
        raise UsageError(
            f"{path.name} has no receipt",
            remedy="wio leaves one in .wio files; in Keras HDF5, ONNX and safetensors where it changed values",
        )
    print_json(receipt)
    return 0
