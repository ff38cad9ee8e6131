"""Every built-in adapter passes the public contract, on files that the formats' own libraries wrote."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from conftest import TESTS
from test_cli import arrays, make

from wio.adapter import Adapter
from wio.adapters.keras_hdf5 import KerasTF, KerasTheano
from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.adapters.wio_file import WioFile
from wio.testing import AdapterContract

REAL = TESTS / "data" / "real_frameworks"


def copied(source: Path, folder: Path) -> Path:
    target = folder / source.name
    target.write_bytes(source.read_bytes())
    return target


class TestWio(AdapterContract):
    adapter: ClassVar[Adapter] = WioFile()

    def sample(self, folder: Path) -> Path:
        tensors = {"c/k": (arrays(3, 2, 4, 5), "conv.kernel", "HWIO"), "x": (arrays(2), None, None)}
        return make(folder / "a.wio", tensors)


class TestKerasTF(AdapterContract):
    adapter: ClassVar[Adapter] = KerasTF()

    def sample(self, folder: Path) -> Path:
        return copied(REAL / "keras_layers" / "k224_tf_last" / "ConvFlattenDense.full.h5", folder)


class TestKerasTheano(AdapterContract):
    adapter: ClassVar[Adapter] = KerasTheano()
    write_options: ClassVar[dict[str, str]] = {"keras": "1.2"}

    def sample(self, folder: Path) -> Path:
        return copied(REAL / "keras_layers" / "k122_th_first" / "LSTM.full.h5", folder)


class TestTFCheckpointV1(AdapterContract):
    adapter: ClassVar[Adapter] = TFCheckpoint()

    def sample(self, folder: Path) -> Path:
        return copied(REAL / "tf1" / "dtypes" / "v1" / "model.ckpt", folder)
