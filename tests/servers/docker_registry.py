"""Debian's real docker-registry on loopback."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from loopback import free_port, wait_for

# name and secret, by `htpasswd -B`
LOGIN = "name:$2b$05$KzbI0o/U9uoIzD7YaQtoYucwisTHOWjj0WptLUOlnAxd/V/Bsk3NG\n"


@dataclass(frozen=True)
class DockerRegistry:
    port: int
    folder: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def blob(self, digest: str) -> Path:
        """Where it keeps a blob of a digest ``sha256:...``."""
        digits = digest.removeprefix("sha256:")
        return self.folder / "docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"


@contextlib.contextmanager
def running(folder: Path, locked: bool = False, tls: tuple[Path, Path] | None = None) -> Iterator[DockerRegistry]:
    """A registry that keeps what it has in ``folder``; a locked one asks for a name and a password.

    ``tls`` are a certificate and its key, with which it speaks encrypted and not otherwise.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.fail("docker-registry is not installed: apt-get install docker-registry")
    registry = DockerRegistry(free_port(), folder / "storage")
    (folder / "htpasswd").write_text(LOGIN)
    (folder / "registry.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f'storage: {{filesystem: {{rootdirectory: "{registry.folder}"}}}}\n'
        f'http: {{addr: "0.0.0.0:{registry.port}", secret: "of the test"'
        + (f', tls: {{certificate: "{tls[0]}", key: "{tls[1]}"}}' if tls else "")
        + "}\n"
        + (f'auth: {{htpasswd: {{realm: here, path: "{folder / "htpasswd"}"}}}}\n' if locked else "")
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", folder / "registry.yml"], stdout=log, stderr=log)
    try:
        wait_for(registry.port, process, folder / "log")
        yield registry
    finally:
        process.kill()
        process.wait()
