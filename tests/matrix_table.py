"""The table in README.md of what converts into what. ``python tests/matrix_table.py`` finds out and writes it anew."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
_PART = re.compile(r"(?<=<!-- matrix -->\n)(?P<body>.*?)(?=<!-- end -->)", re.DOTALL)
_SHORT = {"depthwise": "depthwise", "lstm": "LSTM", "gru_before": "GRU before", "gru_after": "GRU after"}


def table(cells: Mapping[tuple[str, str], tuple[str, ...]], reasons: Mapping[tuple[str, str], str]) -> str:
    """The networks that each source has and each target refuses, and why; by the names of formats, in their order."""
    targets = list(dict.fromkeys(target for _, target in cells))
    lines = ["| from \\ to | " + " | ".join(f"`{name}`" for name in targets) + " |"]
    lines.append("| --- " * (len(targets) + 1) + "|")
    for source in targets:
        told = [_cell(cells[source, target]) for target in targets]
        lines.append(f"| `{source}` | " + " | ".join(told) + " |")
    why: dict[str, dict[str, None]] = {}
    for (name, network), reason in reasons.items():
        if any(network in cells[source, name] for source in targets):
            why.setdefault(reason, {})[f"`{name}`"] = None
    told = [f"{reason} ({', '.join(names)})" for reason, names in why.items()]
    return "\n".join([*lines, "", f"What is refused, and why: {'; '.join(told)}.", ""])


def _cell(refused: tuple[str, ...]) -> str:
    return "not " + ", ".join(_SHORT[network] for network in refused) if refused else "yes"


def written() -> str:
    """The table as README.md has it."""
    found = _PART.search(README.read_text(encoding="utf-8"))
    return found["body"] if found else ""


def rewrite(body: str) -> None:
    README.write_text(_PART.sub(lambda _: body, README.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parent / "judges"))
    import matrix

    with tempfile.TemporaryDirectory() as folder:
        cells = matrix.matrix(Path(folder))
    wrong = [text for cell in cells.values() for text in cell.wrong]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    rewrite(table(matrix.refusals(cells), matrix.reasons()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
