"""Fixtures of tests that read run directories: stand-ins for what a table names, and runs with known numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

# Imported before any test swaps the registry: a module registers itself only once.
from sslbench.config.job import Job
from sslbench.core import registry
from sslbench.core.options import Options
from sslbench.data.base import ClassInfo, Dataset, Preprocessing
from tests.helpers.results import CLASSES, Scores, case_rows, component, protocol, same, write_cases


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


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with nothing but stand-ins."""
    monkeypatch.setattr(registry, "BUILTIN", {kind: {} for kind in registry.KINDS})
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


def write_run_of_job(write_run: Callable[..., Path], job: Job, dsc: float | Scores | None, **more: Any) -> Path:
    """The run of a grid's job, in its own directory."""
    canonical = job.canonical()
    facts = {name: getattr(canonical, name) for name in ("method", "loss", "plugin", "labeled", "seed", "recipe")}
    return write_run(dsc, **{**facts, "settings": canonical.set, "digest": job.digest(), **more})


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
