"""Manifests: what files an artifact is made of, one layer each (spec/oci.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from wio.errors import FormatError, Problem
from wio.file_set import INDEX as INDEX_SUFFIX
from wio.file_set import MAX_INDEX, is_name
from wio.safetensors_header import encode_json, parse_object

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
WEIGHTS, ARCHITECTURE = "application/vnd.wio.weights.v1", "application/vnd.wio.architecture.v1"
FILE, INDEX = "application/vnd.wio.file.v1", "application/vnd.wio.index.v1+json"
REGISTRY_FILE = "application/vnd.wio.registry.v1+toml"
# What each kind of artifact is made of.
_MADE_OF = {WEIGHTS: {FILE, INDEX}, ARCHITECTURE: {REGISTRY_FILE}}
_SUFFIXES = {FILE: (".wio", ".safetensors"), INDEX: (INDEX_SUFFIX,), REGISTRY_FILE: (".toml",)}
# What is read whole is bounded.
_MOST_BYTES = {FILE: 2**63 - 1, INDEX: MAX_INDEX, REGISTRY_FILE: 16_000_000}
# OCI Image Format Specification 1.1, "Pre-Defined Annotation Keys".
_TITLE = "org.opencontainers.image.title"
# What registries take at most, and wio with them (Distribution Specification 1.1, "Pushing Manifests").
MOST_BYTES = 4 * 1024 * 1024
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Layer(Struct, frozen=True):
    """One file of an artifact: its name, what it is, its digest (``sha256:...``) and size in bytes."""

    name: str
    media_type: str
    digest: str
    size: int


# The same, "Guidance for an Empty Descriptor".
EMPTY = b"{}"
EMPTY_CONFIG = Layer(
    "the empty config",
    "application/vnd.oci.empty.v1+json",
    "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    2,
)


def manifest_of(kind: str, layers: Sequence[Layer]) -> bytes:
    """The manifest of an artifact, the same bytes for the same files. FormatError if it is larger than they may be."""
    raw = encode_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": _descriptor(EMPTY_CONFIG),
            "layers": [{**_descriptor(layer), "annotations": {_TITLE: layer.name}} for layer in layers],
        }
    )
    if len(raw) > MOST_BYTES:
        raise FormatError(
            f"the manifest would be {len(raw)} bytes, over the {MOST_BYTES} that registries take",
            remedy="fewer and larger shards",
        )
    layers_of(raw, "the manifest")
    return raw


def _descriptor(layer: Layer) -> dict[str, Any]:
    return {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}


def layers_of(raw: bytes, what: str) -> tuple[str, tuple[Layer, ...]]:
    """The kind of an artifact and its files, an index last; ``what`` names the manifest in errors.

    FormatError, with every layer that is wrong, unless names lead nowhere else and stand once, in whatever case, sizes
    and digests are well-formed, and every layer is of a type that belongs to the kind.
    """
    document = parse_object(raw, what)
    kind = document.get("artifactType")
    if document.get("schemaVersion") != 2 or document.get("mediaType", MANIFEST) != MANIFEST or kind not in _MADE_OF:
        raise FormatError(f"{what} is not that of weights or an architecture of wio (its type is {kind!r})")
    listed = document.get("layers")
    if not isinstance(listed, list) or not listed or not all(isinstance(each, dict) for each in listed):
        raise FormatError(f"{what} lists no layers")
    problems = [
        Problem("layer", trouble, f"layer {k}")
        for k, each in enumerate(listed)
        if (trouble := _trouble(each, _MADE_OF[kind])) is not None
    ]
    if problems:
        raise FormatError(f"{what} has layers that are refused", problems)
    layers = [Layer(each["annotations"][_TITLE], each["mediaType"], each["digest"], each["size"]) for each in listed]
    if twice := _twice(layer.name.casefold() for layer in layers):
        raise FormatError(f"{what} names a file twice: {twice!r}")
    indexes = [layer for layer in layers if layer.media_type == INDEX]
    if len(indexes) > 1 or (kind == WEIGHTS and not indexes and len(layers) > 1):
        raise FormatError(f"{what}: several files of weights need one index, and it has {len(indexes)}")
    return kind, (*(layer for layer in layers if layer.media_type != INDEX), *indexes)


def _trouble(layer: dict[str, Any], known: set[str]) -> str | None:
    media_type, digest, size = layer.get("mediaType"), layer.get("digest"), layer.get("size")
    if not isinstance(media_type, str) or media_type not in known:
        return f"is of a type that does not belong here: {media_type!r}"
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return "has no SHA-256"
    if type(size) is not int or not 0 <= size <= _MOST_BYTES[media_type]:
        return f"has no size, or one over {_MOST_BYTES[media_type]} bytes: {size!r}"
    annotations = layer.get("annotations")
    name = annotations.get(_TITLE) if isinstance(annotations, dict) else None
    if not isinstance(name, str) or not is_name(name) or not name.isprintable() or name.startswith("."):
        return f"has a name that is no plain file name: {name!r}"
    if not name.endswith(_SUFFIXES[media_type]) or len(name.encode("utf-8", "surrogatepass")) > 200:
        return f"has a name that is too long or ends otherwise than {' or '.join(_SUFFIXES[media_type])}: {name!r}"
    return None


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
