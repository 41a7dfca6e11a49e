"""The listings of the command line as plain rows, ready for JSON: names, fields, runs, plans, numbers."""

from __future__ import annotations

import csv
import inspect
import io
import math
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.config.grid import grid_files, load_grid
from sslbench.config.layers import load_recipe
from sslbench.config.published import published_papers, published_tables
from sslbench.config.recipe import recipe_names
from sslbench.config.table import TableSpec
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UnknownNameError
from sslbench.runs.directory import Run

if TYPE_CHECKING:
    from sslbench.config.grid import Grid
    from sslbench.config.job import Job
    from sslbench.execution.left import Course, Left
    from sslbench.execution.local import PlannedJob
    from sslbench.reporting.comparison import Comparison
    from sslbench.reporting.model import Table
    from sslbench.runs.records import CaseTable


# A kind of the registry by its plural, which users type after `list`.
PLURALS = {kind + ("es" if kind.endswith("s") else "s"): kind for kind in registry.KINDS}

_SILENT_S = 600.0  # without a step, after which a listing tells it of a running job

LISTS = (*PLURALS, "recipes", "grids", "matrix")


def listing(what: str) -> list[dict[str, Any]]:
    """The entries of a listing, each with `name`, `aliases`, `about`; presets stand behind what they configure, with
    `preset_of` and `set`. Methods have the `group` that tables put them in, and come group by group.

    Raises:
        UnknownNameError: nothing of that name is listed.
    """
    if what == "methods":
        return _grouped(_components("method"))
    if what in PLURALS:
        return _components(PLURALS[what])
    if what == "recipes":
        return [_recipe(name) for name in recipe_names()]
    if what == "grids":
        return _grids()
    if what == "matrix":
        return _matrix()
    raise UnknownNameError("listing", what, LISTS)


def _matrix() -> list[dict[str, Any]]:
    """Every method with every loss, presets too: `method`, `loss`, and `holes`, by `2d` and `3d` why it has no meaning
    there."""
    from sslbench.conformance.check import matrix

    return [
        {
            "name": f"{cell.method}+{cell.loss}",
            "aliases": [],
            "about": next(iter(cell.holes.values()), ""),
            "method": cell.method,
            "loss": cell.loss,
            "holes": cell.holes,
        }
        for cell in matrix()
    ]


def _components(kind: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for entry in registry.entries(kind):
        if entry.preset_of:
            continue
        row: dict[str, Any] = {"name": entry.name, "aliases": list(entry.aliases), "about": _about(entry.target)}
        options = getattr(entry.target, "Options", None)
        if options is not None:
            row["options"] = {name: field.description or "" for name, field in options.model_fields.items()}
        rows.append(row)
        rows += [
            {
                "name": preset.name,
                "aliases": list(preset.aliases),
                "about": ": ".join(filter(None, (spelling_of(preset), preset.about))),
                "preset_of": entry.name,
                "set": dict(preset.set),
            }
            for preset in sorted(registry.presets(kind, entry.name), key=lambda preset: preset.name)
        ]
    return rows


def _grouped(methods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from sslbench.reporting.labels import method_group

    order = {group: place for place, group in enumerate(TableSpec().groups)}
    rows = [{**row, "group": method_group(row["name"])} for row in methods]
    return sorted(rows, key=lambda row: (order.get(row["group"], len(order)), row["group"]))


def spelling_of(preset: registry.Entry) -> str:
    """A preset as one could write it out: `ga[applies_to=label]`."""
    return f"{preset.preset_of}[{','.join(f'{key}={value}' for key, value in preset.set.items())}]"


def _about(target: Any) -> str:
    """The first paragraph of a component's docstring, or a value's own description."""
    text = getattr(target, "description", None) or getattr(target, "title", None)
    if inspect.isclass(target) and target.__doc__:
        text = target.__doc__
    return " ".join(str(text or "").strip().split("\n\n")[0].split())


def _recipe(name: str) -> dict[str, Any]:
    recipe = load_recipe(name)
    return {
        "name": name,
        "aliases": [],
        "about": recipe.description,
        "dataset": recipe.dataset,
        "protocol": recipe.protocol,
        "source": recipe.source,
    }


def _grids() -> list[dict[str, Any]]:
    """List the grids, with their paper as `group`: those of none first, of each paper its tables in order of print."""
    tables = [table.grid for table in published_tables().values()]
    names = {paper.paper: paper.name for paper in published_papers().values()}
    rows = []
    for name, path in grid_files().items():
        paper = names.get(name.partition("-")[0], "") if "-" in name else ""
        about = load_grid(name).description
        rows.append({"name": name, "aliases": [], "about": about, "file": str(path), "group": paper})
    groups = ["", *names.values()]
    places = {name: place for place, name in enumerate(tables)}
    return sorted(rows, key=lambda row: (groups.index(row["group"]), places.get(row["name"], len(tables))))


# --------------------------------------------------------------------------------------------------- runs, plans


def course_of(run: Run, job: Job | None = None) -> Course:
    """Look where a run stands. Of a finished one whose worker did not say its scores, `status` has them from its
    records.

    Args:
        run: its directory.
        job: where it need not have begun.
    """
    from sslbench.execution.left import Course

    status = run.status()
    if status.get("state") == "finished" and not status.get("scores"):
        status = {**status, "scores": _scores(run.read_records())}
    else:
        run.look(status)
    return Course(run, run.state, status, run.progress(), job)


def _scores(records: CaseTable | None) -> dict[str, float]:
    """The scores of a run by its records; empty where its protocol is not installed, or takes them not."""
    with suppress(SSLBenchError, ValueError):
        if records is not None:
            found: dict[str, float] = registry.component("protocol", str(records["protocol"][0])).averages(records)
            return found
    return {}


def standings(courses: Iterable[Course], left: Left, metric: str = "dsc") -> list[dict[str, Any]]:
    """List runs: `run` (relative to `results/runs`) and its parts, `state`, `attempts`, `error`, `progress`, `share`
    (done of the iterations), `score` (`metric` and `value`, in the stored unit), `training_seconds`, `left` (`seconds`
    and `ground`); what is not known is None. A running one has its `process` too: host, pid,
    and `silent_s` where nothing was done for long.

    Args:
        courses: of the runs.
        left: of all of them.
        metric: of the score, where the protocol has it; else it is the protocol's first.
    """
    return [
        {
            **_place(course.run),
            "state": course.state,
            "attempts": course.status.get("attempts", 0),
            "error": course.run.error,
            "progress": dict(course.progress),
            "share": course.share,
            "score": _score(course, metric),
            "training_seconds": course.trained,
            "left": asdict(left.each[course.run]) if course.run in left.each else None,
            **({"process": _process(course.run)} if course.state == "running" else {}),
        }
        for course in courses
    ]


def _score(course: Course, metric: str) -> dict[str, Any] | None:
    scores = course.status.get("scores") if course.state == "finished" else None
    if not isinstance(scores, dict) or not scores:
        return None
    shown = metric if metric in scores else next(iter(scores))
    return {"metric": shown, "value": scores[shown]}


def _process(run: Run) -> dict[str, Any]:
    owner = run.owner() or {}
    process = {"host": owner.get("host", "?"), "pid": owner.get("pid", 0)}
    silence = time.time() - float(owner.get("heartbeat") or time.time())
    return {**process, "silent_s": round(silence)} if silence > _SILENT_S else process


def _place(run: Run) -> dict[str, Any]:
    recipe, labeled, cell, folder = run.name.split("/")
    seed, _, digest = folder.removeprefix("seed-").partition("-")
    return {
        "run": run.name,
        "recipe": recipe,
        "labeled": labeled,
        "cell": cell,
        "seed": int(seed) if seed.isdecimal() else seed,
        "digest": digest,
    }


def planned(plan: Iterable[PlannedJob], results: Path) -> list[dict[str, Any]]:
    """The jobs of a launch: as `runs`, with `job` (canonical), `state` when it was planned, `action` (`run`,
    `continue`, `run again`, `skip`, `wait`), and, once it ended, `outcome` and `reason`."""
    return [
        {
            **_place(entry.run),
            "job": entry.job.canonical().model_dump(),
            "state": entry.state,
            "action": _action(entry),
            "outcome": entry.outcome,
            "reason": entry.reason,
        }
        for entry in plan
    ]


def plan_cost(plan: Sequence[PlannedJob], results: Path, device: str, grid: str) -> dict[str, Any]:
    """The cost of a launch: `configurations` (jobs apart from their seeds), how many are `finished` and the others by
    what becomes of them (`actions`), `shared` (jobs that other grids have too, by grid), the `Bill` of `all` jobs and
    of what is `left`, and the `free` space where the results lie.

    Args:
        plan: of all jobs.
        results: the results folder.
        device: to run on, as torch spells it.
        grid: the name of the jobs' own.
    """
    import torch

    from sslbench.execution.cost import Bill, Pricer

    pricer, whole, left = Pricer(results, torch.device(device)), Bill(), Bill()
    for entry in plan:
        pricer.add(whole, entry.job)
        if entry.runs:
            pricer.add(left, entry.job, 1 - _done(entry))
    actions = Counter(_action(entry) for entry in plan)
    own = {entry.job.directory for entry in plan}
    found = _expanded({entry.job.recipe for entry in plan})
    others = {name: {job.directory for job in jobs} for name, jobs in found.items() if name != grid}
    return {
        "jobs": len(plan),
        "configurations": len({entry.job.digest() for entry in plan}),
        "finished": sum(entry.state == "finished" and not entry.runs for entry in plan),
        "actions": dict(actions),
        "shared": {name: len(own & paths) for name, paths in others.items() if own & paths},
        "shared_jobs": len(own & set().union(*others.values())),
        "all": pricer.facts(whole),
        "left": pricer.facts(left),
        "free": _free(results),
    }


def plan_resolution(plan: Sequence[PlannedJob], results: Path, grid: Grid) -> dict[str, Any] | None:
    """The difference that a launch will resolve, from the spreads of the pairs that are finished: `pairs`, `unit`, and
    `points` by number of seeds, those of the launch first; None where no pair has two seeds."""
    counts = Counter(entry.job.digest() for entry in plan)
    done = Counter(entry.job.digest() for entry in plan if entry.state == "finished")
    if sum(number > 1 for number in done.values()) < 2:
        return None
    from sslbench.reporting.gains import planned, spread_out
    from sslbench.reporting.labels import metric_style
    from sslbench.reporting.tables import grid_report

    held = [each for table in grid_report(grid, [entry.job for entry in plan], results).tables for each in table.gains]
    gains = [each.gain for each in held if each.metric == held[0].metric]
    pairs = len(spread_out(gains))
    seeds = max(counts.values())
    if not pairs or seeds < 2:
        return None
    more = next((number for number in (3, 5, 10) if number > seeds), 2 * seeds)
    style = metric_style(held[0].metric)
    return {
        "pairs": pairs,
        "unit": "points" if style.percent else f"units of {style.title}",
        "points": {str(number): planned(gains, number) for number in (seeds, more)},
        "never_below": planned(gains, math.inf),
    }


def _done(entry: PlannedJob) -> float:
    """The share of a training that is done, as far as its directory says so."""
    progress = entry.run.progress() if entry.state in ("interrupted", "failed") else {}
    done, total = progress.get("iteration") or 0, progress.get("iterations") or 0
    return min(done / total, 1.0) if total else 0.0


def _free(folder: Path) -> int:
    """Free bytes where a folder is, or would be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _expanded(recipes: Collection[str] = ()) -> dict[str, list[Job]]:
    """The jobs of every grid that can be named, for no table; a grid that is not valid is left out.

    Args:
        recipes: the entries of these alone; none: all.
    """
    found = {}
    for name in grid_files():
        with suppress(SSLBenchError):
            grid = load_grid(name)
            entries = [entry for entry in grid.jobs if not recipes or {*(entry.recipe or grid.recipe)} & {*recipes}]
            if entries:
                found[name] = grid.model_copy(update={"jobs": entries, "table": TableSpec()}).expand()
    return found


def grid_costs(results: Path, device: str) -> list[dict[str, Any]]:
    """The listing of grids with their jobs and cost: `configurations`, `jobs`, `shared` (jobs that other grids have
    too), and the `Bill` of the jobs; a last row, without a name, is of all jobs, each once."""
    import torch

    from sslbench.execution.cost import Bill, Pricer

    pricer = Pricer(results, torch.device(device))
    grids = _expanded()
    owners = Counter(job.directory for jobs in grids.values() for job in jobs)
    every = {job.directory: job for jobs in grids.values() for job in jobs}
    rows = []
    for row in [row for row in listing("grids") if row["name"] in grids] + [{"name": "", "group": "all"}]:
        jobs = grids.get(row["name"], [*every.values()])
        bill = Bill()
        for job in jobs:
            pricer.add(bill, job)
        counts = {
            "configurations": len({job.digest() for job in jobs}),
            "jobs": len(jobs),
            "shared": sum(owners[job.directory] > 1 for job in jobs),
        }
        rows.append({**row, **counts, "cost": pricer.facts(bill)})
    return rows


def _action(entry: PlannedJob) -> str:
    if not entry.runs:
        return "wait" if entry.state == "running" else "skip"
    return {"interrupted": "continue", "damaged": "continue", "failed": "run again", "finished": "run again"}.get(
        entry.state, "run"
    )


# ------------------------------------------------------------------------------------------------------- numbers


def numbers(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """Tables as data: what each says about itself, and its `records`, the rows of the tidy CSV with typed numbers."""
    from sslbench.reporting.gains import as_data
    from sslbench.reporting.model import manifest
    from sslbench.reporting.render import tidy_csv
    from sslbench.reporting.standing import standing_data

    return [
        {
            "name": table.name,
            "grid": table.grid or None,
            "title": table.title,
            "measured": table.measured,
            "notes": list(table.notes),
            "records": [_typed(record) for record in csv.DictReader(io.StringIO(tidy_csv([table])))],
            "gains": [as_data(held) for held in table.gains],
            "standing": [standing_data(standing) for standing in table.standing],
            "runs": manifest([table]),
        }
        for table in tables
    ]


def compared(comparison: Comparison) -> dict[str, Any]:
    """A comparison as data: what it says about itself, and its `rows`, each with the settings in which it differs from
    print and its `records`, the lines of the tidy CSV with typed numbers."""
    from sslbench.reporting.beside import compared_facts, status
    from sslbench.reporting.model import manifest

    summary = comparison.summary
    return {
        "against": comparison.published.key,
        "title": comparison.heading,
        "summary": {
            "compared": summary.compared,
            "rows": summary.rows,
            "median": _or_none(summary.median),
            "intervals": summary.intervals,
            "leaving_out_0": summary.marked,
            "by_chance": summary.by_chance,
            "ranks": [{"budget": rank.budget, "tau": _or_none(rank.tau), "rows": rank.rows} for rank in summary.ranks],
            "of": summary.lead,
        },
        "remarks": list(comparison.remarks),
        "rows": [
            {
                "row": row.label,
                "status": status(row),
                "settings": [asdict(setting) for setting in row.settings],
                "footnotes": [comparison.footnotes[number - 1] for number in row.footnotes],
                "records": [
                    compared_facts(comparison, row, cell, column)
                    for cell, column in zip(row.cells, comparison.columns, strict=True)
                    if cell.measured or cell.published
                ],
            }
            for row in comparison.rows
        ],
        "runs": manifest(comparison.tables),
    }


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number


def _typed(record: dict[str, str]) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        name: float(record[name]) if record[name] else None for name in ("mean", "std", "low", "high")
    }
    return {**record, **numbers, "n": int(record["n"]), "expected": int(record["expected"])}
