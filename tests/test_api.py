"""The page of the public API: every name on it is importable from the module beside it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import sslbench

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(sslbench[\w.]*)` \| (.+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("module", "names"), ROWS, ids=[module for module, _ in ROWS])
def test_the_names_of_a_module_are_there(module, names):
    found = import_module(module)
    missing = [name for name in re.findall(r"`(\w+)`", names) if not hasattr(found, name)]
    assert not missing


def test_the_facade_is_on_the_page():
    named = dict(ROWS)["sslbench"]
    assert sorted(re.findall(r"`(\w+)`", named)) == sorted(name for name in sslbench.__all__ if name != "__version__")
