"""Files of Keras before 1.0 and of its first versions, saved by the real ones (tests/judges/record_early_keras.py).

``layer_3/param_0`` says nothing of what it is; the model's JSON beside it, or the user, does. The running_std of these
is a standard deviation, which becomes a variance only when told.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_judge import HERE, KERAS_3, THEANO_1, Court, Saved, Tag, tree

import wio
from wio.bundle import Bundle, Tensor
from wio.errors import AdapterError, FormatError, LayoutError, PlanError, UsageError
from wio.layout import Layout
from wio.plugins import adapter_named
from wio.port import Declarations, export, import_into

sys.path.insert(0, str(HERE / "judges"))
from record_early_keras import VERSIONS, layers_of

pytestmark = pytest.mark.xdist_group("keras_early")

EARLY = HERE / "data" / "real_frameworks" / "keras_early"
FOLDERS = {"0.3.3": "k033_th", "1.0.5": "k105_th", "1.0.6": "k106_th"}
SAVED = {
    f"{version}/{network}": Saved(
        Tag(f"{FOLDERS[version]}_{'first' if 'first' in network else 'last'}"), network, EARLY / FOLDERS[version]
    )
    for version, networks in VERSIONS.items()
    for network in networks
}
CONVERTED = [name for name in SAVED if not name.endswith("graph")]
NUMBERED = [name for name in SAVED if name.startswith("0.3")]
_KERAS_2 = {
    "nb_filter": "filters",
    "output_dim": "units",
    "filter_length": "kernel_size",
    "border_mode": "padding",
    "inner_activation": "recurrent_activation",
}


def config_of(saved: Saved) -> Path:
    return saved.folder / f"{saved.layer}.json"


def read(saved: Saved, adapter: str = "keras-theano") -> Bundle:
    return wio.open(saved.weights, adapter=adapter, config=str(config_of(saved)))


def squared(bundle: Bundle) -> Bundle:
    """Every deviation as the variance that does the same: ``sqrt(variance + epsilon) = std + epsilon``."""
    epsilons = {layer["name"]: layer.get("epsilon") for layer in bundle.metadata["layers"]}

    def change(tensor: Tensor) -> Tensor:
        if tensor.role != "batch_norm.std":
            return tensor
        epsilon = float(epsilons[tensor.layer])
        values = ((tensor.numpy().astype(np.float64) + epsilon) ** 2 - epsilon).astype(np.float32)
        return with_role(tensor, "batch_norm.variance", values)

    return bundle.map(change)


def with_role(tensor: Tensor, role: str, values: Any) -> Tensor:
    return tensor.with_values(lambda: values, tensor.shape, tensor.layout).declared(role, tensor.layout)


def with_variances(saved: Saved, path: Path) -> Path:
    wio.save(squared(read(saved)), path)
    return path


# --- as the real ones wrote them


@pytest.mark.parametrize("name", NUMBERED)
def test_numbered_arrays_are_read_and_undeclared(name: str) -> None:
    saved = SAVED[name]
    bundle = wio.open(saved.weights, adapter="keras-theano")
    with h5py.File(saved.weights, "r") as file:
        stored = {f"{group}/{k}": file[group][k][()] for group in file for k in file[group]}
    assert sorted(bundle) == sorted(stored)
    for found, tensor in bundle.items():
        assert tensor.role is None and tensor.layout is None
        np.testing.assert_array_equal(tensor.numpy(), stored[found])


def test_the_arrays_of_a_layer_are_in_the_order_of_their_numbers() -> None:
    """An LSTM has twelve: ``param_10`` comes after ``param_9``, not after ``param_1``."""
    names = [name for name in wio.open(SAVED["0.3.3/sequence"].weights, adapter="keras-theano") if "layer_1/" in name]
    assert names == [f"layer_1/param_{n}" for n in range(12)]


def test_which_backend_is_for_the_user_to_say() -> None:
    with pytest.raises(AdapterError, match=r"before 1\.0, which names neither its backend nor its arrays"):
        wio.open(SAVED["0.3.3/image_first"].weights)


@pytest.mark.parametrize("name", NUMBERED)
def test_a_numbered_file_comes_back_the_same(name: str, tmp_path: Path) -> None:
    saved = SAVED[name]
    export(saved.weights, tmp_path / "a.wio", adapter="keras-theano")
    import_into(tmp_path / "a.wio", tmp_path / "back.h5", adapter="keras-theano", options={"keras": "0.3"})
    assert tree(tmp_path / "back.h5") == tree(saved.weights)


DECLARED = {
    "0.3.3/image_first": {
        "layer_0/param_0": ("conv.kernel", "OIHW flipped"),
        "layer_1/param_2": ("batch_norm.mean", "C"),
        "layer_1/param_3": ("batch_norm.std", "C"),
        "layer_5/param_0": ("dense.kernel", "(CHW)O C=4 H=3 W=3"),
        "layer_6/param_3": ("batch_norm.std", "C"),
    },
    "0.3.3/image_last": {
        "layer_0/param_0": ("conv.kernel", "HWIO flipped"),
        "layer_5/param_0": ("dense.kernel", "(HWC)O H=3 W=3 C=4"),
    },
    "0.3.3/sequence": {
        "layer_0/param_0": ("conv.kernel", "OIW1 flipped"),
        "layer_1/param_3": ("lstm.kernel", "I(GU) G=c"),
        "layer_1/param_10": ("lstm.recurrent_kernel", "I(GU) G=o"),
        "layer_2/param_8": ("gru.bias", "(GU) G=h"),
        "layer_3/param_0": ("dense.kernel", "IO"),
        "layer_4/param_1": ("rnn.recurrent_kernel", "IU"),
    },
    "1.0.5/image_first": {
        "batchnormalization_1/batchnormalization_1_running_std": ("batch_norm.std", "C"),
        "batchnormalization_1/batchnormalization_1_running_mean": ("batch_norm.mean", "C"),
    },
    "1.0.6/image_first": {"batchnormalization_2/batchnormalization_2_running_std": ("batch_norm.std", "C")},
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_the_json_beside_a_file_declares_it(name: str) -> None:
    bundle = read(SAVED[name])
    assert {key: (bundle[key].role, str(bundle[key].layout)) for key in DECLARED[name]} == DECLARED[name]
    assert all(tensor.role for tensor in bundle.values())


def test_on_tensorflow_1_0_6_kept_the_variance() -> None:
    """Keras 1.0.6 tensorflow_backend.py, normalize_batch_in_training: what it calls std comes from tf.nn.moments."""
    bundle = read(SAVED["1.0.6/image_first"], "keras-tf")
    assert bundle["batchnormalization_1/batchnormalization_1_running_std"].role == "batch_norm.variance"


def test_weights_that_tell_no_version_leave_it_open() -> None:
    bundle = wio.open(SAVED["1.0.5/image_first"].weights, adapter="keras-theano")
    assert {tensor.role for tensor in bundle.values()} == {None}


# --- converted, and judged by what later Kerases compute


def keras_1(saved: Saved, first: bool) -> dict[str, Any]:
    """The model in Keras 1.2.2. Recurrent layers are unrolled, or its Theano does not end."""
    documents = []
    for k, (class_name, config) in enumerate(layers_of(saved.layer)):
        config = {**config, "name": f"layer_{k}", **_placed(config, first)}
        if class_name in ("LSTM", "GRU", "SimpleRNN"):
            config["unroll"] = True
        documents.append({"class_name": class_name, "config": config})
    return {"class_name": "Sequential", "config": documents}


def _placed(config: dict[str, Any], first: bool) -> dict[str, Any]:
    """What says where the channels are."""
    placed: dict[str, Any] = {}
    if "dim_ordering" in config:
        placed["dim_ordering"] = "th" if first else "tf"
    if "axis" in config:
        placed["axis"] = 1 if first else -1
    shape = config.pop("input_shape", None)
    if shape is not None:
        image = (2, 6, 5) if first else (6, 5, 2)
        placed["batch_input_shape"] = [None, *(image if len(shape) == 3 else shape)]
    return placed


def keras_2(saved: Saved) -> dict[str, Any]:
    """The model in the words of Keras 2, channels last, for Keras 3."""
    documents = []
    for document in keras_1(saved, first=False)["config"]:
        config = {_KERAS_2.get(key, key): value for key, value in document["config"].items()}
        if "nb_row" in config:
            config["kernel_size"] = [config["nb_row"], config["nb_col"]]
        name = {"Convolution1D": "Conv1D", "Convolution2D": "Conv2D", "TimeDistributedDense": "Dense"}
        documents.append({"class_name": name.get(document["class_name"], document["class_name"]), "config": config})
    return {"class_name": "Sequential", "config": documents}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("early")
    theano, third = Court(THEANO_1, folder / "theano"), Court(KERAS_3, folder / "keras3")
    cases: dict[str, list[tuple[Court, str]]] = {}
    for name in CONVERTED:
        saved = SAVED[name]
        there = with_variances(saved, folder / f"{name.replace('/', '.')}.wio")
        for court, adapter, keras, first in (
            (theano, "keras-theano", "1.2", saved.tag.first),
            (theano, "keras-theano", "1.2", not saved.tag.first),
            (third, "keras-tf", "2.2", False),
        ):
            case = f"{name} -> {adapter} {keras} {'first' if first else 'last'}"
            path = folder / f"{case.replace('/', '.')}.h5"
            options = {"keras": keras, "data_format": "channels_first" if first else "channels_last"}
            import_into(there, path, adapter=adapter, options=options)
            court.add(case, "order", path, keras_1(saved, first) if court is theano else keras_2(saved), saved, first)
            cases.setdefault(name, []).append((court, case))
    # A planted mistake: the square alone, the epsilon forgotten.
    saved = SAVED["0.3.3/image_last"]
    wrong = read(saved).map(
        lambda t: with_role(t, "batch_norm.variance", t.numpy() ** 2) if t.role == "batch_norm.std" else t
    )
    wio.save(wrong, folder / "wrong.wio")
    import_into(folder / "wrong.wio", folder / "wrong.h5", adapter="keras-tf", options={"data_format": "channels_last"})
    third.add("wrong", "order", folder / "wrong.h5", keras_2(saved), saved, False)
    for court in (theano, third):
        court.sit()
    found = {name: [text for court, case in each if (text := court.verdict(case))] for name, each in cases.items()}
    return {**found, "wrong": [text for text in [third.verdict("wrong")] if text]}


@pytest.mark.parametrize("name", CONVERTED)
def test_later_kerases_compute_what_the_early_one_computed(name: str, verdicts: dict[str, list[str]]) -> None:
    assert not verdicts[name], "\n".join(verdicts[name])


def test_the_judge_sees_an_epsilon_in_the_wrong_place(verdicts: dict[str, list[str]]) -> None:
    [text] = verdicts["wrong"]
    assert "off by" in text


@pytest.mark.parametrize("name", [name for name in NUMBERED if name in CONVERTED])
def test_by_way_of_keras_2_a_numbered_file_comes_back_the_same(name: str, tmp_path: Path) -> None:
    """Layers without weights count, and the deviation returns: here its own values are put back for its variance."""
    saved = SAVED[name]
    source = squared(read(saved))
    wio.save(source, tmp_path / "a.wio")
    names = {"keras": "2.2", "data_format": saved.tag.data_format}
    import_into(tmp_path / "a.wio", tmp_path / "there.h5", adapter="keras-tf", options=names)
    there = wio.open(tmp_path / "there.h5", data_format=saved.tag.data_format)
    deviations = {tensor.layer: tensor for tensor in read(saved).values() if tensor.role == "batch_norm.std"}
    wio.save(
        there.map(
            lambda t: with_role(t, "batch_norm.std", deviations[t.layer].numpy())
            if t.role == "batch_norm.variance" else t
        ),
        tmp_path / "b.wio",
    )  # fmt: skip
    told = {"keras": "0.3", "data_format": saved.tag.data_format}
    import_into(tmp_path / "b.wio", tmp_path / "back.h5", adapter="keras-theano", options=told)
    back = tree(tmp_path / "back.h5")
    assert {key: value for key, value in back.items() if key != "wio"} == tree(saved.weights)


def test_what_was_declared_by_hand_converts(tmp_path: Path) -> None:
    saved = SAVED["0.3.3/image_first"]
    by_hand = tuple(
        f"{name}={tensor.role}:{tensor.layout}"
        for name, tensor in read(saved).items()
        if tensor.role.partition(".")[0] != "batch_norm"
    )
    told = Declarations(declare=by_hand, drop=("layer_[16]/*",))
    words: dict[str, Any] = {"adapter": "keras-tf", "options": {"keras": "2.2"}, "source_adapter": "keras-theano"}
    import_into(saved.weights, tmp_path / "hand.h5", told=told, **words)
    by_json = {"config": str(config_of(saved))}
    told = Declarations(drop=("layer_[16]/*",))
    words["options"] = {"keras": "2.2", "data_format": "channels_last"}
    import_into(saved.weights, tmp_path / "json.h5", source_options=by_json, told=told, **words)
    a, b = wio.open(tmp_path / "hand.h5"), wio.open(tmp_path / "json.h5")
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name].numpy(), b[name].numpy())


# --- the deviation


def test_a_deviation_goes_nowhere_as_it_is(tmp_path: Path) -> None:
    saved = SAVED["1.0.5/image_first"]
    export(saved.weights, tmp_path / "a.wio", adapter="keras-theano", options={"config": str(config_of(saved))})
    for adapter, options in (
        ("keras-theano", {"keras": "1.2"}),
        ("keras-tf", {"keras": "2.2", "data_format": "channels_last"}),
        ("torch", {}),
        ("onnx", {}),
    ):
        with pytest.raises(PlanError) as error:
            import_into(tmp_path / "a.wio", tmp_path / "out", adapter=adapter, options=options)
        problems = [p for p in error.value.problems if p.tensor and p.tensor.endswith("running_std")]
        assert len(problems) == 2
        assert all(p.remedy and "--apply 'square=" in p.remedy for p in problems), adapter
    assert not (tmp_path / "out").exists()


def test_a_variance_does_not_go_before_1_0(tmp_path: Path) -> None:
    there = with_variances(SAVED["0.3.3/image_first"], tmp_path / "a.wio")
    with pytest.raises(PlanError, match=r"Keras 0\.3 has no layer with a batch_norm\.variance"):
        import_into(there, tmp_path / "out.h5", adapter="keras-theano", options={"keras": "0.3"})


def test_the_convention_is_that_of_keras_1_but_for_two_roles() -> None:
    """As spec/wio-1.md, section 14, says it."""
    for adapter, flipped in (("keras-tf", ""), ("keras-theano", " flipped")):
        for data_format in ("channels_last", "channels_first"):
            early, later = (
                dict(adapter_named(adapter).convention(keras=version, data_format=data_format).layouts)
                for version in ("0.3", "1.2")
            )
            gone = {role.partition(".")[0] for role in set(later) - set(early)} - {"batch_norm"}
            assert gone == {
                "conv_transpose", "separable", "conv_lstm", "locally_connected", "layer_norm",
                "instance_norm",
            }  # fmt: skip
            assert early.pop("batch_norm.std") == later["batch_norm.variance"]
            assert "batch_norm.variance" not in early
            one, others = Layout.parse(f"OIW1{flipped}"), Layout.parse(f"W1IO{flipped}")
            assert tuple(others if each == one else each for each in early["conv.kernel"]) == later["conv.kernel"]
            assert one in early.pop("conv.kernel")
            assert all(later[role] == layouts for role, layouts in early.items())


# --- what is not as it should be


def changed(tmp_path: Path, name: str, change: Any) -> Path:
    path = tmp_path / "changed.h5"
    shutil.copy(SAVED[name].weights, path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def _one_fewer(file: Any) -> None:
    del file["layer_1/param_2"]


def _huge(file: Any) -> None:
    file.attrs["nb_layers"] = 1 << 60


def _negative(file: Any) -> None:
    file["layer_0"].attrs["nb_params"] = -1


def _text(file: Any) -> None:
    file["layer_0"].attrs["nb_params"] = "two"


def _elsewhere(file: Any) -> None:
    del file["layer_0/param_0"]
    file["layer_0/param_0"] = h5py.ExternalLink("other.h5", "/x")


@pytest.mark.parametrize("change", [_one_fewer, _huge, _negative, _text, _elsewhere])
def test_numbers_that_are_not_those_of_the_file(change: Any, tmp_path: Path) -> None:
    path = changed(tmp_path, "0.3.3/image_first", change)
    with pytest.raises(FormatError):
        wio.open(path, adapter="keras-theano")


def test_a_json_of_another_network_is_refused(tmp_path: Path) -> None:
    saved = SAVED["0.3.3/image_first"]
    with pytest.raises(FormatError, match="it has 5 layers, the file 7"):
        wio.open(saved.weights, adapter="keras-theano", config=str(config_of(SAVED["0.3.3/sequence"])))
    with pytest.raises(FormatError, match="of a Graph it tells no order"):
        wio.open(saved.weights, adapter="keras-theano", config=str(config_of(SAVED["0.3.3/graph"])))
    document = json.loads(config_of(saved).read_text())
    document["layers"][0], document["layers"][5] = document["layers"][5], document["layers"][0]
    (tmp_path / "other.json").write_text(json.dumps(document))
    with pytest.raises(LayoutError, match="refutes"):
        wio.open(saved.weights, adapter="keras-theano", config=str(tmp_path / "other.json"))
    # A layer that has another number of arrays than the JSON gives it is not believed.
    document = json.loads(config_of(saved).read_text())
    document["layers"][1]["name"] = "Dense"
    (tmp_path / "other.json").write_text(json.dumps(document))
    bundle = wio.open(saved.weights, adapter="keras-theano", config=str(tmp_path / "other.json"))
    assert {t.role for t in bundle.values() if t.layer == "layer_1"} == {None}


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"\xff", b'{"name": "Sequential", "layers": [5]}', b'{"name": "Sequential"}']
)
def test_a_json_that_is_no_model(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(text)
    with pytest.raises(FormatError):
        wio.open(SAVED["0.3.3/graph"].weights, adapter="keras-theano", config=str(tmp_path / "model.json"))


def test_a_json_beside_a_file_that_needs_none(tmp_path: Path) -> None:
    full = HERE / "data" / "real_frameworks" / "keras_layers" / "k122_th_first" / "Convolution2D.full.h5"
    with pytest.raises(FormatError, match="has a model_config of its own"):
        wio.open(full, adapter="keras-theano", config=str(config_of(SAVED["1.0.5/image_first"])))
    with pytest.raises(FormatError, match="cannot be opened"):
        wio.open(SAVED["0.3.3/graph"].weights, adapter="keras-theano", config=str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="no option 'config' for writing"):
        import_into(
            full, None, adapter="keras-tf", options={"config": "x"}, source_adapter="keras-theano", dry_run=True
        )


def test_the_json_of_a_model_on_another_backend_is_refused(tmp_path: Path) -> None:
    """``to_json()`` names the backend since Keras 2.0, so it can contradict what the user says of the weights."""
    saved = Saved(Tag("k224_th_last"), "Conv2D", HERE / "data" / "real_frameworks" / "keras_layers" / "k224_th_last")
    with h5py.File(saved.full, "r") as file:
        document = json.loads(file.attrs["model_config"])
    weights = tmp_path / "unnamed.h5"
    shutil.copy(saved.weights, weights)
    with h5py.File(weights, "r+") as file:
        del file.attrs["backend"]
    (tmp_path / "m.json").write_text(json.dumps({**document, "backend": "theano", "keras_version": "2.2.4"}))
    config = str(tmp_path / "m.json")
    with pytest.raises(FormatError, match="of a model on theano") as error:
        wio.open(weights, adapter="keras-tf", config=config)
    assert error.value.remedy == "read the weights as keras-theano"
    found = wio.open(weights, adapter="keras-theano", config=config)
    whole = wio.open(saved.full)
    assert {name: (t.role, t.layout) for name, t in found.items()} == {n: (t.role, t.layout) for n, t in whole.items()}
