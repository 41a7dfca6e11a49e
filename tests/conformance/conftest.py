"""Laws are tried on networks of a few channels; the 3-D ones have an option for that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sslbench.networks import unet


@pytest.fixture(scope="package", autouse=True)
def _narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "WIDTHS", (4, 8, 16, 32, 64))
        yield
