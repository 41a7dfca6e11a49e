"""Runs on disk with known numbers, as the tests of reports have them."""

from __future__ import annotations

import pytest

from tests.helpers.run_directories import stand_ins, write_run

__all__ = ["stand_ins", "write_run"]


@pytest.fixture(autouse=True)
def _stand_ins(stand_ins: None) -> None:
    """Every test here has them."""
