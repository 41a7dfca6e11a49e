"""The phantom on a very coarse grid, for tests and for the stress scripts."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from sslbench.data.datasets import phantom
from sslbench.data.prepare import PrepareReport, prepare


def prepare_coarse(folder: Path) -> PrepareReport:
    """The phantom on a very coarse grid, whose voxels are 8 samples each, not 216: 0.3 s of processor time a case."""
    with patch.object(phantom, "SAMPLE_MM", 8.0):
        report = prepare("phantom", data_dir=folder, options={"size": [24, 20, 18]}, workers=1)
    assert not report.failed
    return report
