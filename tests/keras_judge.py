"""What the Keras tests share: the corpus of files that real Kerases saved, and the real Kerases as judges.

The judges are Keras 3 on TensorFlow, from the environment of the tests, and Keras 2.2.4 and 1.2.2 on Theano, from
environments that WIO_THEANO2_PYTHON and WIO_THEANO1_PYTHON name. One that is missing is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from conftest import judge_python

HERE = Path(__file__).parent
LAYERS = HERE / "data" / "real_frameworks" / "keras_layers"
RUN_LAYERS = HERE / "judges" / "run_layers.py"
FORMATS = ("channels_last", "channels_first")
FAMILIES = {"033": "0.3", "105": "1.2", "106": "1.2", "122": "1.2", "205": "2.0", "224": "2.2", "315": "2.2"}
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Tag:
    """A Keras: ``k224_th_first`` is Keras 2.2.4 on Theano, channels first."""

    name: str

    @property
    def family(self) -> str:
        return FAMILIES[self.name[1:4]]

    @property
    def theano(self) -> bool:
        return self.name.split("_")[1] == "th"

    @property
    def backend(self) -> str:
        return "theano" if self.theano else "tensorflow"

    @property
    def adapter(self) -> str:
        return "keras-theano" if self.theano else "keras-tf"

    @property
    def first(self) -> bool:
        return self.name.endswith("first")

    @property
    def data_format(self) -> str:
        return FORMATS[self.first]

    @property
    def options(self) -> dict[str, str]:
        return {"keras": self.family, "data_format": self.data_format}


@dataclass(frozen=True)
class Saved:
    """A model that a real Keras saved, with an input (channels last) and the output that it computed (as it was)."""

    tag: Tag
    layer: str
    folder: Path = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.tag.name}/{self.layer}"

    @property
    def full(self) -> Path:
        return self.folder / f"{self.layer}.full.h5"

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.layer}.h5"

    @property
    def timed(self) -> bool:
        """Whether the axis after the batch is time, so that channels first come third."""
        return self.layer.startswith(("TimeDist", "ConvLSTM", "film"))

    def recorded(self) -> tuple[Any, Any]:
        """The input and the output, both channels last."""
        with np.load(self.folder / f"{self.layer}.npz") as arrays:
            return arrays["x"], self.to_last(arrays["y"]) if self.tag.first else arrays["y"]

    def to_first(self, x: Any) -> Any:
        return np.moveaxis(x, -1, self._place(x)) if x.ndim >= 4 else x

    def to_last(self, y: Any) -> Any:
        return np.moveaxis(y, self._place(y), -1) if y.ndim >= 4 else y

    def _place(self, array: Any) -> int:
        return 2 if self.timed and array.ndim == 5 else 1


TAGS = tuple(Tag(path.name) for path in sorted(LAYERS.iterdir()))
SAVED = {
    saved.name: saved
    for tag in TAGS
    for path in sorted((LAYERS / tag.name).glob("*.full.h5"))
    for saved in [Saved(tag, path.name.removesuffix(".full.h5"), path.parent)]
}


def model_config(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        found: dict[str, Any] = json.loads(file.attrs["model_config"])
    return found


def config_layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    inner = config["config"]
    return inner if isinstance(inner, list) else inner["layers"]


# --- the judges


@dataclass(frozen=True)
class Judge:
    """A real Keras that loads files: its backend, and the interpreter that has it."""

    name: str
    backend: str
    variable: str | None

    def python(self) -> str:
        if self.variable is None:
            return sys.executable
        return judge_python(self.variable)

    def run(self, arguments: list[str], folder: Path) -> None:
        """Runs run_layers.py; what it printed is shown if it failed."""
        command = [self.python(), str(RUN_LAYERS), "--backend", self.backend, "--compiledir", str(folder / "compiled")]
        # The environment of the tests must not reach into that of the judge.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "THEANO"))}
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=inherited, check=False)
        assert done.returncode == 0, f"{self.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"


KERAS_3 = Judge("Keras 3 on TensorFlow", "tensorflow", None)
THEANO_2 = Judge("Keras 2.2.4 on Theano", "theano", "WIO_THEANO2_PYTHON")
THEANO_1 = Judge("Keras 1.2.2 on Theano", "theano", "WIO_THEANO1_PYTHON")


@dataclass(repr=False)
class Court:
    """Loads to be judged by one Keras: collected first, done by one process, then asked about."""

    judge: Judge
    folder: Path
    models: dict[str, Any] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    loads: list[dict[str, str]] = field(default_factory=list)
    expected: dict[str, tuple[Saved, bool, Any]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, mode: str, file: Path, config: dict[str, Any] | None, source: Saved, first: bool) -> None:
        """Asks for the output of ``config`` with the weights of ``file`` on the source's input."""
        text = json.dumps([config, first], sort_keys=True)
        key = self._keys.setdefault(text, str(len(self._keys)))
        self.models[key] = {"config": config, "data_format": FORMATS[first]}
        x, y = source.recorded()
        given = f"{source.name}:{first}"
        self.inputs[given] = np.ascontiguousarray(source.to_first(x) if first else x)
        self.loads.append({"id": case, "mode": mode, "model": key, "file": str(file), "input": given})
        self.expected[case] = (source, first, y)

    def sit(self) -> None:
        self.folder.mkdir(parents=True)
        np.savez(self.folder / "inputs.npz", **self.inputs)
        jobs = {"models": self.models, "inputs": str(self.folder / "inputs.npz"), "loads": self.loads}
        (self.folder / "jobs.json").write_text(json.dumps(jobs))
        places = {name: str(self.folder / file) for name, file in (("out", "outputs.npz"), ("report", "report.json"))}
        told = [word for name, place in places.items() for word in (f"--{name}", place)]
        self.judge.run(["--jobs", str(self.folder / "jobs.json"), *told], self.folder)
        with np.load(places["out"]) as outputs:
            self.outputs = dict(outputs)
        self.errors = json.loads(Path(places["report"]).read_text())["errors"]

    def verdict(self, case: str) -> str | None:
        """What is wrong with a case, or None."""
        if case in self.errors:
            return f"{case}: {self.errors[case]}"
        source, first, y = self.expected[case]
        got = source.to_last(self.outputs[case]) if first else self.outputs[case]
        if got.shape != y.shape:
            return f"{case}: gives shape {got.shape}, the source gave {y.shape}"
        worst = np.abs(got - y).max()
        return None if worst <= TOLERANCE else f"{case}: off by {worst}"


# --- HDF5 as h5py sees it


def tree(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 file: groups, arrays (dtype, shape, bytes), attributes (dtype, shape, value)."""
    found: dict[str, Any] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = (str(node.dtype), node.shape, node[()].tobytes())
        else:
            found[name] = "group"
        for key in node.attrs:
            found[f"{name}@{key}"] = attribute(node, key)

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    return found


def attribute(node: Any, key: str) -> tuple[Any, ...]:
    identity = node.attrs.get_id(key)
    value = node.attrs[key]
    kind = identity.get_type()
    text = h5py.check_string_dtype(identity.dtype)
    stored = str(identity.dtype) if text is None else (text.encoding, text.length, kind.is_variable_str())
    flat = value if isinstance(value, str | bytes | h5py.Empty) else np.asarray(value).tolist()
    return stored, identity.shape, repr(flat) if isinstance(value, h5py.Empty) else flat
