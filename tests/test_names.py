"""Names of the package: a class, an alias of a type or a constant has one owner, so that a name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import sslbench

# Names that two modules may define, each with the reason.
EXCEPTIONS: dict[str, str] = {}


def definitions(code: str) -> Iterator[str]:
    """Yield the public names with a capital that a module defines at its top level; type variables are nobody's."""
    pending = list(ast.parse(code).body)
    for node in pending:
        if isinstance(node, ast.If | ast.Try):
            pending += [*node.body, *node.orelse]
        names: list[ast.expr | str] = []
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign) and not _is_type_variable(node.value):
            names = [name for target in node.targets for name in getattr(target, "elts", [target])]
        elif isinstance(node, ast.AnnAssign):
            names = [node.target]
        for name in names:
            text = name.id if isinstance(name, ast.Name) else name
            if isinstance(text, str) and text[0].isupper():
                yield text


def _is_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "TypeVar"


def shared(modules: dict[str, str]) -> dict[str, list[str]]:
    """The names that several modules define, with those modules, by their code."""
    owners: dict[str, list[str]] = defaultdict(list)
    for module, code in modules.items():
        for name in sorted(set(definitions(code))):
            owners[name].append(module)
    return {name: where for name, where in owners.items() if len(where) > 1}


def test_every_name_has_one_owner() -> None:
    root = Path(sslbench.__file__).parent
    modules = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))}
    assert len(modules) > 100
    found = shared(modules)
    assert {name: where for name, where in found.items() if name not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) <= set(found), "an exception that nothing needs any more"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("class Case: ...", ["Case"]),
        ("Rows = list[int]\nKINDS: tuple[str, ...] = ()\nA, B = 1, 2", ["Rows", "KINDS", "A", "B"]),
        ("if TYPE_CHECKING:\n    Step = int\nelse:\n    class Step: ...", ["Step", "Step"]),
        ("M = TypeVar('M')\n_Hidden = int\nlower = 1\ndef f():\n    class Inner: ...", []),
        ("from elsewhere import Case", []),
    ],
)
def test_what_counts_as_a_definition(code: str, names: list[str]) -> None:
    assert list(definitions(code)) == names
    assert set(shared({"one": code, "two": code, "three": ""})) == set(names)
