"""Load weight files into models of the Keras that runs this, and say what the models then compute.

    python run_layers.py --backend theano --jobs jobs.json --out outputs.npz --report report.json
    python run_layers.py --backend theano --generate FOLDER --data-format channels_first

One process does all jobs. A model is built once per configuration and loaded many times; before each load every
weight is set to NaN, so that one that a load leaves alone shows in the output. ``--generate`` saves small networks
(layer_networks.py) as this Keras saves them, with an input and the output that it computes.

Theano runs without its optimizer and without C++: these networks are tiny, and compiling them takes minutes. The same
operators run, in NumPy; the recorded outputs of real Keras on compiled Theano are reproduced to 3e-6.

The jobs are one JSON document:

    {"models": {KEY: {"config": model_config, "data_format": ...}}, "inputs": "inputs.npz",
     "loads": [{"id": ..., "mode": "order" | "by_name" | "whole", "model": KEY, "file": ..., "input": KEY}, ...]}

``whole`` builds the model from the file itself (``load_model``); ``arrays`` takes no file but the ``weights``, keys of
the inputs, in the order of ``get_weights``. A load that raises is reported, not fatal.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import types

import numpy as np

FAST_THEANO = "optimizer=None,linker=py,cxx="


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["tensorflow", "theano"], required=True)
    parser.add_argument("--compiledir", help="where Theano keeps its folder of compiled code")
    parser.add_argument("--jobs")
    parser.add_argument("--out")
    parser.add_argument("--report")
    parser.add_argument("--generate", metavar="FOLDER")
    parser.add_argument("--matrix", action="store_true", help="those of the matrix of formats")
    parser.add_argument("--data-format", choices=["channels_first", "channels_last"], default="channels_last")
    options = parser.parse_args()
    keras = import_keras(options.backend, options.compiledir)
    if options.generate:
        import layer_networks

        layer_networks.generate(keras, pathlib.Path(options.generate), options.data_format, options.matrix)
    if options.jobs:
        outputs, errors = do_jobs(keras, json.loads(pathlib.Path(options.jobs).read_text()))
        np.savez(options.out, **outputs)
        report = {"keras": keras.__version__, "backend": keras.backend.backend(), "errors": errors}
        pathlib.Path(options.report).write_text(json.dumps(report, indent=1))
    return 0


def import_keras(backend, compiledir):
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if backend == "theano":
        os.environ["THEANO_FLAGS"] = ",".join(filter(None, [FAST_THEANO, os.environ.get("THEANO_FLAGS")]))
        restore_scipy_names()
        import theano_compat

        theano_compat.install(compiledir)
        let_theano_pool()
    import keras
    import keras.backend
    import keras.layers
    import keras.models

    if keras.backend.backend() != backend:
        raise RuntimeError(f"Keras runs on {keras.backend.backend()}, not on {backend}")
    return keras


def restore_scipy_names():
    """Theano's own convolution in Python calls functions of SciPy that have moved to other modules since 1.8."""
    import scipy.signal._signaltools as moved
    import scipy.signal._sigtools as low

    old = types.ModuleType("scipy.signal.signaltools")
    old.__dict__.update(vars(moved))
    sys.modules["scipy.signal.signaltools"] = old
    sys.modules["scipy.signal.sigtools"] = low


def let_theano_pool():
    """Theano's own pooling in Python indexes with a list of slices, which NumPy 1.23 refuses."""
    import theano.tensor.signal.pool

    class IndexedByLists(np.ndarray):
        def __getitem__(self, key):
            return super().__getitem__(tuple(key) if isinstance(key, list) else key)

    pool = theano.tensor.signal.pool.Pool
    perform = pool.perform

    def perform_on_lenient(self, node, inputs, *rest):
        return perform(self, node, [inputs[0].view(IndexedByLists), *inputs[1:]], *rest)

    pool.perform = perform_on_lenient


def do_jobs(keras, jobs):
    """For each load its output, and for each that raised what it said."""
    inputs = np.load(jobs["inputs"])
    models, outputs, errors = {}, {}, {}
    for load in jobs["loads"]:
        try:
            if load["mode"] == "whole":
                model = keras.models.load_model(load["file"])
            else:
                key = load["model"]
                if key not in models:
                    models[key] = build(keras, **jobs["models"][key])
                model = models[key]
                poison(model)
                if load["mode"] == "arrays":
                    model.set_weights([inputs[each] for each in load["weights"]])
                else:
                    # Keras 3 takes by_name=True for legacy files only, and False for none; older Keras takes either.
                    model.load_weights(load["file"], **({"by_name": True} if load["mode"] == "by_name" else {}))
            outputs[load["id"]] = predict(keras, model, inputs[load["input"]])
        except Exception as error:  # the report carries whatever the framework raises
            errors[load["id"]] = f"{type(error).__name__}: {error}"[:2000]
    return outputs, errors


def build(keras, config, data_format):
    """The model; some layers of Keras 1 do not save their data format and take that of the session."""
    if not is_keras_3(keras) and keras.__version__.startswith("1."):
        keras.backend.set_image_dim_ordering("th" if data_format == "channels_first" else "tf")
    else:
        keras.backend.set_image_data_format(data_format)
    if is_keras_3(keras):
        import layer_networks

        return layer_networks.rebuilt_in_keras_3(keras, config)
    return keras.models.model_from_json(json.dumps(config))


def poison(model):
    model.set_weights([np.full(np.shape(value), np.nan, np.float32) for value in model.get_weights()])


def predict(keras, model, x):
    if is_keras_3(keras):
        return np.asarray(model(x, training=False), np.float32)
    return np.asarray(model.predict(x, batch_size=len(x)), np.float32)


def is_keras_3(keras):
    return int(keras.__version__.split(".")[0]) >= 3


if __name__ == "__main__":
    sys.exit(main())
