"""An .npz archive: members stored and aligned, so that readers can map them."""

from __future__ import annotations

from pathlib import Path

from wio.adapters._numpy_header import NATIVE, head_bytes
from wio.adapters._zip_writer import ZipWriter
from wio.atomic import atomic_output
from wio.bundle import Bundle
from wio.errors import FormatError


def write(path: Path, bundle: Bundle) -> None:
    """Writes every tensor of a bundle as ``NAME.npy``. FormatError for a dtype that NumPy itself lacks."""
    wrong = [f"{tensor.name} ({tensor.dtype})" for tensor in bundle.values() if tensor.dtype.name not in NATIVE]
    if wrong:
        raise FormatError(f"an .npz file cannot hold {', '.join(wrong[:5])}", remedy="write a .wio file")
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        archive = ZipWriter(file)
        for tensor in bundle.values():
            data = tensor.stored()
            if len(data) != tensor.nbytes:
                raise FormatError(f"{tensor.name}: {tensor.nbytes} bytes announced, the source gave {len(data)}")
            archive.add(f"{tensor.name}.npy", head_bytes(tensor.dtype, tensor.shape), data)
        archive.close()
