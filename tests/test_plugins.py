"""Adapters of other packages: found by entry point; a broken or doubled one is said, and breaks nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run_wio
from test_cli import arrays, make

from wio import plugins
from wio.errors import AdapterError

MODULE = """
from wio.adapter import Adapter
from wio.bundle import Bundle


class Text(Adapter):
    name = "text"
    description = "a stranger's format"

    def sniff(self, path):
        return 10 if path.suffix == ".text" else 0

    def read(self, path, **options):
        return Bundle([])


class Twin(Text):
    name = "twin"


class Needy(Text):
    extras = {"no_such_module": "fast", "json": "never"}


class Clumsy(Text):
    def sniff(self, path):
        raise ValueError("what is this?")
"""


def installed(site: Path, name: str, *lines: str, requires: tuple[str, ...] = ()) -> None:
    """A package with entry points, as pip would leave it."""
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.2"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    (info / "METADATA").write_text("\n".join(metadata) + "\n")
    (info / "entry_points.txt").write_text("[wio.adapters]\n" + "\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages beside those that are installed, with the module `stranger` in it."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "stranger.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    plugins.found_adapters.cache_clear()
    yield site
    plugins.found_adapters.cache_clear()


def listed() -> dict[str, dict[str, Any]]:
    """What a user sees: the rows of `wio adapters --json` of other packages than wio, by package."""
    rows = json.loads(run_wio("adapters", "--json").stdout)
    return {row["package"]: row for row in rows if row["package"] != "wio"}


def test_an_adapter_of_another_package_is_found_and_listed(site: Path) -> None:
    installed(site, "stranger", "text = stranger:Text")
    assert listed()["stranger"] == {
        **{"name": "text", "package": "stranger", "version": "1.2", "usable": True, "error": None, "remedy": None},
        **{"reads": True, "writes": False, "description": "a stranger's format", "options": [], "extras": {}},
    }
    (line,) = [line for line in run_wio("adapters").stdout.splitlines() if line.startswith("text")]
    assert line.split() == ["text", "reads", "a", "stranger's", "format", "stranger", "1.2"]
    assert plugins.adapter_named("text").description == "a stranger's format"


@pytest.mark.parametrize("target", ["stranger:NoSuchThing", "stranger:MODULE", "no_such_module:Text", "json:dumps"])
def test_a_broken_adapter_is_listed_with_its_package(target: str, site: Path, tmp_path: Path) -> None:
    installed(site, "stranger", f"text = {target}", requires=("no-such-thing; extra == 'other'", "no_such_module"))
    with pytest.warns(UserWarning, match=r"'text' of stranger 1\.2 is broken"):
        found = plugins.found_adapters()
    assert [str(each.package) for each in found if each.adapter is None] == ["stranger 1.2"]
    with pytest.raises(AdapterError, match=r"'text' of stranger 1\.2: it is broken"):
        plugins.adapter_named("text")
    (tmp_path / "a.text").write_text("none of wio's formats")
    with pytest.raises(AdapterError) as error:
        plugins.detect(tmp_path / "a.text")
    assert "text of stranger 1.2 could not be asked" in str(error.value)
    row = listed()["stranger"]
    assert not row["usable"] and "it is broken" in row["error"]
    assert f"text of stranger 1.2 cannot be used: {row['error']}" in run_wio("adapters").stdout


def test_two_packages_with_one_name_are_both_refused(site: Path, tmp_path: Path) -> None:
    """Whichever was installed first, and whichever works: the same file must not be read by chance."""
    installed(site, "zebra", "text = stranger:Text")
    installed(site, "ant", "text = stranger:NoSuchThing")
    with pytest.warns(UserWarning, match="so neither is used"), pytest.raises(AdapterError) as error:
        plugins.adapter_named("text")
    assert "ant 1.2" in str(error.value) and "zebra 1.2" in str(error.value)
    assert "pip uninstall ant or zebra" in str(error.value)
    (tmp_path / "a.text").write_text("x")
    with pytest.raises(AdapterError, match="none of the formats"):
        plugins.detect(tmp_path / "a.text")
    rows = listed()
    assert rows.keys() == {"ant", "zebra"} and not any(row["usable"] for row in rows.values())
    assert "zebra 1.2" in rows["ant"]["error"] and "ant 1.2" in rows["zebra"]["error"]


def test_the_names_of_own_adapters_are_taken(site: Path) -> None:
    """A package that someone installs must not turn off, or take over, what wio reads."""
    installed(site, "stranger", "keras-tf = stranger:Text")
    with pytest.warns(UserWarning, match=r"'keras-tf' of stranger 1\.2 is refused: wio .* also calls"):
        assert type(plugins.adapter_named("keras-tf")).__name__ == "KerasTF"
    assert not listed()["stranger"]["usable"]


def test_a_missing_extra_is_named_with_what_brings_it(site: Path, tmp_path: Path) -> None:
    """Nobody is warned: the file that needs it says so."""
    installed(site, "stranger", "text = stranger:Needy", requires=("whatever-brings-it>=1; extra == 'fast'",))
    row = listed()["stranger"]
    assert (row["usable"], row["reads"], row["extras"]) == (False, True, {"no_such_module": "fast", "json": "never"})
    assert row["error"] == "it needs no_such_module, which the extra fast of stranger brings"
    assert row["remedy"] == "pip install 'stranger[fast]'"
    assert row["remedy"] in run_wio("adapters").stdout
    (tmp_path / "a.text").write_text("x")
    for words in ((tmp_path / "a.text",), (f"text:{tmp_path / 'a.text'}",)):
        assert row["remedy"] in run_wio("inspect", *words, code=2).stderr
    (site / "no_such_module.py").write_text("")
    assert listed()["stranger"]["usable"]
    run_wio("inspect", tmp_path / "a.text")


@pytest.mark.parametrize("requirement", ["No.Such-Module >=2 ; extra == 'fast'", 'no_such_module[x]; extra=="fast"'])
def test_a_module_imported_too_early_is_found_among_the_extras(requirement: str, site: Path) -> None:
    installed(site, "stranger", "text = early:Text", requires=("other; extra == 'other'", requirement))
    (site / "early.py").write_text("import no_such_module.part\nfrom stranger import Text\n")
    row = listed()["stranger"]
    assert (row["usable"], row["reads"], row["remedy"]) == (False, False, "pip install 'stranger[fast]'")


def test_one_that_raises_at_a_file_does_not_stand_in_the_way(site: Path, tmp_path: Path) -> None:
    installed(site, "stranger", "text = stranger:Clumsy")
    source = make(tmp_path / "a.wio", {"a/x": (arrays(2), None, None)})
    with pytest.warns(UserWarning, match=r"stranger 1\.2 failed to look at"):
        assert plugins.detect(source).name == "wio"


def test_an_equal_match_asks_which_is_meant(site: Path, tmp_path: Path) -> None:
    installed(site, "stranger", "text = stranger:Text", "twin = stranger:Twin")
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
