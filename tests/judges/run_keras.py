"""Load weight files into the Keras Inception-V4 of the environment that runs this; say what it then holds.

    python run_keras.py --backend theano --data-format channels_first \\
        --load order:a.h5 --load by_name:a.h5 --json out.json --softmax out.npz

Per load the report lists the SHA-256 of every array as the framework gives it back (C order,
little-endian), and the softmax on the fixed input goes to `--softmax`, keyed by the load's place on the
command line. All arrays are filled with a poison value before each load: one that a load leaves alone is
an error, not a coincidence. Without `--load` the report holds the model's layers only.
"""

# ruff: noqa: B905 - this runs under Python 3.7 too, whose zip() knows no `strict`

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import platform
import sys
import time

import inception_v4_keras
import inception_v4_weights
import numpy as np

# Positive, so that a poisoned moving variance has a square root; no array of the network is constant.
POISON = 0.25


def main() -> int:
    options = parse_arguments()
    keras = import_keras(options.backend, options.compiledir)
    started = time.perf_counter()
    model = inception_v4_keras.build(keras, options.data_format)
    report = {
        "versions": versions(),
        "backend": options.backend,
        "data_format": options.data_format,
        "layers": [[layer.name, type(layer).__name__, output_shape(layer)] for layer in model.layers],
        "loads": [],
    }
    progress(f"built {len(model.layers)} layers in {time.perf_counter() - started:.1f} s")
    image = inception_v4_weights.make_input()
    if options.data_format == "channels_first":
        image = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
    softmaxes, untouched = {}, []
    for index, (mode, path) in enumerate(options.load):
        load = judge(keras, model, mode, path, image)
        softmaxes[str(index)] = load.pop("softmax")
        untouched += load["untouched"]
        report["loads"].append(load)
    pathlib.Path(options.json).write_text(json.dumps(report, indent=1))
    if options.softmax:
        np.savez(options.softmax, **softmaxes)
    if untouched:
        progress(f"a load left {len(untouched)} arrays as they were, the first {untouched[0]}")
    return 1 if untouched else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["tensorflow", "theano"], required=True)
    parser.add_argument("--data-format", choices=["channels_first", "channels_last"], default="channels_last")
    parser.add_argument("--load", action="append", default=[], type=load_argument, metavar="order|by_name:FILE")
    parser.add_argument("--json", required=True, help="where the report goes")
    parser.add_argument("--softmax", help="where the softmaxes go (.npz)")
    parser.add_argument("--compiledir", help="where Theano keeps what it compiles")
    return parser.parse_args()


def load_argument(text: str) -> tuple[str, str]:
    mode, _, path = text.partition(":")
    if mode not in ("order", "by_name") or not path:
        raise argparse.ArgumentTypeError("expected order:FILE or by_name:FILE")
    return mode, path


def import_keras(backend: str, compiledir: str | None):
    if backend == "theano":
        import theano_compat

        theano_compat.install(compiledir)
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Keras 1 and 2 reach their submodules only after somebody imported them.
    import keras
    import keras.backend
    import keras.layers
    import keras.models

    if keras.backend.backend() != backend:
        raise RuntimeError(f"Keras runs on {keras.backend.backend()}, not on {backend}")
    return keras


def judge(keras, model, mode: str, path: str, image: np.ndarray) -> dict:
    """Load one file and report arrays and output. A file that the framework refuses raises its error."""
    name = pathlib.Path(path).name
    poison(keras, model)
    before = digests(keras, model)
    started = time.perf_counter()
    # Keras 3 takes by_name=True for legacy files only, and False for none; old Keras takes either.
    model.load_weights(path, **({"by_name": True} if mode == "by_name" else {}))
    loaded = time.perf_counter()
    after = digests(keras, model)
    softmax = np.asarray(model.predict(image, batch_size=1), dtype=np.float32)
    predicted = time.perf_counter()
    progress(f"{mode} {name}: load {loaded - started:.1f} s, predict {predicted - loaded:.1f} s")
    top = np.argsort(-softmax[0], kind="stable")[:5]
    return {
        "mode": mode,
        "file": name,
        "arrays": after,
        "untouched": [entry for entry in after if entry in before],
        "finite": bool(np.isfinite(softmax).all()),
        "top5": [[int(index), float(softmax[0, index])] for index in top],
        "seconds": {"load": round(loaded - started, 2), "predict": round(predicted - loaded, 2)},
        "softmax": softmax,
    }


def poison(keras, model) -> None:
    variables = [variable for layer in model.layers for variable in layer.weights]
    values = [np.full(value.shape, POISON, dtype=np.float32) for value in held_values(keras, variables)]
    if is_keras_3(keras):
        for variable, value in zip(variables, values):
            variable.assign(value)
    else:
        # One session call. Setting layer by layer grows the graph of TF 1 and takes minutes.
        keras.backend.batch_set_value(list(zip(variables, values)))


def digests(keras, model) -> list[dict]:
    places = [(layer, index, w) for layer in model.layers for index, w in enumerate(layer.weights)]
    values = held_values(keras, [variable for _, _, variable in places])
    return [
        {"layer": layer.name, "index": index, "shape": list(value.shape), "sha256": sha256(value)}
        for (layer, index, _), value in zip(places, values)
    ]


def held_values(keras, variables) -> list[np.ndarray]:
    if is_keras_3(keras):
        return [np.asarray(variable) for variable in variables]
    return keras.backend.batch_get_value(variables)


def sha256(array: np.ndarray) -> str:
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.tobytes()).hexdigest()


def output_shape(layer) -> list:
    shape = layer.output.shape if not hasattr(layer, "output_shape") else layer.output_shape
    if isinstance(shape, list):
        shape = shape[0]
    return [None if length is None else int(length) for length in shape]


def versions() -> dict[str, str]:
    """The interpreter and every package that could change a number."""
    names = ["keras", "theano", "tensorflow", "numpy", "scipy", "h5py"]
    found = {name: sys.modules[name].__version__ for name in names if name in sys.modules}
    return {"python": platform.python_version(), **found}


def is_keras_3(keras) -> bool:
    return int(keras.__version__.split(".")[0]) >= 3


def progress(text: str) -> None:
    print(f"run_keras: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
