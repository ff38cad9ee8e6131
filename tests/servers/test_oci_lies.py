"""Registries that lie, break off, or lead elsewhere: one message each, exit code 2, and no file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from lying_registry import TITLE, Lies, digest_of, encoded, lying, manifest
from wio_process import Wio

from wio.cli.main import TROUBLE, main

WEIGHTS, ARCHITECTURE = "application/vnd.wio.weights.v1", "application/vnd.wio.architecture.v1"
FILE, INDEX = "application/vnd.wio.file.v1", "application/vnd.wio.index.v1+json"
TOML = "application/vnd.wio.registry.v1+toml"


@pytest.fixture
def raw(vectors: Path) -> bytes:
    return (vectors / "plain.wio").read_bytes()


def honest(raw: bytes, name: str = "model.wio") -> Lies:
    return Lies(encoded(manifest({name: raw}, FILE, WEIGHTS)), {digest_of(raw): raw})


def pulled(wio: Wio, lies: Lies, out: Path) -> str:
    """What is said of a pull that must fail; in this process, for there are many."""
    told = io.StringIO()
    with patch.dict(os.environ, wio.environment), contextlib.redirect_stderr(told):
        assert main(["pull", f"oci://{lies.host}/a/model:v1", "-o", str(out)]) == TROUBLE
    return told.getvalue()


def refused(wio: Wio, lies: Lies, folder: Path) -> str:
    """Pulls into an empty folder, which must stay so; what was said."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    with lying(lies):
        told = pulled(wio, lies, out)
    assert sorted(path.name for path in out.rglob("*")) == []
    assert len(told) < 5000
    return told


def test_an_honest_one_is_believed(wio: Wio, raw: bytes, tmp_path: Path) -> None:
    with lying(honest(raw)) as lies:
        wio.run("pull", f"oci://{lies.host}/a/model:v1", "-o", tmp_path / "o.wio")
    assert (tmp_path / "o.wio").read_bytes() == raw


# --- blobs

BLOBS: dict[str, Callable[[bytes], bytes]] = {
    "a flipped byte": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "cut off": lambda raw: raw[:-1],
    "empty": lambda _: b"",
    "longer": lambda raw: raw + b"\0",
    "much longer": lambda raw: raw + bytes(10_000_000),
    "something else": lambda raw: b"<!DOCTYPE html>" + bytes(len(raw) - 15),
}


@pytest.mark.parametrize("lie", BLOBS)
def test_wrong_bytes_for_a_digest(lie: str, wio: Wio, raw: bytes, tmp_path: Path) -> None:
    lies = honest(raw)
    lies.blobs = {digest_of(raw): BLOBS[lie](raw)}
    assert "model.wio" in refused(wio, lies, tmp_path)


@pytest.mark.parametrize("size", [0, 1, 691, 693, 10**12, 2**63 - 1])
def test_a_wrong_size_in_the_manifest(size: int, wio: Wio, raw: bytes, tmp_path: Path) -> None:
    assert size != len(raw) == 692
    document = manifest({"model.wio": raw}, FILE, WEIGHTS)
    document["layers"][0]["size"] = size
    refused(wio, Lies(encoded(document), {digest_of(raw): raw}), tmp_path)


def test_an_answer_that_breaks_off_again_and_again(wio: Wio, tmp_path: Path) -> None:
    """It says more than it sends. What came may be gone on with, and does not take the file's name."""
    raw = bytes(range(250)) * 1200

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if "/blobs/" not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw[:150_000])
        handler.wfile.flush()
        handler.close_connection = True
        return True

    lies = honest(raw)
    lies.answer = answer
    out = tmp_path / "out"
    out.mkdir()
    with lying(lies):
        told = wio.run("pull", f"oci://{lies.host}/a/model:v1", "-o", out, code=2).stderr
    assert "again" in told and [path.name for path in out.iterdir() if not path.name.endswith(".part")] == []
    # From the same beginning an honest registry makes the whole.
    with lying(honest(raw)) as lies:
        found = wio.json("pull", f"oci://{lies.host}/a/model:v1", "-o", out)
    assert 150_000 <= found["bytes"] < 220_000 and (out / "model.wio").read_bytes() == raw
    assert [path.name for path in out.iterdir()] == ["model.wio"]


@pytest.mark.parametrize("content_range", ["bytes 0-591/692", "bytes 200-691/692", "bytes */692", "", "nonsense"])
def test_another_part_than_was_asked_for(content_range: str, wio: Wio, raw: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f".model.wio.{digest_of(raw)[7:23]}.part").write_bytes(raw[:100])

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if "/blobs/" not in handler.path:
            return False
        assert handler.headers["Range"] == "bytes=100-"
        handler.send_response(206)
        handler.send_header("Content-Range", content_range)
        handler.send_header("Content-Length", str(len(raw) - 100))
        handler.end_headers()
        handler.wfile.write(raw[100:])
        return True

    lies = honest(raw)
    lies.answer = answer
    refused(wio, lies, tmp_path)


def test_a_beginning_of_something_else_is_thrown_away(wio: Wio, raw: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    part = out / f".model.wio.{digest_of(raw)[7:23]}.part"
    part.write_bytes(b"?" * 100)
    refused(wio, honest(raw), tmp_path)
    part.symlink_to(tmp_path / "elsewhere")
    with lying(honest(raw)) as lies:
        wio.run("pull", f"oci://{lies.host}/a/model:v1", "-o", out, code=2)
    assert not (tmp_path / "elsewhere").exists()


# --- manifests

NAMES = [
    "../model.wio", "..", "/etc/model.wio", "sub/model.wio", "..\\model.wio", ".model.wio", "model\0.wio", "",
    "model.wio\n", "\x1b[2Jmodel.wio", "\u202emodel.wio", f"{'a' * 300}.wio", "model.exe", "model.wio/", 7, None,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_lead_nowhere(name: Any, wio: Wio, raw: bytes, tmp_path: Path) -> None:
    document = manifest({"model.wio": raw}, FILE, WEIGHTS)
    document["layers"][0]["annotations"] = {TITLE: name}
    told = refused(wio, Lies(encoded(document), {digest_of(raw): raw}), tmp_path)
    assert "layer 0" in told and "\x1b" not in told and "\u202e" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not JSON": lambda _: b"<html>",
    "empty": lambda _: b"",
    "a list": lambda _: b"[]",
    "deep": lambda _: b"[" * 100_000,
    "a key twice": lambda document: b'{"layers": [], ' + encoded(document)[1:],
    "of an image": lambda document: {**document, "artifactType": None},
    "of another type": lambda document: {**document, "artifactType": "application/vnd.cncf.helm.config.v1+json"},
    "an index of images": lambda document: {**document, "mediaType": "application/vnd.oci.image.index.v1+json"},
    "another version": lambda document: {**document, "schemaVersion": 3},
    "no layers": lambda document: {**document, "layers": []},
    "layers that are none": lambda document: {**document, "layers": [1, None]},
    "a layer of a tar": lambda document: changed(document, mediaType="application/vnd.oci.image.layer.v1.tar+gzip"),
    "a registry file among weights": lambda document: changed(document, mediaType=TOML),
    "a digest of another kind": lambda document: changed(document, digest=f"sha512:{'0' * 128}"),
    "a digest that is a path": lambda document: changed(document, digest="sha256:../../../v2/x/blobs/sha256:00"),
    "a size that is text": lambda document: changed(document, size="692"),
    "a size below nothing": lambda document: changed(document, size=-1),
    "a fraction": lambda document: changed(document, size=692.0),
    "a name twice": lambda document: {**document, "layers": document["layers"] * 2},
    "a name twice in another case": lambda document: {
        **document,
        "layers": [*document["layers"], {**document["layers"][0], "annotations": {TITLE: "MODEL.wio"}}],
    },
    "several files without an index": lambda document: {
        **document,
        "layers": [*document["layers"], {**document["layers"][0], "annotations": {TITLE: "b.wio"}}],
    },
    "too large": lambda document: encoded({**document, "annotations": {"x": "y" * 5_000_000}}),
}


def changed(document: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {**document, "layers": [{**document["layers"][0], **keys}]}


@pytest.mark.parametrize("lie", MANIFESTS)
def test_a_manifest_that_is_none_of_wios(lie: str, wio: Wio, raw: bytes, tmp_path: Path) -> None:
    lies = honest(raw)
    said = MANIFESTS[lie](json.loads(lies.manifest))
    lies.manifest = said if isinstance(said, bytes) else encoded(said)
    refused(wio, lies, tmp_path)
    assert not any("/blobs/" in asked for asked in lies.asked)


def test_another_manifest_than_the_one_asked_for(wio: Wio, raw: bytes, tmp_path: Path) -> None:
    lies = honest(raw)
    with lying(lies):
        there = f"oci://{lies.host}/a/model"
        right = digest_of(lies.manifest)
        wio.run("pull", f"{there}@{right}", "-o", tmp_path / "o.wio")
        other = f"sha256:{'1' * 64}"
        assert right in wio.run("pull", f"{there}@{other}", "-o", tmp_path / "p.wio", code=2).stderr
    lies = honest(raw)
    lies.headers = {"Docker-Content-Digest": other}
    refused(wio, lies, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.wio", "out"]


def test_an_index_that_names_other_files(wio: Wio, raw: bytes, tmp_path: Path) -> None:
    """A set of shards, one of which would be a file that happens to lie there."""
    index = encoded({"weight_map": {"a": "model-00001-of-00002.wio", "b": "mine.wio"}})
    document = manifest({"model-00001-of-00002.wio": raw}, FILE, WEIGHTS)
    document["layers"] += manifest({"model.wio.index.json": index}, INDEX, WEIGHTS)["layers"]
    lies = Lies(encoded(document), {digest_of(raw): raw, digest_of(index): index})
    out = tmp_path / "out"
    with lying(lies):
        told = wio.run("pull", f"oci://{lies.host}/a/model:v1", "-o", out, code=2).stderr
    assert "mine.wio" in told and [path.name for path in out.iterdir() if not path.name.startswith(".")] == []


# --- leading elsewhere


def test_a_registry_that_leads_to_another_machine_unencrypted(wio: Wio, raw: bytes, tmp_path: Path) -> None:
    """0.0.0.0 is this machine, and not known as such: nothing may arrive there."""
    with lying(honest(raw)) as other:

        def answer(handler: BaseHTTPRequestHandler) -> bool:
            if "/blobs/" not in handler.path:
                return False
            handler.send_response(307)
            handler.send_header("Location", f"http://0.0.0.0:{other.port}{handler.path}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        lies = honest(raw)
        lies.answer = answer
        assert "unencrypted" in refused(wio, lies, tmp_path)
        assert other.asked == []


def test_a_login_is_not_sent_to_another_machine_unencrypted(wio: Wio, raw: bytes, tmp_path: Path) -> None:
    with lying(honest(raw)) as other:

        def answer(handler: BaseHTTPRequestHandler) -> bool:
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", f'Bearer realm="http://0.0.0.0:{other.port}/token",service="x"')
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        lies = honest(raw)
        lies.answer = answer
        assert "unencrypted" in refused(wio, lies, tmp_path)
        assert other.asked == []


@pytest.mark.parametrize("location", ["http://0.0.0.0:9/v2/a/model/blobs/uploads/1", "/elsewhere", "", "http://[::1"])
def test_an_upload_is_not_led_elsewhere(location: str, wio: Wio, vectors: Path, tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command != "POST":
            return False
        handler.send_response(202)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    with lying(Lies(answer=answer)) as lies:
        model = shutil.copy(vectors / "plain.wio", tmp_path / "model.wio")
        wio.run("push", model, f"oci://{lies.host}/a/model:v1", code=2)
    assert not any(asked.startswith(("PATCH", "PUT")) for asked in lies.asked)


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", 'Bearer realm=""', "Nonsense", 'Bearer realm="ftp://x/y"', 'Bearer realm="http://["']
)
def test_nonsense_about_logins(challenge: str, wio: Wio, raw: bytes, tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", challenge)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    lies = honest(raw)
    lies.answer = answer
    refused(wio, lies, tmp_path)


def test_tokens_are_asked_for_what_each_request_needs(wio: Wio, vectors: Path, tmp_path: Path) -> None:
    """A token for reading is no token for writing: a registry says so by 401, and gives another."""
    state: dict[str, Any] = {"uploaded": b"", "scopes": []}

    def say(handler: BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: str) -> bool:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
        return True

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        length = int(handler.headers.get("Content-Length", 0))
        body = handler.rfile.read(length)
        if handler.path.startswith("/token"):
            scope = "push" if "push" in handler.path else "pull"
            state["scopes"].append(scope)
            return say(handler, 200, encoded({"token": scope}))
        needed = "pull" if handler.command in ("GET", "HEAD") else "push"
        given = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if handler.path != "/v2/" and given not in (needed, "push"):
            realm = f'Bearer realm="http://{lies.host}/token",service="s",scope="repository:a/model:{needed}"'
            return say(handler, 401, WWW_Authenticate=realm)
        if handler.command == "POST":
            return say(handler, 202, Location="/v2/a/model/blobs/uploads/1")
        if handler.command == "PATCH":
            state["uploaded"] += body
            return say(handler, 202, Location="/v2/a/model/blobs/uploads/1")
        if handler.command == "PUT":
            return say(handler, 201)
        return False

    with lying(Lies(answer=answer)) as lies:
        model = Path(shutil.copy(vectors / "plain.wio", tmp_path / "model.wio"))
        wio.run("push", model, f"oci://{lies.host}/a/model:v1")
    assert state["uploaded"] == model.read_bytes() + b"{}" and state["scopes"] == ["pull", "push"]


@pytest.mark.parametrize("where", ["/v2/", "/manifests/", "/token", "elsewhere"])
def test_an_answer_without_end_is_not_taken_in(where: str, wio: Wio, raw: bytes, tmp_path: Path) -> None:
    """A gigabyte would come, where a few bytes are expected."""

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if where == "/token" and "/manifests/" in handler.path:
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", f'Bearer realm="http://{lies.host}/token",service="x"')
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True
        leads_on = where == "elsewhere" and "/blobs/" in handler.path
        if not leads_on and where not in handler.path:
            return False
        handler.send_response(307 if leads_on else 200)
        handler.send_header("Location", "/v2/a/model/blobs/other")
        handler.send_header("Content-Length", str(10**9))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(bytes(10**6))
        handler.close_connection = True
        return True

    lies = honest(raw)
    lies.answer = answer
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(wio, lies, tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


# --- what is no registry


@pytest.mark.parametrize("code", [200, 302, 404, 500, 503])
def test_servers_that_are_no_registries(code: int, wio: Wio, raw: bytes, tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(code)
        handler.send_header("Content-Length", "6")
        handler.end_headers()
        handler.wfile.write(b"<html>")
        return True

    lies = honest(raw)
    lies.answer = answer
    refused(wio, lies, tmp_path)


def test_no_server_at_all(wio: Wio, tmp_path: Path) -> None:
    with lying(Lies()) as lies:
        pass
    assert (
        "no registry answers"
        in wio.run("pull", f"oci://{lies.host}/a/model:v1", "-o", tmp_path / "o.wio", code=2).stderr
    )


@pytest.mark.parametrize(
    "text",
    [
        "oci://", "oci://localhost/a:v1", "oci://h:1/A:v1", "oci://h:1/a", "oci://h:1/a:", "oci://h:1/../a:v1", "http://h:1/a:v1",
        "oci://h:1/a:v1@sha256:00", "oci://u:p@h:1/a:v1", "oci://h:1/a?x=y:v1", "oci://h:1//a:v1", "a:v1", "oci://h:99999999/a:v1",
        "oci://h:1/a:v1\n", "oci://h:1/a:-v1",
    ],
)  # fmt: skip
def test_places_that_are_none(text: str, wio: Wio, tmp_path: Path) -> None:
    assert "oci://" in wio.run("pull", text, "-o", tmp_path / "o.wio", code=2).stderr


def test_a_missing_extra_is_named(tmp_path: Path, vectors: Path) -> None:
    code = "import sys; sys.modules['oras'] = None; from wio.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["push", str(vectors / "plain.wio"), "oci://localhost:1/a:v1"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'wio[oci]'" in done.stderr and "Traceback" not in done.stderr
