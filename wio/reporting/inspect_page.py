"""``wio inspect --html``: what a file holds as a page, undeclared tensors first, some kernels drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice

from wio.bundle import Bundle
from wio.markup import escaped
from wio.reporting.drawing import MOST_CARDS, card, cards, kernel
from wio.reporting.page import page
from wio.reporting.table import Cell, Column, number, table
from wio.roles import NOT_WEIGHTS

_MOST_METADATA = 100_000


def inspect_page(bundle: Bundle, adapter: str, file: str, digests: Mapping[str, str]) -> str:
    """The tensors of the file called so; ``digests`` are SHA-256 (hex) by name, if they were asked for.

    Reads the first convolution kernels, which are drawn.
    """
    undeclared = [name for name, t in bundle.items() if t.layout is None and t.role not in NOT_WEIGHTS]
    columns = [
        Column("#", "number"),
        Column("name", "name"),
        Column("dtype"),
        Column("shape", "number"),
        Column("role"),
        Column("layout"),
        Column("bytes", "number"),
        *([Column("SHA-256")] if digests else []),
    ]
    lost = set(undeclared)
    order = sorted(enumerate(bundle.values()), key=lambda each: each[1].name not in lost)
    rows = (
        [
            number(place),
            Cell(t.name),
            Cell(t.dtype.name),
            Cell("x".join(map(str, t.shape)) or "scalar", t.size),
            Cell(t.role or "undeclared", None, "" if t.role else "undeclared"),
            Cell(str(t.layout))
            if t.layout is not None
            else Cell("undeclared", None, "undeclared")
            if t.name in lost
            else Cell(""),
            number(t.nbytes),
            *([Cell(digests[t.name])] if digests else []),
        ]
        for place, t in order
    )
    kernels = (t for t in bundle.values() if t.layout is not None and t.layout.spatial and len(t.shape) > 1)
    drawn = [(t, kernel(t)) for t in islice(kernels, MOST_CARDS)]
    made = [card(t.name, (f"{t.role}, {t.layout}", each.told), each.pictures) for t, each in drawn]
    keys = ("architecture", "dialect", "data_format")
    facts = [f"{key.replace('_', ' ')}: {bundle.metadata[key]}" for key in keys if bundle.metadata.get(key)]
    verdict = f"{len(bundle)} tensors, {bundle.nbytes:,} bytes"
    if undeclared:
        facts.insert(0, f"without a declared layout, to be stored and not to be converted: {len(undeclared)}")
    sections = [
        table("tensors", "Tensors" + (", undeclared ones first" if undeclared else ""), columns, rows),
        cards("The first kernels" if len(made) == MOST_CARDS else "Kernels", made),
        _metadata(bundle),
    ]
    return page(file, verdict, None, [f"read as {adapter}", *facts], sections)


def _metadata(bundle: Bundle) -> str:
    text = json.dumps(bundle.metadata, indent=2, ensure_ascii=False, default=str)
    shown = "\n".join(map(escaped, text[:_MOST_METADATA].split("\n")))
    cut = "\n…" if len(text) > _MOST_METADATA else ""
    told = "<summary>What the file says beside its tensors</summary>"
    return f"<section><h2>Metadata</h2>\n<details>{told}<pre>{shown}{cut}</pre></details></section>"
