"""`with_references`: supervised training on a grid's budgets and on all labels, as jobs of their own."""

from __future__ import annotations

from sslbench.config.grid import Grid


def test_references_are_the_two_ends_of_each_gap() -> None:
    grid = Grid(
        name="g",
        recipe=["ga-synapse"],
        seeds=[0, 1],
        set={"loss.gamma": 0.5, "schedule.iterations": 10},
        jobs=[{"method": "cps", "loss": "ga", "labeled": ["20%", "40%"]}],
    )
    plain, whole = grid.expand(), grid.with_references().expand()
    assert [job.directory for job in whole][: len(plain)] == [job.directory for job in plain]
    added = whole[len(plain) :]
    assert {(job.method, job.loss, job.labeled, job.seed) for job in added} == {
        ("supervised", "default", labeled, seed) for labeled in ("20pct", "40pct", "100pct") for seed in (0, 1)
    }
    assert all(job.resolved.values["schedule.iterations"] == 10 for job in added)


def test_a_grid_with_both_ends_stays_as_it_is() -> None:
    grid = Grid(
        name="g",
        recipe=["ga-synapse"],
        labeled=["20%"],
        seeds=[0],
        jobs=[{"method": ["supervised", "mt"]}, {"method": "supervised", "labeled": "all"}],
    )
    assert [job.directory for job in grid.with_references().expand()] == [job.directory for job in grid.expand()]
