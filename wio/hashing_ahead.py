"""SHA-256 of a source's tensors, begun on another thread while it is still being decided what becomes of them.

Hashing is what an export spends most of its time on, and planning keeps one core busy with Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
from collections.abc import Iterable, Iterator

from wio.bundle import Bundle, Tensor
from wio.errors import WioError

# Handing over the interpreter costs more than hashing less than this.
_LEAST_BYTES = 64 << 10
# Bytes hashed before it is asked again whether to stop.
_PIECE = 4 << 20
# Seconds until a thread that waits for the interpreter gets it. At Python's own 5 ms this thread would wait longer for
# its next tensor than it takes to hash one.
_SWITCH = 0.0001


@contextlib.contextmanager
def hashed_ahead(bundle: Bundle) -> Iterator[Bundle]:
    """The same bundle, whose tensors know their digests by the time they are written, as far as there was time.

    The thread stops when the first digest is asked for, so it never runs ahead of a writer, and when the block ends.
    """
    hashing = _Hashing(bundle.values())
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield bundle.map(lambda tensor: tensor.changed(sha256=lambda: hashing.digest_of(tensor)))
    finally:
        hashing.stop()
        sys.setswitchinterval(before)


class _Hashing:
    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._digests: dict[str, str] = {}
        self._stopping = threading.Event()
        worth = [tensor for tensor in tensors if tensor.raw is not None and tensor.nbytes >= _LEAST_BYTES]
        self._thread = threading.Thread(target=self._hash, args=(worth,), name="hashing ahead", daemon=True)
        self._thread.start()

    def digest_of(self, tensor: Tensor) -> str | None:
        if not self._stopping.is_set():
            self.stop()
        return self._digests.get(tensor.name)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _hash(self, tensors: list[Tensor]) -> None:
        # What is wrong with a tensor is told when it is read to be written, not here.
        with contextlib.suppress(WioError, OSError):
            for tensor in tensors:
                data, digest = tensor.stored(), hashlib.sha256()
                for start in range(0, len(data), _PIECE):
                    if self._stopping.is_set():
                        return
                    digest.update(data[start : start + _PIECE])
                self._digests[tensor.name] = digest.hexdigest()
