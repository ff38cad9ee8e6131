"""What wio asks of every adapter, asked of this one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from wio_darknet import Darknet
from wio_darknet.weights import Header

from wio.testing import AdapterContract

CFG = """
[net]
height=5
width=4
channels=2

[convolutional]
batch_normalize=1
filters=3
size=3
pad=1
activation=leaky

[connected]
output=6
activation=linear
"""
# A batch norm's four vectors and the kernel; biases and kernel of the dense layer.
NUMBERS = 4 * 3 + 3 * 2 * 3 * 3 + 6 + 6 * 3 * 5 * 4


class TestDarknet(AdapterContract):
    adapter = Darknet()

    def sample(self, folder: Path) -> Path:
        (folder / "net.cfg").write_text(CFG)
        path = folder / "net.weights"
        path.write_bytes(Header().packed() + np.arange(NUMBERS, dtype="<f4").tobytes())
        return path
