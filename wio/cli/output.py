"""What commands print: tables and JSON on stdout, messages and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from wio.errors import legible
from wio.places import here, written_to

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress as RichProgress

    from wio.plan import Plan

SHOW_PROGRESS_AFTER = 1.0


def print_json(document: Any) -> None:
    """JSON with names as they are; what a terminal would obey is written as JSON's own escapes."""
    text = _indented(document)
    print(text if text.isascii() and "\x7f" not in text else _NOT_ASCII.sub(_escaped, text))


_NOT_ASCII = re.compile(r"[^\n -~]")


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1].replace("\x7f", r"\u007f")


def _indented(document: Any) -> str:
    """Indenting is what json does in Python: of 100,000 tensors it would take six times as long as all the rest."""
    try:
        return msgspec.json.format(json.dumps(document, ensure_ascii=False), indent=2)
    except (msgspec.DecodeError, UnicodeEncodeError):
        # NaN, or a name that is no text: neither is JSON, and files have both.
        return json.dumps(document, indent=2, ensure_ascii=False)


def write_page(out: Path | str, page: str) -> None:
    """A report for a browser, whole or not at all."""
    from wio.atomic import atomic_output

    with written_to(out) as path, atomic_output(path) as temporary:
        temporary.write_text(page, "utf-8")
    message(f"wrote {path}")


def message(text: str) -> None:
    """Tells the user; what has been done stays done where nobody listens (`2>&1 | head`)."""
    with contextlib.suppress(OSError):
        print(legible(text), file=sys.stderr)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table; names from files are escaped, and only absurd ones are cut off when the output is not a terminal."""
    if not sys.stdout.isatty():
        shown = lru_cache(1024)(legible)  # a column has few different cells, but for names
        _print_plain([headings, *([shown(cell) for cell in row] for row in rows)], [h in right for h in headings])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(markup=False, highlight=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(legible(cell)) for cell in row))
    console.print(table)


def _print_plain(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    """Columns padded to their widest cell: as rich prints them, which takes it 0.4 ms a line."""
    if all("".join(line).isascii() for line in lines):
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        pattern = "  ".join(f"{{:{'>' if r else '<'}{w}}}" for w, r in zip(widths, right, strict=True))
        print("\n".join([pattern.format(*line).rstrip() for line in lines]))
        return
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        cells = []
        for cell, width, at_right in zip(line, widths, right, strict=True):
            room = " " * (width - _width(cell))
            cells.append(room + cell if at_right else cell + room)
        text.append("  ".join(cells).rstrip())
    print("\n".join(text))


def _width(cell: str) -> int:
    """The columns that a terminal takes for it: names may be Chinese, or carry accents of their own."""
    if cell.isascii():
        return len(cell)
    from rich.cells import cell_len

    return cell_len(cell)


def print_plan(plan: Plan) -> None:
    """The plan as a person checks it: source, steps and their reason, target, exact or not."""
    rows = []
    for value in plan.values:
        numbers = ", ".join(f"{key} {each}" for key, each in value.parameters.items())
        made = " + ".join(t.name for t in value.results)
        source = " + ".join(t.name for t in value.sources) or "-"
        rows.append((source, "", f"{value.kind} ({numbers})", made, _exact(value.exact), value.reason))
    for step in plan.steps:
        words = {"synthesise": "made anew"}
        as_it_is = step.kind in ("copy", "keep")
        done = "as it is" if as_it_is else "; ".join(map(str, step.ops)) or words.get(step.kind, step.kind)
        layouts = f"{step.sources[0].layout or '-'} -> {step.slots[0].layout or '-'}"
        rows.append(
            (
                " + ".join(t.name for t in step.read) or "-",
                str(step.sources[0].layout or "-") if as_it_is else layouts,
                done,
                " + ".join(slot.name for slot in step.slots),
                _exact(step.exact),
                step.reason,
            )
        )
    headings = ("source", "layout", "steps", "target", "", "reason")
    width = _terminal_width() if sys.stdout.isatty() else None
    if width is not None and _least_width((headings, *rows)) > width:
        print("\n".join(stacked(rows, width)))
    else:
        print_table(headings, rows)
    for name, reason in plan.dropped.items():
        print(f"dropped: {legible(name)}: {legible(reason)}")
    for note in plan.notes:
        print(f"note: {legible(note)}")
    if not plan.exact:
        print("NOT EXACT: values change where the plan says so")


def _terminal_width() -> int:
    import shutil  # for terminals alone: it imports every compression that Python has

    return shutil.get_terminal_size().columns


def _exact(exact: bool) -> str:
    return "exact" if exact else "NOT EXACT"


def _least_width(rows: Sequence[Sequence[str]]) -> int:
    """The narrowest table worth reading: cells of more than 40 letters may be folded, others not."""
    return sum(min(max(map(len, column)), 40) + 1 for column in zip(*rows, strict=True))


def stacked(rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """The rows of a plan for a terminal that is narrower than its table: each step on lines of its own."""
    for source, layout, done, target, exact, reason in rows:
        names = legible(source) if source == target else f"{legible(source)} -> {legible(target)}"
        yield from textwrap.wrap(f"{names}  [{exact}]", width, subsequent_indent="    ")
        told = [f"{layout}: {done}" if layout else done, *([reason] if reason else [])]
        for line in told:
            yield from textwrap.wrap(legible(line), width, initial_indent="  ", subsequent_indent="    ")


def values_changed(plan: Plan) -> str:
    """For the line that says what was written: how many steps changed values, "" if none did."""
    if not plan.values:
        return ""
    inexact = sum(not value.exact for value in plan.values)
    return f", {len(plan.values)} steps that change values ({inexact} NOT exact)"


def outcome(place: Path | str) -> tuple[Path, str]:
    """What an output of this name has become, the file or the index of its shards, and how large it is, in words."""
    from wio.shard_index import FIRST_BYTES, index_path, parse_index

    out = here(place)
    if out.is_file():
        return out, f", {size(out.stat().st_size)}"
    index = index_path(out)
    raw = index.read_bytes() if index.is_file() else b""
    if not raw.startswith(FIRST_BYTES):
        return out, ""
    shards = parse_index(raw, index.name).shards
    return index, f", {size(sum(shard.size for shard in shards))} in {len(shards)} shards"


def size(count: int) -> str:
    """Bytes for a person: 1.5 MB is 1,500,000."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


class Progress:
    """Progress of work over a known number of bytes, on stderr, shown once it has taken more than a second."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._started = time.monotonic()
        self._done = 0
        self._shown: RichProgress | None = None
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """More bytes were done; any thread may say so."""
        with self._lock:
            self._count(count)

    def _count(self, count: int) -> None:
        self._done += count
        if self._shown is None:
            if time.monotonic() - self._started < SHOW_PROGRESS_AFTER or not sys.stderr.isatty():
                return
            self._show()
        if self._shown is not None:
            self._shown.update(self._shown.task_ids[0], completed=self._done)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
        self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
        self._shown.add_task(self._doing, total=None)
        self._shown.start()


class FileProgress:
    """How many of so many files are done, on stderr where that is a terminal; called for each."""

    def __init__(self, doing: str, total: int) -> None:
        self._doing = doing
        self._total = total
        self._shown: RichProgress | None = None

    def __enter__(self) -> FileProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
            self._shown.add_task(self._doing, total=self._total)
            self._shown.start()
        return self

    def __call__(self, _: object) -> None:
        if self._shown is not None:
            self._shown.advance(self._shown.task_ids[0])

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.stop()
