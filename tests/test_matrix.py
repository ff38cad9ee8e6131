"""Every ordered pair of formats: the target computes what the source computed, or wio refuses and says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import matrix
import matrix_table
import numpy as np
import pytest
from matrix import CANNOT, FORMATS, SOURCES, TARGETS, Cell, held_by
from msgspec import structs

# The matrix is made once for the whole module: one worker runs all of it.
pytestmark = pytest.mark.xdist_group("matrix")
PAIRS = [(source, target) for source in FORMATS for target in FORMATS]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Cell]:
    return matrix.matrix(tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_target_computes_what_the_source_computed(
    source: str, target: str, cells: Mapping[tuple[str, str], Cell]
) -> None:
    cell = cells[source, target]
    assert not cell.wrong, "\n".join(cell.wrong)
    assert cell.converted == held_by(source) & held_by(target), cell.refused


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_what_a_target_cannot_hold_is_refused_with_the_reason(
    source: str, target: str, cells: Mapping[tuple[str, str], Cell]
) -> None:
    refused = cells[source, target].refused
    assert set(refused) == held_by(source) - held_by(target)
    for network, texts in refused.items():
        assert all(CANNOT[target, network].error in text for text in texts), texts


def test_the_table_of_the_readme_is_what_was_found(cells: Mapping[tuple[str, str], Cell]) -> None:
    """``python tests/matrix_table.py`` writes it."""
    assert matrix_table.written() == matrix_table.table(matrix.refusals(cells), matrix.reasons())


# Wrong declarations that leave every shape as it is.
PLANTED = [
    ("maps", "up.weight=conv_transpose.kernel:OIHW"),
    ("maps", "dense.weight=dense.kernel:O(HWC) H=7 W=6 C=4"),
    ("maps", "conv.weight=conv.kernel:OIHW flipped"),
    ("depthwise", "deep.weight=depthwise.kernel:(MC)1HW C=3 M=2"),
    ("lstm", "lstm.weight_ih_l0=lstm.kernel:(GU)I G=icfo"),
    ("gru_after", "gru.weight_hh_l0=gru.recurrent_kernel:(GU)I G=zrh"),
]


@pytest.mark.parametrize("target", ["tf-checkpoint", "onnx"])
@pytest.mark.parametrize(("network", "wrong"), PLANTED)
def test_the_judges_see_a_wrong_declaration(network: str, wrong: str, target: str, tmp_path: Path) -> None:
    source = SOURCES["torch"](network, tmp_path)
    told = structs.replace(source.told, declare=(*source.told.declare, wrong))
    computed = TARGETS[target](replace(source, told=told), network, tmp_path)
    assert computed.shape == source.y.shape
    assert np.abs(computed - source.y).max() > 0.001
