"""Ctrl-C and its like end the command with a message, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType


def end_cleanly() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP remove what is being written, say so, and end this process.

    It ends by the signal itself, so that the shell sees 128 + its number (130, 143, 129) and stops its own loops. A
    signal that is ignored, as nohup has it, stays so.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    from wio.atomic import abandon

    def die(placed: bool) -> None:
        # Not print: it may be what was interrupted. The first part shows the cursor that a progress bar hides.
        with contextlib.suppress(OSError):
            before = b"\r\x1b[K\x1b[?25h" if os.isatty(2) else b""
            state = b"what it wrote is whole" if placed else b"nothing was changed"
            os.write(2, before + b"wio: interrupted; " + state + b"\n")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    abandon(die)
