"""Writes viewer/viewer.html, the page in one file: python tools/build_viewer.py

A page that is opened from a disk can load no module beside it, and this one may not load anything at all: its policy
allows the one script and the one style that are in it, by their digests, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

VIEWER = Path(__file__).resolve().parent.parent / "viewer"
# Each after those that it imports.
MODULES = (
    "errors",
    "json",
    "sha256",
    "dtypes",
    "layout",
    "roles",
    "header",
    "wio",
    "set",
    "picture",
    "drawing",
    "page",
)
PAGE = VIEWER / "viewer.html"

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const)\*? (\w+))", re.MULTILINE)


def page() -> str:
    """The page: the template with the style and all modules in it, each in a function of its own."""
    style = (VIEWER / "page.css").read_text(encoding="utf-8")
    script = '\n"use strict";\n' + "".join(_module(name) for name in MODULES)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    text = (VIEWER / "page.html").read_text(encoding="utf-8")
    for mark, part in (("@POLICY@", policy), ("@STYLE@", style), ("@SCRIPT@", script)):
        text = text.replace(mark, part)
    return text


def _module(name: str) -> str:
    source = (VIEWER / f"{name}.js").read_text(encoding="utf-8")
    exports = [found[1] for found in _EXPORT.findall(source)]
    body = _EXPORT.sub(r"\1", _IMPORT.sub(r"const {\1} = \2_;" + "\n", source))
    return f"const {name}_ = (() => {{\n{body}return {{ {', '.join(exports)} }};\n}})();\n"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
