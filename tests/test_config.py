"""Jobs, recipes and grids as values: which layer wins, what is one run, what is told of what is wrong."""

from __future__ import annotations

import itertools
import string

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sslbench.config.grid import Grid, grid_files, load_grid
from sslbench.config.job import ENGINE_VERSION, Job, settings_of
from sslbench.config.layers import load_recipe
from sslbench.config.recipe import recipe_names
from sslbench.config.splits import load_splits
from sslbench.config.text import (
    flatten,
    load_yaml,
    parse_component,
    parse_set,
    parse_value,
    split_outside_brackets,
    unflatten,
)
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.core.options import Options
from tests.helpers.methods import Untrained

PHANTOM = load_recipe("phantom")
RATE = {"optimizer.lr": PHANTOM.optimizer.lr}  # what the recipe says anyway


def job(method="supervised", **fields):
    return Job(method=method, **{"recipe": "phantom", "labeled": "20%"} | fields)


def acdc(method="supervised", **fields):
    return job(method, **{"recipe": "ssl4mis-acdc", "labeled": "3 patients"} | fields)


def grid(*jobs, **fields):
    return Grid(name="toy", jobs=list(jobs), **{"recipe": "phantom", "labeled": "20%", "seeds": [0]} | fields)


def cells(jobs):
    """recipe/budget/cell of each job, without seed and digest."""
    return ["/".join(job.directory.parts[:-1]) for job in jobs]


@pytest.fixture
def recipe_file(tmp_path):
    """Writes a recipe and returns its path: `recipe_file(extends="phantom", ramp={"weight": 1})`."""
    numbers = itertools.count()

    def write(text="", **fields):
        path = tmp_path / f"recipe{next(numbers)}.yaml"
        path.write_text(text or yaml.safe_dump(fields))
        return str(path)

    return write


class ToyOptions(Options):
    x: float = 1.0
    y: int = 0


class Toy(Untrained):
    Options = ToyOptions


@pytest.fixture
def toy(throw_away):
    """A method `toy` whose defaults change the recipe, and a preset `toy_tuned`."""

    class WithDefaults(Toy):
        defaults = {"ramp.weight": 0.3, "method.x": 3.0}

    throw_away("method", "toy", aliases=("plaything",))(WithDefaults)
    throw_away("method", "toy_tuned", preset_of="toy", set={"x": 4.0})


# --------------------------------------------------------------------------------------------------------- layers


def test_later_layers_win_and_each_value_names_its_layer(toy, recipe_file):
    """recipe < what extends it < method defaults < preset < recipe overrides < grid < entry < command line."""
    base = recipe_file(extends="phantom", ramp={"weight": 0.1})
    child = recipe_file(extends=base, ramp={"weight": 0.2})
    override = {"when": {"method": "toy"}, "set": {"ramp.weight": 0.5, "method.x": 5.0}}
    overriding = recipe_file(extends=child, overrides=[override])
    preset = recipe_file(extends=child)

    override_layer = "recipe recipe2, override 1"

    def value(path, recipe, method="toy", grid_set=None, entry_set=None, overrides=None):
        (found,) = grid({"method": method, "set": entry_set or {}}, recipe=recipe, set=grid_set or {}).expand(overrides)
        return found.resolved.values[path], found.resolved.layers[path]

    assert value("ramp.weight", base, "supervised") == (0.1, "recipe recipe0")
    assert value("ramp.weight", child, "supervised") == (0.2, "recipe recipe1")
    assert value("ramp.weight", child) == (0.3, "method toy")
    assert value("method.x", preset, "toy_tuned") == (4.0, "preset toy_tuned")
    assert value("ramp.weight", overriding) == (0.5, override_layer)
    assert value("method.x", overriding, "toy_tuned") == (5.0, override_layer)
    layers = {"grid_set": {"ramp.weight": 0.6}, "entry_set": {"ramp.weight": 0.7}, "overrides": {"ramp.weight": 0.8}}
    for count, (expected, layer) in enumerate([(0.6, "grid toy"), (0.7, "grid toy"), (0.8, "command line")], 1):
        assert value("ramp.weight", overriding, **dict(list(layers.items())[:count])) == (expected, layer)
    assert value("method.y", overriding) == (0, "default")


def test_another_network_takes_no_option_of_the_one_before_nor_its_layer():
    found = job("genericssl", recipe="phantom", labeled="20%").resolved
    assert found.values["network.base_filters"] == 8 and found.layers["network.base_filters"].startswith(
        "recipe phantom, override"
    )
    assert found.layers["network.name"] == "method genericssl" and found.layers["network.norm"] == "default"


def test_overrides_of_the_base_recipe_come_first(recipe_file):
    def override(weight):
        return {"overrides": [{"when": {"method": "cps"}, "set": {"ramp.weight": weight}}]}

    base = recipe_file(extends="phantom", **override(0.5))
    child = recipe_file(extends=base, **override(0.6))
    assert job("cps", recipe=child).resolved.values["ramp.weight"] == 0.6
    assert job("cps", recipe=base).resolved.values["ramp.weight"] == 0.5


def test_a_recipe_changes_single_fields_of_what_it_extends(recipe_file):
    recipe = recipe_file(extends="ssl4mis-acdc", schedule={"iterations": 7})
    changed, base = (acdc(recipe=name).resolved.values for name in (recipe, "ssl4mis-acdc"))
    assert {path for path in base if base[path] != changed[path]} == {"schedule.iterations"}


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ({}, True),
        ({"method": "cps"}, True),
        ({"method": ["supervised", "cps"]}, True),
        ({"method": "supervised"}, False),
        ({"loss": "ga"}, True),
        ({"loss": "ga_labeled_only"}, True),
        ({"loss": "ga_unlabeled_only"}, False),
        ({"loss": "default"}, False),
        ({"labeled": "5%"}, True),
        ({"labeled": "3-patients"}, True),
        ({"labeled": ["10%", "3 volumes"]}, True),
        ({"labeled": "7 patients"}, False),
        ({"plugin": None}, True),
        ({"recipe": "recipe0"}, True),
        ({"recipe": "ssl4mis-acdc"}, False),
        ({"weighting": "diffdw"}, False),
        ({"method": "cps", "loss": "ga", "labeled": "5%"}, True),
        ({"method": "cps", "loss": "default"}, False),
    ],
)
def test_when_an_override_applies(recipe_file, when, matches):
    """A preset is met by its own name and by that of what it configures, a budget by any of its names."""
    recipe = recipe_file(extends="ssl4mis-acdc", overrides=[{"when": when, "set": {"ramp.weight": 9}}])
    for loss in ("ga_labeled_only", "ga[applies_to=label]"):
        weight = acdc("cps", loss=loss, recipe=recipe).resolved.values["ramp.weight"]
        assert weight == (9 if matches else 0.1)


@pytest.mark.parametrize(
    ("method", "matches"),
    [
        ("cps", False),
        ("dhc", True),
        ("dhc[weighting.a.alpha=0.3]", True),
        ("cps[weighting.b=distdw]", True),
        ("dhc[weighting.b=null]", False),
        ("cps[weighting=crest]", False),
        ("mt[weighting=distdw]", False),
    ],
)
def test_an_override_for_a_weighting_applies_whatever_the_spelling(recipe_file, method, matches):
    when = {"method": "cps", "weighting": ["distdw", "cld"]}
    recipe = recipe_file(extends="ssl4mis-acdc", overrides=[{"when": when, "set": {"ramp.weight": 9}}])
    assert acdc(method, recipe=recipe).resolved.values["ramp.weight"] == (9 if matches else 0.1)


def test_an_ablation_of_dhc_changes_nothing_but_the_weighting():
    for recipe in ("dhc-synapse", "ga-synapse"):
        dhc, pair = (
            Job(recipe=recipe, method=method, labeled="20%", seed=0).resolved.values
            for method in ("dhc", "dhc[weighting.a.alpha=0.3,weighting.b=crest]")
        )
        assert {path.split(".")[0] for path in {**dhc, **pair} if dhc.get(path) != pair.get(path)} == {"weighting"}


@pytest.mark.parametrize("method", ["sl", "supervisd"])
def test_a_method_in_when_is_looked_up_in_the_registry(recipe_file, method):
    recipe = recipe_file(extends="phantom", overrides=[{"when": {"method": method}, "set": {"ramp.weight": 9}}])
    if method == "sl":
        assert job(recipe=recipe).resolved.values["ramp.weight"] == 9
    else:
        with pytest.raises(UsageError, match="supervised"):
            job(recipe=recipe).digest()


def test_every_shipped_recipe_resolves_with_every_budget():
    assert {"phantom", "ssl4mis-acdc", "ssl4mis-acdc-short"} <= set(recipe_names())
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name and recipe.description and recipe.source and recipe.seeds
        for budget in load_splits(recipe.dataset, recipe.splits).budgets:
            resolved = Job(recipe=name, method="supervised", labeled=budget).resolved
            assert set(resolved.values) == set(resolved.layers)
            # An epoch of the DHC family grows with the budget; nothing else of the schedule may.
            lengths = {"iterations", "validate_every", "epoch"}
            assert resolved.recipe.optimizer == recipe.optimizer
            assert resolved.recipe.schedule.model_dump(exclude=lengths) == recipe.schedule.model_dump(exclude=lengths)


def test_every_shipped_grid_expands():
    for name in grid_files():
        assert load_grid(name).expand()


# -------------------------------------------------------------------------------------- one run has one canonical form

SPELLINGS = {
    "a preset": [
        job(loss="ga_labeled_only"),
        job(loss="ga[applies_to=label]"),
        job(loss=" ga [applies_to = label]"),
        job(loss="ga", set={"loss.applies_to": "label"}),
        job(loss="ga_unlabeled_only[applies_to=label]"),
        job(loss="ga_unlabeled_only", set={"loss.applies_to": "label"}),
        job(loss="ga[applies_to=pseudo]", set={"loss.applies_to": "label"}),
        job(loss="ga_labeled_only[gamma=0.5]"),
    ],
    "a preset undone": [job(loss="ga"), job(loss="ga_labeled_only[applies_to=both]"), job(loss="ga[applies_to=both]")],
    "a preset with an option": [
        job(loss="ga_labeled_only[gamma=0.25]"),
        job(loss="ga[gamma=0.25,applies_to=label]"),
        job(loss="ga", set={"loss.gamma": 0.25, "loss.applies_to": "label"}),
    ],
    "an alias": [job("supervised"), job("sl"), job("fully_supervised"), job("supervised[]")],
    "a budget": [acdc(labeled=text) for text in ("3 patients", "3-patients", "3 volumes", "5%", "5.0 %", "5pct")],
    "what lower layers say": [
        job("cps"),
        job("cps[on=all]"),  # the recipe's override
        job("cps", set=RATE),
        job("cps", set={"precision": "auto", "network.name": "vnet"}),
    ],
    "a default against the recipe": [job("cps[on=unlabeled]"), job("cps", set={"method.on": "unlabeled"})],
    "order": [
        job("cps[on=unlabeled,init_a=default]", set={"ramp.weight": 1.5, "optimizer.lr": 0.1}),
        job("cps[init_a=default,on=unlabeled]", set={"optimizer.lr": 0.1, "ramp.weight": 1.5}),
    ],
}


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_spellings_of_a_job_are_one_run(spellings):
    first = spellings[0].canonical()
    for other in spellings:
        assert other.canonical() == first
        assert other.digest() == first.digest()
        assert other.directory == first.directory
        assert other.resolved.values == first.resolved.values


@pytest.mark.parametrize("spelt", [job("cps"), acdc("cps"), acdc(), job(loss="ga_labeled_only[gamma=0.25]")], ids=str)
def test_every_value_that_the_lower_layers_give_drops_out(spelt):
    values = {path: value for path, value in spelt.resolved.values.items() if not path.startswith("loss.")}
    for given_set in [*({path: value} for path, value in values.items()), values]:
        again = spelt.model_copy(update={"set": given_set})
        again = Job(**again.model_dump())
        assert (again.canonical(), again.digest()) == (spelt.canonical(), spelt.digest())


def test_no_two_of_those_runs_are_one():
    assert len({spellings[0].directory for spellings in SPELLINGS.values()}) == len(SPELLINGS)


def test_the_canonical_form_says_what_differs_and_nothing_else():
    named = job("sl", loss="ga[gamma=0.75,k=10,applies_to=label]", set=RATE | {"ramp.weight": 1.5})
    assert named.canonical() == Job(
        recipe="phantom",
        method="supervised",
        loss="ga_labeled_only",
        labeled="20pct",
        set={"loss.gamma": 0.75, "ramp.weight": 1.5},
    )


@pytest.mark.parametrize(
    "spellings",
    [
        [job(loss="ga[gamma=1]"), job(loss="ga[gamma=1.0]"), job(loss="ga", set={"loss.gamma": "1"})],
        [job(set={"schedule.iterations": 100}), job(set={"schedule.iterations": "100"})],
        [job(set={"optimizer.nesterov": value}) for value in (True, "true", 1)],
        [job(set={"optimizer.lr": 0.02}), job(set={"optimizer.lr": "2e-2"})],
        [job(set={"protocol": "ga[released]"}), job(set={"protocol": "ga-released"})],
    ],
    ids=["float", "int", "bool", "text", "alias"],
)
def test_spellings_of_a_value_are_one_run(spellings):
    assert len({spelt.digest() for spelt in spellings}) == 1
    assert len({spelt.directory for spelt in spellings}) == 1
    assert all(spelt.canonical() == spellings[0].canonical() for spelt in spellings)


@pytest.mark.parametrize("spelt", ["ga[k=10]", "ga[k=10.0]", "ga[k_pseudo=100]"])
def test_a_whole_number_spelt_out_is_the_default(spelt):
    assert job(loss=spelt).canonical() == job(loss="ga").canonical()
    assert job(loss=spelt).digest() == job(loss="ga").digest()


@pytest.mark.parametrize(
    "changed",
    [{"optimizer": {"lr": PHANTOM.optimizer.lr}}, {"criteria": {"dice": "squared"}}, {"network": {"name": "vnet"}}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_group_that_resets_other_fields_stays_in_the_canonical_form(changed):
    spelt = acdc(set=changed) if "criteria" in changed else job(set=changed)
    assert spelt.resolved.values == spelt.canonical().resolved.values
    assert spelt.digest() == spelt.canonical().digest()


@pytest.mark.parametrize(
    "given_set",
    [{"loss": {"gamma": 0.75}}, {"loss": "ga_labeled_only"}, {"method": "cps"}, {"seeds": [3]}, {"overrides": []}],
    ids=str,
)
def test_what_is_set_has_an_effect_or_is_refused(given_set):
    try:
        changed = job(loss="ga", set=given_set).digest()
    except UsageError:
        return
    assert changed != job(loss="ga").digest()


def test_splits_and_dataset_of_a_later_layer_are_looked_up():
    with pytest.raises(UsageError, match="no-such-splits"):
        job(set={"splits": "no-such-splits"}).digest()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["cps", "supervised", "sl"]),
    st.sampled_from(["default", "ga", "ga_labeled_only", "ga[gamma=0.25]", "ga[applies_to=label,k=5.0]"]),
    st.fixed_dictionaries(
        {},
        optional={
            "optimizer.lr": st.sampled_from([PHANTOM.optimizer.lr, 0.02]),
            "schedule.iterations": st.sampled_from([PHANTOM.schedule.iterations, 7]),
            "network.base_filters": st.sampled_from([8, 4]),
            "network.dropout": st.sampled_from([0.0, 0.5]),
            "patch_size": st.sampled_from([PHANTOM.patch_size, [32, 32, 32]]),
            "ramp.length": st.sampled_from(["full", 40]),
            "inference.stride": st.just([16, 16, 16]),
        },
    ),
    st.integers(0, 3),
)
def test_the_canonical_form_is_a_fixed_point_and_the_same_run(method, loss, values, seed):
    spelt = job(method, loss=loss, set=values, seed=seed)
    canonical = spelt.canonical()
    assert canonical.canonical() == canonical
    assert canonical.model_dump() == Job(**canonical.model_dump()).canonical().model_dump()
    assert (canonical.digest(), canonical.directory) == (spelt.digest(), spelt.directory)
    assert canonical.resolved.values == spelt.resolved.values
    backwards = job(method, loss=loss, set=dict(reversed(values.items())), seed=seed)
    assert (backwards, hash(backwards), backwards.directory) == (spelt, hash(spelt), spelt.directory)


def test_the_run_directory_is_readable():
    assert cells([job(loss="ga[gamma=0.75]")]) == ["phantom/20pct/supervised+ga~loss.gamma=0.75"]
    assert cells([acdc("cps", loss="ga_labeled_only")]) == ["ssl4mis-acdc/3-patients/cps+ga_labeled_only"]
    assert job(seed=7).directory.name == f"seed-7-{job().digest()[:8]}"
    assert job(seed=7).title == "phantom 20pct supervised+default seed-7"


def test_the_run_directory_is_four_plain_folders_whatever_is_set(throw_away):
    class Texts(Options):
        text: str = ""

    class Texted(Untrained):
        Options = Texts

    throw_away("method", "texted")(Texted)
    spelt = [job("texted", set={"method.text": text}) for text in ("a/b", "../x", "ä b", "x" * 300, "x" * 301, "%:*?")]
    for one in spelt:
        assert not one.directory.is_absolute() and len(one.directory.parts) == 4
        assert all(len(part) < 200 and part not in (".", "..") for part in one.directory.parts)
        assert not set("/ :*?%") & set("".join(one.directory.parts))
    assert len({one.directory for one in spelt}) == len(spelt), "where names are cut the digest still tells them apart"


def test_a_job_survives_its_own_record():
    resolved = job("cps", loss="ga[gamma=0.75]", set={"ramp.weight": 0.2}, seed=3)
    assert resolved.digest()  # resolving leaves no trace in what is written
    record = yaml.safe_load(yaml.safe_dump(resolved.canonical().model_dump()))
    assert Job(**record) == resolved.canonical()


# --------------------------------------------------------------------------------------------------------- the digest


def test_the_digest_is_64_hexadecimal_digits_and_covers_no_seed():
    assert len({job(seed=seed).digest() for seed in (0, 1, 1337)}) == 1
    assert set(job().digest()) <= set(string.hexdigits.lower()) and len(job().digest()) == 64


def test_any_number_changes_the_digest():
    """Every field of a resolved job that is a number, changed by itself."""
    base = job("cps", loss="ga")
    changed = {
        path: value + 1 if isinstance(value, int) and not path.startswith("loss.") else value / 2 or 0.25
        for path, value in base.resolved.values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert len(changed) > 15
    digests = {path: job("cps", loss="ga", set={path: value}).digest() for path, value in changed.items()}
    assert len({base.digest(), *digests.values()}) == len(changed) + 1


@pytest.mark.parametrize(
    "other",
    [
        job("cps"),
        job(loss="ga"),
        job(labeled="10%"),
        job(recipe="ssl4mis-acdc", labeled="5%"),
        job(set={"dataset": "synapse"}),
        job(set={"preprocessing": "ga"}),
        job(set={"protocol": "ga"}),
        job(set={"protocol": "ga-released"}),
        job(set={"checkpoint": "last"}),
        job(set={"network": {"name": "vnet", "norm": "instance"}}),
        job(set={"patch_size": [32, 48, 48]}),
        job(set={"optimizer.nesterov": True}),
        job(set={"precision": "fp32"}),
    ],
    ids=lambda other: other.title if isinstance(other, Job) else str(other),
)
def test_what_changes_the_result_changes_the_digest(other):
    assert other.digest() != job().digest()


@pytest.mark.parametrize(
    ("kind", "name"), [("loss", "ga"), ("method", "supervised"), ("network", "vnet"), ("dataset", "phantom")]
)
def test_a_corrected_component_makes_new_runs_of_those_jobs_that_use_it(kind, name, monkeypatch):
    before, apart = job(loss="ga").digest(), acdc("cps").digest()
    target = registry.component(kind, name)
    monkeypatch.setattr(target, "version", target.version + 1)
    assert job(loss="ga").digest() != before
    assert acdc("cps").digest() == apart


@pytest.mark.parametrize("field", [{"observe": ["regions"]}, {"checkpoints": ["best-val", "last"]}])
def test_what_is_only_recorded_changes_neither_the_digest_nor_the_run(field):
    plain, told = (Job(recipe="ga-synapse", method="cps", labeled="20%", set=set) for set in ({}, field))
    assert told.digest() == plain.digest() and told.directory == plain.directory and told.title == plain.title
    # The worker that reads the job again knows of it.
    again = Job(**told.canonical().model_dump())
    (name, value), *_ = field.items()
    assert getattr(again.resolved.recipe, name) == value
    assert again.resolved.values[name] == value and again.resolved.layers[name] == "job"
    # Beside what does change the result, that alone is the difference.
    lasting = Job(recipe="ga-synapse", method="cps", labeled="20%", set={**field, "checkpoint": "last"})
    assert settings_of(lasting.canonical().model_dump()) == {"checkpoint": "last"}


def test_the_rules_that_are_tested_begin_with_that_of_the_results():
    def tested(**fields):
        job = Job(recipe="ga-synapse", method="cps", labeled="20%", set=fields)
        return job.resolved.recipe.tested

    assert tested() == ("best-val",)
    assert tested(checkpoints=["last", "best-val"]) == ("best-val", "last")
    assert tested(checkpoint="last", checkpoints=["best-val", "last"]) == ("last", "best-val")
    with pytest.raises(UsageError, match=r"the checkpoint rule best-val needs schedule\.validate_every"):
        tested(**{"checkpoint": "last", "checkpoints": ["best-val"], "schedule.validate_every": 0})
    with pytest.raises(UsageError, match="'best-val' or 'last'"):
        tested(checkpoints=["middle"])


def test_a_corrected_engine_makes_new_runs_of_all_jobs(monkeypatch):
    before = job().digest()
    monkeypatch.setattr("sslbench.config.job.ENGINE_VERSION", ENGINE_VERSION + 1)
    assert job().digest() != before


def test_a_renamed_recipe_of_the_same_values_is_the_same_computation(recipe_file):
    assert job(recipe=recipe_file(extends="phantom", description="again", seeds=[5])).digest() == job().digest()


# ------------------------------------------------------------------------------------------------------------- errors


def refused(spelt):
    """The one line that a job is refused with."""
    with pytest.raises(UsageError) as error:
        spelt.digest()
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("spelt", "near"),
    [
        (job(set={"optimizer.lrr": 1}), "optimizer.lr"),
        (job(set={"optimzer.lr": 1}), "optimizer.lr"),
        (job(set={"shedule.iterations": 1}), "schedule.iterations"),
        (job(set={"network.base_filter": 1}), "base_filters"),
        (job(loss="ga[gama=1]"), "gamma"),
        (job("cps", set={"method.init_c": 1}), "init_a"),
        (job("supervisd"), "supervised"),
        (job(loss="gaa"), "ga"),
        (job(recipe="phantm"), "phantom"),
        (job(labeled="21%"), "20%"),
        (job(set={"network": {"name": "vnett"}}), "vnet"),
        (job(set={"protocol": "nativ"}), "native"),
        (job(set={"preprocessing": "nativ"}), "native"),
    ],
    ids=lambda value: "" if isinstance(value, Job) else value,
)
def test_an_unknown_name_is_refused_with_near_names(spelt, near):
    message = refused(spelt)
    assert message.startswith("unknown ")
    assert near in message.partition("(")[2]


def test_a_protocol_that_one_prediction_cannot_serve_is_refused():
    assert "protocol la-cobionet intersects the label maps of several" in refused(job(set={"protocol": "la-cobionet"}))


def test_a_wrong_field_is_not_suggested_as_its_own_remedy():
    assert "optimizer.lrr" not in refused(job(set={"optimizer.lrr": 1})).partition("(")[2]


@pytest.mark.parametrize(
    ("spelt", "path", "value"),
    [
        (job(set={"optimizer.lr": "fast"}), "optimizer.lr", "fast"),
        (job(set={"optimizer.lr": -1}), "optimizer.lr", "-1"),
        (job(set={"schedule.iterations": 0}), "schedule.iterations", "0"),
        (job(set={"schedule.iterations": 1.5}), "schedule.iterations", "1.5"),
        (job(set={"criteria.dice": "cubed"}), "criteria.dice", "cubed"),
        (job(set={"patch_size": [1]}), "patch_size", "[1]"),
        (job(set={"network.norm": "layer"}), "norm", "layer"),
        (job(loss="ga[gamma=2]"), "gamma", "2"),
        (job("cps[on=both]"), "on", "both"),
        (job(set={"ramp": 5}), "ramp", "5"),
    ],
    ids=lambda value: "" if isinstance(value, Job) else str(value),
)
def test_a_wrong_value_is_refused_with_its_path(spelt, path, value):
    message = refused(spelt)
    assert f" {path}: " in message and value in message


def test_the_path_of_a_wrong_value_is_what_users_write():
    assert " schedule.epoch: " in refused(job(set={"schedule.epoch": "foo"}))


def test_a_fault_of_the_whole_recipe_has_no_empty_path():
    assert ": :" not in refused(job(set={"augment.weak": ["ssl4mis"]}))


@pytest.mark.parametrize(
    "spelt",
    [
        job(set={"optimizer.lr.x": 1}),
        job(set={"plugin.x": 1}),
        job(plugin="no-such-plugin"),
        job(loss="ga[gamma=0.5"),
        job(loss="ga[gamma]"),
        job(loss="ga]"),
        job(""),
        job("cps", labeled="100%"),
        job(set={"": 1}),
        job(set={"loss.": 1}),
        job(set={"optimizer": None}),
        job(set={"seed": 1}),
        job(set={"checkpoint": "last", "inference.stride": None}),
        job(set={"schedule.validate_every": 0}),
        job(set={"augment.weak": ["ssl4mis"]}),
    ],
    ids=str,
)
def test_a_job_without_meaning_is_refused(spelt):
    refused(spelt)


UNFIT = {
    "a stride of two numbers in 3-D": {"patch_size": [48] * 3, "inference.stride": [16, 16]},
    "a stride of no voxel": {"patch_size": [48] * 3, "inference.stride": [0, 16, 16]},
    "a stride that leaves gaps": {"patch_size": [48] * 3, "inference.stride": [64, 64, 64]},
    "a validation stride of two numbers": {"patch_size": [48] * 3, "inference.validation_stride": [16, 16]},
    "a patch that the network cannot halve four times": {"patch_size": [40, 48, 48]},
    "quarter turns of a patch that is not square": {"patch_size": [32, 48, 48], "augment.weak": ["rot90_flip"]},
    "a 3-D network for slices": {"patch_size": [48, 48]},
    "a 2-D network for volumes": {"network": {"name": "unet"}},
}


@pytest.mark.parametrize("values", UNFIT.values(), ids=UNFIT.keys())
def test_sizes_that_do_not_fit_are_refused_before_anything_starts(values):
    refused(job(set=values))


def test_fields_of_a_job_itself_are_checked():
    for wrong in ({"seed": -1}, {"sed": 1}, {"set": [1]}):
        with pytest.raises(ValidationError):
            job(**wrong)


def test_a_job_and_its_recipe_cannot_be_changed():
    for value in (job(), job().resolved, job().resolved.recipe, job().resolved.recipe.optimizer):
        with pytest.raises(ValidationError):
            value.seed = 2


WORDS = st.text("a.[]=, ä0", max_size=8)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)
PATHS = sorted(job("cps", loss="ga").resolved.values)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(PATHS) | WORDS, JUNK, max_size=3))
def test_whatever_is_set_gives_a_job_or_one_line(values):
    try:
        spelt = job("cps", loss="ga", set=values)
        assert spelt.directory.parts[0] == "phantom"
    except UsageError as error:
        assert "\n" not in str(error)


# -------------------------------------------------------------------------------------------------------------- grids


def test_a_grid_expands_in_the_order_of_the_file_with_seeds_fastest():
    jobs = grid(
        {"method": ["supervised", "cps"], "loss": ["default", "ga"], "labeled": ["10%", "20%"]},
        {"method": "supervised", "labeled": ["100%"]},
        seeds=[3, 1],
    ).expand()
    assert [job.seed for job in jobs] == [3, 1] * (len(jobs) // 2)
    assert cells(jobs[::2]) == [
        f"phantom/{budget}/{method}+{loss}"
        for budget in ("10pct", "20pct")
        for method in ("supervised", "cps")
        for loss in ("default", "ga")
    ] + ["phantom/100pct/supervised+default"]


def test_an_entry_may_set_any_axis_and_takes_the_grids_otherwise():
    jobs = grid(
        {"method": "supervised", "recipe": "ssl4mis-acdc", "labeled": "5%", "seeds": 9}, {"method": "sl"}
    ).expand()
    assert [(cell, job.seed) for cell, job in zip(cells(jobs), jobs, strict=True)] == [
        ("ssl4mis-acdc/3-patients/supervised+default", 9),
        ("phantom/20pct/supervised+default", 0),
    ]


def test_seeds_are_the_recipes_where_neither_entry_nor_grid_names_any():
    assert [job.seed for job in grid({"method": "supervised"}, seeds=[]).expand()] == load_recipe("phantom").seeds


def test_what_is_spelt_twice_runs_once():
    jobs = grid(
        {"method": ["supervised", "sl"], "loss": ["ga", "ga[gamma=0.5]"]},
        {"method": "cps"},
        {"method": "fully_supervised", "loss": "ga[applies_to=both]", "set": RATE},
    ).expand()
    assert cells(jobs) == ["phantom/20pct/supervised+ga", "phantom/20pct/cps+default"]


def test_a_plugin_axis_may_hold_none():
    assert cells(grid({"method": "supervised", "plugin": [None]}).expand()) == ["phantom/20pct/supervised+default"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ([], ["supervised+default", "supervised+ga_labeled_only", "cps+default", "cps+ga_labeled_only"]),
        ([{"method": "cps"}], ["supervised+default", "supervised+ga_labeled_only"]),
        (
            [{"method": "cps", "loss": "default"}],
            ["supervised+default", "supervised+ga_labeled_only", "cps+ga_labeled_only"],
        ),
        ([{"method": "cps"}, {"loss": "default"}], ["supervised+ga_labeled_only"]),
        ([{"method": ["cps", "supervised"], "loss": "default"}], ["supervised+ga_labeled_only", "cps+ga_labeled_only"]),
        ([{"seeds": 5}], ["supervised+default", "supervised+ga_labeled_only", "cps+default", "cps+ga_labeled_only"]),
    ],
)
def test_excluded_combinations_are_left_out(exclude, left):
    jobs = grid({"method": ["supervised", "cps"], "loss": ["default", "ga_labeled_only"]}, exclude=exclude).expand()
    assert [cell.rpartition("/")[2] for cell in cells(jobs)] == left


@pytest.mark.parametrize(
    "exclude",
    [
        {"method": "sl", "labeled": "20%"},
        {"method": "supervised", "labeled": "20%"},
        {"method": "supervised", "loss": "ga[applies_to=label]"},
        {"method": "supervised", "loss": "ga[gamma=0.5]"},
    ],
    ids=str,
)
def test_an_exclusion_understands_the_spellings_that_a_job_does(exclude):
    jobs = {"method": ["supervised", "cps"], "loss": ["ga_labeled_only", "ga"]}
    assert len(grid(jobs, exclude=[exclude]).expand()) < len(grid(jobs).expand())


def test_an_exclusion_by_option_leaves_the_others():
    jobs = {"method": "supervised", "loss": ["ga[gamma=0.25]", "ga[gamma=0.75]"]}
    left = grid(jobs, exclude=[{"set": {"loss.gamma": 0.25}}]).expand()
    assert cells(left) == ["phantom/20pct/supervised+ga~loss.gamma=0.75"]


def test_a_combination_without_meaning_can_be_excluded():
    jobs = {"method": ["supervised", "cps"], "labeled": ["20%", "100%"]}
    exclude = {"method": "cps", "labeled": "100pct"}
    assert len(grid(jobs, exclude=[exclude]).expand()) == 3


def test_a_grid_gives_canonical_jobs():
    assert all(job == job.canonical() for job in grid({"method": "sl", "loss": "ga[gamma=0.5]"}).expand())


def test_options_in_brackets_name_their_grid():
    (found,) = grid({"method": "supervised", "loss": "ga[gamma=0.25]"}).expand()
    assert found.resolved.layers["loss.gamma"] == "grid toy"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recipe": []}, "names no recipe"),
        ({"labeled": []}, "names no labeled"),
        ({"exclude": [{"method": "supervised"}]}, "names no job"),
        ({"labeled": "21%"}, "unknown label budget"),
        ({"set": {"optimizer.lrr": 1}}, "optimizer.lr"),
    ],
)
def test_a_grid_that_cannot_run_is_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        grid({"method": "supervised"}, **fields).expand()


def test_one_wrong_job_refuses_the_grid_before_anything_starts():
    with pytest.raises(UsageError, match="supervisd"):
        grid({"method": ["supervised", "supervisd"]}).expand()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: phantom\nlabeled: 20%\njobs: [{metod: cps}]", "jobs.0.metod.*jobs.method"),
        ("recipe: phantom\nlabels: 20%\njobs: [{method: cps}]", "labels.*labeled"),
        ("recipe: phantom\nlabeled: 20%", "'jobs' is missing"),
        ("recipe: phantom\nlabeled: 20%\njobs: [cps]", "jobs.0: .*not 'cps'"),
        ("recipe: phantom\nlabeled: 20%\njobs: [{method: cps}]\nseeds: [a]", "seeds.0: .*not 'a'"),
        ("recipe: phantom\nlabeled: 20%\njobs: [{method: cps}]\ntable: {colums: []}", "table.colums.*table.columns"),
        ("jobs: [", "not valid YAML"),
    ],
)
def test_a_wrong_grid_file_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load_grid(str(path))
    assert "\n" not in str(error.value) and "toy.yaml" in str(error.value)


@pytest.mark.parametrize("seeds", ["-1", "[0, -1]", "0-4"])
def test_seeds_of_a_grid_are_checked(tmp_path, seeds):
    path = tmp_path / "toy.yaml"
    path.write_text(f"recipe: phantom\nlabeled: 20%\njobs: [{{method: cps}}]\nseeds: {seeds}")
    try:
        jobs = load_grid(str(path)).expand()
    except UsageError:
        return
    assert seeds == "0-4" and [job.seed for job in jobs] == [0, 1, 2, 3, 4]


def test_grids_are_found_by_name_and_by_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_grid("quick").name == "quick"
    (tmp_path / "benchmarks").mkdir()
    own = tmp_path / "benchmarks" / "quick.yaml"
    own.write_text("description: mine\nrecipe: phantom\nlabeled: 20%\njobs: [{method: cps}]\n")
    assert load_grid("quick").description == "mine", "the working folder's grid comes first"
    assert load_grid(str(own)) == load_grid("quick")
    for name, message in (("quik", "did you mean quick"), ("none.yaml", "no grid file none.yaml")):
        with pytest.raises(UsageError, match=message):
            load_grid(name)


# --------------------------------------------------------------------------------------------------------------- YAML


def read(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("1.0e-10", 1e-10), ("-2E3", -2000.0), ("1e5", 1e5), ("0.5", 0.5), ("5", 5), ("e5", "e5"),
     ("1e", "1e"), ("20%", "20%"), ("'1e-5'", "1e-5"), ("[1e-3, a]", [1e-3, "a"])],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(tmp_path, text, value):
    found = read(tmp_path, f"a: {text}\n")["a"]
    assert found == value and type(found) is type(value)
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [\n", r"a\.yaml:\d is not valid YAML"),
        ("a: 1\n\tb: 2\n", r"a\.yaml:2 is not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "the key 'a' stands twice"),
        ("x:\n  b: 1\n  b: 1\n", r"a\.yaml:[23] .*the key 'b' stands twice"),
        ("x: [{b: 1, b: 2}]\n", "the key 'b' stands twice"),
        ("x: !!python/object/apply:os.getcwd []\n", "constructor"),
        ("? [1]\n: 2\n", "unhashable"),
        ("[1]\n", "holds no mapping"),
        ("", "holds no mapping"),
        (b"a: \xff\xfe\n", "not valid YAML"),
    ],
)
def test_what_yaml_cannot_be_read_is_told_in_one_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_repeated_key_is_told_with_its_line(tmp_path):
    with pytest.raises(UsageError, match=r"a\.yaml:3"):
        read(tmp_path, "a: 1\nb: 2\na: 3\n")


def test_a_control_character_is_told_in_one_line(tmp_path):
    with pytest.raises(UsageError) as error:
        read(tmp_path, "a: \x00\n")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="unknown recipe"):
        load_recipe(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: phantm", "did you mean phantom"),
        ("extends: phantom\nramp: {weigth: 1}", "ramp.weight"),
        ("extends: phantom\nramps: {weight: 1}", "ramp"),
        ("extends: phantom\nnetwork: unet", "network"),
        ("extends: phantom\noverrides: [{when: {methd: cps}, set: {}}]", "method"),
        ("extends: phantom\noverrides: [{when: {method: cps}}]", "'set' is missing"),
        ("dataset: phantom\npreprocessing: native\nsplits: ga", "is missing"),
    ],
)
def test_a_wrong_recipe_is_told_in_one_line(recipe_file, text, message):
    spelt = job(recipe=recipe_file(text))
    assert message in refused(spelt)


@pytest.mark.parametrize(
    "text", ["extends: SELF", "extends: 5", "extends: phantom\noverrides: 5", "extends: phantom\noverrides:"]
)
def test_a_recipe_of_the_wrong_form_is_told_in_one_line(tmp_path, text):
    path = tmp_path / "self.yaml"
    path.write_text(text.replace("SELF", str(path)))
    refused(job(recipe=str(path)))


# ------------------------------------------------------------------------------------------------------- small pieces

NAMES = st.text("abcxyz_0123456789", min_size=1, max_size=8)
SCALARS = (
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["all", "a"])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3)


def written(value):
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(NAMES, st.dictionaries(NAMES, VALUES, max_size=4))
def test_components_are_read_as_they_are_written(name, options):
    text = ",".join(f"{key}={written(value)}" for key, value in options.items())
    assert parse_component(f"{name}[{text}]") == (name, options)
    assert parse_component(f" {name} ") == (name, {})


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_settings_are_read_as_they_are_written(values):
    assert parse_set(f"{path} = {written(value)}" for path, value in values.items()) == values


@given(st.lists(NAMES | st.lists(NAMES, min_size=1).map(lambda parts: f"x[{','.join(parts)}]"), max_size=5))
def test_commas_inside_brackets_part_nothing(items):
    assert split_outside_brackets(",".join(items)) == items
    assert split_outside_brackets(" , ".join(items) + ",") == items


@pytest.mark.parametrize("item", ["optimizer.lr", "=5", " = 5"])
def test_a_setting_without_path_or_value_is_refused_with_an_example(item):
    with pytest.raises(UsageError, match=r"PATH=VALUE.*--set optimizer\.lr"):
        parse_set([item])


def test_an_option_in_brackets_without_a_value_is_told_so():
    with pytest.raises(UsageError) as error:
        parse_component("ga[gamma]")
    assert "--set" not in str(error.value) and "ga[gamma]" in str(error.value)


TREES = st.recursive(VALUES, lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=6).flatmap(
    lambda tree: st.dictionaries(NAMES, st.just(tree), max_size=2)
)


@given(TREES)
def test_flattening_can_be_undone(tree):
    assert unflatten(flatten(tree)) == tree


@pytest.mark.parametrize(
    "flat",
    [
        {"a": 1, "a.b": 2},
        {"a.b": 1, "a.b.c.d": 2},
        {"a.b": 2, "a": 1},
    ],
    ids=str,
)
def test_a_path_through_a_value_is_a_conflict_in_any_order(flat):
    with pytest.raises(UsageError, match="group of fields"):
        unflatten(flat)


def test_errors_of_configuration_are_errors_of_usage():
    assert issubclass(UsageError, SSLBenchError) and UsageError("x").exit_code == 2
