"""What identifies a run and its records in a manifest: names, hashes, and the facts that captions need.

A file of records says neither how many cases there were nor which splits leak. A manifest beside it does, so that a
table made of the file reads as one made of the run directories.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from sslbench.runs.collect import Collection
from sslbench.runs.directory import Run
from sslbench.runs.records import CASE_COLUMNS, CaseTable, cases_text

_FACTS = ("dataset", "preprocessing", "splits", "checkpoint", "protocol", "imported")
_MEASURED = ("training_seconds", "test_seconds")
# An absolute path, on Windows too; not the end of a word, a relative path or an address.
_PATH = re.compile(r"(?<![\w.:/\\~)])(?:~?(?:/[^\s/:,;'\"\\]+){2,}/?|[A-Za-z]:[\\/][^\s,;'\"]+)")
_NAMES_MACHINE = re.compile(r'^ *"host": .*\n', re.MULTILINE)


def sealed_runs(found: Collection, protocol: str | None = None, checkpoint: str | None = None) -> dict[str, Any]:
    """Runs as a manifest has them (JSON-able): `runs`, and the `facts` that they share.

    A run is `run` (its name), `digest`, `seed`, `state`, `sha256`, the number of its `facts` and the seconds of its
    `status`; one without records has its `job`. Hashes are of `records` as `cases_text` has them, which whoever holds
    them in any form can compute; of `cases`, the file that was reported; of `config.yaml` and `provenance.json` without
    what names a machine (`anonymous`); of `maps`, the label maps, as the run recorded it. null: there is none.

    Args:
        found: the records of a report, and its runs.
        protocol, checkpoint: whose records were reported; None: the runs' own.
    """
    facts: list[Mapping[str, Any]] = []
    runs = []
    for run in found.runs:
        if run.state == "damaged":
            runs.append({"run": run.name, "state": run.state})
            continue
        own = _facts(run)
        if own not in facts:
            facts.append(own)
        entry = {
            "run": run.name,
            "digest": run.digest,
            "seed": run.job["seed"],
            "state": run.state,
            "sha256": {"records": records_hash(found, run.name), **_file_hashes(run, protocol, checkpoint)},
            "facts": facts.index(own),
            "status": {name: value for name, value in run.status().items() if name in _MEASURED},
        }
        if run.name not in found.reported:  # or else the records say it
            parts = {part: run.job[part] for part in ("labeled", "method", "loss", "plugin", "seed")}
            entry["job"] = {"recipe": run.recipe, **parts, "variant": run.variant}
        runs.append(entry)
    return {"runs": runs, "facts": facts}


def records_hash(found: Collection, run: str) -> str | None:
    """SHA-256 of the records of a run, as `cases_text` has them; None where it has none."""
    rows = found.by_run.of([run])
    if rows.empty:
        return None
    table: CaseTable = {name: rows[name].tolist() for name in CASE_COLUMNS}
    return _hash(cases_text(table).encode())


def _file_hashes(run: Run, protocol: str | None, checkpoint: str | None) -> dict[str, str | None]:
    files = run.tested(checkpoint)
    own = protocol in (None, run.values.get("protocol")) or not files.cases_under(str(protocol)).exists()
    rule = checkpoint or str(run.values.get("checkpoint"))
    cases = files.cases if own else files.cases_under(str(protocol))
    return {
        "cases": _hash(cases.read_bytes()) if cases.is_file() else None,
        **config_hashes(run),
        "maps": run.recorded_hashes(rule).get(files.predictions.name),
    }


def config_hashes(run: Run, files: Mapping[str, bytes] | None = None) -> dict[str, str | None]:
    """SHA-256 of a run's `config.yaml` and `provenance.json`, by name, without what names a machine; None: it is not
    there.

    Args:
        files: where they are, by their names behind the run's (`<run>/config.yaml`); None: in its directory.
    """
    if files is None:
        paths = (run.config, run.provenance)
        files = {f"{run.name}/{path.name}": path.read_bytes() for path in paths if path.is_file()}
    held = {name: files.get(f"{run.name}/{name}") for name in (run.config.name, run.provenance.name)}
    return {
        name: None if content is None else _hash(anonymous(content.decode()).encode()) for name, content in held.items()
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def anonymous(text: str) -> str:
    """The text of a file of a run, or a command, without what names a machine or its user: absolute paths become the
    name at their end, and the line of `host` goes."""
    return _PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], _NAMES_MACHINE.sub("", text))


def _facts(run: Run) -> dict[str, Any]:
    values = {name: run.values[name] for name in _FACTS if name in run.values}
    return {"values": values, "data": dict(run.data), "splits": dict(run.splits)}
