"""Real TensorFlow as the judge of what wio reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.bundle import Bundle

ADAPTER = TFCheckpoint()


def tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


def read(path: Path | str) -> Bundle:
    path = Path(path)
    assert ADAPTER.sniff(path) == 10
    return ADAPTER.read(path)


def same(ours: np.ndarray[Any, Any], theirs: Any) -> bool:
    """Equal bit for bit; TensorFlow's quantised dtypes are NumPy records of one field."""
    theirs = np.asarray(theirs)
    if ours.dtype == object:
        return ours.shape == theirs.shape and ours.ravel().tolist() == theirs.ravel().tolist()
    return ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def save_v2(tf: Any, prefix: Path | str, tensors: dict[str, Any], slices: list[str] | None = None) -> None:
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=slices or [""] * len(names),
        tensors=list(tensors.values()),
    )
