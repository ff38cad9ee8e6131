"""Adapters of other packages: found by entry point; a broken or doubled one is said, and breaks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run_wio
from test_cli import arrays, make

from wio import plugins
from wio.errors import AdapterError

MODULE = """
from wio.adapter import Adapter


class Text(Adapter):
    name = "text"
    description = "a stranger's format"

    def sniff(self, path):
        return 10 if path.suffix == ".text" else 0


class Twin(Text):
    name = "twin"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with entry points, as pip would leave it."""
    site = tmp_path / "site"
    info = site / "stranger-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.2\n")
    (site / "stranger.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(site))
    plugins.found_adapters.cache_clear()
    yield info
    plugins.found_adapters.cache_clear()


def entry_points(info: Path, *lines: str) -> None:
    (info / "entry_points.txt").write_text("[wio.adapters]\n" + "\n".join(lines) + "\n")


def test_an_adapter_of_another_package_is_found(package: Path) -> None:
    entry_points(package, "text = stranger:Text")
    found = {each.name: each for each in plugins.found_adapters()}
    assert found["text"].origin == "stranger 1.2" and found["text"].adapter is not None


def test_a_broken_adapter_is_listed_with_its_package(package: Path) -> None:
    entry_points(package, "text = stranger:NoSuchThing")
    with pytest.warns(UserWarning, match=r"stranger 1\.2"):
        found = {each.name: each for each in plugins.found_adapters()}
    assert found["text"].adapter is None and "NoSuchThing" in str(found["text"].error)
    with pytest.raises(AdapterError, match="broken"):
        plugins.adapter_named("text")


def test_an_own_adapter_is_not_replaced_by_a_strangers(package: Path) -> None:
    entry_points(package, "keras-tf = stranger:Text")
    with pytest.warns(UserWarning, match="also calls an adapter 'keras-tf'"):
        found = {each.name: each for each in plugins.found_adapters()}
    assert found["keras-tf"].origin.startswith("wio ")


def test_an_equal_match_asks_which_is_meant(package: Path, tmp_path: Path) -> None:
    entry_points(package, "text = stranger:Text", "twin = stranger:Twin")
    (tmp_path / "a.text").write_text("x")
    with pytest.raises(AdapterError, match="text and twin") as error:
        plugins.detect(tmp_path / "a.text")
    assert "--from text or --from twin" in str(error.value)


def test_a_path_may_say_its_adapter(tmp_path: Path) -> None:
    source = make(tmp_path / "a.wio", {"a/x": (arrays(2), None, None)})
    assert plugins.split_prefix(f"wio:{source}") == ("wio", source)
    assert plugins.split_prefix("C:model.h5") == (None, Path("C:model.h5"))
    run_wio("inspect", f"wio:{source}")
    run_wio("inspect", f"keras-tf:{source}", code=2)
    run_wio("inspect", f"wio:{source}", "--from", "keras-tf", code=2)
