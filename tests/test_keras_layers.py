"""Every layer kind, from every Keras that saved it to every Keras that wio writes for, judged by the real Kerases.

A source is a file of tests/data/real_frameworks/keras_layers: Keras 1.2.2, 2.0.5 or 2.2.4, on TensorFlow or Theano,
channels first or last. It is exported to .wio, imported for each of the twelve Kerases, and loaded by

- Keras 1.2.2 on Theano, what is written for Keras 1.2 on Theano;
- Keras 2.2.4 on Theano, everything else: its own loader flips what was written for TensorFlow, and converts what was
  written for Keras 1; its Flatten, told to be plain, is that of 2.0;
- Keras 3, what is written for Keras 2 on TensorFlow, channels last.

The model is built from the configuration that the target's own Keras saved, the weights are NaN before the load, the
output on the source's input must be what the source computed. Layers are matched by order, then by name.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest
from keras_judge import (
    KERAS_3,
    SAVED,
    TAGS,
    THEANO_1,
    THEANO_2,
    Court,
    Saved,
    Tag,
    attribute,
    config_layers,
    model_config,
    tree,
)

import wio
from wio.errors import PlanError
from wio.port import export, import_into

# The judges sit once for the whole module: one worker runs all of it.
pytestmark = pytest.mark.xdist_group("keras_layers")

# What a layer of Keras 1 is called in Keras 2.
RENAMED = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D_dilated",
    "AtrousConvolution2D": "Conv2D_dilated",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
ONLY_KERAS_1 = {"Highway", "MaxoutDense"}
LACKING = {
    "1.2": {"DepthwiseConv2D", "GRU_reset_after", "SeparableConv1D"},
    "2.0": {"GRU_reset_after", *ONLY_KERAS_1},
    "2.2": ONLY_KERAS_1,
}


def kind_of(layer: str) -> str:
    return RENAMED.get(layer, layer)


def told(source: Saved) -> dict[str, str]:
    """The data format, for the layers whose files do not say it anywhere: alone, they have nothing that would."""
    silent = source.layer == "PReLU" or (source.layer == "Flatten_Dense" and source.tag.family != "2.2")
    return {"data_format": source.tag.data_format} if silent else {}


def exists(kind: str, target: Tag) -> bool:
    return kind not in LACKING[target.family]


# --- the models of the targets


def target_config(kind: str, target: Tag) -> dict[str, Any] | None:
    """The configuration of a layer kind as the target's own Keras saved it; None if that Keras saved none.

    Only for kinds that the corpus lacks there, the configuration of its nearest kin, with what differs stated.
    """
    own = next((s for s in SAVED.values() if s.tag == target and kind_of(s.layer) == kind), None)
    if own is not None:
        return model_config(own.full)
    if kind == "Conv1D_dilated":
        return changed(target_config("Conv1D", target), batch_input_shape=[None, 9, 2], dilation_rate=[2])
    if kind == "Conv2DTranspose_s2":
        shapes = {"batch_input_shape": [4, 3, 2], "output_shape": [9, 7, 4]}
        placed = {key: [None, *([c, h, w] if target.first else [h, w, c])] for key, (h, w, c) in shapes.items()}
        return changed(target_config("Conv2DTranspose", target), nb_row=3, nb_col=3, subsample=[2, 2], **placed)
    if target.family == "2.0" and kind in ("DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"):
        # Newer than 2.0.5, or not there on Theano: 2.1 has them.
        return target_config(kind, Tag(target.name.replace("205", "224")))
    if kind == "LocallyConnected1D":
        return target_config(kind, Tag(re.sub("th_.*|tf_first", "tf_last", target.name)))
    return None


def changed(config: dict[str, Any] | None, **values: Any) -> dict[str, Any]:
    assert config is not None
    config = copy.deepcopy(config)
    config_layers(config)[0]["config"].update(values)
    return config


def named(config: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The configuration, its layers that have weights being called ``names``."""
    config = copy.deepcopy(config)
    weighted = [layer for layer in config_layers(config) if layer["class_name"] != "Flatten"]
    for layer, name in zip(weighted, names, strict=True):
        layer["config"]["name"] = name
    return config


def in_keras_22(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of Keras 1 or 2.0 that means the same to 2.2: Flatten is plain, two keys have changed."""
    config = copy.deepcopy(config)
    for layer in config_layers(config):
        if layer["class_name"] == "Flatten":
            layer["config"]["data_format"] = "channels_last"
        if layer["class_name"] == "Embedding":
            # Up to 2.0 that of the input.
            layer["config"]["dtype"] = "float32"
        if layer["class_name"] == "ConvLSTM2D":
            layer["config"].pop("implementation", None)
    return config


def weight_groups(path: Path) -> list[tuple[str, list[str]]]:
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        names = [name.decode() for name in root.attrs["layer_names"]]
        return [(n, found) for n in names if (found := [w.decode() for w in root[n].attrs["weight_names"]])]


# --- all conversions, all loads


@dataclass(frozen=True)
class Conversion:
    source: Saved
    target: Tag
    path: Path

    @property
    def name(self) -> str:
        return f"{self.source.name} -> {self.target.name}"


CONVERSIONS = [
    (source, target) for source in SAVED.values() for target in TAGS if exists(kind_of(source.layer), target)
]
# Layers that exist there, but that no judge at hand runs; what is written for them is proved by its values alone.
NO_JUDGE = {
    **{
        ("LocallyConnected2D", f"k{version}_{backend}_last"): "on Theano it adds its bias as if channels came first"
        for version, backend in (("122", "th"), ("205", "th"), ("224", "th"), ("122", "tf"))
    },
    **{
        (kind, f"k122_{backend}_{side}"): why
        for kind, backends, why in (
            ("SeparableConv2D", ("th",), "Keras 1.2.2 has none on Theano"),
            ("MaxoutDense", ("tf",), "Keras 2 has none that could convert it"),
            ("Highway", ("tf",), "Keras 2 has none that could convert it"),
            ("TimeDistConv2D", ("tf",), "Keras 2.2.4 converts it twice"),
        )
        for backend in backends
        for side in ("first", "last")
    },
    ("SeparableConv2D", "k122_tf_first"): "Keras 2.2.4 does not convert it",
    ("ConvLSTM2D", "k122_tf_first"): "Keras 2.2.4 joins its gates along the wrong axis",
}


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Conversion]:
    folder = tmp_path_factory.mktemp("converted")
    for source in SAVED.values():
        export(source.full, wio_file(folder, source), adapter=source.tag.adapter, options=told(source))
    found = {}
    for source, target in CONVERSIONS:
        path = folder / f"{source.tag.name}.{source.layer}.{target.name}.h5"
        import_into(wio_file(folder, source), path, adapter=target.adapter, options=target.options)
        found[source.name, target.name] = Conversion(source, target, path)
    return found


def wio_file(folder: Path, source: Saved) -> Path:
    return folder / f"{source.tag.name}.{source.layer}.wio"


@pytest.fixture(scope="session")
def courts(
    converted: dict[tuple[str, str], Conversion], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[Court, str]]]:
    """For each source the cases that were judged, and the judge."""
    folder = tmp_path_factory.mktemp("courts")
    sitting = {judge: Court(judge, folder / str(i)) for i, judge in enumerate((THEANO_1, THEANO_2, KERAS_3))}
    cases: dict[str, list[tuple[Court, str]]] = {source: [] for source in SAVED}
    for conversion in converted.values():
        for judge, mode, path, config in loads(conversion):
            case = f"{conversion.name}, {mode}, {judge.name}"
            # Under a channels_first session LocallyConnected1D cannot be called: it adds its bias by that format.
            first = conversion.target.first and conversion.source.layer != "LocallyConnected1D"
            sitting[judge].add(case, mode, path, config, conversion.source, first)
            cases[conversion.source.name].append((sitting[judge], case))
    for court in sitting.values():
        court.sit()
    return cases


def loads(conversion: Conversion) -> Iterator[tuple[Any, str, Path, dict[str, Any] | None]]:
    """Who judges a file: the judge, the way of loading, the file, the model's configuration."""
    source, target, path = conversion.source, conversion.target, conversion.path
    kind = kind_of(source.layer)
    config = target_config(kind, target)
    if config is None:
        return
    by_name = named(config, [name for name, _ in weight_groups(path)])
    modes = [("order", config), ("by_name", by_name)]
    if target.family == "1.2" and target.theano:
        yield from ((THEANO_1, mode, path, each) for mode, each in modes)
        if "model_weights" in h5py.File(path, "r"):
            yield THEANO_1, "whole", path, None
    elif target.family == "1.2":
        later = target_config(kind, Tag(target.name.replace("k122_tf", "k224_th")))
        if later is not None and converted_by_keras_2(kind, target):
            yield THEANO_2, "order", says_tensorflow(path), in_keras_22(later)
    else:
        meant = in_keras_22 if target.family == "2.0" else copy.deepcopy
        yield from ((THEANO_2, mode, path, meant(each)) for mode, each in modes)
        if target.family == "2.2" and target.theano and "model_weights" in h5py.File(path, "r"):
            yield THEANO_2, "whole", path, None
        if not target.theano and not target.first and not kind.startswith("LocallyConnected"):
            yield from ((KERAS_3, mode, path, each) for mode, each in modes)


def converted_by_keras_2(kind: str, target: Tag) -> bool:
    """Whether the loader of Keras 2.2.4 converts such a layer of Keras 1 rightly.

    It converts what TimeDistributed holds twice, and joins the gates of ConvLSTM2D along the wrong axis if they are
    stored filters first (keras 2.2.4 engine/saving.py, preprocess_weights_for_loading).
    """
    return kind not in ("TimeDistConv2D", *ONLY_KERAS_1) and not (
        kind in ("ConvLSTM2D", "SeparableConv2D") and target.first
    )


def says_tensorflow(path: Path) -> Path:
    """A copy that names its backend, as no file of Keras 1 does: the loader of Keras 2 then flips its kernels."""
    copied = path.with_suffix(".says.h5")
    shutil.copy(path, copied)
    with h5py.File(copied, "r+") as file:
        root = file.get("model_weights", file)
        root.attrs["backend"] = b"tensorflow"
        if "keras_version" in root.attrs:
            del root.attrs["keras_version"]
    return copied


def test_what_no_judge_runs_is_known(converted: dict[tuple[str, str], Conversion]) -> None:
    judged = {(kind_of(c.source.layer), c.target.name) for c in converted.values() if list(loads(c))}
    assert {(kind_of(source.layer), target.name) for source, target in CONVERSIONS} - judged == set(NO_JUDGE)


@pytest.mark.parametrize("source", SAVED)
def test_the_target_computes_what_the_source_computed(source: str, courts: dict[str, list[tuple[Court, str]]]) -> None:
    wrong = [text for court, case in courts[source] if (text := court.verdict(case))]
    assert not wrong, "\n".join(wrong)


# --- what cannot be

REFUSED = [
    (source, target) for source in SAVED.values() for target in TAGS if not exists(kind_of(source.layer), target)
]


@pytest.mark.parametrize("layer", sorted({source.layer for source, _ in REFUSED}))
def test_a_layer_that_the_target_lacks_is_refused(layer: str, tmp_path: Path) -> None:
    for source, target in REFUSED:
        if source.layer != layer:
            continue
        with pytest.raises(PlanError) as error:
            convert(source, target, tmp_path / "out.h5", told(source))
        assert {problem.kind for problem in error.value.problems} == {"unsupported"}
        for problem in error.value.problems:
            assert problem.tensor in wio.open(source.full, adapter=source.tag.adapter)
            assert f"Keras {target.family}" in problem.message
        assert not list(tmp_path.iterdir())


def convert(source: Saved, target: Tag, path: Path, options: dict[str, str]) -> None:
    import_into(
        source.full,
        path,
        adapter=target.adapter,
        options=target.options,
        source_adapter=source.tag.adapter,
        source_options=options,
    )


SILENT = [name for name, source in SAVED.items() if told(source)]


@pytest.mark.parametrize("source", SILENT)
def test_what_a_file_does_not_settle_is_refused_until_it_is_told(source: str, tmp_path: Path) -> None:
    """Alone, a PReLU or a Flatten of Keras 1 or 2.0 has no data format: any other format or version might differ."""
    saved = SAVED[source]
    [unsettled] = [
        name for name, tensor in wio.open(saved.full, adapter=saved.tag.adapter).items()
        if tensor.role in ("prelu.alpha", "dense.kernel")
    ]  # fmt: skip
    for target in TAGS:
        with pytest.raises(PlanError) as error:
            convert(saved, target, tmp_path / "out.h5", {})
        [problem] = error.value.problems
        assert problem.tensor == unsettled
        assert problem.remedy is not None
        assert "--option data_format=channels_first|channels_last" in problem.remedy
        assert f"--declare '{unsettled}=" in problem.remedy
    assert not list(tmp_path.iterdir())
    # As it was, it may go back: nothing is rearranged.
    import_into(
        saved.full,
        tmp_path / "same.h5",
        adapter=saved.tag.adapter,
        options={"keras": saved.tag.family},
        source_adapter=saved.tag.adapter,
    )
    assert tree(tmp_path / "same.h5") == tree(saved.full)


# --- files that no judge at hand can load: by their values and by what the real file looks like

UNSEEN = [tag for tag in TAGS if tag.family == "2.0" or (tag.family == "1.2" and not tag.theano)]
SEEN = Tag("k224_th_last")


@pytest.mark.parametrize("target", [*UNSEEN, Tag("k122_th_last"), Tag("k122_th_first")], ids=lambda target: target.name)
def test_from_there_it_goes_on_as_if_directly(
    target: Tag, converted: dict[tuple[str, str], Conversion], tmp_path: Path
) -> None:
    for source in SAVED.values():
        there = converted.get((source.name, target.name))
        directly = converted.get((source.name, SEEN.name))
        if there is None or directly is None:
            continue
        onward = tmp_path / "onward.h5"
        kept = Saved(target, source.layer, source.folder)
        import_into(
            there.path,
            onward,
            adapter=SEEN.adapter,
            options=SEEN.options,
            source_adapter=target.adapter,
            source_options=told(kept),
        )
        assert arrays(onward) == arrays(directly.path), there.name


def arrays(path: Path) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Every array of a file in the order in which Keras reads them; names are spelled otherwise by other versions."""
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        return [
            (str(root[group][name].dtype), root[group][name].shape, root[group][name][()].tobytes())
            for group, names in weight_groups(path)
            for name in names
        ]


@pytest.mark.parametrize("target", TAGS, ids=lambda target: target.name)
def test_a_file_looks_like_that_of_the_real_keras(target: Tag, converted: dict[tuple[str, str], Conversion]) -> None:
    real = {kind_of(source.layer): source for source in SAVED.values() if source.tag == target}
    compared = set()
    for conversion in converted.values():
        kind = kind_of(conversion.source.layer)
        if conversion.target != target or kind not in real:
            continue
        compared.add(kind)
        generations = {each.family == "1.2" for each in (conversion.source.tag, target)}
        look = looks if len(generations) == 1 else leaves
        assert look(conversion.path) == look(real[kind].weights), conversion.name
        assert attributes(conversion.path) == attributes(real[kind].weights), conversion.name
    assert compared == set(real)


def looks(path: Path) -> list[tuple[str, list[tuple[str, tuple[int, ...]]]]]:
    """Groups, names and shapes; the counters in names are those of the process that made the model."""

    def counted(name: str) -> str:
        # Keras 2.0.5 leaves the scope of a layer that failed to build on the names that come after it.
        return re.sub(r"_\d+", "", name.removeprefix("separable_conv2d_1/") if "/" in name else name)

    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        groups = weight_groups(path)
        return [(counted(g), [(counted(n), root[g][n].shape) for n in names]) for g, names in groups]


def leaves(path: Path) -> list[list[tuple[str, tuple[int, ...]]]]:
    """What each array is called at the end of its name, and its shape: all that versions have in common."""
    ending = re.compile(
        r"(?:^|[_/])((?:W|U|b)(?:_[icfozrh])?|W_carry|b_carry|alphas?|gamma|beta|running_\w+|moving_\w+"
        r"|(?:depthwise_|pointwise_|recurrent_)?kernel|bias|embeddings)(?::0)?$"
    )

    def leaf(name: str) -> str:
        found = ending.search(name)
        assert found, name
        return found[1]

    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        return [[(leaf(n), root[g][n].shape) for n in names] for g, names in weight_groups(path)]


def attributes(path: Path) -> dict[str, Any]:
    """The attributes of the group that lists the layers, and their types; names and their lengths left out."""
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        found = {key: attribute(root, key) for key in root.attrs}
    return {
        key: (kind if isinstance(kind, str) else (kind[0], kind[2]), None if key == "layer_names" else (shape, value))
        for key, (kind, shape, value) in found.items()
    }
