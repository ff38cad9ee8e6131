"""What each Keras should hold for given slim variables, and legacy HDF5 files that say so: a second opinion.

Written with h5py from the rules alone, without wio: the judges run on these files first, which proves the
judges, and wio's arrays are then compared with them. The rules, each shown by a judge's softmax:

- The k-th conv scope in graph order is `conv2d_k` and `batch_normalization_k`; `Logits` is `dense_1`.
- Keras 2 keeps kernels HWIO on every backend and in every data format; Theano convolves, so both spatial axes
  run backwards there, which the root attribute `backend` declares.
- Keras 1 keeps kernels OIHW under dim_ordering `th`, HWIO under `tf`; its batch norms have a gamma, here 1.
- The dense layer's rows flatten a 1 x 1 x 1536 map: every order of flattening is the same.
"""

from __future__ import annotations

import dataclasses

import inception_v4_slim
import numpy as np


@dataclasses.dataclass(frozen=True)
class Target:
    """One way in which a Keras holds the network."""

    backend: str
    data_format: str
    keras_version: str = "2.2.4"

    @property
    def is_keras_1(self) -> bool:
        return self.keras_version.startswith("1.")


def expected_arrays(variables, target: Target) -> dict[str, dict[str, np.ndarray]]:
    """layer name -> weight name -> array, layers in graph order, weights in Keras's order."""
    conv, norm = ("convolution2d", "batchnormalization") if target.is_keras_1 else ("conv2d", "batch_normalization")
    layers: dict[str, dict[str, np.ndarray]] = {}
    for k, scope in enumerate(inception_v4_slim.conv_scopes(), start=1):
        kernel = _kernel(variables[scope + "/weights"], target)
        beta, mean, variance = (
            variables[f"{scope}/BatchNorm/{name}"] for name in ("beta", "moving_mean", "moving_variance")
        )
        if target.is_keras_1:
            layers[f"{conv}_{k}"] = {f"{conv}_{k}_W": kernel}
            layers[f"{norm}_{k}"] = {
                f"{norm}_{k}_gamma": np.ones_like(beta),
                f"{norm}_{k}_beta": beta,
                f"{norm}_{k}_running_mean": mean,
                # Keras 1.0.7 and later keep the variance under this name.
                f"{norm}_{k}_running_std": variance,
            }
        else:
            layers[f"{conv}_{k}"] = {f"{conv}_{k}/kernel": kernel}
            layers[f"{norm}_{k}"] = {
                f"{norm}_{k}/beta": beta,
                f"{norm}_{k}/moving_mean": mean,
                f"{norm}_{k}/moving_variance": variance,
            }
    logits = inception_v4_slim.ROOT + "/Logits/Logits"
    kernel, bias = ("dense_1_W", "dense_1_b") if target.is_keras_1 else ("dense_1/kernel", "dense_1/bias")
    layers["dense_1"] = {kernel: variables[logits + "/weights"], bias: variables[logits + "/biases"]}
    return layers


def _kernel(hwio: np.ndarray, target: Target) -> np.ndarray:
    kernel = hwio[::-1, ::-1] if target.backend == "theano" else hwio
    if target.is_keras_1 and target.data_format == "channels_first":
        kernel = kernel.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(kernel)


def write_h5(path: str, variables, target: Target, layer_names: list[str]) -> None:
    """Write the weights-only file that this Keras's `save_weights` would.

    `layer_names` are those of its `model.layers`, in order. Attributes are fixed-length bytes: h5py 2 and
    3 read those alike.
    """
    import h5py

    arrays = expected_arrays(variables, target)
    suffix = ":0" if target.backend == "tensorflow" else ""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode("ascii") for name in layer_names])
        if not target.is_keras_1:
            file.attrs["backend"] = np.bytes_(target.backend)
            file.attrs["keras_version"] = np.bytes_(target.keras_version)
        for layer in layer_names:
            group = file.create_group(layer)
            weights = {name + suffix: array for name, array in arrays.pop(layer, {}).items()}
            group.attrs["weight_names"] = np.array([name.encode("ascii") for name in weights], dtype="S")
            for name, array in weights.items():
                group[name] = array
    if arrays:
        raise ValueError(f"layers that the model does not have: {sorted(arrays)}")
