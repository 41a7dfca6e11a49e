"""Prepared data in nnU-Net's raw format: what a recipe trains and tests on, for software that is not in the matrix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslbench.config.splits import Splits
from sslbench.config.text import counted
from sslbench.core import parallel
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.core.files import save_nifti, write_json
from sslbench.data.store import Partition, Store, partition

ENDING = ".nii.gz"
UNLABELED = "imagesUn"  # nnU-Net looks at no such folder


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: `Dataset<number>_<name>`.
        cases: numbers of labelled, validation, test and unlabelled cases.
    """

    folder: Path
    cases: Mapping[str, int]


def export_nnunet(
    store: Store,
    splits: Splits,
    labeled: str,
    parent: Path,
    number: int,
    workers: int = 1,
    starting: Callable[[int], None] = lambda cases: None,
    progress: Callable[[str], None] = lambda case: None,
) -> Exported:
    """Write the cases of a split and label budget as a dataset of nnU-Net (version 2).

    Images and labels are those of the stored grid, which a recipe's networks see, placed where the scans lie.
    `imagesTr` and `labelsTr` hold the labelled and the validation cases, `splits_final.json` which is which (for
    `nnUNet_preprocessed/<folder>`), `imagesTs` and `labelsTs` the test cases, `imagesUn` the unlabelled ones.

    Args:
        store: prepared data.
        splits, labeled: case lists and label budget.
        parent: where the dataset's folder is made.
        number: of the dataset, 1 to 999.
        workers: processes.
        starting: told how many cases there are.
        progress: told the id of each case when it is written.

    Raises:
        UsageError: the folder is there already, or no number that nnU-Net takes.
        DataError: a stored file is damaged.
        SSLBenchError: a worker process died.
    """
    if not 1 <= number <= 999:
        raise UsageError(f"{number} is no dataset number of nnU-Net", "1 to 999; 500 and up are free for own use")
    held = partition(store, splits, labeled)
    name = re.sub(r"\W+", "_", f"{store.dataset.name}_{splits.budget(labeled).slug}")
    folder = parent / f"Dataset{number:03d}_{name}"
    if folder.exists():
        raise UsageError(f"{folder} is there already", "choose another --id or folder, or move it away")
    tasks = _tasks(store, held, folder)
    starting(len(tasks))
    for id, died in parallel.each(_write_case, tasks, workers):
        if died:
            raise SSLBenchError(f"{id}: {died}", f"remove {folder} and export again")
        progress(id)
    if held.validation:  # nnU-Net draws folds of its own where there is no such file
        write_json(folder / "splits_final.json", [{"train": list(held.labeled), "val": list(held.validation)}])
    write_json(folder / "dataset.json", _description(store, splits, labeled, held))
    counts = {part: len(getattr(held, part)) for part in ("labeled", "validation", "test", "unlabeled")}
    return Exported(folder, counts)


_Task = tuple[Store, str, Path, Path | None]


def _tasks(store: Store, held: Partition, folder: Path) -> dict[str, _Task]:
    """Case -> what `_write_case` takes."""
    places = {
        **dict.fromkeys((*held.labeled, *held.validation), ("imagesTr", "labelsTr")),
        **dict.fromkeys(held.test, ("imagesTs", "labelsTs")),
        **dict.fromkeys(held.unlabeled, (UNLABELED, None)),
    }
    return {
        id: (store, id, folder / images, folder / labels if labels else None) for id, (images, labels) in places.items()
    }


def _write_case(task: _Task) -> str | None:
    """Write the files of a case; nothing to tell."""
    store, id, images, labels = task
    for channel, image in enumerate(store.image(id)):
        save_nifti(store.on_stored_grid(id, image), images / f"{id}_{channel:04d}{ENDING}")
    if labels:
        save_nifti(store.on_stored_grid(id, np.asarray(store.label(id))), labels / f"{id}{ENDING}")
    return None


def _description(store: Store, splits: Splits, labeled: str, held: Partition) -> dict[str, Any]:
    """nnU-Net's `dataset.json`. Channels that are not called CT get a z-score there, as prepared images want."""
    kind = store.dataset
    budget = splits.budget(labeled).title
    return {
        "name": kind.name,
        "description": f"{kind.title}, prepared as {store.preprocessing}; splits {splits.name}, {budget} labelled: "
        f"{counted(len(held.labeled), 'case')}; {counted(len(held.unlabeled), 'case')} in {UNLABELED}",
        "channel_names": {str(number): f"prepared {name}" for number, name in enumerate(kind.channels)},
        "labels": {"background": 0, **{info.name: number for number, info in enumerate(kind.classes, start=1)}},
        "numTraining": len(held.labeled) + len(held.validation),
        "file_ending": ENDING,
    }
