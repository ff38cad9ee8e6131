"""The elephant: a TensorFlow checkpoint of Inception-V4 in ONNX and in Keras, without TensorFlow.

    python examples/inception_v4.py inception_v4.ckpt elephant.jpg --classes imagenet.txt

The checkpoint becomes a .wio file, that an ONNX model and a Keras model; both run on the picture, and the class and its
certainty are printed for each. ``pip install 'wio[verify]'`` brings what runs ONNX and reads pictures; Keras 3 takes
part where it is installed. Files are kept with ``--keep FOLDER``.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wio
from wio.plugins import architecture_named
from wio.running.network_input import array_input, picture_input

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

ARCHITECTURE = "inception-v4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="the prefix of the checkpoint, as in TensorFlow")
    parser.add_argument("picture", type=Path, help="a PNG or JPEG, or an .npy that is prepared: N H W C, from -1 to 1")
    parser.add_argument("--classes", type=Path, help="names of the 1,001 classes, one on a line, the background first")
    parser.add_argument("--keep", type=Path, help="a folder that exists, for the files that are made")
    arguments = parser.parse_args()
    names = arguments.classes.read_text(encoding="utf-8").splitlines() if arguments.classes else None
    image = prepared(arguments.picture)
    with tempfile.TemporaryDirectory() as folder:
        for framework, softmax in ported(arguments.checkpoint, arguments.keep or Path(folder), image).items():
            best = int(softmax.argmax())
            print(f"{framework:12} {names[best] if names else f'class {best}'}  {softmax[best]:.6f}")


def prepared(path: Path) -> Array:
    """The network's input, N C H W: a picture is cropped, resized and scaled as the description of the network says."""
    import numpy as np

    architecture = architecture_named(ARCHITECTURE)
    ready = path.suffix == ".npy"
    given = array_input(architecture, np.load(path)) if ready else picture_input(architecture, path)
    return np.ascontiguousarray(given.arrays["input"])


def ported(checkpoint: str, folder: Path, image: Array) -> dict[str, Array]:
    """What the network says in each framework that is here: 1,001 certainties, the first that of the background."""
    weights = folder / "inception_v4.wio"
    wio.export(checkpoint, weights, arch=ARCHITECTURE)
    said = {"onnxruntime": in_onnx(weights, folder / "inception_v4.onnx", image)}
    if importlib.util.find_spec("keras"):
        said["keras"] = in_keras(weights, folder / "inception_v4.keras", image)
    return said


def in_onnx(weights: Path, out: Path, image: Array) -> Array:
    import onnxruntime

    wio.import_into(weights, out, adapter="onnx")
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    [softmax] = session.run(None, {"input": image})
    return softmax[0]


def in_keras(weights: Path, out: Path, image: Array) -> Array:
    import keras
    import numpy as np

    wio.import_into(weights, out, adapter="keras3")
    model = keras.saving.load_model(out)
    return np.asarray(model(np.moveaxis(image, 1, -1), training=False))[0]


if __name__ == "__main__":
    main()
