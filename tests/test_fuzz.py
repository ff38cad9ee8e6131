"""The cases that fuzzers found, read again, and whether the harness of the fuzzers sees what it should (tests/fuzz)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fuzz.readers import READERS
from fuzz.reading import Form, Reader, RefusedError, Values, examine

from wio.errors import FormatError

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
CASES = [f"{path.parent.name}/{path.name}" for path in sorted(CORPUS.glob("*/*")) if path.name != ".gitkeep"]


def test_every_reader_has_its_cases() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} == set(READERS)


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_read_or_refused(case: str, tmp_path: Path) -> None:
    reader = READERS[case.partition("/")[0]]
    outcome = examine(reader, (CORPUS / case).read_bytes(), tmp_path, judged=False)
    assert not outcome.wrong
    assert (outcome.values is None) != (outcome.refused is None)


@pytest.mark.judged
@pytest.mark.parametrize("case", CASES)
def test_a_case_is_read_as_its_library_reads_it(case: str, tmp_path: Path) -> None:
    reader = READERS[case.partition("/")[0]]
    assert not examine(reader, (CORPUS / case).read_bytes(), tmp_path, judged=True).wrong


@pytest.mark.judged
@pytest.mark.parametrize("name", READERS)
def test_what_the_fuzzers_begin_with_is_read_as_its_library_reads_it(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    inputs = reader.seeds()
    outcomes = [examine(reader, data, tmp_path, judged=True) for data in inputs]
    assert not [outcome.wrong for outcome in outcomes if outcome.wrong]
    forms = {data[0] for data, outcome in zip(inputs, outcomes, strict=True) if outcome.values is not None}
    assert forms == set(range(len(reader.forms))), "no valid input of some form"
    assert all(len(data) <= reader.largest + 1 for data in inputs)


# --- mistakes planted to see whether the harness sees them


def _lay(folder: Path, data: bytes) -> Path:
    (folder / "m").write_bytes(data)
    return folder / "m"


def _right(path: Path) -> Values:
    return {"a": np.frombuffer(path.read_bytes(), np.uint8)}


PLAIN = Reader("planted", (Form(_lay),), _right, lambda: [b"\0ab"], _right)


def _planted(read: Callable[[Path], object]) -> Reader:
    def with_mistake(path: Path) -> Values:
        read(path)
        return _right(path)

    return replace(PLAIN, read=with_mistake)


def _refuse(message: str) -> None:
    raise FormatError(message)


def _swallow(path: Path) -> None:
    with contextlib.suppress(Exception):
        path.with_name("..").joinpath("other").read_bytes()


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another file": (lambda _: Path(sys.executable).open("rb").close(), "open"),
    "another file, and the error hidden": (_swallow, "open"),
    "writing": (lambda path: (path.parent / "new").write_bytes(b""), "open"),
    "removing": (lambda path: path.unlink(), "os.remove"),
    "a process": (lambda _: subprocess.run(["true"], check=True), "subprocess.Popen"),
    "code": (lambda _: exec("1"), "exec"),
    "a framework": (lambda _: sys.audit("import", "tensorflow", None, None, None, None), "import"),
    "memory": (lambda _: np.ones(400 << 20, np.uint8), "memory"),
    "another exception": (lambda _: {}["a"], "KeyError in outside wio"),
    "a silent refusal": (lambda _: _refuse(""), "no message"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    act, key = MISTAKES[mistake]
    assert not examine(PLAIN, b"\0ab", tmp_path, judged=True).wrong
    assert key in examine(_planted(act), b"\0ab", tmp_path, judged=True).wrong


def _refusing(path: Path) -> Values:
    raise RefusedError("no")


@pytest.mark.parametrize(
    ("judge", "key"),
    [
        (lambda _: {"a": np.frombuffer(b"ac", np.uint8)}, "other values"),
        (lambda _: {"a": np.frombuffer(b"ab", np.uint8).reshape(2, 1)}, "other values"),
        (lambda _: {"a": np.frombuffer(b"ab", np.uint16)}, "other values"),
        (lambda _: {}, "other names"),
        (lambda path: {**_right(path), "b": np.zeros(1)}, "other names"),
        (_refusing, "the library refuses it: no"),
    ],
)
def test_a_judge_that_reads_otherwise_is_heard(judge: Callable[[Path], Values], key: str, tmp_path: Path) -> None:
    assert key in examine(replace(PLAIN, judge=judge), b"\0ab", tmp_path, judged=True).wrong
