"""A V1 checkpoint of 2016, trained and published by someone else: 51 tensors, compared with TensorFlow's reader.

WIO_CORPUS names the folder that holds `tf_v1_steering.ckpt` (github shawnxiaow1118/Predict_Steering_Angle).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from wio.adapters.tf_checkpoint import TFCheckpoint


def test_every_tensor_is_what_tensorflow_reads() -> None:
    import tensorflow as tf

    path = Path(os.environ["WIO_CORPUS"]) / "tf_v1_steering.ckpt"
    adapter = TFCheckpoint()
    assert adapter.sniff(path) == 10
    bundle = adapter.read(path)
    judge = tf.train.load_checkpoint(str(path))
    assert {name: list(tensor.shape) for name, tensor in bundle.items()} == judge.get_variable_to_shape_map()
    assert len(bundle) == 51
    for name, tensor in bundle.items():
        theirs = np.asarray(judge.get_tensor(name))
        ours = tensor.numpy()
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), name
    assert bundle.metadata["tf_checkpoint"]["format"] == "V1"
    assert all(tensor.role is None for tensor in bundle.values()), "names alone declare nothing"
