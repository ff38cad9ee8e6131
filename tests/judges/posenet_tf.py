"""PoseNet in TensorFlow's own operations, as a TF 1 graph with the variables of kentsommer/tensorflow-posenet."""

# ruff: noqa: ARG002 - the operations of every framework take the same arguments

from __future__ import annotations

import contextlib

import numpy as np
import posenet

# The untrained batch norm of the Keras port: 1 / sqrt(1 + epsilon).
UNTRAINED = 1 / np.sqrt(1 + 1e-3)


class TensorFlow:
    """`norm`: "lrn" as in Caffe, "batch_norm" as in the Keras port before anybody trained it."""

    def __init__(self, tf, norm: str) -> None:
        self._tf, self._norm = tf, norm
        self.variables: dict[str, object] = {}

    def conv(self, x, name, filters, size, stride=1, pad=0):
        tf = self._tf
        kernel, bias = self._weights(name, (size, size, x.shape[-1], filters))
        pads = [[0, 0], [pad, pad], [pad, pad], [0, 0]]
        return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, pads), bias))

    def max_pool(self, x, name, stride, pad=0):
        # On these sizes SAME is what Caffe does: one more at the end where it rounds up, one on both sides at stride 1.
        return self._tf.nn.max_pool2d(x, 3, stride, "SAME")

    def average_pool(self, x, name, size, stride):
        return self._tf.nn.avg_pool2d(x, size, stride, "VALID")

    def norm(self, x, name):
        if self._norm == "batch_norm":
            return x * np.float32(UNTRAINED)
        return self._tf.nn.local_response_normalization(x, depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75)

    def concat(self, parts, name):
        return self._tf.concat(parts, 3)

    def flatten(self, x):
        return self._tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])

    def dense(self, x, name, units, relu=False):
        kernel, bias = self._weights(name, (x.shape[-1], units))
        out = self._tf.matmul(x, kernel) + bias
        return self._tf.nn.relu(out) if relu else out

    def _weights(self, name, shape):
        for leaf, each in (("weights", shape), ("biases", shape[-1:])):
            variable = self._tf.compat.v1.get_variable(f"{name}/{leaf}", tuple(map(int, each)))
            self.variables[f"{name}/{leaf}"] = variable
        return self.variables[f"{name}/weights"], self.variables[f"{name}/biases"]


@contextlib.contextmanager
def session(tf, norm: str = "lrn"):
    """The network in a session: its variables and a function from the picture to the six outputs."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as open_session:
        image = tf.compat.v1.placeholder(tf.float32, posenet.IMAGE_SHAPE)
        ops = TensorFlow(tf, norm)
        outputs = posenet.network(ops, image)
        yield open_session, ops.variables, lambda picture: open_session.run(outputs, {image: picture})


def restored(tf, checkpoint: str, norm: str = "lrn") -> list[np.ndarray]:
    """The outputs with the weights of a checkpoint, which must hold every variable."""
    with session(tf, norm) as (open_session, variables, run):
        tf.compat.v1.train.Saver(variables).restore(open_session, checkpoint)
        return run(posenet.make_input())
