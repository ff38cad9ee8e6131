"""``wio completion``, asked in zsh and fish, and the man page, shown by man (Debian: zsh, fish, man-db)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import TESTS, run_wio

# What zsh offers is only seen on a terminal: it is given one, and says it between two marks.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT= RPROMPT=; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -D -u"
zpty -w shell "source $1"
zpty -w shell "compadd () { if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd \"\$@\"; return; fi
  typeset -a found; builtin compadd -A found -D found \"\$@\"; builtin compadd -O found \"\$@\"
  (( \$#found )) && print -l -- \"offered \${^found}\" >> $2; builtin compadd \"\$@\" }"
zpty -w shell "zstyle ':completion:*' list-prompt ''; bindkey '^I' complete-word; print ready > $2.ready"
until [[ -s $2.ready ]]; do sleep 0.05; done
zpty -n -w shell "$3"$'\t'
for try in {1..100}; do [[ -s $2 ]] && break; sleep 0.1; done
sleep 0.3
zpty -d shell
"""

ASKED = [
    ("wio ex", {"export"}),
    ("wio import x.wio --into keras", {"keras-tf", "keras-theano", "keras3"}),
    ("wio registry sh", {"show"}),
    ("wio completion z", {"zsh"}),
]


@pytest.mark.parametrize(("line", "offered"), ASKED, ids=lambda value: str(value))
def test_fish_offers(tmp_path: Path, line: str, offered: set[str]) -> None:
    script = tmp_path / "wio.fish"
    script.write_text(run_wio("completion", "fish").stdout, encoding="utf-8")
    words = ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', str(script), line]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    assert {said.partition("\t")[0] for said in done.stdout.splitlines()} == offered


@pytest.mark.parametrize(("line", "offered"), ASKED, ids=lambda value: str(value))
def test_zsh_offers(tmp_path: Path, line: str, offered: set[str]) -> None:
    script, told = tmp_path / "_wio", tmp_path / "told"
    script.write_text(run_wio("completion", "zsh").stdout, encoding="utf-8")
    words = ["zsh", "-f", "-c", ZSH, "zsh", str(script), str(told), line]
    subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60)
    assert set(told.read_text(encoding="utf-8").split()) - {"offered"} == offered


def test_man_shows_the_page() -> None:
    page = TESTS.parent / "man" / "wio.1"
    words = ["man", "--warnings", "-E", "UTF-8", "-l", str(page)]
    environment = {**os.environ, "MANWIDTH": "100", "MAN_KEEP_FORMATTING": ""}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    assert "wio export [OPTION ...] SRC" in done.stdout and "EXIT STATUS" in done.stdout
