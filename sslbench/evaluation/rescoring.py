"""Predictions that were scored once, scored again: the second level of `sslbench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.data.store import Store
from sslbench.evaluation.evaluate import first_difference
from sslbench.evaluation.scoring import score
from sslbench.evaluation.subjects import subject_of_run
from sslbench.runs.directory import Run

if TYPE_CHECKING:
    import pandas as pd


def differences_of(
    run: Run,
    records: pd.DataFrame,
    data_dir: Path,
    recorded: str | None = None,
    checkpoint: str | None = None,
    workers: int = 1,
) -> list[str]:
    """Score a run's label maps again: lines, each a way in which they are not what its records are of.

    Args:
        run: finished.
        records: of it, under one protocol.
        data_dir: where its dataset was prepared.
        recorded: the hash of its label maps; None: nobody recorded it.
        checkpoint: whose test it is; None: that of the run's own rule.
        workers: processes.

    Raises:
        UsageError: the dataset was not prepared.
    """
    files = run.tested(checkpoint)
    if recorded and files.hashes()[files.predictions.name] != recorded:
        return ["its predictions changed"]
    store = Store.open(data_dir, str(run.values["dataset"]), str(run.values["preprocessing"]))
    if run.data.get("fingerprint") not in (None, store.fingerprint):
        return [f"the prepared data in {store.folder} are not those that it was tested on"]
    protocol = registry.component("protocol", str(records["protocol"].iloc[0]))
    try:
        scores = score(subject_of_run(run, data_dir, checkpoint=checkpoint), [protocol], workers)
    except SSLBenchError as error:
        return [error.message]
    found = [f"{case}: {why}" for case, why in {**scores.failed, **scores.refused}.items()]
    known = {name: records[name].tolist() for name in ("case", "class_id", "metric", "value", "state")}
    different = first_difference(scores.records.get(protocol.name, ()), known)
    return [*found, *([f"its predictions score otherwise, first in {different}"] if different else [])]
