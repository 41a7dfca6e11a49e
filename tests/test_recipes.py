"""Shipped recipes, held against what the papers and their code state."""

from __future__ import annotations

import pytest

from sslbench.config import Job, Recipe
from sslbench.data.splits import load_splits

# Unlabelled scans of a budget.
SYNAPSE = {"10%": 18, "20%": 16, "40%": 12}
AMOS = {"2%": 212, "5%": 206, "10%": 195}


def recipe_of(recipe: str, method: str, labeled: str, **settings: object) -> Recipe:
    return Job(recipe=recipe, method=method, labeled=labeled, seed=0, set=settings).resolved.recipe


@pytest.mark.parametrize(
    ("method", "epochs", "fewer"),
    [("dhc", 300, 200), ("uamt", 300, 200), ("genericssl", 300, 300), ("skcdf", 1500, 1500)],
)
@pytest.mark.parametrize("name", ["dhc-synapse", "dhc2024-synapse", "dhc-amos"])
def test_how_long_the_dhc_family_trains(name: str, method: str, epochs: int, fewer: int) -> None:
    """One epoch more than the law has, each one pass over the unlabelled scans, two at a time; DHC runs fewer of them
    on AMOS and with two scans. GenericSSL and SKCDF drop a batch that is not full."""
    for labeled, unlabeled in (AMOS if name == "dhc-amos" else SYNAPSE).items():
        schedule = recipe_of(name, method, labeled).schedule
        steps = -(-unlabeled // 2) if schedule.epoch == "unlabeled_pass" else schedule.epoch
        assert steps == (unlabeled // 2 if method in ("genericssl", "skcdf") else (unlabeled + 1) // 2)
        run = 1 + (fewer if name == "dhc-amos" or labeled == "10%" else epochs)
        assert (schedule.iterations, schedule.validate_every) == (run * steps, 10 * steps)


@pytest.mark.parametrize(
    ("name", "method", "labeled", "iterations", "rate"),
    [
        ("dhc-synapse", "dhc", "20%", 2408, 0.03),
        ("dhc-amos", "dhc", "5%", 20_703, 0.03),
        ("dhc-synapse", "genericssl", "20%", 2408, 0.01),
        ("dhc-synapse", "genericssl", "10%", 2709, 0.01),
        ("dhc-amos", "genericssl", "5%", 31_003, 0.01),
        ("dhc-synapse", "skcdf", "20%", 12_008, 0.3),
        ("dhc-amos", "skcdf", "5%", 154_603, 0.1),
    ],
)
def test_published_lengths_and_rates(name: str, method: str, labeled: str, iterations: int, rate: float) -> None:
    recipe = recipe_of(name, method, labeled)
    assert (recipe.schedule.iterations, recipe.optimizer.lr) == (iterations, rate)


@pytest.mark.parametrize("name", ["dhc-synapse", "dhc2024-synapse", "dhc-amos"])
@pytest.mark.parametrize("method", ["dhc", "cps", "uamt", "urpc", "ssnet", "genericssl", "skcdf"])
def test_rate_and_weight_of_the_dhc_family_are_one_epoch_late(name: str, method: str) -> None:
    recipe = recipe_of(name, method, "10%")
    assert (recipe.schedule.lr, recipe.ramp.every, recipe.ramp.length) == ("poly_lagged_epoch", "lagged_epoch", "full")


@pytest.mark.parametrize(("name", "steps"), [("dhc-synapse", 10), ("dhc-amos", 108)])
def test_without_unlabelled_scans_an_epoch_is_a_pass_over_the_labelled_ones(name: str, steps: int) -> None:
    schedule = recipe_of(name, "supervised", "100%").schedule
    assert schedule.epoch == steps and schedule.iterations % steps == 0


@pytest.mark.parametrize(
    ("name", "method", "settings"),
    [
        ("dhc-synapse", "genericssl", {"splits": "genericssl"}),
        ("dhc2024-synapse", "skcdf", {"preprocessing": "dhc-2023", "protocol": "dhc-2023"}),
    ],
)
def test_later_methods_meet_their_own_lists_on_the_grid_of_2023(name: str, method: str, settings: dict) -> None:
    """As the comments of the recipes say it; nothing else may change by that."""
    given, there = (recipe_of(name, method, "20%", **more).model_dump() for more in (settings, {}))
    assert {field for field in given if given[field] != there[field]} == set(settings)
    assert (given["preprocessing"], given["protocol"]) == ("dhc-2023", "dhc-2023")
    own = load_splits(given["dataset"], given["splits"])
    assert own.test == ("0008", "0027", "0029", "0033", "0037", "0039")
