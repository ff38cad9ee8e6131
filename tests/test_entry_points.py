"""Entry points as wio finds them, against importlib.metadata."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from wio.entry_points import EntryPoint, Package, entry_points


def as_importlib_finds_them(group: str) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    return sorted(
        (point.name, point.value, point.dist.name, point.dist.version, tuple(point.dist.requires or ()))
        for point in metadata.entry_points(group=group)
        if point.dist is not None
    )


def as_wio_finds_them(group: str) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    return sorted(
        (point.name, point.value, point.package.name, point.package.version, point.package.requires)
        for point in entry_points(group)
    )


def test_every_group_of_every_installed_package_is_found_alike() -> None:
    groups = sorted(metadata.entry_points().groups)
    assert {"console_scripts", "wio.adapters", "wio.registry"} <= set(groups)
    for group in groups:
        assert as_wio_finds_them(group) == as_importlib_finds_them(group), group


def metadata_folder(site: Path, folder: str, name: str, points: str) -> None:
    info = site / folder
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n\nName: in the description\n"
    (info / ("METADATA" if folder.endswith(".dist-info") else "PKG-INFO")).write_text(text)
    (info / "entry_points.txt").write_text(points)


def test_the_file_is_read_as_the_specification_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "# first\n[other]\na = b:c\n\n[wio.test]\n# more\nplain=os\n  spaced = os.path : join  [extra]\n"
    points += "[wio.testing]\nx = y\n"
    metadata_folder(tmp_path / "first", "some.thing-1.2.dist-info", "some.thing", points)
    metadata_folder(tmp_path / "second", "Some_Thing-0.1.dist-info", "Some_Thing", "[wio.test]\nold = old\n")
    metadata_folder(tmp_path / "second", "tree.egg-info", "tree", "[wio.test]\ntree = tree:leaf\n")
    for site in ("second", "first"):
        monkeypatch.syspath_prepend(str(tmp_path / site))
    found = {point.name: point for point in entry_points("wio.test")}
    assert set(found) == {"plain", "spaced", "tree"} == {each.name for each in metadata.entry_points(group="wio.test")}
    import os.path

    assert found["plain"].load() is os and found["spaced"].load() is os.path.join
    assert str(found["spaced"].package) == "some.thing 1.2" and str(found["tree"].package) == "tree 1.2"


def test_packages_in_an_archive_are_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped-3.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 3\n")
        file.writestr("zipped-3.dist-info/entry_points.txt", "[wio.test]\nzipped = os:sep\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(archive)])
    assert entry_points("wio.test") == [EntryPoint("zipped", "os:sep", Package("zipped", "3"))]
