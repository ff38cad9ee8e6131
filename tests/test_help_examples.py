"""The examples that `wio COMMAND --help` shows: wio takes each, and those on small files are run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from wio.cli.main import COMMANDS, build_parser
from wio.cli.outline import outline

# What a line names that no small file can stand for: large networks (run in test_inception_v4.py and test_verify.py),
# registries (test_oci*.py), keys (test_sign*.py), and what needs an extra (test_show*.py).
NOT_RUN = ("inception_v4", "posenet", "oci://", "sign", ".svg", ".png")


def examples() -> list[str]:
    program = outline(build_parser())
    shown = (command.epilog.partition("example:\n")[2].partition("\n\n")[0] for command in program.all())
    lines = (line.partition(" # ")[0].partition(" > ")[0].strip() for text in shown for line in text.splitlines())
    return [line for line in lines if line.startswith("wio ")]


def test_every_command_has_one() -> None:
    assert {line.split()[1] for line in examples()} == set(COMMANDS)


@pytest.mark.parametrize("line", examples())
def test_wio_takes_it(line: str) -> None:
    arguments = build_parser().parse_args(shlex.split(line)[1:])
    assert callable(arguments.run)


CONFIG = {
    "class_name": "Sequential",
    "config": [
        {
            "class_name": "Conv2D",
            "config": {
                "name": "conv1",
                "batch_input_shape": [None, 6, 5, 2],
                "filters": 3,
                "kernel_size": [3, 3],
                "strides": [1, 1],
                "padding": "valid",
                "data_format": "channels_last",
                "dilation_rate": [1, 1],
                "activation": "linear",
                "use_bias": True,
            },
        },
        {"class_name": "BatchNormalization", "config": {"name": "bn1", "axis": -1, "epsilon": 1e-3}},
    ],
}
DESCRIPTION = """
id = "tiny"
title = "tiny"
[network]
layers = [
  ["input", "Input", [], { axes = "HWC", sizes = [6, 5, 2] }],
  ["conv1", "Conv", "input", { kernel_shape = [3, 3], filters = 3, bias = true }],
  ["bn1", "BatchNormalization", "conv1", { epsilon = 1e-3 }],
]
outputs = ["bn1"]
[dialects.keras]
adapters = ["keras-tf", "keras-theano", "wio", "onnx"]
title = "its own names"
source = "this test"
verified = "by this test"
layers = "{layer}"
[dialects.keras.weights]
"Conv.kernel" = "kernel"
"Conv.bias" = "bias"
"BatchNormalization.gamma" = "gamma"
"BatchNormalization.beta" = "beta"
"BatchNormalization.mean" = "moving_mean"
"BatchNormalization.variance" = "moving_variance"
"""


def run(line: str, folder: Path, *allowed: int) -> None:
    words = [sys.executable, "-m", "wio", *shlex.split(line)[1:]]
    environment = {**os.environ, "WIO_REGISTRY_PATH": str(folder / "registry")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode in allowed and "Traceback" not in done.stderr, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name, all made from one small Keras model."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 3)).astype("f4")
    layers = {"conv1": {"kernel": kernel, "bias": np.arange(3, dtype="f4")}}
    layers["bn1"] = {
        part: rng.uniform(0.5, 1, 3).astype("f4") for part in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    with h5py.File(folder / "model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(CONFIG)
        weights = file.create_group("model_weights")
        for place in (file, weights):
            place.attrs["backend"], place.attrs["keras_version"] = "tensorflow", "2.2.4"
        weights.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for name, arrays in layers.items():
            group = weights.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/{part}:0".encode() for part in arrays])
            for part, array in arrays.items():
                group.create_dataset(f"{name}/{part}:0", data=array)
    (folder / "registry").mkdir()
    (folder / "registry" / "tiny.toml").write_text(DESCRIPTION, encoding="utf-8")
    (folder / "models" / "a").mkdir(parents=True)
    (folder / "models" / "b").mkdir()
    shutil.copy(folder / "model.h5", folder / "models" / "a" / "one.h5")
    shutil.copy(folder / "model.h5", folder / "models" / "b" / "two.h5")
    for line in (
        "wio export model.h5 -o model.wio",
        "wio export model.h5 -o a.wio",
        "wio export model.h5 -o b.wio",
        "wio convert model.h5 --into keras-theano --option keras=1.2 -o weights.h5",
        "wio convert model.h5 --into tf-checkpoint -o model.ckpt",
        "wio convert model.h5 --into numpy -o other.npz",
        "wio convert model.h5 --arch tiny --into onnx -o model.onnx",
    ):
        run(line, folder, 0)
    for name in ("untrained.onnx", "fine_tuned.onnx"):
        shutil.copy(folder / "model.onnx", folder / name)
    patches = np.lib.stride_tricks.sliding_window_view(x := rng.normal(size=(1, 6, 5, 2)).astype("f4"), (3, 3), (1, 2))
    seen = np.einsum("nhwiyx,yxio->nhwo", patches, kernel).astype("f4")
    np.save(folder / "x.npy", x)
    np.save(folder / "conv1.npy", seen)
    np.savez(folder / "seen.npz", images=x, conv1=np.maximum(seen, 0))
    np.savez(folder / "weights.npz", conv1=kernel)
    return folder


RUN = [line for line in examples() if not any(word in line for word in NOT_RUN)]


def test_most_are_run() -> None:
    assert len(RUN) > len(examples()) / 2


@pytest.mark.parametrize("line", RUN)
def test_it_runs(files: Path, tmp_path: Path, line: str) -> None:
    """Exit code 1 is an answer too: files differ, something was found."""
    folder = tmp_path / "here"
    shutil.copytree(files, folder)
    if "conv1_W" in line:
        run("wio convert model.h5 --into keras-theano --option keras=1.2 -o theano.h5", folder, 0)
        (folder / "theano.h5").replace(folder / "model.h5")
    if "registry check" in line:
        (folder / "model.toml").write_text(DESCRIPTION.replace("tiny", "model"), encoding="utf-8")
    run(line, folder, 0, 1)
