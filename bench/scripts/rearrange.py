"""WHICH THREADS H W I O: HWIO flipped -> OIHW, as often as makes a tenth of a second; the cost of one."""

import json
import statistics
import sys
import time

import numpy as np

from wio.contiguous import contiguous

which, threads, *shape = sys.argv[1], *map(int, sys.argv[2:])
kernel = np.random.default_rng(1).random(tuple(shape), np.float32)
view = kernel[::-1, ::-1].transpose(3, 2, 0, 1)
copy = (lambda: contiguous(view, threads)) if which == "wio" else (lambda: np.ascontiguousarray(view))
if copy().tobytes() != view.tobytes():
    raise SystemExit("not the same values")
walls, cpus = [], []
for _ in range(max(15, min(400, (24 << 20) // view.nbytes))):
    wall, cpu = time.perf_counter(), time.process_time()
    copy()
    walls.append(time.perf_counter() - wall)
    cpus.append(time.process_time() - cpu)
print(json.dumps({"wall": statistics.median(walls), "cpu": statistics.median(cpus)}))
