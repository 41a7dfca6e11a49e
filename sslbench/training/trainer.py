"""The one training loop. A method contributes a step; data, schedules, saving and measuring are here."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor

from sslbench.config.recipe import CheckpointRule, OptimizerSpec, ScheduleSpec
from sslbench.core import settings
from sslbench.core.errors import SSLBenchError, TrainingError, UsageError
from sslbench.core.randomness import reseed, torch_generator
from sslbench.core.step import Batch, Step
from sslbench.methods.base import Group, Method, Phase
from sslbench.metrics.protocol import BACKGROUND
from sslbench.plugins.base import Attached
from sslbench.training.checkpoint import Checkpoints, Selection, Snapshot
from sslbench.training.experiment import Experiment
from sslbench.training.observation import Observer
from sslbench.training.schedules import learning_rate, ramp_weight
from sslbench.training.validation import Validation

LOG_EVERY = 10  # iterations between two records; reading the device more often would hold it up
CLASSES_EVERY = 100  # iterations between two records that hold what is logged for each class
SKIPS_IN_A_ROW = 20  # steps without a finite loss that end a job


class Interrupted(SSLBenchError):
    """The job was asked to stop; its state is saved, running it again continues."""


class Recorder(Protocol):
    """Where a trainer's records go; what they are for is none of its business."""

    def record(self, entry: Mapping[str, Any]) -> None:
        """A training or validation record: it carries `iteration`, counted over all phases."""
        ...

    def rewind(self, iteration: int) -> None:
        """Forget records behind an iteration: training continues from there."""
        ...

    def message(self, text: str) -> None:
        """A line for people."""
        ...


class Trainer:
    """Trains an experiment, from its last checkpoint where there is one.

    Args:
        experiment: the job put together.
        checkpoints: of its run directory.
        recorder: takes records.
        should_stop: asked before every iteration; when it says yes, state is saved and `Interrupted` raised.
        save_every: seconds of training between two checkpoints; when they fall changes no result. One more is written
            at the end of every phase.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        recorder: Recorder,
        should_stop: Callable[[], bool] = lambda: False,
        save_every: float = settings.SAVE_EVERY_S,
    ) -> None:
        self.experiment, self.checkpoints, self.recorder = experiment, checkpoints, recorder
        self.should_stop, self.save_every = should_stop, save_every
        self.method, self.recipe = experiment.method, experiment.resolved.recipe
        self.device = experiment.precision.device
        self.validation = Validation(experiment)
        self.phases = self.method.phases()
        self.selection = Selection.of(self.recipe, self.method.predictors)
        self.lengths = [phase.iterations or self.recipe.schedule.iterations for phase in self.phases]
        self.total = sum(self.lengths)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.groups: dict[str, Group] = {}
        self.specs: dict[str, tuple[OptimizerSpec, ScheduleSpec]] = {}
        self._held: str | None = None  # the file of the weights that the method holds; None: the last ones
        self._saved = time.perf_counter()  # when the last checkpoint was, or the start
        self._unsaved: dict[str | None, Snapshot] = {}  # each candidate's best weights, if they are younger than that
        self.skipped = self.in_a_row = 0  # steps without a finite loss, in all and since the last that had one
        if "best-val" in self.recipe.tested and not experiment.validation:
            raise UsageError(
                "the recipe tests the best validation checkpoint, but no validation case is held",
                "prepare the validation cases, or --set checkpoint=last and checkpoints=[]",
            )
        if self.recipe.observe and not experiment.validation:
            raise UsageError(
                "the recipe observes validation cases, but none is held",
                "prepare the validation cases, or --set observe=[]",
            )

    def fit(self) -> None:
        """Train to the end; afterwards the method holds the weights that are tested, and `chosen` their predictor."""
        try:
            self._fit()
            self.checkpoints.wait()
        except Exception:
            with suppress(SSLBenchError):  # another fault is told
                self.checkpoints.wait()
            raise
        self.take(self.recipe.checkpoint)

    def _fit(self) -> None:
        first_phase, first_iteration = 0, 0
        state = self.checkpoints.load()
        for line in self.checkpoints.unreadable:
            self.recorder.message(f"checkpoint {line}: falling back to the one before, or to the start")
        if state is not None:
            first_phase, first_iteration = state["phase"], state["iteration"]
            self.method.load_state_dict(state["method"])
            self._start_phase(first_phase, state["optimizers"])
            self.selection.restore(state["selection"])
            self.skipped, self.in_a_row = state["skipped"]
            done = sum(self.lengths[:first_phase]) + first_iteration
            self.recorder.message(f"resumed after iteration {done} of {self.total}")
        self.recorder.rewind(sum(self.lengths[:first_phase]) + first_iteration)
        for number in range(first_phase, len(self.phases)):
            start = first_iteration if number == first_phase else 0
            if not (state is not None and number == first_phase):
                self._enter_phase(number)
            self._run_phase(number, start)

    def take(self, rule: CheckpointRule) -> str | None:
        """After `fit`: put the weights that a rule tests into the method, and return the predictor that it tests.

        Raises:
            SSLBenchError: they cannot be read.
        """
        self.chosen, name = self.selection.choose(rule)
        if name != self._held:
            state = self.checkpoints.load_best(name) if name else self._last()
            self.method.load_state_dict(state["method"])
            self._held = name
        return self.chosen

    def release(self) -> None:
        """After the last `take`: hold the experiment, and what lies on its device, no longer."""
        del self.experiment, self.method, self.validation, self.optimizers, self.groups, self._unsaved

    def _last(self) -> Mapping[str, Any]:
        state = self.checkpoints.load()
        if state is None or (state["phase"], state["iteration"]) != (len(self.phases) - 1, self.lengths[-1]):
            raise SSLBenchError("the checkpoint of the last iteration cannot be read", "run the job again with --force")
        return state

    # ------------------------------------------------------------------------------------------------- phases

    def _enter_phase(self, number: int) -> None:
        """Begin a phase that has not begun: hand on the state of the one before, make optimisers."""
        phase, optimizers = self.phases[number], None
        if number:
            # Without a score (no validation, or none that is a number) there is no best: the last state goes on.
            if self.phases[number - 1].hand_on == "best-val" and self.selection.best:
                kept = self.checkpoints.load_best(self.selection.best_file())
                self.method.load_state_dict(kept["method"])
                optimizers = kept.get("optimizers")
            else:
                optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
            self.selection.best, self.selection.latest = {}, {}
        self.method.begin(phase)
        if optimizers is not None:
            optimizers = inherited(optimizers, self.method.groups(phase)) if phase.optimizer == "keep" else None
        self._start_phase(number, optimizers)

    def _start_phase(self, number: int, optimizers: Mapping[str, Any] | None) -> None:
        self.groups = self.method.groups(self.phases[number])
        self.optimizers, self.specs = {}, {}
        for name, group in self.groups.items():
            optimizer = OptimizerSpec(**{**self.recipe.optimizer.model_dump(), **group.optimizer})
            schedule = ScheduleSpec(**{**self.recipe.schedule.model_dump(), **group.schedule})
            self.specs[name] = optimizer, schedule
            self.optimizers[name] = make_optimizer(optimizer, group, plugin_decays(self.method))
            if optimizers and name in optimizers:
                self.optimizers[name].load_state_dict(optimizers[name])

    def _run_phase(self, number: int, start: int) -> None:
        phase, length, offset = self.phases[number], self.lengths[number], sum(self.lengths[:number])
        schedule = self.recipe.schedule
        last_log, last_time = start, time.perf_counter()
        for iteration in range(start, length):
            self.checkpoints.check()
            if self.should_stop():
                self._save(number, iteration)
                self.checkpoints.wait()
                raise Interrupted(f"stopped after iteration {offset + iteration} of {self.total}; state is saved")
            done = iteration + 1
            logs = done % LOG_EVERY == 0 or done == length
            terms, rates, made = self._step(phase, iteration, length, offset, logs)
            self.in_a_row = 0 if made else self.in_a_row + 1
            if not made:
                self.skipped += 1
                self._skip(terms, offset + done, min(SKIPS_IN_A_ROW, length))
            validates = bool(schedule.validate_every) and (done % schedule.validate_every == 0 or done == length)
            if logs:
                now = time.perf_counter()
                speed = (done - last_log) / max(now - last_time, 1e-9)
                last_log, last_time = done, now
                values = self._values(terms, per_class=done % CLASSES_EVERY == 0 or done == length)
                if self.skipped:
                    values["skipped"] = self.skipped
                self.recorder.record({"iteration": offset + done, **values, **rates, "it_per_s": round(speed, 3)})
            if validates and self.experiment.validation:
                self._validate(number, offset + done)
                last_time = time.perf_counter()
            if done == length or time.perf_counter() - self._saved > self.save_every:
                self._save(number, done)

    def _values(self, terms: Mapping[str, Tensor], per_class: bool) -> dict[str, Any]:
        """What a record holds of a step: numbers, and by the class's name those that every class has."""
        names = [BACKGROUND, *self.experiment.classes]
        found: dict[str, Any] = {}
        for name, values in _read(terms).items():
            if isinstance(values, float):
                if math.isfinite(values):
                    found[name] = round(values, 6)
            elif len(values) != len(names):
                raise TrainingError(f"'{name}' was logged with {len(values)} numbers, not one for each class")
            elif per_class:
                found[name] = {key: _rounded(value) for key, value in zip(names, values, strict=True)}
        return found

    # --------------------------------------------------------------------------------------------- iterations

    def _step(
        self, phase: Phase, iteration: int, length: int, offset: int, recorded: bool
    ) -> tuple[dict[str, Tensor], dict[str, float], bool]:
        """One iteration: its terms, with what was logged if it is `recorded`, its rates, and whether it was made;
        without a finite loss it is not."""
        seed, sampler = self.experiment.resolved.job.seed, self.experiment.sampler
        epoch_length = sampler.epoch_length
        weight = ramp_weight(self.recipe.ramp, iteration, length, epoch_length)
        logged: dict[str, Tensor] = {}
        step = Step(
            iteration=iteration,
            iterations=length,
            epoch=iteration // epoch_length,
            epochs=-(-length // epoch_length),
            last_of_epoch=(iteration + 1) % epoch_length == 0,
            phase=phase.name,
            consistency_weight=torch.full((), weight, device=self.device),
            generators=lambda stream, device: torch_generator(seed, stream, offset + iteration, device=device),
            logger=logged.__setitem__ if recorded else None,
            sweeper=sampler.sweep,
        )
        views = [view for stream in phase.streams for view in self.method.views.get(stream, ())]
        batch = self._laid_out(sampler.batch(offset + iteration, phase.streams, tuple(dict.fromkeys(views))))
        rates = self._set_rates(iteration, length)
        reseed(seed, "forward", offset + iteration)
        self.method.train()
        with self.experiment.precision.autocast():
            terms = dict(self.method.training_step(batch, step))
            add_plugin_terms(terms, self.method, self.groups, batch, step)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        finite = _sent(torch.isfinite(torch.stack([terms[name].detach().float() for name in _losses(terms)])).all())
        backward(terms, self.groups)
        made = finite()
        if made:
            for optimizer in self.optimizers.values():
                optimizer.step()
            self.method.after_step(step)
        terms = {name: value.detach() for name, value in {**terms, **logged}.items()}
        return terms, {**rates, "ramp": weight}, made

    def _skip(self, terms: Mapping[str, Tensor], iteration: int, limit: int) -> None:
        """Say that a step was left out; stop where that does not help.

        The forward pass of such a step has been made: what it moves (batch statistics, thresholds, class weights) has
        moved, and a NaN there would stay.

        Raises:
            TrainingError: `limit` such steps in a row, or a NaN in the state.
        """
        numbers = {name: value for name, value in _read(terms).items() if isinstance(value, float)}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        text = f"the loss is not finite at iteration {iteration} ({shown})"
        spoilt = next((name for name, value in self.method.state_dict().items() if _has_nan(value)), None)
        if spoilt is not None:
            raise TrainingError(f"{text}, and {spoilt} holds NaN since")
        if self.in_a_row >= limit:
            raise TrainingError(f"{text}, as in the {limit - 1} before it" if limit > 1 else text)
        self.recorder.message(f"{text}: this step is left out, {self.skipped} so far")

    def _laid_out(self, batch: Batch) -> Batch:
        images = {view: self.experiment.precision.layout(image) for view, image in batch.image.items()}
        return Batch(images, batch.label, batch.num_labeled, batch.index, batch.origin)

    def _set_rates(self, iteration: int, length: int) -> dict[str, float]:
        rates = {}
        for name, (optimizer, schedule) in self.specs.items():
            rate = learning_rate(optimizer, schedule, iteration, length, self.experiment.sampler.epoch_length)
            for parameters in self.optimizers[name].param_groups:
                parameters["lr"] = rate
            rates["lr" if len(self.specs) == 1 else f"lr/{name}"] = rate
        return rates

    # ------------------------------------------------------------------------------------- validation, saving

    def _validate(self, number: int, iteration: int) -> None:
        phase = self.phases[number]
        candidates = [
            key for key in self.selection.candidates if key in (None, *(phase.predictors or self.method.predictors))
        ]
        classes = {key: self.validation.scores(key) for key in candidates}
        scores = {key: float(per_class.nanmean()) for key, per_class in classes.items()}
        shown: dict[str, Any] = {}
        for key, per_class in classes.items():
            name = "dsc" if key is None else f"dsc/{key}"
            shown[name] = _rounded(scores[key])
            named = zip(self.experiment.classes, per_class.tolist(), strict=True)
            shown[f"{name}/class"] = {short: _rounded(value) for short, value in named}
        self.recorder.record({"iteration": iteration, "validation": shown})
        if self.recipe.observe:
            # A prediction may draw: what comes after must not know whether somebody looked.
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                for entry in Observer(self.experiment).entries(phase):
                    self.recorder.record({"iteration": iteration, "observed": entry})
        if better := self.selection.observe(iteration, scores):
            kept = {"method": self.method.state_dict(), "iteration": iteration}
            following = self.phases[number + 1 : number + 2]
            if phase.hand_on == "best-val" and any(after.optimizer == "keep" for after in following):
                kept["optimizers"] = self._optimizer_states()
            self._unsaved |= dict.fromkeys(better, Snapshot(kept))

    def _optimizer_states(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def _save(self, phase: int, iteration: int) -> None:
        """All state after `iteration` iterations of a phase. Random draws need none: they follow from the iteration."""
        state = {
            "phase": phase,
            "iteration": iteration,
            "method": self.method.state_dict(),
            "optimizers": self._optimizer_states(),
            "selection": self.selection.state(),
            "skipped": (self.skipped, self.in_a_row),
        }
        best = {self.selection.file(key): weights for key, weights in self._unsaved.items()}
        self.checkpoints.save(state, sum(self.lengths[:phase]) + iteration, best, self.selection.files())
        self._unsaved = {}
        self._saved = time.perf_counter()


def _losses(terms: Mapping[str, Tensor]) -> list[str]:
    return ["loss"] if "loss" in terms else [name for name in terms if name.startswith("loss/")]


def _read(terms: Mapping[str, Tensor]) -> dict[str, float | list[float]]:
    """Numbers (0-d) and lists of them (1-d), in one transfer from each device."""
    if wrong := [name for name, value in terms.items() if value.ndim > 1]:
        shape = tuple(terms[wrong[0]].shape)
        raise TrainingError(f"'{wrong[0]}' was logged in the shape {shape}: one number, or one for each class")
    read: dict[str, Tensor] = {}
    for device in {value.device for value in terms.values()}:
        there = {name: value.detach().double() for name, value in terms.items() if value.device == device}
        numbers = torch.cat([value.flatten() for value in there.values()]).cpu()
        read |= zip(there, numbers.split([value.numel() for value in there.values()]), strict=True)
    return {name: read[name].tolist() if value.ndim else read[name].item() for name, value in terms.items()}


def _rounded(value: float) -> float | None:
    """A number as records hold it; None where it is none."""
    return round(value, 6) if math.isfinite(value) else None


def _has_nan(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any())


def _sent(flag: Tensor) -> Callable[[], bool]:
    """A flag (0-d) on its way to the host; reading it waits for what made it, not for what a GPU was given after."""
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    arrived, there = torch.cuda.Event(), torch.empty((), dtype=torch.bool, pin_memory=True)
    there.copy_(flag, non_blocking=True)
    arrived.record()

    def read() -> bool:
        arrived.synchronize()
        return bool(there)

    return read


def add_plugin_terms(
    terms: dict[str, Tensor], method: Method, groups: Mapping[str, Group], batch: Batch, step: Step
) -> None:
    """A plugin's terms join the loss of the group that trains its network, and are recorded under its name."""
    for name, module in method.named_modules():
        if isinstance(module, Attached) and any(parameter.requires_grad for parameter in module.parameters()):
            target = "loss" if "loss" in terms else f"loss/{_group_of(module, groups)}"
            for label, term in module.plugin.terms(module, batch, step).items():
                terms[target] = terms[target] + term
                terms[f"{name}/{label}"] = term


def _group_of(module: torch.nn.Module, groups: Mapping[str, Group]) -> str:
    own = {id(parameter) for parameter in module.parameters()}
    return next(name for name, group in groups.items() if any(id(parameter) in own for parameter in group.parameters))


def backward(terms: Mapping[str, Tensor], groups: Mapping[str, Group]) -> None:
    """The gradients of a step: of `loss` in all parameters, or of each `loss/<group>` in that group's own."""
    if "loss" in terms:
        terms["loss"].backward()
        return
    for name, group in groups.items():
        torch.autograd.backward(terms[f"loss/{name}"], inputs=list(group.parameters))


def inherited(optimizers: Mapping[str, Any], groups: Mapping[str, Group]) -> dict[str, Any]:
    """The optimiser states that groups begin a phase with, of those of the phase before: copies, as several groups may
    be heirs of one and an optimiser writes to the state that it has loaded."""
    sources = {name: group.heir_of or name for name, group in groups.items()}
    return {name: copy.deepcopy(optimizers[source]) for name, source in sources.items() if source in optimizers}


def plugin_decays(method: torch.nn.Module) -> dict[torch.nn.Parameter, float]:
    """The weight decay of every parameter of a plugin that has one of its own."""
    plugins = [module.plugin for module in method.modules() if isinstance(module, Attached)]
    return {
        parameter: plugin.weight_decay
        for plugin in plugins
        if plugin.weight_decay is not None
        for parameter in plugin.parameters()
    }


def make_optimizer(
    spec: OptimizerSpec, group: Group, decays: Mapping[torch.nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser that a spec names, over a group's parameters; `decays`: those with a weight decay of their own.

    None is fused: torch's fused kernels take for granted that weights, gradients and momenta lie alike in memory, and
    are wrong without a word where a training goes on in another memory format.
    """
    by_decay: dict[float, list[torch.nn.Parameter]] = {}
    for parameter in group.parameters:
        by_decay.setdefault((decays or {}).get(parameter, spec.weight_decay), []).append(parameter)
    parameters = [{"params": part, "weight_decay": decay} for decay, part in by_decay.items()]
    if spec.name == "sgd":
        return torch.optim.SGD(
            parameters, spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay
        )
    kind = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return kind(parameters, spec.lr, weight_decay=spec.weight_decay)
