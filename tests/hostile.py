"""Hostile files, and the one thing that may become of each: the same values, or one message, exit 2 and no output.

A seed is an intact file, or several that are read together. A case is what a stranger made of it. ``survives`` gives
cases to ``wio inspect --digests`` and ``wio export`` in this process, held to memory and time; ``measured`` gives one
to a process of its own and looks at what that took. Of many cases that are alike some are tried, evenly chosen, and
all of them with ``WIO_HOSTILE_ALL=1`` in the environment. With ``WIO_HOSTILE_COUNTS=FILE`` each call adds a line to
that file, and ``python tests/hostile.py FILE`` counts them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st

from wio.cli import main as command
from wio.container import WioFileReader
from wio.plugins import adapter_named

# What the project promises: CPU seconds, and bytes beyond the size of the file.
SECONDS = 5
ROOM = 300 << 20
# Of the cases of one kind, those that must be refused in certain words not counted.
MOST_ALIKE = 80
# A message is for a person, however long the names in the file are.
LONGEST_MESSAGE = 50_000


@dataclass(frozen=True)
class Seed:
    """An intact file: ``opened`` is the one of ``files`` that a command is given, "" for the folder itself."""

    adapter: str
    files: Mapping[str, bytes]
    opened: str

    @staticmethod
    def of(adapter: str, *paths: Path, opened: str | None = None) -> Seed:
        return Seed(adapter, {path.name: path.read_bytes() for path in paths}, opened or paths[0].name)


@dataclass(frozen=True)
class Case:
    """What a stranger made of a seed: the files that differ, None for one that is not there.

    ``may_differ``  nothing in the format could tell: it may be read as other values, or refused.
    ``refused``     it must be refused, and the message holds these words; None where it may be read as the same.
    ``place``       does in the folder what bytes cannot: links, pipes.
    """

    name: str
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    may_differ: bool = False
    refused: tuple[str, ...] | None = None
    place: Callable[[Path], None] | None = None

    def put(self, folder: Path, seed: Seed) -> Path:
        """The folder made to hold this case; gives the path to open."""
        if folder.exists():
            shutil.rmtree(folder)
        for name, contents in {**seed.files, **self.files}.items():
            if contents is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(contents)
        if self.place is not None:
            folder.mkdir(exist_ok=True)
            self.place(folder)
        return folder / seed.opened


@dataclass(frozen=True)
class Done:
    code: int | None
    out: str
    err: str
    seconds: float


Rows = dict[str, tuple[str, tuple[int, ...], str]]


def survives(folder: Path, seed: Seed, cases: Iterable[Case]) -> Counter[str]:
    """Judges every case; fails with all that went wrong. Gives how many were ``read`` and how many ``refused``."""
    intact = Case("intact").put(folder / "in", seed)
    first = wio("inspect", "--digests", "--json", intact)
    assert first.code == 0, first.err
    wanted = _rows(first)
    found: Counter[str] = Counter()
    failures = []
    for case in _chosen(list(cases)):
        path = case.put(folder / "in", seed)
        trouble, outcome = _judged(path, folder / "out", seed, case, wanted)
        found[outcome] += 1
        failures += [f"{case.name}: {line}" for line in trouble]
    _count(seed.adapter, found)
    assert not failures, f"{len(failures)} of {found.total()}:\n" + "\n".join(failures[:40])
    assert found.total(), "there are no cases"
    return found


def _all() -> bool:
    return bool(os.environ.get("WIO_HOSTILE_ALL"))


def _chosen(cases: list[Case]) -> list[Case]:
    """What is tried: cases of certain words all of them, of the others at most ``MOST_ALIKE``, from first to last."""
    alike = [k for k, case in enumerate(cases) if case.refused is None]
    if len(alike) <= MOST_ALIKE or _all():
        return cases
    chosen = {alike[k * (len(alike) - 1) // (MOST_ALIKE - 1)] for k in range(MOST_ALIKE)}
    return [case for k, case in enumerate(cases) if case.refused is not None or k in chosen]


def _judged(path: Path, out: Path, seed: Seed, case: Case, wanted: Rows) -> tuple[list[str], str]:
    """What is wrong with how wio takes a case, and whether it was read."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    target = out / "out.wio"
    inspected = wio("inspect", "--digests", "--json", path)
    exported = wio("export", "--from", seed.adapter, "-o", target, path)
    trouble = [f"{done}: {line}" for done, line in _misbehaviour(("inspect", inspected), ("export", exported))]
    left = [each.name for each in out.iterdir() if exported.code != 0 or each != target]
    if left:
        trouble.append(f"export left {left}")
    read = inspected.code == 0
    if read and case.refused is not None:
        trouble.append("it was read")
    if read and not case.may_differ and not trouble and _rows(inspected) != wanted:
        trouble.append("its values are others")
    if read and exported.code == 0 and not trouble:
        stored = {name: tensor.digest for name, tensor in WioFileReader(target).bundle().items()}
        if stored != {name: row[2] for name, row in _rows(inspected).items()}:
            trouble.append("what was exported is not what was inspected")
    for word in case.refused or ():
        trouble += [f"does not say {word!r}: {done.err}" for done in (inspected, exported) if word not in done.err]
    return trouble, "read" if read else "refused"


def _misbehaviour(*runs: tuple[str, Done]) -> Iterator[tuple[str, str]]:
    for name, done in runs:
        if done.code not in (0, 2):
            yield name, f"exit {done.code}: {done.err[-2000:]}"
        elif done.seconds > SECONDS:
            yield name, f"it took {done.seconds:.1f} CPU seconds"
        elif done.code == 2:
            yield from ((name, line) for line in bad_message(done.err))


def bad_message(text: str) -> Iterator[str]:
    """What is wrong with what a command says on stderr as it gives up."""
    said = [line for line in text.splitlines() if line.startswith("wio: ") and not line.startswith("wio: warning: ")]
    if len(said) != 1:
        yield f"{len(said)} messages: {text[:2000]!r}"
    if "Traceback" in text or "memory" in text:
        yield f"it says {text[:2000]!r}"
    if odd := unsafe(text):
        yield f"it prints {odd!r} as it is"
    if len(text) > LONGEST_MESSAGE:
        yield f"the message has {len(text)} characters"


def unsafe(text: str) -> str:
    """The characters of an output that a terminal would obey: controls, formats, directions, halves of pairs."""
    return "".join(sorted({c for c in text if not c.isprintable() and c != "\n"}))


def wio(*arguments: object) -> Done:
    """Runs a command in this process, held to memory and time. Exit code None: it raised, and ``err`` says what."""
    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with _supervised(), _cheaply():
                code: int | None = command.main([str(each) for each in arguments])
        except Exception:
            code = None
            traceback.print_exc()
    return Done(code, out.getvalue(), err.getvalue(), time.process_time() - started)


class _TookTooLongError(Exception):
    """The command neither ended nor gave up."""


@contextlib.contextmanager
def _supervised() -> Iterator[None]:
    """Allocations beyond the promised room fail, and a wait without end is interrupted.

    What is mapped from a file does not count as data. Waiting is generous: the machine may be busy with other things.
    """

    def interrupt(*_: object) -> None:
        raise _TookTooLongError("interrupted")

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(_status("self", "VmData")) << 10
    before = signal.signal(signal.SIGALRM, interrupt)
    resource.setrlimit(resource.RLIMIT_DATA, (used + ROOM, hard))
    signal.alarm(120)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def _status(process: str, key: str) -> str:
    text = Path(f"/proc/{process}/status").read_text("ascii")
    return next(line.split()[1] for line in text.splitlines() if line.startswith(key + ":"))


_parser = functools.cache(command.build_parser)


@contextlib.contextmanager
def _cheaply() -> Iterator[None]:
    """What takes long and is not judged here: the disk's own time, and the making of the same parser."""
    with (
        patch.object(os, "fsync", lambda _: None),
        patch.object(os, "fdatasync", lambda _: None),
        patch.object(command, "build_parser", _parser),
    ):
        yield


def _rows(done: Done) -> Rows:
    document = json.loads(done.out)
    return {row["name"]: (row["dtype"], tuple(row["shape"]), row["sha256"]) for row in document["tensors"]}


# --- a process of its own

_RUNNER = """\
import sys
from wio.cli.main import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file, open("/proc/self/status") as status:
    file.write(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
sys.exit(code)
"""


def measured(folder: Path, seed: Seed, case: Case) -> None:
    """A case given to ``wio export`` in a process of its own, and to ``wio inspect --digests`` where all is tried.

    Their CPU time, and the most memory they held beyond the files' size, mapped pages included, are as promised.
    """
    path = case.put(folder / "in", seed)
    size = sum(each.stat().st_size for each in (folder / "in").rglob("*") if each.is_file())
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    commands = (["export", path, "-o", folder / "out" / "out.wio"], ["inspect", "--digests", path])
    # Both read all of it; one is enough where time counts.
    for arguments in commands if _all() else commands[:1]:
        started = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = [sys.executable, "-c", _RUNNER, folder / "peak", *arguments]
        done = subprocess.run([*map(str, words)], capture_output=True, check=False, timeout=120)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime
        err = done.stderr.decode("utf-8", "backslashreplace")
        assert done.returncode in (0, 2), f"{case.name}: exit {done.returncode}: {err[-2000:]}"
        peak = int((folder / "peak").read_text("ascii")) << 10
        assert peak < size + ROOM, f"{case.name}: {peak >> 20} MB for files of {size >> 20} MB"
        assert seconds < SECONDS, f"{case.name}: {seconds:.1f} CPU seconds"
        if done.returncode == 2:
            assert not (found := list(bad_message(err))), f"{case.name}: {found}"
            assert not list((folder / "out").iterdir()), f"{case.name}: {arguments[0]} left a file"
        elif case.refused is not None:
            raise AssertionError(f"{case.name}: it was read")
    _count(f"{seed.adapter} (measured)", Counter(measured=1))


def _count(format_: str, found: Counter[str]) -> None:
    if counts := os.environ.get("WIO_HOSTILE_COUNTS"):
        # One write of one line: several test processes may add to the same file.
        with Path(counts).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"format": format_, **found}) + "\n")


# --- what a stranger does


def odd(value: int, bits: int = 64, size: int = 0) -> list[int]:
    """What to put for a number of so many bits: 0, 1, off by one, huge, negative, at and beyond the end of ``size``."""
    top = 1 << bits
    numbers = [0, 1, 2, value - 1, value + 1, value * 2, size - 1, size, size + 1]
    numbers += [top - 1, top - 2, top - value, top // 2, top // 2 - 1, 1 << bits // 2, (1 << bits // 2) - 1]
    return [number for number in dict.fromkeys(numbers) if number != value and 0 <= number < top]


def cuts(file: str, raw: bytes, boundaries: Iterable[int]) -> Iterator[Case]:
    """The file cut off at, just before and just after each boundary."""
    places = {place + step for place in boundaries for step in (-1, 0, 1)}
    for place in sorted(place for place in places if 0 <= place < len(raw)):
        yield Case(f"{file} cut off at byte {place}", {file: raw[:place]})


def numbers(
    file: str, raw: bytes, fields: Mapping[str, tuple[int, int]], order: Any = "little", *, may_differ: bool = False
) -> Iterator[Case]:
    """Each number of a fixed width, given by where it stands and its bytes, set to every odd value."""
    for name, (at, width) in fields.items():
        value = int.from_bytes(raw[at : at + width], order)
        for number in odd(value, 8 * width, len(raw)):
            changed = raw[:at] + number.to_bytes(width, order) + raw[at + width :]
            yield Case(f"{file}: {name} {value} -> {number}", {file: changed}, may_differ)


def mutated(data: st.DataObject, raw: bytes, most: int = 3) -> bytes:
    """Bytes changed, set, inserted, taken away or cut off, in one to ``most`` places that Hypothesis chooses."""
    made = bytearray(raw)
    for _ in range(data.draw(st.integers(1, most))):
        place = data.draw(st.integers(0, len(made) - 1))
        match data.draw(st.sampled_from(["flip", "set", "cut", "insert", "remove"])):
            case "flip":
                made[place] ^= data.draw(st.integers(1, 255))
            case "set":
                made[place] = data.draw(st.sampled_from([0, 1, 2, 8, 0x7F, 0x80, 0xFF]))
            case "cut":
                del made[max(place, 1) :]
            case "insert":
                made.insert(place, data.draw(st.integers(0, 255)))
            case _ if len(made) > 1:
                del made[place]
    return bytes(made)


def read_whole(adapter: str, path: Path, **options: str) -> Rows | None:
    """Every tensor of a file, as ``inspect --digests`` has it; None if it, or any of them, is refused."""
    import hashlib

    from wio.errors import WioError

    chosen = adapter_named(adapter)
    chosen.sniff(path)
    try:
        bundle = chosen.read(path, **options)
        return {
            name: (tensor.dtype.name, tensor.shape, hashlib.sha256(tensor.stored()).hexdigest())
            for name, tensor in bundle.items()
        }
    except WioError:
        return None


ODD_NUMBERS = (0, 1, -1, 2, 1.0, 0.5, 1e308, 2**31, 2**63 - 1, 2**63, 2**64, 10**30)
ODD_TEXTS = ("", "a", "\0", "\u202e", "__wio__/x", "U8", "F32", "int4", "string", "elements", "IO", "0" * 64)
ODD_VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], [0], [2, 2], [1] * 70, [2**62, 2**62, 0], {"a": "a"})
ODD_JSON: tuple[Any, ...] = (*ODD_NUMBERS, *ODD_TEXTS, *ODD_VALUES)


def documents(document: Any, values: Iterable[Any] = ODD_JSON) -> Iterator[tuple[str, Any]]:
    """A JSON document with something odd in one place, or a part taken away; each with what was done."""
    values = tuple(values)
    for place in places(document):
        where = "/".join(map(str, place)) or "all of it"
        if place:
            yield f"{where} is gone", replaced(document, place, None, gone=True)
        for value in values:
            yield f"{where} = {value!r:.40}", replaced(document, place, value)


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON document, as the keys and numbers that lead there."""
    yield at
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*at, key))
    elif isinstance(document, list):
        for k, value in enumerate(document):
            yield from places(value, (*at, k))


def replaced(document: Any, where: tuple[Any, ...], value: Any, *, gone: bool = False) -> Any:
    if not where:
        return value
    first, rest = where[0], where[1:]
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    changed = {
        key: replaced(each, rest, value, gone=gone) if key == first else each
        for key, each in pairs
        if not (gone and key == first and not rest)
    }
    return changed if isinstance(document, dict) else list(changed.values())


# Names that a terminal, a web page or a file system would obey.
NAMES = {
    "colours": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;title\x07",
    "csi": "\x9b2J",
    "newline": "one\ntwo\r\nwio: done",
    "backspace": "a\b\b\b\x7f",
    "right to left": "a\u202egnp.exe\u2066\u200f",
    "joined": "a\u200b\u200d\ufeff",
    "parent": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "windows": "..\\..\\C:\\CON",
    "nul": "a\0b",
    "empty": "",
    "dot": ".",
    "dots": "..",
    "slashes": "a//b/",
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>&quot;'\"",
    "rich": "[bold red]x[/] [link=file:///etc/passwd]y",
    "format": "%s%n{0}{name!r}",
    "combining": "a" + "\u0301" * 200,
    "private": "\ue000\U000e0041\ufdd0",
    "long": "x" * 10_000_000,
}


def tally(path: Path) -> str:
    """The lines of counted cases as a table: for each format those tried, read as the same, and refused."""
    total: dict[str, Counter[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        total.setdefault(row.pop("format"), Counter()).update(row)
    lines = ["| format | cases | read | refused |", "| --- | --- | --- | --- |"]
    for name, found in sorted(total.items()):
        lines.append(f"| {name} | {found.total()} | {found['read']} | {found['refused']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tally(Path(sys.argv[1])))
