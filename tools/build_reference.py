"""Writes man/wio.1 and docs/reference/commands.md from the command line's parsers: python tools/build_reference.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wio import __version__
from wio.cli.main import build_parser
from wio.cli.outline import Argument, Command, outline

ROOT = Path(__file__).resolve().parent.parent


def files() -> dict[Path, str]:
    """What is written where."""
    program = outline(build_parser())
    return {
        ROOT / "man" / "wio.1": "\n".join(_man(program)) + "\n",
        ROOT / "docs" / "reference" / "commands.md": "\n".join(_markdown(program)) + "\n",
    }


def _usage(command: Command) -> str:
    words = [command.name, *(["[OPTION ...]"] if command.options else [])]
    words += ["COMMAND ..."] if command.commands else [argument.value for argument in command.positionals]
    return " ".join(words)


def _worth_telling(command: Command) -> list[Argument]:
    return [argument for argument in command.arguments if "--help" not in argument.flags]


def _example(command: Command) -> str:
    """The lines below `example:` in a command's help."""
    return command.epilog.partition("example:\n")[2].partition("\n\n")[0]


def _exit_codes(command: Command) -> str:
    return command.epilog.partition("exit codes: ")[2].partition("\n")[0]


def _man(program: Command) -> Iterator[str]:
    yield f'.TH WIO 1 "" "wio {__version__}" "User Commands"'
    yield ".SH NAME\nwio \\- moves trained weights between frameworks"
    yield f".SH SYNOPSIS\n.B wio\n.I COMMAND\n[OPTION ...]\n.SH DESCRIPTION\n{_roff(program.summary)}"
    yield ".SH COMMANDS"
    for command in list(program.all())[1:]:
        yield f".SS {_roff(_usage(command))}"
        yield _roff(command.summary)
        for argument in _worth_telling(command):
            yield f".TP\n{_roff_term(argument)}\n{_roff(argument.help)}"
        if _exit_codes(command):
            yield f".PP\nExit status: {_roff(_exit_codes(command))}"
        if _example(command):
            yield f".PP\n.nf\n{_roff(_example(command))}\n.fi"
    yield f".SH EXIT STATUS\n{_roff(_exit_codes(program))}"
    yield ".SH ENVIRONMENT\n.TP\n.B WIO_REGISTRY_PATH\nFolders, as in PATH, with descriptions of networks."
    yield ".SH SEE ALSO\nThe tutorials and the specification of the format come with the source."


def _roff_term(argument: Argument) -> str:
    flags = ", ".join(f"\\fB{_roff(flag)}\\fR" for flag in argument.flags)
    return f"{flags} \\fI{_roff(argument.value)}\\fR".strip() if argument.value else flags


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in ".'" else line for line in escaped.splitlines())


def _markdown(program: Command) -> Iterator[str]:
    yield "# Commands\n"
    yield "What `wio COMMAND --help` says, as one page. `man wio` is the same.\n"
    yield f"Exit codes: {_exit_codes(program)}\n"
    for command in list(program.all())[1:]:
        yield f"{'#' * (len(command.words) + 1)} {command.name}\n"
        yield f"{command.summary}\n"
        yield f"```text\n{_usage(command)}\n```\n"
        if _worth_telling(command):
            yield "| | |\n| --- | --- |"
            for argument in _worth_telling(command):
                names = ", ".join(f"`{flag}`" for flag in argument.flags)
                term = f"{names} `{argument.value}`".strip() if argument.value else names
                yield f"| {_cell(term)} | {_cell(argument.help)} |"
            yield ""
        if _exit_codes(command):
            yield f"Exit codes: {_exit_codes(command)}\n"
        if _example(command):
            yield f"```sh\n{_dedented(_example(command))}\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("  ") for line in text.splitlines())


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
