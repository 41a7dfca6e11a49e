"""Stand-ins for the components that a table names, and runs on disk with known numbers."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

# Imported before any test swaps the registry: a module registers itself only once.
from sslbench import registry
from sslbench.core.options import NoOptions, Options
from sslbench.data.base import ClassInfo, Dataset, Preprocessing
from sslbench.metrics.protocols import EmptyPolicy, Protocol
from sslbench.reporting.collect import CASE_COLUMNS

CLASSES = ("rv", "myo", "lv")


class Hearts(Dataset):
    name, title = "hearts", "Hearts & more"
    classes = tuple(ClassInfo(short, short) for short in CLASSES)
    preprocessings = {"plain": Preprocessing(axes="xyz")}
    splits_from = "acdc"
    official_cases = 100

    def cases_of(self, form: Any, source: Path) -> list[Any]:
        return []


class GAOptions(Options):
    gamma: float = 0.5
    side: str = "both"


def component(title: str = "", group: str = "", options: type[BaseModel] = NoOptions) -> Any:
    return SimpleNamespace(
        title=title,
        group=group,
        Options=options,
        version=1,
        defaults={},
        views={},
        objection=lambda job: None,
        dims=2,
        divisor=1,
        several=False,
    )


def protocol(name: str, ddof: int, unit: Any = "mm") -> Protocol:
    return Protocol(
        name, 1, "", "original", unit, ("dsc", "asd"), EmptyPolicy(missed_distance=9.0, spurious_distance=9.0), ddof
    )


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with nothing but stand-ins."""
    monkeypatch.setattr(registry, "_BUILTIN", {kind: {} for kind in registry.KINDS})
    monkeypatch.setattr(registry, "_entries", {kind: {} for kind in registry.KINDS})
    monkeypatch.setattr(registry, "_entry_points", lambda kind: ())
    registry.register("dataset", "hearts")(Hearts)
    registry.register("network", "net")(component())
    registry.register("protocol", "papers")(protocol("papers", 0, "voxel"))
    registry.register("protocol", "ours")(protocol("ours", 1))
    registry.register("method", "supervised")(component("Supervised", "Reference"))
    registry.register("method", "cps")(component("CPS", "General"))
    registry.register("method", "mt")(component("MT", "General"))
    registry.register("method", "dhc")(component("DHC", "Imbalance"))
    registry.register("loss", "default")(component())
    registry.register("loss", "ga")(component("GA", options=GAOptions))
    registry.register("loss", "ga_labeled_only", preset_of="ga", set={"side": "label"})
    registry.register("plugin", "scdl")(component("SCDL"))


RECIPE = {
    "dataset": "hearts",
    "preprocessing": "plain",
    "splits": "ssl4mis",
    "network": {"name": "net"},
    "patch_size": [8, 8],
    "batch": {"labeled": 1, "unlabeled": 1},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "schedule": {"iterations": 10, "validate_every": 5},
    "checkpoint": "best-val",
    "protocol": "papers",
    "seeds": [0, 1],
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return str(path)


Scores = Mapping[str, Sequence[float | None]]


def case_rows(scores: Scores, protocol: str = "papers", unit: str = "voxel") -> list[list[Any]]:
    """Rows of `cases.csv`: DSC as given (0: a missed structure; None: absent, excluded), ASD 10 (1 - DSC)."""
    rows = []
    for case in range(max(map(len, scores.values()))):
        for class_id, name in enumerate(CLASSES, 1):
            dsc = scores[name][case]
            state = "absent" if dsc is None else "both" if dsc else "missed"
            voxels = [0 if dsc is None else 50, 50 if dsc else 0]
            asd = None if dsc is None else 10 * (1 - dsc)
            for metric, value, of in (("dsc", dsc, "fraction"), ("asd", asd, unit)):
                text = "" if value is None else repr(float(value))
                rows.append([protocol, f"{case + 1:04d}", class_id, name, metric, text, of, state, *voxels])
    return rows


def write_cases(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CASE_COLUMNS)
        writer.writerows(rows)


def same(dsc: float | None, cases: int = 2) -> Scores:
    return {name: [dsc] * cases for name in CLASSES}


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run directory as a worker leaves it."""

    def write(
        dsc: float | Scores | None = 0.5,
        *,
        method: str = "cps",
        loss: str = "default",
        plugin: str | None = None,
        labeled: str = "3-patients",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        recipe: str = "short",
        protocol: str = "papers",
        state: str = "finished",
        digest: str = "",
        data: Mapping[str, Any] | None = None,
        leaks: str = "",
        results: Path = tmp_path / "results",
    ) -> Path:
        settings = dict(settings or {})
        job = {"recipe": recipe, "method": method, "loss": loss, "plugin": plugin, "labeled": labeled}
        digest = digest or hashlib.sha256(json.dumps([job, settings, protocol]).encode()).hexdigest()
        variant = ",".join(f"{path}={value}" for path, value in settings.items())
        cell = f"{method}+{loss}" + (f"+{plugin}" if plugin else "") + (f"~{variant}" if variant else "")
        run = results / "runs" / Path(recipe).stem / labeled / cell / f"seed-{seed}-{digest[:8]}"
        run.mkdir(parents=True)
        values = {"dataset": "hearts", "splits": "ssl4mis", "checkpoint": "best-val", "protocol": protocol}
        config = {"job": {**job, "seed": seed, "set": settings}, "digest": digest, "values": values, "layers": {}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "status.json").write_text(json.dumps({"state": state, "error": ""}))
        held = {"dataset": "hearts", "found": 100, "official": 100, "fingerprint": "f", **(data or {})}
        (run / "provenance.json").write_text(json.dumps({"data": held, "splits": {"leaks": leaks}}))
        if state == "finished":
            scores = dsc if isinstance(dsc, Mapping) else same(dsc)
            unit = registry.component("protocol", protocol).unit
            write_cases(run / "cases.csv", case_rows(scores, protocol, unit))
        return run

    return write
