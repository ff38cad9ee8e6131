"""Inception-V4 as TF-slim's `nets/inception_v4.py` builds and names it, in plain TensorFlow operations.

The network is written once, in `network`, over a small set of operations. Run over `ShapeTrace` it lists
the variables without TensorFlow; run over `TensorFlowOps` it computes the softmax. Convolutions have no
bias; batch norms have no gamma (`scale=False`) and epsilon 0.001.

TensorFlow is imported only by the functions that need it, so that any environment can ask for names and
shapes.
"""

from __future__ import annotations

import os
import pathlib

EPSILON = 0.001
CLASSES = 1001
IMAGE_SHAPE = (1, 299, 299, 3)
ROOT = "InceptionV4"


def network(ops, images, with_aux: bool = False):
    """The logits, (N, 1001). `with_aux` visits the auxiliary classifier too, whose output nobody uses here.

    Operations and scopes come in the order in which slim creates them: variables are numbered by it
    elsewhere.
    """
    x = ops.conv(images, "Conv2d_1a_3x3", 32, (3, 3), stride=2, padding="VALID")
    x = ops.conv(x, "Conv2d_2a_3x3", 32, (3, 3), padding="VALID")
    x = ops.conv(x, "Conv2d_2b_3x3", 64, (3, 3))
    x = _mixed_3a(ops, x, "Mixed_3a")
    x = _mixed_4a(ops, x, "Mixed_4a")
    x = _mixed_5a(ops, x, "Mixed_5a")
    for letter in "bcde":
        x = _inception_a(ops, x, "Mixed_5" + letter)
    x = _reduction_a(ops, x, "Mixed_6a")
    for letter in "bcdefgh":
        x = _inception_b(ops, x, "Mixed_6" + letter)
    mixed_6h = x
    x = _reduction_b(ops, x, "Mixed_7a")
    for letter in "bcd":
        x = _inception_c(ops, x, "Mixed_7" + letter)
    if with_aux:
        _auxiliary_logits(ops, mixed_6h, "AuxLogits")
    x = ops.average_pool(x, (8, 8), stride=1, padding="VALID")
    return ops.dense(ops.flatten(x), "Logits/Logits", CLASSES)


def _mixed_3a(ops, x, scope):
    pooled = ops.max_pool(x, (3, 3), stride=2)
    convolved = ops.conv(x, scope + "/Branch_1/Conv2d_0a_3x3", 96, (3, 3), stride=2, padding="VALID")
    return ops.concat([pooled, convolved])


def _mixed_4a(ops, x, scope):
    a = ops.conv(x, scope + "/Branch_0/Conv2d_0a_1x1", 64, (1, 1))
    a = ops.conv(a, scope + "/Branch_0/Conv2d_1a_3x3", 96, (3, 3), padding="VALID")
    b = ops.conv(x, scope + "/Branch_1/Conv2d_0a_1x1", 64, (1, 1))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_0b_1x7", 64, (1, 7))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_0c_7x1", 64, (7, 1))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_1a_3x3", 96, (3, 3), padding="VALID")
    return ops.concat([a, b])


def _mixed_5a(ops, x, scope):
    convolved = ops.conv(x, scope + "/Branch_0/Conv2d_1a_3x3", 192, (3, 3), stride=2, padding="VALID")
    return ops.concat([convolved, ops.max_pool(x, (3, 3), stride=2)])


def _inception_a(ops, x, scope):
    a = ops.conv(x, scope + "/Branch_0/Conv2d_0a_1x1", 96, (1, 1))
    b = ops.conv(x, scope + "/Branch_1/Conv2d_0a_1x1", 64, (1, 1))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_0b_3x3", 96, (3, 3))
    c = ops.conv(x, scope + "/Branch_2/Conv2d_0a_1x1", 64, (1, 1))
    c = ops.conv(c, scope + "/Branch_2/Conv2d_0b_3x3", 96, (3, 3))
    c = ops.conv(c, scope + "/Branch_2/Conv2d_0c_3x3", 96, (3, 3))
    d = ops.average_pool(x, (3, 3), stride=1, padding="SAME")
    d = ops.conv(d, scope + "/Branch_3/Conv2d_0b_1x1", 96, (1, 1))
    return ops.concat([a, b, c, d])


def _reduction_a(ops, x, scope):
    a = ops.conv(x, scope + "/Branch_0/Conv2d_1a_3x3", 384, (3, 3), stride=2, padding="VALID")
    b = ops.conv(x, scope + "/Branch_1/Conv2d_0a_1x1", 192, (1, 1))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_0b_3x3", 224, (3, 3))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_1a_3x3", 256, (3, 3), stride=2, padding="VALID")
    return ops.concat([a, b, ops.max_pool(x, (3, 3), stride=2)])


def _inception_b(ops, x, scope):
    a = ops.conv(x, scope + "/Branch_0/Conv2d_0a_1x1", 384, (1, 1))
    b = ops.conv(x, scope + "/Branch_1/Conv2d_0a_1x1", 192, (1, 1))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_0b_1x7", 224, (1, 7))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_0c_7x1", 256, (7, 1))
    c = ops.conv(x, scope + "/Branch_2/Conv2d_0a_1x1", 192, (1, 1))
    c = ops.conv(c, scope + "/Branch_2/Conv2d_0b_7x1", 192, (7, 1))
    c = ops.conv(c, scope + "/Branch_2/Conv2d_0c_1x7", 224, (1, 7))
    c = ops.conv(c, scope + "/Branch_2/Conv2d_0d_7x1", 224, (7, 1))
    c = ops.conv(c, scope + "/Branch_2/Conv2d_0e_1x7", 256, (1, 7))
    d = ops.average_pool(x, (3, 3), stride=1, padding="SAME")
    d = ops.conv(d, scope + "/Branch_3/Conv2d_0b_1x1", 128, (1, 1))
    return ops.concat([a, b, c, d])


def _reduction_b(ops, x, scope):
    a = ops.conv(x, scope + "/Branch_0/Conv2d_0a_1x1", 192, (1, 1))
    a = ops.conv(a, scope + "/Branch_0/Conv2d_1a_3x3", 192, (3, 3), stride=2, padding="VALID")
    b = ops.conv(x, scope + "/Branch_1/Conv2d_0a_1x1", 256, (1, 1))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_0b_1x7", 256, (1, 7))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_0c_7x1", 320, (7, 1))
    b = ops.conv(b, scope + "/Branch_1/Conv2d_1a_3x3", 320, (3, 3), stride=2, padding="VALID")
    return ops.concat([a, b, ops.max_pool(x, (3, 3), stride=2)])


def _inception_c(ops, x, scope):
    a = ops.conv(x, scope + "/Branch_0/Conv2d_0a_1x1", 256, (1, 1))
    b = ops.conv(x, scope + "/Branch_1/Conv2d_0a_1x1", 384, (1, 1))
    b = ops.concat(
        [
            ops.conv(b, scope + "/Branch_1/Conv2d_0b_1x3", 256, (1, 3)),
            ops.conv(b, scope + "/Branch_1/Conv2d_0c_3x1", 256, (3, 1)),
        ]
    )
    c = ops.conv(x, scope + "/Branch_2/Conv2d_0a_1x1", 384, (1, 1))
    c = ops.conv(c, scope + "/Branch_2/Conv2d_0b_3x1", 448, (3, 1))
    c = ops.conv(c, scope + "/Branch_2/Conv2d_0c_1x3", 512, (1, 3))
    c = ops.concat(
        [
            ops.conv(c, scope + "/Branch_2/Conv2d_0d_1x3", 256, (1, 3)),
            ops.conv(c, scope + "/Branch_2/Conv2d_0e_3x1", 256, (3, 1)),
        ]
    )
    d = ops.average_pool(x, (3, 3), stride=1, padding="SAME")
    d = ops.conv(d, scope + "/Branch_3/Conv2d_0b_1x1", 256, (1, 1))
    return ops.concat([a, b, c, d])


def _auxiliary_logits(ops, x, scope):
    x = ops.average_pool(x, (5, 5), stride=3, padding="VALID")
    x = ops.conv(x, scope + "/Conv2d_1b_1x1", 128, (1, 1))
    x = ops.conv(x, scope + "/Conv2d_2a", 768, (5, 5), padding="VALID")
    return ops.dense(ops.flatten(x), scope + "/Aux_logits", CLASSES)


class ShapeTrace:
    """Operations on (height, width, channels) alone, which note every variable on the way."""

    def __init__(self):
        self.variables: dict[str, tuple[int, ...]] = {}

    def conv(self, x, scope, filters, kernel, stride=1, padding="SAME"):
        name = ROOT + "/" + scope
        self.variables[name + "/weights"] = (*kernel, x[2], filters)
        for statistic in ("beta", "moving_mean", "moving_variance"):
            self.variables[f"{name}/BatchNorm/{statistic}"] = (filters,)
        return (*self._slide(x, kernel, stride, padding), filters)

    def dense(self, x, scope, units):
        name = ROOT + "/" + scope
        self.variables[name + "/weights"] = (x[0], units)
        self.variables[name + "/biases"] = (units,)
        return (units,)

    def max_pool(self, x, size, stride):
        return (*self._slide(x, size, stride, "VALID"), x[2])

    def average_pool(self, x, size, stride, padding):
        return (*self._slide(x, size, stride, padding), x[2])

    def concat(self, maps):
        if len({m[:2] for m in maps}) != 1:
            raise ValueError(f"maps of different sizes cannot be joined: {maps}")
        return (*maps[0][:2], sum(m[2] for m in maps))

    def flatten(self, x):
        return (x[0] * x[1] * x[2],)

    @staticmethod
    def _slide(x, size, stride, padding):
        if padding == "SAME":
            return tuple(-(-length // stride) for length in x[:2])
        return tuple((x[axis] - size[axis]) // stride + 1 for axis in (0, 1))


class TensorFlowOps:
    """The operations in TensorFlow 2, float32, NHWC; `variables` maps slim names to arrays."""

    def __init__(self, variables):
        import tensorflow

        self._tf = tensorflow
        self._variables = variables

    def conv(self, x, scope, _filters, _kernel, stride=1, padding="SAME"):
        tf = self._tf
        x = tf.nn.conv2d(x, self._variable(scope + "/weights"), strides=stride, padding=padding)
        x = tf.nn.batch_normalization(
            x,
            mean=self._variable(scope + "/BatchNorm/moving_mean"),
            variance=self._variable(scope + "/BatchNorm/moving_variance"),
            offset=self._variable(scope + "/BatchNorm/beta"),
            scale=None,
            variance_epsilon=EPSILON,
        )
        return tf.nn.relu(x)

    def dense(self, x, scope, _units):
        tf = self._tf
        return tf.matmul(x, self._variable(scope + "/weights")) + self._variable(scope + "/biases")

    def max_pool(self, x, size, stride):
        return self._tf.nn.max_pool2d(x, ksize=size, strides=stride, padding="VALID")

    def average_pool(self, x, size, stride, padding):
        return self._tf.nn.avg_pool2d(x, ksize=size, strides=stride, padding=padding)

    def concat(self, maps):
        return self._tf.concat(maps, axis=3)

    def flatten(self, x):
        return self._tf.reshape(x, (x.shape[0], -1))

    def _variable(self, name):
        return self._tf.constant(self._variables[ROOT + "/" + name])


def variable_shapes() -> dict[str, tuple[int, ...]]:
    """Every variable of a training checkpoint in graph order, auxiliary classifier and step included."""
    trace = ShapeTrace()
    network(trace, IMAGE_SHAPE[1:], with_aux=True)
    return {**trace.variables, "global_step": ()}


def conv_scopes() -> list[str]:
    """Scopes of the 149 convolutions that inference uses, in graph order: the k-th is Keras's `conv2d_k`."""
    trace = ShapeTrace()
    network(trace, IMAGE_SHAPE[1:])
    kernels = [name for name, shape in trace.variables.items() if len(shape) == 4]
    return [name[: -len("/weights")] for name in kernels]


def softmax(variables, images):
    """The network's output for `images`, (N, 1001) float32, computed by TensorFlow 2."""
    import tensorflow as tf

    logits = network(TensorFlowOps(variables), tf.constant(images))
    return tf.nn.softmax(logits).numpy()


def write_checkpoints(variables, directory: pathlib.Path) -> dict[str, str]:
    """Write `inception_v4.v1.ckpt` and `inception_v4.v2.ckpt.*` with TensorFlow's own writers.

    Returns the path (V1) and the prefix (V2) by format. The operations are called directly: a Saver would
    need a graph with 609 variables and a session to say the same.
    """
    import tensorflow as tf

    names = list(variables)
    tensors = [tf.constant(variables[name]) for name in names]
    v1 = str(directory / "inception_v4.v1.ckpt")
    v2 = str(directory / "inception_v4.v2.ckpt")
    tf.raw_ops.Save(filename=v1, tensor_names=names, data=tensors)
    tf.raw_ops.SaveV2(prefix=v2, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
    return {"v1": v1, "v2": v2}


def main() -> None:
    """Write the made-up variables as checkpoints, TensorFlow's softmax on the fixed input, and versions."""
    import argparse
    import json
    import platform

    import inception_v4_weights

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--directory", required=True, type=pathlib.Path, help="an existing folder")
    directory = parser.parse_args().directory
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import numpy
    import tensorflow

    variables = inception_v4_weights.make_variables()
    paths = write_checkpoints(variables, directory)
    output = softmax(variables, inception_v4_weights.make_input())
    numpy.savez(directory / "slim_softmax.npz", softmax=output)
    versions = {
        "python": platform.python_version(),
        "tensorflow": tensorflow.__version__,
        "numpy": numpy.__version__,
    }
    report = json.dumps({"versions": versions, "checkpoints": paths})
    (directory / "slim.json").write_text(report)


if __name__ == "__main__":
    main()
