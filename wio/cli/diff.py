"""``wio diff``: whether two files hold the same weights."""

from __future__ import annotations

import argparse

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_json,
    add_selection,
    declarations,
    key_values,
    source,
)

_EXAMPLE = """\
  wio diff inception_v4.ckpt inception_v4.h5 --arch inception-v4
  wio diff a.wio b.wio --rtol 1e-6"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "diff",
        "Compare two weight files of any formats, each in neutral layout; exit code 1 if they differ.",
        _EXAMPLE,
    )
    parser.add_argument("a", metavar="A", help="a file; ADAPTER:PATH insists on a format")
    parser.add_argument("b", metavar="B", help="the other")
    parser.add_argument("--rtol", type=float, help="relative tolerance: pairs within it are close, and close is enough")
    parser.add_argument("--atol", type=float, help="absolute tolerance")
    parser.add_argument("--digests", action="store_true", help="read the bytes even where recorded digests agree")
    parser.add_argument(
        "--option", dest="options", action="append", default=[], metavar="KEY=VALUE", help="a reading option"
    )
    add_declarations(parser)
    add_selection(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import print_json, print_table
    from wio.diff import Tolerance, diff

    (adapter_a, a), (adapter_b, b) = source(arguments.a, None), source(arguments.b, None)
    tolerance = None
    if arguments.rtol is not None or arguments.atol is not None:
        tolerance = Tolerance(arguments.rtol or 0.0, arguments.atol or 0.0)
    found = diff(
        a,
        b,
        adapters=(adapter_a, adapter_b),
        options=key_values(arguments.options),
        told=declarations(arguments),
        tolerance=tolerance,
        read_bytes=arguments.digests,
    )
    if arguments.json:
        print_json(found.as_json())
        return 0 if found.equal else 1
    shown = [pair for pair in found.pairs if pair.status != "equal"]
    if shown:
        rows = ((p.status, p.a, p.b, "" if p.max_abs is None else f"{p.max_abs:.3g}", p.detail) for p in shown)
        print_table(("status", "A", "B", "max abs", "detail"), rows, right=("max abs",))
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        for name in names:
            print(f"only in {side}: {name}")
    if found.left_out:
        print(f"left out: {len(found.left_out)} tensors of one side that are no weights (optimizer, counters)")
    counts: dict[str, int] = {}
    for pair in found.pairs:
        counts[pair.status] = counts.get(pair.status, 0) + 1
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no pairs"
    by = " (by digest: no bytes read)" if found.as_json().get("by") == "digest" else ""
    alone = "".join(f", {len(n)} only in {s}" for s, n in (("A", found.only_a), ("B", found.only_b)) if n)
    print(f"{'equal' if found.equal else 'different'}: {summary}{alone}{by}")
    return 0 if found.equal else 1
