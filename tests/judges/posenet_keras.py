"""PoseNet in the Keras that runs this (1.2.2, 2.2.4 or 3), with the layer names of kentsommer/keras-posenet.

    python posenet_keras.py --backend theano --data-format channels_first --load by_name:a.h5 --out outputs.npz

Layers with weights are the port's, its batch norms in place of LRN among them; paddings are layers of their own, for
'same' is not the same on TensorFlow and Theano. Before each load every weight is NaN, so that one that a load leaves
alone shows in the output. The outputs go to `--out`, keyed by the load's place on the command line and the head.
"""

# ruff: noqa: B905 - operations take the same arguments; Python 3.6 runs this, whose zip() knows no `strict`

from __future__ import annotations

import argparse
import sys

import numpy as np
import posenet
import run_keras


class Keras:
    def __init__(self, keras, data_format: str) -> None:
        self._layers = keras.layers
        self._first = int(keras.__version__.split(".")[0]) == 1
        self._format = data_format
        self._axis = 1 if data_format == "channels_first" else 3

    def conv(self, x, name, filters, size, stride=1, pad=0):
        x = self._pad(x, pad, pad)
        if self._first:
            ordering = {"subsample": (stride, stride), "dim_ordering": self._ordering}
            layer = self._layers.Convolution2D(filters, size, size, activation="relu", name=name, **ordering)
        else:
            ordering = {"strides": stride, "data_format": self._format}
            layer = self._layers.Conv2D(filters, size, activation="relu", name=name, **ordering)
        return layer(x)

    def max_pool(self, x, name, stride, pad=0):
        # Zeros do for padding: nothing below zero flows here. Even sizes are rounded up by one more at the end.
        x = self._pad(x, pad, pad) if pad else self._pad(x, 0, 1)
        return self._layers.MaxPooling2D((3, 3), strides=(stride, stride), name=name, **self._said)(x)

    def average_pool(self, x, name, size, stride):
        return self._layers.AveragePooling2D((size, size), strides=(stride, stride), name=name, **self._said)(x)

    def norm(self, x, name):
        return self._layers.BatchNormalization(axis=self._axis, epsilon=1e-3, name=name)(x)

    def concat(self, parts, name):
        if self._first:
            return self._layers.merge(parts, mode="concat", concat_axis=self._axis, name=name)
        return self._layers.concatenate(parts, axis=self._axis, name=name)

    def flatten(self, x):
        return self._layers.Flatten()(x)

    def dense(self, x, name, units, relu=False):
        return self._layers.Dense(units, activation="relu" if relu else None, name=name)(x)

    def _pad(self, x, before, after):
        if not before and not after:
            return x
        amounts = (before, after, before, after) if self._first else ((before, after), (before, after))
        return self._layers.ZeroPadding2D(amounts, **self._said)(x)

    @property
    def _ordering(self) -> str:
        return "th" if self._format == "channels_first" else "tf"

    @property
    def _said(self) -> dict:
        return {"dim_ordering": self._ordering} if self._first else {"data_format": self._format}


def build(keras, data_format: str = "channels_last"):
    if hasattr(keras.backend, "set_image_data_format"):
        keras.backend.set_image_data_format(data_format)
    else:
        keras.backend.set_image_dim_ordering("th" if data_format == "channels_first" else "tf")
    height, width, channels = posenet.IMAGE_SHAPE[1:]
    shape = (channels, height, width) if data_format == "channels_first" else (height, width, channels)
    image = keras.layers.Input(shape=shape)
    return keras.models.Model(image, posenet.network(Keras(keras, data_format), image))


def outputs(keras, model, mode: str, path: str, data_format: str) -> list[np.ndarray]:
    variables = [variable for layer in model.layers for variable in layer.weights]
    blanks = [np.full(value.shape, np.nan, "float32") for value in run_keras.held_values(keras, variables)]
    if run_keras.is_keras_3(keras):
        for variable, blank in zip(variables, blanks):
            variable.assign(blank)
    else:
        keras.backend.batch_set_value(list(zip(variables, blanks)))
    model.load_weights(path, **({"by_name": True} if mode == "by_name" else {}))
    picture = posenet.make_input()
    if data_format == "channels_first":
        picture = np.ascontiguousarray(picture.transpose(0, 3, 1, 2))
    return [np.asarray(each) for each in model.predict(picture, batch_size=1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["tensorflow", "theano"], required=True)
    parser.add_argument("--data-format", choices=["channels_first", "channels_last"], default="channels_last")
    parser.add_argument("--load", action="append", default=[], type=run_keras.load_argument)
    parser.add_argument("--out", required=True)
    parser.add_argument("--compiledir", help="where Theano keeps what it compiles")
    options = parser.parse_args()
    keras = run_keras.import_keras(options.backend, options.compiledir)
    model = build(keras, options.data_format)
    held = {}
    for place, (mode, path) in enumerate(options.load):
        found = outputs(keras, model, mode, path, options.data_format)
        held.update({f"{place}/{name}": value for name, value in zip(posenet.OUTPUTS, found)})
    np.savez(options.out, **held)
    return 0


if __name__ == "__main__":
    sys.exit(main())
