"""The script that tries a release: what failed, or could not be tried, is not told as passed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PLACE = Path(__file__).parents[2] / "benchmarks" / "release" / "empty_environment.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("empty_environment", PLACE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("code", "wanted", "passed"),
    [("print('0123')", "0123", True), ("print('0123')", "4567", False), ("print('0123'); exit(1)", "0123", False)],
)
def test_a_command_passes_with_its_exit_code_and_what_is_wanted(
    script: ModuleType, tmp_path: Path, code: str, wanted: str, passed: bool
) -> None:
    assert script.tried("here", "step", [sys.executable, "-c", code], tmp_path, wanted).passed is passed


def test_an_interpreter_that_is_not_there_was_not_tried(script: ModuleType, tmp_path: Path) -> None:
    (step,) = script.used("python0.1", tmp_path / "none.whl", tmp_path, "")
    assert step.passed is None and "not on this machine" in step.told
