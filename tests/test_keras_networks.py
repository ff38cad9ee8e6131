"""Whole networks, saved live by Keras 1.2.2 and 2.2.4 on Theano and by Keras 3, converted, and judged by the others.

What single layers cannot show: nested and shared layers, wrappers, maps joined before they are flattened, statistics of
flattened maps, names too long for one attribute (tests/judges/layer_networks.py).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from keras_judge import KERAS_3, THEANO_1, THEANO_2, Court, Judge, Saved, Tag, config_layers, model_config

import wio
from wio.errors import PlanError, WioError
from wio.layout import Layout
from wio.port import Declarations, export, import_into

# The judges sit once for the whole module: one worker runs all of it.
pytestmark = pytest.mark.xdist_group("keras_networks")

MAKERS = {
    "g122_th_last": THEANO_1,
    "g122_th_first": THEANO_1,
    "g224_th_last": THEANO_2,
    "g224_th_first": THEANO_2,
    "g315_tf_last": KERAS_3,
}
TARGETS = [Tag(f"k{v}_{b}_{f}") for v in ("122", "205", "224") for b in ("th", "tf") for f in ("last", "first")]
NETWORKS = [
    "plain", "flattened_point", "joined", "flattened_norm", "sequence", "shared", "nested", "recurrent", "film",
    "film_lstm", "long_names",
]  # fmt: skip


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """Every network as every maker saved it."""
    folder = tmp_path_factory.mktemp("networks")
    found = {}
    for name, maker in MAKERS.items():
        tag = Tag(name)
        maker.run(["--generate", str(folder / name), "--data-format", tag.data_format], folder)
        for network in NETWORKS:
            each = Saved(tag, network, folder / name)
            if each.full.exists():
                found[each.name] = each
    return found


def test_every_keras_made_every_network(saved: dict[str, Saved]) -> None:
    expected = {f"{maker}/{network}" for maker in MAKERS for network in NETWORKS}
    assert set(saved) == {name for name in expected if not ("122" in name and "long_names" in name)}


def plain_flatten(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the Flatten of Keras 2.0, in nested models and wrappers too."""
    told = {"data_format": "channels_last"} if config["class_name"] == "Flatten" else {}
    inner = config["config"]
    if config["class_name"] in ("Model", "Sequential"):
        inner = {**inner, "layers": [plain_flatten(layer) for layer in config_layers(config)]}
    elif "layer" in inner:
        inner = {**inner, "layer": plain_flatten(inner["layer"])}
    return {**config, "config": {**inner, **told}}


def judges(network: str, target: Tag, saved: dict[str, Saved]) -> list[tuple[Judge, dict[str, Any]]]:
    """Who judges what is written for a target, and the model that the file is loaded into. On TensorFlow, Keras 1.2 is
    judged only by its values: see test_keras_layers."""
    side = target.name.rpartition("_")[2]
    if target.family == "1.2":
        return [(THEANO_1, model_config(saved[f"g122_th_{side}/{network}"].full))] if target.theano else []
    config = model_config(saved[f"g224_th_{side}/{network}"].full)
    found = [(THEANO_2, plain_flatten(config) if target.family == "2.0" else config)]
    if target.name == "k224_tf_last":
        found.append((KERAS_3, {"network": network}))
    return found


def writable(network: str, target: Tag) -> bool:
    """Name lists in parts came with Keras 2.1.5."""
    return network != "long_names" or target.family == "2.2"


def modes(network: str, judge: Judge) -> tuple[str, ...]:
    """Keras 1.2.2 forgets the name of a nested Sequential when it rebuilds a model from its configuration."""
    return ("order",) if network == "nested" and judge is THEANO_1 else ("order", "by_name")


@pytest.fixture(scope="session")
def verdicts(saved: dict[str, Saved], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """For each source what is wrong with its conversions."""
    folder = tmp_path_factory.mktemp("network_courts")
    courts = {judge: Court(judge, folder / str(i)) for i, judge in enumerate((THEANO_1, THEANO_2, KERAS_3))}
    cases: dict[str, list[tuple[Court, str]]] = {name: [] for name in saved}
    for source in saved.values():
        wio_file = folder / f"{source.tag.name}.{source.layer}.wio"
        export(source.full, wio_file, adapter=source.tag.adapter)
        for target in TARGETS:
            if not writable(source.layer, target):
                continue
            path = folder / f"{source.tag.name}.{source.layer}.{target.name}.h5"
            import_into(wio_file, path, adapter=target.adapter, options=target.options)
            for judge, config in judges(source.layer, target, saved):
                for mode in modes(source.layer, judge):
                    case = f"{source.name} -> {target.name}, {mode}, {judge.name}"
                    courts[judge].add(case, mode, path, config, source, target.first)
                    cases[source.name].append((courts[judge], case))
    for court in courts.values():
        court.sit()
    return {name: [t for court, case in each if (t := court.verdict(case))] for name, each in cases.items()}


SOURCES = [f"{maker}/{network}" for maker in MAKERS for network in NETWORKS]
MADE = [name for name in SOURCES if name not in ("g122_th_last/long_names", "g122_th_first/long_names")]


@pytest.mark.parametrize("source", MADE)
def test_the_target_computes_what_the_source_computed(source: str, verdicts: dict[str, list[str]]) -> None:
    assert not verdicts[source], "\n".join(verdicts[source])


@pytest.mark.parametrize("family", ["1.2", "2.0"])
def test_names_that_an_old_keras_cannot_read_are_refused(family: str, saved: dict[str, Saved], tmp_path: Path) -> None:
    source = saved["g224_th_last/long_names"].full
    with pytest.raises(WioError, match=f"Keras {family} cannot read it in parts") as error:
        import_into(source, tmp_path / "out.h5", adapter="keras-theano", options={"keras": family})
    assert error.value.remedy == "write for keras=2.2"
    assert not list(tmp_path.iterdir())


def test_layouts_follow_what_is_flattened(saved: dict[str, Saved]) -> None:
    """What each network is there for, as the reader declares it: sizes worked out layer by layer, in their order."""

    def check(source: str, **expected: str) -> None:
        bundle = wio.open(saved[source].full, adapter=saved[source].tag.adapter)
        found = {name.rpartition("/")[2]: tensor.layout for name, tensor in bundle.items()}
        assert {name: found[name] for name in expected} == {n: Layout.parse(text) for n, text in expected.items()}

    check("g122_th_first/plain", dense_W="(CHW)O H=4 W=2 C=4")
    check("g224_th_first/plain", kernel="(HWC)O H=4 W=2 C=4")
    check("g122_th_first/flattened_point", dense_W="(CHW)O H=1 W=1 C=3")
    check("g122_th_first/joined", hidden_W="(CHW)O H=4 W=4 C=5", dense_W="IO")
    statistics = ("gamma", "beta", "running_mean", "running_std")
    check("g122_th_first/flattened_norm", **{f"norm_{leaf}": "(CHW) H=4 W=3 C=3" for leaf in statistics})
    check("g224_th_first/sequence", kernel="(CW)O W=5 C=4")
    check("g224_th_last/sequence", kernel="(WC)O W=5 C=4")
    check("g122_th_first/sequence", dense_W="(WC)O W=5 C=4")
    check("g122_th_first/nested", deep_W="(CHW)O H=4 W=3 C=2", last_W="IO")
    check("g122_th_first/film", step_W="(CHW)O H=4 W=3 C=3")
    check("g224_th_first/film_lstm", recurrent_kernel="I(GU) G=ifco")
    check("g224_th_first/film_lstm", kernel="(HWC)(GU) H=3 W=2 C=2 G=ifco")
    check("g122_th_first/film_lstm", last_W_i="(CHW)(GU) H=3 W=2 C=2 G=i", last_U_i="I(GU) G=i")


@pytest.mark.parametrize(
    ("layer", "tensor"),
    [("Lambda", "dense/kernel"), ("Reshape", "dense/kernel")],
)
def test_rows_behind_a_layer_that_hides_their_order_are_refused(
    layer: str, tensor: str, saved: dict[str, Saved], tmp_path: Path
) -> None:
    """A Flatten that is a Reshape in disguise: nothing says what the rows are made of, so no other order is written."""
    hidden = hide_flatten(saved["g224_th_first/flattened_point"].full, tmp_path / "hidden.h5", layer)
    assert str(wio.open(hidden)[tensor].layout) == "(?)O"
    with pytest.raises(PlanError) as error:
        import_into(hidden, tmp_path / "out.h5", adapter="keras-theano", options={"keras": "1.2"})
    [problem] = error.value.problems
    assert problem.tensor == tensor
    assert (
        problem.remedy is not None
        and f"--declare '{tensor}=dense.kernel:LAYOUT', where LAYOUT is (HWC)O" in problem.remedy
    )
    # Told what they are, or where the target flattens alike, they pass.
    import_into(hidden, tmp_path / "alike.h5", adapter="keras-tf", options={"data_format": "channels_last"})
    told = Declarations(declare=(f"{tensor}=dense.kernel:(HWC)O H=1 W=1 C=3",))
    import_into(hidden, tmp_path / "told.h5", adapter="keras-theano", options={"keras": "1.2"}, told=told)


def hide_flatten(source: Path, copy: Path, layer: str) -> Path:
    shutil.copy(source, copy)
    with h5py.File(copy, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for document in config_layers(config):
            if document["class_name"] == "Flatten":
                document["class_name"] = layer
        file.attrs["model_config"] = json.dumps(config)
    return copy
