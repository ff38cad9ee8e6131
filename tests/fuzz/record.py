"""Has Keras and PyTorch write the files of which inputs replace a part: ``python -m fuzz.record``, in the folder tests.

Once, so that cases can be replayed where neither is installed.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

FIXED = Path(__file__).parent / "fixed"


def main() -> None:
    import keras
    import torch

    FIXED.mkdir(exist_ok=True)
    warnings.simplefilter("ignore")
    for name, model in _models(keras).items():
        model.save(FIXED / f"{name}.keras")
    keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)]).save_weights(
        FIXED / "m.weights.json", max_shard_size=80 / 1024**3
    )
    torch.save({"a": torch.arange(4.0)}, FIXED / "s-1.bin")
    torch.save({"b": torch.arange(3)}, FIXED / "s-2.bin", _use_new_zipfile_serialization=False)


def _models(keras: Any) -> dict[str, Any]:
    layers = keras.layers
    maps = [layers.Conv2D(3, (3, 2)), layers.BatchNormalization(), layers.Flatten(), layers.Dense(2)]
    given = layers.Input((4, 3))
    both = layers.Bidirectional(layers.LSTM(2))(layers.TimeDistributed(layers.Dense(3))(given))
    return {
        "sequential": keras.Sequential([layers.Input((6, 6, 2)), *maps]),
        "functional": keras.Model(given, layers.Dense(1)(both)),
    }


if __name__ == "__main__":
    main()
