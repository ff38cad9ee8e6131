"""Debian's real nginx on loopback, over a folder, its access log counted."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from loopback import free_port, wait_for


@dataclass(frozen=True)
class Traffic:
    requests: int
    bytes: int


@dataclass(frozen=True)
class Nginx:
    """``folder`` is served under ``url``, and under ``/locked/`` to the user name:secret alone."""

    port: int
    folder: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[Traffic]]:
        """What was sent while the block ran: all bytes on the wire but TCP's, heads included; filled at its end."""
        before, found = self._lines(), []
        yield found
        # A line is written once the answer is: it may be a moment behind the client.
        time.sleep(0.2)
        new = self._lines()[len(before) :]
        found.append(Traffic(len(new), sum(int(line.split()[1]) for line in new)))

    def _lines(self) -> list[str]:
        return self.log.read_text().splitlines()


_CONFIGURATION = """
daemon off; master_process off; pid {here}/pid; error_log {here}/error;
events {{}}
http {{
  log_format counted '$status $bytes_sent $request_method $uri';
  access_log {here}/access counted;
  client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
  uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder};
    location /locked/ {{ alias {folder}/; auth_basic here; auth_basic_user_file {here}/users; }}
  }}
}}
"""


@contextlib.contextmanager
def running(here: Path) -> Iterator[Nginx]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.fail("nginx is not installed: apt-get install nginx-light")
    server = Nginx(free_port(), here / "www", here / "access")
    server.folder.mkdir()
    # Workers of nginx may be another user than who starts it.
    for folder in (here, server.folder):
        folder.chmod(0o755)
    (here / "users").write_text("name:{PLAIN}secret\n")
    (here / "conf").write_text(_CONFIGURATION.format(here=here, port=server.port, folder=server.folder))
    with (here / "output").open("wb") as output:
        process = subprocess.Popen([program, "-p", here, "-c", here / "conf"], stdout=output, stderr=output)
    try:
        wait_for(server.port, process, here / "output")
        yield server
    finally:
        process.terminate()
        process.wait()
