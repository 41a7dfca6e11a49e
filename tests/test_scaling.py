"""A schedule made shorter: what is scaled with it, what is not, and what a job records of it."""

from __future__ import annotations

import itertools

import pytest

from sslbench.config.fields import fields_of
from sslbench.config.grid import Grid
from sslbench.config.job import Job
from sslbench.config.recipe import Recipe
from sslbench.config.scaling import scheduled
from sslbench.core import registry
from sslbench.core.errors import UsageError
from sslbench.training.schedules import learning_rate, ramp_weight

# Counted in iterations, and no part of the schedule: they are memories of running estimates, or how often one is read.
MEMORIES = {("method", "magicnet", "refresh_every")}


def job(method="supervised", loss="default", recipe="ga-synapse", scale=0.1, **values):
    settings = values if scale is None else {**values, "schedule.scale": scale}
    return Job(recipe=recipe, method=method, loss=loss, labeled="20%", set=settings)


@pytest.mark.parametrize(
    ("method", "recipe", "paths"),
    [
        ("mt", "ga-synapse", {"ramp.length": 3000, "ramp.every": 15}),
        ("cobionet", "ga-synapse", {"ramp.length": 600, "ramp.every": 15}),
        ("magicnet", "ga-synapse", {"schedule.iterations": 3400, "schedule.lr_length": 7000, "ramp.every": 35}),
        ("magicnet", "ga-synapse", {"method.blend_after": 10, "method.refresh_every": 20}),
        ("bcp", "ga-synapse", {"method.pretrain_iterations": 226}),
        ("sdcl", "ga-synapse", {"method.pretrain_iterations": 226}),
        ("dst", "ga-synapse", {"method.reversal_steps": 50}),
        ("skcdf", "dhc-synapse", {"schedule.iterations": 1201, "schedule.validate_every": 8}),
    ],
)
def test_every_length_of_a_method_is_scaled(method, recipe, paths):
    values, plain = job(method, recipe=recipe).resolved.values, job(method, recipe=recipe, scale=None).resolved.values
    assert {path: values[path] for path in paths} == paths
    assert values["schedule.iterations"] == round(plain["schedule.iterations"] / 10)
    changed = {path for path in values if values[path] != plain.get(path)}
    assert changed == {
        path
        for path in changed
        if path == "schedule.scale" or (abs(values[path] - plain[path] / 10) <= 0.5 and values[path] >= 1)
    }


def test_options_that_count_iterations_are_of_the_schedule_or_known_not_to_be():
    counted = {
        (kind, entry.name, row["name"])
        for kind in ("method", "loss", "plugin", "weighting")
        for entry in registry.entries(kind)
        if not entry.preset_of
        for row in fields_of(entry.target.Options)
        if "iteration" in f"{row['name']} {row['description']}"
        and row["type"].startswith("int")
        and not row["name"].startswith("power_")
    }
    marked = {
        (kind, entry.name, path)
        for kind in ("method", "loss", "plugin", "weighting")
        for entry in registry.entries(kind)
        if not entry.preset_of
        for path in scheduled(entry.target.Options)
    }
    assert counted == marked | MEMORIES


def test_the_fields_of_a_recipe_that_are_scaled():
    assert {*scheduled(Recipe)} == {
        *(f"schedule.{name}" for name in ("iterations", "lr_length", "step_every", "validate_every")),
        *("ramp.length", "ramp.every"),
    }


@pytest.mark.parametrize(
    ("recipe", "method"),
    [*itertools.product(["ga-synapse", "dhc-synapse", "ssl4mis-acdc"], ["mt", "cps", "bcp", "sdcl"])],
)
def test_rate_and_ramp_end_where_those_of_the_whole_schedule_do(recipe, method):
    budget = "7 patients" if "acdc" in recipe else "20%"
    ends = []
    for scale in (1, 0.1):
        spec = Job(recipe=recipe, method=method, labeled=budget, set={"schedule.scale": scale}).resolved.recipe
        length, epoch = spec.schedule.iterations, 1
        shares = [learning_rate(spec.optimizer, spec.schedule, length * n // 10, length, epoch) for n in range(10)]
        ends.append(shares + [ramp_weight(spec.ramp, length * n // 10, length, epoch) for n in (5, 7, 9)])
    whole, short = ends
    assert short == pytest.approx(whole, rel=0.1)


def test_a_scale_is_a_setting_of_the_job_and_another_digest():
    plain, short = job("cps", scale=None), job("cps")
    assert short.canonical().set == {"schedule.scale": 0.1}
    assert short.directory.parts[2] == "cps+default~schedule.scale=0.1"
    assert short.digest() != plain.digest()
    assert Job(**short.canonical().model_dump()).resolved == short.canonical().resolved


def test_a_scale_of_one_is_no_setting():
    assert job("cps", scale=1).digest() == job("cps", scale=None).digest()
    assert job("cps", scale=1).canonical() == job("cps", scale=None).canonical()
    assert "schedule.scale" not in job("cps", scale=None).resolved.values


def test_what_is_set_beside_a_scale_is_scaled_once_however_often_it_is_written_down():
    spelt = job("bcp", **{"schedule.iterations": 1000, "method.pretrain_iterations": 500, "ramp.length": "full"})
    for form in (spelt, spelt.canonical(), Job(**spelt.canonical().model_dump()).canonical()):
        assert form.canonical().set["schedule.iterations"] == 1000
        assert form.resolved.recipe.schedule.iterations == 100
        assert form.resolved.method["pretrain_iterations"] == 50
        assert form.resolved.recipe.ramp.length == "full"


def test_layers_say_what_was_scaled():
    layers = job("bcp", **{"schedule.validate_every": 100}).resolved.layers
    assert layers["schedule.iterations"] == "recipe ga-synapse × 0.1"
    assert layers["schedule.validate_every"] == "job × 0.1"
    assert layers["schedule.scale"] == "job"
    assert layers["optimizer.lr"] == "recipe ga-synapse"


def test_nothing_is_scaled_away():
    values = job("mt", scale=1e-6, **{"schedule.validate_every": 0, "checkpoint": "last"}).resolved.values
    assert (values["schedule.iterations"], values["schedule.validate_every"], values["method.start"]) == (1, 0, 0)


@pytest.mark.parametrize("scale", [0, -1, "much", float("inf"), float("nan")])
def test_a_scale_that_means_nothing_is_refused(scale):
    with pytest.raises(UsageError, match=r"schedule\.scale"):
        job(scale=scale).digest()


def test_a_grid_may_be_scaled_as_a_whole():
    grid = Grid(
        name="toy", recipe="phantom", labeled="20%", jobs=[{"method": ["cps", "bcp"]}], set={"schedule.scale": 0.5}
    )
    assert {found.resolved.recipe.schedule.iterations for found in grid.expand()} == {180}
    assert {found.resolved.recipe.schedule.iterations for found in grid.expand({"schedule.scale": 0.25})} == {90}
