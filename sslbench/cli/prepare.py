"""`sslbench prepare`: official files, or data of the user's own, into the cache that training reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sslbench.cli import completion
from sslbench.cli.console import failures, note, print_json, progress
from sslbench.cli.options import (
    DataDir,
    Json,
    PreprocessingName,
    Quiet,
    Workers,
    argument,
    flag,
    opened,
    option,
    setting,
    several,
)
from sslbench.core.errors import UsageError

_OWN, _LISTS = "Data of your own", "Case lists and label budgets (own data, and lists of your own)"


def prepare(
    dataset: Annotated[
        str, argument("DATASET", "synapse, acdc, phantom, ...: see `sslbench list datasets`.", completion.datasets)
    ],
    source: Annotated[Path | None, option("PATH", "Folder or archive (zip, tar, tar.gz) of what you hold.")] = None,
    download: Annotated[
        bool, flag("Download the official release, or say how to get it.", "--download/--no-download")
    ] = False,
    from_nnunet: Annotated[
        Path | None,
        option("DIR", "Define DATASET by an nnU-Net raw or MSD folder.", "--from-nnunet", "--from-msd", panel=_OWN),
    ] = None,
    from_pairs: Annotated[
        Path | None, option("DIR", "Define DATASET by images and masks: NAME.jpg, NAME_mask.jpg.", panel=_OWN)
    ] = None,
    classes: Annotated[
        list[str] | None, option("NAMES", "What the mask values 1, 2, ... mean: a,b.", panel=_OWN)
    ] = None,
    channels: Annotated[list[str] | None, option("NAMES", "What its channels are: CT, or T1,T2.", panel=_OWN)] = None,
    dims: Annotated[
        int | None, option("2|3", "Train on slices or on volumes; default: as voxels are.", panel=_OWN, min=2, max=3)
    ] = None,
    patient_pattern: Annotated[
        str | None, option("REGEX", "Finds the patient in a case's name; default: a case is one.", panel=_OWN)
    ] = None,
    splits: Annotated[
        Path | None, option("FILE", "Lists in YAML, or nnU-Net's splits_final.json.", panel=_LISTS)
    ] = None,
    split_seed: Annotated[int, option("N", "Of lists and budgets that are drawn (0).", panel=_LISTS)] = 0,
    fractions: Annotated[str | None, option("A,B,C", "Train, val and test (70,10,20).", panel=_LISTS)] = None,
    budgets: Annotated[
        list[str] | None, option("BUDGETS", "Shares or numbers of patients (5%,10%,20%,100%).", panel=_LISTS)
    ] = None,
    preprocessing: PreprocessingName = None,
    set: Annotated[
        list[str] | None,
        setting("Change an option of the dataset: see `sslbench show dataset`.", completion.dataset_settings),
    ] = None,
    workers: Workers = None,
    force: Annotated[
        bool, flag("Prepare again what is there; define own data anew.", "--force/--no-force", "-f")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Read official files or your own, check them, and write the verified cache that training reads."""
    from dataclasses import asdict

    from sslbench.config.text import parse_set
    from sslbench.data.prepare import prepare as prepare_dataset

    data = opened(data_dir)
    folder = from_nnunet or from_pairs
    own = {
        "--classes": classes,
        "--channels": channels,
        "--dims": dims,
        "--patient-pattern": patient_pattern,
        "--fractions": fractions,
    }
    both = {"--source": source, "--download": download, "--from-nnunet": from_nnunet, "--from-pairs": from_pairs}
    if len(given := [flag for flag, value in both.items() if value]) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together", "name one folder")
    if not folder and (alone := [flag for flag, value in own.items() if value]):
        raise UsageError(f"{alone[0]} belongs to data of your own", "name a folder with --from-nnunet or --from-pairs")
    lists: dict[str, Any] = {"data_dir": data, "seed": split_seed, "budgets": several(budgets) or None, "force": force}
    told: dict[str, Any] = {}
    if folder:
        from sslbench.data.own.define import define

        layout: Any = "pairs" if from_pairs else "nnunet"
        shares = _shares(fractions)
        defined = define(
            dataset, folder, layout, classes=several(classes), channels=several(channels), dims=dims,
            patients=patient_pattern, splits=splits, fractions=shares, **lists,
        )  # fmt: skip
        told = {"splits": [made.name for made in defined.splits], "recipe": str(defined.recipe)}
        for line in () if quiet else defined.lines:
            note(line)
    elif splits and not source and any((data / dataset).glob("*/dataset.json")):
        names = _added(dataset, splits, lists, quiet)
        if as_json:
            print_json({"dataset": dataset, "splits": names})
        return
    if download:
        source = _downloaded(dataset, data, quiet)
    with progress("cases", quiet) as bars:
        tasks: dict[str, Any] = {}

        def on_case(case: str, state: str) -> None:
            stage = {"generated": "generate", "unpacked": "unpack"}.get(state, "prepare")
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{stage} {dataset}", total=0 if state == "waiting" else None)
            if state == "waiting":
                bars.update(tasks[stage], total=(bars.tasks[tasks[stage]].total or 0) + 1)
            else:
                bars.advance(tasks[stage])

        report = prepare_dataset(
            dataset,
            source or folder,
            data_dir=data,
            preprocessing=preprocessing,
            options=parse_set(set or []),
            workers=workers or os.cpu_count() or 1,
            force=force,
            progress=on_case,
        )
    if splits and not folder:
        told = {"splits": _added(dataset, splits, lists, quiet)}
    if not quiet and not as_json:
        for line in (f"recognised: {report.recognised}", *report.notes):
            note(line)
    failures(report.failed)
    subset = (
        "" if report.found >= report.official else f" — a subset: {report.found} of {report.official} official cases"
    )
    if as_json:
        print_json(asdict(report) | told)
    elif not quiet:
        print(
            f"{report.dataset} ({report.preprocessing}): {report.written} written, {report.unchanged} unchanged, "
            f"{len(report.failed)} failed in {report.seconds:.1f} s -> {report.folder}{subset}"
        )
    if report.failed:
        raise typer.Exit(1)


def _downloaded(dataset: str, data: Path, quiet: bool) -> Path:
    """The archive of a dataset's official release, downloaded; where that is not possible, the way to it is printed."""
    from sslbench.core import registry
    from sslbench.data.files.download import can_download, download

    kind = registry.component("dataset", dataset)
    if not can_download(kind):
        for number, step in enumerate(kind.access, 1):
            note(f"{number}. {step}")
        way = "the steps above say how to get it" if kind.access else kind.source_hint
        raise UsageError(f"{kind.name} cannot be downloaded by sslbench", way)
    remote = kind.remote
    if remote is not None and not quiet:
        told = [f"downloads {remote.url}, licence {remote.licence}"]
        if not remote.tried:
            told.append("untried: this could not be tried when it was written down")
        if remote.hash is None:
            told.append("no checksum of it is known: only its archive's own ones are checked")
        for line in told:
            note(line)
    with progress("bytes", quiet) as bar:
        task = bar.add_task(f"download {dataset}", total=None)
        return download(kind, data, lambda file, done, total: bar.update(task, completed=done, total=total))


def _added(dataset: str, file: Path, how: dict[str, Any], quiet: bool) -> list[str]:
    """Add a user's lists to a prepared dataset; their names."""
    from sslbench.data.own.define import add_splits, split_notes

    made = add_splits(dataset, file, **how)
    for line in () if quiet else split_notes(made):
        note(f"{line}; --set splits={made[0].name} uses them")
    return [lists.name for lists in made]


def _shares(text: str | None) -> list[float] | None:
    """`70,10,20` as numbers."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"cannot read the fractions '{text}'", "three numbers for train, val and test: 70,10,20"
        ) from None
