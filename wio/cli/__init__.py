"""The command line: one module for each command, all heavy imports inside what runs."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import NoReturn


def program() -> NoReturn:
    """The command ``wio``: runs, and ends the process."""
    # Tens of thousands of tensors are made and none is thrown away: looking for garbage among them takes longer than
    # making them (a quarter of the time to list 100,000).
    gc.set_threshold(200_000, 50, 50)
    from wio.cli.main import main
    from wio.mapping import end_with_a_message_when_a_file_shrinks
    from wio.places import leave

    end_with_a_message_when_a_file_shrinks()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does anyway: a name that the terminal's encoding lacks is shown escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main()
    except SystemExit as leaving:  # argparse: help, or a usage error already printed
        code = leaving.code if isinstance(leaving.code, int) else 2
    finally:
        leave()
    sys.stdout.flush()
    sys.stderr.flush()
    # Outputs are written and synced by now. Taking the interpreter apart would add a tenth to an export of 172 MB.
    os._exit(code)
