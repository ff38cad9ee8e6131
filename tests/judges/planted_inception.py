"""Inception-V4, whole and reduced, with the bugs of the original port planted where they are asked for.

    python planted_inception.py --backend theano --out FOLDER [--suffix keras] [--whole]

saves the networks of CASES, or of WHOLE, by the Keras that runs this. Convolutions are counted from 1, as their
names are; everything else of the network is :mod:`inception_v4_keras`.
"""

from __future__ import annotations

import argparse
import pathlib

import inception_v4_keras
import numpy as np
from run_layers import import_keras

CASES = {
    "correct": {},
    "without_norm": {"without_norm": (6,)},
    "relu_first": {"relu_first": (9,)},
    "biased": {"biased": (12,)},
    "all_biased": {"biased": tuple(range(1, 15))},
    "all_relu_first": {"relu_first": tuple(range(1, 15))},
}
WHOLE = {
    "whole_correct": {},
    "whole_planted": {"without_norm": (17,), "relu_first": (40,), "biased": (77,)},
}


class Planted(inception_v4_keras.Keras2Layers):
    """The layers of the port, but for the convolutions whose numbers are given."""

    def __init__(self, keras, data_format="channels_last", without_norm=(), relu_first=(), biased=()):
        super().__init__(keras, data_format)
        self._without_norm, self._relu_first, self._biased = without_norm, relu_first, biased

    def conv(self, x, filters, kernel, strides, padding):
        biased = self._counts["conv2d"] + 1 in self._biased
        return self._layers.Conv2D(
            filters,
            kernel,
            strides=strides,
            padding=padding,
            use_bias=biased,
            kernel_initializer="zeros",
            name=self.name("conv2d"),
            **self._format,
        )(x)

    def batch_norm(self, x):
        number = self._counts["conv2d"]
        if number in self._without_norm:
            return x
        return super().batch_norm(super().relu(x) if number in self._relu_first else x)

    def relu(self, x):
        return x if self._counts["conv2d"] in self._relu_first else super().relu(x)


def reduced(keras, data_format="channels_last", **planted):
    """14 convolutions: the stem, one block A and the reduction after it."""
    make = Planted(keras, data_format, **planted)
    image = make.input(35, 35, 3)
    x = image
    for filters, stride, padding in ((32, 2, "valid"), (32, 1, "valid"), (64, 1, "same")):
        x = inception_v4_keras.conv(make, x, filters, 3, 3, stride=stride, padding=padding)
    x = inception_v4_keras.reduction_a(make, inception_v4_keras.block_a(make, x))
    x = make.average_pool(x, (7, 7), (1, 1), "valid")
    return filled(make.model(image, make.softmax(make.flatten(make.dropout(x, 0.2)), 10)))


def whole(keras, data_format="channels_last", **planted):
    make = Planted(keras, data_format, **planted)
    image = make.input(299, 299, 3)
    features = inception_v4_keras.inception_v4(make, image)
    return filled(make.model(image, inception_v4_keras.classify(make, features)))


def filled(model):
    """The model with random weights, variances positive: nothing is as initialisers left it."""
    random = np.random.RandomState(4)
    for layer in model.layers:
        arrays = []
        for k, weight in enumerate(layer.get_weights()):
            last = "batch_normalization" in layer.name and k == len(layer.get_weights()) - 1
            low, high = (0.5, 1.5) if last else (-0.1, 0.1)
            arrays.append(random.uniform(low, high, weight.shape).astype("float32"))
        layer.set_weights(arrays)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["tensorflow", "theano"], required=True)
    parser.add_argument("--compiledir", help="where Theano keeps its folder of compiled code")
    parser.add_argument("--out", required=True, metavar="FOLDER")
    parser.add_argument("--suffix", action="append", default=[])
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    keras = import_keras(options.backend, options.compiledir)
    data_format = "channels_first" if options.backend == "theano" else "channels_last"
    for name, planted in (WHOLE if options.whole else CASES).items():
        model = (whole if options.whole else reduced)(keras, data_format, **planted)
        for suffix in options.suffix or ["h5"]:
            model.save(str(pathlib.Path(options.out) / (name + "." + suffix)))


if __name__ == "__main__":
    main()
