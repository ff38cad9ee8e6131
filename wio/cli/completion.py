"""``wio completion``: what completes commands and options in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from wio.cli.arguments import Commands, add_command

if TYPE_CHECKING:
    from wio.cli.outline import Argument, Command

_EXAMPLE = """\
  wio completion bash > ~/.local/share/bash-completion/completions/wio
  wio completion zsh > ~/.zfunc/_wio          # a folder of $fpath
  wio completion fish > ~/.config/fish/completions/wio.fish"""


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "completion", "Print what completes commands and options in a shell.", _EXAMPLE)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell it is for")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from wio.cli.main import build_parser
    from wio.cli.outline import outline
    from wio.plugins import architectures, found_adapters

    known = {"ADAPTER": [each.name for each in found_adapters()], "ID": list(architectures())}
    written = {"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](outline(build_parser()), known)
    print("\n".join(written))
    return 0


Known = Mapping[str, Iterable[str]]


def _values(argument: Argument, known: Known) -> Iterable[str]:
    """What an argument can be, where a list tells it: adapters and architectures are those of this installation."""
    return argument.choices or known.get(argument.value, ())


def _bash(program: Command, known: Known) -> Iterator[str]:
    yield "# wio completion bash"
    yield "_wio() {"
    yield '  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command="" word'
    yield '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield '    case "$command $word" in'
    below = [command for command in program.all() if command.words]
    yield f'      {"|".join(_quoted(" " + " ".join(command.words)) for command in below)}) command+=" $word" ;;'
    yield "    esac"
    yield "  done"
    yield '  case "$command $previous" in'
    for command in below:
        for option in command.options:
            if values := _values(option, known):
                cases = "|".join(_quoted(f" {' '.join(command.words)} {flag}") for flag in option.flags)
                yield f'    {cases}) COMPREPLY=($(compgen -W {_quoted(" ".join(values))} -- "$current")); return ;;'
    yield "  esac"
    yield '  local words="" files=yes'
    yield '  case "$command" in'
    for command in program.all():
        words = [flag for option in command.options for flag in option.flags]
        words += [below.words[-1] for below in command.commands]
        words += [value for argument in command.positionals for value in _values(argument, known)]
        key = "".join(f" {word}" for word in command.words)
        files = "" if _takes_files(command) else " files="
        yield f"    {_quoted(key)}) words={_quoted(' '.join(words))}{files} ;;"
    yield "  esac"
    yield '  COMPREPLY=($(compgen -W "$words" -- "$current"))'
    # From here on words end with their line: names of files have spaces.
    yield "  local IFS=$'\\n'"
    yield '  [[ -n $files && $current != -* ]] && COMPREPLY+=($(compgen -f -- "$current"))'
    yield "}"
    yield "complete -o filenames -F _wio wio"


def _zsh(program: Command, known: Known) -> Iterator[str]:
    yield "#compdef wio"
    for command in program.all():
        yield f"{_function(command)}() {{"
        yield "  local curcontext=$curcontext state line"
        told = [_zsh_option(option, known) for option in command.options]
        if command.commands:
            each = " ".join(f"{below.words[-1]}\\:{_quoted(_zsh_text(below.summary))}" for below in command.commands)
            told += [f'"1:command:(({each}))"', "'*::argument:->argument'"]
        else:
            told += [_zsh_positional(argument, known) for argument in command.positionals]
        yield "  _arguments -C " + " \\\n    ".join(told)
        if command.commands:
            yield '  [[ $state == argument ]] && case "$words[1]" in'
            for below in command.commands:
                yield f"    {below.words[-1]}) {_function(below)} ;;"
            yield "  esac"
        yield "}"
    yield '[[ $funcstack[1] == _wio ]] && _wio "$@" || compdef _wio wio'


def _function(command: Command) -> str:
    return "_wio" + "".join(f"_{word}" for word in command.words)


def _zsh_option(option: Argument, known: Known) -> str:
    value = f":{_zsh_text(option.value)}:{_zsh_action(option, known)}" if option.value else ""
    flags = "{" + ",".join(option.flags) + "}" if len(option.flags) > 1 else option.flags[0]
    return f"'*'{flags}{_quoted(f'[{_zsh_text(option.help)}]{value}')}"


def _zsh_positional(argument: Argument, known: Known) -> str:
    return _quoted(f":{_zsh_text(argument.value)}:{_zsh_action(argument, known)}")


def _zsh_action(argument: Argument, known: Known) -> str:
    values = _values(argument, known)
    return f"({' '.join(values)})" if values else "_files"


def _zsh_text(text: str) -> str:
    """A text in a specification of _arguments: brackets and colons mean something there, quotes nest badly."""
    return text.replace("'", "").replace('"', "").replace("`", "").replace("[", "(").replace("]", ")").replace(":", " ")


def _fish(program: Command, known: Known) -> Iterator[str]:
    yield "complete -c wio -n __fish_use_subcommand -f"
    for command in program.all():
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
        names = " ".join(below.words[-1] for below in command.commands)
        for below in command.commands:
            unseen = f"not __fish_seen_subcommand_from {names}"
            when = f"{condition}; and {unseen}" if condition else "__fish_use_subcommand"
            yield f"complete -c wio -n {_quoted(when)} -f -a {below.words[-1]} -d {_quoted(below.summary)}"
        for option in command.options:
            flags = " ".join(
                f"-l {f.removeprefix('--')}" if f.startswith("--") else f"-s {f[1:]}" for f in option.flags
            )
            values = " ".join(_values(option, known))
            taken = f" -x -a {_quoted(values)}" if values else " -r" if option.value else ""
            when = condition or "__fish_use_subcommand"
            yield f"complete -c wio -n {_quoted(when)} {flags}{taken} -d {_quoted(option.help)}"
        for argument in command.positionals:
            if values := " ".join(_values(argument, known)):
                yield f"complete -c wio -n {_quoted(condition)} -f -a {_quoted(values)}"


def _takes_files(command: Command) -> bool:
    return bool(command.positionals) and not any(argument.choices for argument in command.positionals)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
