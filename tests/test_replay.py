"""Receipts: kept in .wio files and in targets that have a place, shown, replayed and compared by digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_wio
from test_cli import arrays, make

import wio
from wio.bundle import Bundle
from wio.container import WioFileReader
from wio.container_writer import save
from wio.errors import FormatError, UsageError
from wio.plugins import adapter_named
from wio.replay import replay

FOLD = "fold-batch-norm=conv:bn:0.001"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A convolution and a batch norm as PyTorch would name them, in .npz: nothing of them is declared."""
    path = tmp_path / "source.npz"
    tensors = {
        "conv.weight": arrays(5, 3, 2, 4),
        "conv.bias": arrays(5, seed=1),
        "bn.weight": arrays(5, seed=2),
        "bn.bias": arrays(5, seed=3),
        "bn.running_mean": arrays(5, seed=4),
        "bn.running_var": np.abs(arrays(5, seed=5)) + np.float32(0.1),
        "steps": np.int64(3),
    }
    np.savez(path, **tensors)
    return path


DECLARE = [
    "conv.weight=conv.kernel:OIHW",
    "conv.bias=conv.bias:O",
    "bn.weight=batch_norm.gamma:C",
    "bn.bias=batch_norm.beta:C",
    "bn.running_mean=batch_norm.mean:C",
    "bn.running_var=batch_norm.variance:C",
]


def exported(source: Path, out: Path, *apply: str, **more: Any) -> Path:
    wio.export(source, out, declare=DECLARE, drop=["steps"], apply=apply, **more)
    return out


def receipt_of(path: Path, adapter: str = "wio") -> dict[str, Any]:
    found = adapter_named(adapter).receipt(path)
    assert found is not None
    return found


def test_a_receipt_has_the_value_steps_with_the_digests_of_what_they_read(source: Path, tmp_path: Path) -> None:
    receipt = receipt_of(exported(source, tmp_path / "o.wio", FOLD, "cast=conv.weight:float16", layout="neutral"))
    assert receipt["told"]["apply"] == [FOLD, "cast=conv.weight:float16"]
    fold, cast = receipt["values"]
    with np.load(source) as held:
        digests = {name: hashlib.sha256(held[name].tobytes()).hexdigest() for name in held.files}
    assert fold["from"] == ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    assert fold["source_sha256"] == [digests[name] for name in fold["from"]]
    assert fold["to"] == ["conv.weight", "conv.bias"]
    assert (fold["exact"], fold["parameters"]) == (False, {"batch_norm": "bn", "epsilon": 0.001})
    # What a step before made was never in the source.
    assert cast["source_sha256"] == [None]
    [rearranged] = receipt["steps"]
    assert rearranged["source_sha256"] == [None]
    assert rearranged["ops"]


def test_a_port_without_value_steps_has_the_receipt_it_always_had(source: Path, tmp_path: Path) -> None:
    receipt = receipt_of(exported(source, tmp_path / "o.wio"))
    assert "values" not in receipt
    assert receipt["steps"] == []


@pytest.mark.parametrize("apply", [(), (FOLD,), ("epsilon=bn:0.001:1e-5", "gamma=nothing*")[:1]])
def test_a_wio_file_is_replayed(apply: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    found = replay(exported(source, tmp_path / "o.wio", *apply, layout="neutral"), source)
    assert found.same, found.differences
    assert found.tensors == len(wio.open(tmp_path / "o.wio"))
    assert found.notes == ()


@pytest.mark.parametrize("adapter", ["keras-tf", "keras-theano", "onnx", "safetensors", "wio"])
def test_targets_with_a_place_keep_the_receipt(adapter: str, source: Path, tmp_path: Path) -> None:
    middle = exported(source, tmp_path / "m.wio")
    out = tmp_path / "out"
    wio.import_into(middle, out, adapter=adapter, apply=[FOLD])
    receipt = receipt_of(out, adapter)
    assert receipt["source"] == {"file": "m.wio", "adapter": "wio"}
    assert receipt["values"][0]["kind"] == "fold-batch-norm"
    recorded = {tensor.name: tensor.digest for tensor in wio.open(middle).values()}
    assert receipt["values"][0]["source_sha256"] == [recorded[name] for name in receipt["values"][0]["from"]]
    shown = json.loads(run_wio("inspect", f"{adapter}:{out}", "--receipt").stdout)
    assert shown == receipt
    again = replay(out, middle, adapter=adapter)
    assert again.same, again.differences


@pytest.mark.parametrize("adapter", ["keras-tf", "safetensors"])
def test_a_receipt_goes_along_with_a_copy(adapter: str, source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    wio.import_into(exported(source, tmp_path / "m.wio"), first, adapter=adapter, apply=["cast=conv.*:float16"])
    wio.export(first, tmp_path / "back.wio", adapter=adapter)
    wio.import_into(tmp_path / "back.wio", second, adapter=adapter)
    assert receipt_of(second, adapter) == receipt_of(first, adapter)
    assert adapter != "safetensors" or second.read_bytes() == first.read_bytes()


def test_a_copy_is_given_no_receipt(source: Path, tmp_path: Path) -> None:
    wio.import_into(exported(source, tmp_path / "m.wio"), tmp_path / "o.safetensors", adapter="safetensors")
    assert adapter_named("safetensors").receipt(tmp_path / "o.safetensors") is None
    done = run_wio("inspect", tmp_path / "o.safetensors", "--receipt", code=2)
    assert "has no receipt" in done.stderr


def test_another_source_is_found_out(source: Path, tmp_path: Path) -> None:
    out = exported(source, tmp_path / "o.wio", FOLD)
    with np.load(source) as held:
        changed = {name: held[name] for name in held.files}
    changed["bn.running_mean"] = changed["bn.running_mean"] + np.float32(1)
    np.savez(tmp_path / "other.npz", **changed)
    found = replay(out, tmp_path / "other.npz")
    assert [difference.split(":")[0] for difference in found.differences] == [
        "conv.bias",
        "the receipt's values are not those of the replay",
    ]
    assert found.notes == ("the receipt's source was named source.npz",)
    done = run_wio("replay", out, "--source", tmp_path / "other.npz", code=1)
    assert "conv.bias" in done.stdout


def test_a_file_that_was_changed_after_it_was_made_is_found_out(source: Path, tmp_path: Path) -> None:
    out = exported(source, tmp_path / "o.wio", FOLD)
    reader = WioFileReader(out)
    bundle, receipt = reader.bundle(), reader.receipt()
    assert receipt is not None
    forged = bundle.map(
        lambda t: (
            t.with_values(lambda: np.zeros(t.shape, np.float32), t.shape, t.layout) if t.name == "conv.bias" else t
        )
    )
    save(Bundle(forged.values(), forged.metadata), tmp_path / "f.wio", lambda: receipt)
    [difference] = replay(tmp_path / "f.wio", source).differences
    assert difference.startswith("conv.bias: ")


def test_replay_from_the_command_line(source: Path, tmp_path: Path) -> None:
    out = exported(source, tmp_path / "o.wio", FOLD)
    assert "same: 2 tensors" in run_wio("replay", out, "--source", source).stdout
    document = json.loads(run_wio("replay", out, "--source", source, "--json").stdout)
    assert (document["same"], document["differences"], document["tensors"]) == (True, [], 2)
    run_wio("replay", source, "--source", source, code=2)
    run_wio("replay", out, "--source", tmp_path / "missing.npz", code=2)


@pytest.mark.parametrize(
    "receipt",
    [
        {},
        {"command": "remove"},
        {"command": "export", "told": []},
        {"command": "export", "told": {"declare": "conv"}},
        {"command": "export", "told": {"arch": 3}},
        {"command": "export", "source": {"adapter": 3}},
        {"command": "import"},
        {"command": "import", "into": {"adapter": "wio", "options": {"a": 1}}},
    ],
)
def test_a_receipt_that_says_nothing_sound_is_refused(receipt: dict[str, Any], source: Path, tmp_path: Path) -> None:
    save(Bundle([]), tmp_path / "o.wio", lambda: receipt)
    with pytest.raises(FormatError, match="the receipt"):
        replay(tmp_path / "o.wio", source)


def test_a_file_without_a_receipt_cannot_be_replayed(source: Path, tmp_path: Path) -> None:
    file = make(tmp_path / "a.wio", {"a": (arrays(2), None, None)})
    with pytest.raises(UsageError, match="has no receipt"):
        replay(file, source)


def test_the_plan_is_shown_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    words = ["export", source, "--dry-run", "--drop", "steps", "--apply", FOLD, "-o", tmp_path / "o.wio"]
    words += [word for text in DECLARE for word in ("--declare", text)]
    shown = run_wio(*words).stdout
    [row] = [line for line in shown.splitlines() if "fold-batch-norm" in line]
    assert "conv.weight + conv.bias + bn.weight" in row and "NOT EXACT" in row and "is folded into conv" in row
    assert "conv.weight + conv.bias " in row
    assert "dropped: steps: --drop" in shown
    document = json.loads(run_wio(*words, "--json").stdout)
    assert (document["exact"], [value["kind"] for value in document["values"]]) == (False, ["fold-batch-norm"])
    assert not (tmp_path / "o.wio").exists()
    done = run_wio(*[word for word in words if word != "--dry-run"])
    assert "1 steps that change values (1 NOT exact)" in done.stderr


def test_a_plan_fits_a_narrow_terminal() -> None:
    from wio.cli.output import stacked

    row = ("a/long/name/of/a/layer/kernel", "HWIO -> OIHW", "permute HWIO -> OIHW", "kernel", "exact", "because " * 20)
    lines = list(stacked([row], 80))
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()) == (
        f"{row[0]} -> kernel [exact] HWIO -> OIHW: permute HWIO -> OIHW " + ("because " * 20).strip()
    )
