"""Tables of reports: real ones, whole without a script, sorted by their headings and searched where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from msgspec import Struct

from wio.markup import escaped, name_of


class Cell(Struct, frozen=True):
    """One cell. ``key`` is what its column is sorted by where that is not its text; ``mark`` a class of the style."""

    text: str
    key: float | None = None
    mark: str = ""


class Column(Struct, frozen=True):
    """``kind``: ``text``, ``name`` (of a file's own making) or ``number``."""

    heading: str
    kind: str = "text"


def number(value: float | None, digits: int = 4) -> Cell:
    """A number as a person reads it, sorted by its whole value; None is an empty cell that sorts last."""
    if value is None:
        return Cell("")
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}", value)


def table(identity: str, caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> str:
    """A section with a search field and a table; ``identity`` is its id in the page."""
    head = "".join(
        f'<th scope="col" class="{column.kind}"><button type="button">{escaped(column.heading)}</button></th>'
        for column in columns
    )
    body = "\n".join(f"<tr>{''.join(map(_cell, columns, row))}</tr>" for row in rows)
    return f"""<section aria-labelledby="{identity}-title">
<h2 id="{identity}-title">{escaped(caption)}</h2>
<p class="search" hidden><label>Search <input type="search" autocomplete="off" spellcheck="false" \
aria-controls="{identity}"></label> <output></output></p>
<div class="wide" tabindex="0" role="group" aria-labelledby="{identity}-title">
<table id="{identity}">
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>
</section>"""


def _cell(column: Column, cell: Cell) -> str:
    key = "Infinity" if cell.key == inf else repr(cell.key)
    kept = "" if cell.key is None else f' data-key="{key}"'
    kind = " ".join(filter(None, ("" if column.kind == "text" else column.kind, cell.mark)))
    told = f' class="{kind}"' if kind else ""
    text = name_of(cell.text) if column.kind == "name" and cell.text else escaped(cell.text)
    return f"<td{told}{kept}>{text}</td>"
