"""Real servers on loopback, one fixture each. A server that is not installed is a failure, never a skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_registry import DockerRegistry, running
from loopback import Wire
from wio_process import Wio


@pytest.fixture
def wio(tmp_path_factory: pytest.TempPathFactory) -> Wio:
    return Wio(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with running(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture(scope="session")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with running(tmp_path_factory.mktemp("locked"), locked=True) as started:
        yield started


@pytest.fixture
def wire(registry: DockerRegistry) -> Iterator[Wire]:
    made = Wire(registry.port)
    yield made
    made.close()


@pytest.fixture
def vectors() -> Path:
    """The valid test vectors of the format."""
    return Path(__file__).parents[2] / "spec" / "vectors" / "valid"
