"""Reading runs: what is left out, what stops, and that nothing changes on the way."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sslbench import load_results
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.runs.collect import COLUMNS, collect, find_runs, records_csv
from sslbench.runs.directory import Run

Write = Callable[..., Path]


def test_one_row_per_job_case_class_metric(write_run: Write, tmp_path: Path) -> None:
    write_run(0.5, method="mt", loss="ga", plugin="scdl", seed=7, settings={"loss.gamma": 0.75, "loss.side": "label"})
    write_run(0.25)
    records = load_results(tmp_path / "results")
    assert list(records.columns) == list(COLUMNS)
    assert len(records) == 2 * 2 * 3 * 2
    row = records[records["method"] == "mt"].iloc[0]
    assert dict(row[["recipe", "labeled", "loss", "plugin", "seed", "dataset", "protocol"]]) == {
        "recipe": "short",
        "labeled": "3-patients",
        "loss": "ga",
        "plugin": "scdl",
        "seed": 7,
        "dataset": "hearts",
        "protocol": "papers",
    }
    assert row["variant"] == "loss.gamma=0.75,loss.side=label"
    assert row["run"] == f"short/3-patients/mt+ga+scdl~loss.gamma=0.75,loss.side=label/seed-7-{row['digest'][:8]}"
    assert (row["case"], row["class"], row["class_id"]) == ("0001", "rv", 1)  # a case id stays text
    assert (row["value"], row["unit"], row["state"], row["ref_voxels"]) == (0.5, "fraction", "both", 50)
    plain = records[records["method"] == "cps"].iloc[0]
    assert (plain["plugin"], plain["variant"]) == ("", "")


def test_any_folder_on_the_way_will_do(write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run()
    expected = load_results(tmp_path / "results")
    for folder in run.parents[:5]:
        pd.testing.assert_frame_equal(load_results(folder), expected)
    pd.testing.assert_frame_equal(load_results(run), expected)
    monkeypatch.chdir(run)
    pd.testing.assert_frame_equal(load_results("."), expected)


def test_excluded_values_are_nan(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [0.5, None], "myo": [1.0, 1.0], "lv": [0.0, 0.5]})
    records = load_results(tmp_path / "results")
    empty = records[records["state"] == "absent"]
    assert len(empty) == 2
    assert empty["value"].isna().all()


def test_only_finished_runs_have_records(write_run: Write, tmp_path: Path) -> None:
    write_run()
    failed = write_run(seed=1, state="failed")
    (failed / "status.json").write_text(json.dumps({"state": "failed", "error": "loss is nan"}))
    (write_run(seed=2, state="running") / "status.json").unlink()
    found = collect(tmp_path / "results")
    assert found.warnings == ()
    assert set(found.records["seed"]) == {0}
    assert [(run.job["seed"], run.state, run.error) for run in found.runs] == [
        (0, "finished", ""),
        (1, "failed", "loss is nan"),
        (2, "pending", ""),
    ]
    assert find_runs(tmp_path / "results") == list(found.runs)


def test_a_csv_of_ours_reads_back_the_same(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [1 / 3, None], "myo": [0.1 + 0.2, 1e-17], "lv": [0.0, 0.5]}, loss="ga", settings={"loss.gamma": 1})
    write_run(0.7, seed=1)
    found = collect(tmp_path / "results")
    path = tmp_path / "records.csv"
    path.write_text(records_csv(found.records))
    again = collect(path)
    pd.testing.assert_frame_equal(again.records, found.records, check_exact=True)
    assert [run.cell for run in again.runs] == [run.cell for run in found.runs]
    assert again.reported == found.reported


DAMAGE = {
    "an empty file": lambda text: "",
    "a header alone": lambda text: text.splitlines()[0] + "\n",
    "another header": lambda text: text.replace("class_id", "klass"),
    "a row cut short": lambda text: text[: text.rindex(",both")],
    "a missing row": lambda text: "\n".join(text.splitlines()[:-1]) + "\n",
    "a row twice": lambda text: text + text.splitlines()[-1] + "\n",
    "a row too long": lambda text: text.replace("both,50,50", "both,50,50,50", 1),
    "text for a number": lambda text: text.replace(",0.5,", ",good,", 1),
    "an infinite value": lambda text: text.replace(",0.5,", ",inf,", 1),
    "a fraction of a voxel": lambda text: text.replace(",50\n", ",50.5\n", 1),
    "two protocols": lambda text: text.replace("papers,", "ours,", 1),
    "no text": lambda text: b"\xff\xfe\x00".decode("latin-1") + text,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_records_are_named_and_left_out(how: str, write_run: Write, tmp_path: Path) -> None:
    path = write_run(seed=3) / "cases.csv"
    write_run(seed=4)
    path.write_bytes(DAMAGE[how](path.read_text()).encode("latin-1"))
    found = collect(tmp_path / "results")
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(f"{path} is left out: ")
    assert "\n" not in found.warnings[0]
    assert set(found.records["seed"]) == {4}
    with pytest.warns(UserWarning, match="left out"):
        load_results(tmp_path / "results")


def test_missing_records_and_unreadable_configurations_are_named(write_run: Write, tmp_path: Path) -> None:
    missing = write_run(seed=0) / "cases.csv"
    missing.unlink()
    broken = [write_run(seed=seed) / "config.yaml" for seed in (1, 2, 3)]
    for path, text in zip(broken, ("a: [", "just text", "job: {method: cps}"), strict=True):
        path.write_text(text)
    found = collect(tmp_path / "results")
    assert [line.split(" is left out")[0] for line in found.warnings] == [*map(str, broken), str(missing)]
    assert found.records.empty
    assert list(found.records.columns) == list(COLUMNS)


def test_a_name_that_disagrees_with_the_configuration_stops(write_run: Write, tmp_path: Path) -> None:
    run = write_run()
    moved = run.rename(run.with_name("seed-0-00000000"))
    with pytest.raises(SSLBenchError, match="seed-0-00000000 is not what its config"):
        load_results(tmp_path / "results")
    config = yaml.safe_load((moved / "config.yaml").read_text())
    again = moved.rename(moved.with_name(f"seed-1-{config['digest'][:8]}"))
    with pytest.raises(SSLBenchError, match=again.name):
        find_runs(tmp_path)


def test_two_copies_of_a_job_stop(write_run: Write, tmp_path: Path) -> None:
    write_run(results=tmp_path / "a")
    write_run(results=tmp_path / "b")
    with pytest.raises(SSLBenchError, match="are the same job"):
        load_results(tmp_path)


def test_nothing_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results in"):
        load_results(tmp_path / "nowhere")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no file of results"):
        load_results(tmp_path / "other.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_results(tmp_path).empty


def test_a_csv_that_mixes_jobs_under_one_run_is_refused(write_run: Write, tmp_path: Path) -> None:
    write_run()
    records = load_results(tmp_path / "results")
    records.loc[0, "method"] = "mt"
    path = tmp_path / "records.csv"
    path.write_text(records_csv(records))
    with pytest.raises(UsageError, match="several jobs"):
        load_results(path)


def test_value_types_survive(write_run: Write, tmp_path: Path) -> None:
    write_run()
    types = load_results(tmp_path / "results").dtypes
    assert types["value"] == "float64"
    assert {str(types[name]) for name in ("seed", "class_id", "ref_voxels", "pred_voxels")} == {"int64"}
    assert math.isclose(load_results(tmp_path / "results")["value"].iloc[0], 0.5)


def test_a_tidy_csv_from_before_the_groups_is_read(write_run: Write, tmp_path: Path) -> None:
    write_run(0.5)
    new = load_results(tmp_path / "results")
    assert (new["group"] == new["case"]).all()
    old = tmp_path / "old.csv"
    new.drop(columns="group").to_csv(old, index=False)
    pd.testing.assert_frame_equal(load_results(old), new)
    contradicting = old.read_text().splitlines()
    place = next(place for place, line in enumerate(contradicting) if ",dsc,0.5," in line)
    contradicting[place] = contradicting[place].replace(",dsc,0.5,", ",dsc,1.5,")
    old.write_text("\n".join(contradicting) + "\n")
    with pytest.raises(UsageError, match=f"contradicts itself on line {place + 1}: .* has dsc 1.5"):
        load_results(old)


def test_the_test_of_another_checkpoint_lies_beside(write_run: Write, tmp_path: Path) -> None:
    both, one = write_run(0.5, seed=1), write_run(0.25, seed=2)
    (both / "last").mkdir()
    last = (both / "cases.csv").read_text().replace("0.5,fraction", "0.75,fraction")
    (both / "last" / "cases.csv").write_text(last)
    own = collect(tmp_path / "results")
    assert set(own.records.query("metric == 'dsc'")["value"]) == {0.5, 0.25} and not own.warnings
    asked = collect(tmp_path / "results", checkpoint="last")
    assert set(asked.records.query("metric == 'dsc'")["value"]) == {0.75}
    assert asked.warnings == (
        f"left out: {Run(one).name} not tested with the weights of last; a recipe asks for that by `checkpoints`",
    )
    # By the rule that its results are of, a run has its own.
    pd.testing.assert_frame_equal(collect(tmp_path / "results", checkpoint="best-val").records, own.records)
    # Under another protocol, what `evaluate` left of these weights.
    (both / "last" / "cases-ours.csv").write_text(last.replace("papers", "ours").replace("0.75", "0.875"))
    under = collect(tmp_path / "results", "ours", "last")
    assert set(under.records.query("metric == 'dsc'")["value"]) == {0.875}
    (both / "last" / "cases.csv").write_text(last[:-5])
    cut = collect(tmp_path / "results", checkpoint="last")
    assert cut.damaged and any("last/cases.csv is left out: it has a row that is cut short" in w for w in cut.warnings)
