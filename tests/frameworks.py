"""Which tests are judged by a framework; the others run where none is installed (``make test-core``).

A test is judged if it imports a framework, or asks for an interpreter that has one (``judge_python``): its module at
the top, or the test, a fixture or anything else that it names, in its module or in one beside it. That is read from the
sources. What cannot be seen there (a framework that ``sys.executable`` runs) is marked: ``@pytest.mark.judged`` on a
test, ``pytestmark = pytest.mark.judged`` in a module.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

TESTS = Path(__file__).parent
FRAMEWORKS = ("cv2", "google", "keras", "onnx", "onnxruntime", "safetensors", "tensorflow", "theano", "torch")
MARK = "put @pytest.mark.judged above it, or pytestmark = pytest.mark.judged at the top of its module"


def imports_a_framework(path: Path) -> bool:
    """Whether a module of the tests imports a framework as it is imported itself. It is read, not run."""
    return any(
        _is_framework(name) or ((beside := _beside(name)) is not None and imports_a_framework(beside))
        for node in _at_the_top(_parsed(path))
        for name in _modules(node)
    )


@cache
def uses_a_framework(path: Path, name: str) -> bool:
    """Whether the function or class of that name imports one, or names something that does, and so on."""
    seen: set[tuple[Path, str]] = set()
    todo = [(path, name)]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        if here == (TESTS / "conftest.py", "judge_python"):
            return True
        for statement in _bindings(here[0]).get(here[1], ()):
            if any(_is_framework(module) for node in ast.walk(statement) for module in _modules(node)):
                return True
            todo += _named(here[0], statement)
    return False


def _is_framework(module: str) -> bool:
    return module.partition(".")[0] in FRAMEWORKS


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _beside(module: str) -> Path | None:
    places = (TESTS / f"{module}.py", TESTS / "judges" / f"{module}.py")
    return next((place for place in places if place.is_file()), None)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _at_the_top(node: ast.AST) -> Iterator[ast.AST]:
    """What runs as a module is imported: every node that is in no function."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _at_the_top(child)


@cache
def _bindings(path: Path) -> dict[str, list[ast.stmt]]:
    """The statements of a module by the names that they give something to."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in _parsed(path).body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                found.setdefault(alias.asname or alias.name, []).append(ast.Import([alias]))
        elif isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                single = ast.ImportFrom(statement.module, [alias], 0)
                found.setdefault(alias.asname or alias.name, []).append(single)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    found.setdefault(node.id, []).append(statement)
    return found


def _named(path: Path, statement: ast.stmt) -> Iterator[tuple[Path, str]]:
    """What a statement names, as module and name; the arguments of a test or fixture name fixtures."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            yield path, node.id
        elif isinstance(node, ast.arg):
            yield from ((path, node.arg), (TESTS / "conftest.py", node.arg))
        elif isinstance(node, ast.ImportFrom) and (beside := _beside(node.module or "")):
            yield from ((beside, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            for binding in _bindings(path).get(node.value.id, ()):
                module = binding.names[0].name if isinstance(binding, ast.Import) else ""
                if beside := _beside(module):
                    yield beside, node.attr


def assert_none_installed() -> None:
    """SystemExit with the frameworks that can be imported here."""
    found = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is not None]
    if found:
        sys.exit(f"{', '.join(found)} can be imported here, where no framework should be")


@contextlib.contextmanager
def without_frameworks() -> Iterator[None]:
    """Importing a framework fails the test, in an environment that has it as in one that has not."""
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        relative = rest[3] if len(rest) > 3 else more.get("level")
        if _is_framework(name) and not relative:
            pytest.fail(f"this test imports {name}, and is not marked for it: {MARK}")
        return imported(name, *rest, **more)

    with patch.object(builtins, "__import__", refuse):
        yield
