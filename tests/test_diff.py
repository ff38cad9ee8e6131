"""Diff: each status where it is the right answer, and where it must not be given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_cli import arrays, make

from wio.diff import Tolerance, diff
from wio.errors import WioError
from wio.port import Declarations

Entry = tuple[np.ndarray, str | None, str | None]


def compare(tmp_path: Path, a: Entry, b: Entry, tolerance: Tolerance | None = None) -> tuple[bool, str, float | None]:
    """Whether two files of one tensor are equal, that pair's status, and its largest difference."""
    left, right = make(tmp_path / "a.wio", {"l/w": a}), make(tmp_path / "b.wio", {"l/w": b})
    found = diff(left, right, tolerance=tolerance)
    assert len(found.pairs) == 1
    return found.equal, found.pairs[0].status, found.pairs[0].max_abs


KERNEL = arrays(3, 2, 4, 5)


def test_a_relaid_copy_is_equal(tmp_path: Path) -> None:
    relaid = np.ascontiguousarray(KERNEL[::-1, ::-1].transpose(3, 2, 0, 1))
    assert compare(tmp_path, (KERNEL, "conv.kernel", "HWIO"), (relaid, "conv.kernel", "OIHW flipped"))[:2] == (
        True,
        "equal",
    )


def test_a_wrong_declaration_is_not_equal(tmp_path: Path) -> None:
    square = arrays(3, 3, 4, 4)
    turned = np.ascontiguousarray(square.transpose(1, 0, 2, 3))
    assert compare(tmp_path, (square, "conv.kernel", "HWIO"), (turned, "conv.kernel", "HWIO"))[:2] == (False, "changed")
    assert compare(tmp_path, (square, "conv.kernel", "HWIO"), (square, "conv.kernel", "HWIO flipped"))[1] == "changed"


def test_one_element_is_enough(tmp_path: Path) -> None:
    other = KERNEL.copy()
    other[2, 1, 3, 4] += np.float32(5e-7)
    equal, status, worst = compare(tmp_path, (KERNEL, "conv.kernel", "HWIO"), (other, "conv.kernel", "HWIO"))
    assert (equal, status) == (False, "changed") and worst is not None and 0 < worst < 1e-6


def test_a_nan_equals_itself_and_nothing_else(tmp_path: Path) -> None:
    x = np.array([1, np.nan], np.float32)
    assert compare(tmp_path, (x, None, None), (x, None, None))[:2] == (True, "equal")
    assert compare(tmp_path, (x, None, None), (np.array([1, 2], np.float32), None, None))[:2] == (False, "changed")


def test_integers_are_not_floats(tmp_path: Path) -> None:
    a, b = np.array([2**53], np.int64), np.array([2**53 + 1], np.int64)
    assert compare(tmp_path, (a, None, None), (b, None, None)) == (False, "changed", 1.0)


def test_dtype_and_shape_are_differences(tmp_path: Path) -> None:
    a = np.zeros(3, np.float32)
    assert compare(tmp_path, (a, None, None), (a.astype(np.float64), None, None))[1] == "changed"
    assert compare(tmp_path, (np.zeros((1, 3)), None, None), (np.zeros((5, 3)), None, None))[1] == "changed"
    assert compare(tmp_path, (np.zeros((1,)), None, None), (np.zeros((5,)), None, None))[1] == "changed"


def test_half_declared_claims_nothing_and_names_the_remedy(tmp_path: Path) -> None:
    left = make(tmp_path / "a.wio", {"l/w": (KERNEL, None, None)})
    right = make(tmp_path / "b.wio", {"l/w": (KERNEL, "conv.kernel", "HWIO")})
    found = diff(left, right)
    assert not found.equal
    pair = found.pairs[0]
    assert (pair.status, pair.stored_equal) == ("undeclared", True)
    assert "--declare 'l/w=conv.kernel:HWIO'" in pair.detail
    settled = diff(left, right, told=Declarations(declare=("l/w=conv.kernel:HWIO",)))
    assert settled.equal and settled.pairs[0].status == "equal"


def test_the_remedy_speaks_the_open_sides_layout(tmp_path: Path, data: Path) -> None:
    """A torch file keeps OIHW, whatever the other side has."""
    import torch

    import wio

    source = data / "keras_layers" / "k224_tf_last" / "ConvFlattenDense.full.h5"
    names = {name.partition("/")[0]: name for name in wio.open(source) if name.endswith("kernel")}
    conv = next(layer for layer in names if layer.startswith("conv"))
    kernel = wio.open(source)[names[conv]].to("OIHW").numpy()
    torch.save({f"{conv}/kernel": torch.from_numpy(kernel.copy())}, tmp_path / "t.pt")
    pair = next(p for p in diff(source, tmp_path / "t.pt").pairs if p.a == f"{conv}/kernel")
    assert pair.detail.endswith(f"--declare '{conv}/kernel=conv.kernel:OIHW'")


def test_a_declaration_must_fit_one_of_the_two(tmp_path: Path) -> None:
    left, right = (make(tmp_path / f"{name}.wio", {"a/x": (arrays(2), None, None)}) for name in "ab")
    with pytest.raises(WioError, match="either file"):
        diff(left, right, told=Declarations(declare=("no_such*=conv.bias",)))


def test_two_undeclared_tensors_compare_as_stored(tmp_path: Path) -> None:
    assert compare(tmp_path, (KERNEL, None, None), (KERNEL, None, None))[:2] == (True, "equal")


@pytest.mark.parametrize(
    ("rtol", "atol", "status"), [(1e-5, 0.0, "close"), (0.0, 1e-4, "close"), (1e-9, 0.0, "changed")]
)
def test_close_only_within_a_tolerance_that_was_given(tmp_path: Path, rtol: float, atol: float, status: str) -> None:
    a = arrays(100) + 10
    b = (a * np.float32(1 + 1e-6)).astype(np.float32)
    given = Tolerance(rtol, atol)
    assert compare(tmp_path, (a, None, None), (b, None, None), given)[:2] == (status == "close", status)


def test_only_on_one_side(tmp_path: Path) -> None:
    left = make(tmp_path / "a.wio", {"a/x": (arrays(2), None, None), "b/x": (arrays(2), None, None)})
    right = make(tmp_path / "b.wio", {"a/x": (arrays(2), None, None), "c/y": (arrays(2), None, None)})
    found = diff(left, right)
    assert not found.equal and (found.only_a, found.only_b) == (("b/x",), ("c/y",))


def test_optimizer_slots_of_one_side_are_no_difference(tmp_path: Path) -> None:
    left = make(tmp_path / "a.wio", {"a/x": (arrays(2), None, None), "a/x/Adam": (arrays(2), "optimizer", None)})
    right = make(tmp_path / "b.wio", {"a/x": (arrays(2), None, None)})
    found = diff(left, right)
    assert found.equal and found.left_out == ("a/x/Adam",)


def test_equal_digests_are_not_read_unless_asked(tmp_path: Path) -> None:
    left = make(tmp_path / "a.wio", {"a/x": (arrays(2), None, None)})
    damaged = bytearray(left.read_bytes())
    damaged[-1] ^= 1
    right = tmp_path / "b.wio"
    right.write_bytes(damaged)
    assert diff(left, right).as_json()["by"] == "digest"
    found = diff(left, right, read_bytes=True)
    assert not found.equal and "by" not in found.as_json()


def test_gates_kept_apart_equal_gates_joined(tmp_path: Path) -> None:
    gates = {gate: arrays(2, 3, seed=k) for k, gate in enumerate("icfo")}
    apart = {f"lstm/W_{g}": (a, "lstm.kernel", f"I(GU) G={g}") for g, a in gates.items()}
    joined = np.concatenate([gates[g] for g in "ifco"], axis=1)
    left = make(tmp_path / "a.wio", apart)
    right = make(tmp_path / "b.wio", {"lstm/kernel": (joined, "lstm.kernel", "I(GU) G=ifco")})
    assert diff(left, right).equal
    wrong = make(tmp_path / "c.wio", {"lstm/kernel": (joined, "lstm.kernel", "I(GU) G=icfo")})
    assert not diff(left, wrong).equal
