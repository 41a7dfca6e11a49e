"""Split files: what they must not contain, what their budgets are called, and what the lists count to."""

from __future__ import annotations

import copy
import hashlib
import json
import os

import pytest

from sslbench.config.splits import (
    check_entries,
    draw_splits,
    expand,
    in_drawn_order,
    load_splits,
    parse_splits,
    read_split_file,
    split_files,
    with_budgets,
    write_splits,
)
from sslbench.config.text import load_yaml
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.data.datasets.acdc import ACDC
from sslbench.data.prepare import prepare
from sslbench.data.store import Store, partition

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


# ------------------------------------------------------------------------------------------------- lists of one's own

PATIENTS = {f"p{number:02d}": [f"p{number:02d}_a", f"p{number:02d}_b"] for number in range(30)}


def drawn(patients=PATIENTS, **how):
    return draw_splits("mine", "drawn-0", patients, **how)


@pytest.mark.parametrize("seed", range(5))
def test_drawn_lists_are_disjoint_complete_and_nested(seed):
    lists = drawn(seed=seed)
    assert sorted((*lists.train, *lists.val, *lists.test)) == sorted(PATIENTS)
    assert (len(lists.train), len(lists.val), len(lists.test)) == (21, 3, 6)
    sizes = {title: len(lists.budget(title).labeled) for title in ("5%", "10%", "20%", "100%")}
    assert sizes == {"5%": 1, "10%": 2, "20%": 4, "100%": 21}, "a share is never exceeded: 4.2 are 4"
    inner, *outer = ({*budget.labeled} for budget in lists.budgets.values())
    for larger in outer:
        assert inner < larger
        inner = larger
    assert lists.labeled_always() == lists.budget("5%").labeled == lists.budget("1 patient").labeled


def test_drawn_lists_are_a_function_of_names_and_seed():
    """Not of the order of files, a platform, or a generator that may change: written down here."""
    assert drawn(patients=dict(reversed(PATIENTS.items()))) == drawn()
    assert drawn(seed=1).test != drawn().test
    assert in_drawn_order(["a", "b", "c", "d"], 0) == sorted(
        "abcd", key=lambda name: hashlib.sha256(f"0/{name}".encode()).hexdigest()
    )
    assert drawn().test == ("p12", "p29", "p05", "p28", "p25", "p21")


def test_given_test_patients_are_the_test_set():
    lists = drawn(test=["p00", "p01"])
    assert set(lists.test) == {"p00", "p01"}
    assert (len(lists.train), len(lists.val)) == (24, 4), "28 in the ratio 70 to 10: 3.5 are 4"
    assert set(in_drawn_order(PATIENTS, 0)) - {"p00", "p01"} == {*lists.train, *lists.val}


def test_fractions_and_budgets_are_the_users():
    lists = drawn(fractions=(0.5, 0, 0.5), budgets=("3", "20%", "1%", "100%"))
    assert (len(lists.train), lists.val, len(lists.test)) == (15, (), 15)
    assert list(lists.budgets) == ["3-patients", "100pct"], "1 % is nobody, 20 % are the same three"
    assert lists.budget("3 patients").labeled == lists.train[:3]


def test_of_few_patients_one_is_a_budget():
    lists = drawn(patients={name: [name] for name in "abcdef"})
    assert {title: len(budget.labeled) for title, budget in lists.budgets.items()} == {"1-case": 1, "100pct": 4}
    assert len(drawn(patients={name: [name] for name in "abc"}).budgets) == 1, "of one patient there is no part"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"fractions": (70, 30)}, "three numbers"),
        ({"fractions": (0, 50, 50)}, "three numbers"),
        ({"fractions": (80, 20, 0)}, "three numbers"),
        ({"fractions": (80, -10, 30)}, "three numbers"),
        ({"patients": {"a": ["a"], "b": ["b"]}}, "do not go round"),
        ({"patients": {"a": ["a"], "b": ["b"]}, "test": ["a", "b"]}, "do not go round"),
        ({"budgets": ("some",)}, "'some'"),
        ({"budgets": ("120%",)}, "'120%'"),
        ({"budgets": ("1.5",)}, "'1.5'"),
        ({"budgets": ("40",)}, "'40'"),
        ({"budgets": ("1%",)}, "none of the budgets 1%"),
    ],
)
def test_lists_that_cannot_be_drawn_are_refused(how, message):
    with pytest.raises(UsageError, match=message):
        drawn(**how)


def test_what_is_written_is_read_again(tmp_path):
    lists = drawn()
    write_splits(tmp_path / "drawn-0.yaml", lists)
    assert parse_splits(load_yaml(tmp_path / "drawn-0.yaml"), "mine", "drawn-0") == lists
    # Budgets that are no prefix, names that YAML would read as numbers.
    odd = parse_splits(
        {**RAW, "train": ["0010", "1e3", "c"], "budgets": {"x": {"labeled": ["c"]}, "y": {"prefix": 2}}}, "mine", "odd"
    )
    write_splits(tmp_path / "odd.yaml", odd)
    assert parse_splits(load_yaml(tmp_path / "odd.yaml"), "mine", "odd") == odd


def test_budgets_of_given_lists_are_drawn_by_patient():
    lists = parse_splits({"train": ["p01_b", "p01_a", "p02_a", "p03_a"], "test": ["p04"]}, "mine", "given")
    patient_of = {case: patient for patient, cases in PATIENTS.items() for case in cases}
    made = with_budgets(lists, patient_of, budgets=("1", "2", "100%"))
    first = in_drawn_order(["p01", "p02", "p03"], 0)
    assert made.budget("1 case").labeled == tuple(entry for entry in lists.train if patient_of[entry] == first[0])
    assert set(made.budget("1 case").labeled) < set(made.budget("2 cases").labeled)
    assert made.budget("100%").labeled == lists.train


def test_a_users_file_is_yaml_or_json_and_is_called_as_the_file_is(tmp_path):
    content = {"train": ["a"], "test": ["b"]}
    for name, text in (("My Lists.yaml", "train: [a]\ntest: [b]\n"), ("own.json", json.dumps(content))):
        (tmp_path / name).write_text(text)
    assert read_split_file(tmp_path / "My Lists.yaml") == {"my-lists": content | {"source": "My Lists.yaml"}}
    assert read_split_file(tmp_path / "own.json") == {"own": content | {"source": "own.json"}}
    assert read_split_file(tmp_path / "own.json", ["t"])["own"]["test"] == ["b"], "the file knows better"


def test_folds_of_nnunet_test_on_what_they_score(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}, {"train": ["a", "c"], "val": ["b"]}]))
    folds = read_split_file(path)
    assert list(folds) == ["fold-0", "fold-1"]
    assert (folds["fold-1"]["train"], folds["fold-1"]["test"], "val" in folds["fold-1"]) == (["a", "c"], ["b"], False)
    set_aside = read_split_file(path, ["t"])["fold-0"]
    assert (set_aside["val"], set_aside["test"]) == (["c"], ["t"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.yaml", "train: [a]\nvalidation: [b]\n", "validation"),
        ("x.yaml", "- a\n", "holds no mapping"),
        ("x.json", "{", "not valid JSON"),
        ("x.json", "[]", "no list of folds"),
        ("x.json", '[{"train": []}]', "no list of folds"),
        ("x.json", '"a"', "no list of folds"),
        ("---.yaml", "train: [a]\n", "has no letter"),
    ],
)
def test_a_users_file_that_is_none_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_split_file(tmp_path / name)
    with pytest.raises(UsageError, match="no split file"):
        read_split_file(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"train": "a"}, "train is a list of names, not 'a'"),
        ({"train": {"a": 1}}, "train is a list of names"),
        ({"train": ["a", ["b"]]}, "train is a list of names"),
        ({"train": ["a", 1]}, "train holds 1, which is no name"),
        ({"budgets": ["20%"]}, "budgets is a mapping"),
        ({"budgets": {"20%": ["a"]}}, "budget 20pct is a mapping"),
        ({"budgets": {"20%": {"prefix": 9}}}, "prefix 9 of 4"),
        ({"budgets": {"20%": {"prefix": "2"}}}, "prefix '2'"),
        ({"budgets": {"20%": {"labeled": "a"}}}, "budget 20pct is a list"),
    ],
)
def test_lists_of_the_wrong_kind_are_refused_in_one_line(raw, message):
    with pytest.raises(UsageError, match=message):
        parsed(**raw)


def test_lists_are_held_against_the_cases():
    patient_of = {case: patient for patient, cases in PATIENTS.items() for case in cases}

    def check(**parts):
        lists = {"train": ["p00", "p01_a"], "val": [], "test": ["p02"]} | parts
        check_entries(parse_splits(lists, "mine", "toy"), patient_of, others=["published"])

    check()
    check(val=["published"])
    for parts, message in (
        ({"train": ["p00", "p77"]}, "unknown case in train of splits toy of mine: 'p77'"),
        ({"test": ["p01_b"]}, r"p01_a \(train\) and p01_b \(test\) are of patient p01"),
        ({"test": ["p00_a"]}, r"p00 \(train\) and p00_a \(test\) are of patient p00"),
        ({"test": []}, "test names no case"),
        ({"train": []}, "train names no case"),
    ):
        with pytest.raises(UsageError, match=message):
            check(**parts)


def test_a_users_lists_are_found_behind_the_packaged_ones(tmp_path):
    for name, test in (("mine", "0004"), ("ga", "0004")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"train: ['0001', '0002']\ntest: ['{test}']\nbudgets: {{50%: {{prefix: 1}}}}\n")
    try:
        registry.keep_files("splits", {f"synapse/{name}": tmp_path / f"{name}.yaml" for name in ("mine", "ga")})
        assert load_splits("synapse", "mine").budget("50%").labeled == ("0001",)
        assert load_splits("phantom", "mine").test == ("0004",), "whose lists are Synapse's"
        assert len(load_splits("synapse", "ga").train) == 20
        assert "mine" in split_files("synapse") and "mine" not in split_files("acdc")
        time = (tmp_path / "mine.yaml").stat().st_mtime_ns + 10**9
        (tmp_path / "mine.yaml").write_text("train: ['0001', '0002']\ntest: ['0007']\n")
        os.utime(tmp_path / "mine.yaml", ns=(time, time))
        assert load_splits("synapse", "mine").test == ("0007",), "a changed file is read again"
    finally:
        registry.keep_files("splits", {})
    with pytest.raises(UnknownNameError):
        load_splits("synapse", "mine")
