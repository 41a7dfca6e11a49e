"""Scoring what lies on disk: folders of label maps and runs, under one protocol or all."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.evaluation.conversion import side_by_side
from sslbench.evaluation.evaluate import Request, evaluate, protocols_of
from sslbench.evaluation.scoring import score
from sslbench.evaluation.subjects import subject_of_folder, subject_of_run
from sslbench.metrics import asd, dice, hd95
from sslbench.metrics.protocol import Protocol
from sslbench.runs.collect import collect
from sslbench.runs.directory import Run
from tests.helpers.command_line import call
from tests.helpers.predictions import IDS

NATIVE = registry.component("protocol", "native")
SEEN = registry.component("protocol", "magicnet")  # on the grid that networks see


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def folders(tmp_path, write_labels):
    """Three cases of two classes, their predictions moved by a voxel; in the last, class 2 is missed."""
    for seed, case in enumerate("abc"):
        rng = np.random.default_rng(seed)
        reference = np.zeros((12, 10, 8), int)
        reference[2:7, 2:8, 1:5] = 1
        reference[8:11, rng.integers(1, 4) : 8, 2:6] = 2
        prediction = np.roll(reference, 1, axis=2)
        if case == "c":
            prediction[prediction == 2] = 0
        write_labels(tmp_path / "refs" / f"{case}.nii.gz", reference)
        write_labels(tmp_path / "preds" / f"{case}.nii", prediction)
    return tmp_path / "preds", tmp_path / "refs"


# --------------------------------------------------------------------------------------------------------- folders


def test_a_folder_scores_what_the_metrics_say_of_its_arrays(folders):
    preds, refs = folders
    found = score(subject_of_folder(preds, refs), [NATIVE])
    assert not found.failed and not found.refused
    table = found.table(NATIVE).set_index(["metric", "class"])
    expected = {"dsc": [], "asd": [], "hd95": []}
    for case in "abc":
        p, r = (np.asarray(nib.load(next(folder.glob(f"{case}.*"))).dataobj) for folder in (preds, refs))
        for metric, function, more in (("dsc", dice, ()), ("asd", asd, ((1, 2, 3),)), ("hd95", hd95, ((1, 2, 3),))):
            expected[metric].append([function(p == k, r == k, *more) for k in (1, 2)])
    for metric, values in expected.items():
        missed = 0.0 if metric == "dsc" else np.linalg.norm([12, 20, 24])
        means = np.where(np.isnan(values), missed, values)
        means[2, 1] = missed
        for k in (1, 2):
            assert table.loc[(metric, str(k)), "value"] == pytest.approx(means[:, k - 1].mean())
    assert table.loc[("dsc", "avg"), "missed"] == 1


def test_records_are_the_same_bytes_whatever_the_workers_and_the_order_of_files(folders, tmp_path):
    preds, refs = folders
    written = []
    for name, workers in (("one", 1), ("two", 2)):
        path = tmp_path / f"{name}.csv"
        places = {"references": refs, "output": path}
        request = Request([str(preds)], [NATIVE, SEEN], tmp_path, tmp_path, workers=workers, **places)
        assert evaluate(request).written == [path]
        written.append(path.read_bytes())
    assert written[0] == written[1]
    for protocol in (NATIVE, SEEN):
        cases = [row["case"] for row in rows(path) if row["protocol"] == protocol.name]
        assert cases[:: 2 * len(protocol.metrics)] == ["a", "b", "c"]


def test_a_reference_without_prediction_is_named_and_no_mean_hides_it(folders, tmp_path):
    preds, refs = folders
    (preds / "b.nii").unlink()
    code, out, err = call("evaluate", str(preds), "--references", str(refs), "-j", "1")
    assert code == 1 and "preds: b: there is no prediction b in" in err.replace("\n", "")
    assert "2 of 3 cases" in out
    code, out, err = call("evaluate", str(preds), "--references", str(refs), "--partial", "-j", "1")
    assert code == 0 and ": 2 cases" in out and "no prediction" not in err


def test_a_prediction_without_reference_is_named(folders, write_labels):
    preds, refs = folders
    write_labels(preds / "z.nii.gz", np.ones((3, 3, 3)))
    subject = subject_of_folder(preds, refs)
    assert list(subject.missing) == ["z"] and "no reference z" in subject.missing["z"]


def test_a_damaged_file_costs_its_own_case_only(folders):
    preds, refs = folders
    (preds / "a.nii").write_bytes((preds / "a.nii").read_bytes()[:400])
    found = score(subject_of_folder(preds, refs), [NATIVE])
    assert list(found.failed) == ["a"] and "a.nii: cannot be read as NIfTI" in found.failed["a"]
    assert {row["case"] for row in found.records["native"]} == {"b", "c"}


def test_classes_are_the_labels_that_occur_or_those_that_are_named(folders, write_labels):
    preds, refs = folders
    subject = subject_of_folder(preds, refs)
    assert (subject.classes, subject.values) == (("1", "2"), (1, 2))
    assert subject_of_folder(preds, refs, ["liver", "spleen"]).classes == ("liver", "spleen")
    found = score(subject_of_folder(preds, refs, ["liver"]), [NATIVE])
    assert "the label values 2 are none of the classes'" in found.failed["a"]
    for folder in folders:
        for path in folder.iterdir():
            image = nib.load(path)
            write_labels(path, 100 * np.asarray(image.dataobj))
    assert subject_of_folder(preds, refs).values == (100, 200)
    again = score(subject_of_folder(preds, refs), [NATIVE])
    assert [row["class"] for row in again.records["native"]][:5] == ["100"] * 4 + ["200"]


def test_predictions_elsewhere_are_resampled_only_on_request(folders, write_labels):
    preds, refs = folders
    expected = score(subject_of_folder(preds, refs), [NATIVE]).records
    for path in preds.iterdir():
        turned = nib.load(path).as_reoriented([[1, -1], [0, 1], [2, -1]])
        write_labels(path, np.asarray(turned.dataobj), turned.affine)
    subject = subject_of_folder(preds, refs)
    assert set(score(subject, [NATIVE]).failed) == {"a", "b", "c"}
    found = score(subject, [NATIVE], geometry="resample")
    assert not found.failed and found.records == expected


def test_the_grid_that_networks_see_is_known_of_prepared_data_only(folders, predicted, store):
    """Elsewhere a protocol that measures on it converts, and says so."""
    plain, prepared = subject_of_folder(*folders), subject_of_folder(predicted, store)
    rows_of = [side_by_side(score(subject, [NATIVE, SEEN]), [NATIVE, SEEN]) for subject in (plain, prepared)]
    assert [[row["converted"] for row in found] for found in rows_of] == [[False, True], [False, False]]
    assert "converted" in rows_of[0][1]["caption"] and "converted" not in rows_of[1][1]["caption"]


def test_a_protocol_of_volumes_does_not_apply_to_pictures(tmp_path, write_labels):
    for folder in ("preds", "refs"):
        write_labels(tmp_path / folder / "a.nii.gz", np.pad(np.ones((4, 4, 1)), ((2, 2), (2, 2), (0, 0))))
    protocols = [NATIVE, registry.component("protocol", "ga")]
    found = score(subject_of_folder(tmp_path / "preds", tmp_path / "refs"), protocols)
    assert found.refused == {"ga": "resizes volumes, and these are images of one slice"} and not found.failed
    assert [row["value"] for row in found.records["native"]] == [1, 1, 0, 0]


def test_a_dataset_lends_references_names_and_the_stored_grid(predicted, store):
    found = score(subject_of_folder(predicted, store), [NATIVE, SEEN])
    names = [info.short for info in store.dataset.classes]
    for protocol in (NATIVE, SEEN):
        expected = []
        for case in IDS:
            labels = np.asarray(nib.load(predicted / f"{case}.nii.gz").dataobj)
            reference, spacing = store.reference(case)
            if protocol is SEEN:
                scan = store.cases[case].geometry
                old, new = scan["from"], scan["to"]
                # The prediction as the reference went: its label nearest to every stored cell's centre, LPS to RAS.
                flipped = labels[::-1, ::-1]
                picks = [
                    np.clip(np.floor((np.arange(t) + 0.5 - t / 2) * b / a + n / 2), 0, n - 1).astype(int)
                    for n, t, a, b in zip(old["shape"], new["shape"], old["spacing_mm"], new["spacing_mm"], strict=True)
                ]
                labels, reference, spacing = flipped[np.ix_(*picks)], store.label(case), store.cases[case].spacing_mm
            expected += [
                {"protocol": protocol.name, "case": case, "group": case, **row}
                for row in protocol.score(labels, reference, names, spacing)
            ]
        assert found.records[protocol.name] == expected


def test_unknown_voxel_sizes_leave_no_distance_in_mm(predicted, store):
    from dataclasses import replace

    subject = replace(subject_of_folder(predicted, store), spacing="unknown")
    found = score(subject, [NATIVE, registry.component("protocol", "native-voxel")])
    assert "nobody knows the size" in found.refused["native"] and list(found.records) == ["native-voxel"]


# ------------------------------------------------------------------------------------------------------------ runs


@pytest.mark.parametrize("own", ["native", "magicnet"])
def test_a_run_scores_what_it_scored_and_its_own_records_stay(own, make_run, data_dir):
    path = make_run(own)
    before = (path / "cases.csv").read_bytes()
    outcome = evaluate(Request([str(path)], [NATIVE, SEEN], data_dir, path))
    other = "magicnet" if own == "native" else "native"
    assert outcome.written == [path / f"cases-{other}.csv"] and not outcome.notes and not outcome.failed
    assert (path / "cases.csv").read_bytes() == before
    own_rows = [{key: str(value) for key, value in row.items()} for row in outcome.scores[0].records[own]]
    for now, was in zip(own_rows, rows(path / "cases.csv"), strict=True):
        assert float(now.pop("value")) == pytest.approx(float(was.pop("value") or "nan"), rel=1e-12, nan_ok=True)
        assert now == was


def test_the_files_are_stable_and_what_report_reads(make_run, data_dir):
    path = make_run("native")
    results = path.parents[4]
    request = Request([str(path)], [SEEN], data_dir, results)
    evaluate(request)
    first = (path / "cases-magicnet.csv").read_bytes()
    evaluate(request)
    assert (path / "cases-magicnet.csv").read_bytes() == first
    frame = collect(results, "magicnet").records
    assert set(frame["protocol"]) == {"magicnet"} and set(frame["case"]) == set(IDS)
    assert set(collect(results).records["protocol"]) == {"native"}
    assert set(collect(results, "native").records["protocol"]) == {"native"}  # the run's own
    unscored = collect(results, "la-uamt")
    assert unscored.records.empty and "not scored under la-uamt yet" in unscored.warnings[0]


def test_the_weights_of_another_rule_are_scored_beside_their_own_records(make_run, data_dir):
    path, other = make_run("native"), make_run("native", seed=1)
    shutil.move(other / "predictions", path / "last" / "predictions")
    (path / "last" / "cases.csv").write_bytes((other / "cases.csv").read_bytes())
    outcome = evaluate(Request([str(path)], [NATIVE, SEEN], data_dir, path, checkpoint="last"))
    assert outcome.written == [path / "last" / "cases-magicnet.csv"] and not outcome.notes and not outcome.failed
    assert outcome.scores[0].subject.title.endswith(", last")
    found = [row["value"] for row in rows(path / "last" / "cases-magicnet.csv")]
    own = evaluate(Request([str(path)], [SEEN], data_dir, path)).scores[0].records["magicnet"]
    assert found != [str(row["value"]) for row in own]
    with pytest.raises(UsageError, match="was not tested with the weights of best-val"):
        evaluate(Request([str(path)], [SEEN], data_dir, path, checkpoint="best-val"))


def test_the_group_of_a_case_is_that_of_the_prepared_data_or_the_case(folders, predicted, store):
    (first, *_) = score(subject_of_folder(*folders), [NATIVE]).records["native"]
    assert (first["case"], first["group"]) == ("a", "a")
    subject = subject_of_folder(predicted, store)
    renamed = [replace(pair, group=f"patient of {pair.case}") for pair in subject.pairs]
    found = score(replace(subject, pairs=tuple(renamed)), [NATIVE]).records["native"]
    assert {row["group"] for row in found} == {f"patient of {case}" for case in IDS}
    assert {pair.group for pair in subject.pairs} == {store.cases[case].group for case in IDS}


def test_records_that_no_longer_agree_are_written_beside_and_told(make_run, data_dir):
    path = make_run("native")
    text = (path / "cases.csv").read_text()
    line = next(line for line in text.splitlines() if ",asd," in line and ",both," in line)
    parts = line.split(",")
    parts[6] = "0.5"
    changed = text.replace(line, ",".join(parts))
    (path / "cases.csv").write_text(changed)
    outcome = evaluate(Request([str(path)], [NATIVE], data_dir, path))
    assert "cases.csv differs" in outcome.notes[0] and f"{parts[1]}, {parts[4]}, asd: 0.5, now" in outcome.notes[0]
    assert (path / "cases.csv").read_text() == changed
    written = [row["value"] for row in rows(path / "cases-native.csv")]
    assert [float(value or "nan") for value in written] == pytest.approx(
        [float(line.split(",")[6] or "nan") for line in text.splitlines()[1:]], rel=1e-12, nan_ok=True
    )


@pytest.mark.parametrize("gone", ["0002.nii.gz", "preprocessed/0002.nii.gz"])
def test_a_run_that_lost_a_prediction_keeps_no_incomplete_records(gone, make_run, data_dir):
    path = make_run("native")
    (path / "predictions" / gone).unlink()
    outcome = evaluate(Request([str(path)], [SEEN], data_dir, path))
    assert not outcome.written and not (path / "cases-magicnet.csv").exists()
    ((what, why),) = outcome.failed.items()
    assert what.endswith(": 0002") and why.endswith("is missing")
    row = side_by_side(outcome.scores[0], [SEEN])[0]
    assert (row["cases"], row["expected"]) == (2, 3)


def test_a_run_can_be_held_against_a_folder_of_references(make_run, store, tmp_path):
    path = make_run("native")
    run = Run(path)
    references = store.folder / "references"
    found = score(subject_of_run(run, tmp_path / "nothing", references), [NATIVE])
    assert [row["value"] for row in found.records["native"]] == pytest.approx(
        [float(row["value"] or "nan") for row in rows(path / "cases.csv")], rel=1e-12, nan_ok=True
    )


def test_other_prepared_data_are_told(make_run, data_dir):
    path = make_run("native")
    (path / "provenance.json").write_text(json.dumps({"data": {"fingerprint": "other"}}))
    outcome = evaluate(Request([str(path)], [SEEN], data_dir, path))
    assert any("are not those that it was tested on" in note for note in outcome.notes)


def test_a_results_folder_stands_for_its_finished_runs(make_run, data_dir):
    paths = [make_run(seed=0), make_run(seed=1)]
    make_run(seed=2, state="interrupted")
    results = paths[0].parents[4]
    outcome = evaluate(Request([str(results), str(paths[0])], [SEEN], data_dir, results))
    assert outcome.written == [path / "cases-magicnet.csv" for path in paths]
    assert any("1 of 3 runs are not finished" in note and "seed-2" in note for note in outcome.notes)


def test_a_run_that_cannot_be_scored_does_not_stop_the_others(make_run, data_dir):
    good, bad = make_run(seed=0), make_run(seed=1)
    (bad / "cases.csv").write_text("nonsense")
    results = good.parents[4]
    outcome = evaluate(Request([str(results)], [SEEN], data_dir, results))
    assert outcome.written == [good / "cases-magicnet.csv"]
    assert any("seed-1" in what for what in outcome.failed)
    with pytest.raises(SSLBenchError, match="left out"):
        evaluate(Request([str(bad)], [SEEN], data_dir, results))


def test_an_unfinished_run_named_as_such_is_an_error(make_run, data_dir):
    path = make_run(state="failed")
    with pytest.raises(SSLBenchError, match="is failed, not finished"):
        evaluate(Request([str(path)], [SEEN], data_dir, path))


# -------------------------------------------------------------------------------------------------- conversion table


def test_every_protocol_has_a_row_that_says_what_it_means(predicted, store):
    protocols = protocols_of([], every=True)
    assert {"native", "ga", "ssl4mis", "la-uamt"} <= {protocol.name for protocol in protocols}
    found = side_by_side(score(subject_of_folder(predicted, store), protocols), protocols)
    assert [row["protocol"] for row in found] == [protocol.name for protocol in protocols]
    for row, protocol in zip(found, protocols, strict=True):
        assert row["grid"] and row["empty"] and row["caption"].startswith(f"Protocol {protocol.name} ")
        if "intersection" in protocol.postprocess:
            assert "several networks" in row["why"]
            continue
        assert set(row["averages"]) == set(protocol.metrics)
        assert row["cases"] == row["expected"] == len(IDS) - protocol.skip_cases <= row["missed"]
        assert len(row["classes"]) == 13 + protocol.background
        means = [line["dsc"] for line in row["classes"] if line["dsc"] is not None]
        assert row["averages"]["dsc"] == pytest.approx(np.mean(means))


def test_what_protocols_share_is_measured_once_and_changes_nothing(predicted, store):
    from dataclasses import replace

    whole = subject_of_folder(predicted, store)
    subject = replace(whole, pairs=whole.pairs[:1])
    protocols = protocols_of([], every=True)
    together = score(subject, protocols).records
    for protocol in protocols:
        if protocol.name in together:
            assert str(score(subject, [protocol]).records[protocol.name]) == str(together[protocol.name])


def test_the_table_and_its_json_on_the_command_line(make_run, data_dir, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    path = make_run("native")
    places = ("--data-dir", str(data_dir), "--results-dir", str(path.parents[4]), "-j", "1")
    code, out, err = call("evaluate", str(path), "--all-protocols", *places)
    assert code == 0, err
    assert "160×160×80" in out and "absent 1, 0; missed 0, 128; no distance beyond 128" in out
    code, out, _ = call("evaluate", str(path), "--protocol", "ga,native", "--json", *places)
    content = json.loads(out)
    assert code == 0 and [row["protocol"] for row in content["scores"]] == ["ga", "native"]
    assert content["failed"] == {} and len(content["scores"][0]["classes"]) == 13
    code, out, _ = call("evaluate", str(path.parents[4]), *places)
    assert code == 0 and "Protocol native" in out


# ------------------------------------------------------------------------------------------------------------ usage


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["{preds}"], "label maps need references", "--references DIR"),
        (["{preds}", "--references", "{refs}", "--dataset", "acdc"], "do not go together", "what to score against"),
        (["{preds}", "--references", "nowhere"], "nowhere is no folder", "label maps"),
        (["{preds}", "--references", "{empty}"], "no prediction in", "references: none"),
        (["{empty}", "--references", "{refs}"], "holds neither runs nor label maps", ".nii.gz"),
        (["{preds}", "--references", "{refs}", "--protocol", "nativ"], "unknown protocol 'nativ'", "native"),
        (["{preds}", "--references", "{refs}", "--protocol", "ga", "--all-protocols"], "do not go together", ""),
        (["{preds}", "--references", "{refs}", "--resample", "--ignore-affine"], "do not go together", ""),
        (["{preds}", "{refs}", "--references", "{refs}", "-o", "a.csv"], "-o takes the records of one folder", ""),
        (["{preds}", "--preprocessing", "x", "--references", "{refs}"], "--preprocessing needs --dataset", ""),
        (["{preds}", "--references", "{refs}", "--checkpoint", "last"], "--checkpoint is for runs", ""),
        (["{preds}", "--references", "{refs}", "--checkpoint", "first"], "unknown checkpoint rule 'first'", "last"),
        (["{preds}", "--dataset", "acdc"], "acdc has not been prepared", "sslbench prepare acdc"),
        (["nogrid"], "unknown grid 'nogrid'", ""),
        (["{preds}/a.nii"], "is no folder", "a run directory"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, message, hint, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"preds": folders[0], "refs": folders[1], "empty": tmp_path / "empty"}
    code, _, err = call("evaluate", *(argument.format(**places) for argument in arguments), "-j", "1")
    err = err.replace("\n", " ")
    assert code == 2 and message in err and hint in err


def test_options_of_folders_are_refused_for_runs(make_run, data_dir):
    path = make_run()
    for more in ({"partial": True}, {"output": Path("a.csv")}, {"classes": ["a"]}, {"dataset": "synapse"}):
        with pytest.raises(UsageError, match="is for folders of label maps"):
            evaluate(Request([str(path)], [SEEN], data_dir, path, **more))


def test_two_files_of_one_name_are_refused(folders, write_labels):
    preds, refs = folders
    write_labels(preds / "a.nii.gz", np.ones((3, 3, 3)))
    with pytest.raises(UsageError, match="is a second a"):
        subject_of_folder(preds, refs)


def test_protocols_of_a_call_stand_once_each():
    assert [protocol.name for protocol in protocols_of(["ga", "native", "ga"], every=False)] == ["ga", "native"]
    assert all(isinstance(protocol, Protocol) for protocol in protocols_of([], every=True))
