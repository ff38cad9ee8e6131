"""Small networks for run_layers.py, written once and built by Keras 1.2.2, 2.2.4 or 3, in either data format.

Each exercises what a single layer cannot: models in models, layers used twice, maps joined before they are flattened,
statistics of flattened maps, name lists too long for one HDF5 attribute. Every network gives out vectors or sequences,
so outputs compare without moving axes; inputs are made channels last.
"""

# ruff: noqa: B905 - judges run under older Pythons too, whose zip() knows no `strict`

from __future__ import annotations

import functools

import numpy as np

BATCH = 3


class Layers:
    """The layers of one Keras, spelled alike: kernels, filters, names; channels where the data format puts them."""

    def __init__(self, keras, data_format):
        self.keras, self.version = keras, int(keras.__version__.split(".")[0])
        self.first = data_format == "channels_first"
        if self.version == 1:
            keras.backend.set_image_dim_ordering("th" if self.first else "tf")
        else:
            keras.backend.set_image_data_format(data_format)
        self.channel_axis = 1 if self.first else -1

    def __getattr__(self, name):
        return getattr(self.keras.layers, name)

    def image(self, height, width, channels, *leading):
        shape = (channels, height, width) if self.first else (height, width, channels)
        return self.Input(shape=(*leading, *shape))

    def conv(self, filters, height, width, name=None, stride=1):
        if self.version == 1:
            return self.Convolution2D(filters, height, width, subsample=(stride, stride), name=name)
        return self.Conv2D(filters, (height, width), strides=(stride, stride), name=name)

    def conv_in(self, first, filters, height, width, name):
        """A convolution that says its own data format."""
        if self.version == 1:
            return self.Convolution2D(filters, height, width, dim_ordering="th" if first else "tf", name=name)
        told = "channels_first" if first else "channels_last"
        return self.Conv2D(filters, (height, width), data_format=told, name=name)

    def flatten_in(self, first, name):
        """Plain before 2.1.6; in Keras 2.2 it turns a map of channels first before it flattens it."""
        told = {} if self.version == 1 else {"data_format": "channels_first" if first else "channels_last"}
        return self.Flatten(name=name, **told)

    def turned(self, name, first):
        """From channels first to channels last, or back."""
        return self.Permute((2, 3, 1) if first else (3, 1, 2), name=name)

    def conv_transpose(self, filters, height, width, into, name):
        """A transposed convolution of stride 1; ``into`` is the size of its output, which Keras 1 wants to be told."""
        if self.version == 1:
            shape = (None, filters, *into) if self.first else (None, *into, filters)
            return self.Deconvolution2D(filters, height, width, output_shape=shape, name=name)
        return self.Conv2DTranspose(filters, (height, width), name=name)

    def conv_1d(self, filters, length, name):
        if self.version == 1:
            return self.Convolution1D(filters, length, name=name)
        return self.Conv1D(filters, length, name=name)

    def dense(self, units, name=None):
        return self.Dense(units, name=name)

    def norm(self, name=None, axis=None):
        return self.BatchNormalization(axis=self.channel_axis if axis is None else axis, name=name)

    def lstm(self, units, name=None, sequences=False):
        gate = "inner_activation" if self.version == 1 else "recurrent_activation"
        return self.LSTM(units, name=name, return_sequences=sequences, **{gate: "sigmoid"})

    def gru(self, units, name=None, sequences=False, reset_after=False):
        gate = "inner_activation" if self.version == 1 else "recurrent_activation"
        told = {} if self.version == 1 else {"reset_after": reset_after}
        return self.GRU(units, name=name, return_sequences=sequences, **{gate: "sigmoid"}, **told)

    def join(self, tensors):
        if self.version == 1:
            return self.merge(tensors, mode="concat", concat_axis=self.channel_axis)
        return self.Concatenate(axis=self.channel_axis)(tensors)

    def add(self, tensors):
        return self.merge(tensors, mode="sum") if self.version == 1 else self.Add()(tensors)

    def model(self, inputs, outputs, name=None):
        words = ("input", "output") if self.version == 1 else ("inputs", "outputs")
        return self.keras.models.Model(**dict(zip(words, (inputs, outputs))), name=name)

    def sequential(self, layers, name=None):
        model = self.keras.models.Sequential(name=name)
        for layer in layers:
            model.add(layer)
        return model


def plain(k):
    """Every weightless layer that changes the size of a map stands between the input and the Flatten."""
    x = entry = k.image(9, 8, 2)
    x = k.ZeroPadding2D(padding=(1, 2))(x)
    x = k.conv(3, 3, 2, "conv", stride=2)(x)
    x = k.UpSampling2D(size=(2, 2))(x)
    x = k.Cropping2D(((1, 0), (0, 2)))(x)
    x = k.conv_transpose(4, 2, 2, (10, 11), "deconv")(x)
    x = k.MaxPooling2D((2, 2))(x)
    x = k.AveragePooling2D((2, 3), strides=(1, 2))(x)
    x = k.Dropout(0.5)(k.Flatten()(x))
    return k.model(entry, k.dense(3, "dense")(x))


def flattened_point(k):
    """The flattened map is 1 x 1: every order of its rows is the same."""
    x = entry = k.image(4, 4, 2)
    x = k.AveragePooling2D((2, 2))(k.conv(3, 3, 3, "conv")(x))
    return k.model(entry, k.dense(2, "dense")(k.Flatten()(x)))


def joined(k):
    """Two branches of different width, joined along the channels, then flattened; layers are listed by depth."""
    entry = k.image(6, 5, 2)
    left = k.conv(2, 3, 2, "left")(entry)
    right = k.norm("right_norm")(k.conv(3, 3, 2, "right")(entry))
    x = k.Flatten()(k.join([right, left]))
    return k.model(entry, k.dense(4, "dense")(k.dense(5, "hidden")(x)))


def flattened_norm(k):
    """Statistics of a flattened map move with the rows of the dense layer after them."""
    entry = k.image(5, 4, 2)
    x = k.Flatten()(k.conv(3, 2, 2, "conv")(entry))
    return k.model(entry, k.dense(4, "dense")(k.norm("norm", axis=-1)(x)))


def sequence(k):
    """A 1-D map keeps its channels last under either data format, yet Flatten of Keras 2.2 turns it around."""
    entry = k.Input(shape=(7, 3))
    x = k.Flatten()(k.conv_1d(4, 3, "conv")(entry))
    return k.model(entry, k.dense(5, "dense")(x))


def shared(k):
    """One convolution called twice, its weights kept once."""
    entry = k.image(6, 6, 3)
    twice = k.conv(3, 2, 2, "twice")
    once = twice(entry)
    x = k.add([k.conv(3, 1, 1, "beside")(twice(once)), k.conv(3, 2, 2, "other")(once)])
    return k.model(entry, k.dense(3, "dense")(k.Flatten()(x)))


def nested(k):
    """Models in a model, three deep; weights that are not trained come after those that are."""
    inside = k.image(7, 6, 3)
    x = k.norm("norm_a")(k.conv(3, 2, 3, "conv_a")(inside))
    x = k.norm("norm_b")(k.conv(2, 3, 2, "conv_b")(x))
    extractor = k.model(inside, x, name="extractor")
    shape = (2, 4, 3) if k.first else (4, 3, 2)
    deepest = k.sequential([k.Dense(4, name="deep", input_shape=(24,))], name="deepest")
    top = k.sequential(
        [k.Flatten(input_shape=shape), deepest, k.norm("norm_c", axis=-1), k.dense(2, "last")], name="top"
    )
    entry = k.image(8, 8, 3)
    return k.model(entry, top(extractor(k.conv(3, 2, 3, "before")(entry))))


def recurrent(k):
    """Both directions, each with the names of its own layer; a dense layer for every step."""
    entry = k.Input(shape=(5, 3))
    x = k.Bidirectional(k.gru(4, "gru", sequences=True), name="both")(entry)
    x = k.TimeDistributed(k.dense(3, "step"), name="steps")(x)
    x = k.Bidirectional(k.lstm(2, "lstm", sequences=True), merge_mode="sum", name="both_lstm")(x)
    return k.model(entry, k.lstm(3, "last")(x))


def film(k):
    """A convolution and a flattened map at every step, then a dense layer whose rows are that map."""
    entry = k.image(5, 4, 2, 3)
    x = k.TimeDistributed(k.conv(3, 2, 2, "frame"), name="frames")(entry)
    x = k.TimeDistributed(k.Flatten(name="flat"), name="flats")(x)
    return k.model(entry, k.TimeDistributed(k.dense(4, "step"), name="steps")(x))


def film_lstm(k):
    """A recurrent kernel whose rows are a flattened map."""
    entry = k.image(4, 3, 2, 3)
    x = k.TimeDistributed(k.conv(2, 2, 2, "frame"), name="frames")(entry)
    x = k.TimeDistributed(k.Flatten(name="flat"), name="flats")(x)
    return k.model(entry, k.lstm(3, "last")(x))


def long_names(k):
    """Names that do not fit into one HDF5 attribute: layer_names of the model, weight_names of the model in it."""
    entry = k.Input(shape=(3,))
    inner = k.sequential(
        [
            k.Dense(3, name=f"inner_{i:02}_" + "n" * 1990, **({"input_shape": (3,)} if i == 0 else {}))
            for i in range(17)
        ],
        name="inner",
    )
    x = inner(entry)
    for i in range(33):
        x = k.dense(3, f"outer_{i:02}_" + "n" * 1990)(x)
    return k.model(entry, x)


def mixed(k):
    """Layers of either data format in one model: a map turned for the other, and one that the other reads as it is."""
    own, other = k.first, not k.first
    entry = k.image(7, 6, 2)
    x = k.norm("norm")(k.conv_in(own, 3, 3, 2, "own")(entry))
    turned = k.conv_in(other, 4, 2, 3, "other")(k.turned("turn", own)(x))
    misread = k.conv_in(other, 2, 2, 3, "misread")(x)
    heads = [
        k.dense(4, "dense_own")(k.flatten_in(own, "flat_own")(k.PReLU(name="slopes")(x))),
        k.dense(4, "dense_other")(k.norm("flat_norm", axis=-1)(k.flatten_in(other, "flat_other")(turned))),
        k.dense(4, "dense_misread")(k.flatten_in(other, "flat_misread")(misread)),
    ]
    return k.model(entry, k.dense(3, "last")(k.add(heads)))


def mixed_nested(k):
    """A model of the other data format inside one."""
    own, other = k.first, not k.first
    shape = (5, 4, 3) if own else (3, 5, 4)
    inside = k.Input(shape=shape)
    x = k.flatten_in(other, "flat_in")(k.conv_in(other, 4, 2, 3, "conv_in")(inside))
    inner = k.model(inside, k.dense(5, "dense_in")(x), name="inner")
    entry = k.image(7, 5, 2)
    x = k.conv_in(own, 3, 3, 2, "conv_out")(entry)
    beside = k.dense(5, "dense_out")(k.flatten_in(own, "flat_out")(x))
    return k.model(entry, k.dense(3, "last")(k.add([inner(k.turned("turn", own)(x)), beside])))


# --- what every format holds, or refuses: tests/matrix.py has the same networks in other frameworks


def maps(k):
    """Kernels with unequal axes, as many channels out as in where a mistake would show in no shape."""
    x = entry = k.image(7, 6, 3)
    x = k.norm("norm")(k.conv(4, 3, 2, "conv")(x))
    x = k.conv_transpose(4, 3, 2, (7, 6), "up")(k.Activation("relu")(x))
    return k.model(entry, k.dense(5, "dense")(k.Flatten()(x)))


def depthwise(k):
    x = entry = k.image(7, 6, 3)
    x = k.Activation("relu")(k.DepthwiseConv2D((3, 2), depth_multiplier=2, name="deep")(x))
    return k.model(entry, k.dense(5, "dense")(k.Flatten()(x)))


def tokens(k, layer):
    entry = k.Input(shape=(TOKENS,), dtype="int32")
    return k.model(entry, k.dense(4, "dense")(layer(k.Embedding(WORDS, 4, name="embed")(entry))))


def lstm(k):
    return tokens(k, k.lstm(3, "lstm"))


def gru_before(k):
    return tokens(k, k.gru(3, "gru"))


def gru_after(k):
    return tokens(k, k.gru(3, "gru", reset_after=True))


# Of each batch of words, and of how many words.
TOKENS, WORDS = 5, 7
MATRIX = {each.__name__: each for each in (maps, depthwise, lstm, gru_before, gru_after)}
# Keras 1 has no such layers, and cannot read a name list in parts (it came with 2.1.5).
NOT_KERAS_1 = ("depthwise", "gru_after", "long_names")

NETWORKS = {
    each.__name__: each
    for each in (
        plain, flattened_point, joined, flattened_norm, sequence, shared, nested, recurrent, film, film_lstm,
        long_names, mixed, mixed_nested,
    )
}  # fmt: skip
TRAINED = ("recurrent", "shared")


def generate(keras, folder, data_format, matrix=False):
    """Saves NETWORK.full.h5, NETWORK.h5 and NETWORK.npz (x, channels last, and y) for every network of the set."""
    k = Layers(keras, data_format)
    folder.mkdir(parents=True, exist_ok=True)
    networks = MATRIX if matrix else NETWORKS
    for name in [name for name in networks if k.version > 1 or name not in NOT_KERAS_1]:
        random = np.random.RandomState(sum(map(ord, name)))
        model = networks[name](k)
        if name in TRAINED:
            model.compile("adam", "mse") if k.version == 1 else model.compile(optimizer="adam", loss="mse")
        give_weights(keras, model, random)
        x = given(name, model, k.first, random)
        if name in TRAINED:
            train(k, model, x, random)
        y = np.asarray(model.predict(moved(x, k.first), batch_size=BATCH))
        model.save(str(folder / f"{name}.full.h5"))
        if k.version < 3:
            model.save_weights(str(folder / f"{name}.h5"))
        np.savez(folder / f"{name}.npz", x=x, y=y)


def train(k, model, x, random):
    """One step, so that the optimizer has weights of its own to save."""
    outputs = model.predict(moved(x, k.first), batch_size=BATCH)
    model.train_on_batch(moved(x, k.first), outputs + random.uniform(-1, 1, outputs.shape))


def give_weights(keras, model, random):
    """Values of every array distinct, variances positive."""
    for variable in model.weights:
        name = getattr(variable, "path", None) or variable.name
        low = 0.5 if "variance" in name or "running_std" in name else -0.6
        if hasattr(variable, "assign"):
            variable.assign(random.uniform(low, low + 1.2, variable.shape))
        else:
            shape = keras.backend.get_value(variable).shape
            keras.backend.set_value(variable, random.uniform(low, low + 1.2, shape).astype(np.float32))


def given(name, model, first, random):
    """An input, channels last: words, or a map of numbers."""
    if name in ("lstm", "gru_before", "gru_after"):
        return random.randint(0, WORDS, (BATCH, TOKENS)).astype(np.int32)
    return random.uniform(-1, 1, (BATCH, *given_shape(model, first))).astype(np.float32)


def given_shape(model, first):
    """The shape of the input, channels last, without the batch."""
    shape = tuple(model.input_shape[1:])
    return (*shape[:-3], *shape[-2:], shape[-3]) if first and len(shape) >= 3 else shape


def moved(x, first):
    return np.ascontiguousarray(np.moveaxis(x, -1, -3)) if first and x.ndim >= 4 else x


# --- Keras 3 models from the configurations of Keras 2

SPATIAL = ("kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias")
RECURRENT = ("units", "activation", "recurrent_activation", "use_bias", "return_sequences", "go_backwards")
TAKEN = {
    "Conv1D": ("filters", *SPATIAL),
    "Conv2D": ("filters", *SPATIAL),
    "Conv3D": ("filters", *SPATIAL),
    "Conv2DTranspose": ("filters", *(key for key in SPATIAL if key != "dilation_rate")),
    "SeparableConv1D": ("filters", "depth_multiplier", *SPATIAL),
    "SeparableConv2D": ("filters", "depth_multiplier", *SPATIAL),
    "DepthwiseConv2D": ("depth_multiplier", *SPATIAL),
    "ConvLSTM2D": ("filters", "kernel_size", "strides", "padding", *(k for k in RECURRENT if k != "units")),
    "LSTM": RECURRENT,
    "GRU": (*RECURRENT, "reset_after"),
    "SimpleRNN": tuple(key for key in RECURRENT if key != "recurrent_activation"),
    "Dense": ("units", "activation", "use_bias"),
    "Flatten": (),
    "Activation": ("activation",),
    "Dropout": ("rate",),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "Embedding": ("input_dim", "output_dim"),
    "PReLU": ("shared_axes",),
}


def rebuilt_in_keras_3(keras, config):
    """A Sequential configuration of Keras 2 as a Keras 3 model; ``{"network": NAME}`` is built as it is here.

    Only the listed arguments are taken: what Keras 3 no longer knows, or has another default for, is stated.
    """
    if "network" in config:
        return NETWORKS[config["network"]](Layers(keras, "channels_last"))
    inner = config["config"]
    documents = inner["layers"] if isinstance(inner, dict) else inner
    shape = documents[0]["config"]["batch_input_shape"][1:]
    layers = [keras_3_layer(keras, each) for each in documents]
    return keras.Sequential([keras.Input(tuple(shape)), *layers])


def keras_3_layer(keras, document):
    class_name, config = document["class_name"], document["config"]
    make = getattr(keras.layers, class_name)
    if class_name == "TimeDistributed":
        return make(keras_3_layer(keras, config["layer"]), name=config["name"])
    if class_name == "Bidirectional":
        return make(keras_3_layer(keras, config["layer"]), merge_mode=config["merge_mode"], name=config["name"])
    told = {key: config[key] for key in TAKEN[class_name] if key in config}
    for key in ("activation", "recurrent_activation"):
        if told.get(key) == "hard_sigmoid":
            told[key] = hard_sigmoid_of_keras_2(keras)
    if class_name == "GRU":
        told.setdefault("reset_after", False)
    return make(name=config["name"], **told)


@functools.lru_cache(maxsize=1)
def hard_sigmoid_of_keras_2(keras):
    """Keras 3 has another slope under that name. Registered: Bidirectional copies its layer by configuration."""

    @keras.saving.register_keras_serializable("wio")
    def hard_sigmoid_of_keras_2(x):
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    return hard_sigmoid_of_keras_2
