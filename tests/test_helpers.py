"""Tests share code through `tests/helpers` alone: a file of tests can be moved, split or run by itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent


def borrowed(code: str, package: str) -> set[str]:
    """The modules of tests, helpers apart, that a file of `package` imports from."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        found |= {name for name in names if name.split(".")[0] == "tests" and name.split(".")[1:2] != ["helpers"]}
    return found


def test_no_test_imports_from_another() -> None:
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 50
    found = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := borrowed(path.read_text(encoding="utf-8"), ".".join(path.relative_to(ROOT.parent).parts[:-1])))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from tests.helpers.jobs import TINY\nfrom tests import helpers\nimport numpy", set()),
        ("from tests.conftest import TINY", {"tests.conftest.TINY"}),
        ("from .conftest import TINY", {"tests.data.conftest.TINY"}),
        ("def f():\n    from ..test_cli import run", {"tests.test_cli.run"}),
        ("import tests.test_cli", {"tests.test_cli"}),
    ],
)
def test_what_counts_as_borrowed(code: str, names: set[str]) -> None:
    assert borrowed(code, "tests.data") == names
