"""PoseNet, written once over a small set of operations, with made-up weights.

Run over `Shapes` it lists the weights; other modules run it over Caffe's layers, TensorFlow and Keras. Names and
numbers are those of Kendall's prototxt. Paddings are explicit and poolings round up, as in Caffe, so that every
framework can compute the very same network. `ops.norm` is an LRN, or what a port has in its place.

The published caffemodel is somebody else's download; these weights have its names and shapes. Each depends on its name
only. Kernels are asymmetric in space and biases are not zero, so that a flip, a shuffle and a lost bias show.
"""

# ruff: noqa: ARG002 - the operations of every framework take the same arguments

from __future__ import annotations

import math

import made_up
import numpy as np

SIDE = 224
IMAGE_SHAPE = (1, SIDE, SIDE, 3)
OUTPUTS = [f"cls{n}_fc_pose_{part}" for n in (1, 2, 3) for part in ("xyz", "wpqr")]
# Of each inception module: reduction1, reduction2, out0, out1, out2, out3.
INCEPTION = {
    1: (96, 16, 64, 128, 32, 32),
    2: (128, 32, 128, 192, 96, 64),
    3: (96, 16, 192, 208, 48, 64),
    4: (112, 24, 160, 224, 64, 64),
    5: (128, 24, 128, 256, 64, 64),
    6: (144, 32, 112, 288, 64, 64),
    7: (160, 32, 256, 320, 128, 128),
    8: (160, 32, 256, 320, 128, 128),
    9: (192, 48, 384, 384, 128, 128),
}


def network(ops, image):
    """The six outputs, in the order of OUTPUTS."""
    x = ops.conv(image, "conv1", 64, 7, stride=2, pad=3)
    x = ops.max_pool(x, "pool1", stride=2)
    x = ops.norm(x, "norm1")
    x = ops.conv(x, "reduction2", 64, 1)
    x = ops.conv(x, "conv2", 192, 3, pad=1)
    x = ops.norm(x, "norm2")
    x = ops.max_pool(x, "pool2", stride=2)
    x = _inception(ops, x, 1, "icp2_in")
    x = _inception(ops, x, 2, "icp2_out")
    x = ops.max_pool(x, "icp3_in", stride=2)
    x = _inception(ops, x, 3, "icp3_out")
    first = _head(ops, x, 1, "cls1_fc1_pose")
    for module in (4, 5, 6):
        x = _inception(ops, x, module, f"icp{module}_out")
    second = _head(ops, x, 2, "cls2_fc1")
    x = _inception(ops, x, 7, "icp7_out")
    x = ops.max_pool(x, "icp8_in", stride=2)
    for module in (8, 9):
        x = _inception(ops, x, module, f"icp{module}_out")
    x = ops.average_pool(x, "cls3_pool", 7, stride=1)
    return [*first, *second, *_poses(ops, x, 3, "cls3_fc1_pose", 2048)]


def _inception(ops, x, module: int, output: str):
    reduction1, reduction2, out0, out1, out2, out3 = INCEPTION[module]
    name = f"icp{module}"
    a = ops.conv(x, f"{name}_reduction1", reduction1, 1)
    b = ops.conv(x, f"{name}_reduction2", reduction2, 1)
    pooled = ops.max_pool(x, f"{name}_pool", stride=1, pad=1)
    parts = [
        ops.conv(x, f"{name}_out0", out0, 1),
        ops.conv(a, f"{name}_out1", out1, 3, pad=1),
        ops.conv(b, f"{name}_out2", out2, 5, pad=2),
        ops.conv(pooled, f"{name}_out3", out3, 1),
    ]
    return ops.concat(parts, output)


def _head(ops, x, n: int, dense: str):
    x = ops.average_pool(x, f"cls{n}_pool", 5, stride=3)
    x = ops.conv(x, f"cls{n}_reduction_pose", 128, 1)
    return _poses(ops, x, n, dense, 1024)


def _poses(ops, x, n: int, dense: str, units: int):
    x = ops.dense(ops.flatten(x), dense, units, relu=True)
    return [ops.dense(x, f"cls{n}_fc_pose_xyz", 3), ops.dense(x, f"cls{n}_fc_pose_wpqr", 4)]


class Shapes:
    """Runs the network over (H, W, C): collects what each weight is shaped like in TensorFlow."""

    def __init__(self) -> None:
        self.weights: dict[str, tuple[int, ...]] = {}

    def conv(self, x, name: str, filters: int, size: int, stride: int = 1, pad: int = 0):
        self._weights(name, (size, size, x[2], filters))
        return ((x[0] + 2 * pad - size) // stride + 1, (x[1] + 2 * pad - size) // stride + 1, filters)

    def max_pool(self, x, name: str, stride: int, pad: int = 0):
        return (*(-(-(side + 2 * pad - 3) // stride) + 1 for side in x[:2]), x[2])

    def average_pool(self, x, name: str, size: int, stride: int):
        return (*((side - size) // stride + 1 for side in x[:2]), x[2])

    def norm(self, x, name: str):
        return x

    def concat(self, parts, name: str):
        return (*parts[0][:2], sum(part[2] for part in parts))

    def flatten(self, x):
        return (math.prod(x),)

    def dense(self, x, name: str, units: int, relu: bool = False):
        self._weights(name, (x[0], units))
        return (units,)

    def _weights(self, name: str, shape: tuple[int, ...]) -> None:
        self.weights[f"{name}/weights"] = shape
        self.weights[f"{name}/biases"] = shape[-1:]


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Every weight as TensorFlow names and shapes it: HWIO kernels, IO matrices whose rows run H W C."""
    shapes = Shapes()
    network(shapes, (SIDE, SIDE, 3))
    return shapes.weights


def make_weights() -> dict[str, np.ndarray]:
    made = {}
    for name, shape in weight_shapes().items():
        # A variance (spread**2 / 3) of 2 / fan_in keeps the size of rectified activations: He et al. 2015.
        spread = math.sqrt(6.0 / math.prod(shape[:-1])) if name.endswith("/weights") else 0.25
        made[name] = made_up.uniform(f"wio posenet {name}", shape, 0.0, spread)
    return made


def make_input() -> np.ndarray:
    """One picture, (N, H, W, C): coarse blobs under noise, so that space matters, large enough that the LRN matters."""
    noise = made_up.uniform("wio posenet noise", IMAGE_SHAPE, 0.0, 10.0)
    blobs = made_up.uniform("wio posenet blobs", (1, 14, 14, 3), 0.0, 60.0)
    return noise + np.repeat(np.repeat(blobs, 16, axis=1), 16, axis=2)
