"""Ports of this machine, servers that begin to listen on them, and wires to them that count and can be cut."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it takes connections; a failure with its log if it ends or takes a minute."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail(f"the server does not start:\n{log.read_text(errors='replace')}")


class Wire:
    """A port that leads to another one. ``up`` and ``down`` count bytes; after ``cut_up`` or ``cut_down`` of them every
    connection is broken off, and ``was_cut`` is set; None lets all pass."""

    def __init__(self, port: int) -> None:
        self.up = self.down = 0
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self.was_cut = threading.Event()
        self._to = port
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reset(self) -> None:
        with self._lock:
            self.up = self.down = 0
            self.cut_up = self.cut_down = None
            self.was_cut.clear()

    def close(self) -> None:
        # A socket that is closed under a thread that waits on it leaves its number to the next one, and the thread too.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._lead, args=(near,), daemon=True).start()

    def _lead(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as far:
            upwards = threading.Thread(target=self._pump, args=(near, far, True), daemon=True)
            upwards.start()
            self._pump(far, near, False)
            upwards.join()

    def _pump(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._passes(len(data), upwards):
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _passes(self, count: int, upwards: bool) -> bool:
        with self._lock:
            limit = self.cut_up if upwards else self.cut_down
            done = self.up if upwards else self.down
            if limit is not None and done + count > limit:
                self.was_cut.set()
                return False
            if upwards:
                self.up += count
            else:
                self.down += count
            return True
