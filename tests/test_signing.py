"""Signatures: the package's own command line is the judge, of what wio signs and of what it is to verify."""

from __future__ import annotations

import base64
import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TESTS, run_wio

from wio.errors import FormatError, UsageError, WioError
from wio.signing import sign, verify

# model-signing brings Protocol Buffers, and its command line runs by itself.
pytestmark = pytest.mark.judged

PLAIN = TESTS.parent / "spec" / "vectors" / "valid" / "plain.wio"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of keys: two on elliptic curves, one of another kind, one locked; and certificates."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    folder = tmp_path_factory.mktemp("keys")
    made = {"a": ec.generate_private_key(ec.SECP256R1()), "b": ec.generate_private_key(ec.SECP384R1())}
    for name, key in {**made, "rsa": rsa.generate_private_key(65537, 2048), "locked": made["a"]}.items():
        lock = serialization.BestAvailableEncryption(b"secret") if name == "locked" else serialization.NoEncryption()
        encoding, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        (folder / f"{name}.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, lock))
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(encoding, public))
    _certificates(folder, made["a"])
    return folder


def _certificates(folder: Path, key: Any) -> None:
    """root -> middle -> leaf, whose key is ``key``; ``useless``, which may not sign; ``stranger``, another root."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def certificate(name: str, of: Any, issuer: str, by: Any, authority: bool, signs: bool = True) -> None:
        use = (signs, not signs, False, False, False, authority, authority, False, False)
        start = datetime.datetime(2020, 1, 1)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.KeyUsage(*use), critical=True)
            .sign(by, hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))

    root, middle, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    certificate("root", root, "root", root, True)
    certificate("middle", middle, "root", root, True)
    certificate("leaf", key, "middle", middle, False)
    certificate("useless", key, "middle", middle, False, signs=False)
    certificate("stranger", stranger, "stranger", stranger, True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(PLAIN, tmp_path / "model.wio"))


@pytest.fixture
def signed(model: Path, keys: Path) -> Path:
    """model.wio with its signature beside it, by the key a."""
    sign(model, model.with_name("model.wio.sig"), key=keys / "a.pem")
    return model


@pytest.fixture
def a_set(tmp_path: Path) -> Path:
    """The index of two shards, with a file beside them that is no part of the set; in a folder that git knows."""
    folder = tmp_path / "set"
    folder.mkdir()
    shards = [folder / f"model-0000{k}-of-00002.wio" for k in (1, 2)]
    shutil.copy(PLAIN, shards[0])
    shutil.copy(PLAIN.with_name("escapes.wio"), shards[1])
    (folder / ".gitattributes").write_text("*.wio filter=lfs\n")
    (folder / "README.md").write_text("not signed\n")
    index = folder / "model.wio.index.json"
    index.write_text(json.dumps({"weight_map": {f"tensor{k}": shard.name for k, shard in enumerate(shards)}}))
    return index


def judge(*words: object, code: int = 0) -> str:
    """Runs model-signing's own command line, which exits with 1 where anything is wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def reason(file: Path, keys: Path, key: str = "a", signature: Path | None = None) -> str | None:
    return verify(file, signature or file.with_name(f"{file.name}.sig"), key=keys / f"{key}.pub").reason


# --- the judge agrees, both ways


def test_what_wio_signs_the_package_verifies(model: Path, keys: Path) -> None:
    done = run_wio("sign", model, "--key", keys / "a.pem", "--json")
    assert json.loads(done.stdout) == {"signature": f"{model}.sig", "files": ["model.wio"]}
    assert "wrote" in done.stderr
    judge("verify", "key", model, "--signature", f"{model}.sig", "--public_key", keys / "a.pub")
    judge("verify", "key", model, "--signature", f"{model}.sig", "--public_key", keys / "b.pub", code=1)
    done = run_wio("verify-signature", model, "--key", keys / "a.pub")
    assert done.stdout == "the signature holds for model.wio\n"


def test_what_the_package_signs_wio_verifies(model: Path, keys: Path) -> None:
    judge("sign", "key", model, "--signature", model.with_name("other.sig"), "--private_key", keys / "b.pem")
    words = ("verify-signature", model, "--signature", model.with_name("other.sig"), "--json")
    found = json.loads(run_wio(*words, "--key", keys / "b.pub").stdout)
    assert found == {
        "signature": str(model.with_name("other.sig")),
        "holds": True,
        "reason": None,
        "files": ["model.wio"],
    }
    found = json.loads(run_wio(*words, "--key", keys / "a.pub", code=1).stdout)
    assert found["holds"] is False and "public key" in found["reason"]


def test_a_set_is_signed_as_one(a_set: Path, keys: Path) -> None:
    run_wio("sign", a_set, "--key", keys / "a.pem")
    run_wio("verify-signature", a_set, "--key", keys / "a.pub")
    # The package sees in the folder what wio left out on purpose, and is content with the files that were signed.
    words = ("verify", "key", a_set.parent, "--signature", f"{a_set}.sig", "--public_key", keys / "a.pub")
    assert "README.md" in judge(*words, code=1)
    judge(*words, "--ignore_unsigned_files")
    shard = a_set.with_name("model-00002-of-00002.wio")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    judge(*words, "--ignore_unsigned_files", code=1)
    assert "model-00002-of-00002.wio" in run_wio("verify-signature", a_set, "--key", keys / "a.pub", code=1).stdout


def test_a_folder_that_the_package_signed_covers_the_set_in_it(a_set: Path, keys: Path) -> None:
    signature = a_set.parent.with_name("folder.sig")
    judge("sign", "key", a_set.parent, "--signature", signature, "--private_key", keys / "a.pem")
    assert reason(a_set, keys, signature=signature) is None
    assert reason(a_set.with_name("model-00001-of-00002.wio"), keys, signature=signature) is None
    (a_set.parent / "README.md").write_text("something else\n")
    assert "README.md" in str(reason(a_set, keys, signature=signature))


def test_certificates(model: Path, keys: Path) -> None:
    mine, theirs = (model.with_name(name) for name in ("mine.sig", "theirs.sig"))
    chain = ("--chain", keys / "middle.crt", "--chain", keys / "root.crt")
    run_wio("sign", model, "--key", keys / "a.pem", "--certificate", keys / "leaf.crt", *chain, "-o", mine)
    its_own = [word for name in ("middle", "root") for word in ("--certificate_chain", keys / f"{name}.crt")]
    its_own += ["--private_key", keys / "a.pem", "--signing_certificate", keys / "leaf.crt"]
    judge("sign", "certificate", model, "--signature", theirs, *its_own)
    for signature in (mine, theirs):
        trusting = ("--certificate_chain", keys / "root.crt")
        judge("verify", "certificate", model, "--signature", signature, *trusting)
        words = ("verify-signature", model, "--signature", signature)
        run_wio(*words, "--certificate", keys / "root.crt")
        assert "DOES NOT HOLD" in run_wio(*words, "--certificate", keys / "stranger.crt", code=1).stdout
        run_wio(*words, "--certificate", keys / "stranger.crt", "--certificate", keys / "root.crt")
        assert verify(model, signature, key=keys / "b.pub").reason is not None
    model.write_bytes(model.read_bytes() + b" ")
    assert verify(model, mine, certificates=[keys / "root.crt"]).reason is not None


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")
def test_a_certificate_must_be_of_the_key_be_for_signing_and_have_its_chain(model: Path, keys: Path) -> None:
    signature = model.with_name("model.sig")
    with pytest.raises(UsageError, match="does not match"):
        sign(model, signature, key=keys / "b.pem", certificate=keys / "leaf.crt")
    assert not signature.exists()
    sign(model, signature, key=keys / "a.pem", certificate=keys / "useless.crt", chain=[keys / "middle.crt"])
    assert "cannot be used for signing" in str(verify(model, signature, certificates=[keys / "root.crt"]).reason)
    sign(model, signature, key=keys / "a.pem", certificate=keys / "leaf.crt")
    assert verify(model, signature, certificates=[keys / "root.crt"]).reason is not None
    assert verify(model, signature, certificates=[keys / "root.crt", keys / "middle.crt"]).holds


# --- nothing gets past it


def test_every_byte_is_covered_of_declaration_and_data(signed: Path, keys: Path) -> None:
    raw = signed.read_bytes()
    seen = 0
    for at in range(len(raw)):
        signed.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        seen += reason(signed, keys) is not None
    assert seen == len(raw) > 500
    signed.write_bytes(raw)
    assert reason(signed, keys) is None


def resaved(model: Path) -> None:
    """As another tool leaves it: the same arrays, and no declaration."""
    from safetensors.numpy import load_file, save_file

    save_file(load_file(model), model)


def redeclared(model: Path) -> None:
    before = {t["name"]: t["layout"] for t in json.loads(run_wio("inspect", model, "--json").stdout)["tensors"]}
    assert before["conv1/kernel"] == "HWIO"
    run_wio("export", model, "-o", model, "--declare", "conv1/kernel=conv.kernel:WHIO")


CHANGES: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda model: model.write_bytes(model.read_bytes()[:-1]),
    "grown": lambda model: model.write_bytes(model.read_bytes() + b"\0"),
    "empty": lambda model: model.write_bytes(b""),
    "stripped": resaved,
    "declared anew": redeclared,
    "exported anew": lambda model: run_wio("export", model, "-o", model),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_changed_is_seen(change: str, signed: Path, keys: Path) -> None:
    arrays = json.loads(run_wio("inspect", signed, "--json").stdout)["tensors"]
    before = signed.read_bytes()
    CHANGES[change](signed)
    assert signed.read_bytes() != before and arrays
    assert "DOES NOT HOLD" in run_wio("verify-signature", signed, "--key", keys / "a.pub", code=1).stdout


def test_another_name_is_seen(signed: Path, keys: Path) -> None:
    """The package itself takes a file under any name."""
    other = signed.rename(signed.with_name("other.wio"))
    signature = signed.with_name("model.wio.sig")
    judge("verify", "key", other, "--signature", signature, "--public_key", keys / "a.pub")
    assert reason(other, keys, signature=signature) == "it was made for a file named 'model.wio'"


def test_a_set_is_held_to_its_files(a_set: Path, keys: Path) -> None:
    sign(a_set, a_set.with_name("model.wio.index.json.sig"), key=keys / "a.pem")
    one, two = sorted(a_set.parent.glob("*.wio"))
    both = one.read_bytes(), two.read_bytes()
    one.write_bytes(both[1])
    two.write_bytes(both[0])
    assert one.name in str(reason(a_set, keys)) and two.name in str(reason(a_set, keys))
    one.write_bytes(both[0])
    two.write_bytes(both[1])
    assert reason(a_set, keys) is None
    # An index that names a file beside the set, for which no one signed.
    text = a_set.read_text()
    shutil.copy(two, two.with_name("model-00003-of-00003.wio"))
    a_set.write_text(text.replace(two.name, "model-00003-of-00003.wio"))
    assert a_set.name in str(reason(a_set, keys))
    a_set.write_text(text)
    two.unlink()
    with pytest.raises(WioError, match="is not whole"):
        reason(a_set, keys)


def test_a_signature_over_the_index_alone_does_not_cover_its_shards(a_set: Path, keys: Path) -> None:
    signature = a_set.with_name("index.sig")
    judge("sign", "key", a_set, "--signature", signature, "--private_key", keys / "a.pem")
    found = reason(a_set, keys, signature=signature)
    assert found == "it does not cover model-00001-of-00002.wio, model-00002-of-00002.wio"


def parts(signature: Path) -> tuple[bytes, bytes]:
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    return base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])


def test_every_byte_of_a_signature_counts(signed: Path, keys: Path) -> None:
    """What it says and the signature over that; around them, only what changes nothing may be changed."""
    signature = signed.with_name("model.wio.sig")
    raw, whole, refused = signature.read_bytes(), parts(signature), 0
    for at in range(len(raw)):
        signature.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        try:
            found = reason(signed, keys)
        except FormatError:
            found = "no signature"
        refused += found is not None
        assert found is not None or parts(signature) == whole, f"byte {at} of {len(raw)}"
    assert refused > 0.95 * len(raw)


def test_a_statement_of_ones_own_under_anothers_signature(signed: Path, keys: Path) -> None:
    """The digest replaced by that of another file, which is what a thief would want."""
    signature = signed.with_name("model.wio.sig")
    bundle = json.loads(signature.read_bytes())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    signed.write_bytes(signed.read_bytes()[:-1] + b"\x77")
    sign(signed, signed.with_name("thief.sig"), key=keys / "b.pem")
    theirs = json.loads(parts(signed.with_name("thief.sig"))[0])
    assert theirs["predicate"]["resources"] != statement["predicate"]["resources"]
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(theirs).encode()).decode()
    signature.write_text(json.dumps(bundle))
    assert reason(signed, keys) == "InvalidSignature"
    assert reason(signed, keys, signature=signed.with_name("thief.sig")) is not None
    assert reason(signed, keys, key="b", signature=signed.with_name("thief.sig")) is None


# --- trouble is no verdict


def deep(path: Path) -> None:
    path.write_bytes(b'{"dsseEnvelope":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


NO_SIGNATURES: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.write_text("not a signature\n"),
    "a page": lambda path: path.write_text("<!DOCTYPE html><html></html>"),
    "other JSON": lambda path: path.write_text('{"weight_map": {}}'),
    "a list": lambda path: path.write_text("[]"),
    "no statement": lambda path: path.write_text('{"dsseEnvelope": {"payload": "AAAA"}}'),
    "no base64": lambda path: path.write_text('{"dsseEnvelope": {"payload": "!"}}'),
    "an empty statement": lambda path: path.write_text('{"dsseEnvelope": {"payload": "e30="}}'),
    "deep": deep,
    "endless": lambda path: os.truncate(path, 10**12),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("what", NO_SIGNATURES)
def test_what_is_no_signature_is_trouble(what: str, signed: Path, keys: Path) -> None:
    NO_SIGNATURES[what](signed.with_name("model.wio.sig"))
    done = run_wio("verify-signature", signed, "--key", keys / "a.pub", code=2)
    assert "model.wio.sig" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("key", "words"),
    [("rsa.pem", "cannot sign"), ("locked.pem", "cannot sign"), ("a.pub", "cannot sign"), ("none.pem", "No such file")],
)
def test_a_key_that_cannot_sign_leaves_nothing(key: str, words: str, model: Path, keys: Path) -> None:
    assert words in run_wio("sign", model, "--key", keys / key, code=2).stderr
    assert [each.name for each in model.parent.iterdir()] == ["model.wio"]


@pytest.mark.parametrize("option", ["--key", "--certificate"])
@pytest.mark.parametrize("file", ["rsa.pub", "a.pem", "none.pem"])
def test_a_key_or_root_that_is_none_is_trouble(option: str, file: str, signed: Path, keys: Path) -> None:
    words = "No such file" if file == "none.pem" else "cannot verify"
    assert words in run_wio("verify-signature", signed, option, keys / file, code=2).stderr


def test_a_verdict_needs_a_key_or_a_root(signed: Path, keys: Path) -> None:
    """The package falls back on the roots of the web, whose certificates anyone can have."""
    with pytest.raises(UsageError, match="by a key, or by certificates"):
        verify(signed, signed.with_name("model.wio.sig"))
    assert "--key" in run_wio("verify-signature", signed, code=2).stderr


def test_only_files_are_signed(model: Path, keys: Path) -> None:
    (model.parent / "link.wio").symlink_to(model)
    os.mkfifo(model.parent / "fifo.wio")
    for name, words in (("link.wio", "a link"), ("fifo.wio", "no regular"), (".", "no regular"), ("none", "no such")):
        assert words in run_wio("sign", model.parent / name, "--key", keys / "a.pem", code=2).stderr
    assert not list(model.parent.glob("*.sig"))


@pytest.mark.parametrize("name", ["../model.wio", "/etc/passwd", "..", "", "a\0b", "sub/shard.wio"])
def test_an_index_names_files_beside_it(name: str, a_set: Path, keys: Path) -> None:
    a_set.write_text(json.dumps({"weight_map": {"tensor": name}}))
    assert "no file name" in run_wio("sign", a_set, "--key", keys / "a.pem", code=2).stderr


def test_what_is_signed_is_not_written_over(model: Path, keys: Path) -> None:
    before = model.read_bytes()
    run_wio("sign", model, "--key", keys / "a.pem", "-o", model, code=2)
    run_wio("sign", model, "--key", keys / "a.pem", "-o", keys / "a.pem", code=2)
    assert model.read_bytes() == before and (keys / "a.pem").read_text().startswith("-----BEGIN")


def test_what_the_package_prints_is_kept_out_of_the_json(signed: Path, keys: Path) -> None:
    """It warns on standard output of a signature that does not say by which key it was made."""
    signature = signed.with_name("model.wio.sig")
    bundle = json.loads(signature.read_bytes())
    del bundle["verificationMaterial"]["publicKey"]["hint"]
    signature.write_text(json.dumps(bundle))
    done = run_wio("verify-signature", signed, "--key", keys / "a.pub", "--json")
    assert json.loads(done.stdout)["holds"] is True and "WARNING" in done.stderr


ALONE = """
import socket, sys

def refuse(*arguments, **more):
    raise SystemExit("asked over a network")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
{absent}
from wio.cli.main import main

sys.exit(main(sys.argv[1:]))
"""


def alone(*words: object, absent: str = "") -> subprocess.CompletedProcess[str]:
    code = ALONE.format(absent=f"sys.modules[{absent!r}] = None" if absent else "")
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)


def test_no_network_is_asked(model: Path, keys: Path) -> None:
    chain = ("--certificate", keys / "leaf.crt", "--chain", keys / "middle.crt")
    for with_certificate, by in ((False, ("--key", keys / "a.pub")), (True, ("--certificate", keys / "root.crt"))):
        done = alone("sign", model, "--key", keys / "a.pem", *(chain if with_certificate else ()))
        assert done.returncode == 0, done.stderr
        done = alone("verify-signature", model, *by)
        assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_named(model: Path, keys: Path) -> None:
    done = alone("sign", model, "--key", keys / "a.pem", absent="model_signing")
    assert done.returncode == 2 and "pip install 'wio[sign]'" in done.stderr and "Traceback" not in done.stderr


def test_keys_of_each_curve(model: Path, keys: Path) -> None:
    for curve in ("secp384r1", "secp521r1", "prime256v1"):
        private, public = model.with_name("k.pem"), model.with_name("k.pub")
        subprocess.run(["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", private], check=True)
        subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
        sign(model, model.with_name("s"), key=private)
        assert verify(model, model.with_name("s"), key=public).holds
        assert not verify(model, model.with_name("s"), key=keys / "a.pub").holds


def test_values_are_those_that_were_signed(tmp_path: Path, keys: Path) -> None:
    """From arrays to a verified file to arrays: what is imported is what was signed."""
    np.savez(tmp_path / "w.npz", **{"conv/kernel": np.arange(120, dtype=np.float32).reshape(3, 2, 4, 5)})
    run_wio("export", tmp_path / "w.npz", "-o", tmp_path / "w.wio", "--declare", "conv/kernel=conv.kernel:HWIO")
    run_wio("sign", tmp_path / "w.wio", "--key", keys / "b.pem")
    run_wio("verify-signature", tmp_path / "w.wio", "--key", keys / "b.pub")
    run_wio("import", tmp_path / "w.wio", "--into", "numpy", "-o", tmp_path / "again.npz")
    np.testing.assert_array_equal(
        np.load(tmp_path / "again.npz")["conv/kernel"], np.arange(120, dtype=np.float32).reshape(3, 2, 4, 5)
    )
