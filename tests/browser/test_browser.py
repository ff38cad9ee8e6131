"""The judge itself: what these tests ask the browser, it tells."""

from __future__ import annotations

from pathlib import Path

from opened_page import Page


def test_an_error_of_a_page_would_be_seen(page: Page, tmp_path: Path) -> None:
    planted = tmp_path / "planted.html"
    planted.write_text("<title>planted</title><script>nothing.there()</script>", encoding="utf-8")
    assert page.open(planted).title == "planted"
    (error,) = page.console()
    assert "nothing is not defined" in error
    assert page.requests() == [planted.as_uri()]
