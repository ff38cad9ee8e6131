"""Text from files as HTML: legible as in a terminal, and escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from wio.errors import legible


def escaped(text: str) -> str:
    """Text for the content of an element or for an attribute in quotes."""
    return escape(legible(text))


def name_of(text: str) -> str:
    """A name from a file, in an element of its own: letters that run right to left turn nothing around them."""
    return f"<code><bdi>{escaped(text)}</bdi></code>"


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text without style, for notebooks, which have their own."""
    head = "".join(f'<th scope="col">{escaped(each)}</th>' for each in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
