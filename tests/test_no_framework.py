"""No command imports a framework, whatever is installed: each is run where importing one is an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from conftest import TESTS, run_wio
from frameworks import FRAMEWORKS
from test_keras3_malformed import archive

from wio.plugins import found_adapters

LAYERS = TESTS / "data" / "real_frameworks" / "keras_layers"
KERAS = LAYERS / "k224_tf_last" / "ConvFlattenDense.full.h5"
THEANO = LAYERS / "k224_th_first" / "ConvFlattenDense.full.h5"

# Runs command lines one after the other; exit code 1 says that files differ. Importing is refused by ending the
# process: no `except` of what is tested can hide that.
RUNNER = """
import json, os, sys

refused, commands = json.load(sys.stdin)

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            print(f"wio {' '.join(words)} imports {name}", file=sys.stderr, flush=True)
            os._exit(3)

words = ["itself"]
sys.meta_path.insert(0, Refuse())
from wio.cli.main import main

for words in commands:
    try:
        code = main(words)
    except SystemExit as error:
        code = error.code
    if code not in (0, 1):
        sys.exit(f"wio {' '.join(words)}: exit code {code}")
"""


def run(*commands: tuple[Any, ...], refused: tuple[str, ...] = FRAMEWORKS) -> subprocess.CompletedProcess[str]:
    given = json.dumps([refused, [list(map(str, words)) for words in commands]])
    return subprocess.run([sys.executable, "-c", RUNNER], input=given, capture_output=True, text=True, check=False)


def test_no_command_imports_one(tmp_path: Path) -> None:
    wio, made, torch, x, y = (tmp_path / name for name in ("a.wio", "b.h5", "c.pt", "x.npy", "y.npy"))
    np.save(x, np.ones((1, 6, 5, 2), np.float32))
    np.save(y, np.ones((1, 4, 3, 3), np.float32))
    commands: dict[str, list[tuple[Any, ...]]] = {
        "export": [("export", THEANO, "-o", wio)],
        "import": [("import", wio, "--into", "keras-tf", "-o", made)],
        "convert": [
            ("convert", KERAS, "--into", "onnx", "--dry-run"),
            ("convert", KERAS, "--into", "torch", "-o", torch),
        ],
        "inspect": [("inspect", KERAS, "--digests"), ("inspect", wio, "--receipt", "--json")],
        "diff": [("diff", THEANO, made), ("diff", KERAS, made, "--json")],
        "check": [("check", KERAS), ("check", wio, "--html", tmp_path / "page.html")],
        # Layers are run by a runtime that is an extra: see test_show_judged.py.
        "show": [("show", KERAS, "conv2d_4/kernel"), ("show", wio, "dense_3/kernel", "--histogram")],
        "infer": [("infer", THEANO, made)],
        # What it runs networks with is its own extra, a runtime and no framework.
        "verify": [],
        "probe": [("probe", KERAS, "conv2d_4/kernel", "--input", x, "--output", y)],
        "replay": [("replay", wio, "--source", THEANO)],
        # The package that signs is an extra too, which has Protocol Buffers among its own.
        "sign": [],
        "verify-signature": [],
        # These speak to registries: tests/servers.
        "push": [],
        "pull": [],
        "registry": [("registry", "list"), ("registry", "show", "inception-v4")],
        "adapters": [("adapters",), ("adapters", "--json")],
        "completion": [("completion", "bash"), ("completion", "zsh"), ("completion", "fish")],
    }
    listed = re.findall(r"^ {4}([\w-]+) ", run_wio("--help").stdout, re.M)
    assert len(listed) >= 7 and set(listed) <= set(commands), "a new command is to be run here too"
    done = run(*(words for name in listed for words in ((name, "--help"), *commands[name])))
    assert done.returncode == 0, done.stderr


def test_no_adapter_imports_one(tmp_path: Path) -> None:
    """Each format written and read again; `keras3` without a template from its own."""
    commands = []
    own = [each.adapter for each in found_adapters() if each.package.name == "wio" and each.adapter]
    assert len(own) >= 10
    for adapter in own:
        source = archive(tmp_path) if adapter.name == "keras3" else KERAS
        written = tmp_path / f"written_{adapter.name}{'.keras' if adapter.name == 'keras3' else ''}"
        if adapter.writes and adapter.name != "wio":
            commands.append(("convert", source, "--into", adapter.name, "-o", written))
        else:
            commands.append(("export", source, "-o", written))
        commands += [
            ("inspect", f"{adapter.name}:{written}", "--digests"),
            ("export", written, "-o", tmp_path / "again"),
        ]
    done = run(*commands)
    assert done.returncode == 0, done.stderr


def test_an_import_would_be_seen() -> None:
    """h5py in place of a framework: wio reads Keras files by it."""
    done = run(("adapters",), ("inspect", KERAS), refused=("h5py",))
    assert (done.returncode, done.stderr) == (3, f"wio inspect {KERAS} imports h5py\n")
