""".wio into Keras HDF5."""

from __future__ import annotations

from collections.abc import Iterator

from inputs import Inputs
from measure import interleaved, script, wio
from table import Row, ratio

from jobs.exporting import size


def rows(inputs: Inputs, runs: int) -> Iterator[Row]:
    ours, theirs = inputs.folder / "ours.h5", inputs.folder / "theirs.h5"
    # Keras 1.2 with channels first: every kernel is flipped and goes from HWIO to OIHW. Its batch norms have a gamma.
    early = ("--option", "keras=1.2", "--option", "data_format=channels_first", "--apply", "gamma=*")
    commands = [
        wio("import", inputs.inception_wio, "--into", "keras-theano", "-o", ours, *early),
        script("keras_theano", inputs.inception_keras, theirs),
    ]
    costs = interleaved(commands, runs, made=(ours, theirs))
    yield ratio("import -> keras-theano, 172 MB", "NumPy + h5py script (no fsync)", costs, ">=", 2.5)
    commands = [
        wio("import", inputs.large_wio, "--into", "keras-tf", "-o", ours),
        script("h5py_write", inputs.large_wio, theirs),
    ]
    costs = interleaved(commands, runs, (False, True), (ours, theirs))
    yield ratio(f"import -> keras-tf, {size(inputs.large)}", "h5py from memory, fsynced", costs, "<=", 1.2)
    for path in (ours, theirs):
        path.unlink(missing_ok=True)
