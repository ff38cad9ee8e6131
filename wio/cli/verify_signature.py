"""``wio verify-signature``: whether a signature holds for a file as it is now."""

from __future__ import annotations

import argparse
from pathlib import Path

from wio.cli.arguments import Commands, add_command, add_json

_EXAMPLE = """\
  wio verify-signature model.wio --key public.pem
  wio verify-signature model.wio.index.json --signature model.sig --certificate root.pem

exit codes: 0 the signature holds; 1 it does not; 2 trouble"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "verify-signature",
        "Verify the signature of a file, or of an index with all its shards (extra wio[sign]).",
        _EXAMPLE,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="what was signed: a file, or NAME.index.json of a set")
    parser.add_argument("--signature", metavar="SIG", type=Path, help="the signature (default: FILE.sig)")
    by = parser.add_mutually_exclusive_group(required=True)
    by.add_argument("--key", metavar="PUB", type=Path, help="the public key of who must have signed (PEM)")
    by.add_argument(
        "--certificate",
        metavar="ROOT",
        type=Path,
        action="append",
        default=[],
        help="a root that must vouch for who signed (PEM); may be given again",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import print_json
    from wio.errors import printable
    from wio.file_set import stands_for
    from wio.signing import signature_beside, verify

    file = stands_for(arguments.file)
    signature = arguments.signature or signature_beside(file)
    found = verify(file, signature, key=arguments.key, certificates=arguments.certificate)
    if arguments.json:
        print_json({"signature": str(signature), **found.as_json()})
    elif found.holds:
        print(printable(f"the signature holds for {', '.join(found.files)}"))
    else:
        print(printable(f"THE SIGNATURE DOES NOT HOLD for {', '.join(found.files)}: {found.reason}"))
    return 0 if found.holds else 1
