"""Every command that a document shows is run, and prints what the document shows."""

from __future__ import annotations

from pathlib import Path

import documents
import pytest


@pytest.mark.parametrize("path", documents.documents(), ids=lambda path: str(path.relative_to(documents.ROOT)))
def test_a_document_shows_what_is_printed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert documents.run(text) == text, f"python tests/documents.py {path.relative_to(documents.ROOT)} writes it anew"


def test_another_output_would_be_seen() -> None:
    text = "```console\n$ printf 'one\\ntwo\\nthree\\n'\none\n...\n\n$ false\n$ echo $?\n1\n```\n"
    assert documents.run(text) == text
    planted = text.replace("one\n...", "two\n...")
    assert documents.run(planted) == text.replace("one\n...\n\n", "one\ntwo\nthree\n")
    assert documents.run("```pycon\n>>> for n in range(2):\n...     print(n)\n...\n0\n7\n```\n").endswith("0\n1\n```\n")
