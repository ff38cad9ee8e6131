"""``wio sign``: a signature over whole files, declaration and bytes."""

from __future__ import annotations

import argparse
from pathlib import Path

from wio.cli.arguments import Commands, add_command, add_json

_EXAMPLE = """\
  openssl ecparam -name prime256v1 -genkey -noout -out private.pem
  openssl ec -in private.pem -pubout -out public.pem
  wio sign model.wio --key private.pem
  wio verify-signature model.wio --key public.pem"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "sign", "Sign a file, or an index with all its shards, with a local key (extra wio[sign]).", _EXAMPLE
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="what to sign: a file, or NAME.index.json of a set")
    parser.add_argument("--key", metavar="K", type=Path, required=True, help="a private key on an elliptic curve (PEM)")
    parser.add_argument("--certificate", metavar="CERT", type=Path, help="the certificate of that key, to go along")
    parser.add_argument(
        "--chain",
        metavar="CERT",
        type=Path,
        action="append",
        default=[],
        help="a certificate between that one and a root; may be given again",
    )
    parser.add_argument("-o", "--output", metavar="SIG", type=Path, help="where to write (default: FILE.sig)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.output import message, print_json
    from wio.errors import UsageError
    from wio.file_set import stands_for
    from wio.signing import sign, signature_beside

    if arguments.chain and arguments.certificate is None:
        raise UsageError("--chain goes with --certificate, which is missing")
    file = stands_for(arguments.file)
    signature = arguments.output or signature_beside(file)
    files = sign(file, signature, key=arguments.key, certificate=arguments.certificate, chain=arguments.chain)
    if arguments.json:
        print_json({"signature": str(signature), "files": list(files)})
    message(f"wrote {signature}: it covers {', '.join(files)}")
    return 0
