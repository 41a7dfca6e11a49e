"""A run directory: all that one job left, where it stands, and who is working on it.

config.yaml       the job, its digest, every resolved value with its layer
provenance.json   versions, hardware, precision, data and split hashes; in the end, hashes of the records
status.json       state, attempts, last error, checkpoint choice, seconds, peak memory, mean scores of the test
progress.json     where the job stands, for displays, and for a launcher that waits for the job's GPU
trained.json      what rebuilds the networks without the training data
metrics.jsonl     training and validation records
log.txt           plain text with times
cases.csv         one row per case x class x metric under the recipe's protocol; cases-NAME.csv: under another
checkpoints/      two generations, and the best weights
confusion.csv     voxels of each case by class in the reference and in the prediction, on the grid that was scored
predictions/      NIfTI in the original geometry; preprocessed/ where that grid differs
last/, best-val/  cases, confusion and predictions of another checkpoint, where a recipe's `checkpoints` asks for it
events/           the same records for TensorBoard, where a launch asked for them; nothing reads them back
lease.json        who works on it: host, process, last heartbeat
lease.lock        locked while that process lives
slurm.json        the task of Slurm that it was last submitted in, and that task's log, where it was; slurm.log: a link

No other module spells these names, and every reader learns from `Run` where a run stands:

pending           nothing was done yet
running           a process holds its lease
interrupted       work was begun and nobody does it; `sslbench run` continues it
failed            the job cannot be done, for the reason given; `sslbench run --retry-failed` tries it again
finished          its records are there, whole
damaged           its files are not as a worker leaves them. Where the records are, `sslbench run` makes them again from
                  the last checkpoint; where the configuration is, it stops: the directory may be another job's
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from filelock import FileLock, Timeout

from sslbench.config.job import Job, settings_of
from sslbench.config.text import compact
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, StorageError, UsageError
from sslbench.core.files import move_aside, read_json, sync_files, write_json, write_text
from sslbench.runs.records import CaseTable, group_reader, one_line, read_cases

State = Literal["pending", "running", "finished", "failed", "interrupted", "damaged"]

HEARTBEAT_S = 5.0
CLAIM_S = 0.5  # after which a new owner looks whether another one came at the same moment
# A lease on a shared file system without working locks counts as abandoned after this long without a heartbeat.
ABANDONED_S = 60.0
RUNS = "runs"  # the folder of a results folder that holds them
IMPORTED = "imported"  # that of predictions of other software, laid out likewise

_JOB = ("recipe", "method", "loss", "plugin", "labeled", "seed")
_FOLDER = re.compile(r"seed-(\d+)-([0-9a-f]{8})")
# The beginning of config.yaml as it is written: a part of the job on each line, what a part holds further in.
_HEAD = re.compile(r"job:\n((?:  .*\n)+)digest: ([0-9a-f]{64})")
_PART, _SEED = re.compile(r"^  (\w+):", re.MULTILINE), re.compile(r"^  seed: (\d+)$", re.MULTILINE)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a grid has hundreds of these files
_PROCESS_DIED = "its process died: it was killed, or its machine stopped"


class Busy(SSLBenchError):
    """Another process is working on the run."""


class Damage(SSLBenchError):
    """A file of a run that is not as a worker leaves it.

    Attributes:
        file: the file, or the run directory itself where that has another job's name.
        why: what is wrong, said of the file: `is missing`.
    """

    def __init__(self, file: Path, why: str, hint: str) -> None:
        super().__init__(f"{file} {why}; the run is damaged", hint)
        self.file, self.why = file, why

    @property
    def brief(self) -> str:
        """The fault, for a reader who sees which run it is."""
        return f"{self.file.name} {self.why}"

    @property
    def left_out(self) -> str:
        """The warning of a reader that goes on without the run."""
        return f"{self.file} is left out: it {self.why}; the run is damaged"


class Renamed(Damage):
    """A directory whose name is not that of the job in it: its numbers would pass for another job's."""


class Standing(NamedTuple):
    """The state of a run with its reason.

    Attributes:
        state: see this module.
        error: why the run failed, was interrupted or is damaged; else empty.
        damage: the file that is damaged, if one is.
    """

    state: State
    error: str = ""
    damage: Damage | None = None

    def __str__(self) -> str:
        return f"{self.state}: {self.error}" if self.error else self.state


class _Config(NamedTuple):
    """The content of `config.yaml`."""

    job: Mapping[str, Any]
    digest: str
    values: Mapping[str, Any]
    layers: Mapping[str, str]


class _Named(NamedTuple):
    """What `config.yaml` has of the directory's name."""

    seed: int
    digest: str


class TestFiles:
    """What the test of one checkpoint left: records, and label maps.

    Args:
        folder: that holds them.

    Attributes:
        cases: the records under the recipe's protocol.
        confusion: what classes were taken for.
        predictions: the folder of the label maps.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.cases, self.predictions = folder, folder / "cases.csv", folder / "predictions"
        self.confusion = folder / "confusion.csv"

    def cases_under(self, protocol: str) -> Path:
        """The records that `evaluate` made under another protocol than the run's own."""
        return self.cases.with_name(f"{self.cases.stem}-{protocol}{self.cases.suffix}")

    def prediction(self, case: str) -> Path:
        """The label map of a test case in the geometry of its scan."""
        return self.predictions / f"{case}.nii.gz"

    def preprocessed_prediction(self, case: str) -> Path:
        """The same on the grid that the networks saw, where that is another."""
        return self.predictions / "preprocessed" / f"{case}.nii.gz"

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the records, and one over the label maps: of the lines `<name> <sha256>`, each closed by a line
        feed, in the order of the names below `predictions/`."""
        names = {path.relative_to(self.predictions).as_posix(): path for path in self.predictions.rglob("*.nii.gz")}
        lines = "".join(f"{name} {_sha256(path)}\n" for name, path in sorted(names.items()))
        return {
            self.cases.name: _sha256(self.cases),
            self.predictions.name: hashlib.sha256(lines.encode()).hexdigest(),
        }


def _below(name: str) -> cached_property[Path]:
    """A path in a run directory, made when it is asked for: a plan has thousands of runs, and looks at few."""
    return cached_property(lambda run: run.directory / name)


class Run:
    """One run directory. Files are read when they are first asked for; nothing is written unless a method says so.

    Args:
        directory: where it lies; it need not exist yet.

    Attributes:
        directory: the same.
        config, provenance, status_file, progress_file, trained, metrics, log, checkpoints, events: its files and
            folders, see this module.
    """

    config, provenance = _below("config.yaml"), _below("provenance.json")
    status_file, progress_file = _below("status.json"), _below("progress.json")
    trained, metrics, log = _below("trained.json"), _below("metrics.jsonl"), _below("log.txt")
    checkpoints, events = _below("checkpoints"), _below("events")
    _submission_file, _submission_log = _below("slurm.json"), _below("slurm.log")
    _lease_file, _lock_file = _below("lease.json"), _below("lease.lock")

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._standing: Standing | None = None
        self._kept_status: Mapping[str, Any] | None = None
        self._heard: tuple[float, float] | None = None  # the last heartbeat that was seen, and when it had changed

    @classmethod
    def of(cls, job: Job, results: Path) -> Run:
        """The run of a job, begun or not."""
        return cls(results / RUNS / job.directory)

    @classmethod
    def named(cls, name: str, results: Path) -> Run:
        """The run of a name, of a job or imported, begun or not."""
        imported = results / IMPORTED / name
        return cls(imported if imported.is_dir() else results / RUNS / name)

    @classmethod
    def of_records(
        cls,
        directory: Path,
        name: str,
        job: Mapping[str, Any],
        digest: str,
        values: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
        state: State = "finished",
        status: Mapping[str, Any] | None = None,
    ) -> Run:
        """A run whose records lie elsewhere, in one file with others'; its directory need not be there.

        Args:
            provenance: as in the file of that name; None: what lies in the directory, if anything does.
            state: where it stood when they were put there.
            status: what `status.json` said besides; None: what lies in the directory.
        """
        run = cls(directory)
        run.name = name
        run._config = _Config(job, digest, values, {})
        if provenance is not None:
            run._provenances = provenance
        run._standing = Standing(state)
        run._kept_status = status
        return run

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.directory == other.directory

    def __hash__(self) -> int:
        return hash(self.directory)

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r})"

    # ---------------------------------------------------------------------------------------------------- paths

    @cached_property
    def own(self) -> TestFiles:
        """Of the checkpoint that the run's results are of: `cases`, `predictions` and `confusion`."""
        return TestFiles(self.directory)

    @cached_property
    def cases(self) -> Path:
        """The records of `own`."""
        return self.own.cases

    @cached_property
    def predictions(self) -> Path:
        """The folder of the label maps of `own`."""
        return self.own.predictions

    @cached_property
    def name(self) -> str:
        """The directory relative to `results/runs`: `<recipe>/<labeled>/<cell>/seed-<n>-<digest8>`."""
        return "/".join(self.directory.absolute().parts[-4:])

    def tested(self, rule: str | None = None) -> TestFiles:
        """What the test of a rule's checkpoint left (`best-val`, `last`); None: of the one that the results are of."""
        return self.own if rule in (None, self.values.get("checkpoint")) else TestFiles(self.directory / str(rule))

    def others(self) -> list[Run]:
        """The runs of the same name and seed with another digest: other versions, other case lists."""
        pattern = self.directory.name[:-8] + "?" * 8
        return [Run(path) for path in sorted(self.directory.parent.glob(pattern)) if path != self.directory]

    # --------------------------------------------------------------------------------------------------- config

    @property
    def begun(self) -> bool:
        """True where a job was ever written down here."""
        return self.config.exists() or self.status_file.exists()

    @property
    def job(self) -> Mapping[str, Any]:
        """The canonical job, as in `config.yaml`; this and what follows from it raise `Damage` where there is none."""
        return self._config.job

    @property
    def digest(self) -> str:
        """64 hexadecimal digits; runs that share it differ in the seed alone."""
        return self._config.digest

    @property
    def values(self) -> Mapping[str, Any]:
        """Every dotted path of the configuration and its value; few are known of runs from a tidy CSV."""
        return self._config.values

    @property
    def layers(self) -> Mapping[str, str]:
        """For each path of `values`, the layer that it came from."""
        return self._config.layers

    @property
    def imported(self) -> str:
        """The title of other software whose predictions these are; empty: it was trained here."""
        return str(self.values.get("imported") or "")

    @property
    def recipe(self) -> str:
        """The recipe's name, also where it is a file of the user's."""
        return Path(str(self.job["recipe"])).stem

    @property
    def variant(self) -> str:
        """The differences of the job from its named parts; empty where it does not."""
        return self.job.get("variant", variant_of(settings_of(self.job)))

    @property
    def cell(self) -> tuple[str, ...]:
        """The values of `collect.CELL_COLUMNS`."""
        parts = (str(self.job[part] or "") for part in ("labeled", "method", "loss", "plugin"))
        return (self.recipe, *parts, self.variant, self.digest)

    @property
    def data(self) -> Mapping[str, Any]:
        """The record of the dataset in `provenance.json`; empty where it has none."""
        return self._provenance("data")

    @property
    def splits(self) -> Mapping[str, Any]:
        """The record of the split lists in `provenance.json`; empty where it has none."""
        return self._provenance("splits")

    def seal(self, rules: Sequence[str], facts: Mapping[str, Any] | None = None) -> None:
        """Add to the provenance the hashes of what the tests of these rules left, by which a change can be told, and
        other facts that the end of a run alone knows."""
        self.__dict__.pop("_provenances", None)  # it was written since
        found = {rule: self.tested(rule).hashes() for rule in rules}
        write_json(self.provenance, {**self._provenances, **(facts or {}), "tested": found})
        del self._provenances

    def recorded_hashes(self, rule: str) -> Mapping[str, str]:
        """The hashes that `seal` recorded of the test of a rule's checkpoint; empty where there are none."""
        found = self._provenance("tested").get(rule)
        return found if isinstance(found, dict) else {}

    @property
    def case_counts(self) -> tuple[int, int]:
        """How many cases its dataset had, and how many the official one has; equal where that is not known."""
        found, official = self.data.get("found"), self.data.get("official")
        return (found, official) if isinstance(found, int) and isinstance(official, int) else (0, 0)

    @property
    def device(self) -> str:
        """The card or processor that it runs or ran on, as `provenance.json` names it; empty where it does not."""
        return str(self._provenances.get("device") or "")

    def load_job(self) -> Job:
        """Make the job in config.yaml.

        Raises:
            SSLBenchError: it is missing or damaged.
        """
        try:
            return Job(**self.job)
        except (TypeError, ValueError) as error:
            raise SSLBenchError(f"{self.config} cannot be read as a job: {error}") from error

    def check_identity(self) -> None:
        """Check that the configuration can be read, and is that of the directory's name.

        Raises:
            Damage: it cannot be read.
            Renamed: the two disagree.
        """
        seed, digest = self._named
        named = _FOLDER.fullmatch(self.directory.absolute().name)
        if named and (int(named[1]), named[2]) != (seed, digest[:8]):
            raise Renamed(
                self.directory,
                f"is not what its {self.config.name} says: it holds another job (seed {seed}, digest {digest[:8]})",
                "a run directory was renamed or its configuration edited: restore it, or move it away",
            )

    def check_job(self, job: Job) -> None:
        """Check that the directory is free for a job, or that job's.

        Raises:
            SSLBenchError: it is damaged, or holds another job.
        """
        if not self.begun:
            return
        self.check_identity()
        if self._named.digest != job.digest():
            raise SSLBenchError(
                f"{self.directory} holds another job (digest {self._named.digest[:8]}, expected {job.digest()[:8]})",
                "move it aside, or use another --results-dir",
            )

    def write_config(self, job: Job) -> None:
        """Write the job down, or check that the directory is this job's.

        Raises:
            SSLBenchError: the directory is damaged, or holds another job.
        """
        self.check_job(job)
        if self.begun:
            return
        resolved = job.resolved
        content = {
            "job": resolved.job.model_dump(),
            "digest": resolved.digest,
            "values": resolved.values,
            "layers": resolved.layers,
        }
        if homes := resolved.homes:
            content["modules"] = homes
        write_text(self.config, yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True))

    def move_aside(self) -> None:
        """Move the directory, if there is one, to `<name>.old-<n>`: the run is as if it had never begun."""
        if self.directory.exists():
            move_aside(self.directory)
        for known in ("_config", "_named", "_provenances"):
            self.__dict__.pop(known, None)
        self._standing = None

    def copy_to(self, target: Run) -> None:
        """Copy all that the run left, whole or not at all; what was there is moved aside. What tells of this machine
        alone stays behind: leases, the task of a cluster.

        Raises:
            StorageError: the system refuses.
        """
        place, own = target.directory, (self._lease_file, self._lock_file, self._submission_file, self._submission_log)
        aside = place.with_name(f".writing-{place.name}")
        try:
            if aside.exists():
                shutil.rmtree(aside)
            leave = shutil.ignore_patterns(".writing-*", *(path.name for path in own))
            shutil.copytree(self.directory, aside, ignore=leave, symlinks=True)
            sync_files(path for path in aside.rglob("*") if path.is_file())
            target.move_aside()
            aside.rename(place)
        except OSError as error:  # shutil.Error is one, of many files
            shutil.rmtree(aside, ignore_errors=True)
            raise StorageError(place, error) from error

    def tested_rules(self) -> list[str]:
        """The rules whose checkpoints were tested, as they were sealed."""
        return [*self._provenance("tested")]

    @cached_property
    def _named(self) -> _Named:
        """The head of `config.yaml` says it in a hundredth of the time that all of it takes, as it is written."""
        if "_config" not in self.__dict__:
            head, values, rest = self._config_text().partition("\nvalues:\n")
            whole = values and rest.endswith("\n")  # else it may be cut short, which reading all of it shows
            found = _HEAD.fullmatch(head) if whole else None
            if found and set(_JOB) <= {*_PART.findall(found[1])} and (seed := _SEED.search(found[1])):
                return _Named(int(seed[1]), found[2])
        return _Named(self._config.job["seed"], self._config.digest)

    @cached_property
    def _config(self) -> _Config:
        content = self._parsed(self._config_text())
        registry.keep_homes(content.get("modules"))
        above = self.directory.absolute().parents
        if len(above) > 4 and above[3].name == RUNS:
            registry.no_code_in(above[4])
        parts = [part if isinstance(part := content.get(name), dict) else {} for name in ("values", "layers")]
        return _Config(content["job"], str(content.get("digest")), *parts)

    def _config_text(self) -> str:
        try:
            return self.config.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._damaged_config("is missing, so this is no run directory") from error
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged_config(f"cannot be read: {one_line(error)}") from error

    def _parsed(self, text: str) -> dict[str, Any]:
        """The content of a configuration; it has a job."""
        try:
            content = _loaded(text)
        except yaml.YAMLError as error:
            raise self._damaged_config(f"cannot be read: {one_line(error)}") from error
        job = content.get("job") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(job, dict) or not set(_JOB) <= job.keys():
            raise self._damaged_config("holds no job")
        return content

    def _damaged_config(self, why: str) -> Damage:
        hint = "restore it, or start the job over: sslbench run --force keeps what is there aside"
        return Damage(self.config, why, hint)

    @cached_property
    def _provenances(self) -> Mapping[str, Any]:
        found = read_json(self.provenance)
        return found if isinstance(found, dict) else {}

    def _provenance(self, part: str) -> Mapping[str, Any]:
        found = self._provenances.get(part)
        return found if isinstance(found, dict) else {}

    # ---------------------------------------------------------------------------------------------------- state

    @property
    def state(self) -> State:
        """The state when it was last looked at; `look` looks again."""
        return self.standing.state

    @property
    def error(self) -> str:
        """Why the run failed, was interrupted or is damaged, when it was last looked at; else empty."""
        return self.standing.error

    @property
    def standing(self) -> Standing:
        """Both of them."""
        if self._standing is None:
            self.look()
        assert self._standing is not None
        return self._standing

    def check_finished(self) -> None:
        """Check that the run can be used as a finished one.

        Raises:
            Damage: it is damaged.
            UsageError: it is in another state, for the reason given.
        """
        state, error, damage = self.standing
        if damage:
            raise damage
        if state != "finished":
            reason = f": {error}" if error else ""
            raise UsageError(
                f"{self.directory} is {state}, not finished{reason}", "sslbench run does what is left to do"
            )

    def look(self, status: Mapping[str, Any] | None = None) -> State:
        """Read anew where the run stands, and return its state; config.yaml, which no run changes, is read once, and
        records that are those that were sealed are taken for whole.

        Args:
            status: what `status` said a moment ago; None: it is read.
        """
        self._standing, _ = self._read(parse=False, status=status)
        return self._standing.state

    def read_records(self) -> CaseTable | None:
        """Read the run's own records, columns `CASE_COLUMNS`; None where it is not finished. Looks as `look` does."""
        self._standing, records = self._read()
        return records

    def _read(self, parse: bool = True, status: Mapping[str, Any] | None = None) -> tuple[Standing, CaseTable | None]:
        """The standing, and the records of a finished run; without `parse` those whose seal holds are left unread."""
        if not self.begun:
            return Standing("pending"), None
        try:
            self.check_identity()
            status = self.status() if status is None else status
            recorded, error = status.get("state"), str(status.get("error") or "")
            if recorded == "finished":
                return Standing("finished"), self._read_cases() if parse or not self._seal_holds() else None
        except Damage as damage:
            return Standing("damaged", damage.brief, damage), None
        if self.owner() is not None:
            return Standing("running"), None
        if recorded == "failed":
            return Standing("failed", error), None
        if recorded in ("running", "interrupted"):
            return Standing("interrupted", _PROCESS_DIED if recorded == "running" else error), None
        if self.log.exists():
            return Standing("interrupted", f"{self.status_file.name} is missing, or cannot be read"), None
        return Standing("pending"), None

    def _seal_holds(self) -> bool:
        """Whether the records are, to the byte, those that a worker sealed."""
        self.__dict__.pop("_provenances", None)  # the seal may be younger than what was read
        try:
            found = _sha256(self.cases)
        except OSError:
            return False
        return found in self._sealed

    @property
    def _sealed(self) -> frozenset[Any]:
        """The hashes of the records of all its tests, as they were sealed."""
        tested = self._provenance("tested").values()
        return frozenset(sealed.get(self.cases.name) for sealed in tested if isinstance(sealed, dict)) - {None}

    def cases_in(self, path: Path) -> CaseTable:
        """Read records of this run, wherever they lie.

        Raises:
            ValueError: as for `read_cases`.
        """

        def group_of(case: str) -> str:
            return group_reader(str(self.values.get("dataset") or self.data.get("dataset") or ""))(case)

        return read_cases(path, group_of, self._sealed)

    def _read_cases(self) -> CaseTable:
        try:
            return self.cases_in(self.cases)
        except ValueError as error:
            hint = "sslbench run makes it again from the last checkpoint"
            raise Damage(self.cases, str(error), hint) from error

    def status(self) -> dict[str, Any]:
        """Read status.json; empty where there is none."""
        if self._kept_status is not None:
            return dict(self._kept_status)
        found = read_json(self.status_file)
        return found if isinstance(found, dict) else {}

    def set_status(self, state: State, **fields: Any) -> None:
        """Write a state; fields that are not given stay as they were, `error` is dropped unless given."""
        old = self.status()
        old.pop("error", None)
        write_json(self.status_file, {**old, "state": state, "updated": now(), **fields})
        self._standing = None

    def progress(self) -> dict[str, Any]:
        """Read for displays where the job stands; empty where that is not known."""
        found = read_json(self.progress_file)
        return found if isinstance(found, dict) else {}

    def set_progress(self, **fields: Any) -> None:
        """Write where the job stands; not worth waiting for a disk, nor ending for a full one."""
        with suppress(OSError):
            write_json(self.progress_file, {**fields, "time": time.time()}, sync=False)

    def submission(self) -> dict[str, Any]:
        """Read the task of a cluster that the run was last submitted in; empty where it never was."""
        found = read_json(self._submission_file)
        return found if isinstance(found, dict) else {}

    def set_submission(self, task: str, log: str) -> None:
        """Write down the task of a cluster that the run was submitted in, and link its log."""
        write_json(self._submission_file, {"task": task, "log": log, "time": now()})
        with suppress(OSError):  # not every file system has links
            self._submission_log.unlink(missing_ok=True)
            self._submission_log.symlink_to(os.path.relpath(log, self.directory))

    def saved(self) -> list[Path]:
        """The files that work on the run has left so far: generations of state, and records."""
        return [*self.checkpoints.glob("step-*.pt"), *self.directory.glob(self.cases.name)]

    # ---------------------------------------------------------------------------------------------------- lease

    def owner(self) -> dict[str, Any] | None:
        """Tell who works on the run (host, pid, heartbeat); None where nobody does or the lease is abandoned."""
        free = False
        # Asking for a lock makes its file, and whoever only looks must not write.
        if self._lock_file.exists():
            try:
                with system_lock(self._lock_file).acquire(timeout=0):
                    free = True
            except Timeout:
                return self._lease_content() or {"host": "?", "pid": 0}
            except (OSError, NotImplementedError):
                pass  # not ours to lock, or no locks at all: the heartbeat has to tell
        content = self._lease_content()
        here = content.get("host") == socket.gethostname()
        if "host" not in content or (here and (free or not _lives(content.get("pid")))):
            return None
        return content if self._beats(content.get("heartbeat", 0)) else None

    def _beats(self, heartbeat: float) -> bool:
        """Whether a heartbeat is of a worker that lives: it is young, or another one than at an earlier look, since
        the clock of the host that wrote it may be wrong."""
        before, changed = self._heard or (heartbeat, -math.inf)
        self._heard = heartbeat, time.monotonic() if heartbeat != before else changed
        young = abs(time.time() - float(heartbeat)) < ABANDONED_S
        return young or time.monotonic() - self._heard[1] < ABANDONED_S

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Hold the run; the system frees the lock when the process ends, however it ends. Where locks do not reach
        another host, or there are none, whoever wrote its heartbeat last has the run; the other one learns it from its
        next.

        Raises:
            Busy: another process works on it.
            StorageError: the system refuses to write.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(self.directory, error) from error
        lock = system_lock(self._lock_file)
        # Whoever asks for the owner takes the lock for a moment: that is no reason to give up.
        for _ in range(20):
            if self.owner() is None:
                try:
                    lock.acquire(timeout=0)
                    break
                except Timeout:
                    pass
                except (OSError, NotImplementedError):
                    break  # there are none
            time.sleep(0.05)
        else:
            raise Busy(f"{self.directory.name} is being run by another process")
        lease = Lease(self._lease_file)
        try:
            self._wait_for_abandoned()
            lease.claim()
            yield lease
        finally:
            with suppress(OSError):  # a full disk must not hide why the work ended; the heartbeat grows old by itself
                lease.release()
            lock.release()

    def _wait_for_abandoned(self) -> None:
        """Watch a lease of another host that was not released: its heartbeat may only look old, where a clock is wrong.

        Raises:
            Busy: its heart beats.
        """
        found, end = self._lease_content(), time.monotonic() + ABANDONED_S
        if found.get("host") in (None, socket.gethostname()):
            return
        while time.monotonic() < end and (content := self._lease_content()):
            if content != found:
                raise Busy(f"{self.directory.name} is being run by process {content['pid']} on {content['host']}")
            time.sleep(1.0)

    def heartbeat(self) -> Mapping[str, Any]:
        """What the process that works on the run, or last did, wrote of itself: it changes while something is done."""
        return self._lease_content()

    def _lease_content(self) -> dict[str, Any]:
        found = read_json(self._lease_file)
        return found if isinstance(found, dict) else {}


class Lease:
    """The lease of a run, held; `beat` now and then tells other hosts that its owner lives.

    Args:
        file: for the heartbeat. The lock is another file, which nobody writes to.

    Attributes:
        held: whether the run is this process's; where another one took it, nothing is to be written there.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._next = file, 0.0
        self.held = False

    def claim(self) -> None:
        """Write down that this process has the run."""
        self.held = True
        self._write(self._ours())
        self._next = time.monotonic() + CLAIM_S

    def beat(self) -> None:
        """Refresh the heartbeat, at most every few seconds.

        Raises:
            Busy: as for `check`.
        """
        if time.monotonic() >= self._next:
            self.check()
            self._next = time.monotonic() + HEARTBEAT_S
            self._write(self._ours())

    def check(self) -> None:
        """Check that the run is still this process's.

        Raises:
            Busy: another one took it, to which this one had looked dead, or at the same moment.
        """
        found, ours = read_json(self._file), self._ours()
        if isinstance(found, dict) and any(found.get(key) != ours[key] for key in ("host", "pid")):
            self.held = False
            taker = f"process {found['pid']} on {found['host']}" if "pid" in found else "another process"
            raise Busy(f"{self._file.parent.name} was taken over by {taker}")

    def release(self) -> None:
        """Say that the work ended, if it was this process's."""
        if self.held:
            self._write({})

    def _ours(self) -> dict[str, Any]:
        return {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": time.time()}

    def _write(self, content: Mapping[str, Any]) -> None:
        write_json(self._file, content, sync=False)


# A marker file, which stands in for a lock elsewhere, would outlive a process that is killed.
_NO_MARKERS: dict[str, Any] = (
    {"fallback_to_soft": False} if "fallback_to_soft" in signature(FileLock.__init__).parameters else {}
)


def system_lock(path: Path) -> FileLock:
    """A lock that the system frees with its process; where there are none, taking it raises `OSError` or
    `NotImplementedError`."""
    return FileLock(path, **_NO_MARKERS)


def _lives(process: Any) -> bool:
    """Whether there is a process of this number here."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, TypeError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def runs_below(folder: Path) -> list[Run]:
    """Find all runs at or below a folder, damaged ones too, in the order of their names."""
    found = [folder] if _FOLDER.fullmatch(folder.absolute().name) else map(Path, _named_like_runs(folder))
    return [run for run in map(Run, found) if run.begun]


def _named_like_runs(folder: Path | str) -> Iterator[str]:
    """Yield the folders below that are named like a run, without a look inside: predictions are many files."""
    try:
        with os.scandir(folder) as entries:
            below = sorted((entry.name, entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:  # gone, or not ours to read
        return
    for name, path in below:
        if _FOLDER.fullmatch(name):
            yield path
        elif not name.startswith("."):
            yield from _named_like_runs(path)


def variant_of(settings: Mapping[str, Any]) -> str:
    """Spell dotted paths and values that a job sets, as in its folder's name: `loss.gamma=0.75,loss.k=5`."""
    return ",".join(f"{path}={compact(value)}" for path, value in sorted(settings.items()))


_SECTION, _ENTRY = re.compile(r"^(?=\S)", re.MULTILINE), re.compile(r"^  (?=[^\s-])", re.MULTILINE)


def _loaded(text: str) -> Any:
    """The content of a configuration; what is said alike in thousands of them is read once.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    if any(sign in text for sign in "&*#%\t\r") or not text.startswith("job:\n"):
        return yaml.load(text, Loader=_Loader)  # anchors, comments: nothing that a worker writes
    return {key: value for section in _SECTION.split(text) if section for key, value in _section(section).items()}


@lru_cache(maxsize=256)
def _section(text: str) -> Mapping[str, Any]:
    """A key of the outermost level with what it holds."""
    name, _, below = text.partition(":\n")
    if not below:
        return _entry(text)
    return {name: {key: value for entry in _ENTRY.split(below) if entry for key, value in _entry(entry).items()}}


@lru_cache(maxsize=8192)
def _entry(text: str) -> Mapping[str, Any]:
    """One key with what it holds."""
    found = yaml.load(text, Loader=_Loader)
    if not isinstance(found, dict) or len(found) != 1:
        raise yaml.YAMLError(f"no entry: {text[:40]}")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def now() -> str:
    """The time in ISO format, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
