"""Some of a grid's jobs: by axis and value as users spell them, by seed, and what is said where none is left."""

from __future__ import annotations

import pytest

from sslbench.cli.options import Choice
from sslbench.config.grid import Grid
from sslbench.config.selection import only
from sslbench.core.errors import UsageError

GRID = Grid(
    name="toy",
    recipe=["phantom"],
    labeled=["20%"],
    seeds=[0, 1, 5],
    jobs=[
        {"method": ["supervised", "cps", "mt[start=7]"], "loss": ["default", "ga", "ga[gamma=0.25]"]},
        {"method": "cps", "weighting": "diffdw", "seeds": 9},
        {"method": "cps", "recipe": "ssl4mis-acdc", "labeled": "7 patients"},
    ],
)
JOBS = GRID.expand()


def cells(jobs):
    return list(dict.fromkeys("/".join(job.directory.parts[:3]) for job in jobs))


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        (["method=supervised"], 9),
        (["method=sl,mt"], 18),  # an alias; a method whatever its options
        (["method=sl", "method=mt"], 18),
        (["method=mt[start=7]"], 9),
        (["loss=ga", "method=cps"], 6),  # whatever its options, as in `exclude`
        (["loss=ga[gamma=0.25]", "method=cps"], 3),
        (["weighting=diffdw"], 1),
        (["weighting=none", "method=cps", "recipe=phantom"], 9),
        (["plugin=none"], len(JOBS)),
        (["labeled=20pct"], 28),
        (["labeled=7 patients,20%"], len(JOBS)),
        (["labeled=10%"], 3),  # what ACDC calls 7 patients
        (["labeled=40%"], None),
        (["recipe=ssl4mis-acdc"], 3),
        (["seed=0-1"], 20),
        (["seed=9,5"], 11),
    ],
)
def test_jobs_are_chosen_as_users_spell_them(items, kept):
    if kept is None:
        with pytest.raises(UsageError, match="no job has it"):
            only(JOBS, items)
        return
    found = only(JOBS, items)
    assert len(found) == kept
    assert found == [job for job in JOBS if job in found]  # in their order


def test_nothing_asked_for_is_everything():
    assert only(JOBS, []) == JOBS


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["method"], "takes AXIS=VALUES"),
        (["method="], "takes AXIS=VALUES"),
        (["colour=red"], "unknown axis of --only 'colour'"),
        (["method=nosuch"], "unknown method 'nosuch'"),
        (["method=urpc"], "--only method=urpc: no job has it"),
        (["labeled=33%"], "unknown label budget"),
        (["seed=x"], "cannot read the seed 'x'"),
        (["seed=3"], "--only seed=3: no job has it"),
        (["loss=ga", "weighting=diffdw"], "no job has --only loss=ga and --only weighting=diffdw together"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(items, words):
    with pytest.raises(UsageError) as told:
        only(JOBS, items)
    assert words in str(told.value.message) and "\n" not in told.value.message


def test_other_seeds_take_the_place_of_a_grids_and_of_its_entries():
    jobs = Choice(seed=["0-1", "1,7"]).jobs(GRID)
    assert {job.seed for job in jobs} == {0, 1, 7}
    assert cells(jobs) == cells(JOBS) and len(jobs) == 3 * len(cells(JOBS))


def test_options_of_one_choice_go_together_and_are_spelt_again():
    choice = Choice(set=["optimizer.lr=0.5"], seed=["0"], only=["method=cps", "loss=ga"], scale=0.5)
    found = choice.jobs(GRID)
    assert [job.canonical().set["schedule.scale"] for job in found] == [0.5, 0.5]
    assert {job.resolved.recipe.optimizer.lr for job in found} == {0.5}
    assert choice.words == [
        *("--set", "optimizer.lr=0.5", "--seed", "0"),
        *("--only", "method=cps", "--only", "loss=ga", "--scale", "0.5"),
    ]


def test_a_choice_needs_a_grid_to_choose_from():
    Choice().no_grid()
    with pytest.raises(UsageError, match="--only needs the name of a grid"):
        Choice(only=["method=cps"]).no_grid()
