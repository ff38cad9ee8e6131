"""``wio``: parses the command line, runs a command, turns what it raises into one message and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from wio import __version__
from wio.errors import WioError, legible

DONE, DIFFERENT, TROUBLE = 0, 1, 2
# Each command and its module, which is imported when the command runs or is listed.
COMMANDS = {
    "export": "wio.cli.export",
    "import": "wio.cli.import_",
    "convert": "wio.cli.convert",
    "inspect": "wio.cli.inspect",
    "diff": "wio.cli.diff",
    "check": "wio.cli.check",
    "infer": "wio.cli.infer",
    "show": "wio.cli.show",
    "probe": "wio.cli.probe",
    "verify": "wio.cli.verify",
    "replay": "wio.cli.replay",
    "sign": "wio.cli.sign",
    "verify-signature": "wio.cli.verify_signature",
    "push": "wio.cli.push",
    "pull": "wio.cli.pull",
    "registry": "wio.cli.registry",
    "adapters": "wio.cli.adapters",
    "completion": "wio.cli.completion",
}

_DESCRIPTION = """\
wio takes trained weights from the framework that wrote them to the one that needs them, and says tensor by tensor
what it did. Roles and layouts are declared, never guessed; what is not declared is not converted."""
_EPILOG = """\
example:
  wio export inception_v4.ckpt --arch inception-v4 -o inception_v4.wio
  wio import inception_v4.wio --into keras-theano -o inception_v4.h5

exit codes: 0 done, 1 the files differ or the lint found something, 2 trouble.
`wio COMMAND --help` has an example for each command."""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line, or of one command alone, which is quicker to make."""
    parser = argparse.ArgumentParser(
        prog="wio", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"wio {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, prog="wio")
    for module in COMMANDS.values() if command is None else (COMMANDS[command],):
        import_module(module).add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code. Nothing that wio raises on purpose leaves as a traceback."""
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = build_parser(given[0] if given and given[0] in COMMANDS else None).parse_args(given)
    warnings.showwarning = _show_warning
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except WioError as error:
        if getattr(arguments, "json", False):
            from wio.cli.output import print_json

            print_json(error.as_json())
        print(f"wio: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The reader went away (`| head`); what is left in the buffer must not raise again at exit.
        _discard_output()
    except KeyboardInterrupt:
        print("wio: interrupted; nothing was changed", file=sys.stderr)
    except MemoryError:
        print("wio: there is not enough memory for this; nothing was changed", file=sys.stderr)
    except OSError as error:
        # It may be standard output that cannot be written (`> /dev/full`).
        _discard_output()
        where = f"{legible(str(error.filename))}: " if error.filename else ""
        with contextlib.suppress(OSError):
            print(f"wio: {where}{error.strerror or error}", file=sys.stderr)
    return TROUBLE


def _discard_output() -> None:
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"wio: warning: {legible(str(message))}", file=sys.stderr)
