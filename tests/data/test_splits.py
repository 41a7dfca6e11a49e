"""Split files: what they must not contain, what their budgets are called, and what the lists count to."""

from __future__ import annotations

import copy

import pytest

from sslbench.data.acdc import ACDC
from sslbench.data.prepare import prepare
from sslbench.data.splits import expand, load_splits, parse_splits
from sslbench.data.store import Store, partition
from sslbench.errors import UnknownNameError, UsageError

RAW = {
    "unit": "patient",
    "train": ["a", "b", "c", "d"],
    "val": ["e"],
    "test": ["f", "g"],
    "budgets": {"1-patient": {"title": "1 patient", "prefix": 1}, "50pct": {"title": "50%", "labeled": ["b", "d"]}},
}


def parsed(**changes):
    return parse_splits({**copy.deepcopy(RAW), **changes}, "acdc", "toy")


def test_lists_and_budgets_are_read_in_their_order():
    splits = parsed()
    assert splits.train == ("a", "b", "c", "d")
    assert splits.budget("50%").labeled == ("b", "d")
    assert splits.budget("1 patient").labeled == ("a",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": ["f", "a"]}, "'a' stands in train and again in test"),
        ({"val": ["e", "f"]}, "'f' stands in val and again in test"),
        ({"train": ["a", "b", "a"]}, "'a' stands in train and again in train"),
        ({"budgets": {"x": {"labeled": ["e"]}}}, "budget x .*'e'"),
        ({"budgets": {"x": {"labeled": ["a", "a"]}}}, "budget x .*repeats"),
        ({"budgets": {"x": {"labeled": []}}}, "budget x is empty"),
        ({"budgets": {"x": {}}}, "budget x is empty"),
    ],
)
def test_overlaps_and_strays_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        parsed(**change)


@pytest.mark.parametrize("text", ["3 patients", "3-patients", "3 volumes", "5%", "5pct", "5.0%", " 3 Patients "])
def test_the_names_of_three_acdc_patients(text):
    assert load_splits("acdc", "ssl4mis").budget(text).labeled == ("patient099", "patient038", "patient050")


@pytest.mark.parametrize("text", ["20%", "20pct", "20.0%"])
def test_the_names_of_twenty_percent_of_synapse(text):
    assert load_splits("synapse", "ga").budget(text).labeled == ("0002", "0023", "0034", "0039")


def test_an_unknown_budget_or_split_is_named():
    with pytest.raises(UnknownNameError, match="30%"):
        load_splits("synapse", "ga").budget("30%")
    with pytest.raises(UnknownNameError, match="gaa"):
        load_splits("synapse", "gaa")


def test_the_published_lists_have_their_published_sizes():
    acdc, synapse = load_splits("acdc", "ssl4mis"), load_splits("synapse", "ga")
    assert [len(part) for part in (acdc.train, acdc.val, acdc.test)] == [70, 10, 20]
    assert {*acdc.train, *acdc.val, *acdc.test} == {f"patient{n:03d}" for n in range(1, 101)}
    assert [len(part) for part in (synapse.train, synapse.val, synapse.test)] == [20, 4, 6]
    assert synapse.test == ("0004", "0007", "0010", "0033", "0035", "0036")
    assert all(set(budget.labeled) <= set(synapse.train) for budget in synapse.budgets.values())


def test_the_phantom_uses_the_lists_of_synapse():
    phantom, synapse = load_splits("phantom", "ga"), load_splits("synapse", "ga")
    assert (phantom.train, phantom.test) == (synapse.train, synapse.test)
    assert phantom.fingerprint("20%") == synapse.fingerprint("20%")


def test_the_fingerprint_follows_the_content():
    splits = parsed()
    assert splits.fingerprint("50%") == parsed().fingerprint("50pct")
    others = [splits.fingerprint("1 patient"), parsed(test=["f"]).fingerprint("50%"), parsed(val=[]).fingerprint("50%")]
    assert len({splits.fingerprint("50%"), *others}) == 4


def test_an_entry_is_a_case_or_all_cases_of_a_patient():
    groups = {"a": ["a1", "a2"], "b": ["b1"], "a1": ["a1"], "a2": ["a2"], "b1": ["b1"]}
    assert expand(["b", "a", "missing"], groups) == ["b1", "a1", "a2"]
    assert expand(["a2", "b"], groups) == ["a2", "b1"]


def test_real_acdc_counts_to_the_published_slices(real_data, tmp_path):
    """The slice counts behind "7 patients" and its like; all 200 volumes take about five seconds."""
    report = prepare("acdc", real_data("acdc"), data_dir=tmp_path, workers=1)
    if report.found < ACDC.official_cases:
        pytest.skip(f"only {report.found} of {ACDC.official_cases} real ACDC frames are here")
    assert report.failed == {}
    store, splits = Store.open(tmp_path, "acdc", "ssl4mis"), load_splits("acdc", "ssl4mis")

    def slices(ids):
        return sum(store.cases[id].shape[0] for id in ids)

    published = {1: 32, 3: 68, 7: 136, 14: 256, 21: 396, 28: 512, 35: 664}
    for patients, count in published.items():
        parts = partition(store, splits, f"{patients} patient{'s' if patients > 1 else ''}")
        assert slices(parts.labeled) == count
        assert slices(parts.unlabeled) == 1312 - count
        assert (len(parts.labeled), len(parts.unlabeled)) == (2 * patients, 140 - 2 * patients)
    whole = partition(store, splits, "100%")
    assert [slices(part) for part in (whole.labeled, whole.validation, whole.test)] == [1312, 210, 380]
    assert [len(part) for part in (whole.unlabeled, whole.validation, whole.test)] == [0, 20, 40]
    assert {"patient090_frame04", "patient090_frame11"} <= set(store.cases)
    # One scan was annotated twice, under two numbers; both are in the training list.
    assert any("patient076_frame01 is the scan of patient074_frame01" in note for note in report.notes)
