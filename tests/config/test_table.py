"""What a grid says about its table: refused before any job starts, and nothing of it reaches a job."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from sslbench.config.grid import Grid, load_grid
from sslbench.config.places import place_of
from sslbench.config.table import ColumnSpec
from sslbench.core.errors import UsageError

ACDC = {"recipe": "ssl4mis-acdc", "labeled": "5%", "seeds": [0]}


def grid(*jobs: dict[str, Any], table: dict[str, Any] | None = None, **more: Any) -> Grid:
    return Grid(**{"name": "g", **ACDC, "jobs": list(jobs), "table": table or {}} | more)


def one(**entry: Any) -> dict[str, Any]:
    return {"method": "cps", **entry}


@pytest.mark.parametrize(
    ("text", "metric", "classes"),
    [("dsc", "dsc", None), ("dsc/class", "dsc", ()), ("dsc/ES, rag", "dsc", ("es", "rag")), ("gain", "gain", None)],
)
def test_columns_are_read(text: str, metric: str, classes: tuple[str, ...] | None) -> None:
    assert ColumnSpec.read(text) == ColumnSpec(metric, classes)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"columns": ["dsc", "dsc/es"]}, "unknown class in the table column 'dsc/...': 'es'"),
        ({"columns": ["dsc/class", "dsc/rv"]}, "'dsc/rv' stands twice"),
        ({"columns": {"by": "class", "metrics": ["dsc", "dice"]}}, "unknown table column 'dice'"),
        ({"columns": ["gain", "dsc"]}, "the first table column is `gain`"),
        ({"columns": ["hours"]}, "the first table column is `hours`"),
        ({"columns": ["dsc", "dsc/head"]}, "'dsc/head' has no classes: acdc has 3"),
        ({"lens": {"head": ["rv"], "tail": ["es"]}}, "unknown class in `lens: tail`: 'es'"),
        ({"baseline": "mt+ga"}, "unknown baseline 'mt+ga'"),
        ({"baseline": "nothing"}, "unknown method 'nothing'"),
        ({"baseline": "cps+ga+scdl+scdl"}, "baseline 'cps+ga+scdl+scdl' names no row"),
        ({"decimals": {"hd95": 2}}, "unknown column in `decimals`: 'hd95'"),
        ({"blocks": "labeled"}, "no recipe of the grid has two"),
        ({"blocks": "dataset"}, "the grid has acdc alone"),
        ({"together": ["recipe"]}, "no dataset of the grid has two"),
        ({"of": "ga:T3"}, "none of its jobs is a row of ga:T3"),
    ],
)
def test_a_table_that_its_jobs_cannot_fill_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        grid(one(set={"schedule.iterations": 7}), table=table).expand()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"of": "ga:T9"}, "unknown published table 'ga:T9'"),
        ({"order": "print"}, "needs `of`"),
        ({"of": "ga:T3", "groups": ["GA"]}, "`groups` orders nothing"),
        ({"order": "file", "groups": ["GA"]}, "`groups` orders nothing"),
        ({"lens": {"head": ["rv"], "tail": ["RV"]}}, "rv stands twice"),
        ({"lens": {"head": [], "tail": ["rv"]}}, "at least 1 item"),
        ({"marks": ["second"]}, "best, second, third in this order"),
        ({"columns": "dsc"}, "columns are a list"),
        ({"columns": {"by": "case", "metrics": ["dsc"]}}, "columns are a list"),
        ({"decimals": {"dsc": 9}}, "less than or equal to 6"),
        ({"blocks": "seeds"}, "'labeled' or 'dataset'"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_on_reading(tmp_path, table: dict[str, Any], words: str) -> None:
    refused(tmp_path, {"jobs": [one()], "table": table}, words)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (one(method=["cps", "mt"], loss=["default", "ga"], **{"as": ["A", "B"]}), "names 2 rows, but the entry has 4"),
        (one(loss="ga[gamma=1]", vary={"loss.gamma": [0.5, 1]}), "loss.gamma is both set and varied"),
        (one(loss="ga", set={"loss": {"gamma": 1}}, vary={"loss.gamma": [0.5, 1]}), "both set and varied"),
        (one(weighting="diffdw", vary={"method.weighting.a": ["distdw"]}), "both set and varied"),
        (one(loss="ga", vary={"loss.gamma": []}), "gives loss.gamma no value"),
        (one(loss="ga", vary={"loss.gamma": [1, 1]}), "the value 1 twice"),
        (one(loss="ga", vary={"loss.gamma": 1}), "valid list"),
        (one(heeding="x"), "did you mean jobs.heading"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused_on_reading(tmp_path, entry: dict[str, Any], words: str) -> None:
    refused(tmp_path, {"jobs": [entry]}, words)


def refused(tmp_path, content: dict[str, Any], words: str) -> None:
    (tmp_path / "g.yaml").write_text(yaml.safe_dump({**ACDC, **content}))
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        load_grid(str(tmp_path / "g.yaml"))
    assert "\n" not in str(caught.value)


def test_what_varies_is_no_other_way_to_set() -> None:
    varied = one(loss="ga", vary={"loss.gamma": [1, 0.5]})
    with pytest.raises(UsageError, match=r"loss\.gamma is varied, and grid g sets it"):
        grid(varied, set={"loss.gamma": 1}).expand()
    with pytest.raises(UsageError, match="the command line sets it"):
        grid(varied).expand({"loss.gamma": 1})
    with pytest.raises(UsageError, match=r"loss.gamma=1 and loss.gamma=1\.0 in `vary` are one job"):
        grid(one(loss="ga", vary={"loss.gamma": [1, 1.0]})).expand()
    with pytest.raises(UsageError, match="did you mean gamma"):
        grid(one(loss="ga", vary={"loss.gama": [1]})).expand()


def test_what_varies_makes_the_jobs_that_it_spells() -> None:
    """The default too, and what has a preset's name; in the order of the file."""
    values = [1, 0.75, 0.5]
    spelt = [one(loss=f"ga[gamma={value}]") for value in values]
    varied = grid(one(loss="ga", vary={"loss.gamma": values}), seeds=[0, 1]).expand()
    assert varied == grid(*spelt, seeds=[0, 1]).expand()
    assert len({job.digest() for job in varied}) == 3
    assert [place_of(job).varied["loss.gamma"] for job in varied[::2]] == values
    both = grid(one(loss="ga", vary={"loss": {"gamma": [1, 0]}, "optimizer.lr": [0.1, 0.2]})).expand()
    assert [tuple(place_of(job).varied.values()) for job in both] == [(1, 0.1), (1, 0.2), (0, 0.1), (0, 0.2)]


def test_presentation_changes_no_job() -> None:
    plain = grid(one(), one(method="mt")).expand()
    table = {"order": "file", "columns": ["dsc"], "marks": [], "decimals": {"dsc": 1}, "notes": "short"}
    shown = grid(one(heading="H", note="n", **{"as": "X"}), one(method="mt"), table=table).expand()
    assert shown == plain
    assert [job.digest() for job in shown] == [job.digest() for job in plain]
    assert [job.model_dump() for job in shown] == [job.model_dump() for job in plain]
    assert (place_of(shown[0]).label, place_of(shown[0]).heading, place_of(shown[0]).note) == ("X", "H", "n")


def test_seeds_of_a_job_resolve_to_what_each_would() -> None:
    """Only the first is resolved."""
    for job in grid(one(loss="ga"), seeds=[0, 1, 2]).expand():
        alone = type(job)(**job.model_dump())
        assert job.resolved.job == alone.resolved.job
        assert (job.digest(), job.directory) == (alone.digest(), alone.directory)


def test_a_row_of_print_is_found_by_its_job_alone() -> None:
    entries = [one(loss="ga"), {"method": "supervised", "labeled": "100%"}, one(method="mcnet")]
    jobs = grid(*entries, table={"of": "ga:T3"}).expand()
    printed = grid(*entries, table={"of": "ga:T3"}).table.published
    places = [place_of(job).printed for job in jobs]
    assert printed is not None
    assert [place is not None and printed.rows[place].label for place in places] == ["GA-CPS", "U-Net (fully)", False]
    # A shorter training is another job, but the same row.
    short = grid(*entries, table={"of": "ga:T3"}).expand({"schedule.iterations": 7})
    assert [place_of(job).printed for job in short] == places


def test_rows_that_stand_together_share_their_columns() -> None:
    jobs = {"method": "cps", "labeled": "20%", "recipe": ["ga-synapse", "dhc-synapse"]}
    own = {"recipe": [], "labeled": []}
    grid(jobs, table={"together": ["recipe"], "columns": ["dsc"]}, **own).expand()
    with pytest.raises(UsageError, match="unknown table column 'hd95'"):
        grid(jobs, table={"together": ["recipe"], "columns": ["dsc", "hd95"]}, **own).expand()
    both = [one(), {"method": "cps", "recipe": "metassl-acdc", "labeled": "1 volume"}]
    with pytest.raises(UsageError, match="'asd' is not for rows of metassl-acdc: its protocol metassl"):
        grid(*both, table={"together": ["recipe"], "columns": ["dsc", "asd"]}).expand()


def test_datasets_side_by_side_have_one_budget_and_one_recipe_each() -> None:
    synapse = {"method": "cps", "labeled": "20%", "recipe": "ga-synapse"}
    amos = {"method": "cps", "labeled": "5%", "recipe": "ga-amos"}
    own = {"recipe": [], "labeled": []}
    table = {"blocks": "dataset"}
    assert len(grid(synapse, amos, table=table, **own).expand()) == 2
    with pytest.raises(UsageError, match="label budgets of synapse"):
        grid(synapse, amos, synapse | {"labeled": "10%"}, table=table, **own).expand()
    other = synapse | {"recipe": "dhc-synapse"}
    with pytest.raises(UsageError, match=r"recipes of synapse.*`together: \[recipe\]` joins them"):
        grid(synapse, amos, other, table=table, **own).expand()
    grid(synapse, amos, other, table=table | {"together": ["recipe"]}, **own).expand()
