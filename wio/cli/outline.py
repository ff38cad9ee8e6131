"""The command line as values, read off its parsers: what completions, the man page and the reference are made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from msgspec import Struct


class Argument(Struct, frozen=True):
    """An option with its ``flags``, or a positional argument without any; ``value`` is empty for a switch."""

    flags: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...] = ()


class Command(Struct, frozen=True):
    """A command, or one of a command's own; ``words`` are what is typed after ``wio``."""

    words: tuple[str, ...]
    summary: str
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]
    epilog: str

    @property
    def name(self) -> str:
        return " ".join(("wio", *self.words))

    @property
    def options(self) -> list[Argument]:
        return [argument for argument in self.arguments if argument.flags]

    @property
    def positionals(self) -> list[Argument]:
        return [argument for argument in self.arguments if not argument.flags]

    def all(self) -> Iterator[Command]:
        """The command and everything below it."""
        yield self
        for command in self.commands:
            yield from command.all()


def outline(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), summary: str = "") -> Command:
    """What a parser takes. argparse keeps its actions to itself; they have been the same since Python 2.7."""
    arguments: list[Argument] = []
    commands: list[Command] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands += [outline(below, (*words, name), told.get(name, "")) for name, below in action.choices.items()]
        elif action.help != argparse.SUPPRESS:
            arguments.append(_argument(action))
    return Command(words, summary or parser.description or "", tuple(arguments), tuple(commands), parser.epilog or "")


def _argument(action: argparse.Action) -> Argument:
    choices = tuple(map(str, action.choices or ()))
    value = ""
    if action.nargs != 0:
        metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar
        value = metavar or ("{" + ",".join(choices) + "}" if choices else action.dest.upper())
    told = (action.help or "") % {"default": action.default, "prog": "wio"}
    return Argument(tuple(action.option_strings), value, told, choices)
