"""Weights in an OCI registry: Debian's docker-registry keeps them, and oras' own client is asked to read them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from docker_registry import DockerRegistry, running
from loopback import Wire
from lying_registry import digest_of
from wio_process import Wio

WEIGHTS = "application/vnd.wio.weights.v1"


@pytest.fixture
def model(tmp_path: Path, vectors: Path) -> Path:
    return Path(shutil.copy(vectors / "plain.wio", tmp_path / "model.wio"))


def large(wio: Wio, path: Path, seed: int, megabytes: int) -> Path:
    """A .wio file of random numbers, which nothing can make smaller."""
    array = path.with_suffix(".npy")
    np.save(array, np.random.default_rng(seed).standard_normal((megabytes, 250_000), dtype=np.float32))
    wio.run("export", array, "-o", path)
    array.unlink()
    return path


def a_set(wio: Wio, folder: Path, megabytes: int = 1, count: int = 3) -> Path:
    """The index of shards of so many megabytes each."""
    folder.mkdir()
    shards = [large(wio, folder / f"model-{k:05}-of-{count:05}.wio", k, megabytes) for k in range(1, count + 1)]
    index = folder / "model.wio.index.json"
    index.write_text(json.dumps({"weight_map": {f"array{k}": shard.name for k, shard in enumerate(shards)}}))
    return index


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.02)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def place(server: DockerRegistry | Wire, request: pytest.FixtureRequest, tag: str = "v1") -> str:
    """A repository of the test's own."""
    name = request.node.name.lower().replace("[", "-").replace("]", "").replace(" ", "-")
    return f"oci://{server.host}/tests/{name}:{tag}"


# --- there and back


def test_a_file_comes_back_as_it_was(
    wio: Wio, model: Path, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there = place(registry, request)
    pushed = wio.json("push", model, there)
    assert pushed["files"] == ["model.wio"] and pushed["there_already"] == [] and pushed["type"] == WEIGHTS
    pulled = wio.json("pull", there, "-o", tmp_path / "back.wio")
    assert (tmp_path / "back.wio").read_bytes() == model.read_bytes()
    assert pulled["digest"] == pushed["digest"] and pulled["bytes"] == model.stat().st_size
    wio.run("diff", model, tmp_path / "back.wio")
    # By the digest of what was pushed, whatever becomes of the tag; into a folder, under its own name.
    (tmp_path / "into").mkdir()
    wio.run("pull", there.rpartition(":")[0] + f"@{pushed['digest']}", "-o", tmp_path / "into")
    assert content(tmp_path / "into") == {"model.wio": model.read_bytes()}


def test_any_client_of_registries_can_fetch_it(
    wio: Wio, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """oras' own pull, which knows nothing of wio."""
    from oras.client import OrasClient

    index, there = a_set(wio, tmp_path / "set"), place(registry, request)
    wio.run("push", index, there)
    OrasClient(insecure=True).pull(there.removeprefix("oci://"), outdir=str(tmp_path / "theirs"))
    assert content(tmp_path / "theirs") == content(index.parent)


def test_one_layer_is_one_shard_and_the_same_files_are_the_same_artifact(
    wio: Wio, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from oras.provider import Registry

    index = a_set(wio, tmp_path / "set")
    there, again = place(registry, request), place(registry, request, "again")
    assert wio.json("push", index, there)["digest"] == wio.json("push", index, again)["digest"]
    found = Registry(insecure=True).get_manifest(there.removeprefix("oci://"))
    files = [*sorted(index.parent.glob("*.wio")), index]
    assert found["artifactType"] == WEIGHTS and found["config"]["size"] == 2
    assert [(each["digest"], each["size"]) for each in found["layers"]] == [
        (digest_of(file.read_bytes()), file.stat().st_size) for file in files
    ]
    media = [each["mediaType"] for each in found["layers"]]
    assert media == ["application/vnd.wio.file.v1"] * 3 + ["application/vnd.wio.index.v1+json"]
    assert [each["annotations"]["org.opencontainers.image.title"] for each in found["layers"]] == [
        file.name for file in files
    ]


def test_a_set_comes_back_and_what_did_not_change_is_not_sent(
    wio: Wio, registry: DockerRegistry, wire: Wire, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    index, there = a_set(wio, tmp_path / "set", 4), place(wire, request)
    sizes = {file.name: file.stat().st_size for file in index.parent.iterdir()}
    first = wio.json("push", index, there)
    assert sum(sizes.values()) <= first["bytes"] < wire.up < 1.01 * sum(sizes.values())
    wire.reset()
    nothing = wio.json("push", index, there)
    assert (nothing["bytes"], len(nothing["there_already"])) == (0, 4) and wire.up < 10_000
    second = large(wio, index.with_name("model-00002-of-00003.wio"), 99, 4)
    wire.reset()
    one = wio.json("push", index, there)
    assert one["bytes"] == second.stat().st_size and wire.up < 1.01 * second.stat().st_size
    assert one["there_already"] == ["model-00001-of-00003.wio", "model-00003-of-00003.wio", "model.wio.index.json"]
    # And back: first all of it, then only what changed.
    wio.run("pull", there, "-o", tmp_path / "back")
    assert content(tmp_path / "back") == content(index.parent)
    (tmp_path / "back" / "model-00003-of-00003.wio").write_bytes(b"another file")
    wire.reset()
    again = wio.json("pull", there, "-o", tmp_path / "back")
    assert again["bytes"] == sizes["model-00003-of-00003.wio"] and wire.down < 1.01 * again["bytes"]
    assert content(tmp_path / "back") == content(index.parent)


def test_a_tag_means_the_last_that_was_pushed(
    wio: Wio, model: Path, vectors: Path, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there = place(registry, request)
    old = wio.json("push", model, there)["digest"]
    before = model.read_bytes()
    shutil.copy(vectors / "escapes.wio", model)
    assert wio.json("push", model, there)["digest"] != old
    wio.run("pull", there, "-o", tmp_path / "new.wio")
    assert (tmp_path / "new.wio").read_bytes() == model.read_bytes() != before
    wio.run("pull", f"{there}@{old}", "-o", tmp_path / "old.wio")
    assert (tmp_path / "old.wio").read_bytes() == before


# --- interrupted


def test_an_interrupted_push_goes_on(
    wio: Wio, registry: DockerRegistry, wire: Wire, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Cut in the third of four shards: the tag stays unknown, and what was sent is not sent again."""
    index, there = a_set(wio, tmp_path / "set", 4, 4), place(wire, request)
    whole = sum(file.stat().st_size for file in index.parent.iterdir())
    wire.cut_up = 10_500_000
    done = wio.run("push", index, there, code=2)
    assert wire.was_cut.is_set() and "again" in done.stderr
    wire.reset()
    wio.run("pull", there, "-o", tmp_path / "none", code=2)
    wire.reset()
    resumed = wio.json("push", index, there)
    assert resumed["there_already"] == ["model-00001-of-00004.wio", "model-00002-of-00004.wio"]
    assert resumed["bytes"] < 0.51 * whole and wire.up < 0.52 * whole
    wio.run("pull", there, "-o", tmp_path / "back")
    assert content(tmp_path / "back") == content(index.parent)


@pytest.mark.parametrize("where", ["between chunks", "in a chunk"])
def test_a_killed_push_of_one_large_file(
    where: str, wio: Wio, registry: DockerRegistry, wire: Wire, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """kill -9 when half has passed. A chunk is 16 MiB; docker-registry forgets an upload that breaks inside of one."""
    model, there = large(wio, tmp_path / "large.wio", 5, 64), place(wire, request)
    chunks = 2 * 16 * 1024 * 1024
    wire.cut_up = chunks + (10_000 if where == "between chunks" else 1_000_000)
    process = wio.start("push", model, there)
    assert wire.was_cut.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert chunks < wire.up < chunks + 1_000_000
    wire.reset()
    again = wio.json("push", model, there)
    wio.run("pull", there, "-o", tmp_path / "back.wio")
    assert (tmp_path / "back.wio").read_bytes() == model.read_bytes()
    expected = model.stat().st_size - (chunks if where == "between chunks" else 0)
    assert expected <= again["bytes"] <= expected + 2


@pytest.mark.parametrize("how", ["cut", "killed"])
def test_an_interrupted_pull_goes_on(
    how: str, wio: Wio, registry: DockerRegistry, wire: Wire, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, there, out = large(wio, tmp_path / "large.wio", 6, 32), place(wire, request), tmp_path / "out"
    out.mkdir()
    (out / "large.wio").write_bytes(b"the old file")
    wio.run("push", model, there)
    wire.reset()
    wire.cut_down = 24_000_000
    process = wio.start("pull", there, "-o", out / "large.wio")
    assert wire.was_cut.wait(60)
    if how == "killed":
        # What has passed the wire is not all written yet.
        wait_until(lambda: sum(part.stat().st_size for part in out.glob("*.part")) > 20_000_000)
        process.send_signal(signal.SIGKILL)
    _, told = process.communicate()
    assert process.returncode == (2 if how == "cut" else -signal.SIGKILL) and "Traceback" not in told
    assert (out / "large.wio").read_bytes() == b"the old file"
    wire.reset()
    again = wio.json("pull", there, "-o", out / "large.wio")
    assert content(out) == {"large.wio": model.read_bytes()}
    assert again["bytes"] < 0.5 * model.stat().st_size and wire.down < 0.5 * model.stat().st_size


def test_a_short_break_is_bridged(
    wio: Wio, registry: DockerRegistry, wire: Wire, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The wire is cut once while a file is pulled; the same command goes on and gives the whole."""
    model, there = large(wio, tmp_path / "large.wio", 7, 32), place(wire, request)
    wio.run("push", model, there)
    wire.reset()
    wire.cut_down = 20_000_000
    process = wio.start("pull", there, "-o", tmp_path / "back.wio")
    assert wire.was_cut.wait(60)
    wire.reset()
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert (tmp_path / "back.wio").read_bytes() == model.read_bytes() and wire.down < 0.5 * model.stat().st_size


def test_two_pulls_at_once_do_not_mix(
    wio: Wio, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, there = large(wio, tmp_path / "large.wio", 8, 32), place(registry, request)
    wio.run("push", model, there)
    both = [wio.start("pull", there, "-o", tmp_path / "back.wio") for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 2]), told
    assert codes == [0, 0] or any("someone else" in each for each in told)
    assert (tmp_path / "back.wio").read_bytes() == model.read_bytes()


# --- what a registry holds is not believed


def test_a_blob_that_was_changed_in_the_registry_is_refused(
    wio: Wio, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """docker-registry sends what it has on its disk, whatever that has become."""
    model, there, out = large(wio, tmp_path / "large.wio", 9, 4), place(registry, request), tmp_path / "out"
    out.mkdir()
    wio.run("push", model, there)
    kept = registry.blob(digest_of(model.read_bytes()))
    raw = kept.read_bytes()
    for damage in (raw[:-1] + bytes([raw[-1] ^ 1]), raw[:-1], raw + b"\0", b""):
        kept.write_bytes(damage)
        done = wio.run("pull", there, "-o", out / "large.wio", code=2)
        assert "large.wio" in done.stderr and content(out) == {}, done.stderr
    kept.write_bytes(raw)
    wio.run("pull", there, "-o", out / "large.wio")
    assert content(out) == {"large.wio": raw}


def test_what_is_not_there_is_said(
    wio: Wio, model: Path, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there = place(registry, request)
    assert "MANIFEST_UNKNOWN" in wio.run("pull", there, "-o", tmp_path / "o.wio", code=2).stderr
    digest = f"sha256:{'0' * 64}"
    wio.run("pull", f"{there}@{digest}", "-o", tmp_path / "o.wio", code=2)
    assert not (tmp_path / "o.wio").exists()


# --- logins


def login(wio: Wio, registry: DockerRegistry, word: str) -> None:
    """As `docker login` leaves it."""
    folder = wio.home / ".docker"
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"name:{word}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))


def test_a_locked_registry_takes_the_login_that_docker_left(
    wio: Wio, model: Path, locked_registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there = place(locked_registry, request)
    assert "docker login" in wio.run("push", model, there, code=2).stderr
    login(wio, locked_registry, "wrong")
    done = wio.run("push", model, there, code=2)
    assert "docker login" in done.stderr and "wrong" not in done.stderr
    login(wio, locked_registry, "secret")
    wio.run("push", model, there)
    wio.run("pull", there, "-o", tmp_path / "back.wio")
    assert (tmp_path / "back.wio").read_bytes() == model.read_bytes()


# --- unencrypted only where it is allowed


def test_other_machines_are_not_spoken_to_unencrypted(
    wio: Wio, model: Path, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """0.0.0.0 leads here too, and is not known as this machine."""
    there = place(registry, request).replace("127.0.0.1", "0.0.0.0")
    wio.run("push", model, there, code=2)
    wio.run("push", model, there, "--plain-http")
    wio.run("pull", there, "-o", tmp_path / "back.wio", code=2)
    wio.run("pull", there, "-o", tmp_path / "back.wio", "--plain-http")
    assert (tmp_path / "back.wio").read_bytes() == model.read_bytes()


# --- what is pushed is sound


def test_only_sound_files_are_pushed(
    wio: Wio, model: Path, registry: DockerRegistry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there = place(registry, request)
    model.write_bytes(model.read_bytes()[:-1])
    wio.run("push", model, there, code=2)
    (tmp_path / "a.toml").write_text("id = 'a'\n")
    wio.run("push", tmp_path / "a.toml", there, code=2)
    (tmp_path / "a.wio.index.json").write_text(json.dumps({"weight_map": {"t": "../model.wio"}}))
    wio.run("push", tmp_path / "a.wio.index.json", there, code=2)
    wio.run("push", tmp_path / "none.wio", there, code=2)
    wio.run("pull", there, "-o", tmp_path / "o.wio", code=2)


def test_outputs_that_cannot_be_are_refused(
    wio: Wio, registry: DockerRegistry, model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    index, one, many = a_set(wio, tmp_path / "set"), place(registry, request, "one"), place(registry, request, "many")
    wio.run("push", index, many)
    wio.run("push", model, one)
    assert "name a folder" in wio.run("pull", many, "-o", model, code=2).stderr
    wio.run("pull", one, "-o", tmp_path / "no" / "such" / "folder.wio", code=2)
    os.mkfifo(tmp_path / "fifo")
    wio.run("pull", one, "-o", tmp_path / "fifo", code=2)
    assert not list(tmp_path.rglob("*.part"))


def test_encrypted_registries_are_held_to_their_certificate(
    wio: Wio, model: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.0.0.0 leads here, and is spoken to as another machine: encrypted, with a certificate that is trusted."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = folder / "certificate.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    made += ["-subj", "/CN=registry", "-addext", "subjectAltName=IP:0.0.0.0"]
    subprocess.run([*made, "-keyout", folder / "key.pem", "-out", certificate], check=True, capture_output=True)
    with running(folder, tls=(certificate, folder / "key.pem")) as registry:
        there = f"oci://0.0.0.0:{registry.port}/a/model:v1"
        assert "certificate" in wio.run("push", model, there, code=2).stderr.lower()
        wio.run("push", model, there, "--plain-http", code=2)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        wio.run("push", model, there)
        wio.run("pull", there, "-o", tmp_path / "back.wio")
    assert (tmp_path / "back.wio").read_bytes() == model.read_bytes()
