"""Which tests need a framework is read right, and what wio is about does not quietly become one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from frameworks import TESTS, imports_a_framework, uses_a_framework, without_frameworks

# A framework at the top of one of these, or of a module that it takes something from, would take all of it away from
# where wio is tested without frameworks: import it inside the test that needs it.
CORE = (
    *("architecture", "cli", "container", "contract", "diff", "dtypes", "keras_roundtrip", "layout", "no_framework"),
    *("numpy_file", "ops", "plan", "plugins", "spec", "tf_checkpoint_written", "third_party"),
)


@pytest.mark.parametrize("name", CORE)
def test_what_wio_is_about_is_tested_without_frameworks(name: str) -> None:
    assert not imports_a_framework(TESTS / f"test_{name}.py")


def test_a_framework_is_found_wherever_a_test_takes_it_from(tmp_path: Path) -> None:
    module = tmp_path / "test_it.py"
    module.write_text(
        """
import caffe_files as cf
from keras3_judge import ADAPTER, keras as real

made = [real]

@pytest.fixture
def tf():
    import tensorflow.core as core
    return core

@pytest.fixture
def indirectly(tf): ...

class Class:
    def helper(self):
        from torch import nn

def by_fixture(indirectly): ...
def by_class(): Class()
def by_module(): cf.OpenCV(1, 2, 3)
def by_name(): real()
def by_constant(): made
def by_import():
    from conftest import judge_python as python
def not_by_another_name(tmp_path): ADAPTER.read(cf.put(tmp_path, b""))
def not_by_an_attribute(it): it.torch
"""
    )
    names = ("by_fixture", "by_class", "by_module", "by_name", "by_constant", "by_import", "Class")
    assert [name for name in names if not uses_a_framework(module, name)] == []
    assert not uses_a_framework(module, "not_by_another_name")
    assert not uses_a_framework(module, "not_by_an_attribute")
    assert not imports_a_framework(module)
    other = tmp_path / "test_other.py"
    other.write_text("try:\n    import onnx_judge\nexcept ImportError:\n    pass\n")
    assert imports_a_framework(other)


def test_an_import_that_is_not_seen_there_fails_the_test() -> None:
    with (
        pytest.raises(pytest.fail.Exception, match=r"imports torch\.nn, .*@pytest\.mark\.judged"),
        without_frameworks(),
    ):
        __import__("torch.nn")
