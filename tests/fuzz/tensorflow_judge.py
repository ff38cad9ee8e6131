"""TensorFlow's CheckpointReader in a process of its own: over some damaged checkpoints it aborts (CHECK failed).

``python -m fuzz.tensorflow_judge`` reads prefixes, a line each, and answers each with a pickle of what it read, its
length before it; :func:`read` asks it, and starts it again where it died.
"""

from __future__ import annotations

import atexit
import os
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from fuzz.reading import Judged, RefusedError, UnjudgedError

# CPU seconds over one checkpoint, after which it dies as if it had aborted.
_HANGS = 60
_process: subprocess.Popen[bytes] | None = None


def read(path: Path) -> Judged:
    """Every variable of a checkpoint. UnjudgedError where TensorFlow dies over it."""
    global _process
    if _process is None:
        words = [sys.executable, "-m", "fuzz.tensorflow_judge"]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        _process = subprocess.Popen(
            words,
            cwd=Path(__file__).parent.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    assert _process.stdin is not None and _process.stdout is not None
    _process.stdin.write(f"{path}\n".encode())
    _process.stdin.flush()
    answer = _process.stdout.read(int.from_bytes(_process.stdout.read(8), "little"))
    if not answer:
        stop()
        raise UnjudgedError("TensorFlow dies over it")
    found, refused = pickle.loads(answer)
    if refused is not None:
        raise RefusedError(refused)
    return dict(found)


@atexit.register
def stop() -> None:
    """Ends the process, if there is one."""
    global _process
    if _process is not None:
        _process.kill()
        _process.communicate()
        _process = None


def _values(tf: Any, prefix: str) -> tuple[dict[str, Any], str | None]:
    try:
        reader = tf.train.load_checkpoint(prefix)
        found: dict[str, Any] = {}
        for name in reader.get_variable_to_shape_map():
            try:
                value = reader.get_tensor(name)
                # As an array of dtype S a string would lose the zeros at its end.
                found[name] = np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
            except (tf.errors.UnimplementedError, TypeError):
                found[name] = None
            except Exception as error:
                # It joins no slices of some types, uint16 among them.
                if "not supported" not in str(error):
                    raise
                found[name] = None
        return found, None
    except Exception as error:  # whatever it raises, it does not read the file
        return {}, str(error) or repr(error)


def _serve(answers: BinaryIO) -> None:
    import tensorflow as tf

    for line in sys.stdin:
        # The limit of the process that started this one would count all of its lines together.
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + _HANGS, resource.RLIM_INFINITY))
        answer = pickle.dumps(_values(tf, line.removesuffix("\n")))
        answers.write(len(answer).to_bytes(8, "little") + answer)
        answers.flush()


if __name__ == "__main__":
    # Whatever else prints goes to the error output.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(channel)
