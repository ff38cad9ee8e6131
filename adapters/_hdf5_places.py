"""Datasets made without their values, which are then written to their places in the file by several threads.

libhdf5 writes one array at a time under one lock. A contiguous dataset whose space is allocated at once is a run of
bytes at a known offset (HDF5 File Format Specification 3.0, III.A, "contiguous"), the same bytes that h5py writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wio.bundle import Tensor
from wio.placed_writer import Placed, take_room, write_placed

if TYPE_CHECKING:
    import numpy as np


def new_dataset(group: Any, name: str, tensor: Tensor, dtype: np.dtype[Any], placed: list[Placed]) -> Any:
    """A dataset of the tensor's shape; where its values go is added to ``placed``. A single value is written now."""
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    dataset = group.create_dataset(name, tensor.shape, dtype, dcpl=layout)
    offset = dataset.id.get_offset()
    if offset is not None:
        placed.append(Placed(tensor, tensor.nbytes, offset))
    elif tensor.nbytes:
        # h5py gives a dataset without axes no room until it has its value.
        dataset[...] = tensor.numpy().view(dtype)
    return dataset


def write_values(path: Path, placed: Sequence[Placed]) -> None:
    """Writes the values of a file that h5py has closed. Raises what reading the tensors raises."""
    with path.open("r+b") as file:
        take_room(file.fileno(), path.stat().st_size)
        write_placed(file.fileno(), placed)
