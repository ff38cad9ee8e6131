"""The adapter `safetensors`: plain files and sharded ones by their index. The format says nothing of layouts.

Source: safetensors 0.8, ``safetensors/src/tensor.rs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wio.adapter import Adapter, Convention, Target
from wio.bundle import Bundle
from wio.errors import Problem


class SafetensorsFile(Adapter):
    """``*.safetensors`` and ``*.safetensors.index.json``; a .wio file too, where its arrays alone are asked for."""

    name = "safetensors"
    description = "safetensors files, plain and sharded; writes plain ones"
    writes = True
    suffix = ".safetensors"
    ranges = True

    def sniff(self, path: Path) -> int:
        if not path.is_file():
            return 0
        from wio.adapters._safetensors_read import SHARDS, is_safetensors
        from wio.adapters._shards import is_index

        return 10 if is_safetensors(path) or is_index(path, SHARDS) else 0

    def companions(self, path: Path) -> tuple[str, ...]:
        from wio.adapters._shards import names_beside

        return names_beside(path)

    def read(self, path: Path, **options: str) -> Bundle:
        from wio.adapters._safetensors_read import read

        self.checked(options, writing=False)
        return read(path)

    def receipt(self, path: Path) -> dict[str, Any] | None:
        from wio.adapters._safetensors_read import read_receipt

        return read_receipt(path)

    def convention(self, **options: str) -> Convention:
        """None: every layout is kept as it is, and none is meant by a role alone."""
        self.checked(options, writing=True)
        return Convention({})

    def target(self, bundle: Bundle, **options: str) -> Target:
        """Every tensor as it is, declared or not, under its own name."""
        from wio.adapters._kept_target import kept_target

        self.checked(options, writing=True)
        wrong = tuple(
            Problem("dtype", f"safetensors has no dtype for {t.dtype}", name, f"--drop '{name}', or write a .wio file")
            for name, t in bundle.items()
            if t.dtype.safetensors is None
        )
        return kept_target(bundle, self.name, wrong)

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        from wio.adapters._safetensors_write import write

        self.checked(options, writing=True)
        write(path, bundle)
