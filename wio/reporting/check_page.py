"""``wio check --html``: what the lint found as a page, the gravest first, with the tensors that it speaks of."""

from __future__ import annotations

from wio.bundle import Tensor
from wio.checks.check import Checked
from wio.checks.finding import SEVERITIES, Finding
from wio.reporting.drawing import MOST_CARDS, card, cards, histogram, kernel
from wio.reporting.page import page
from wio.reporting.table import Cell, Column, table

_COLUMNS = (
    Column("severity"),
    Column("code"),
    Column("where", "name"),
    Column("evidence"),
    Column("what to do"),
)
_MOST_TENSORS = 3


def check_page(found: Checked, file: str) -> str:
    """The findings of the file called so. Reads again the tensors that are drawn."""
    findings = found.findings
    drawn = [_card(found, finding) for finding in findings[:MOST_CARDS]]
    title = "What was found" if len(findings) <= MOST_CARDS else f"The {MOST_CARDS} gravest of {len(findings)} findings"
    rows = (
        [
            Cell(each.severity, SEVERITIES.index(each.severity), each.severity),
            Cell(each.code),
            Cell(each.where or "the file"),
            Cell(each.evidence),
            Cell(each.remedy),
        ]
        for each in findings
    )
    sections = [cards(title, drawn), table("findings", "All findings", _COLUMNS, rows)] if findings else []
    return page(f"Check of {file}", found.summary, found.ok, [f"{found.tensors} tensors", found.held_against], sections)


def _card(found: Checked, finding: Finding) -> str:
    pictures: list[str] = []
    for tensor in _concerned(found, finding)[:_MOST_TENSORS]:
        space = len(tensor.shape) > 1 and tensor.layout is not None and tensor.layout.spatial
        pictures += [*(kernel(tensor).pictures if space else ()), *histogram(tensor).pictures]
    told = (finding.evidence, f"→ {finding.remedy}")
    return card(finding.where or "the file", (finding.code, *told), pictures, finding.severity)


def _concerned(found: Checked, finding: Finding) -> list[Tensor]:
    """The tensors that a finding names, or those of the layers that it names."""
    named = {finding.where, *finding.tensors}
    by_name = [tensor for name, tensor in found.held.items() if name in named]
    return by_name or [tensor for tensor in found.held.values() if tensor.layer and tensor.layer in named]
