"""Runs on disk with known numbers, as the tests of reports have them."""

from __future__ import annotations

from tests.reporting.conftest import stand_ins, write_run

__all__ = ["stand_ins", "write_run"]
