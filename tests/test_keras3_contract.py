"""The public contract of adapters, for `.keras` and for weights alone."""

from __future__ import annotations

from pathlib import Path

import test_keras3_malformed as files

from wio.adapters.keras3 import Keras3
from wio.testing import AdapterContract


class TestArchive(AdapterContract):
    adapter = Keras3()

    def sample(self, folder: Path) -> Path:
        return files.archive(folder)


class TestWeights(AdapterContract):
    adapter = Keras3()

    def sample(self, folder: Path) -> Path:
        return files.h5(folder)
