"""Pages are made of real runs of the phantom: no stand-ins here."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslbench.reporting.page.document import page
from sslbench.reporting.report import Report
from tests.helpers.reports import phantom_report

COMMAND = "sslbench report four --html"


@pytest.fixture(autouse=True)
def _stand_ins() -> None:
    """In place of those of the tests above."""


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return phantom_report(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="session")
def text(report: Report) -> str:
    return page(report, Path("nowhere"), command=COMMAND)
