"""Fixtures: phantoms of a few seconds, throw-away components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sslbench.core import registry
from sslbench.data.datasets import phantom
from sslbench.data.datasets.phantom import CASE_IDS, Phantom
from sslbench.data.prepare import PrepareReport, prepare

pytest.register_assert_rewrite("tests.helpers")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _nothing_kept() -> Iterator[None]:
    """Tests change what the package answers: nothing is kept between them, nor written to a home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBENCH_CACHE", "off")
        yield


def prepare_coarse(folder: Path) -> PrepareReport:
    """The phantom on a very coarse grid, whose voxels are 8 samples each, not 216: 0.3 s of processor time a case."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "SAMPLE_MM", 8.0)
        report = prepare("phantom", data_dir=folder, options={"size": [24, 20, 18]}, workers=1)
    assert not report.failed
    return report


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with all cases of such a phantom."""
    folder = tmp_path_factory.mktemp("data")
    prepare_coarse(folder)
    return folder


@pytest.fixture
def throw_away() -> Iterator[Callable[..., Any]]:
    """`registry.register`, undone after the test."""
    added: list[tuple[str, str]] = []

    def register(kind: str, name: str, **rest: Any) -> Any:
        added.append((kind, name))
        return registry.register(kind, name, **rest)

    yield register
    for kind, name in added:
        registry.unregister(kind, name)


@pytest.fixture(scope="module")
def few_cases() -> Iterator[None]:
    """A phantom of three cases, which is prepared in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Phantom, "generated_ids", CASE_IDS[:3])
        yield


@pytest.fixture(scope="module")
def small_data(few_cases: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with such a phantom."""
    folder = tmp_path_factory.mktemp("small")
    assert prepare_coarse(folder).written == 3
    return folder
