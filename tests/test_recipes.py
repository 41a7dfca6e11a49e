"""Shipped recipes, held against what the papers and their code state."""

from __future__ import annotations

import pytest

from sslbench.config.job import Job
from sslbench.config.recipe import Recipe
from sslbench.config.splits import load_splits
from sslbench.core import registry

# Unlabelled scans of a budget.
SYNAPSE = {"10%": 18, "20%": 16, "40%": 12}
AMOS = {"2%": 212, "5%": 206, "10%": 195}


def recipe_of(recipe: str, method: str, labeled: str, loss: str = "default", **settings: object) -> Recipe:
    return Job(recipe=recipe, method=method, loss=loss, labeled=labeled, seed=0, set=settings).resolved.recipe


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
def test_without_unlabeled_scans_an_epoch_is_a_pass_over_the_labeled_ones(name: str, steps: int) -> None:
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


METASSL = [("metassl-acdc", "3 patients"), ("metassl-la", "8 scans"), ("metassl-digestpath", "5%")]


@pytest.mark.parametrize(("name", "labeled"), METASSL)
@pytest.mark.parametrize(
    ("loss", "share", "weight"),
    [
        ("default", 0.5, 4.0),
        ("ga", 0.5, 4.0),
        ("metassl", 1.0, 0.1),
        ("metassl[delta_u=0.3]", 1.0, 0.1),
        ("metassl_lqh", 1.0, 4.0),
        ("metassl_uqh", 0.5, 0.1),
        ("metassl_released", 0.5, 0.1),
    ],
)
def test_metassl_adds_its_labeled_terms_without_halves(
    name: str, labeled: str, loss: str, share: float, weight: float
) -> None:
    """L^lqh = L_ce + L_dice (MetaSSL, equation 11) with λ = 0.1 for R-Drop too, whose own 4 is that of the KL."""
    recipe = recipe_of(name, "rdrop", labeled, loss)
    assert (recipe.criteria.ce_weight, recipe.criteria.dice_weight, recipe.ramp.weight) == (share, share, weight)


@pytest.mark.parametrize(("name", "labeled"), METASSL)
def test_mean_teacher_under_metassl_sees_clean_images_from_the_start(name: str, labeled: str) -> None:
    plain, metassl = (
        Job(recipe=name, method="mt", loss=loss, labeled=labeled, seed=0).resolved.method
        for loss in ("default", "metassl")
    )
    assert plain["noise_std"] == 0.1 and (metassl["noise_std"], metassl["start"]) == (0, 0)


@pytest.mark.parametrize("method", ["supervised", "mt", "cps", "bcp", "urpc", "sdcl", "rdrop", "magicnet"])
def test_metassl_on_la_is_a_3d_u_net_whose_spread_is_over_cases(method: str) -> None:
    recipe = recipe_of("metassl-la", method, "4 scans")
    assert (recipe.network.name, recipe.network.options["base_filters"], recipe.protocol) == ("unet3d", 16, "metassl")
    assert registry.component("protocol", recipe.protocol).spread == "cases"
    short = recipe_of("metassl-la-short", method, "4 scans")  # as it was measured
    assert (short.network.name, short.network.options["norm"], short.protocol) == ("vnet", "batch", "la-uamt")


@pytest.mark.parametrize("loss", ["default", "ga"])
def test_r_drop_on_acdc_is_that_of_the_tables(loss: str) -> None:
    """Two networks with a softmax over width on the recipe of the tables; elsewhere the method's own form."""

    def chosen(recipe: str, method: str = "rdrop") -> tuple[object, object]:
        found = Job(recipe=recipe, method=method, loss=loss, labeled="3 patients", seed=0).resolved.method
        return found["networks"], found["released_width_softmax"]

    assert chosen("ssl4mis-acdc") == ("two", True)
    assert chosen("ssl4mis-acdc", "rdrop[networks=one,released_width_softmax=false]") == ("one", False)
    assert chosen("metassl-acdc") == chosen("ssl4mis-acdc-short") == ("one", False)


@pytest.mark.parametrize("method", ["bcp", "abd", "beta_fft", "sdcl"])
def test_two_labeled_scans_make_two_halves_of_one(method: str) -> None:
    batches = [recipe_of("metassl-la", method, labeled).batch for labeled in ("2 scans", "4 scans")]
    assert [(batch.labeled, batch.unlabeled) for batch in batches] == [(2, 2), (4, 4)]


def test_consistency_of_mean_teacher_and_r_drop_ramps_over_30_000_iterations() -> None:
    for name, labeled in (("ga-synapse", "20%"), ("ga-amos", "5%")):
        for method, weight in (("mt", 0.1), ("rdrop", 4.0)):
            ramp = recipe_of(name, method, labeled).ramp
            assert (ramp.weight, ramp.length, ramp.every) == (weight, 30_000, 150)


def test_ssnet_under_ga_has_the_cross_entropy_that_ga_changes() -> None:
    for name, labeled in (("ssl4mis-acdc", "7 patients"), ("ga-synapse", "20%")):
        found = [
            Job(recipe=name, method="ssnet", loss=loss, labeled=labeled, seed=0).resolved.method["ce"]
            for loss in ("default", "ga")
        ]
        assert found == [False, True]


@pytest.mark.parametrize(("labeled", "title"), [("5%", "3 patients"), ("10%", "7 patients")])
def test_acdc_as_the_supplement_of_dca_trains_it(labeled: str, title: str) -> None:
    recipe = recipe_of("dca-acdc", "dca", labeled)
    assert (recipe.network.name, recipe.patch_size, recipe.optimizer.name) == ("unet", [256, 256], "sgd")
    assert (recipe.batch.labeled, recipe.batch.unlabeled, recipe.optimizer.lr) == (2, 2, 0.001)
    assert recipe_of("dca-acdc", "supervised", labeled).batch.labeled == 4
    assert load_splits("acdc", recipe.splits).budget(labeled).title.startswith(title)


@pytest.mark.parametrize(("name", "labeled"), [("dhc-synapse", "10%"), ("dhc-amos", "2%")])
def test_dca_trains_as_cps_does_in_the_dhc_protocol(name: str, labeled: str) -> None:
    assert recipe_of(name, "dca", labeled) == recipe_of(name, "cps", labeled)
