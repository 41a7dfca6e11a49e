"""The house: which room may import from which; no arrow runs up, and no circle is possible."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sslbench"

# From the ground up. A room imports from rooms on lower floors alone, so there are no circles. Only the façade
# (`sslbench/__init__.py`) and `__main__.py` stand outside.
FLOORS = (
    {"core"},
    {"config"},
    {"data", "networks"},
    {"losses"},
    {"plugins", "runs"},
    {"metrics"},
    {"methods", "reporting"},
    {"inference", "evaluation"},
    {"training"},
    {"execution"},
    {"conformance"},
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The rooms that a file imports from, wherever in it, with the lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            module, names = node.module or "", [name.name for name in node.names]
        elif isinstance(node, ast.Import):
            module, names = "", [name.name for name in node.names if name.name.startswith("sslbench.")]
            names = [name.removeprefix("sslbench.") for name in names]
            module = "sslbench" if names else ""
        else:
            continue
        if module == "sslbench":
            yield from ((name.split(".")[0], node.lineno) for name in names)
        elif module.startswith("sslbench."):
            yield module.split(".")[1], node.lineno


def test_every_module_lives_in_a_room():
    loose = {path.name for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == FLOOR.keys()


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_imports_only_from_rooms_below_it(room):
    upward = [
        f"{path.relative_to(PACKAGE)}:{line} imports {other}"
        for path in sorted((PACKAGE / room).rglob("*.py"))
        for other, line in imported(path)
        if other in FLOOR and other != room and FLOOR[other] >= FLOOR[room]
    ]
    assert not upward


def test_a_method_lives_in_the_file_of_its_name():
    """A registered method is found without a search: `methods/<name>.py`, or that of the method it is a preset of."""
    from sslbench.core import registry

    strange = {}
    for entry in registry.entries("method"):
        target = registry.component("method", entry.name)
        if not target.__module__.startswith("sslbench."):
            continue
        base = entry.preset_of or entry.name
        if target.__module__ != f"sslbench.methods.{base}":
            strange[entry.name] = target.__module__
    assert strange == {}
