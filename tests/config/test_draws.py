"""Drawn label budgets: which cases, what they are called, and what a grid makes of them."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
import yaml

from sslbench.config.draws import budget_names, family_of, first_of, labels_of_draw, replicate_of, split_draw, undrawn
from sslbench.config.grid import Grid, load_grid, seed_range
from sslbench.config.job import Job
from sslbench.config.selection import only
from sslbench.config.splits import load_splits
from sslbench.core.errors import UnknownNameError, UsageError

SYNAPSE = load_splits("synapse", "ga")


def test_a_draw_is_the_order_of_hashes() -> None:
    order = sorted(SYNAPSE.train, key=lambda scan: hashlib.sha256(f"draw 1/{scan}".encode()).hexdigest())
    assert SYNAPSE.budget("20%#1").labeled == tuple(order[:4])
    # What is drawn is drawn for ever: jobs are known by it.
    assert SYNAPSE.budget("20%#1").labeled == ("0021", "0030", "0027", "0005")
    assert SYNAPSE.budget("20%#2").labeled == ("0038", "0032", "0028", "0029")


@pytest.mark.parametrize("draw", range(1, 8))
def test_smaller_budgets_lie_inside_larger_ones(draw: int) -> None:
    sizes = [SYNAPSE.budget(f"{size}#{draw}").labeled for size in ("1 scan", "10%", "20%", "30%", "40%")]
    assert [len(labeled) for labeled in sizes] == [1, 2, 4, 6, 8]
    for small, large in itertools.pairwise(sizes):
        assert large[: len(small)] == small
    assert {*sizes[-1]} <= {*SYNAPSE.train}


def test_one_draw_has_one_name_however_it_is_spelt() -> None:
    for text in ("20%#3", "20% #3", "20pct-draw-3", "20%, draw 3", "4 scans#3", "4 patients#3", "4 volumes#3"):
        budget = SYNAPSE.budget(text)
        assert (budget.slug, budget.title, budget.draw) == ("20pct-draw-3", "20%, draw 3", 3)
    assert SYNAPSE.budget("30%#2").slug == SYNAPSE.budget("6 scans#2").slug == "6-scans-draw-2"
    held = SYNAPSE.budget("20%#3-held")
    assert (held.slug, held.partial, held.labeled) == ("20pct-draw-3-held", True, SYNAPSE.budget("20%#3").labeled)
    assert undrawn(held.slug) == "20pct"


def test_images_of_one_slide_stay_together() -> None:
    lists = load_splits("digestpath", "slide-disjoint")
    from sslbench.data.datasets.digestpath import slide

    for draw in range(1, 6):
        labeled = lists.budget(f"10%#{draw}").labeled
        assert len(labeled) >= len(lists.budget("10%").labeled)
        assert not {*map(slide, labeled)} & {slide(image) for image in {*lists.train} - {*labeled}}
    assert len({*map(slide, lists.budget("7 patients#1").labeled)}) == 7


def test_a_patient_is_labelled_whole() -> None:
    entries = ["a1", "a2", "b1", "c1", "c2"]
    for draw in range(1, 10):
        chosen = labels_of_draw(entries, lambda entry: entry[0], draw, 2)
        assert len(chosen) in (2, 3)
        assert {entry for entry in entries if entry[0] in {other[0] for other in chosen}} == {*chosen}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100%#1", "20 of the 20 training scans"),
        ("1%#1", "0 of the 20 training scans"),
        ("7 slides#1", "these lists are of scans, not slides"),
    ],
)
def test_what_cannot_be_drawn_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SYNAPSE.budget(text)


@pytest.mark.parametrize("text", ["20%#0", "20%#x", "few#1", "20%#12345"])
def test_what_is_no_draw_is_an_unknown_budget(text: str) -> None:
    with pytest.raises(UnknownNameError):
        SYNAPSE.budget(text)


def test_patients_are_not_counted_in_cases() -> None:
    lists = load_splits("acdc", "ssl4mis")
    assert lists.budget("7 patients#2").slug == lists.budget("10%#2").slug == "7-patients-draw-2"
    with pytest.raises(UsageError, match="these lists are of patients, not cases"):
        lists.budget("7 cases#2")


def test_names_of_draws() -> None:
    assert split_draw("20pct-draw-3") == ("20pct", 3)
    assert split_draw("20pct-draw-3-held") == ("20pct-held", 3)
    assert split_draw("7-patients") == ("7-patients", 0)
    assert family_of("20pct-draw-3") == "20pct-draws"
    assert first_of("20pct-draws") == "20pct-draw-1"
    assert (replicate_of("20pct-draw-3", 1337), replicate_of("20pct", 1337)) == (3, 1337)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"share": "20%", "draws": 3}, ["20%#1", "20%#2", "20%#3"]),
        ({"patients": 7, "draws": "2-3"}, ["7 patients#2", "7 patients#3"]),
        ({"share": "20%", "draws": [1, "4-5"]}, ["20%#1", "20%#4", "20%#5"]),
        ("20%#1-2", ["20%#1", "20%#2"]),
        ("20%#4", ["20%#4"]),
        ("20%", ["20%"]),
    ],
)
def test_an_axis_value_stands_for_budgets(value: object, names: list[str]) -> None:
    assert budget_names(value, seed_range) == names


@pytest.mark.parametrize(
    "value",
    [
        {"share": "20%"},
        {"draws": 3},
        {"share": 20, "draws": 3},
        {"share": "20%", "draws": 0},
        {"share": "20%", "draws": "many"},
        {"share": "20%", "draws": True},
        {"share": "20%", "patients": 7, "draws": 3},
    ],
)
def test_other_mappings_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"draws|20%|budget"):
        budget_names(value, seed_range)


def grid_of(folder: Path, **fields: object) -> Grid:
    path = folder / "drawn.yaml"
    given = {"recipe": "ga-synapse", "labeled": [{"share": "20%", "draws": 3}], "seeds": [0, 1]}
    path.write_text(yaml.safe_dump({**given, "jobs": [{"method": ["mt", "cps"]}], **fields}))
    return load_grid(str(path))


def test_a_draw_is_a_part_of_a_job(tmp_path: Path) -> None:
    jobs = grid_of(tmp_path).expand()
    assert len(jobs) == 12
    assert len({job.digest() for job in jobs}) == 6
    assert {job.directory.parts[1] for job in jobs} == {f"20pct-draw-{draw}" for draw in (1, 2, 3)}
    drawn = only(jobs, ["labeled=20%#2"])
    assert [(job.labeled, job.seed) for job in drawn] == [("20pct-draw-2", 0), ("20pct-draw-2", 1)] * 2
    assert len(only(jobs, ["labeled=20%#2-3", "method=cps"])) == 4
    with pytest.raises(UsageError, match="no job has it"):
        only(jobs, ["labeled=20%"])


def test_a_draw_takes_what_a_recipe_says_of_its_budget(tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    override = {"when": {"labeled": "20%"}, "set": {"schedule.iterations": 77}}
    recipe.write_text(yaml.safe_dump({"extends": "ga-synapse", "overrides": [override]}))
    for labeled, iterations in (("20%", 77), ("20%#3", 77), ("20%#3-held", 77), ("10%#3", 17000)):
        job = Job(recipe=str(recipe), method="mt", labeled=labeled)
        assert job.resolved.recipe.schedule.iterations == iterations


def test_two_draws_of_the_same_cases_are_refused(tmp_path: Path) -> None:
    labeled = [{"scans": 1, "draws": 20}]
    with pytest.raises(UsageError, match=r"draws \d+ and \d+ of 1-scan label the same cases"):
        grid_of(tmp_path, labeled=labeled).expand()


def test_full_supervision_is_an_end_of_the_gap_of_drawn_budgets(tmp_path: Path) -> None:
    jobs = grid_of(tmp_path).with_references().expand()
    assert {job.labeled for job in jobs if job.method == "supervised"} == {
        *(f"20pct-draw-{draw}" for draw in (1, 2, 3)),
        "100pct",
    }
