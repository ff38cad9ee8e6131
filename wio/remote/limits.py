"""How long wio waits for a server, and how often it asks again."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

from wio.errors import UsageError
from wio.remote.source import AgainError, RemoteError

Given = TypeVar("Given")

TIMEOUT = "WIO_REMOTE_TIMEOUT"
RETRIES = "WIO_REMOTE_RETRIES"
# Bytes in a second, over as long as the timeout; less is no answer.
LEAST_SPEED = 1000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0


def timeout() -> float:
    """Seconds without a byte after which an answer is given up."""
    return _number(TIMEOUT, 30.0, 0.1)


def retries() -> int:
    """How often a request is sent again before it is an error."""
    return int(_number(RETRIES, 4, 0))


def pause(attempt: int, asked: float = 0.0) -> None:
    """Waits before the next attempt, twice as long each time, and as long as the server asks for."""
    time.sleep(min(max(_FIRST_PAUSE * 2**attempt, asked), _LONGEST_PAUSE))


def again(ask: Callable[[], Given], given_up: Callable[[AgainError], RemoteError]) -> Given:
    """What a request gives that may fail in passing; ``given_up`` makes the error of one that fails every time."""
    attempt = 0
    while True:
        try:
            return ask()
        except AgainError as error:
            attempt += 1
            if attempt > retries():
                raise given_up(error) from None
            pause(attempt - 1, error.after)


def _number(variable: str, usual: float, least: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return usual
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= 86400:
        raise UsageError(f"{variable}={text}: is no number from {least:g}")
    return number
