"""A web server that misbehaves as it is told, one kind of lie at a time."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class LyingServer:
    """Serves ``content`` under every path, in ranges. ``lie`` names what is wrong, from request number ``after`` on."""

    def __init__(self) -> None:
        self.content = b""
        self.lie = ""
        self.after = 1
        self.location = ""
        self.logins: list[str | None] = []
        self.requests = 0
        self._lock = threading.Lock()
        lying = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with lying._lock:
                    lying.requests += 1
                    number = lying.requests
                    lying.logins.append(self.headers.get("Authorization"))
                lying._answer(self, lying.lie if number > lying.after else "", number)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LyingServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, to: BaseHTTPRequestHandler, lie: str, number: int) -> None:
        size = len(self.content)
        first, _, last = to.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        body, status, tag, told = self.content[start:stop], 206, '"one"', size
        length: int | None = None
        if lie == "redirect":
            to.send_response(302)
            to.send_header("Location", self.location)
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        if lie == "forbidden":
            to.send_error(403)
            return
        if lie == "unavailable" or (lie == "unavailable at times" and number % 2):
            to.send_response(503)
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        if lie in ("no ranges", "no ranges, cut"):
            status, body = 200, self.content
            length = len(body)
            body = body[: len(body) // 2] if lie == "no ranges, cut" else body
        elif lie == "another range":
            start, stop = start + 1, stop + 1
        elif lie == "shifted bytes, said":
            body, start, stop = self.content[start + 4 : stop + 4], start + 4, stop + 4
        elif lie == "another version":
            tag, body = '"two"', bytes(255 - b for b in body)
        elif lie == "another size":
            told = size + 1
        elif lie == "huge":
            told = 1 << 60
        elif lie == "larger than any file":
            told = 10**19 - 1
        elif lie in ("short", "short at times") and (lie == "short" or number % 2) and len(body) > 1:
            length, body = len(body), body[: len(body) // 2]
        elif lie == "less announced":
            body = body[: len(body) // 2]
        elif lie == "compressed":
            to.encoded = True  # type: ignore[attr-defined]
        to.send_response(status)
        to.send_header("ETag", tag)
        to.send_header("Content-Length", str(len(body) if length is None else length))
        if lie == "compressed":
            to.send_header("Content-Encoding", "gzip")
        if status == 206:
            to.send_header("Content-Range", f"bytes {start}-{stop - 1}/{told}")
        to.end_headers()
        if lie == "stalls" and len(body) > 1:
            to.wfile.write(body[: len(body) // 2])
            to.wfile.flush()
            time.sleep(60)
        elif lie == "trickles" and len(body) > 1:
            for byte in body:
                to.wfile.write(bytes((byte,)))
                time.sleep(0.05)
        else:
            to.wfile.write(body)
        if length is not None and len(body) < length:
            to.close_connection = True
