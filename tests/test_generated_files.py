"""Valid files of every format, made at random, are read for what is in them; damaged, as their library reads them."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fuzz.readers import READERS
from fuzz.reading import examine, same
from generated_files import FILES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.judged

# What a generator needs of a library that draws random numbers as it is imported, which Hypothesis forbids.
LIBRARIES = {
    "tf_v1": "tensorflow",
    "tf_v2": "tensorflow",
    "keras3": "keras",
    "torch_zip": "torch",
    "torch_legacy": "torch",
}
# A model of Keras takes a tenth of a second to make.
EXAMPLES = {"keras3": 8, "keras_hdf5": 30, "tf_v1": 30, "tf_v2": 30}


def test_every_format_has_a_generator() -> None:
    """Layouts and names have theirs beside their own tests."""
    assert set(FILES) == set(READERS) - {"layout", "name_pattern"}


@pytest.mark.parametrize("name", FILES)
def test_what_was_written_is_read(name: str) -> None:
    @settings(max_examples=EXAMPLES.get(name, 50), suppress_health_check=list(HealthCheck))
    @given(FILES[name](), st.data())
    def check(generated, data) -> None:
        with tempfile.TemporaryDirectory() as folder:
            outcome = examine(READERS[name], generated.input, Path(folder), judged=True)
            assert outcome.refused is None and not outcome.wrong
            assert outcome.values is not None
            values = outcome.values
            if name == "keras3":
                # What a variable is called is Keras's affair; that all are there is told by their bits.
                assert sorted(map(_bits, values.values())) == sorted(map(_bits, generated.values.values()))
            else:
                assert values.keys() == generated.values.keys()
                assert all(same(values[key], each) for key, each in generated.values.items())
            for _ in range(3):
                damaged = _damaged(data.draw, generated.input)
                # TensorFlow aborts over some damaged checkpoints, and takes seconds to start again.
                judged = LIBRARIES.get(name) != "tensorflow"
                assert not examine(READERS[name], damaged, Path(folder), judged=judged).wrong

    if name in LIBRARIES:
        importlib.import_module(LIBRARIES[name])
    check()


def _bits(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return array.shape, array.tobytes()


def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """One byte other, missing, or there twice; or the file cut short."""
    place = draw(st.integers(1, len(whole) - 1)) if len(whole) > 1 else 0
    kind = draw(st.sampled_from(["other", "other", "missing", "twice", "cut"]))
    byte = {"other": bytes([draw(st.integers(0, 255))]), "twice": whole[place : place + 1] * 2}.get(kind, b"")
    return whole[:place] if kind == "cut" else whole[:place] + byte + whole[place + 1 :]
