"""What an installed package carries: code, recipes, case lists, published numbers and grids; no scripts."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sslbench.core import version

ROOT = Path(__file__).parents[1]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
    "wheel"
]


def shipped() -> dict[str, Path]:
    """The files of a wheel by the rules of `pyproject.toml`, under the names that they get there."""
    found = {}
    for folder in WHEEL["only-include"]:
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and not any(f"/{name}".startswith(f"{left}/") for left in WHEEL["exclude"]):
                source = next((old for old in WHEEL["sources"] if name.startswith(f"{old}/")), None)
                found[name.replace(source, WHEEL["sources"][source], 1) if source else name] = path
    return found


def test_a_wheel_carries_grids_without_the_scripts_beside_them() -> None:
    names = [name for name in shipped() if "__pycache__" not in name]
    assert {"sslbench/_grids/quick.yaml", "sslbench/_grids/ga-t1.yaml", "sslbench/published/cells.csv"} <= set(names)
    assert {"sslbench/__init__.py", "sslbench/recipes/ga-synapse.yaml", "sslbench/splits/synapse-ga.yaml"} <= set(names)
    assert all(name.startswith("sslbench/") for name in names)
    assert {Path(name).suffix for name in names if name.startswith("sslbench/_grids/")} == {".yaml"}
    assert not [
        name
        for name in names
        if "benchmarks" in name
        or name.startswith(tuple(f"sslbench/_grids/{folder}" for folder in ("speed", "gpu", "release")))
    ]


def test_a_wheel_is_typed_and_licensed_and_knows_its_commit() -> None:
    assert "sslbench/py.typed" in shipped()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert all((ROOT / name).is_file() for name in project["project"]["license-files"])
    assert (ROOT / project["tool"]["hatch"]["build"]["hooks"]["custom"]["path"]).is_file()


def test_what_a_build_was_made_of_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version.sslbench, "__file__", str(tmp_path / "__init__.py"))
    version.code_state.cache_clear()
    try:
        (tmp_path / version.BUILT_OF).write_text("0123456789ab\n")
        assert version.code_state() == "0123456789ab"
    finally:
        version.code_state.cache_clear()


@pytest.mark.parametrize("recipe", ["Dockerfile", "sslbench.def"])
def test_a_container_gets_all_that_a_build_needs(recipe: str) -> None:
    text = (ROOT / recipe).read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [*project["project"]["license-files"], project["project"]["readme"], *WHEEL["only-include"]]
    needed += ["pyproject.toml", "constraints.txt", project["tool"]["hatch"]["build"]["hooks"]["custom"]["path"]]
    copied = text.split("RUN")[0].split("%post")[0]
    assert [name for name in needed if name not in copied.split()] == []
