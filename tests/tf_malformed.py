"""Small malformed checkpoints, and what every reader of them must do: raise a FormatError that says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_tables
from tf_tables import Stored, varint

from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.bundle import Bundle
from wio.errors import FormatError

TF1 = Path(__file__).parent / "data" / "real_frameworks" / "tf1"
ADAPTER = TFCheckpoint()
ONE = np.arange(6, dtype="f4").tobytes()


def read(path: Path) -> Bundle:
    return ADAPTER.read(path)


def two(tmp_path: Path, change: Callable[[dict[bytes, Any]], None] | None = None, **options: Any) -> Path:
    """A small bundle of two tensors whose entries a test may change before the index is written."""
    prefix = tmp_path / "m"
    protos = tf_tables.write_bundle(prefix, {"a": Stored(1, (6,), ONE), "b": Stored(1, (2, 3), ONE)}, **options)
    if change:
        change(protos)
        tf_tables.write_index(prefix, protos)
    return prefix


def raw_index(tmp_path: Path, contents: bytes, **options: Any) -> Path:
    """A bundle whose only block holds these contents."""
    path = tmp_path / "m.index"
    stored = tf_tables.sealed(contents, **options)
    index = tf_tables.sealed(tf_tables.block([(b"z", varint(0) + varint(len(stored) - 5))]))
    path.write_bytes(stored + index + tf_tables.footer((0, 0), (len(stored), len(index) - 5)))
    return path


def rejected(path: Path, *words: str) -> FormatError:
    with pytest.raises(FormatError) as caught:
        for tensor in read(path).values():
            tensor.numpy()
    text = str(caught.value)
    assert all(word in text for word in words), text
    return caught.value
