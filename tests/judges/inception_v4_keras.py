"""Inception-V4 as the Keras port github.com/kentsommer/keras-inceptionV4 orders and names its layers.

Written for the judges, apart from the TF-slim form beside it: the two share no code, so that a slip in one
shows as a difference. `build` works in Keras 1.2.2, 2.2.4 and 3, on Theano and TensorFlow, channels first
and last.

Names are those that Keras would choose by itself in a fresh process (`conv2d_7`, `batch_normalization_7`,
...; `convolution2d_7` in Keras 1). They are given explicitly because Keras 3 counts otherwise. In Keras 2
and 3 a batch norm holds beta, moving mean and moving variance; Keras 1 cannot leave gamma out and holds
four arrays.
"""

from __future__ import annotations

import collections

CLASSES = 1001
EPSILON = 1e-3


def build(keras, data_format: str = "channels_last"):
    """A fresh model with all kernels zero: whoever judges sets the weights."""
    if int(keras.__version__.split(".")[0]) == 1:
        make = Keras1Layers(keras, data_format)
    else:
        make = Keras2Layers(keras, data_format)
    image = make.input(299, 299, 3)
    return make.model(image, classify(make, inception_v4(make, image)))


def classify(make, features):
    x = make.average_pool(features, (8, 8), (1, 1), "valid")
    x = make.dropout(x, 0.2)
    return make.softmax(make.flatten(x), CLASSES)


def inception_v4(make, image):
    x = stem(make, image)
    for _ in range(4):
        x = block_a(make, x)
    x = reduction_a(make, x)
    for _ in range(7):
        x = block_b(make, x)
    x = reduction_b(make, x)
    for _ in range(3):
        x = block_c(make, x)
    return x


def conv(make, x, filters, rows, columns, stride=1, padding="same"):
    x = make.conv(x, filters, (rows, columns), (stride, stride), padding)
    return make.relu(make.batch_norm(x))


def stem(make, image):
    x = conv(make, image, 32, 3, 3, stride=2, padding="valid")
    x = conv(make, x, 32, 3, 3, padding="valid")
    x = conv(make, x, 64, 3, 3)

    pooled = make.max_pool(x)
    x = make.join([pooled, conv(make, x, 96, 3, 3, stride=2, padding="valid")])

    short = conv(make, x, 64, 1, 1)
    short = conv(make, short, 96, 3, 3, padding="valid")
    long = conv(make, x, 64, 1, 1)
    long = conv(make, long, 64, 1, 7)
    long = conv(make, long, 64, 7, 1)
    long = conv(make, long, 96, 3, 3, padding="valid")
    x = make.join([short, long])

    return make.join([conv(make, x, 192, 3, 3, stride=2, padding="valid"), make.max_pool(x)])


def block_a(make, x):
    one = conv(make, x, 96, 1, 1)

    three = conv(make, x, 64, 1, 1)
    three = conv(make, three, 96, 3, 3)

    five = conv(make, x, 64, 1, 1)
    five = conv(make, five, 96, 3, 3)
    five = conv(make, five, 96, 3, 3)

    pooled = make.average_pool(x, (3, 3), (1, 1), "same")
    return make.join([one, three, five, conv(make, pooled, 96, 1, 1)])


def reduction_a(make, x):
    short = conv(make, x, 384, 3, 3, stride=2, padding="valid")

    long = conv(make, x, 192, 1, 1)
    long = conv(make, long, 224, 3, 3)
    long = conv(make, long, 256, 3, 3, stride=2, padding="valid")

    return make.join([short, long, make.max_pool(x)])


def block_b(make, x):
    one = conv(make, x, 384, 1, 1)

    seven = conv(make, x, 192, 1, 1)
    seven = conv(make, seven, 224, 1, 7)
    seven = conv(make, seven, 256, 7, 1)

    twice = conv(make, x, 192, 1, 1)
    twice = conv(make, twice, 192, 7, 1)
    twice = conv(make, twice, 224, 1, 7)
    twice = conv(make, twice, 224, 7, 1)
    twice = conv(make, twice, 256, 1, 7)

    pooled = make.average_pool(x, (3, 3), (1, 1), "same")
    return make.join([one, seven, twice, conv(make, pooled, 128, 1, 1)])


def reduction_b(make, x):
    short = conv(make, x, 192, 1, 1)
    short = conv(make, short, 192, 3, 3, stride=2, padding="valid")

    long = conv(make, x, 256, 1, 1)
    long = conv(make, long, 256, 1, 7)
    long = conv(make, long, 320, 7, 1)
    long = conv(make, long, 320, 3, 3, stride=2, padding="valid")

    return make.join([short, long, make.max_pool(x)])


def block_c(make, x):
    one = conv(make, x, 256, 1, 1)

    three = conv(make, x, 384, 1, 1)
    wide = conv(make, three, 256, 1, 3)
    high = conv(make, three, 256, 3, 1)
    three = make.join([wide, high])

    five = conv(make, x, 384, 1, 1)
    five = conv(make, five, 448, 3, 1)
    five = conv(make, five, 512, 1, 3)
    wide = conv(make, five, 256, 1, 3)
    high = conv(make, five, 256, 3, 1)
    five = make.join([wide, high])

    pooled = make.average_pool(x, (3, 3), (1, 1), "same")
    return make.join([one, three, five, conv(make, pooled, 256, 1, 1)])


class Numbered:
    """Names as Keras gives them: a class's name in lower case and a count that starts at 1."""

    def __init__(self):
        self._counts: collections.Counter[str] = collections.Counter()

    def name(self, kind: str) -> str:
        self._counts[kind] += 1
        return f"{kind}_{self._counts[kind]}"


class Keras2Layers(Numbered):
    """The layers in the vocabulary of Keras 2 and 3."""

    def __init__(self, keras, data_format):
        super().__init__()
        self._keras = keras
        self._layers = keras.layers
        self._format = {"data_format": data_format}
        self._axis = 1 if data_format == "channels_first" else 3
        # Flatten of Keras 2.2 looks at the global setting, whatever the other layers were told.
        keras.backend.set_image_data_format(data_format)

    def input(self, height, width, channels):
        shape = (channels, height, width) if self._axis == 1 else (height, width, channels)
        return self._layers.Input(shape, name=self.name("input"))

    def conv(self, x, filters, kernel, strides, padding):
        return self._layers.Conv2D(
            filters,
            kernel,
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_initializer="zeros",
            name=self.name("conv2d"),
            **self._format,
        )(x)

    def batch_norm(self, x):
        name = self.name("batch_normalization")
        return self._layers.BatchNormalization(axis=self._axis, epsilon=EPSILON, scale=False, name=name)(x)

    def relu(self, x):
        return self._layers.Activation("relu", name=self.name("activation"))(x)

    def max_pool(self, x):
        name = self.name("max_pooling2d")
        return self._layers.MaxPooling2D((3, 3), strides=(2, 2), padding="valid", name=name, **self._format)(x)

    def average_pool(self, x, size, strides, padding):
        name = self.name("average_pooling2d")
        return self._layers.AveragePooling2D(size, strides=strides, padding=padding, name=name, **self._format)(x)

    def join(self, maps):
        return self._layers.Concatenate(axis=self._axis, name=self.name("concatenate"))(maps)

    def dropout(self, x, rate):
        return self._layers.Dropout(rate, name=self.name("dropout"))(x)

    def flatten(self, x):
        return self._layers.Flatten(name=self.name("flatten"))(x)

    def softmax(self, x, classes):
        name = self.name("dense")
        return self._layers.Dense(classes, activation="softmax", kernel_initializer="zeros", name=name)(x)

    def model(self, image, output):
        return self._keras.models.Model(image, output, name="inception_v4")


class Keras1Layers(Numbered):
    """The layers in the vocabulary of Keras 1: merge for concatenate, dim_ordering for data_format."""

    def __init__(self, keras, data_format):
        super().__init__()
        # Keras 1's package does not import its own modules.
        import keras.layers
        import keras.models

        self._keras = keras
        self._layers = keras.layers
        ordering = "th" if data_format == "channels_first" else "tf"
        self._format = {"dim_ordering": ordering}
        self._axis = 1 if data_format == "channels_first" else 3
        keras.backend.set_image_dim_ordering(ordering)

    def input(self, height, width, channels):
        shape = (channels, height, width) if self._axis == 1 else (height, width, channels)
        return self._layers.Input(shape, name=self.name("input"))

    def conv(self, x, filters, kernel, strides, padding):
        return self._layers.Convolution2D(
            filters,
            kernel[0],
            kernel[1],
            subsample=strides,
            border_mode=padding,
            bias=False,
            init="zero",
            name=self.name("convolution2d"),
            **self._format,
        )(x)

    def batch_norm(self, x):
        name = self.name("batchnormalization")
        return self._layers.BatchNormalization(axis=self._axis, epsilon=EPSILON, name=name)(x)

    def relu(self, x):
        return self._layers.Activation("relu", name=self.name("activation"))(x)

    def max_pool(self, x):
        name = self.name("maxpooling2d")
        return self._layers.MaxPooling2D((3, 3), strides=(2, 2), border_mode="valid", name=name, **self._format)(x)

    def average_pool(self, x, size, strides, padding):
        name = self.name("averagepooling2d")
        layer = self._layers.AveragePooling2D(size, strides=strides, border_mode=padding, name=name, **self._format)
        return layer(x)

    def join(self, maps):
        return self._layers.merge(maps, mode="concat", concat_axis=self._axis, name=self.name("merge"))

    def dropout(self, x, rate):
        return self._layers.Dropout(rate, name=self.name("dropout"))(x)

    def flatten(self, x):
        return self._layers.Flatten(name=self.name("flatten"))(x)

    def softmax(self, x, classes):
        return self._layers.Dense(classes, activation="softmax", init="zero", name=self.name("dense"))(x)

    def model(self, image, output):
        return self._keras.models.Model(image, output, name="inception_v4")
