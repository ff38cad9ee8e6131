"""The man page and the reference of commands are what the command line says of itself."""

from __future__ import annotations

import runpy

from conftest import TESTS, run_wio

from wio.cli.main import COMMANDS


def test_they_are_up_to_date() -> None:
    files = runpy.run_path(str(TESTS.parent / "tools" / "build_reference.py"))["files"]()
    stale = [path.name for path, text in files.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "python tools/build_reference.py writes them again"


def test_they_have_every_command_with_its_help_and_an_example() -> None:
    page = (TESTS.parent / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    manual = (TESTS.parent / "man" / "wio.1").read_text(encoding="utf-8").replace("\\-", "-")
    for command in COMMANDS:
        told = run_wio(command, "--help").stdout
        example = told.partition("example:\n")[2].splitlines()[0].strip()
        assert example in page and example in manual, command
