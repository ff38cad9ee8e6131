"""``python -m wio``."""

from wio.cli import program

program()
