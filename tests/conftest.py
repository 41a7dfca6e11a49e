"""Fixtures: phantoms of a few seconds, throw-away components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sslbench.core import registry
from sslbench.data.datasets.phantom import CASE_IDS, Phantom

pytest.register_assert_rewrite("tests.helpers")

from tests.helpers.coarse import prepare_coarse  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _nothing_kept() -> Iterator[None]:
    """Tests change what the package answers: nothing is kept between them, nor written to a home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBENCH_CACHE", "off")
        yield


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
