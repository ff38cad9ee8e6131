"""The viewer's one file is what its sources come to; what it does is tested in a browser (tests/browser)."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_is_up_to_date() -> None:
    built = runpy.run_path(str(ROOT / "tools" / "build_viewer.py"))
    assert built["PAGE"].read_text(encoding="utf-8") == built["page"](), "python tools/build_viewer.py writes it again"
