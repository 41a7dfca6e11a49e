"""`sslbench verify`: a manifest, a table, records or a bundle against the records that its numbers are of."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslbench.cli.console import print_json, progress
from sslbench.cli.options import DataDir, Json, Quiet, ResultsDir, Workers, flag, opened
from sslbench.cli.rendering import FORMS, Rendering, compared
from sslbench.cli.reports import remade
from sslbench.core.errors import SSLBenchError, UsageError

if TYPE_CHECKING:
    from sslbench.reporting.verify import Verification
    from sslbench.runs.collect import Collection

_PAGE = ".html"


def verify(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="WHAT",
            help="A table, report.html, records or a bundle that `report` or `bundle` wrote; a manifest; a folder of "
            "`report --all`.",
            show_default=False,
        ),
    ],
    predictions: Annotated[
        bool, flag("Score the predictions again, against the prepared references.", "--predictions/--no-predictions")
    ] = False,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Check that printed numbers follow from records that are as they were. Exit code 1 where anything differs."""
    from sslbench.core import settings

    data, results = opened(data_dir), settings.results_dir(results_dir)
    claim = _claim_of(what)
    found = _records_of(claim, results)
    verdict = _verdict(claim, found, results)
    if predictions:
        _rescore(claim, found, data, workers or os.cpu_count() or 1, quiet, verdict)
    if as_json:
        print_json({**asdict(verdict), "holds": verdict.holds, "summary": str(verdict)})
    else:
        for line in (*verdict.others, *verdict.numbers):
            print(line)
        print(verdict)
    if not verdict.holds:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Claim:
    """What is to be verified.

    Attributes:
        place: the file or folder.
        manifest: of it.
        tables: texts of tables by the names of their files.
        cells: whether the manifest's own numbers are claimed too.
        records: the file of records that is claimed; None: none is.
        beside: a file of records that stands in where the run directories are elsewhere.
        files: of a bundle, the other files of its runs, by their names below them.
    """

    place: Path
    manifest: Mapping[str, Any]
    tables: Mapping[str, str] = field(default_factory=dict)
    cells: bool = False
    records: Path | None = None
    beside: Path | None = None
    files: Mapping[str, bytes] | None = None


def _claim_of(what: Path) -> _Claim:
    from sslbench.core.files import read_json
    from sslbench.reporting.readback import manifest_in_page
    from sslbench.runs.archive import BUNDLE, CASES, MANIFEST, MANIFEST_FORMAT, manifest_beside

    hint = "name what `report -o`, `report --all` or `bundle` wrote"
    if not what.exists():
        raise UsageError(f"there is no {what}", hint)
    if what.suffix == BUNDLE:
        return _claim_of_bundle(what)
    if what.is_dir():
        manifest = manifest_beside(what / MANIFEST)
        if manifest is None:
            raise UsageError(f"{what} has no {MANIFEST}", hint)
        names = [*what.glob("table.*"), *what.glob(f"*{_PAGE}")]
        tables = {path.name: _text(path) for path in sorted(names) if path.suffix in (*FORMS, _PAGE)}
        records = what / CASES
        return _Claim(what, manifest, tables, True, records if records.exists() else None)
    own = read_json(what) if what.suffix == ".json" else None
    if isinstance(own, dict) and own.get("manifest") == MANIFEST_FORMAT:
        kept = what.with_name(what.name.removesuffix(".manifest.json"))
        if kept != what and _holds_records(kept):
            return _Claim(what, own, {}, True, kept)
        return _Claim(what, own, {}, True, beside=what.with_name(CASES))
    page = _text(what) if what.suffix == _PAGE else ""
    manifest = (manifest_in_page(page) if page else None) or manifest_beside(what)
    if manifest is None:
        raise UsageError(f"{what} has no manifest beside it, {what.name}.manifest.json", hint)
    if _holds_records(what):
        return _Claim(what, manifest, {}, True, what)
    if what.suffix not in (*FORMS, _PAGE):
        raise UsageError(f"{what} is nothing that can be verified", f"tables end in {', '.join(FORMS)}")
    return _Claim(what, manifest, {what.name: _text(what)}, beside=what.with_name(CASES))


def _claim_of_bundle(what: Path) -> _Claim:
    from sslbench.reporting.bundle import REPORT, Bundle

    bundle = Bundle.opened(what)
    tables = {
        name: content.decode()
        for name, content in bundle.files.items()
        if Path(name).parent.name == REPORT and Path(name).suffix in (*FORMS, _PAGE)
    }
    return _Claim(what, bundle.manifest, tables, True, what, files=bundle.of_runs)


def _text(path: Path) -> str:
    from sslbench.core.files import read_text

    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise SSLBenchError(f"{path} is no text: {error}") from error


def _holds_records(path: Path) -> bool:
    """Whether a file is of records rather than of a table, also where it is missing."""
    from sslbench.runs.archive import PARQUET
    from sslbench.runs.collect import COLUMNS

    if path.name.endswith((".csv.gz", PARQUET)):
        return True
    return path.suffix == ".csv" and path.is_file() and _text(path).startswith(",".join(COLUMNS[:8]))


def _records_of(claim: _Claim, results: Path) -> Collection:
    """The records that the numbers are held against: those of a file that is claimed, or of run directories."""
    from sslbench.runs.collect import collect, records_of
    from sslbench.runs.directory import Renamed, Run

    runs = [Run.named(entry["run"], results) for entry in claim.manifest["runs"]]
    begun = [run for run in runs if run.begun] if claim.records is None or claim.place.is_dir() else []
    whole = []
    for run in begun:
        try:
            run.check_identity()
        except Renamed:
            continue  # it is missed, then
        except SSLBenchError:
            pass  # and told of as damaged
        whole.append(run)
    if whole:
        return records_of(whole, claim.manifest["protocol"], claim.manifest["checkpoint"])
    kept = claim.records or claim.beside
    if kept is not None and kept.exists():
        return collect(kept)
    raise UsageError(
        f"none of the {len(runs)} runs behind {claim.place} is in {results}",
        "say where they are: --results-dir DIR",
    )


def _verdict(claim: _Claim, found: Collection, results: Path) -> Verification:
    from sslbench.config.published import published_table
    from sslbench.reporting.readback import differences, page_differences
    from sslbench.reporting.verify import Verification, check_cells, check_protocols, check_runs
    from sslbench.runs.collect import collect

    verdict, manifest = Verification(), claim.manifest
    check_protocols(manifest, verdict)
    check_runs(manifest, found, verdict, claim.files)
    if claim.records and found.manifest is None:  # read from the runs: the file beside them is to be the same
        kept = Verification()
        check_runs(manifest, collect(claim.records), kept)
        verdict.others += [f"{claim.records.name}: {line}" for line in kept.others]
    try:
        made = remade(manifest, found, claim.records or results)
        published = published_table(manifest["against"]) if manifest["against"] else None
        rendering = Rendering(made, compared(made, published, results) if published else None)
        if claim.cells:
            verdict.add(check_cells(manifest, made.tables))
        for name, text in claim.tables.items():
            whose, form = name if len(claim.tables) > 1 else "", FORMS.get(Path(name).suffix)
            if form is None:
                verdict.add(page_differences(text, made.tables), whose)
            else:
                verdict.add(differences(text, rendering.table(form), form), whose)
    except SSLBenchError as error:
        verdict.others.append(f"numbers cannot be made again from the records: {error.message}")
    return verdict


def _rescore(claim: _Claim, found: Collection, data: Path, workers: int, quiet: bool, verdict: Verification) -> None:
    """Level 2: score predictions again, where the references are those that they were scored on."""
    from sslbench.evaluation.rescoring import differences_of
    from sslbench.reporting.bundle import Bundle

    entries = {entry["run"]: entry for entry in claim.manifest["runs"]}
    with tempfile.TemporaryDirectory() as folder, progress("cases", quiet) as bar:
        runs = [run for run in found.runs if run.name in found.reported]
        if claim.files is not None:
            runs = Bundle.opened(claim.place).unpacked(Path(folder), found)
        task = bar.add_task("score", total=len(runs))
        checkpoint = claim.manifest["checkpoint"]
        checked = 0
        for run in runs:
            if not run.tested(checkpoint).predictions.is_dir():
                verdict.others.append(f"{run.name}: its predictions are not here")
            else:
                recorded = (entries.get(run.name) or {}).get("sha256", {}).get("maps")
                lines = differences_of(run, found.by_run.of([run.name]), data, recorded, checkpoint, workers)
                verdict.others += [f"{run.name}: {line}" for line in lines]
                checked += not lines
            bar.advance(task)
    verdict.predictions = f"predictions of {checked} of {len(runs)} runs score the same"
