"""Which tests are judged by a framework; the others run where none is installed (``make test-core``).

Those of a module that imports a framework at its top, itself or through a module beside it, are judged, and those that
are marked: ``@pytest.mark.judged`` on a test, ``pytestmark = pytest.mark.judged`` in a module.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

TESTS = Path(__file__).parent
FRAMEWORKS = ("cv2", "google", "keras", "onnx", "onnxruntime", "safetensors", "tensorflow", "theano", "torch")


@cache
def imports_a_framework(path: Path) -> bool:
    """Whether a module of the tests imports a framework as it is imported. It is read, not run."""
    for name in _imported(ast.parse(path.read_text(encoding="utf-8"))):
        places = (TESTS / f"{name}.py", TESTS / "judges" / f"{name}.py")
        if name.partition(".")[0] in FRAMEWORKS or any(imports_a_framework(each) for each in places if each.is_file()):
            return True
    return False


def _imported(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module or ""
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imported(child)


@contextlib.contextmanager
def without_frameworks() -> Iterator[None]:
    """Importing a framework fails the test, in an environment that has it as in one that has not."""
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] in FRAMEWORKS and not (rest[3] if len(rest) > 3 else more.get("level")):
            pytest.fail(f"this test imports {name}, and is not marked for it: {MARK}")
        return imported(name, *rest, **more)

    with patch.object(builtins, "__import__", refuse):
        yield


MARK = "put @pytest.mark.judged above it, or pytestmark = pytest.mark.judged at the top of its module"
