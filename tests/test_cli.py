"""The command line's contract: what it prints where, its exit codes, and that errors name the remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import run_wio

import wio
from wio.bundle import Bundle, Tensor
from wio.container_writer import save
from wio.dtypes import dtype_of
from wio.layout import Layout
from wio.plugins import found_adapters


def make(path: Path, tensors: dict[str, tuple[np.ndarray, str | None, str | None]], **metadata: object) -> Path:
    """A .wio file of arrays with roles and layouts."""
    bundle = Bundle(
        (
            Tensor(name, dtype_of(a), a.shape, lambda a=a: a, role, None if layout is None else Layout.parse(layout))
            for name, (a, role, layout) in tensors.items()
        ),
        metadata,
    )
    save(bundle, path)
    return path


def arrays(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    tensors = {
        "conv1/weights": (arrays(3, 2, 4, 5), "conv.kernel", "HWIO"),
        "conv1/biases": (arrays(5, seed=1), "conv.bias", "O"),
        "fc/weights": (arrays(30, 7, seed=2), "dense.kernel", "(HWC)O H=2 W=3 C=5"),
        "fc/biases": (arrays(7, seed=3), "dense.bias", "O"),
    }
    return make(tmp_path / "small.wio", tensors)


def test_help_teaches_and_imports_nothing_heavy() -> None:
    probe = "import sys; from wio.cli.main import build_parser; build_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not {"numpy", "h5py", "rich", "tensorflow", "ml_dtypes", "onnxruntime", "PIL"} & set(done.stdout.split())
    for command in ("export", "import", "convert", "inspect", "diff", "check", "infer", "probe", "verify", "adapters"):
        assert "example:" in run_wio(command, "--help").stdout
    assert "exit codes" in run_wio("--help").stdout


def test_inspect_json_has_the_contract_keys(small: Path) -> None:
    found = json.loads(run_wio("inspect", small, "--json").stdout)
    assert found["adapter"] == "wio" and isinstance(found["metadata"], dict)
    first = found["tensors"][0]
    assert {"name", "dtype", "shape", "role", "layout", "bytes"} <= first.keys()
    assert first["layout"] == "HWIO" and first["bytes"] == 3 * 2 * 4 * 5 * 4


def test_inspect_digests_finds_one_flipped_bit(small: Path) -> None:
    before = json.loads(run_wio("inspect", small, "--digests", "--json").stdout)
    assert all(len(each["sha256"]) == 64 for each in before["tensors"])
    damaged = bytearray(small.read_bytes())
    damaged[-1] ^= 1
    small.write_bytes(damaged)
    done = run_wio("inspect", small, "--digests", code=2)
    assert "fc/biases" in done.stderr and "1 of 4 tensors are damaged" in done.stderr
    run_wio("inspect", small)


def test_import_verifies_digests_and_leaves_no_output(small: Path, tmp_path: Path) -> None:
    damaged = bytearray(small.read_bytes())
    damaged[-1] ^= 1
    small.write_bytes(damaged)
    done = run_wio("import", small, "--into", "keras-tf", "-o", tmp_path / "out.h5", code=2)
    assert "fc/biases" in done.stderr and "SHA-256" in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["small.wio"]


def test_layer_and_role_are_spelled_in_the_targets_own_way(small: Path, tmp_path: Path) -> None:
    run_wio("import", small, "--into", "keras-tf", "-o", tmp_path / "tf.h5")
    with h5py.File(tmp_path / "tf.h5") as file:
        np.testing.assert_array_equal(file["conv1/conv1/kernel:0"][()], arrays(3, 2, 4, 5))
        assert [name.decode() for name in file.attrs["layer_names"]] == ["conv1", "fc"]
        assert [name.decode() for name in file["fc"].attrs["weight_names"]] == ["fc/kernel:0", "fc/bias:0"]
        assert file.attrs["backend"] == "tensorflow"


def test_flip_transpose_and_shuffle_on_values(small: Path, tmp_path: Path) -> None:
    options = ("--option", "keras=1.2", "--option", "data_format=channels_first")
    run_wio("import", small, "--into", "keras-theano", *options, "-o", tmp_path / "th.h5")
    with h5py.File(tmp_path / "th.h5") as file:
        kernel = file["conv1/conv1_W"][()]
        np.testing.assert_array_equal(kernel, arrays(3, 2, 4, 5)[::-1, ::-1].transpose(3, 2, 0, 1))
        rows = arrays(30, 7, seed=2)
        by_hand = np.stack([rows[(h * 3 + w) * 5 + c] for c in range(5) for h in range(2) for w in range(3)])
        np.testing.assert_array_equal(file["fc/fc_W"][()], by_hand)


def test_the_plan_is_shown_with_reasons_and_nothing_is_written(small: Path, tmp_path: Path) -> None:
    arguments = ("import", small, "--into", "keras-theano", "--option", "keras=1.2")
    arguments += ("--option", "data_format=channels_first", "--dry-run")
    table = run_wio(*arguments).stdout
    assert "flip H W" in table and "rows shuffled HWC -> CHW" in table and "Theano convolves" in table
    plan = json.loads(run_wio(*arguments, "--json").stdout)
    steps = {step["sources"][0]["name"]: step for step in plan["steps"]}
    assert [op["op"] for op in steps["conv1/weights"]["ops"]] == ["flip", "permute"]
    assert steps["conv1/biases"]["ops"] == [] and plan["exact"] is True
    assert [each.name for each in tmp_path.iterdir()] == ["small.wio"]


def test_rows_that_need_no_shuffle_say_why(tmp_path: Path) -> None:
    source = make(tmp_path / "a.wio", {"fc/weights": (arrays(5, 7), "dense.kernel", "(HWC)O H=1 W=1 C=5")})
    options = ("--option", "keras=1.2", "--option", "data_format=channels_first", "--dry-run")
    assert "H = W = 1" in run_wio("import", source, "--into", "keras-theano", *options).stdout


def test_undeclared_tensors_are_all_named_at_once_with_a_remedy(tmp_path: Path) -> None:
    source = make(tmp_path / "a.wio", {"a/x": (arrays(3, 3), None, None), "b/y": (arrays(2), None, None)})
    done = run_wio("import", source, "--into", "keras-tf", "-o", tmp_path / "o.h5", code=2)
    assert "a/x" in done.stderr and "b/y" in done.stderr and "--declare" in done.stderr
    assert not (tmp_path / "o.h5").exists()
    assert (
        "undeclared"
        in json.loads(
            run_wio("import", source, "--into", "keras-tf", "-o", tmp_path / "o.h5", "--json", code=2).stdout
        )["problems"][0].values()
    )


def test_a_shape_may_refute_a_declaration_and_nothing_more(small: Path, tmp_path: Path) -> None:
    done = run_wio("export", small, "-o", tmp_path / "o.wio", "--declare", "fc/weights=conv.kernel:HWIO", code=2)
    assert "fc/weights" in done.stderr and "4 axes" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--declare", "nothing*=conv.kernel"), "no tensor matches"),
        (("--declare", "fc/weights"), "GLOB=ROLE"),
        (("--declare", "fc/weights=dens.kernel"), "dense.kernel"),
        (("--declare", "fc/weights=dense.kernel:Q!"), "no layout"),
        (("--declare", "fc/weights=dense.kernel:HW"), "cannot have layout"),
        (("--drop", "nothing"), "no tensor matches"),
        (("--arch", "resnet"), "no architecture"),
        (("--dialect", "klingon"), "no dialect"),
        (("--from", "nonsense"), "no adapter"),
        (("--option", "speed=9"), "no option"),
        (("--option", "speed"), "KEY=VALUE"),
    ],
)
def test_mistakes_are_answered_in_one_message(
    arguments: tuple[str, str], words: str, small: Path, tmp_path: Path
) -> None:
    done = run_wio("export", small, "-o", tmp_path / "o.wio", *arguments, code=2)
    assert words in done.stderr
    assert not (tmp_path / "o.wio").exists()


def test_only_and_drop(small: Path, tmp_path: Path) -> None:
    run_wio("export", small, "-o", tmp_path / "o.wio", "--only", "fc/*", "--drop", "*/biases")
    found = json.loads(run_wio("inspect", tmp_path / "o.wio", "--json").stdout)
    assert [each["name"] for each in found["tensors"]] == ["fc/weights"]
    dropped = json.loads(run_wio("inspect", tmp_path / "o.wio", "--receipt").stdout)["dropped"]
    assert {each["name"] for each in dropped} == {"conv1/weights", "conv1/biases", "fc/biases"}


def test_neutral_export_is_noted_step_by_step_in_the_receipt(tmp_path: Path) -> None:
    source = make(tmp_path / "a.wio", {"c/kernel": (arrays(5, 4, 3, 2), "conv.kernel", "OIHW flipped")})
    run_wio("export", source, "--layout", "neutral", "-o", tmp_path / "n.wio")
    found = json.loads(run_wio("inspect", tmp_path / "n.wio", "--json").stdout)["tensors"][0]
    assert found["layout"] == "HWIO" and found["shape"] == [3, 2, 4, 5]
    step = json.loads(run_wio("inspect", tmp_path / "n.wio", "--receipt").stdout)["steps"][0]
    before = json.loads(run_wio("inspect", source, "--digests", "--json").stdout)["tensors"][0]["sha256"]
    assert step["source_sha256"] == [before] and [op["op"] for op in step["ops"]] == ["flip", "permute"]
    assert run_wio("diff", source, tmp_path / "n.wio").stdout.startswith("equal")


def test_the_same_export_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_wio("export", small, "-o", tmp_path / f"{name}.wio")
        run_wio("import", small, "--into", "keras-theano", "-o", tmp_path / f"{name}.h5")
    assert (tmp_path / "a.wio").read_bytes() == (tmp_path / "b.wio").read_bytes()
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_output_may_be_the_input(small: Path) -> None:
    before = run_wio("inspect", small, "--digests", "--json").stdout
    run_wio("export", small, "-o", small)
    assert (
        json.loads(run_wio("inspect", small, "--digests", "--json").stdout)["tensors"] == json.loads(before)["tensors"]
    )


def test_convert_is_export_and_import_in_one_pass(small: Path, tmp_path: Path) -> None:
    run_wio("export", small, "-o", tmp_path / "e.wio")
    run_wio("import", tmp_path / "e.wio", "--into", "keras-theano", "-o", tmp_path / "two.h5")
    run_wio("convert", small, "--into", "keras-theano", "-o", tmp_path / "one.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_adapters_and_registry_list_what_there_is() -> None:
    names = {each["name"] for each in json.loads(run_wio("adapters", "--json").stdout)}
    assert {"wio", "tf-checkpoint", "keras-tf", "keras-theano"} <= names
    listed = json.loads(run_wio("registry", "list", "--json").stdout)
    assert "inception-v4" in {each["id"] for each in listed["architectures"]}
    shown = run_wio("registry", "show", "inception-v4").stdout
    assert "InceptionV4/Conv2d_1a_3x3/weights" in shown and "conv2d_1/kernel" in shown
    run_wio("registry", "show", "nothing", code=2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "HTML page"),
        (b"", "empty file"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x1b[31mred", "none of the formats"),
    ],
)
def test_a_file_that_is_something_else_is_named_for_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(content)
    done = run_wio("inspect", file, code=2)
    assert words in done.stderr and "\x1b" not in done.stderr


def test_a_missing_file_and_an_unwritable_folder(small: Path, tmp_path: Path) -> None:
    assert "no such file" in run_wio("inspect", tmp_path / "nothing", code=2).stderr
    done = run_wio("export", small, "-o", tmp_path / "no" / "folder" / "x.wio", code=2)
    assert "cannot write" in done.stderr


def test_names_from_a_file_cannot_drive_the_terminal(tmp_path: Path) -> None:
    source = make(tmp_path / "a.wio", {"a\x1b[2J/‮b": (arrays(2), None, None)})
    shown = run_wio("inspect", source).stdout
    assert "\x1b" not in shown and "‮" not in shown and "\\x1b" in shown


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    source = make(tmp_path / "a.wio", {f"layer{k}/x": (arrays(1), None, None) for k in range(3000)})
    command = f"{sys.executable} -m wio inspect {source} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0 and done.stderr == ""


def test_a_dropped_tensor_stays_out_of_the_way_back(data: Path, tmp_path: Path) -> None:
    """The very convention of the source, less one tensor: its layer stays, the rest is as it was."""
    source = data / "keras_layers" / "k224_tf_last" / "ConvFlattenDense.full.h5"
    run_wio("export", source, "--drop", "dense_*/bias", "-o", tmp_path / "d.wio")
    run_wio("import", tmp_path / "d.wio", "--into", "keras-tf", "-o", tmp_path / "d.h5")
    with h5py.File(source) as before, h5py.File(tmp_path / "d.h5") as after:
        layers = [name.decode() for name in before["model_weights"].attrs["layer_names"]]
        assert [name.decode() for name in after["model_weights"].attrs["layer_names"]] == layers
        weights = [name.decode() for name in after["model_weights"][layers[-1]].attrs["weight_names"]]
        assert weights == [f"{layers[-1]}/kernel:0"]


@pytest.mark.parametrize("layer", ["ConvFlattenDense", "LSTM", "Deconvolution2D", "Flatten_Dense"])
def test_a_neutral_export_finds_its_way_back(layer: str, data: Path, tmp_path: Path) -> None:
    """What was made neutral must be rearranged again, also for the very format and convention it came from."""
    source = data / "keras_layers" / "k122_th_first" / f"{layer}.full.h5"
    told = ("--from", "keras-theano", "--option", "data_format=channels_first")
    run_wio("export", source, *told, "--layout", "neutral", "-o", tmp_path / "n.wio")
    back = ("--option", "keras=1.2", "--option", "data_format=channels_first")
    run_wio("import", tmp_path / "n.wio", "--into", "keras-theano", *back, "-o", tmp_path / "back.h5")
    with h5py.File(source) as before, h5py.File(tmp_path / "back.h5") as after:
        group, root = before["model_weights"], after.get("model_weights", after)
        for name in (each.decode() for each in group.attrs["layer_names"]):
            for weight in (each.decode() for each in group[name].attrs["weight_names"]):
                np.testing.assert_array_equal(group[name][weight][()], root[name][weight][()], err_msg=weight)


@pytest.mark.parametrize("command", ["import", "convert"])
def test_weights_go_into_a_template(command: str, small: Path, tmp_path: Path) -> None:
    """onnxruntime runs the template's graph, which is left as it was, on the source's weights."""
    import layer_reference
    import onnx_judge
    from onnx import helper

    nodes = [helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["y"])]
    untrained = onnx_judge.model(nodes, {"conv1.weight": arrays(5, 4, 3, 2, seed=8), "conv1.bias": arrays(5, seed=9)})
    template, out = onnx_judge.saved(untrained, tmp_path, "untrained.onnx"), tmp_path / "out.onnx"
    names = ("--into", "onnx", "--template", template, "--drop", "fc/*")
    run_wio(command, small, *names, "-o", out)
    x = arrays(1, 4, 5, 6, seed=4)
    [y] = onnx_judge.run(out, {"x": x})
    expected = layer_reference.conv({"kernel": arrays(3, 2, 4, 5), "bias": arrays(5, seed=1)}, x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(y.transpose(0, 2, 3, 1), expected, rtol=0, atol=1e-5)
    again = tmp_path / "again.onnx"
    wio.import_into(small, again, adapter="onnx", template=template, drop=["fc/*"])
    assert again.read_bytes() == out.read_bytes()


def test_a_template_where_none_is_taken_is_refused(small: Path, tmp_path: Path) -> None:
    """Every adapter that writes either declares the option or says that it takes none."""
    (tmp_path / "t").write_bytes(b"")
    takes = set()
    for found in found_adapters():
        if found.adapter is None or not found.adapter.writes:
            continue
        command = ("import", small, "--into", found.name, "--template", tmp_path / "t", "-o", tmp_path / "out")
        error = run_wio(*command, code=2).stderr
        if f"{found.name} takes no template" not in error:
            takes.add(found.name)
        assert not (tmp_path / "out").exists()
    assert takes == {"onnx", "keras3"}
    twice = ("--template", tmp_path / "t", "--option", "template=t")
    assert "given twice" in run_wio("import", small, "--into", "onnx", *twice, "-o", tmp_path / "out", code=2).stderr


def test_a_file_whose_name_is_no_text_is_exported(tmp_path: Path) -> None:
    source = os.path.join(os.fsencode(tmp_path), b"b\xffad.npz")  # noqa: PTH118  (Path takes no bytes)
    np.savez(os.fsdecode(source), w=arrays(2, 3))
    subprocess.run([sys.executable, "-m", "wio", "export", source, "-o", tmp_path / "out.wio"], check=True)
    receipt = json.loads(run_wio("inspect", "--receipt", tmp_path / "out.wio").stdout)
    assert receipt["source"]["file"] == "b\\xffad.npz"
    assert run_wio("diff", tmp_path / "out.wio", os.fsdecode(source)).stdout == "equal: 1 equal\n"


def test_every_line_of_an_error_in_a_batch_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "b.npz", w=arrays(2))
    done = run_wio("convert", tmp_path / "a.npz", tmp_path / "b.npz", "--into", "numpy", "-o", tmp_path / "out", code=2)
    lines = done.stderr.splitlines()
    assert "\\n" not in done.stderr and any(line.startswith("  -> ") for line in lines)


@pytest.mark.parametrize(
    ("contents", "told"), [(None, "No such file or directory"), (b"\xff\xfe\x00", "no text in UTF-8")]
)
def test_what_is_no_registry_file_is_said_plainly(tmp_path: Path, contents: bytes | None, told: str) -> None:
    file = tmp_path / "net.toml"
    if contents is not None:
        file.write_bytes(contents)
    assert run_wio("registry", "check", file, code=2).stderr.splitlines()[0] == f"wio: net.toml: {told}"
