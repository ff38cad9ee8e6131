"""The frame of every report: one file, nothing fetched, light and dark, and scripts that only sort and search."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files

from wio.markup import escaped


def page(title: str, verdict: str, good: bool | None, facts: Sequence[str], sections: Iterable[str]) -> str:
    """A whole page. ``good`` colours the verdict; ``facts`` are plain text, ``sections`` markup."""
    style, script = (_part(name) for name in ("report.css", "report.js"))
    # Only this style and this script, by their digests: whatever a name in a file says, it is not run or fetched.
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    kind = "" if good is None else " good" if good else " bad"
    told = "".join(f"<li>{escaped(fact)}</li>" for fact in facts if fact)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1><bdi>{escaped(title)}</bdi></h1>
<p class="verdict{kind}">{escaped(verdict)}</p>
<ul class="facts">{told}</ul>
</header>
<main>
{chr(10).join(sections)}
</main>
<script>{script}</script>
</body>
</html>
"""


def _part(name: str) -> str:
    return files("wio.reporting").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
