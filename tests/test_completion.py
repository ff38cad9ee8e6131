"""``wio completion bash``, asked in bash. Other shells are asked in tests/shells (`make test-shells`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import run_wio

ASK = """
source "$1"; shift
COMP_WORDS=(wio "$@") COMP_CWORD=$# COMPREPLY=()
_wio
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "wio.bash"
    path.write_text(run_wio("completion", "bash").stdout, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["ex"], ["export"]),
        (["check", "--dec"], ["--declare"]),
        (["import", "x.wio", "--into", "keras"], ["keras-tf", "keras-theano", "keras3"]),
        (["export", "m.h5", "--arch", "ince"], ["inception-v4"]),
        (["export", "--layout", ""], ["keep", "neutral"]),
        (["registry", "ch"], ["check"]),
        (["registry", "new", "--o"], ["--output", "--option"]),
        (["completion", "z"], ["zsh"]),
        (["inspect", "mod"], ["model 1.h5", "model.h5"]),
        (["adapters", "mod"], [""]),
    ],
    ids=" ".join,
)
def test_bash_offers(script: Path, tmp_path: Path, typed: list[str], offered: list[str]) -> None:
    for name in ("model.h5", "model 1.h5"):
        (tmp_path / name).touch()
    words = ["bash", "--norc", "-c", ASK, "bash", str(script), *typed]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == sorted(offered)
