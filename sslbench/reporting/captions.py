"""What is said under and over a table: how it was measured, what is missing, what must not be compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslbench.config.scaling import PATH as SCALE
from sslbench.config.table import GAIN, TableSpec
from sslbench.config.text import counted, first_few
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.gains import Gain, RowGain, planned, resolution
from sslbench.reporting.labels import class_title, dataset_title, method_caution, short_title
from sslbench.reporting.material import Material, PlannedRow, TableBlock
from sslbench.reporting.model import NO_VALUE, PARTIAL, STAR, Column, Row, superscript
from sslbench.reporting.scores import missed_organs
from sslbench.runs.directory import Run

_CHECKPOINTS = {"best-val": "best on the validation cases", "last": "those of the last iteration"}
_MARKS = {"best": "best in bold", "second": "second underlined", "third": "third in italics"}
_GAIN = (
    "Gain: over the same job without its plugin, else without its loss, else without its weighting; of a bare method "
    "over supervised training on the same labels."
)
_SPREADS = {0: "population SD", 1: "sample SD"}


@dataclass(frozen=True)
class Caption:
    """What is said about one table.

    Attributes:
        letters: of recipes whose rows stand together, as rows carry them; empty where they do not.
        gains: of its rows over their baselines.
    """

    material: Material
    spec: TableSpec
    columns: Sequence[Column]
    rows: Sequence[Row]
    letters: Mapping[str, str]
    gains: Sequence[RowGain]

    def title(self) -> str:
        """Dataset and budget (or the grid's own caption, or print's), recipes, splits, and what ± is, in sentences."""
        published = self.spec.published
        return _sentences(
            self.spec.caption or (published.title if published else self._subject()),
            self._recipes(),
            self._scaled(),
            *self._spreads(),
            self._trained(),
        )

    def _subject(self) -> str:
        blocks = self.material.blocks
        if self.spec.blocks == "dataset":
            return ", ".join(f"{block.title} labelled" for block in blocks)
        budgets = dict.fromkeys(block.first.budget for block in blocks)
        return f"{dataset_title(self.material.first.dataset)}, {' and '.join(budgets)} labelled"

    def _recipes(self) -> str:
        splits: dict[str, str] = {row.recipe: row.splits for row in self.material.rows}
        if len(splits) == 1:
            (name, lists), *_ = splits.items()
            return f"Recipe {name}" + (f", splits {lists}" if lists else "")
        told: dict[str, list[str]] = {}
        for name in sorted(splits, key=lambda name: self.letters.get(name, "")):
            told.setdefault(self.letters.get(name, ""), []).append(f"{name} (splits {splits[name]})")
        groups = [f"{superscript(letter)} {', '.join(names)}".strip() for letter, names in told.items()]
        return f"Recipes {'; '.join(groups)}"

    def _scaled(self) -> str:
        """How schedules were shortened; empty where none was."""
        factors = {str(row.settings.get(SCALE, "")) for row in self.material.rows}
        told = " or ".join(sorted(factors - {""}))
        return f"Schedule scaled to {told}" + (" in some rows" if "" in factors else "") if told else ""

    def _spreads(self) -> list[str]:
        """What ± is, once for all protocols that agree."""
        seeds = {source.expected for row in self.rows for source in row.sources}
        number = ("up to " if len(seeds) > 1 else "") + counted(max(seeds), "seed")
        alone = "; per class the mean alone" if any(column.std_decimals is None for column in self._means) else ""
        told: dict[str, list[str]] = {}
        for name, protocol in self.material.protocols.items():
            kind = _SPREADS[protocol.ddof]
            if protocol.spread == "cases":
                text = f"Mean over {number} ± {kind} over cases{alone}"
            else:
                text = f"Mean ± {kind} over {number}{alone}" if seeds != {1} else "One seed per row, so no ±"
            told.setdefault(text, []).append(name)
        if len(told) == 1:
            return list(told)
        return [f"{self._whose(names)}{text}" for text, names in told.items()]

    @property
    def _means(self) -> list[Column]:
        return [column for column in self.columns if not column.is_gain]

    def _whose(self, protocols: Iterable[str]) -> str:
        """Whose protocols these are: the letters of their rows, or their datasets, with what parts it from the text."""
        rows = [row for row in self.material.rows if row.protocol in {*protocols}]
        letters = sorted({self.letters[row.recipe] for row in rows if row.recipe in self.letters})
        if letters:
            return superscript("".join(letters)) + " "
        return " and ".join(dict.fromkeys(short_title(row.dataset) for row in rows)) + ": "

    def _trained(self) -> str:
        """On how many cases the rows of the tables' budgets were trained; empty where no run says it."""
        told = [_trained(block, self.material) for block in self.material.blocks]
        if not all(told):
            return ""
        titles = [f" ({block.title})" if block.title else "" for block in self.material.blocks]
        return "Trained on " + ", ".join(text + title for text, title in zip(told, titles, strict=True))

    def measured(self) -> str:
        """The protocols in their own words, which weights were tested, and what was seen of the reference."""
        told = []
        for name, protocol in self.material.protocols.items():
            rows = [row for row in self.material.rows if row.protocol == name]
            runs = [(row, run) for row in rows for run in self.material.reported(row)]
            text = protocol.caption(any(_converted(row, run, protocol) for row, run in runs))
            told.append((self._whose([name]) if len(self.material.protocols) > 1 else "", text))
        return _sentences(
            *(whose + text for whose, text in sorted(told)), _weights(self.material), *_oracles(self.material)
        )

    def notes(self) -> list[str]:
        """What a reader must know beside the caption: marks, missing runs, partial data, missed structures."""
        told = [*self._marks(), *self._seeds(), *self._cautions(), *self._progress(), *self._settings()]
        if self.spec.classes == "size":
            told += self._by_block(lambda block: _sizes(self.material, block))
        told += _data(self.material)
        named = {self._name(row): row for row in self.rows}
        return told + self._by_block(lambda block: _missed(self.material, block, named))

    def short(self, more: Iterable[str]) -> str:
        """The notes in one line: protocols by name, marks, missing runs, what forbids a comparison, and `more`."""
        names = " and ".join(
            f"{name} (version {protocol.version})" for name, protocol in self.material.protocols.items()
        )
        warned = [note for note in _data(self.material) if note.startswith("Caution")]
        return _sentences(f"Protocol {names}", *self._marks(), *self._cautions(), *self._progress(), *warned, *more)

    def _name(self, row: Row) -> str:
        """What tells a row from the others: those of several recipes may have one name."""
        return row.label + superscript(self.letters.get(row.first.recipe, ""))

    def _by_block(self, told: Callable[[TableBlock], list[str]]) -> list[str]:
        """What is to say of each block, once where it is the same of all."""
        found = {block.title: told(block) for block in self.material.blocks}
        if all(notes == found[self.material.blocks[0].title] for notes in found.values()):
            return found[self.material.blocks[0].title]
        return [f"{title}: {note}" for title, notes in found.items() for note in notes]

    def _marks(self) -> list[str]:
        told = []
        if any(cell.rank for row in self.rows for cell in row.cells):
            out = ", ".join(self._not_competing())
            words = ", ".join(_MARKS[mark] for mark in self.spec.marks)
            told.append(
                f"{words[:1].upper()}{words[1:]}, on unrounded means{f'; {out} do not compete' if out else ''}."
            )
        if any(cell.marked for row in self.rows for cell in row.cells):
            told.append(f"{PARTIAL} Mean over fewer seeds than asked for.")
        return [*told, *self.of_gains()]

    def of_gains(self) -> list[str]:
        """What gains are over, what their intervals are, what is starred, what the grid resolves, and what has no
        interval or test."""
        columns = [column for column in self.columns if column.is_gain]
        if not columns:
            return []
        told, found = [_GAIN], [each.gain for each in self.gains]
        intervals = [each for each in self.gains if each.gain.average]
        if alone := [each.row for each in intervals if each.gain.these_networks]:
            whose = _whose_rows(alone, len(intervals))
            told.append(f"In brackets its 95 % interval over patients{whose}: these networks, new patients.")
        if len(alone) < len(intervals):
            told.append("In brackets its 95 % interval over seeds × patients (two-way random effects).")
        tested = [each for each in found if not each.untested]
        if tested:
            told.append(f"{STAR} p < 0.05, adjusted for {counted(len(tested), 'comparison')} (Holm).")
        if not math.isnan(points := resolution(found)):
            told.append(f"This grid resolves {points:.1f} {columns[0].unit}, {_more(found)}.".replace("  ", " "))
        for word, reasons in (
            ("No interval", [each.refused for each in found]),
            ("Not tested", [each.untested if not each.refused else "" for each in found]),
        ):
            for why in dict.fromkeys(filter(None, reasons)):
                rows = [each.row for each, reason in zip(self.gains, reasons, strict=True) if reason == why]
                told.append(f"{word}: {why}{_whose_rows(rows, len(found))}.")
        return told

    def _not_competing(self) -> list[str]:
        """Which rows cannot be best, and why."""
        titles = ", ".join(dict.fromkeys(row.budget for row in self.material.bounds))
        reported = [source for row in self.rows if not row.bound for source in row.sources if source.n]
        kinds = {
            f"rows with {titles} of the labels": bool(titles),
            "rows with fewer seeds than asked for": any(source.n < source.expected for source in reported),
            "rows measured on other cases": any(
                source.n == source.expected and not source.competes for source in reported
            ),
        }
        return [kind for kind, found in kinds.items() if found]

    def _seeds(self) -> list[str]:
        asked = {
            block.title: {
                self._name(row): source.expected
                for row in self.rows
                for source in row.sources
                if source.block == block.title
            }
            for block in self.material.blocks
        }
        most = {title: max(numbers.values()) for title, numbers in asked.items()}

        def fewer(block: TableBlock) -> list[str]:
            usual = most[block.title]
            told = [f"{label} {number}" for label, number in asked[block.title].items() if number < usual]
            return [f"Number of seeds: {', '.join(told)}, other rows {usual}."] if told else []

        apart = ", ".join(f"{title} {number}" for title, number in most.items())
        return [*self._by_block(fewer), *([f"Number of seeds: {apart}."] if len({*most.values()}) > 1 else [])]

    def _cautions(self) -> list[str]:
        found = dict.fromkeys(method_caution(row.first.method) for row in self.rows)
        return [caution for caution in found if caution]

    def _settings(self) -> list[str]:
        told = []
        for name, protocol in self.material.protocols.items():
            if absent := [
                column.key for column in self.spec.wanted() if column.metric not in (GAIN, *protocol.metrics)
            ]:
                told.append(f"The protocol {name} has no {', '.join(absent)}.")
        for place, column in enumerate(self.columns):
            block = next(block for block in self.material.blocks if block.title == column.block)
            units = self.material.units(column.metric, block)
            if (
                not column.unit
                and len({*units.values()}) > 1
                and column.metric not in {c.metric for c in self.columns[:place]}
            ):
                of = ", ".join(f"{self._whose([name])}{unit}" for name, unit in units.items())
                told.append(f"{column.span or column.header} in units that differ, so none is best: {of}.")
        if self.material.common:
            settings = (f"{path}={value}" for path, value in self.material.common.items())
            told.append(f"All rows: {', '.join(settings)}.")
        return told

    def _progress(self) -> list[str]:
        missing = sum(row.expected - row.n for row in self.rows)
        if not missing:
            return []
        words = {"finished": "not scored"}
        states = Counter(
            words.get(run.state, run.state)
            for row in self.material.rows
            for run in row.runs
            if run.name not in self.material.found.reported and run.state != "pending"
        )
        states["not started"] = missing - states.total()
        told = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        every = sum(row.expected for row in self.rows)
        gaps = any(cell.expected and not cell.n for row in self.rows for cell in row.cells)
        return [f"{missing} of {every} runs have no result ({told})" + (f"; {NO_VALUE}: no value." if gaps else ".")]


def _whose_rows(rows: Sequence[str], of: int) -> str:
    """Which of so many rows are meant, in brackets; empty: all."""
    return "" if len(rows) == of else f" ({first_few(list(dict.fromkeys(rows)))})"


def _more(gains: Sequence[Gain]) -> str:
    """What resolving means, what more seeds would buy, and what they would not."""
    most = max(each.seeds for each in gains)
    at = next((number for number in (3, 5, 10) if number > most), 2 * most)
    more, least = planned(gains, at), planned(gains, math.inf)
    told = f"found in about 80 of 100 (median over its gains); {at} seeds {more:.1f}"
    return told + (f", no number of seeds less than {least:.1f}" if least >= 0.05 else "")


def _sentences(*parts: str) -> str:
    return " ".join(part.rstrip(". ") + "." for part in parts if part)


def _trained(block: TableBlock, material: Material) -> str:
    """On how many cases the rows of a block's budget were trained; empty where no run says it."""
    runs = [run for row in block.planned for run in material.reported(row)]
    counts = sorted({(run.splits["labeled"], run.splits["unlabeled"]) for run in runs if "unlabeled" in run.splits})
    if not counts:
        return ""
    try:
        pictures = registry.component("dataset", block.first.dataset).modality == "rgb"
    except SSLBenchError:  # results outlive the package that made them
        pictures = False
    told = [f"{labeled} labelled" + (f" + {others} unlabelled" if others else "") for labeled, others in counts]
    return f"{' or '.join(told)} {'images' if pictures else 'scans'}"


def _converted(row: PlannedRow, run: Run, protocol: Any) -> bool:
    """Whether a run's predictions were on another grid than the one that its protocol's paper has."""
    try:
        made = registry.component("dataset", row.dataset).preprocessings
    except SSLBenchError:  # results outlive the package that made them
        return False
    name = str(run.data.get("preprocessing") or run.values.get("preprocessing", ""))
    return name in made and bool(protocol.converts(made[name]))


def _counts(block: TableBlock, material: Material) -> set[tuple[Any, Any]]:
    """On how many labelled and unlabelled cases the rows of a block's budget were trained."""
    runs = [run for row in block.planned for run in material.reported(row)]
    return {(run.splits.get("labeled"), run.splits.get("unlabeled")) for run in runs}


def _weights(material: Material) -> str:
    rules = dict.fromkeys(row.checkpoint for row in material.rows if row.checkpoint)
    told = " or ".join(_CHECKPOINTS.get(rule, rule) for rule in rules)
    return f"Tested weights: {told}" + (", by method" if len(rules) > 1 else "") if told else ""


def _oracles(material: Material) -> list[str]:
    """What the numbers owe to labels that nobody has in use: crops around the reference, lists that leak."""
    cropped = sorted({run.data["preprocessing"] for run in material.runs if run.data.get("cropped_by_label")})
    told = [
        f"Preprocessing {name} cuts every scan around its reference label, test scans too: easier than whole scans"
        for name in cropped
    ]
    leaks = sorted({leak for run in material.runs if (leak := run.splits.get("leaks"))})
    return [*told, *(f"The split lists leak: {leak}" for leak in leaks)]


def _sizes(material: Material, block: TableBlock) -> list[str]:
    shown = ", ".join(f"{class_title(short)} {round(size)}" for short, size in material.sizes(block).items())
    return [f"Classes by size, the mean over the test cases that have them, in voxels: {shown}."] if shown else []


def _data(material: Material) -> list[str]:
    told = []
    for found, official in sorted({run.case_counts for run in material.runs}):
        if found < official:
            told.append(f"Not the complete dataset: {found} of {official} official cases.")
    for part, what in (("labeled", "labelled"), ("validation", "validation"), ("test", "test")):
        fewer = max((run.splits.get("lacking", {}).get(part, 0) for run in material.runs), default=0)
        if fewer:
            told.append(f"Not all of its {what} list: {fewer} of the entries could not be used.")
    unseen = dict.fromkeys(name for run in material.runs for name in run.splits.get("unseen", ()))
    if unseen:
        told.append(f"No labelled case has {', '.join(unseen)}: nothing taught it.")
    if any(len(_counts(block, material)) > 1 for block in material.blocks):
        told.append("Caution: the rows were not all trained on the same number of cases.")
    for title in sorted({str(run.data.get("preprocessed_by") or "") for run in material.runs} - {""}):
        told.append(f"Made from arrays that others had preprocessed ({title}), not from scans.")
    sizes = {run.data.get("spacing") for run in material.runs}
    for source, told_sizes in (("published", "those published for it"), ("unknown", "1 mm, as nobody knows them")):
        if source in sizes and any(protocol.unit == "mm" for protocol in material.protocols.values()):
            told.append(f"Distances in mm are nominal: the arrays state no voxel sizes, taken are {told_sizes}.")
    prepared: dict[tuple[str, str], set[str]] = {}
    for row in material.rows:
        for run in material.reported(row):
            if "fingerprint" in run.data:
                place = row.dataset, str(run.data.get("preprocessing", ""))
                prepared.setdefault(place, set()).add(run.data["fingerprint"])
    states = max(map(len, prepared.values()), default=0)
    if states > 1:
        told.append(f"Caution: the rows come from {states} different states of the prepared data.")
    if any(material.differ_in_cases(block) for block in material.blocks):
        told.append("Caution: the rows were not all measured on the same cases.")
    return told


def _missed(material: Material, block: TableBlock, rows: Mapping[str, Row]) -> list[str]:
    counts = missed_organs(material.records_of(block.rows)).set_index("run")
    if counts.empty:
        return []
    own = {name: source.runs for name, row in rows.items() for source in row.sources if source.block == block.title}
    means = {label: counts["missed"].reindex(list(runs), fill_value=0).mean() for label, runs in own.items() if runs}
    pairs = sorted(set(counts["pairs"]))
    of = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    told = [f"{label} {mean:.1f}" for label, mean in means.items() if mean]
    rest = "" if len(told) == len(means) else "other rows none" if told else "none"
    listed = ", ".join([*told, rest] if rest else told)
    what = "Missed structures (in the reference, predicted nowhere)"
    return [f"{what}, of {of} in the test cases, per seed: {listed}."]
