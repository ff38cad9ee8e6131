"""Hostile safetensors files."""

from __future__ import annotations

from pathlib import Path

import hostile
from hostile import Seed
from vector_files import framed

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "U8", "shape": [5], "data_offsets": [24, 29]}
RAW = framed({"__metadata__": {"a": "b"}, "x/a": A, "b": B}, bytes(range(29)))
SEED = Seed("safetensors", {"m.safetensors": RAW}, "m.safetensors")


def test_cuts(tmp_path: Path) -> None:
    found = hostile.survives(tmp_path, SEED, hostile.cuts("m.safetensors", RAW, range(len(RAW))))
    print(found)
