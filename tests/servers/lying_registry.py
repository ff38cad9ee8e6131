"""A registry that says what a test wants it to say, true or not."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TITLE = "org.opencontainers.image.title"


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def manifest(files: Mapping[str, bytes], media_type: str, kind: str, **changed: Any) -> dict[str, Any]:
    """That of an honest registry; ``changed`` replaces keys of it."""
    layers = [
        {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw), "annotations": {TITLE: name}}
        for name, raw in files.items()
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    whole = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": kind,
        "config": config,
        "layers": layers,
    }
    return {**whole, **changed}


@dataclass
class Lies:
    """What is sent for a manifest, and for each blob; ``answer`` takes a request over, if it gives True."""

    manifest: bytes = b""
    blobs: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    answer: Callable[[BaseHTTPRequestHandler], bool] | None = None
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def lying(lies: Lies) -> Iterator[Lies]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            lies.asked.append(f"{self.command} {self.path}")
            if lies.answer is not None and lies.answer(self):
                return
            if self.path == "/v2/":
                self.say(200, b"{}")
            elif "/manifests/" in self.path:
                self.say(200, lies.manifest, lies.headers)
            elif (digest := self.path.rpartition("/")[2]) in lies.blobs:
                self.say(200, lies.blobs[digest])
            else:
                self.say(404, b"{}")

        do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = respond  # noqa: N815

        def say(self, code: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if "Content-Length" not in (headers or {}):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    lies.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield lies
    finally:
        server.shutdown()
        server.server_close()


def encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()
