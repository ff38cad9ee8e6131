"""Signatures over whole files, made and verified by the package ``model-signing`` (extra ``sign``) with local keys.

A signature is a Sigstore bundle: a signed in-toto statement with the SHA-256 of every file and, for a single file, its
name. So it covers the declaration of a .wio file as well as its bytes. Nothing is asked over a network.
Source of what the statement holds: ``model_signing`` 1.1, ``_signing/signing.py`` (``Payload``) and ``manifest.py``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from wio.atomic import atomic_output, staging
from wio.errors import FormatError, UsageError, WioError
from wio.file_set import files_of
from wio.safetensors_header import parse_object

SUFFIX = ".sig"
_MOST_BYTES = 16_000_000
# How the statement names the one file of a signature over a file: its path, seen from itself.
_ITSELF = "."
_KEY_REMEDY = "keys are PEM files of the curves P-256, P-384 or P-521, without a password"


class Verdict(Struct, frozen=True):
    """Whether a signature holds for files, and if not, why. ``files`` are the names of those it was held against."""

    files: tuple[str, ...]
    reason: str | None = None

    @property
    def holds(self) -> bool:
        return self.reason is None

    def as_json(self) -> dict[str, Any]:
        return {"holds": self.holds, "reason": self.reason, "files": list(self.files)}


def signature_beside(path: Path) -> Path:
    """Where the signature of a file is looked for and put, unless another place is named."""
    return path.with_name(path.name + SUFFIX)


def sign(
    path: Path, signature: Path, *, key: Path, certificate: Path | None = None, chain: Sequence[Path] = ()
) -> tuple[str, ...]:
    """Signs a file, or an index with all its shards, and gives the names of the files that the signature covers.

    ``key`` is a private key on an elliptic curve. With ``certificate``, which must be that key's, the signature carries
    it and ``chain``, the certificates between it and a root. WioError if a file or the key cannot be used.
    """
    library = _library()
    files = files_of(path)
    if any(signature.resolve() == file.resolve() for file in (*files, key)):
        raise UsageError(f"{signature} is what is signed, or the key", remedy="name another file for the signature")
    config = library.signing.Config()
    try:
        if certificate is None:
            config.use_elliptic_key_signer(private_key=key)
        else:
            # The library cannot do with an empty chain; a certificate in its own chain changes nothing.
            config.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=chain or (certificate,)
            )
    except OSError:
        raise
    except Exception as error:  # whatever the library, and the one below it, makes of a file that is no key
        raise UsageError(f"{key} cannot sign: {_said(error)}", remedy=_KEY_REMEDY) from None
    # The library leaves files of git out, which may be shards as any other.
    hashing = library.hashing.Config().set_ignored_paths(paths=(), ignore_git_paths=False)
    config.set_hashing_config(_Files(hashing, files))
    with atomic_output(signature) as temporary:
        config.sign(_root(files), temporary)
    return tuple(file.name for file in files)


def verify(path: Path, signature: Path, *, key: Path | None = None, certificates: Sequence[Path] = ()) -> Verdict:
    """Whether a signature covers a file, or an index with all its shards, and holds.

    It holds if ``key``, a public one, or one that a root among ``certificates`` vouches for, made it over these very
    bytes under these names. A certificate is taken to have been valid when it was made: a signature has no
    trustworthy time. Raises WioError where there is nothing to judge: no such file, no key, no signature.
    """
    if (key is None) == (not certificates):
        raise UsageError("a signature is verified by a key, or by certificates", remedy="--key PUB or --certificate CA")
    library = _library()
    files = files_of(path)
    names = tuple(file.name for file in files)
    if signature.stat().st_size > _MOST_BYTES:
        raise FormatError(f"{signature.name}: a signature of more than {_MOST_BYTES} bytes")
    raw = signature.read_bytes()
    signed_as, resources = _statement(raw, signature.name)
    config = library.verifying.Config().set_ignore_unsigned_files(True)
    try:
        if key is not None:
            config.use_elliptic_key_verifier(public_key=key)
        else:
            config.use_certificate_verifier(certificate_chain=certificates)
    except OSError:
        raise
    except Exception as error:  # as above
        told = key if key is not None else ", ".join(map(str, certificates))
        raise UsageError(f"{told} cannot verify: {_said(error)}", remedy=_KEY_REMEDY) from None
    alone = resources == (_ITSELF,)
    try:
        # What the library reads is what was read here, whatever becomes of the file meanwhile. It prints.
        with staging() as folder, contextlib.redirect_stdout(sys.stderr):
            copy = folder / "signature"
            copy.write_bytes(raw)
            config.verify(path if alone else path.parent, copy)
    except OSError:
        raise
    except Exception as error:  # a signature that cannot be made sense of does not hold
        return Verdict(names, _said(error))
    if alone:
        if signed_as != path.name:
            return Verdict(names, f"it was made for a file named {signed_as!r}")
        resources = (path.name,)
    if uncovered := [name for name in names if name not in resources]:
        return Verdict(names, f"it does not cover {', '.join(uncovered)}")
    return Verdict(names)


def _library() -> Any:
    try:
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        raise WioError(
            f"model-signing, which signs and verifies, cannot be used: {error}", remedy="pip install 'wio[sign]'"
        ) from None
    return model_signing


class _Files(Struct, frozen=True):
    """Hashing of these files and no others, for a library that signs all that a folder holds."""

    hashing: Any
    files: tuple[Path, ...]

    def hash(self, root: Path) -> Any:
        return self.hashing.hash(root, files_to_hash=self.files)


def _root(files: tuple[Path, ...]) -> Path:
    """What the names in a statement are seen from: one file from itself, a set from its folder."""
    return files[0] if len(files) == 1 else files[0].parent


def _statement(raw: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    """The name under which something was signed, and the files in it. Not to be believed before it is verified."""
    try:
        envelope = parse_object(raw, name)["dsseEnvelope"]
        statement = parse_object(base64.b64decode(envelope["payload"], validate=True), f"{name}: the statement")
        return str(statement["subject"][0]["name"]), tuple(str(r["name"]) for r in statement["predicate"]["resources"])
    except (KeyError, IndexError, TypeError, binascii.Error) as error:
        raise FormatError(f"{name} is no signature of model-signing: {_said(error)}") from None


def _said(error: Exception) -> str:
    """What an error of another library says, or at least what it is called."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
