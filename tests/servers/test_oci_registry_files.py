"""Architectures shared through an OCI registry: pushed by one, added by another, used by every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from docker_registry import DockerRegistry
from lying_registry import Lies, digest_of, encoded, lying, manifest
from wio_process import Wio

ARCHITECTURE, TOML = "application/vnd.wio.architecture.v1", "application/vnd.wio.registry.v1+toml"
NETWORK = """
id = "shared-net"
title = "Shared"

[network]
layers = [
    ["image", "Input", [], { axes = "HWC", sizes = [8, 6, 2] }],
    ["conv1", "Conv", "image", { filters = 5, kernel_shape = [3, 4], auto_pad = "SAME_UPPER", bias = false }],
]

[dialects.plain]
title = "as it is"
adapters = ["numpy"]
source = "written for this test"
verified = "here"
layers = "{layer}"
tensors = "{layer}.{weight}"
weights = { "Conv.kernel" = "w" }
layouts = { "conv.kernel" = "OIHW" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shared.toml"
    path.write_text(NETWORK)
    return path


def known(wio: Wio) -> list[str]:
    return [each["id"] for each in wio.json("registry", "list")["architectures"]]


def test_a_pulled_architecture_is_there_for_every_command(
    wio: Wio, registry: DockerRegistry, file: Path, tmp_path: Path
) -> None:
    there = f"oci://{registry.host}/shared/net:v1"
    assert wio.json("push", file, there)["type"] == ARCHITECTURE
    assert "shared-net" not in known(wio)
    wio.run("registry", "add", there)
    assert "shared-net" in known(wio)
    added = wio.home / "data" / "wio" / "registry" / "shared_net.toml"
    assert added.read_text() == NETWORK
    kernel = np.arange(120, dtype=np.float32).reshape(5, 2, 3, 4)
    np.savez(tmp_path / "w.npz", **{"conv1.w": kernel})
    wio.run("export", tmp_path / "w.npz", "--arch", "shared-net", "-o", tmp_path / "w.wio")
    found = wio.json("inspect", tmp_path / "w.wio")["tensors"]
    assert [(t["name"], t["role"], t["layout"]) for t in found] == [("conv1/kernel", "conv.kernel", "OIHW")]
    # By another name in another tag, it replaces the first only if that is asked for.
    file.write_text(NETWORK.replace('title = "Shared"', 'title = "Newer"'))
    wio.run("push", file, there)
    assert "--replace" in wio.run("registry", "add", there, code=2).stderr
    wio.run("registry", "add", there, "--replace")
    assert "Newer" in added.read_text()


def test_each_kind_has_its_own_command(
    wio: Wio, registry: DockerRegistry, file: Path, vectors: Path, tmp_path: Path
) -> None:
    network, weights = f"oci://{registry.host}/kinds/net:v1", f"oci://{registry.host}/kinds/weights:v1"
    wio.run("push", file, network)
    wio.run("push", vectors / "plain.wio", weights)
    assert "wio registry add" in wio.run("pull", network, "-o", tmp_path / "o.wio", code=2).stderr
    assert "wio pull" in wio.run("registry", "add", weights, code=2).stderr
    assert not (tmp_path / "o.wio").exists() and not (wio.home / "data").exists()


@pytest.mark.parametrize(
    "text",
    [
        NETWORK.replace('"shared-net"', '"../../evil"'),
        NETWORK.replace('"shared-net"', '"inception-v4"'),
        NETWORK.replace('"{layer}.{weight}"', '"w"') + "\n[nonsense]\n",
        "id = 'a'",
        "\0",
        "[" * 10_000,
    ],
    ids=["a path", "another's id", "nonsense", "nothing", "binary", "deep"],
)
def test_what_a_registry_sends_is_checked_before_it_is_kept(text: str, wio: Wio) -> None:
    raw = text.encode()
    document = manifest({"net.toml": raw}, TOML, ARCHITECTURE)
    with lying(Lies(encoded(document), {digest_of(raw): raw})) as lies:
        wio.run("registry", "add", f"oci://{lies.host}/a/net:v1", code=2)
    assert not (wio.home / "data").exists() and not list(wio.home.rglob("*.toml"))


def test_of_several_files_none_is_kept_if_one_is_wrong(wio: Wio) -> None:
    files = {"a.toml": NETWORK.encode(), "b.toml": b"id = 'b'"}
    document = manifest(files, TOML, ARCHITECTURE)
    with lying(Lies(encoded(document), {digest_of(raw): raw for raw in files.values()})) as lies:
        wio.run("registry", "add", f"oci://{lies.host}/a/net:v1", code=2)
    assert not (wio.home / "data").exists()
    assert json.loads(encoded(document))["layers"][1]["size"] == 8
