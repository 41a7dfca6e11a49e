"""One job from start to end, in this process: train, predict, evaluate. Launchers start it as a process of its own."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from sslbench.config.job import Job, ResolvedJob
from sslbench.config.recipe import CheckpointRule
from sslbench.config.splits import load_splits
from sslbench.config.text import gib
from sslbench.core import registry, settings
from sslbench.core.determinism import repeatable
from sslbench.core.errors import SSLBenchError, StorageError
from sslbench.core.files import atomic_path, read_json, save_nifti, write_json
from sslbench.data.own.dataset import load_all
from sslbench.data.sampling import TrainingSet
from sslbench.data.store import OnDemand, Partition, Store, partition
from sslbench.execution.local import IN_USE_EXIT, INTERRUPTED_EXIT, NO_MEMORY_EXIT, REFUSED_EXIT, SCORING, on_stop
from sslbench.execution.sinks import SINKS, Queued, checked_sink
from sslbench.execution.trained import trained_record
from sslbench.inference.predictor import Predictor
from sslbench.metrics.pool import Scored, ScorePool
from sslbench.networks.precision import Arithmetic
from sslbench.runs.confusion import write_confusion
from sslbench.runs.directory import Busy, Run, TestFiles, now
from sslbench.runs.provenance import describe, machine
from sslbench.runs.records import write_cases
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.experiment import Experiment, ValidationCase, build_experiment
from sslbench.training.trainer import Interrupted, Trainer

_ONE_TIME_S = 2.0  # within which several signals to stop are one
_SCORERS = 4  # processes that score test cases, at most: as many as the job has threads


def run_job(
    job: Job,
    data_dir: Path | str | None = None,
    results_dir: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    sink: str | None = None,
    resume_anyway: bool = False,
) -> Path:
    """Run one job to its end, from its last checkpoint where there is one; a finished one is left as it is.

    Args:
        job: in any spelling.
        data_dir, results_dir: where things live; default: `SSLBENCH_DATA`, `SSLBENCH_RESULTS`.
        device: `cpu`, `cuda`, `cuda:1`; default: the GPU where there is one.
        threads: of this process on a CPU; default: torch's.
        should_stop: asked between iterations and cases; when it says yes, state is saved and `Interrupted` raised.
        sink: where copies of the training records go, `tensorboard` or `none`; default: `SSLBENCH_SINK`.
        resume_anyway: go on in other arithmetic or on another kind of device than the run began with, where the one it
            began with is not to be had; recorded.

    Returns:
        The run directory; `sslbench.load_results` reads it.

    Raises:
        SSLBenchError: the job cannot be run, or failed; status.json then holds the reason.
    """
    data, copies = settings.data_dir(data_dir), checked_sink(settings.sink(sink))
    load_all(data)
    run = Run.of(job, settings.results_dir(results_dir))
    run.write_config(job)
    _Worker(run, data, device, threads, should_stop, copies, resume_anyway).run()
    return run.directory


def main(
    directory: Path,
    data_dir: Path,
    device: str | None,
    threads: int | None,
    launcher: int | None = None,
    sink: str | None = None,
    resume_anyway: bool = False,
) -> int:
    """A worker process: run the job of a run directory. A signal to stop finishes the step and saves first; so does
    the death of the launcher, which can tell nobody.

    Args:
        directory, data_dir, device, threads: as for `run_job`.
        launcher: the process that started this one; None: nobody who would be missed.
        sink: where copies of the training records go; None: nowhere.
        resume_anyway: as for `run_job`.

    Returns:
        The process's exit code: 0 finished, 1 failed, 74 the system refused to write, 75 another process has it, 76
        not enough memory, 143 interrupted.
    """
    asked: list[float] = []

    def ask(number: int, frame: object) -> None:
        asked.append(time.monotonic())
        # The second time: at once. Slurm tells every process of a job, and the launcher passes it on: that is one time.
        if asked[-1] - asked[0] > _ONE_TIME_S:
            sys.exit(128 + number)

    def orphaned() -> bool:
        return launcher is not None and os.getppid() != launcher

    def why() -> str:
        return f"; its launcher, process {launcher}, had died" if orphaned() else ""

    on_stop(ask)
    run = Run(directory)
    try:
        load_all(data_dir)
        _Worker(run, data_dir, device, threads, lambda: bool(asked) or orphaned(), sink, resume_anyway, why).run()
    except Busy:
        return IN_USE_EXIT
    except Interrupted:
        return INTERRUPTED_EXIT
    except NoMemory as error:
        print(error, file=sys.stderr)
        return NO_MEMORY_EXIT
    except SSLBenchError as error:
        print(error, file=sys.stderr)
        return REFUSED_EXIT if isinstance(error, StorageError | OtherMachine) else 1
    except Exception as error:  # a bug of ours or a third party's: it must not take the grid down
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


class NoMemory(SSLBenchError):
    """A job needs more memory than was free."""


class OtherMachine(SSLBenchError):
    """A run cannot go on here as it began; its state is as it was."""


class _Worker:
    """Carries one job through its stages; the `Recorder` of its trainer."""

    def __init__(
        self,
        run: Run,
        data_dir: Path,
        device: str | None,
        threads: int | None,
        should_stop: Callable[[], bool],
        sink: str | None = None,
        resume_anyway: bool = False,
        why: Callable[[], str] = str,
    ) -> None:
        self.run_dir, self.data_dir, self._stop_asked, self._why = run, data_dir, should_stop, why
        self.resume_anyway = resume_anyway
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cuda":  # what is recorded without naming a card is recorded on this one
            torch.cuda.set_device(self.device)
        self.threads, self.sink = threads, sink
        self.copies: Queued | None = None
        self.total = 0
        self.latest: dict[str, Any] = {}
        self.started = time.time()
        self.first: tuple[int, float] | None = None  # iteration of this process's first record, and when it was made

    def run(self) -> None:
        """All stages, unless the job is finished."""
        with self.run_dir.lease() as self.lease:
            status = self.run_dir.status()
            if self.run_dir.look() == "finished":
                return
            for path in self.run_dir.directory.glob("*/**/.writing-*"):  # what a kill left half-written
                path.unlink(missing_ok=True)  # a folder of another machine may list what is gone
            # Threads change rounding, so a run keeps the number that it began with.
            self.threads = status.get("threads") or self.threads or torch.get_num_threads()
            torch.set_num_threads(self.threads)
            attempts = int(status.get("attempts", 0)) + 1
            self.run_dir.set_status("running", attempts=attempts, threads=self.threads, started=now())
            self.logger = _logger(self.run_dir.log)
            try:
                with repeatable(self.device) as self.refused:
                    self._stages()
            except Busy as error:  # the run is another process's now, and so is its status
                self.message(str(error))
                raise
            except Interrupted as error:
                self.message(str(error))
                self.run_dir.set_status("interrupted", error=error.message + self._why())
                raise
            except StorageError as error:  # nothing is wrong with the job: it goes on where the system lets it
                self.message(str(error))
                with suppress(StorageError):  # the launcher says it otherwise
                    self.run_dir.set_status("interrupted", error=str(error))
                raise
            except OtherMachine as error:
                self.message(str(error))
                self.run_dir.set_status("interrupted", error=str(error))
                raise
            except Exception as error:
                self.logger.error(traceback.format_exc().rstrip())
                if _is_lack_of_memory(error):
                    short = NoMemory(_memory_words(self.device))
                    self.run_dir.set_status("failed", error=str(short))
                    raise short from error
                reason = error.message if isinstance(error, SSLBenchError) else f"{type(error).__name__}: {error}"
                self.run_dir.set_status("failed", error=reason.splitlines()[0] if reason else type(error).__name__)
                raise
            finally:
                for handler in self.logger.handlers[:]:
                    handler.close()
                    self.logger.removeHandler(handler)

    def should_stop(self) -> bool:
        """Asked between iterations and cases, which tells whoever waits that something is done."""
        self.lease.beat()
        return self._stop_asked()

    # --------------------------------------------------------------------------------------------------- stages

    def _stages(self) -> None:
        resolved = self.run_dir.load_job().resolved
        self._show("loading")
        store = Store.open(self.data_dir, resolved.recipe.dataset, resolved.recipe.preprocessing)
        splits = load_splits(resolved.recipe.dataset, resolved.recipe.splits)
        parts = partition(store, splits, resolved.job.labeled)
        before = self._machines_before()
        # The precision that a run began with, else the recipe's.
        kept = cast(Arithmetic, before[0]["precision"]) if before and not self.resume_anyway else None
        experiment = prepare_experiment(resolved, store, parts, self.device, kept)
        machines = self._machines(experiment, before)
        write_json(self.run_dir.trained, trained_record(experiment, store))
        sampler = experiment.sampler
        held = {"on": sampler.place, "bytes": sampler.bytes}
        described = describe(resolved, store, parts, experiment.precision)
        write_json(self.run_dir.provenance, {**described, "training_set": held, "machines": machines})
        self.message(
            f"{resolved.job.title}: {experiment.precision.name} ({experiment.precision.reason}), {self.threads} threads"
        )
        trainer = Trainer(
            experiment, Checkpoints(self.run_dir.checkpoints), self, self.should_stop, settings.save_every()
        )
        self.total = trainer.total
        with self._measured("training_seconds"), self._copied():
            trainer.fit()
        del experiment, sampler  # the trainer holds them, until it is tested
        best = {key or "all": {"dsc": score, "iteration": at} for key, (score, at) in trainer.selection.best.items()}
        with self._measured("test_seconds"):
            predictors = self._test(resolved, store, parts, trainer)
        scores = {rule: self._scores(resolved, self.run_dir.tested(rule)) for rule in resolved.recipe.tested}
        self.lease.check()
        self.run_dir.seal(resolved.recipe.tested, {"refused": list(self.refused)} if self.refused else None)
        self.run_dir.set_status(
            "finished",
            scores=scores[resolved.recipe.checkpoint],
            predictor=predictors[resolved.recipe.checkpoint],
            best=best,
            seconds=round(time.time() - self.started, 1),
        )
        said = ", ".join(f"{name} {value:.4g}" for name, value in scores[resolved.recipe.checkpoint].items())
        self.message(f"finished: {said}")  # once in a log, however often its process was killed
        self._show("finished")

    def _test(
        self, resolved: ResolvedJob, store: Store, parts: Partition, trainer: Trainer
    ) -> dict[CheckpointRule, str | None]:
        """Predict the test cases with the weights of every rule, give the GPU back, and write what they score; the
        predictor of each rule."""
        recipe = resolved.recipe
        protocol = registry.component("protocol", recipe.protocol)
        short = [info.short for info in store.dataset.classes]
        if protocol.converts(store.dataset.preprocessings[store.preprocessing]):
            self.message(f"protocol {protocol.name} measures another grid than {store.preprocessing}: converted")
        predictors = {}
        with ScorePool(protocol, short, min(_SCORERS, self.threads or 1)) as pool:
            for rule in recipe.tested:
                predictors[rule] = trainer.take(rule)
                self.message(f"tests the weights of rule {rule}, predictor {predictors[rule] or 'all'}")
                self._predict(store, parts, trainer.experiment, predictors[rule], self.run_dir.tested(rule), pool)
            self._release(trainer)
            scored = [*pool.results()]
        for number, rule in enumerate(recipe.tested):
            files, of_rule = self.run_dir.tested(rule), scored[number * len(parts.test) :][: len(parts.test)]
            write_confusion(files.confusion, ((case.case, case.pairs) for case in of_rule), short)
            write_cases(files.cases, _records(of_rule, recipe.protocol, store))
        return predictors

    def _scores(self, resolved: ResolvedJob, files: TestFiles) -> dict[str, float]:
        """What a test gave by metric, read back from its records: what is sealed is whole."""
        try:
            records = self.run_dir.cases_in(files.cases)
        except ValueError as error:
            raise SSLBenchError(
                f"{files.cases} {error}", "a protocol or a class of yours writes what is not so"
            ) from error
        found: dict[str, float] = registry.component("protocol", resolved.recipe.protocol).averages(records)
        return found

    @contextmanager
    def _copied(self) -> Iterator[None]:
        """Hand copies of what is recorded to the sink, where one was asked for."""
        if (name := self.sink) is not None:
            self.copies = Queued(lambda: SINKS[name][0](self.run_dir.events), self.logger.warning, name)
        try:
            yield
        finally:
            if self.copies is not None:
                self.copies.close()

    def _machines_before(self) -> list[dict[str, Any]]:
        """On what a run that has state was trained so far, one after the other; empty for one that begins."""
        if not list(self.run_dir.checkpoints.glob("step-*.pt")):
            return []
        found = read_json(self.run_dir.provenance)
        machines = found.get("machines") if isinstance(found, dict) else None
        return list(machines or [])

    def _machines(self, experiment: Experiment, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The machines of this run, those of `before` and this one.

        Raises:
            OtherMachine: it began on another kind of device, and going on there was not asked for.
        """
        here = machine(experiment.precision)
        if not before or before[-1] == here:
            return before or [here]
        last = before[-1]
        other = [key for key in ("kind", "card", "precision") if last.get(key) != here[key]]
        told = "; ".join(
            f"{key} {last.get(key)}, here {value}" for key, value in here.items() if last.get(key) != value
        )
        if other and not self.resume_anyway:
            raise OtherMachine(
                f"it began on another machine, whose rounding differs: {told}",
                "go on there, --resume-anyway goes on here and records it, or --force starts over",
            )
        self.message(f"goes on where rounding may differ: {told}")
        return [*before, here]

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        """Add what a stage took to the status, however it ends: seconds over all attempts, memory at its highest."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            status = self.run_dir.status()
            peaks = status.get("peak_memory") or {}
            highest = {of: max(found, peaks.get(of, 0)) for of, found in _peak_memory(self.device).items()}
            spent = round(float(status.get(name) or 0) + time.perf_counter() - begun, 3)
            if self.lease.held:
                with suppress(StorageError):  # whoever stopped for that says it
                    self.run_dir.set_status("running", **{name: spent}, peak_memory=highest)

    def _predict(
        self,
        store: Store,
        parts: Partition,
        experiment: Experiment,
        key: str | None,
        files: TestFiles,
        pool: ScorePool,
    ) -> None:
        """Predict the test cases, which are opened here alone, and hand them in to be scored."""
        recipe, preprocessing = experiment.resolved.recipe, store.dataset.preprocessings[store.preprocessing]
        predictor = Predictor(experiment.method, key, recipe, experiment.num_classes, experiment.precision)
        for number, case in enumerate(parts.test):
            if self.should_stop():
                raise Interrupted(f"stopped while predicting case {number + 1} of {len(parts.test)}")
            self._show("testing", case=number, cases=len(parts.test))
            labels = predictor.segment(store.image(case, verify=True)).cpu().numpy()
            restored = store.restore(case, labels)
            save_nifti(restored, files.prediction(case))
            if store.resamples(case):
                save_nifti(store.on_stored_grid(case, labels), files.preprocessed_prediction(case))
            if pool.protocol.takes(preprocessing) == "original":
                reference, spacing = store.reference(case)
                prediction, axes = np.asanyarray(restored.dataobj), "xyz"
            else:
                reference, spacing, prediction = store.label(case), store.cases[case].spacing_mm, labels
                axes = preprocessing.axes
            pool.submit(case, prediction, reference, spacing, axes)

    def _release(self, trainer: Trainer) -> None:
        """The last prediction is out: give the GPU's memory back and tell the launcher that a job may begin there."""
        trainer.release()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._show(SCORING, process=os.getpid())

    # ------------------------------------------------------------------------------------------------- recorder

    def record(self, entry: Mapping[str, Any]) -> None:
        """Append a record to metrics.jsonl and tell displays."""
        try:
            with self.run_dir.metrics.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({**entry, "time": now()}) + "\n")
        except OSError as error:
            raise StorageError(self.run_dir.metrics, error) from error
        if self.copies is not None:
            self.copies.record(entry)
        self.latest.update(entry)
        if "it_per_s" in entry:
            self._pace(entry["iteration"])
        if "validation" in entry:
            numbers = {name: value for name, value in entry["validation"].items() if isinstance(value, float)}
            scores = ", ".join(f"{name} {100 * value:.2f} %" for name, value in numbers.items())
            self.message(f"iteration {entry['iteration']}: validation {scores or 'says nothing'}")
        self._show("training")

    def _pace(self, iteration: int) -> None:
        """Note for displays the seconds of an iteration over all of this process's, with validation and saving."""
        moment = time.perf_counter()
        begun, since = self.first = self.first or (iteration, moment)
        if iteration > begun:
            self.latest["s_per_it"] = round((moment - since) / (iteration - begun), 6)

    def rewind(self, iteration: int) -> None:
        """Drop the records behind a checkpoint: they will be made again."""
        if self.copies is not None:
            self.copies.rewind(iteration)
        if not self.run_dir.metrics.exists():
            return
        kept = []
        for line in self.run_dir.metrics.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line cut short by a kill
            if entry.get("iteration", 0) <= iteration:
                kept.append(line)
        with atomic_path(self.run_dir.metrics) as aside:
            aside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def message(self, text: str) -> None:
        """A line in log.txt."""
        self.logger.info(text)

    def _show(self, stage: str, **fields: Any) -> None:
        self.lease.beat()
        shown = {key: self.latest.get(key) for key in ("iteration", "loss", "it_per_s", "s_per_it", "validation")}
        self.run_dir.set_progress(stage=stage, iterations=self.total, **shown, **fields)


def _records(scores: Sequence[Scored], protocol: str, store: Store) -> list[dict[str, Any]]:
    """The rows of `cases.csv`."""
    name = registry.component("protocol", protocol).name
    return [
        {"protocol": name, "case": scored.case, "group": store.cases[scored.case].group, **row}
        for scored in scores
        for row in scored.rows
    ]


def prepare_experiment(
    resolved: ResolvedJob,
    store: Store,
    parts: Partition,
    device: torch.device,
    precision: Arithmetic | None = None,
) -> Experiment:
    """Hand training what it may see: labelled pairs, unlabelled images, validation pairs, and nothing else.

    Args:
        precision: to train in; None: the recipe's.
    """
    cases = (*parts.labeled, *parts.unlabeled)
    for case in cases:
        store.verify(case)
    images, labels = store.images(cases), store.labels(parts.labeled)
    validation = OnDemand(
        len(parts.validation),
        lambda place: ValidationCase(
            parts.validation[place], store.image(parts.validation[place]), store.label(parts.validation[place])
        ),
    )
    counts = np.array([store.cases[case].class_voxels for case in parts.labeled])
    data = TrainingSet(images, labels)
    classes = [info.short for info in store.dataset.classes]
    return build_experiment(resolved, data, counts, validation, classes, device, precision)


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether there was not enough memory; on a CPU torch has no class of its own for that."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def _memory_words(device: torch.device) -> str:
    """That memory was short, with what is known of it."""
    if device.type != "cuda":
        return "not enough memory"
    had, (free, total) = torch.cuda.max_memory_reserved(device), torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    return f"not enough memory on {name}: {gib(free)} of {gib(total)} GiB were free when it had taken {gib(had)}"


def _peak_memory(device: torch.device) -> dict[str, int]:
    """The highest memory of this process so far in bytes: in all (`process`), and on its GPU (`device`)."""
    found = {}
    with suppress(ImportError):  # not every system has it
        import resource

        found["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_reserved(device)
    return found


class _LogFile(logging.FileHandler):
    """A log of which a line that cannot be written ends no training."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the library's name
        """Go on."""


def _logger(path: Path) -> logging.Logger:
    logger = logging.getLogger(f"sslbench.run.{path.parent}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise StorageError(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    logger.addHandler(handler)
    return logger
