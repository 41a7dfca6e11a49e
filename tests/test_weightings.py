"""Weightings as an option of every method: spellings that are one job, layers, names, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from sslbench.cli.show import describe
from sslbench.config.grid import Grid
from sslbench.config.job import Job
from sslbench.conformance import check_method
from sslbench.conformance.bench import random_experiment, tiny_job
from sslbench.core import registry
from sslbench.core.errors import UsageError
from sslbench.core.options import Options
from sslbench.losses import Weighted
from tests.helpers.command_line import offered
from tests.helpers.methods import Untrained

NAMES = ["adsh", "cld", "crest", "diffdw", "distdw", "simis"]


def job(method="cps", loss="default", **set):
    chosen = {path.replace("__", "."): value for path, value in set.items()}
    return Job(recipe="phantom", method=method, loss=loss, labeled="20%", set=chosen)


SAME = [
    (
        ("diffdw", None),
        [
            "cps[weighting=diffdw]",
            "cps[weighting.a=diffdw,weighting.b=diffdw]",
            "cps[weighting.a=diffdw[window=50],weighting=diffdw]",
            "cps[weighting=diffdw[alpha=0.2]]",
            "crest[weighting=diffdw]",
            "dhc[weighting.b=diffdw]",
            "dhc[weighting=diffdw]",
        ],
    ),
    (("dhc", None), ["cps[weighting.b=distdw,weighting.a=diffdw]", "distdw[weighting.a=diffdw]"]),
    (
        ("cps", None),
        [
            "cps[weighting=null]",
            "cps[weighting=none]",
            "dhc[weighting=null]",
            "crest[weighting.a=null,weighting.b=null]",
        ],
    ),
    (
        ("cps", "crest[momentum=0.5]"),
        [
            "cps[weighting=crest[momentum=0.5]]",
            "crest[weighting.momentum=0.5]",
            "cps[weighting=crest,weighting.momentum=.5]",
        ],
    ),
    (
        ("cps", {"a": "diffdw[alpha=1.0,window=9]"}),
        [
            "cps[weighting.a=diffdw[window=9,alpha=1]]",
            "dhc[weighting.b=null,weighting.a.window=9,weighting.a.alpha=1.0]",
        ],
    ),
    (
        ("cps", {"a": "distdw", "b": "crest"}),
        ["cps[weighting=distdw,weighting.b=crest]", "dhc[weighting.a=distdw,weighting.b=crest]"],
    ),
]


@pytest.mark.parametrize(("expected", "spellings"), SAME)
def test_spellings_that_mean_the_same_are_one_job(expected, spellings):
    jobs = [job(spelling) for spelling in spellings]
    for one in jobs:
        canonical = one.canonical()
        assert (canonical.method, canonical.weighting) == expected and canonical.set == {}
        assert canonical.canonical() == canonical
        assert canonical.digest() == one.digest() == jobs[0].digest()


def test_a_set_and_nested_groups_mean_the_same():
    expected = job("cps[weighting.a=diffdw[window=9]]").digest()
    for set in (
        {"method.weighting.a": "diffdw[window=9]"},
        {"method.weighting.a": "diffdw", "method.weighting.a.window": 9},
        {"method.weighting": {"a": {"name": "diffdw", "window": 9}}},
        {"method": {"weighting": {"a": "diffdw[window=9]"}}},
        {"weighting.a": "diffdw[window=9]"},
    ):
        assert Job(recipe="phantom", method="cps", labeled="20%", set=set).digest() == expected


def test_the_part_of_the_job_and_the_option_of_the_method_are_one():
    def part(weighting, method="cps", **set):
        return Job(recipe="phantom", method=method, weighting=weighting, labeled="20%", set=set)

    for found, expected in (
        (part("diffdw"), job("diffdw")),
        (part({"a": "diffdw", "b": "distdw"}), job("dhc")),
        (part({"a": "diffdw[window=9]"}), job("cps[weighting.a=diffdw[window=9]]")),
        (part({"a": {"name": "diffdw", "window": 9}}), job("cps[weighting.a=diffdw[window=9]]")),
        (part("none", "dhc"), job("cps")),
        (part("crest", **{"weighting.b.momentum": 0.5}), job("cps[weighting=crest,weighting.b.momentum=0.5]")),
    ):
        assert found.canonical() == expected.canonical() and found.digest() == expected.digest()
        assert found.directory == expected.directory
        assert found.canonical().canonical() == found.canonical()


@pytest.mark.parametrize(
    ("method", "cell"),
    [
        ("cps[weighting=cld[window=2]]", "cps+default~method.weighting=cld[window=2]"),
        ("dhc[weighting.b=null]", "cps+default~method.weighting.a=diffdw"),
        ("dhc", "dhc+default"),
        ("mt[weighting=crest]", "mt+default~method.weighting=crest"),
    ],
)
def test_run_directories_keep_the_names_that_weightings_had_as_options(method, cell):
    assert job(method).directory.parts[-2] == cell


def test_without_a_weighting_nothing_is_said_of_one():
    resolved = job().resolved
    assert not [path for path in resolved.values if path.startswith("weighting")] and not resolved.weightings
    assert job("crest").digest() != job().digest() != job("dhc").digest()


def test_an_option_that_begins_like_weighting_is_one_of_its_own(throw_away):
    class ToyOptions(Options):
        weightingfoo: float = 1.0

    class Toy(Untrained):
        Options = ToyOptions

    throw_away("method", "toy")(Toy)
    plain, other = job("toy[weighting=diffdw]"), job("toy[weighting=diffdw]", method__weightingfoo=2.0)
    assert (other.canonical().weighting, other.canonical().set) == ("diffdw", {"method.weightingfoo": 2.0})
    assert other.canonical() == other.canonical().canonical() and other.digest() != plain.digest()


def test_values_are_complete_and_name_their_layer():
    resolved = job("dhc", method__weighting__a__window=7).resolved
    found = {
        path.removeprefix("weighting."): (value, resolved.layers[path])
        for path, value in resolved.values.items()
        if path.startswith("weighting.")
    }
    assert found == {
        "a.name": ("diffdw", "job"),
        "a.window": (7, "job"),
        "a.alpha": (0.2, "default"),
        "b.name": ("distdw", "job"),
        "b.momentum": (0.99, "default"),
    }
    assert job("dhc").resolved.layers["weighting.a.name"] == "preset dhc"


def test_a_recipe_may_set_them(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "extends: phantom\noverrides:\n  - {when: {method: crest}, set: {method.weighting.momentum: 0.5}}\n"
        "  - {when: {method: mt}, set: {method.weighting: {name: cld, window: 3}}}\n"
    )

    def found(method):
        made = Job(recipe=str(recipe), method=method, labeled="20%")
        return made.canonical().weighting, made.resolved.weightings

    assert found("crest") == (None, {key: {"name": "crest", "momentum": 0.5} for key in "ab"})
    assert found("mt")[1]["student"]["window"] == 3
    assert found("mt[weighting=crest]") == (
        "crest",
        {"student": {"name": "crest", "momentum": 0.99}},
    )
    assert found("mt[weighting=null]") == ("none", {})


def test_the_predictors_are_those_of_the_options():
    one, two = (job("rdrop", network__dropout=0.5, method__networks=n, method__weighting="cld") for n in ("one", "two"))
    assert ([*one.resolved.weightings], [*two.resolved.weightings]) == (["net"], ["a", "b"])


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("cps[weighting=diffwd]", "unknown weighting 'diffwd'"),
        ("cps[weighting.c=diffdw]", "'weighting.c' is set, but 'a' has no weighting"),
        ("cps[weighting.window=5]", "has no weighting"),
        ("cps[weighting=diffdw[momentum=0.9]]", "unknown field in weighting diffdw: 'momentum'"),
        ("cps[weighting=distdw[momentum=2]]", "weighting distdw: momentum"),
        ("cps[weighting=3]", "takes the name of a weighting, not 3"),
        ("mt[weighting=adsh]", "pseudo-labels changes nothing"),
    ],
)
def test_what_is_refused_says_why(method, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        job(method).canonical()


def test_grids_name_and_exclude_them():
    grid = Grid(
        name="toy",
        recipe=["phantom"],
        labeled=["20%"],
        seeds=[0],
        jobs=[
            {"method": ["cps", "crest", "dhc", "cps[weighting=crest]"]},
            {"method": ["cps"], "set": {"method.weighting": "simis"}},
        ],
        exclude=[{"set": {"method.weighting.b": "distdw"}}],
    )
    assert [found.method for found in grid.expand()] == ["cps", "crest", "simis"]
    assert [found.method for found in grid.expand({"method.weighting": "cld"})] == ["cld"]
    assert grid.expand({"method.weighting": "cld[window=3]"})[0].resolved.layers["weighting.a.window"] == "command line"


def test_a_weighting_is_an_axis_of_grids():
    axes = {"recipe": ["phantom"], "labeled": ["20%"], "seeds": [0]}
    entry = {"method": ["mt", "cps"], "weighting": ["cld", None, "simis", "none"]}
    grid = Grid(name="toy", **axes, jobs=[entry], exclude=[{"method": "mt", "weighting": "simis"}])
    assert [(found.method, found.weighting) for found in grid.expand()] == [
        ("mt", "cld"), ("mt", None), ("cld", None), ("cps", None), ("simis", None),
    ]  # fmt: skip
    one = Grid(name="toy", **axes, jobs=[{"method": "cps", "weighting": {"a": "diffdw", "b": "distdw"}}]).expand()
    assert [found.method for found in one] == ["dhc"]
    left = Grid(name="toy", **axes, jobs=[entry], exclude=[{"weighting": [None, "cld"]}]).expand()
    assert {found.method for found in left} == {"mt", "simis"} and {found.weighting for found in left} == {
        "simis",
        None,
    }


def test_the_experiment_has_a_weighting_for_each_predictor():
    loss = random_experiment(tiny_job("cps[weighting.a=diffdw[window=9]]", "ga")).method.loss
    assert isinstance(loss, Weighted) and [*loss.weightings] == ["a"]
    assert loss.weightings["a"].options.window == 9 and type(loss.inner).title == "GA"
    assert not isinstance(random_experiment(tiny_job("cps")).method.loss, Weighted)


def test_they_are_listed_shown_and_completed():
    assert registry.names("weighting") == NAMES
    facts = describe("weighting", "cld")
    assert facts["changes"] == ["label", "pseudo"] and "MICCAI 2022" in facts["paper"]
    facts = describe("method", "dhc")
    assert (facts["title"], facts["group"], facts["weightings"]) == ("DHC", "Imbalance", {"a": "diffdw", "b": "distdw"})
    assert facts["phases"] and any(deviation.startswith("diffdw: ") for deviation in facts["deviations"])
    from sslbench.cli import completion

    assert offered(completion.settings, "weighting=d") == ["weighting=diffdw", "weighting=distdw"]


@pytest.mark.parametrize("method", ["dhc", "cps[weighting.a=cld[window=2],weighting.b=adsh[capacity=4]]"])
def test_laws_hold_under_weightings(method):
    laws = ("resumes_exactly", "finite_on_background", "learns_from_unlabeled", "blind_at_zero")
    verdicts = check_method(method, dims=("2d",), laws=laws)
    status = {verdict.law: verdict.status for verdict in verdicts}
    assert status.pop("blind_at_zero") == "irrelevant" and {*status.values()} == {"holds"}, verdicts


def test_a_weighting_changes_the_gradient():
    def gradient(method):
        from sslbench.conformance.bench import Subject

        subject = Subject(method)
        return subject.gradients(subject.sure().train(), subject.phases()[0])

    plain, weighted = gradient("cps[on=all]"), gradient("cps[on=all,weighting.a=diffdw]")
    changed = {name.split(".")[0] for name in plain if not torch.equal(plain[name], weighted[name])}
    assert changed == {"a", "loss"}


PAGE = (Path(__file__).parents[1] / "docs/reference/weightings.md").read_text(encoding="utf-8")


def test_the_page_names_every_weighting_and_spells_jobs():
    assert [name for name in NAMES if f"| `{name}` |" not in PAGE] == []
    spelt = sorted(set(re.findall(r"`((?:cps|mt|dhc|depl|dst|basak)(?:\[[^`]+\])?)`", PAGE)))
    assert len(spelt) > 10
    for method in spelt:
        assert job(method).canonical().method
