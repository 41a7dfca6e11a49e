"""What is said under and over a table: how it was measured, what is missing, what must not be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sslbench.config.grid import TableSpec
from sslbench.config.scaling import PATH as SCALE
from sslbench.config.text import counted
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.labels import class_title, dataset_title, method_caution
from sslbench.reporting.material import Material
from sslbench.reporting.model import NO_VALUE, PARTIAL, Column, Row
from sslbench.reporting.statistics import missed_organs
from sslbench.runs.directory import Run

_CHECKPOINTS = {"best-val": "best on the validation cases", "last": "those of the last iteration"}
_SPREADS = {0: "population SD", 1: "sample SD"}


def title(material: Material, spec: TableSpec, columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Dataset and budget (or the grid's own caption), recipe, splits, and what ± is, in full sentences."""
    first = material.first
    return _sentences(
        spec.caption or f"{dataset_title(first.dataset)}, {first.budget} labelled",
        f"Recipe {first.recipe}" + (f", splits {first.splits}" if first.splits else ""),
        _scaled(material),
        _spread(material, columns, rows),
        _trained(material),
    )


def measured(material: Material) -> str:
    """The protocol in its own words, which weights were tested, and what training or test had from the reference."""
    converted = any(_converted(material, run) for run in material.runs)
    return _sentences(material.protocol.caption(converted), _weights(material), *_oracles(material))


def notes(material: Material, spec: TableSpec, rows: Sequence[Row]) -> list[str]:
    """What a reader must know beside the caption: marks, missing runs, partial data, missed structures."""
    told = []
    cells = [cell for row in rows for cell in row.cells]
    if any(cell.best for cell in cells):
        out = ", ".join(_not_competing(material, rows))
        apart = f"; {out} do not compete" if out else ""
        told.append(f"Best in bold, second underlined, on unrounded means{apart}.")
    if any(cell.marked for cell in cells):
        told.append(f"{PARTIAL} Mean over fewer seeds than asked for.")
    most = max(row.expected for row in rows)
    if fewer := [f"{row.label} {row.expected}" for row in rows if row.expected < most]:
        told.append(f"Number of seeds: {', '.join(fewer)}, other rows {most}.")
    cautions = dict.fromkeys(method_caution(row.method) for row in rows)
    told += [caution for caution in cautions if caution]
    told += _progress(material, rows)
    absent = [name for name in spec.columns if name.partition("/")[0] not in material.protocol.metrics]
    if absent:
        told.append(f"The protocol {material.first.protocol} has no {', '.join(absent)}.")
    if material.common:
        settings = (f"{path}={value}" for path, value in material.common.items())
        told.append(f"All rows: {', '.join(settings)}.")
    if spec.classes == "size" and (sizes := material.sizes()):
        shown = ", ".join(f"{class_title(short)} {round(size)}" for short, size in sizes.items())
        told.append(f"Classes by size, the mean over the test cases that have them, in voxels: {shown}.")
    return [*told, *_data(material), *_missed(material, rows)]


def _not_competing(material: Material, rows: Sequence[Row]) -> list[str]:
    """Which rows cannot be best, and why."""
    titles = ", ".join(dict.fromkeys(row.budget for row in material.bounds))
    reported = [row for row in rows if row.n and not row.bound]
    kinds = {
        f"rows with {titles} of the labels": bool(titles),
        "rows with fewer seeds than asked for": any(row.n < row.expected for row in reported),
        "rows measured on other cases": any(row.n == row.expected and not row.competes for row in reported),
    }
    return [kind for kind, found in kinds.items() if found]


def _sentences(*parts: str) -> str:
    return " ".join(part.rstrip(". ") + "." for part in parts if part)


def _scaled(material: Material) -> str:
    """How the schedules were shortened; empty where none was."""
    factors = {str(row.settings.get(SCALE, "")) for row in material.rows}
    told = " or ".join(sorted(factors - {""}))
    return f"Schedule scaled to {told}" + (" in some rows" if "" in factors else "") if told else ""


def _trained(material: Material) -> str:
    """On how many cases the rows of the table's budget were trained; empty where no run says it."""
    runs = [run for row in material.planned for run in material.reported(row)]
    counts = sorted({(run.splits["labeled"], run.splits["unlabeled"]) for run in runs if "unlabeled" in run.splits})
    if not counts:
        return ""
    try:
        pictures = registry.component("dataset", material.first.dataset).modality == "rgb"
    except SSLBenchError:  # results outlive the package that made them
        pictures = False
    told = [f"{labeled} labelled" + (f" + {others} unlabelled" if others else "") for labeled, others in counts]
    return f"Trained on {' or '.join(told)} {'images' if pictures else 'scans'}"


def _spread(material: Material, columns: Sequence[Column], rows: Sequence[Row]) -> str:
    seeds = {row.expected for row in rows}
    number = ("up to " if len(seeds) > 1 else "") + counted(max(seeds), "seed")
    kind = _SPREADS[material.protocol.ddof]
    alone = "; per class the mean alone" if any(column.std_decimals is None for column in columns) else ""
    if material.protocol.spread == "cases":
        return f"Mean over {number} ± {kind} over cases{alone}"
    return f"Mean ± {kind} over {number}{alone}" if seeds != {1} else "One seed per row, so no ±"


def _converted(material: Material, run: Run) -> bool:
    """Whether a run's predictions were on another grid than the one that its protocol's paper has."""
    try:
        made = registry.component("dataset", material.first.dataset).preprocessings
    except SSLBenchError:  # results outlive the package that made them
        return False
    name = str(run.data.get("preprocessing") or run.values.get("preprocessing", ""))
    return name in made and bool(material.protocol.converts(made[name]))


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


def _progress(material: Material, rows: Sequence[Row]) -> list[str]:
    missing = sum(row.expected - row.n for row in rows)
    if not missing:
        return []
    words = {"finished": "not scored"}
    states = Counter(
        words.get(run.state, run.state)
        for row in material.rows
        for run in row.runs
        if run.name not in material.found.reported and run.state != "pending"
    )
    states["not started"] = missing - states.total()
    told = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    every = sum(row.expected for row in rows)
    gaps = any(not cell.n for row in rows for cell in row.cells)
    return [f"{missing} of {every} runs have no result ({told})" + (f"; {NO_VALUE}: no value." if gaps else ".")]


def _data(material: Material) -> list[str]:
    told = []
    for found, official in sorted({_case_counts(run) for run in material.runs}):
        if found < official:
            told.append(f"Not the complete dataset: {found} of {official} official cases.")
    for part, what in (("labeled", "labelled"), ("validation", "validation"), ("test", "test")):
        fewer = max((run.splits.get("lacking", {}).get(part, 0) for run in material.runs), default=0)
        if fewer:
            told.append(f"Not all of its {what} list: {fewer} of the entries could not be used.")
    unseen = dict.fromkeys(name for run in material.runs for name in run.splits.get("unseen", ()))
    if unseen:
        told.append(f"No labelled case has {', '.join(unseen)}: nothing taught it.")
    if (
        len(
            {
                (run.splits.get("labeled"), run.splits.get("unlabeled"))
                for row in material.planned
                for run in material.reported(row)
            }
        )
        > 1
    ):
        told.append("Caution: the rows were not all trained on the same number of cases.")
    for title in sorted({str(run.data.get("preprocessed_by") or "") for run in material.runs} - {""}):
        told.append(f"Made from arrays that others had preprocessed ({title}), not from scans.")
    sizes = {run.data.get("spacing") for run in material.runs}
    for source, told_sizes in (("published", "those published for it"), ("unknown", "1 mm, as nobody knows them")):
        if material.protocol.unit == "mm" and source in sizes:
            told.append(f"Distances in mm are nominal: the arrays state no voxel sizes, taken are {told_sizes}.")
    states = {run.data.get("fingerprint") for run in material.runs} - {None}
    if len(states) > 1:
        told.append(f"Caution: the rows come from {len(states)} different states of the prepared data.")
    if len(set(material.cases.values())) > 1:
        told.append("Caution: the rows were not all measured on the same cases.")
    return told


def _case_counts(run: Run) -> tuple[int, int]:
    """How many cases the run's dataset had, and how many the official one has; equal where that is not known."""
    found, official = run.data.get("found"), run.data.get("official")
    return (found, official) if isinstance(found, int) and isinstance(official, int) else (0, 0)


def _missed(material: Material, rows: Sequence[Row]) -> list[str]:
    counts = missed_organs(material.records).set_index("run")
    reported = [row for row in rows if row.runs]
    means = {row.label: counts["missed"].reindex(list(row.runs), fill_value=0).mean() for row in reported}
    if not reported or counts.empty:
        return []
    pairs = sorted(set(counts["pairs"]))
    of = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    told = [f"{label} {mean:.1f}" for label, mean in means.items() if mean]
    rest = "" if len(told) == len(means) else "other rows none" if told else "none"
    listed = ", ".join([*told, rest] if rest else told)
    what = "Missed structures (in the reference, predicted nowhere)"
    return [f"{what}, of {of} in the test cases, per seed: {listed}."]
