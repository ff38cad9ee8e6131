"""Models with layers of either data format, saved by real Kerases, converted layer by layer, judged by the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras3_judge import keras as keras_3
from keras3_judge import randomize, save
from keras_judge import KERAS_3, THEANO_1, THEANO_2, Court, Judge, Saved, Tag, model_config
from test_keras_networks import plain_flatten

import wio
from wio.errors import PlanError
from wio.layout import Layout
from wio.port import export, import_into

pytestmark = pytest.mark.xdist_group("keras_mixed")

MAKERS = {
    "g122_th_last": THEANO_1,
    "g122_th_first": THEANO_1,
    "g224_th_last": THEANO_2,
    "g224_th_first": THEANO_2,
    "g315_tf_last": KERAS_3,
}
NETWORKS = ("mixed", "mixed_nested")
SOURCES = [f"{maker}/{network}" for maker in MAKERS for network in NETWORKS]
# Of the same session format; the target's own format is not told, for it has two.
TARGETS = [(keras, backend) for keras in ("1.2", "2.0", "2.2") for backend in ("tf", "theano")]
Saveds = dict[str, Saved]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saveds:
    folder = tmp_path_factory.mktemp("mixed")
    for name, maker in MAKERS.items():
        maker.run(["--generate", str(folder / name), "--data-format", Tag(name).data_format], folder)
    return {
        source: Saved(Tag(maker), network, folder / maker)
        for source in SOURCES
        for maker, _, network in [source.partition("/")]
    }


def plain(family: str) -> bool:
    return family != "2.2"


def judges(source: Saved, keras: str, backend: str, saved: Saveds) -> list[tuple[Judge, dict[str, Any]]]:
    """Who judges, and the same model as that Keras saved it."""
    side = source.tag.data_format.removeprefix("channels_")
    if keras == "1.2":
        return [(THEANO_1, model_config(saved[f"g122_th_{side}/{source.layer}"].full))] if backend == "theano" else []
    config = model_config(saved[f"g224_th_{side}/{source.layer}"].full)
    found = [(THEANO_2, config if keras == "2.2" else plain_flatten(config))]
    if keras == "2.2" and backend == "tf" and side == "last":
        found.append((KERAS_3, {"network": source.layer}))
    return found


@pytest.fixture(scope="module")
def verdicts(saved: Saveds, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("mixed_courts")
    courts = {judge: Court(judge, folder / str(i)) for i, judge in enumerate((THEANO_1, THEANO_2, KERAS_3))}
    cases: dict[str, list[tuple[Court, str]]] = {name: [] for name in saved}
    for name, source in saved.items():
        there = folder / f"{name.replace('/', '.')}.wio"
        export(source.full, there, adapter=source.tag.adapter)
        for keras, backend in TARGETS:
            if plain(keras) and not plain(source.tag.family):
                continue
            path = folder / f"{name.replace('/', '.')}.{keras}.{backend}.h5"
            import_into(there, path, adapter=f"keras-{backend}", options={"keras": keras})
            for judge, config in judges(source, keras, backend, saved):
                case = f"{name} -> {keras} {backend}, {judge.name}"
                courts[judge].add(case, "order", path, config, source, source.tag.first)
                cases[name].append((courts[judge], case))
    for court in courts.values():
        court.sit()
    return {name: [t for court, case in each if (t := court.verdict(case))] for name, each in cases.items()}


@pytest.mark.parametrize("source", SOURCES)
def test_the_target_computes_what_the_source_computed(source: str, verdicts: dict[str, list[str]]) -> None:
    assert not verdicts[source], "\n".join(verdicts[source])


def test_each_layer_is_declared_in_its_own_format(saved: Saveds) -> None:
    def check(source: str, **expected: str) -> None:
        bundle = wio.open(saved[source].full, adapter=saved[source].tag.adapter)
        found = {
            f"{t.layer.rpartition('/')[2]}": t.layout
            for t in bundle.values()
            if str(t.role).endswith(("kernel", "alpha"))
        }
        assert {name: found[name] for name in expected} == {n: Layout.parse(text) for n, text in expected.items()}
        assert bundle.metadata["data_format"] is None

    check(
        "g122_th_first/mixed",
        own="OIHW flipped",
        other="HWIO flipped",
        misread="HWIO flipped",
        slopes="CHW",
        dense_own="(CHW)O C=3 H=5 W=5",
        dense_other="(HWC)O H=4 W=3 C=4",
        dense_misread="(HWC)O H=2 W=3 C=2",
    )
    check(
        "g122_th_last/mixed",
        own="HWIO flipped",
        other="OIHW flipped",
        misread="OIHW flipped",
        slopes="HWC",
        dense_own="(HWC)O H=5 W=5 C=3",
        dense_other="(CHW)O C=4 H=4 W=3",
        dense_misread="(CHW)O C=2 H=4 W=1",
    )
    check("g122_th_last/mixed_nested", conv_in="OIHW flipped", dense_in="(CHW)O C=4 H=4 W=2", conv_out="HWIO flipped")
    check("g224_th_first/mixed", own="HWIO flipped", dense_own="(HWC)O H=5 W=5 C=3")


def test_the_other_way_of_flattening_is_refused_where_nothing_tells_what_it_was(saved: Saveds, tmp_path: Path) -> None:
    """Keras 2.2 leaves H W C of either, and Keras 1 would have C H W of one of them."""
    for session in ("first", "last"):
        with pytest.raises(PlanError) as error:
            import_into(
                saved[f"g224_th_{session}/mixed"].full,
                tmp_path / "out.h5",
                adapter="keras-theano",
                options={"keras": "1.2"},
            )
        assert {"flat_norm" in str(p.tensor) or "dense_" in str(p.tensor) for p in error.value.problems} == {True}
        assert all("data_format=channels_last" in str(problem.remedy) for problem in error.value.problems)
    assert not list(tmp_path.iterdir())


def test_in_one_format_every_layer_follows_it(saved: Saveds, tmp_path: Path) -> None:
    """Asked for a data format, the model is taken to be rewritten in it."""
    for data_format, layout in (("channels_first", "OIHW"), ("channels_last", "HWIO")):
        path = tmp_path / f"{data_format}.h5"
        options = {"keras": "1.2", "data_format": data_format}
        plan = import_into(
            saved["g122_th_first/mixed_nested"].full,
            path,
            adapter="keras-tf",
            options=options,
            source_adapter="keras-theano",
        )
        found = {str(t.layout) for t in wio.open(path, adapter="keras-tf").values() if t.role == "conv.kernel"}
        assert found == {layout}
        assert any(note.startswith("CHECK turn") for note in plan.notes)


@pytest.mark.parametrize("flattens", ["channels_last", "channels_first"])
@pytest.mark.parametrize("neutral", [False, True])
def test_a_flatten_of_its_own_data_format_stays_that_of_the_same_model(
    flattens: str, neutral: bool, tmp_path: Path
) -> None:
    """Convolutions of channels first and a Flatten() of channels last, which takes their maps as they are."""
    layers = keras_3().layers

    def network() -> Any:
        steps = [
            keras_3().Input((3, 5, 4)),
            layers.Conv2D(4, 2, data_format="channels_first", name="conv"),
            layers.Flatten(data_format=flattens),
            layers.Dense(6, name="dense"),
        ]
        return randomize(keras_3().Sequential(steps))

    model, other = network(), network()
    other.set_weights([-each for each in other.get_weights()])
    save(model, tmp_path / "m.keras")
    rows = "(CHW)O C=4 H=4 W=3" if flattens == "channels_last" else "(HWC)O H=4 W=3 C=4"
    assert str(wio.open(tmp_path / "m.keras")["dense/kernel"].layout) == rows
    export(tmp_path / "m.keras", tmp_path / "m.wio", layout="neutral" if neutral else "keep")
    import_into(tmp_path / "m.wio", tmp_path / "m.h5", adapter="keras-tf")
    other.load_weights(tmp_path / "m.h5")
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    save(model, tmp_path / "whole.h5")
    import_into(tmp_path / "whole.h5", tmp_path / "theano.h5", adapter="keras-theano")
    with h5py.File(tmp_path / "theano.h5") as file:
        [rows] = [each[()] for each in datasets(file) if each.shape == (48, 6)]
    np.testing.assert_array_equal(rows, model.get_weights()[2])
    import_into(tmp_path / "m.wio", tmp_path / "plain.h5", adapter="keras-tf", options={"keras": "2.0"})
    plain = model.get_weights()[2]
    if flattens == "channels_first":
        plain = plain.reshape(4, 3, 4, 6).transpose(2, 0, 1, 3).reshape(48, 6)
    with h5py.File(tmp_path / "plain.h5") as file:
        np.testing.assert_array_equal(file["dense/dense/kernel:0"][()], plain)


def datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, each: found.append(each) if isinstance(each, h5py.Dataset) else None)
    return found
