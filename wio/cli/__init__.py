"""The command line: one module for each command, all heavy imports inside what runs."""

from wio.cli.main import main

__all__ = ["main"]
