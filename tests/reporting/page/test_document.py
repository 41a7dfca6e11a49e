"""`report.html`: complete without script, closed to the network, small, and the same bytes for the same records."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslbench.config.published import published_table
from sslbench.reporting import against
from sslbench.reporting.model import NO_VALUE, PARTIAL, TOGETHER, cell_text
from sslbench.reporting.page import document
from sslbench.reporting.page.document import page
from sslbench.reporting.page.figures import Gallery, best_rows
from sslbench.reporting.page.values import packed_numbers, values_of
from sslbench.reporting.page.words import summary
from sslbench.reporting.report import Report
from tests.helpers.reports import phantom_report
from tests.helpers.subjects import example

EVIL = "<script>alert('1')</script> & \"x\""


class Reader(HTMLParser):
    """Ids, references, attributes of all tags, and the text of cells."""

    VOID = {"meta", "input", "img", "br", "path", "use"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & {*self.stack}:
            self.cells[-1] += data


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without figures, which take seconds."""
    monkeypatch.setattr(document, "gallery", lambda *_: Gallery())


@pytest.fixture(scope="session")
def read(text: str) -> Reader:
    return Reader(text)


def test_nothing_is_fetched(text: str, read: Reader) -> None:
    assert not re.findall(r"(?:https?:)?//(?!\s|<)[a-z]", text), "an address"
    assert "@import" not in text and "url(" not in re.sub(r"url\(#", "", text)
    for tag, attributes in read.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith(("#", "data:" if tag == "image" else "#"))


def test_the_policy_comes_first(read: Reader) -> None:
    tags = [tag for tag, _ in read.tags]
    first = read.tags[tags.index("head") + 1]
    assert first[1] == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:",
    }


def test_tags_close_ids_are_unique_and_what_is_referred_to_is_there(text: str, read: Reader) -> None:
    assert not read.stack
    ids = Counter(found for _, attributes in read.tags if (found := attributes.get("id")))
    assert ids and max(ids.values()) == 1
    used = set(re.findall(r"url\(#([^)]+)\)", text))
    for _, attributes in read.tags:
        used |= {href[1:] for href in [attributes.get("href") or ""] if href.startswith("#")} | {
            *(attributes.get("aria-labelledby") or "").split()
        }
    assert used - {""} <= ids.keys()


def test_all_numbers_of_the_table_stand_there_without_script(report: Report, read: Reader) -> None:
    blank = str.maketrans({"−": "-", "\u2007": "", " ": ""})
    shown = Counter(cell.translate(blank).rstrip(TOGETHER + PARTIAL) for cell in read.cells)
    for row in report.tables[0].rows:
        assert shown[row.full_label.replace(" ", "")] >= 1
        for cell, column in zip(row.cells, report.tables[0].columns, strict=True):
            mean, behind = cell_text(cell, column)
            assert shown["–" if mean == NO_VALUE else (mean + behind).replace(" ", "")] >= 1, (row.label, column.header)


def test_it_says_first_what_the_numbers_say(report: Report, text: str) -> None:
    said = html.unescape(text.partition("<main>")[0])
    best = max((row for row in report.tables[0].rows), key=lambda row: row.cells[0].mean)
    assert f"{best.label} is best of 4 rows" in said and f"{best.cells[0].mean:.1f} %" in said
    found = next(held.gain for held in report.tables[0].gains if held.row == best.label)
    assert f"+{found.difference:.1f} points" in said and "12 runs" in said and "resolves" in said
    assert ("told apart from chance" in said) and (("not told apart from chance" in said) != found.star)


@pytest.mark.parametrize("losses", [{"ga": 6.0}, {"ga": 0.0}])
def test_a_gain_is_told_apart_where_it_has_a_star_alone(tmp_path: Path, losses: dict[str, float]) -> None:
    made = phantom_report(tmp_path, losses=losses)
    (said,) = summary(made.tables[0])
    held = {each.row: each.gain for each in made.tables[0].gains}
    best = max(made.tables[0].rows, key=lambda row: row.cells[0].mean).label
    found = held.get(best) or max(held.values(), key=lambda gain: gain.difference)
    told = said.partition(f"{best} gains" if best in held else "The largest gain")[2]
    assert ("not told apart from chance" in told) == (not found.star) and f"{abs(found.difference):.1f}" in told


def test_the_same_records_give_the_same_bytes(report: Report, text: str) -> None:
    assert page(report, Path("nowhere"), command="sslbench report four --html") == text


def test_names_are_text_whatever_is_in_them(report: Report, undrawn: None) -> None:
    table = report.tables[0]
    row = replace(table.groups[0].rows[0], label=EVIL)
    columns = tuple(replace(column, header=EVIL) if not column.is_gain else column for column in table.columns)
    groups = (replace(table.groups[0], title=EVIL, rows=(row, *table.groups[0].rows[1:])), *table.groups[1:])
    evil = replace(table, grid=EVIL, title=EVIL, notes=(EVIL,), measured=EVIL, columns=columns, groups=groups, gains=())
    made = page(replace(report, tables=[evil]), Path("nowhere"), command=EVIL)
    scripts = re.findall(r"<script[^>]*>", made)
    assert scripts == ['<script type="application/json" id="values">', "<script>"]
    assert made.count("alert(") == made.count(html.escape("<script>alert(", quote=False)) + made.count(
        "u003cscript\\u003ealert("
    )
    assert not Reader(made).stack


def test_values_behind_rows_are_those_of_the_records(report: Report, text: str) -> None:
    stored = json.loads(re.search(r'id="values">(.*?)</script>', text, re.DOTALL)[1])
    subject = report.subjects[0]
    keys = re.findall(r'<tr id="(t0r\d+)"', text)
    assert stored["rows"].keys() == {*keys}
    for key, row in zip(keys, subject.rows, strict=True):
        (entry,) = stored["rows"][key]
        axes, width = stored["axes"][entry["axes"]], entry["width"]
        codes = [entry["values"][at : at + width] for at in range(0, len(entry["values"]), width)]
        values = [np.nan if set(code) == {"z"} else entry["low"] + entry["step"] * int(code, 36) for code in codes]
        shape = (len(entry["seeds"]), len(axes["cases"]), len(axes["classes"]))
        order = [row.values.classes.index(name) for name in subject.by_size]
        np.testing.assert_allclose(np.reshape(values, shape), row.values.values[..., order], atol=0.0501)
        assert np.isnan(values).sum() == 3


@pytest.mark.parametrize(
    ("values", "shares", "width", "error"),
    [
        ([0.0, 99.96, 100.0, np.nan], True, 2, 0.051),
        ([-12.5, 3.25, np.nan], False, 3, 0.0051),
        ([1e6, 0.0], False, 3, 11),
    ],
)
def test_numbers_are_packed_within_a_step(values: list[float], shares: bool, width: int, error: float) -> None:
    packed = packed_numbers(np.array(values), shares)
    codes = [packed["values"][at : at + width] for at in range(0, len(packed["values"]), width)]
    found = [np.nan if set(code) == {"z"} else packed["low"] + packed["step"] * int(code, 36) for code in codes]
    assert packed["width"] == width
    np.testing.assert_allclose(found, values, atol=error)


def test_too_many_values_stay_out_and_the_page_says_so(
    report: Report, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    monkeypatch.setattr("sslbench.reporting.page.values.MOST_VALUES", 10)
    assert values_of(report.subjects, {}) is None
    made = page(report, Path("nowhere"))
    assert 'id="values"' not in made and "case by case, are left out" in made


def test_a_page_that_would_grow_too_large_leaves_out_what_has_no_room(
    report: Report, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(text.encode()) < 1_000_000
    monkeypatch.setattr(document, "MOST_BYTES", 75_000)
    made = page(report, Path("nowhere"))
    assert len(made.encode()) <= 75_000
    assert "The manifest is left out" in made and "the page would grow too large" in made
    assert made.count("<tr") > 4 and text.count("<svg") > made.count("<svg")


def test_the_manifest_is_json_of_this_report(report: Report, text: str) -> None:
    found: dict[str, Any] = json.loads(
        html.unescape(re.search(r'id="manifest-json"[^>]*>(.*?)</pre>', text, re.DOTALL)[1])
    )
    assert found["command"] == "sslbench report four --html"
    assert {run["run"] for run in found["runs"]} == {run.name for run in report.found.runs}
    assert len(found["cells"]) >= 4 * 15


def test_every_configuration_says_how_it_is_run_again(report: Report, text: str) -> None:
    said = html.unescape(text)
    assert "sslbench run -r phantom -m mt -l ga --labeled 20pct --seed 0,1,2" in said
    for row in report.tables[0].rows:
        assert row.first.digest in said


def test_figures_are_of_the_best_rows_with_their_baselines() -> None:
    whole = example(rows=6)
    few = best_rows(whole, 3)
    best = max(whole.rows, key=lambda row: row.mean).label
    assert len(few.rows) == 3 and best in few.entries and whole.baselines[best] in few.entries
    assert few.gains.keys() <= few.entries.keys() and {*few.baselines.values()} <= few.entries.keys()
    assert best_rows(whole, 6) is whole


def test_headings_go_down_one_step_at_a_time_and_tables_are_named(read: Reader) -> None:
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    assert [attributes["lang"] for tag, attributes in read.tags if tag == "html"] == ["en"]
    tables = sum(tag == "table" for tag, _ in read.tags)
    assert tables == sum(tag == "caption" for tag, _ in read.tags) >= 3
    assert all("scope" in attributes for tag, attributes in read.tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in read.tags if tag == "img")


def test_a_published_table_stands_beside(report: Report, undrawn: None) -> None:
    tables = report.tables
    comparison = against.compare(tables, published_table("ga:T1"), against.backgrounds(tables, report.source))
    made = html.unescape(page(report, Path("nowhere"), comparison))
    assert "Published beside measured" in made and "66.42" not in made.partition('id="published"')[0]
    assert str(comparison.summary) in made and not Reader(made).stack


def test_colours_of_text_are_readable_in_light_and_dark() -> None:
    css = (Path(document.__file__).parent / "templates" / "page.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w+)", part)) for part in re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    )
    for colours in (light, dark):
        for ground in ("paper", "faint"):
            for ink in ("ink", "muted", "accent"):
                assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def _contrast(one: str, other: str) -> float:
    lights = sorted(_luminance(colour) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
