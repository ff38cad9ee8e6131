"""Saves, with the Keras that runs this, a model with a frozen layer in a nested model, and another frozen as a whole.

    python frozen.py FOLDER

Writes ``m.h5`` and ``weights.npz``: of each nested layer the kernel, or the moving mean, by the layer's path. All
layers have one size: names aside, nothing but the order tells them apart.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
from run_layers import import_keras


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    keras = import_keras("theano", str(folder / "compiled"))
    layers, generator = keras.layers, np.random.RandomState(5)

    def nested(name, letters):
        x = y = layers.Input((4,))
        for letter in letters:
            y = layers.Dense(4, name=f"{letter}_d")(y)
            y = layers.BatchNormalization(name=f"{letter}_n")(y)
        return keras.models.Model(x, y, name=name)

    partly, wholly = nested("partly", "pq"), nested("wholly", "rs")
    partly.get_layer("p_d").trainable = False
    wholly.trainable = False
    x = layers.Input((4,))
    model = keras.models.Model(x, layers.Dense(3, name="out")(wholly(partly(x))))
    model.set_weights([generator.uniform(0.1, 0.9, w.shape).astype("float32") for w in model.get_weights()])
    model.save(str(folder / "m.h5"))
    found = {"out": model.get_layer("out").get_weights()[0]}
    for inner in (partly, wholly):
        for layer in inner.layers[1:]:
            place = 0 if layer.name.endswith("_d") else 2
            found[f"{inner.name}/{layer.name}"] = layer.get_weights()[place]
    np.savez(str(folder / "weights.npz"), **found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
