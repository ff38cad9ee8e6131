"""The adapter `numpy`: .npy arrays, .npz archives, and the pickled .npy dictionaries of the caffe-tensorflow era.

NumPy names arrays and says nothing of what they are: layouts are kept as they are, and none is meant by a role alone.
"""

from __future__ import annotations

from pathlib import Path

from wio.adapter import Adapter, Convention, Option, Target
from wio.bundle import Bundle
from wio.errors import Problem


class NumpyFile(Adapter):
    """Read without ``pickle``; written as .npz, stored, with fixed times."""

    name = "numpy"
    description = "NumPy .npy and .npz files, and pickled .npy dictionaries of arrays; writes .npz"
    writes = True
    options = (
        Option(
            "checksums",
            "whether the CRC-32 of zip members is verified as they are read",
            ("verify", "ignore"),
            "verify",
            reading=True,
        ),
    )

    def sniff(self, path: Path) -> int:
        if not path.is_file():
            return 0
        from wio.adapters._numpy_read import score

        return score(path)

    def read(self, path: Path, **options: str) -> Bundle:
        """An array is named by the stem of its file, a member of an .npz by its key, a leaf by ``layer/weight``."""
        from wio.adapters._numpy_read import read

        return read(path, check=self.checked(options, writing=False)["checksums"] == "verify")

    def convention(self, **options: str) -> Convention:
        self.checked(options, writing=True)
        return Convention({})

    def target(self, bundle: Bundle, **options: str) -> Target:
        """Every tensor as it is, declared or not, under its own name."""
        from wio.adapters._kept_target import kept_target
        from wio.adapters._numpy_header import NATIVE

        self.checked(options, writing=True)
        wrong = tuple(
            Problem("dtype", f"an .npz file cannot hold {t.dtype}", name, f"--drop '{name}', or write a .wio file")
            for name, t in bundle.items()
            if t.dtype.name not in NATIVE
        )
        return kept_target(bundle, self.name, wrong)

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        from wio.adapters._numpy_write import write

        self.checked(options, writing=True)
        write(path, bundle)
