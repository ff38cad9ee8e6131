"""A Keras file that goes to .wio and back is the same file: every group, array, attribute, to the type of each.

And what is converted and converted back holds the arrays it held, bit for bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras_judge import KERAS_3, SAVED, TAGS, THEANO_1, THEANO_2, Saved, Tag, tree

import wio
from wio.errors import PlanError
from wio.layout import Layout
from wio.port import export, import_into


def there_and_back(source: Path, tag: Tag, folder: Path) -> Path:
    """Exported without a word, imported for the Keras and the format that it came from."""
    back = folder / "back.h5"
    export(source, folder / "there.wio", adapter=tag.adapter)
    import_into(folder / "there.wio", back, adapter=tag.adapter, options={"keras": tag.family})
    return back


@pytest.mark.parametrize("name", SAVED)
def test_a_full_model_comes_back_the_same(name: str, tmp_path: Path) -> None:
    saved = SAVED[name]
    back = there_and_back(saved.full, saved.tag, tmp_path)
    assert tree(back) == tree(saved.full)


@pytest.mark.parametrize("name", SAVED)
def test_weights_alone_come_back_the_same(name: str, tmp_path: Path) -> None:
    """Nothing in a weights file says what its arrays are: they are kept as they are."""
    saved = SAVED[name]
    back = there_and_back(saved.weights, saved.tag, tmp_path)
    assert tree(back) == tree(saved.weights)


@pytest.mark.parametrize("name", ["k122_th_first/ConvFlattenDense", "k205_tf_last/BidirLSTM", "k224_th_last/LSTM"])
def test_the_same_bytes_every_time(name: str, tmp_path: Path) -> None:
    """Where the target's convention is the source's, and where every step of a conversion is taken."""
    saved = SAVED[name]
    for target in (saved.tag, Tag("k122_tf_first"), Tag("k224_th_first")):
        written = []
        for k in range(2):
            export(saved.full, tmp_path / f"{k}.wio", adapter=saved.tag.adapter)
            import_into(tmp_path / f"{k}.wio", tmp_path / f"{k}.h5", adapter=target.adapter, options=target.options)
            written.append(((tmp_path / f"{k}.wio").read_bytes(), (tmp_path / f"{k}.h5").read_bytes()))
        assert written[0] == written[1], target


@pytest.mark.parametrize("name", SAVED)
def test_converted_and_converted_back_it_holds_what_it_held(name: str, tmp_path: Path) -> None:
    saved = SAVED[name]
    told = {"data_format": saved.tag.data_format}
    original = stored(saved.full)
    there, back = tmp_path / "there.h5", tmp_path / "back.h5"
    gone = 0
    for target in TAGS:
        try:
            import_into(
                saved.full,
                there,
                adapter=target.adapter,
                options=target.options,
                source_adapter=saved.tag.adapter,
                source_options=told,
            )
        except PlanError as error:
            # What a Keras lacks: test_keras_layers holds these to their words.
            assert {problem.kind for problem in error.problems} == {"unsupported"}
            continue
        gone += 1
        import_into(
            there,
            back,
            adapter=saved.tag.adapter,
            options=saved.tag.options,
            source_adapter=target.adapter,
            source_options={"data_format": target.data_format},
        )
        assert stored(back) == original, target
    assert gone >= 4


def stored(path: Path) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Every array in the order in which Keras reads them."""
    found = []
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        for layer in root.attrs["layer_names"]:
            group = root[layer]
            arrays = [group[name] for name in group.attrs["weight_names"]]
            found += [(str(array.dtype), array.shape, array[()].tobytes()) for array in arrays]
    return found


# --- live: optimizer weights, nested models, name lists in parts, the legacy files of Keras 3


# The networks are made once: one worker runs all of these.
LIVE = pytest.mark.xdist_group("keras_live")


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    folder = tmp_path_factory.mktemp("live")
    found = {}
    for name, maker in (("g122_th_first", THEANO_1), ("g224_th_first", THEANO_2), ("g315_tf_last", KERAS_3)):
        tag = Tag(name)
        maker.run(["--generate", str(folder / name), "--data-format", tag.data_format], folder)
        for path in sorted((folder / name).glob("*.full.h5")):
            saved = Saved(tag, path.name.removesuffix(".full.h5"), folder / name)
            found[saved.name] = saved
    return found


@LIVE
@pytest.mark.parametrize("maker", ["g122_th_first", "g224_th_first", "g315_tf_last"])
def test_every_network_comes_back_the_same(maker: str, live: dict[str, Saved], tmp_path: Path) -> None:
    networks = [saved for saved in live.values() if saved.tag.name == maker]
    assert len(networks) >= 10
    for saved in networks:
        for source in (saved.full, saved.weights):
            if source.exists():
                back = there_and_back(source, saved.tag, tmp_path)
                assert tree(back) == tree(source), source.name


@LIVE
@pytest.mark.parametrize("maker", ["g122_th_first", "g224_th_first", "g315_tf_last"])
def test_the_optimizer_comes_along(maker: str, live: dict[str, Saved]) -> None:
    """So that the test above is about optimizers too: a trained network has moments that are not zero."""
    saved = live[f"{maker}/shared"]
    moments = [t for t in wio.open(saved.full, adapter=saved.tag.adapter).values() if t.role == "optimizer"]
    assert len(moments) >= 10
    assert any(np.any(moment.numpy()) for moment in moments)


@LIVE
def test_long_name_lists_were_in_parts_and_are_again(live: dict[str, Saved], tmp_path: Path) -> None:
    for maker in ("g224_th_first", "g315_tf_last"):
        saved = live[f"{maker}/long_names"]
        back = there_and_back(saved.full, saved.tag, tmp_path)
        with h5py.File(back, "r") as file:
            root = file["model_weights"]
            assert {"layer_names0", "layer_names1"} <= set(root.attrs) and "layer_names" not in root.attrs
            assert {"weight_names0", "weight_names1"} <= set(root["inner"].attrs)
        assert tree(back) == tree(saved.full)


@LIVE
def test_a_weights_file_remembers_what_it_was_written_with(live: dict[str, Saved], tmp_path: Path) -> None:
    """Converted weights have no model_config; the declarations that wio leaves in the file let it go on from there."""
    saved = live["g122_th_first/nested"]
    weights = tmp_path / "weights.h5"
    import_into(saved.full, weights, adapter="keras-tf", options={"keras": "2.2"}, source_adapter="keras-theano")
    with h5py.File(weights, "r") as file:
        assert "model_config" not in file.attrs
        document = json.loads(bytes(file["wio"][()]))
    [rows] = [each["layout"] for path, each in document["tensors"].items() if path.endswith("deep/kernel:0")]
    assert Layout.parse(rows) == Layout.parse("(HWC)O H=4 W=3 C=2")
    direct, onward = tmp_path / "direct.h5", tmp_path / "onward.h5"
    import_into(saved.full, direct, adapter="keras-theano", options={"keras": "2.2"}, source_adapter="keras-theano")
    import_into(weights, onward, adapter="keras-theano", options={"keras": "2.2"})
    assert stored(onward) == stored(direct)
