"""The reference page names every loss, and what it writes in the tables can be asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sslbench.config.job import Job
from sslbench.core import registry

PAGE = (Path(__file__).parents[2] / "docs/reference/losses.md").read_text(encoding="utf-8")
SPELT = sorted(set(re.findall(r"`((?:ga|metassl)(?:_\w+)?(?:\[[^\]`]+\])?)`", PAGE)))


def test_every_loss_stands_on_the_page():
    assert [name for name in registry.names("loss") if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("loss", SPELT)
def test_what_the_page_spells_is_a_loss(loss):
    method = "supervised" if loss == "metassl_lqh" else "cps"
    assert Job(recipe="phantom", method=method, loss=loss, labeled="20%").canonical().loss


def test_rows_of_two_tables_that_are_one_computation_are_one_job():
    for spelt, name in {
        "ga[gamma=1]": "ga_gd_clse",
        "ga[k=100]": "ga_gd_dwe",
        "ga[absent=none]": "ga_clse_dwe",
        "ga[k=10,gamma=0.5,absent=p]": "ga",
        "metassl[phi=gauss,beta=3]": "metassl",
    }.items():
        jobs = [Job(recipe="phantom", method="cps", loss=loss, labeled="20%") for loss in (spelt, name)]
        assert jobs[0].canonical() == jobs[1].canonical() and jobs[0].digest() == jobs[1].digest()
