"""HWIO.wio OIHW.wio: every kernel of the one against the transposed view of the other, mapped, with array_equal."""

import sys

import numpy as np
from clock import told

import wio

one, other = wio.open(sys.argv[1]), wio.open(sys.argv[2])
pairs = [(one[name].numpy(), other[name].numpy()) for name in one]
with told():
    equal = all(np.array_equal(a, b.transpose(2, 3, 1, 0) if a.ndim == 4 else b) for a, b in pairs)
if not equal:
    raise SystemExit("the files differ")
