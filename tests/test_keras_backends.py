"""Files that name another backend than TensorFlow or Theano: refused with the reason, or known for what they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_judge import SAVED, THEANO_2, Court, Saved, Tag, model_config

import wio
from wio.errors import AdapterError
from wio.port import import_into

pytestmark = pytest.mark.xdist_group("keras_backends")

CONV = SAVED["k224_tf_last/ConvFlattenDense"]


def saying(backend: str, path: Path, version: str = "2.2.4") -> Path:
    """A real file of Keras 2.2.4 on TensorFlow that names another backend, and perhaps another version."""
    shutil.copy(CONV.full, path)
    with h5py.File(path, "r+") as file:
        for group in (file, file["model_weights"]):
            group.attrs["backend"] = backend.encode()
            group.attrs["keras_version"] = version.encode()
    return path


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("cntk", "_need_convert_kernel"),
        ("plaidml", "does not know whether its kernels run backwards"),
        ("torch", "does not know whether its kernels run backwards"),
        ("\x1b[2J", r"names backend '\\x1b\[2J'"),
    ],
)
def test_a_backend_that_is_not_known_is_refused_with_the_reason(backend: str, reason: str, tmp_path: Path) -> None:
    path = saying(backend, tmp_path / "m.h5")
    with pytest.raises(AdapterError, match=reason) as error:
        wio.open(path)
    assert error.value.remedy == "say which it is: --from keras-tf or --from keras-theano"


def test_the_user_may_insist_on_either(tmp_path: Path) -> None:
    path = saying("cntk", tmp_path / "m.h5")
    kernel = next(name for name, t in wio.open(CONV.full).items() if t.role == "conv.kernel")
    for adapter, layout in (("keras-tf", "HWIO"), ("keras-theano", "HWIO flipped")):
        assert str(wio.open(path, adapter=adapter)[kernel].layout) == layout
    out = tmp_path / "out.h5"
    import_into(path, out, adapter="keras-theano", source_adapter="keras-tf")
    turned = wio.open(out)[kernel].numpy()
    np.testing.assert_array_equal(turned, wio.open(CONV.full)[kernel].numpy()[::-1, ::-1])
    with h5py.File(out, "r") as file:
        assert file["model_weights"].attrs["backend"] == "theano"


_ON_TORCH = """
import sys
import keras, numpy as np
assert keras.backend.backend() == "torch"
k = keras.layers
layers = [k.Conv2D(3, (3, 2), name="conv"), k.Flatten(name="flat"), k.Dense(4, name="fc")]
model = keras.Sequential([k.Input((6, 5, 2)), *layers])
random = np.random.default_rng(5)
model.set_weights([random.uniform(-0.6, 0.6, w.shape).astype("float32") for w in model.get_weights()])
x = random.uniform(-1, 1, (3, 6, 5, 2)).astype("float32")
model.save(sys.argv[1] + "/torch.full.h5")
np.savez(sys.argv[1] + "/torch.npz", x=x, y=model.predict(x, verbose=0))
"""


def test_keras_3_keeps_the_same_on_every_backend(tmp_path: Path) -> None:
    """A legacy file of Keras 3 on torch, taken to Theano and judged by Keras 2.2.4."""
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", _ON_TORCH, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    saved = Saved(Tag("g315_tf_last"), "torch", tmp_path)
    with h5py.File(saved.full, "r") as file:
        assert file.attrs["backend"] == "torch"
    found = wio.open(saved.full)
    assert found.metadata["adapter"] == "keras-tf"
    [rows] = [str(tensor.layout) for tensor in found.values() if tensor.role == "dense.kernel"]
    assert rows == "(HWC)O H=4 W=4 C=3"
    import_into(saved.full, tmp_path / "th.h5", adapter="keras-theano")
    court = Court(THEANO_2, tmp_path / "court")
    court.add("torch", "order", tmp_path / "th.h5", in_keras_2(model_config(CONV.full)), saved, False)
    court.sit()
    assert court.verdict("torch") is None


def in_keras_2(config: dict[str, Any]) -> dict[str, Any]:
    """The model above in the words of Keras 2.2.4, which saved one of the same layers."""
    told: dict[str, dict[str, Any]] = {
        "Conv2D": {"batch_input_shape": [None, 6, 5, 2], "filters": 3, "kernel_size": [3, 2], "activation": "linear"},
        "Dense": {"units": 4, "activation": "linear"},
    }
    config = json.loads(json.dumps(config))
    inner = config["config"]
    for document in inner if isinstance(inner, list) else inner["layers"]:
        document["config"] |= told.get(document["class_name"], {})
    return config
