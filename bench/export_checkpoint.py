"""How long `wio export` of a 172 MB checkpoint takes against the same job through TensorFlow, whole processes.

    python bench/export_checkpoint.py [--runs 5] [--json OUT]

The peer reads every tensor with ``tf.train.load_checkpoint`` and writes them with safetensors' ``save_file``. Runs of
both are interleaved on the same files; the table shows medians and their ratio. wio verifies every checksum of the
source, computes a SHA-256 of every tensor and syncs its file; the peer does none of that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "judges"))

PEER = """
import sys
import tensorflow as tf
from safetensors.numpy import save_file
reader = tf.train.load_checkpoint(sys.argv[1])
names = [name for name in reader.get_variable_to_shape_map() if "AuxLogits" not in name and name != "global_step"]
save_file({name: reader.get_tensor(name) for name in names}, sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(version, path, Path(folder), options.runs) for version, path in checkpoints(folder).items()]
    print(f"{'checkpoint':<12}{'wio':>10}{'TensorFlow':>12}{'ratio':>8}   spread of the ratio")
    for row in rows:
        low, high = row["spread"]
        times = f"{row['wio']:>8.2f} s{row['peer']:>10.2f} s{row['ratio']:>7.1f}x"
        print(f"{row['checkpoint']:<12}{times}   {low:.1f} to {high:.1f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def checkpoints(folder: str) -> dict[str, str]:
    """The Inception-V4 checkpoints of the tests, written by TensorFlow in a process of its own."""
    code = (
        "import inception_v4_slim, inception_v4_weights, json, pathlib, sys;"
        "made = inception_v4_slim.write_checkpoints(inception_v4_weights.make_variables(), pathlib.Path(sys.argv[1]));"
        "print(json.dumps({k: str(v) for k, v in made.items()}))"
    )
    home = Path(__file__).parent.parent / "tests" / "judges"
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=home, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(version: str, checkpoint: str, folder: Path, runs: int) -> dict[str, object]:
    wio = [
        str(Path(sys.executable).with_name("wio")),
        "export",
        checkpoint,
        "--arch",
        "inception-v4",
        "-o",
        str(folder / "out.wio"),
    ]
    peer = [sys.executable, "-c", PEER, checkpoint, str(folder / "out.safetensors")]
    pairs = [(seconds(wio), seconds(peer)) for _ in range(runs)]
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    spread = (ratios[0], ratios[-1])
    return {"checkpoint": version.upper(), "wio": ours, "peer": theirs, "ratio": theirs / ours, "spread": spread}


def seconds(command: list[str]) -> float:
    # What an earlier run left to be written must not be paid for by this one: wio syncs its file, the peer does not.
    os.sync()
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
