"""Names that stand twice, or differ in case only: refused before anything is written, or two tensors to the end."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile import Case, Seed, survives
from test_hostile_hdf5 import keras2, keras3

from wio.bundle import Bundle, Tensor
from wio.dtypes import dtype_of
from wio.errors import WioError
from wio.layout import Layout
from wio.plan import make_plan
from wio.plugins import adapter_named

WRITERS = ("caffe", "keras-tf", "keras-theano", "keras3", "numpy", "onnx", "safetensors", "tf-checkpoint", "torch")
# What their targets name tensors by is all there is: no layers around it.
FLAT = ("numpy", "safetensors", "tf-checkpoint", "torch")
PAIRS = {
    "case of a layer": ("d/kernel", "D/kernel"),
    "case of a weight": ("d/kernel", "d/Kernel"),
    "one inside the other": ("d/kernel", "d/kernel/0"),
    "an empty part": ("d/kernel", "d//kernel"),
    "a part that is a dot": ("d/kernel", "d/./kernel"),
    "composed and decomposed": ("caf\u00e9/kernel", "cafe\u0301/kernel"),
    "with and without :0": ("d/kernel", "d/kernel:0"),
    "a dot for a slash": ("d/kernel", "d.kernel"),
    "the same name in the target": ("a/kernel", "b/kernel"),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", WRITERS)
def test_two_tensors_stay_two_or_nothing_is_written(tmp_path: Path, name: str, pair: str) -> None:
    adapter = adapter_named(name)
    for role, layout in ((None, None), ("dense.kernel", Layout.parse("IO"))):
        tensors = []
        for k, each in enumerate(PAIRS[pair]):
            values = np.full((2, 3), k, "f4")
            layer = each.split("/")[0]
            tensors.append(Tensor(each, dtype_of(values), (2, 3), lambda v=values: v, role, layout, None, layer))
        names = dict.fromkeys(PAIRS[pair], "same/kernel") if "same" in pair else {}
        bundle = Bundle(tensors, {"names": names, "layers": []})
        path = tmp_path / f"{role}" / f"m{adapter.suffix}"
        path.parent.mkdir()
        try:
            plan = make_plan(bundle, adapter.target(bundle), name, {})
            adapter.write(path, plan.apply(), **plan.options)
        except WioError:
            assert not list(path.parent.iterdir())
            continue
        assert "same" not in pair or name not in FLAT
        assert sorted(t.numpy().flat[0] for t in adapter.read(path).values()) == [0, 1]


def test_one_name_for_two_entries_of_a_group(tmp_path: Path) -> None:
    """libhdf5 finds one of them, by a search that expects each name once."""
    for make, name, old, new in ((keras2, "m.h5", b"bias", b"kernel"), (keras3, "m.weights.h5", b"1", b"0")):
        sound: Seed = make(tmp_path / name)
        raw = sound.files[name]
        at = raw.index(b"\0" + old + b"\0")
        heap = raw.rindex(b"HEAP", 0, at)
        start = int.from_bytes(raw[heap + 24 : heap + 32], "little")
        there, other = at + 1 - start, raw.index(b"\0" + new + b"\0", start) + 1 - start
        entry = raw.index(there.to_bytes(8, "little"), raw.index(b"SNOD", start) if b"SNOD" in raw[start:] else 0)
        changed = raw[:entry] + other.to_bytes(8, "little") + raw[entry + 8 :]
        with h5py.File(tmp_path / name) as file:
            assert file
        survives(tmp_path, sound, [Case("twice", {name: changed}, refused=("two of its entries are named",))])
