"""SOURCE.wio OUT.h5: arrays that are in memory written with h5py, synced. Reading them does not count."""

import os
import sys

import h5py
from clock import told
from safetensors.numpy import load_file

arrays = {name: array for name, array in load_file(sys.argv[1]).items() if not name.startswith("__wio__")}
with told():
    with h5py.File(sys.argv[2], "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    written = os.open(sys.argv[2], os.O_RDONLY)
    os.fsync(written)
