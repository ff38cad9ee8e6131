"""Check what the real frameworks say about Inception-V4, and record it as tests/goldens/inception_v4.json.

    python record_inception_v4.py --work FOLDER --golden tests/goldens/inception_v4.json \\
        --tensorflow PY --keras2-tensorflow PY --keras2-theano PY [--keras3 PY] \\
        [--wio "python -m wio"]

Each PY is the interpreter of an environment (their pins are in theano_compat.py and in the golden's
`versions`). The steps: TensorFlow writes a V1 and a V2 checkpoint of the made-up variables and computes
the softmax; `--wio` converts both to the weight file of every target; each target's Keras loads its file
by order and by name, says which arrays it then holds, and computes the softmax. Without `--wio` the files
are written by inception_v4_h5.py instead, which judges the judges.

Every array must be, bit for bit, the one that inception_v4_h5.py expects; every softmax within 1e-4 of
TensorFlow's with the same top five. A file whose kernels nobody flips must fail that, or the judge is
blind. The golden is written only when everything holds. This interpreter needs NumPy and h5py.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import inception_v4_h5
import inception_v4_weights
import numpy as np
from inception_v4_h5 import Target

HERE = pathlib.Path(__file__).resolve().parent
# Float32 noise between TensorFlow and Theano is 3e-6 with these weights; 2e-5 was seen with others.
TOLERANCE = 1e-4
# Unflipped kernels move the softmax by 3e-2 and reorder the top five.
UNFLIPPED_AT_LEAST = 1e-2


@dataclasses.dataclass(frozen=True)
class Judge:
    """A target, the option that names its environment, and how wio is asked for its file."""

    environment: str
    target: Target
    import_arguments: tuple[str, ...]
    by: tuple[str, ...] = ("order", "by_name")


FIRST, LAST = "channels_first", "channels_last"
JUDGES = {
    "keras2-tf": Judge("keras2_tensorflow", Target("tensorflow", LAST), ("--into", "keras-tf")),
    "keras2-theano-channels_first": Judge(
        "keras2_theano",
        Target("theano", FIRST),
        ("--into", "keras-theano", "--option", "data_format=" + FIRST),
    ),
    "keras2-theano-channels_last": Judge(
        "keras2_theano", Target("theano", LAST), ("--into", "keras-theano", "--option", "data_format=" + LAST)
    ),
}


def main() -> int:
    options = parse_arguments()
    work = pathlib.Path(options.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    run = Runner(work)
    judges = {name: judge for name, judge in JUDGES.items() if getattr(options, judge.environment)}

    run([options.tensorflow, HERE / "inception_v4_slim.py", "--directory", work])
    slim = json.loads((work / "slim.json").read_text())
    reference = np.load(work / "slim_softmax.npz")["softmax"]
    variables = inception_v4_weights.make_variables()
    files = convert(run, options, judges, slim["checkpoints"], variables)

    record = Record(reference, variables)
    unflipped = declare_theano(files["keras2-tf"], work / "unflipped.h5")
    for name, judge in judges.items():
        loads = [(mode, files[name]) for mode in judge.by]
        if judge.environment == "keras2_theano":
            # Keras 2 flips a TensorFlow file by itself; given a wrong `backend` attribute it does not.
            loads += [("order", files["keras2-tf"]), ("order", unflipped)]
        report, softmaxes = run_keras(run, getattr(options, judge.environment), judge.target, loads, name)
        record.add(name, judge, report, softmaxes, unflipped.name)
    if options.keras3:
        name, judge = "keras3-tf", Judge("keras3", Target("tensorflow", LAST, "3"), ())
        loads = [(mode, files["keras2-tf"]) for mode in judge.by]
        report, softmaxes = run_keras(run, options.keras3, judge.target, loads, name)
        record.add(name, judge, report, softmaxes, unflipped.name)

    for problem in record.problems:
        print(f"record_inception_v4: {problem}", file=sys.stderr)
    if record.problems:
        return 1
    if options.golden:
        golden = {
            "what": "Inception-V4 as the frameworks themselves hold and compute it; see tests/judges",
            "files_written_by": wio_version(options.wio) if options.wio else "tests/judges/inception_v4_h5.py",
            "tolerance": TOLERANCE,
            "seed": inception_v4_weights.SEED,
            "variables_sha256": digest_of_all(variables),
            "input_sha256": hashlib.sha256(inception_v4_weights.make_input().tobytes()).hexdigest(),
            "tensorflow": {"versions": slim["versions"], "top5": top5(reference)},
            "targets": record.targets,
        }
        write_golden(pathlib.Path(options.golden), golden, {"tensorflow": reference, **record.softmaxes})
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="a folder for checkpoints, weight files and reports (1.5 GB)")
    parser.add_argument("--golden", help="the .json to write; the softmaxes go beside it as .npz")
    parser.add_argument("--tensorflow", required=True, metavar="PY", help="TensorFlow 2")
    parser.add_argument("--keras2-tensorflow", required=True, metavar="PY", help="Keras 2.2.4, TensorFlow 1.15")
    parser.add_argument("--keras2-theano", required=True, metavar="PY", help="Keras 2.2.4, Theano 1.0.5")
    parser.add_argument("--keras3", metavar="PY", help="Keras 3 on TensorFlow 2")
    parser.add_argument("--wio", help="the wio command; without it the files are written by inception_v4_h5.py")
    return parser.parse_args()


class Runner:
    """Runs commands with a home, compile cache and thread count of their own."""

    def __init__(self, work: pathlib.Path):
        self.work = work
        # Every Keras writes its settings into ~/.keras: versions and backends must not find each other's.
        (work / "home").mkdir(exist_ok=True)
        self._environment = {
            **os.environ,
            "HOME": str(work / "home"),
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        self._environment.pop("KERAS_BACKEND", None)

    def __call__(self, command, may_fail: bool = False) -> None:
        words = [str(word) for word in command]
        started = time.perf_counter()
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True)
        print(f"{time.perf_counter() - started:7.1f} s  {shlex.join(words)}", file=sys.stderr, flush=True)
        if done.returncode and not may_fail:
            raise SystemExit(f"{done.stdout}{done.stderr}\nexit {done.returncode} from: {shlex.join(words)}")


def convert(run: Runner, options, judges, checkpoints, variables) -> dict[str, pathlib.Path]:
    """The weight file of every target, by wio or by the rules of inception_v4_h5."""
    if not options.wio:
        return {name: write_reference(run, options, name, judge, variables) for name, judge in judges.items()}
    wio = shlex.split(options.wio)
    files = {}
    for version, checkpoint in checkpoints.items():
        exported = run.work / f"inception_v4.{version}.wio"
        run([*wio, "export", checkpoint, "--arch", "inception-v4", "-o", exported])
        for name, judge in judges.items():
            file = run.work / f"{name}.{version}.h5"
            run([*wio, "import", exported, *judge.import_arguments, "-o", file])
            files[name, version] = file
    for name in judges:
        if datasets(files[name, "v1"]) != datasets(files[name, "v2"]):
            raise SystemExit(f"{name}: the V1 and the V2 checkpoint give different arrays")
    return {name: files[name, "v1"] for name in judges}


def write_reference(run: Runner, options, name: str, judge: Judge, variables) -> pathlib.Path:
    report, _ = run_keras(run, getattr(options, judge.environment), judge.target, [], name + ".layers")
    file = run.work / f"{name}.reference.h5"
    inception_v4_h5.write_h5(str(file), variables, judge.target, [layer[0] for layer in report["layers"]])
    return file


def run_keras(run: Runner, python: str, target: Target, loads, name: str):
    """The report of run_keras.py in one environment, and the softmaxes in the order of `loads`."""
    report, softmax = run.work / f"{name}.json", run.work / f"{name}.npz"
    report.unlink(missing_ok=True)
    command = [
        python,
        HERE / "run_keras.py",
        "--backend",
        target.backend,
        "--data-format",
        target.data_format,
    ]
    command += ["--compiledir", run.work / "theano", "--json", report, "--softmax", softmax]
    for mode, file in loads:
        command += ["--load", f"{mode}:{file}"]
    # It exits 1 when a load left arrays alone; the report says which. Without a report it really failed.
    run(command, may_fail=True)
    if not report.exists():
        run(command)
    with np.load(softmax) as arrays:
        return json.loads(report.read_text()), [arrays[str(index)] for index in range(len(loads))]


def declare_theano(file: pathlib.Path, copy: pathlib.Path) -> pathlib.Path:
    """A copy of a TensorFlow weight file that claims to hold Theano's kernels: nobody will flip them."""
    import h5py

    shutil.copyfile(file, copy)
    with h5py.File(copy, "r+") as h5:
        h5.attrs["backend"] = np.bytes_(b"theano")
    return copy


class Record:
    """Collects every load's numbers for the golden, and every problem."""

    def __init__(self, reference: np.ndarray, variables):
        self.targets: dict[str, dict] = {}
        self.softmaxes: dict[str, np.ndarray] = {}
        self.problems: list[str] = []
        self._reference = reference
        self._variables = variables

    def add(self, name: str, judge: Judge, report: dict, softmaxes, unflipped: str) -> None:
        expected = expected_digests(self._variables, judge.target)
        loads = {}
        for load, softmax in zip(report["loads"], softmaxes, strict=True):
            where = f"{name}, {load['file']} by {load['mode']}"
            difference = float(np.abs(softmax - self._reference).max())
            numbers = {"max_abs": difference, "top5": top5(softmax)}
            if load["file"] == unflipped:
                loads["unflipped"] = numbers
                if difference < UNFLIPPED_AT_LEAST:
                    self.problems.append(f"{where}: unflipped kernels change the softmax by {difference:.1e} only")
                continue
            loads[load["mode"] if load["mode"] not in loads else "order, keras2-tf's file"] = numbers
            self._check(where, load, softmax, difference, expected)
        held = report["loads"][0]["arrays"]
        arrays: dict[str, list[str]] = {}
        for entry in held:
            arrays.setdefault(entry["layer"], []).append(entry["sha256"])
        self.softmaxes[name] = softmaxes[0]
        self.targets[name] = {
            "versions": report["versions"],
            "backend": report["backend"],
            "data_format": report["data_format"],
            "loads": loads,
            "layers": self._or_same_as("layers", [layer[0] for layer in report["layers"]]),
            "arrays": self._or_same_as("arrays", arrays),
        }

    def _check(self, where, load, softmax, difference, expected) -> None:
        if load["untouched"]:
            self.problems.append(f"{where}: {len(load['untouched'])} arrays left as they were")
        held = {(e["layer"], e["index"]): (e["sha256"], e["shape"]) for e in load["arrays"]}
        wrong = [key for key in {**expected, **held} if expected.get(key) != held.get(key)]
        if wrong:
            self.problems.append(f"{where}: {len(wrong)} arrays are not the expected ones, the first {wrong[0]}")
        if not difference <= TOLERANCE:
            self.problems.append(f"{where}: softmax differs from TensorFlow's by {difference:.1e}")
        if [i for i, _ in top5(softmax)] != [i for i, _ in top5(self._reference)]:
            self.problems.append(f"{where}: another top five, {top5(softmax)}")

    def _or_same_as(self, key: str, value):
        """The value, or the name of the earlier target that holds the very same: the golden stays small."""
        for name, target in self.targets.items():
            if target[key] == value:
                return name
        return value


def expected_digests(variables, target: Target) -> dict[tuple[str, int], tuple[str, list[int]]]:
    layers = inception_v4_h5.expected_arrays(variables, target)
    return {
        (layer, index): (hashlib.sha256(array.tobytes()).hexdigest(), list(array.shape))
        for layer, weights in layers.items()
        for index, array in enumerate(weights.values())
    }


def datasets(file: pathlib.Path) -> dict[str, str]:
    import h5py

    found: dict[str, str] = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = hashlib.sha256(item[()].tobytes()).hexdigest()

    with h5py.File(file, "r") as h5:
        h5.visititems(note)
    return found


def digest_of_all(variables) -> str:
    """SHA-256 over name, zero byte and little-endian bytes of every variable in graph order."""
    digest = hashlib.sha256()
    for name, array in variables.items():
        digest.update(name.encode("ascii") + b"\0" + array.tobytes())
    return digest.hexdigest()


def top5(softmax: np.ndarray) -> list[list]:
    indices = np.argsort(-softmax[0], kind="stable")[:5]
    return [[int(index), round(float(softmax[0, index]), 7)] for index in indices]


def wio_version(command: str) -> str:
    done = subprocess.run([*shlex.split(command), "--version"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "wio"


def write_golden(path: pathlib.Path, golden: dict, softmaxes: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(one_line_leaves(golden) + "\n")
    np.savez_compressed(path.with_suffix(".npz"), **softmaxes)
    print(f"record_inception_v4: wrote {path} ({path.stat().st_size} bytes)", file=sys.stderr)


def one_line_leaves(value, indent: str = "") -> str:
    """JSON with one line per layer: lists, and objects that hold no object or list, stay on one line."""
    if not isinstance(value, dict) or not any(isinstance(item, (dict, list)) for item in value.values()):
        return json.dumps(value)
    inner = indent + " "
    items = [f"{inner}{json.dumps(key)}: {one_line_leaves(item, inner)}" for key, item in value.items()]
    return "{\n" + ",\n".join(items) + "\n" + indent + "}"


if __name__ == "__main__":
    sys.exit(main())
