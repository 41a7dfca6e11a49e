"""A plugin written by a stranger: it attaches to any network of any method, and its state is the method's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslbench.conformance.bench import MemoryRecorder
from sslbench.core.step import Batch, Statistics, Step
from sslbench.networks import Features, Network
from sslbench.plugins.base import Attached, Plugin
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.trainer import Trainer
from tests.helpers.jobs import random_experiment, tiny_job


class Shift(Plugin):
    """Adds a learned constant behind every skip, and a term that pulls it to 1."""

    title = "Shift"

    def __init__(self, options: Any, network: Network, statistics: Statistics) -> None:
        super().__init__(options, network, statistics)
        channels = network.decoder.prior_channels
        self.shift = nn.ParameterList([nn.Parameter(torch.zeros(1, width, 1, 1, 1)) for width in channels])

    def prior(self, features: Features) -> tuple[Tensor, ...]:
        return tuple(self.shift)

    def terms(self, network: Network, batch: Batch, step: Step) -> dict[str, Tensor]:
        return {"pull": sum(((1 - shift) ** 2).mean() for shift in self.shift)}


@pytest.fixture
def shift(throw_away: Callable[..., Any]) -> Iterator[None]:
    throw_away("plugin", "shift")(Shift)
    yield


@pytest.mark.usefixtures("shift")
@pytest.mark.parametrize("method", ["supervised", "cps", "ccvc"])
def test_a_plugin_joins_any_method(method: str, tmp_path: Path) -> None:
    plain = random_experiment(tiny_job(method))
    experiment = random_experiment(tiny_job(method, plugin="shift"))
    attached = [module for module in experiment.method.modules() if isinstance(module, Attached)]
    assert len(attached) == len(experiment.method.predictors)
    image = experiment.sampler.batch(0).image["weak"]
    # The networks begin as they do without it, and a prior of zeros changes nothing.
    for key in experiment.method.predictors:
        with_plugin, without = experiment.method.get_submodule(key).eval(), plain.method.get_submodule(key).eval()
        assert torch.equal(with_plugin(image), without(image))
    records = MemoryRecorder()
    Trainer(experiment, Checkpoints(tmp_path), records).fit()
    moved = [value for name, value in experiment.method.state_dict().items() if "shift" in name]
    assert moved and all(value.abs().sum() > 0 for value in moved)
    assert any("pull" in name for name in records.entries[-2] | records.entries[-1])
    assert torch.equal(attached[0].base(image), attached[0].network(image))


@pytest.mark.usefixtures("shift")
def test_a_plugin_is_part_of_the_job() -> None:
    job = tiny_job("cps", plugin="shift")
    assert "cps+default+shift~" in str(job.directory)
    assert job.digest() != tiny_job("cps").digest()
