"""What several test modules share. Judges that a test needs and lacks are failures, never skips."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure; what must be quick is benchmarked, not tested.
settings.register_profile("wio", deadline=None)
settings.load_profile("wio")

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS / "judges"))


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
