"""A trained LeNet, written by Caffe itself, against OpenCV's importer and what the real caffe-tensorflow made of it.

WIO_CORPUS names the folder with `caffe_lenet/`: the weights, caffe-tensorflow's .npy of them, and an input with the
outputs and blobs that OpenCV gives for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wio.adapters.caffe_model import CaffeModel
from wio.bundle import Bundle
from wio.plan import make_plan

# LeNet as trained: the weights' file has the training net, which states no size of its input.
LENET = """
name: "LeNet"
input: "data"
input_shape { dim: 1 dim: 1 dim: 28 dim: 28 }
"""


def corpus(name: str) -> Path:
    folder = os.environ.get("WIO_CORPUS")
    assert folder, "WIO_CORPUS must name the folder with the files of third parties"
    path = Path(folder) / "caffe_lenet" / name
    assert path.exists(), f"{path} is not there"
    return path


def network(tmp_path: Path) -> Bundle:
    definition = tmp_path / "lenet.prototxt"
    definition.write_text(LENET)
    return CaffeModel().read(corpus("net.caffemodel"), prototxt=str(definition))


def by_caffe_tensorflow() -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    found: dict[str, dict[str, np.ndarray[Any, Any]]] = np.load(
        corpus("lenet_py2.npy"), allow_pickle=True, encoding="latin1"
    ).item()
    return found


def test_it_is_known_by_its_content() -> None:
    assert CaffeModel().sniff(corpus("net.caffemodel")) == 10


def test_roles_and_layouts(tmp_path: Path) -> None:
    found = {name: (t.shape, t.role, str(t.layout)) for name, t in network(tmp_path).items()}
    assert found == {
        "conv1/weight": ((20, 1, 5, 5), "conv.kernel", "OIHW"),
        "conv1/bias": ((20,), "conv.bias", "O"),
        "conv2/weight": ((50, 20, 5, 5), "conv.kernel", "OIHW"),
        "conv2/bias": ((50,), "conv.bias", "O"),
        "ip1/weight": ((500, 800), "dense.kernel", "O(CHW) C=50 H=4 W=4"),
        "ip1/bias": ((500,), "dense.bias", "O"),
        "ip2/weight": ((10, 500), "dense.kernel", "OI"),
        "ip2/bias": ((10,), "dense.bias", "O"),
    }


def test_without_a_definition_the_rows_stay_open() -> None:
    bundle = CaffeModel().read(corpus("net.caffemodel"))
    assert str(bundle["ip1/weight"].layout) == "O(CHW) C=50"


def test_blobs_are_those_that_opencv_reads(tmp_path: Path) -> None:
    golden = np.load(corpus("golden.npz"))
    bundle = network(tmp_path)
    for layer in ("conv1", "conv2", "ip1", "ip2"):
        for place, short in enumerate(("weight", "bias")):
            ours = bundle[f"{layer}/{short}"].numpy()
            assert golden[f"cvparam|{layer}|{place}"].reshape(ours.shape).tobytes() == ours.tobytes()


@pytest.mark.parametrize("layer", ["conv1", "conv2", "ip1", "ip2"])
def test_rearranged_it_is_what_caffe_tensorflow_made(tmp_path: Path, layer: str) -> None:
    bundle = network(tmp_path)
    theirs = by_caffe_tensorflow()[layer]
    layout = {"ip1": "(HWC)O", "ip2": "IO"}.get(layer, "HWIO")
    ours = bundle[f"{layer}/weight"].to(layout).numpy()
    assert np.ascontiguousarray(theirs["weights"]).tobytes() == ours.tobytes()
    assert bundle[f"{layer}/bias"].numpy().tobytes() == theirs["biases"].tobytes()


def test_outputs(tmp_path: Path) -> None:
    golden = np.load(corpus("golden.npz"))
    bundle = network(tmp_path)
    rows = golden["out|pool2"].transpose(0, 2, 3, 1).reshape(1, -1)
    hidden = rows @ bundle["ip1/weight"].to("(HWC)O").numpy() + bundle["ip1/bias"].numpy()
    # The net's ReLU works in place: OpenCV's ip1 is the output before it or after it, and ip2 follows it in any case.
    np.testing.assert_allclose(np.maximum(golden["out|ip1"], 0), np.maximum(hidden, 0), atol=1e-5)
    logits = np.maximum(hidden, 0) @ bundle["ip2/weight"].to("IO").numpy() + bundle["ip2/bias"].numpy()
    np.testing.assert_allclose(golden["out|ip2"], logits, atol=1e-4)


def test_written_again_it_is_the_same_file(tmp_path: Path) -> None:
    bundle = network(tmp_path)
    plan = make_plan(bundle, CaffeModel().target(bundle), "caffe", {})
    CaffeModel().write(tmp_path / "again.caffemodel", plan.apply())
    assert (tmp_path / "again.caffemodel").read_bytes() == corpus("net.caffemodel").read_bytes()
