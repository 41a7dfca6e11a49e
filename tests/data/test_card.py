"""The card of a prepared dataset says what the preparation knows, the same each time, and nothing of the machine."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sslbench.config.splits import load_splits
from sslbench.core import registry
from sslbench.data.card import CARD
from sslbench.data.own.define import add_splits, define
from sslbench.data.prepare import prepare
from sslbench.data.store import Store
from tests.helpers.own_folders import nnunet


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, its head apart."""
    part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_it_says_what_was_prepared(phantom_data: Path) -> None:
    store = Store.open(phantom_data, "phantom", "native")
    text = (store.folder / CARD).read_text()
    told = {row[0]: row[1] for row in rows(text, "Cases")}
    assert told["cases"] == "30; 30 with a label" and told["stored shape (xyz)"] == "24 × 20 × 18"
    assert told["SHA-256 of all images and labels"] == store.fingerprint
    classes = {row[1]: row for row in rows(text, "Classes")}
    assert classes["gallbladder"][4] == "28" and len(classes) == 14
    voxels = sum(case.class_voxels[6] for case in store.cases.values()) / (30 * 24 * 20 * 18)
    assert classes["liver"][3] == f"{100 * voxels:.1f} %"
    assert store.dataset.preprocessing_hash("native") in text
    listed = {(row[0], row[2]): row for row in rows(text, "Case lists and label budgets")}
    assert listed["ga", "20%"][4] == load_splits("phantom", "ga").fingerprint("20%")[:16]
    assert "sslbench prepare phantom --set 'size=[24, 20, 18]'" in text and str(phantom_data) not in text


def test_a_subset_is_told_and_a_second_preparation_changes_nothing(small_data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small_data, tmp_path / "data") / "phantom/native"
    before = (folder / CARD).read_text()
    assert "3, a subset of the 30 of the release; 3 with a label" in before
    (folder / CARD).unlink()
    options = {"size": [24, 20, 18]}
    assert prepare("phantom", data_dir=tmp_path / "data", options=options, workers=1).unchanged == 3
    assert (folder / CARD).read_text() == before


def test_own_data_have_one_too_and_new_lists_stand_in_it(tmp_path: Path) -> None:
    source, data = nnunet(tmp_path / "Dataset007_Mine", channels=("T2",)), tmp_path / "data"
    define("mine", source, "nnunet", data_dir=data)
    report = prepare("mine", source, data_dir=data, workers=1)
    text = (report.folder / CARD).read_text()
    assert "sslbench prepare mine --source FOLDER" in text and str(tmp_path) not in text
    assert "what the source of the data asks for" in text
    assert {row[0] for row in rows(text, "Case lists and label budgets")} == {"drawn-0"}
    ids = list(json.loads((report.folder / "dataset.json").read_text())["cases"])
    (tmp_path / "mylists.yaml").write_text(json.dumps({"train": ids[:-1], "val": [], "test": ids[-1:]}))
    add_splits("mine", tmp_path / "mylists.yaml", data_dir=data)
    assert re.search(r"^\| `mylists` \|", (report.folder / CARD).read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["acdc", "amos", "digestpath", "la", "synapse"])
def test_official_data_say_what_to_cite(name: str) -> None:
    assert re.search(r"20[12]\d", registry.component("dataset", name).cite)
