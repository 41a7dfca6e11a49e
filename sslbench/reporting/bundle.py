"""What a reviewer needs in one file: a report with the records, configurations and provenance behind it.

    README.md                what it is, and three commands
    manifest.json            see `manifest_of`
    environment.txt          the installed packages
    grid.yaml, splits/       what was asked for
    cases.csv.gz             the records
    report/                  tables, page, references
    runs/<run>/              config.yaml, provenance.json, metrics.jsonl; predictions/ where they were asked for

Images and references are never in it, nor anything that names the machine or its user.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Any

from sslbench.config.splits import split_files
from sslbench.config.text import counted
from sslbench.core.errors import SSLBenchError
from sslbench.core.files import write_json
from sslbench.reporting.report import Report
from sslbench.runs.archive import CASES, MANIFEST, packed, read_archive
from sslbench.runs.collect import Collection, records_csv
from sslbench.runs.directory import RUNS, Run
from sslbench.runs.records import CASE_COLUMNS, cases_text
from sslbench.runs.sealed import anonymous

REPORT = "report"  # the folder of tables
_MAPS = "*.nii.gz"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened.

    Attributes:
        path: the file.
        manifest: what it says about itself.
        files: what is in it by name, label maps apart.
    """

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]

    @classmethod
    def opened(cls, path: Path) -> Bundle:
        """Open a bundle.

        Raises:
            SSLBenchError: it is none, or damaged.
        """
        try:
            _, manifest = read_archive(path)
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not PurePosixPath(name).match(_MAPS)]
                return cls(path, manifest or {}, {name: archive.read(name) for name in names})
        except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise SSLBenchError(f"{path} {error}") from error

    @cached_property
    def of_runs(self) -> dict[str, bytes]:
        """The files of its runs, by their names below `runs/`."""
        return {name.removeprefix(f"{RUNS}/"): text for name, text in self.files.items() if name.startswith(f"{RUNS}/")}

    def unpacked(self, folder: Path, found: Collection) -> list[Run]:
        """Lay out its runs as run directories, with the records that it holds.

        Args:
            folder: to write to.
            found: its records.
        """
        runs = []
        with zipfile.ZipFile(self.path) as archive:
            for run in found.runs:
                if run.name not in found.reported:
                    continue
                own = Run(folder / run.name)
                for name in archive.namelist():
                    inside = PurePosixPath(name).parts
                    if name.startswith(f"{RUNS}/{run.name}/") and ".." not in inside:
                        target = folder.joinpath(*inside[1:])
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(archive.read(name))
                rows = found.by_run.of([run.name])
                text = cases_text({column: rows[column].tolist() for column in CASE_COLUMNS})
                for cases in {own.cases, own.tested(self.manifest["checkpoint"]).cases}:
                    cases.parent.mkdir(parents=True, exist_ok=True)
                    cases.write_bytes(text.encode())
                write_json(own.status_file, {"state": "finished"}, sync=False)
                runs.append(own)
        return runs


def bundle_members(
    report: Report, manifest: Mapping[str, Any], files: Mapping[str, bytes], name: str, predictions: bool
) -> Iterator[tuple[str, bytes]]:
    """What goes into a bundle: names and contents.

    Args:
        report: with results.
        manifest: of it.
        files: of the folder `report`.
        name: of the bundle's file, for its README.
        predictions: whether label maps go in.
    """
    yield MANIFEST, _json(manifest)
    yield CASES, packed(records_csv(report.found.records).encode())
    yield "environment.txt", "".join(f"{line}\n" for line in _installed()).encode()
    yield "README.md", _readme(report, manifest, name, predictions).encode()
    if manifest["grid"]:
        yield "grid.yaml", manifest["grid"]["yaml"].encode()
    yield from ((f"{REPORT}/{file}", content) for file, content in files.items())
    runs = [run for run in report.found.runs if run.name in report.found.reported]
    for dataset, splits in dict.fromkeys((str(run.values["dataset"]), str(run.values.get("splits"))) for run in runs):
        if path := _split_file(dataset, splits):
            yield f"splits/{dataset}/{path.name}", path.read_bytes()
    for run in runs:
        for path in (run.config, run.provenance, run.metrics):
            if path.is_file():
                yield f"{RUNS}/{run.name}/{path.name}", anonymous(path.read_text(encoding="utf-8")).encode()
        for path in sorted(run.tested(report.checkpoint).predictions.rglob(_MAPS)) if predictions else ():
            yield f"{RUNS}/{run.name}/{path.relative_to(run.directory).as_posix()}", path.read_bytes()


def _split_file(dataset: str, splits: str) -> Path | None:
    try:
        return split_files(dataset).get(splits)
    except SSLBenchError:  # a dataset that is not installed here
        return None


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _installed() -> list[str]:
    """The installed packages with their versions, without where they were installed from."""
    found = {str(one.metadata["Name"]).lower(): one.version for one in distributions() if one.metadata["Name"]}
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _readme(report: Report, manifest: Mapping[str, Any], name: str, predictions: bool) -> str:
    of = f"grid {report.grid.name}" if report.grid else "the runs of a results folder"
    runs = counted(len(report.found.reported), "run")
    held = "their label maps (`predictions/`)" if predictions else "no label maps"
    code = f"sslbench {manifest['sslbench']} ({manifest['code']})"
    return f"""# Results of {of}

{runs}, one row per case, class and metric in `{CASES}`, made with {code} by

    {manifest["command"]}

Here are the tables (`{REPORT}/`), and of each run its configuration, provenance and training records (`{RUNS}/`), with
{held}. There are no images and no references in this file; names of machines and absolute paths were taken out.
Who has the data prepares them and makes the runs again from `grid.yaml` and `splits/`.

    pip install sslbench=={manifest["sslbench"]}
    sslbench report {name}          # the table, from the records
    sslbench verify {name}          # do all numbers follow from the records, and are these as they were?
"""
