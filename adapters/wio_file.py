""".wio files: wio's own format enters by the same door as every other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wio.adapter import Adapter, Convention, Slot, Target
from wio.bundle import Bundle
from wio.container import WioFileReader
from wio.container_writer import save
from wio.errors import FormatError
from wio.roles import ROLES, neutral_layouts
from wio.safetensors_header import MAX_HEADER, read_header


class WioFile(Adapter):
    name = "wio"
    description = "wio's neutral file: safetensors with roles and layouts declared (spec/wio-1.md)"
    writes = True

    def sniff(self, path: Path) -> int:
        try:
            if not path.is_file():
                return 0
            with path.open("rb") as file:
                head = file.read(64)
                # Writers put the declaration first, so most files are told by their first bytes.
                if head[8:].startswith(b'{"__metadata__":{"wio":"'):
                    return 30
                length = int.from_bytes(head[:8], "little")
                if head[8:9] != b"{" or length > MAX_HEADER:
                    return 0
                file.seek(8)
                # Most safetensors files are told from ours without being parsed.
                if b'"wio"' not in file.read(length):
                    return 0
                return 30 if "wio" in read_header(file.fileno(), path.name).metadata else 0
        except (OSError, FormatError):
            return 0

    def read(self, path: Path, **options: str) -> Bundle:
        self.checked(options, writing=False)
        return WioFileReader(path).bundle()

    def convention(self, **options: str) -> Convention:
        self.checked(options, writing=True)
        return Convention({role: neutral_layouts(role) for role in ROLES})

    def target(self, bundle: Bundle, **options: str) -> Target:
        """A .wio file keeps every tensor as it is."""
        self.checked(options, writing=True)
        slots = tuple(
            Slot(t.name, t.role, t.layout, t.layer, t.layer, t.origin, copy_of=t.name) for t in bundle.values()
        )
        return Target(slots, bundle.metadata, {})

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        self.checked(options, writing=True)
        receipt = bundle.metadata.get("receipt")
        rest = {key: value for key, value in bundle.metadata.items() if key != "receipt"}
        save(Bundle(bundle.values(), rest), path, None if receipt is None else lambda: receipt)

    def receipt(self, path: Path) -> dict[str, Any] | None:
        return WioFileReader(path).receipt()
