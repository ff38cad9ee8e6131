"""FILE: every tensor read once with safe_open; each value is touched."""

import sys

import numpy as np
from clock import told
from safetensors import safe_open

with told(), safe_open(sys.argv[1], "np") as file:
    total = sum(int(file.get_tensor(name).reshape(-1).view(np.uint32).sum(dtype=np.uint64)) for name in file.keys() if not name.startswith("__wio__"))  # noqa: SIM118
