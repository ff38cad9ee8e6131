"""The three bugs of the original Inception-V4 port, planted in models that real Keras builds and saves.

A convolution without its batch norm, a ReLU before the norm, a bias left in: each is found and named, in the file's own
graph and against the architecture; the correct port is silent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import planted_inception
import pytest
from conftest import TESTS, judge_python, run_wio

pytestmark = pytest.mark.judged

# What each planted bug is found as: code and layer.
EXPECTED = {
    "without_norm": ("conv-without-norm", "conv2d_6"),
    "relu_first": ("activation-before-norm", "conv2d_9"),
    "biased": ("bias-before-norm", "conv2d_12"),
}


def lint(*arguments: object, code: int) -> list[dict[str, Any]]:
    found = json.loads(run_wio("check", *arguments, "--json", code=code).stdout)
    assert found["ok"] == (code == 0)
    findings: list[dict[str, Any]] = found["findings"]
    return findings


def saved(python: str, folder: Path, *arguments: str) -> dict[str, Path]:
    """What the Keras of an interpreter saves, by file name."""
    words = [python, TESTS / "judges" / "planted_inception.py", "--out", folder, *arguments]
    home = {**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, env=home)
    assert done.returncode == 0, done.stderr
    return {path.name: path for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def keras3_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each case saved by Keras 3 in both of its formats."""
    folder = tmp_path_factory.mktemp("keras3")
    return saved(sys.executable, folder, "--backend", "tensorflow", "--suffix", "h5", "--suffix", "keras")


@pytest.fixture(scope="module")
def theano_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each case saved by Keras 2.2.4 on Theano, channels first."""
    folder = tmp_path_factory.mktemp("theano")
    python = judge_python("WIO_THEANO2_PYTHON")
    return saved(python, folder, "--backend", "theano", "--compiledir", str(folder / "compiled"))


@pytest.fixture(scope="module")
def whole_ports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All 149 convolutions: the correct port, and one with each bug once. Batch norms after the first are renamed."""
    return saved(sys.executable, tmp_path_factory.mktemp("whole"), "--backend", "tensorflow", "--whole")


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_the_correct_port_is_silent(suffix: str, keras3_files: dict[str, Path]) -> None:
    assert lint(keras3_files[f"correct.{suffix}"], code=0) == []


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("case", EXPECTED)
def test_each_bug_is_found_and_nothing_else(case: str, suffix: str, keras3_files: dict[str, Path]) -> None:
    [finding] = lint(keras3_files[f"{case}.{suffix}"], code=1)
    assert (finding["code"], finding["where"]) == EXPECTED[case]
    assert finding["severity"] == "warning" and finding["remedy"]


def test_a_wio_file_remembers_the_graph(keras3_files: dict[str, Path], tmp_path: Path) -> None:
    for case in ("relu_first.h5", "relu_first.keras"):
        run_wio("export", keras3_files[case], "-o", tmp_path / "x.wio")
        [finding] = lint(tmp_path / "x.wio", code=1)
        assert (finding["code"], finding["where"]) == EXPECTED["relu_first"]


def test_a_bug_in_every_layer_is_told_once(keras3_files: dict[str, Path]) -> None:
    [finding] = lint(keras3_files["all_relu_first.h5"], code=1)
    assert finding["code"] == "activation-before-norm" and len(finding["tensors"]) == 14
    assert "conv2d_1 -> activation_1 -> batch_normalization_1" in finding["evidence"]


def test_a_network_that_keeps_its_biases_is_no_fault(keras3_files: dict[str, Path]) -> None:
    """Keras gives a convolution a bias unless told not to: where all have one, it is a note."""
    [finding] = lint(keras3_files["all_biased.h5"], code=0)
    assert (finding["code"], finding["severity"]) == ("bias-before-norm", "note")
    assert len(finding["tensors"]) == 14


def test_keras_2_on_theano(theano_files: dict[str, Path]) -> None:
    for case in planted_inception.CASES:
        findings = {each["code"]: each for each in lint(theano_files[f"{case}.h5"], code=1)}
        backwards = findings.pop("loads-wrong")
        # 1x1 kernels are the same backwards: 5 of the 14.
        assert len(backwards["tensors"]) == 9 and "--into keras-tf" in backwards["remedy"]
        if case in EXPECTED:
            code, layer = EXPECTED[case]
            assert findings.keys() == {code} and findings[code]["where"] == layer
        elif case == "correct":
            assert not findings


def test_a_theano_file_converted_is_silent(theano_files: dict[str, Path], tmp_path: Path) -> None:
    run_wio("convert", theano_files["correct.h5"], "--into", "keras-tf", "-o", tmp_path / "x.h5")
    assert lint(tmp_path / "x.h5", code=0) == []


@pytest.mark.xdist_group("inception_v4")
def test_the_whole_port_against_the_architecture(whole_ports: dict[str, Path]) -> None:
    assert lint(whole_ports["whole_correct.h5"], "--arch", "inception-v4", code=0) == []
    found = {each["code"]: each for each in lint(whole_ports["whole_planted.h5"], "--arch", "inception-v4", code=1)}
    expected = {
        "conv-without-norm": ("conv2d_17", "inception-v4 has Mixed_5b/Branch_2/Conv2d_0c_3x3"),
        "activation-before-norm": ("conv2d_40", "conv2d_40 -> activation_40 -> batch_normalization_39"),
        "bias-before-norm": ("conv2d_77", "inception-v4 has none in"),
    }
    for code, (layer, evidence) in expected.items():
        assert found[code]["severity"] == "error" and found[code]["where"] == layer
        assert evidence in found[code]["evidence"]
    assert found["missing-tensor"]["tensors"] == [
        f"batch_normalization_149/{leaf}" for leaf in ("beta", "moving_mean", "moving_variance")
    ]
    assert found["unexpected-tensor"]["tensors"] == ["conv2d_77/bias"]
    # Where the counters of the batch norms have moved on, arrays of other lengths stand under their names.
    assert found.keys() - expected.keys() <= {"missing-tensor", "unexpected-tensor", "refuted-shape"}


@pytest.mark.xdist_group("inception_v4")
def test_the_whole_port_against_itself(whole_ports: dict[str, Path]) -> None:
    assert lint(whole_ports["whole_correct.h5"], code=0) == []
    found = {each["code"]: each for each in lint(whole_ports["whole_planted.h5"], code=1)}
    assert {code: each["where"] for code, each in found.items()} == {
        "conv-without-norm": "conv2d_17",
        "activation-before-norm": "conv2d_40",
        "bias-before-norm": "conv2d_77",
    }
    assert "148 of 149 convolutions are followed by a batch norm" in found["conv-without-norm"]["evidence"]
