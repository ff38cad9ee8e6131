"""The adapter `numpy`: .npy arrays, .npz archives, and the pickled .npy dictionaries of the caffe-tensorflow era.

NumPy names arrays and says nothing of what they are: layouts are kept as they are, and none is meant by a role alone.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from wio.adapter import Adapter, Convention, Option, Target
from wio.bundle import Bundle
from wio.errors import Problem


class NumpyFile(Adapter):
    """Read without ``pickle``; written as .npz, stored, with fixed times, or as a dictionary of layers."""

    name = "numpy"
    description = "NumPy .npy and .npz files, and pickled .npy dictionaries of arrays"
    writes = True
    suffix = ".npz"
    options = (
        Option(
            "checksums",
            "whether the CRC-32 of zip members is verified as they are read",
            ("verify", "ignore"),
            "verify",
            reading=True,
        ),
        Option(
            "kind",
            "an .npz archive, or the pickled .npy dictionary of layers that caffe-tensorflow's loaders read",
            ("npz", "dictionary"),
            "npz",
            writing=True,
        ),
        Option(
            "lists",
            "the layers of a dictionary that are lists, as in NAME,NAME; default: those that the source has so",
            writing=True,
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

        told = self.checked(options, writing=True)
        wrong = tuple(
            Problem("dtype", f"an .npz file cannot hold {t.dtype}", name, f"--drop '{name}', or write a .wio file")
            for name, t in bundle.items()
            if t.dtype.name not in NATIVE
        )
        target = kept_target(bundle, self.name, wrong)
        if told["kind"] == "npz":
            return target
        from wio.adapters._numpy_dictionary import layer_and_weight, list_problems, lists_of

        lists = told["lists"].split(",") if told.get("lists") else sorted(lists_of(bundle.metadata))

        flat = tuple(
            Problem("name", "has no layer: a dictionary of layers holds layer/weight", slot.name, "--option kind=npz")
            for slot in target.slots
            if layer_and_weight(slot.name) is None
        )
        held = {slot.name.rpartition("/")[0] for slot in target.slots}
        absent = tuple(
            Problem("list", "no tensor is of this layer", name, "leave it out of --option lists=...")
            for name in lists
            if told.get("lists") and name not in held
        )
        holes = list_problems([slot.name for slot in target.slots], lists)
        metadata = {**target.metadata, "numpy": {"kind": "pickled", "lists": lists}} if lists else target.metadata
        return replace(target, metadata=metadata, problems=(*target.problems, *flat, *absent, *holes))

    def write(self, path: Path, bundle: Bundle, **options: str) -> None:
        if self.checked(options, writing=True)["kind"] == "dictionary":
            from wio.adapters._numpy_dictionary import write_dictionary

            write_dictionary(path, bundle)
            return
        from wio.adapters._numpy_write import write

        write(path, bundle)
