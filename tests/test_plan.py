"""Plans: every slot filled once, every source used once or dropped by name, all problems at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_cli import arrays, make

from wio.adapter import Slot, Target
from wio.errors import PlanError
from wio.layout import Layout
from wio.plan import make_plan
from wio.plugins import open_bundle
from wio.port import import_into

LSTM = "I(GU) G=ifco"


def slot(name: str, role: str, layout: str, layer: str = "l") -> Slot:
    return Slot(name, role, Layout.parse(layout), layer, layer)


def lstm(tmp_path: Path) -> tuple[dict[str, np.ndarray], Path]:
    gates = {gate: arrays(2, 3, seed=k) for k, gate in enumerate("icfo")}
    tensors = {f"l/W_{g}": (a, "lstm.kernel", f"I(GU) G={g}") for g, a in gates.items()}
    return gates, make(tmp_path / "lstm.wio", tensors)


def test_gates_are_joined_in_the_targets_order(tmp_path: Path) -> None:
    gates, file = lstm(tmp_path)
    bundle, _ = open_bundle(file)
    plan = make_plan(bundle, Target((slot("l/kernel", "lstm.kernel", LSTM),), {}, {}), "x", {})
    assert [step.kind for step in plan.steps] == ["join"]
    expected = np.concatenate([gates[gate] for gate in "ifco"], axis=1)
    np.testing.assert_array_equal(plan.apply()["l/kernel"].numpy(), expected)


def test_gates_are_split_and_rejoined_bit_for_bit(tmp_path: Path) -> None:
    joined = arrays(2, 12)
    bundle, _ = open_bundle(make(tmp_path / "j.wio", {"l/kernel": (joined, "lstm.kernel", LSTM)}))
    slots = tuple(slot(f"l/W_{gate}", "lstm.kernel", f"I(GU) G={gate}") for gate in "icfo")
    plan = make_plan(bundle, Target(slots, {}, {}), "x", {})
    assert [step.kind for step in plan.steps] == ["split"]
    apart = plan.apply()
    np.testing.assert_array_equal(apart["l/W_c"].numpy(), joined[:, 6:9])
    back = make_plan(apart, Target((slot("l/kernel", "lstm.kernel", LSTM),), {}, {}), "x", {}).apply()
    np.testing.assert_array_equal(back["l/kernel"].numpy(), joined)


def test_a_missing_gate_is_no_lstm(tmp_path: Path) -> None:
    _, file = lstm(tmp_path)
    bundle = open_bundle(file)[0].select(drop=["l/W_f"])
    with pytest.raises(PlanError) as error:
        make_plan(bundle, Target((slot("l/kernel", "lstm.kernel", LSTM),), {}, {}), "x", {})
    assert "gates" in str(error.value)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    tensors = {
        "a/k": (arrays(3, 3, 2, 2), "conv.kernel", "HWIO"),
        "b/k": (arrays(4, 2), "dense.kernel", "(?)O"),
        "c/extra": (arrays(2), "conv.bias", "O"),
    }
    bundle, _ = open_bundle(make(tmp_path / "a.wio", tensors))
    slots = (
        slot("a/w", "conv.kernel", "DHWIO", "a"),
        slot("b/w", "dense.kernel", "(HWC)O", "b"),
        slot("d/w", "conv.bias", "O", "d"),
    )
    with pytest.raises(PlanError) as error:
        make_plan(bundle, Target(slots, {}, {}), "x", {})
    assert {problem.kind for problem in error.value.problems} == {"layout", "unused"}
    text = str(error.value)
    assert all(name in text for name in ("a/w", "b/w", "c/extra", "d/w"))


def test_two_tensors_of_one_role_in_one_layer_are_ambiguous(tmp_path: Path) -> None:
    tensors = {"l/a": (arrays(3, 2), "dense.kernel", "IO"), "l/b": (arrays(3, 2), "dense.kernel", "IO")}
    file = make(tmp_path / "a.wio", tensors)
    with pytest.raises(PlanError, match="cannot be taken") as error:
        import_into(file, tmp_path / "o.h5", adapter="keras-tf")
    assert "l/a" in str(error.value) and not (tmp_path / "o.h5").exists()


def test_what_is_planned_is_what_is_done(tmp_path: Path) -> None:
    file = make(tmp_path / "a.wio", {"c/k": (arrays(3, 2, 4, 5), "conv.kernel", "HWIO")})
    shown = import_into(file, None, adapter="keras-theano", dry_run=True).as_json()
    done = import_into(file, tmp_path / "o.h5", adapter="keras-theano").as_json()
    assert shown == done
