"""The man page and the reference of commands are what the command line says of itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import runpy

from conftest import TESTS, run_wio
from msgspec import Struct

import wio
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


def test_help_can_show_every_record() -> None:
    """help() and the reference evaluate annotations: a name that only a type checker sees is an error there."""
    names = [each.name for each in pkgutil.walk_packages(wio.__path__, "wio.") if not each.name.endswith("__main__")]
    records = {each for name in names for each in vars(importlib.import_module(name)).values() if _is_record(each)}
    assert len(records) > 100
    for record in records:
        assert list(inspect.signature(record).parameters) == list(record.__struct_fields__)


def _is_record(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Struct) and value is not Struct
