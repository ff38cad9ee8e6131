"""What tests of written checkpoints share: bundles of arrays, the road through a plan, TensorFlow's own restore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tf_judge import ADAPTER, read, same

from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES, dtype_of
from wio.plan import make_plan


def tensor(name: str, values: Any, dtype: str | None = None) -> Tensor:
    array = np.asarray(values)
    return Tensor(name, DTYPES[dtype] if dtype else dtype_of(array), array.shape, lambda: array, stored_bytes=None)


def bundle_of(tensors: dict[str, Any]) -> Bundle:
    return Bundle(tensor(name, values) for name, values in tensors.items())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rewritten(source: Path, target: Path, **options: str) -> None:
    """From checkpoint to checkpoint through a plan, as the command line goes."""
    bundle = read(source)
    bundle.metadata["adapter"] = "tf-checkpoint"
    settled = ADAPTER.checked(options, writing=True)
    plan = make_plan(bundle, ADAPTER.target(bundle, **settled), "tf-checkpoint", settled)
    assert {step.kind for step in plan.steps} == {"copy"}
    ADAPTER.write(target, plan.apply(), **settled)


def assert_restores(tf: Any, prefix: Path, tensors: dict[str, Any]) -> None:
    """What TensorFlow restores is what was given, name by name and bit by bit."""
    reader = tf.train.load_checkpoint(str(prefix))
    assert set(reader.get_variable_to_shape_map()) == set(tensors)
    for name, values in tensors.items():
        if getattr(values, "dtype", None) == tf.variant:
            continue  # no NumPy array holds one; the files' bytes are compared
        theirs = values.numpy() if hasattr(values, "numpy") else np.asarray(values)
        restored = tf.raw_ops.RestoreV2(
            prefix=str(prefix),
            tensor_names=[name],
            shape_and_slices=[""],
            dtypes=[reader.get_variable_to_dtype_map()[name]],
        )[0]
        assert same(np.asarray(restored.numpy(), theirs.dtype if theirs.dtype == object else None), theirs), name
