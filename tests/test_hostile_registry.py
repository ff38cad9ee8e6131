"""A registry's files as strangers make them: one message or a sound description, within seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import NAMES, ROOM, SECONDS, bad_message, places, replaced, unsafe, wio

from wio import plugins

REGISTRY = Path(__file__).parents[1] / "registry"
ODD: tuple[Any, ...] = (
    *(True, 0, -1, 1.5, 10**30, float("inf"), float("nan"), "", "\x1b[31m\u202e", "../../x", "{layer}{a}{b}"),
    *([], [[]], [1], ["a"], {}, {"a": "a"}, {"a": {"b": [1]}}, None),
)


def toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value).replace("\x7f", "\\u007f")
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
    return "1979-05-27T07:32:00Z" if value is None else repr(value)


def written(document: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in document.items())


def of_each_kind(document: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A place of each kind: rows of one operator are alike, and so are the members of a list behind the second."""
    seen = set()
    for place in places(document):
        kind: tuple[Any, ...] = tuple(min(each, 1) if isinstance(each, int) else each for each in place)
        if place[:2] == ("network", "layers") and len(place) > 2:
            kind = (document["network"]["layers"][place[2]][1], *kind[3:])
        if place and kind not in seen:
            seen.add(kind)
            yield place


@pytest.mark.parametrize("name", ["mtcnn_onet.toml", "dialects/keras.toml", "dialects/tf-slim.toml"])
def test_every_value_of_a_real_file(tmp_path: Path, name: str) -> None:
    document = tomllib.loads((REGISTRY / name).read_text("utf-8"))
    path = tmp_path / Path(name).name
    failures, codes = [], set()
    for k, place in enumerate(of_each_kind(document)):
        for value in (*ODD[k % 3 :: 3], ...):
            path.write_text(written(replaced(document, place, value, gone=value is ...)), "utf-8")
            done = wio("registry", "check", path)
            codes.add(done.code)
            said = list(bad_message(done.err)) if done.code == 2 else [unsafe(done.out)] if unsafe(done.out) else []
            if done.code not in (0, 2) or said or done.seconds > SECONDS:
                failures.append(f"{place} = {value!r}: {done.code} {said} {done.err[-300:]}")
    assert not failures, "\n".join(failures[:20])
    assert codes == {0, 2}


def described(*, layers: list[Any] | None = None, **more: Any) -> str:
    """One layer with a dialect, and what is given besides."""
    rows = [["x", "Input", [], {"axes": "HWC", "sizes": [8, 8, 3]}], *(layers or [])]
    rows.append(["c", "Conv", "x", {"filters": 2, "kernel_shape": [3, 3]}])
    dialect = {
        **{"title": "t", "source": "s", "verified": "v", "adapters": ["numpy"], "layers": "{layer}"},
        "weights": {"Conv.kernel": "kernel", "Conv.bias": "bias"},
    }
    given = {"id": "m", "network": {"layers": rows}, "dialects": {"d": {**dialect, **more.pop("dialect", {})}}, **more}
    return written(given)


def relus(count: int, name: Callable[[int], str] = "r{}".format) -> list[Any]:
    return [[name(k), "Relu", "x"] for k in range(count)]


def nested(rows: int, deep: int, leaf: list[Any]) -> dict[str, Any]:
    """Modules of modules: rows to the power of ``deep`` in a few lines."""
    inner = {f"m{k}": {"layers": [[f"r{r}", f"m{k + 1}", "@"] for r in range(rows)]} for k in range(deep)}
    return {**inner, f"m{deep}": {"layers": [leaf]}}


# Where no words are given it may be read, too.
HARM: dict[str, tuple[str, str | None]] = {
    "nothing": ("", "missing"),
    "not utf-8": ("\udcff", "UTF-8"),
    "an array in arrays": ("id = " + "[" * 100_000, "nested too deep"),
    "tables in tables": ("x = " + "{a = " * 3000, "nested too deep"),
    "a key of many parts": ("a." * 200_000 + "a = 1", "parts"),
    "a quoted key of many parts": ("'\"'." * 100_000 + "a = 1", "parts"),
    "a header of many parts": ("[" + "a." * 200_000 + "a]", "parts"),
    "a deep key": ("\n".join(f"[{'.'.join('a' * 30)}.{'.'.join('b' * k)}]" for k in range(1, 9)), "parts"),
    "a number of many digits": ("id = 1" + "0" * 100_000, "digits"),
    "large": ("# " + "x" * (2 << 20), "bytes"),
    "many empty tables": ("\n".join(f"[a{k}]" for k in range(50_000)), "means nothing here"),
    "many rows": (described(layers=relus(25_000)), None),
    "many problems": (described(layers=[[f"r{k}", "Rule", f"y{k}"] for k in range(20_000)]), "problems"),
    "many rows that are none": (described(layers=[[]] * 100_000), "is no row"),
    "modules in modules": (
        described(modules=nested(10, 7, ["r", "Relu", "@"]), layers=[["m", "m0", "x"]]),
        "more than 10000 modules",
    ),
    "modules of nothing": (described(modules=nested(10, 7, ["r", "m1", "@"]), layers=[["m", "m0", "x"]]), "problem"),
    "a module in itself": (
        described(modules={"m": {"layers": [["a", "m", "@"]]}}, layers=[["m", "m", "x"]]),
        "none in itself",
    ),
    "two modules in each other": (
        described(
            modules={"m": {"layers": [["a", "n", "@"]]}, "n": {"layers": [["a", "m", "@"]]}}, layers=[["m", "m", "x"]]
        ),
        "none in itself",
    ),
    "one name for two layers": (described(layers=relus(2, lambda _: "r")), "two layers are named"),
    "one name for two weights": (
        described(dialect={"weights": {"Conv.kernel": "k", "Conv.bias": "k"}}),
        "one name for",
    ),
    "one name for two keys": ("id = 'a'\nid = 'b'", "overwrite"),
    "like itself": (described(dialect={"like": "d"}), "stands for itself"),
    "like nothing": (described(dialect={"like": {"d": 1}}), "d"),
    "a pattern that takes ages": (
        described(layers=relus(2000, lambda k: f"{'a' * 400}{k}"), dialect={"names": [["{a}a{b}a{c}a{d}!", "x"]]}),
        "too long",
    ),
    "words that take ages": (
        described(
            layers=relus(300, lambda k: f"{'a' * 400}{k}"),
            dialect={
                "names": [["{a}{b}{c}!", "x{a}{b}{c}"]],
                "words": {name: {"a" * k: "a" * k for k in range(1, 200)} for name in "abc"},
            },
        ),
        "too long",
    ),
    "a pattern of many fields": (
        described(dialect={"names": [["".join(f"{{a{k}}}" for k in range(99)), "x"]]}),
        "more than 4 fields",
    ),
    "many rules": (described(layers=relus(5000), dialect={"names": [["y{a}", "y{a}"]] * 20_000}), "too long"),
    "globs that take ages": (described(dialect={"drop": [["*a" * 2000 + "b", "reason"]] * 50}), None),
    "many words": (described(dialect={"words": {"a": {f"x{k}": f"y{k}" for k in range(40_000)}}}), None),
    "a long name": (described(layers=[["x" * 400_000, "Relu", "x"]]), "longer than"),
    "long text": (described(title="x" * 900_000), None),
    "sizes that grow": (
        described(
            layers=[["r0", "Resize", "x", {"scales": [2e9, 2e9]}]]
            + [[f"r{k}", "Resize", f"r{k - 1}", {"scales": [2e9, 2e9]}] for k in range(1, 5000)]
        ),
        "attributes",
    ),
    "each takes all before": (
        described(layers=[[f"r{k}", "Add", ["x", *(f"r{j}" for j in range(k))]] for k in range(300)]),
        None,
    ),
    "an id that leads out": (described(id="../../etc/passwd"), "looked for in"),
    **{
        f"an id: {name}": (described(id=text), None if name in ("rich",) else "")
        for name, text in NAMES.items()
        if name != "long"
    },
}


@pytest.mark.parametrize("name", HARM)
def test_what_means_harm(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, words = HARM[name]
    path = tmp_path / "m.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = wio("registry", "check", path)
    assert done.code in ((0, 2) if words is None else (2,)), done.err[-2000:]
    assert done.seconds < SECONDS
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    used = wio("registry", "show", "m")
    plugins._described.cache_clear()
    assert used.code in (0, 2), used.err[-2000:]
    assert used.seconds < SECONDS
    for each in (done, used):
        assert each.code == 0 or not list(bad_message(each.err))
        assert not unsafe(each.out)
    assert (words or "") in done.err


@pytest.mark.parametrize("name", ["many rows", "modules in modules", "words that take ages", "many words"])
def test_what_the_worst_of_them_take(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(HARM[name][0], "utf-8")
    program = (
        "import resource, sys\nfrom wio.cli.main import main\ncode = main(['registry', 'check', sys.argv[1]])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:'))\n"
        "print(code, used.ru_utime + used.ru_stime, int(peak) << 10)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    code, seconds, peak = ended.stdout.split("\n")[-2].split()
    assert int(code) in (0, 2)
    assert float(seconds) < SECONDS
    assert int(peak) < ROOM + path.stat().st_size


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "m.toml")
    (tmp_path / "n.toml").mkdir()
    started = time.monotonic()
    for path in (tmp_path / "m.toml", tmp_path / "n.toml", tmp_path / "not there.toml", Path("/dev/zero")):
        done = wio("registry", "check", path)
        assert done.code == 2
        assert not list(bad_message(done.err))
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path))
    done = wio("registry", "list")
    plugins._described.cache_clear()
    assert done.code == 2
    assert time.monotonic() - started < 60


def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.toml").write_text(described(), "utf-8")
    (tmp_path / "inside").mkdir()
    monkeypatch.setenv("WIO_REGISTRY_PATH", str(tmp_path / "inside"))
    for name in ("../m", str(tmp_path / "m"), "inside/../../m", "..", "", "\0", "x" * 10_000):
        done = wio("registry", "show", name)
        assert done.code == 2, name
        assert not list(bad_message(done.err))
        assert "no architecture is named" in done.err
