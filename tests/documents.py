"""Runs what the documents show: `python tests/documents.py [FILE ...]` writes the outputs anew.

In a block marked `console` each line after `$ ` is a command, and what follows it, up to the next, is what it prints,
errors included; a line `...` stands for any lines. In a block marked `pycon` it is the same with Python. A block below
`<!-- file: NAME -->` is written to NAME first. All blocks of a document run one after the other in one folder beside
a `tests` and an `examples`, as a folder inside a clone is.
"""

from __future__ import annotations

import code
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^(?:<!-- file: (?P<file>\S+) -->\n+)?```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.M | re.S)
_END = "-- end of output, exit code"


def documents() -> list[Path]:
    """Every document with something to run."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if "```console" in path.read_text(encoding="utf-8")]


def run(text: str) -> str:
    """The document with what its commands print now. An output that the document abridges stays so if it still fits."""
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        folder = Path(home) / "tour"
        folder.mkdir()
        for name in ("tests", "examples"):
            (Path(home) / name).symlink_to(ROOT / name)
        shell = stack.enter_context(_shell(folder, Path(home) / "bin"))
        interpreter = code.InteractiveInterpreter({"__name__": "__main__"})
        stack.enter_context(contextlib.chdir(folder))

        def block(found: re.Match[str]) -> str:
            kind, body = found["kind"], found["body"]
            if found["file"]:
                (folder / found["file"]).write_text(body, encoding="utf-8")
            elif kind == "console":
                body = _session(body, "$ ", lambda *told: _in_shell(shell, *told))
            elif kind == "pycon":
                body = _session(body, ">>> ", lambda source, _: _in_python(interpreter, source))
            else:
                return found[0]
            start, end = found.span("body")
            return found[0][: start - found.start()] + body + found[0][end - found.start() :]

        return _BLOCK.sub(block, text)


def _session(body: str, prompt: str, answer: Callable[[str, str], str]) -> str:
    """A block with every answer replaced, unless it is the one that stands there. An answer is told what comes next."""
    before, *turns = re.split(rf"^{re.escape(prompt)}", body, flags=re.M)
    continued = "> " if prompt == "$ " else "... "
    lines = [before]
    for turn, following in zip(turns, [*turns[1:], ""], strict=True):
        first, *rest = turn.splitlines()
        command = [first]
        while rest and rest[0].startswith(continued):
            command.append(rest.pop(0).removeprefix(continued))
        stated, printed = rest, answer("\n".join(command), following).splitlines()
        shown = stated if _fits(stated, printed) else printed
        lines += [prompt + f"\n{continued}".join(command) + "\n", *(f"{line}\n" for line in shown)]
    return "".join(lines)


def _fits(stated: list[str], printed: list[str]) -> bool:
    # An empty line at the end is there for the eye.
    while stated and not stated[-1]:
        stated = stated[:-1]
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line.rstrip()) + r"\n" for line in stated)
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed)) is not None


def _shell(folder: Path, programs: Path) -> subprocess.Popen[str]:
    programs.mkdir()
    for name, words in (("wio", [sys.executable, "-m", "wio"]), ("python", [sys.executable])):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    return subprocess.Popen(
        ["bash", "--norc"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _in_shell(shell: subprocess.Popen[str], command: str, following: str) -> str:
    """What a command prints. AssertionError for one that fails, unless the next shows its exit code."""
    assert shell.stdin is not None and shell.stdout is not None
    # The exit code stays what it is for the next command, which may show it.
    shell.stdin.write(f"{command}\n(code=$?; printf '\\n{_END} %s\\n' $code; exit $code)\n")
    shell.stdin.flush()
    lines: list[str] = []
    for line in shell.stdout:
        if line.startswith(_END):
            break
        lines.append(line)
    text = "".join(lines).removesuffix("\n")
    trouble = line.split()[-1] not in ("0", "1") and not following.startswith("echo $?")
    if trouble or "Traceback (most recent call last)" in text:
        raise AssertionError(f"$ {command}\n{text}")
    return text


def _in_python(interpreter: code.InteractiveInterpreter, source: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        if interpreter.runsource(source + "\n"):
            raise AssertionError(f"an unfinished statement: {source}")
    if "Traceback (most recent call last)" in printed.getvalue():
        raise AssertionError(printed.getvalue())
    return printed.getvalue()


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else documents():
        written = path.read_text(encoding="utf-8")
        path.write_text(run(written), encoding="utf-8")
