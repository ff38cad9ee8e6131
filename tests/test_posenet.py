"""PoseNet among its dialects: Caffe, TensorFlow, the .npy of caffe-tensorflow, and Keras 1 and 2 on both backends.

The weights are made up (``judges/posenet.py``). Judges are OpenCV's Caffe importer, TensorFlow, Keras 3 on TensorFlow
and Keras 1.2.2 and 2.2.4 on Theano. The Keras port has a batch norm where the network has LRN, so that Keras is held
against TensorFlow with the same batch norm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import caffe_files
import h5py
import numpy as np
import posenet
import posenet_caffe
import posenet_tf
import pytest
from conftest import TESTS, judge_python, run_wio
from tf_judge import save_v2, tensorflow

import wio
from wio.architectures.registry_file import load_architecture

pytestmark = pytest.mark.xdist_group("posenet")

SHUFFLED = ("cls1_fc1_pose", "cls2_fc1")
FIRST = ("--option", "data_format=channels_first")
KERAS = {
    "keras1-theano": ("keras-theano", "--option", "keras=1.2", *FIRST),
    "keras2-theano": ("keras-theano", "--option", "keras=2.2", *FIRST),
    "keras2-tf": ("keras-tf",),
}
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
NORMS = {f"{norm}/{part}" for norm in ("norm1", "norm2") for part in STATISTICS}


def close(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.abs(a - b).max() <= 1e-4 * max(1, np.abs(a).max()) for a, b in zip(theirs, ours, strict=True))


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return posenet.make_weights()


@pytest.fixture(scope="module")
def sources(weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights as Caffe, TensorFlow after training with Adam, and caffe-tensorflow keep them."""
    folder = tmp_path_factory.mktemp("sources")
    definition, content = posenet_caffe.make(weights)
    (folder / "net.prototxt").write_text(definition)
    slots = {f"{name}/{slot}": np.zeros_like(value) for name, value in weights.items() for slot in ("Adam", "Adam_1")}
    powers = {"beta1_power": np.float32(0.9), "beta2_power": np.float32(0.999)}
    save_v2(tensorflow(), folder / "posenet.ckpt", {**weights, **slots, **powers})
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, value in weights.items():
        layer, _, leaf = name.partition("/")
        layers.setdefault(layer, {})[leaf] = value
    np.save(folder / "posenet.npy", np.array(layers, dtype=object), allow_pickle=True)
    return {
        "caffe": caffe_files.put(folder, content, "posenet.caffemodel"),
        "tf": folder / "posenet.ckpt",
        "npy": folder / "posenet.npy",
    }


@pytest.fixture(scope="module")
def exported(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    for name, source in sources.items():
        run_wio("export", source, "--arch", "posenet", "-o", folder / f"{name}.wio")
    return {name: folder / f"{name}.wio" for name in sources}


@pytest.fixture(scope="module")
def keras_files(exported: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keras")
    for name, arguments in KERAS.items():
        run_wio("import", exported["caffe"], "--into", *arguments, "-o", folder / f"{name}.h5")
    return {name: folder / f"{name}.h5" for name in KERAS}


@pytest.fixture(scope="module")
def poses(sources: dict[str, Path]) -> dict[str, list[np.ndarray]]:
    """What TensorFlow computes from the weights that it was given itself, with LRN and with the port's batch norm."""
    return {norm: posenet_tf.restored(tensorflow(), str(sources["tf"]), norm) for norm in ("lrn", "batch_norm")}


def opencv(definition: Path, caffemodel: Path, folder: Path) -> list[np.ndarray]:
    judge = caffe_files.OpenCV(folder, definition.read_text(), caffemodel)
    picture = np.ascontiguousarray(posenet.make_input().transpose(0, 3, 1, 2))
    return judge.run(picture, *posenet.OUTPUTS)


def test_the_registry_has_the_weights_of_the_network(weights: dict[str, np.ndarray]) -> None:
    """Against the judges' own description of it: names, and how many numbers flow where."""
    architecture = load_architecture(TESTS.parent / "registry" / "posenet.toml")
    assert set(architecture.names("tf")) == set(architecture.names("npy")) == set(weights)
    maps = architecture.network.feature_maps()
    for name, value in weights.items():
        layer, _, leaf = name.partition("/")
        fmap = maps[layer]
        assert fmap is not None and fmap.size("C") == value.shape[-1]
        if leaf == "weights" and value.ndim == 2:
            taken = next(each for each in architecture.network.layers if each.name == layer).inputs[0]
            incoming = maps[taken]
            assert incoming is not None and np.prod([size or 0 for size in incoming.sizes]) == value.shape[0]


def test_caffe_and_tensorflow_compute_the_same(
    sources: dict[str, Path], exported: dict[str, Path], poses: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    caffe = opencv(sources["caffe"].parent / "net.prototxt", sources["caffe"], tmp_path)
    assert close(poses["lrn"], caffe)
    assert not close(poses["batch_norm"], caffe), "the judge would see an LRN that is missing"
    run_wio("import", exported["caffe"], "--into", "tf-checkpoint", "-o", tmp_path / "made.ckpt")
    assert close(posenet_tf.restored(tensorflow(), str(tmp_path / "made.ckpt")), caffe)


def test_caffe_computes_from_a_checkpoint(
    sources: dict[str, Path], exported: dict[str, Path], poses: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    made = tmp_path / "made.caffemodel"
    run_wio("import", exported["tf"], "--into", "caffe", "-o", made)
    assert close(opencv(sources["caffe"].parent / "net.prototxt", made, tmp_path), poses["lrn"])


def test_every_source_holds_the_same(exported: dict[str, Path]) -> None:
    for other in ("tf", "npy"):
        found = json.loads(run_wio("diff", exported["caffe"], exported[other], "--json").stdout)
        assert found["equal"] and len(found["pairs"]) == 136


def test_training_s_tensors_are_dropped_by_name(exported: dict[str, Path]) -> None:
    dropped = json.loads(run_wio("inspect", exported["tf"], "--receipt").stdout)["dropped"]
    assert {each["name"] for each in dropped} >= {"beta1_power", "conv1/weights/Adam", "cls2_fc1/biases/Adam_1"}
    assert len(dropped) == 2 + 2 * 136


@pytest.mark.parametrize("target", ["tf", "npy"])
def test_arrays_are_tensorflow_s_bit_for_bit(
    target: str, exported: dict[str, Path], weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    if target == "tf":
        run_wio("import", exported["caffe"], "--into", "tf-checkpoint", "-o", tmp_path / "made.ckpt")
        reader = tensorflow().train.load_checkpoint(str(tmp_path / "made.ckpt"))
        held = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    else:
        dictionary = ("--into", "numpy", "--option", "kind=dictionary", "-o", tmp_path / "posenet.npy")
        run_wio("import", exported["caffe"], *dictionary)
        layers = np.load(tmp_path / "posenet.npy", allow_pickle=True).item()
        held = {f"{layer}/{name}": array for layer, weights in layers.items() for name, array in weights.items()}
    assert set(held) == set(weights)
    assert all((held[name] == value).all() for name, value in weights.items())


@pytest.mark.parametrize("source", ["caffe", "tf"])
@pytest.mark.parametrize("target", KERAS)
def test_the_plan_says_which_rows_it_shuffles_and_why(source: str, target: str, exported: dict[str, Path]) -> None:
    """TensorFlow flattens H W C, Caffe C H W; of the Kerases here only 1.2 channels_first flattens C H W."""
    done = run_wio("import", exported[source], "--into", *KERAS[target], "--dry-run", "--json")
    steps = json.loads(done.stdout)["steps"]
    filled = [(step["targets"][0], step["reason"]) for step in steps]
    said = {slot["name"].partition("/")[0]: reason for slot, reason in filled if slot["role"] == "dense.kernel"}
    theirs = "CHW" if source == "caffe" else "HWC"
    ours = "CHW" if target == "keras1-theano" else "HWC"
    for layer in SHUFFLED:
        expected = "rows stay" if theirs == ours else f"rows shuffled {theirs} -> {ours}"
        assert said[layer].startswith(expected), said[layer]
    assert said["cls3_fc1_pose"].startswith("rows stay")
    if theirs != ours:
        assert "H = W = 1" in said["cls3_fc1_pose"] or "W = H = 1" in said["cls3_fc1_pose"]


def test_what_the_port_has_besides_is_marked_as_made_up(exported: dict[str, Path]) -> None:
    done = run_wio("import", exported["caffe"], "--into", "keras-tf", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    made = {step["targets"][0]["name"]: step for step in plan["steps"] if step["kind"] == "synthesise"}
    assert set(made) == NORMS and not plan["exact"]
    assert not any(step["exact"] or step["sources"] for step in made.values())
    assert "LRN" in made["norm1/gamma"]["reason"] and made["norm1/gamma"]["reason"].startswith("1 throughout")
    assert all(step["exact"] for step in plan["steps"] if step["kind"] != "synthesise")
    assert any(note.startswith("CHECK") and "LRN" in note for note in plan["notes"])


@pytest.mark.parametrize("target", KERAS)
def test_keras_computes_what_tensorflow_does(
    target: str, keras_files: dict[str, Path], poses: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    python, backend, data_format = sys.executable, "tensorflow", "channels_last"
    if target != "keras2-tf":
        python = judge_python("WIO_THEANO1_PYTHON" if target == "keras1-theano" else "WIO_THEANO2_PYTHON")
        backend, data_format = "theano", "channels_first"
    words = [python, TESTS / "judges" / "posenet_keras.py", "--backend", backend, "--data-format", data_format]
    words += ["--load", f"order:{keras_files[target]}", "--load", f"by_name:{keras_files[target]}"]
    words += ["--out", tmp_path / "poses.npz", "--compiledir", tmp_path / "theano"]
    home = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, env=home)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "poses.npz") as computed:
        for load in ("0", "1"):
            assert close([computed[f"{load}/{name}"] for name in posenet.OUTPUTS], poses["batch_norm"])


@pytest.mark.parametrize("target", KERAS)
def test_keras_files_go_back_bit_for_bit(
    target: str, keras_files: dict[str, Path], weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    adapter, *options = KERAS[target]
    reading = [word for word in options if word != "--option" and word.startswith("data_format")]
    words = ["--from", adapter, *(part for option in reading for part in ("--option", option))]
    run_wio("export", keras_files[target], "--arch", "posenet", *words, "-o", tmp_path / "back.wio")
    bundle = wio.open(tmp_path / "back.wio")
    kernel = bundle["cls1_fc1_pose/kernel"].to("(HWC)O H=4 W=4 C=128").numpy()
    assert (kernel == weights["cls1_fc1_pose/weights"]).all()
    run_wio("import", tmp_path / "back.wio", "--into", "tf-checkpoint", "-o", tmp_path / "back.ckpt")
    reader = tensorflow().train.load_checkpoint(str(tmp_path / "back.ckpt"))
    assert all((reader.get_tensor(name) == value).all() for name, value in weights.items())
    dropped = json.loads(run_wio("inspect", tmp_path / "back.wio", "--receipt").stdout)["dropped"]
    assert len(dropped) == 8 and all("LRN" in each["reason"] for each in dropped)


def test_layers_stand_in_the_order_of_the_port(keras_files: dict[str, Path]) -> None:
    with h5py.File(keras_files["keras1-theano"]) as file:
        names = [name.decode() for name in file.attrs["layer_names"]]
    assert len(names) == 99 and names[:4] == ["input_1", "conv1", "pool1", "norm1"]
    assert names[81:90] == [
        *("cls1_pool", "cls2_pool", "icp9_out", "cls1_reduction_pose", "cls2_reduction_pose", "cls3_pool"),
        *("flatten_1", "flatten_2", "flatten_3"),
    ]


def test_deviations_are_declared() -> None:
    architecture = load_architecture(TESTS.parent / "registry" / "posenet.toml")
    found: dict[str, Any] = {each.layer: each for each in architecture.deviations("keras")}
    assert (found["norm1"].op, found["norm1"].by) == ("LRN", "BatchNormalization")
    assert {"norm1", "norm2", "conv1", "pool2"} <= set(found)
    assert architecture.deviations("caffe") == ()


# --- as wio check sees them


def findings(file: Path, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    document = json.loads(run_wio("check", file, "--arch", "posenet", *arguments, "--json", code=code).stdout)
    found: list[dict[str, Any]] = document["findings"]
    return found


@pytest.mark.parametrize("source", ["caffe", "tf", "npy"])
def test_what_is_the_network_passes(source: str, sources: dict[str, Path]) -> None:
    found = findings(sources[source])
    assert {each["severity"] for each in found} <= {"note"}
    assert "replaced-layer" not in {each["code"] for each in found}
    padded = [each["where"] for each in found if each["code"] == "graph-differs"]
    assert padded == (["conv1"] if source == "tf" else [])


def test_the_norm_that_stands_for_lrn_is_named(keras_files: dict[str, Path], tmp_path: Path) -> None:
    found = {(each["code"], each["where"]): each for each in findings(keras_files["keras2-tf"])}
    for layer in ("norm1", "norm2"):
        named = found["replaced-layer", layer]
        assert named["severity"] == "note" and "in place of LRN" in named["evidence"]
        assert "untrained it normalises nothing" in named["evidence"]
    assert {code for code, _ in found} == {"replaced-layer", "graph-differs", "passed-over"}
    trained = tmp_path / "trained.h5"
    trained.write_bytes(keras_files["keras2-tf"].read_bytes())
    with h5py.File(trained, "r+") as file:
        file["norm2/norm2/moving_mean:0"][3] = 0.5
    severities = {each["where"]: each for each in findings(trained, code=1) if each["code"] == "replaced-layer"}
    assert (severities["norm1"]["severity"], severities["norm2"]["severity"]) == ("note", "warning")
    assert "was trained" in severities["norm2"]["evidence"]


# --- as networks that run


@pytest.mark.parametrize("source", ["caffe", "tf"])
@pytest.mark.parametrize("target", ["onnx", "keras3"])
def test_the_network_that_runs_gives_out_the_poses(
    source: str, target: str, exported: dict[str, Path], poses: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    made = tmp_path / ("made.onnx" if target == "onnx" else "made.keras")
    run_wio("import", exported[source], "--into", target, "-o", made)
    picture = posenet.make_input()
    if target == "onnx":
        import onnx
        import onnxruntime

        onnx.checker.check_model(str(made), full_check=True)
        session = onnxruntime.InferenceSession(str(made), providers=["CPUExecutionProvider"])
        computed = session.run(posenet.OUTPUTS, {"data": np.ascontiguousarray(picture.transpose(0, 3, 1, 2))})
    else:
        import keras

        model = keras.saving.load_model(made)
        assert model.output_names == posenet.OUTPUTS
        computed = [np.asarray(pose) for pose in model(picture, training=False)]
    assert close(computed, poses["lrn"])
    assert not close(computed, poses["batch_norm"])
    found = json.loads(run_wio("diff", exported["npy"], made, "--arch", "posenet", "--json").stdout)
    assert found["equal"] and len(found["pairs"]) == 136


def test_the_plan_of_an_onnx_model_says_why_rows_are_shuffled(exported: dict[str, Path]) -> None:
    done = run_wio("import", exported["tf"], "--into", "onnx", "--dry-run", "--json")
    steps = json.loads(done.stdout)["steps"]
    filled = [(step["targets"][0], step["reason"]) for step in steps]
    said = {slot["name"].partition("/")[0]: reason for slot, reason in filled if slot["role"] == "dense.kernel"}
    for layer in SHUFFLED:
        assert said[layer] == "rows shuffled HWC -> CHW: ONNX flattens C H W"
    assert said["cls3_fc1_pose"] == "rows stay: H = W = 1, so every order is the same"
