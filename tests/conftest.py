"""What several test modules share. Judges that a test needs and lacks are failures, never skips."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from frameworks import TESTS, imports_a_framework, uses_a_framework, without_frameworks
from hypothesis import settings

# A busy machine is no failure; what must be quick is benchmarked, not tested.
settings.register_profile("wio", deadline=None)
settings.load_profile("wio")

sys.path.insert(0, str(TESTS / "judges"))
# What whoever runs the tests has added is not what is tested.
os.environ["XDG_DATA_HOME"] = str(TESTS / "of nobody")
# Whoever runs the tests in the background (nohup, a shell's &) has signals ignored, and wio leaves them so.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
CORE = "not judged"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where no framework is installed, modules that import one are not even looked into."""
    core = config.getoption("markexpr") == CORE
    return True if core and collection_path.suffix == ".py" and imports_a_framework(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # PATH::test or PATH::Class::test
        name = item.nodeid.split("::")[1].partition("[")[0]
        corpus = item.path.is_relative_to(TESTS / "corpus")
        if corpus or imports_a_framework(item.path) or uses_a_framework(item.path, name):
            item.add_marker("judged")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with contextlib.nullcontext() if item.get_closest_marker("judged") else without_frameworks():
        return (yield)


@pytest.fixture(scope="session")
def data() -> Path:
    """The files that real frameworks wrote for wio."""
    return TESTS / "data" / "real_frameworks"


def judge_python(variable: str) -> str:
    """The interpreter of another environment, which `make test` sets up and names."""
    python = os.environ.get(variable)
    if not python:
        pytest.fail(
            f"{variable} is not set: this test runs a real framework in an environment of its own; use `make test`"
        )
    return python


def run_wio(*arguments: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does, and holds it to its exit code and to never showing a traceback."""
    words = [sys.executable, "-m", "wio", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
    return done
