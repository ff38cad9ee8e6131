"""moto's S3 server on loopback: a store that speaks Amazon's protocol."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopback import Wire, free_port, wait_for

BUCKET = "weights"


@dataclass(frozen=True)
class S3:
    """``port`` leads to the store by a wire that counts what it sends; ``direct`` past it."""

    port: int
    direct: int
    wire: Wire

    def sent(self) -> int:
        """Bytes that the store has sent to clients by now."""
        return self.wire.down

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to be told, as it is told in life."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "name",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """The store as fsspec gives it, to put things there and look what is there."""
        import s3fs

        return s3fs.S3FileSystem(
            endpoint_url=f"http://127.0.0.1:{self.direct}", key="name", secret="secret", use_listings_cache=False,
            skip_instance_cache=True,
        )  # fmt: skip


@contextlib.contextmanager
def running(here: Path) -> Iterator[S3]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    wire = Wire(port)
    with (here / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(port, process, here / "log")
        server = S3(wire.port, port, wire)
        server.client().mkdir(BUCKET)
        yield server
    finally:
        process.kill()
        process.wait()
        wire.close()
