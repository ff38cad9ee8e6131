"""Whole files of real Keras 3: names, shared and nested layers, the road back, templates, shards, older forms."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from keras3_judge import (
    ADAPTER,
    big_model,
    keras,
    load,
    load_weights,
    model_of,
    plan_for,
    predict,
    randomize,
    read,
    same_bits,
    save,
    save_shards,
    tree_of,
    twin,
    write,
)

from wio.adapters.keras_hdf5 import KerasTF, KerasTheano
from wio.adapters.tf_checkpoint import TFCheckpoint
from wio.adapters.wio_file import WioFile
from wio.bundle import Bundle
from wio.container_writer import save as save_wio
from wio.errors import PlanError, UsageError, WioError
from wio.layout import Layout


@pytest.fixture(scope="module")
def big() -> Any:
    model = big_model()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    for k, variable in enumerate(model.optimizer.variables):
        variable.assign(np.full(variable.shape, k + 1, variable.dtype))
    return model


@pytest.fixture
def saved(big: Any, tmp_path: Path) -> Path:
    return save(big, tmp_path / "big.keras")


def weights(model: Any) -> list[Any]:
    return list(model.get_weights())


def all_equal(a: Any, b: Any) -> bool:
    return all(same_bits(x, y) for x, y in zip(weights(a), weights(b), strict=True))


BIG = {
    "stem/kernel": "HWIO",
    "zz/kernel": "HWIO",
    "aa/kernel": "HWIO",
    "block/conv/kernel": "HWIO",
    "block/bn/variance": "C",
    "tail/dw/kernel": "HWCM",
    "tail/pw/kernel": "HWIO",
    "down/kernel": "(HWC)O H=6 W=4 C=4",
    "head/kernel": "IO",
    "both/forward_cellar/bias": "B(GU) G=zrh",
    "both/backward_cellar/bias": "B(GU) G=zrh",
    "out/kernel": "IO",
}


def test_names_are_those_of_the_layers(big: Any, saved: Path) -> None:
    bundle = read(saved)
    assert list(bundle)[:2] == ["stem/kernel", "stem/bias"]
    for name, layout in BIG.items():
        name = name.replace("variance", "moving_variance")
        assert str(bundle[name].layout) == layout, name
    for name in ("stem", "zz", "aa", "head", "down", "out"):
        kernel, bias = big.get_layer(name).get_weights()
        assert same_bits(bundle[f"{name}/kernel"].numpy(), kernel)
        assert same_bits(bundle[f"{name}/bias"].numpy(), bias)
    inner = big.get_layer("block").get_layer("conv").get_weights()
    assert same_bits(bundle["block/conv/kernel"].numpy(), inner[0])
    assert bundle["block/conv/kernel"].origin == "layers/functional/layers/conv2d/vars/0"
    assert [each["name"] for each in bundle.metadata["layers"]] == [layer.name for layer in big.layers]


def test_optimizer_and_weights_are_told_apart(big: Any, saved: Path) -> None:
    bundle = read(saved)
    slots = [t for t in bundle.values() if t.role == "optimizer"]
    assert [t.name for t in slots] == [f"optimizer/vars/{k}" for k in range(len(big.optimizer.variables))]
    assert all(same_bits(t.numpy(), v.numpy()) for t, v in zip(slots, big.optimizer.variables, strict=True))
    assert len(bundle) == len(slots) + len(big.get_weights())


def test_weights_alone_are_named_by_the_saved_names(big: Any, tmp_path: Path) -> None:
    bundle = read(save(big, tmp_path / "b.weights.h5"))
    assert {"zz/0", "block/conv/0", "both/forward_cellar/gru_cell/2", "optimizer/vars/0"} <= set(bundle)
    assert same_bits(bundle["zz/0"].numpy(), big.get_layer("zz").get_weights()[0])


def test_weights_of_before_3_6_are_named_by_their_place(big: Any, tmp_path: Path) -> None:
    path = without_names(save(big, tmp_path / "b.weights.h5"))
    bundle = read(path)
    assert all(name == t.origin or t.origin is None for name, t in bundle.items())
    assert same_bits(bundle["layers/functional/layers/conv2d/vars/0"].numpy(), big.get_layer("block").get_weights()[0])
    load_weights(twin(big), path)


def without_names(path: Path) -> Path:
    """As Keras before 3.6 wrote it: no names, and no groups for layers without variables."""
    with h5py.File(path, "r+") as file:
        empty: list[str] = []

        def visit(name: str, node: Any) -> None:
            if name.endswith("vars") and isinstance(node, h5py.Group):
                node.attrs.pop("name", None)
                if not len(node):
                    empty.append(name)

        file.visititems(visit)
        for name in empty:
            del file[name]
            parent = name.rpartition("/")[0]
            if parent and not len(file[parent]):
                del file[parent]
    return path


def repacked(source: Path, out: Path, change: Any = None, compression: int = zipfile.ZIP_STORED) -> Path:
    """The same archive with its members changed by ``change(name, contents)``."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(out, "w", compression) as made:
        for name in archive.namelist():
            contents = archive.read(name)
            made.writestr(name, change(name, contents) if change else contents)
    return out


def changed_h5(contents: bytes, folder: Path, change: Any) -> bytes:
    path = folder / "changed.h5"
    path.write_bytes(contents)
    change(path)
    return path.read_bytes()


def test_a_keras_file_of_before_3_6_has_its_names_from_the_config(big: Any, saved: Path, tmp_path: Path) -> None:
    def change(name: str, contents: bytes) -> bytes:
        return changed_h5(contents, tmp_path, without_names) if name.endswith(".h5") else contents

    old = repacked(saved, tmp_path / "old.keras", change)
    now, then = read(saved), read(old)
    assert list(then) == list(now)
    assert [(t.role, t.layout) for t in then.values()] == [(t.role, t.layout) for t in now.values()]
    assert all_equal(load(old), big)


def test_the_old_alias_of_layers(saved: Path, tmp_path: Path) -> None:
    """Files of 2.13 say ``_layer_checkpoint_dependencies`` for ``layers`` (keras 3.15 H5IOStore.get)."""

    def rename(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.move("layers/functional/layers", "layers/functional/_layer_checkpoint_dependencies")
            file.move("layers/sequential/layers", "layers/sequential/_layer_checkpoint_dependencies")
            file.move("layers", "_layer_checkpoint_dependencies")

    def change(name: str, contents: bytes) -> bytes:
        return changed_h5(contents, tmp_path, rename) if name.endswith(".h5") else contents

    old = read(repacked(saved, tmp_path / "old.keras", change))
    assert list(old) == list(read(saved))
    assert all(same_bits(old[name].numpy(), t.numpy()) for name, t in read(saved).items())


# --- the road back


def test_keras_returns_as_it_was(big: Any, saved: Path, tmp_path: Path) -> None:
    bundle = read(saved)
    write(bundle, tmp_path / "out.keras")
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(tmp_path / "out.keras") as new:
        assert old.namelist() == new.namelist()
        for name in old.namelist():
            if name.endswith(".h5"):
                assert tree_of(io.BytesIO(old.read(name))) == tree_of(io.BytesIO(new.read(name)))
            else:
                assert old.read(name) == new.read(name)
    back = load(tmp_path / "out.keras")
    assert all_equal(back, big)
    np.testing.assert_allclose(predict(back), predict(big), atol=1e-6, rtol=0)
    assert all(same_bits(a, b) for a, b in zip(back.optimizer.variables, big.optimizer.variables, strict=True))


@pytest.mark.parametrize("name", ["b.weights.h5", "b.keras"])
def test_by_way_of_wio_and_twice_the_same_bytes(big: Any, tmp_path: Path, name: str) -> None:
    path = save(big, tmp_path / name)
    save_wio(read(path), tmp_path / "b.wio")
    write(WioFile().read(tmp_path / "b.wio"), tmp_path / f"one.{name}")
    write(read(path), tmp_path / f"two.{name}")
    assert (tmp_path / f"one.{name}").read_bytes() == (tmp_path / f"two.{name}").read_bytes()
    if name.endswith(".h5"):
        assert tree_of(tmp_path / f"one.{name}") == tree_of(path)


def test_the_output_may_be_the_input(saved: Path) -> None:
    before = {name: t.numpy().tobytes() for name, t in read(saved).items()}
    write(read(saved), saved)
    assert {name: t.numpy().tobytes() for name, t in read(saved).items()} == before


def test_optimizer_left_out(big: Any, saved: Path, tmp_path: Path) -> None:
    write(read(saved).select(drop=["optimizer/*"]), tmp_path / "out.weights.h5")
    other = twin(big)
    load_weights(other, tmp_path / "out.weights.h5")
    assert all_equal(other, big)


def test_a_lost_weight_is_missing(saved: Path) -> None:
    with pytest.raises(PlanError, match=r"zz/kernel.*nothing fills it at layers/conv2d_\d/vars/0"):
        plan_for(read(saved).select(drop=["zz/kernel"]))


def test_assets_and_binary_members_return(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "assets.keras"
    path.write_bytes(saved.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/layers/text_vectorization/vocabulary.txt", "a\nb\n")
        archive.writestr("assets/blob", bytes(range(256)))
    write(read(path), tmp_path / "out.keras")
    with zipfile.ZipFile(tmp_path / "out.keras") as archive:
        assert archive.read("assets/layers/text_vectorization/vocabulary.txt") == b"a\nb\n"
        assert archive.read("assets/blob") == bytes(range(256))


# --- templates


def test_a_template_by_layer_and_role(big: Any, saved: Path, tmp_path: Path) -> None:
    other = twin(big)
    template = save(other, tmp_path / "template.keras")
    plan = write(read(saved), tmp_path / "out.keras", template=template)
    assert {step.kind for step in plan.steps} == {"keep"}
    assert set(plan.dropped) == {name for name, t in read(saved).items() if t.role == "optimizer"}
    np.testing.assert_allclose(predict(load(tmp_path / "out.keras")), predict(big), atol=1e-6, rtol=0)
    assert all_equal(load(tmp_path / "out.keras"), big)


def test_a_template_keeps_its_own_optimizer(big: Any, saved: Path, tmp_path: Path) -> None:
    write(read(saved).select(drop=["optimizer/*"]), tmp_path / "out.keras", template=saved)
    assert tree_of(io.BytesIO(h5_of(tmp_path / "out.keras"))) == tree_of(io.BytesIO(h5_of(saved)))


def h5_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read("model.weights.h5")


def test_the_template_may_be_the_output(big: Any, saved: Path, tmp_path: Path) -> None:
    template = save(twin(big), tmp_path / "template.keras")
    write(read(saved), template, template=template)
    assert all_equal(load(template), big)


def test_a_template_of_weights_alone_takes_the_same_places(big: Any, saved: Path, tmp_path: Path) -> None:
    other = twin(big)
    template = save(other, tmp_path / "t.weights.h5")
    bundle = read(saved)
    write(bundle, tmp_path / "out.weights.h5", template=template)
    load_weights(other, tmp_path / "out.weights.h5")
    assert all_equal(other, big)
    with pytest.raises(UsageError, match="holds the model's config"):
        write(bundle, tmp_path / "out.keras", template=template)


def test_same_places_with_other_layers_are_not_taken(tmp_path: Path) -> None:
    """Two layers of one class and shape in the other order: Keras itself would mix them up without a word."""

    def two(first: str, second: str) -> Any:
        layers = keras().layers
        return keras().Sequential([keras().Input((4,)), layers.Dense(4, name=first), layers.Dense(4, name=second)])

    template = save(two("b", "a"), tmp_path / "t.weights.h5")
    bundle = read(save(randomize(two("a", "b")), tmp_path / "m.weights.h5"))
    assert read(template)["a/0"].origin != bundle["a/0"].origin
    write(bundle, tmp_path / "out.weights.h5", template=template)
    assert same_bits(read(tmp_path / "out.weights.h5")["a/0"].numpy(), bundle["a/0"].numpy())
    with pytest.raises(PlanError, match="no tensor has its name"):
        plan_for(bundle, template=save(two("c", "d"), tmp_path / "u.weights.h5"))


def test_from_a_tensorflow_checkpoint(tmp_path: Path) -> None:
    import tensorflow as tf

    model = model_of("conv2d")
    kernel, bias = model.get_weights()
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "c"),
        tensor_names=["it/weights", "it/biases"],
        shape_and_slices=["", ""],
        tensors=[kernel, bias],
    )
    template = save(twin(model), tmp_path / "t.keras")
    undeclared = TFCheckpoint().read(tmp_path / "c")
    with pytest.raises(PlanError, match=r"no conv.kernel in layer 'it'"):
        plan_for(undeclared, template=template)
    roles = {"it/weights": ("conv.kernel", "HWIO"), "it/biases": ("conv.bias", "O")}
    declared = undeclared.map(lambda t: t.declared(roles[t.name][0], Layout.parse(roles[t.name][1])))
    write(declared, tmp_path / "out.keras", template=template)
    np.testing.assert_allclose(predict(load(tmp_path / "out.keras")), predict(model), atol=1e-6, rtol=0)


def test_kernels_of_another_layout_are_rearranged(tmp_path: Path) -> None:
    model = model_of("conv2d")
    template = save(twin(model), tmp_path / "t.keras")
    bundle = read(save(model, tmp_path / "m.keras")).map(
        lambda t: t.to("OIHW flipped") if t.role == "conv.kernel" else t
    )
    foreign = Bundle(bundle.values(), {"adapter": "other"})
    plan = write(foreign, tmp_path / "out.keras", template=template)
    assert [step.kind for step in plan.steps] == ["rearrange", "keep"]
    assert all_equal(load(tmp_path / "out.keras"), model)


def test_missing_unexpected_and_misfits_are_told_together(big: Any, saved: Path, tmp_path: Path) -> None:
    k = keras()
    template = save(
        k.Sequential(
            [
                k.Input((8, 6, 3)),
                k.layers.Conv2D(3, 3, name="stem"),
                k.layers.Conv2D(5, 1, name="zz"),
                k.layers.Conv2D(3, 1, name="aa", dtype="float16"),
                k.layers.Conv2D(3, 1, name="new"),
            ]
        ),
        tmp_path / "t.keras",
    )
    with pytest.raises(PlanError) as caught:
        plan_for(read(saved), template=template)
    kinds = {(problem.kind, problem.tensor) for problem in caught.value.problems}
    assert {
        ("missing", "new/kernel"),
        ("missing", "new/bias"),
        ("shape", "zz/kernel"),
        ("shape", "zz/bias"),
        ("dtype", "aa/kernel"),
        ("unused", "down/kernel"),
    } <= kinds


def test_without_a_template_a_foreign_bundle_is_refused(big: Any, tmp_path: Path) -> None:
    bundle = KerasTF().read(save(big, tmp_path / "m.h5"))
    with pytest.raises(PlanError) as caught:
        plan_for(bundle)
    assert "only a saved model of the same network tells" in str(caught.value)
    assert "--template MODEL.keras" in str(caught.value)
    assert [problem.kind for problem in caught.value.problems] == ["template"]
    with pytest.raises(UsageError, match="only a saved model"):
        ADAPTER.write(tmp_path / "x.keras", bundle)


# --- shards, dtypes, subclasses, quantisation


def test_shards_hold_what_one_file_holds(big: Any, tmp_path: Path) -> None:
    path = tmp_path / "s.weights.json"
    save_shards(big, path, 4e-6)
    assert len(list(tmp_path.glob("s_*.weights.h5"))) > 2
    whole, shards = read(save(big, tmp_path / "whole.weights.h5")), read(path)
    assert {name: (t.origin, t.numpy().tobytes()) for name, t in shards.items()} == {
        name: (t.origin, t.numpy().tobytes()) for name, t in whole.items()
    }
    write(shards, tmp_path / "out.weights.h5")
    other = twin(big)
    load_weights(other, tmp_path / "out.weights.h5")
    assert all_equal(other, big)


def test_shards_are_written_and_keras_loads_them(big: Any, saved: Path, tmp_path: Path) -> None:
    """From a whole archive, and from shards into smaller ones; the map is that of Keras but for the files' names."""
    save_shards(big, tmp_path / "real.weights.json", 4e-6)
    for source in (saved, tmp_path / "real.weights.json"):
        folder = tmp_path / source.name.replace(".", "_")
        folder.mkdir()
        write(read(source), folder / "s.weights.json", max_shard_size=2e-6)
        shards = sorted(folder.glob("s_*.weights.h5"))
        assert len(shards) > 4 and shards[0].name == "s_00000.weights.h5"
        other = twin(big)
        load_weights(other, folder / "s.weights.json")
        assert all_equal(other, big)
        there, whole = read(folder / "s.weights.json"), read(save(big, folder / "whole.weights.h5"))
        assert {n: t.numpy().tobytes() for n, t in there.items()} == {n: t.numpy().tobytes() for n, t in whole.items()}
    [a, b] = [
        json.loads((tmp_path / name).read_text()) for name in ("real.weights.json", "real_weights_json/s.weights.json")
    ]
    assert a["metadata"] == b["metadata"]
    assert set(a["weight_map"]) == set(b["weight_map"])


def test_shards_are_the_same_bytes_and_may_be_their_own_source(big: Any, tmp_path: Path) -> None:
    path = tmp_path / "s.weights.json"
    save_shards(big, path, 4e-6)
    written = []
    for _ in range(2):
        write(read(path), path, max_shard_size=4e-6)
        written.append({each.name: each.read_bytes() for each in sorted(tmp_path.iterdir())})
    assert written[0] == written[1]
    other = twin(big)
    load_weights(other, path)
    assert all_equal(other, big)


def test_a_map_of_shards_has_its_name_and_a_size(big: Any, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.weights\.json"):
        write(read(saved), tmp_path / "s.json")
    for size in ("0", "-1", "nan", "inf", "much"):
        with pytest.raises(UsageError, match="takes a number of gigabytes"):
            write(read(saved), tmp_path / "s.weights.json", max_shard_size=size)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["big.keras"]


def test_bfloat16_and_float16(tmp_path: Path) -> None:
    k = keras()
    model = k.Sequential(
        [k.Input((4,)), k.layers.Dense(3, dtype="bfloat16", name="b"), k.layers.Dense(2, dtype="float16", name="h")]
    )
    randomize(model)
    bundle = read(save(model, tmp_path / "m.keras"))
    assert [t.dtype.name for t in bundle.values()] == ["bfloat16"] * 2 + ["float16"] * 2
    assert all(same_bits(t.numpy(), w) for t, w in zip(bundle.values(), model.get_weights(), strict=True))
    assert bundle["b/kernel"].numpy().dtype == ml_dtypes.bfloat16
    write(bundle, tmp_path / "out.keras")
    assert tree_of(io.BytesIO(h5_of(tmp_path / "out.keras"))) == tree_of(io.BytesIO(h5_of(tmp_path / "m.keras")))
    assert all_equal(load(tmp_path / "out.keras"), model)


def test_float8_by_its_attribute(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32).astype(ml_dtypes.float8_e4m3fn)
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("layers/dense/vars/0", data=values.view("V1"))
        dataset.attrs["dtype"] = "float8_e4m3fn"
    found = read(path)["layers/dense/vars/0"]
    assert found.dtype.name == "float8_e4m3fn"
    assert same_bits(found.numpy(), values)


def test_quantised_layers_are_undeclared(tmp_path: Path) -> None:
    k = keras()
    model = randomize(k.Sequential([k.Input((4,)), k.layers.Dense(3, name="q")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.quantize("int8")
    bundle = read(save(model, tmp_path / "m.keras"))
    assert {(name, t.role) for name, t in bundle.items()} == {("q/0", None), ("q/1", None), ("q/2", None)}
    write(bundle, tmp_path / "out.keras")
    assert all_equal(load(tmp_path / "out.keras"), model)


def test_subclassed_models_are_named_and_undeclared(tmp_path: Path) -> None:
    k = keras()

    @k.saving.register_keras_serializable("test")
    class Sub(k.Model):  # type: ignore[misc, name-defined]
        def __init__(self, **config: Any) -> None:
            super().__init__(**config)
            self.a = k.layers.Dense(3, name="first")
            self.blocks = [k.layers.Dense(4, name="second"), k.layers.Dense(5, name="third")]
            self.scale = self.add_weight(shape=(2,), name="scale")

        def call(self, x: Any) -> Any:
            for layer in (self.a, *self.blocks):
                x = layer(x)
            return x * k.ops.sum(self.scale)

    model = Sub(name="sub")
    model(np.zeros((1, 4), "float32"))
    randomize(model)
    bundle = read(save(model, tmp_path / "m.keras"))
    assert set(bundle) == {f"{n}/{i}" for n in ("first", "second", "third") for i in (0, 1)} | {"vars/0"}
    assert {t.role for t in bundle.values()} == {None}
    assert bundle["third/0"].origin == "blocks/dense_1/vars/0"
    assert same_bits(bundle["first/0"].numpy(), model.a.get_weights()[0])
    write(bundle, tmp_path / "out.keras")
    assert all_equal(load(tmp_path / "out.keras"), model)


def test_names_that_collide_become_places(tmp_path: Path) -> None:
    """Two nested models of one name are refused by Keras; two layers of one name in attributes are not."""
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        for attribute in "ab":
            file[f"{attribute}/vars/0"] = np.float32([1])
            file[f"{attribute}/vars"].attrs["name"] = "same"
    assert list(read(path)) == ["a/vars/0", "b/vars/0"]


def test_a_config_of_another_model_is_not_believed(saved: Path, tmp_path: Path) -> None:
    def change(name: str, contents: bytes) -> bytes:
        if name != "config.json":
            return contents
        document = json.loads(contents)
        layers = document["config"]["layers"]
        # The convolutions in another order: every shape still fits, the saved names do not.
        one, two = (next(each for each in layers if each["name"] == name) for name in ("zz", "aa"))
        i, j = layers.index(one), layers.index(two)
        layers[i], layers[j] = two, one
        return json.dumps(document).encode()

    bundle = read(repacked(saved, tmp_path / "other.keras", change))
    kernels = [t for t in bundle.values() if t.layer in ("zz", "aa")]
    assert len(kernels) == 4
    assert {t.role for t in kernels} == {None}
    assert bundle["stem/kernel"].role == "conv.kernel"


# --- who reads what


def test_each_format_has_one_reader(big: Any, saved: Path, tmp_path: Path) -> None:
    legacy, weights_only = save(big, tmp_path / "m.h5"), save(big, tmp_path / "m.weights.h5")
    save_shards(big, tmp_path / "m.weights.json", 1)
    assert ADAPTER.sniff(legacy) == 0
    for path in (saved, weights_only, tmp_path / "m.weights.json"):
        assert ADAPTER.sniff(path) == 20
        assert KerasTF().sniff(path) == KerasTheano().sniff(path) == 0


@pytest.mark.parametrize(
    "contents", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"{}", b'{"weight_map": {"a": "b"}}', b"x"]
)
def test_other_files_are_left_alone(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(contents)
    assert ADAPTER.sniff(path) == (1 if contents.startswith(b"\x89HDF") else 0)
    with pytest.raises(WioError):
        ADAPTER.read(path)
    assert ADAPTER.sniff(tmp_path) == ADAPTER.sniff(tmp_path / "none") == 0


def test_seeds_and_metrics_have_their_role(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dropout/seed_generator/vars/0"] = np.uint32([1, 2])
        file["metrics/mean/vars/0"] = np.float32(0)
        file["optimizer/vars/0"] = np.int64(3)
        file["layers/dense/vars/0"] = np.float32([[1]])
    assert {name: t.role for name, t in read(path).items()} == {
        "layers/dense/vars/0": None,
        "layers/dropout/seed_generator/vars/0": "other",
        "metrics/mean/vars/0": "other",
        "optimizer/vars/0": "optimizer",
    }


def test_what_weights_alone_are_is_for_the_user_to_say(tmp_path: Path) -> None:
    model = model_of("conv2d_transpose")
    bundle = read(save(model, tmp_path / "m.weights.h5"))
    usual = ADAPTER.convention_of(bundle).layouts["conv_transpose.kernel"][0]
    declared = bundle.map(lambda t: t.declared("conv_transpose.kernel", usual) if len(t.shape) == 4 else t)
    assert str(declared["it/0"].to("IOHW").layout) == "IOHW"
    write(declared, tmp_path / "out.weights.h5")
    assert tree_of(tmp_path / "out.weights.h5") == tree_of(tmp_path / "m.weights.h5")
    # A neutral copy goes back the way it came.
    write(declared.map(lambda t: t.to("IOHW") if t.layout else t), tmp_path / "out.weights.h5")
    assert tree_of(tmp_path / "out.weights.h5") == tree_of(tmp_path / "m.weights.h5")


def test_roles_that_hang_on_an_untold_data_format_are_left_out(saved: Path, big: Any, tmp_path: Path) -> None:
    told, untold = read(saved), read(save(big, tmp_path / "m.weights.h5"))
    assert "prelu.alpha" in ADAPTER.convention_of(told).layouts
    assert "prelu.alpha" not in ADAPTER.convention_of(untold).layouts
    assert "maxout.kernel" not in ADAPTER.convention().layouts


# --- classes that are not Keras's own


@pytest.mark.parametrize("package", [None, "mine"])
def test_a_class_called_like_one_of_keras_is_not_taken_for_it(package: str | None, tmp_path: Path) -> None:
    """Its kernel is kept transposed, and square: nothing but the class's own code tells."""
    k = keras()

    class Dense(k.layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(4, shape[-1]), name="kernel")
            self.bias = self.add_weight(shape=(4,), name="bias")

        def call(self, x: Any) -> Any:
            return k.ops.matmul(x, k.ops.transpose(self.kernel)) + self.bias

    made = k.saving.register_keras_serializable(package)(Dense) if package else Dense
    inner = k.Sequential([k.Input((3, 4)), k.layers.TimeDistributed(made(name="own"), name="steps")], name="inner")
    layers = [k.Input((3, 4)), made(name="mine"), k.layers.Dense(4, name="keras"), inner]
    model = randomize(k.Sequential(layers))
    read_back = read(save(model, tmp_path / "m.keras"))
    roles = {tensor.layer: tensor.role for tensor in read_back.values()}
    assert roles == {"mine": None, "keras": "dense.bias", "inner/steps/own": None}
    if package:
        save(model, tmp_path / "m.h5")
        found = KerasTF().read(tmp_path / "m.h5")
        roles = {tensor.layer.partition("/")[0]: tensor.role for tensor in found.values()}
        assert roles == {"mine": None, "keras": "dense.bias", "inner": None}
