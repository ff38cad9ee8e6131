"""The files that are measured, made from seeds when first asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import wio
from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.layout import Layout
from wio.port import import_into

JUDGES = Path(__file__).parent.parent / "tests" / "judges"


@dataclass(frozen=True)
class Inputs:
    """``large``: bytes of what the full run has 1 GB of. ``huge``: of what it has 8 GB of. ``many``: small tensors."""

    folder: Path
    large: int
    huge: int
    many: int

    @cached_property
    def inception(self) -> dict[str, Path]:
        """The Inception-V4 checkpoints of the tests, 172 MB, in V1 and V2, written by TensorFlow in its own process."""
        code = (
            "import inception_v4_slim, inception_v4_weights, json, pathlib, sys;"
            "variables, folder = inception_v4_weights.make_variables(), pathlib.Path(sys.argv[1]);"
            "made = inception_v4_slim.write_checkpoints(variables, folder);"
            "print(json.dumps({k: str(v) for k, v in made.items()}))"
        )
        command = [sys.executable, "-c", code, str(self.folder)]
        done = subprocess.run(command, cwd=JUDGES, capture_output=True, text=True, check=True)
        return {key: Path(path) for key, path in json.loads(done.stdout.splitlines()[-1]).items()}

    @cached_property
    def inception_wio(self) -> Path:
        path = self.folder / "inception.wio"
        wio.export(self.inception["v2"], path, arch="inception-v4")
        return path

    @cached_property
    def inception_keras(self) -> Path:
        return self._ported(self.inception_wio, "inception-tf.h5", "keras-tf")

    @cached_property
    def large_wio(self) -> Path:
        return self._saved("large.wio", kernels(self.large, 512))

    @cached_property
    def large_oihw(self) -> Path:
        """The same weights in OIHW."""
        return self._saved("large-oihw.wio", turned(kernels(self.large, 512)))

    @cached_property
    def large_checkpoint(self) -> Path:
        return self._ported(self.large_wio, "large.ckpt", "tf-checkpoint")

    @cached_property
    def huge_wio(self) -> Path:
        return self._saved("huge.wio", kernels(self.huge, 1024))

    @cached_property
    def many_wio(self) -> Path:
        return self._saved("many.wio", small(self.many))

    def _saved(self, name: str, bundle: Bundle) -> Path:
        path = self.folder / name
        wio.save(bundle, path)
        return path

    def _ported(self, source: Path, name: str, adapter: str) -> Path:
        path = self.folder / name
        import_into(source, path, adapter=adapter)
        return path


def kernels(nbytes: int, channels: int) -> Bundle:
    """Convolutions of 3x3 over ``channels`` channels, with biases, of about so many bytes; made when they are read."""
    count = max(1, nbytes // (9 * channels * channels * 4))
    tensors = []
    for k in range(count):
        tensors.append(_tensor(f"conv_{k}/kernel", (3, 3, channels, channels), "conv.kernel", "HWIO", 2 * k))
        tensors.append(_tensor(f"conv_{k}/bias", (channels,), "conv.bias", "O", 2 * k + 1))
    return Bundle(tensors)


def small(count: int) -> Bundle:
    return Bundle(_tensor(f"block_{k // 100}/layer_{k}/bias", (k % 7 + 1,), "conv.bias", "O", k) for k in range(count))


def turned(bundle: Bundle) -> Bundle:
    return bundle.map(lambda tensor: tensor.to("OIHW") if tensor.role == "conv.kernel" else tensor)


def _tensor(name: str, shape: tuple[int, ...], role: str, layout: str, seed: int) -> Tensor:
    load: Callable[[], Any] = partial(_values, shape, seed)
    return Tensor(name, DTYPES["float32"], shape, load, role, Layout.parse(layout))


def _values(shape: tuple[int, ...], seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed).random(shape, np.float32)
