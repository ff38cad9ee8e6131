"""wio as a user runs it, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Wio:
    """``run`` holds a command to its exit code and to never showing a traceback; logins and caches are in ``home``."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        folders = {"XDG_DATA_HOME": self.home / "data", "XDG_CACHE_HOME": self.home / "cache", "HOME": self.home}
        return {**os.environ, **{name: str(folder) for name, folder in folders.items()}}

    def start(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "wio", *map(str, words)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as process:
            out, told = process.communicate(timeout=120)
        assert "Traceback" not in told, told
        assert process.returncode == code, f"exit {process.returncode}, not {code}\n{out}\n{told}"
        return subprocess.CompletedProcess(process.args, code, out, told)

    def json(self, *words: object, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*words, "--json", code=code).stdout)
        return found
