"""The published lists: their sizes, budgets, overlaps and leaks are those of the papers and their public files."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import yaml

import sslbench.data
from sslbench.config.job import Job
from sslbench.config.splits import (
    LEAKING,
    Splits,
    check_entries,
    load_splits,
    parse_splits,
    read_split_file,
    write_splits,
)
from sslbench.config.text import load_yaml
from sslbench.core.errors import UsageError

FOLDER = Path(sslbench.__file__).parent / "splits"

# Entries of train, validation and test, and of every budget.
SIZES = {
    "acdc-ssl4mis": (
        (70, 10, 20),
        {f"{n}-patient{'s' if n > 1 else ''}": n for n in (1, 3, 7, 14, 21, 28, 35)} | {"100pct": 70},
    ),
    "amos-20pct-leaking": ((192, 24, 120), {"20pct": 38, "100pct": 192}),
    "amos-dhc": ((216, 24, 120), {"2pct": 4, "5pct": 10, "10pct": 21, "100pct": 216}),
    "digestpath-cdma-leaking": ((100, 10, 20), {"5pct": 5, "10pct": 10, "100pct": 100}),
    "digestpath-slide-disjoint": ((100, 3, 9), {"5pct": 5, "10pct": 10, "100pct": 100}),
    "la-uamt": ((80, 0, 20), {"2-scans": 2, "4-scans": 4, "8-scans": 8, "16-scans": 16, "100pct": 80}),
    "la-uamt-val8": ((72, 8, 20), {"2-scans": 2, "4-scans": 4, "8-scans": 8, "16-scans": 16, "100pct": 72}),
    "synapse-dhc-2024": ((20, 4, 6), {"10pct": 2, "20pct": 4, "40pct": 8, "100pct": 20}),
    "synapse-ga": ((20, 4, 6), {"10pct": 2, "20pct": 4, "40pct": 8, "100pct": 20}),
    "synapse-genericssl": ((20, 4, 6), {"20pct": 4, "100pct": 20}),
}
SYNAPSE = {f"{number:04d}" for number in (*range(1, 11), *range(21, 41))}


def lists(file: str) -> Splits:
    """The lists of a packaged file, whether or not its dataset can be loaded."""
    dataset, _, name = file.partition("-")
    return parse_splits(load_yaml(FOLDER / f"{file}.yaml"), dataset, name)


def slide(stem: str) -> str:
    """The slide of a DigestPath image: what its name says before the time of the scan."""
    return stem[: stem.index("_20", 4)]


def test_every_packaged_list_is_tested_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(SIZES)


@pytest.mark.parametrize("file", SIZES)
def test_the_lists_and_budgets_have_their_published_sizes(file):
    splits = lists(file)
    sizes, budgets = SIZES[file]
    assert (len(splits.train), len(splits.val), len(splits.test)) == sizes
    assert {slug: len(budget.labeled) for slug, budget in splits.budgets.items()} == budgets
    assert splits.source, "facts carry their source"
    assert splits.budget("100%").labeled == splits.train
    assert len({*splits.train}) == len(splits.train)


@pytest.mark.parametrize("file", SIZES)
def test_a_name_means_one_budget(file):
    named = Counter(
        name.lower() for budget in lists(file).budgets.values() for name in (budget.slug, budget.title, *budget.aliases)
    )
    assert max(named.values()) == 1


# ------------------------------------------------------------------------------------------------------- nesting


@pytest.mark.parametrize("file", [file for file in SIZES if file.startswith(("acdc", "la", "digestpath"))])
def test_the_budgets_of_acdc_la_and_digestpath_are_nested(file):
    labeled = sorted((set(budget.labeled) for budget in lists(file).budgets.values()), key=len)
    assert all(small < large for small, large in pairwise(labeled))


@pytest.mark.parametrize(
    ("file", "shared"),
    [
        (
            "synapse-ga",
            {("10pct", "20pct"): {"0023"}, ("10pct", "40pct"): {"0023"}, ("20pct", "40pct"): {"0002", "0023"}},
        ),
        (
            "synapse-dhc-2024",
            {("10pct", "20pct"): set(), ("10pct", "40pct"): set(), ("20pct", "40pct"): {"0023", "0028"}},
        ),
        ("amos-dhc", {("2pct", "5pct"): set(), ("2pct", "10pct"): {"0361"}, ("5pct", "10pct"): set()}),
    ],
)
def test_the_budgets_of_the_dhc_family_are_not_nested(file, shared):
    budgets = {slug: set(budget.labeled) for slug, budget in lists(file).budgets.items() if slug != "100pct"}
    assert {(a, b): budgets[a] & budgets[b] for a, b in combinations(budgets, 2)} == shared


# ------------------------------------------------------------------------------------------------------- synapse


@pytest.mark.parametrize("name", ["ga", "dhc-2024", "genericssl"])
def test_every_synapse_list_parts_the_thirty_scans(name):
    splits = load_splits("synapse", name)
    assert {*splits.train, *splits.val, *splits.test} == SYNAPSE
    assert load_splits("phantom", name).train == splits.train


def test_the_test_lists_of_synapse_share_a_single_scan():
    old, new, other = (set(lists(f"synapse-{name}").test) for name in ("ga", "dhc-2024", "genericssl"))
    assert old & new == {"0033"}
    assert new == other
    assert set(lists("synapse-dhc-2024").train) != set(lists("synapse-genericssl").train)


# ---------------------------------------------------------------------------------------------------------- amos


def amos_digest(ids) -> str:
    """The digest of the sheet: 16 digits of SHA-256 over the sorted names, a line each."""
    return hashlib.sha256("\n".join(sorted(f"amos_{id}" for id in ids)).encode()).hexdigest()[:16]


def test_the_lists_of_amos_have_the_digests_of_their_four_public_copies():
    splits = lists("amos-dhc")
    assert [amos_digest(part) for part in (splits.train, splits.val, splits.test)] == [
        "162b5920bc8f4717",
        "6825638a48dbb543",
        "61a2e7e2464ca3ca",
    ]
    both = {
        slug: (amos_digest(budget.labeled), amos_digest({*splits.train} - {*budget.labeled}))
        for slug, budget in splits.budgets.items()
        if slug != "100pct"
    }
    assert both == {
        "2pct": ("a64e0da2e83ce440", "4ee9ef176bff1e43"),
        "5pct": ("4ca9881e8fddccb9", "6acbe96b93a04315"),
        "10pct": ("019f2686e50c193b", "d85e2f968ce9af08"),
    }


def test_mri_scans_are_in_every_list_of_amos_but_the_smallest_budget():
    splits = lists("amos-dhc")

    def mri(ids):
        return sum(int(id) > 500 for id in ids)

    assert [mri(part) for part in (splits.train, splits.val, splits.test)] == [34, 6, 20]
    assert {slug: mri(budget.labeled) for slug, budget in splits.budgets.items()} == {
        "2pct": 0,
        "5pct": 3,
        "10pct": 5,
        "100pct": 34,
    }


def test_the_circulating_twenty_percent_of_amos_is_in_its_own_validation():
    leaking, clean = lists("amos-20pct-leaking"), lists("amos-dhc")
    labeled = set(leaking.budget("20%").labeled)
    unlabeled = set(leaking.train) - labeled
    assert amos_digest(labeled) == "c67461c482c1edeb"
    assert (len(labeled), len(unlabeled)) == (38, 154)
    assert (leaking.val, leaking.test) == (clean.val, clean.test)
    assert labeled & {*clean.val} == {"0066", "0349", "0381"}
    assert len(unlabeled & {*clean.val}) == 17
    assert not {*leaking.train} & {*clean.test}
    assert "20 of the 24 validation scans" in leaking.leaks


def test_twenty_percent_of_amos_is_refused_where_it_is_not_asked_for_by_name():
    for text in ("20%", "20pct", "20.0%"):
        with pytest.raises(UsageError, match=r"20.* refused: .*20pct-leaking.*known: 2%, 5%, 10%, 100%"):
            lists("amos-dhc").budget(text)
    assert len(lists("amos-20pct-leaking").budget("20%").labeled) == 38


def test_a_job_takes_the_circulating_list_by_its_name_only():
    """The recipe's overrides speak of budgets that this list does not have: they are not meant."""
    job = Job(recipe="dhc-amos", method="supervised", loss="default", labeled="20%", seed=0)
    with pytest.raises(UsageError, match="refused"):
        job.resolved  # noqa: B018
    asked = job.model_copy(update={"set": {"splits": "20pct-leaking"}}).resolved
    assert (asked.recipe.splits, asked.job.labeled) == ("20pct-leaking", "20pct")


# ---------------------------------------------------------------------------------------------------------- acdc


def test_acdc_budgets_count_to_the_published_slices(real_data):
    """From the slices of every frame alone; `test_splits.py` counts those that were prepared."""
    depth: Counter[str] = Counter()
    with (real_data("acdc") / "frames.csv").open() as file:
        for row in csv.DictReader(file):
            depth[row["patient"]] += int(row["size_z"])
    splits = lists("acdc-ssl4mis")
    counted = {slug: sum(depth[patient] for patient in b.labeled) for slug, b in splits.budgets.items()}
    assert list(counted.values()) == [32, 68, 136, 256, 396, 512, 664, 1312]
    assert [sum(depth[p] for p in part) for part in (splits.val, splits.test)] == [210, 380]


# ------------------------------------------------------------------------------------------------------------ la


def test_the_held_out_scans_of_la_are_labeled_in_no_budget():
    published, held = lists("la-uamt"), lists("la-uamt-val8")
    assert held.val == published.train[-8:]
    assert held.train + held.val == published.train
    assert held.test == published.test
    for slug in ("2-scans", "4-scans", "8-scans", "16-scans"):
        assert held.budgets[slug] == published.budgets[slug]


# ---------------------------------------------------------------------------------------------------- digestpath


def test_the_published_lists_of_digestpath_tear_slides_apart():
    splits = lists("digestpath-cdma-leaking")
    train = {slide(stem) for stem in splits.train}
    assert sum(slide(stem) in train for stem in splits.val) == 5
    assert sum(slide(stem) in train for stem in splits.test) == 11
    assert "5 of the 10 validation and 11 of the 20 test images" in splits.leaks
    assert len({*splits.train, *splits.val, *splits.test}) == 130  # no image stands twice


def test_the_slide_disjoint_lists_are_what_is_left_of_the_published_ones():
    published, disjoint = lists("digestpath-cdma-leaking"), lists("digestpath-slide-disjoint")
    assert (disjoint.train, disjoint.budgets) == (published.train, published.budgets)
    sides = [{slide(stem) for stem in part} for part in (disjoint.train, disjoint.val, disjoint.test)]
    assert not any(one & other for one, other in combinations(sides, 2))
    assert set(disjoint.val) < set(published.val)
    # All test images that can be kept are kept.
    assert set(published.test) - set(disjoint.test) == {stem for stem in published.test if slide(stem) in sides[0]}


# --------------------------------------------------------------------------------------------------- known leaks


@pytest.mark.parametrize("file", SIZES)
def test_lists_that_leak_say_so_in_their_name_and_how(file):
    splits = lists(file)
    assert bool(splits.leaks) == file.endswith(LEAKING)
    assert "\n" not in splits.leaks


RAW = {"train": ["a", "b"], "val": ["b"], "test": ["c"], "budgets": {"half": {"labeled": ["a"]}}}


def test_overlapping_lists_are_read_under_a_leaking_name_only():
    splits = parse_splits({**RAW, "leaks": "b is on both sides"}, "acdc", "toy-leaking")
    assert (splits.train, splits.val, splits.leaks) == (("a", "b"), ("b",), "b is on both sides")
    with pytest.raises(UsageError, match="'b' stands in train and again in val"):
        parse_splits(RAW, "acdc", "toy")
    with pytest.raises(UsageError, match="end their name in -leaking"):
        parse_splits({**RAW, "leaks": "b is on both sides"}, "acdc", "toy")
    with pytest.raises(UsageError, match="say how in `leaks`"):
        parse_splits(RAW, "acdc", "toy-leaking")
    with pytest.raises(UsageError, match="'a' stands in train and again in train"):
        parse_splits({**RAW, "train": ["a", "a"], "leaks": "yes"}, "acdc", "toy-leaking")


def test_lists_of_the_users_own_that_leak_keep_their_reason(tmp_path):
    """Read, checked, written into the data folder and read again: the reason goes with them."""
    file = tmp_path / "Mine-Leaking.yaml"
    file.write_text(yaml.safe_dump({**RAW, "leaks": "b is on both sides"}))
    ((name, raw),) = read_split_file(file).items()
    splits = parse_splits(raw, "acdc", name)
    check_entries(splits, {"a": "a", "b": "b", "c": "a"})  # a and c are one patient's
    write_splits(tmp_path / "written.yaml", splits)
    assert parse_splits(load_yaml(tmp_path / "written.yaml"), "acdc", name) == splits
    clean = parse_splits({**RAW, "val": []}, "acdc", "mine")
    with pytest.raises(UsageError, match=r"a \(train\) and c \(test\) are of patient a"):
        check_entries(clean, {"a": "a", "b": "b", "c": "a"})
