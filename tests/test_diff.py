"""Diff: each status where it is the right answer, and where it must not be given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import run_wio
from test_cli import arrays, make

from wio.comparing.comparison import Tolerance
from wio.comparing.diff import diff
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
    assert compare(tmp_path, (square, "conv.kernel", "HWIO"), (turned, "conv.kernel", "HWIO"))[:2] == (False, "layout")
    assert compare(tmp_path, (square, "conv.kernel", "HWIO"), (square, "conv.kernel", "HWIO flipped"))[1] == "layout"


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


@pytest.mark.parametrize(("a", "b"), [(2.0, np.inf), (np.inf, 2.0), (np.inf, -np.inf), (60000.0, np.inf)])
def test_nothing_is_close_to_an_infinity(tmp_path: Path, a: float, b: float) -> None:
    dtype = np.float16 if a == 60000 else np.float32
    x, y = (np.array([1, each, 3], dtype) for each in (a, b))
    for tolerance in (Tolerance(1e-6), Tolerance(0.0, 0.5), Tolerance(3.0, 1e30)):
        assert compare(tmp_path, (x, None, None), (y, None, None), tolerance)[:2] == (False, "changed")
        assert not np.isclose(x.astype(float), y.astype(float), tolerance.rtol, tolerance.atol).all()
    assert compare(tmp_path, (y, None, None), (y, None, None), Tolerance(1e-6))[:2] == (True, "equal")


@pytest.mark.parametrize("option", ["--rtol", "--atol"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_what_is_no_tolerance_is_refused(tmp_path: Path, option: str, value: str) -> None:
    file = str(make(tmp_path / "a.wio", {"a/x": (arrays(2), None, None)}))
    done = run_wio("diff", file, file, f"{option}={value}", code=2)
    assert f"{option[2:]} takes a number from 0" in done.stderr


def test_a_file_with_rows_of_unknown_order_equals_itself(tmp_path: Path) -> None:
    """Of another file with the same bytes that is not known: it may flatten otherwise."""
    dense = {"fc/w": (arrays(12, 5), "dense.kernel", "(?)O")}
    one, same = make(tmp_path / "a.wio", dense), make(tmp_path / "b.wio", dense, flatten_order="HWC")
    assert diff(one, one).equal and diff(one, one) == diff(one, one)
    assert [pair.status for pair in diff(one, same).pairs] == ["undeclared"]


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


# --- layout findings


@pytest.mark.parametrize("wrong", ["HWOI", "WHIO", "HWIO flipped", "OIHW"])
def test_a_wrong_layout_is_found_and_named(tmp_path: Path, wrong: str) -> None:
    square = arrays(3, 3, 3, 3)
    left = make(tmp_path / "a.wio", {"l/w": (square, "conv.kernel", "HWIO")})
    right = make(tmp_path / "b.wio", {"l/w": (square, "conv.kernel", wrong)})
    found = diff(left, right)
    assert (found.equal, found.pairs[0].status) == (False, "layout")
    assert "equal if l/w is HWIO, and it is declared " + wrong in found.pairs[0].detail
    fixed = make(tmp_path / "c.wio", {"l/w": (square, "conv.kernel", "HWIO")})
    assert diff(left, fixed).equal


def test_a_wrong_flatten_order_is_found(tmp_path: Path) -> None:
    kernel = arrays(4 * 4 * 4, 5)
    left = (kernel, "dense.kernel", "(HWC)O H=4 W=4 C=4")
    right = (kernel, "dense.kernel", "(CHW)O H=4 W=4 C=4")
    found = diff(make(tmp_path / "a.wio", {"l/w": left}), make(tmp_path / "b.wio", {"l/w": right}))
    assert found.pairs[0].status == "layout"
    assert "equal if l/w is (HWC)O" in found.pairs[0].detail


def test_a_wrong_order_of_gates_is_found(tmp_path: Path) -> None:
    kernel = arrays(3, 8)
    sides = [
        make(tmp_path / f"{gates}.wio", {"l/w": (kernel, "lstm.kernel", f"I(GU) G={gates}")})
        for gates in ("ifco", "icfo")
    ]
    found = diff(*sides)
    assert found.pairs[0].status == "layout"
    assert "equal if l/w is I(GU) U=2 G=ifco" in found.pairs[0].detail


def test_other_values_are_no_layout_finding(tmp_path: Path) -> None:
    square = arrays(3, 3, 4, 4)
    other = square.copy()
    other[0, 0, 0, 0] += 1
    assert compare(tmp_path, (square, "conv.kernel", "HWIO"), (other, "conv.kernel", "WHIO"))[1] == "changed"
    shuffled = np.random.default_rng(3).permutation(square.reshape(-1)).reshape(square.shape)
    assert compare(tmp_path, (square, "conv.kernel", "HWIO"), (shuffled, "conv.kernel", "HWIO"))[1] == "changed"


def test_undeclared_copies_that_are_relaid_are_a_layout_finding(tmp_path: Path) -> None:
    relaid = np.ascontiguousarray(KERNEL.transpose(3, 2, 0, 1))
    found = diff(
        make(tmp_path / "a.wio", {"l/w": (KERNEL, None, None)}), make(tmp_path / "b.wio", {"l/w": (relaid, None, None)})
    )
    assert (found.equal, found.pairs[0].status) == (False, "layout")
    assert "its axes in the order 3, 2, 0, 1" in found.pairs[0].detail


# --- pairs by content


def test_pairs_by_content_whatever_the_names(tmp_path: Path) -> None:
    relaid = np.ascontiguousarray(KERNEL[::-1, ::-1].transpose(3, 2, 0, 1))
    bias = arrays(5, seed=4)
    a = make(tmp_path / "a.wio", {"x/k": (KERNEL, "conv.kernel", "HWIO"), "x/b": (bias, "conv.bias", "O")})
    b = make(tmp_path / "b.wio", {"q.1": (bias, "conv.bias", "O"), "q.0": (relaid, "conv.kernel", "OIHW flipped")})
    by_name, by_values = diff(a, b), diff(a, b, match="values")
    assert (by_name.equal, len(by_name.pairs)) == (False, 0)
    assert by_values.equal and {(p.a, p.b) for p in by_values.pairs} == {("x/k", "q.0"), ("x/b", "q.1")}


def test_zeros_are_not_known_by_their_content(tmp_path: Path) -> None:
    zeros = np.zeros(4, np.float32)
    a = make(tmp_path / "a.wio", {"x/k": (KERNEL, None, None), "x/b": (zeros, None, None), "n": (zeros, None, None)})
    b = make(tmp_path / "b.wio", {"y/k": (KERNEL, None, None), "y/b": (zeros, None, None), "n": (zeros, None, None)})
    found = diff(a, b, match="values")
    assert {(p.a, p.b) for p in found.pairs} == {("x/k", "y/k"), ("n", "n")}
    assert (found.only_a, found.only_b) == (("x/b",), ("y/b",))


# --- folded batch norms


def folded(kernel: np.ndarray, epsilon: float, dtype: type = np.float32) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """A convolution with its batch norm, and the convolution that both are in one."""
    filters = kernel.shape[-1]
    gamma, beta, mean = (arrays(filters, seed=k) for k in (5, 6, 7))
    variance, bias = np.abs(arrays(filters, seed=8)) + np.float32(0.01), arrays(filters, seed=9)
    factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    plain = {
        "c/kernel": (kernel, "conv.kernel", "HWIO"),
        "c/bias": (bias, "conv.bias", "O"),
        "n/gamma": (gamma, "batch_norm.gamma", "C"),
        "n/beta": (beta, "batch_norm.beta", "C"),
        "n/mean": (mean, "batch_norm.mean", "C"),
        "n/variance": (variance, "batch_norm.variance", "C"),
    }
    product = np.ascontiguousarray((kernel * factor).transpose(3, 2, 0, 1)).astype(dtype)
    shift = (beta + (bias - mean) * factor).astype(dtype)
    return plain, {"f/kernel": (product, "conv.kernel", "OIHW"), "f/bias": (shift, "conv.bias", "O")}


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
@pytest.mark.parametrize("turned", [False, True])
def test_a_folded_batch_norm_is_found_with_its_epsilon(tmp_path: Path, epsilon: float, turned: bool) -> None:
    sides = [make(tmp_path / f"{k}.wio", each) for k, each in enumerate(folded(KERNEL, epsilon))]
    found = diff(*(sides[::-1] if turned else sides), match="values")
    assert [pair.status for pair in found.pairs] == ["folded"]
    assert f"the batch norm n folded into it, epsilon {epsilon:g}; its bias agrees" in found.pairs[0].detail
    assert (found.equal, found.only_a, found.only_b) == (False, (), ())


def test_what_is_no_fold_is_not_called_one(tmp_path: Path) -> None:
    plain, product = folded(KERNEL, 1e-3)
    kernel, role, layout = product["f/kernel"]
    spoiled = kernel.copy()
    spoiled[0, 0, 0, 0] *= np.float32(1.01)
    other = make(tmp_path / "b.wio", product | {"f/kernel": (spoiled, role, layout)})
    found = diff(make(tmp_path / "a.wio", plain), other, match="values")
    assert not found.pairs and "c/kernel" in found.only_a
    bias, role, layout = product["f/bias"]
    other = make(tmp_path / "c.wio", product | {"f/bias": (bias + np.float32(0.1), role, layout)})
    found = diff(make(tmp_path / "d.wio", plain), other, match="values")
    assert "BIAS DOES NOT AGREE" in found.pairs[0].detail and "f/bias" in found.only_b


# --- numbers


def test_numbers_of_a_change(tmp_path: Path) -> None:
    x = np.array([1.0, 2.0, -4.0], np.float32)
    y = np.array([1.0, np.nextafter(np.float32(2), np.float32(3)), -4.0], np.float32)
    left, right = make(tmp_path / "a.wio", {"w": (x, None, None)}), make(tmp_path / "b.wio", {"w": (y, None, None)})
    measure = diff(left, right).pairs[0].measure
    assert measure is not None and (measure.differing, measure.ulps) == (1, 1)
    assert measure.max_rel == pytest.approx(2**-23) and measure.cosine == pytest.approx(1)
    zero = make(tmp_path / "z.wio", {"w": (np.array([0.0, 2, -4], np.float32), None, None)})
    minus = make(tmp_path / "m.wio", {"w": (np.array([-0.0, 2, -4], np.float32), None, None)})
    found = diff(zero, minus).pairs[0]
    assert found.status == "changed" and found.measure is not None and found.measure.ulps == 0


def test_nans_are_equal_when_told(tmp_path: Path) -> None:
    one, other = (np.array([bits], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    left, right = (
        make(tmp_path / "a.wio", {"w": (one, None, None)}),
        make(tmp_path / "b.wio", {"w": (other, None, None)}),
    )
    assert diff(left, right).pairs[0].status == "changed"
    assert diff(left, right, equal_nan=True).equal
    number = make(tmp_path / "c.wio", {"w": (np.array([1], np.float32), None, None)})
    assert not diff(left, number, equal_nan=True).equal


# --- the page, and git


def test_the_page_escapes_what_files_say(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>\x1b[31m'
    left = make(tmp_path / "a.wio", {evil: (np.zeros(3, np.float32), None, None)})
    right = make(tmp_path / "b.wio", {evil: (np.ones(3, np.float32), None, None)})
    done = run_wio("diff", left, right, "--html", tmp_path / "page.html", code=1)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "different" in done.stdout and "&lt;script&gt;alert" in page
    assert "<script>alert" not in page and "\x1b" not in page


def test_git_shows_which_tensors_changed(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        own = ["git", "-c", "user.name=wio", "-c", "user.email=wio@example.org", *words]
        return subprocess.run(own, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    (tmp_path / ".gitattributes").write_text("*.wio diff=wio\n")
    git("config", "diff.wio.textconv", f"{sys.executable} -m wio inspect --textconv")
    kept = (arrays(3, seed=1), None, None)
    make(tmp_path / "m.wio", {"same": kept, "l/w": (KERNEL, "conv.kernel", "HWIO")})
    git("add", ".")
    git("commit", "-qm", "one")
    make(tmp_path / "m.wio", {"same": kept, "l/w": (KERNEL * 2, "conv.kernel", "HWIO")})
    changed = [line for line in git("diff").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert len(changed) == 2 and all("l/w float32 3x2x4x5 conv.kernel HWIO sha256:" in line for line in changed)


# --- what today's tools pass over in silence


def test_a_file_that_was_cut_is_trouble_and_not_a_difference(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.wio", {"l/w": (arrays(64, 64), None, None)})
    cut = tmp_path / "b.wio"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = run_wio("diff", whole, cut, code=2)
    assert "b.wio" in done.stderr and "equal" not in done.stdout


def test_a_file_with_a_nan_equals_itself(tmp_path: Path) -> None:
    odd = make(tmp_path / "a.wio", {"l/w": (np.array([np.nan, 1, np.inf], np.float32), None, None)})
    assert diff(odd, odd, read_bytes=True).equal and diff(odd, odd).as_json()["by"] == "digest"
