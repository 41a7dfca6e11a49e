"""Stand-ins for the components that a table names, a recipe of theirs, and runs on disk with known numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helpers.results import RECIPE
from tests.helpers.run_directories import stand_ins, write_run

__all__ = ["stand_ins", "write_run"]


@pytest.fixture(autouse=True)
def _stand_ins(stand_ins: None) -> None:
    """Every test here has them."""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return str(path)
