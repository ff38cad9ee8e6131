"""``wio diff``: whether two files hold the same weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wio.cli.arguments import (
    Commands,
    add_command,
    add_declarations,
    add_html,
    add_json,
    add_options,
    add_selection,
    declarations,
    key_values,
    source,
)

if TYPE_CHECKING:
    from wio.comparing.comparison import Pair

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
    parser.add_argument(
        "--match",
        choices=("names", "values"),
        default="names",
        help="pair tensors by name, layer and role, or by their content, whatever their names and layouts",
    )
    parser.add_argument("--equal-nan", action="store_true", help="a NaN equals any other; by default its bits count")
    add_html(parser)
    parser.add_argument("--digests", action="store_true", help="read the bytes even where recorded digests agree")
    add_options(parser, "--option", "options", "a reading option")
    add_declarations(parser)
    add_selection(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import print_json, print_table
    from wio.comparing.comparison import Tolerance
    from wio.comparing.diff import diff
    from wio.errors import legible

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
        match=arguments.match,
        equal_nan=arguments.equal_nan,
    )
    if arguments.html is not None:
        from wio.cli.output import write_page
        from wio.reporting.diff_page import diff_page

        write_page(arguments.html, diff_page(found, a.name, b.name))
    if arguments.json:
        print_json(found.as_json())
        return 0 if found.equal else 1
    shown = [pair for pair in found.pairs if pair.status != "equal"]
    if shown:
        numbers = ("max abs", "max rel", "cosine", "ulps")
        rows = ((p.status, p.a, p.b, *_numbers(p), p.detail) for p in shown)
        print_table(("status", "A", "B", *numbers, "detail"), rows, right=numbers)
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        for name in names:
            print(f"only in {side}: {legible(name)}")
    for each in found.duplicates:
        print(f"duplicate in {each.side.upper()}: {legible(each.name)} is {legible(each.same_as)}")
    if found.left_out:
        print(f"left out: {len(found.left_out)} tensors of one side that are no weights (optimizer, counters)")
    by = " (by digest: no bytes read)" if found.by_digest else ""
    alone = "".join(f", {len(n)} only in {s}" for s, n in (("A", found.only_a), ("B", found.only_b)) if n)
    print(f"{'equal' if found.equal else 'different'}: {found.summary}{alone}{by}")
    return 0 if found.equal else 1


def _numbers(pair: Pair) -> tuple[str, str, str, str]:
    """How far apart the two are, as a person reads it."""
    measure = pair.measure
    if measure is None:
        return ("" if pair.max_abs is None else f"{pair.max_abs:.3g}", "", "", "")
    return (
        "NaN" if measure.max_abs is None else f"{measure.max_abs:.3g}",
        "" if measure.max_rel is None else f"{measure.max_rel:.3g}",
        "" if measure.cosine is None else f"{measure.cosine:.6f}",
        "" if measure.ulps is None else str(measure.ulps),
    )
