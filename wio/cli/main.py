"""``wio``: parses the command line, runs a command, turns what it raises into one message and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import warnings
from collections.abc import Sequence

from wio import __version__
from wio.cli import adapters, check, convert, diff, export, import_, inspect, registry
from wio.errors import WioError

DONE, DIFFERENT, TROUBLE = 0, 1, 2
COMMANDS = (export, import_, convert, inspect, diff, check, registry, adapters)

_DESCRIPTION = """\
wio takes trained weights from the framework that wrote them to the one that needs them, and says tensor by tensor
what it did. Roles and layouts are declared, never guessed; what is not declared is not converted."""
_EPILOG = """\
example:
  wio export inception_v4.ckpt --arch inception-v4 -o inception_v4.wio
  wio import inception_v4.wio --into keras-theano -o inception_v4.h5

exit codes: 0 done, 1 the files differ or the lint found something, 2 trouble.
`wio COMMAND --help` has an example for each command."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wio", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"wio {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code. Nothing that wio raises on purpose leaves as a traceback."""
    # Tens of thousands of tensors are made and none is thrown away: looking for garbage among them takes longer than
    # making them (a quarter of the time to list 100,000).
    gc.set_threshold(200_000, 50, 50)
    arguments = build_parser().parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except WioError as error:
        if getattr(arguments, "json", False):
            print(json.dumps(error.as_json(), indent=2, ensure_ascii=False))
        print(f"wio: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The reader went away (`| head`); what is left in the buffer must not raise again at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("wio: interrupted; nothing was changed", file=sys.stderr)
    except OSError as error:
        print(f"wio: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
    return TROUBLE


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"wio: warning: {message}", file=sys.stderr)
