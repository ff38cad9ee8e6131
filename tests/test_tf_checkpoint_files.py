"""The files of a written checkpoint as a set: whole or not at all, never torn; and what no checkpoint can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tf_judge import ADAPTER, read, same, save_v2, tensorflow
from tf_written import assert_restores, bundle_of, files, rewritten, tensor

from wio.bundle import Bundle, Tensor
from wio.dtypes import DTYPES
from wio.errors import DigestError, FormatError, PlanError, UsageError, WioError
from wio.plan import make_plan

DATA = "m.data-00000-of-00001"


@pytest.fixture(scope="session")
def tf() -> Any:
    return tensorflow()


def test_the_index_comes_last_and_the_state_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        order.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    ADAPTER.write(tmp_path / "m", bundle_of({"a": np.float32(1), "b": np.float32(2)}), shards="2", state="yes")
    assert order == ["m.data-00000-of-00002", "m.data-00001-of-00002", "m.index", "checkpoint"]


@pytest.mark.parametrize("shards", ["1", "2"])
def test_an_error_leaves_the_old_checkpoint(tf: Any, tmp_path: Path, shards: str) -> None:
    ADAPTER.write(tmp_path / "m", bundle_of({"a": np.float32([1]), "z": np.float32([2])}), shards=shards, state="yes")
    before = files(tmp_path)

    def fail() -> Any:
        raise FormatError("the source went away")

    broken = Bundle([tensor("a", np.float32([9])), Tensor("z", DTYPES["float32"], (1,), fail)])
    with pytest.raises(FormatError, match="went away"):
        ADAPTER.write(tmp_path / "m", broken, shards=shards, state="yes")
    assert files(tmp_path) == before


def test_new_data_under_an_old_index_are_found_out(tf: Any, tmp_path: Path) -> None:
    """What a reader meets between the renaming of data and index: an error, or values that did not change."""
    old = {"a": np.float32([1, 2]), "b": np.float32([3, 4]), "c": np.float32([5, 6])}
    new = {**old, "b": np.float32([7, 8])}
    for folder, values in (("old", old), ("new", new)):
        (tmp_path / folder).mkdir()
        ADAPTER.write(tmp_path / folder / "m", bundle_of(values))
    (tmp_path / "new" / DATA).replace(tmp_path / "old" / DATA)
    torn = read(tmp_path / "old" / "m")
    assert same(torn["a"].numpy(), old["a"]) and same(torn["c"].numpy(), old["c"])
    with pytest.raises(DigestError, match="do not match their CRC-32C"):
        torn["b"].numpy()
    with pytest.raises(tf.errors.DataLossError):
        tf.raw_ops.RestoreV2(
            prefix=str(tmp_path / "old" / "m"), tensor_names=["b"], shape_and_slices=[""], dtypes=[tf.float32]
        )


@pytest.mark.parametrize("shards", ["1", "2"])
def test_the_output_may_be_the_input(tf: Any, tmp_path: Path, shards: str) -> None:
    values = {f"v{i}": np.full(1000, i, np.float32) for i in range(20)}
    save_v2(tf, tmp_path / "m", dict(reversed(values.items())))
    rewritten(tmp_path / "m", tmp_path / "m", shards=shards)
    assert_restores(tf, tmp_path / "m", values)
    assert list(read(tmp_path / "m")) == sorted(values)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_index_names_its_prefix(tmp_path: Path) -> None:
    ADAPTER.write(tmp_path / "m.index", bundle_of({"a": np.float32(1)}))
    assert sorted(files(tmp_path)) == ["m.data-00000-of-00001", "m.index"]
    assert list(read(tmp_path / "m.index")) == ["a"]


@pytest.mark.parametrize("name", ["żółw 'x' \"quoted\"", "back\\slash", "line\nfeed"])
def test_a_state_file_names_any_prefix(tf: Any, tmp_path: Path, name: str) -> None:
    ADAPTER.write(tmp_path / name, bundle_of({"a": np.float32(1)}), state="yes")
    assert list(read(tmp_path)) == ["a"]
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert state.model_checkpoint_path == str(tmp_path / name)
    assert list(state.all_model_checkpoint_paths) == [str(tmp_path / name)]
    wanted = tf.compat.v1.train.generate_checkpoint_state_proto(str(tmp_path), name, [name])
    assert text_format.Parse((tmp_path / "checkpoint").read_bytes(), type(wanted)()) == wanted


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("there", {}, "a file of that name is there, and would be read in place of the checkpoint"),
        ("folder", {}, "is a folder"),
        ("folder/m.data-00000-of-00001", {}, "a data file is no name for a checkpoint"),
        ("folder/checkpoint", {"state": "yes"}, "its `checkpoint` file would take the name of the prefix"),
        ("gone/m", {}, "cannot write to the folder"),
        ("m", {"shards": "0"}, "shards takes a number from 1"),
        ("m", {"shards": "100000"}, "shards takes a number from 1"),
        ("m", {"shards": "two"}, "shards takes a number from 1"),
        ("m", {"shards": "²"}, "shards takes a number from 1"),
        ("m", {"state": "maybe"}, "option state takes no or yes"),
    ],
)
def test_paths_and_options_that_cannot_be(tmp_path: Path, path: str, options: dict[str, str], message: str) -> None:
    (tmp_path / "there").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WioError, match=message):
        ADAPTER.write(tmp_path / path, bundle_of({"a": np.float32(1)}), **options)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "there"]
    if "shards" in options:
        with pytest.raises(UsageError, match=message):
            ADAPTER.target(Bundle([]), **options)


def test_everything_that_a_checkpoint_cannot_hold_is_said_at_once(tmp_path: Path) -> None:
    bad = {"": np.float32(1), "\0x": np.float32(1), "\ud800": np.float32(1), "fine": np.float32(1)}
    bundle = Bundle([*bundle_of(bad).values(), tensor("eight", np.zeros(2, np.uint8), "float8_e8m0fnu")])
    with pytest.raises(FormatError) as caught:
        ADAPTER.write(tmp_path / "m", bundle)
    assert [(p.kind, p.tensor) for p in caught.value.problems] == [
        ("name", ""), ("name", "\0x"), ("name", "\ud800"), ("dtype", "eight"),
    ]  # fmt: skip
    bundle.metadata["adapter"] = "tf-checkpoint"
    with pytest.raises(PlanError) as planned:
        make_plan(bundle, ADAPTER.target(bundle), "tf-checkpoint", {})
    assert {(p.kind, p.tensor) for p in planned.value.problems} == {(p.kind, p.tensor) for p in caught.value.problems}
    assert files(tmp_path) == {}


def test_values_that_are_not_what_was_declared(tmp_path: Path) -> None:
    short = Tensor("x", DTYPES["float32"], (3,), lambda: np.zeros(3, np.float32), raw=lambda: memoryview(b"12345678"))
    with pytest.raises(FormatError, match="x: 8 bytes were given where its shape takes 12"):
        ADAPTER.write(tmp_path / "m", Bundle([short]))
    with pytest.raises(FormatError, match="x: its values are int, not byte strings"):
        ADAPTER.write(tmp_path / "m", Bundle([tensor("x", np.array([5], object), "string")]))
    assert files(tmp_path) == {}
