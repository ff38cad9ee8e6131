"""Where an artifact lies: ``oci://HOST/NAME:TAG``, or ``@sha256:...`` in place of the tag or behind it."""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from wio.errors import UsageError

SCHEME = "oci://"
# OCI Distribution Specification 1.1, "Pulling manifests": <name> and <reference>. A host needs a dot or a port, or it
# would be taken for the first part of a name.
_HOST = r"(?P<host>(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)(?::[0-9]{1,5})?)"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"{_HOST}/(?P<name>{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_REMEDY = "as in oci://localhost:5000/team/model:v1"


class Reference(Struct, frozen=True):
    """A place in a registry. ``digest`` says which manifest it must be; without it the tag says which it is today."""

    host: str
    name: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """UsageError for what is no such place."""
        found = _REFERENCE.fullmatch(text.removeprefix(SCHEME)) if text.startswith(SCHEME) else None
        if found is None or not set(found["host"]) & set(".:"):
            raise UsageError(f"{text!r} is no oci://HOST/NAME:TAG", remedy=_REMEDY)
        if found["tag"] is None and found["digest"] is None:
            raise UsageError(f"{text} has neither tag nor digest", remedy=_REMEDY)
        return cls(found["host"], found["name"], found["tag"], found["digest"])

    @property
    def manifest(self) -> str:
        """What the manifest is asked for by."""
        return self.digest or self.tag or ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{SCHEME}{self.host}/{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


def is_loopback(host: str) -> bool:
    """Whether a host, with or without port, is this machine by its very name: no name is looked up."""
    bare = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False
