"""Pages for a browser: one file each, nothing fetched, every name from a weight file escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from wio.comparing.comparison import SEVERITY, Pair
from wio.comparing.diff import Difference
from wio.errors import printable

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c62828; --odd: #b26a00; --good: #2e7d32; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
th button { font: inherit; font-weight: bold; background: none; border: 0; padding: 0; cursor: pointer; }
th button { color: inherit; }
.changed, .layout { color: var(--bad); }
.undeclared, .folded, .close { color: var(--odd); }
.equal { color: var(--good); }
"""
# Nothing is fetched, whatever a name in a weight file says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
# Sorting and searching; the page says everything without it.
_SCRIPT = """
const body = document.querySelector("tbody"), rows = [...body.rows];
document.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
  const down = button.parentElement.getAttribute("aria-sort") !== "ascending";
  document.querySelectorAll("th").forEach(each => each.removeAttribute("aria-sort"));
  button.parentElement.setAttribute("aria-sort", down ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
  const order = (a, b) => isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
  rows.sort((a, b) => down ? order(a, b) : order(b, a)).forEach(row => body.append(row));
}));
document.querySelector("#search").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  rows.forEach(row => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
});
"""


def diff_page(found: Difference, a: str, b: str) -> str:
    """A comparison as one HTML page: the worst pairs first, sortable, searchable, light and dark."""
    headings = ("status", "A", "B", "max abs", "max rel", "cosine", "ulps", "detail")
    verdict = "equal" if found.equal else "different"
    alone = [("only in A", name, "") for name in found.only_a] + [("only in B", "", name) for name in found.only_b]
    rows = [_row(pair) for pair in found.pairs]
    rows += [_cells([(where, "-1"), (left, None), (right, None), *[("", None)] * 5]) for where, left, right in alone]
    return _page(f"{a} against {b}: {verdict}", f"{verdict}: {found.summary}", headings, rows)


def _row(pair: Pair) -> str:
    measure = pair.measure
    numbers = (pair.max_abs, *((measure.max_rel, measure.cosine, measure.ulps) if measure else (None, None, None)))
    cells: list[tuple[str, str | None]] = [(pair.status, str(SEVERITY[pair.status])), (pair.a, None), (pair.b, None)]
    cells += [("", None) if each is None else (f"{each:.6g}", repr(float(each))) for each in numbers]
    return _cells([*cells, (pair.detail, None)])


def _cells(cells: Sequence[tuple[str, str | None]]) -> str:
    """A row: status first, two names, four numbers, a sentence. Keys are what columns are sorted by."""
    written = []
    for place, (text, key) in enumerate(cells):
        kept = "" if key is None else f' data-key="{escape(key)}"'
        shown = escape(printable(text))
        if place == 0:
            written.append(f'<td class="{shown}"{kept}>{shown}</td>')
        elif place < 3:
            written.append(f"<td{kept}><code>{shown}</code></td>")
        else:
            kind = ' class="number"' if place < 7 else ""
            written.append(f"<td{kind}{kept}>{shown}</td>")
    return f"<tr>{''.join(written)}</tr>"


def _page(title: str, summary: str, headings: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col"><button type="button">{escape(each)}</button></th>' for each in headings)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(printable(title))}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(printable(title))}</h1>
<p>{escape(summary)}</p>
<p><label>Search <input id="search" type="search"></label></p>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody>
</table>
<script>{_SCRIPT}</script>
</body>
</html>
"""
