"""FILE: every tensor read once with wio; each value is touched."""

import sys

import numpy as np
from clock import told

import wio

with told():
    total = sum(int(tensor.numpy().reshape(-1).view(np.uint32).sum(dtype=np.uint64)) for tensor in wio.open(sys.argv[1]).values())
