""".wio files: wio's own format enters by the same door as every other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wio.adapter import Adapter, Convention, Option, Slot, Target
from wio.bundle import Bundle
from wio.container import WioFileReader
from wio.errors import FormatError
from wio.mapping import read_at
from wio.roles import ROLES, neutral_layouts
from wio.safetensors_header import MAX_HEADER, read_header
from wio.shard_index import index_path
from wio.sharded_writer import save_as


class WioFile(Adapter):
    name = "wio"
    description = "wio's neutral file: safetensors with roles and layouts declared (spec/wio-1.md)"
    writes = True
    suffix = ".wio"
    ranges = True
    options = (Option("shard_size", "bytes of tensors in one shard, as in 2GB; by default one file", (), writing=True),)

    def sniff(self, path: Path) -> int:
        """30 for a .wio file, for the index of a set, and for the file that a set would be: ``NAME.wio``."""
        try:
            if not path.is_file():
                return 30 if self._index(path) else 0
            with path.open("rb") as file:
                head = file.read(64)
                # Writers put the declaration first, so most files are told by their first bytes.
                if head[8:].startswith(b'{"__metadata__":{"wio":"'):
                    return 30
                length = int.from_bytes(head[:8], "little")
                is_header = head[8:9] == b"{" and length <= MAX_HEADER
                # Most safetensors files are told from ours without being parsed.
                if is_header and b'"wio"' in read_at(file.fileno(), length, 8):
                    return 30 if "wio" in read_header(file.fileno(), path.name).metadata else 0
        except (OSError, FormatError):
            pass
        return 30 if self._index(path) else 0

    def companions(self, path: Path) -> tuple[str, ...]:
        from wio.adapters._shards import names_beside

        index = index_path(path)
        return names_beside(path) if path.exists() else (index.name, *names_beside(index))

    def read(self, path: Path, **options: str) -> Bundle:
        from wio.adapters._wio_shards import read_set

        self.checked(options, writing=False)
        index = self._index(path)
        return WioFileReader(path).bundle() if index is None else read_set(index)

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
        size = self.checked(options, writing=True).get("shard_size")
        given = bundle.metadata.get("receipt")
        rest = {key: value for key, value in bundle.metadata.items() if key != "receipt"}
        save_as(Bundle(bundle.values(), rest), path, size, None if given is None else lambda: given)

    def receipt(self, path: Path) -> dict[str, Any] | None:
        from wio.adapters._wio_shards import read_index

        index = self._index(path)
        return WioFileReader(path).receipt() if index is None else read_index(index).receipt

    def _index(self, path: Path) -> Path | None:
        """The index that a path means: itself, or that of the file which it would be were it not in shards."""
        from wio.adapters._wio_shards import is_index

        found = path if path.exists() else index_path(path)
        return found if is_index(found) else None
