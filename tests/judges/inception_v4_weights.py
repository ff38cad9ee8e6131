"""Made-up Inception-V4 weights and input: the very same bits on every machine, from a seed and a name.

The published checkpoint is 163 MB of somebody else's download; these variables have its names and shapes
and cost a second. Each variable depends on the seed and its own name only, so that one can be made without
the others: `made_up.uniform("wio inception-v4 <seed> <name>")`.

The spreads (`_distribution`) are chosen so that a wrong load shows: activations keep their size through 75
layers, batch-norm statistics are far from the 0 and 1 that Keras starts with, kernels are asymmetric in
space, and the softmax is neither flat nor saturated.
"""

from __future__ import annotations

import math

import inception_v4_slim
import made_up
import numpy as np

# A seed whose top five lie well apart (by 5e-3 and more) and change when no kernel is flipped.
SEED = 9
IMAGE_SHAPE = inception_v4_slim.IMAGE_SHAPE
GLOBAL_STEP = 1_234_567


def make_variables(seed: int = SEED) -> dict[str, np.ndarray]:
    """Every variable of the checkpoint by name, in graph order: float32, but for `global_step` (int64)."""
    shapes = inception_v4_slim.variable_shapes()
    return {name: make_variable(name, shape, seed) for name, shape in shapes.items()}


def make_variable(name: str, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    if name == "global_step":
        return np.array(GLOBAL_STEP, dtype=np.int64)
    centre, spread = _distribution(name, shape)
    return _uniform(f"{seed} {name}", shape, centre, spread)


def make_input(seed: int = SEED) -> np.ndarray:
    """One picture, (N, H, W, C), in [-1, 1): coarse blobs under noise, so that space matters."""
    height, width, channels = IMAGE_SHAPE[1:]
    noise = _uniform(f"{seed} input noise", IMAGE_SHAPE, 0.0, 0.25)
    coarse = _uniform(f"{seed} input blobs", (1, 13, 13, channels), 0.0, 0.75)
    blobs = np.repeat(np.repeat(coarse, 23, axis=1), 23, axis=2)
    return noise + blobs[:, :height, :width, :]


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Centre and half-width of the uniform distribution of one variable."""
    leaf = name.rpartition("/")[2]
    if leaf == "weights":
        # A variance (spread**2 / 3) of 2 / fan_in keeps the size of rectified activations: He et al. 2015.
        return 0.0, math.sqrt(6.0 / int(np.prod(shape[:-1])))
    return {
        "beta": (0.0, 0.25),
        "moving_mean": (0.0, 0.25),
        "moving_variance": (1.0, 0.5),
        "biases": (0.0, 0.5),
    }[leaf]


def _uniform(label: str, shape: tuple[int, ...], centre: float, spread: float) -> np.ndarray:
    return made_up.uniform(f"wio inception-v4 {label}", shape, centre, spread)
