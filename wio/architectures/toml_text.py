"""Text of TOML files that wio writes."""

from __future__ import annotations

import json


def quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's (TOML 1.0, Basic strings), but for DEL and lone surrogates."""
    plain = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")


def exact_glob(name: str) -> str:
    """A glob that matches one name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
