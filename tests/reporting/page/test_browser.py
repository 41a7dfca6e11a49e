"""The page in a real browser: no complaint, and sorting, filter, views and the cases behind a row, by keyboard too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sslbench.reporting.report import Report
from tests.helpers.chromium import VARIABLE, Tab, browser, opened_browser

pytestmark = pytest.mark.skipif(browser() is None, reason=f"no Chromium on the path, and {VARIABLE} names none")

ROWS = "[...document.querySelectorAll('#t0 tbody tr:not(.group, .detail)')].filter(row => row.checkVisibility())"
NAMES = f"{ROWS}.map(row => row.cells[0].textContent)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with opened_browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def shown(tab: Tab, text: str, tmp_path: Path) -> Iterator[Tab]:
    file = tmp_path / "report.html"
    file.write_text(text)
    tab.complaints.clear()
    tab.open(file)
    yield tab
    assert tab.complaints == []


def column(header: str) -> str:
    """The heading of a column of the first table that has a word."""
    return (
        f"[...document.querySelectorAll('#t0 thead th[scope=col]')].find(head => head.textContent.includes('{header}'))"
    )


def test_sorting_puts_the_better_end_first_then_the_other_then_the_old_order(shown: Tab, report: Report) -> None:
    first = shown.script(NAMES)
    for header, place, order in (("Avg. DSC", 0, "descending"), ("Avg. ASD", 2, "ascending")):
        shown_as = {row.label: round(row.cells[place].mean, 2) for row in report.tables[0].rows}
        other = {"ascending": "descending", "descending": "ascending"}[order]
        for said in (order, other, None):
            shown.script(f"{column(header)}.querySelector('button').click()")
            names = shown.script(NAMES)
            found = [shown_as[name] for name in names]
            assert shown.script(f"{column(header)}.getAttribute('aria-sort')") == said
            assert found == sorted(found, reverse=said == "descending") if said else names == first
            assert shown.script("document.querySelectorAll('#t0 .group').length") == 2
            assert shown.script("document.querySelector('#t0 .group').checkVisibility()") == (said is None)


def test_headings_are_sorted_from_the_keyboard(shown: Tab) -> None:
    shown.script(f"{column('Avg. DSC')}.querySelector('button').focus()")
    shown.press("Enter", 13, "\r")
    assert shown.script(f"{column('Avg. DSC')}.getAttribute('aria-sort')") == "descending"


def test_a_filter_leaves_rows_with_all_words_and_counts_them(shown: Tab) -> None:
    shown.script("document.querySelector('#t0 input[type=search]').focus()")
    for letter in "ga mt":
        shown.press(letter, ord(letter.upper()), letter)
    assert shown.script(NAMES) == ["GA-MT"]
    assert shown.script("document.querySelector('#t0 output').textContent") == "1 of 4 rows"
    assert shown.script("[...document.querySelectorAll('#t0 .group')].filter(row => row.checkVisibility()).length") == 1


def test_the_cases_behind_a_row_open_and_close_with_enter(shown: Tab, report: Report) -> None:
    row = next(row for row in report.subjects[0].rows if row.label == "GA-MT")
    shown.script(f"{ROWS}.find(row => row.cells[0].textContent === 'GA-MT').querySelector('button').focus()")
    shown.press("Enter", 13, "\r")
    assert shown.script("document.activeElement.getAttribute('aria-expanded')") == "true"
    lines = shown.script(
        "[...document.querySelectorAll('.detail tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert len(lines) == 6 * 3
    order = [row.values.classes.index(name) for name in report.subjects[0].by_size]
    for line, (case, seed) in zip(lines, ((case, seed) for case in range(6) for seed in range(3)), strict=True):
        assert line[:2] == [row.values.cases[case], str(row.values.seeds[seed])]
        for text, value in zip(line[3:], row.values.values[seed, case, order], strict=True):
            assert (text == "–") == (value != value)
            assert text == "–" or abs(float(text) - value) < 0.0501 + 1e-9
    shown.press("Enter", 13, "\r")
    assert shown.script("document.querySelectorAll('.detail').length") == 0


def test_classes_by_size_and_gains_in_place_of_values(shown: Tab, report: Report) -> None:
    table, row = report.tables[0], report.tables[0].rows[-1]
    held = next(held.gain for held in table.gains if held.row == row.label)
    at = next(n for n, c in enumerate(table.columns) if c.class_name == "rag")
    cell = f"{ROWS}.find(row => row.cells[0].textContent === '{row.label}').cells[{at + 1}].textContent"
    assert shown.script(cell) == f"{row.cells[at].mean:.1f}"
    check = "[...document.querySelectorAll('#t0 .tools label')].find(label => label.textContent.includes('{}')).click()"
    shown.script(check.format("gains"))
    gain = shown.script(cell).replace("−", "-")
    assert abs(float(gain.rstrip("•")) - held.classes["rag"].mean) < 0.0501
    shown.script(check.format("gains"))
    assert shown.script(cell) == f"{row.cells[at].mean:.1f}"
    shown.script(check.format("shade"))
    assert shown.script("getComputedStyle(document.querySelector('#t0 tbody td:last-child')).backgroundColor") != ""


def test_classes_are_put_in_order_of_size(tab: Tab, text: str, tmp_path: Path) -> None:
    file = tmp_path / "unsorted.html"
    sizes = {"Sp": 1, "RK": 2, "LK": 3}  # the phantom's stand in order of size already
    for name, size in sizes.items():
        before, behind = text.split(f">{name}</th>", 1)
        start = before.rindex('data-size="')
        text = (
            before[:start]
            + f'data-size="{size}"'
            + before[before.index('"', start + 11) + 1 :]
            + f">{name}</th>"
            + behind
        )
    file.write_text(text.replace('id="t0"', 'id="t0" data-sized', 1))
    tab.open(file)
    heads = "[...document.querySelectorAll('#t0 thead tr:last-child th')].map(head => head.textContent)"
    cells = f"{ROWS}[0].cells"
    before = tab.script(heads)
    first = tab.script(f"{cells}[4].textContent")
    tab.script(
        "[...document.querySelectorAll('#t0 .tools label')].find(l => l.textContent.includes('by size')).click()"
    )
    after = tab.script(heads)
    assert before[:3] == ["Sp", "RK", "LK"] and after[-3:] == ["LK", "RK", "Sp"] and after[:-3] == before[3:]
    assert tab.script(f"{cells}[{3 + len(after)}].textContent") == first


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_never_wider_than_the_screen(tab: Tab, text: str, tmp_path: Path, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(text)
    tab.open(file, width=width, prefers_color_scheme="dark")
    assert tab.script("document.documentElement.scrollWidth") <= width
    name = "document.querySelector('#t0 tbody tr:not(.group) th').getBoundingClientRect().left"
    left = tab.script(name)
    tab.script("document.querySelector('#t0 .scroll').scrollLeft = 300")
    assert tab.script(name) == left
    assert tab.script("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
