"""Record what Keras 0.3.3, 1.0.5 and 1.0.6 save and compute, on Theano: tests/data/real_frameworks/keras_early.

    python record_early_keras.py SOURCES FOLDER

SOURCES holds the unpacked source distributions (``pip download --no-deps --no-binary :all: keras==0.3.3``, and so on).
The interpreter is that of the judge Keras 1.2.2 on Theano. One process for each version; these Kerases know nothing of
Theano 1.0's module ``pool``, which is put back under its old name. Nothing that they compute is changed.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np

BATCH = 3
# In the words of Keras 1. An epsilon this large shows whether it stands beside the deviation or the variance.
IMAGE = [
    ("Convolution2D", {"nb_filter": 3, "nb_row": 3, "nb_col": 2, "border_mode": "valid"}),
    ("BatchNormalization", {"epsilon": 0.05, "mode": 0}),
    ("Activation", {"activation": "relu"}),
    ("Convolution2D", {"nb_filter": 4, "nb_row": 2, "nb_col": 2, "border_mode": "valid"}),
    ("Flatten", {}),
    ("Dense", {"output_dim": 5}),
    ("BatchNormalization", {"epsilon": 0.05, "mode": 0}),
]
SEQUENCE = [
    ("Convolution1D", {"nb_filter": 4, "filter_length": 3, "border_mode": "valid"}),
    ("LSTM", {"output_dim": 3, "return_sequences": True, "inner_activation": "sigmoid"}),
    ("GRU", {"output_dim": 2, "return_sequences": True, "inner_activation": "sigmoid"}),
    ("TimeDistributedDense", {"output_dim": 5}),
    ("SimpleRNN", {"output_dim": 4}),
]
VERSIONS = {
    "0.3.3": ("image_first", "image_last", "sequence", "graph"),
    "1.0.5": ("image_first",),
    "1.0.6": ("image_first",),
}


def layers_of(network):
    """Class and arguments of each layer; the first has the shape of the input."""
    if network == "sequence":
        found = [(name, dict(config)) for name, config in SEQUENCE]
        found[0][1]["input_shape"] = (7, 2)
        return found
    first = network == "image_first"
    found = [(name, dict(config)) for name, config in IMAGE]
    for name, config in found:
        if name == "Convolution2D":
            config["dim_ordering"] = "th" if first else "tf"
    found[0][1]["input_shape"] = (2, 6, 5) if first else (6, 5, 2)
    found[1][1]["axis"] = 1 if first else -1
    return found


def main():
    if len(sys.argv) == 3:
        sources, folder = map(pathlib.Path, sys.argv[1:])
        for version in VERSIONS:
            subprocess.run([sys.executable, __file__, str(sources), str(folder), version], check=True)
        return
    sources, folder, version = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    import_keras(sources / ("Keras-" + version))
    folder = folder / ("k" + version.replace(".", "") + "_th")
    folder.mkdir(parents=True, exist_ok=True)
    for network in VERSIONS[version]:
        record(network, folder)


def import_keras(source):
    import run_layers

    os.environ["KERAS_BACKEND"] = "theano"
    os.environ["THEANO_FLAGS"] = run_layers.FAST_THEANO
    run_layers.restore_scipy_names()
    import theano_compat

    sys.path.insert(0, str(source))
    try:
        theano_compat.install()
    except ImportError as error:
        # Its last step is about a function of Keras 1.2, which came later than these.
        if "conv_utils" not in str(error):
            raise
    run_layers.let_theano_pool()
    import theano.tensor.signal
    from theano.tensor.signal import pool

    old = types.ModuleType("theano.tensor.signal.downsample")
    old.max_pool_2d = pool.pool_2d
    sys.modules[old.__name__] = theano.tensor.signal.downsample = old
    import keras

    if not keras.__file__.startswith(str(source)):
        raise RuntimeError("imported " + keras.__file__)


def record(network, folder):
    random = np.random.RandomState(sum(map(ord, network)))
    model, inputs = (graph if network == "graph" else sequential)(network)
    # Vectors are positive, for a deviation is among them.
    lows = [-0.4 if w.ndim > 1 else 0.4 for w in model.get_weights()]
    values = [random.uniform(low, low + 0.8, w.shape) for low, w in zip(lows, model.get_weights(), strict=True)]
    model.set_weights([each.astype(np.float32) for each in values])
    x = random.uniform(-1, 1, (BATCH, *inputs)).astype(np.float32)
    if network == "graph":
        y = model.predict({"x": x})["y"]
    else:
        y = model.predict(np.moveaxis(x, -1, 1) if network == "image_first" else x, batch_size=BATCH)
    model.save_weights(str(folder / (network + ".h5")), overwrite=True)
    (folder / (network + ".json")).write_text(json.dumps(json.loads(model.to_json()), indent=1) + "\n")
    np.savez(str(folder / (network + ".npz")), x=x, y=y)


def sequential(network):
    from keras.layers import convolutional, core, normalization, recurrent
    from keras.models import Sequential

    model = Sequential()
    for name, config in layers_of(network):
        module = next(each for each in (convolutional, core, normalization, recurrent) if hasattr(each, name))
        model.add(getattr(module, name)(**config))
    model.compile("sgd", "mse")
    return model, (7, 2) if network == "sequence" else (6, 5, 2)


def graph(_):
    from keras.layers.core import Dense
    from keras.models import Graph

    model = Graph()
    model.add_input(name="x", input_shape=(3,))
    model.add_node(Dense(4, activation="tanh"), name="hidden", input="x")
    model.add_node(Dense(2), name="last", input="hidden")
    model.add_output(name="y", input="last")
    model.compile("sgd", {"y": "mse"})
    return model, (3,)


if __name__ == "__main__":
    main()
