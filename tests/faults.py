"""Kills wio while it writes, at every system call and at random times, and looks at what is left.

    python tests/faults.py --at-calls 500 --at-times 500 --seed 1

Each run writes one kind of output in a folder that holds an older one, or none, and is killed (SIGKILL). What is left
must read as the old output or as the new one; a set of files with fixed names may be refused instead. Then the same
command runs undisturbed: it must succeed, and leave exactly the files that it leaves anyway.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py  # noqa: F401  (imported once, before the processes are forked)
import numpy as np

from wio.adapters import _onnx_writer
from wio.adapters._safetensors_write import write as write_safetensors
from wio.bundle import Bundle, Tensor
from wio.cli.main import main
from wio.cli.signals import end_cleanly
from wio.dtypes import DTYPES
from wio.errors import WioError
from wio.plugins import open_bundle

ARCHITECTURE = ("--arch", "mtcnn-onet", "--dialect", "torch")
# The weights of O-Net as PyTorch names and shapes them (registry/mtcnn_onet.toml): 1.6 MB.
SHAPES = {
    "conv1.weight": (32, 3, 3, 3),
    "conv1.bias": (32,),
    "prelu1.weight": (32,),
    "conv2.weight": (64, 32, 3, 3),
    "conv2.bias": (64,),
    "prelu2.weight": (64,),
    "conv3.weight": (64, 64, 3, 3),
    "conv3.bias": (64,),
    "prelu3.weight": (64,),
    "conv4.weight": (128, 64, 2, 2),
    "conv4.bias": (128,),
    "prelu4.weight": (128,),
    "dense5.weight": (256, 1152),
    "dense5.bias": (256,),
    "prelu5.weight": (256,),
    "dense6_1.weight": (2, 256),
    "dense6_1.bias": (2,),
    "dense6_2.weight": (4, 256),
    "dense6_2.bias": (4,),
    "dense6_3.weight": (10, 256),
    "dense6_3.bias": (10,),
}


@dataclass(frozen=True)
class Kind:
    """One kind of output. ``fixed_set``: several files whose names the format fixes, which cannot change at once."""

    name: str
    output: str
    command: tuple[str, ...]
    fixed_set: bool = False
    largest_message: int = _onnx_writer.LARGEST_MESSAGE

    def arguments(self, folder: Path, source: Path) -> list[str]:
        verb, *options = self.command
        where = source.with_suffix(".safetensors") if verb in ("export", "convert") else source
        return [verb, str(where), *options, "-o", str(folder / self.output)]


def _into(adapter: str, output: str, *options: str, verb: str = "import", name: str = "", **more: object) -> Kind:
    given = tuple(word for option in options for word in ("--option", option))
    told = ARCHITECTURE if verb == "convert" else ()
    return Kind(name or f"{adapter} {output}", output, (verb, *told, "--into", adapter, *given), **more)  # type: ignore[arg-type]


KINDS = (
    Kind("export .wio", "m.wio", ("export", *ARCHITECTURE)),
    Kind("export .wio neutral", "n.wio", ("export", *ARCHITECTURE, "--layout", "neutral")),
    _into("keras-tf", "k.h5"),
    _into("keras-theano", "k.h5", verb="convert"),
    _into("keras3", "m.keras"),
    _into("keras3", "m.weights.h5", verb="convert"),
    _into("keras3", "m.weights.json", "max_shard_size=0.0005"),
    _into("onnx", "m.onnx", verb="convert"),
    _into("onnx", "m.onnx", name="onnx external data", largest_message=4000),
    _into("torch", "m.pt"),
    _into("safetensors", "m.safetensors"),
    _into("numpy", "m.npz"),
    _into("numpy", "m.npy", "kind=dictionary"),
    _into("caffe", "m.caffemodel"),
    _into("tf-checkpoint", "m.ckpt", verb="convert", fixed_set=True),
    _into("tf-checkpoint", "m.ckpt", "shards=3", "state=yes", name="tf-checkpoint in shards", fixed_set=True),
)
CALLS = ("os.mkdir", "os.rmdir", "os.rename", "os.remove", "os.chmod", "os.scandir", "fcntl.flock")


def sources(folder: Path) -> tuple[Path, Path]:
    """Two .wio files with a .safetensors each: the same names and shapes, other values."""
    for seed, name in enumerate(("old", "new")):
        values = np.random.default_rng(seed)
        arrays = {name: values.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        plain = folder / f"{name}.safetensors"
        tensors = [Tensor(n, DTYPES["float32"], a.shape, lambda a=a: a) for n, a in arrays.items()]
        write_safetensors(plain, Bundle(tensors))
        if code := _ended(
            _forked(lambda p=plain: main(["export", str(p), *ARCHITECTURE, "-o", str(p.with_suffix(".wio"))]))
        ):
            raise SystemExit(f"the sources cannot be made: exit {code}")
    return folder / "old.wio", folder / "new.wio"


class Trial:
    """One kind of output over one state of its folder."""

    def __init__(self, kind: Kind, old: Path, new: Path, work: Path, *, over: bool) -> None:
        self.kind, self.over = kind, over
        self._new = new
        self._start = work / "start"
        self.folder = work / "run"
        shutil.rmtree(work, ignore_errors=True)
        self._start.mkdir(parents=True)
        if over:
            self._run(self._start, old)
        self.old = self.read(self._start)
        self.reset()
        began = time.monotonic()
        self._run(self.folder, new)
        self.seconds = time.monotonic() - began
        self.new = self.read(self.folder)
        self.files = _names(self.folder)
        if self.new == self.old or (self.old is not None) != over:
            raise SystemExit(f"{kind.name}: the undisturbed runs cannot be told apart")
        self.reset()
        self.calls = self._count()

    def reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._start, self.folder)

    def killed_at_call(self, number: int) -> str:
        """Kills the run right before its call of this number; what became of the output."""
        self.reset()
        process = _forked(lambda: _counting(self._main(self.folder, self._new), self.folder, number))
        return self._verdict(_ended(process))

    def killed_after(self, seconds: float) -> str:
        self.reset()
        process = _forked(self._main(self.folder, self._new))
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        return self._verdict(_ended(process))

    def read(self, folder: Path) -> str | None:
        """A digest of everything that wio reads there; None where there is nothing; else why it is refused."""
        path = folder / self.kind.output
        there = path.with_name(path.name + ".index") if self.kind.fixed_set else path
        if not there.exists() and not (self.kind.fixed_set and _names(folder)):
            return None
        read_end, write_end = os.pipe()

        def read() -> int:
            try:
                bundle, _ = open_bundle(path, None, {})
                digest = hashlib.sha256()
                for name, tensor in bundle.items():
                    digest.update(f"{name} {tensor.dtype} {tensor.shape} {tensor.layout};".encode())
                    digest.update(tensor.stored())
                text = digest.hexdigest()
            except WioError as error:
                text = f"refused: {error.message}"
            os.write(write_end, text.encode()[:4000])
            return 0

        code = _ended(_forked(read))
        os.close(write_end)
        with os.fdopen(read_end, "rb") as answer:
            return answer.read().decode() if code == 0 else f"crashed with {code}"

    def _verdict(self, code: int) -> str:
        if code not in (0, -signal.SIGKILL):
            return f"failed: exit {code}"
        found = self.read(self.folder)
        state = "old" if found == self.old else "new" if found == self.new else "torn"
        if state == "torn" and self.kind.fixed_set and (found or "").startswith("refused: "):
            state = "refused"
        if state == "torn":
            return f"torn: {found}"
        if code := self._run(self.folder, self._new, check=False):
            return f"failed: the next run exits {code}"
        if self.read(self.folder) != self.new:
            return "torn: the next run does not give the new output"
        more = sorted(set(_names(self.folder)) ^ set(self.files))
        return f"litter: {', '.join(more)}" if more else state

    def _run(self, folder: Path, source: Path, *, check: bool = True) -> int:
        code = _ended(_forked(self._main(folder, source)))
        if code and check:
            raise SystemExit(f"{self.kind.name}: exit {code} undisturbed")
        return code

    def _main(self, folder: Path, source: Path) -> Callable[[], int]:
        def run() -> int:
            _onnx_writer.LARGEST_MESSAGE = self.kind.largest_message
            end_cleanly()
            return main(self.kind.arguments(folder, source))

        return run

    def _count(self) -> int:
        process = _forked(lambda: _counting(self._main(self.folder, self._new), self.folder, None))
        _ended(process)
        return int((self.folder.parent / "calls").read_text())


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def _forked(work: Callable[[], int]) -> int:
    """Runs the work in a process of its own, whose output goes nowhere."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        code = work()
    finally:
        os._exit(code)


def _ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _counting(work: Callable[[], int], folder: Path, stop_at: int | None) -> int:
    """Counts the calls that change files, and kills this process right before one of them."""
    made = 0

    def call() -> None:
        nonlocal made
        made += 1
        if made == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        if event in CALLS or (event == "open" and str(arguments[0]).startswith(str(folder))):
            call()

    for name in ("pwrite", "fsync", "fdatasync", "posix_fallocate", "close"):
        _watch(name, call)
    sys.addaudithook(audited)
    code = work()
    if stop_at is None:
        (folder.parent / "calls").write_text(str(made))
    return code


def _watch(name: str, call: Callable[[], None]) -> None:
    usual = getattr(os, name)

    def watched(*arguments: object) -> object:
        call()
        return usual(*arguments)

    setattr(os, name, watched)


def trials(work: Path, kinds: tuple[Kind, ...] = KINDS) -> Iterator[Trial]:
    work.mkdir(exist_ok=True)
    old, new = sources(work)
    _load_everything(kinds, new)
    for number, kind in enumerate(kinds):
        for over in (True, False):
            yield Trial(kind, old, new, work / f"{number}-{over:d}", over=over)


def _load_everything(kinds: tuple[Kind, ...], source: Path) -> None:
    """Has this process do everything once, so that the modules are there when others are forked from it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        for kind in kinds:
            main(kind.arguments(Path(folder), source))
            for tensor in open_bundle(Path(folder) / kind.output, None, {})[0].values():
                tensor.stored()


def run(work: Path, at_calls: int, at_times: int, seed: int, kinds: tuple[Kind, ...] = KINDS) -> Counter[str]:
    """How many runs ended in each way; ``at_calls`` 0 is every call there is. Prints what went wrong."""
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    every = list(trials(work, kinds))
    moments = [(trial, call) for trial in every for call in range(1, trial.calls + 2)]
    if at_calls:
        moments = chance.sample(moments, min(at_calls, len(moments)))
    times = [(trial, chance.uniform(0, trial.seconds * 1.1)) for trial in chance.choices(every, k=at_times)]
    for trial, moment in (*moments, *times):
        told = trial.killed_at_call(moment) if isinstance(moment, int) else trial.killed_after(moment)
        word = told.partition(":")[0]
        found["runs"] += 1
        found[word] += 1
        if word not in ("old", "new", "refused"):
            over = "over an older one" if trial.over else "in an empty folder"
            print(f"{trial.kind.name} {over}, killed at {moment}: {told}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-calls", type=int, default=0, help="runs killed before a system call (0: before each)")
    parser.add_argument("--at-times", type=int, default=500, help="runs killed at a random time")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        counted = run(Path(where), given.at_calls, given.at_times, given.seed)
    wrong = sum(counted[word] for word in ("torn", "litter", "failed"))
    print(
        ", ".join(f"{counted[word]} {word}" for word in ("runs", "old", "new", "refused", "torn", "litter", "failed"))
    )
    sys.exit(1 if wrong else 0)
