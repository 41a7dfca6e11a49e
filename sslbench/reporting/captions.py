"""What is said under and over a table: how it was measured, what is missing, what must not be compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslbench.config.scaling import PATH as SCALE
from sslbench.config.table import DERIVED, HOURS, TableSpec
from sslbench.config.text import counted, first_few
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting.gains import Gain, RowGain, planned, resolution
from sslbench.reporting.labels import class_title, dataset_title, method_caution, short_title
from sslbench.reporting.material import Material, PlannedRow, TableBlock
from sslbench.reporting.model import NO_VALUE, PARTIAL, STAR, TOGETHER, Column, Row, RowSource, superscript
from sslbench.reporting.scores import missed_organs
from sslbench.reporting.standing import BlockStanding, Collapse
from sslbench.runs.directory import Run

_CHECKPOINTS = {"best-val": "best on the validation cases", "last": "those of the last iteration"}
_MARKS = {"best": "best in bold", "second": "second underlined", "third": "third in italics"}
_GAIN = (
    "over the same job without its plugin, else its loss, else its weighting; of a bare method over supervised "
    "training on the same labels"
)
_SHARES_SHOWN = 3
_SPREADS = {0: "population SD", 1: "sample SD"}


@dataclass(frozen=True)
class Caption:
    """What is said about one table.

    Attributes:
        letters: of recipes whose rows stand together, as rows carry them; empty where they do not.
        gains: of its rows over their baselines.
        standing: how its rows stand to each other, block by block.
    """

    material: Material
    spec: TableSpec
    columns: Sequence[Column]
    rows: Sequence[Row]
    letters: Mapping[str, str]
    gains: Sequence[RowGain]
    standing: Sequence[BlockStanding] = ()

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
        sources = [source for row in self.rows for source in row.sources]
        seeds = {source.draws or source.expected for source in sources}
        number = _repeats(sources)
        alone = "; per class the mean alone" if any(column.std_decimals is None for column in self._means) else ""
        told: dict[str, list[str]] = {}
        for name, protocol in self.material.protocols.items():
            kind = _SPREADS[protocol.ddof]
            if protocol.spread == "cases":
                text = f"Mean over {number} ± {kind} over cases{alone}"
            else:
                text = (
                    f"Mean ± {kind} over {number}{alone}" if seeds != {1} else f"One {self._repeats} per row, so no ±"
                )
            told.setdefault(text, []).append(name)
        if len(told) == 1:
            return list(told)
        return [f"{self._whose(names)}{text}" for text, names in told.items()]

    @property
    def _means(self) -> list[Column]:
        return [column for column in self.columns if column.metric not in DERIVED]

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
        told = [*self._marks(), *self.of_best(), *self.of_gains(), *self._gaps(), *self._parts(), *self._collapses()]
        told += [*self._time(), *self._seeds(), *self._cautions(), *self._progress(), *self._settings()]
        if self.spec.classes == "size":
            told += self._by_block(lambda block: _sizes(self.material, block))
        told += _data(self.material)
        named = {self._name(row): row for row in self.rows}
        return told + self._by_block(lambda block: _missed(self.material, block, named))

    def short(self, more: Iterable[str]) -> str:
        """The notes in one line: protocols by name, what was seen of the reference, marks, gains, missing runs, what
        forbids a comparison, and `more`."""
        names = " and ".join(
            f"{name} (version {protocol.version})" for name, protocol in self.material.protocols.items()
        )
        warned = [note for note in _data(self.material) if note.startswith("Caution")]
        marked = [*self._marks(), *self.of_best(refusals=False), *self._parts(), *self.of_gains(short=True)]
        told = [*marked, *self._time(), *self._cautions(), *self._progress(), *warned, *more]
        return _sentences(f"Protocol {names}", *_oracles(self.material), *told)

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
            told.append(f"{PARTIAL} Mean over fewer {self._counted}s than asked for.")
        return told

    def of_best(self, refusals: bool = True) -> list[str]:
        """Which rows are not told apart from the best, by a mark or for all of them; with `refusals`, why that is not
        said."""

        def told(block: TableBlock) -> list[str]:
            standing = self._of(block)
            among, columns = standing.among, [column for column in self.columns if column.block == block.title]
            shown = any(column.metric == standing.metric and column.class_name == AVERAGE for column in columns)
            said = {held.gain.refused for held in self.gains if any(column.is_gain for column in self.columns)}
            if not shown or len(among.rows) < 2:
                few = refusals and shown and among.refused.startswith("fewer than 5") and among.refused not in said
                return [f"Not told how sure the best is: {among.refused}."] if few else []
            over = "patients: these networks, new patients" if among.these_networks else f"{among.repeats}s × patients"
            by = f"95 % intervals of the differences over {over}"
            others = len(among.rows) - 1
            if len(among.together) == others:
                rows = "no other row" if others > 1 else "the other row"
                verb = "is" if others > 1 else "is not"
                return [f"{rows.capitalize()} {verb} told apart from the best, {among.best} ({by})."]
            if not among.together:
                return [f"The best, {among.best}, is told apart from every other row ({by})."]
            return [f"{TOGETHER} Not told apart from the best, {among.best} ({by})."]

        return self._by_block(told)

    def _of(self, block: TableBlock) -> BlockStanding:
        return next(each for each in self.standing if each.block == block.title)

    def of_gains(self, short: bool = False) -> list[str]:
        """What gains are over, what their intervals are, what is starred, what the grid resolves, and what has no
        interval or test.

        Args:
            short: without what is over which baseline, and why single rows lack a test.
        """
        columns = [column for column in self.columns if column.is_gain]
        if not columns:
            return []
        found = [each.gain for each in self.gains]
        told = [_sentences(f"Gain: {self._baseline()}", *self._intervals())]
        if not math.isnan(points := resolution(found)):
            told.append(f"This grid resolves {points:.1f} {columns[0].unit}, {_more(found)}.".replace("  ", " "))
        for word, reasons in (
            ("No interval", [each.refused for each in found]),
            ("Not tested", [each.untested if not each.refused else "" for each in found]),
        ):
            for why in dict.fromkeys(filter(None, reasons)):
                rows = [each.row for each, reason in zip(self.gains, reasons, strict=True) if reason == why]
                told.append(f"{word}: {why}{_whose_rows(rows, len(found))}.")
        most = max((each.seeds for each in found), default=0)
        fewer = [f"{each.row} {each.gain.seeds}" for each in self.gains if 0 < each.gain.seeds < most]
        if fewer and not short:
            told.append(f"Gains over the {self._repeats}s that both rows have: {first_few(fewer)}, others {most}.")
        return told

    def _baseline(self) -> str:
        named = self.spec.held_against
        if named is None:
            return _GAIN
        labels = dict.fromkeys(held.baseline for held in self.gains)
        return f"over {' and '.join(labels) or named}"

    def _intervals(self) -> Iterator[str]:
        """What stands in brackets behind gains, and what their star says."""
        intervals = [each for each in self.gains if each.gain.average]
        if alone := [each.row for each in intervals if each.gain.these_networks]:
            whose = _whose_rows(alone, len(intervals))
            yield f"In brackets its 95 % interval over patients{whose}: these networks, new patients"
        if len(alone) < len(intervals):
            over = " or ".join(sorted({f"{each.gain.repeats}s" for each in intervals}, reverse=True))
            yield f"In brackets its 95 % interval over {over} × patients (two-way random effects)"
        if tested := [each for each in self.gains if not each.gain.untested]:
            yield f"{STAR} p < 0.05, adjusted for {counted(len(tested), 'comparison')} (Holm)"

    def _gaps(self) -> list[str]:
        """What rows close of the gap between supervised training on the budget's labels and on all."""

        def told(block: TableBlock) -> list[str]:
            standing = self._of(block)
            if standing.ends is None or not standing.shares:
                return []
            found = {label: share for label, share in standing.shares.items() if not isinstance(share, str)}
            start = f"Of the {standing.gap:.1f} points from {standing.ends[0]} to {standing.ends[1]}"
            if not found:
                whys = dict.fromkeys(share for share in standing.shares.values() if isinstance(share, str))
                return [f"{start} no share is told: {next(iter(whys))}."]
            best = sorted(found.items(), key=lambda item: -item[1].share)[:_SHARES_SHOWN]
            shown = [f"{label} {100 * s.share:.0f} % [{100 * s.low:.0f}, {100 * s.high:.0f}]" for label, s in best]
            more = len(standing.shares) - len(shown)
            rest = f"; {counted(more, 'other row')} in the JSON" if more else ""
            return [f"{start} rows close: {', '.join(shown)} (Fieller's 95 % intervals){rest}."]

        return self._by_block(told)

    def _parts(self) -> list[str]:
        """Which classes are head and tail, where a column or the grid's file speaks of them."""
        if not (self.spec.lens or any(column.part for column in self.columns)):
            return []

        def told(block: TableBlock) -> list[str]:
            lens = self._of(block).lens
            head, tail = (", ".join(map(class_title, names)) for names in (lens.head, lens.tail))
            by = "as the grid says" if self.spec.lens else "the largest and the smallest third by mean voxels"
            return [f"Head: {head}; tail: {tail} ({by})."] if head and tail else []

        return self._by_block(told)

    def _collapses(self) -> list[str]:
        """Which rows lost classes, and which class is the worst where no column shows classes."""

        def told(block: TableBlock) -> list[str]:
            found = self._of(block).collapses
            if not found:
                return []
            lost = [f"{label} {_lost(each)}" for label, each in found.items() if each.count]
            if lost:
                pairs = max(each.pairs for each in found.values())
                return [f"Collapsed (DSC below 1 %), of {pairs} classes × {self._repeats}s: {first_few(lost, 6)}."]
            if any(column.metric == "dsc" and column.span for column in self.columns):
                return []
            worst = Counter(class_title(each.worst) for each in found.values() if each.worst)
            low, label = min((each.mean, label) for label, each in found.items() if each.worst)
            classes = ", ".join(f"{name} in {counted(count, 'row')}" for name, count in worst.most_common(3))
            return [f"Worst class by DSC: {classes}; lowest {low:.1f} % ({label})."]

        return self._by_block(told)

    def _time(self) -> list[str]:
        """On what the hours were spent."""
        if not any(column.metric == HOURS for column in self.columns):
            return []
        devices = sorted({run.device for run in self.material.runs} - {""})
        several = ", which cannot be compared" if len(devices) > 1 else ""
        return [f"Time: hours of a run, training and test, on {first_few(devices) or 'an unknown device'}{several}."]

    def _not_competing(self) -> list[str]:
        """Which rows cannot be best, and why."""
        titles = ", ".join(dict.fromkeys(row.budget for row in self.material.bounds))
        reported = [source for row in self.rows if not row.bound for source in row.sources if source.n]
        kinds = {
            f"rows with {titles} of the labels": bool(titles),
            f"rows with fewer {self._counted}s than asked for": any(source.n < source.expected for source in reported),
            "rows measured on other cases": any(
                source.n == source.expected and not source.competes for source in reported
            ),
        }
        return [kind for kind, found in kinds.items() if found]

    @property
    def _repeats(self) -> str:
        """What rows repeat: seeds, or draws of labels where all have drawn ones."""
        kinds = {bool(row.draws) for row in self.material.rows}
        return "seed or draw" if len(kinds) > 1 else "draw" if kinds == {True} else "seed"

    @property
    def _counted(self) -> str:
        """What the numbers of runs count: seeds, or runs where some rows have several draws too."""
        return "seed" if self._repeats == "seed" else "run"

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
            return [f"Number of {self._counted}s: {', '.join(told)}, other rows {usual}."] if told else []

        apart = ", ".join(f"{title} {number}" for title, number in most.items())
        return [
            *self._by_block(fewer),
            *([f"Number of {self._counted}s: {apart}."] if len({*most.values()}) > 1 else []),
        ]

    def _cautions(self) -> list[str]:
        found = dict.fromkeys(method_caution(row.first.method) for row in self.rows)
        return [caution for caution in found if caution]

    def _settings(self) -> list[str]:
        told = []
        for name, protocol in self.material.protocols.items():
            if absent := [
                column.key for column in self.spec.wanted() if column.metric not in (*DERIVED, *protocol.metrics)
            ]:
                told.append(f"The protocol {name} has no {', '.join(absent)}.")
        for place, column in enumerate(self.columns):
            if column.metric in DERIVED:
                continue
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


def _repeats(sources: Sequence[RowSource]) -> str:
    """What the means of rows are over: `3 seeds`, `5 draws of the labelled cases, 2 seeds each`."""
    told = []
    if drawn := [source for source in sources if source.draws]:
        each = max(-(-source.expected // source.draws) for source in drawn)
        told.append(f"{counted(max(source.draws for source in drawn), 'draw')} of the labelled cases")
        told[0] += f" (in each the mean over {each} seeds)" if each > 1 else ""
    if seeds := {source.expected for source in sources if not source.draws}:
        number = ("up to " if len(seeds) > 1 else "") + counted(max(seeds), "seed")
        told.append(f"{number} of the rows with one list" if drawn else number)
    return " or ".join(told)


def _whose_rows(rows: Sequence[str], of: int) -> str:
    """Which of so many rows are meant, in brackets; empty: all."""
    return "" if len(rows) == of else f" ({first_few(list(dict.fromkeys(rows)))})"


def _more(gains: Sequence[Gain]) -> str:
    """What resolving means, what more seeds would buy, and what they would not."""
    most = max(each.seeds for each in gains)
    repeats = " or ".join(sorted({f"{each.repeats}s" for each in gains}, reverse=True))
    at = next((number for number in (3, 5, 10) if number > most), 2 * most)
    more, least = planned(gains, at), planned(gains, math.inf)
    told = f"found in about 80 of 100 (median over its gains); {at} {repeats} would resolve {more:.1f}"
    return told + (f", more never below {least:.1f}: too few patients" if least >= more / 3 > 0.05 else "")


def _lost(found: Collapse) -> str:
    """How many classes × seeds are lost, and of which classes: `4 (RAG, Es)`."""
    names = sorted(found.lost, key=lambda name: -found.lost[name])
    return f"{found.count} ({first_few(list(map(class_title, names)), 3)})"


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
    counts = missed_organs(material.records(block))
    if counts.empty:
        return []
    missed = dict(zip(counts["run"], counts["missed"].tolist(), strict=True))
    own = {name: source.runs for name, row in rows.items() for source in row.sources if source.block == block.title}
    means = {label: sum(missed.get(run, 0) for run in runs) / len(runs) for label, runs in own.items() if runs}
    pairs = sorted(set(counts["pairs"]))
    of = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    told = [f"{label} {mean:.1f}" for label, mean in means.items() if mean]
    rest = "" if len(told) == len(means) else "other rows none" if told else "none"
    listed = ", ".join([*told, rest] if rest else told)
    what = "Missed structures (in the reference, predicted nowhere)"
    per = "run" if any(row.draws for row in block.rows) else "seed"
    return [f"{what}, of {of} in the test cases, per {per}: {listed}."]
