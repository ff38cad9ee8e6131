"""``wio verify``: networks that agree, planted mistakes and where they are found; pictures against TensorFlow."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import inception_v4_slim
import inception_v4_weights
import numpy as np
import onnx
import pytest
import torch_network
from conftest import TESTS, run_wio
from PIL import Image

from wio import plugins
from wio.architectures.architecture import Architecture
from wio.architectures.registry_file import load_architecture
from wio.bundle import Bundle
from wio.container_writer import save
from wio.dtypes import DTYPES
from wio.errors import FormatError, UsageError
from wio.port import Declarations, import_into
from wio.running.network_input import array_input, decoded, picture_input, random_input
from wio.running.verify import Bound, verify

# Kernels are square, and so is the map that is flattened: no shape tells H from W, or rows from rows.
SMALL = """
id = "small"
[network]
layers = [
  ["image", "Input", [], { axes = "HWC", sizes = [7, 6, 3] }],
  ["conv1", "Conv", "image", { filters = 4, kernel_shape = [3, 3], auto_pad = "SAME_UPPER" }],
  ["norm1", "BatchNormalization", "conv1", { epsilon = 0.01 }],
  ["relu1", "Relu", "norm1"],
  ["pool1", "MaxPool", "relu1", { kernel_shape = [2, 2], strides = [2, 2] }],
  ["conv2", "Conv", "pool1", { filters = 3, kernel_shape = [3, 3], pads = [1, 1, 1, 1] }],
  ["relu2", "Relu", "conv2"],
  ["drop", "Dropout", "relu2"],
  ["flat", "Flatten", "drop"],
  ["fc", "Gemm", "flat", { units = 6 }],
  ["probabilities", "Softmax", "fc"],
]
[preprocessing]
source = "this test"
crop = 0.5
color = "BGR"
divide = 255.0
[classes]
output = "probabilities"
count = 6
background = 0
[dialects.checkpoint]
adapters = ["tf-checkpoint"]
title = "made up"
source = "this test"
verified = "here"
layers = "net/{layer}"
weights = { "Conv.kernel" = "weights", "Conv.bias" = "biases", "Gemm.kernel" = "weights", "Gemm.bias" = "biases", \
"BatchNormalization.gamma" = "gamma", "BatchNormalization.beta" = "beta", "BatchNormalization.mean" = "mean", \
"BatchNormalization.variance" = "variance" }
[dialects.files]
adapters = ["keras-tf", "keras-theano", "keras3", "onnx"]
title = "made up"
source = "this test"
verified = "here"
layers = "{layer}"
weights = { "Conv.kernel" = "kernel", "Conv.bias" = "bias", "Gemm.kernel" = "kernel", "Gemm.bias" = "bias", \
"BatchNormalization.gamma" = "gamma", "BatchNormalization.beta" = "beta", \
"BatchNormalization.mean" = "moving_mean", "BatchNormalization.variance" = "moving_variance" }
"""
FILES = {
    "keras-theano": "small.theano.h5",
    "keras-tf": "small.h5",
    "keras3": "small.keras",
    "onnx": "small.onnx",
    "tf-checkpoint": "small.ckpt",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Architecture]:
    folder = tmp_path_factory.mktemp("registry")
    (folder / "small.toml").write_text(SMALL)
    patch = pytest.MonkeyPatch()
    patch.setenv(plugins.REGISTRY_VARIABLE, str(folder))
    yield load_architecture(folder / "small.toml")
    patch.undo()


@pytest.fixture(scope="module")
def weights(small: Architecture) -> Bundle:
    return torch_network.made_up(small.network)


@pytest.fixture(scope="module")
def written(weights: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in every format."""
    folder = tmp_path_factory.mktemp("written")
    save(Bundle(weights.values(), {"architecture": "small"}), folder / "small.wio")
    for adapter, name in FILES.items():
        import_into(folder / "small.wio", folder / name, adapter=adapter)
    return folder


@pytest.mark.parametrize("name", FILES.values())
def test_the_same_weights_in_two_formats_agree(name: str, written: Path) -> None:
    done = run_wio("verify", written / "small.wio", written / name, "--arch", "small", "--seed", 3, "--json")
    found = json.loads(done.stdout)
    assert found["ok"] and found["first_difference"] is None and found["input"].endswith("seed 3")
    assert [each["layer"] for each in found["outputs"]] == ["probabilities"]
    assert found["outputs"][0]["max_abs"] == 0
    assert found["layers_compared"] == 9, "every layer but the input and the dropout"
    assert [side["notes"] for side in found["sides"]] == [[], []]


def test_the_outputs_are_those_of_torch(small: Architecture, weights: Bundle, written: Path) -> None:
    images = torch_network.images(small.network)
    expected = torch_network.run(small.network, weights, images)["probabilities"][0]
    given = np.moveaxis(images["image"], 1, -1)
    found = verify([written / "small.theano.h5"], told=Declarations(arch="small"), given=given)
    [side] = found.sides
    assert [k for k, _ in side.top] == list(np.argsort(-expected)[:5])
    np.testing.assert_allclose([value for _, value in side.top], np.sort(expected)[::-1][:5], rtol=1e-5)
    assert found.ok and side.outputs[0].shape == (2, 6)


def plant(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(path, "r+") as file:
        layer, _, leaf = name.partition("/")
        [dataset] = [file[layer][n] for n in file[layer].attrs["weight_names"] if leaf in n.decode().rpartition("/")[2]]
        dataset[...] = change(dataset[()])


def one_element(array: np.ndarray) -> np.ndarray:
    array[1, 2, 0, 1] += 0.05
    return array


PLANTED = {
    "one kernel flipped": ("conv2/kernel", lambda k: k[::-1, ::-1]),
    "H and W swapped": ("conv1/kernel", lambda k: k.transpose(1, 0, 2, 3)),
    "one element": ("conv2/kernel", one_element),
    "rows in the order C H W": ("fc/kernel", lambda k: k.reshape(3, 3, 3, 6).transpose(2, 0, 1, 3).reshape(27, 6)),
    "channels of a beta turned round": ("norm1/beta", lambda b: b[::-1]),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found_at_its_layer(mistake: str, written: Path, tmp_path: Path) -> None:
    weight, change = PLANTED[mistake]
    path = tmp_path / "planted.h5"
    path.write_bytes((written / "small.h5").read_bytes())
    plant(path, weight, change)
    done = run_wio("verify", written / "small.ckpt", path, "--arch", "small", "--json", code=1)
    found = json.loads(done.stdout)
    first = found["first_difference"]
    layer = weight.partition("/")[0]
    order = ["conv1", "norm1", "relu1", "pool1", "conv2", "relu2", "flat", "fc"]
    assert first["layer"] == layer and first["max_abs"] > first["allowed"]
    assert first["last_agreed"] == (order[order.index(layer) - 1] if layer != "conv1" else None)
    theirs = {each["name"]: (each["a"], each["b"]) for each in first["weights"]}
    if weight.endswith("kernel"):
        assert theirs[weight] == (f"net/{layer}/weights", f"{layer}/{weight}:0")
    told = run_wio("verify", written / "small.ckpt", path, "--arch", "small", code=1).stdout
    assert f"first difference: {layer}" in told and "they part" in told


def other_epsilon(source: Path, target: Path) -> None:
    if source.suffix == ".onnx":
        model = onnx.load(str(source))
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f = 0.5
        onnx.save(model, str(target))
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                assert b'"epsilon": 0.01' in content or b'"epsilon":0.01' in content
                content = content.replace(b'"epsilon": 0.01', b'"epsilon": 0.5').replace(
                    b'"epsilon":0.01', b'"epsilon":0.5'
                )
            new.writestr(name, content)


@pytest.mark.parametrize("name", ["small.onnx", "small.keras"])
def test_an_epsilon_that_the_file_itself_states_is_what_it_is_run_with(
    name: str, written: Path, tmp_path: Path
) -> None:
    other_epsilon(written / name, tmp_path / name)
    done = run_wio("verify", written / "small.wio", tmp_path / name, "--arch", "small", "--json", code=1)
    found = json.loads(done.stdout)
    assert (found["first_difference"]["layer"], found["first_difference"]["op"]) == ("norm1", "BatchNormalization")
    assert found["sides"][1]["notes"] == ["run with the file's own epsilon, 0.5 in norm1; small has 0.01"]


def test_a_difference_that_the_outputs_hide(written: Path, tmp_path: Path) -> None:
    """A shift of all that goes into a softmax changes nothing behind it."""
    path = tmp_path / "planted.h5"
    path.write_bytes((written / "small.h5").read_bytes())
    plant(path, "fc/bias", lambda b: b + 1)
    files = [written / "small.h5", path]
    found = verify(files, told=Declarations(arch="small"))
    assert not found.ok and found.outputs[0].agrees
    assert found.parting is not None and found.parting.compared.layer == "fc"
    assert found.parting.compared.max_abs == pytest.approx(1, abs=1e-5)
    assert "within the tolerance" in run_wio("verify", *files, "--arch", "small", code=1).stdout
    alone = verify(files, told=Declarations(arch="small"), outputs_only=True)
    assert alone.ok and alone.layers == 0
    assert "they agree: outputs only" in run_wio("verify", *files, "--arch", "small", "--outputs-only").stdout


def test_tolerances() -> None:
    assert Bound().allows(np.array([0.5, -0.25])) == 1e-4
    assert Bound().allows(np.array([3.0, -20.0])) == pytest.approx(2e-3)
    assert Bound(0, 1e-7).allows(np.array([3.0, -20.0])) == 1e-7


def test_a_tolerance_of_the_users(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "planted.h5"
    path.write_bytes((written / "small.h5").read_bytes())
    plant(path, "fc/bias", lambda b: b + np.float32(0.001))
    files = (written / "small.h5", path, "--arch", "small")
    run_wio("verify", *files, code=1)
    run_wio("verify", *files, "--atol", 0.01)
    run_wio("verify", *files, "--atol", 1e-5, code=1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_16_bits_are_run_as_32(dtype: str, weights: Bundle, written: Path, tmp_path: Path) -> None:
    """They agree with the same numbers in 32 bits to the last bit, and not with those that were rounded."""
    rounded = {t.name: t.numpy().astype(DTYPES[dtype].numpy) for t in weights.values()}

    def with_dtype(name: str) -> Bundle:
        return weights.map(
            lambda t: t.with_values(lambda: rounded[t.name].astype(DTYPES[name].numpy), t.shape, t.layout).changed(
                dtype=DTYPES[name]
            )
        )

    for name in (dtype, "float32"):
        save(Bundle(with_dtype(name).values(), {"architecture": "small"}), tmp_path / f"{name}.wio")
    found = verify([tmp_path / f"{dtype}.wio", tmp_path / "float32.wio"])
    assert found.ok and found.outputs[0].max_abs == 0
    assert not verify([tmp_path / f"{dtype}.wio", written / "small.wio"]).ok


def test_a_port_that_is_another_network_is_told_of(tmp_path: Path) -> None:
    """PoseNet's Keras port has a batch norm where the network has LRN: its weights are run as the network's."""
    posenet = plugins.architecture_named("posenet")
    made = torch_network.made_up(posenet.network)
    save(Bundle(made.values(), {"architecture": "posenet"}), tmp_path / "posenet.wio")
    import_into(tmp_path / "posenet.wio", tmp_path / "posenet.h5", adapter="keras-tf")
    found = verify([tmp_path / "posenet.wio", tmp_path / "posenet.h5"], told=Declarations(arch="posenet"))
    assert found.ok and len(found.outputs) == 6
    ours, theirs = (side.notes for side in found.sides)
    assert ours == () and len(theirs) == 3 and all("dialect keras differs" in note for note in theirs)


def test_values_that_are_not_finite_agree_with_nothing(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "planted.h5"
    path.write_bytes((written / "small.h5").read_bytes())
    plant(path, "conv2/bias", lambda b: b * np.float32(np.nan))
    found = verify([path, path], told=Declarations(arch="small"))
    assert not found.ok and found.parting is not None
    assert found.parting.compared.layer == "conv2" and found.parting.compared.max_abs is None
    done = run_wio("verify", path, "--arch", "small", "--json", code=1)
    assert json.loads(done.stdout)["sides"][0]["outputs"][0]["least"] is None


def test_maps_are_compared_a_few_at_a_time(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wio.running import network_run as module
    from wio.running.onnx_session import OnnxSession

    asked: list[int] = []
    run = OnnxSession.run

    def counted(self: OnnxSession, outputs: Any, inputs: Any) -> Any:
        asked.append(len(outputs))
        return run(self, outputs, inputs)

    monkeypatch.setattr(OnnxSession, "run", counted)
    monkeypatch.setattr(module, "MOST_BYTES_AT_ONCE", 3000)
    found = verify([written / "small.h5", written / "small.onnx"], told=Declarations(arch="small"))
    assert found.ok and found.layers == 9
    assert sum(asked) == 2 * (1 + 9) and max(asked) < 9


def test_networks_beyond_one_message_and_nothing_left_behind(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wio.adapters import _onnx_writer

    monkeypatch.setattr(_onnx_writer, "LARGEST_MESSAGE", 500)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[str] = []
    monkeypatch.setattr("os.rmdir", lambda path, _rmdir=os.rmdir, **kw: (seen.append(str(path)), _rmdir(path, **kw))[1])
    assert verify([written / "small.h5", written / "small.onnx"], told=Declarations(arch="small")).ok
    assert any(Path(path).name.startswith(".wio-") for path in seen)
    assert list(tmp_path.iterdir()) == []


# --- what cannot be verified


def test_what_is_no_such_network(written: Path, tmp_path: Path) -> None:
    done = run_wio("verify", written / "small.h5", written / "small.onnx", code=2)
    assert "--arch" in done.stderr
    done = run_wio("verify", written / "small.h5", "--arch", "small", "--drop", "conv1/bias", code=2)
    assert "conv1/bias" in done.stderr


@pytest.mark.parametrize(("absent", "remedy"), [("onnxruntime", "onnxruntime, which"), ("PIL", "Pillow, which")])
def test_a_missing_extra_is_named(absent: str, remedy: str, written: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    code = f"import sys; sys.modules[{absent!r}] = None; from wio.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["verify", written / "small.h5", "--arch", "small", "--input", tmp_path / "x.png"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert remedy in done.stderr and "pip install 'wio[verify]'" in done.stderr


# --- inputs


def test_a_random_input_is_the_seeds(small: Architecture) -> None:
    one, again, other = (random_input(small, seed).arrays["image"] for seed in (1, 1, 2))
    assert one.shape == (1, 3, 7, 6) and (one == again).all() and not (one == other).all()


def test_an_array_lies_as_declared(small: Architecture) -> None:
    image = np.arange(126, dtype=np.float32).reshape(7, 6, 3)
    expected = image.transpose(2, 0, 1)[None]
    for given, data_format in (
        (image, None),
        (image[None], "channels_last"),
        (expected, "channels_first"),
        (expected[0], "channels_first"),
    ):
        np.testing.assert_array_equal(array_input(small, given, data_format).arrays["image"], expected)
    with pytest.raises(UsageError, match="channels_first"):
        array_input(small, expected)
    with pytest.raises(UsageError, match="no sample"):
        array_input(small, image[None][:0])
    with pytest.raises(UsageError, match="not finite"):
        array_input(small, image * np.nan)
    with pytest.raises(UsageError, match="takes"):
        array_input(small, image[:, :5])


def test_of_equal_axes_nothing_is_guessed(tmp_path: Path) -> None:
    made = torch_network.architecture(tmp_path, '["x", "Input", [], { axes = "HWC", sizes = [4, 4, 4] }]')
    image = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    last, first = (array_input(made, image, each).arrays["x"][0] for each in (None, "channels_first"))
    np.testing.assert_array_equal(last, image.transpose(2, 0, 1))
    np.testing.assert_array_equal(first, image)


def test_an_array_file_on_the_command_line(small: Architecture, weights: Bundle, written: Path, tmp_path: Path) -> None:
    images = torch_network.images(small.network, 1)
    expected = torch_network.run(small.network, weights, images)["probabilities"][0]
    np.savez(tmp_path / "x.npz", other=np.zeros(3), seen=images["image"])
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    words = ("verify", written / "small.onnx", "--arch", "small", "--data-format", "channels_first")
    words += ("--input", f"{tmp_path / 'x.npz'}:seen", "--classes", tmp_path / "names.txt")
    found = json.loads(run_wio(*words, "--json").stdout)
    names = ["background", *"abcde"]
    assert [each["name"] for each in found["sides"][0]["top"]] == [names[k] for k in np.argsort(-expected)[:5]]
    assert "class 0 is the background" in run_wio(*words).stdout
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert "2 names were given for 6 classes, or 5 without" in run_wio(*words, code=2).stderr


# --- pictures


def slim_preprocessing(tf: Any, picture: np.ndarray, size: int) -> np.ndarray:
    """TF-slim's inception_preprocessing.preprocess_for_eval, its operations in its order."""
    image = tf.image.convert_image_dtype(picture, tf.float32)
    image = tf.image.central_crop(image, 0.875)
    image = tf.compat.v1.image.resize_bilinear(image[None], [size, size], align_corners=False)[0]
    return np.asarray((image - 0.5) * 2.0)


@pytest.mark.parametrize("shape", [(480, 641), (299, 299), (97, 150), (1025, 333), (1, 2)])
def test_a_picture_is_prepared_as_slim_does(shape: tuple[int, int], tmp_path: Path) -> None:
    import tensorflow as tf

    inception = load_architecture(TESTS.parent / "registry" / "inception_v4.toml")
    picture = np.random.default_rng(4).integers(0, 256, (*shape, 3), np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path)
    np.testing.assert_array_equal(decoded(path), np.asarray(tf.io.decode_png(path.read_bytes(), 3)))
    [found] = picture_input(inception, path).arrays.values()
    expected = slim_preprocessing(tf, picture, 299)
    assert found.dtype == np.float32 and found.shape == (1, 3, 299, 299)
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), expected, rtol=0, atol=1e-6)


def test_the_judge_sees_another_resize() -> None:
    import tensorflow as tf

    picture = np.random.default_rng(4).integers(0, 256, (480, 641, 3), np.uint8)
    half_pixels = tf.image.resize(tf.image.central_crop(picture, 0.875), [299, 299]) / 127.5 - 1
    assert np.abs(np.asarray(half_pixels) - slim_preprocessing(tf, picture, 299)).max() > 0.1


def test_a_jpeg_is_decoded_as_tensorflow_does_within_levels(tmp_path: Path) -> None:
    import tensorflow as tf

    ramp = np.stack(np.broadcast_arrays(np.arange(96)[:, None] * 2, np.arange(80) * 3, 90), -1).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "x.jpg", quality=95)
    theirs = np.asarray(tf.io.decode_jpeg((tmp_path / "x.jpg").read_bytes(), 3)).astype(int)
    assert np.abs(decoded(tmp_path / "x.jpg").astype(int) - theirs).max() <= 4


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA"])
def test_grey_palette_and_alpha_become_rgb_as_in_tensorflow(mode: str, tmp_path: Path) -> None:
    import tensorflow as tf

    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (12, 9, 4), np.uint8)).convert(mode)
    picture.save(tmp_path / "x.png")
    theirs = np.asarray(tf.io.decode_png((tmp_path / "x.png").read_bytes(), 3))
    np.testing.assert_array_equal(decoded(tmp_path / "x.png"), theirs)


def test_colours_in_the_order_that_is_declared(small: Architecture, tmp_path: Path) -> None:
    picture = np.random.default_rng(6).integers(0, 256, (28, 24, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    [found] = picture_input(small, tmp_path / "x.png").arrays.values()
    expected = picture[7:21:2, 6:18:2, ::-1].astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), expected, rtol=1e-6)


def test_architectures_that_take_no_picture_say_why(small: Architecture, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    with pytest.raises(UsageError, match="mean picture of the scene"):
        picture_input(plugins.architecture_named("posenet"), tmp_path / "x.png")
    with pytest.raises(UsageError, match="declares no"):
        picture_input(plugins.architecture_named("mtcnn-onet"), tmp_path / "x.png")


def bomb() -> bytes:
    """A PNG of few bytes that claims 60000 x 60000 pixels."""
    content = bytearray(encoded("PNG"))
    content[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def encoded(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(2).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


BAD = {
    "cut.png": lambda: encoded("PNG")[:-900],
    "cut.jpg": lambda: encoded("JPEG")[:-300],
    "head.jpg": lambda: encoded("JPEG")[:20],
    "x.gif": lambda: encoded("GIF"),
    "empty.png": lambda: b"",
    "text.png": lambda: b"<html>not found</html>",
    "bomb.png": bomb,
    "cmyk.jpg": lambda: encoded("JPEG", "CMYK"),
    "deep.png": lambda: encoded("PNG", "I;16"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_picture_that_cannot_be_read(name: str, written: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BAD[name]())
    with pytest.raises(FormatError, match=name):
        decoded(path)
    assert name in run_wio("verify", written / "small.h5", "--arch", "small", "--input", path, code=2).stderr


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_mutated_pictures_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    whole, generator = encoded(kind), np.random.default_rng(3)
    path = tmp_path / "x"
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for place in generator.integers(0, min(len(content), 700), 3):
            content[place] = generator.integers(256)
        path.write_bytes(content)
        try:
            assert decoded(path).dtype == np.uint8
        except FormatError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ("[preprocessing]\nsource = 'x'\ncrop = 1.5", "preprocessing.crop"),
        ("[preprocessing]\nsource = 'x'\nresize = 'best'", "preprocessing.resize"),
        ("[preprocessing]\nsource = 'x'\ncolor = 'GBR'", "preprocessing.color"),
        ("[preprocessing]\nsource = 'x'\ndivide = 0", "preprocessing.divide"),
        ("[preprocessing]\ncrop = 0.5", "preprocessing.source"),
        ("[preprocessing]\nsource = 'x'\ncropp = 0.5", "preprocessing.cropp"),
        ("[classes]\noutput = 'y'\ncount = 3", "classes.count"),
        ("[classes]\noutput = 'z'\ncount = 3", "classes.output"),
        ("[classes]\noutput = 'f'\ncount = 12", "classes.output"),
        ("[classes]\noutput = 'y'\ncount = 5\nbackground = 5", "classes.background"),
        ("[classes]\noutput = 'y'", "classes"),
    ],
)
def test_a_registry_file_with_wrong_pictures_or_classes(wrong: str, where: str, tmp_path: Path) -> None:
    rows = '["x", "Input", [], { axes = "HWC", sizes = [2, 2, 3] }], ["f", "Flatten", "x"], '
    rows += '["y", "Gemm", "f", { units = 5 }]'
    (tmp_path / "x.toml").write_text(f'id = "x"\n[network]\nlayers = [{rows}]\n{wrong}\n')
    with pytest.raises(FormatError) as caught:
        load_architecture(tmp_path / "x.toml")
    assert [problem.tensor for problem in caught.value.problems] == [where]


# --- the large network


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint by TensorFlow, and a Keras file for Theano."""
    folder = tmp_path_factory.mktemp("inception")
    checkpoint = inception_v4_slim.write_checkpoints(inception_v4_weights.make_variables(), folder)["v2"]
    import_into(checkpoint, folder / "v4.h5", adapter="keras-theano", told=Declarations(arch="inception-v4"))
    return Path(checkpoint), folder / "v4.h5"


@pytest.mark.xdist_group("inception_v4")
def test_inception_v4_agrees_with_tensorflows_top_five(inception: tuple[Path, Path]) -> None:
    golden = json.loads((TESTS / "goldens" / "inception_v4.json").read_text())
    given = inception_v4_weights.make_input()
    found = verify(inception, told=Declarations(arch="inception-v4"), given=given)
    assert found.ok and found.layers > 450
    for side in found.sides:
        assert [k for k, _ in side.top] == [k for k, _ in golden["tensorflow"]["top5"]]
        np.testing.assert_allclose(
            [value for _, value in side.top], [value for _, value in golden["tensorflow"]["top5"]], atol=1e-5
        )


@pytest.mark.xdist_group("inception_v4")
def test_inception_v4_with_one_kernel_flipped(inception: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, keras = inception
    flipped, name = tmp_path / "flipped.h5", "conv2d_60/conv2d_60/kernel"
    shutil.copy(keras, flipped)
    with h5py.File(flipped, "r+") as file:
        kernel = file[name][()]
        file[name][...] = kernel[::-1, ::-1]
    found = verify([checkpoint, flipped], told=Declarations(arch="inception-v4"))
    names = load_architecture(TESTS.parent / "registry" / "inception_v4.toml").names("keras")
    layer = names["conv2d_60/kernel"].layer.name
    assert max(kernel.shape[:2]) > 1 and not found.ok and found.parting is not None
    assert found.parting.compared.layer == layer and found.parting.op == "Conv"
    assert found.parting.weights == ((f"{layer}/kernel", f"InceptionV4/{layer}/weights", name),)
