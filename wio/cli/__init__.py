"""The command line: one module for each command, all heavy imports inside what runs."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import NoReturn


def program() -> NoReturn:
    """The command ``wio``: runs, and ends the process."""
    # Tens of thousands of tensors are made and none is thrown away: looking for garbage among them is a tenth of the
    # time to list 100,000, and there is little that only the collector finds.
    gc.set_threshold(5_000_000, 50, 50)
    from wio.cli.main import TROUBLE, main
    from wio.cli.signals import end_cleanly
    from wio.mapping import end_with_a_message_when_a_file_shrinks
    from wio.places import leave

    _open_standard_streams()
    end_cleanly()
    end_with_a_message_when_a_file_shrinks()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does anyway: a name that the terminal's encoding lacks is shown escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main()
    except SystemExit as leaving:  # argparse: help, or a usage error already printed
        code = leaving.code if isinstance(leaving.code, int) else TROUBLE
    finally:
        leave()
    try:
        sys.stdout.flush()
    except OSError:
        code = TROUBLE
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    # Outputs are written and synced by now. Taking the interpreter apart would add a tenth to an export of 172 MB.
    os._exit(code)


def _open_standard_streams() -> None:
    """Those that the caller closed lead nowhere: else the next file opened would take their number, and get what HDF5
    or another library prints there."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "r" if number == 0 else "w", closefd=False)))
